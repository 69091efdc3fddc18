"""Time stage 04 against the bare library calls that it must make, for each library.

    python benchmarks/backends.py [--rows 10000] [--dim 1280] [--queries all] [--k 50 250]
    python benchmarks/backends.py --from-file x.npy --runs faiss:50 pgvector:50 --places

Vectors are imported into a results folder of their own and stage 03 runs once. Then, in every round
and for each run, stage 04 is a process with that run alone, and after it the same build and the
same searches by the library's own functions are a process that does nothing else: same settings,
same threads. Both speak to one PostgreSQL, started before; there the bare calls are the same
statements over as many connections. The table holds medians over rounds, and of their ratios. On a
machine that other programs use too, the ratio of the processors' time says more than that of time;
for pgvector it is the client's. "Start" is what both take with next to no vectors: Python, the
packages, reading and checking files. "Ratio without" is that of the rest.

Of a factory string that is no flat HNSW graph stage 04 also computes the distances, and of
compressed vectors it keeps those that were reported too: the bare calls do not include that.

With --places a second table holds queries/s at the smallest k as run.json says them, of each run
when it is the first one that a process searches, and when it is the last one: medians over rounds,
and their ratio, which is 1 where the order does not matter. The graphs are saved for that, so
pgvector, whose graphs are not, is left out.
"""

import argparse
import contextlib
import itertools
import json
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.machine import machine, timed
from benchmarks.vectors import clustered
from drift.indexes.registry import parse_run
from drift.indexes.run import FAISS_NAMES, Value
from drift.indexes.search import group_shared_searches
from drift.protocols import Protocol

RUNS = ["faiss:50", "hnswlib:50", "usearch:50", "pgvector:50", "IVF256,Flat:nprobe=8"]
RUNS += ["HNSW32_SQ8:efSearch=50"]
M, EF_CONSTRUCTION = 32, 200
Searches = list[tuple[int, dict[str, Value]]]  # lengths of lists, and settings for them


def bare(path: Path, queries: Path, text: str, ks: list[int], url: str) -> None:
    """Build a run's index and search it with every list length that the run needs."""
    x, rows = np.load(path), np.load(queries)
    run = parse_run(text, M, EF_CONSTRUCTION)
    searches = [
        (Protocol.STUDY.list_length(k), run.values(Protocol.STUDY.policy_length(k)))
        for k in map(max, group_shared_searches(ks, run, Protocol.STUDY))
    ]
    if run.library == "faiss":
        bare_faiss(x, x[rows], searches, run.factory)
    elif run.library == "hnswlib":
        bare_hnswlib(x, x[rows], searches)
    elif run.library == "usearch":
        bare_usearch(x, x[rows], searches)
    else:
        bare_pgvector(x, x[rows], searches, url)


def bare_faiss(x: np.ndarray, points: np.ndarray, searches: Searches, factory: str | None) -> None:
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    if factory:
        index = faiss.index_factory(x.shape[1], factory)
        index.train(x)
    else:
        index = faiss.IndexHNSWFlat(x.shape[1], M)
        index.hnsw.efConstruction = EF_CONSTRUCTION
    index.add(x)
    faiss.omp_set_num_threads(threads)
    for length, settings in searches:
        for name, value in settings.items():
            faiss.ParameterSpace().set_index_parameter(index, FAISS_NAMES.get(name, name), value)
        index.search(points, length)


def bare_hnswlib(x: np.ndarray, points: np.ndarray, searches: Searches) -> None:
    import hnswlib

    index = hnswlib.Index("l2", x.shape[1])
    index.init_index(len(x), M, EF_CONSTRUCTION)
    index.add_items(x, num_threads=1)
    for length, settings in searches:
        index.set_ef(max(settings["ef_search"], length))
        index.knn_query(points, length, num_threads=faiss.omp_get_max_threads())


def bare_usearch(x: np.ndarray, points: np.ndarray, searches: Searches) -> None:
    from usearch.index import Index

    index = Index(
        ndim=x.shape[1],
        metric="l2sq",
        dtype="f32",
        connectivity=M,
        expansion_add=EF_CONSTRUCTION,
    )
    index.add(np.arange(len(x)), x, threads=1)
    for length, settings in searches:
        index.expansion_search = settings["ef_search"]
        index.search(points, length, threads=faiss.omp_get_max_threads())


def bare_pgvector(x: np.ndarray, points: np.ndarray, searches: Searches, url: str) -> None:
    import psycopg
    from pgvector import Vector
    from pgvector.psycopg import register_vector

    def connect() -> psycopg.Connection:
        connection = psycopg.connect(url, autocommit=True)
        register_vector(connection)
        connection.execute("set enable_seqscan = off")
        connection.execute("set plan_cache_mode = force_generic_plan")
        return connection

    def search(connection: psycopg.Connection, part: np.ndarray, length: int) -> list:
        lists = []
        for point in part:
            cursor = connection.cursor(binary=True)
            cursor.execute(
                "select id, vector_l2_squared_distance(embedding, %(point)b)::real from bare"
                f" order by embedding <-> %(point)b limit {length}",
                {"point": Vector(point)},
                prepare=True,
            )
            lists.append(cursor.fetchall())
        return lists

    owner = connect()
    owner.execute("drop table if exists bare")
    owner.execute(
        f"create unlogged table bare (id integer, embedding vector({x.shape[1]}))"
        " with (autovacuum_enabled = off, parallel_workers = 0)"
    )
    owner.execute("alter table bare alter column embedding set storage plain")
    with owner.cursor().copy("copy bare from stdin with (format binary)") as copy:
        copy.set_types(["int4", "vector"])
        for row, vector in enumerate(x):
            copy.write_row((row, Vector(vector)))
    owner.execute(f"set maintenance_work_mem = '{256 + (x.nbytes >> 19)}MB'")
    owner.execute("set max_parallel_maintenance_workers = 0")
    owner.execute(
        "create index on bare using hnsw (embedding vector_l2_ops)"
        f" with (m = {M}, ef_construction = {EF_CONSTRUCTION})"
    )
    parts = np.array_split(points, faiss.omp_get_max_threads())
    connections = [connect() for _ in parts]
    with ThreadPoolExecutor(len(parts)) as pool:
        for length, settings in searches:
            for connection in connections:
                for name, value in settings.items():
                    connection.execute(f"set hnsw.{name} = {value}")
            list(pool.map(search, connections, parts, itertools.repeat(length)))
    owner.execute("drop table bare")


