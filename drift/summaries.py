"""What measurements say: curves with intervals, crossings, largest safe k, differences of runs."""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from drift import InputError, metrics
from drift.intervals import (
    GroupSums,
    bootstrap_means,
    crossing_interval,
    largest_safe_k,
    mean_intervals,
    metric_range,
    percentile_interval,
    standard_errors,
    sum_by_group,
    t_quantile,
)

N_RESAMPLES = 1000
_SAFE_K = ["criterion", "tolerance", "safe_k", "crossing_k", "crossing_low", "crossing_high"]
SUMMARY = ("mean", "std", "median", "q05", "q95", "ci_low", "ci_high", "n")
OVERLAP_TOLERANCES = (0.99, 0.95, 0.90)
LID_TOLERANCES = (0.01, 0.05, 0.10)
# The LID can be safe only where this share of the queries has one on both sides.
LID_SHARE = 0.99
# Mean recall and mean overlap that differ by more than this, somewhere, are two stories.
TIES = 0.0005
COMPARED = ("overlap", "recall", "lid_difference")
COMPARED_KS = (10, 50, 100, 250)
# Columns of a difference, with their types.
_DIFFERENCE = {"k": "int32", "graphs": "int32", "difference": float, "ci_low": float}
_DIFFERENCE |= {"ci_high": float, "graphs_low": float, "graphs_high": float, "different": bool}
# No more values than this are resampled together (32 MB).
_VALUES_AT_ONCE = 4_000_000


class RunValues(NamedTuple):
    """By metric the values (G, Q) of a run; those of one family differ by their seed alone."""

    family: str
    seed: int
    ks: Sequence[int]
    values: Mapping[str, np.ndarray]


class SummaryTables(NamedTuple):
    """The tables of all runs, with columns that say of which run or runs a row is."""

    curves: pd.DataFrame
    safe_k: pd.DataFrame
    graphs: pd.DataFrame
    differences: pd.DataFrame


class MetricMean(NamedTuple):
    """The mean of a metric over `n` queries that have a value, with its 95 % interval."""

    metric: str
    mean: float
    ci_low: float
    ci_high: float
    n: int


def compare(
    exact: ArrayLike,
    ann: ArrayLike,
    exact_distances: ArrayLike | None = None,
    ann_distances: ArrayLike | None = None,
    groups: np.ndarray | None = None,
) -> list[MetricMean]:
    """Compare two arrays of neighbor lists; ``pandas.DataFrame()`` takes the result.

    Parameters
    ----------
    exact, ann : array_like of int, shape (Q, k)
        Ids, without the query itself; -1 for a missing neighbor.
    exact_distances, ann_distances : array_like of float, shape (Q, k), optional
        Their Euclidean distances, +inf where a neighbor is missing; both or none. With them there
        are more metrics of `drift.metrics` than ``overlap`` and ``found``.
    groups : ndarray of int, shape (Q,), optional
        As in `drift.intervals.sum_by_group`. An `InputError` says what cannot be.

    Examples
    --------
    >>> [(metric, mean) for metric, mean, *_ in compare([[1, 2], [0, 2]], [[1, 3], [0, 2]])]
    [('overlap', 0.75), ('found', 1.0)]
    """
    if (exact_distances is None) != (ann_distances is None):
        raise InputError("give the distances of both sides, or of none")
    values = {"overlap": metrics.neighborhood_overlap(exact, ann), "found": metrics.found(ann)}
    labels = np.zeros(len(values["found"]), int) if groups is None else np.asarray(groups)
    if labels.shape != values["found"].shape or labels.dtype.kind not in "iu":
        raise InputError("groups must be whole numbers of shape (Q,), one for each query")
    if exact_distances is not None:
        if np.shape(exact_distances) != np.shape(exact):
            raise InputError("ids and distances must be of one shape (Q, k)")
        recall = metrics.recall(exact_distances, ann_distances)
        values["recall"] = np.maximum(recall, values["overlap"])  # whatever the rounding
        for metric in (metrics.mean_distance, metrics.kth_distance, metrics.lid):
            values[f"{metric.__name__}_exact"] = metric(exact_distances)
            values[f"{metric.__name__}_ann"] = metric(ann_distances)
        values["distance_ratio"] = metrics.distance_ratio(exact_distances, ann_distances)
    at_one_k = {name: per_query[None] for name, per_query in values.items()}
    curves, _ = _curves([np.shape(ann)[1]], at_one_k, 0, groups, N_RESAMPLES)
    return [MetricMean(*row) for row in curves[list(MetricMean._fields)].itertuples(index=False)]


