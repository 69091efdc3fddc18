"""Curves over k, from the values of single queries: means, and ratios and inverses of means."""

from collections.abc import Mapping

import numpy as np

from drift import intervals
from drift.intervals import Estimate, estimate_mean, estimate_ratio

SHARES = ("overlap", "recall", "found", "distance_ratio")
# Numerators and denominators of ratios of means.
RATIOS = {
    "lid_error": ("lid_ann", "lid_exact"),
    "lid_cut_error": ("lid_exact_cut", "lid_exact"),
    "kth_distance_error": ("kth_distance_ann", "kth_distance_exact"),
    "mean_distance_error": ("mean_distance_ann", "mean_distance_exact"),
    "lid_reported_error": ("lid_reported", "lid_exact"),
    "kth_distance_reported_error": ("kth_distance_reported", "kth_distance_exact"),
    # The ratio of 1 / mean is that of the means, upside down.
    "lid_pooled_error": ("lid_inverse_exact", "lid_inverse_ann"),
}
# 1 over the mean of an estimate of 1 / LID, over the queries that have the other one too.
POOLED = {
    "lid_pooled_exact": ("lid_inverse_exact", "lid_inverse_ann"),
    "lid_pooled_ann": ("lid_inverse_ann", "lid_inverse_exact"),
}
MEDIAN_ERROR = "lid_median_error"
# Curves that no single query has a value of, and what they say.
TOGETHER = {name: "mean {} over mean {}, less 1".format(*of) for name, of in RATIOS.items()} | {
    "lid_pooled_exact": "exact LID of all queries, 1 over their mean estimate of 1 / LID",
    "lid_pooled_ann": "that of the distances returned",
    "lid_pooled_error": "lid_pooled_ann over lid_pooled_exact, less 1",
    MEDIAN_ERROR: "median lid_ann over median lid_exact, less 1",
}


def curve_names(values: Mapping[str, np.ndarray]) -> list[str]:
    """The curves that there are of a run: of its metrics, and of what these make together."""
    names, known = [name for name in values if not name.startswith("lid_inverse_")], set(values)
    together = RATIOS | POOLED | {MEDIAN_ERROR: RATIOS["lid_error"]}
    return names + [name for name, needed in together.items() if known.issuperset(needed)]


def estimate_curve(
    values: Mapping[str, np.ndarray], name: str, groups: np.ndarray | None = None
) -> Estimate:
    """One of `curve_names`, from the values (G, Q) of a run by metric."""
    if name in RATIOS:
        return estimate_ratio(*(values[side] for side in RATIOS[name]), groups)
    if name == MEDIAN_ERROR:
        return _median_error(values, groups)
    no_loss = 1.0 if name in SHARES else None
    if name.endswith("_difference") or name.startswith("barycenter_shift"):
        no_loss = 0.0
    estimate = estimate_mean(linearized(values, name), groups, no_loss, metric_range(name))
    if name == "lid_difference":
        # What rounding leaves of two that are the same is no difference.
        differ = estimate_curve(values, "lid_error", groups).groups_that_differ
        estimate = estimate._replace(groups_that_differ=differ)
    return estimate


def metric_range(metric: str) -> tuple[float, float]:
    """What the mean of a metric cannot be below or above."""
    if metric in SHARES:
        return 0.0, 1.0
    if metric in RATIOS:
        return -1.0, np.inf
    return (-np.inf if metric.endswith("_difference") else 0.0), np.inf


def linearized(values: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """Values (G, Q) of the queries whose mean is a curve, as of `intervals.linearized_ratio`."""
    if name in RATIOS:
        return intervals.linearized_ratio(*(values[side] for side in RATIOS[name]))
    if name in POOLED:
        inverse, other = (values[side] for side in POOLED[name])
        return intervals.linearized_inverse(np.where(np.isnan(other), np.nan, inverse))
    return values[name]


def _median_error(values: Mapping[str, np.ndarray], groups: np.ndarray | None) -> Estimate:
    """The ratio of the medians less 1, over queries with an LID on both sides; no interval."""
    estimate = estimate_curve(values, "lid_error", groups)
    ann, exact = (values[side] for side in RATIOS["lid_error"])
    medians = (spread(np.where(np.isnan(ann + exact), np.nan, side))[1] for side in (ann, exact))
    error = np.divide(*medians) - 1
    return estimate._replace(value=error, ci_low=np.nan * error, ci_high=np.nan * error)


def spread(values: np.ndarray) -> np.ndarray:
    """Standard deviation over n, median, 5 % and 95 % quantile of (G, Q) without NaN; (4, G)."""
    numbers, rows = np.full((len(values), 4), np.nan), (row[~np.isnan(row)] for row in values)
    # Infinite values have no standard deviation.
    with np.errstate(invalid="ignore"):
        for i, row in enumerate(rows):
            if row.size:
                numbers[i] = row.std(), *np.quantile(row, [0.5, 0.05, 0.95])
    return numbers.T
