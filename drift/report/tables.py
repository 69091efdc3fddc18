"""The tables of the report, and how numbers look in tables and sentences."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd

from drift.report.study import ENOUGH, Study

OVERVIEW_KS = (10, 50, 100, 250)
# The share of queries that got k neighbors: two of the notebook's quantities are means over those.
COMPLETE = "complete lists"
SAME_LID = 1e-6  # of the LID: what rounding to float32 leaves of two that are the same
ROUNDING = 1e-9
COSTS = {
    "distances computed": "distance_computations_per_query",
    "queries/s": "queries_per_second",
}


def format_number(value: float) -> str:
    """Four digits, or more where a value that is not 1 would look like it; "-" for none.

    Up to what rounding leaves of values like these, 0 is 0 and 1 is 1.
    """
    if np.isnan(value):
        return "-"
    if min(abs(value), abs(value - 1)) < ROUNDING:
        return f"{value:.0f}".lstrip("-")
    if abs(value) >= 1e4:
        return f"{value:.0f}"
    digits = 4
    while value != 1 and float(f"{value:.{digits}g}") == 1:
        digits += 1
    return f"{value:.{digits}g}"


def format_fraction(value: float) -> str:
    """A fraction with three decimals, in which only all is 1 and only nothing is 0."""
    if np.isnan(value):
        return "-"
    text = f"{value:.3f}"
    if text == "1.000" and value < 1:
        return "> 0.999"
    return "< 0.001" if text == "0.000" and value > 0 else text


def format_percent(value: float, share: float = 1.0) -> str:
    """A fraction in percent with one decimal, its sign, and the share of queries if too small."""
    if np.isnan(value):
        return "-"
    percent = round(100 * value, 1)
    text = f"{percent:+.1f}" if percent else "0.0"
    return text if share >= ENOUGH else f"{text} (of {100 * share:.2g} %)"


def format_crossing(crossing: Any, ks: Sequence[int]) -> str:
    """Where a row of the table of safe k crosses its tolerance, with the interval of that."""
    k, low, high = crossing.crossing_k, crossing.crossing_low, crossing.crossing_high
    if np.isnan(k):
        return "-" if np.isnan(low) else f"- (from {low:.3g} on, perhaps)"
    end = f"to {high:.3g}" if high == high else f"to more than {ks[-1]}"
    return f"{ks[0]} or less" if k <= ks[0] else f"{k:.3g} ({low:.3g} {end})"


def join(parts: Collection[str], word: str = "and") -> str:
    """A list in words, in which names with a comma can still be distinguished."""
    *others, last = parts
    has_comma = any("," in part for part in parts)
    comma = ";" if has_comma and len(others) > 1 else ","
    end = comma if has_comma else ""
    return f"{f'{comma} '.join(others)}{end} {word} {last}" if others else last


def evenly(items: Sequence[int], n: int) -> list[int]:
    """At most `n` of the items, evenly spaced, the first and the last among them."""
    return [items[i] for i in dict.fromkeys(np.linspace(0, len(items) - 1, n).astype(int))]


def overview(study: Study) -> pd.DataFrame:
    """A column for each run, as text, at a few k; "-" where its grid lacks one."""
    ks: set[int] = set()
    for grid in map(sorted, study.curves.groupby("run")["k"].unique()):
        few = {grid[0], grid[-1], *set(OVERVIEW_KS).intersection(grid)}
        ks |= few if len(few) > 3 else {*few, *evenly(grid, 6)}
    ks = sorted(ks)
    shares = ("recall", "overlap") if study.ties else ("overlap",)
    rows = [(share, share, "mean", k) for share in shares for k in ks]
    rows += [
        ("worst 5 % keep", "overlap", "q05", ks[-1]),
        ("distance ratio", "distance_ratio", "mean", ks[-1]),
        ("returned", "found", "mean", ks[-1]),
        ("shift", "barycenter_shift_relative", "mean", ks[-1]),
    ]
    columns = {}
    for run, label in study.labels.items():
        cells = columns[label] = {}
        numbers = study.curves[study.curves["run"] == run].set_index(["metric", "k"])
        for name, metric, column, k in rows:
            value = numbers[column].get((metric, k), np.nan)
            cells[f"{name}, k = {k}"] = format_fraction(value)
        error = study.lid_error(run).reindex(ks)
        for k in ks:
            cells[f"LID off by %, k = {k}"] = format_percent(*error.loc[k, ["mean", "share"]])
        for title, name in COSTS.items() if study.searched else ():
            cost = study.cost(run, name).get(ks[-1], np.nan)
            cells[f"{title}, k = {ks[-1]}"] = "-" if np.isnan(cost) else f"{cost:,.0f}"
        for limit in study.limits(run, study.kept_by(run)).itertuples():
            lost = f"{100 * (1 - limit.tolerance):.3g} % lost at k"
            cells[lost] = format_crossing(limit, study.run_curve(run, "overlap").index)
        strict = study.strictest(run)
        cells[f"{100 * strict['tolerance']:g} % kept up to k"] = f"{strict['safe_k']}"
    return pd.DataFrame(columns).fillna("-").reset_index(names="")


def curve_table(study: Study, run: str) -> pd.DataFrame:
    """The means of all metrics of a run at a few k, and the ends of the overlap's interval."""
    curves = study.curves[study.curves["run"] == run]
    table = curves.pivot(index="metric", columns="k", values="mean")
    table = table.loc[curves["metric"].unique(), evenly(list(table.columns), 6)]
    is_none = table.loc["lid_difference"].abs() < SAME_LID * table.loc["lid_exact"]
    table.loc["lid_difference"] = table.loc["lid_difference"].mask(is_none, 0.0)
    ends = study.run_curve(run, "overlap")[["ci_low", "ci_high"]].T.add_prefix("overlap ", axis=0)
    table = pd.concat([table[:1], ends[table.columns], table[1:]])
    return table.add_prefix("k = ").rename_axis("metric").reset_index()


def safe_table(study: Study) -> pd.DataFrame:
    """For each run and criterion the largest safe k, and where the mean crosses the tolerance."""
    rows = []
    for limit in study.safe_k.itertuples():
        words = "LID within" if limit.criterion == "lid" else f"{limit.criterion} at least"
        crossing = format_crossing(limit, study.run_curve(limit.run, "overlap").index)
        criterion = f"{words} {100 * limit.tolerance:g} %"
        rows.append((study.labels[limit.run], criterion, limit.safe_k, crossing))
    return pd.DataFrame(rows, columns=["run", "criterion", "safe k", "crossing (95 % interval)"])


def published_table(study: Study) -> pd.DataFrame:
    """The notebook's quantities at a few k, as published and of each run by its label."""
    published = study.published.notebook
    names = [name for name in published.columns if name not in ("k", "overlap_std")]
    parts = [published.assign(curve="published")]
    for run, label in study.labels.items():
        ours = pd.DataFrame({name: study.run_curve(run, name)["mean"] for name in names})
        n = [study.run_curve(run, name)["n"] for name in ("kth_squared_distance_ann", "overlap")]
        parts.append(ours.assign(curve=label, **{COMPLETE: n[0] / n[1]}).reset_index())
    table = pd.concat(parts)[["k", "curve", *names, COMPLETE]]
    return table[table["k"].isin(OVERVIEW_KS)].sort_values("k", kind="stable")
