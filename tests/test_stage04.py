"""Stage 04 by its script, on few vectors: runs, seeds, indexes, grids, speeds."""

import json
import pickle
import shutil
from contextlib import contextmanager

import numpy as np
import psycopg
import pytest

from drift.indexes import search as index_search
from drift.indexes.faiss_index import Faiss
from drift.indexes.hnswlib_hnsw import HnswlibHnsw
from drift.indexes.registry import parse_run
from drift.indexes.run import Run
from drift.metrics import found, neighborhood_overlap
from drift.pipeline.postgres import embedded_server
from drift.pipeline.stage import Stage
from drift.protocols import Protocol
from drift.stages import grids, search
from drift.stages.search import SearchIndex

SCRIPT = "04_hnsw_search.py"
N, K = 400, 60
COUNTED = "distance_computations_per_query"


@pytest.fixture
def results(small, tmp_path):
    """A copy to search in."""
    return shutil.copytree(small, tmp_path / "results")


@pytest.fixture
def call(results, stages):
    """Run stage 04 well, and give what it prints; or with `fails`, the one line of its error."""
    return lambda *flags, fails=False: stages(["04", *flags], fails=fails)


@pytest.fixture
def no_build(monkeypatch):
    """From when it is called, no index is built."""

    def forbid():
        for library in (Faiss, HnswlibHnsw):
            monkeypatch.setattr(library, "build", lambda *_: pytest.fail("built anew"))

    return forbid


def manifest(results, name):
    return json.loads((results / "04_hnsw" / name / "run.json").read_text())


def folders(results):
    return sorted(path.name for path in (results / "04_hnsw").iterdir())


def lists(results, *names):
    """Every list of some runs, byte by byte."""
    paths = (path for name in names for path in (results / "04_hnsw" / name).glob("*.npy"))
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in paths}


@contextmanager
def interrupted(after):
    """Ctrl-C at a checkpoint, when so many are stored."""
    checkpoint, stored = Stage.checkpoint, []

    def interrupt(stage, *args, **notes):
        checkpoint(stage, *args, **notes)
        stored.append(args)
        if len(stored) == after:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stage, "checkpoint", interrupt)
        yield


def test_the_default_runs(results, call):
    out = call()
    names = ["faiss_M32_efc200_ef50", "faiss_M32_efc200_efkmin50", "hnswlib_M32_efc200_ef50"]
    assert folders(results) == names
    recorded = manifest(results, names[1])
    assert recorded["parameters"]["ef_search"] == "k,50"
    assert Run.from_json(recorded["parameters"]["run"]) == parse_run("faiss:k,50")
    assert list(recorded["inputs"]) == ["02_embeddings.npy", "03_queries.npy"]
    for k in (10, 60):
        assert recorded["effective_ef"][str(k)]["ef_search"] == max(k + 1, 50)
    # The table is computed from the lists that are in place.
    exact = np.load(results / "03_exact_indices.npy")
    for k in (10, 40, 60):
        ids = np.load(results / "04_hnsw" / names[0] / f"k{k:04d}_indices.npy")
        row = f"{names[0]}  {k} {neighborhood_overlap(exact[:, :k], ids).mean():8.4g}"
        assert row.split() in [line.split()[:3] for line in out.splitlines()]
    # While lists are no longer than efSearch one search gives all; a longer one costs more.
    fixed, following = (list(manifest(results, name)[COUNTED].values()) for name in names[:2])
    assert fixed[0] == fixed[3] == following[0] == following[3] < following[4] < following[5]
    assert 10 < fixed[0] < 2 * N and COUNTED not in manifest(results, names[2])
    call("--runs", "faiss:k")
    for path in (results / "04_hnsw" / names[1]).glob("*.npy"):
        same = names[0] if int(path.name[1:5]) < 50 else "faiss_M32_efc200_efk"
        assert path.read_bytes() == (results / "04_hnsw" / same / path.name).read_bytes()


