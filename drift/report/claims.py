"""The publications' claims, and what becomes of them by the curves, theirs and ours."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from drift.report.experiments import (
    EXPERIMENTS,
    LADEN,
    N_PUBLISHED,
    runs_of,
    short_rows,
    values_of,
)
from drift.report.study import Publication, Study
from drift.report.tables import format_number

MISSING = float(np.finfo(np.float32).max)  # what FAISS writes for a missing neighbor


class Claim(NamedTuple):
    """A claim of one of the publications, and what it is, in sentences."""

    claim: str
    findings: list[str]


def claims(study: Study) -> list[Claim]:
    """What becomes of the claims, by the published curves and by ours; none without our runs."""
    publication = study.publication
    published = publication.curves
    runs = {name: runs_of(study, published, name) for name in EXPERIMENTS}
    base = runs["ef_search"].get(50)
    if base is None:
        return []
    return [
        Claim(
            "ANN search fails abruptly, with catastrophic divergence in neighbor distances at "
            "about 2.0 to 3.5 times efSearch.",
            [*_published_jumps(publication.jumps), *_our_jump(study, base)],
        ),
        Claim(
            "Increasing construction quality delays this failure.",
            _construction(study, published, runs["ef_construction"]),
        ),
        Claim(
            "Search effort proportional to k preserves the geometry.",
            _proportional(study, published, runs["alpha"], base),
        ),
        Claim("LID is constantly underestimated.", _lid(study, publication, base)),
        Claim(
            "Nearly identical below k = 50 to 90, then gradual divergence.",
            _crossings(study, publication, base),
        ),
    ]


def _published_jumps(jumps: pd.DataFrame) -> list[str]:
    rows = jumps["mean_squared_distance_ann"] * N_PUBLISHED * jumps["k"] / MISSING
    excess = (rows / rows.round() - 1).max()
    fixed = jumps[jumps["study"] == "ef_search"]
    low, high = (fixed["k"] / fixed["value"]).quantile([0.1, 0.9])
    shares = jumps["lid_of_squares_ann"] / jumps["lid_of_squares_exact"]
    return [
        f"Published: {len(jumps)} runs have a first k at which the mean squared distance jumps to "
        f"1e32 or more, with a fixed efSearch mostly at {low:.1f} to {high:.1f} times it. There "
        f"the mean times {N_PUBLISHED:,} k over 3.4e38, FAISS's value for a missing neighbor, is a "
        f"whole number within {100 * excess:.1f} %: {rows.min():.0f} to {rows.max():.0f} rows of "
        f"{N_PUBLISHED:,} were short by exactly one neighbor. Rows short by two overflow and were "
        f"dropped. Overlap is {jumps['overlap'].min():.2f} to {jumps['overlap'].max():.2f} there, "
        f"the LID {100 * shares.min():.0f} to {100 * shares.max():.0f} % of the exact one."
    ]


def _our_jump(study: Study, run: str) -> list[str]:
    label, curve = study.label_of(run), study.run_curve(run, "mean_squared_distance_ann")["mean"]
    laden = curve.index[curve > LADEN]
    if laden.empty:
        return [f"Here no row of {label} is short by exactly one neighbor, and no mean jumps."]
    k = laden[0]
    before = curve.index[max(0, list(curve.index).index(k) - 1)]
    short = short_rows(study).loc[run, k]
    steps = []
    for metric, over, what in (
        ("overlap", "", "overlap goes from"),
        ("barycenter_shift_relative", "", "the barycenter's shift over the radius from"),
        ("lid_ann", "lid_exact", "the LID over the exact one from"),
        ("mean_distance_ann", "mean_distance_exact", "the mean distance of what was returned from"),
    ):
        at = study.run_curve(run, metric, over)["mean"]
        steps.append(f"{what} {at[before]:.3f} to {at[k]:.3f}")
    return [
        f"Here {label} jumps to {curve[k]:.1e} at k = {k}, carried by {short['by_one']:,} of "
        f"{study.n_queries:,} rows; {short['by_more']:,} more are short by two or more and "
        f"dropped. From k = {before} to {k} {', '.join(steps[:-1])}, and {steps[-1]} "
        "times the exact one: a bend, not a jump."
    ]


def _construction(study: Study, published: pd.DataFrame, runs: Mapping[float, str]) -> list[str]:
    at_100 = published[(published["k"] == 100) & (published["study"] == "ef_construction")]
    overlap = at_100.sort_values("value").set_index("value")["overlap"]
    findings = [
        "Published overlap at k = 100 is not monotone: "
        + ", ".join(f"{value:.3f}" for value in overlap)
        + " for efConstruction "
        + ", ".join(f"{value:g}" for value in overlap.index)
        + "."
    ]
    parameters = study.facts["parameters"]["runs"]
    same = {run: parameters[run]["ef_construction"] for run in runs.values()}
    same |= {
        run: one["ef_construction"]
        for run, one in parameters.items()
        if values_of(one).get("ef_construction") in (63, 64)
    }
    lines = []
    for run, value in sorted(same.items(), key=lambda item: item[1]):
        ours, facts = study.run_curve(run, "overlap")["mean"], study.searched[run]
        if 100 in ours.index:
            lines.append(
                f"{value}: {ours[100]:.3f}, degree {facts['graph']['mean_degree_level_0']:.1f}, "
                f"built in {facts['build_seconds']:.1f} s"
            )
    if lines:
        findings.append(
            f"Here, overlap at k = 100, mean degree on the lowest level and time: "
            f"{'; '.join(lines)}. FAISS prunes the links of a node only once it has found "
            "more than 2 M = 64 of them."
        )
    return findings


def _proportional(
    study: Study, published: pd.DataFrame, runs: Mapping[float, str], base: str
) -> list[str]:
    alphas = published[published["study"] == "alpha"]
    least = alphas[alphas["value"] >= 1].groupby("value")["overlap"].min()
    at = published[published["k"] == 100].set_index(["study", "value"])["overlap"]
    findings = [
        "Holds. Published, the least overlap at any k is "
        + ", ".join(f"{overlap:.3f} for efSearch {value:g} k" for value, overlap in least.items())
        + ". It was measured on a better graph than the other experiments: at k = 100 efSearch "
        f"0.5 k has {at['alpha', 0.5]:.4f}, as has efSearch 50 with efConstruction 400 "
        f"({at['ef_construction', 400]:.4f}), and not with 200 ({at['ef_construction', 200]:.4f})."
    ]
    last = study.ks[-1]
    costs = {
        run: study.cost(run, "distance_computations_per_query") for run in (base, *runs.values())
    }
    parts = [
        f"{study.label_of(run)} {study.run_curve(run, 'overlap')['mean'][last]:.3f} for "
        f"{cost[last]:,.0f}"
        for run, cost in costs.items()
        if last in cost.index
    ]
    if parts:
        findings.append(
            f"Here, overlap at k = {last} for distance computations per query: {'; '.join(parts)}."
        )
    return findings


def _lid(study: Study, publication: Publication, base: str) -> list[str]:
    curves = publication.curves
    paper = curves[(curves["study"] == "ef_search") & (curves["value"] == 50)].set_index("k")
    exact, notebook = paper["lid_paper_exact"], publication.notebook.set_index("k")
    first, last = notebook.index[0], study.ks[-1]
    bound = (first - 1) / -np.log(1e-12)
    findings = [
        f"Published by the notebook: {notebook['lid_notebook_exact'][first]:.2f} at k = {first}, "
        f"by the paper {exact.iloc[0]:.1f}, without the match of the query with itself, whose "
        f"logarithm of 1e-12 keeps the notebook's below {bound:.2f} where its distance is 0, as it "
        "is not quite after rounding, or where an index does not find it. "
        f"Both are of squared distances, which halve it: doubled, the paper's is "
        f"{2 * exact.iloc[0]:.1f} at k = {exact.index[0]}, falls to {2 * exact.min():.1f} at "
        f"{exact.idxmin()} and is {2 * exact.iloc[-1]:.1f} at {exact.index[-1]}."
    ]
    ks = [k for k in (100, last) if k in study.run_curve(base, "lid_ann").index]
    for k in dict.fromkeys(ks):
        means = {
            name: study.run_curve(base, name)["mean"][k]
            for name in ("lid_paper_exact", "lid_paper_ann", "lid_exact", "lid_ann", "found")
        }
        missing, halved = 1 - means["found"], means["lid_exact"] / means["lid_paper_exact"]
        of_squares = _percent(means["lid_paper_ann"], means["lid_paper_exact"])
        of_returned = _percent(means["lid_ann"], means["lid_exact"])
        findings.append(
            f"Here at k = {k}, with {100 * missing:.1f} % of the neighbors missing, the paper's "
            f"LID with the index is {of_squares} its exact one; over the neighbors that were "
            f"returned it is {of_returned} the exact one. Of distances, not squares, the exact LID "
            f"is {halved:.2f} times as large."
        )
    return findings


def _crossings(study: Study, publication: Publication, base: str) -> list[str]:
    curves = publication.curves
    paper = curves[(curves["study"] == "ef_search") & (curves["value"] == 50)]
    findings = []
    for name, curve in (("notebook", publication.notebook), ("paper", paper)):
        ks = [_first_crossing(curve, loss) for loss in (0.01, 0.05, 0.1)]
        findings.append(
            f"Published by the {name}, efSearch 50: 1, 5 and 10 % of the neighbors are lost at k = "
            f"{', '.join('-' if np.isnan(k) else f'{k:.0f}' for k in ks)}."
        )
    limits = study.limits(base, "overlap").sort_values("tolerance", ascending=False)
    ours = ", ".join(format_number(k) for k in limits["crossing_k"].round())
    return [*findings, f"Here {study.label_of(base)}: {ours}."]


def _first_crossing(curve: pd.DataFrame, loss: float) -> float:
    """The first k at which a curve loses more than that, linear between its points."""
    ks, losses = curve["k"].to_numpy(), 1 - curve["overlap"].to_numpy()
    i = int(np.argmax(losses > loss))
    if losses[i] <= loss:
        return np.nan
    return float(np.interp(loss, losses[i - 1 : i + 1], ks[i - 1 : i + 1])) if i else float(ks[0])


def _percent(ours: float, exact: float) -> str:
    """How far one is from the other, as in "12.3 % below"."""
    off = 100 * (ours / exact - 1)
    return f"{abs(off):.1f} % {'above' if off > 0 else 'below'}"
