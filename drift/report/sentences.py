"""What the report says: what was compared, what came out, why, and what to do."""

from collections.abc import Sequence
from math import ceil, isnan
from typing import NamedTuple

import pandas as pd

from drift.report.reasons import Result, stop_advice, stop_reasons, wider_runs
from drift.report.study import FEW_GROUPS, INVISIBLE, Study, metric_of
from drift.report.tables import (
    evenly,
    format_crossing,
    format_fraction,
    format_part,
    format_percent,
    is_none,
    join,
    of_few,
)

MOST_NAMED = 3  # of the runs that lose too much those that lose most; of many k
FEW_QUERIES = 1000
NEARLY_ALL = 0.99  # of what came back
BY_CHANCE = 0.05  # of the neighbors, or more, have to be said
FAR_APART = 2  # times one estimate of an error is another that tells a different story


class Verdict(NamedTuple):
    """Sentences."""

    result: list[str]
    reason: list[str]
    advice: list[str]
    details: list[str]
    warnings: list[str]

    @property
    def sentences(self) -> list[str]:
        return [sentence for part in self for sentence in part]


def verdict(study: Study) -> Verdict:
    """What was compared, what came out, the reason, what to do about it, and the details."""
    runs = [Result(study, name) for name in study.styles]
    by_loss = sorted(runs, key=lambda run: run.curve["mean"][run.last])
    short = [run for run in by_loss if not (run.is_safe or run.run.target)]
    # Of each library the run that loses most by its stop, with those that show that it is the
    # stop: in the same index they go on, and keep more.
    early: dict[str, Result] = {}
    for run in short:
        if run.stopped is not None:
            early.setdefault(run.run.library, run)
    wider = {library: wider_runs(one, runs) for library, one in early.items()}
    ks = " to ".join(map(str, dict.fromkeys((study.ks[0], study.ks[-1]))))
    searches = f"{len(runs)} approximate search{'es' if len(runs) > 1 else ''}"
    result = [f"{searches} beside the exact k nearest neighbors, k = {ks}: {extent(study)}."]
    result += target_sentences(study)
    if study.ties:
        result.append("Rows tie, and ties are no losses: what follows speaks of recall.")
    warnings = (one for made in study.manifests.values() for one in made.get("warnings", ()))
    named = [run for run in short if run in short[:MOST_NAMED] or run in early.values()]
    by_name = [*named, *(run for run in runs if run not in named)]
    return Verdict(
        [*result, *_safe(runs), *_short(named, len(short))],
        stop_reasons(early, runs, wider),
        [stop_advice(early[one], wider[one]) for one in early] or [_advice(study, runs)],
        [*_lid_estimates(by_name), *_same(runs), *_intervals(study)],
        [f"Warning: {warning}." for warning in dict.fromkeys(warnings)],
    )


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


def _safe(runs: Sequence[Result]) -> list[str]:
    safe = [run for run in runs if run.is_safe and not run.run.target]
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
        few = _have_one(safe[0].study, errors["n"].min())
        text += f", and an LID{few} within {percent:.1f} % of the exact one"
    return [f"{text}."]


def _short(named: Sequence[Result], n: int) -> list[str]:
    """What the others lose; of many, those that lose most."""
    sentences = [f"{n} searches keep less, these {len(named)} least:"] if n > len(named) else []
    for run in named:
        losses = [f"{run.subject} {_loss(run)}", f"keeps {run.kept(run.last)}"]
        missing = 1 - run.study.run_curve(run.name, "found")["mean"][run.last]
        if missing >= INVISIBLE:
            part = format_part(missing, run.study.n_queries * run.last, "places")
            losses[-1] += f", where {part} stay empty"
        errors = run.lid_error[(run.lid_error["ci_low"] > 0) | (run.lid_error["ci_high"] < 0)]
        if len(errors) and errors["mean"].abs().max() >= INVISIBLE:
            k = errors["mean"].abs().idxmax()
            side = "low" if errors["mean"][k] < 0 else "high"
            where = f" at k = {k}" if k != run.last else ""
            off = f"{100 * abs(errors['mean'][k]):.1f} % too {side}{where}"
            few = _have_one(run.study, errors["n"][k])
            losses.append(f"has an LID{few} {off}{_cut(run, k, errors['mean'][k])}")
        sentences.append(f"{', '.join([*losses[:-1], f'and {losses[-1]}'])}.")
    return sentences


def _have_one(study: Study, n: float) -> str:
    some = of_few(study, n)
    return f" ({some} have one)" if some else ""


