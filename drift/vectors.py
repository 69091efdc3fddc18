"""Whether vectors can be worked with."""

import numpy as np

from drift import InputError
from drift.blocks import row_blocks

# Sizes of the largest value between which squared distances neither overflow nor vanish in float32.
LARGEST, SMALLEST = 1e16, 1e-12


def check_embeddings(embeddings: np.ndarray, name: str = "the embeddings") -> None:
    """Check vectors, block by block.

    Parameters
    ----------
    embeddings : ndarray
        Anything; a memory map will do.
    name : str
        What to call them in a message.

    Raises
    ------
    InputError
        Unless they are floating-point numbers of shape (N, d), N and d at least 1, finite, and of a
        size whose squares float32 can hold. The message names the first row that is not finite.
    """
    if embeddings.ndim != 2 or embeddings.dtype.kind != "f" or embeddings.size == 0:
        raise InputError(
            f"{name} must be floats of shape (N, d), N and d at least 1, not {embeddings.dtype} "
            f"of shape {embeddings.shape}"
        )
    n, d = embeddings.shape
    largest = 0.0
    for start, stop in row_blocks(n, bytes_per_row=d * embeddings.itemsize):
        whole = np.isfinite(embeddings[start:stop]).all(axis=1)
        if not whole.all():
            row = start + int(np.argmin(whole))
            raise InputError(f"row {row} of {name} holds values that are not finite")
        largest = max(largest, float(np.abs(embeddings[start:stop]).max()))
    if largest > LARGEST or 0 < largest < SMALLEST:
        raise InputError(
            f"{name} go up to {largest:.3g}, and float32 cannot hold squared distances of that "
            "size: rescale them"
        )
