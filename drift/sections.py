"""What the sections of the page say, in order."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from drift import page, provenance, report
from drift.figures import published_curve
from drift.gallery import DriftedQuery
from drift.metrics import GRAPH_METRICS, METRICS, NOTEBOOK_METRICS
from drift.page import Section

TITLE = "What the index does to the neighborhoods"
LEDE = (
    "Exact k nearest neighbors, compared with those that an approximate index returns, as k grows: "
    "how many are kept, how far they are, where their barycenter lies, and which local intrinsic "
    "dimensionality (LID) they suggest."
)


def what_was_run(
    manifests: Mapping[str, Any], searched: Mapping[str, Any], labels: Mapping[str, str]
) -> Section:
    """Parameters, data, seeds and times of every stage, and the versions of the packages.

    Parameters
    ----------
    manifests, searched : mapping of str to dict
        The manifests of all stages, and once more those of the runs of stage 04 by run.
    labels : mapping of str to str
        What to call each run.
    """
    pieces = [page.paragraph(provenance.extent(manifests))]
    pieces.append(page.headed("Stages", page.table(provenance.facts(manifests))))
    if searched:
        pieces.append(page.headed("Searches", page.table(provenance.searches(searched, labels))))
    else:
        given = page.table(provenance.given_files(manifests))
        pieces.append(page.headed("Lists of another system, and the vectors", given))
    pieces.append(page.headed("Versions", page.paragraph(provenance.versions(manifests))))
    return Section("What was run", pieces)


def what_was_found(
    curves: pd.DataFrame,
    safe_k: pd.DataFrame,
    labels: Mapping[str, str],
    speeds: Mapping[str, pd.Series],
) -> Section:
    """The runs beside each other, and the findings of each, in sentences."""
    findings = report.findings(curves, safe_k, labels)
    details = report.details(curves, labels, speeds)
    of_runs = [" ".join(both) for both in zip(findings, details, strict=True)]
    told = [*report.comparison(curves, labels), *of_runs]
    return Section("What was found", [page.bullets(told)])


def tables(curves: pd.DataFrame, safe_k: pd.DataFrame, labels: Mapping[str, str]) -> Section:
    """The curves of each run at a few k, the safe k, the onset, and the published curve beside."""
    measured = set(curves["metric"])
    pieces = [
        page.headed(f"Curves: {label}", page.table(report.curve_table(curves, run)))
        for run, label in labels.items()
    ]
    meanings = {
        metric.name: metric.description
        for metric in METRICS + NOTEBOOK_METRICS + GRAPH_METRICS
        if metric.name in measured
    }
    said = "Curves are means over the queries; ci_low and ci_high are the ends of a 95 % interval."
    pieces.append(page.headed("The metrics", page.paragraph(said), page.terms(meanings)))
    said = page.paragraph("The largest k up to which the criterion holds; 0: at no k.")
    safe = page.table(report.safe_table(safe_k, labels))
    pieces.append(page.headed("Safe k", said, safe))
    said = page.paragraph(
        "The k from which on the overlap falls faster than before; -: it has no such bend, "
        "be it that nothing is lost or that the loss begins at once or levels off."
    )
    onset = page.table(report.onset_table(safe_k, labels))
    pieces.append(page.headed("Onset of the drift", said, onset))
    if NOTEBOOK_METRICS[0].name in measured:
        beside = report.beside_published(curves, published_curve(), labels)
        said = page.paragraph(
            f"{report.COMPLETE}: the share of queries that got k neighbors. Squared distance and "
            "LID with the index are means over those; the published ones were infinite."
        )
        pieces.append(page.headed("Beside the published curve", said, page.table(beside)))
    return Section("Tables", pieces)


def drifted_queries(
    drifted: Sequence[DriftedQuery], images: np.ndarray, label: str, k: int
) -> Section:
    """The queries that drifted most, as rows of pictures.

    Parameters
    ----------
    drifted : sequence of DriftedQuery
        The worst first; none when nothing was lost.
    images : ndarray of uint8, shape (N, S, S, 3)
        The image of every row.
    label : str
        The run.
    k : int
        Neighbors asked for.
    """
    said = f"{label} kept every neighbor of every query at k = {k}."
    if drifted:
        said = (
            f"The queries that kept least of their neighbors at k = {k} with {label}, worst first. "
            "Under each picture its rank in its list and its distance from the query."
        )
    rows = [page.drifted(query, images) for query in drifted]
    return Section("Gallery", [page.paragraph(said), *rows])


def files(beside: Mapping[str, str], left_out: Mapping[str, str]) -> Section:
    """The tables beside the page, and what it leaves out and why."""
    said = [f"Left out: {name}, because {reason}." for name, reason in left_out.items()]
    return Section("Files", [page.links(beside), *map(page.paragraph, said)])