def _loss(run: Result) -> str:
    """How far a run keeps what was asked for."""
    limit = run.strict
    lost = f"{100 * (1 - run.tolerance):.3g} % of the neighbors"
    if limit["crossing_k"] > run.first:
        return f"has lost {lost} at k = {format_crossing(limit, run.study.grid(limit))}"
    if run.safe_k:
        return f"may have lost {lost} beyond k = {run.safe_k}"
    verb = "keeps" if run.curve["ci_high"][run.first] < run.tolerance else "may keep"
    return f"{verb} less than {run.share} from the first k on ({run.kept(run.first)})"


def _cut(run: Result, k: int, error: float) -> str:
    """How much of an error of the LID is that lists are short."""
    found = run.study.run_curve(run.name, "found")["mean"][k]
    if found == 1:
        return ""
    numbers = run.study.run_curve(run.name, "lid_cut_error").loc[k, ["mean", "ci_low", "ci_high"]]
    cut, rest = f"{format_percent(numbers['mean'])} %", "the rest is"
    if format_percent(numbers["mean"]) == format_percent(error):
        return f" (exact lists cut as short: {cut}; all of it is that they are short)"
    if is_none(*numbers):
        cut, rest = "none", "it is"
    is_right = run.curve["mean"][k] >= NEARLY_ALL * found
    why = "nearer neighbors are missing" if is_right else "other neighbors stand in them"
    return f" (exact lists cut as short: {cut}; {rest} that {why})"


def _lid_estimates(runs: Sequence[Result]) -> list[str]:
    """Where mean, median and pooled LID tell different stories: of each run the last such k."""
    sentences = []
    for run in runs:
        curves = {
            name: run.study.run_curve(run.name, f"lid_{name}error")
            for name in ("", "median_", "pooled_")
        }
        means = pd.DataFrame({name: curve["mean"] for name, curve in curves.items()})
        for k, errors in means.dropna().iloc[::-1].iterrows():
            sizes = errors.abs()
            ends = curves[sizes.idxmax()].loc[k]
            is_other = errors.min() < 0 < errors.max() or sizes.max() > FAR_APART * sizes.min()
            if is_other and sizes.max() > 0.01 and not ends["ci_low"] <= 0 <= ends["ci_high"]:
                by = "{} % by the mean, {} % by the median, {} % pooled"
                few = _have_one(run.study, curves[""]["n"][k])
                sentences.append(
                    f"How far the LID{few} of {run.subject} is off at k = {k} depends on the "
                    f"estimate: {by.format(*map(format_percent, errors))}."
                )
                break
    return sentences[:MOST_NAMED]


def _same(runs: Sequence[Result]) -> list[str]:
    """Which runs do not differ from the one that keeps most of the longest list."""
    best = max(runs, key=lambda run: (run.last, run.curve["mean"][run.last]))
    same = [run for run in runs if run is not best and best.keeps_more(run, best.last) == 0]
    if not same:
        return []
    is_one = any(run.name in best.study.on_one_graph for run in (best, *same))
    labels = f"{best.label} and {join([run.label for run in same], 'or')}"
    where = ", of these graphs," if is_one else ""
    return [
        f"At k = {best.last} there is no difference beyond the intervals{where} between {labels}."
    ]


def _intervals(study: Study) -> list[str]:
    """Over what they are, of what, and where they are rough."""
    others = ": 04_hnsw_search.py --seeds 0 1 2 3 4 builds others, from the rows in other orders"
    seeds = others if study.on_one_graph else ""
    sentences = [f"Intervals are of 95 %, over {study.interval_of}{seeds}."]
    if study.n_queries < FEW_QUERIES:
        sentences.append(
            f"With fewer than {FEW_QUERIES:,} queries those of skewed metrics, such as the "
            "difference of LIDs, are too narrow."
        )
    few: dict[str, list[str]] = {}
    for run, label in study.labels.items():
        differ = study.run_curve(run, "overlap")["groups_that_differ"]
        if text := study.few(differ.iloc[-1]):
            few.setdefault(f"at k = {differ.index[-1]} in {text}", []).append(label)
    if few:
        texts = (f"{where} with {join(labels)}" for where, labels in few.items())
        of = f"Where fewer than {FEW_GROUPS} lose anything an interval is rough"
        sentences.append(f"{of}: neighbors are lost {'; '.join(texts)}.")
    if study.chance is not None and study.chance.iloc[-1] > BY_CHANCE:
        share = format_fraction(study.chance.iloc[-1])
        sentences.append(f"Lists of k = {study.ks[-1]} drawn at random have an overlap of {share}.")
    return sentences


