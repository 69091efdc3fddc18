"""Exact k nearest neighbors, and the distances of given ones.

Euclidean distances in this module are taken from direct differences, sum of (x_i - y_i)^2. The
expanded form |x|^2 - 2xy + |y|^2 is far faster and far less exact; it only proposes candidates.
"""

from dataclasses import dataclass

import faiss
import numpy as np

from drift import InputError
from drift.blocks import row_blocks
from drift.vectors import center, check_embeddings

# Rounding to float32 changes a number by at most this share of it.
UNIT_ROUNDOFF = 2.0**-24
# Candidates proposed beyond those asked for. They cost next to nothing, and the farther the last of
# them is, the more rounding the certificate of `ExactSearch.neighbors` can stand.
SLACK = 32
# Rows by the nearest of which queries are put together before their candidates are read.
ANCHORS = 128
# Queries that FAISS multiplies at a time. The rounding of a row depends on the product's shape.
FAISS_BLOCK = faiss.cvar.distance_compute_blas_query_bs


@dataclass(frozen=True)
class ExactNeighbors:
    """Exact neighbor lists.

    Attributes
    ----------
    indices : ndarray of int32, shape (Q, k)
        Neighbors by ascending distance, those at the same distance by ascending id.
    distances : ndarray of float32, shape (Q, k)
        Euclidean, not squared.
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
        self._centered = center(embeddings)
        n = len(embeddings)
        _, anchor = faiss.knn(self._centered, self._centered[:: max(1, n // ANCHORS)], 1)
        self._anchor = anchor[:, 0]

    def neighbors(self, queries: np.ndarray, k: int, include_self: bool = False) -> ExactNeighbors:
        """The k nearest rows of each query row.

        FAISS proposes k + 32 candidates by the expanded form on centered vectors; their distances
        are recomputed directly. With x the query, d dimensions and r the k-th direct distance, a
        row y no farther than r has |y| <= |x| + r, so the expanded form overestimates its squared
        distance by at most c (|x| + |y|)^2 <= c (2 |x| + r)^2, c being `expansion_error`. When the
        last proposal is beyond r^2 + c (2 |x| + r)^2, every row that belongs was proposed. Else all
        distances of that query are computed directly.

        Parameters
        ----------
        queries : ndarray of int, shape (Q,)
            Rows to search for.
        k : int
            Neighbors for each.
        include_self : bool
            Whether a row may be its own neighbor.

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
        check_k(k, len(self._embeddings), include_self)
        # Queries that lie close together share candidates: one after the other, they find them in
        # the processor's cache.
        order = np.argsort(self._anchor[queries], kind="stable")
        indices = np.empty((len(queries), k), np.int32)
        distances = np.empty((len(queries), k), np.float32)
        recomputed = 0
        # The vectors of a query, twice, and its candidates with their distances in the making.
        bytes_per_row = self._embeddings.shape[1] * 8 + (k + SLACK) * 40
        for start, stop in row_blocks(len(queries), bytes_per_row):
            rows = order[start:stop]
            found = self._certified(queries[rows], k, include_self)
            indices[rows], distances[rows] = found.indices, found.distances
            recomputed += found.recomputed
        return ExactNeighbors(indices, distances, recomputed)

    def _certified(self, queries: np.ndarray, k: int, include_self: bool) -> ExactNeighbors:
        """The k nearest rows of a few queries."""
        n, d = self._embeddings.shape
        points = self._centered[queries]
        proposed = min(n, k + SLACK)
        expanded, candidates = faiss.knn(points, self._centered, proposed)
        norm = np.sqrt(np.einsum("qd,qd->q", points, points, dtype=np.float64))
        rounding = expansion_error(d)
        # The k-th distance is known up to rounding already. A candidate that is farther by twice
        # of that, and twice again for what rounding adds to the bound, need not be measured.
        kth = expanded[:, min(k, proposed - 1)].astype(np.float64)
        beyond = kth + 4 * rounding * (2 * norm + np.sqrt(np.maximum(kth, 0))) ** 2
        candidates[expanded > beyond[:, None]] = -1
        indices, distances = self._nearest(queries, candidates, k, include_self)

        radius = distances[:, -1].astype(np.float64)
        bound = rounding * (2 * norm + radius) ** 2
        uncertain = np.flatnonzero((expanded[:, -1] <= radius**2 + bound) & (proposed < n))
        for start, stop in row_blocks(len(uncertain), bytes_per_row=n * 32):
            rows = uncertain[start:stop]
            everything = np.tile(np.arange(n), (len(rows), 1))
            indices[rows], distances[rows] = self._nearest(
                queries[rows], everything, k, include_self
            )
        return ExactNeighbors(indices, distances, len(uncertain))

    def _nearest(
        self, queries: np.ndarray, candidates: np.ndarray, k: int, include_self: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest of given candidates, by direct differences."""
        if not include_self:
            candidates = np.where(candidates == queries[:, None], -1, candidates)
        distances = neighbor_distances(self._embeddings, queries, candidates)
        # Most candidates are told apart by their float32 distances; those that are not get better
        # ones.
        order = np.argsort(distances, axis=1)
        candidates = np.take_along_axis(candidates, order, axis=1)
        distances = np.take_along_axis(distances, order, axis=1)
        tied = near_ties(distances, self._embeddings.shape[1])
        # Beyond k only those matter that hang together with the k-th.
        tied[:, k:] &= np.logical_and.accumulate(tied[:, k:], axis=1)
        at, column = np.nonzero(tied)
        others = candidates[at, column]
        distances[at, column] = pair_distances(self._embeddings, queries[at], others)
        candidates, distances = by_distance(candidates, distances)
        return candidates[:, :k].astype(np.int32), distances[:, :k]


def expansion_error(d: int) -> float:
    """Bound of the error of |x|^2 - 2xy + |y|^2 in float32, as a share of (|x| + |y|)^2.

    It covers every rounding of centered vectors of d dimensions on the way.
    """
    return (2 * d + 16) * UNIT_ROUNDOFF


def expanded_neighbors(
    embeddings: np.ndarray, queries: np.ndarray, k: int, include_self: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest rows as ``IndexFlatL2`` gives them, by expanded float32 distances.

    The distance of a row to itself is rounding noise here, not quite 0, and close neighbors can
    change places.

    Parameters and errors are those of `ExactSearch.neighbors`.

    Returns
    -------
    indices : ndarray of int32, shape (Q, k)
    distances : ndarray of float32, shape (Q, k)
        Euclidean, not squared.
    """
    check_k(k, len(embeddings), include_self)
    points = np.ascontiguousarray(embeddings[queries])
    squared, indices = faiss.knn(points, embeddings, k if include_self else k + 1)
    distances = np.sqrt(squared)
    if not include_self:
        indices, distances = drop_self(indices, distances, queries)
    return indices.astype(np.int32), distances


def near_ties(distances: np.ndarray, d: int) -> np.ndarray:
    """Which of sorted direct distances are too close to a neighbor's for float32 to order them.

    Rounding errors are as often up as down, so those of a sum of d squares add up like a random
    walk: in units of 2^-24 of the sum, to a standard deviation of about sqrt(d) / 3 when the terms
    are added one by one, and to a quarter of it in four lanes, as the narrowest vector units do it.
    A root has half the error of its square. The gap of sqrt(d / 8) + 8 units between two distances
    is more than six standard deviations of their difference then, whatever d is.

    Parameters
    ----------
    distances : ndarray of float32, shape (Q, k)
        Ascending in each row. Zero is exact, since no rounding makes a sum of squares zero.
    d : int
        Dimensions.

    Returns
    -------
    ndarray of bool, shape (Q, k)

    References
    ----------
    Higham and Mary (2019), A new approach to probabilistic rounding error analysis.
    """
    gap = (np.sqrt(d / 8) + 8) * UNIT_ROUNDOFF
    with np.errstate(invalid="ignore"):
        close = np.diff(distances, axis=1) <= gap * distances[:, 1:]
    close &= np.isfinite(distances[:, 1:]) & (distances[:, 1:] > 0)
    tied = np.zeros(distances.shape, bool)
    tied[:, 1:] |= close
    tied[:, :-1] |= close
    return tied


def pair_distances(embeddings: np.ndarray, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Euclidean distances of pairs of rows in double precision, rounded to float32; (P,)."""
    distances = np.empty(len(rows), np.float32)
    # Blocks that stay in the processor's cache are twice as fast.
    for start, stop in row_blocks(len(rows), embeddings.shape[1] * 16, budget=2 << 20):
        pair = embeddings[rows[start:stop]], embeddings[others[start:stop]]
        difference = np.subtract(*pair, dtype=np.float64)
        distances[start:stop] = np.sqrt(np.einsum("pd,pd->p", difference, difference))
    return distances


def neighbor_distances(
    embeddings: np.ndarray, queries: np.ndarray, indices: np.ndarray
) -> np.ndarray:
    """Euclidean distances from query rows to given rows, by direct differences.

    Parameters
    ----------
    embeddings : ndarray of float32, shape (N, d)
        The vectors.
    queries : ndarray of int, shape (Q,)
        Query rows.
    indices : ndarray of int, shape (Q, k)
        Rows to measure the distance to; -1 for none.

    Returns
    -------
    ndarray of float32, shape (Q, k)
        Euclidean, not squared; +inf where there is no row.
    """
    points = np.ascontiguousarray(embeddings[queries])
    ids = np.ascontiguousarray(indices, dtype=np.int64)
    squared = np.empty(ids.shape, np.float32)
    (n_queries, k), d = ids.shape, embeddings.shape[1]
    pointers = [faiss.swig_ptr(array) for array in (squared, points, embeddings, ids)]
    faiss.fvec_L2sqr_by_idx(*pointers, d, n_queries, k)
    # FAISS leaves the place of a missing row as it was.
    squared[ids < 0] = np.inf
    return np.sqrt(squared, out=squared)


def drop_self(
    indices: np.ndarray, distances: np.ndarray, queries: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Drop the query from its own list; where the list lacks it, drop the last entry.

    Parameters
    ----------
    indices, distances : ndarray, shape (Q, k + 1)
        Neighbor lists that were searched with one more than wanted.
    queries : ndarray of int, shape (Q,)
        The query rows.

    Returns
    -------
    indices, distances : ndarray, shape (Q, k)
    """
    keep = indices != queries[:, None]
    keep[keep.all(axis=1), -1] = False
    shape = (len(indices), indices.shape[1] - 1)
    return indices[keep].reshape(shape), distances[keep].reshape(shape)


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


def check_k(k: int, n: int, include_self: bool) -> None:
    """Raise InputError when `n` rows are too few for `k` neighbors each."""
    available = n if include_self else n - 1
    if k > available:
        advice = f"take --k-max {available} at most" if available else "there must be more rows"
        raise InputError(
            f"{n} {'row gives' if n == 1 else 'rows give'} a query at most {available} neighbors, "
            f"fewer than k = {k}: {advice}"
        )
