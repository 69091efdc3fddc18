"""What the report says: what was compared, what came out, why, and what to do."""

from collections.abc import Sequence
from math import ceil, isnan, nan
from typing import NamedTuple

import pandas as pd

from drift.indexes.run import FAISS_NAMES
from drift.report.study import ENOUGH, Study
from drift.report.tables import evenly, format_fraction, format_number, format_percent, join

MOST_NAMED = 3  # of the runs that lose too much those that lose most; of many k
FEW_QUERIES = 1000
BADLY_SERVED = 0.9  # is a query that gets less of its neighbors
INVISIBLE = 0.0005  # what is 0.0 % when it is written down


class Verdict(NamedTuple):
    """Sentences."""

    result: list[str]
    reason: list[str]
    advice: list[str]
    details: list[str]

    @property
    def sentences(self) -> list[str]:
        return [sentence for part in self for sentence in part]


class _Result:
    """A run as sentences see it."""

    def __init__(self, study: Study, name: str):
        self.study, self.name, self.label = study, name, study.labels[name]
        self.subject = f"{self.label}," if "," in self.label else self.label
        self.measure = study.kept_by(name)
        self.curve, self.lid_error = study.run_curve(name, self.measure), study.lid_error(name)
        self.first, self.last = self.curve.index[[0, -1]]
        strict = study.strictest(name)
        self.tolerance, self.safe_k = strict["tolerance"], int(strict["safe_k"])
        self.share = f"{100 * self.tolerance:g} % of the neighbors"
        self.is_safe = self.safe_k == self.last
        self.run, searched = study.first_graph(name)
        rules = searched.get("effective_ef", {})
        self.stop = rules[max(rules, key=int)] if rules else {}
        self.stops_early = (
            bool(rules)
            and "ef_search_by_k" not in searched
            and self.stop["stops_after"] < self.stop["list_length"]
        )

    def kept(self, k: int) -> str:
        return f"{format_fraction(self.curve['mean'][k])} at k = {k}"

    def keeps_more(self, other: "_Result", k: int) -> float:
        """By how much; 0 for less than the interval, NaN where they were not compared."""
        metric = "recall" if "recall" in (self.measure, other.measure) else "overlap"
        table, pair = self.study.differences, (self.run.family, other.run.family)
        for row in table[(table["metric"] == metric) & (table["k"] == k)].itertuples():
            if (row.first, row.second) in (pair, pair[::-1]):
                difference = row.difference if row.first == pair[0] else -row.difference
                return difference if row.different else 0.0
        return nan


def verdict(study: Study) -> Verdict:
    """What was compared, what came out, the reason, what to do about it, and the details."""
    runs = [_Result(study, name) for name in study.styles]
    by_loss = sorted(runs, key=lambda run: run.curve["mean"][run.last])
    short = [run for run in by_loss if not run.is_safe]
    # Of each library the run that loses most, with those that show that it is the stop: in the same
    # index they go on, and keep more.
    early: dict[str, _Result] = {}
    for run in short:
        if run.stops_early:
            early.setdefault(run.run.library, run)
    wider = {library: _wider(one, runs) for library, one in early.items()}
    ks = " to ".join(map(str, dict.fromkeys((study.ks[0], study.ks[-1]))))
    searches = f"{len(runs)} approximate search{'es' if len(runs) > 1 else ''}"
    result = [f"{searches} beside the exact k nearest neighbors, k = {ks}: {extent(study)}."]
    if study.ties:
        result.append("Rows tie, and ties are no losses: what follows speaks of recall.")
    details = [*target_sentences(study), *_same(runs)]
    details.append(f"Intervals are of 95 %, over {study.interval_of}.")
    if study.n_queries < FEW_QUERIES:
        details.append(
            f"With fewer than {FEW_QUERIES:,} queries those of skewed metrics, such as the "
            "difference of LIDs, are too narrow."
        )
    return Verdict(
        [*result, *_safe(runs), *_short(short), *reported_sentences(study)],
        _reason(list(early.values()), runs, is_shown=all(wider.values())) if early else [],
        [_stop_advice(early[one], wider[one]) for one in early] or [_advice(runs)],
        details,
    )