def test_more_exact_neighbors_leave_runs_and_imported_lists_current(results, call, drive, tmp_path):
    np.save(tmp_path / "ids.npy", np.load(results / "03_exact_indices.npy")[:, :20])
    other = ("--lists", "milvus", tmp_path / "ids.npy")
    flags = ("--m", "4", "--k", "10", "20", "--runs", "faiss:5", "faiss:overlap=0.5", *other)
    assert "up to date" not in call(*flags)
    assert drive("03_exact_knn.py", "--k-max", K + 20, results=results)[0] == 0
    out = call(*flags)
    assert out.count("up to date") == 2, "a target's value is chosen by the exact lists"
    assert "04_hnsw/milvus: up to date" in out and "04_hnsw/faiss_M4_efc200_ef5: up" in out
    assert "03_exact_indices.npy" in manifest(results, "faiss_M4_efc200_efoverlap0.5")["inputs"]
    assert drive("03_exact_knn.py", "--k-max", K, "--queries", "100", results=results)[0] == 0
    assert "up to date" not in call(*flags[:-3])


def test_seeds_are_runs_of_their_own(results, call):
    flags = ("--runs", "faiss:5", "hnswlib:5", "--m", "4", "--k", "1", "10")
    out = call(*flags, "--seeds", "0", "2", "11", "2")
    names = [
        f"{library}_M4_efc200_ef5{suffix}"
        for library in ("faiss", "hnswlib")
        for suffix in ("", "_seed11", "_seed2")
    ]
    assert folders(results) == names
    assert all(out.count(f"{name} ") == 1 for name in names)  # of many runs a row each
    assert [manifest(results, name)["parameters"]["seed"] for name in names] == [0, 11, 2] * 2
    before = lists(results, *names)
    for i in (0, 3):
        assert len({before[f"{name}/k0010_indices.npy"] for name in names[i : i + 3]}) == 3
    # A seed alone is the same index, and what is there is not searched again.
    assert call(*flags, "--seed", "2").count("up to date") == 2
    call(*flags, "--seed", "2", "--force")
    assert lists(results, *names) == before


def test_a_series_is_a_run_for_each_number_on_one_graph(results, call, monkeypatch):
    built, build = [], HnswlibHnsw.build
    monkeypatch.setattr(HnswlibHnsw, "build", lambda *args: built.append(1) or build(*args))
    out = call("--runs", "hnswlib:2..4,ef_construction=9", "--m", "4", "--k", "5", "10")
    names = [f"hnswlib_M4_efc9_ef{ef}" for ef in (2, 3, 4)]
    assert folders(results) == names and built == [1]
    assert all(out.count(f"{name} ") == 2 for name in names)  # a row for each of its two ks
    asked = [manifest(results, name)["asked_by"] for name in names]
    assert asked == [f"--runs hnswlib:{ef},ef_construction=9 --m 4" for ef in (2, 3, 4)]


@pytest.mark.parametrize(
    "text", ["faiss:5", "hnswlib:5", "IVF8,Flat:nprobe=1", "HNSW4_SQ8:efSearch=3", "PQ8x4fs"]
)
def test_a_saved_index_gives_the_same_lists_by_any_number_of_threads(text, results, call, no_build):
    flags, run = ("--m", "4", "--runs", text, "--k", "10", "--seeds", "0", "3"), parse_run(text, 4)
    call(*flags, "--save-index", "--threads", "1")
    names = [run.name, f"{run.name}_seed3"]
    assert folders(results) == sorted([*names, "graphs"])
    saved = sorted(path.name for path in (results / "04_hnsw/graphs").glob(f"*.{run.library}"))
    assert saved == [f"{run.index_name}{seed}.{run.library}" for seed in ("", "_seed3")]
    before = lists(results, *names)
    one, other = (before[f"{name}/k0010_indices.npy"] for name in names)
    assert one != other
    for name in names:
        shutil.rmtree(results / "04_hnsw" / name)
    no_build()
    call(*flags, "--threads", "2")
    assert lists(results, *names) == before
    out = call(*flags[:-3], "--seed", "3", "--replace")
    removed = f"removing from {results / '04_hnsw'}: {', '.join((run.name, run.index_name))}\n"
    assert removed in out and folders(results) == sorted([names[1], "graphs"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--k 61", "--k-max 61 first"),
        ("--runs fiass:50", "is no run"),
        ("--runs IVF8,Flat:nprobe=0", "1 or more"),
        ("--runs IVF500,Flat:nprobe=3", "no index IVF500,Flat on 400 x 16 vectors"),
    ],
)
def test_what_cannot_be_is_one_line(flags, message, results, call):
    assert message in call(*flags.split(), fails=True)
    assert not list(results.glob("04_hnsw/*/run.json"))


