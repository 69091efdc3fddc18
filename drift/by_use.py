"""What the lists of an index change for those who use them, at one k.

Density estimates and HDBSCAN use the distance to the k-th neighbor, dimension estimates the LID,
retrieval the members of a list, methods on graphs what the lists connect, and k-NN classification
the labels of the neighbors. Neighbor lists are those of `drift.metrics`.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from drift.intervals import bootstrap_means, mean_intervals, sum_by_group
from drift.neighbor_lists import checked_ids
from drift.statistics import N_RESAMPLES
from drift.vectors import row_blocks

BADLY_SERVED = 0.9  # is a query that gets less of its neighbors


class Estimate(NamedTuple):
    """A number over the queries, its 95 % interval, and how many queries have a value."""

    value: float
    ci_low: float
    ci_high: float
    n: int


def estimates(
    errors: Mapping[str, tuple[np.ndarray, np.ndarray]],
    shares: Mapping[str, np.ndarray],
    seed: int,
    groups: np.ndarray | None = None,
) -> dict[str, Estimate]:
    """Relative errors, and shares of the queries, with their intervals.

    A relative error is the mean error over the mean of the exact values; -0.1: 10 % too small. It
    is a ratio of two means and not the mean of the queries' ratios, which has no value where an
    exact one is 0, as the k-th distance among more than k duplicates is. Errors have a sign: where
    some are above and others below 0, they can cancel.

    Parameters
    ----------
    errors : mapping of str to (ndarray of float, ndarray of float), shape (Q,) each
        By name some values and the exact ones. Queries for which one of the two is NaN are left
        out of both means.
    shares : mapping of str to ndarray of bool, shape (Q,)
        By name of which queries something is so.
    seed : int
        Seed of the resamples, which all names share.
    groups : ndarray of int, shape (Q,), or None
        Queries of one number are alike by construction; -1 is a group of its own.

    Returns
    -------
    dict of str to Estimate
        Errors are no less than -1, shares within 0 and 1. Intervals are those of
        `drift.intervals.mean_intervals`: both means of an error are resampled together, and with
        few groups its standard error is that of the ratio's linear part. All is NaN where the exact
        mean is not above 0.

    References
    ----------
    Cochran (1977), Sampling techniques, section 6.3: the variance of a ratio.
    """
    pairs = [(np.subtract(values, exact), exact) for values, exact in errors.values()]
    # A share is a ratio too, over 1.
    pairs += [(is_so, np.ones(len(is_so))) for is_so in shares.values()]
    over, under = np.array(pairs, dtype=np.float64).transpose(1, 0, 2)
    gone = np.isnan(over) | np.isnan(under)
    over[gone] = under[gone] = np.nan
    sums = sum_by_group(np.concatenate([over, under]), groups)
    with np.errstate(invalid="ignore", divide="ignore"):
        sizes = np.where(sums.means > 0, sums.means, np.nan)[len(over) :, None]
        ratios = sums.means[: len(over), None] / sizes
        drawn_over, drawn_under = np.split(bootstrap_means(sums, seed, N_RESAMPLES), 2)
        resampled = np.where(drawn_under > 0, drawn_over / drawn_under, np.nan)
    linear = ratios + (over - ratios * under) / sizes
    ends = mean_intervals(sum_by_group(linear, groups), resampled)
    found = {}
    for i, name in enumerate([*errors, *shares]):
        low, high = np.clip(ends[:, i], *((-1, np.inf) if name in errors else (0, 1)))
        n = int(np.count_nonzero(~gone[i]))
        found[name] = Estimate(float(ratios[i, 0]), float(low), float(high), n)
    return found


def join_components(components: np.ndarray, queries: np.ndarray, indices: ArrayLike) -> np.ndarray:
    """Connected components of an undirected graph, once each query is joined to its neighbors.

    The components of a k-NN graph are those of N separate rows, ``numpy.arange(N)``, joined by all
    its lists, however the lists are cut into blocks.

    Parameters
    ----------
    components : ndarray of int, shape (N,)
        For each row the number of its component, from 0 on.
    queries : ndarray of int, shape (Q,)
        The rows that the lists are of.
    indices : array_like of int, shape (Q, k)
        Neighbor lists.

    Returns
    -------
    ndarray of int, shape (N,)
        The new numbers, 0 to the number of components less 1.

    Raises
    ------
    InputError
        When a list holds what cannot be, an id that is no row for instance.
    """
    # Imported here: to say that results are up to date nothing of it is needed.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ids = checked_ids(indices, n=len(components))
    returned, n = ids >= 0, int(components.max()) + 1
    ends = components[np.repeat(queries, returned.sum(axis=1))], components[ids[returned]]
    graph = coo_array((np.ones(len(ends[0]), bool), ends), shape=(n, n))
    return connected_components(graph, directed=False)[1][components]


def majority_labels(
    indices: ArrayLike, labels: np.ndarray, queries: np.ndarray | None = None
) -> np.ndarray:
    """The most frequent label among each query's neighbors, of several the smallest.

    Parameters
    ----------
    indices : array_like of int, shape (Q, k)
        Neighbor lists; missing neighbors have no vote.
    labels : ndarray of int, shape (N,)
        For each row its label; a negative one is none, and has no vote.
    queries : ndarray of int, shape (Q,), optional
        Ids of the queries, which have no vote about themselves.

    Returns
    -------
    ndarray of int64, shape (Q,)
        -1 where no neighbor has a label.

    Raises
    ------
    InputError
        When a list holds what cannot be, an id that is no row for instance.
    """
    ids = checked_ids(indices, n=len(labels))
    names = np.unique(labels[labels >= 0])
    places = np.where(labels >= 0, np.searchsorted(names, labels), -1)
    majority = np.full(len(ids), -1, np.int64)
    bytes_per_row = 8 * (len(names) + 4 * ids.shape[1])
    for start, stop in row_blocks(len(ids), bytes_per_row) if len(names) else ():
        block = ids[start:stop]
        votes = np.where(block >= 0, places[block], -1)
        if queries is not None:
            votes[block == queries[start:stop, None]] = -1
        rows, columns = np.nonzero(votes >= 0)
        cells = rows * len(names) + votes[rows, columns]
        counts = np.bincount(cells, minlength=len(block) * len(names)).reshape(len(block), -1)
        majority[start:stop] = np.where(counts.any(axis=1), names[counts.argmax(axis=1)], -1)
    return majority
