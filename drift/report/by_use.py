"""The verdict by use: what the lists of one length change for those who use them."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from drift.report.study import INVISIBLE, Study
from drift.report.tables import (
    SAME,
    format_error,
    format_fraction,
    format_number,
    format_part,
    is_none,
    join,
    of_few,
)

BADLY_SERVED = 0.9  # is a query that gets less of its neighbors
# Rows of the table, by measure; the exact side of some stands beside theirs.
ROWS = {
    "kth_distance_error": "density: k-th distance, %",
    "factor": "density: estimate times",
    "lid_error": "dimension: LID, %",
    "lid_cut_error": "dimension: of lists as short, %",
    "lid_pooled_error": "dimension: LID pooled, %",
    "clusters_ann": "clusters: number",
    "ari": "clusters: ARI",
    "below_overlap": f"retrieval: overlap below {BADLY_SERVED:g}",
    "below_recall": f"retrieval: recall below {BADLY_SERVED:g}",
    "accuracy_ann": "classes: accuracy",
    "accuracy_difference": "classes: accuracy, points",
}
BESIDE = {
    "clusters_ann": "clusters_exact",
    "ari": "ari_yardstick",
    "accuracy_ann": "accuracy_exact",
}
FORMS = {"factor": format_number, "clusters_ann": "{:.0f}".format, "ari": "{:.2f}".format}


class ByUse(NamedTuple):
    """A table with a column for each run, and what has to be said of it."""

    title: str
    table: pd.DataFrame
    notes: list[str]


def by_use(study: Study) -> ByUse | None:
    """The verdict by use at the k of interest, each graph by itself; None if none was measured."""
    k = study.notes["parameters"].get("k_of_interest")
    rows = study.by_use[study.by_use["k"] == k]
    if rows.empty:
        return None
    runs, columns = [run for run in study.owner if run in set(rows["run"])], {}
    for run in runs:
        for of, part in rows[rows["run"] == run].groupby("of"):
            measures = {one.measure: one for one in part.itertuples()}
            label = f"{study.label_of(run)}{', as it reports' if of == 'reported' else ''}"
            columns[label] = {
                title: _cell(study, measures[name], measures.get(BESIDE.get(name)))
                for name, title in ROWS.items()
                if name in measures and (name != "below_overlap" or not study.ties)
            }
    table = pd.DataFrame(columns).reindex(ROWS.values()).dropna(how="all").fillna("-")
    notes = _notes(study, k, runs, rows)
    return ByUse(f"by use, k = {k}", table.reset_index(names=""), notes)


def _cell(study: Study, one: Any, exact: Any) -> str:
    """A number with its interval, the exact one, and of how few it is."""
    if np.isnan(one.value):
        return "-"
    numbers = one.value, one.ci_low, one.ci_high
    if one.measure.endswith(("_error", "_difference")):
        value, _, interval = format_error(*numbers).removesuffix(")").partition(" (")
        value, details = "none" if is_none(*numbers) else value, [interval]
    else:
        value, low, high = map(form := FORMS.get(one.measure, format_fraction), numbers)
        details = [] if np.isnan(one.ci_low) else [f"{low} to {high}"]
        if exact is not None:
            details.append(f"exact: {form(exact.value)}")
    if some := of_few(study, one.n):
        details.append(f"of {some}")
    is_rounding = one.measure.endswith("_error") and np.abs(numbers).max() < SAME
    if few := study.few(0 if is_rounding else one.groups_that_differ):
        details.append(f"in {few}")
    return f"{value} ({'; '.join(details)})" if details else value


def _notes(study: Study, k: int, runs: list[str], rows: pd.DataFrame) -> list[str]:
    notes = ['Errors are in % of the exact value; "none": not to be distinguished from 0.']
    owners = dict.fromkeys(study.owner[run] for run in runs)  # graphs of a family on average
    found = {run: study.run_curve(run, "found")["mean"][k] for run in owners}
    short = [
        f"{format_part(1 - share, study.n_queries * k, 'places')} with {study.labels[run]}"
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
    if others := [study.label_of(run) for run in study.owner if run not in runs]:
        notes.append(f"Not searched at k = {k}: {join(others)}.")
    return notes
