"""The verdict: what was compared, what came out, why, and what to do."""

from collections.abc import Sequence
from math import ceil, isnan, nan
from typing import NamedTuple

import pandas as pd

from drift.report.effort import effort_sentences, reported_sentences
from drift.report.study import ENOUGH, Study, family_name
from drift.report.tables import format_fraction, join

MOST_NAMED = 3  # of the runs that lose too much, those that lose most
FEW_QUERIES = 1000
FEW = (
    f"With fewer than {FEW_QUERIES:,} queries those of skewed metrics, such as the difference of "
    "LIDs, are too narrow."
)
BADLY_SERVED = 0.9  # is a query that gets less of its neighbors
INVISIBLE = 0.0005  # what is 0.0 % when it is written down


class Verdict(NamedTuple):
    """What came out, why, what to do about it, and the details, each in sentences."""

    found: list[str]
    reason: list[str]
    advice: list[str]
    details: list[str]

    @property
    def sentences(self) -> list[str]:
        return [sentence for part in self for sentence in part]


class _Run:
    """A run as sentences see it."""

    def __init__(self, study: Study, run: str):
        self.study, self.run, self.label = study, run, study.labels[run]
        self.subject = f"{self.label}," if "," in self.label else self.label
        self.measure = study.kept_by(run)
        self.curve, self.lid_error = study.run_curve(run, self.measure), study.lid_error(run)
        self.first, self.last = self.curve.index[[0, -1]]
        strict = study.strictest(run)
        self.tolerance, self.safe_k = strict["tolerance"], int(strict["safe_k"])
        self.is_safe = self.safe_k == self.last
        one = study.members[run][0]
        settings = study.facts["parameters"]["runs"][one]
        graph = ("backend", "M", "ef_construction", "seed")
        self.backend = settings["backend"]
        self.graph, self.policy = [settings.get(key) for key in graph], str(settings["ef_search"])
        efs = study.searched.get(one, {}).get("effective_ef", {})
        ef = self.ef = efs[max(efs, key=int)] if efs else {}
        is_found = "ef_search_by_k" in study.searched.get(one, {})
        self.stops_early = bool(ef) and not is_found and ef["stops_after"] < ef["list_length"]

    def kept(self, k: int) -> str:
        return f"{format_fraction(self.curve['mean'][k])} at k = {k}"

    def keeps_more(self, other: "_Run", k: int) -> float:
        """By how much; 0 for less than the interval, NaN where they were not compared."""
        metric = "recall" if "recall" in (self.measure, other.measure) else "overlap"
        pair = (family_name(self.run), family_name(other.run))
        for one in self.study.facts.get("differences", ()):
            compared = (one["first"], one["second"])
            if (one["metric"], one["k"]) == (metric, k) and compared in (pair, pair[::-1]):
                difference = one["difference"] if compared == pair else -one["difference"]
                return difference if one["different"] else 0.0
        return nan


def verdict(study: Study) -> Verdict:
    """What was compared, on what, what came out, the reason, and what to do about it."""
    runs = [_Run(study, run) for run in study.styles]
    by_loss = sorted(runs, key=lambda run: run.curve["mean"][run.last])
    short = [run for run in by_loss if not run.is_safe]
    # Of each library the run that loses most, with those that show that it is the stop: in the same
    # graph they go on, and keep more.
    early: dict[str, _Run] = {}
    for run in short:
        if run.stops_early:
            early.setdefault(run.backend, run)
    wider = {backend: _wider(one, runs) for backend, one in early.items()}
    ks = " to ".join(map(str, dict.fromkeys((study.ks[0], study.ks[-1]))))
    searches = f"{len(runs)} approximate search{'es' if len(runs) > 1 else ''}"
    found = [f"{searches} beside the exact k nearest neighbors, k = {ks}: {extent(study)}."]
    if study.ties:
        found.append("Rows tie, and ties are no losses: what follows speaks of recall.")
    few = [FEW] if study.n_queries < FEW_QUERIES else []
    return Verdict(
        [*found, *_safe(runs), *_short(short), *reported_sentences(study)],
        _reason(list(early.values()), runs, is_shown=all(wider.values())) if early else [],
        [_stop_advice(early[one], wider[one]) for one in early] or [_advice(runs)],
        [
            *effort_sentences(study),
            *_same(runs),
            f"Intervals are of 95 %, over {study.interval_of}.",
            *few,
        ],
    )


