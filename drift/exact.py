"""Exact k nearest neighbors, and the distances of given ones.

Euclidean distances in this module are taken from direct differences, sum of (x_i - y_i)^2. The
expanded form |x|^2 - 2xy + |y|^2 is far faster and far less exact; it only proposes candidates.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from drift import InputError
from drift.proposals import NumpyProduct, half_squares
from drift.protocols import Protocol
from drift.vectors import (
    UNIT_ROUNDOFF,
    center,
    check_embeddings,
    chunk_size,
    chunked_distances,
    mean_vector,
    pair_distances,
    product_error,
    row_blocks,
    smallest_value,
    vector_norms,
)

# Candidates proposed beyond those asked for: the farther the last of them is, the more rounding the
# certificate of `ExactSearch.neighbors` can stand.
SLACK = 32
ANCHORS = 128  # rows by the nearest of which queries are put together
SMALLEST_SAFE = 2.0**-60  # squares of what is smaller may vanish in float32, or lose bits
# Queries that one thread works on at a time, and bytes for them.
POINTS, BUDGET = 512, 32 << 20


@dataclass(frozen=True)
class ExactNeighbors:
    """Exact neighbor lists, int32 and float32 (Q, k).

    They are by ascending Euclidean distance in double precision, rounded to float32, and then by
    id. Where the order could depend on it distances are taken in better precision, at last in
    doubles; elsewhere they are float32 sums, off by at most (d + 5) / 2 units of 2^-24.
    """

    indices: np.ndarray
    distances: np.ndarray
    recomputed: int  # queries whose proposal was not certain: every distance was computed directly


class ExactSearch:
    """Exact search in float32 vectors (N, d), beside which a centered copy is kept.

    A memory map will do. An `InputError` says when a value is not finite. `product`, a class of
    `drift.proposals`, takes the centered copy and proposes; who does has no part in the result.
    """

    def __init__(
        self,
        embeddings: np.ndarray,
        threads: int = 1,
        product: Callable[[np.ndarray], NumpyProduct] = NumpyProduct,
    ):
        check_embeddings(embeddings)
        self._embeddings = embeddings
        # The error of the expanded form grows with the norms.
        self._mean = mean_vector(embeddings)
        self._threads = threads
        self._product = product(center(embeddings, mean=self._mean))
        # Two float32 numbers that are not the same differ by 2^-24 of the smaller one at the least.
        self._can_vanish = smallest_value(embeddings) * UNIT_ROUNDOFF < SMALLEST_SAFE

    def neighbors(
        self, queries: np.ndarray, k: int, points: np.ndarray | None = None
    ) -> ExactNeighbors:
        """The k nearest rows of each query.

        k + 32 candidates are proposed by the product of centered vectors; their distances are
        recomputed directly. With r the k-th of these, a proposal whose product is beyond r^2 by
        `rounding_margin` is truly farther than r. When the last proposal is, every row that belongs
        was proposed. Else all distances of that query are computed directly.

        Parameters
        ----------
        queries : ndarray of int, shape (Q,)
            Rows to search for, which are no neighbors of their own; or rows of `points`.
        k : int
            Neighbors for each. An `InputError` says when there are fewer rows to choose from.
        points : ndarray of float32, shape (P, d), optional
            Vectors from outside, of which every row may be a neighbor.

        References
        ----------
        Higham (2002), Accuracy and stability of numerical algorithms, section 3.1.
        """
        check_k(k, len(self._embeddings), leaves_out=points is None)
        vectors = self._embeddings if points is None else points
        order = np.argsort(nearest_anchors(vectors, queries, self._embeddings), kind="stable")
        own = queries if points is None else np.full(len(queries), -1)
        indices = np.empty((len(queries), k), np.int32)
        distances = np.empty((len(queries), k), np.float32)

        def fill(block: tuple[int, int]) -> int:
            rows = order[slice(*block)]
            nearest = self._certified(vectors[queries[rows]], k, own[rows])
            indices[rows], distances[rows] = nearest.indices, nearest.distances
            return nearest.recomputed

        # A query's vectors, twice, and its candidates with their distances in the making.
        bytes_per_row = self._embeddings.shape[1] * 8 + (k + SLACK) * 128
        largest = min(POINTS, max(1, BUDGET // bytes_per_row))
        # As many blocks for each thread, none of which is long after the others.
        rounds = max(1, -(-len(queries) // (largest * self._threads)))
        blocks = row_blocks(len(queries), 1, max(1, -(-len(queries) // (rounds * self._threads))))
        # Threads that each work on their own need not wait for each other.
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(self._threads, "", _alone) as pool:
            return ExactNeighbors(indices, distances, sum(pool.map(fill, blocks)))

    def _certified(self, points: np.ndarray, k: int, own: np.ndarray) -> ExactNeighbors:
        """Neighbors of a few vectors; `own` is the row that each of them is, or -1."""
        n, d = self._embeddings.shape
        centered = center(points, mean=self._mean)
        norm = vector_norms(centered)
        proposed = min(n, k + SLACK)
        candidates, expanded = self._product.propose(centered, proposed)
        # The k-th distance is known up to rounding already. A candidate that is farther by a few
        # times of that need not be measured.
        kth = np.partition(expanded, min(k, proposed - 1), axis=1)[:, min(k, proposed - 1)]
        beyond = kth + 4 * rounding_margin(d, norm, np.sqrt(np.maximum(kth, 0)))
        candidates[expanded > beyond[:, None]] = -1
        indices, distances = self._nearest(points, candidates, k, own)

        radius = distances[:, -1].astype(np.float64)
        bound = radius**2 + rounding_margin(d, norm, radius)
        uncertain = np.flatnonzero((expanded.max(axis=1) <= bound) & (proposed < n))
        for start, stop in row_blocks(len(uncertain), bytes_per_row=n * 100):
            rows = uncertain[start:stop]
            everything = np.tile(np.arange(n), (len(rows), 1))
            indices[rows], distances[rows] = self._nearest(points[rows], everything, k, own[rows])
        return ExactNeighbors(indices, distances, len(uncertain))

    def _nearest(
        self, points: np.ndarray, candidates: np.ndarray, k: int, own: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest of given candidates, by direct differences."""
        candidates = np.where(candidates == own[:, None], -1, candidates)
        distances = neighbor_distances(points, self._embeddings, candidates)
        order = np.argsort(distances, axis=1)
        candidates = np.take_along_axis(candidates, order, axis=1)
        distances = np.take_along_axis(distances, order, axis=1)
        # Most are in order by their float32 sums; those that may not be get better distances.
        d = points.shape[1]
        chunk = chunk_size(d)
        better = [(d, partial(chunked_distances, chunk))] if chunk < d else []
        for terms, measure in (*better, (chunk + (chunk < d), pair_distances)):
            row, column = np.nonzero(near_ties(distances, k, d, terms, self._can_vanish))
            # Queries that have much to do with the same rows find them in the processor's cache.
            order = np.argsort(candidates[row, column].astype(np.int32))
            row, column = row[order], column[order]
            others = candidates[row, column]
            distances[row, column] = measure(points, row, self._embeddings, others)
            candidates, distances = by_distance(candidates, distances)
        return candidates[:, :k].astype(np.int32), distances[:, :k]


