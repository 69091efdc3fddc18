"""Why a run loses neighbors, where that is how its library stops, and what to do about it."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from math import isnan, nan
from typing import Any

import pandas as pd

from drift.indexes.run import FAISS_NAMES, Run
from drift.report.study import Study
from drift.report.tables import format_share, join

# How a program sets efSearch, by library; and any setting of a FAISS factory string, by its name.
SETTERS = {
    "faiss": "index.hnsw.efSearch = {}",
    "hnswlib": "index.set_ef({})",
    "usearch": "index.expansion_search = {}",
    "pgvector": "SET hnsw.ef_search = {};",
}
OF_FACTORY = 'faiss.ParameterSpace().set_index_parameter(index, "{}", {})'


class Result:
    """A run as sentences see it."""

    def __init__(self, study: Study, name: str):
        self.study, self.name, self.label = study, name, study.labels[name]
        self.measure = study.kept_by(name)
        self.limits = study.limits(name, self.measure)
        self.curve, self.lid_error = study.run_curve(name, self.measure), study.lid_error(name)
        self.first, self.last = self.curve.index[[0, -1]]
        self.strict = study.strict(name)
        self.tolerance, self.safe_k = self.strict["tolerance"], int(self.strict["safe_k"])
        self.share = f"{100 * self.tolerance:g} % of the neighbors"
        self.is_safe = self.safe_k == self.last
        self.run, searched = study.first_graph(name)
        self.chosen = study.chosen(name)
        # By k; what a target has chosen is no rule.
        self.stops = {} if self.run.target else searched.get("effective_ef", {})
        self.stop = self.stops.get(str(self.last))
        self.stops_early = bool(self.stop) and self.stop["stops_after"] < self.stop["list_length"]

    @property
    def worst_k(self) -> int:
        """Where it keeps least; of several the largest k."""
        return self.curve["mean"].iloc[::-1].idxmin()

    @property
    def stopped(self) -> pd.Series | None:
        """The row of safe k of the least loss that begins where the search stops early, if any."""
        if not self.stops_early:
            return None
        # A loss that begins within what it stops at has another reason.
        whole = [int(k) for k, r in self.stops.items() if r["stops_after"] >= r["list_length"]]
        late = self.limits[self.limits["crossing_k"] > max(whole, default=0)]
        return late.loc[late["tolerance"].idxmax()] if len(late) else None

    def kept(self, k: int) -> str:
        return f"{format_share(self.curve['mean'][k], 1)} at k = {k}"

    def keeps_more(self, other: "Result", k: int) -> float:
        """By how much; 0 for less than the interval, NaN where they were not compared."""
        metric = "recall" if "recall" in (self.measure, other.measure) else "overlap"
        table, pair = self.study.differences, (self.run.family, other.run.family)
        for row in table[(table["metric"] == metric) & (table["k"] == k)].itertuples():
            if (row.first, row.second) in (pair, pair[::-1]):
                # A pair without the run of interest is a comparison of its own.
                p = row.p if isnan(row.p_adjusted) else row.p_adjusted
                difference = row.difference if row.first == pair[0] else -row.difference
                return nan if isnan(p) else difference if p < 0.05 else 0.0
        return nan


def named(study: Study, runs: Sequence[Result]) -> list[str]:
    """Their names; three and more in a row of a series are its first and its last."""
    names = {run.name: f"`{run.label}`" for run in runs}
    for series in study.series.values():
        places = [i for i, run in enumerate(series) if run in names]
        if len(places) > 2 and places[-1] - places[0] == len(places) - 1:
            names[series[places[0]]] += f" to {names[series[places[-1]]]}"
            names |= dict.fromkeys(series[places[1] : places[-1] + 1])
    return list(filter(None, names.values()))


def early_stops(runs: Sequence[Result]) -> dict[str, tuple[Result, list[Result]]]:
    """Of each library the run that loses most by its stop, with those that show that it is that.

    In the same index these go on, and keep more.
    """
    early: dict[str, tuple[Result, list[Result]]] = {}
    for run in sorted(runs, key=lambda run: run.curve["mean"][run.last]):
        if run.is_safe or run.stopped is None or run.run.library in early:
            continue
        same = [one for one in runs if one.run.index_name == run.run.index_name]
        same = [one for one in same if one.last == run.last and not one.stops_early]
        early[run.run.library] = run, [one for one in same if one.keeps_more(run, run.last) > 0]
    return early


def stop_reasons(runs: Sequence[Result]) -> list[str]:
    """How libraries read efSearch, of those whose search stops early."""
    sentences, early = [], early_stops(runs)
    for run, wider in early.values():
        limit = run.stopped
        lost, k = f"{100 * (1 - limit['tolerance']):.3g} % of the neighbors", limit["crossing_k"]
        lost = (
            f"{lost} at k = {k:.0f}"
            if k > run.first
            else f"more than {lost} at k = {run.first} already"
        )
        sentences.append(
            f"The reason that `{run.label}` loses {lost} {'is' if wider else 'may be'} where its "
            f"search stops: {_stop_rule(run)}."
        )
    raising = dict.fromkeys(
        run.run.library
        for run in runs
        if run.stop and run.stop["stops_after"] > run.stop["ef_search"]
        if run.run.library != "pgvector"
    )
    if raising and early:
        raise_ = "raises" if len(raising) == 1 else "raise"
        sentences.append(f"{join(raising)} {raise_} efSearch to the length of the list.")
    return sentences


def _stop_rule(early: Result) -> str:
    stop = early.stop
    own = " (the query itself is one)" if stop["list_length"] > early.last else ""
    if early.run.library == "pgvector":
        return (
            f"pgvector returns at most hnsw.ef_search rows, {stop['stops_after']} of "
            f"{stop['list_length']} at k = {early.last}{own}"
        )
    return (
        "FAISS lists max(efSearch, k) candidates, but stops once efSearch of them are nearer than "
        f"the next one to visit, at k = {early.last} after {stop['stops_after']} of "
        f"{stop['candidates']}{own}"
    )


def at_the_stop(early: Result, wider: Sequence[Result]) -> tuple[str, ...]:
    """What to do about a search that stops early, right at every k as far as was measured.

    And the setting or the command to copy, if there is one.
    """
    if early.run.library == "pgvector":
        text = "Let hnsw.ef_search of pgvector be more than k, up to its limit of 1,000, or let it"
        return f"{text} scan on:", "SET hnsw.iterative_scan = strict_order;"
    for name, run in early.study.runs.items() if not wider else ():
        policy = run.ef_search
        if run.index_name == early.run.index_name and policy and (policy.multiple or 0) >= 1:
            label, stops = early.study.label_of(name), f"where `{early.label}` stops"
            seen = f"was not seen to keep more at k = {early.last}"
            return (f"`{label}` goes on {stops}, and {seen}: search both at the same k.",)
    if not wider:
        return "Measure FAISS with an efSearch that grows with k:", command(early.run, "k,50")
    if not (fixed := [run for run in wider if not run.run.target]):
        return (f"Let efSearch of FAISS grow with k, as `{wider[0].label}` does.",)
    # One that grows, if there is one, and keeps most of the shortest lists.
    by_k = (run for run in fixed if run.run.ef_search.multiple is not None)
    best = max(by_k, key=lambda run: run.curve["mean"].iloc[0], default=fixed[0])
    policy, length = best.run.ef_search, "k + 1" if early.stop["list_length"] > early.last else "k"
    shown = f"on the same graph `{best.label}` keeps {best.kept(best.last)}"
    if policy.multiple is None:
        text = "Let efSearch of FAISS be no less than the list is long"
        return f"{text}: {shown}.", setter(best.run, length)
    least = max(early.stop["ef_search"], policy.least or 0)
    value = length if policy.multiple == 1 else f"int({policy.multiple:g} * ({length}))"
    text = f"Let efSearch of FAISS grow with k, but not fall below {least}: {shown}"
    return f"{text} and {best.kept(best.first)}.", setter(best.run, f"max({least}, {value})")


def setter(run: Run, value: Any) -> str:
    """How a program sets what a run searches with."""
    if run.factory:
        return OF_FACTORY.format(_setting(run), value)
    return SETTERS.get(run.library, "ef_search = {}").format(value)


def command(run: Run, policy: str) -> str:
    """What to write in a shell to search the index of a run by another policy."""
    text, flags = replace(run, search={_setting(run): policy}).label.replace(" ", ":", 1), ""
    if not run.factory:
        text += f",ef_construction={run.ef_construction}" if run.ef_construction != 200 else ""
        flags = f" --m {run.M}" if run.M != 32 else ""
    flags += f" --seed {run.seed}" if run.seed else ""
    return f"python 04_hnsw_search.py --runs {shlex.quote(text)}{flags}"


def _setting(run: Run) -> str:
    """The setting by which a search goes further, in the library's words."""
    name = next(iter(run.policies), "ef_search")
    return FAISS_NAMES.get(name, name)
