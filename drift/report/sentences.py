"""What the report says: what was compared, what came out, why, and what to do."""

from collections.abc import Sequence, Sized
from functools import partial
from math import ceil, isnan
from typing import NamedTuple

import numpy as np
import pandas as pd

from drift.report import headline
from drift.report.headline import MOST_NAMED
from drift.report.reasons import Advice, Result, Results, named, stop_reasons
from drift.report.study import ENDS, FEW_GROUPS, INVISIBLE, Study
from drift.report.tables import (
    format_part,
    format_percent,
    format_share,
    is_none,
    join,
    of_few,
)

NEARLY_ALL = 0.99  # of what came back
BY_CHANCE = 0.05  # of the neighbors, or more, have to be said
FAR_APART = 2  # times one estimate of an error is another that tells a different story


class Findings(NamedTuple):
    """What is said, in sentences in which each run stands between backquotes."""

    title: str
    data: str  # of what, and when
    numbers: list[tuple[str, str, str]]
    advice: list[Advice]  # targets that were asked for first, then what to do
    why: list[str]  # what is kept and lost, and how a library stops
    details: list[str]
    warnings: list[str]


def findings(study: Study) -> Findings:
    """What came out, of what data, what to do about it, and why."""
    results = Results.of(study)
    runs, worst = results.runs, {}
    by_loss = sorted(runs, key=lambda run: run.curve["mean"][run.last])
    short = [run for run in by_loss if not (run.is_safe or run.run.target)]
    for run in short:
        worst.setdefault(study.voice_of[run.name], run)
    early = [run for run, _ in results.early.values()]
    lossy = [run for run in short if run in [*worst.values()][:MOST_NAMED] or run in early]
    by_name = [*lossy, *(run for run in runs if run not in lossy)]
    ties = "Rows tie, and ties are no losses: what is kept is counted by recall."
    why = [*_targets(runs), *([ties] if study.ties else ()), *_safe(runs)]
    warnings = [one for made in study.manifests.values() for one in made.get("warnings", ())]
    return Findings(
        headline.title(results),
        headline.data(study),
        headline.numbers(results.worst),
        [*headline.of_targets(study, runs), *headline.what_to_do(results)],
        [*why, *_short(lossy), *stop_reasons(results)],
        [*_lid_estimates(by_name), *_same(runs), *_intervals(study, runs)],
        [f"Warning: {one}." for one in dict.fromkeys([*warnings, *_nearly_exhaustive(runs)])],
    )


def paragraphs(study: Study) -> list[list[str]]:
    """All that is said, for those who see no page; what is to be copied stands by itself."""
    said = findings(study)
    numbers = ", ".join(f"{name} {number} ({more})" for name, number, more in said.numbers)
    advice = (part for text, copy in said.advice for part in ([text], copy and [f"    {copy}"]))
    first = [[f"{said.title}."], [f"{said.data}: {numbers}."]]
    return [part for part in (*first, *advice, *said[-3:]) if part]


def _safe(runs: Sequence[Result]) -> list[str]:
    safe = [run for run in runs if run.is_safe and not run.run.target]
    if not safe:
        return []
    keep = f"{join(named(safe[0].study, safe))} keep{'' if len(safe) > 1 else 's'}"
    ks, shortest = set().union(*(run.curve.index for run in safe)), min(run.last for run in safe)
    where = f"every k up to {shortest}" if len(ks) > 1 else f"k = {shortest}"
    share = f"{100 * safe[0].tolerance:g} % of the neighbors"
    text = f"{keep} at least {share} on average at {where}"
    errors = pd.concat([run.lid_error for run in safe])
    bound = errors[["ci_low", "ci_high"]].abs().max(axis=None)
    if not isnan(bound):
        percent = max(1, ceil(1000 * bound)) / 10
        n = errors["n"]
        at = f"at k = {n.idxmin()} " if n.nunique() > 1 else ""
        few = _have_one(safe[0].study, n.min(), at)
        text += f", and an LID{few} within {percent:.1f} % of the exact one"
    return [f"{text}."]


def _short(lossy: Sequence[Result]) -> list[str]:
    """What is missing in the longest lists of others, and how far their LID is off by that."""
    sentences = []
    for run in lossy:
        study, k, losses = run.study, run.last, []
        missing = 1 - study.run_curve(run.name, "found")["mean"][k]
        if missing >= INVISIBLE:
            losses.append(f"leaves {format_part(missing, study.n_queries * k, 'places')} empty")
        if k in run.lid_error.index and not is_none(*run.lid_error.loc[k, ENDS]):
            error = run.lid_error["mean"][k]
            few = _have_one(study, run.lid_error["n"][k])
            off = f"{100 * abs(error):.1f} % too {'low' if error < 0 else 'high'}"
            losses.append(f"has an LID{few} {off}{_cut(run, k, error)}")
        if losses:
            sentences.append(f"At k = {k} `{run.label}` {join(losses)}.")
    return sentences


def _nearly_exhaustive(runs: Sequence[Result]) -> list[str]:
    """Which searches are hardly approximate, so that what they keep is no finding."""
    study, rows = runs[0].study, (runs[0].study.shape or (np.inf,))[0]
    if not (many := [run for run in runs if 2 * run.compared >= rows]):
        return []
    compare = f"compare{'' if len(many) > 1 else 's'} each query with half of the {rows:,} rows"
    so = "or more, nearly as an exhaustive search does: what is kept so says nothing of larger data"
    return [f"{join(named(study, many))} {compare} {so}"]


