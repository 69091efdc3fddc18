"""What measurements say: curves with intervals, onset of divergence, largest safe k."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

N_RESAMPLES = 1000
LEVEL = 0.95
SUMMARY = ("mean", "std", "median", "q05", "q95", "ci_low", "ci_high", "n")
OVERLAP_TOLERANCES = (0.99, 0.95, 0.90)
LID_TOLERANCES = (0.01, 0.05, 0.10)
# No more weights than this are held at a time: 8 MB stay in the processor's cache.
_WEIGHTS_AT_ONCE = 1_000_000
# And no more values than this are resampled together (32 MB).
_VALUES_AT_ONCE = 4_000_000


def summarize(values: np.ndarray, resampled_means: np.ndarray) -> dict[str, float]:
    """A series of values over queries in a few numbers, values that are NaN left out.

    Parameters
    ----------
    values : ndarray of float, shape (Q,)
        One value for each query.
    resampled_means : ndarray of float, shape (R,)
        Its means over resamples of the queries, from `bootstrap_means`.

    Returns
    -------
    dict
        ``mean``, ``std`` (of the population: over n), ``median``, ``q05`` and ``q95`` (quantiles),
        ``ci_low`` and ``ci_high`` (95 % percentile bootstrap interval of the mean), and ``n``, the
        values that are not NaN. With none of those everything else is NaN.
    """
    values = values[~np.isnan(values)]
    if values.size == 0:
        return dict.fromkeys(SUMMARY, np.nan) | {"n": 0}
    q05, median, q95 = np.quantile(values, [0.05, 0.5, 0.95])
    low, high = percentile_interval(resampled_means)
    numbers = (values.mean(), values.std(), median, q05, q95, low, high, values.size)
    return dict(zip(SUMMARY, numbers, strict=True))


def bootstrap_means(values: np.ndarray, seed: int, n_resamples: int = N_RESAMPLES) -> np.ndarray:
    """Means of series over resamples of the queries, the same resamples for every series.

    How often a query is drawn in a resample is its weight there, so that the means of all series
    over all resamples are one product of matrices. Sharing the resamples keeps differences between
    series paired.

    Parameters
    ----------
    values : ndarray of float, shape (S, Q)
        S series with a value for each query; NaN is left out of the mean.
    seed : int
        Seed of the resamples.
    n_resamples : int
        Resamples, R.

    Returns
    -------
    ndarray of float64, shape (S, R)
        NaN where a resample drew no value.

    References
    ----------
    Efron and Tibshirani (1993), An introduction to the bootstrap, chapter 13.
    """
    n_queries = values.shape[1]
    there = ~np.isnan(values)
    filled = np.where(there, values, 0.0)
    # Resampling about the mean leaves the products small, and a constant series exactly constant.
    with np.errstate(invalid="ignore"):
        center = filled.sum(axis=1, keepdims=True) / there.sum(axis=1, keepdims=True)
    filled = np.where(there, filled - center, 0.0)
    gaps = ~there.all(axis=1)
    rng = np.random.default_rng(seed)
    means = np.empty((len(values), n_resamples))
    step = max(1, _WEIGHTS_AT_ONCE // n_queries)
    for start in range(0, n_resamples, step):
        stop = min(start + step, n_resamples)
        draws = rng.integers(n_queries, size=(stop - start, n_queries))
        draws += n_queries * np.arange(stop - start)[:, None]
        drawn = np.bincount(draws.ravel(), minlength=draws.size).reshape(draws.shape)
        weights = drawn.astype(np.float64).T
        means[:, start:stop] = filled @ weights
        counts = np.full((len(values), stop - start), float(n_queries))
        counts[gaps] = there[gaps].astype(np.float64) @ weights
        with np.errstate(invalid="ignore"):
            means[:, start:stop] /= counts
    return means + center


def percentile_interval(resampled: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval of a resampled statistic; NaN where half or more have none."""
    values = resampled[~np.isnan(resampled)]
    if values.size * 2 <= resampled.size:
        return np.nan, np.nan
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def largest_safe_k(ks: np.ndarray, safe: np.ndarray) -> int:
    """The largest k such that it and every smaller one is safe.

    Parameters
    ----------
    ks : ndarray of int, shape (G,)
        The grid, ascending.
    safe : ndarray of bool, shape (G,)
        Whether the criterion holds at each k.

    Returns
    -------
    int
        0 where it does not hold at the first.
    """
    first_unsafe = len(ks) if np.all(safe) else int(np.argmin(safe))
    return int(ks[first_unsafe - 1]) if first_unsafe else 0


@dataclass(frozen=True)
class Onset:
    """Where a curve begins to climb faster.

    Attributes
    ----------
    k : float
        Breakpoint of the continuous two-piece linear fit; NaN for none.
    low, high : float
        Its 95 % percentile bootstrap interval over queries; NaN for none.
    """

    k: float
    low: float
    high: float


