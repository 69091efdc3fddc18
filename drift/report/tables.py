"""The tables of the report, and how numbers look in tables and sentences."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd

from drift.report.study import Study

OVERVIEW_KS = (10, 50, 100, 250)
MOST_KS = 6
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


def format_share(share: float, digits: int = 0) -> str:
    """A fraction in percent, in which only all is 100 % and only nothing is 0 %."""
    if np.isnan(share):
        return "-"
    if min(share, 1 - share) > ROUNDING:
        while round(100 * share, digits) in (0, 100) and digits < 3:
            digits += 1
        if digits == 3:
            return "> 99.99 %" if share > 0.5 else "< 0.01 %"
    return f"{100 * share:.{digits}f} %"


def format_percent(value: float, digits: int = 1) -> str:
    """A fraction in percent with its sign."""
    if np.isnan(value):
        return "-"
    return f"{100 * value:+.{digits}f}" if round(100 * value, digits) else "0.0"


def with_details(value: str, details: str) -> str:
    """Both, the details in brackets if there are any."""
    return f"{value} ({details})" if details else value


def format_error(error: float, low: float, high: float) -> tuple[str, str]:
    """A fraction in percent, and its interval, in digits by which these can be told apart."""
    if np.isnan(low):
        return format_percent(error), "no interval" if error == error else ""
    for digits in range(1, 5):
        text, *ends = (format_percent(number, digits) for number in (error, low, high))
        if ends[0] != ends[1] and (low <= 0 <= high or text != "0.0"):
            break
    return text, " to ".join(ends)


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


def format_crossing(study: Study, limit: Any) -> tuple[str, str]:
    """Where a row of safe k crosses the tolerance, and the interval; else how far it is safe."""
    metric = "lid_error" if limit.criterion == "lid" else limit.criterion
    ks = study.run_curve(limit.run, metric)["mean"].dropna().index
    k, low, high = limit.crossing_k, limit.crossing_low, limit.crossing_high
    if np.isnan(k):
        if not limit.safe_k:
            return "not sure at any k", ""
        return f"{'more than' if limit.safe_k == ks[-1] else 'not sure beyond'} {limit.safe_k}", ""
    end = f"more than {ks[-1]}" if np.isnan(high) else _one_decimal(high)
    if k <= ks[0]:
        return f"less than {ks[0]}", "" if high <= ks[0] else f"to {end}"
    return _one_decimal(k), f"{_one_decimal(low)} to {end}"


def _one_decimal(k: float) -> str:
    return f"{k:.1f}".removesuffix(".0") if k < 100 else f"{k:.0f}"


def join(parts: Collection[str], word: str = "and") -> str:
    """A list in words."""
    *others, last = parts
    return f"{', '.join(others)} {word} {last}" if others else last


def evenly(items: Sequence[int], n: int) -> list[int]:
    """At most `n` of the items, evenly spaced, the first and the last among them."""
    places = np.linspace(0, len(items) - 1, n).astype(int)
    return [items[i] for i in dict.fromkeys(places)] if items else []


def at_k(study: Study, k: int) -> pd.DataFrame:
    """A row for each run, as text: what its lists of k keep, change and cost; "-" for none.

    The last column is of all lists: where the mean first loses 1 %.
    """
    kept = "recall" if study.ties else "overlap"
    columns = {
        "kept, %": (kept, "mean"),
        **({"the same rows, %": ("overlap", "mean")} if study.ties else {}),
        "worst 5 % keep, %": (kept, "q05"),
        "LID off, %": ("lid_error", "mean"),
        "k-th distance off, %": ("kth_distance_error", "mean"),
        "shift, %": ("barycenter_shift_relative", "mean"),
        "returned, %": ("found", "mean"),
    }
    rows, curves = [], study.curves[study.curves["k"] == k].set_index(["run", "metric"])
    for run, label in study.labels.items():
        cells = {"run": label}
        for name, (metric, column) in columns.items():
            value = curves[column].get((run, metric), np.nan)
            cells[name] = format_share(value, 1).removesuffix(" %")
            if metric.endswith("_error"):
                few = "" if np.isnan(value) else of_few(study, curves["n"][run, metric], of="")
                cells[name] = with_details(format_percent(value), few and f"of {few}")
        for title, name in COSTS.items() if study.searched else ():
            cost = study.cost(run, name).get(k, np.nan)
            cells[title] = "-" if np.isnan(cost) else f"{cost:,.0f}"
        cells["safe to k"] = with_details(*format_crossing(study, study.strict(run)))
        rows.append(cells)
    return pd.DataFrame(rows)


def overview(study: Study) -> pd.DataFrame:
    """A row for each run, as text: what it keeps at a few k, and a little of its longest lists."""
    ks: set[int] = set()
    for grid in study.curves.groupby("run")["k"].agg(set):
        ks |= {min(grid), max(grid), *grid.intersection(OVERVIEW_KS)}
    at = {k: at_k(study, k) for k in evenly(sorted(ks), MOST_KS)}
    kept, last = {f"k = {k}": at[k]["kept, %"] for k in at}, at[study.ks[-1]]
    others = last[["returned, %", "LID off, %", "shift, %", "safe to k"]]
    return pd.concat([last["run"], pd.DataFrame(kept), others], axis=1)


def safe_table(study: Study) -> pd.DataFrame:
    """For each run and criterion how far it is safe."""
    rows = []
    for limit in study.safe_k.itertuples():
        words = "LID within" if limit.criterion == "lid" else f"{limit.criterion} at least"
        criterion = f"{words} {100 * limit.tolerance:g} %"
        crossing = with_details(*format_crossing(study, limit))
        rows.append((study.labels[limit.run], criterion, crossing))
    return pd.DataFrame(rows, columns=["run", "criterion", "crossed at k (95 % interval)"])
