"""What measurements say: curves with intervals, crossings, largest safe k, differences of runs."""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from drift import InputError, metrics
from drift.curves import (
    MEDIAN_ERROR,
    TOGETHER,
    curve_names,
    estimate_curve,
    linearized,
    metric_range,
    spread,
)
from drift.intervals import (
    LEVEL,
    Estimate,
    adjust_by_holm,
    crossing_interval,
    largest_safe_k,
    mean_over_graphs,
)

OVERLAP_TOLERANCES = (0.99, 0.95, 0.90)
LID_TOLERANCES = (0.01, 0.05, 0.10)
# The LID can be safe only where this share of the queries has one on both sides.
LID_SHARE = 0.99
# Mean recall and mean overlap that differ by more than this, somewhere, are two stories.
TIES = 0.0005
COMPARED = ("overlap", "recall", "lid_difference")
COMPARED_KS = (10, 50, 100, 250)
Table = dict[str, np.ndarray]
SPREAD = dict.fromkeys(("mean", "std", "median", "q05", "q95", "ci_low", "ci_high"), np.float64)
CURVES = {"run": str, "k": np.int32, "metric": str, **SPREAD}
CURVES |= dict.fromkeys(("n", "groups_that_differ"), np.int32)
SAFE_K = {"run": str, "criterion": str, "tolerance": np.float64, "safe_k": np.int32}
SAFE_K |= dict.fromkeys(("crossing_k", "crossing_low", "crossing_high"), np.float64)
GRAPHS = {"family": str, "k": np.int32, "metric": str, "graphs": np.int32}
GRAPHS |= dict.fromkeys(("mean", "sd_between_graphs", "ci_low", "ci_high"), np.float64)
DIFFERENCES = {"first": str, "second": str, "metric": str, "k": np.int32, "graphs": np.int32}
DIFFERENCES |= dict.fromkeys(("difference", "ci_low", "ci_high", "p", "p_adjusted"), np.float64)
DIFFERENCES |= {"different": bool}


class RunValues(NamedTuple):
    """By metric the values (G, Q) of a run; those of one family differ by their seed alone."""

    family: str
    seed: int
    ks: Sequence[int]
    values: Mapping[str, np.ndarray]


class SummaryTables(NamedTuple):
    """The tables of all runs, with columns that say of which run or runs a row is."""

    curves: Table
    safe_k: Table
    graphs: Table
    differences: Table


class MetricMean(NamedTuple):
    """The mean of a metric over `n` queries that have a value, with its 95 % interval."""

    metric: str
    mean: float
    ci_low: float
    ci_high: float
    n: int
    groups_that_differ: int  # as in `drift.intervals.Estimate`


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
        are more metrics than ``overlap`` and ``found``, and how far their means are off.
    groups : ndarray of int, shape (Q,), optional
        As in `drift.intervals.estimate_mean`. An `InputError` says what cannot be.

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
    at_one_k, means = {name: per_query[None] for name, per_query in values.items()}, []
    for name in curve_names(at_one_k):
        estimate = estimate_curve(at_one_k, name, groups)
        means.append(MetricMean(name, *(number.item() for number in estimate)))
    return means


def _safe_k(ks: np.ndarray, curves: Mapping[str, Estimate], n_queries: int) -> list[tuple]:
    losses, criteria = [], ["overlap"]
    if "recall" in curves and np.any(np.abs(curves["recall"][0] - curves["overlap"][0]) > TIES):
        criteria.append("recall")
    for name in criteria:
        mean, low, high = curves[name][:3]
        loss = (1 - mean, 1 - high, 1 - low)
        losses += [(name, least, 1 - least, loss, 1 - low) for least in OVERLAP_TOLERANCES]
    error, low, high = curves["lid_error"][:3]
    most, least = np.maximum(np.abs(low), np.abs(high)), np.minimum(np.abs(low), np.abs(high))
    least = np.where((low <= 0) & (high >= 0), 0.0, least)
    of_enough = np.where(curves["lid_error"].n >= LID_SHARE * n_queries, most, np.nan)
    loss = (np.abs(error), least, most)
    losses += [("lid", tolerance, tolerance, loss, of_enough) for tolerance in LID_TOLERANCES]
    return [
        (name, wanted, largest_safe_k(ks, sure, lost), *crossing_interval(ks, *loss, lost))
        for name, wanted, lost, loss, sure in losses
    ]


def summarize_graphs(
    families: Mapping[str, Sequence[RunValues]], groups: np.ndarray | None = None
) -> Table:
    """``05_graphs.parquet``: curves by `intervals.mean_over_graphs`, but for the median error."""
    rows = []
    for family, runs in families.items():
        names = curve_names(runs[0].values) if len(runs) > 1 else []
        for name in (name for name in names if name != MEDIAN_ERROR):
            mean, sd = mean_over_graphs((linearized(run.values, name) for run in runs), groups)
            numbers = zip(
                runs[0].ks, mean.value, sd, *mean.interval(metric_range(name)), strict=True
            )
            rows += [(family, k, name, len(runs), *at_k) for k, *at_k in numbers]
    return as_table(rows, GRAPHS)


