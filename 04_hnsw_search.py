"""Stage 04: the same queries asked of an HNSW index, anew for each k of the grid.

reads   results/02_embeddings.npy, results/03_queries.npy, results/03_exact_indices.npy
writes  results/04_hnsw/RUN/kKKKK_indices.npy    int32 (Q, k); -1 for a missing one
        results/04_hnsw/RUN/kKKKK_distances.npy  float32 (Q, k); +inf for a missing one
        results/04_hnsw/RUN/run.json             the manifest (RUN: faiss_M32_efc200_ef50)
        results/04_hnsw/graphs/GRAPH.faiss       with --save-index: a graph, once for all its runs

examples
  python 04_hnsw_search.py
  python 04_hnsw_search.py --runs faiss:200 hnswlib:2k    two more runs, beside those that are there
  python 04_hnsw_search.py --runs faiss:50 --m 16 --k 10 50 100 --replace
  python 04_hnsw_search.py --seeds 0 1 2 3 4              each run on five graphs
  python 04_hnsw_search.py --save-index                   later runs need not build the graph again
  python 04_hnsw_search.py --scheduler tcp://host:8786    on the workers of a Dask cluster
"""

from drift.pipeline import cli  # first: from here on Ctrl-C ends in one line

# isort: split
import argparse
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from drift import InputError
from drift.indexes.config import SearchConfig
from drift.pipeline import runs
from drift.pipeline.blocks import compute_blocks
from drift.pipeline.environment import peak_memory
from drift.pipeline.stage import Stage
from drift.pipeline.tasks.search import (
    SearchIndex,
    built_graph,
    discard_graph,
    mean_overlap_and_found,
)

INPUTS = ("02_embeddings.npy", "03_queries.npy", "03_exact_indices.npy")
LISTS = {"indices": np.int32, "distances": np.float32}


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__, scheduler=True)
    add, whole = parser.add_argument, cli.integer
    add(
        "--runs",
        nargs="+",
        default=["faiss:50", "faiss:k,50", "hnswlib:50"],
        metavar="BACKEND:EF",
        help="faiss or hnswlib, and efSearch: a number; k for the list's length, or 2k, 3k, ...; "
        "k,50 for the same, but at least 50",
    )
    parser.set_defaults(seed=None)
    add(
        "--seeds",
        nargs="+",
        type=whole(0, 2**31 - 1),
        metavar="SEED",
        help="in place of --seed: every run on a graph of each. A seed is an order in which the "
        "rows are inserted, 0 their own (default: 0)",
    )
    add("--m", type=whole(2, 10_000), default=32, metavar="M", help="links of a node")
    add("--ef-construction", type=whole(1, 10**6), default=200, metavar="EF", help="efConstruction")
    add("--build-threads", type=whole(1), default=1, metavar="N", help="above 1: not reproducible")
    cli.add_grid(parser)
    add("--save-index", action="store_true", help="keep the graphs, for later runs")
    add("--replace", action="store_true", help="remove the runs that are not asked for")
    add("--ef-search", "--efsearch", "--ef", type=refuse_ef_search, help=argparse.SUPPRESS)
    return parser


def refuse_ef_search(text: str) -> NoReturn:
    raise argparse.ArgumentTypeError(f"efSearch is part of a run, write --runs faiss:{text}")


def main(args: argparse.Namespace) -> None:
    stage = Stage("04_hnsw", args)
    embeddings, queries, exact = stage.require(*INPUTS)
    exact_parameters = stage.results.manifest("03_exact")["parameters"]
    include_self = exact_parameters["include_self"]
    grid = cli.k_grid(args, exact_parameters["k_max"])
    configs = search_configs(args)
    names, graphs = [c.name for c in configs], dict.fromkeys(c.graph for c in configs)
    runs.announce_overwriting(stage.results, names, grid)
    for graph in graphs:
        parts = {config: stage.part(config.name) for config in configs if config.graph == graph}
        protocol = {"k_grid": grid, "include_self": include_self}
        pending = [config for config in parts if parts[config].begin(config.parameters | protocol)]
        if pending or args.save_index:
            with built_graph(stage, graph) as (index_file, facts):
                for config in pending:
                    task = (embeddings, queries, index_file, config, tuple(grid), include_self)
                    search_grid(parts[config], SearchIndex(*task), exact, facts)
        else:
            discard_graph(stage, graph)
    if args.replace:
        runs.remove_others(stage.results, names, [graph.name for graph in graphs])
    print_summary(stage, configs)


def search_configs(args: argparse.Namespace) -> list[SearchConfig]:
    """Every run that is asked for, on a graph of every seed."""
    if args.seeds and args.seed is not None:
        raise InputError("--seeds is in place of --seed: give one of the two")
    return [
        SearchConfig.parse(text, args.m, args.ef_construction, seed, args.build_threads)
        for seed in dict.fromkeys(args.seeds or [args.seed or 0])
        for text in dict.fromkeys(args.runs)
    ]


def search_grid(run: Stage, task: SearchIndex, exact: Path, facts: dict[str, Any]) -> None:
    """Search for the lists of every k, store them, and note what it took."""
    for k in task.grid:
        for part, dtype in LISTS.items():
            run.create(f"{run.name}/k{k:04d}_{part}.npy", (task.n_queries, k), dtype)
    for block, (lists, cost) in compute_blocks(run, task, task.blocks(), task.config.name):
        rows = (block.start, block.stop)
        for k in block.ks:
            for part in LISTS:
                run.write(f"{run.name}/k{k:04d}_{part}.npy", rows, getattr(lists[k], part))
        run.checkpoint(block, **cost._asdict())
    costs = {block: run.completed[str(block)] for block in task.blocks()}
    shown = (task.grid[0], task.grid[len(task.grid) // 2], task.grid[-1])
    ids = {k: run.output(f"{run.name}/k{k:04d}_indices.npy") for k in shown}
    summary, peak = mean_overlap_and_found(exact, ids), peak_memory()
    run.commit(**facts, **task.facts(costs), peak_memory_bytes=peak, summary=summary)


def print_summary(stage: Stage, configs: list[SearchConfig]) -> None:
    """Print what each run found at the first, the middle and the last k of the grid."""
    rows = []
    for config in configs:
        manifest = stage.results.manifest(f"04_hnsw/{config.name}")
        for k, shares in manifest["summary"].items():
            speed = {"queries/s": manifest["queries_per_second"][k]}
            speed |= {"build s": manifest["build_seconds"]}
            rows.append({"run": config.name, "k": int(k), **shares, **speed})
    cli.print_table(f"runs in {stage.results.path('04_hnsw')}", pd.DataFrame(rows))


if __name__ == "__main__":
    cli.run(main, arguments())
