"""The publications' claims in numbers, theirs and ours; their words are in ``claims.html.j2``."""

from typing import Any

import numpy as np
import pandas as pd

from drift.report import experiments
from drift.report.experiments import N_PUBLISHED, runs_of, values_of
from drift.report.study import Study
from drift.report.tables import COSTS

# What bends where the mean squared distance jumps.
BENDS = ("overlap", "barycenter_shift_relative", "lid_error", "mean_distance_error")


def claims(study: Study) -> dict[str, Any] | None:
    """All numbers; None where our runs are not those of the paper."""
    curves, jumps, theirs = study.published
    base = runs_of(study, "ef_search").get(50)
    if "lid_paper_ann" not in study.metrics or base is None:
        return None
    of_50 = curves[(curves["study"] == "ef_search") & (curves["value"] == 50)]
    limits = study.limits(base, "overlap").sort_values("tolerance", ascending=False)
    return {
        "label": study.label_of(base),
        "published": _published_jumps(jumps),
        "jump": _our_jump(study, base),
        "at_100": curves[curves["k"] == 100].set_index(["study", "value"])["overlap"].sort_index(),
        "built": _built(study),
        "least": curves[curves["study"] == "alpha"].groupby("value")["overlap"].min().loc[1:],
        "costs": _costs(study, [base, *runs_of(study, "alpha").values()]),
        "of_notebook": theirs.set_index("k")["lid_notebook_exact"],
        "of_paper": of_50.set_index("k")["lid_paper_exact"],
        "bound": (theirs["k"][0] - 1) / -np.log(1e-12),
        "means": study.curves[study.curves["run"] == base].pivot_table("mean", "k", "metric"),
        "lost": {"notebook": _crossings(theirs), "paper": _crossings(of_50)},
        "crossings": limits["crossing_k"].round(1).tolist(),
    }


def _published_jumps(jumps: pd.DataFrame) -> dict[str, Any]:
    rows = jumps["mean_squared_distance_ann"] * N_PUBLISHED * jumps["k"] / experiments.MISSING
    fixed = jumps[jumps["study"] == "ef_search"]
    return {
        "over_ef": list((fixed["k"] / fixed["value"]).quantile([0.1, 0.9])),
        "rows": rows,
        "excess": (rows / rows.round() - 1).max(),
        "overlap": jumps["overlap"],
        "lid": jumps["lid_of_squares_ann"] / jumps["lid_of_squares_exact"],
    }


def _our_jump(study: Study, run: str) -> dict[str, Any] | None:
    curve = study.run_curve(run, "mean_squared_distance_ann")["mean"]
    place = int(np.argmax(curve > experiments.HOLDS_MISSING))
    before, k = curve.index[[max(0, place - 1), place]]
    if curve[k] <= experiments.HOLDS_MISSING:
        return None
    bends = [study.run_curve(run, metric)["mean"][[before, k]].to_numpy() for metric in BENDS]
    short = experiments.short_rows(study).loc[run, k]
    return {"k": k, "before": before, "mean": curve[k], "bends": bends, **short}


def _built(study: Study) -> list[tuple[int, float, float, float]]:
    """By efConstruction the overlap at k = 100, the mean degree, and the seconds of building."""
    rows = []
    for name, run in study.runs.items():
        overlap = study.run_curve(name, "overlap")["mean"].get(100)
        if overlap is not None and "ef_construction" in values_of(run):
            made = study.searched[name]
            degree, seconds = made["graph"]["mean_degree_level_0"], made["build_seconds"]
            rows.append((run.ef_construction, overlap, degree, seconds))
    return sorted(rows)


def _costs(study: Study, runs: list[str]) -> list[tuple[str, float, float]]:
    """What runs are called, their overlap at the last k, and the distances computed for that."""
    k, rows = study.ks[-1], []
    for run in dict.fromkeys(runs):
        count = study.cost(run, COSTS["distances computed"]).get(k, np.nan)
        if count == count:
            kept = study.run_curve(run, "overlap")["mean"].get(k)
            rows.append((study.label_of(run), kept, count))
    return rows


def _crossings(curve: pd.DataFrame) -> list[float]:
    """The first k at which a curve loses more than 1, 5 and 10 %, linear between its points."""
    ks, most = curve["k"], (1 - curve["overlap"]).cummax()
    return [float(np.interp(loss, most, ks, right=np.nan)) for loss in (0.01, 0.05, 0.1)]