def _wider(early: _Result, runs: Sequence[_Result]) -> list[_Result]:
    index, last = early.run.index_name, early.last
    same = [run for run in runs if run.run.index_name == index and run.last == last]
    return [run for run in same if not run.stops_early and run.keeps_more(early, last) > 0]


def extent(study: Study) -> str:
    """How many queries and vectors there are, and what they are of."""
    text = f"{study.n_queries:,} queries{' from a file' if study.is_outside else ''}"
    if "outputs" in (embedded := study.manifests.get("02_embeddings", {})):
        shape = embedded["outputs"]["02_embeddings.npy"]["shape"]
        text += " among {:,} embeddings of {:,} dimensions".format(*shape)
    images, embeddings = study.parameters("01_images"), study.parameters("02_embeddings")
    names = list(filter(None, (images.get("dataset"), embeddings.get("model"))))
    if names:
        text += f" ({', '.join(names)})"
    if study.is_cosine:
        text += ", compared by cosine: a distance d is the chord sqrt(2 (1 - cos)), cos = 1 - d^2/2"
    return text


def _safe(runs: Sequence[_Result]) -> list[str]:
    safe = [run for run in runs if run.is_safe]
    if not safe:
        return []
    keep = f"{safe[0].subject} keeps"
    if len(safe) > 1:
        keep = f"{join([run.label for run in safe])} keep"
    text = f"{keep} at least {safe[0].share} on average at every k"
    shortest = min(run.last for run in safe)
    if shortest != safe[0].study.ks[-1]:
        text += f" of its grid, up to {shortest} at least"
    errors = pd.concat([run.lid_error for run in safe])
    bound = errors[["ci_low", "ci_high"]].abs().max(axis=None)
    if not isnan(bound):
        percent = max(1, ceil(1000 * bound)) / 10
        text += f", and an LID{_of_few(errors)} within {percent:.1f} % of the exact one"
    return [f"{text}."]


def _short(short: Sequence[_Result]) -> list[str]:
    """What the others lose; of many, those that lose most."""
    sentences = []
    if len(short) > MOST_NAMED:
        sentences.append(f"{len(short)} searches keep less, these {MOST_NAMED} least:")
    for run in short[:MOST_NAMED]:
        text = f"keeps at least {run.share} only up to k = {run.safe_k}"
        if run.safe_k == 0:
            verb = "keeps" if run.curve["ci_high"][run.first] < run.tolerance else "may keep"
            text = f"{verb} less than {run.share} from the first k on ({run.kept(run.first)})"
        losses = [f"{run.subject} {text}", f"keeps {run.kept(run.last)}"]
        missing = 1 - run.study.run_curve(run.name, "found")["mean"][run.last]
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


def _same(runs: Sequence[_Result]) -> list[str]:
    """Which runs do not differ from the one that keeps most of the longest list."""
    best = max(runs, key=lambda run: (run.last, run.curve["mean"][run.last]))
    same = [run.label for run in runs if run is not best and best.keeps_more(run, best.last) == 0]
    if not same:
        return []
    labels = f"{best.label} and {join(same, 'or')}"
    return [f"At k = {best.last} there is no difference beyond the intervals between {labels}."]


def _reason(early: Sequence[_Result], runs: Sequence[_Result], is_shown: bool) -> list[str]:
    """How the libraries read efSearch, where that lets a search stop early."""
    raising = dict.fromkeys(
        run.run.library
        for run in runs
        if run.stop and run.stop["stops_after"] > run.stop["ef_search"]
        if run.run.library != "pgvector"
    )
    raise_ = "raises" if len(raising) == 1 else "raise"
    others = [f"{join(raising)} {raise_} efSearch to the length of the list."] if raising else []
    rules = "; ".join(map(_stop_rule, early))
    return [f"The reason {'is' if is_shown else 'may be'} where a search stops: {rules}.", *others]


