"""Vectors: whether they can be worked with, in single precision, and about which origin."""

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


def to_float32(embeddings: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Some rows of embeddings in single precision.

    Parameters
    ----------
    embeddings : ndarray of any floating type, shape (N, d)
        All rows.
    start, stop : int
        First row, and the row after the last.

    Returns
    -------
    ndarray of float32, shape (stop - start, d)

    Raises
    ------
    InputError
        When a value is not finite, or too large for float32; the message names the row.
    """
    rows = embeddings[start:stop]
    with np.errstate(over="ignore"):
        converted = rows.astype(np.float32)
    broken = np.flatnonzero(~np.isfinite(converted).all(axis=1))
    if broken.size:
        row = int(broken[0])
        why = "too large for float32" if np.isfinite(rows[row]).all() else "not finite"
        raise InputError(f"row {start + row} of the embeddings holds values that are {why}")
    return converted


def center(embeddings: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Vectors about their mean.

    Distances do not depend on the origin, but what float32 rounds off in norms, products and sums
    does: it grows with the norms, and the mean is the origin that makes them small.

    Parameters
    ----------
    embeddings : ndarray of float32, shape (N, d)
        The vectors; a memory map will do.
    out : ndarray of float32, shape (N, d), optional
        Where to put them: a new array without it; `embeddings` itself will do.

    Returns
    -------
    ndarray of float32, shape (N, d)
        `out`. The differences are taken in double precision and rounded once.
    """
    n, d = embeddings.shape
    blocks = row_blocks(n, bytes_per_row=d * 8)
    mean = sum(embeddings[start:stop].sum(axis=0, dtype=np.float64) for start, stop in blocks) / n
    out = np.empty((n, d), np.float32) if out is None else out
    for start, stop in blocks:
        # No matrix of doubles is made.
        rows = slice(start, stop)
        np.subtract(embeddings[rows], mean, out=out[rows], dtype=np.float64, casting="same_kind")
    return out
