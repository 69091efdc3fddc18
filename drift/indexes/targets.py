"""The smallest value of a search setting that attains a target, chosen on half of the queries."""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from drift.indexes.run import Policy
from drift.intervals import Estimate, estimate_mean, estimate_ratio
from drift.summaries import LID_SHARE

MAX_VALUES = 255  # so that a bisection takes eight searches at most
# What is measured to judge by each criterion.
METRICS = {"overlap": ("overlap",), "recall": ("recall",), "lid": ("lid_exact", "lid_ann")}


class Setting(NamedTuple):
    """The values of a search setting that were chosen for a target: the smallest that reach it."""

    value: int  # with its whole interval; if none does, of those that were tried the nearest to it
    is_enough: bool  # whether it does
    reached: Estimate  # by it, on the queries by which it was chosen
    value_on_mean: int | None  # by the mean alone
    reached_on_mean: Estimate | None
    searches: int  # how many values were tried


def shortfall(target: Policy, reached: Estimate, by_mean: bool = False) -> float:
    """How far an interval, or the mean by itself, is from where a target wants it; inf: unknown.

    What is reached is a mean overlap or recall, or the relative error of the mean LID.
    """
    low, high = (reached.value,) * 2 if by_mean else (reached.ci_low, reached.ci_high)
    if np.isnan(low):
        return np.inf
    return max(-low, high) - target.level if target.criterion == "lid" else target.level - low


def candidate_values(low: int, high: int) -> np.ndarray:
    """Whole numbers from `low` to `high`, evenly on a logarithmic scale, int64 (255,) or fewer."""
    return np.unique(np.round(np.geomspace(low, high, MAX_VALUES)).astype(np.int64))


def split_queries(
    n: int, groups: np.ndarray | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of n queries in two random halves, ascending; no group (n,) is in both.

    Groups are as in `drift.intervals.estimate_mean`. Whole ones go to the first half as long as
    they fit in it; then to the second.
    """
    labels = np.arange(n) if groups is None else np.asarray(groups).astype(np.int64)
    labels = np.where(labels < 0, labels.max(initial=0) + 1 + np.arange(n), labels)
    _, group, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(sizes))
    is_first = np.empty(len(sizes), bool)
    is_first[order] = sizes[order].cumsum() - sizes[order] / 2 <= n / 2
    return np.flatnonzero(is_first[group]), np.flatnonzero(~is_first[group])


def attained(
    target: Policy, values: Mapping[str, np.ndarray], groups: np.ndarray | None = None
) -> Estimate:
    """What lists attain of a target, from `METRICS` of its criterion, (Q,) each, by name.

    `groups` (Q,) are as in `drift.intervals.estimate_mean`. NaN where fewer than 99 % of the
    queries have an LID on both sides, or there is none.
    """
    if target.criterion != "lid":
        return estimate_mean(values[target.criterion], groups, no_loss=1, bounds=(0, 1))
    ann, exact = values["lid_ann"], values["lid_exact"]
    has_both = np.isfinite(ann) & np.isfinite(exact)
    if not len(has_both) or has_both.mean() < LID_SHARE:
        return Estimate(np.nan, np.nan, np.nan, int(has_both.sum()), -1)
    return estimate_ratio(ann, exact, groups)


def smallest_setting(
    target: Policy, values: np.ndarray, search: Callable[[int], Estimate]
) -> Setting:
    """The smallest of ascending values whose search attains a target, by two bisections.

    A higher value is taken to attain no less. The second bisection asks of the mean what the first
    asks of the interval, and searches nothing twice.
    """
    tried: dict[int, Estimate] = {}

    def smallest(by_mean: bool) -> int | None:
        def is_enough(value: int) -> bool:
            if value not in tried:
                tried[value] = search(value)
            return shortfall(target, tried[value], by_mean) <= 0

        place = bisect_left(values.tolist(), True, key=is_enough)
        return int(values[place]) if place < len(values) else None

    sure, on_mean = smallest(by_mean=False), smallest(by_mean=True)
    best = sure
    if sure is None:
        ends = {one: [shortfall(target, tried[one], by) for by in (False, True)] for one in tried}
        best = min(tried, key=lambda value: (*ends[value], value))
    known = best, sure is not None, tried[best], on_mean, tried.get(on_mean)
    return Setting(*known, searches=len(tried))
