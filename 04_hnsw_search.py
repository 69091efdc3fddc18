"""Stage 04: the same queries asked of an HNSW index, anew for each k of the grid.

reads   results/02_embeddings.npy, results/03_queries.npy, results/03_exact_indices.npy
writes  results/04_hnsw/RUN/kKKKK_indices.npy    int32 (Q, k); -1 for a missing one
        results/04_hnsw/RUN/kKKKK_distances.npy  float32 (Q, k); +inf for a missing one
        results/04_hnsw/RUN/run.json             the manifest (RUN: faiss_M32_efc200_ef50)

examples
  python 04_hnsw_search.py
  python 04_hnsw_search.py --runs faiss:200 hnswlib:k     two more runs, beside those that are there
  python 04_hnsw_search.py --runs faiss:50 --m 16 --k-max 100 --replace
"""

import argparse
import shutil
import time

import numpy as np
import pandas as pd

from drift import InputError, blocks, stage
from drift.artifacts import Draft, Results
from drift.hnsw import BACKENDS, HnswIndex, HnswNeighbors, HnswRun, hnsw_neighbors
from drift.metrics import found, neighborhood_overlap


def arguments() -> argparse.ArgumentParser:
    parser = stage.parser(__doc__)
    parser.add_argument(
        "--runs",
        nargs="+",
        default=["faiss:50", "faiss:k", "hnswlib:50"],
        metavar="BACKEND:EF",
        help="faiss or hnswlib, and efSearch: a number, or k for the list's length",
    )
    parser.add_argument(
        "--m", type=stage.integer(2), default=32, metavar="M", help="links of a node"
    )
    parser.add_argument(
        "--ef-construction",
        type=stage.integer(1),
        default=200,
        metavar="EF",
        help="breadth of the build",
    )
    parser.add_argument(
        "--k-min", type=stage.integer(1), default=10, metavar="K", help="first k of the grid"
    )
    parser.add_argument(
        "--k-max", type=stage.integer(1), metavar="K", help="last k; without it, stage 03's"
    )
    parser.add_argument(
        "--k-step", type=stage.integer(1), default=10, metavar="K", help="step of the grid"
    )
    parser.add_argument(
        "--build-threads",
        type=stage.integer(1),
        default=1,
        metavar="N",
        help="more than one: not reproducible",
    )
    parser.add_argument(
        "--replace", action="store_true", help="clear the runs that are not asked for"
    )
    return parser


def main(args: argparse.Namespace) -> None:
    results = Results(args.results)
    inputs = results.require("02_embeddings.npy", "03_queries.npy", "03_exact_indices.npy")
    exact = results.manifest("03_exact")["parameters"]
    grid = k_grid(args, exact["k_max"])
    runs = [parse_run(text, args) for text in dict.fromkeys(args.runs)]
    embeddings, queries = results.load("02_embeddings.npy"), results.load("03_queries.npy")

    # The graph of a backend is built when its first run needs it, and let go when the backend's
    # last is done.
    backend, index, build_seconds = None, None, 0.0
    for run in sorted(runs, key=lambda run: run.backend):
        parameters = {
            "backend": run.backend,
            "M": run.M,
            "ef_construction": run.ef_construction,
            "ef_search": run.ef_search,
            "seed": run.seed,
            "build_threads": args.build_threads,
            "k_grid": grid,
            "include_self": exact["include_self"],
        }
        if stage.up_to_date(results, f"04_hnsw/{run.name}", parameters, inputs, args.force):
            continue
        if backend != run.backend:
            index = None  # two graphs need not fit in memory
            backend, begun = run.backend, time.perf_counter()
            index = BACKENDS[backend](
                embeddings, run.M, run.ef_construction, run.seed, args.build_threads
            )
            build_seconds = time.perf_counter() - begun
        draft = results.draft(f"04_hnsw/{run.name}", parameters, inputs, fresh=args.force)
        search_grid(draft, run, index, embeddings, queries, grid, exact["include_self"])
        seconds = {k: draft.done[str(k)]["seconds"] for k in grid}
        draft.publish(
            build_seconds=build_seconds,
            search_seconds=seconds,
            queries_per_second={k: len(queries) / seconds[k] for k in grid},
            peak_memory_bytes=stage.peak_memory(),
        )

    if args.replace:
        kept = {run.name for run in runs}
        for folder in results.path("04_hnsw").iterdir():
            if folder.name not in kept:
                shutil.rmtree(folder)
    stage.report(f"runs in {results.path('04_hnsw')}", summary(results, runs, grid))


def parse_run(text: str, args: argparse.Namespace) -> HnswRun:
    """A run from ``faiss:50`` or ``hnswlib:k``."""
    backend, _, ef = text.partition(":")
    if backend not in BACKENDS or not (ef == "k" or (ef.isdecimal() and int(ef) > 0)):
        raise InputError(
            f"--runs {text} is no run: write BACKEND:EF, BACKEND one of {', '.join(BACKENDS)}, "
            "EF a whole number or k"
        )
    ef_search = ef if ef == "k" else int(ef)
    return HnswRun(backend, args.m, args.ef_construction, ef_search, args.seed)


def k_grid(args: argparse.Namespace, exact_k: int) -> list[int]:
    """The grid of k, within what stage 03 holds."""
    k_max = exact_k if args.k_max is None else args.k_max
    if k_max > exact_k:
        raise InputError(
            f"--k-max {k_max} is more than the {exact_k} exact neighbors of stage 03: "
            f"run 03_exact_knn.py --k-max {k_max} first"
        )
    grid = list(range(args.k_min, k_max + 1, args.k_step))
    if not grid:
        raise InputError(
            f"the grid is empty: it starts at --k-min {args.k_min} and ends at {k_max}"
        )
    return grid


def search_grid(
    draft: Draft,
    run: HnswRun,
    index: HnswIndex,
    embeddings: np.ndarray,
    queries: np.ndarray,
    grid: list[int],
    include_self: bool,
) -> None:
    """Search each k that the draft does not hold yet, and store its lists there."""
    folder = f"04_hnsw/{run.name}"
    indices = {
        k: draft.array(f"{folder}/k{k:04d}_indices.npy", (len(queries), k), np.int32) for k in grid
    }
    distances = {
        k: draft.array(f"{folder}/k{k:04d}_distances.npy", (len(queries), k), np.float32)
        for k in grid
    }

    def search(k: int) -> HnswNeighbors:
        return hnsw_neighbors(index, embeddings, queries, k, run.ef_search, include_self)

    def store(k: int, neighbors: HnswNeighbors) -> dict[str, float]:
        indices[k][:], distances[k][:] = neighbors.indices, neighbors.distances
        indices[k].flush()
        distances[k].flush()
        return {"seconds": neighbors.search_seconds}

    blocks.run(grid, search, store, draft, run.name)


def summary(results: Results, runs: list[HnswRun], grid: list[int]) -> pd.DataFrame:
    """What each run found at the first, the middle and the last k of the grid."""
    exact = results.load("03_exact_indices.npy")
    rows = []
    for run in runs:
        manifest = results.manifest(f"04_hnsw/{run.name}")
        for k in sorted({grid[0], grid[len(grid) // 2], grid[-1]}):
            ann = results.load(f"04_hnsw/{run.name}/k{k:04d}_indices.npy")
            rows.append(
                {
                    "run": run.name,
                    "k": k,
                    "overlap": neighborhood_overlap(exact[:, :k], ann).mean(),
                    "found": found(ann).mean(),
                    "queries/s": manifest["queries_per_second"][str(k)],
                    "build s": manifest["build_seconds"],
                }
            )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    stage.run(main, arguments())