def compare_families(
    families: Mapping[str, Sequence[RunValues]],
    groups: np.ndarray | None = None,
    k_of_interest: int | None = None,
    family_of_interest: str | None = None,
) -> Table:
    """``05_differences.parquet``: by how much each family exceeds each later one.

    Of `COMPARED`, paired over queries and common seeds, at `COMPARED_KS`, the first and the last k
    that both have and that of interest, by `intervals.mean_over_graphs`. ``p_adjusted`` is by Holm
    among the rows of one metric and k in which the family of interest takes part, ``different``
    where it is below 5 %, and NaN in others. Without one that is the family of the smallest mean
    overlap at the k of interest, or else at its last.
    """
    rows = []
    for first, second in itertools.combinations(families, 2):
        sides = [{run.seed: run for run in families[name]} for name in (first, second)]
        seeds = [seed for seed in sides[0] if seed in sides[1]]
        grids = [families[name][0].ks for name in (first, second)]
        common = [k for k in grids[0] if k in grids[1]]
        ks = [k for k in common if k in (*COMPARED_KS, common[0], common[-1], k_of_interest)]
        places = [np.isin(grid, ks) for grid in grids]
        for metric in COMPARED if ks and seeds else ():
            pairs = (
                (side[seed].values[metric][at] for side, at in zip(sides, places, strict=True))
                for seed in seeds
            )
            mean, _ = mean_over_graphs((np.subtract(*pair) for pair in pairs), groups)
            for k, *numbers in zip(ks, mean.value, *mean.interval(), mean.p, strict=True):
                rows.append((first, second, metric, k, len(seeds), *numbers, np.nan, False))
    table = as_table(rows, DIFFERENCES)
    least = min(families, key=lambda family: _kept(families[family], k_of_interest))
    wanted = family_of_interest or least
    takes_part = (table["first"] == wanted) | (table["second"] == wanted)
    for metric, k in itertools.product(COMPARED, np.unique(table["k"])):
        among = takes_part & (table["metric"] == metric) & (table["k"] == k)
        table["p_adjusted"][among] = adjust_by_holm(table["p"][among])
    table["different"] = table["p_adjusted"] < 1 - LEVEL
    return table


def _kept(runs: Sequence[RunValues], k: int | None) -> float:
    """The mean overlap of a family at a k, or else at its last."""
    places = (list(run.ks).index(k) if k in run.ks else -1 for run in runs)
    return np.mean([run.values["overlap"][at] for run, at in zip(runs, places, strict=True)])


def summarize_runs(
    runs: Mapping[str, RunValues],
    groups: np.ndarray | None = None,
    k_of_interest: int | None = None,
    run_of_interest: str | None = None,
) -> SummaryTables:
    """The tables of all runs, by name, over the same queries.

    Of the values there are ``overlap``, ``lid_exact`` and ``lid_ann``; `groups` (Q,) are as in
    `intervals.estimate_mean`, `run_of_interest` is a run or a family.

    Returns
    -------
    curves : dict of ndarray
        `CURVES`, a row for each k of each of `curve_names`; of those that no single query has a
        value of, standard deviation and quantiles are NaN.
    safe_k : dict of ndarray
        `SAFE_K`. k is safe by ``overlap`` where the lower end of its interval is no less than the
        tolerance; by ``recall`` likewise, where rows tie so that its mean is another; by ``lid``
        where the whole interval of ``lid_error`` lies within it and 99 % of the queries have an LID
        on both sides. Crossings are those of `intervals.crossing_interval`.
    graphs, differences : dict of ndarray
        As of `summarize_graphs` and `compare_families`.
    """
    rows, safe_k, families = [], [], {}
    for run, (family, _, ks, values) in runs.items():
        curves = {name: estimate_curve(values, name, groups) for name in curve_names(values)}
        for name, (mean, *others) in curves.items():
            numbers = [np.full(len(ks), np.nan)] * 4
            if name not in TOGETHER:
                numbers = spread(values[name])
            at_ks = zip(ks, mean, *numbers, *others, strict=True)
            rows += [(run, k, name, *at_k) for k, *at_k in at_ks]
        of_run = _safe_k(np.asarray(ks), curves, n_queries=values["overlap"].shape[1])
        safe_k += [(run, *row) for row in of_run]
        # A graph that was searched on another grid has nothing to compare at most k.
        of_family = families.setdefault(family, [])
        if not of_family or list(ks) == list(of_family[0].ks):
            of_family.append(runs[run])
    of_interest = runs[run_of_interest].family if run_of_interest in runs else run_of_interest
    return SummaryTables(
        as_table(rows, CURVES),
        as_table(safe_k, SAFE_K),
        summarize_graphs(families, groups),
        compare_families(families, groups, k_of_interest, of_interest),
    )


def as_table(rows: Sequence[tuple], columns: Mapping[str, type]) -> Table:
    """Columns of some types, from rows."""
    data = zip(*rows, strict=True) if rows else [()] * len(columns)
    return {
        name: np.array(column, dtype)
        for (name, dtype), column in zip(columns.items(), data, strict=True)
    }
