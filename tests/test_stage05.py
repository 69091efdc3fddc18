"""Stage 05 as a whole: its parts, its tables, the verdict by use and what is said of it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drift import by_use
from drift.report import figures, sentences
from drift.report.by_use import by_use as verdict_by_use
from tests.conftest import run
from tests.studies import falls, make_run, make_study
from tests.test_by_use import count_components, majority, relative_error, share

N, D, K = 240, 4, 20
LISTS = ["whole", "halves", "short"]
PARTS = "05_per_query"


class Silent:
    """In place of pytest's `capsys`, which a fixture of a whole module cannot have."""

    out = err = ""

    @classmethod
    def readouterr(cls):
        return cls


def nearest(embeddings, may):
    """Ids of the neighbors of each row, by distance, among those that it may have; -1 behind."""
    distances = np.linalg.norm(embeddings[:, None] - embeddings[None], axis=2)
    distances[~may | np.eye(N, dtype=bool)] = np.inf
    ids = np.argsort(distances, axis=1, kind="stable")[:, :K]
    return np.where(np.isinf(np.take_along_axis(distances, ids, axis=1)), -1, ids)


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """A file of vectors of three classes that overlap, in six groups; some have no label."""
    labels = np.arange(N) % 3
    embeddings = np.random.default_rng(3).normal(size=(N, D)) + labels[:, None]
    labels = np.where(np.arange(N) < 6, -1, labels)
    columns = {"emb": list(embeddings.astype(np.float32)), "label": labels}
    path = tmp_path_factory.mktemp("vectors") / "vectors.parquet"
    pq.write_table(pa.table(columns | {"group": np.arange(N) % 6}), path)
    return path


@pytest.fixture(scope="module")
def measured(vectors, tmp_path_factory):
    """Results of stages 02 to 05, of lists that are exact, that keep to halves, that are short."""
    root = tmp_path_factory.mktemp("stage05") / "results"
    with pytest.MonkeyPatch.context() as patch:

        def script(name, *args):
            status, *_ = run(name, *args, results=root, capsys=Silent, monkeypatch=patch)
            assert status == 0

        script("02_embed_resnet50.py", "--from-file", vectors)
        script("03_exact_knn.py", "--k-max", K)
        embeddings = np.load(root / "02_embeddings.npy")
        even, every = np.arange(N) % 2 == 0, np.ones((N, N), bool)
        lists = [nearest(embeddings, may) for may in (every, even == even[:, None], every)]
        lists[2][:30, 15:] = -1
        # In the order of their names, so that the seconds of their manifests change no order.
        for name, ids in sorted(zip(LISTS, lists, strict=True), key=lambda one: one[0]):
            np.save(root.parent / f"{name}.npy", ids)
            grid = ("--k", *((10,) if name == "short" else ()), K)
            script("04_hnsw_search.py", "--lists", name, root.parent / f"{name}.npy", *grid)
        script("05_metrics.py")
    return root


@pytest.fixture
def copy(measured, tmp_path):
    return Path(shutil.copytree(measured, tmp_path / "results"))


def flat(text):
    return " ".join(text.replace("\u00a0", " ").split())


def of_use(root):
    """The table by use: a row by run and measure."""
    return pd.read_parquet(root / "05_by_use.parquet").set_index(["run", "measure"])


def parts(root):
    return {path.stem: path.read_bytes() for path in (root / PARTS).glob("*.parquet")}


def stamps(root):
    return {path: path.stat().st_mtime_ns for path in (root / PARTS).iterdir()}


# What is measured, and what is measured again.


def test_every_run_has_a_part_and_the_table_is_all_of_them(measured):
    tables = [pd.read_parquet(measured / PARTS / f"{name}.parquet") for name in sorted(LISTS)]
    whole = pd.read_parquet(measured / "05_per_query.parquet")
    pd.testing.assert_frame_equal(pd.concat(tables, ignore_index=True), whole)
    manifest = json.loads((measured / PARTS / "short.json").read_text())
    assert manifest["stage"] == "05_metrics/short"
    assert "03_exact_indices.npy" in manifest["inputs"]
    differences = pd.read_parquet(measured / "05_differences.parquet")
    pairs = set(map(tuple, differences[["first", "second"]].to_numpy()))
    assert pairs == {("halves", "short"), ("halves", "whole"), ("short", "whole")}
    assert differences["k"].dtype == differences["graphs"].dtype == np.int32


