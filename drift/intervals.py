"""95 % intervals of means over queries, which may come in groups of like ones, and crossings.

They are t intervals by group, of the mean or of values whose mean varies as a ratio does.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

LEVEL = 0.95
ROUNDING = 1e-9  # of two numbers that are the same
_ROUNDING = 1e-12  # what a mean of shares is off by in float64, and more


class Estimate(NamedTuple):
    """Numbers over queries, arrays of one shape, or scalars."""

    value: np.ndarray | float
    ci_low: np.ndarray | float
    ci_high: np.ndarray | float
    n: np.ndarray | int  # queries that have a value
    # Groups in which a query departs from no loss, or no error; -1 where there is no such.
    groups_that_differ: np.ndarray | int


def estimate_mean(
    values: ArrayLike,
    groups: np.ndarray | None = None,
    no_loss: float | None = None,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Estimate:
    """Means of series over the queries that have a value, with their 95 % intervals.

    With G groups that have a value, the standard error is the root of G / (G - 1) times the sum of
    the squared sums of their deviations, over n; the t interval of G - 1 degrees is NaN for one.

    Parameters
    ----------
    values : array_like of float, shape (..., Q)
        NaN: no value.
    groups : ndarray of int, shape (Q,), optional
        Queries of one number are alike by construction; those of a negative number, or all where
        it is None, are groups of their own.
    no_loss : float, optional
        The value of a query that loses nothing.
    bounds : tuple of float
        What the mean cannot be below or above.

    References
    ----------
    Cameron and Miller (2015), A practitioner's guide to cluster-robust inference.

    Examples
    --------
    >>> estimate = estimate_mean([0.9, 1.0, 1.0, 0.9], groups=np.array([0, 0, 1, 1]), no_loss=1)
    >>> estimate.value, estimate.n, estimate.groups_that_differ
    (0.95, 4, 2)
    """
    values = np.asarray(values, np.float64)
    departs = None if no_loss is None else ~np.isnan(values) & (values != no_loss)
    return _estimate(values, groups, departs, bounds)


def estimate_ratio(
    numerator: ArrayLike, denominator: ArrayLike, groups: np.ndarray | None = None
) -> Estimate:
    """The mean of one series over that of another, less 1, over queries that have both.

    As `estimate_mean` of `linearized_ratio`; a query departs where its two sides differ by more
    than rounding. NaN where the denominators are all 0.

    References
    ----------
    Cochran (1977), Sampling techniques, section 6.3: the variance of a ratio.
    """
    x, y = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    departs = np.abs(x - y) > ROUNDING * np.abs(y)
    return _estimate(linearized_ratio(x, y), groups, departs, (-1, np.inf))


def linearized_ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Values (..., Q) whose mean is mean(x) / mean(y) - 1, and varies as that does, to first order.

    r - 1 + (x - r y) / mean(y) with r the ratio; NaN where a side is NaN.
    """
    known = ~np.isnan(numerator) & ~np.isnan(denominator)
    x, y = (np.where(known, side, 0.0) for side in (numerator, denominator))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = y.sum(axis=-1, keepdims=True) / known.sum(axis=-1, keepdims=True)
        ratio = x.sum(axis=-1, keepdims=True) / known.sum(axis=-1, keepdims=True) / mean
        return np.where(known, ratio - 1 + (x - ratio * y) / mean, np.nan)


def linearized_inverse(values: np.ndarray) -> np.ndarray:
    """Values (..., Q) whose mean is 1 / mean(x), as of `linearized_ratio`."""
    mean = mean_by_group(values).value[..., None]
    with np.errstate(invalid="ignore", divide="ignore"):
        return (2 - values / mean) / mean


class Mean(NamedTuple):
    """Means over queries, with their standard errors and the degrees of freedom of those."""

    value: np.ndarray
    error: np.ndarray
    degrees: np.ndarray

    def interval(self, bounds: tuple[float, float] = (-np.inf, np.inf)) -> np.ndarray:
        """Lower and upper ends (2, ...) of the 95 % intervals; NaN without degrees of freedom."""
        from scipy.special import stdtrit  # slow to import, and not needed where all is up to date

        known = np.where(self.degrees > 0, self.degrees, np.nan)
        half = stdtrit(known, (1 + LEVEL) / 2) * self.error
        with np.errstate(invalid="ignore"):
            return np.clip([self.value - half, self.value + half], *bounds)

    @property
    def p(self) -> np.ndarray:
        """How probable it is to be as far from 0 if the true mean is 0."""
        from scipy.special import stdtr

        with np.errstate(invalid="ignore", divide="ignore"):
            p = 2 * stdtr(self.degrees, -np.abs(self.value / self.error))
        # Where there is nothing but zeros, nothing speaks against it.
        return np.where((self.value == 0) & (self.error == 0), 1.0, p)


def mean_by_group(values: np.ndarray, groups: np.ndarray | None = None) -> Mean:
    """Means of series (..., Q), as of `estimate_mean`."""
    known = ~np.isnan(values)
    n, n_groups = known.sum(axis=-1), groups_where(known, groups)
    # Infinite values, of which published formulas have some, leave no interval.
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(known, values, 0.0).sum(axis=-1) / n
        deviations = np.where(known, values - mean[..., None], 0.0)
        squares = (_sum_by_group(deviations, groups) ** 2).sum(axis=-1)
        correction = np.where(n_groups > 1, n_groups / (n_groups - 1), np.nan)
        return Mean(mean, np.sqrt(correction * squares) / n, n_groups - 1)


