"""Stage 05 as a whole: its parts, its tables, the verdict by use and what is said of it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drift import by_use
from drift.pipeline.children import call_in_children
from drift.report import by_use as shown
from drift.stages import clusters
from tests.conftest import ROOT, contents, run
from tests.test_by_use import right

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


@pytest.fixture
def partitioned(monkeypatch):
    """How many graphs were partitioned each time."""
    counts = []

    def spy(function, calls):
        counts.append(len(calls := list(calls)))
        return call_in_children(function, calls)

    monkeypatch.setattr(clusters, "call_in_children", spy)
    return counts


def test_one_more_run_is_measured_alone_and_one_less_is_removed(copy, stages, partitioned):
    before, written, uses = parts(copy), stamps(copy), of_use(copy)
    stages(f"04 --runs faiss:5 --k {K}", "05")
    assert set(parts(copy)) == {*before, "faiss_M32_efc200_ef5"}
    assert written.items() <= stamps(copy).items()
    together = contents(copy, ".parquet")
    shutil.rmtree(copy / "04_hnsw/faiss_M32_efc200_ef5")
    stages("05")
    assert parts(copy) == before and of_use(copy).equals(uses)
    # Only lists that are new are partitioned, unless all are asked for or the stored are damaged.
    (copy / "05_clusters.parquet").write_bytes(b"")
    stages(f"04 --runs faiss:5 --k {K}", "05", "05 --force")
    assert partitioned == [1, 0, 5, 5]
    assert contents(copy, ".parquet") == together
    table = pd.read_parquet(copy / "05_clusters.parquet").query("run == 'halves'")
    np.testing.assert_array_equal(table["row"], np.arange(N))
    for i, one in enumerate(
        by_use.leiden_partitions(np.load(copy / f"04_hnsw/halves/k{K:04d}_indices.npy"))
    ):
        np.testing.assert_array_equal(table[f"cluster_{i}"], one)


def test_lists_are_measured_anew_and_as_far_as_the_exact_ones_go(copy, stages, draw_only):
    draw_only("overlap")
    before = stamps(copy)
    stages(f"03 --k-max {K + 5}", "05")
    assert all(stamp > before[path] for path, stamp in stamps(copy).items())
    out = stages("03 --k-max 15", "05")
    assert "left out: short beyond k = 15 (the exact lists end there)\n" in out
    for name in ("halves", "whole"):
        reason = "searched from k = 20 on, and the exact lists end at 15: "
        reason += "run 03_exact_knn.py --k-max 20 or more"
        assert f"left out: {name} ({reason})\n" in out
    for table in ("per_query", "curves"):
        measured = pd.read_parquet(copy / f"05_{table}.parquet")
        assert (set(measured["run"]), set(measured["k"])) == ({"short"}, {10})
    columns = pd.read_parquet(copy / "05_differences.parquet").dtypes.astype(str).to_dict()
    words = str(pd.DataFrame({"a": ["b"]}).dtypes["a"])  # object before pandas 3
    keys = {"first": words, "second": words, "metric": words, "k": "int32"}
    numbers = ("difference", "ci_low", "ci_high", "p", "p_adjusted")
    numbers = dict.fromkeys(numbers, "float64")
    assert columns == keys | {"graphs": "int32"} | numbers | {"different": "bool"}
    stages("06 --dpi 30")


def test_a_part_made_by_other_code_is_measured_again(copy, drive, monkeypatch):
    before = stamps(copy)
    monkeypatch.setattr("drift.pipeline.stage.code_hash", lambda script: "0" * 64)
    status, out, err = drive("05_metrics.py", results=copy)
    assert (status, err) == (0, "")
    assert "05_metrics/short: made by other code, is made again\n" in out
    assert all(stamp > before[path] for path, stamp in stamps(copy).items())
    assert json.loads((copy / PARTS / "short.json").read_text())["code"] == "0" * 64


# What is to be known of it travels with it.


def test_warnings_travel_from_where_they_are_made(tmp_path, drive):
    x = np.random.default_rng(0).normal(size=(60, 8)) + 1e6
    columns = {"emb": list(x), "group": np.arange(60) % 6}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    runs = ("faiss:50,ef_construction=10", "HNSW32:efConstruction=40", "HNSW32:efConstruction=64")
    said, results = "", tmp_path / "results"
    for script, *args in (
        ("02_embed_resnet50.py", "--from-file", tmp_path / "x.parquet"),
        ("03_exact_knn.py", "--k-max", 10),
        ("04_hnsw_search.py", "--m", 2, "--runs", *runs),
        ("05_metrics.py",),
    ):
        status, _, err = drive(script, *args, results=results)
        assert status == 0, err
        said += err
    names = ("02_embeddings", "03_exact", "05_metrics")
    names += tuple(f"04_hnsw/{path.parent.name}/run" for path in results.glob("04*/*/run.json"))
    made = {name: json.loads((results / f"{name}.json").read_text())["warnings"] for name in names}
    (moved,) = made["02_embeddings"]
    (gone,) = made["04_hnsw/faiss_M2_efc10_ef50/run"]
    (dense,) = made["04_hnsw/HNSW32_efConstruction_40/run"]
    assert made["03_exact"] == made["04_hnsw/HNSW32_efConstruction_64/run"] == []
    assert "rounding to float32" in moved and "2 M = 64" in dense
    graph = json.loads((results / "04_hnsw/faiss_M2_efc10_ef50/run.json").read_text())["graph"]
    assert graph["unreachable_rows"] > 1
    assert f"faiss_M2_efc10: {graph['unreachable_rows']} rows are out of reach" in gone
    *of_runs, few = made["05_metrics"]
    assert sorted(of_runs) == sorted([gone, dense])
    assert "intervals are over 6 groups of queries that are alike, fewer than 30" in few
    # Those that can be known before are printed at once.
    assert [f"warning: {one}" for one in (moved, dense)] == said.splitlines()


# The verdict by use.


def test_the_table_holds_what_plain_loops_find(measured):
    table = pd.read_parquet(measured / "05_by_use.parquet")
    assert table.dtypes.astype(str).to_dict() == {
        **dict.fromkeys(("run", "use", "measure", "of"), str(table["run"].dtype)),
        **dict.fromkeys(("value", "ci_low", "ci_high"), "float64"),
        **dict.fromkeys(("k", "n", "groups_that_differ"), "int32"),
    }
    numbers = ["value", "ci_low", "ci_high", "n", "groups_that_differ"]
    assert list(table) == ["run", "k", "use", "measure", "of", *numbers]
    assert (set(table["k"]), set(table["of"])) == ({K}, {"ids"})
    table, exact = of_use(measured), np.load(measured / "03_exact_indices.npy")
    assert list(table.index.unique("run")) == sorted(LISTS)
    rows = pd.read_parquet(measured / "02_rows.parquet")
    labels, groups = rows["label"], rows["group"].to_numpy()
    per_query = pd.read_parquet(measured / "05_per_query.parquet").query("k == @K")
    curves = pd.read_parquet(measured / "05_curves.parquet").query("k == @K")
    curves = curves.set_index(["run", "metric"])
    for name in LISTS:
        ids, mine = np.load(measured.parent / f"{name}.npy"), table.loc[name]
        of_run = per_query[per_query["run"] == name]
        rights = [
            np.array([right(row, labels, query) for query, row in enumerate(lists)])
            for lists in (exact, ids)
        ]
        values = mine["value"]
        for side, of_side in zip(("exact", "ann"), rights, strict=True):
            assert values[f"accuracy_{side}"] == pytest.approx(np.nanmean(of_side))
            assert mine["n"][f"accuracy_{side}"] == N - 6
        assert values["accuracy_difference"] == pytest.approx(np.nanmean(rights[1] - rights[0]))
        for key in ("overlap", "recall"):
            expected = by_use.estimate_share((of_run[key] < 0.9).to_numpy(float), groups, 0)
            assert tuple(mine.loc[f"below_{key}", numbers]) == pytest.approx(tuple(expected))
        for key in ("kth_distance", "lid"):
            ratio = of_run[f"{key}_ann"].mean() / of_run[f"{key}_exact"].mean() - 1
            assert values[f"{key}_error"] == pytest.approx(ratio, abs=1e-12)
        for key in ("kth_distance_error", "lid_error", "lid_cut_error", "lid_pooled_error"):
            curve = curves.loc[(name, key), ["mean", *numbers[1:]]]
            assert tuple(mine.loc[key, numbers]) == tuple(curve), "the same bytes"
    differs = table["value"].xs("accuracy_difference", level="measure")
    assert differs["whole"] == 0 != differs["halves"]
    partitions = {
        name: by_use.leiden_partitions(np.load(measured.parent / f"{name}.npy")) for name in LISTS
    }
    for name in LISTS:
        uses = by_use.estimate_clusters(partitions["whole"], partitions[name])
        for (_, measure), estimate in uses.items():
            assert table["value"][name, measure] == estimate.value
    ari = table["value"].xs("ari", level="measure")
    assert ari["whole"] > ari["halves"]


def test_the_k_can_be_chosen_and_measures_nothing_anew(copy, stages):
    written, exact = stamps(copy), np.load(copy / "03_exact_indices.npy")
    same = {k: [by_use.leiden_partitions(exact[:, :k])] * 2 for k in (10, K)}
    uses = {k: by_use.estimate_clusters(*both) for k, both in same.items()}
    yardsticks = {k: of_k["clusters", "ari_yardstick"].value for k, of_k in uses.items()}
    assert yardsticks[10] != yardsticks[K]
    for flags, is_current in (((), True), ((10,), False), ((10,), True), ((), False)):
        out = stages(["05", "--k-of-interest", *flags] if flags else "05")
        assert ("05_metrics: up to date" in out) is is_current
        assert f"by use, k = {10 if flags else K}:" in out
        assert ("Not measured at k = 10: `halves` (keeps " in flat(out)) == bool(flags)
        runs = ["short"] if flags else sorted(LISTS)
        assert list(of_use(copy).index.unique("run")) == runs
        yardstick = of_use(copy)["value"][runs[0], "ari_yardstick"]
        assert yardstick == yardsticks[10 if flags else K]
    assert stamps(copy) == written


def test_the_seed_is_of_the_clusters_alone(measured, copy, stages):
    before = {path.name: path.read_bytes() for path in copy.glob("05_*.parquet")}
    stages("05 --seed 7")
    table, others = of_use(copy), {"05_by_use.parquet", "05_clusters.parquet"}
    exact = by_use.leiden_partitions(np.load(copy / "03_exact_indices.npy"), seed=7)
    ann = by_use.leiden_partitions(np.load(measured.parent / "halves.npy"), seed=7)
    uses = by_use.estimate_clusters(exact, ann)
    assert table["value"]["halves", "ari"] == uses["clusters", "ari"].value
    for path in copy.glob("05_*.parquet"):
        assert path.name in others or path.read_bytes() == before[path.name]


@pytest.mark.parametrize("case", ["all", "some", "outside", "without igraph", "too many edges"])
def test_what_there_is_no_use_for_is_left_out_and_said(case, copy, stages, monkeypatch):
    path = copy.parent / "queries.npy"
    np.save(path, np.load(copy / "02_embeddings.npy") + np.float32(0.01))
    chosen = {"some": 100, "outside": path}.get(case, "all")
    code = {
        "without igraph": "raise ImportError",
        "too many edges": f"from drift import by_use\nby_use.MOST_EDGES = {N}",
    }
    if case in code:  # in the place of igraph
        (copy.parent / "igraph.py").write_text(code[case])
        monkeypatch.syspath_prepend(copy.parent)
    search = f"04 --runs faiss:5 --k {K} --replace"
    out = stages(["03", "--k-max", K, "--queries", chosen], search, "05")
    table = of_use(copy)
    (name,) = table.index.unique("run")
    assert ("ari" in table.loc[name].index) == (case == "all")
    said = {
        **dict.fromkeys(("some", "outside"), "No clusters: not every row was a query."),
        "without igraph": "No clusters: igraph is not installed: pip install -r requirements-",
        "too many edges": f"No clusters: the k-NN graph has more than {N} edges.",
    }
    assert said.get(case, "") in flat(out) and ("No clusters" in flat(out)) == (case != "all")
    assert ("accuracy_ann" in table.loc[name].index) == (case != "outside")
    if case == "some":
        labels, queries = (
            pd.read_parquet(copy / "02_rows.parquet")["label"],
            np.load(copy / "03_queries.npy"),
        )
        ids = np.load(copy / f"04_hnsw/{name}/k{K:04d}_indices.npy")
        expected = [right(row, labels, query) for query, row in zip(queries, ids, strict=True)]
        assert table["value"][name, "accuracy_ann"] == pytest.approx(np.nanmean(expected))


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGKILL])
def test_a_process_that_partitions_ends_with_the_script(by, copy, drive):
    begun, before, uses = copy.parent / "begun", contents(copy, ".parquet"), of_use(copy)
    code = f"import os\nopen({str(begun)!r}, 'w').write(f'{{os.getpid()}}')\n"
    (copy.parent / "igraph.py").write_text(code + "import time\ntime.sleep(60)\n")
    flags = ("--force", "--threads", "1", "--results", copy)
    environment = os.environ | {"PYTHONPATH": str(copy.parent)}
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    command = [sys.executable, ROOT / "05_metrics.py", *flags]
    script = subprocess.Popen(command, env=environment, text=True, **pipes)
    while not begun.exists() or not (child := begun.read_text()):
        assert script.poll() is None
        time.sleep(0.02)
    assert os.getpgid(int(child)) != os.getpgid(script.pid)  # Ctrl-C reaches the script alone
    # Who is out of memory is the child.
    os.kill(int(child) if by == signal.SIGKILL else script.pid, by)
    out, err = script.communicate(timeout=60)
    with pytest.raises(ProcessLookupError):
        os.kill(int(child), 0)
    if by == signal.SIGKILL:
        assert (script.returncode, err) == (0, "")
        assert "No clusters: a process that this one had started ended by signal 9" in flat(out)
        # What failed for want of memory is no result: the same command tries again.
        again = drive("05_metrics.py", results=copy)[1]
        assert "clusters failed the last time, is made again" in again
        assert of_use(copy).equals(uses)
        assert "05_metrics: up to date" in drive("05_metrics.py", results=copy)[1]
    else:
        line = "05_metrics.py: interrupted; the same command resumes\n"
        assert (script.returncode, err) == (128 + by, line)
        assert contents(copy, ".parquet").items() >= before.items()


def test_badly_served_means_the_same_everywhere():
    assert by_use.BADLY_SERVED == shown.BADLY_SERVED