def prepare(results: Path, x: np.ndarray, queries: str, k_max: int) -> None:
    """Stages 02 and 03 on some vectors."""
    results.mkdir()
    np.save(results / "x.npy", x)
    timed("02_embed_resnet50.py", "--results", results, "--from-file", results / "x.npy")
    timed("03_exact_knn.py", "--results", results, "--queries", queries, "--k-max", f"{k_max}")


def compare(results: Path, run: str, ks: list[int], url: str) -> tuple[np.ndarray, np.ndarray]:
    """Seconds that stage 04 takes for a run and those of the processors, then of the bare calls."""
    which = ("--k", *map(str, ks), "--runs", run)
    server = ("--postgres", url) if run.startswith("pgvector") else ()
    stage = timed("04_hnsw_search.py", "--results", results, "--force", *which, *server)
    files = (results / "02_embeddings.npy", results / "03_queries.npy")
    calls = timed(__file__, "--bare", *files, url, *which)
    return np.array(stage[:2]), np.array(calls[:2])


def speeds_by_place(results: Path, runs: list[str], k: int, rounds: int) -> pd.DataFrame:
    """Queries per second at one k of each run, as the first and as the last of a process."""
    names = {run: parse_run(run, M, EF_CONSTRUCTION).name for run in runs}
    folders = {run: results / "04_hnsw" / name for run, name in names.items()}
    stage = ("04_hnsw_search.py", "--results", results, "--k", f"{k}", "--save-index", "--runs")
    timed(*stage, *runs)
    rows = []
    for _ in range(rounds):
        for first, last in zip(runs, [*runs[1:], runs[0]], strict=True):
            for folder in folders.values():  # with --force the graphs would be built again
                shutil.rmtree(folder, ignore_errors=True)
            timed(*stage, first, last)
            for place, run in (("first", first), ("last", last)):
                manifest = json.loads((folders[run] / "run.json").read_text())
                speeds = manifest["queries_per_second"]
                rows.append({"run": run, "place": place, "queries/s": speeds[f"{k}"]})
    medians = pd.DataFrame(rows).pivot_table("queries/s", "run", "place", "median")
    return medians.assign(ratio=medians["first"] / medians["last"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=1280)
    parser.add_argument("--from-file", type=Path, help="vectors of one's own, float32")
    parser.add_argument("--queries", default="all", help="as for stage 03")
    parser.add_argument("--k", type=int, nargs="+", default=[50, 250])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--runs", nargs="+", default=RUNS)
    parser.add_argument("--places", action="store_true", help="the second table too")
    parser.add_argument("--bare", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.bare:
        path, queries, url = args.bare
        bare(Path(path), Path(queries), args.runs[0], args.k, url)
        return
    with contextlib.ExitStack() as stack:
        folder, url = Path(stack.enter_context(tempfile.TemporaryDirectory())), ""
        x = np.load(args.from_file) if args.from_file else clustered(args.rows, args.dim)
        few = clustered(500, 8)
        prepare(folder / "large", x, args.queries, max(args.k))
        prepare(folder / "small", few, "100", max(args.k))
        if any(run.startswith("pgvector") for run in args.runs):
            from drift.pipeline.postgres import embedded_server

            url = stack.enter_context(embedded_server())
        rows = []
        for _ in range(args.rounds):
            for run in args.runs:
                stage, calls = compare(folder / "large", run, args.k, url)
                fixed_stage, fixed_calls = compare(folder / "small", run, args.k, url)
                rows.append(
                    {
                        "run": run,
                        "stage 04": stage[0],
                        "bare calls": calls[0],
                        "ratio": stage[0] / calls[0],
                        "of processor time": stage[1] / calls[1],
                        "start": fixed_stage[0],
                        "bare start": fixed_calls[0],
                        "ratio without": (stage - fixed_stage)[0] / (calls - fixed_calls)[0],
                    }
                )
        ks = ", ".join(map(str, args.k))
        print(f"{len(x)} x {x.shape[1]}, {args.queries} queries, k = {ks}; seconds; {machine()}")
        table = pd.DataFrame(rows).groupby("run", sort=False).median()
        print(table.round(2).to_string())
        saved = [run for run in args.runs if not run.startswith("pgvector")]
        if args.places and len(saved) > 1:
            speeds = speeds_by_place(folder / "large", saved, min(args.k), args.rounds)
            print(f"\nqueries/s at k = {min(args.k)}\n{speeds.round(2).to_string()}")


if __name__ == "__main__":
    main()
