"""The tables of the report, and how numbers look in tables and sentences."""

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from drift.report.study import Study

MOST_KS = 6
OVERVIEW_KS = (10, 50, 100, 250)
TERMINAL = 100  # characters in a line
SAME = 1e-6  # of a number: what rounding to float32 leaves of two that are the same
ROUNDING = 1e-9  # this close to them, 0 is 0 and 1 is 1
COSTS = {
    "queries/s": "queries_per_second",
    "distances computed": "distance_computations_per_query",
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
    """A fraction in percent, and its interval, in digits by which these differ."""
    if np.isnan(low):
        return format_percent(error), "no interval" if error == error else ""
    for digits in range(1, 5):
        text, *ends = (format_percent(number, digits) for number in (error, low, high))
        if ends[0] != ends[1] and (low <= 0 <= high or text != "0.0"):
            break
    return text, " to ".join(ends)


def is_none(error: float, low: float, high: float) -> bool:
    """Whether an error is not distinguishable from 0."""
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
    end = f"more than {ks[-1]}" if np.isnan(high) else format_k(high)
    if k <= ks[0]:
        return f"not even {ks[0]}", "" if high <= ks[0] else f"at best to {end}"
    return format_k(k), f"{format_k(low)} to {end}"


def format_k(k: float) -> str:
    """Where between the k of a grid something happens."""
    return f"{k:.1f}".removesuffix(".0")


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
    """A row for each run, as text: what it keeps at a few k, and a little of those of interest."""
    ks: set[int] = {study.k_of_interest}
    for grid in study.curves.groupby("run")["k"].agg(set):
        ks |= {min(grid), max(grid), *grid.intersection(OVERVIEW_KS)}
    at = {k: at_k(study, k) for k in evenly(sorted(ks), MOST_KS)}
    kept, last = {f"k = {k}": at[k]["kept, %"] for k in at}, at_k(study, study.k_of_interest)
    others = last[["returned, %", "LID off, %", "shift, %", "safe to k"]]
    return pd.concat([last["run"], pd.DataFrame(kept), others], axis=1)


def few_ks(study: Study) -> list[int]:
    """Some k, evenly spaced, those of interest and of the title first."""
    first = dict.fromkeys([study.k_of_interest, int(study.up_to_k(study.worst).index[-1])])
    ks = evenly(study.ks, MOST_KS)
    others = ks if first.keys() <= {*ks} else evenly(study.ks, MOST_KS - len(first))
    return [*first, *(one for one in others if one not in first)]


def stages(study: Study) -> pd.DataFrame:
    """What each stage was asked for, how long it took, and when."""
    rows = []
    for stage, manifest in study.manifests.items():
        asked = {k: v for k, v in manifest["parameters"].items() if k not in ("run", "runs")}
        settings = ", ".join(f"{k} {_setting(v)}" for k, v in asked.items() if v is not None)
        rows.append((stage, settings, manifest["seconds"], manifest["date"]))
    return pd.DataFrame(rows, columns=["stage", "parameters", "seconds", "date"])


def _setting(value: Any) -> str:
    """A parameter, a long list by its ends, of a hash its beginning."""
    if isinstance(value, list):
        value = " ".join(map(str, value)) if len(value) < 4 else f"{value[0]} to {value[-1]}"
    return re.sub(r"\b([0-9a-f]{10})[0-9a-f]{54}\b", r"\1...", str(value))


def built(study: Study) -> pd.DataFrame:
    """How the graph of each run was built, and what its searches took of memory."""
    rows = []
    for run, made in study.searched.items():
        graph = {"graph built in s": made.get("build_seconds", np.nan)}
        graph["mean degree, lowest level"] = made.get("graph", {}).get(
            "mean_degree_level_0", np.nan
        )
        graph["rows out of reach"] = made.get("graph", {}).get("unreachable_rows", np.nan)
        peak = made.get("peak_memory_bytes", np.nan) / 1e6
        rows.append({"run": run, **graph, "peak memory, MB": peak})
    return pd.DataFrame(rows, dtype=object)


def fitting(table: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """A table of texts in parts of its columns, the first in each, that fit in a terminal.

    Of a column that does not even by itself what stands in brackets is left out.
    """
    first, *others = table.columns
    room = TERMINAL - max(map(len, [first, *table[first]]))
    part, used = [first], 0
    for name in others:
        if (width := 1 + max(map(len, [name, *table[name]]))) > room:
            table = table.assign(**{name: table[name].str.partition(" (")[0]})
            width = 1 + max(map(len, [name, *table[name]]))
        if used and used + width > room:
            yield table[part]
            part, used = [first], 0
        part, used = [*part, name], used + width
    yield table[part]
