"""Time stage 04 against the bare library calls that it must make, and its speeds in another order.

    python benchmarks/hnsw.py [--rows 10000] [--dim 1280] [--rounds 3] [--runs faiss:50 ...]
    python benchmarks/hnsw.py --from-file x.npy

Vectors are imported into a results folder of their own, stage 03 runs once, and then in every round
stage 04 as a process, and after it the same builds and searches by the libraries' own functions in
a process that does nothing else. The table holds the median over rounds, and of the ratios.

A second table holds queries/s at k = 10 as run.json says them, of each run when it is the first one
that a process searches, and when it is the last one: medians over rounds, and their ratio, which is
1 where the order does not matter. The graphs are saved, so that the processes are short.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import faiss
import hnswlib
import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.vectors import clustered
from drift.indexes.config import SearchConfig
from drift.indexes.search import group_shared_searches
from drift.protocols import Protocol

ROOT = Path(__file__).parent.parent
GRID = range(10, 251, 10)


def bare(path: Path, runs: list[str]) -> None:
    """Build each library's graph once and search it with every list length that the runs need."""
    x = np.load(path)
    indexes = {}
    for run in runs:
        config = SearchConfig.parse(run, 32, 200)
        backend = config.graph.backend
        if backend not in indexes:
            if backend == "faiss":
                index = faiss.IndexHNSWFlat(x.shape[1], 32)
                index.hnsw.efConstruction = 200
                threads = faiss.omp_get_max_threads()
                faiss.omp_set_num_threads(1)
                index.add(x)
                faiss.omp_set_num_threads(threads)
            else:
                index = hnswlib.Index("l2", x.shape[1])
                index.init_index(len(x), 32, 200)
                index.add_items(x, num_threads=1)
            indexes[backend] = index
        index = indexes[backend]
        for ks in group_shared_searches(GRID, config, Protocol.STUDY):
            length = Protocol.STUDY.list_length(max(ks))
            if backend == "faiss":
                parameters = faiss.SearchParametersHNSW(efSearch=config.ef(length))
                index.search(x, length, params=parameters)
            else:
                index.set_ef(max(config.ef(length), length))
                index.knn_query(x, length)


def timed(*command: str | Path) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def speeds_by_place(results: Path, runs: list[str], rounds: int) -> pd.DataFrame:
    """Queries per second at k = 10 of each run, as the first and as the last of a process."""
    folders = {run: results / "04_hnsw" / SearchConfig.parse(run, 32, 200).name for run in runs}
    rows = []
    for _ in range(rounds):
        for first, last in zip(runs, [*runs[1:], runs[0]], strict=True):
            for folder in folders.values():  # with --force the graphs would be built again
                shutil.rmtree(folder, ignore_errors=True)
            timed("04_hnsw_search.py", "--results", results, "--k", "10", "--runs", first, last)
            for place, run in (("first", first), ("last", last)):
                manifest = json.loads((folders[run] / "run.json").read_text())
                speeds = manifest["queries_per_second"]
                rows.append({"run": run, "place": place, "queries/s": speeds["10"]})
    medians = pd.DataFrame(rows).pivot_table("queries/s", "run", "place", "median")
    return medians.assign(ratio=medians["first"] / medians["last"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=1280)
    parser.add_argument("--from-file", type=Path, help="vectors of one's own, float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", nargs="+", default=["faiss:50", "faiss:k,50", "hnswlib:50"])
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.bare:
        bare(args.bare, args.runs)
        return
    with tempfile.TemporaryDirectory() as folder:
        vectors, results = Path(folder) / "x.npy", Path(folder) / "results"
        np.save(
            vectors, np.load(args.from_file) if args.from_file else clustered(args.rows, args.dim)
        )
        timed("02_embed_resnet50.py", "--results", results, "--from-file", vectors)
        timed("03_exact_knn.py", "--results", results)
        rows = []
        for _ in range(args.rounds):
            stage = timed(
                "04_hnsw_search.py", "--results", results, "--force", "--runs", *args.runs
            )
            calls = timed(__file__, "--bare", vectors, "--runs", *args.runs)
            rows.append({"stage 04": stage, "bare calls": calls, "ratio": stage / calls})
        timed("04_hnsw_search.py", "--results", results, "--save-index", "--runs", *args.runs)
        speeds = speeds_by_place(results, args.runs, args.rounds)
    print(f"{args.rows} x {args.dim}, {' '.join(args.runs)}, {args.rounds} rounds")
    print(pd.DataFrame(rows).describe().loc[["min", "50%", "max"]].round(2).to_string())
    print(f"\nqueries/s at k = 10\n{speeds.round(2).to_string()}")


if __name__ == "__main__":
    main()
