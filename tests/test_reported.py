"""Distances as an index of compressed vectors reports them, from stage 05 to the figures."""

import shutil

import numpy as np
import pandas as pd
import pytest

from drift import InputError
from drift.metrics import REPORTED_METRICS, compute_metrics, kth_distance, lid, mean_distance
from drift.report.figures import FIGURES, alt_text
from tests.studies import KS, THREE, falls, make_factory, make_study
from tests.test_figures import legend, lines

GRID = [10, 30]
COMPRESSED, PLAIN = "PQ8x4fs", "faiss_M8_efc40_ef50"
METRICS = [metric.name for metric in REPORTED_METRICS]
PQ, IVF = make_factory("PQ8x4fs"), make_factory("IVF9,PQ8x4fs", nprobe=8)


@pytest.fixture
def results(small, stages):
    """Results of stages 02 to 05 with a run that reports distances and one that does not."""
    root = shutil.copytree(small, stages.folder)
    runs = ("--runs", "faiss:50", COMPRESSED, "--m", "8", "--ef-construction", "40")
    stages(["04", *runs, "--k", *GRID], "05")
    return root


def test_they_are_measured_where_there_are_such_and_said(results, stages):
    per_query = pd.read_parquet(results / "05_per_query.parquet")
    curves = pd.read_parquet(results / "05_curves.parquet").set_index(["run", "k", "metric"])
    for k in GRID:
        of_k = per_query[(per_query["run"] == COMPRESSED) & (per_query["k"] == k)]
        own = np.load(results / f"04_hnsw/{COMPRESSED}/k{k:04d}_reported.npy")
        for name, function in zip(METRICS[:3], (lid, mean_distance, kth_distance), strict=True):
            np.testing.assert_array_equal(of_k[name], function(own))
            row = curves.loc[COMPRESSED, k, name]
            assert row["ci_low"] < row["mean"] < row["ci_high"]
            assert row["mean"] == pytest.approx(function(own).mean())
            beside = curves.loc[COMPRESSED, k, name.replace("_reported", "_ann")]
            assert row["mean"] != pytest.approx(beside["mean"])
    plain = per_query[per_query["run"] == PLAIN]
    assert plain[METRICS].isna().all(axis=None)
    assert plain.drop(columns=METRICS).notna().all(axis=None)
    assert not set(METRICS) & set(curves.loc[PLAIN].index.get_level_values("metric"))

    # By use once of the ids and once as reported, read off the curves.
    by_use = pd.read_parquet(results / "05_by_use.parquet").set_index(["run", "of", "measure"])
    assert set(by_use.loc[PLAIN].index.unique("of")) == {"ids"}
    numbers = ["ci_low", "ci_high", "n", "groups_that_differ"]
    for measure in ("kth_distance", "lid"):
        for of, name in (("ids", measure), ("reported", f"{measure}_reported")):
            row, curve = by_use.loc[(COMPRESSED, of, f"{measure}_error")], (COMPRESSED, 30)
            curve = curves.loc[(*curve, f"{name}_error")]
            assert tuple(row[["value", *numbers]]) == tuple(curve[["mean", *numbers]])
    values = {of: by_use.loc[(COMPRESSED, of)]["value"] for of in ("ids", "reported")}
    assert {"below_overlap", "clusters_ann"} < set(values["ids"].index)
    assert set(values["reported"].index) < set(values["ids"].index)
    # Neighbors that were lost are farther ones, and codes bring them together.
    assert values["ids"]["factor"] < 1 < values["reported"]["factor"]
    pooled = [(1 / of_k[f"lid_inverse_{side}"].mean()) for side in ("exact", "reported")]
    error = values["reported"]["lid_pooled_error"]
    assert error == pytest.approx(pooled[1] / pooled[0] - 1)

    out = stages("05")
    assert "05_metrics: up to date" in out
    assert "As it reports: by the distances that it computes" in " ".join(out.split())

    shutil.rmtree(results / "04_hnsw" / COMPRESSED)
    stages("05")
    assert not set(METRICS) & set(pd.read_parquet(results / "05_per_query.parquet").columns)


def test_missing_neighbors_are_at_no_distance():
    distances = np.float32([[1, 2, 3, 4], [1, 2, 4, np.inf]])
    ids, x = np.array([[1, 2, 3, 4], [0, 2, 3, 4]]), np.zeros((5, 2))
    ann = {k: (ids[:, :k], distances[:1].repeat(2, axis=0)[:, :k]) for k in (3, 4)}

    def of(reported):
        lists = ids, distances[:1].repeat(2, axis=0), ann, x
        return compute_metrics(*lists, reported=reported, metrics=REPORTED_METRICS)

    values = of({3: distances[:, :3], 4: distances})
    assert (
        list(values)
        == METRICS
        == [f"{n}_reported" for n in ("lid", "mean_distance", "kth_distance", "lid_inverse")]
    )
    assert values["mean_distance_reported"].tolist() == [[2, 7 / 3], [2.5, 7 / 3]]
    assert values["kth_distance_reported"].tolist() == [[3, 4], [4, 4]]
    with pytest.raises(InputError, match="reported distances: row 0 has distances that do not"):
        of({3: distances[:, 2::-1], 4: distances})


# In figures, from a study made by hand.


def make_reported(*runs):
    """A study of three runs, of which some report distances of their own."""
    study = make_study(falls([THREE[0], PQ, IVF]))
    tables = [study.curves]
    for run in runs:
        for metric, factor, reported in (
            ("lid_ann", 0.5, "lid_reported"),
            ("lid_error", 0.5, "lid_reported_error"),
            ("mean_distance_ann", 0.9, "mean_distance_reported"),
            ("kth_distance_ann", 0.8, "kth_distance_reported"),
            ("kth_distance_error", 0.8, "kth_distance_reported_error"),
        ):
            rows = study.curves.query(f"run == '{run.name}' and metric == '{metric}'")
            numbers = {c: rows[c] * factor for c in ("mean", "ci_low", "ci_high")}
            tables.append(rows.assign(metric=reported, **numbers))
    study.curves = pd.concat(tables)
    return study


@pytest.mark.parametrize(
    ("name", "places", "factors"),
    [("lid", (0, 1), (0.5, 0.5)), ("distances", (0, 1, 2), (0.8, 0.8, 0.9))],
)
def test_a_thin_line_shows_what_an_index_reports(name, places, factors):
    study = make_reported(PQ)
    figure = FIGURES[name].draw(study)
    label = f"{study.labels[PQ.name]}, as it reports"
    assert legend(figure).count(label) == 1
    assert not any("reports" in text for text in legend(FIGURES[name].draw(make_reported())))
    for place, axes in enumerate(figure.axes):
        shown = [line for line in lines(axes) if "as it reports" in line]
        assert shown == ([label] if place in places else [])
    for place, factor in zip(places, factors, strict=True):
        thin, thick = (lines(figure.axes[place])[one] for one in (label, study.labels[PQ.name]))
        np.testing.assert_array_equal(thin.get_xdata(), KS)
        np.testing.assert_allclose(thin.get_ydata() / thick.get_ydata(), factor)
        assert (thin.get_color(), thin.get_linestyle()) == (thick.get_color(), ":")
    assert f"{label}: " in alt_text(figure)
