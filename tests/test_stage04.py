"""Stage 04 by its script, on few vectors: policies, seeds, grids, and what it says of its speed."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import psycopg
import pytest

from drift.indexes import search as index_search
from drift.indexes.config import SearchConfig
from drift.metrics import found, neighborhood_overlap
from drift.pipeline import postgres, runs
from drift.pipeline.postgres import embedded_server
from drift.pipeline.stage import Stage
from drift.pipeline.tasks import graphs, search
from drift.pipeline.tasks.search import SearchIndex
from drift.protocols import Protocol
from tests.conftest import ROOT, run

SCRIPT = "04_hnsw_search.py"
N, K = 400, 60


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    """Results of stages 02 and 03. Tests only read them."""
    folder = tmp_path_factory.mktemp("exact")
    np.save(folder / "x.npy", np.random.default_rng(0).normal(size=(N, 16)).astype(np.float32))
    with pytest.MonkeyPatch.context() as patch:
        for script, *args in [
            ("02_embed_resnet50.py", "--from-file", folder / "x.npy"),
            ("03_exact_knn.py", "--k-max", K),
        ]:
            ended = run(script, *args, results=folder / "results", capsys=Silent, monkeypatch=patch)
            assert ended[0] == 0
    return folder / "results"


class Silent:
    """In place of pytest's `capsys`, which a fixture of a whole module cannot have."""

    out = err = ""

    @classmethod
    def readouterr(cls):
        return cls


@pytest.fixture
def results(exact, tmp_path):
    """A copy to search in."""
    return shutil.copytree(exact, tmp_path / "results")


def manifest(results, name):
    return json.loads((results / "04_hnsw" / name / "run.json").read_text())


def folders(results):
    return sorted(path.name for path in (results / "04_hnsw").iterdir())


def lists(results, name):
    paths = sorted((results / "04_hnsw" / name).glob("*.npy"))
    return {path.name: path.read_bytes() for path in paths}


def test_the_default_runs(results, drive):
    assert drive(SCRIPT, results=results)[0] == 0
    names = ["faiss_M32_efc200_ef50", "faiss_M32_efc200_efkmin50", "hnswlib_M32_efc200_ef50"]
    assert folders(results) == names
    recorded = manifest(results, names[1])
    assert recorded["parameters"]["ef_search"] == "k,50"
    for k in (10, 60):
        assert recorded["effective_ef"][str(k)]["ef_search"] == max(k + 1, 50)


def test_lists_shorter_than_the_least_ef_search_are_those_of_that_number(results, drive):
    assert drive(SCRIPT, "--runs", "faiss:50", "faiss:k,50", "faiss:k", results=results)[0] == 0
    fixed, least, policy = (
        lists(results, f"faiss_M32_efc200_ef{name}") for name in ("50", "kmin50", "k")
    )
    for name in fixed:
        k = int(name[1:5])
        assert least[name] == (fixed if k < 50 else policy)[name]


def test_seeds_are_runs_of_their_own(results, drive):
    flags = ("--runs", "faiss:5", "hnswlib:5", "--m", "4", "--k", "1", "10")
    status, out, err = drive(SCRIPT, *flags, "--seeds", "0", "2", "11", "2", results=results)
    assert (status, err) == (0, "")
    names = [
        f"{backend}_M4_efc200_ef5{suffix}"
        for backend in ("faiss", "hnswlib")
        for suffix in ("", "_seed11", "_seed2")
    ]
    assert folders(results) == names
    assert all(out.count(f"{name} ") == 2 for name in names)  # a row for each of its two ks
    assert [manifest(results, name)["parameters"]["seed"] for name in names] == [0, 11, 2] * 2
    for i in (0, 3):
        assert len({lists(results, name)["k0010_indices.npy"] for name in names[i : i + 3]}) == 3

    # A seed alone is the same graph, and what is there is not searched again.
    status, out, _ = drive(SCRIPT, *flags, "--seed", "2", results=results)
    assert (status, out.count("up to date")) == (0, 2)
    before = {name: lists(results, name) for name in names}
    assert drive(SCRIPT, *flags, "--seed", "2", "--force", results=results)[0] == 0
    assert {name: lists(results, name) for name in names} == before