def onset_of_divergence(ks: np.ndarray, loss: np.ndarray, resampled_loss: np.ndarray) -> Onset:
    """Breakpoint of a continuous two-piece linear fit to 1 - overlap over k.

    The curve has an onset when it bends upwards there and ends higher than it began, beyond what
    the sample of queries can account for: when at least 97.5 % of the resampled curves do. A
    straight line has none, and neither has a curve that only levels off.

    Parameters
    ----------
    ks : ndarray of int, shape (G,)
        The grid, ascending. With fewer than five points there is no onset: four parameters fit four
        points.
    loss : ndarray of float, shape (G,)
        Mean of 1 - overlap at each k.
    resampled_loss : ndarray of float, shape (G, R)
        The same over resamples of the queries.

    References
    ----------
    Hinkley (1971), Inference in two-phase regression.
    """
    none = Onset(np.nan, np.nan, np.nan)
    if len(ks) < 5 or not np.isfinite(loss).all():
        return none
    (breakpoint,), (diverges,) = _fit_two_pieces(ks, loss[:, None])
    breakpoints, resampled_diverge = _fit_two_pieces(ks, resampled_loss)
    if not diverges or resampled_diverge.mean() < (1 + LEVEL) / 2:
        return none
    return Onset(float(breakpoint), *percentile_interval(breakpoints))


def _fit_two_pieces(ks: np.ndarray, curves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares two-piece fit of each of R curves, (G, R).

    Returns
    -------
    breakpoints : ndarray of float, shape (R,)
    diverge : ndarray of bool, shape (R,)
        Whether the second piece is the steeper one, and the fit ends higher than it begins.
    """
    # The breakpoint does not enter the model linearly, so it is searched: every whole k between the
    # second point and the last but one, or 500 values of a longer grid.
    inner = ks[-2] - ks[1]
    candidates = np.arange(ks[1], ks[-2] + 1) if inner < 500 else np.linspace(ks[1], ks[-2], 500)
    # A rise that is no more than the rounding of the curve is none.
    negligible = 1e-9 * np.abs(curves).max(axis=0)
    span = ks[-1] - ks[0]
    best = np.full(curves.shape[1], np.inf)
    breakpoints, diverge = np.empty_like(best), np.empty(best.shape, bool)
    for candidate in candidates:
        design = np.stack([np.ones(len(ks)), ks, np.maximum(0, ks - candidate)], axis=1)
        coefficients = np.linalg.pinv(design) @ curves
        error = ((curves - design @ coefficients) ** 2).sum(axis=0)
        better = error < best
        _, slope, bend = coefficients
        rise = slope * span + bend * (ks[-1] - candidate)
        best[better], breakpoints[better] = error[better], candidate
        diverge[better] = ((bend * span > negligible) & (rise > negligible))[better]
    return breakpoints, diverge


def summarize_run(
    ks: list[int], values: Mapping[str, np.ndarray], seed: int, n_resamples: int = N_RESAMPLES
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Curves over k of one run, and how far they are safe.

    Parameters
    ----------
    ks : list of int
        The grid, ascending, of length G.
    values : mapping of str to ndarray of float, shape (G, Q)
        For each metric a value for each k and query. The safe k and the onset are those of
        ``overlap``, ``lid_difference`` and ``lid_exact``.
    seed : int
        Seed of the resamples.
    n_resamples : int
        How many there are.

    Returns
    -------
    curves : DataFrame
        ``k``, ``metric``, and the numbers of `summarize`.
    safe_k : DataFrame
        ``criterion``, ``tolerance``, ``safe_k``, ``onset``, ``onset_low``, ``onset_high``. By
        ``overlap``, k is safe where the interval of the mean lies at the tolerance or above; by
        ``lid``, where the interval of ``lid_difference``, relative to the mean of ``lid_exact``,
        lies within plus or minus the tolerance.
    """
    rows, resampled_loss = [], None
    names = list(values)
    # Metrics are resampled together, as many as fit: drawing the resamples is half of the work.
    together = max(1, _VALUES_AT_ONCE // values[names[0]].size)
    for first in range(0, len(names), together):
        group = names[first : first + together]
        means = bootstrap_means(np.concatenate([values[name] for name in group]), seed, n_resamples)
        for name, of_metric in zip(group, np.split(means, len(group)), strict=True):
            if name == "overlap":
                resampled_loss = 1 - of_metric
            for k, at_k, resampled in zip(ks, values[name], of_metric, strict=True):
                rows.append({"k": k, "metric": name, **summarize(at_k, resampled)})
    curves = pd.DataFrame(rows)

    grid = np.array(ks)
    of = {
        metric: curves[curves["metric"] == metric]
        for metric in ("overlap", "lid_exact", "lid_difference")
    }
    onset = onset_of_divergence(grid, 1 - of["overlap"]["mean"].to_numpy(), resampled_loss)
    margin = of["lid_exact"]["mean"].to_numpy()
    low, high = (of["lid_difference"][end].to_numpy() / margin for end in ("ci_low", "ci_high"))
    safe = {("overlap", t): of["overlap"]["ci_low"].to_numpy() >= t for t in OVERLAP_TOLERANCES}
    safe |= {("lid", t): (low >= -t) & (high <= t) for t in LID_TOLERANCES}
    safe_k = [
        (criterion, tolerance, largest_safe_k(grid, at_k), onset.k, onset.low, onset.high)
        for (criterion, tolerance), at_k in safe.items()
    ]
    columns = ["criterion", "tolerance", "safe_k", "onset", "onset_low", "onset_high"]
    return curves, pd.DataFrame(safe_k, columns=columns)
