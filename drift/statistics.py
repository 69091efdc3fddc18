"""What measurements say: curves with intervals, crossings, largest safe k, differences of runs."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from drift.intervals import (
    LEVEL,
    GroupSums,
    bootstrap_means,
    mean_intervals,
    metric_range,
    percentile_interval,
    standard_errors,
    sum_by_group,
    t_quantile,
)

N_RESAMPLES = 1000
SUMMARY = ("mean", "std", "median", "q05", "q95", "ci_low", "ci_high", "n")
OVERLAP_TOLERANCES = (0.99, 0.95, 0.90)
LID_TOLERANCES = (0.01, 0.05, 0.10)
# The LID can be safe only where this share of the queries has one on both sides.
LID_SHARE = 0.99
# Mean recall and mean overlap that differ by more than this, somewhere, are two stories.
TIES = 0.0005
# No more values than this are resampled together (32 MB).
_VALUES_AT_ONCE = 4_000_000
# What a mean of shares is off by in float64, and more.
_ROUNDING = 1e-12


def summarize(values: np.ndarray) -> dict[str, float]:
    """Values over queries, of shape (Q,), in a few numbers; those that are NaN are left out.

    They are ``mean``, ``std`` (of the population: over n), ``median``, ``q05`` and ``q95``
    (quantiles), and ``n``, the number of values. Where that is 0, everything else is NaN.
    """
    values = values[~np.isnan(values)]
    numbers = dict.fromkeys(("mean", "std", "median", "q05", "q95"), np.nan)
    if values.size:
        # Infinite values have no standard deviation.
        with np.errstate(invalid="ignore"):
            numbers |= {"mean": values.mean(), "std": values.std()}
            quantiles = np.quantile(values, [0.5, 0.05, 0.95])
        numbers |= zip(("median", "q05", "q95"), quantiles, strict=True)
    return numbers | {"n": values.size}


def largest_safe_k(ks: np.ndarray, safe: np.ndarray) -> int:
    """The largest k of an ascending grid (G,) such that it and every smaller one is safe; or 0."""
    return int(np.where(np.logical_and.accumulate(safe), ks, 0).max())


def first_crossings(ks: np.ndarray, loss: np.ndarray, tolerance: float) -> np.ndarray:
    """The first k (R,) at which R curves (G, R) pass a tolerance, by more than rounding.

    It is linear between the points of the grid `ks`, (G,) and ascending, and infinite for curves
    that do not pass within it. Points that are NaN are left out: a gap does not cross, what it lies
    between may. Points beyond a crossing do not change it.
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

    Resampled curves (G, R) that never cross count as infinite; what is infinite is NaN in the end.
    """
    (crossing,) = first_crossings(ks, loss[:, None], tolerance)
    resampled = first_crossings(ks, resampled_loss, tolerance)
    # Between two crossings there is none: one of them may lie beyond the grid's end.
    ends = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")
    crossing, low, high = (float(k) if np.isfinite(k) else np.nan for k in (crossing, *ends))
    return crossing, low, high


def summarize_run(
    ks: Sequence[int],
    values: Mapping[str, np.ndarray],
    seed: int,
    groups: np.ndarray | None = None,
    n_resamples: int = N_RESAMPLES,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Curves over k of one run, how far they are safe and where they cross the tolerances.

    Parameters
    ----------
    ks : sequence of int
        The grid, ascending, of length G.
    values : mapping of str to ndarray of float, shape (G, Q)
        By metric, with ``overlap``, ``lid_difference`` and ``lid_exact`` among them.
    seed : int
        Seed of the resamples.
    groups : ndarray of int, shape (Q,), or None
        Queries of one number are alike by construction; -1 is a group of its own.
    n_resamples : int
        Resamples of the groups, the same for every metric and grid.

    Returns
    -------
    curves : DataFrame
        ``k``, ``metric``, the numbers of `summarize`, and ``ci_low`` and ``ci_high``, the 95 %
        interval of the mean (`drift.intervals.mean_intervals`) cut to the metric's range.
    safe_k : DataFrame
        ``criterion``, ``tolerance``, ``safe_k``, ``crossing_k``, ``crossing_low``,
        ``crossing_high``. By ``overlap``, k is safe where the lower end of the bootstrap interval
        of the mean is no less than the tolerance; by ``lid``, where the bootstrap interval of
        ``lid_difference``, relative to the mean of ``lid_exact``, lies within plus or minus the
        tolerance, and 99 % of all queries have an LID on both sides. Where rows tie, so that mean
        recall is not mean overlap, there are rows of ``recall`` too, by the rule of ``overlap``.
    """
    names, rows, resampled = list(values), [], {}
    # Metrics are resampled together, as many as fit: drawing the resamples is half of the work.
    together = max(1, _VALUES_AT_ONCE // values[names[0]].size)
    for first in range(0, len(names), together):
        chunk = names[first : first + together]
        sums = sum_by_group(np.concatenate([values[name] for name in chunk]), groups)
        means = bootstrap_means(sums, seed, n_resamples)
        low, high = mean_intervals(sums, means).reshape(2, len(chunk), len(ks))
        for i, name in enumerate(chunk):
            resampled[name] = means[i * len(ks) : (i + 1) * len(ks)]
            ends = np.clip([low[i], high[i]], *metric_range(name)).T
            for k, per_query, (ci_low, ci_high) in zip(ks, values[name], ends, strict=True):
                summary = summarize(per_query) | {"ci_low": ci_low, "ci_high": ci_high}
                rows.append({"k": k, "metric": name, **summary})
    curves = pd.DataFrame(rows)[["k", "metric", *SUMMARY]]
    means = {name: curve["mean"].to_numpy() for name, curve in curves.groupby("metric")}
    return curves, _safe_k(np.asarray(ks), values, means, resampled)


def _safe_k(
    ks: np.ndarray,
    values: Mapping[str, np.ndarray],
    means: Mapping[str, np.ndarray],
    resampled: Mapping[str, np.ndarray],
) -> pd.DataFrame:
    """The second table of `summarize_run`, from means (G,) and resampled means (G, R)."""
    rows, criteria = [], ["overlap"]
    if "recall" in means and (np.abs(means["recall"] - means["overlap"]) > TIES).any():
        criteria.append("recall")
    for criterion in criteria:
        low = np.array([percentile_interval(at_k)[0] for at_k in resampled[criterion]])
        loss, resampled_loss = 1 - means[criterion], 1 - resampled[criterion]
        for tolerance in OVERLAP_TOLERANCES:
            safe_k = largest_safe_k(ks, low >= tolerance)
            crossing = crossing_interval(ks, loss, resampled_loss, 1 - tolerance)
            rows.append((criterion, tolerance, safe_k, *crossing))

    ends = np.array([percentile_interval(at_k) for at_k in resampled["lid_difference"]])
    low, high = ends.T / means["lid_exact"]
    enough = (~np.isnan(values["lid_difference"])).mean(axis=1) >= LID_SHARE
    loss = np.abs(means["lid_difference"] / means["lid_exact"])
    resampled_loss = np.abs(resampled["lid_difference"] / resampled["lid_exact"])
    for tolerance in LID_TOLERANCES:
        safe_k = largest_safe_k(ks, enough & (low >= -tolerance) & (high <= tolerance))
        crossing = crossing_interval(ks, loss, resampled_loss, tolerance)
        rows.append(("lid", tolerance, safe_k, *crossing))
    columns = ["criterion", "tolerance", "safe_k", "crossing_k", "crossing_low", "crossing_high"]
    return pd.DataFrame(rows, columns=columns)


def summarize_graphs(
    families: Mapping[str, tuple[Sequence[int], Sequence[Mapping[str, np.ndarray]]]],
    groups: np.ndarray | None = None,
) -> pd.DataFrame:
    """Means over graphs that differ by their seed alone, with intervals over graphs and queries.

    Parameters
    ----------
    families : mapping of str to (sequence of int, sequence of mappings)
        For each family its grid, of length G, and for each of its R graphs the values of
        `summarize_run`, over the same queries.
    groups
        As in `summarize_run`.

    Returns
    -------
    DataFrame
        ``family``, ``k``, ``metric``, ``graphs``, ``mean`` over the graphs' means,
        ``sd_between_graphs`` of them (over R - 1), and ``ci_low`` and ``ci_high``: plus and minus
        the 97.5 % t quantile of R - 1 degrees times the root of sd^2 / R + v, v being the variance
        over queries, by group, of the mean of each query's average over the graphs; cut to the
        metric's range. Families of one graph are left out.
    """
    columns = ["family", "k", "metric", "graphs", "mean", "sd_between_graphs", "ci_low", "ci_high"]
    tables = [pd.DataFrame(columns=columns)]
    for family, (ks, graphs) in families.items():
        for metric in graphs[0] if len(graphs) > 1 else ():
            means, over_queries = _average_graphs([graph[metric] for graph in graphs], groups)
            with np.errstate(invalid="ignore"):
                mean, sd = means.mean(axis=0), means.std(axis=0, ddof=1)
            error = np.sqrt(sd**2 / len(graphs) + standard_errors(over_queries) ** 2)
            half = t_quantile(len(graphs) - 1) * error
            low, high = np.clip([mean - half, mean + half], *metric_range(metric))
            numbers = (family, list(ks), metric, len(graphs), mean, sd, low, high)
            tables.append(pd.DataFrame(dict(zip(columns, numbers, strict=True))))
    return pd.concat(tables[1:] or tables, ignore_index=True)


def compare_families(
    ks: Sequence[int],
    first: Mapping[int, np.ndarray],
    second: Mapping[int, np.ndarray],
    seed: int,
    groups: np.ndarray | None = None,
    n_resamples: int = N_RESAMPLES,
) -> pd.DataFrame:
    """By how much a metric of one family exceeds that of another, over their common seeds.

    Parameters
    ----------
    ks : sequence of int
        The k that both have, of length G.
    first, second : mapping of int to ndarray of float, shape (G, Q)
        For each seed the metric in that run.
    seed, groups, n_resamples
        As in `summarize_run`: the resamples are the same.

    Returns
    -------
    DataFrame
        ``k``, ``graphs`` (seeds in common, R), ``difference`` of the means, ``ci_low`` and
        ``ci_high``, its 95 % interval over queries, ``graphs_low`` and ``graphs_high``, the t
        interval of the R paired differences (NaN with R = 1), and ``different``: whether the first
        interval leaves out 0 and, with R > 1, the second does too.

    Raises
    ------
    ValueError
        When they have no seed in common.
    """
    seeds = sorted(set(first) & set(second))
    if not seeds:
        raise ValueError("the two families have no seed in common")
    with np.errstate(invalid="ignore"):
        pairs = [first[seed] - second[seed] for seed in seeds]
    means, over_queries = _average_graphs(pairs, groups)
    difference = means.mean(axis=0)
    low, high = mean_intervals(over_queries, bootstrap_means(over_queries, seed, n_resamples))
    different = (low > 0) | (high < 0)
    half = np.full(len(ks), np.nan)
    if len(seeds) > 1:
        half = t_quantile(len(seeds) - 1) * means.std(axis=0, ddof=1) / np.sqrt(len(seeds))
        different &= np.abs(difference) > half
    return pd.DataFrame({
        "k": list(ks),
        "graphs": len(seeds),
        "difference": difference,
        "ci_low": low,
        "ci_high": high,
        "graphs_low": difference - half,
        "graphs_high": difference + half,
        "different": different,
    })  # fmt: skip


def _average_graphs(
    graphs: Sequence[np.ndarray], groups: np.ndarray | None
) -> tuple[np.ndarray, GroupSums]:
    """Means of each graph (R, G), and each query's average over the graphs summed by group."""
    total, counts, means = 0.0, 0, []
    with np.errstate(invalid="ignore"):
        for values in graphs:
            valid = ~np.isnan(values)
            filled = np.where(valid, values, 0.0)
            total, counts = total + filled, counts + valid
            means.append(filled.sum(axis=1) / valid.sum(axis=1))
        return np.array(means), sum_by_group(total / counts, groups)