def test_replace_keeps_the_runs_of_all_seeds_asked_for(results, drive):
    flags = ("--m", "4", "--k", "10", "--save-index", "--runs", "faiss:5")
    assert drive(SCRIPT, *flags, "--seeds", "0", "1", "2", results=results)[0] == 0
    status, out, _ = drive(SCRIPT, *flags, "--replace", "--seeds", "1", "0", results=results)
    assert status == 0
    assert "faiss_M4_efc200_ef5_seed2, faiss_M4_efc200_seed2\n" in out
    assert folders(results) == ["faiss_M4_efc200_ef5", "faiss_M4_efc200_ef5_seed1", "graphs"]


@pytest.mark.parametrize("seed", ["0", "3"])
def test_seeds_or_a_seed(seed, results, drive):
    status, _, err = drive(SCRIPT, "--seed", seed, "--seeds", "1", "2", results=results)
    assert (status, err.count("\n")) == (2, 1)
    assert "--seeds" in err and "--seed:" in err
    assert not (results / "04_hnsw").exists()


@pytest.mark.parametrize("backend", ["faiss", "hnswlib"])
def test_a_saved_graph_of_a_seed_gives_the_same_lists(backend, results, drive, monkeypatch):
    flags = ("--runs", f"{backend}:5", "--m", "4", "--seed", "3")
    name = f"{backend}_M4_efc200_ef5_seed3"
    assert drive(SCRIPT, *flags, "--save-index", results=results)[0] == 0
    assert (results / f"04_hnsw/graphs/{backend}_M4_efc200_seed3.{backend}").exists()
    before = lists(results, name)
    shutil.rmtree(results / "04_hnsw" / name)
    monkeypatch.setattr(graphs, "build_index", lambda *_: pytest.fail("built anew"))
    assert drive(SCRIPT, *flags, results=results)[0] == 0
    assert lists(results, name) == before


@pytest.mark.parametrize(
    "args",
    [
        ("--k", "10", "--k-max", "20"),
        ("--k", "10", "--k-step", "10"),
        ("--k", "61"),
        ("--k", "0"),
        ("--runs", "faiss:k,0"),
        ("--runs", "faiss:k,50,threads=2"),
        ("--seeds", "x"),
    ],
)
def test_what_cannot_be_is_one_line(args, results, drive):
    status, _, err = drive(SCRIPT, *args, results=results)
    assert (status, err.count("\n")) == (2, 1), err
    assert not (results / "04_hnsw").exists()


def test_another_grid_says_which_lists_it_overwrites_before_it_searches(
    results, drive, monkeypatch
):
    flags = ("--runs", "faiss:5", "faiss:9", "--m", "4")
    name = "faiss_M4_efc200_ef5"
    status, out, _ = drive(SCRIPT, *flags[:2], *flags[3:], results=results)
    assert (status, "overwritten" in out) == (0, False)
    assert "overwritten" not in drive(SCRIPT, *flags[:2], *flags[3:], "--force", results=results)[1]
    before = lists(results, name)
    sentence = (
        f"{name}: its lists for k = 10, 20, ... 60 will be overwritten by those for k = 5, 25\n"
    )
    checkpoint = Stage.checkpoint

    def interrupt(stage, *args, **facts):
        checkpoint(stage, *args, **facts)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(graphs, "build_index", lambda *_: pytest.fail("announced too late"))
        with pytest.raises(pytest.fail.Exception):
            drive(SCRIPT, *flags, "--k", "5", "25", results=results)
    with monkeypatch.context() as patched:
        patched.setattr(Stage, "checkpoint", interrupt)
        for _ in range(2):  # first after the build, then after a search
            status, out, _ = drive(SCRIPT, *flags, "--k", "5", "25", results=results)
            # Of a run that is not there yet nothing is overwritten.
            assert (status, out) == (130, sentence)
    assert lists(results, name) == before

    status, out, _ = drive(SCRIPT, *flags, "--k", "25", "5", results=results)
    assert status == 0
    assert out.startswith(sentence)
    assert sorted(lists(results, name)) == [
        f"k{k:04d}_{part}.npy" for k in (5, 25) for part in ("distances", "indices")
    ]
    assert "overwritten" not in drive(SCRIPT, *flags, "--k", "5", "25", results=results)[1]


