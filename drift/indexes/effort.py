"""The smallest effort of a search that reaches a target, found on one half of the queries."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from drift.indexes.policies import Target
from drift.intervals import bootstrap_means, mean_intervals, metric_range, sum_by_group
from drift.metrics import lid, neighborhood_overlap
from drift.statistics import LID_SHARE, N_RESAMPLES

RUNGS = 255  # so that bisection takes eight searches at most


class Reached(NamedTuple):
    """What a search reached of its target: the mean over queries, with its 95 % interval.

    By ``overlap`` that is the mean overlap; by ``lid`` the mean difference of the LID from the
    exact one, over the mean exact one.
    """

    mean: float
    ci_low: float
    ci_high: float


class Effort(NamedTuple):
    """A value of a search setting, and what it reached.

    Attributes
    ----------
    value : int
        The smallest that reaches the target, or else, of those that were tried, the one that came
        nearest.
    is_enough : bool
        Whether it reaches it.
    reached : Reached
        What it reached, on the queries on which it was found.
    searches : int
        How many values were tried.
    """

    value: int
    is_enough: bool
    reached: Reached
    searches: int


def ladder(low: int, high: int) -> np.ndarray:
    """Whole numbers from `low` to `high`, evenly on a logarithmic scale, int64 (255,) or fewer."""
    return np.unique(np.round(np.geomspace(low, high, RUNGS)).astype(np.int64))


def random_halves(
    n: int, groups: np.ndarray | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of n queries in two random halves, ascending; no group (n,) is in both.

    Queries of one number make a group; a negative number, and None, a group of its own. Whole
    groups go to the first half as long as they fit in it; then to the second.
    """
    labels = np.arange(n) if groups is None else np.asarray(groups).astype(np.int64)
    labels = np.where(labels < 0, labels.max(initial=0) + 1 + np.arange(n), labels)
    _, group, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(sizes))
    is_first = np.empty(len(sizes), bool)
    is_first[order] = sizes[order].cumsum() - sizes[order] / 2 <= n / 2
    return np.flatnonzero(is_first[group]), np.flatnonzero(~is_first[group])


def reached(
    target: Target,
    exact: tuple[np.ndarray, np.ndarray],
    ann: tuple[np.ndarray, np.ndarray],
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> Reached:
    """What lists reach of a target.

    Parameters
    ----------
    target : Target
        By which measure.
    exact, ann : (ndarray of int, ndarray of float), shape (Q, k) each
        Ids and Euclidean distances, without the queries themselves.
    groups : ndarray of int, shape (Q,), or None
        Queries of one number are alike by construction; -1 is a group of its own.
    seed : int
        Of the bootstrap resamples.

    Returns
    -------
    Reached
        The interval is that of the curves (`drift.intervals.mean_intervals`). NaN where fewer than
        99 % of the queries have an LID on both sides.
    """
    if len(exact[0]) == 0:  # of one group there is no other half
        return Reached(np.nan, np.nan, np.nan)
    if target.criterion == "overlap":
        metric, values, scale = "overlap", neighborhood_overlap(exact[0], ann[0]), 1.0
    else:
        lid_exact = lid(exact[1])
        metric, values = "lid_difference", lid(ann[1]) - lid_exact
        if np.isfinite(values).mean() < LID_SHARE:
            return Reached(np.nan, np.nan, np.nan)
        scale = np.nanmean(lid_exact)
    sums = sum_by_group(values[None], groups)
    (low,), (high,) = mean_intervals(sums, bootstrap_means(sums, seed, N_RESAMPLES))
    ends = np.clip([low, high], *metric_range(metric))
    return Reached(*(float(number / scale) for number in (sums.means[0], *ends)))


def is_enough(target: Target, found: Reached) -> bool:
    """Whether the whole interval is where the target wants it."""
    if target.criterion == "overlap":
        return found.ci_low >= target.level
    return -target.level <= found.ci_low and found.ci_high <= target.level


def agrees(target: Target, found: Reached) -> bool:
    """Whether the mean is where the target wants it: asked of queries not chosen by."""
    if target.criterion == "overlap":
        return found.mean >= target.level
    return abs(found.mean) <= target.level


def smallest_effort(target: Target, values: np.ndarray, search: Callable[[int], Reached]) -> Effort:
    """The smallest of ascending values whose search reaches a target, by bisection.

    More effort is taken to reach no less. Where none does, the value that came nearest.
    """
    tried: dict[int, Reached] = {}
    low, high = 0, len(values)  # values before `low` do not reach it, from `high` on they do
    while low < high:
        middle = (low + high) // 2
        value = int(values[middle])
        tried[value] = search(value)
        if is_enough(target, tried[value]):
            high = middle
        else:
            low = middle + 1
    if low < len(values):
        best = int(values[low])
    else:
        best = min(tried, key=lambda value: (_miss(target, tried[value]), value))
    return Effort(best, low < len(values), tried[best], len(tried))


def _miss(target: Target, found: Reached) -> float:
    """How far an interval is from where the target wants it."""
    if np.isnan(found.mean):
        return np.inf
    if target.criterion == "overlap":
        return target.level - found.ci_low
    return max(-found.ci_low, found.ci_high) - target.level
