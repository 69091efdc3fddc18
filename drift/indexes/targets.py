"""The smallest value of a search setting that attains a target, chosen on half of the queries."""

from bisect import bisect_left
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from drift.indexes.run import Policy
from drift.intervals import bootstrap_means, mean_intervals, metric_range, sum_by_group
from drift.metrics import lid, neighborhood_overlap
from drift.summaries import LID_SHARE, N_RESAMPLES

MAX_VALUES = 255  # so that bisection takes eight searches at most


class Attained(NamedTuple):
    """What a search attains of its target: the mean over queries, with its 95 % interval.

    By ``overlap`` that is the mean overlap; by ``lid`` the mean difference of the LID from the
    exact one, over the mean exact one.
    """

    mean: float
    ci_low: float
    ci_high: float

    def is_enough(self, target: Policy) -> bool:
        """Whether the whole interval is where the target wants it."""
        return self._miss(target) <= 0

    def agrees(self, target: Policy) -> bool:
        """Whether the mean is where the target wants it: asked of queries not chosen by."""
        return Attained(self.mean, self.mean, self.mean).is_enough(target)

    def _miss(self, target: Policy) -> float:
        """How far the interval is from where the target wants it; inf if nothing is known."""
        if np.isnan(self.mean):
            return np.inf
        if target.criterion == "overlap":
            return target.level - self.ci_low
        return max(-self.ci_low, self.ci_high) - target.level


class Setting(NamedTuple):
    """A value of a search setting that was chosen for a target."""

    value: int  # the smallest that attains it, or of those that were tried the nearest to that
    is_enough: bool  # whether it attains it
    reached: Attained  # on the queries by which it was chosen
    searches: int  # how many values were tried


def candidate_values(low: int, high: int) -> np.ndarray:
    """Whole numbers from `low` to `high`, evenly on a logarithmic scale, int64 (255,) or fewer."""
    return np.unique(np.round(np.geomspace(low, high, MAX_VALUES)).astype(np.int64))


def split_queries(
    n: int, groups: np.ndarray | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of n queries in two random halves, ascending; no group (n,) is in both.

    Groups are as in `drift.intervals.sum_by_group`. Whole ones go to the first half as long as they
    fit in it; then to the second.
    """
    labels = np.arange(n) if groups is None else np.asarray(groups).astype(np.int64)
    labels = np.where(labels < 0, labels.max(initial=0) + 1 + np.arange(n), labels)
    _, group, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(sizes))
    is_first = np.empty(len(sizes), bool)
    is_first[order] = sizes[order].cumsum() - sizes[order] / 2 <= n / 2
    return np.flatnonzero(is_first[group]), np.flatnonzero(~is_first[group])


def attained(
    target: Policy,
    exact: tuple[np.ndarray, np.ndarray],
    ann: tuple[np.ndarray, np.ndarray],
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> Attained:
    """What lists attain of a target: ids and Euclidean distances, (Q, k), without the queries.

    `groups` (Q,) are as in `drift.intervals.sum_by_group`, the interval is that of its
    `mean_intervals`. NaN where fewer than 99 % of the queries have an LID on both sides.
    """
    unknown = Attained(np.nan, np.nan, np.nan)
    if len(exact[0]) == 0:  # of one group there is no other half
        return unknown
    if target.criterion == "overlap":
        metric, values, scale = "overlap", neighborhood_overlap(exact[0], ann[0]), 1.0
    else:
        lid_exact = lid(exact[1])
        metric, values = "lid_difference", lid(ann[1]) - lid_exact
        if np.isfinite(values).mean() < LID_SHARE:
            return unknown
        scale = np.nanmean(lid_exact)
    sums = sum_by_group(values[None], groups)
    (low,), (high,) = mean_intervals(sums, bootstrap_means(sums, seed, N_RESAMPLES))
    ends = np.clip([low, high], *metric_range(metric))
    return Attained(*(float(number / scale) for number in (sums.means[0], *ends)))


def smallest_setting(
    target: Policy, values: np.ndarray, search: Callable[[int], Attained]
) -> Setting:
    """The smallest of ascending values whose search attains a target, by bisection.

    A higher value is taken to attain no less. Where none does, the value that came nearest.
    """
    tried: dict[int, Attained] = {}

    def is_enough(value: int) -> bool:
        tried[value] = search(value)
        return tried[value].is_enough(target)

    place = bisect_left(values.tolist(), True, key=is_enough)
    nearest = min(tried, key=lambda value: (tried[value]._miss(target), value))
    best = int(values[place]) if place < len(values) else nearest
    return Setting(best, place < len(values), tried[best], len(tried))