def test_another_grid_says_which_lists_it_overwrites_before_it_searches(results, call, drive):
    flags, name = ("--m", "4", "--runs", "faiss:5", "faiss:9"), "faiss_M4_efc200_ef5"
    assert "overwritten" not in call(*flags[:4]) + call(*flags[:4], "--force")
    before = lists(results, name)
    sentence = (
        f"{name}: its lists for k = 10, 20, ... 60 will be overwritten by those for k = 5, 25\n"
    )
    other = ("--replace-k", "--k", "5", "25")
    for after in (1, 2):  # the index is built, then a search is done
        with interrupted(after):
            status, out, _ = drive(SCRIPT, *flags, *other, results=results)
        # Of a run that is not there yet nothing is overwritten.
        assert (status, out) == (130, sentence)
    assert lists(results, name) == before
    assert call(*flags, *other).startswith(sentence)
    assert {path.rpartition("/")[2] for path in lists(results, name)} == {
        f"k{k:04d}_{kind}.npy" for k in (5, 25) for kind in ("distances", "indices")
    }
    assert "overwritten" not in call(*flags, *other)


def grid_of(results, name):
    return manifest(results, name)["parameters"]["k_grid"]


@pytest.fixture
def searched(monkeypatch):
    """The k that were searched for since it was last cleared."""
    ks, compute = [], SearchIndex.__call__

    def record(task, block):
        ks.extend(block.ks)
        return compute(task, block)

    monkeypatch.setattr(SearchIndex, "__call__", record)
    return ks


def test_a_grid_is_added_to_that_of_a_run(results, call, drive, searched):
    runs = ("faiss:5", "hnswlib:5", "HNSW4_SQ8:efSearch=9", "faiss:overlap=0.6")
    flags, names = ("--m", "4", "--runs", *runs), [parse_run(text, 4).name for text in runs]
    call(*flags, "--k", "1", "10", "20")
    first = {name: manifest(results, name) for name in names}
    before = lists(results, *names)
    # A subset is there, and no grid means the run's own.
    assert call(*flags, "--k", "20").count("up to date") == call(*flags).count("up to date") == 4
    searched.clear()
    with interrupted(2):  # the index, and one search
        assert drive(SCRIPT, *flags, "--k", "30", "1", "5", results=results)[0] == 130
    assert lists(results, *names) == before
    out = call(*flags, "--k", "30", "1", "5")
    assert "anew" not in out and "overwritten" not in out
    assert sorted(searched) == sorted([5, 30] * 4)
    after = lists(results, *names)
    assert before.items() < after.items() and len(after) == len(before) / 3 * 5
    for name in names:
        recorded = manifest(results, name)
        assert grid_of(results, name) == [1, 5, 10, 20, 30]
        assert {int(k) for k in recorded["queries_per_second"]} == {1, 5, 10, 20, 30}
        assert recorded["search_seconds"]["10"] == first[name]["search_seconds"]["10"]
        assert recorded["outputs"].items() > first[name]["outputs"].items()
    assert len(manifest(results, names[3])["halves"]) == 5
    assert call(*flags).count("up to date") == 4
    # All of it is as if it had been searched for at once.
    call(*flags, "--force")
    assert lists(results, *names) == after
    call(*flags, "--replace-k", "--k", "20")
    assert grid_of(results, names[0]) == [20] and len(lists(results, *names)) == 4 * 2 + 1


