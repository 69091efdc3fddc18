"""The verdict by use: what the lists of one length change for those who use them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from drift.report.study import ENOUGH, Study
from drift.report.tables import SAME_LID, format_fraction, format_percent, join
from drift.report.verdict import BADLY_SERVED, INVISIBLE

Record = Mapping[str, Any]


class ByUse(NamedTuple):
    """A table of the runs, what its columns are and are for, and what else has to be said."""

    title: str
    lead: str
    table: pd.DataFrame
    notes: list[str]

    @property
    def sentences(self) -> list[str]:
        return [self.lead, *self.notes]


def by_use(study: Study) -> ByUse | None:
    """The verdict by use at the k of interest; None of a study that was measured without one.

    Runs of one family stand each by itself. Its columns are the uses, as text.
    """
    order = list(study.owner)
    records = sorted(study.facts.get("by_use", ()), key=lambda record: order.index(record["run"]))
    if not records:
        return None
    k, kept = study.facts["parameters"]["k_of_interest"], "recall" if study.ties else "overlap"
    has_graphs = records[0]["components"] is not None
    has_labels = records[0]["same_label"] is not None
    uses = [
        "the error of the k-th distance, for density estimates and HDBSCAN (min_samples = k)",
        "that of the LID, for dimension estimates",
        f"the share of queries with {kept} below {BADLY_SERVED:g}, for retrieval",
    ]
    if has_graphs:
        uses.append(
            "into how many components the k-NN graph falls, for UMAP, spectral methods and "
            "clustering on graphs"
        )
    if has_labels:
        uses.append("the share of queries with the same majority label, for k-NN classification")
    rows = []
    for record in records:
        row = {"run": study.label_of(record["run"])}
        row["density: k-th distance %"] = _error(record["kth_distance"], study.n_queries)
        row["dimension: LID %"] = _error(record["lid"], study.n_queries)
        row[f"retrieval: below {BADLY_SERVED:g}"] = _share(record[f"below_{kept}"])
        if has_graphs:
            counts = record["components"]
            row["graphs: components"] = f"{counts['ann']:,} (exact: {counts['exact']:,})"
        if has_labels:
            row["classes: same label"] = _share(record["same_label"])
        rows.append(row)
    lead = f"What lists of k = {k} change, beside the exact ones: {'; '.join(uses)}."
    notes = _notes(study, records, k, has_graphs, has_labels)
    return ByUse(f"by use, k = {k}", lead, pd.DataFrame(rows), notes)


def _notes(
    study: Study, records: list[Record], k: int, has_graphs: bool, has_labels: bool
) -> list[str]:
    notes = ["Errors are of the mean, in % of the exact one."]
    errors = [record[name] for record in records for name in ("kth_distance", "lid")]
    if any(_is_none(error) for error in errors):
        notes.append('"none": no error that can be distinguished from 0.')
    if any(abs(error["value"]) < INVISIBLE and not _is_none(error) for error in errors):
        below = f"but is below {100 * INVISIBLE:g} %"
        notes.append(f'"0.0": one that can be distinguished from 0, {below}.')
    short = {r["run"]: r["short_rows"] for r in records if r["short_rows"]}
    if short:
        rows = [f"{study.label_of(run)} for {count:,}" for run, count in short.items()]
        notes.append(
            f"Fewer than {k} neighbors came back from {join(rows)} of {study.n_queries:,} queries; "
            "their k-th distance is that of the last one returned."
        )
    if not has_graphs:
        where = (
            "the queries are not among the rows"
            if study.is_outside
            else "not every row was a query"
        )
        notes.append(f"No k-NN graph: {where}.")
    if not has_labels:
        notes.append("No k-NN classification: nothing that was embedded has a label.")
    if len(study.members) < len(study.owner):
        notes.append("Each graph stands by itself, its intervals are over the queries alone.")
    others = [study.label_of(run) for run in study.owner if run not in {r["run"] for r in records}]
    if others:
        notes.append(f"Not searched at k = {k}: {join(others)}.")
    return notes


def _is_none(error: Record) -> bool:
    """Whether the interval of an error includes 0, or it is only what rounding leaves."""
    is_rounding = abs(error["value"]) < SAME_LID
    return bool(error["ci_low"] <= 0 <= error["ci_high"]) or is_rounding


def _error(error: Record, n_queries: int) -> str:
    """A relative error in percent with its interval, and the share of queries if too small."""
    if np.isnan(error["value"]):
        return "-"
    value, low, high = (format_percent(error[name]) for name in ("value", "ci_low", "ci_high"))
    share = error["n"] / n_queries
    few = "" if share >= ENOUGH else f", of {100 * share:.2g} % of the queries"
    return f"{'none' if _is_none(error) else value} ({_interval(error, low, high)}{few})"


def _share(share: Record) -> str:
    value, low, high = (format_fraction(share[name]) for name in ("value", "ci_low", "ci_high"))
    return f"{value} ({_interval(share, low, high)})"


def _interval(estimate: Record, low: str, high: str) -> str:
    return "no interval" if np.isnan(estimate["ci_low"]) else f"{low} to {high}"
