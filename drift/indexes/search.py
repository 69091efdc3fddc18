"""Neighbor lists from an index: one search for all the lengths it answers, the query dropped."""

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from drift.exact import by_distance, neighbor_distances
from drift.indexes.base import Index, Nearest
from drift.indexes.run import Run, Value
from drift.protocols import Protocol

# A search is repeated until so many are done, or have taken so long together.
MAX_SEARCHES, ENOUGH_SECONDS = 5, 0.1


def group_shared_searches(ks: Sequence[int], run: Run, protocol: Protocol) -> list[tuple[int, ...]]:
    """Group the ks whose lists one search gives; each other one has a search of its own.

    While lists are no longer than efSearch, and that is the same for all, the libraries go the same
    way through the graph: a shorter list is the beginning of a longer one, but for ties at its end,
    which `approximate_neighbors` looks after.
    """
    ef = None if run.factory or run.target else run.search.get("ef_search")
    shared = tuple(
        k
        for k in ks
        if ef and protocol.list_length(k) <= ef.value(protocol.policy_length(k)) == ef.smallest
    )
    return ([shared] if shared else []) + [(k,) for k in ks if k not in shared]


class SearchBlock(NamedTuple):
    """One search: the ks whose lists it gives, and the rows of the queries."""

    ks: tuple[int, ...]
    start: int
    stop: int


class SearchCost(NamedTuple):
    """What one search took, over all points."""

    seconds: float  # of the library's search: the median, where it was repeated
    distance_computations: int | None  # None where the library does not count them


class NeighborLists(NamedTuple):
    """Ids and distances of one length, (Q, k), by ascending distance, then id.

    Distances are Euclidean, by direct differences in float32. A neighbor that is missing is id -1
    at distance +inf, at the end of the row. `reported` are an index's own distances from compressed
    vectors, ascending, and so not in the order of the ids.
    """

    indices: np.ndarray
    distances: np.ndarray
    reported: np.ndarray | None = None


def approximate_neighbors(
    index: Index,
    points: np.ndarray,
    ks: Sequence[int],
    settings: Mapping[str, Value],
    protocol: Protocol,
    queries: np.ndarray,
    embeddings: np.ndarray,
    max_searches: int | None = None,
) -> tuple[dict[int, NeighborLists], SearchCost]:
    """Lists by k of the neighbors of points, by one search for the longest of them, and its cost.

    `points` are float32 (Q, d), `queries` (Q,) the rows of the `embeddings` (N, d) that they are.
    There is more than one k only as `group_shared_searches` groups them. The cost is that of a
    search for any k alone, without what ties at the ends of shorter lists take.
    """
    length = protocol.list_length(max(ks))
    longest, cost = timed_search(index, points, length, settings, max_searches)
    lists = {}
    for k in ks:
        length = protocol.list_length(k)
        ids, squared = longest[0][:, :length].astype(np.int32), longest[1][:, :length]
        rows = _tied_at_the_end(*longest, length)
        if len(rows):
            # Which of the tied ones it keeps, and in which order, the library decides for each
            # length anew.
            squared = squared.copy()
            ids[rows], squared[rows] = index.search(points[rows], length, settings)
        own = np.sqrt(np.maximum(np.where(ids < 0, np.inf, squared), 0))
        distances = own if index.is_direct else neighbor_distances(points, embeddings, ids)
        kept, reported = by_distance(*protocol.leave_k(ids, distances, queries)), None
        if index.is_compressed:
            if protocol is Protocol.NOTEBOOK:
                own[ids == queries[:, None]] = np.inf  # a query is not its own neighbor
            reported = np.sort(protocol.leave_k(ids, own, queries)[1], axis=1)
        lists[k] = NeighborLists(*kept, reported)
    return lists, cost


def timed_search(
    index: Index,
    points: np.ndarray,
    length: int,
    settings: Mapping[str, Value],
    max_searches: int | None = None,
) -> tuple[Nearest, SearchCost]:
    """`Index.search`, once more as long as all of it takes little time, and what one search took.

    A search of a few milliseconds is timed badly; the median of some is not moved by a slow one.
    """
    seconds: list[float] = []
    while len(seconds) < (max_searches or MAX_SEARCHES) and sum(seconds) < ENOUGH_SECONDS:
        start = time.perf_counter()
        neighbors = index.search(points, length, settings)
        seconds.append(time.perf_counter() - start)
    return neighbors, SearchCost(statistics.median(seconds), index.distance_computations)


def _tied_at_the_end(ids: np.ndarray, squared: np.ndarray, length: int) -> np.ndarray:
    """Rows of which the last of `length` neighbors is tied with the one before it or behind it."""
    if length == ids.shape[1]:
        return np.empty(0, np.int64)
    ends = squared[:, max(0, length - 2) : length + 1]
    tied = (ends[:, 1:] == ends[:, :-1]).any(axis=1)
    return np.flatnonzero(tied & (ids[:, length - 1] >= 0))
