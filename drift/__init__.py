"""What an approximate nearest-neighbor index does to the shape of neighborhoods."""


class InputError(ValueError):
    """What was given cannot be worked with; the message says why, in one line, and what to do."""
