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
    """Exact neighbor lists.

    Attributes
    ----------
    indices : ndarray of int32, shape (Q, k)
        Neighbors by ascending distance, those at the same distance by ascending id. What counts is
        the distance in double precision, rounded to float32.
    distances : ndarray of float32, shape (Q, k)
        Euclidean, not squared. Where the order could depend on it they are taken in double
        precision; elsewhere they are float32 sums, off by at most (d + 5) / 2 units of 2^-24.
    recomputed : int
        Queries for which the proposal was not certain, and every distance was computed directly.
    """

    indices: np.ndarray
    distances: np.ndarray
    recomputed: int


class ExactSearch:
    """Exact search in a set of vectors.

    Parameters
    ----------
    embeddings : ndarray of float32, shape (N, d)
        The vectors; a memory map will do. A centered copy is kept beside it.

    Raises
    ------
    InputError
        When a value is not finite.
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
        """The k nearest rows of each query, a row itself, which is none of them, or a vector.

        FAISS proposes k + 32 candidates by the expanded form on centered vectors; their distances
        are recomputed directly. With x the query, d dimensions and r the k-th direct distance, a
        row y no farther than r has |y| <= |x| + r, so the expanded form overestimates its squared
        distance by at most c (|x| + |y|)^2 <= c (2 |x| + r)^2, c being `expansion_error`. When the
        last proposal is beyond r^2 + c (2 |x| + r)^2, every row that belongs was proposed. Else all
        distances of that query are computed directly.

        Parameters
        ----------
        queries : ndarray of int, shape (Q,)
            Rows to search for; of `points`, where those are given.
        k : int
            Neighbors for each.
        points : ndarray of float32, shape (P, d), optional
            Vectors from outside, of which every row may be a neighbor.

        Returns
        -------
        ExactNeighbors

        Raises
        ------
        InputError
            When there are fewer than k rows to choose from.

        References
        ----------
        Higham (2002), Accuracy and stability of numerical algorithms, section
        3.1, for the bound of a sum.
        """
        check_k(k, len(self._embeddings), leaves_out=points is None)
        vectors = self._embeddings if points is None else points
        order = np.argsort(nearest_anchors(vectors, queries, self._embeddings), kind="stable")
        indices = np.empty((len(queries), k), np.int32)
        distances = np.empty((len(queries), k), np.float32)
        recomputed = 0
        # The vectors of a query, twice, and its candidates with their distances in the making.
        bytes_per_row = self._embeddings.shape[1] * 8 + (k + SLACK) * 40
        for start, stop in row_blocks(len(queries), bytes_per_row):
            rows = order[start:stop]
            found = self._certified(
                vectors[queries[rows]], k, queries[rows] if points is None else None
            )
            indices[rows], distances[rows] = found.indices, found.distances
            recomputed += found.recomputed
        return ExactNeighbors(indices, distances, recomputed)

    def _about_mean(self, points: np.ndarray) -> np.ndarray:
        return center(points, mean=self._mean)

    def _certified(self, points: np.ndarray, k: int, itself: np.ndarray | None) -> ExactNeighbors:
        """The k nearest rows of a few vectors; `itself` is the row that each of them is."""
        n, d = self._embeddings.shape
        centered = self._about_mean(points)
        proposed = min(n, k + SLACK)
        expanded, candidates = faiss.knn(centered, self._centered, proposed)
        norm = np.sqrt(np.einsum("qd,qd->q", centered, centered, dtype=np.float64))
        rounding = expansion_error(d)
        # The k-th distance is known up to rounding already. A candidate that is farther by twice
        # of that, and twice again for what rounding adds to the bound, need not be measured.
        kth = expanded[:, min(k, proposed - 1)].astype(np.float64)
        vanished = 4 * d * SMALLEST_SAFE**2
        beyond = kth + 4 * rounding * (2 * norm + np.sqrt(np.maximum(kth, 0))) ** 2 + vanished
        candidates[expanded > beyond[:, None]] = -1
        indices, distances = self._nearest(points, candidates, k, itself)

        radius = distances[:, -1].astype(np.float64)
        bound = rounding * (2 * norm + radius) ** 2 + vanished
        uncertain = np.flatnonzero((expanded[:, -1] <= radius**2 + bound) & (proposed < n))
        for start, stop in row_blocks(len(uncertain), bytes_per_row=n * 32):
            rows = uncertain[start:stop]
            everything = np.tile(np.arange(n), (len(rows), 1))
            indices[rows], distances[rows] = self._nearest(
                points[rows], everything, k, None if itself is None else itself[rows]
            )
        return ExactNeighbors(indices, distances, len(uncertain))

    def _nearest(
        self, points: np.ndarray, candidates: np.ndarray, k: int, itself: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest of given candidates, by direct differences."""
        if itself is not None:
            candidates = np.where(candidates == itself[:, None], -1, candidates)
        distances = neighbor_distances(points, self._embeddings, candidates)
        # Most candidates are ordered by their float32 distances; those that are not get better
        # ones.
        order = np.argsort(distances, axis=1)
        candidates = np.take_along_axis(candidates, order, axis=1)
        distances = np.take_along_axis(distances, order, axis=1)
        tied = near_ties(distances, k, self._embeddings.shape[1], self._can_vanish)
        row, column = np.nonzero(tied)
        others = candidates[row, column]
        distances[row, column] = pair_distances(points, row, self._embeddings, others)
        candidates, distances = by_distance(candidates, distances)
        return candidates[:, :k].astype(np.int32), distances[:, :k]