def test_one_more_run_is_measured_alone_and_one_less_is_removed(copy, drive):
    before, written = parts(copy), stamps(copy)
    drive("04_hnsw_search.py", "--runs", "faiss:5", "--k", K, results=copy)
    assert drive("05_metrics.py", results=copy)[0] == 0
    assert set(parts(copy)) == {*before, "faiss_M32_efc200_ef5"}
    assert written.items() <= stamps(copy).items()
    shutil.rmtree(copy / "04_hnsw/faiss_M32_efc200_ef5")
    assert drive("05_metrics.py", results=copy)[0] == 0
    assert parts(copy) == before


def test_lists_are_measured_anew_and_as_far_as_the_exact_ones_go(copy, drive):
    before = stamps(copy)
    drive("03_exact_knn.py", "--k-max", K + 5, results=copy)
    assert drive("05_metrics.py", results=copy)[0] == 0
    assert all(stamp > before[path] for path, stamp in stamps(copy).items())
    assert drive("03_exact_knn.py", "--k-max", 15, results=copy)[0] == 0
    status, out, _ = drive("05_metrics.py", results=copy)
    assert status == 0
    assert "left out: short beyond k = 15 (the exact lists end there)\n" in out
    for name in ("halves", "whole"):
        reason = "searched from k = 20 on, and the exact lists end at 15: "
        reason += "run 03_exact_knn.py --k-max 20 or more"
        assert f"left out: {name} ({reason})\n" in out
    for table in ("per_query", "curves"):
        measured = pd.read_parquet(copy / f"05_{table}.parquet")
        assert (set(measured["run"]), set(measured["k"])) == ({"short"}, {10})
    columns = pd.read_parquet(copy / "05_differences.parquet").dtypes.astype(str).to_dict()
    keys = {"first": "str", "second": "str", "metric": "str", "k": "int32"}
    numbers = ("difference", "ci_low", "ci_high", "graphs_low", "graphs_high")
    numbers = dict.fromkeys(numbers, "float64")
    assert columns == keys | {"graphs": "int32"} | numbers | {"different": "bool"}
    assert drive("06_plots.py", "--dpi", 30, results=copy)[0] == 0


def test_without_any_run_it_says_why(copy, drive):
    assert drive("03_exact_knn.py", "--k-max", 5, results=copy)[0] == 0
    status, _, err = drive("05_metrics.py", results=copy)
    assert (status, err.count("\n")) == (2, 1)
    assert "whole: searched from k = 20 on" in err
    assert "run 03_exact_knn.py --k-max 10 or more" in err


def test_a_part_made_by_other_code_is_measured_again(copy, drive, monkeypatch):
    before = stamps(copy)
    monkeypatch.setattr("drift.pipeline.stage.code_hash", lambda script: "0" * 64)
    status, out, err = drive("05_metrics.py", results=copy)
    assert (status, err) == (0, "")
    assert "05_metrics/short: made by other code, is made again\n" in out
    assert all(stamp > before[path] for path, stamp in stamps(copy).items())
    assert json.loads((copy / PARTS / "short.json").read_text())["code"] == "0" * 64


# The verdict by use.


def test_the_table_holds_what_plain_loops_find(measured):
    table, exact = of_use(measured), np.load(measured / "03_exact_indices.npy")
    assert list(table.index.unique("run")) == sorted(LISTS)
    rows = pd.read_parquet(measured / "02_rows.parquet")
    per_query = pd.read_parquet(measured / "05_per_query.parquet").query("k == @K")
    for name in LISTS:
        ids, values = np.load(measured.parent / f"{name}.npy"), table.loc[name]["value"]
        mine = per_query[per_query["run"] == name]
        assert values["short_rows"] == np.count_nonzero(ids[:, -1] < 0)
        assert values["components_exact"] == count_components(exact)
        assert values["components_ann"] == count_components(ids)
        sides = zip(ids, exact, strict=True)
        agree = [majority(a, rows["label"]) == majority(e, rows["label"]) for a, e in sides]
        assert values["same_label"] == pytest.approx(np.mean(agree))
        for key in ("overlap", "recall"):
            assert values[f"below_{key}"] == pytest.approx(np.mean(mine[key] < 0.9))
        for key in ("kth_distance", "lid"):
            ratio = mine[f"{key}_ann"].mean() / mine[f"{key}_exact"].mean() - 1
            assert values[f"{key}_error"] == pytest.approx(ratio, abs=1e-12)
        assert (table.loc[name]["n"] == N).all()
    same = table["value"].xs("same_label", level="measure")
    assert same["halves"] < same["whole"] == 1
    assert table["value"].xs("components_ann", level="measure")[LISTS].tolist() == [1, 2, 1]


