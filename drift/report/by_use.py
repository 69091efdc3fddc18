"""What the lists of one length change for those who use them: at a glance, and in full."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from drift.report.study import INVISIBLE, Study
from drift.report.tables import (
    SAME,
    format_error,
    format_number,
    format_part,
    format_share,
    is_none,
    join,
    of_few,
    with_details,
)

BADLY_SERVED = 0.9  # is a query that gets less of its neighbors
TOLERANCES = (0.01, 0.05)  # up to the first a use is kept, up to the second changed, else lost
MARKS = ("kept", "changed", "lost")
NOT_SURE = "not sure"
MOST_COLUMNS = 4  # of more runs each has a row
# By use the measure at a glance, where nothing changes, and what the number is.
GLANCE = {
    "density": ("factor", 1, "what a k-NN density estimate is multiplied by"),
    "dimension": ("lid_error", 0, "how far the mean LID is off"),
    "clusters": ("ari", 1, "how much the clusters are those of the exact lists (ARI)"),
    "retrieval": ("below_overlap", 0, f"queries that get less than {BADLY_SERVED:g} of theirs"),
    "classes": ("accuracy_difference", 0, "what k-NN classification gains or loses"),
}
# Rows of the table, by measure; the exact side of some stands beside theirs.
ROWS = {
    "kth_distance_error": "density: k-th distance off",
    "factor": "density: estimate times",
    "lid_error": "dimension: LID off",
    "lid_cut_error": "dimension: off in lists as short",
    "lid_pooled_error": "dimension: LID pooled, off",
    "clusters_ann": "clusters: number",
    "ari": "clusters: ARI",
    "below_overlap": f"retrieval: overlap below {BADLY_SERVED:g}",
    "below_recall": f"retrieval: recall below {BADLY_SERVED:g}",
    "accuracy_ann": "classes: accuracy",
    "accuracy_difference": "classes: accuracy, change",
}
BESIDE = {
    "clusters_ann": "clusters_exact",
    "ari": "ari_yardstick",
    "accuracy_ann": "accuracy_exact",
}
FORMS = {"factor": format_number, "clusters_ann": "{:.0f}".format, "ari": "{:.2f}".format}


class ByUse(NamedTuple):
    """What each run changes in each use, and what has to be said of it."""

    title: str
    table: pd.DataFrame  # for a terminal: of more than `MOST_COLUMNS` runs the glance alone
    full: pd.DataFrame  # every measure, a row for each run
    uses: dict[str, str]  # at a glance: what the number of each use is, and of each run and use
    glance: list[tuple[str, list[tuple[str, str, str]]]]  # a mark of `MARKS`, number, details
    notes: list[str]


def by_use(study: Study, tolerances: Sequence[float] = TOLERANCES) -> ByUse | None:
    """The verdict by use at the k of interest, each graph by itself; None if none was measured."""
    k = study.notes["parameters"].get("k_of_interest")
    rows = study.by_use[study.by_use["k"] == k]
    if rows.empty:
        return None
    measures = {use: measure for use, (measure, _, _) in GLANCE.items()}
    if study.ties:
        measures["retrieval"] = "below_recall"
    other = {"below_recall", "below_overlap"} - {measures["retrieval"]}
    known = set(rows["measure"])
    measures = {use: measure for use, measure in measures.items() if measure in known}
    runs, columns, glance = [run for run in study.owner if run in set(rows["run"])], {}, []
    for run in runs:
        for of, part in rows[rows["run"] == run].groupby("of"):
            ones = {one.measure: one for one in part.itertuples()}
            names = [name for name in ROWS if name in ones and name not in other]
            cells = {name: _cell(study, ones[name], ones) for name in names}
            label = f"{study.label_of(run)}{', as it reports' if of == 'reported' else ''}"
            columns[label] = {ROWS[name]: with_details(*cell) for name, cell in cells.items()}
            marks = (
                (_mark(ones, use, name, tolerances), *cells.get(name, ("-", "")))
                for use, name in measures.items()
            )
            glance.append((label, list(marks)))
    full = pd.DataFrame(columns).reindex(ROWS.values()).dropna(how="all").fillna("-")
    full = full.T.reset_index(names="run")
    shown = full[["run", *(ROWS[name] for name in measures.values())]]
    return ByUse(
        f"by use, k = {k}",
        full.set_index("run").T.reset_index(names="") if len(full) <= MOST_COLUMNS else shown,
        full,
        {use: GLANCE[use][2] for use in measures},
        glance,
        _notes(study, k, runs, rows),
    )


def _mark(ones: dict[str, Any], use: str, name: str, tolerances: Sequence[float]) -> str:
    """By the end of the interval that is farther from no change, so that "kept" was shown.

    Where the other end says less, it "may be" so; nothing is sure where that is "kept" and this
    "lost". Partitions have no interval, and are compared with how much those of the exact graph are
    each other's.
    """
    if name not in ones or np.isnan((one := ones[name]).value):
        return ""
    ends = np.array([one.ci_low, one.ci_high])
    if use == "clusters":
        ends = np.repeat(min(1, one.value / ones[BESIDE[name]].value), 2)
    off = np.round(ends - GLANCE[use][1], 12)  # 1.01 is 0.01 off, and not by more
    if np.isnan(off).any():
        return "no interval"
    near = 0 if off[0] <= 0 <= off[1] else np.abs(off).min()
    least, most = np.searchsorted(tolerances, [near, np.abs(off).max()])
    if most - least == 2:
        return NOT_SURE
    return MARKS[most] if least == most else f"may be {MARKS[most]}"


def _cell(study: Study, one: Any, ones: dict[str, Any]) -> tuple[str, str]:
    """A number; and its interval, the exact one, and of how few it is."""
    if np.isnan(one.value):
        return "-", ""
    numbers, nothing = np.array([one.value, one.ci_low, one.ci_high]), int(one.measure == "factor")
    is_change = nothing or one.measure.endswith(("_error", "_difference"))
    is_same = np.abs(numbers - nothing).max() < SAME  # but for rounding
    if is_change and not nothing:
        value, interval = format_error(*numbers)
        unit = "points" if one.measure == "accuracy_difference" else "%"
        value, details = f"{value} {unit}", [interval]
    else:
        form = FORMS.get(one.measure, lambda share: format_share(share, 1))
        value, low, high = map(form, numbers)
        value = "none" if one.measure.startswith("below_") and not one.value else value
        details = [] if np.isnan(one.ci_low) else [f"{low.removesuffix(' %')} to {high}"]
        if exact := ones.get(BESIDE.get(one.measure)):
            details.append(f"exact: {form(exact.value)}")
    if is_change and is_none(*(numbers - nothing)):
        value, details = f"not to be told from {nothing}", [] if is_same else details
    if some := of_few(study, one.n):
        details.append(f"of {some}")
    if few := study.few(0 if is_change and is_same else one.groups_that_differ):
        details.append(f"in {few}")
    return value, "; ".join(details)


def _notes(study: Study, k: int, runs: list[str], rows: pd.DataFrame) -> list[str]:
    notes = ["How far something is off is in % of its exact value."]
    owners = dict.fromkeys(study.owner[run] for run in runs)  # graphs of a family on average
    found = {run: study.run_curve(run, "found")["mean"][k] for run in owners}
    short = [
        f"{format_part(1 - share, study.n_queries * k, 'places')} with `{study.labels[run]}`"
        for run, share in found.items()
        if share <= 1 - INVISIBLE
    ]
    if short:
        text = "the k-th distance is that of the last neighbor"
        notes.append(f"Nothing came back for {join(short)}; {text}.")
    if "reported" in set(rows["of"]):
        notes.append("As it reports: by the distances that it computes from compressed vectors.")
    notes += study.notes.get("no_clusters", ())
    if "classes" not in set(rows["use"]):
        notes.append("No k-NN classification: no query has a label.")
    if len(study.members) < len(study.owner):
        notes.append("Each graph stands by itself, its intervals are over the queries alone.")
    if others := [f"`{study.label_of(run)}`" for run in study.owner if run not in runs]:
        notes.append(f"Not searched at k = {k}: {join(others)}.")
    return notes
