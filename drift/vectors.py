"""Vectors: whether they can be worked with, in single precision, and about which origin."""

import numpy as np

from drift import InputError

# Sizes of the largest value between which squared distances neither overflow nor vanish in float32.
LARGEST, SMALLEST = 1e16, 1e-12
# Rounding to float32 changes a number by at most this share of it.
UNIT_ROUNDOFF = 2.0**-24


def row_blocks(
    n_rows: int, bytes_per_row: int, budget: int = 64 << 20, multiple: int = 1
) -> list[tuple[int, int]]:
    """Cut rows into blocks that each fit a buffer.

    Parameters
    ----------
    n_rows : int
        Rows in all.
    bytes_per_row : int
        Memory that the work on one row needs.
    budget : int
        Bytes that one block may need. A block holds one row at the least.
    multiple : int
        Rows that a block holds a whole number of times, where so many fit the budget.

    Returns
    -------
    list of (int, int)
        First row of each block, and the row after its last.
    """
    size = max(1, budget // max(1, bytes_per_row))
    size -= size % multiple if size > multiple else 0
    return [(start, min(start + size, n_rows)) for start in range(0, n_rows, size)]


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


def rounding_to_float32(embeddings: np.ndarray) -> float:
    """By how much rounding to float32 moves vectors, as a share of their distance from the mean.

    Parameters
    ----------
    embeddings : ndarray of any floating type, shape (N, d)
        The vectors; a memory map will do.

    Returns
    -------
    float
        The ratio of the two, each the root of the mean square over the vectors. It is about 1e-8
        for vectors about the origin, and grows with the distance of their mean from it.
    """
    if embeddings.dtype.itemsize <= 4:
        return 0.0
    mean = _mean(embeddings)
    moved = spread = size = 0.0
    for rows in _slices(embeddings):
        block = embeddings[rows]
        moved += float(np.square(block - block.astype(np.float32)).sum())
        spread += float(np.square(block - mean).sum())
        size += float(np.square(block).sum())
    # Of a single point, however often, there is no spread but the rounding of doubles.
    return (moved / spread) ** 0.5 if spread > 1e-30 * size else 0.0


def center(embeddings: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Vectors about their mean.

    Distances do not depend on the origin, but what float32 rounds off in norms, products and sums
    does: it grows with the norms, and the mean is the origin that makes them small.

    Parameters
    ----------
    embeddings : ndarray of any floating type, shape (N, d)
        The vectors; a memory map will do.
    out : ndarray of float32, shape (N, d), optional
        Where to put them: a new array without it; `embeddings` itself will do.

    Returns
    -------
    ndarray of float32, shape (N, d)
        `out`. The differences are taken in double precision and rounded once.
    """
    mean = _mean(embeddings)
    out = np.empty(embeddings.shape, np.float32) if out is None else out
    for rows in _slices(embeddings):
        # No matrix of doubles is made.
        np.subtract(embeddings[rows], mean, out=out[rows], dtype=np.float64, casting="same_kind")
    return out


def vector_norms(embeddings: np.ndarray) -> np.ndarray:
    """Euclidean norms of vectors of any floating type, (N, d) to float64 (N,)."""
    norms = np.empty(len(embeddings))
    for rows in _slices(embeddings):
        block = np.asarray(embeddings[rows])
        norms[rows] = np.sqrt(np.einsum("nd,nd->n", block, block, dtype=np.float64))
    return norms


def smallest_value(embeddings: np.ndarray) -> float:
    """Size of the smallest value that is not 0; +inf where all are."""
    smallest = np.inf
    for rows in _slices(embeddings):
        sizes = np.abs(embeddings[rows])
        smallest = min(smallest, float(np.min(sizes, where=sizes > 0, initial=np.inf)))
    return smallest


def expansion_error(d: int) -> float:
    """Bound of the error of |x|^2 - 2xy + |y|^2 in float32, as a share of (|x| + |y|)^2.

    It covers every rounding of centered vectors of d dimensions on the way, however unlucky.
    """
    return (2 * d + 16) * UNIT_ROUNDOFF


def expansion_noise(d: int) -> float:
    """What |x|^2 - 2xy + |y|^2 in float32 cannot tell apart, as a share of (|x| + |y|)^2.

    Rounding errors are as often up as down, so those of a sum of d terms add up like a random walk:
    in units of 2^-24 of the sum, to a standard deviation of about sqrt(d) / 3 when the terms are
    added one by one, and to a quarter of it in four lanes, as the narrowest vector units do it. The
    sqrt(d) + 8 units here are twelve of those. `expansion_error` would be about 2 sqrt(d) times as
    much: it certifies, but of image embeddings it hides neighbors that are truly lost.

    References
    ----------
    Higham and Mary (2019), A new approach to probabilistic rounding error analysis.
    """
    return (np.sqrt(d) + 8) * UNIT_ROUNDOFF


def pair_distances(embeddings: np.ndarray, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Euclidean distances of pairs of rows in double precision, rounded to float32; (P,)."""
    distances = np.empty(len(rows), np.float32)
    # Blocks that stay in the processor's cache are twice as fast.
    for start, stop in row_blocks(len(rows), embeddings.shape[1] * 16, budget=2 << 20):
        pair = embeddings[rows[start:stop]], embeddings[others[start:stop]]
        difference = np.subtract(*pair, dtype=np.float64)
        distances[start:stop] = np.sqrt(np.einsum("pd,pd->p", difference, difference))
    return distances


def _mean(embeddings: np.ndarray) -> np.ndarray:
    sums = (embeddings[rows].sum(axis=0, dtype=np.float64) for rows in _slices(embeddings))
    return sum(sums) / len(embeddings)


def _slices(embeddings: np.ndarray) -> list[slice]:
    n, d = embeddings.shape
    return [slice(*rows) for rows in row_blocks(n, bytes_per_row=d * 8)]