def test_a_grid_by_steps_ends_at_the_last_exact_neighbor(results, drive):
    assert drive(SCRIPT, "--runs", "faiss:5", "--k-step", "25", results=results)[0] == 0
    assert manifest(results, "faiss_M32_efc200_ef5")["parameters"]["k_grid"] == [10, 35, 60]


def test_distance_computations_are_counted_where_the_library_counts_them(results, drive):
    runs = ("--runs", "faiss:30", "faiss:k", "hnswlib:30", "--m", "4")
    assert drive(SCRIPT, *runs, results=results)[0] == 0
    assert "distance_computations_per_query" not in manifest(results, "hnswlib_M4_efc200_ef30")
    fixed, following = (
        manifest(results, f"faiss_M4_efc200_ef{ef}")["distance_computations_per_query"]
        for ef in ("30", "k")
    )
    assert list(fixed) == list(following) == ["10", "20", "30", "40", "50", "60"]
    # One search for k = 10 and 20; a longer list, which cannot end earlier, costs no less.
    assert fixed["10"] == fixed["20"]
    assert list(following.values()) == sorted(set(following.values()))
    assert all(10 < count < 2 * N for count in [*fixed.values(), *following.values()])


def test_what_is_counted_does_not_depend_on_interruptions(results, drive, monkeypatch):
    flags = ("--runs", "faiss:k", "--m", "4")
    name = "faiss_M4_efc200_efk"
    assert drive(SCRIPT, *flags, results=results)[0] == 0
    whole, counted = lists(results, name), "distance_computations_per_query"
    counts = manifest(results, name)[counted]
    shutil.rmtree(results / "04_hnsw")
    checkpoint, left = Stage.checkpoint, 3

    def interrupt(stage, *args, **facts):
        nonlocal left
        checkpoint(stage, *args, **facts)
        left -= 1
        if left == 0:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Stage, "checkpoint", interrupt)
        assert drive(SCRIPT, *flags, results=results)[0] == 130
    assert drive(SCRIPT, *flags, results=results)[0] == 0
    assert lists(results, name) == whole
    assert manifest(results, name)[counted] == counts


class SlowAtFirst:
    """An index whose first search in a process takes ten seconds, and every other one."""

    distance_computations, now, searches = None, 0.0, None
    is_direct, is_compressed = True, False

    def __init__(self, *_):
        self.searches = []

    def search(self, points, length, settings):
        SlowAtFirst.now += 1.0 if self.searches else 10.0
        self.searches.append((len(points), length))
        ids = np.tile(np.arange(length), (len(points), 1))
        return ids, np.tile(np.arange(length, dtype=np.float32), (len(points), 1))

    @classmethod
    def perf_counter(cls):
        return cls.now