def _wider(early: _Run, runs: Sequence[_Run]) -> list[_Run]:
    graph, last = early.graph, early.last
    same = [run for run in runs if (run.graph, run.last) == (graph, last) and not run.stops_early]
    return [run for run in same if run.keeps_more(early, last) > 0]


def extent(study: Study) -> str:
    """How many queries and vectors, of how many dimensions, and what they are of."""
    empty = {"parameters": {}, "outputs": {}}
    images, vectors = (study.manifests.get(s, empty) for s in ("01_images", "02_embeddings"))
    text = f"{study.n_queries:,} queries{' from a file' if study.is_outside else ''}"
    for array in vectors["outputs"].values():
        text += " among {:,} embeddings of {:,} dimensions".format(*array["shape"])
    names = (images["parameters"].get("dataset"), vectors["parameters"].get("model"))
    named = ", ".join(filter(None, names))
    text = f"{text} ({named})" if named else text
    if study.is_cosine:
        text += ", compared by cosine: a distance d is the chord sqrt(2 (1 - cos)), cos = 1 - d^2/2"
    return text


def drifters(study: Study) -> str:
    """Who drifts with the run that loses most: the fifths of the lowest and the highest LID."""
    run, k = study.worst
    queries, fifths = study.queries(run).query("k == @k"), study.fifths(run, k)
    below = 100 * (queries["overlap"] < BADLY_SERVED).mean()
    low, high = (format_fraction(fifths["overlap"].iloc[place]) for place in (0, -1))
    share = queries["lid_exact"].notna().mean()
    of = "the queries" if share >= ENOUGH else f"the {100 * share:.2g} % that have an LID"
    return (
        f"At k = {k} {study.labels[run]} returns less than {BADLY_SERVED:g} of the neighbors to "
        f"{below:.1f} % of the queries. Of {of}, the fifth with the lowest LID gets {low} of them "
        f"on average, the fifth with the highest {high}."
    )


def _safe(runs: Sequence[_Run]) -> list[str]:
    """Which runs keep enough neighbors, and how well the LID."""
    safe = [run for run in runs if run.is_safe]
    if not safe:
        return []
    errors, within = pd.concat([run.lid_error for run in safe]), ""
    bound = errors[["ci_low", "ci_high"]].abs().max(axis=None)
    if not isnan(bound):
        percent = max(1, ceil(1000 * bound)) / 10
        within = f", and an LID{_of_few(errors)} within {percent:.1f} % of the exact one"
    keep = f"{safe[0].subject} keeps"
    if len(safe) > 1:
        keep = f"{join([run.label for run in safe])} keep"
    share = f"{100 * safe[0].tolerance:g} % of the neighbors"
    shortest = min(run.last for run in safe)
    every = "" if shortest == safe[0].study.ks[-1] else f" of its grid, up to {shortest} at least"
    return [f"{keep} at least {share} on average at every k{every}{within}."]


def _short(short: Sequence[_Run]) -> list[str]:
    """What the others lose; of many, those that lose most."""
    sentences = (
        [f"{len(short)} searches keep less, these {MOST_NAMED} least:"]
        if len(short) > MOST_NAMED
        else []
    )
    for run in short[:MOST_NAMED]:
        share = f"{100 * run.tolerance:g} % of the neighbors"
        text = f"keeps at least {share} only up to k = {run.safe_k}"
        if run.safe_k == 0:
            verb = "keeps" if run.curve["ci_high"][run.first] < run.tolerance else "may keep"
            text = f"{verb} less than {share} from the first k on ({run.kept(run.first)})"
        losses = [f"{run.subject} {text}", f"keeps {run.kept(run.last)}"]
        missing = 1 - run.study.run_curve(run.run, "found")["mean"][run.last]
        if missing >= INVISIBLE:
            losses[-1] += f", where {100 * missing:.1f} % of the places stay empty"
        errors = run.lid_error[(run.lid_error["ci_low"] > 0) | (run.lid_error["ci_high"] < 0)]
        if len(errors) and errors["mean"].abs().max() >= INVISIBLE:
            k = errors["mean"].abs().idxmax()
            side = "low" if errors["mean"][k] < 0 else "high"
            where = f" at k = {k}" if k != run.last else ""
            off = f"{100 * abs(errors['mean'][k]):.1f} % too {side}"
            losses.append(f"has an LID{_of_few(errors)} {off}{where}")
        sentences.append(f"{', '.join([*losses[:-1], f'and {losses[-1]}'])}.")
    return sentences