def test_a_grid_is_not_added_to_lists_of_another_graph(results, call, drive, searched, monkeypatch):
    flags, run = ("--m", "4", "--runs", "faiss:5", "--build-threads", "2"), "faiss_M4_efc200_ef5"
    anew = f"{run}: all of k = 10, 20, 30 is searched anew: "
    call(*flags, "--k", "10", "20")
    assert anew in call(*flags, "--k", "30")
    assert grid_of(results, run) == [10, 20, 30]
    call(*flags, "--save-index", "--replace-k", "--k", "10", "20")
    searched.clear()
    assert "anew" not in call(*flags, "--k", "30") and searched == [30], "in the saved graph"
    for what in ("code_hash", "package_versions"):
        call(*flags[:4], "--replace-k", "--k", "10", "20")
        with monkeypatch.context() as patch:
            patch.setattr(grids, what, lambda *_: "other")
            assert anew in call(*flags[:4], "--k", "30")
    # Lists of other queries are nothing to add to.
    assert drive("03_exact_knn.py", "--k-max", "60", "--queries", "100", results=results)[0] == 0
    call(*flags[:4], "--k", "15")
    assert grid_of(results, run) == [15]


@pytest.mark.parametrize(
    ("text", "beside"), [("faiss:k", "faiss:5"), ("IVF8,Flat", "IVF8,Flat:nprobe=2")]
)
def test_an_interrupted_run_resumes_with_its_index_and_counts_the_same(
    text, beside, results, call, drive, no_build
):
    flags, run = ("--m", "4", "--k", "10", "30", "60"), parse_run(text, 4)
    call(*flags, "--runs", text, beside)
    whole, counts = lists(results, run.name), manifest(results, run.name).get(COUNTED)
    shutil.rmtree(results / "04_hnsw" / run.name)
    with interrupted(2):  # the index, and one search
        assert drive(SCRIPT, *flags, "--runs", text, results=results)[0] == 130
    no_build()
    # Another run on the same index is up to date, and leaves that to the one that waits for it.
    assert "up to date" in call(*flags, "--runs", beside)
    call(*flags, "--runs", text)
    assert lists(results, run.name) == whole
    assert manifest(results, run.name).get(COUNTED) == counts


class SlowAtFirst:
    """An index whose first search in a process takes ten seconds, and every other one."""

    distance_computations, now, searches = None, 0.0, None
    is_direct, is_compressed = True, False

    @classmethod
    def load(cls, *_):
        index = cls()
        index.searches = []
        return index

    def search(self, points, length, settings):
        SlowAtFirst.now += 1.0 if self.searches else 10.0
        self.searches.append((len(points), length))
        ids = np.tile(np.arange(length), (len(points), 1))
        return ids, np.tile(np.arange(length, dtype=np.float32), (len(points), 1))

    @classmethod
    def perf_counter(cls):
        return cls.now

    @staticmethod
    def stop_rule(run, length, ef_search):
        return {}

    @staticmethod
    def warning(run):
        return None


def test_no_search_that_is_timed_is_the_first(small, monkeypatch):
    monkeypatch.setattr(search, "index_class", lambda run: SlowAtFirst)
    monkeypatch.setattr(index_search, "time", SlowAtFirst)
    monkeypatch.setattr(search, "WARM_UP_QUERIES", 100)
    files, run = (small / "02_embeddings.npy", small / "03_queries.npy", None), parse_run("faiss:k")
    task = SearchIndex(*files, (10, 20), run, Protocol.STUDY, small / "none", {"graph": {}})
    # A copy is what a worker of a cluster gets.
    for each in (task, pickle.loads(pickle.dumps(task))):
        costs = {block: each(block)[1] for block in each.blocks()}
        assert [cost.seconds for cost in costs.values()] == [1, 1]
        # What warms up is short, and searched for once in a process.
        assert each.index.searches == [(100, 11), (N, 11), (N, 21)]
    notes = task.notes({block: cost._asdict() for block, cost in costs.items()})
    assert notes["queries_per_second"] == {10: N, 20: N}


