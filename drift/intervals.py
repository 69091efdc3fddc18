"""95 % intervals of means over queries, which may come in groups of like ones, and crossings."""

from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

LEVEL = 0.95
# With fewer groups than this the bootstrap's intervals are too narrow: t intervals then.
FEW_GROUPS = 50
SHARES = ("overlap", "recall", "found", "distance_ratio")
# What a mean of shares is off by in float64, and more.
_ROUNDING = 1e-12
# No more weights than this are held at a time: 8 MB stay in the processor's cache.
_WEIGHTS_AT_ONCE = 1_000_000


class GroupSums(NamedTuple):
    """S series of values over queries, summed within G groups; values that are NaN are left out."""

    means: np.ndarray  # (S,), of each series over its queries; NaN where it has no value
    deviations: np.ndarray  # (S, G), sums of those from the mean
    counts: np.ndarray  # (S, G), values in each group
    sizes: np.ndarray  # (G,), queries in each group


def sum_by_group(values: np.ndarray, groups: np.ndarray | None = None) -> GroupSums:
    """Sum series of values (S, Q) about their means within groups.

    Queries of one number in `groups` (Q,) are alike by construction and make a group; those of a
    negative number, or all where it is None, are groups of their own.
    """
    valid = ~np.isnan(values)
    # Infinite values, of which published formulas have some, leave no interval.
    with np.errstate(invalid="ignore"):
        means = np.where(valid, values, 0.0).sum(axis=1) / valid.sum(axis=1)
        # About the mean, products stay small and a constant series exactly constant.
        deviations = np.where(valid, values - means[:, None], 0.0)
    n_queries = values.shape[1]
    if groups is None or (np.asarray(groups) < 0).all():
        return GroupSums(means, deviations, valid, np.ones(n_queries, int))
    labels = np.array(groups, dtype=np.int64)
    alone = labels < 0
    labels[alone] = labels.max() + 1 + np.arange(alone.sum())
    order = np.argsort(labels, kind="stable")
    _, starts, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    with np.errstate(invalid="ignore"):
        deviations = np.add.reduceat(deviations[:, order], starts, axis=1)
    counts = np.add.reduceat(valid[:, order], starts, axis=1, dtype=np.int64)
    return GroupSums(means, deviations, counts, sizes)