def _of_few(errors: pd.DataFrame) -> str:
    share = errors["share"].min()
    return "" if share >= ENOUGH else f" (of the {100 * share:.2g} % of the queries that have one)"


def _same(runs: Sequence[_Run]) -> list[str]:
    """Which runs do not differ from the one that keeps most of the longest list."""
    best = max(runs, key=lambda run: (run.last, run.curve["mean"][run.last]))
    same = [run.label for run in runs if run is not best and best.keeps_more(run, best.last) == 0]
    if not same:
        return []
    labels = f"{best.label} and {join(same, 'or')}"
    return [f"At k = {best.last} there is no difference beyond the intervals between {labels}."]


def _reason(early: Sequence[_Run], runs: Sequence[_Run], is_shown: bool) -> list[str]:
    """How the libraries read efSearch, where that lets a search stop early."""
    raising = dict.fromkeys(
        run.backend
        for run in runs
        if run.ef and run.ef["stops_after"] > run.ef["ef_search"] and run.backend != "pgvector"
    )
    raise_ = "raises" if len(raising) == 1 else "raise"
    others = [f"{join(raising)} {raise_} efSearch to the length of the list."] if raising else []
    rules = "; ".join(map(_stop_rule, early))
    return [f"The reason {'is' if is_shown else 'may be'} where a search stops: {rules}.", *others]


def _stop_rule(early: _Run) -> str:
    itself = " (the query itself is one)" if early.ef["list_length"] > early.last else ""
    if early.backend == "pgvector":
        return (
            f"pgvector returns at most hnsw.ef_search rows; at k = {early.last} {early.subject} "
            f"returns {early.ef['stops_after']} of {early.ef['list_length']}{itself}"
        )
    return (
        "FAISS lists max(efSearch, k) candidates, but stops once efSearch of them are nearer than "
        f"the next one to visit; {early.subject} at k = {early.last} stops after "
        f"{early.ef['stops_after']} of {early.ef['candidates']}{itself}"
    )


def _stop_advice(early: _Run, wider: Sequence[_Run]) -> str:
    """What to do about a search that stops early, right at every k as far as was measured."""
    if early.backend == "pgvector":
        more = "or let it scan on (iterative_scan=strict_order)"
        return (
            f"So with pgvector let hnsw.ef_search be more than k, up to its limit of 1,000, {more}."
        )
    if not wider:
        return "So with FAISS measure a run whose efSearch grows with k (--runs faiss:k,50)."
    worse = {run: [k for k in early.curve.index if early.keeps_more(run, k) > 0] for run in wider}
    best = min(wider, key=lambda run: (len(worse[run]), "k" not in run.policy))
    shown = f"on the same graph {best.subject} keeps {best.kept(best.last)}"
    if "k" not in best.policy:
        return f"So with FAISS let efSearch be no less than the list is long: {shown}."
    least = best.policy.partition(",")[2]
    if worse[best]:
        k, least = worse[best][0], early.ef["ef_search"]
        shown += f", but {best.kept(k)}, less than {early.label}"
    else:
        shown += f" and {best.kept(best.first)}"
    floor = f", but not fall below {least}" if least else ""
    return f"So with FAISS let efSearch grow with k{floor}: {shown}."


def _advice(runs: Sequence[_Run]) -> str:
    """What to do where it is not the stop."""
    safe = {run.label: run.last for run in runs if run.is_safe}
    if safe:
        return f"So lists up to k = {min(safe.values())} can be had from {join(safe, 'or')}."
    longest = max(run.safe_k for run in runs)
    lists = f"lists longer than k = {longest}" if longest else "lists of any length"
    return f"So for {lists} search wider, or build a denser index, and measure again."