def test_no_search_that_is_timed_is_the_first(exact, monkeypatch):
    monkeypatch.setattr(search, "load_index", SlowAtFirst)
    monkeypatch.setattr(index_search, "time", SlowAtFirst)
    monkeypatch.setattr(search, "WARM_UP_QUERIES", 100)
    paths = (exact / "02_embeddings.npy", exact / "03_queries.npy", exact / "none")
    config = SearchConfig.parse("faiss:k", 32, 200)
    task = SearchIndex(*paths, config, (10, 20), Protocol.STUDY)
    # A copy is what a worker of a cluster gets.
    for each in (task, pickle.loads(pickle.dumps(task))):
        costs = {block: each(block)[1] for block in each.blocks()}
        assert [cost.seconds for cost in costs.values()] == [1, 1]
        # What warms up is short, and searched for once in a process.
        assert each.index.searches == [(100, 11), (N, 11), (N, 21)]
    facts = task.facts({block: cost._asdict() for block, cost in costs.items()})
    assert facts["queries_per_second"] == {10: N, 20: N}
    assert facts["search_seconds_in_all"] == 2


def test_after_the_first_run_it_says_how_long_the_others_take(capsys):
    runs.announce_rest(100, [10, 20, 30])
    assert capsys.readouterr().out == "the other runs: about 9 minutes more\n"
    runs.announce_rest(10, [10, 20, 30])
    assert capsys.readouterr().out == ""
    config = SearchConfig.parse("faiss:2k", 32, 200)
    assert config.effort([10, 100]) == 3 * 110


@pytest.mark.parametrize(
    ("run", "m", "warned"),
    [
        ("faiss:50", 32, 64),
        ("faiss:50", 8, None),
        ("hnswlib:50", 32, None),
        ("HNSW32_SQ8:efSearch=50", 8, 64),
        ("HNSW32_SQ8:efConstruction=63,efSearch=50", 8, 64),
        ("HNSW32_SQ8:efConstruction=64,efSearch=50", 8, None),
        ("HNSW16,Flat", 8, None),
        ("IVF8_HNSW32,Flat", 8, None),
    ],
)
def test_graphs_that_faiss_does_not_prune_are_warned_of(run, m, warned, capsys):
    runs.warn_of_dense_graphs([SearchConfig.parse(run, m, 40).index])
    err = capsys.readouterr().err
    assert f"2 M = {warned} on" in err if warned else err == ""


# Indexes by factory strings.


def test_runs_by_factory_strings(results, drive):
    strings = ("IVF8,Flat:nprobe=2", "IVF8,Flat:nprobe=8", "HNSW8_SQ8:efSearch=k,30", "PQ8x4fs")
    flags = ("--runs", *strings, "--k", "10", "30", "--m", "5", "--ef-construction", "7")
    status, out, err = drive(SCRIPT, *flags, "--save-index", results=results)
    assert (status, err) == (0, "")
    names = ["HNSW8_SQ8_efSearch_k_30", "IVF8_Flat_nprobe_2", "IVF8_Flat_nprobe_8", "PQ8x4fs"]
    assert folders(results) == [*names, "graphs"]
    assert all(out.count(f"{name} ") == 2 for name in names)
    graphs = sorted(path.name for path in (results / "04_hnsw/graphs").glob("*.faiss"))
    assert graphs == ["HNSW8_SQ8.faiss", "IVF8_Flat.faiss", "PQ8x4fs.faiss"]
    recorded = manifest(results, names[1])
    assert recorded["parameters"] | {"protocol": None} == {
        "backend": "faiss",
        "factory": "IVF8,Flat",
        "seed": 0,
        "build_threads": 1,
        "ef_search": None,
        "settings": {"nprobe": "2"},
        "k_grid": [10, 30],
        "protocol": None,
    }
    assert recorded["graph"]["compressed"] is False
    counts = recorded["distance_computations_per_query"]
    assert counts["10"] == counts["30"] < N / 2
    assert manifest(results, names[2])["distance_computations_per_query"] == {"10": N, "30": N}
    # All lists probed are exact ones.
    exact = np.load(results / "03_exact_indices.npy")
    ids = np.load(results / "04_hnsw" / names[2] / "k0030_indices.npy")
    np.testing.assert_array_equal(ids, exact[:, :30])
    status, out, _ = drive(SCRIPT, *flags, "--m", "9", results=results)
    assert (status, out.count("up to date")) == (0, 4), "M is of the graphs of libraries"


