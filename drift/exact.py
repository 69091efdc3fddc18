"""Exact k nearest neighbors, and the distances of given ones.

Euclidean distances in this module are taken from direct differences, sum of (x_i - y_i)^2. The
expanded form |x|^2 - 2xy + |y|^2 is far faster and far less exact; it only proposes candidates.
"""

from dataclasses import dataclass

import faiss
import numpy as np

from drift import InputError
from drift.protocols import Protocol
from drift.vectors import (
    UNIT_ROUNDOFF,
    center,
    check_embeddings,
    expansion_error,
    mean_vector,
    pair_distances,
    row_blocks,
    smallest_value,
    vector_norms,
)

# Candidates proposed beyond those asked for. They cost next to nothing, and the farther the last of
# them is, the more rounding the certificate of `ExactSearch.neighbors` can stand.
SLACK = 32
# Rows by the nearest of which queries are put together before their candidates are read.
ANCHORS = 128
# Squares of what is smaller may vanish in float32, or lose bits.
SMALLEST_SAFE = 2.0**-60
# Queries that FAISS multiplies at a time. The rounding of a row depends on the product's shape.
FAISS_BLOCK = faiss.cvar.distance_compute_blas_query_bs


@dataclass(frozen=True)
class ExactNeighbors:
    """Exact neighbor lists, int32 and float32 (Q, k).

    They are by ascending Euclidean distance in double precision, rounded to float32, and then by
    id. Where the order could depend on it distances are taken in double precision, elsewhere they
    are float32 sums, off by at most (d + 5) / 2 units of 2^-24.
    """

    indices: np.ndarray
    distances: np.ndarray
    recomputed: int  # queries whose proposal was not certain: every distance was computed directly


class ExactSearch:
    """Exact search in float32 vectors (N, d), beside which a centered copy is kept.

    A memory map will do. An `InputError` says when a value is not finite.
    """

    def __init__(self, embeddings: np.ndarray):
        check_embeddings(embeddings)
        self._embeddings = embeddings
        # The error of the expanded form grows with the norms.
        self._mean = mean_vector(embeddings)
        self._centered = center(embeddings, mean=self._mean)
        # Two float32 numbers that are not the same differ by 2^-24 of the smaller one at the least.
        self._can_vanish = smallest_value(embeddings) * UNIT_ROUNDOFF < SMALLEST_SAFE

    def neighbors(
        self, queries: np.ndarray, k: int, points: np.ndarray | None = None
    ) -> ExactNeighbors:
        """The k nearest rows of each query.

        FAISS proposes k + 32 candidates by the expanded form on centered vectors; their distances
        are recomputed directly. With x the query, d dimensions and r the k-th direct distance, a
        row y no farther than r has |y| <= |x| + r, so the expanded form overestimates its squared
        distance by at most c (|x| + |y|)^2 <= c (2 |x| + r)^2, c being `expansion_error`. When the
        last proposal is beyond r^2 + c (2 |x| + r)^2, every row that belongs was proposed. Else all
        distances of that query are computed directly.

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
        Higham (2002), Accuracy and stability of numerical algorithms, section
        3.1, for the bound of a sum.
        """
        check_k(k, len(self._embeddings), leaves_out=points is None)
        vectors = self._embeddings if points is None else points
        order = np.argsort(nearest_anchors(vectors, queries, self._embeddings), kind="stable")
        own = queries if points is None else np.full(len(queries), -1)
        indices = np.empty((len(queries), k), np.int32)
        distances = np.empty((len(queries), k), np.float32)
        recomputed = 0
        # A query's vectors, twice, and its candidates with their distances in the making.
        bytes_per_row = self._embeddings.shape[1] * 8 + (k + SLACK) * 40
        for start, stop in row_blocks(len(queries), bytes_per_row):
            rows = order[start:stop]
            nearest = self._certified(vectors[queries[rows]], k, own[rows])
            indices[rows], distances[rows] = nearest.indices, nearest.distances
            recomputed += nearest.recomputed
        return ExactNeighbors(indices, distances, recomputed)

    def _certified(self, points: np.ndarray, k: int, own: np.ndarray) -> ExactNeighbors:
        """Neighbors of a few vectors; `own` is the row that each of them is, or -1."""
        n, d = self._embeddings.shape
        centered = center(points, mean=self._mean)
        proposed = min(n, k + SLACK)
        expanded, candidates = faiss.knn(centered, self._centered, proposed)
        norm = vector_norms(centered)
        rounding = expansion_error(d)
        # The k-th distance is known up to rounding already. A candidate that is farther by twice
        # of that, and twice again for what rounding adds to the bound, need not be measured.
        kth = expanded[:, min(k, proposed - 1)].astype(np.float64)
        vanished = 4 * d * SMALLEST_SAFE**2
        beyond = kth + 4 * rounding * (2 * norm + np.sqrt(np.maximum(kth, 0))) ** 2 + vanished
        candidates[expanded > beyond[:, None]] = -1
        indices, distances = self._nearest(points, candidates, k, own)

        radius = distances[:, -1].astype(np.float64)
        bound = rounding * (2 * norm + radius) ** 2 + vanished
        uncertain = np.flatnonzero((expanded[:, -1] <= radius**2 + bound) & (proposed < n))
        for start, stop in row_blocks(len(uncertain), bytes_per_row=n * 32):
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
        # Most are in order by their float32 distances; those that may not be get better ones.
        order = np.argsort(distances, axis=1)
        candidates = np.take_along_axis(candidates, order, axis=1)
        distances = np.take_along_axis(distances, order, axis=1)
        row, column = np.nonzero(near_ties(distances, k, points.shape[1], self._can_vanish))
        others = candidates[row, column]
        distances[row, column] = pair_distances(points, row, self._embeddings, others)
        candidates, distances = by_distance(candidates, distances)
        return candidates[:, :k].astype(np.int32), distances[:, :k]


