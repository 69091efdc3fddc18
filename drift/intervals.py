"""95 % intervals of means over queries, which may come in groups of like ones."""

from typing import NamedTuple

import numpy as np

LEVEL = 0.95
# With fewer groups than this the bootstrap's intervals are too narrow: t intervals then.
FEW_GROUPS = 50
SHARES = ("overlap", "recall", "found", "distance_ratio")
# No more weights than this are held at a time: 8 MB stay in the processor's cache.
_WEIGHTS_AT_ONCE = 1_000_000


class GroupSums(NamedTuple):
    """S series of values over queries, summed within G groups; values that are NaN are left out."""

    means: np.ndarray  # (S,), of each series over its queries; NaN where it has no value
    deviations: np.ndarray  # (S, G), sums of those from the mean
    counts: np.ndarray  # (S, G), values in each group
    sizes: np.ndarray  # (G,), queries in each group


def sum_by_group(values: np.ndarray, groups: np.ndarray | None = None) -> GroupSums:
    """Sum series of values (S, Q) about their means within groups (Q,) of queries.

    Queries of one number make a group; a negative number, and None, a group of its own.
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

    How often a group is drawn in a resample is its weight there, so that the means of all series
    over all resamples are one product of matrices. Sharing the resamples keeps differences between
    series paired. They depend on the seed and on the number of groups, and on nothing else.

    A mean is NaN where a resample drew no value, and where only one group has values: it does not
    say how far another would be from it.

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
    # Most that import this module need no quantile, and scipy.stats takes five times as long.
    from scipy.special import stdtrit

    degrees = np.asarray(degrees, dtype=np.float64)
    return stdtrit(np.where(degrees > 0, degrees, np.nan), (1 + LEVEL) / 2)


def standard_errors(sums: GroupSums) -> np.ndarray:
    """Standard errors (S,) of the means over queries, by group; NaN for one group.

    The root of the sum over the G groups that have values of the squared sums of deviations, over
    the number of values, times the root of G / (G - 1).

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
    the mean plus and minus the 97.5 % t quantile of G - 1 degrees times the standard error by
    group.
    """
    ends = np.array([percentile_interval(means) for means in resampled]).T
    n_groups = np.count_nonzero(sums.counts, axis=1)
    few = n_groups < FEW_GROUPS
    if few.any():
        half = t_quantile(n_groups - 1) * standard_errors(sums)
        ends[:, few] = np.array([sums.means - half, sums.means + half])[:, few]
    return ends


def metric_range(metric: str) -> tuple[float, float]:
    """What the mean of a metric cannot be below or above.

    Shares lie within 0 and 1, differences have no bound, and all else is a distance, the length of
    a shift or a dimensionality.
    """
    if metric in SHARES:
        return 0.0, 1.0
    return (-np.inf if metric.endswith("_difference") else 0.0), np.inf