@pytest.mark.parametrize("text", ["IVF8,Flat:nprobe=1", "HNSW4_SQ8:efSearch=3", "PQ8x4fs"])
def test_a_factory_string_has_seeds_a_saved_index_and_any_number_of_threads(
    text, results, drive, monkeypatch
):
    flags, name = ("--runs", text, "--k", "10"), SearchConfig.parse(text, 32, 200).name
    saving = (*flags, "--save-index", "--seeds", "0", "3", "--threads", "1")
    assert drive(SCRIPT, *saving, results=results)[0] == 0
    assert folders(results) == [name, f"{name}_seed3", "graphs"]
    before = {one: lists(results, one) for one in (name, f"{name}_seed3")}
    assert before[name] != before[f"{name}_seed3"]
    for one in before:
        shutil.rmtree(results / "04_hnsw" / one)
    with monkeypatch.context() as patched:
        patched.setattr(graphs, "build_index", lambda *_: pytest.fail("built anew"))
        again = (*flags, "--seeds", "0", "3", "--threads", "2")
        assert drive(SCRIPT, *again, results=results)[0] == 0
    assert {one: lists(results, one) for one in before} == before
    assert drive(SCRIPT, *again, "--force", results=results)[0] == 0
    assert {one: lists(results, one) for one in before} == before


@pytest.mark.parametrize(
    "text",
    [
        *("IVF8,Flut:nprobe=2", "IVF8,Flat:probes=2", "PQ5x4fs", "fiass:50", "IVF8,Flat:nprobe=0"),
        *("HNSW0,Flat", "IVF500,Flat:nprobe=3", "IVF8,Flat:nprobe=", "PQ8:efConstruction=40"),
    ],
)
def test_a_factory_string_that_cannot_be_is_one_line(text, results, drive):
    status, _, err = drive(SCRIPT, "--runs", text, results=results)
    assert (status, err.count("\n")) == (2, 1), err
    assert not list((results / "04_hnsw").glob("*/run.json"))


# pgvector.

PGVECTOR = ("pgvector_M8_efc40_ef40", "pgvector_M8_efc40_ef40_iterative_scan_strict_order")
IN_PGVECTOR = ("--m", "8", "--ef-construction", "40", "--runs", "pgvector:40")
STRICT = "pgvector:40,iterative_scan=strict_order"
SEARCH_AND_WAIT = """
import runpy, sys, time
from drift.pipeline.stage import Stage
checkpoint = Stage.checkpoint
def wait(stage, *args, **facts):
    checkpoint(stage, *args, **facts)
    print("searched", flush=True)
    time.sleep(300)
Stage.checkpoint = wait
runpy.run_path("04_hnsw_search.py", run_name="__main__")
"""


def schemas(url):
    with psycopg.connect(url) as connection:
        return connection.execute(
            "select nspname from pg_namespace where nspname like 'drift%'"
        ).fetchall()


def servers(folder):
    """Processes that have this folder on their command line."""
    lines = (one.info["cmdline"] or () for one in psutil.process_iter(["cmdline"]))
    return [line for line in lines if any(str(folder) in word for word in line)]


