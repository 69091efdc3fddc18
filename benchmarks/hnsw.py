"""Time stage 04 against the bare library calls that it must make.

    python benchmarks/hnsw.py [--rows 10000] [--dim 1280] [--rounds 3] [--runs faiss:50 ...]

Vectors are imported into a results folder of their own, stage 03 runs once, and then in every round
stage 04 as a process, and after it the same builds and searches by the libraries' own functions in
a process that does nothing else. The table holds the median over rounds, and of the ratios.
"""

import argparse
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

ROOT = Path(__file__).parent.parent
GRID = range(10, 251, 10)


def bare(path: Path, runs: list[str]) -> None:
    """Build each library's graph once and search it with every list length that the runs need."""
    x = np.load(path)
    indexes = {}
    for run in runs:
        backend, ef = run.split(":")
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
        lengths = [k + 1 for k in GRID]
        if ef != "k":
            # One search gives all lists that are no longer than efSearch.
            short = [length for length in lengths if length <= int(ef)]
            lengths = short[-1:] + lengths[len(short) :]
        for length in lengths:
            breadth = length if ef == "k" else int(ef)
            if backend == "faiss":
                parameters = faiss.SearchParametersHNSW(efSearch=breadth)
                index.search(x, length, params=parameters)
            else:
                index.set_ef(max(breadth, length))
                index.knn_query(x, length)


def timed(*command: str | Path) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=1280)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", nargs="+", default=["faiss:50", "faiss:k", "hnswlib:50"])
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.bare:
        bare(args.bare, args.runs)
        return
    with tempfile.TemporaryDirectory() as folder:
        vectors, results = Path(folder) / "x.npy", Path(folder) / "results"
        np.save(vectors, clustered(args.rows, args.dim))
        timed("02_embed_resnet50.py", "--results", results, "--from-file", vectors)
        timed("03_exact_knn.py", "--results", results)
        rows = []
        for _ in range(args.rounds):
            stage = timed(
                "04_hnsw_search.py", "--results", results, "--force", "--runs", *args.runs
            )
            calls = timed(__file__, "--bare", vectors, "--runs", *args.runs)
            rows.append({"stage 04": stage, "bare calls": calls, "ratio": stage / calls})
    print(f"{args.rows} x {args.dim}, {' '.join(args.runs)}, {args.rounds} rounds")
    print(pd.DataFrame(rows).describe().loc[["min", "50%", "max"]].round(2).to_string())


if __name__ == "__main__":
    main()
