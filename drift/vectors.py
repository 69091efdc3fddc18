"""Vectors: whether they can be worked with, in single precision, and about which origin.

Embeddings are of shape (N, d) and any floating type; a memory map will do.
"""

import numpy as np

from drift import InputError

# Sizes of the largest value between which squared distances neither overflow nor vanish in float32.
LARGEST, SMALLEST = 1e16, 1e-12
# Rounding to float32 changes a number by at most this share of it.
UNIT_ROUNDOFF = 2.0**-24
CHUNK = 64  # squares that float32 adds at most where doubles add up the sums
PAIRS = 2048  # of rows, measured together: their numbers stay in the processor's cache


def row_blocks(
    n_rows: int, bytes_per_row: int, budget: int = 64 << 20, multiple: int = 1
) -> list[tuple[int, int]]:
    """Blocks of rows that each fit a budget of bytes, or of one row: the first, and past the last.

    Where so many fit the budget, a block holds a whole number of times `multiple` rows.
    """
    size = max(1, budget // max(1, bytes_per_row))
    size -= size % multiple if size > multiple else 0
    return [(start, min(start + size, n_rows)) for start in range(0, n_rows, size)]


def check_embeddings(
    embeddings: np.ndarray, name: str = "the embeddings", is_scaled: bool = False
) -> None:
    """Raise InputError for vectors that cannot be worked with; `name` is what it calls them.

    They must be floats or whole numbers of 8 bits, of shape (N, d), finite, and of a size whose
    squares float32 can hold, unless they are yet to be scaled.
    """
    is_number = embeddings.dtype.kind == "f" or embeddings.dtype in (np.int8, np.uint8)
    if embeddings.ndim != 2 or not is_number or embeddings.size == 0:
        raise InputError(
            f"{name} must be floats, or whole numbers of 8 bits, of shape (N, d), N and d at least "
            f"1, not {embeddings.dtype} of shape {embeddings.shape}"
            + (": save them .astype('float32')" if embeddings.dtype.kind in "iu" else "")
        )
    largest = 0.0
    for rows in _slices(embeddings):
        block = embeddings[rows]
        whole = np.isfinite(block).all(axis=1)
        if not whole.all():
            row = rows.start + int(np.argmin(whole))
            raise InputError(f"row {row} of {name} holds values that are not finite")
        largest = max(largest, float(block.max()), -float(block.min()))
    if not is_scaled and (largest > LARGEST or 0 < largest < SMALLEST):
        raise InputError(
            f"{name} go up to {largest:.3g}, and float32 cannot hold squared distances of that "
            "size: rescale them"
        )


def unit_vectors(vectors: np.ndarray, first_row: int = 0) -> np.ndarray:
    """Vectors (n, d) scaled to unit length, float32.

    Their Euclidean distance is the chord, sqrt(2 (1 - cos)), which orders neighbors as cosine does.
    An `InputError` names the row, from `first_row` on, that is all 0.
    """
    vectors = np.asarray(vectors, np.float64)
    # In two steps, since squares of the largest doubles overflow.
    largest = np.abs(vectors).max(axis=1, initial=0, keepdims=True)
    if not largest.all():
        row = first_row + int(np.argmin(largest))
        raise InputError(f"row {row} is a zero vector, of which no cosine can be taken: remove it")
    scaled = vectors / largest
    return (scaled / np.linalg.norm(scaled, axis=1, keepdims=True)).astype(np.float32)


def rounding_to_float32(embeddings: np.ndarray) -> float:
    """By how much rounding to float32 moves vectors, as a share of their distance from the mean.

    Both in the root of the mean square. The share is about 1e-8 for vectors about the origin.
    """
    if embeddings.dtype.itemsize <= 4:
        return 0.0
    mean = mean_vector(embeddings)
    moved = spread = size = 0.0
    for rows in _slices(embeddings):
        block = embeddings[rows]
        moved += float(np.square(block - block.astype(np.float32)).sum())
        spread += float(np.square(block - mean).sum())
        size += float(np.square(block).sum())
    # Of a single point, however often, there is no spread but the rounding of doubles.
    return (moved / spread) ** 0.5 if spread > 1e-30 * size else 0.0


def center(embeddings: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Vectors about the mean of `mean_vector`, float32: differences of doubles, rounded once.

    Distances do not depend on the origin, but what float32 rounds off in norms, products and sums
    does: it grows with the norms, and the mean is the origin that makes them small.
    """
    centered = np.empty(embeddings.shape, np.float32)
    for rows in _slices(embeddings):
        # No matrix of doubles is made.
        np.subtract(
            embeddings[rows], mean, out=centered[rows], dtype=np.float64, casting="same_kind"
        )
    return centered


def vector_norms(embeddings: np.ndarray) -> np.ndarray:
    """Euclidean norms, float64 (N,)."""
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
        # Faster than a minimum of some.
        smallest = min(smallest, float(np.where(sizes > 0, sizes, np.inf).min()))
    return smallest


def product_error(d: int) -> float:
    """Bound of the error of |x|^2 - 2 (xy - |y|^2 / 2), as a share of (|x| + |y|)^2.

    x and y are float32 vectors about a common origin, each coordinate rounded once; |y|^2 / 2 is
    rounded once from doubles, the product xy is a float32 sum of d terms in any order, the outer
    operations are in doubles. With u = 2^-24, xy is off by at most d u / (1 - d u) |x| |y|, the
    difference by u (|x| |y| + |y|^2) more, and |x| |y| is at most a quarter of (|x| + |y|)^2: in
    all (d / 2 + 2.5) u. Rounding the coordinates moves x - y by u (|x| + |y|), and its square by
    twice that. What is left of 8 is for products of errors.

    References
    ----------
    Higham (2002), Accuracy and stability of numerical algorithms, section 3.1.
    """
    return (d / 2 + 8) * UNIT_ROUNDOFF / (1 - d * UNIT_ROUNDOFF)


def expansion_noise(d: int) -> float:
    """What |x|^2 - 2xy + |y|^2 in float32 cannot tell apart, as a share of (|x| + |y|)^2.

    Rounding errors of a sum of d terms add up like a random walk: in units of 2^-24 of the sum, to
    a standard deviation of about sqrt(d) / 3 when terms are added one by one, and to a quarter of
    it in four lanes, as the narrowest vector units do it. The sqrt(d) + 8 units here are twelve of
    those. `product_error`, about sqrt(d) / 2 times as much, would hide neighbors that are lost.

    References
    ----------
    Higham and Mary (2019), A new approach to probabilistic rounding error analysis.
    """
    return (np.sqrt(d) + 8) * UNIT_ROUNDOFF


def pair_distances(
    points: np.ndarray, rows: np.ndarray, embeddings: np.ndarray, others: np.ndarray
) -> np.ndarray:
    """Distances of rows of `points` from others of `embeddings`, in doubles; float32 (P,)."""
    distances = np.empty(len(rows), np.float32)
    # Blocks that stay in the processor's cache, in memory that is taken once.
    blocks = row_blocks(len(rows), embeddings.shape[1] * 12, budget=2 << 20)
    shape = blocks[0][1] if blocks else 0, embeddings.shape[1]
    second, differences = np.empty(shape, embeddings.dtype), np.empty(shape)
    for start, stop in blocks:
        difference, other = differences[: stop - start], second[: stop - start]
        difference[:] = points[rows[start:stop]]
        np.take(embeddings, others[start:stop], 0, other, mode="clip")
        difference -= other
        squared = difference[:, None, :] @ difference[:, :, None]  # faster than einsum
        distances[start:stop] = np.sqrt(squared[:, 0, 0])
    return distances


def chunk_size(d: int) -> int:
    """Terms that `chunked_distances` adds in float32: 16 to 64 that divide d, or else all d."""
    return max((size for size in range(CHUNK // 4, CHUNK + 1) if d % size == 0), default=d)


def chunked_distances(
    chunk: int,
    points: np.ndarray,
    rows: np.ndarray,
    embeddings: np.ndarray,
    others: np.ndarray,
) -> np.ndarray:
    """As `pair_distances`, by float32 sums of so many squares that are added up in doubles.

    It takes a third of the time.
    """
    import faiss

    distances = np.empty(len(rows), np.float32)
    parts = embeddings.shape[1] // chunk
    points, embeddings = (
        np.ascontiguousarray(vectors).reshape(-1, chunk) for vectors in (points, embeddings)
    )
    steps = np.arange(parts)
    for start, stop in row_blocks(len(rows), 1, PAIRS):
        squared = np.empty((stop - start, parts), np.float32)
        first, second = (
            (places[start:stop, None] * parts + steps).ravel() for places in (rows, others)
        )
        arrays = (points, first, embeddings, second, squared)
        pointers = [faiss.swig_ptr(array) for array in arrays]
        faiss.pairwise_indexed_L2sqr(chunk, len(first), *pointers)
        distances[start:stop] = np.sqrt(squared.sum(axis=1, dtype=np.float64))
    return distances


def mean_vector(embeddings: np.ndarray) -> np.ndarray:
    """Mean of vectors, float64 (d,)."""
    sums = (embeddings[rows].sum(axis=0, dtype=np.float64) for rows in _slices(embeddings))
    return sum(sums) / len(embeddings)


def _slices(embeddings: np.ndarray) -> list[slice]:
    n, d = embeddings.shape
    return [slice(*rows) for rows in row_blocks(n, bytes_per_row=d * 8)]
