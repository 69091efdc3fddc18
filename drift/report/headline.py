"""The finding in a title, three numbers of the run that loses most, and what to do."""

from collections.abc import Sequence
from math import floor
from typing import NamedTuple

from drift.report.reasons import Result, at_the_stop, command, early_stops, named, setter
from drift.report.study import ENDS, Study
from drift.report.tables import (
    evenly,
    format_crossing,
    format_error,
    format_share,
    join,
    of_few,
)

MOST_NAMED = 3  # of many k, and of many runs those that lose most


class Advice(NamedTuple):
    """What to do, and the setting or the command to copy, if there is one."""

    text: str
    copy: str = ""


class Headline(NamedTuple):
    """What stands above everything else."""

    title: str  # the finding, from the numbers
    data: str  # of what, and when
    numbers: list[tuple[str, str, str]]  # a name, a large number, its interval or what it is of
    advice: list[Advice]  # targets that were asked for first, then what to do


def headline(study: Study) -> Headline:
    """What came out, of what data, and what to do about it."""
    runs = [Result(study, name) for name in study.styles]
    ruled = [run for run in runs if run.name in study.ruled]
    (worst,) = (run for run in runs if run.name == study.worst)
    return Headline(
        _title(worst, ruled, len(runs)),
        _data(study),
        _numbers(worst),
        [*_targets(study, runs), *_what_to_do(study, runs, worst)],
    )


def _data(study: Study) -> str:
    """How many queries and vectors there are, what they are of, and when they were measured."""
    text = f"{study.n_queries:,} queries{' from a file' if study.is_outside else ''}"
    if "outputs" in (embedded := study.manifests.get("02_embeddings", {})):
        shape = embedded["outputs"]["02_embeddings.npy"]["shape"]
        text += " among {:,} embeddings of {:,} dimensions".format(*shape)
    images, embeddings = study.parameters("01_images"), study.parameters("02_embeddings")
    names = list(filter(None, (images.get("dataset"), embeddings.get("model"))))
    text += f" ({', '.join(names)})" if names else ""
    cosine = "compared by cosine" if study.is_cosine else ""
    return ", ".join(filter(None, [text, cosine, study.notes.get("date", "")[:10]]))


def _title(worst: Result, ruled: Sequence[Result], n_runs: int) -> str:
    if all(run.is_safe for run in ruled):
        who, n = f"{_in_title(worst)} keeps", len(ruled)
        if n > 1:
            of = " without a target" if n < n_runs else ""
            who = f"{'both' if n == 2 else f'all {n}'} searches{of} keep"
        until = f"up to k = {min(run.last for run in ruled)}"
        if (least := min(run.curve["ci_low"].min() for run in ruled)) == 1:
            return f"Nothing is lost: {who} every neighbor {until}"
        share = f"at least {floor(1000 * least) / 10:.1f} % of the neighbors"
        return f"Almost nothing is lost: {who} {share} {until}"
    k = worst.worst_k
    title = f"{_in_title(worst)} keeps {format_share(worst.curve['mean'][k])} of {k} neighbors"
    last = worst.study.voices[worst.study.voice_of[worst.name]][-1]
    widest = next((run for run in ruled if run.name == last), worst)
    if widest is not worst and k in widest.curve.index:
        _, number = widest.run.series_key
        title += f", and {format_share(widest.curve['mean'][k])} at {number:g}"
    return title + (" (a tie is no loss)" if worst.measure == "recall" else "")


def _in_title(result: Result) -> str:
    """A run in words, with that by which it differs from others that are searched alike."""
    built = result.label.removeprefix(result.run.label).split(" (")[0].split()
    words = [part.replace("=", " ") for part in built]
    return result.run.in_title + (f" with {join(words)}" if words else "")


