"""What the lists of an index change for those who use them, at one k.

Density estimates and HDBSCAN use the distance to the k-th neighbor, dimension estimates the LID,
retrieval the members of a list, methods on graphs what the lists connect, and k-NN classification
the labels of the neighbors. Neighbor lists are those of `drift.metrics`.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from drift.intervals import bootstrap_means, mean_intervals, sum_by_group
from drift.neighbor_lists import checked_ids
from drift.summaries import N_RESAMPLES
from drift.vectors import row_blocks

BADLY_SERVED = 0.9  # is a query that gets less of its neighbors
_RATIOS = ("kth_distance", "lid")
# What is known of each query, and by measure the use that it is for.
METRICS = (
    "overlap",
    "recall",
    "found",
    *(f"{n}_{side}" for n in _RATIOS for side in ("exact", "ann")),
)
USES = {
    "kth_distance_error": "density",
    "lid_error": "dimension",
    "below_overlap": "retrieval",
    "below_recall": "retrieval",
    "short_rows": "short",
    "components_exact": "graphs",
    "components_ann": "graphs",
    "same_label": "classes",
}


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
    exact one is 0, as the k-th distance among more than k duplicates is. Errors of both signs can
    cancel. Queries for which a value or the exact one is NaN are left out of both means.

    `errors` are by name some values and the exact ones, (Q,) each; `shares` by name of which
    queries something is so; `seed` is of the resamples, which all names share; `groups` (Q,) are as
    in `drift.intervals.sum_by_group`. Intervals are those of `drift.intervals.mean_intervals`: both
    means of an error are resampled together, and with few groups its standard error is that of the
    ratio's linear part. NaN where the exact mean is not above 0.

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
    result = {}
    for i, name in enumerate([*errors, *shares]):
        low, high = np.clip(ends[:, i], *((-1, np.inf) if name in errors else (0, 1)))
        n = int(np.count_nonzero(~gone[i]))
        result[name] = Estimate(float(ratios[i, 0]), float(low), float(high), n)
    return result


def estimate_uses(
    values: Mapping[str, np.ndarray],
    components: tuple[int | None, int | None],
    labels: tuple[np.ndarray | None, np.ndarray | None],
    seed: int,
    groups: np.ndarray | None = None,
) -> dict[str, Estimate]:
    """`estimates` of `USES`, from the `METRICS` (Q,) of a run at one k by name.

    `components` and majority `labels` (Q,) are of the exact lists and of those returned. Counts
    have no interval.
    """
    errors = {f"{n}_error": (values[f"{n}_ann"], values[f"{n}_exact"]) for n in _RATIOS}
    shares = {f"below_{n}": values[n] < BADLY_SERVED for n in ("overlap", "recall")}
    if labels[0] is not None:
        shares["same_label"] = labels[0] == labels[1]
    counts = {"short_rows": np.count_nonzero(values["found"] < 1)}
    if components[0] is not None:
        counts |= zip(("components_exact", "components_ann"), components, strict=True)
    n = len(values["found"])
    without = {name: Estimate(float(count), np.nan, np.nan, n) for name, count in counts.items()}
    return estimates(errors, shares, seed, groups) | without


def join_components(components: np.ndarray, queries: np.ndarray, indices: ArrayLike) -> np.ndarray:
    """Connected components of an undirected graph, once each query is joined to its neighbors.

    `components` (N,) numbers each row's component from 0 on, as the result does; `indices` (Q, k)
    are lists of the rows `queries` (Q,). Those of a k-NN graph are ``numpy.arange(N)``, joined by
    all its lists, in any blocks. An `InputError` says when a list holds what cannot be.
    """
    ids = checked_ids(indices, n=len(components))
    for start, stop in row_blocks(len(ids), 64 * ids.shape[1]):
        block, n = ids[start:stop], int(components.max()) + 1
        rows, places = np.nonzero(block >= 0)
        ends = components[queries[start:stop][rows]], components[block[rows, places]]
        graph = coo_array((np.ones(len(rows), bool), ends), shape=(n, n))
        components = connected_components(graph, directed=False)[1][components]
    return components


def majority_labels(
    indices: ArrayLike, labels: np.ndarray, queries: np.ndarray | None = None
) -> np.ndarray:
    """The most frequent label among each query's neighbors, of several the smallest; int64 (Q,).

    Missing neighbors in the lists (Q, k) have no vote, nor rows whose label in `labels` (N,) is
    negative, nor the `queries` (Q,), if they are rows, about themselves. -1 without any vote. An
    `InputError` says when a list holds what cannot be.
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
