"""Stage 04: the same queries asked of an HNSW index, anew for each k of the grid.

reads   results/02_embeddings.npy, results/03_queries.npy, results/03_exact_indices.npy
writes  results/04_hnsw/RUN/kKKKK_indices.npy    int32 (Q, k); -1 for a missing one
        results/04_hnsw/RUN/kKKKK_distances.npy  float32 (Q, k); +inf for a missing one
        results/04_hnsw/RUN/run.json             the manifest (RUN: faiss_M32_efc200_ef50)

examples
  python 04_hnsw_search.py
  python 04_hnsw_search.py --runs faiss:200 hnswlib:2k    two more runs, beside those that are there
  python 04_hnsw_search.py --runs faiss:50 --m 16 --k-max 100 --replace
  python 04_hnsw_search.py --save-index                   later runs need not build the graph again
  python 04_hnsw_search.py --scheduler tcp://host:8786    on the workers of a Dask cluster
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from drift import InputError, blocks, cluster, stage
from drift.artifacts import ArtifactError, Results, load_array
from drift.draft import Draft
from drift.hnsw import (
    BACKENDS,
    Graph,
    HnswIndex,
    HnswRun,
    NeighborLists,
    hnsw_neighbors,
    list_length,
    searches,
)
from drift.neighborhoods import neighborhood_overlap

# One search: the ks whose lists it gives, efSearch, the first query and the one after the last.
Unit = tuple[tuple[int, ...], int, int, int]
Found = tuple[dict[int, NeighborLists], float]


class Search(blocks.Portable):
    """Search a block of queries in an index, which is given, or read from a file when needed."""

    def __init__(
        self,
        embeddings: Path,
        queries: Path,
        include_self: bool,
        graph: Graph,
        index: HnswIndex | Path,
    ):
        self.embeddings, self.queries = load_array(embeddings), load_array(queries)
        self.include_self, self.graph, self.index = include_self, graph, index

    def __call__(self, unit: Unit) -> Found:
        ks, ef, start, stop = unit
        if isinstance(self.index, Path):
            backend = BACKENDS[self.graph.backend]
            self.index = backend.load(self.index, self.embeddings, self.graph)
        queries = self.queries[start:stop]
        return hnsw_neighbors(self.index, self.embeddings, queries, ks, ef, self.include_self)


def arguments() -> argparse.ArgumentParser:
    parser = stage.parser(__doc__)
    stage.add_scheduler(parser)
    add = parser.add_argument
    whole = stage.integer(1)
    add(
        "--runs",
        nargs="+",
        default=["faiss:50", "faiss:k", "hnswlib:50"],
        metavar="BACKEND:EF",
        help="faiss or hnswlib, and efSearch: a number, k for the list's length, or 2k, 3k, ...",
    )
    add("--m", type=stage.integer(2, 10_000), default=32, metavar="M", help="links of a node")
    add(
        "--ef-construction",
        type=stage.integer(1, 10**6),
        default=200,
        metavar="EF",
        help="breadth of the build",
    )
    add("--k-min", type=whole, default=10, metavar="K", help="first k of the grid")
    add("--k-max", type=whole, metavar="K", help="last k; without it, stage 03's")
    add("--k-step", type=whole, default=10, metavar="K", help="step of the grid")
    add("--build-threads", type=whole, default=1, metavar="N", help="above 1: not reproducible")
    add("--save-index", action="store_true", help="keep the graph beside its run, for later runs")
    add("--replace", action="store_true", help="clear the runs that are not asked for")
    return parser


def main(args: argparse.Namespace) -> None:
    results = Results(args.results)
    inputs = results.require("02_embeddings.npy", "03_queries.npy", "03_exact_indices.npy")
    exact = results.manifest("03_exact")["parameters"]
    grid = k_grid(args, exact["k_max"])
    runs = [parse_run(text, args) for text in dict.fromkeys(args.runs)]
    embeddings, queries = results.load("02_embeddings.npy"), results.load("03_queries.npy")

    todo = []
    for run in sorted(runs, key=lambda run: run.graph.backend):
        parameters = {
            "backend": run.graph.backend,
            "M": run.graph.M,
            "ef_construction": run.graph.ef_construction,
            "ef_search": run.ef_search if run.ef_search.endswith("k") else int(run.ef_search),
            "seed": run.graph.seed,
            "build_threads": run.graph.build_threads,
            "k_grid": grid,
            "include_self": exact["include_self"],
        }
        name = f"04_hnsw/{run.name}"
        kept_index = f"{name}/index.{run.graph.backend}"
        has_index = kept_index in (results.manifest(name) or {"outputs": ()})["outputs"]
        force = args.force or (args.save_index and not has_index)
        if not stage.up_to_date(results, name, parameters, inputs, force):
            todo.append((run, parameters, kept_index if args.save_index or has_index else None))

    # A graph is made when the first of its runs needs it, and let go when the last one is done.
    index, search, facts = None, None, {}
    reads = [results.path(name) for name in inputs]
    with cluster.connect(args.scheduler if todo else None, reads, args.threads) as workers:
        for run, parameters, kept_index in todo:
            if search is None or search.graph != run.graph:
                index = search = None  # two graphs need not fit in memory
                index, facts = make_index(results, run.graph, embeddings)
                search = Search(
                    results.path("02_embeddings.npy").absolute(),
                    results.path("03_queries.npy").absolute(),
                    exact["include_self"],
                    run.graph,
                    index if workers is None else handed_over(results, run.graph, index),
                )
            draft = Draft(results, f"04_hnsw/{run.name}", parameters, inputs, fresh=args.force)
            seconds, in_all = search_grid(draft, run, search, grid, workers)
            if kept_index:
                index.save(draft.path(kept_index))
            lengths = {k: list_length(k, exact["include_self"]) for k in grid}
            draft.publish(
                **facts,
                search_seconds=seconds,
                search_seconds_in_all=in_all,
                queries_per_second={k: len(queries) / seconds[k] for k in grid},
                effective_ef={k: run.effective_ef(lengths[k]) for k in grid},
                peak_memory_bytes=stage.peak_memory(),
            )
    for backend in BACKENDS:
        handover(results, backend).unlink(missing_ok=True)

    if args.replace:
        kept = {run.name for run in runs}
        for folder in results.path("04_hnsw").iterdir():
            if folder.is_dir() and folder.name not in kept:
                results.remove_run(folder.name)
    stage.report(f"runs in {results.path('04_hnsw')}", summary(results, runs, grid))


def parse_run(text: str, args: argparse.Namespace) -> HnswRun:
    """A run from ``faiss:50`` or ``hnswlib:k``."""
    backend, _, ef_search = text.partition(":")
    return HnswRun(
        Graph(backend, args.m, args.ef_construction, args.seed, args.build_threads), ef_search
    )


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
        raise InputError(f"the grid is empty: it starts at --k-min {args.k_min}, ends at {k_max}")
    return grid


def make_index(
    results: Results, graph: Graph, embeddings: np.ndarray
) -> tuple[HnswIndex, dict[str, Any]]:
    """Load a graph that a run has kept, or build it; and what is to be said of it."""
    backend = BACKENDS[graph.backend]
    wanted = {key: getattr(graph, key) for key in ("M", "ef_construction", "seed", "build_threads")}
    for name, manifest in results.runs()[0].items():
        kept = f"04_hnsw/{name}/index.{graph.backend}"
        if kept in manifest["outputs"] and wanted.items() <= manifest["parameters"].items():
            try:
                results.require(kept)
            except ArtifactError:
                print(f"{results.path(kept)} is damaged: the graph is built anew")
                continue
            print(f"graph loaded from {results.path(kept)}")
            index = backend.load(results.path(kept), embeddings, graph)
            return index, {fact: manifest[fact] for fact in ("build_seconds", "graph")}
    begun = time.perf_counter()
    index = backend.build(embeddings, graph)
    return index, {"build_seconds": time.perf_counter() - begun, "graph": index.statistics()}


def handover(results: Results, backend: str) -> Path:
    """Where an index lies for the workers of a cluster to read."""
    return results.path(".draft").absolute() / f"index.{backend}"


def handed_over(results: Results, graph: Graph, index: HnswIndex) -> Path:
    """Save an index for the workers of a cluster."""
    path = handover(results, graph.backend)
    path.parent.mkdir(exist_ok=True)
    index.save(path)
    return path


def search_grid(
    draft: Draft, run: HnswRun, search: Search, grid: list[int], workers: blocks.Workers | None
) -> tuple[dict[int, float], float]:
    """Search what the draft does not hold yet, store it; the seconds for each k, and in all.

    A search that several k share counts for each of them, and once in all.
    """
    n, d = len(search.queries), search.embeddings.shape[1]
    dtypes = {"indices": np.int32, "distances": np.float32}

    def output(k: int, part: str) -> np.memmap:
        # Mapped anew for each block: the pages of a mapping count as memory as long as it lives.
        return draft.array(f"04_hnsw/{run.name}/k{k:04d}_{part}.npy", (n, k), dtypes[part])

    def store(unit: Unit, found: Found) -> dict[str, float]:
        (ks, _, start, stop), (lists, seconds) = unit, found
        for k in ks:
            for part, of_part in lists[k]._asdict().items():
                array = output(k, part)
                array[start:stop] = of_part
                array.flush()
        return {"seconds": seconds}

    for k in grid:
        for part in dtypes:
            output(k, part)  # the room for all of them is asked for at once
    rows = blocks.row_blocks(n, d * 4 + max(grid) * 32)
    units = []
    for ks in searches(grid, run, search.include_self):
        ef = run.ef(list_length(max(ks), search.include_self))
        units += [(ks, ef, *block) for block in rows]
    blocks.run(units, search, store, draft, run.name, workers)
    seconds = dict.fromkeys(grid, 0.0)
    for unit in units:
        for k in unit[0]:
            seconds[k] += draft.done[str(unit)]["seconds"]
    return seconds, sum(draft.done[str(unit)]["seconds"] for unit in units)


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
                    "found": (ann >= 0).mean(),
                    "queries/s": manifest["queries_per_second"][str(k)],
                    "build s": manifest["build_seconds"],
                }
            )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    stage.run(main, arguments())