def bootstrap_means(sums: GroupSums, seed: int, n_resamples: int) -> np.ndarray:
    """Means (S, R) of series over R resamples of the groups, the same ones for every series.

    How often a group is drawn, its weight, depends on the seed and the number of groups alone, so
    that differences between series are paired, and all means one product of matrices. A mean is NaN
    where a resample drew no value, and where only one group has values.

    References
    ----------
    Efron and Tibshirani (1993), An introduction to the bootstrap, chapter 13; Cameron, Gelbach and
    Miller (2008), Bootstrap-based improvements for inference with clustered errors.
    """
    n_series, n_groups = sums.deviations.shape
    gaps = (sums.counts != sums.sizes).any(axis=1)
    rng = np.random.default_rng(seed)
    means = np.empty((n_series, n_resamples))
    step = max(1, _WEIGHTS_AT_ONCE // n_groups)
    for start in range(0, n_resamples, step):
        stop = min(start + step, n_resamples)
        draws = rng.integers(n_groups, size=(stop - start, n_groups))
        draws += n_groups * np.arange(stop - start)[:, None]
        drawn = np.bincount(draws.ravel(), minlength=draws.size).reshape(draws.shape)
        weights = drawn.astype(np.float64).T
        with np.errstate(invalid="ignore"):
            means[:, start:stop] = sums.deviations @ weights
            counts = np.tile(sums.sizes @ weights, (n_series, 1))
            counts[gaps] = sums.counts[gaps].astype(np.float64) @ weights
            means[:, start:stop] /= counts
    means[np.count_nonzero(sums.counts, axis=1) < 2] = np.nan
    return means + sums.means[:, None]


def percentile_interval(resampled: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval of a resampled statistic; NaN where half or more have none."""
    values = resampled[~np.isnan(resampled)]
    if values.size * 2 <= resampled.size:
        return np.nan, np.nan
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def t_quantile(degrees: np.ndarray | int) -> np.ndarray:
    """The 97.5 % quantile of Student's t; NaN for no degree of freedom."""
    return stdtrit(np.where(np.asarray(degrees) > 0, degrees, np.nan), (1 + LEVEL) / 2)


def standard_errors(sums: GroupSums) -> np.ndarray:
    """Standard errors (S,) of the means over queries, by group; NaN for one group.

    The root of G / (G - 1) times the sum of the squared sums of deviations of the G groups that
    have values, over the number of values.

    References
    ----------
    Cameron and Miller (2015), A practitioner's guide to cluster-robust inference.
    """
    n_groups = np.count_nonzero(sums.counts, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        correction = np.where(n_groups > 1, n_groups / (n_groups - 1), np.nan)
        squares = correction * (sums.deviations**2).sum(axis=1)
        return np.sqrt(squares) / sums.counts.sum(axis=1)


def mean_intervals(sums: GroupSums, resampled: np.ndarray) -> np.ndarray:
    """Lower and upper ends (2, S) of 95 % intervals of the means of series over queries.

    Percentile bootstrap, from `resampled` means (S, R), where 50 groups or more have values, else
    the t interval of G - 1 degrees with the standard error by group.
    """
    ends = np.array([percentile_interval(means) for means in resampled]).T
    n_groups = np.count_nonzero(sums.counts, axis=1)
    few = n_groups < FEW_GROUPS
    if few.any():
        half = t_quantile(n_groups - 1) * standard_errors(sums)
        ends[:, few] = np.array([sums.means - half, sums.means + half])[:, few]
    return ends


def metric_range(metric: str) -> tuple[float, float]:
    """What the mean of a metric cannot be below or above."""
    if metric in SHARES:
        return 0.0, 1.0
    return (-np.inf if metric.endswith("_difference") else 0.0), np.inf


def largest_safe_k(ks: np.ndarray, safe: np.ndarray) -> int:
    """The largest k of an ascending grid (G,) such that it and every smaller one is safe; or 0."""
    return int(np.where(np.logical_and.accumulate(safe), ks, 0).max())


def first_crossings(ks: np.ndarray, loss: np.ndarray, tolerance: float) -> np.ndarray:
    """The first k (R,) at which R curves (G, R) pass a tolerance, by more than rounding.

    Interpolated linearly on the ascending grid `ks` (G,); infinite where a curve does not pass
    within it. Points that are NaN are left out: a gap does not cross, what it lies between may.
    """
    exceeds = loss > tolerance + _ROUNDING
    first, columns = exceeds.argmax(axis=0), np.arange(loss.shape[1])
    points = np.where(np.isnan(loss), -1, np.arange(len(ks))[:, None])
    before = np.maximum.accumulate(points, axis=0)[first - 1, columns]
    before = np.where((first > 0) & (before >= 0), before, first)
    start, end = loss[before, columns], loss[first, columns]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(before < first, (tolerance - start) / (end - start), 0.0)
    crossings = ks[before] + np.clip(share, 0, 1) * (ks[first] - ks[before])
    return np.where(exceeds.any(axis=0), crossings, np.inf)


def crossing_interval(
    ks: np.ndarray, loss: np.ndarray, resampled_loss: np.ndarray, tolerance: float
) -> tuple[float, float, float]:
    """Where a mean loss (G,) passes a tolerance, and the 95 % bootstrap interval of that.

    Resampled curves (G, R) that never cross count as infinite; an infinite result is NaN.
    """
    (crossing,) = first_crossings(ks, loss[:, None], tolerance)
    resampled = first_crossings(ks, resampled_loss, tolerance)
    # Between two crossings there is none: one of them may lie beyond the grid's end.
    ends = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")
    crossing, low, high = (float(k) if np.isfinite(k) else np.nan for k in (crossing, *ends))
    return crossing, low, high
