"""Neighbor lists from an index: one search for all the lengths it answers, the query dropped."""

import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from drift.exact import by_distance, drop_self
from drift.indexes import Index
from drift.indexes.config import SearchConfig

# A search is repeated until so many are done, or have taken so long together.
MAX_SEARCHES, ENOUGH_SECONDS = 5, 0.1


def list_length(k: int, include_self: bool) -> int:
    """How many neighbors to ask an index for: one more than k if the query will be dropped."""
    return k if include_self else k + 1


def group_shared_searches(
    ks: Sequence[int], config: SearchConfig, include_self: bool
) -> list[tuple[int, ...]]:
    """Group the ks whose lists one search gives.

    While the list asked for is no longer than efSearch, and that is the same for all of them, both
    libraries go the same way through the graph whatever k is, and return the k nearest of the same
    candidates: a shorter list is the beginning of a longer one, but for ties at its end, which
    `approximate_neighbors` looks after. Beyond, every k is searched for by itself.
    """
    lengths = {k: list_length(k, include_self) for k in ks}
    shared = tuple(k for k in ks if lengths[k] <= config.ef(lengths[k]) == config.least_ef)
    return ([shared] if shared else []) + [(k,) for k in ks if k not in shared]


class SearchCost(NamedTuple):
    """What one search took.

    Attributes
    ----------
    seconds : float
        Time that the library's search took: the median, where it was repeated.
    distance_computations : int or None
        Distances computed, over all points; None where the library does not count them.
    """

    seconds: float
    distance_computations: int | None


class NeighborLists(NamedTuple):
    """Neighbor lists of one length.

    Attributes
    ----------
    indices : ndarray of int32, shape (Q, k)
        By ascending distance, then id; -1 for a neighbor that is missing, at the end of the row.
    distances : ndarray of float32, shape (Q, k)
        Euclidean, of those ids, as the library computed them by direct differences in float32;
        +inf where missing.
    """

    indices: np.ndarray
    distances: np.ndarray


def approximate_neighbors(
    index: Index,
    embeddings: np.ndarray,
    queries: np.ndarray,
    ks: Sequence[int],
    ef_search: int,
    include_self: bool = False,
) -> tuple[dict[int, NeighborLists], SearchCost]:
    """Approximate neighbors of query rows, by one search for the longest of the lists asked for.

    Without `include_self` the index is asked for one more, and the query itself is dropped from its
    list, or the last entry where the list lacks it.

    Parameters
    ----------
    index : Index
        A graph built on `embeddings`.
    embeddings : ndarray of float32, shape (N, d)
        The vectors.
    queries : ndarray of int, shape (Q,)
        Rows to search for.
    ks : sequence of int
        Lengths of the lists; more than one only as `group_shared_searches` groups them.
    ef_search : int
        Candidates kept.
    include_self : bool
        Whether a row may be its own neighbor.

    Returns
    -------
    lists : dict of int to NeighborLists
        For each k its lists.
    cost : SearchCost
        Of that search, without what ties at the ends of shorter lists cost beyond it: each k by
        itself would be searched for at this cost.
    """
    points = np.ascontiguousarray(embeddings[queries])
    longest, cost = timed_search(index, points, list_length(max(ks), include_self), ef_search)
    lists = {}
    for k in ks:
        length = list_length(k, include_self)
        ids, squared = longest[0][:, :length].astype(np.int32), longest[1][:, :length]
        rows = _tied_at_the_end(*longest, length)
        if len(rows):
            # Which of the tied ones it keeps, and in which order, the library decides for each
            # length anew.
            squared = squared.copy()
            ids[rows], squared[rows] = index.search(points[rows], length, ef_search)
        distances = np.sqrt(squared)
        distances[ids < 0] = np.inf
        if not include_self:
            ids, distances = drop_self(ids, distances, queries)
        lists[k] = NeighborLists(*by_distance(ids, distances))
    return lists, cost


def timed_search(
    index: Index, points: np.ndarray, length: int, ef_search: int
) -> tuple[tuple[np.ndarray, np.ndarray], SearchCost]:
    """Search for points, and once more as long as all of it takes little time.

    A search of a few milliseconds is timed badly: whatever else the machine does in them counts.
    The median of some is not moved by a slow one among them.

    Returns
    -------
    found : tuple of ndarray
        As from `Index.search`; each repetition finds the same.
    cost : SearchCost
        Of one search.
    """
    seconds: list[float] = []
    while len(seconds) < MAX_SEARCHES and sum(seconds) < ENOUGH_SECONDS:
        start = time.perf_counter()
        found = index.search(points, length, ef_search)
        seconds.append(time.perf_counter() - start)
    return found, SearchCost(statistics.median(seconds), index.distance_computations)


def _tied_at_the_end(ids: np.ndarray, squared: np.ndarray, length: int) -> np.ndarray:
    """Rows of which the last of `length` neighbors is tied with the one before it or behind it."""
    if length == ids.shape[1]:
        return np.empty(0, np.int64)
    ends = squared[:, max(0, length - 2) : length + 1]
    tied = (ends[:, 1:] == ends[:, :-1]).any(axis=1)
    return np.flatnonzero(tied & (ids[:, length - 1] >= 0))
