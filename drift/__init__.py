"""What an approximate nearest-neighbor index does to the shape of neighborhoods."""

import contextlib
from collections.abc import Iterator
from pathlib import Path


class InputError(ValueError):
    """The input cannot be used; the message says why, in one line, and what to do."""


@contextlib.contextmanager
def add_filename(path: Path) -> Iterator[None]:
    """Add the file's name to an error of the system: that of a write to a full disk has none."""
    try:
        yield
    except OSError as error:
        if error.errno and not error.filename:
            error.filename = str(path)
        raise