def _numbers(worst: Result) -> list[tuple[str, str, str]]:
    """What is kept, how far the LID is off, where 1 % is lost."""
    k = worst.worst_k
    kept, *interval = (format_share(worst.curve[end][k], 1) for end in ENDS)
    interval = " to ".join(end.removesuffix(" %") for end in interval)
    numbers = [(worst.measure, kept, f"at k = {k}, {interval.replace('- to -', 'no interval')}")]
    error, more = "-", f"no query has one at k = {k}"
    if k in worst.lid_error.index:
        of_k = worst.lid_error.loc[k]
        error, interval = format_error(*of_k[ENDS])
        some = of_few(worst.study, of_k["n"])
        error, more = f"{error} %", f"at k = {k}, {interval}{f', of {some}' if some else ''}"
    numbers.append(("LID off", error, more))
    limit, lost = worst.strict, f"{100 * (1 - worst.tolerance):.3g} % lost"
    safe, interval = format_crossing(worst.study, limit)
    if limit["crossing_k"] > worst.first:
        safe = str(floor(limit["crossing_k"]))
    return [*numbers, ("safe to k", safe, ", ".join(filter(None, [lost, interval])))]


def _targets(study: Study, runs: Sequence[Result]) -> list[Advice]:
    """What each target needs, at the k of interest or the last first."""
    advice = []
    for run in (one for one in runs if len(one.chosen)):
        setting, target = study.target(run.name)
        wanted = f"{100 * target.level:.6g} %"
        wanted = f"an LID within {wanted}" if target.criterion == "lid" else wanted
        enough = run.chosen[run.chosen["is_enough"]]
        if enough.empty:
            advice.append(Advice(f"`{run.label}`: no {setting} is enough for {wanted}."))
            continue
        ks, on_mean, value = list(enough.index), enough["on_mean"], enough["value"]
        k = study.notes["parameters"].get("k_of_interest")
        k = ks.pop(ks.index(k) if k in ks else -1)
        text = f"`{run.label}`: {setting} {on_mean[k]:.0f} on the mean, {value[k]} with 95 % "
        text += f"confidence, for {wanted} at k = {k}"
        others = evenly(ks, MOST_NAMED)
        more = "; ".join(f"{k}: {on_mean[k]:.0f} and {value[k]}" for k in others)
        text += f" (k = {more})." if more else "."
        advice.append(Advice(text, setter(run.run, value[k])))
    return advice


def _what_to_do(study: Study, runs: Sequence[Result], worst: Result) -> list[Advice]:
    safe = [run for run in runs if run.is_safe and not run.run.target]
    advice = [Advice(*at_the_stop(*both)) for both in early_stops(runs).values()]
    if advice and worst.stopped is not None:
        return advice
    if safe:
        k = min(run.last for run in safe)
        if study.chance is not None and study.chance[k] >= runs[0].tolerance:
            return [Advice(f"Lists of k = {k} hold nearly every row, whatever the index does.")]
        text = f"Lists up to k = {k} can be had from {join(named(study, safe), 'or')}."
        return [*advice, Advice(text)]
    if advice:
        return [*advice, _search_wider(worst)]
    longest = max(run.safe_k for run in runs)
    for run in (one for one in runs if one.run.target):
        enough = run.chosen.index[run.chosen["is_enough"]] if len(run.chosen) else []
        is_reached = len(enough) and (len(enough) == len(run.chosen) or max(enough) > longest)
        if run.is_safe or is_reached:
            return []  # what it needs is said
    return [_search_wider(max(runs, key=lambda run: run.curve["mean"].min()))]


def _search_wider(result: Result) -> Advice:
    if len(result.study.run_curve(result.name, "lid_reported")):
        return Advice(
            f"`{result.label}` compares compressed vectors: give them more bits, or ask for more "
            "neighbors and keep those that are nearest by the vectors themselves."
        )
    text = f"With `{result.label}` search wider, or build a denser index, and measure again"
    if not result.run.build or not result.run.policies or result.run.target:
        return Advice(f"{text}.")
    return Advice(f"{text}:", command(result.run, f"{result.measure}={result.tolerance:g}"))