def test_intervals_are_by_group(measured):
    per_query = pd.read_parquet(measured / "05_per_query.parquet")
    mine = per_query[(per_query["run"] == "short") & (per_query["k"] == K)]
    groups = pd.read_parquet(measured / "02_rows.parquet")["group"].to_numpy()
    numbers = of_use(measured).loc["short"][["value", "ci_low", "ci_high", "n"]]
    below, lids = (mine["overlap"] < 0.9).to_numpy(), (mine["lid_ann"], mine["lid_exact"])
    for key, function, given in (
        ("below_overlap", share, [below]),
        ("lid_error", relative_error, lids),
    ):
        assert tuple(numbers.loc[key]) == pytest.approx(tuple(function(*given, 0, groups)))
        assert tuple(numbers.loc[key]) != pytest.approx(tuple(function(*given, 0)))


def test_the_k_can_be_chosen_and_measures_nothing_anew(copy, drive):
    written = stamps(copy)
    for flags, is_current in (((), True), ((10,), False), ((10,), True), ((), False)):
        flags = ("--k-of-interest", *flags) if flags else ()
        status, out, _ = drive("05_metrics.py", *flags, results=copy)
        assert (status, "05_metrics: up to date" in out) == (0, is_current)
        assert f"by use, k = {10 if flags else K}\n" in out
        assert ("Not searched at k = 10: halves and whole." in flat(out)) == bool(flags)
        runs = ["short"] if flags else sorted(LISTS)
        assert list(of_use(copy).index.unique("run")) == runs
    assert stamps(copy) == written
    # What is printed is narrow.
    part = out[out.index("What lists of") : out.index("curves in")]
    assert max(map(len, part.splitlines())) <= 100
    assert len(part.splitlines()) < 18
    assert "2 (exact: 1)" in part and "none (0.0 to 0.0)" in part
    assert "fewer than 20 neighbors came back from short for 30 of 240 queries" in flat(out).lower()


def test_a_k_that_no_run_has_is_refused_with_the_grid(copy, drive):
    before = (copy / "05_metrics.json").read_bytes()
    status, _, err = drive("05_metrics.py", "--k-of-interest", 15, results=copy)
    assert (status, err.count("\n")) == (2, 1)
    assert "--k-of-interest 15 was searched by no run, but 10, 20" in err
    assert (copy / "05_metrics.json").read_bytes() == before


@pytest.mark.parametrize("queries", ["all", "some", "outside"])
def test_a_graph_needs_every_row_as_a_query_and_labels_do_not(queries, copy, drive):
    path = copy.parent / "queries.npy"
    np.save(path, np.load(copy / "02_embeddings.npy") + np.float32(0.01))
    chosen = {"all": "all", "some": 100, "outside": path}[queries]
    for script, *args in (
        ("03_exact_knn.py", "--k-max", K, "--queries", chosen),
        ("04_hnsw_search.py", "--runs", "faiss:5", "--k", K, "--replace"),
        ("05_metrics.py",),
    ):
        status, out, err = drive(script, *args, results=copy)
        assert status == 0, err
    table = of_use(copy)
    (name,) = table.index.unique("run")
    assert ("components_ann" in table.loc[name].index) == (queries == "all")
    labels = pd.read_parquet(copy / "02_rows.parquet")["label"].to_numpy()
    ids = np.load(copy / f"04_hnsw/{name}/k{K:04d}_indices.npy")
    exact = np.load(copy / "03_exact_indices.npy")
    agree = [majority(a, labels) == majority(e, labels) for a, e in zip(ids, exact, strict=True)]
    assert table["value"][name, "same_label"] == pytest.approx(np.mean(agree))
    assert 0 < np.mean(agree) < 1
    where = {"some": "not every row was a query", "outside": "the queries are not among the rows"}
    assert ("No k-NN graph" in flat(out)) == (queries != "all")
    assert where.get(queries, "") in flat(out)


def test_the_page_has_it_below_the_verdict(copy, drive, monkeypatch):
    monkeypatch.setattr(figures, "possible_figures", lambda *_: (["overlap"], {}))
    status, _, err = drive("06_plots.py", "--gallery", 0, "--dpi", 30, results=copy)
    assert status == 0, err
    page = flat((copy / "06_report.html").read_text())
    assert f"<h3>At k = {K}, with 95 % intervals</h3>" in page
    assert ">2 (exact: 1)</td>" in page
    places = [page.index(part) for part in ('"verdict"', "by use</h2>", "retrieval: below", "<img")]
    assert places == sorted(places)


# The sentences.


def estimate(value, half=0.01, n=1000):
    return value, value - half, value + half, n


RUNS = [make_run("faiss", 5), make_run("hnswlib", 5)]
MEASURES = {
    "kth_distance_error": estimate(0.05),
    "lid_error": estimate(-0.2),
    "below_overlap": estimate(0.4),
    "below_recall": estimate(0.3),
    "short_rows": estimate(0, np.nan),
    "components_exact": estimate(1, np.nan),
    "components_ann": estimate(3, np.nan),
    "same_label": estimate(0.9),
}


