"""pgvector in a PostgreSQL of its own: the lists it returns, and what is left when all ends."""

import os
import signal
import subprocess
import sys
import traceback
from contextlib import closing

import numpy as np
import psycopg
import pytest
from pgvector import Vector

from drift import InputError
from drift.indexes.pgvector_hnsw import PgvectorHnsw
from drift.indexes.registry import parse_run
from drift.pipeline import INTERRUPTED
from drift.pipeline.postgres import embedded_server
from tests.conftest import ROOT, process, shell, within_ten_seconds

N, D = 600, 16
BUILD = """
import sys, time
import numpy as np
from drift.indexes.registry import PgvectorHnsw, parse_run
x = np.eye(4, dtype=np.float32)
index = PgvectorHnsw.build(x, parse_run("pgvector:9", 2, 4), sys.argv[1])
print(index._schema, flush=True)
time.sleep(300)
"""


def normal(n=N, d=D, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def build(url, x, M=16, ef_construction=100, seed=0, build_threads=1):
    run = parse_run("pgvector:50", M, ef_construction, seed, build_threads)
    return closing(PgvectorHnsw.build(x, run, url))


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


@pytest.fixture(scope="module")
def url():
    with embedded_server() as url:
        yield url


@pytest.fixture(scope="module")
def index(url):
    with build(url, normal()) as index:
        yield index


# Lists.


@pytest.mark.parametrize(
    ("n", "d", "column", "number"),
    [(N, D, "vector", np.float32), (50, 2100, "halfvec", np.float16)],
)
def test_a_wide_search_finds_what_an_exact_one_does(url, n, d, column, number):
    x = normal(n, d)
    with build(url, x) as index:
        ids, squared = index.search(x[:30], 20, {"ef_search": 400})
        statistics = index.statistics()
        assert index.search(normal(0, d), 5, {"ef_search": 40})[0].shape == (0, 5)

    stored = x.astype(number).astype(np.float32)
    expected_ids, expected_squared = brute_force(stored, stored[:30], 20)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_allclose(squared, expected_squared, rtol=1e-5)
    assert ids.dtype == np.int64 and squared.dtype == np.float32
    assert index.distance_computations is None
    assert statistics.pop("index_bytes") > n * d * np.dtype(number).itemsize
    assert statistics.pop("server_version") and statistics.pop("pgvector_version")
    assert index.is_compressed is statistics.pop("compressed") is (column == "halfvec")
    assert statistics == {"column_type": column}


def test_lists_end_at_ef_search_unless_an_iterative_scan_goes_on(index):
    points, ef = normal(30, seed=1), {"ef_search": 40}
    for order in ("strict_order", "relaxed_order"):
        ids, squared = index.search(points, 250, {**ef, "iterative_scan": order})
        assert (ids >= 0).all() and (np.diff(squared, axis=1) >= 0).all()
        assert {len(set(row)) for row in ids} == {250}

    # What one search sets does not stay for the next one.
    ids, squared = index.search(points, 250, ef)
    returned = (ids >= 0).sum(axis=1)
    assert returned.max() == 40
    for row_ids, row, m in zip(ids, squared, returned, strict=True):
        assert (row_ids[m:] == -1).all() and np.isinf(row[m:]).all()
        assert len(set(row_ids[:m])) == m and (np.diff(row[:m]) >= 0).all()


@pytest.mark.parametrize("length", [1, 250, N])
def test_lists_come_from_the_graph(index, length):
    index.search(normal(1), length, {"ef_search": 40})

    plan = index._connections[0].execute(
        f"explain {index._statement(length)}", {"point": Vector(normal()[0])}
    )

    plan = "\n".join(line for (line,) in plan)
    assert "Index Scan using graph on vectors" in plan
    assert "Seq Scan" not in plan and "Sort" not in plan


@pytest.mark.parametrize("build_threads", [1, 2])
def test_rows_are_inserted_in_the_order_of_the_seed(url, build_threads):
    x = normal(100)
    for seed in (0, 1):
        with build(url, x, seed=seed, build_threads=build_threads) as index:
            rows = run_sql(url, f"select id from {index._table} order by ctid")
            ids, _ = index.search(x, 1, {"ef_search": 100})
        np.testing.assert_array_equal(ids[:, 0], np.arange(100))
        order = parse_run("pgvector:50", seed=seed).insertion_order(100)
        assert [row for (row,) in rows] == list(order)


def test_another_process_can_search(url, tmp_path):
    x, run, path = normal(), parse_run("pgvector:50"), tmp_path / "graph.pgvector"
    with build(url, x) as index:
        index.save(path)
        with closing(PgvectorHnsw.load(path, x, run)) as loaded:
            lists = [one.search(x[:9], 50, {"ef_search": 60}) for one in (index, loaded)]
            assert loaded.statistics() == index.statistics()
        assert index._schema in schemas(url), "only who built it drops it"
        run_sql(url, f"truncate {index._table}")
        with pytest.raises(InputError, match="has lost the index"):
            PgvectorHnsw.load(path, x, run)

    for one, other in zip(*lists, strict=True):
        np.testing.assert_array_equal(one, other)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(InputError, match="does not exist"):
        PgvectorHnsw.load(path, x, run)


# Limits.


@pytest.mark.parametrize(
    "M, ef_construction, policy, d, reason",
    [
        (1, 200, "50", 9, "M from 2 to 100, not 1"),
        (101, 300, "50", 9, "M from 2 to 100, not 101"),
        (32, 63, "50", 9, "efConstruction from 64 to 1000, not 63"),
        (2, 3, "50", 9, "efConstruction from 4"),
        (32, 1001, "50", 9, "to 1000, not 1001"),
        (32, 200, "1001", 9, "efSearch from 1 to 1000, not 1001"),
        (32, 200, "4k", 9, "efSearch from 1 to 1000, not 1004"),
        (32, 200, "50", 4001, "up to 4000 dimensions, and the vectors have 4001"),
    ],
)
def test_limits(M, ef_construction, policy, d, reason):
    with pytest.raises(InputError, match=reason):
        PgvectorHnsw.check(parse_run(f"pgvector:{policy}", M, ef_construction), d, [10, 251])


@pytest.mark.parametrize("M, ef_construction, d", [(2, 4, 2000), (100, 200, 4000), (2, 1000, 9)])
def test_what_is_within_the_limits(url, M, ef_construction, d):
    for policy in ("1", "1000", "3k,1", "overlap=0.9"):
        PgvectorHnsw.check(parse_run(f"pgvector:{policy}", M, ef_construction), d, [10, 251])
    with build(url, normal(20, d), M, ef_construction) as index:
        for ef_search in (1, 1000):
            index.search(normal(1, d), 1, {"ef_search": ef_search})


def test_what_the_server_refuses_is_said_in_one_line(index):
    with pytest.raises(InputError, match="1001 is outside the valid range") as error:
        index.search(normal(1), 1, {"ef_search": 1001})

    assert "\n" not in str(error.value)
    assert (index.search(normal(1), 1, {"ef_search": 40})[0] >= 0).all()


# What stays behind: nothing.


def test_the_schema_goes_with_the_index(url):
    before, broken = schemas(url), normal(20)
    with pytest.raises(ZeroDivisionError), build(url, normal(20)):
        assert len(schemas(url)) == len(before) + 1
        raise ZeroDivisionError
    assert schemas(url) == before

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
    assert run_sql(mine, "select count(*) from pg_db_role_setting") == [(0,)]


def test_schemas_of_killed_processes_are_dropped(url):
    with build(url, normal(20)) as living, process(BUILD, url) as (child, schema):
        with build(url, normal(20)):
            assert {living._schema, schema} <= schemas(url)
        child.kill()
        child.wait()

        def dropped():
            with build(url, normal(20)):
                return schema not in schemas(url)

        assert within_ten_seconds(dropped)
        assert living._schema in schemas(url)


def test_the_end_of_python_drops_the_schema(url):
    before = schemas(url)
    with process(BUILD.replace("time.sleep(300)", "del index"), url) as (child, schema):
        assert child.wait(20) == 0
    assert schema.startswith("drift_") and schemas(url) == before


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Results of stages 02 and 03 on vectors whose graph takes a while."""
    folder = tmp_path_factory.mktemp("many")
    np.save(folder / "x.npy", normal(20_000, 64))
    shell("02_embed_resnet50.py", "--from-file", folder / "x.npy", results=folder / "results")
    shell("03_exact_knn.py", "--k-max", "10", "--queries", "500", results=folder / "results")
    return folder / "results"


@pytest.mark.parametrize(
    ("moment", "by"),
    [
        ("it builds in a server", signal.SIGINT),
        ("it searches in its own", signal.SIGTERM),
    ],
)
def test_a_stage_that_is_ended_leaves_nothing(moment, by, url, many, tmp_path):
    flags = ["--runs", "pgvector:40", "--k", "10", "--m", "4", "--ef-construction", "8"]
    if moment == "it builds in a server":
        flags = ["--runs", "pgvector:40", "--ef-construction", "1000", "--postgres", url]
    before, lock = schemas(url), many / ".lock"
    command = [sys.executable, ROOT / "04_hnsw_search.py", "--results", many, *flags]
    temporary = {**os.environ, "TMPDIR": str(tmp_path)}
    stage = subprocess.Popen(command, env=temporary, stderr=subprocess.PIPE, text=True)
    while not (is_building(url) or [*tmp_path.glob("*/place.json")]):
        assert stage.poll() is None, stage.stderr.read()
    stage.send_signal(by)
    err = stage.communicate(timeout=60)[1]
    assert (stage.returncode, err) == (128 + by, f"04_hnsw_search.py: {INTERRUPTED}\n")
    assert (schemas(url), [*tmp_path.iterdir()], lock.exists()) == (before, [], False)


# Servers that cannot be used.


@pytest.mark.parametrize(
    "broken, reason",
    [
        ("postgresql://me:secret@127.0.0.1:1/none", "PostgreSQL at 127.0.0.1: .*refused"),
        ("postgresql://me:sec ret@[::1/secret", "the URL of the database is none"),
        *(
            (f"postgresql://me:sec{letter}ret@127.0.0.1:1/none", "none: .* PGPASSWORD or ~/.pgpass")
            for letter in "@/?"
        ),
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


def test_databases_that_cannot_be_used_are_one_line(url):
    plain = database(url, "plain")
    with pytest.raises(InputError, match="has no pgvector: run create extension vector; there"):
        build(plain, normal(20))
    assert run_sql(plain, "select count(*) from pg_extension where extname = 'vector'") == [(0,)]

    run_sql(url, "create role reader login")
    with pytest.raises(InputError, match="permission denied for database postgres"):
        build(url.replace("postgres@", "reader@"), normal(20))


def test_a_server_that_is_gone_is_one_line(url):
    run_sql(mine := database(url, "gone"), "create extension vector")
    with build(mine, normal(20)) as index:
        run_sql(url, "drop database gone with (force)")
        with pytest.raises(InputError, match="PostgreSQL at ") as error:
            index.search(normal(1), 1, {"ef_search": 40})
    assert "\n" not in str(error.value)
