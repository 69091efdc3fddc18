"""The finding in a title, three numbers of the run that loses most, and what to do about it."""

from collections.abc import Sequence
from math import floor

from drift.report.reasons import (
    Advice,
    Result,
    Results,
    at_the_stop,
    named,
    not_measured,
    search_wider,
    setter,
)
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


def data(study: Study) -> str:
    """How many queries and vectors there are, what they are of, and when they were measured."""
    text = f"{study.n_queries:,} queries{' from a file' if study.is_outside else ''}"
    if study.shape:
        text += " among {:,} embeddings of {:,} dimensions".format(*study.shape)
    images, embeddings = study.parameters("01_images"), study.parameters("02_embeddings")
    file = study.manifests.get("02_embeddings", {}).get("file")
    names = list(filter(None, (images.get("dataset"), embeddings.get("model"), file)))
    text += f" ({', '.join(names)})" if names else ""
    cosine = "compared by cosine" if study.is_cosine else ""
    return ", ".join(filter(None, [text, cosine, study.notes.get("date", "")[:10]]))


def title(results: Results) -> str:
    """The finding at the k of interest, from the numbers."""
    study, runs, _ = results
    worst, ruled = results.worst, [run for run in runs if run.name in study.ruled]
    if all(run.is_safe for run in ruled):
        who, n = f"{_in_title(worst)} keeps", len(ruled)
        if n > 1:
            of = " without a target" if n < len(runs) else ""
            who = f"{'both' if n == 2 else f'all {n}'} searches{of} keep"
        until = f"up to k = {min(run.last for run in ruled)}"
        if (least := min(run.curve["ci_low"].min() for run in ruled)) == 1:
            return f"Nothing is lost: {who} every neighbor {until}"
        share = f"at least {floor(1000 * least) / 10:.1f} % of the neighbors"
        return f"Almost nothing is lost: {who} {share} {until}"
    k = worst.last
    text = f"{_in_title(worst)} keeps {format_share(worst.curve['mean'][k])} of {k} neighbors"
    last = study.voices[study.voice_of[worst.name]][-1]
    widest = next((run for run in ruled if run.name == last), worst)
    if widest is not worst and k in widest.curve.index:
        _, number = widest.run.series_key
        text += f", and {format_share(widest.curve['mean'][k])} at {number:g}"
    if k != study.k_of_interest:
        text += f", and was not measured at {study.k_of_interest}"
    return text + (" (a tie is no loss)" if worst.measure == "recall" else "")


def _in_title(result: Result) -> str:
    """A run in words, with that by which it differs from others that are searched alike."""
    built = result.label.removeprefix(result.run.label).split(" (")[0].split()
    words = [part.replace("=", " ") for part in built]
    return result.run.in_title + (f" with {join(words)}" if words else "")


def numbers(worst: Result) -> list[tuple[str, str, str]]:
    """What is kept, how far the LID is off, where 1 % is lost: a name, a number, and what of."""
    k = worst.last
    kept, *interval = (format_share(worst.curve[end][k], 1) for end in ENDS)
    interval = " to ".join(end.removesuffix(" %") for end in interval)
    more = f"at k = {k}, {interval.replace('- to -', 'no interval')}"
    least, at = worst.curve["mean"].min(), worst.curve["mean"].idxmin()
    if format_share(least, 1) != kept:
        more += f"; {format_share(least, 1)} at k = {at}"
    texts = [(worst.measure, kept, more)]
    error, more = "-", f"no query has one at k = {k}"
    if k in worst.lid_error.index:
        of_k = worst.lid_error.loc[k]
        error, interval = format_error(*of_k[ENDS])
        some = of_few(worst.study, of_k["n"])
        error, more = f"{error} %", f"at k = {k}, {interval}{f', of {some}' if some else ''}"
    texts.append(("LID off", error, more))
    limit, lost = worst.strict, f"{100 * (1 - worst.tolerance):.3g} % lost"
    lost += " at the smallest k measured" if limit["crossing_k"] <= worst.first else ""
    safe, interval = format_crossing(worst.study, limit)
    return [*texts, ("safe to k", safe, ", ".join(filter(None, [lost, interval])))]


def of_targets(study: Study, runs: Sequence[Result]) -> list[Advice]:
    """What each target needs, at the k of interest or the last first."""
    advice = []
    for run in (one for one in runs if len(one.chosen)):
        setting, target = study.target(run.name)
        wanted = f"{100 * target.level:.6g} %"
        wanted = f"an LID within {wanted}" if target.criterion == "lid" else wanted
        enough = run.chosen[run.chosen["is_enough"]]
        if enough.empty:
            text = f"`{run.chosen_in}`: no {setting} is enough for {wanted}."
            if study.ties and target.criterion == "overlap":
                text += (
                    f" Rows tie, and ties count as losses there: ask for recall={target.level:g}."
                )
            advice.append(Advice(text))
            continue
        ks, on_mean, value = list(enough.index), enough["on_mean"], enough["value"]
        k = study.notes["parameters"].get("k_of_interest")
        k = ks.pop(ks.index(k) if k in ks else -1)
        text = f"`{run.chosen_in}`: {setting} {on_mean[k]:.0f} on the mean, {value[k]} with 95 % "
        text += f"confidence, for {wanted} at k = {k}"
        others = evenly(ks, MOST_NAMED)
        more = "; ".join(f"{k}: {on_mean[k]:.0f} and {value[k]}" for k in others)
        text += f" (k = {more})." if more else "."
        advice.append(Advice(text, setter(run.run, value[k])))
    return advice


def what_to_do(results: Results) -> list[Advice]:
    """By the losses, how to have lists that are whole."""
    study, runs, early = results
    worst, advice = results.worst, [at_the_stop(*both, runs) for both in early.values()]
    if worst.last != study.k_of_interest:
        advice.append(not_measured(worst, study.k_of_interest))
    # What loses by no stop, in an index of which no target is asked.
    aimed = [run for run in runs if run.run.target]
    lossy = [
        run for run in runs if not run.is_safe and not run.run.target and run.stopped() is None
    ]
    lossy = [run for run in lossy if run.run.index_name not in {o.run.index_name for o in aimed}]
    if early and not lossy:
        return advice
    if safe := [run for run in runs if run.is_safe and not run.run.target]:
        k = max(run.last for run in safe)
        if study.chance is not None and study.chance[k] >= runs[0].tolerance:
            return [Advice(f"Lists of k = {k} hold nearly every row, whatever the index does.")]
        longest = named(study, [run for run in safe if run.last == k])
        return [*advice, Advice(f"Lists up to k = {k} can be had from {join(longest, 'or')}.")]
    if advice:
        by_loss = sorted(lossy, key=lambda run: run.curve["mean"][run.last])
        return [*advice, *map(search_wider, by_loss[:1])]
    if any(run.is_safe or (len(run.chosen) and run.chosen["is_enough"].any()) for run in aimed):
        return []  # what it needs is said
    return [search_wider(max(runs, key=lambda run: run.curve["mean"].min()))]