def mean_over_graphs(
    graphs: Iterable[np.ndarray], groups: np.ndarray | None = None
) -> tuple[Mean, np.ndarray]:
    """Means of a series (..., Q) over R graphs, and the standard deviations between theirs.

    The variance is s^2 / R + v: s is that standard deviation, NaN of one graph, whose variance is v
    alone: that, by group, of the mean over queries of each query's average over the graphs.

    References
    ----------
    Satterthwaite (1946), An approximate distribution of estimates of variance components.
    """
    total, counts, means = 0.0, 0, []
    for values in graphs:
        known = ~np.isnan(values)
        total, counts = total + np.where(known, values, 0.0), counts + known
        means.append(mean_by_group(values).value)
    n, mean = len(means), np.mean(means, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        queries = mean_by_group(total / counts, groups)
        if n == 1:
            return queries, np.full(mean.shape, np.nan)
        sd = np.std(means, axis=0, ddof=1)
        of_graphs, of_queries = sd**2 / n, queries.error**2
        variance = of_graphs + of_queries
        degrees = variance**2 / (of_graphs**2 / (n - 1) + of_queries**2 / queries.degrees)
    # Without any variance its degrees do not matter.
    return Mean(mean, np.sqrt(variance), np.where(variance == 0, n - 1, degrees)), sd


def _estimate(
    values: np.ndarray,
    groups: np.ndarray | None,
    departs: np.ndarray | None,
    bounds: tuple[float, float],
) -> Estimate:
    mean, n = mean_by_group(values, groups), np.count_nonzero(~np.isnan(values), axis=-1)
    differ = np.full(np.shape(n), -1) if departs is None else groups_where(departs, groups)
    numbers = mean.value, *mean.interval(bounds), n, differ
    return Estimate(*(np.asarray(one).tolist() if values.ndim == 1 else one for one in numbers))


def groups_where(is_so: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """In how many groups something is so, bool (..., Q), of a query."""
    return np.count_nonzero(_sum_by_group(is_so.astype(np.float64), groups), axis=-1)


def _sum_by_group(values: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Sums within groups, (..., Q) to (..., G)."""
    if groups is None or (np.asarray(groups) < 0).all():
        return values
    labels = np.array(groups, dtype=np.int64)
    alone = labels < 0
    labels[alone] = labels.max() + 1 + np.arange(alone.sum())
    order = np.argsort(labels, kind="stable")
    starts = np.unique(labels[order], return_index=True)[1]
    return np.add.reduceat(values[..., order], starts, axis=-1)


def adjust_by_holm(p: np.ndarray) -> np.ndarray:
    """p values (m,) of m tests, adjusted for their number; those that are NaN are none.

    References
    ----------
    Holm (1979), A simple sequentially rejective multiple test procedure.
    """
    adjusted, tests = np.full(len(p), np.nan), np.argsort(p, kind="stable")
    tests = tests[~np.isnan(p[tests])]
    factors = np.arange(len(tests), 0, -1)
    adjusted[tests] = np.minimum(1, np.maximum.accumulate(factors * p[tests]))
    return adjusted


def largest_safe_k(ks: np.ndarray, loss: np.ndarray, tolerance: float) -> int:
    """The largest k such that at it and every smaller one a loss is within a tolerance; or 0.

    On the ascending grid `ks` (G,); `loss` (G,) is the upper end of an interval, NaN if unknown.
    """
    safe = np.logical_and.accumulate(loss <= tolerance + _ROUNDING)
    return int(np.where(safe, ks, 0).max())


def first_crossing(
    ks: np.ndarray, loss: np.ndarray, tolerance: float
) -> tuple[float, float, float]:
    """The first k at which a loss (G,) passes a tolerance, and the points of the grid about it.

    Interpolated linearly on the ascending grid `ks` (G,); all three are the first k where the loss
    is beyond there, and NaN where it never is. Points that are NaN are left out.
    """
    known = ~np.isnan(loss)
    ks, loss = ks[known], loss[known]
    beyond = np.flatnonzero(loss > tolerance + _ROUNDING)
    if not len(beyond):
        return np.nan, np.nan, np.nan
    after = beyond[0]
    before = max(after - 1, 0)
    way = loss[after] - loss[before]
    share = np.clip((tolerance - loss[before]) / way, 0, 1) if way > 0 else 0.0
    crossing = ks[before] + share * (ks[after] - ks[before])
    return float(crossing), float(ks[before]), float(ks[after])


def crossing_interval(
    ks: np.ndarray, loss: np.ndarray, low: np.ndarray, high: np.ndarray, tolerance: float
) -> tuple[float, float, float]:
    """Where a mean loss (G,) passes a tolerance, and the 95 % interval of that.

    From where the upper ends of the loss's intervals pass it to where the lower ends do, and no
    less than between two points of the grid. NaN: not within the grid, or not known.
    """
    crossing, before, after = first_crossing(ks, loss, tolerance)
    first, last = (first_crossing(ks, end, tolerance)[0] for end in (high, low))
    if not np.isnan(crossing):
        first, last = np.minimum(first, before), np.maximum(last, after)
    return crossing, float(first), float(last)
