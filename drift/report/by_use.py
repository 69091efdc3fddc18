"""The verdict by use: what the lists of one length change for those who use them."""

from typing import Any, NamedTuple

import pandas as pd

from drift.report.sentences import BADLY_SERVED, INVISIBLE
from drift.report.study import ENOUGH, Study
from drift.report.tables import SAME_LID, format_fraction, format_percent, join


class ByUse(NamedTuple):
    """A table of the runs, what its columns are and are for, and what else has to be said."""

    title: str
    lead: str
    table: pd.DataFrame
    notes: list[str]


def by_use(study: Study) -> ByUse | None:
    """The verdict by use at the k of interest, each graph by itself; None if none was measured."""
    k = study.notes["parameters"].get("k_of_interest")
    rows = study.by_use[study.by_use["k"] == k]
    if rows.empty:
        return None
    rows = rows.assign(share=rows["n"] / study.n_queries).set_index(["measure", "run"])
    measures = {name: part.droplevel("measure") for name, part in rows.groupby("measure")}
    kept = "recall" if study.ties else "overlap"
    runs = [run for run in study.owner if run in rows.index.levels[1]]
    table, words = {"run": [study.label_of(run) for run in runs]}, []
    for column, measure, what, cell in (
        (
            *("density: k-th distance %", "kth_distance_error"),
            "the error of the k-th distance, for density estimates and HDBSCAN (min_samples = k)",
            _error,
        ),
        ("dimension: LID %", "lid_error", "that of the LID, for dimension estimates", _error),
        (
            *(f"retrieval: below {BADLY_SERVED:g}", f"below_{kept}"),
            f"the share of queries with {kept} below {BADLY_SERVED:g}, for retrieval",
            _share,
        ),
        (
            *("graphs: components", "components_ann"),
            "into how many components the k-NN graph falls, for UMAP, spectral methods and "
            "clustering on graphs",
            lambda one: (
                f"{one.value:,.0f} (exact: {measures['components_exact'].value.iloc[0]:,.0f})"
            ),
        ),
        (
            *("classes: same label", "same_label"),
            "the share of queries with the same majority label, for k-NN classification",
            _share,
        ),
    ):
        if measure in measures:
            table[column] = [cell(one) for one in measures[measure].reindex(runs).itertuples()]
            words.append(what)
    lead = f"What lists of k = {k} change, beside the exact ones: {'; '.join(words)}."
    return ByUse(f"by use, k = {k}", lead, pd.DataFrame(table), _notes(study, k, measures, runs))


def _notes(study: Study, k: int, measures: dict[str, pd.DataFrame], runs: list[str]) -> list[str]:
    notes = ["Errors are of the mean, in % of the exact one."]
    errors = [
        error
        for name in ("kth_distance_error", "lid_error")
        if name in measures
        for error in measures[name].itertuples()
    ]
    if any(map(_is_none, errors)):
        notes.append('"none": no error that can be distinguished from 0.')
    if any(abs(error.value) < INVISIBLE and not _is_none(error) for error in errors):
        percent = f"{100 * INVISIBLE:g} %"
        notes.append(f'"0.0": one that can be distinguished from 0, but is below {percent}.')
    short = measures["short_rows"]["value"].reindex(runs, fill_value=0)
    if short.any():
        counts = [f"{study.label_of(run)} for {n:,.0f}" for run, n in short.items() if n]
        notes.append(
            f"Fewer than {k} neighbors came back from {join(counts)} of {study.n_queries:,} "
            "queries; their k-th distance is that of the last one returned."
        )
    if "components_ann" not in measures:
        outside = "the queries are not among the rows"
        where = outside if study.is_outside else "not every row was a query"
        notes.append(f"No k-NN graph: {where}.")
    if "same_label" not in measures:
        notes.append("No k-NN classification: nothing that was embedded has a label.")
    if len(study.members) < len(study.owner):
        notes.append("Each graph stands by itself, its intervals are over the queries alone.")
    others = [study.label_of(run) for run in study.owner if run not in runs]
    if others:
        notes.append(f"Not searched at k = {k}: {join(others)}.")
    return notes


def _is_none(error: Any) -> bool:
    """Whether the interval of an error includes 0, or it is only what rounding leaves."""
    return bool(error.ci_low <= 0 <= error.ci_high) or abs(error.value) < SAME_LID


def _error(error: Any) -> str:
    """A relative error in percent with its interval, and the share of queries if too small."""
    value, low, high = map(format_percent, (error.value, error.ci_low, error.ci_high))
    if value == "-":
        return value
    few = "" if error.share >= ENOUGH else f", of {100 * error.share:.2g} % of the queries"
    interval = "no interval" if low == "-" else f"{low} to {high}"
    return f"{'none' if _is_none(error) else value} ({interval}{few})"


def _share(share: Any) -> str:
    value, low, high = map(format_fraction, (share.value, share.ci_low, share.ci_high))
    return f"{value} ({'no interval' if low == '-' else f'{low} to {high}'})"