def _stop_rule(early: _Result) -> str:
    stop = early.stop
    own = " (the query itself is one)" if stop["list_length"] > early.last else ""
    if early.run.library == "pgvector":
        return (
            f"pgvector returns at most hnsw.ef_search rows; at k = {early.last} {early.subject} "
            f"returns {stop['stops_after']} of {stop['list_length']}{own}"
        )
    return (
        "FAISS lists max(efSearch, k) candidates, but stops once efSearch of them are nearer than "
        f"the next one to visit; {early.subject} at k = {early.last} stops after "
        f"{stop['stops_after']} of {stop['candidates']}{own}"
    )


def _stop_advice(early: _Result, wider: Sequence[_Result]) -> str:
    """What to do about a search that stops early, right at every k as far as was measured."""
    if early.run.library == "pgvector":
        more = "or let it scan on (iterative_scan=strict_order)"
        return (
            f"So with pgvector let hnsw.ef_search be more than k, up to its limit of 1,000, {more}."
        )
    if not wider:
        return "So with FAISS measure a run whose efSearch grows with k (--runs faiss:k,50)."
    worse = {run: [k for k in early.curve.index if early.keeps_more(run, k) > 0] for run in wider}
    best = min(wider, key=lambda run: (len(worse[run]), run.run.ef_search.multiple is None))
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


def _advice(runs: Sequence[_Result]) -> str:
    """What to do where it is not the stop."""
    safe = {run.label: run.last for run in runs if run.is_safe}
    if safe:
        return f"So lists up to k = {min(safe.values())} can be had from {join(safe, 'or')}."
    longest = max(run.safe_k for run in runs)
    lists = f"lists longer than k = {longest}" if longest else "lists of any length"
    return f"So for {lists} search wider, or build a denser index, and measure again."


def target_sentences(study: Study) -> list[str]:
    """What each target needs, where no value reaches it, and where other queries disagree."""
    sentences = []
    for run, label in study.labels.items():
        rows = study.chosen(run)
        if rows.empty:
            continue
        setting, target = study.first_graph(run)[0].target
        form, unit = format_fraction, ""
        if target.criterion == "lid":
            form, unit = format_percent, " % of the LID"
        enough, missed, text = rows[rows["is_enough"]], rows[~rows["is_enough"]], f"{label}:"
        differs = enough[~enough["agrees"]]
        if len(enough):
            few = evenly(list(enough["value"].items()), MOST_NAMED)
            values = join([f"{value:,} at k = {k}" for k, value in few])
            text += f" on one half of the queries it takes {values}."
        if len(missed):
            k, best = missed.index[-1], missed.iloc[-1]
            text += (
                f" No {FAISS_NAMES.get(setting, setting)} reaches it at {_ks(missed.index)}; the "
                f"best at k = {k}, {best.value:,}, has {form(best['mean'])}{unit}."
            )
        if len(differs):
            k, other = differs.index[-1], form(differs["other_mean"].iloc[-1])
            where = f"{_ks(differs.index)} ({other}{unit} at k = {k})"
            text += f" On the other half it misses the target at {where}."
        elif not len(missed):
            text += " The other half agrees at every k."
        sentences.append(text)
    return sentences


def _ks(ks: pd.Index) -> str:
    if len(ks) > MOST_NAMED:
        return f"{len(ks)} lengths from k = {ks[0]} to {ks[-1]}"
    return f"k = {join(list(map(str, ks)))}"


def reported_sentences(study: Study) -> list[str]:
    """How neighbors that were lost and distances that are distorted each change the LID."""
    sentences = []
    for run, label in study.labels.items():
        reported = study.run_curve(run, "lid_reported")["mean"].dropna()
        if not len(reported):
            continue
        k, sides = reported.index[-1], ("exact", "ann", "reported")
        means = (study.run_curve(run, f"lid_{side}")["mean"][k] for side in sides)
        exact, ann, distorted = map(format_number, means)
        sentences.append(
            f"{label} computes distances from compressed vectors: at k = {k} the exact neighbors "
            f"have an LID of {exact}, those that it returns {ann} (neighbors lost), and the "
            f"distances that it reports {distorted} (distances distorted)."
        )
    return sentences


def drift_by_lid(study: Study) -> str:
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
