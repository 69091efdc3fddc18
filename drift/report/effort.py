"""How much effort a target needs, and what compressed distances are off by."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from drift.report import panels
from drift.report.study import Study
from drift.report.tables import evenly, format_fraction, format_number, format_percent, join

SETTINGS = {"ef_search": "efSearch"}
COUNTED = "distance_computations_per_query"
MOST_NAMED = 3


def targets(study: Study) -> dict[str, dict[str, Any]]:
    """What was found, by k, for each run whose setting was to be found, of its first graph."""
    found = {}
    for run, members in study.members.items():
        manifest = study.searched.get(members[0], {})
        if "ef_search_by_k" in manifest:
            rows = pd.DataFrame(manifest["halves"]).T.assign(value=manifest["ef_search_by_k"])
            rows.index = rows.index.astype(int)
            setting, criterion = manifest["found_for"], manifest["target"]["criterion"]
            setting = SETTINGS.get(setting, setting)
            found[run] = {"setting": setting, "criterion": criterion, "by_k": rows.sort_index()}
    return found


@panels.styled
def draw_effort(study: Study) -> Figure:
    """The setting that each target needs over k, and what searches with it cost."""
    figure, (needed, cost) = panels.stack(study, 1.9, 1.5, is_marked=False)
    found = targets(study)
    for run, target in found.items():
        by_k, style = target["by_k"], study.styles[run]
        panels.draw_line(needed, by_k.index, by_k["value"], style)
        missed = by_k[~by_k["is_enough"].astype(bool)]
        needed.plot(missed.index, missed["value"], "x", color=style.color, ms=9)
    names = dict.fromkeys(target["setting"] for target in found.values())
    every_k = range(study.ks[0], study.ks[-1] + 1)
    needed.plot(every_k, every_k, color="0.5", ls=":", label="efSearch = k")
    needed.set_ylabel(f"{' or '.join(names)},\nlog scale")
    for run, style in study.styles.items():
        counts = study.cost(run, COUNTED)
        if len(counts):
            panels.draw_line(cost, counts.index, counts, style)
    cost.set_ylabel("distances per query,\nlog scale")
    for axes in (needed, cost):
        panels.set_log_axis(axes)
    is_missed = any(not target["by_k"]["is_enough"].all() for target in found.values())
    footnote = "cross: no value reaches the target, the nearest is shown" if is_missed else ""
    return panels.finish(figure, study, footnote, is_over_k=False)


def _ks(ks: pd.Index) -> str:
    few = f"k = {join(list(map(str, ks)))}"
    return few if len(ks) < 4 else f"{len(ks)} lengths from k = {ks[0]} to {ks[-1]}"


def effort_sentences(study: Study) -> list[str]:
    """What each target needs, where none reaches it, and where other queries disagree."""
    sentences = []
    for run, target in targets(study).items():
        setting, rows = target["setting"], target["by_k"]
        enough = rows[rows["is_enough"].astype(bool)]
        shown = enough.loc[evenly(list(enough.index), MOST_NAMED)] if len(enough) else enough
        values = [f"{row.value:,} at k = {k}" for k, row in shown.iterrows()]
        label, is_lid = study.labels[run], target["criterion"] == "lid"
        form = format_percent if is_lid else format_fraction
        unit = " % of the LID" if is_lid else ""
        text = f"{label}:"
        if values:
            text += f" on one half of the queries it takes {join(values)}."
        missed = rows[~rows["is_enough"].astype(bool)]
        if len(missed):
            k = missed.index[-1]
            best = missed.loc[k]
            text += (
                f" No {setting} reaches it at {_ks(missed.index)}; the best at k = {k}, "
                f"{best.value:,}, has {form(best.reached['mean'])}{unit}."
            )
        differs = rows[~rows["agrees"].astype(bool) & rows["is_enough"].astype(bool)]
        if len(differs):
            k = differs.index[-1]
            other = form(differs.loc[k].other_half["mean"])
            text += (
                f" On the other half it misses the target at {_ks(differs.index)} "
                f"({other}{unit} at k = {k})."
            )
        elif not len(missed):
            text += " The other half agrees at every k."
        sentences.append(text)
    return sentences


def reported_sentences(study: Study) -> list[str]:
    """How neighbors that were lost and distances that are distorted each change the LID."""
    sentences = []
    for run, label in study.labels.items():
        reported = study.run_curve(run, "lid_reported")["mean"].dropna()
        if not len(reported):
            continue
        k = reported.index[-1]
        exact, true = (study.run_curve(run, f"lid_{side}")["mean"][k] for side in ("exact", "ann"))
        lids = [format_number(lid) for lid in (exact, true, reported[k])]
        sentences.append(
            f"{label} computes distances from compressed vectors: at k = {k} the exact neighbors "
            f"have an LID of {lids[0]}, those that it returns {lids[1]} (neighbors lost), and the "
            f"distances that it reports {lids[2]} (distances distorted)."
        )
    return sentences