def test_runs_by_factory_strings(results, call):
    strings = ("IVF8,Flat:nprobe=2", "IVF8,Flat:nprobe=8", "HNSW8_SQ8:efSearch=k,30", "PQ8x4fs")
    flags = ("--runs", *strings, "--k", "10", "30", "--m", "5", "--ef-construction", "7")
    out = call(*flags)
    names = ["HNSW8_SQ8_efSearch_k_30", "IVF8_Flat_nprobe_2", "IVF8_Flat_nprobe_8", "PQ8x4fs"]
    assert folders(results) == names
    assert all(out.count(f"{name} ") == 2 for name in names)
    recorded = manifest(results, names[1])
    assert Run.from_json(recorded["parameters"]["run"]) == parse_run(strings[0])
    assert recorded["parameters"]["ef_search"] is None
    assert recorded["graph"]["compressed"] is False and "effective_ef" not in recorded
    stops = manifest(results, names[0])["effective_ef"]["30"]
    assert (stops["list_length"], stops["stops_after"]) == (31, 31), "as of faiss:k,30"
    counts = recorded[COUNTED]
    assert counts["10"] == counts["30"] < N / 2
    assert manifest(results, names[2])[COUNTED] == {"10": N, "30": N}
    # All lists probed are exact ones.
    exact = np.load(results / "03_exact_indices.npy")
    ids = np.load(results / "04_hnsw" / names[2] / "k0030_indices.npy")
    np.testing.assert_array_equal(ids, exact[:, :30])
    assert len(list((results / "04_hnsw/PQ8x4fs").glob("*_reported.npy"))) == 2
    again = call(*flags, "--m", "9")
    assert again.count("up to date") == 4, "M is of the graphs of libraries"


# pgvector.

PGVECTOR = ("pgvector_M8_efc40_ef40", "pgvector_M8_efc40_ef40_iterative_scan_strict_order")
IN_PGVECTOR = ("--m", "8", "--ef-construction", "40", "--k", "10", "40", "60")


def test_pgvector_in_its_own_server(results, call):
    texts = ("pgvector:40", "pgvector:40,iterative_scan=strict_order")
    flags = (*IN_PGVECTOR, "--runs", *texts, "--save-index")
    out = call(*flags)
    assert folders(results) == list(PGVECTOR), "and no index"
    assert out.count("pgvector_M8_efc40 lives in its server: --save-index does not keep it") == 1
    for name, is_full in zip(PGVECTOR, (False, True), strict=True):
        recorded = manifest(results, name)
        assert (recorded["timed"], recorded["graph"]["compressed"]) == ("at the client", False)
        assert COUNTED not in recorded and "postgresql:" not in json.dumps(recorded)
        made = recorded["effective_ef"]["60"]
        assert (made["ef_search"], made["candidates"]) == (40, 61 if is_full else 40)
        for k in (10, 60):
            ids = np.load(results / "04_hnsw" / name / f"k{k:04d}_indices.npy")
            # Of 40 rows one is the query.
            assert (ids >= 0).sum(axis=1).max() == (k if is_full else min(k, 39))
            share = found(ids).mean()
            assert share > 0.95 if is_full or k == 10 else 0.5 < share < 0.66
    assert call(*flags).count("up to date") == 2


def test_pgvector_in_a_server_of_the_users_starts_over_when_interrupted(
    results, call, drive, monkeypatch
):
    monkeypatch.setattr(search, "embedded_server", lambda: pytest.fail("a server of its own"))
    searched, seen, compute = [], [], SearchIndex.__call__
    with embedded_server() as url, psycopg.connect(url, autocommit=True) as connection:

        def schemas():
            query = "select nspname from pg_namespace where nspname like 'drift%'"
            return connection.execute(query).fetchall()

        def record(task, block):
            searched.append(block.ks)
            seen.extend(schemas())
            return compute(task, block)

        monkeypatch.setattr(SearchIndex, "__call__", record)
        flags = (*IN_PGVECTOR, "--runs", "pgvector:40", "--postgres", url)
        with interrupted(2):
            assert drive(SCRIPT, *flags, results=results)[0] == 130
        assert (searched, schemas()) == ([(10,), (40,)], []) and len(set(seen)) == 1
        searched.clear()
        call(*flags)
        assert searched == [(10,), (40,), (60,)], "what was searched in another index too"
        assert schemas() == [] and len(set(seen)) == 2
    assert url not in (results / "04_hnsw" / PGVECTOR[0] / "run.json").read_text()
    none = ("--runs", "pgvector:40", "--postgres", "postgresql://me:secret@127.0.0.1:1/none")
    err = call(*IN_PGVECTOR, *none, "--force", fails=True)
    assert "PostgreSQL at 127.0.0.1" in err and "secret" not in err