def expanded_neighbors(
    embeddings: np.ndarray, queries: np.ndarray, k: int, protocol: Protocol
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest rows as ``IndexFlatL2`` gives them, by expanded float32 distances.

    The distance of a row to itself is rounding noise here, not quite 0, and close neighbors can
    change places.

    Parameters
    ----------
    embeddings : ndarray of float32, shape (N, d)
        The vectors.
    queries : ndarray of int, shape (Q,)
        Rows to search for.
    k : int
        Neighbors for each, at most as many as `protocol` can leave.
    protocol : Protocol
        Which of them are left.

    Returns
    -------
    indices : ndarray of int32, shape (Q, k)
    distances : ndarray of float32, shape (Q, k)
        Euclidean, not squared.
    """
    check_k(k, len(embeddings), leaves_out=protocol is not Protocol.NOTEBOOK)
    points = np.ascontiguousarray(embeddings[queries])
    squared, indices = faiss.knn(points, embeddings, protocol.list_length(k))
    return protocol.leave_k(indices.astype(np.int32), np.sqrt(squared), queries)


def nearest_anchors(vectors: np.ndarray, queries: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
    """Which of some rows of the embeddings, spread over all, is nearest to each query.

    Those of one anchor lie close together and have much to do with the same rows: one after the
    other they find them in the processor's cache.

    Parameters
    ----------
    vectors, queries
        Float32 vectors (P, d), and which of them are searched for, (Q,).
    embeddings : ndarray of float32, shape (N, d)
        The rows.

    Returns
    -------
    ndarray of int64, shape (Q,)
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

    Parameters
    ----------
    distances : ndarray of float32, shape (Q, c)
        Ascending in each row, c >= k.
    k : int
        Beyond it only those matter that are too close to the k-th.
    d : int
        Dimensions.
    can_vanish : bool
        Whether there can be differences whose squares float32 does not hold. Where there are none,
        a distance of 0 is exact.

    Returns
    -------
    ndarray of bool, shape (Q, c)

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
    """Euclidean distances from vectors to given rows, by direct differences.

    Parameters
    ----------
    points : ndarray of float32, shape (Q, d)
        Where to measure from.
    embeddings : ndarray of float32, shape (N, d)
        The rows.
    indices : ndarray of int, shape (Q, k)
        Rows to measure the distance to; -1 for none.

    Returns
    -------
    ndarray of float32, shape (Q, k)
        Euclidean, not squared; +inf where there is no row.
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