def test_pgvector_in_its_own_server(results, drive):
    flags = (*IN_PGVECTOR, STRICT, "--save-index")
    status, out, err = drive(SCRIPT, *flags, results=results)
    assert (status, err) == (0, "")
    assert folders(results) == list(PGVECTOR), "and no graph"
    assert out.count("pgvector_M8_efc40 lives in its server: --save-index does not keep it") == 1
    exact = np.load(results / "03_exact_indices.npy")
    for name, is_full in zip(PGVECTOR, (False, True), strict=True):
        recorded = manifest(results, name)
        assert recorded["timed"] == "at the client"
        assert "distance_computations_per_query" not in recorded
        assert recorded["graph"]["compressed"] is False
        assert "postgresql:" not in json.dumps(recorded)
        made = recorded["effective_ef"]["60"]
        assert (made["ef_search"], made["candidates"]) == (40, 61 if is_full else 40)
        for k in (10, 60):
            folder = results / "04_hnsw" / name
            ids = np.load(folder / f"k{k:04d}_indices.npy")
            distances = np.load(folder / f"k{k:04d}_distances.npy")
            np.testing.assert_array_equal(np.isinf(distances), ids < 0)
            # Of 40 rows one is the query.
            returned = (ids >= 0).sum(axis=1)
            assert returned.max() == (k if is_full else min(k, 39))
            assert all((row[n:] == -1).all() for row, n in zip(ids, returned, strict=True))
            share = found(ids).mean()
            assert share > 0.95 if is_full or k == 10 else 0.5 < share < 0.66
            assert neighborhood_overlap(exact[:, :k], ids).mean() > 0.8 * share
    assert drive("05_metrics.py", results=results)[0] == 0
    status, out, _ = drive(SCRIPT, *flags, results=results)
    assert (status, out.count("up to date")) == (0, 2)


def test_pgvector_in_a_server_of_the_users(results, drive, monkeypatch):
    with embedded_server() as url:
        with monkeypatch.context() as patched:
            patched.setattr(postgres, "embedded_server", lambda: pytest.fail("a server of its own"))
            assert drive(SCRIPT, *IN_PGVECTOR, "--postgres", url, results=results)[0] == 0
        assert schemas(url) == []
        seen = []

        def interrupt(task, block):
            seen.extend(schemas(url))
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(SearchIndex, "__call__", interrupt)
            forced = (*IN_PGVECTOR, "--force", "--postgres", url)
            assert drive(SCRIPT, *forced, results=results)[0] == 130
        assert len(seen) == 1, "while it searches"
        assert schemas(url) == []
    assert url not in (results / "04_hnsw" / PGVECTOR[0] / "run.json").read_text()


def test_a_server_is_for_pgvector_alone(results, drive):
    status, _, err = drive(SCRIPT, "--postgres", "postgresql://localhost/x", results=results)
    assert (status, err.count("\n")) == (2, 1)
    assert "--postgres is for runs of pgvector" in err
    none = ("--postgres", "postgresql://me:secret@127.0.0.1:1/none")
    status, _, err = drive(SCRIPT, *IN_PGVECTOR, *none, results=results)
    assert (status, err.count("\n")) == (2, 1)
    assert "PostgreSQL at 127.0.0.1" in err and "secret" not in err


def test_pgvector_killed_in_the_middle_starts_over_and_leaves_no_server(
    results, drive, monkeypatch
):
    command = [sys.executable, "-c", SEARCH_AND_WAIT, "--results", results, *IN_PGVECTOR]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline().strip() == "searched"
        (watcher,) = (
            one
            for one in psutil.Process(child.pid).children()
            if postgres.__name__ in one.cmdline()
        )
        folder = Path(watcher.cmdline()[-2])
        assert folder.name.startswith(postgres.PREFIX) and folder.exists()
        assert len(servers(folder)) > 1
        os.kill(child.pid, signal.SIGKILL)
    finally:
        child.kill()
        child.communicate()
    end = time.monotonic() + 10
    while (folder.exists() or servers(folder)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not folder.exists() and not servers(folder)

    searched, call = [], SearchIndex.__call__

    def record(task, block):
        searched.append(block.ks)
        return call(task, block)

    monkeypatch.setattr(SearchIndex, "__call__", record)
    assert drive(SCRIPT, *IN_PGVECTOR, results=results)[0] == 0
    assert searched == [(10, 20, 30), (40,), (50,), (60,)], "what was searched in another graph too"
    assert folders(results) == [PGVECTOR[0]]
