"""Why a run loses neighbors, where that is how its library stops, and what to do about it."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from math import isnan, nan
from typing import Any, NamedTuple, Self

import pandas as pd

from drift.indexes.run import FAISS_NAMES, Run
from drift.report.study import INVISIBLE, Study
from drift.report.tables import COSTS, format_k, format_share, join

# How a program sets efSearch, by library; and any setting of a FAISS factory string, by its name.
SETTERS = {
    "faiss": "index.hnsw.efSearch = {}",
    "hnswlib": "index.set_ef({})",
    "usearch": "index.expansion_search = {}",
    "pgvector": "SET hnsw.ef_search = {};",
}
OF_FACTORY = 'faiss.ParameterSpace().set_index_parameter(index, "{}", {})'


class Advice(NamedTuple):
    """What to do, and the setting or the command to copy, if there is one."""

    text: str
    copy: str = ""


class Result:
    """A run as sentences see it: up to the k of interest, or to the one it has before that."""

    def __init__(self, study: Study, name: str):
        self.study, self.name, self.label = study, name, study.labels[name]
        self.measure, self.curve = study.kept_by(name), study.up_to_k(name)
        self.first, self.last = map(int, self.curve.index[[0, -1]])
        self.limits = study.limits(name, self.measure)
        self.lid_error = study.lid_error(name).loc[: self.last]
        self.strict = study.strict(name)
        self.tolerance, self.safe_k = self.strict["tolerance"], int(self.strict["safe_k"])
        self.is_safe = self.safe_k >= self.last
        self.run, searched = study.first_graph(name)
        # What a target needs is of one graph.
        self.chosen, self.chosen_in = study.chosen(name), study.label_of(study.members[name][0])
        rules = searched.get("effective_ef", {})
        compared = study.cost(name, COSTS["distances computed"]).get(self.last)
        # Each candidate was compared with the query, where the library does not count.
        self.compared = compared or rules.get(str(self.last), {}).get("candidates", 0)
        # By k; what a target has chosen is no rule.
        self.stops = {} if self.run.target else rules
        self.stop = self.stops.get(str(self.last))
        self.stops_early = bool(self.stop) and self.stop["stops_after"] < self.stop["list_length"]

    def stopped(self, wider: Sequence[Self] = ()) -> pd.Series | None:
        """The row of safe k of the least loss that begins where the search stops early, if any.

        One that others have too, which go on in the same index, has another reason.
        """
        if not self.stops_early:
            return None
        # A loss that begins within what it stops at has another reason.
        whole = [int(k) for k, r in self.stops.items() if r["stops_after"] >= r["list_length"]]
        ends = max(whole, default=0), self.last
        late = self.limits[self.limits["crossing_k"].between(*ends, inclusive="right")]
        for _, limit in late.sort_values("tolerance", ascending=False).iterrows():
            after = self.curve.index[self.curve.index >= limit["crossing_k"]][0]
            kept = [one.curve["mean"].get(after, nan) for one in wider] or [1.0]
            if not max(kept) < limit["tolerance"]:
                return limit
        return None

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

    @property
    def graphs(self) -> list[Run]:
        """The runs of stage 04 that it stands for, which differ by their seed."""
        return [self.study.runs[one] for one in self.study.members[self.name]]


class Results(NamedTuple):
    """All runs, and those whose search stops early."""

    study: Study
    runs: list[Result]
    # Of each library the run that loses most by its stop, with those that show that it is that: in
    # the same index these go on, and keep more.
    early: dict[str, tuple[Result, list[Result]]]

    @classmethod
    def of(cls, study: Study) -> Self:
        runs = [Result(study, name) for name in study.styles]
        early: dict[str, tuple[Result, list[Result]]] = {}
        for run in sorted(runs, key=lambda run: run.curve["mean"][run.last]):
            if run.is_safe or run.stopped() is None or run.run.library in early:
                continue
            same = [one for one in runs if one.run.index_name == run.run.index_name]
            same = [one for one in same if one.last == run.last and not one.stops_early]
            wider = [one for one in same if one.keeps_more(run, run.last) > 0]
            if run.stopped(wider) is not None:
                early[run.run.library] = run, wider
        return cls(study, runs, early)

    @property
    def worst(self) -> Result:
        return next(run for run in self.runs if run.name == self.study.worst)


def named(study: Study, runs: Sequence[Result]) -> list[str]:
    """Their names; three and more in a row of a series are its first and its last."""
    names = {run.name: f"`{run.label}`" for run in runs}
    for series in study.series.values():
        places = [i for i, run in enumerate(series) if run in names]
        if len(places) > 2 and places[-1] - places[0] == len(places) - 1:
            names[series[places[0]]] += f" to {names[series[places[-1]]]}"
            names |= dict.fromkeys(series[places[1] : places[-1] + 1])
    return list(filter(None, names.values()))


def stop_reasons(results: Results) -> list[str]:
    """How libraries read efSearch, of those whose search stops early."""
    sentences = []
    for run, wider in results.early.values():
        limit = run.stopped(wider)
        lost, k = f"{100 * (1 - limit['tolerance']):.3g} % of the neighbors", limit["crossing_k"]
        lost = (
            f"{lost} at k = {format_k(k)}"
            if k > run.first
            else f"more than {lost} at k = {run.first} already"
        )
        sentences.append(
            f"The reason that `{run.label}` loses {lost} {'is' if wider else 'may be'} where its "
            f"search stops: {_stop_rule(run)}."
        )
    raising = dict.fromkeys(
        run.run.library
        for run in results.runs
        if run.stop and run.stop["stops_after"] > run.stop["ef_search"]
        if run.run.library != "pgvector"
    )
    if raising and results.early:
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


def at_the_stop(early: Result, wider: Sequence[Result], runs: Sequence[Result]) -> Advice:
    """What to do about a search that stops early, right at every k as far as was measured."""
    if early.run.library == "pgvector":
        text = "Let hnsw.ef_search of pgvector be more than k, up to its limit of 1,000, or let it"
        return Advice(f"{text} scan on:", "SET hnsw.iterative_scan = strict_order;")
    if not wider:
        return _to_measure(early, runs)
    if not (fixed := [run for run in wider if not run.run.target]):
        best = max(wider, key=lambda run: run.curve["mean"].min())
        return Advice(f"Let efSearch of FAISS grow with k, as `{best.label}` does.")
    # One that grows, if there is one, and keeps most of the shortest lists.
    by_k = (run for run in fixed if run.run.ef_search.multiple is not None)
    best = max(by_k, key=lambda run: run.curve["mean"].iloc[0], default=fixed[0])
    policy, length = best.run.ef_search, "k + 1" if early.stop["list_length"] > early.last else "k"
    least, multiple = max(early.stop["ef_search"], policy.least or 0), policy.multiple or 1
    value = length if multiple == 1 else f"int({multiple:g} * ({length}))"
    text = f"Let efSearch of FAISS grow with k, but not fall below {least}"
    ks = dict.fromkeys([best.last, best.first, int(best.curve["mean"].idxmin())])
    text += f": {_on_the_same(early, best)}`{best.label}` keeps {join([*map(best.kept, ks)])}."
    return Advice(text, setter(best.run, f"max({least}, {value})"))


def _to_measure(early: Result, runs: Sequence[Result]) -> Advice:
    """What would show whether it is the stop; or what to do where it was not seen to be."""
    same = (run for run in runs if run.run.index_name == early.run.index_name)
    other = next((run for run in same if (run.run.ef_search.multiple or 0) >= 1), None)
    if other is None:
        text = "Measure FAISS with an efSearch that grows with k:"
        return Advice(text, command(early, policy="k,50"))
    return search_wider(other) if other.last == early.last else not_measured(other, early.last)


def not_measured(run: Result, k: int) -> Advice:
    """How to measure a run at another k."""
    text = f"`{run.label}` was measured at k = {run.last}, and not at {k}"
    if run.run.build:
        return Advice(f"{text}; this adds it:", command(run, ks=[k]))
    return Advice(f"{text}: give stage 04 its lists of {k} by `--lists`.")


def _on_the_same(*results: Result) -> str:
    """That runs are of the same graphs, where they are."""
    first, second = ([run.index_name for run in result.graphs] for result in results)
    threads = {run.build.get("threads", 1) for result in results for run in result.graphs}
    if first != second or threads != {1}:  # several build another graph each time
        return ""
    return f"on the same graph{'s' if len(first) > 1 else ''} "


def search_wider(result: Result) -> Advice:
    """What to do with a run that loses by no stop."""
    is_whole = result.study.run_curve(result.name, "found")["mean"][result.last] > 1 - INVISIBLE
    if is_whole and len(result.study.run_curve(result.name, "lid_reported")):
        return Advice(
            f"`{result.label}` compares compressed vectors: give them more bits, or ask for more "
            "neighbors and keep those that are nearest by the vectors themselves."
        )
    denser = ", or build a denser graph," if result.run.M else ""
    text = f"With `{result.label}` search wider{denser} and measure again"
    if not result.run.build or not result.run.policies or result.run.target:
        return Advice(f"{text}.")
    target = f"{result.measure}={result.tolerance:g}"
    return Advice(f"{text}:", command(result, policy=target))


def setter(run: Run, value: Any) -> str:
    """How a program sets what a run searches with."""
    if run.factory:
        name = _setting(run)
        return OF_FACTORY.format(FAISS_NAMES.get(name, name), value)
    return SETTERS.get(run.library, "ef_search = {}").format(value)


def command(result: Result, policy: str = "", ks: Sequence[int] = ()) -> str:
    """What to write in a shell to search the graphs of a run by another policy, or at other k."""
    run, study = result.run, result.study
    search = {**run.search, _setting(run): policy} if policy else run.search
    text, flags = replace(run, search=search).label.replace(" ", ":", 1), ""
    if not run.factory:
        text += f",ef_construction={run.ef_construction}" if run.ef_construction != 200 else ""
        flags += f" --m {run.M}" if run.M != 32 else ""
    if (threads := run.build.get("threads", 1)) != 1:
        flags += f" --build-threads {threads}"
    seeds = [str(one.seed) for one in result.graphs]
    if seeds != ["0"]:
        flags += f" --seed{'s' if len(seeds) > 1 else ''} {' '.join(seeds)}"
    ks = ks or list(study.run_curve(result.name, "overlap").index)
    longest = study.parameters("03_exact").get("k_max", 0)
    if ks != sorted({*range(10, longest, 10), longest}):  # that of stage 04 without a flag
        flags += f" --k {' '.join(map(str, ks))}"
    where = f" --results {shlex.quote(study.folder)}" if study.folder != "results" else ""
    return f"python 04_hnsw_search.py{where} --runs {shlex.quote(text)}{flags}"


def _setting(run: Run) -> str:
    """The setting by which a search goes further."""
    return next(iter(run.policies), "ef_search")
