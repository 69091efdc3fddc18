"""Whether vectors can be worked with."""

import numpy as np

from drift import InputError
from drift.blocks import row_blocks


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
        Unless they are floating-point numbers of shape (N, d), N and d at least 1, and finite. The
        message names the first row that is not.
    """
    if embeddings.ndim != 2 or embeddings.dtype.kind != "f" or embeddings.size == 0:
        raise InputError(
            f"{name} must be floats of shape (N, d), N and d at least 1, not {embeddings.dtype} "
            f"of shape {embeddings.shape}"
        )
    n, d = embeddings.shape
    for start, stop in row_blocks(n, bytes_per_row=d * embeddings.itemsize):
        whole = np.isfinite(embeddings[start:stop]).all(axis=1)
        if not whole.all():
            row = start + int(np.argmin(whole))
            raise InputError(f"row {row} of {name} holds values that are not finite")
