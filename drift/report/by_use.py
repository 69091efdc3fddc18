"""What the lists of one length change for those who use them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from drift.report.study import INVISIBLE, Study
from drift.report.tables import (
    SAME,
    format_error,
    format_number,
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
ALIKE = 0.5  # the ARI of exact partitions, below which there is nothing that could be kept
# By use its measure, where nothing changes, and what the number is.
USES = {
    "density": ("factor", 1, "what a k-NN density estimate is multiplied by"),
    "dimension": ("lid_error", 0, "how far the mean LID is off"),
    "clusters": ("ari", 1, "how much the clusters are those of the exact lists (ARI)"),
    "retrieval": ("below_overlap", 0, f"queries that get less than {BADLY_SERVED:g} of theirs"),
    "classes": ("accuracy_difference", 0, "what k-NN classification gains or loses"),
}
FORMS = {"factor": format_number, "ari": "{:.2f}".format}


class ByUse(NamedTuple):
    """What each run changes in each use, and what has to be said of it."""

    uses: dict[str, str]  # what the number of each use is
    runs: list[tuple[str, list[tuple[str, str, str]]]]  # of each a mark of `MARKS`, number, details
    notes: list[str]

    @property
    def table(self) -> pd.DataFrame:
        """A row for each run, a column for each use."""
        cells = (
            [label, *(f"{mark} {with_details(*cell)}".strip() for mark, *cell in marks)]
            for label, marks in self.runs
        )
        return pd.DataFrame(cells, columns=["run", *self.uses])


def by_use(study: Study, tolerances: Sequence[float] = TOLERANCES) -> ByUse | None:
    """The verdict by use at the k of interest, each graph by itself; None if none was measured."""
    k = study.notes["parameters"].get("k_of_interest")
    rows = study.by_use[study.by_use["k"] == k]
    if rows.empty:
        return None
    measures = {use: measure for use, (measure, _, _) in USES.items()}
    if study.ties:
        measures["retrieval"] = "below_recall"
    known = set(rows["measure"])
    measures = {use: measure for use, measure in measures.items() if measure in known}
    runs, shown = [run for run in study.owner if run in set(rows["run"])], []
    for run in runs:
        for of, part in rows[rows["run"] == run].groupby("of"):
            ones = {one.measure: one for one in part.itertuples()}
            marks = [
                (_mark(ones, use, name, tolerances), *_cell(study, ones, name))
                for use, name in measures.items()
            ]
            reports = ", as it reports" if of == "reported" else ""
            shown.append((f"{study.label_of(run)}{reports}", marks))
    uses = {use: USES[use][2] for use in measures}
    return ByUse(uses, shown, _notes(study, k, runs, rows))


def _mark(ones: dict[str, Any], use: str, name: str, tolerances: Sequence[float]) -> str:
    """By the end of the interval that is farther from no change, so that "kept" was shown.

    Where the other end says less, it "may be" so; nothing is sure where that is "kept" and this
    "lost". Partitions have no interval, and are compared with how much those of the exact graph are
    each other's, if they are.
    """
    if name not in ones or np.isnan((one := ones[name]).value):
        return ""
    ends = np.array([one.ci_low, one.ci_high])
    if use == "clusters" and ones["ari_yardstick"].value < ALIKE:
        return NOT_SURE
    if use == "clusters":
        ends = np.repeat(min(1, one.value / ones["ari_yardstick"].value), 2)
    off = np.round(ends - USES[use][1], 12)  # 1.01 is 0.01 off, and not by more
    if np.isnan(off).any():
        return "no interval"
    near = 0 if off[0] <= 0 <= off[1] else np.abs(off).min()
    least, most = np.searchsorted(tolerances, [near, np.abs(off).max()])
    if most - least == 2:
        return NOT_SURE
    return MARKS[most] if least == most else f"may be {MARKS[most]}"


def _cell(study: Study, ones: dict[str, Any], name: str) -> tuple[str, str]:
    """A number; and its interval, the exact one, and of how few it is."""
    if name not in ones or np.isnan((one := ones[name]).value):
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
        if name == "ari":
            details.append(f"exact: {form(ones['ari_yardstick'].value)}")
    if is_change and is_none(*(numbers - nothing)):
        value, details = f"not distinguishable from {nothing}", [] if is_same else details
    if some := of_few(study, one.n):
        details.append(f"of {some}")
    if few := study.few(0 if is_change and is_same else one.groups_that_differ):
        details.append(f"in {few}")
    return value, "; ".join(details)


def _notes(study: Study, k: int, runs: list[str], rows: pd.DataFrame) -> list[str]:
    found = study.curves[(study.curves["metric"] == "found") & (study.curves["k"] == k)]
    notes = ["How far something is off is in % of its exact value."]
    if (found["mean"] <= 1 - INVISIBLE).any():
        notes.append("Where neighbors are missing the k-th distance is that of the last one.")
    if "reported" in set(rows["of"]):
        notes.append("As it reports: by the distances that it computes from compressed vectors.")
    notes += study.notes.get("no_clusters", ())
    if "classes" not in set(rows["use"]):
        notes.append("No k-NN classification: no query has a label.")
    if len(study.members) < len(study.owner):
        notes.append("Each graph stands by itself, its intervals are over the queries alone.")
    others = {run: study.up_to_k(study.owner[run]) for run in study.owner if run not in runs}
    texts = [
        f"`{study.label_of(run)}` (keeps {format_share(curve['mean'].iloc[-1], 1)} of "
        f"{curve.index[-1]})"
        for run, curve in others.items()
    ]
    if texts:
        notes.append(f"Not measured at k = {k}: {join(texts)}.")
    return notes