def expanded_neighbors(
    embeddings: np.ndarray, queries: np.ndarray, k: int, protocol: Protocol
) -> tuple[np.ndarray, np.ndarray]:
    """Neighbors of rows `queries` as ``IndexFlatL2`` gives them; int32 and float32 (Q, k).

    By expanded float32 distances that of a row to itself is rounding noise, not quite 0, and close
    neighbors can change places. `protocol` says which neighbors are left; what is returned are
    Euclidean distances, not squared.
    """
    check_k(k, len(embeddings), leaves_out=protocol is not Protocol.NOTEBOOK)
    points = np.ascontiguousarray(embeddings[queries])
    squared, indices = faiss.knn(points, embeddings, protocol.list_length(k))
    return protocol.leave_k(indices.astype(np.int32), np.sqrt(squared), queries)


def nearest_anchors(vectors: np.ndarray, queries: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
    """Which of some rows, spread over all embeddings, is nearest to each of some vectors; (Q,).

    Queries of one anchor lie close together and have much to do with the same rows: one after the
    other they find them in the processor's cache.
    """
    anchors = np.ascontiguousarray(embeddings[:: max(1, len(embeddings) // ANCHORS)])
    nearest = np.empty(len(queries), np.int64)
    for start, stop in row_blocks(len(queries), vectors.shape[1] * 4):
        points = np.ascontiguousarray(vectors[queries[start:stop]])
        nearest[start:stop] = faiss.knn(points, anchors, 1)[1][:, 0]
    return nearest


def near_ties(distances: np.ndarray, k: int, d: int, can_vanish: bool) -> np.ndarray:
    """Which of sorted direct distances float32 may have put in a wrong order among the first k.

    Of d squared differences, each rounded three times on the way, the float32 sum is off by at most
    d + 2 units of 2^-24 of itself, in whatever order and in however many lanes it is taken, and by
    a unit more for squares that vanish. A root has half the error of its square, and a rounding of
    its own. So two distances d + 5 units apart are in order; any closer ones are too close.

    `distances`, float32 (Q, c), ascend in each row; beyond k only those matter that are too close
    to the k-th. `can_vanish` says whether there can be differences whose squares float32 does not
    hold; where there are none, a distance of 0 is exact. The result is bool (Q, c).

    References
    ----------
    Higham (2002), Accuracy and stability of numerical algorithms, section 4.2.
    """
    gap = (d + 5) * UNIT_ROUNDOFF / (1 - (d + 5) * UNIT_ROUNDOFF)
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