def summarize(values: np.ndarray) -> dict[str, float]:
    """`SUMMARY` of the values (Q,) that are not NaN, without an interval; ``std`` is over n."""
    values, numbers = values[~np.isnan(values)], [np.nan] * 5
    if values.size:
        # Infinite values have no standard deviation.
        with np.errstate(invalid="ignore"):
            numbers = values.mean(), values.std(), *np.quantile(values, [0.5, 0.05, 0.95])
    return dict(zip(SUMMARY[:5], numbers, strict=True)) | {"n": values.size}


def summarize_run(
    ks: Sequence[int],
    values: Mapping[str, np.ndarray],
    seed: int,
    groups: np.ndarray | None = None,
    n_resamples: int = N_RESAMPLES,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Curves over k of one run, how far they are safe and where they cross the tolerances.

    `values` are by metric, (G, Q) each on the ascending grid `ks` (G,), with ``overlap``,
    ``lid_difference`` and ``lid_exact`` among them. `groups` are as in `intervals.sum_by_group`;
    the bootstrap's resamples are the same for every metric and grid.

    Returns
    -------
    curves : DataFrame
        ``k``, ``metric`` and `SUMMARY`, intervals cut to the metric's range.
    safe_k : DataFrame
        ``criterion``, ``tolerance``, ``safe_k``, ``crossing_k``, ``crossing_low``,
        ``crossing_high``. k is safe by ``overlap`` where the lower end of the bootstrap interval of
        the mean is no less than the tolerance; by ``lid`` where that of ``lid_difference``, over
        the mean ``lid_exact``, lies within it and 99 % of the queries have an LID on both sides; by
        ``recall``, where rows tie so that its mean is not that of the overlap, as by overlap.
    """
    curves, resampled = _curves(ks, values, seed, groups, n_resamples)
    means = {name: curve["mean"].to_numpy() for name, curve in curves.groupby("metric")}
    return curves, _safe_k(np.asarray(ks), values, means, resampled)


def _curves(
    ks: Sequence[int],
    values: Mapping[str, np.ndarray],
    seed: int,
    groups: np.ndarray | None,
    n_resamples: int,
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """The first table of `summarize_run`, and by metric the resampled means (G, R)."""
    names, rows, resampled = list(values), [], {}
    # Metrics are resampled together, as many as fit: drawing the resamples is half of the work.
    together = max(1, _VALUES_AT_ONCE // values[names[0]].size)
    for first in range(0, len(names), together):
        chunk = {name: values[name] for name in names[first : first + together]}
        sums = sum_by_group(np.concatenate([*chunk.values()]), groups)
        means = bootstrap_means(sums, seed, n_resamples)
        low, high = mean_intervals(sums, means).reshape(2, len(chunk), len(ks))
        for i, (name, at_ks) in enumerate(chunk.items()):
            resampled[name] = means[i * len(ks) : (i + 1) * len(ks)]
            ends = np.clip([low[i], high[i]], *metric_range(name)).T
            for k, per_query, (ci_low, ci_high) in zip(ks, at_ks, ends, strict=True):
                summary = summarize(per_query) | {"ci_low": ci_low, "ci_high": ci_high}
                rows.append({"k": k, "metric": name, **summary})
    return pd.DataFrame(rows)[["k", "metric", *SUMMARY]], resampled


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
    for name in criteria:
        low = np.array([percentile_interval(at_k)[0] for at_k in resampled[name]])
        for tolerance in OVERLAP_TOLERANCES:
            safe_k = largest_safe_k(ks, low >= tolerance)
            loss = 1 - means[name], 1 - resampled[name], 1 - tolerance
            rows.append((name, tolerance, safe_k, *crossing_interval(ks, *loss)))

    ends = np.array([percentile_interval(at_k) for at_k in resampled["lid_difference"]])
    low, high = ends.T / means["lid_exact"]
    enough = (~np.isnan(values["lid_difference"])).mean(axis=1) >= LID_SHARE
    errors = [np.abs(of["lid_difference"] / of["lid_exact"]) for of in (means, resampled)]
    for tolerance in LID_TOLERANCES:
        safe_k = largest_safe_k(ks, enough & (low >= -tolerance) & (high <= tolerance))
        rows.append(("lid", tolerance, safe_k, *crossing_interval(ks, *errors, tolerance)))
    return pd.DataFrame(rows, columns=_SAFE_K)


def summarize_graphs(
    families: Mapping[str, tuple[Sequence[int], Sequence[Mapping[str, np.ndarray]]]],
    groups: np.ndarray | None = None,
) -> pd.DataFrame:
    """``05_graphs.parquet``: means over the R graphs of a family, which differ by their seed alone.

    `families` has for each its grid and the values of `summarize_run` of each graph, over the same
    queries; those of one graph are left out. The interval is the t interval of R - 1 degrees with
    the root of sd^2 / R + v: sd is that between the graphs' means, v the variance over queries, by
    group, of each query's average.
    """
    columns = ["family", "k", "metric", "graphs", "mean", "sd_between_graphs", "ci_low", "ci_high"]
    tables = []
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
    return _joined(tables, columns)


def compare_families(
    ks: Sequence[int],
    first: Mapping[int, np.ndarray],
    second: Mapping[int, np.ndarray],
    seed: int,
    groups: np.ndarray | None = None,
    n_resamples: int = N_RESAMPLES,
) -> pd.DataFrame:
    """By how much a metric of one family exceeds that of another, over their R common seeds.

    `first` and `second` have for each seed the metric in that run, (G, Q), at the `ks` that both
    have; the rest is as in `summarize_run`. A ValueError says when they have no seed in common.

    The table has ``k``, ``graphs`` (R), ``difference`` of the means, its interval over queries,
    ``ci_low`` and ``ci_high``, the t interval of the R paired differences (NaN with R = 1),
    ``graphs_low`` and ``graphs_high``, and ``different``: whether these leave out 0.
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
    ends = low, high, difference - half, difference + half
    columns = list(ks), len(seeds), difference, *ends, different
    return pd.DataFrame(dict(zip(_DIFFERENCE, columns, strict=True)))


def _average_graphs(
    graphs: Sequence[np.ndarray], groups: np.ndarray | None
) -> tuple[np.ndarray, GroupSums]:
    """Means of each graph (R, G); each query's average over the graphs, summed by group."""
    total, counts, means = 0.0, 0, []
    with np.errstate(invalid="ignore"):
        for values in graphs:
            valid = ~np.isnan(values)
            filled = np.where(valid, values, 0.0)
            total, counts = total + filled, counts + valid
            means.append(filled.sum(axis=1) / valid.sum(axis=1))
        return np.array(means), sum_by_group(total / counts, groups)


def summarize_runs(
    runs: Mapping[str, RunValues], seed: int, groups: np.ndarray | None = None
) -> SummaryTables:
    """Summarize all runs, by name, over the same queries; as in `summarize_run`."""
    of_runs, families = [], {}
    for name, run in runs.items():
        tables = summarize_run(run.ks, run.values, seed, groups)
        of_runs.append([table.assign(run=name) for table in tables])
        ks, graphs = families.setdefault(run.family, (list(run.ks), {}))
        # A graph that was searched on another grid has nothing to compare at most k.
        if list(run.ks) == ks:
            graphs[run.seed] = run.values
    in_order = {
        name: (ks, [graphs[s] for s in sorted(graphs)]) for name, (ks, graphs) in families.items()
    }
    differences = []
    for first, second in itertools.combinations(families, 2):
        (ks, ours), (other_ks, theirs) = families[first], families[second]
        common = [k for k in ks if k in other_ks]
        chosen = [k for k in common if k in (*COMPARED_KS, common[0], common[-1])]
        for metric in COMPARED if chosen and (seeds := ours.keys() & theirs.keys()) else ():
            sides = [
                {s: graphs[s][metric][np.isin(grid, chosen)] for s in seeds}
                for grid, graphs in (families[first], families[second])
            ]
            table = compare_families(chosen, *sides, seed, groups)
            differences.append(table.assign(first=first, second=second, metric=metric))
    curves, safe_k = zip(*of_runs, strict=True)
    types = dict.fromkeys(("first", "second", "metric"), str) | _DIFFERENCE
    return SummaryTables(
        _joined(curves, ["run", "k", "metric", *SUMMARY]),
        _joined(safe_k, ["run", *_SAFE_K]),
        summarize_graphs(in_order, groups),
        _joined(differences, [*types]).astype(types),
    )


def _joined(tables: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """One table of them, with its columns even where there are none."""
    return pd.concat(tables or [pd.DataFrame(columns=columns)], ignore_index=True)[columns]