def make(*changed, runs=RUNS, recall=(), **more):
    """A study in which each run has `MEASURES` at k = 100, with some that are changed, or None."""
    study = make_study(falls(runs, [100]), recall=recall, n_queries=1000, **more)
    study.notes["parameters"]["k_of_interest"] = 100
    rows = [
        (run.name, 100, "", measure, "ids", *numbers)
        for run, changes in zip(runs, changed, strict=False)
        for measure, numbers in (MEASURES | changes).items()
        if numbers
    ]
    columns = ["run", "k", "use", "measure", "of", "value", "ci_low", "ci_high", "n"]
    study.by_use = pd.DataFrame(rows, columns=columns)
    return study


def said(*changed, **options):
    return " ".join(verdict_by_use(make(*changed, **options)).notes)


def shown(*changed, **options):
    return verdict_by_use(make(*changed, **options)).table.to_dict("records")[0]


def test_the_table_has_a_row_for_each_run_and_a_column_for_each_use():
    made = verdict_by_use(make({}, {"components_ann": estimate(1, np.nan)}))
    assert made.table.to_dict("list") == {
        "run": ["FAISS efSearch 5", "hnswlib efSearch 5"],
        "density: k-th distance %": ["+5.0 (+4.0 to +6.0)"] * 2,
        "dimension: LID %": ["-20.0 (-21.0 to -19.0)"] * 2,
        "retrieval: below 0.9": ["0.400 (0.390 to 0.410)"] * 2,
        "graphs: components": ["3 (exact: 1)", "1 (exact: 1)"],
        "classes: same label": ["0.900 (0.890 to 0.910)"] * 2,
    }
    uses = ("density", "HDBSCAN", "dimension", "retrieval", "UMAP", "k-NN classification")
    assert all(use in made.lead for use in (*uses, "k = 100"))
    assert made.notes == ["Errors are of the mean, in % of the exact one."]


@pytest.mark.parametrize(
    ("error", "cell", "note"),
    [
        (estimate(0.004), "none (-0.6 to +1.4)", "no error that can be distinguished from 0"),
        (
            estimate(2e-4, 1e-5),
            "0.0 (0.0 to 0.0)",
            '"0.0": one that can be distinguished from 0, but is below 0.05 %.',
        ),
        (estimate(0.05, np.nan), "+5.0 (no interval)", "in %"),
        (estimate(np.nan), "-", "in %"),
        (estimate(-0.3, n=970), "-30.0 (-31.0 to -29.0, of 97 % of the queries)", "in %"),
    ],
)
def test_an_error_within_its_interval_is_none(error, cell, note):
    text = said({"lid_error": error})
    assert shown({"lid_error": error})["dimension: LID %"] == cell
    assert note in text
    assert ("no error that can be distinguished from 0" in text) == cell.startswith("none")
    assert ('"0.0":' in text) == cell.startswith("0.0")


def test_short_rows_and_runs_that_were_not_searched_at_that_k_are_named():
    short = {"short_rows": estimate(12, np.nan)}
    text = said(short, {"short_rows": estimate(3, np.nan)})
    assert "efSearch 5 for 12 and hnswlib efSearch 5 for 3 of 1,000 queries" in text
    assert "efSearch 5 for 12 of 1,000 queries; their" in said(short, {})
    text = said({})
    assert "Fewer" not in text
    assert "Not searched at k = 100: hnswlib efSearch 5." in text
    assert verdict_by_use(make()) is None


def test_what_cannot_be_is_said():
    gone = dict.fromkeys(("components_exact", "components_ann", "same_label"))
    assert set(shown(gone)) == {
        *("run", "density: k-th distance %", "dimension: LID %", "retrieval: below 0.9"),
    }
    text = said(gone)
    assert "No k-NN graph: not every row was a query." in text
    assert "No k-NN classification: nothing that was embedded has a label." in text
    outside = {"03_exact": {"outputs": {"03_query_vectors.npy": {}}}}
    assert "not among the rows" in said(gone, manifests=outside)
    lead = verdict_by_use(make(gone)).lead
    assert "UMAP" not in lead and "classification" not in lead


def test_where_rows_tie_it_is_recall():
    made = verdict_by_use(make({}, runs=RUNS[:1], recall={RUNS[0].name: 0.99}))
    assert made.table["retrieval: below 0.9"].item() == "0.300 (0.290 to 0.310)"
    assert "recall below 0.9" in made.lead


def test_badly_served_means_the_same_everywhere():
    assert by_use.BADLY_SERVED == sentences.BADLY_SERVED