def _alone() -> None:
    """Let FAISS use no other threads than the one that this is called in."""
    import faiss

    faiss.omp_set_num_threads(1)


def rounding_margin(d: int, norm: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """How far beyond r^2 a proposal's product must be for the row to be truly farther than r.

    With the query at |x| = `norm`, the row at r is at most at |x| + r, so that its product is off
    by at most c (2 |x| + r)^2, c being `product_error`. The row is then farther than r by more than
    what `near_ties` calls close, twice over: 2 (d + 6) units of r, and so 4 (d + 6) of r^2; what is
    close to r does not depend on who proposed.
    """
    close = 4 * (d + 6) * UNIT_ROUNDOFF * radius**2
    return product_error(d) * (2 * norm + radius) ** 2 + close + 4 * d * SMALLEST_SAFE**2


def expanded_neighbors(
    embeddings: np.ndarray, queries: np.ndarray, k: int, protocol: Protocol
) -> tuple[np.ndarray, np.ndarray]:
    """Neighbors of rows `queries` as ``IndexFlatL2`` gives them; int32 and float32 (Q, k).

    By expanded float32 distances that of a row to itself is rounding noise, not quite 0, and close
    neighbors can change places. `protocol` says which neighbors are left; what is returned are
    Euclidean distances, not squared.
    """
    import faiss

    check_k(k, len(embeddings), leaves_out=protocol is not Protocol.NOTEBOOK)
    points = np.ascontiguousarray(embeddings[queries])
    squared, indices = faiss.knn(points, embeddings, protocol.list_length(k))
    return protocol.leave_k(indices.astype(np.int32), np.sqrt(squared), queries)


def nearest_anchors(vectors: np.ndarray, queries: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
    """Which of some rows, spread over all embeddings, is nearest to each of some vectors; (Q,).

    Queries of one anchor lie close together and have much to do with the same rows: one after the
    other they find them in the processor's cache.
    """
    anchors = np.asarray(embeddings[:: max(1, len(embeddings) // ANCHORS)], np.float32)
    halves = half_squares(anchors)
    nearest = np.empty(len(queries), np.int64)
    for start, stop in row_blocks(len(queries), vectors.shape[1] * 4):
        points = np.asarray(vectors[queries[start:stop]], np.float32)
        nearest[start:stop] = np.argmax(points @ anchors.T - halves, axis=1)
    return nearest


def near_ties(distances: np.ndarray, k: int, d: int, terms: int, can_vanish: bool) -> np.ndarray:
    """Which of sorted direct distances float32 may have put in a wrong order among the first k.

    Of squared differences, each rounded three times on the way, the float32 sum of t terms is off
    by at most t + 2 units of 2^-24 of itself, in whatever order it is taken, and by a unit more for
    squares that vanish. A root has half the error of its square, and a rounding of its own. So two
    distances t + 5 units apart are in order. Of `neighbor_distances` t is d. Of `chunked_distances`
    it is that of a chunk, and one more: all terms are positive, so that sums of chunks are off by
    as much together, and adding d / t of them in doubles does less than a unit.

    `distances`, float32 (Q, c), ascend in each row; beyond k only those matter that are too close
    to the k-th. `can_vanish` says whether there can be differences whose squares float32 does not
    hold; where there are none, a distance of 0 is exact. The result is bool (Q, c).

    References
    ----------
    Higham (2002), Accuracy and stability of numerical algorithms, section 4.2.
    """
    gap = (terms + 5) * UNIT_ROUNDOFF / (1 - (terms + 5) * UNIT_ROUNDOFF)
    with np.errstate(invalid="ignore"):
        close = np.diff(distances, axis=1) <= gap * distances[:, 1:]
    tied = np.zeros(distances.shape, bool)
    tied[:, 1:] |= close
    tied[:, :-1] |= close
    # Up to d squares of up to SMALLEST_SAFE^2 are missing: beyond this less than a unit of the sum.
    floor = d**0.5 * SMALLEST_SAFE / UNIT_ROUNDOFF**0.5 if can_vanish else 0.0
    tied = np.where(distances <= floor, can_vanish, tied)
    limit = np.maximum(distances[:, k - 1 : k].astype(np.float64) * (1 + 2 * gap), floor)
    tied[:, k:] &= distances[:, k:] <= limit
    return tied & np.isfinite(distances)


def neighbor_distances(
    points: np.ndarray, embeddings: np.ndarray, indices: np.ndarray
) -> np.ndarray:
    """Distances of float32 points (Q, d) from given rows, (Q, k), by direct differences.

    Those of an id -1 are +inf.
    """
    import faiss

    points = np.ascontiguousarray(points)
    ids = np.ascontiguousarray(indices, dtype=np.int64)
    squared = np.empty(ids.shape, np.float32)
    (n_queries, k), d = ids.shape, embeddings.shape[1]
    pointers = [faiss.swig_ptr(array) for array in (squared, points, embeddings, ids)]
    faiss.fvec_L2sqr_by_idx(*pointers, d, n_queries, k)
    # FAISS leaves the place of a missing row as it was.
    squared[ids < 0] = np.inf
    return np.sqrt(squared, out=squared)


def by_distance(indices: np.ndarray, distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort each row by distance, and neighbors at the same distance by id."""
    descends = distances[:, 1:] < distances[:, :-1]
    descends |= (distances[:, 1:] == distances[:, :-1]) & (indices[:, 1:] < indices[:, :-1])
    rows = np.flatnonzero(descends.any(axis=1))  # most are in order as they come
    order = np.lexsort((indices[rows], distances[rows]))
    indices, distances = indices.copy(), distances.copy()
    indices[rows] = np.take_along_axis(indices[rows], order, axis=1)
    distances[rows] = np.take_along_axis(distances[rows], order, axis=1)
    return indices, distances


def check_k(k: int, n: int, leaves_out: bool) -> None:
    """Raise InputError when `n` rows, or one less, are too few for `k` neighbors each."""
    available = n - leaves_out
    if k > available:
        advice = f"take --k-max {available} at most" if available else "there must be more rows"
        raise InputError(
            f"{n} {'row gives' if n == 1 else 'rows give'} a query at most {available} neighbors, "
            f"fewer than k = {k}: {advice}"
        )