def _have_one(study: Study, n: float, at: str = "") -> str:
    some = of_few(study, n)
    return f" ({at}{some} have one)" if some else ""


def _cut(run: Result, k: int, error: float) -> str:
    """How much of an error of the LID is that lists are short."""
    found = run.study.run_curve(run.name, "found")["mean"][k]
    if found == 1:
        return ""
    numbers = run.study.run_curve(run.name, "lid_cut_error").loc[k, ENDS]
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
                    f"How far the LID{few} of `{run.label}` is off at k = {k} depends on the "
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
    labels = f"`{best.label}` and {join(named(best.study, same), 'or')}"
    where = ", of these graphs," if is_one else ""
    return [
        f"At k = {best.last} there is no difference beyond the intervals{where} between {labels}."
    ]


def _intervals(study: Study, runs: Sequence[Result]) -> list[str]:
    """Over what they are, of what, and where they are rough."""
    others = "; `--seeds 0 1 2 3 4` of stage 04 builds others, from the rows in other orders"
    seeds = others if study.on_one_graph else ""
    sentences = [f"Intervals are of 95 %, over {study.interval_of}{seeds}."]
    few: dict[tuple[float, str], list[Result]] = {}
    for run in runs:
        differ = run.curve["groups_that_differ"]
        if (n := differ.iloc[-1]) and (text := study.few(n)):
            few.setdefault((n, f"at k = {differ.index[-1]} in {text}"), []).append(run)
    if few:
        fewest = sorted(few.items(), key=lambda item: item[0])[:MOST_NAMED]
        texts = (f"{where} with {join(named(study, ones))}" for (_, where), ones in fewest)
        of = f"Where fewer than {FEW_GROUPS} lose anything an interval is rough"
        sentences.append(f"{of}: neighbors are lost {'; '.join(texts)}.")
    if study.is_cosine:
        sentences.append("A distance d is the chord sqrt(2 (1 - cos)), cos = 1 - d^2/2.")
    if study.chance is not None and study.chance.iloc[-1] > BY_CHANCE:
        share = format_share(study.chance.iloc[-1], 1)
        sentences.append(f"Lists of k = {study.ks[-1]} drawn at random have an overlap of {share}.")
    return sentences


def _targets(runs: Sequence[Result]) -> list[str]:
    """Where a target is missed, and what the half of the queries attains that had no say."""
    sentences = []
    for run in (one for one in runs if len(one.chosen)):
        rows, (setting, target) = run.chosen, run.study.target(run.name)
        form, unit, side = partial(format_share, digits=1), "", "lower"
        if target.criterion == "lid":
            form, unit, side = format_percent, " % of the LID", "far"
        enough, unknown = rows[rows["is_enough"]], rows[rows["mean"].isna()]
        missed, parts = rows.drop([*enough.index, *unknown.index]), []
        if len(missed):
            k, best = missed.index[-1], missed.iloc[-1]
            mean = best["on_mean"]
            mean = f"; on the mean {mean:.0f} does" if pd.notna(mean) else ""
            parts.append(
                f"no {setting} reaches it with 95 % confidence{_at(missed, rows)}, "
                f"the best at k = {k}, {best['value']}, has {form(best['mean'])}{unit}{mean}"
            )
        if len(unknown):
            few = "fewer than 99 % of the queries have an LID, which no {} can change"
            parts.append(f"at k = {join(map(str, unknown.index))} {few.format(setting)}")
        known = enough.dropna(subset="other_ci_low")
        ends, high = known["other_ci_low"], known["other_ci_high"]
        misses = target.level - ends
        if target.criterion == "lid":
            ends = ends.where(-ends > high, high)
            misses = ends.abs() - target.level
        if (misses > 0).any():
            k = misses.idxmax()
            parts.append(
                f"the other half misses it{_at(misses[misses > 0], known)}, at k = {k} "
                f"the {side} end of the interval is {form(ends[k])}{unit}, the mean "
                f"{form(known['other_mean'][k])}{unit}"
            )
        elif len(known):
            parts.append("on the other half the whole interval reaches it too")
        said = f"`{run.chosen_in}` was chosen by one half of the queries: {'; '.join(parts)}."
        sentences += [said] if parts else []
    return sentences


def _at(some: Sized, of: Sized) -> str:
    return f" at {len(some)} of {len(of)} k" if len(of) > 1 else ""


def drift_by_lid(study: Study) -> str:
    """Who drifts with the run of `Study.drifted`: the fifths of the lowest and the highest LID."""
    run, k = study.drifted
    fifths = study.fifths(run, k)
    if fifths.empty:
        return ""
    low, high = (format_share(fifths["overlap"].iloc[place], 1) for place in (0, -1))
    share = study.queries(run).query("k == @k")["lid_exact"].notna().mean()
    few = "" if share == 1 else f" that have an LID ({format_part(share, study.n_queries)})"
    return (
        f"Of the queries{few}, the fifth with the lowest LID gets {low} of the neighbors on "
        f"average at k = {k} with `{study.labels[run]}`, the fifth with the highest {high}."
    )
