"""Stage 04: the same queries asked of an index, anew for each k of the grid.

reads   results/02_embeddings.npy, results/03_queries.npy, results/03_exact_indices.npy
writes  results/04_hnsw/RUN/kKKKK_indices.npy    int32 (Q, k); -1 for a missing one
        results/04_hnsw/RUN/kKKKK_distances.npy  float32 (Q, k); +inf for a missing one
        results/04_hnsw/RUN/kKKKK_reported.npy   the same as an index of compressed vectors has it
        results/04_hnsw/RUN/run.json             the manifest (RUN: faiss_M32_efc200_ef50)
        results/04_hnsw/graphs/GRAPH.faiss       with --save-index: a graph, once for all its runs

examples
  python 04_hnsw_search.py
  python 04_hnsw_search.py --runs faiss:200 hnswlib:2k    two more runs, beside those that are there
  python 04_hnsw_search.py --runs faiss:0.5k faiss:50,ef_construction=400 --k 10 50 100 --replace
  python 04_hnsw_search.py --runs faiss:overlap=0.99 IVF256,Flat:nprobe=8 usearch:50 pgvector:40
  python 04_hnsw_search.py --seeds 0 1 2 3 4              each run on five graphs
  python 04_hnsw_search.py --lists milvus ids.npy         what another system returned
"""

from drift.pipeline import cli  # first: from here on Ctrl-C ends in one line

# isort: split
import argparse
from typing import NoReturn

import pandas as pd

from drift.pipeline import runs
from drift.pipeline.stage import Stage
from drift.pipeline.tasks.effort import choose_effort, run_part
from drift.pipeline.tasks.exact import QUERY_VECTORS, exact_protocol
from drift.pipeline.tasks.graphs import built_graph, discard_graph
from drift.pipeline.tasks.search import SearchIndex, check_configs, search_configs, store_lists
from drift.protocols import Protocol

INPUTS = ("02_embeddings.npy", "03_queries.npy", "03_exact_indices.npy")


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__, scheduler=True)
    add, whole = parser.add_argument, cli.integer
    add(
        "--runs",
        nargs="+",
        metavar="RUN",
        help="faiss, hnswlib, usearch or pgvector, and its efSearch: a number, k, 2k, 0.25k, k,50, "
        "or overlap=0.99 or lid=0.01 for what reaches that; then ,ef_construction=400. Or an index "
        "of FAISS, IVF256,Flat:nprobe=8 (default: faiss:50 faiss:k,50 hnswlib:50; or --lists)",
    )
    parser.set_defaults(seed=None)
    add(
        "--seeds",
        nargs="+",
        type=whole(0, 2**31 - 1),
        help="in place of --seed: a graph of each, an order of insertion (default: 0, the rows')",
    )
    add("--m", type=whole(2, 10_000), default=32, metavar="M", help="links of a node")
    add("--ef-construction", type=whole(1, 10**6), default=200, metavar="EF", help="efConstruction")
    add("--build-threads", type=whole(1), default=1, metavar="N", help="above 1: not reproducible")
    add("--postgres", metavar="URL", help="for pgvector: a server of yours (default: its own)")
    cli.add_grid(parser)
    add(
        "--lists",
        nargs="+",
        action="append",
        metavar=("NAME", "IDS"),
        help="a run of lists of another system: its name; its ids, as .npy, .ivecs, .ibin, .hdf5 "
        "or .parquet, or a folder of k0010_indices.npy ...; if wanted, its distances to compare",
    )
    kinds = ("euclidean", "squared", "cosine")
    add("--reported", choices=kinds, help="what those distances are (default: euclidean)")
    add("--seconds", type=cli.positive, metavar="S", help="how long that system searched")
    add("--save-index", action="store_true", help="keep the graphs, for later runs")
    add("--replace", action="store_true", help="remove the runs that are not asked for")
    add("--ef-search", "--efsearch", "--ef", type=refuse_ef_search, help=argparse.SUPPRESS)
    return parser


def refuse_ef_search(text: str) -> NoReturn:
    raise argparse.ArgumentTypeError(f"efSearch is part of a run, write --runs faiss:{text}")


def main(args: argparse.Namespace) -> None:
    stage = Stage("04_hnsw", args)
    files = stage.require(*INPUTS)
    protocol = exact_protocol(stage)
    vectors = stage.require(QUERY_VECTORS)[0] if protocol is Protocol.OUTSIDE else None
    exact = stage.results.manifest("03_exact")["parameters"]
    grid = cli.k_grid(args, exact["k_max"])
    asked = {"k_grid": grid, "protocol": exact["protocol"]}
    configs, imports = search_configs(args), []
    if args.lists or args.seconds or args.reported:
        from drift.pipeline.tasks.lists import parse_lists  # FAISS takes a while

        imports = parse_lists(args, grid, protocol, *files, vectors)
    grids = {run.name: list(getattr(run, "grid", grid)) for run in (*configs, *imports)}
    graphs = dict.fromkeys(config.index for config in configs)
    runs.warn_of_dense_graphs(graphs)
    runs.announce_overwriting(stage.results, grids)
    parts = {config: run_part(stage, config) for config in configs}
    pending = [config for config in parts if parts[config].begin(config.parameters | asked)]
    check_configs(pending, files[0], grid, protocol)
    for task in imports:
        run = stage.part(task.name)
        if run.begin(asked | task.parameters):
            task.check()
            store_lists(run, task, {})
    effort = {config: config.effort(map(protocol.policy_length, grid)) for config in pending}
    for graph in graphs:
        searches = [config for config in pending if config.index == graph]
        if not searches and not args.save_index:
            discard_graph(stage, graph)
            continue
        with built_graph(stage, graph) as (index_file, facts):
            for config in searches:
                run = parts[config]
                task = SearchIndex(*files[:2], index_file, config, tuple(grid), protocol, vectors)
                found = store_lists(run, task, facts, choose_effort(run, task))
                if config == pending[0]:
                    runs.announce_rest(found["search_seconds_in_all"], list(effort.values()))
    if args.replace:
        runs.remove_others(stage.results, grids, [graph.name for graph in graphs])
    print_summary(stage, list(grids))


def print_summary(stage: Stage, names: list[str]) -> None:
    """Print what each run found at the first, the middle and the last k of the grid."""
    rows = []
    for name in names:
        facts = stage.results.manifest(f"04_hnsw/{name}")
        speeds = facts.get("queries_per_second", {})
        for k, shares in facts["summary"].items():
            costs = {"queries/s": speeds.get(k), "build s": facts.get("build_seconds")}
            rows.append({"run": name, "k": int(k), **shares, **costs})
    cli.print_table(f"runs in {stage.results.path('04_hnsw')}", pd.DataFrame(rows))


if __name__ == "__main__":
    cli.run(main, arguments())
