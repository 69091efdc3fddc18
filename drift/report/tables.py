"""The tables of the report, and how numbers look in tables and sentences."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd

from drift.report.study import Study

OVERVIEW_KS = (10, 50, 100, 250)
SAME = 1e-6  # of a number: what rounding to float32 leaves of two that are the same
ROUNDING = 1e-9  # this close to them, 0 is 0 and 1 is 1
COSTS = {
    "distances computed": "distance_computations_per_query",
    "queries/s": "queries_per_second",
}


def format_number(value: float) -> str:
    """Four digits, or more where a value that is not 1 would look like it; "-" for none."""
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


def format_percent(value: float, digits: int = 1) -> str:
    """A fraction in percent with its sign."""
    if np.isnan(value):
        return "-"
    return f"{100 * value:+.{digits}f}" if round(100 * value, digits) else "0.0"


def format_error(error: float, low: float, high: float) -> str:
    """A fraction in percent with its interval, in digits by which these can be told apart."""
    if np.isnan(low):
        return f"{format_percent(error)} (no interval)" if error == error else "-"
    for digits in range(1, 5):
        text, *ends = (format_percent(number, digits) for number in (error, low, high))
        if ends[0] != ends[1] and (low <= 0 <= high or text != "0.0"):
            break
    return f"{text} ({ends[0]} to {ends[1]})"


def is_none(error: float, low: float, high: float) -> bool:
    """Whether an error is not to be told from 0."""
    return low <= 0 <= high or abs(error) < SAME


def format_part(share: float, n: int, of: str = "") -> str:
    """A share of n things in percent; in numbers where that would look like all or none."""
    count, percent = round(share * n), f"{100 * share:.1f}"
    if percent not in ("0.0", "100.0"):
        return f"{percent} %{f' of the {of}' if of else ''}"
    number = {0: f"none of {n:,}", n: f"all {n:,}"}.get(count, f"{count:,} of {n:,}")
    return f"{number} {of}".strip()


def of_few(study: Study, n: float, of: str = "queries") -> str:
    """How many of the queries n are; nothing if they are all of them."""
    return "" if n == study.n_queries else format_part(n / study.n_queries, study.n_queries, of)


def format_crossing(limit: Any, ks: Sequence[int]) -> str:
    """Where a row of safe k, on a grid of `ks`, crosses the tolerance; else how far it is safe."""
    k, low, high = limit.crossing_k, limit.crossing_low, limit.crossing_high
    if np.isnan(k):
        if not limit.safe_k:
            return "not sure at any k"
        return f"{'more than' if limit.safe_k == ks[-1] else 'not sure beyond'} {limit.safe_k}"
    end = f"more than {ks[-1]}" if np.isnan(high) else _one_decimal(high)
    if k <= ks[0]:
        return f"{ks[0]} or less{'' if high <= ks[0] else f' (to {end})'}"
    return f"{_one_decimal(k)} ({_one_decimal(low)} to {end})"


def _one_decimal(k: float) -> str:
    return f"{k:.1f}".removesuffix(".0") if k < 100 else f"{k:.0f}"


def join(parts: Collection[str], word: str = "and") -> str:
    """A list in words, in which names with a comma can still be distinguished."""
    *others, last = parts
    has_comma = any("," in part for part in parts)
    comma = ";" if has_comma and len(others) > 1 else ","
    end = comma if has_comma else ""
    return f"{f'{comma} '.join(others)}{end} {word} {last}" if others else last


def evenly(items: Sequence[int], n: int) -> list[int]:
    """At most `n` of the items, evenly spaced, the first and the last among them."""
    places = np.linspace(0, len(items) - 1, n).astype(int)
    return [items[i] for i in dict.fromkeys(places)] if items else []


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
            value = 1.0 if metric == "distance_ratio" and abs(value - 1) < SAME else value
            cells[f"{name}, k = {k}"] = format_fraction(value)
        error = study.lid_error(run)
        for k in ks:
            cells[f"LID off by %, k = {k}"] = "-"
            if k in error.index:
                few = of_few(study, error["n"][k], of="")
                text = format_percent(error["mean"][k])
                cells[f"LID off by %, k = {k}"] = f"{text} (of {few})" if few else text
        for title, name in COSTS.items() if study.searched else ():
            cost = study.cost(run, name).get(ks[-1], np.nan)
            cells[f"{title}, k = {ks[-1]}"] = "-" if np.isnan(cost) else f"{cost:,.0f}"
        for limit in study.limits(run, study.kept_by(run)).itertuples():
            lost = f"{100 * (1 - limit.tolerance):.3g} % lost at k"
            cells[lost] = format_crossing(limit, study.grid(limit))
    return pd.DataFrame(columns).fillna("-").reset_index(names="")


def curve_table(study: Study, run: str) -> pd.DataFrame:
    """The means of all metrics of a run at a few k, and what the overlap's interval is."""
    curves = study.curves[study.curves["run"] == run]
    table = curves.pivot(index="metric", columns="k", values="mean")
    table = table.loc[curves["metric"].unique(), evenly(list(table.columns), 6)]
    is_0 = (table.abs() < SAME).mul(table.index.str.endswith("_error"), axis=0)
    is_0.loc["lid_difference"] = is_0.loc["lid_error"]
    is_1 = ((table - 1).abs() < SAME).mul(table.index == "distance_ratio", axis=0)
    table = table.mask(is_0, 0.0).mask(is_1, 1.0)
    numbers = ["ci_low", "ci_high", "groups_that_differ"]
    ends = study.run_curve(run, "overlap")[numbers].T.add_prefix("overlap ", axis=0)
    counts = study.run_curve(run, "lid_error")[["n"]].T.add_prefix("lid_error ", axis=0)
    table = pd.concat([table[:1], ends[table.columns], table[1:], counts[table.columns]])
    return table.add_prefix("k = ").rename_axis("metric").reset_index()


def safe_table(study: Study) -> pd.DataFrame:
    """For each run and criterion how far it is safe."""
    rows = []
    for limit in study.safe_k.itertuples():
        words = "LID within" if limit.criterion == "lid" else f"{limit.criterion} at least"
        criterion = f"{words} {100 * limit.tolerance:g} %"
        crossing = format_crossing(limit, study.grid(limit))
        rows.append((study.labels[limit.run], criterion, crossing))
    return pd.DataFrame(rows, columns=["run", "criterion", "crossed at k (95 % interval)"])
