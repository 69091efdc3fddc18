"""Distances as an index of compressed vectors reports them, from stage 04 to the figures."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from drift import reported
from drift.metrics import kth_distance, lid, mean_distance
from drift.report import figures
from drift.report.effort import reported_sentences
from drift.report.study import Study
from drift.report.tables import format_number
from tests.chain import snapshot
from tests.conftest import run
from tests.test_figures import KS, legend, lines, make_study, parameters

SCRIPTS = ("04_hnsw_search.py", "05_metrics.py", "06_plots.py")
N, K, GRID = 300, 30, [10, 30]
COMPRESSED, PLAIN = "PQ8x4fs", "faiss_M8_efc40_ef50"
METRICS = [metric.name for metric in reported.METRICS]
RUNS = ("--runs", "faiss:50", COMPRESSED, "--m", "8", "--ef-construction", "40", "--k", "10", "30")


class Silent:
    """In place of pytest's `capsys`, which a fixture of a whole module cannot have."""

    out = err = ""

    @classmethod
    def readouterr(cls):
        return cls


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Results of stages 02 to 06. Tests only read them."""
    folder = tmp_path_factory.mktemp("reported")
    np.save(folder / "x.npy", np.random.default_rng(0).normal(size=(N, 16)).astype(np.float32))
    with pytest.MonkeyPatch.context() as patch:
        for script, *args in (
            ("02_embed_resnet50.py", "--from-file", folder / "x.npy"),
            ("03_exact_knn.py", "--k-max", K),
            (SCRIPTS[0], *RUNS),
            (SCRIPTS[1],),
            (SCRIPTS[2], "--dpi", "40"),
        ):
            ended = run(script, *args, results=folder / "results", capsys=Silent, monkeypatch=patch)
            assert ended[0] == 0
    return folder / "results"


@pytest.fixture
def results(finished, tmp_path):
    """A copy to break."""
    return shutil.copytree(finished, tmp_path / "results")


def load(results, k, part="reported"):
    return np.load(results / "04_hnsw" / COMPRESSED / f"k{k:04d}_{part}.npy")


def test_only_a_compressed_run_has_reported_distances(finished):
    parts = ("distances", "indices", "reported")
    for name, more in ((COMPRESSED, parts), (PLAIN, parts[:2])):
        folder = finished / "04_hnsw" / name
        expected = [f"k{k:04d}_{part}.npy" for k in GRID for part in more]
        assert sorted(path.name for path in folder.iterdir()) == [*expected, "run.json"]
        facts = json.loads((folder / "run.json").read_text())
        assert len(facts["outputs"]) == len(expected)
        assert facts["graph"].get("compressed", False) is (name == COMPRESSED)


@pytest.mark.parametrize("k", GRID)
def test_reported_distances_ascend_and_are_not_those_of_the_ids(k, finished):
    own, true = load(finished, k), load(finished, k, "distances")
    assert own.shape == true.shape == (N, k)
    assert own.dtype == np.float32
    assert (np.diff(own, axis=1) >= 0).all() and (own >= 0).all()
    assert (own != true).mean() > 0.9
    x = np.load(finished / "02_embeddings.npy")
    ids = load(finished, k, "indices")
    direct = np.linalg.norm(x[:, None].astype(np.float64) - x[ids], axis=2)
    np.testing.assert_allclose(true, direct, rtol=1e-5)


def test_metrics_of_reported_distances(finished):
    per_query = pd.read_parquet(finished / "05_per_query.parquet")
    curves = pd.read_parquet(finished / "05_curves.parquet")
    functions = dict(zip(METRICS, (lid, mean_distance, kth_distance), strict=True))
    assert METRICS == ["lid_reported", "mean_distance_reported", "kth_distance_reported"]
    for k in GRID:
        of_k = per_query[(per_query["run"] == COMPRESSED) & (per_query["k"] == k)]
        means = curves[(curves["run"] == COMPRESSED) & (curves["k"] == k)].set_index("metric")
        for name, function in functions.items():
            expected = function(load(finished, k))
            np.testing.assert_array_equal(of_k[name], expected)
            assert means.loc[name, "mean"] == pytest.approx(expected.mean())
            assert means.loc[name, "ci_low"] < means.loc[name, "mean"] < means.loc[name, "ci_high"]
            beside = means.loc[name.replace("_reported", "_ann"), "mean"]
            assert means.loc[name, "mean"] != pytest.approx(beside)
    manifest = json.loads((finished / "05_metrics.json").read_text())
    assert {name: manifest["metrics"][name] for name in METRICS} == {
        metric.name: metric.description for metric in reported.METRICS
    }


def test_a_run_without_has_no_number_for_them(finished):
    per_query = pd.read_parquet(finished / "05_per_query.parquet")
    curves = pd.read_parquet(finished / "05_curves.parquet")
    plain = per_query[per_query["run"] == PLAIN]
    assert len(plain) == N * len(GRID)
    assert plain[METRICS].isna().all(axis=None)
    assert plain.drop(columns=METRICS).notna().all(axis=None)
    assert not set(METRICS) & set(curves.loc[curves["run"] == PLAIN, "metric"])


def test_without_a_compressed_run_there_are_no_such_columns(results, drive):
    shutil.rmtree(results / "04_hnsw" / COMPRESSED)
    assert drive(SCRIPTS[1], results=results)[0] == 0
    assert not set(METRICS) & set(pd.read_parquet(results / "05_per_query.parquet").columns)
    assert not set(METRICS) & set(pd.read_parquet(results / "05_curves.parquet")["metric"])


def test_missing_neighbors_are_at_no_distance():
    distances = np.float32([[1, 2, 3, 4], [1, 2, 4, np.inf]])
    values = reported.compute_metrics({3: distances[:, :3], 4: distances})
    assert all(value.shape == (2, 2) for value in values.values())
    assert values["mean_distance_reported"].tolist() == [[2, 7 / 3], [2.5, 7 / 3]]
    assert values["kth_distance_reported"].tolist() == [[3, 4], [4, 4]]


def test_stages_are_up_to_date_and_a_damaged_file_is_refused(results, drive):
    before = snapshot(results)
    for script, args in zip(SCRIPTS, (RUNS, (), ("--dpi", "40")), strict=True):
        status, out, _ = drive(script, *args, results=results)
        assert (status, "up to date" in out) == (0, True), script
    assert snapshot(results) == before

    path = results / "04_hnsw" / COMPRESSED / "k0030_reported.npy"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    status, _, err = drive(SCRIPTS[1], results=results)
    assert (status, err.count("\n")) == (2, 1)
    assert path.name in err and "04_hnsw_search.py" in err
    path.unlink()
    status, _, err = drive(SCRIPTS[1], results=results)
    assert (status, err.count("\n")) == (2, 1)
    assert path.name in err and "04_hnsw_search.py" in err

    status, out, _ = drive(SCRIPTS[0], *RUNS, results=results)
    assert (status, out.count("up to date")) == (0, 1)
    assert path.read_bytes() == before[str(path.relative_to(results))]
    status, out, _ = drive(SCRIPTS[1], results=results)
    assert status == 0


def test_the_sentence_of_the_page_and_of_stage_05(finished, results, drive):
    curves = pd.read_parquet(finished / "05_curves.parquet")
    of_k = curves[(curves["run"] == COMPRESSED) & (curves["k"] == 30)].set_index("metric")["mean"]
    lids = [format_number(of_k[f"lid_{side}"]) for side in ("exact", "ann", "reported")]
    assert len(set(lids)) == 3
    sentence = (
        f"{COMPRESSED} computes distances from compressed vectors: at k = 30 the exact neighbors "
        f"have an LID of {lids[0]}, those that it returns {lids[1]} (neighbors lost), and the "
        f"distances that it reports {lids[2]} (distances distorted)."
    )
    status, out, _ = drive(SCRIPTS[1], results=results)
    assert status == 0
    assert sentence in " ".join(out.split())
    assert out.count("computes distances from compressed") == 1
    (page,) = finished.glob("*.html")
    assert sentence in " ".join(page.read_text().split())


# In figures, from a study made by hand.


def make_reported(runs=("pq",)):
    """A study of three runs, of which some report distances of their own."""
    settings = {
        "faiss_50": parameters("faiss", 50),
        "pq": {"backend": "faiss", "factory": "PQ8x4fs", "ef_search": None, "settings": {}},
        "ivf": {
            "backend": "faiss",
            "factory": "IVF9,PQ8x4fs",
            "ef_search": None,
            "settings": {"nprobe": "8"},
        },
    }
    study = make_study(settings)
    more = []
    for run_name in runs:
        for metric, factor in (("lid", 0.5), ("mean_distance", 0.9), ("kth_distance", 0.8)):
            is_it = (study.curves["run"] == run_name) & (study.curves["metric"] == f"{metric}_ann")
            rows = study.curves[is_it].assign(metric=f"{metric}_reported")
            more.append(rows.assign(**{c: rows[c] * factor for c in ("mean", "ci_low", "ci_high")}))
    tables = pd.concat([study.curves, *more]), study.safe_k, None
    return Study.from_tables(*tables, study.facts, study.searched)


@pytest.mark.parametrize(
    ("name", "places", "metrics"),
    [("lid", (0,), ("lid",)), ("distances", (0, 2), ("kth_distance", "mean_distance"))],
)
def test_a_thin_line_shows_what_an_index_reports(name, places, metrics):
    study = make_reported()
    figure = figures.FIGURES[name](study)
    label = f"{study.labels['pq']}, as it reports"
    assert legend(figure).count(label) == 1
    for place, metric in zip(places, metrics, strict=True):
        drawn = lines(figure.axes[place])
        assert [name for name in drawn if "as it reports" in name] == [label]
        thin, thick = drawn[label], drawn[study.labels["pq"]]
        np.testing.assert_array_equal(thin.get_xdata(), KS)
        expected = study.run_curve("pq", f"{metric}_reported")["mean"]
        np.testing.assert_array_equal(thin.get_ydata(), expected)
        np.testing.assert_allclose(
            thin.get_ydata() / thick.get_ydata(),
            {"lid": 0.5, "mean_distance": 0.9}.get(metric, 0.8),
        )
        assert thin.get_color() == thick.get_color()
        assert thin.get_linewidth() <= thick.get_linewidth()
        assert thin.get_linestyle() == ":"
    others = [axes for i, axes in enumerate(figure.axes) if i not in places]
    assert others and not any("as it reports" in name for axes in others for name in lines(axes))
    assert f"{label}: " in figures.alt_text(figure)


def test_where_nothing_is_reported_there_is_no_line_and_no_sentence():
    study = make_reported(())
    for name in ("lid", "distances"):
        assert not [text for text in legend(figures.FIGURES[name](study)) if "reports" in text]
    assert reported_sentences(study) == []
    both = make_reported(("pq", "ivf"))
    assert [text.partition(" computes")[0] for text in reported_sentences(both)] == [
        "PQ8x4fs",
        "IVF9,PQ8x4fs nprobe 8",
    ]
    assert len([t for t in legend(figures.FIGURES["lid"](both)) if "as it reports" in t]) == 2
