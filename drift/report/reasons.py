"""Why a run loses neighbors, where that is how its library stops, and what to do about it."""

from collections.abc import Mapping, Sequence
from math import isnan, nan

import pandas as pd

from drift.report.study import Study
from drift.report.tables import format_fraction, join


class Result:
    """A run as sentences see it."""

    def __init__(self, study: Study, name: str):
        self.study, self.name, self.label = study, name, study.labels[name]
        self.subject = f"{self.label}," if "," in self.label else self.label
        self.measure = study.kept_by(name)
        self.limits = study.limits(name, self.measure)
        self.curve, self.lid_error = study.run_curve(name, self.measure), study.lid_error(name)
        self.first, self.last = self.curve.index[[0, -1]]
        self.strict = self.limits.loc[self.limits["tolerance"].idxmax()]
        self.tolerance, self.safe_k = self.strict["tolerance"], int(self.strict["safe_k"])
        self.share = f"{100 * self.tolerance:g} % of the neighbors"
        self.is_safe = self.safe_k == self.last
        self.run, searched = study.first_graph(name)
        # By k; what a target has chosen is no rule.
        self.stops = {} if self.run.target else searched.get("effective_ef", {})
        self.stop = self.stops.get(str(self.last))
        self.stops_early = bool(self.stop) and self.stop["stops_after"] < self.stop["list_length"]

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
        return f"{format_fraction(self.curve['mean'][k])} at k = {k}"

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


def wider_runs(early: Result, runs: Sequence[Result]) -> list[Result]:
    """Those that go on in the same index as one that stops early, and keep more."""
    index, last = early.run.index_name, early.last
    same = [run for run in runs if run.run.index_name == index and run.last == last]
    return [run for run in same if not run.stops_early and run.keeps_more(early, last) > 0]


def stop_reasons(
    early: Mapping[str, Result], runs: Sequence[Result], wider: Mapping[str, Sequence[Result]]
) -> list[str]:
    """How libraries read efSearch, of those whose search stops early, with its `wider_runs`."""
    sentences = []
    for library, run in early.items():
        limit = run.stopped
        sentences.append(
            f"The reason that {run.subject} loses {100 * (1 - limit['tolerance']):.3g} % of the "
            f"neighbors at k = {limit['crossing_k']:.0f} {'is' if wider[library] else 'may be'} "
            f"where its search stops: {_stop_rule(run)}."
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


def stop_advice(early: Result, wider: Sequence[Result]) -> str:
    """What to do about a search that stops early, right at every k as far as was measured."""
    if early.run.library == "pgvector":
        more = "or let it scan on (iterative_scan=strict_order)"
        return (
            f"So with pgvector let hnsw.ef_search be more than k, up to its limit of 1,000, {more}."
        )
    if not wider:
        return "So with FAISS measure a run whose efSearch grows with k (--runs faiss:k,50)."
    fixed = [run for run in wider if not run.run.target]
    if not fixed:
        return f"So with FAISS let efSearch grow with k, as {wider[0].label} does."
    worse = {run: [k for k in early.curve.index if early.keeps_more(run, k) > 0] for run in fixed}
    best = min(fixed, key=lambda run: (len(worse[run]), run.run.ef_search.multiple is None))
    shown = f"on the same graph {best.subject} keeps {best.kept(best.last)}"
    if best.run.ef_search.multiple is None:
        return f"So with FAISS let efSearch be no less than the list is long: {shown}."
    least = best.run.ef_search.least
    if worse[best]:
        k, least = worse[best][0], early.stop["ef_search"]
        shown += f", but {best.kept(k)}, less than {early.label}"
    else:
        shown += f" and {best.kept(best.first)}"
    floor = f", but not fall below {least}" if least else ""
    return f"So with FAISS let efSearch grow with k{floor}: {shown}."