def _advice(study: Study, runs: Sequence[Result]) -> str:
    """What to do where it is not the stop."""
    values = {run.label: study.chosen(run.name) for run in runs if run.run.target}
    enough = {label: rows[rows["is_enough"]] for label, rows in values.items() if len(rows)}
    hit = [label for label, rows in enough.items() if len(rows) == len(values[label])]
    safe = {run.label: run.last for run in runs if run.is_safe and not run.run.target}
    if hit and not safe:
        return f"So at each k search as {join(hit, 'or')} does."
    if not safe:
        longest = max(run.safe_k for run in runs)
        if further := [one for one, rows in enough.items() if max(rows.index, default=0) > longest]:
            return f"So where a target is reached search as {join(further, 'or')} does."
        if kept := [run.label for run in runs if run.is_safe]:
            return f"At least {runs[0].share} are kept at every k searched by {join(kept)}."
        lists = f"lists longer than k = {longest}" if longest else "lists of any length"
        return f"So for {lists} search wider, or build a denser index, and measure again."
    k = min(safe.values())
    if study.chance is not None and study.chance[k] >= runs[0].tolerance:
        return f"But lists of k = {k} hold nearly every row, whatever the index does."
    return f"So lists up to k = {k} can be had from {join(safe, 'or')}."


def target_sentences(study: Study) -> list[str]:
    """What each target needs, what it attains by that, and where it does not."""
    sentences = []
    for run, label in study.labels.items():
        rows = study.chosen(run)
        if rows.empty:
            continue
        setting, target = study.target(run)
        form, unit, side = format_fraction, "", "lower"
        if target.criterion == "lid":
            form, unit, side = format_percent, " % of the LID", "far"
        measured = study.run_curve(run, metric_of(target.criterion))["mean"]
        enough, unknown = rows[rows["is_enough"]], rows[rows["mean"].isna()]
        missed = rows.drop([*enough.index, *unknown.index])
        parts = [
            f"at k = {k} it needs {setting} {enough['on_mean'][k]:.0f} on the mean, "
            f"{enough['value'][k]} with 95 % confidence (measured: {form(measured[k])}{unit})"
            for k in evenly(list(enough.index), MOST_NAMED)
        ]
        if len(missed):
            k, best = missed.index[-1], missed.iloc[-1]
            mean = best["on_mean"]
            mean = f"; on the mean {mean:.0f} does" if pd.notna(mean) else ""
            parts.append(
                f"no {setting} reaches it with 95 % confidence at {len(missed)} of {len(rows)} k; "
                f"the best at k = {k}, {best['value']}, has {form(best['mean'])}{unit}{mean}"
            )
        if len(unknown):
            first, last = unknown.index[[0, -1]]
            where = f"at {len(unknown)} of {len(rows)} k, {first} to {last},"
            where = where if first < last else f"at k = {first}"
            few = "fewer than 99 % of the queries have an LID"
            parts.append(f"{where} {few}, so that no {setting} can reach it there")
        text = f"{label}, by one half of the queries: {'; '.join(parts)}."
        known = enough.dropna(subset="other_ci_low")
        ends, high = known["other_ci_low"], known["other_ci_high"]
        misses = target.level - ends
        if target.criterion == "lid":
            ends = ends.where(-ends > high, high)
            misses = ends.abs() - target.level
        if (misses > 0).any():
            k = misses.idxmax()
            text += (
                f" On the other half it misses at {(misses > 0).sum()} of {len(known)} k: the "
                f"{side} end of the interval is {form(ends[k])}{unit} there at k = {k}, the mean "
                f"{form(known['other_mean'][k])}{unit}."
            )
        elif len(known):
            where = "" if len(known) == len(rows) else f" at {len(known)} of {len(rows)} k"
            text += f" On the other half the whole interval reaches it too{where}."
        sentences.append(text)
    return sentences


def drift_by_lid(study: Study) -> str:
    """Who drifts with the run of `Study.worst`: the fifths of the lowest and the highest LID."""
    run, k = study.worst
    fifths = study.fifths(run, k)
    if fifths.empty:
        return ""
    low, high = (format_fraction(fifths["overlap"].iloc[place]) for place in (0, -1))
    share = study.queries(run).query("k == @k")["lid_exact"].notna().mean()
    few = "" if share == 1 else f" that have an LID ({format_part(share, study.n_queries)})"
    return (
        f"Of the queries{few}, the fifth with the lowest LID gets {low} of the neighbors on "
        f"average at k = {k} with {study.labels[run]}, the fifth with the highest {high}."
    )
