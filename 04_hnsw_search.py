"""Stage 04: the same queries asked of an index, anew for each k of the grid.

reads   results/02_embeddings.npy, results/03_queries.npy; results/03_exact_* to say what is lost
        and, with results/02_rows.parquet, to choose by a target
writes  results/04_hnsw/RUN/kKKKK_indices.npy    int32 (Q, k); -1 for a missing one
        results/04_hnsw/RUN/kKKKK_distances.npy  float32 (Q, k); +inf for a missing one
        results/04_hnsw/RUN/kKKKK_reported.npy   the same as an index of compressed vectors has it
        results/04_hnsw/RUN/run.json             the manifest (RUN: faiss_M32_efc200_ef50)
        results/04_hnsw/graphs/GRAPH.faiss       with --save-index: a graph, once for all its runs

examples
  python 04_hnsw_search.py
  python 04_hnsw_search.py --runs faiss:200 hnswlib:2k    two more runs, beside those that are there
  python 04_hnsw_search.py --runs faiss:10..800 hnswlib:10..800 --k 10 100    a series of ten each
  python 04_hnsw_search.py --runs faiss:0.5k faiss:50,ef_construction=400 --k 10 50 100 --replace
  python 04_hnsw_search.py --runs faiss:overlap=0.99 IVF256,Flat:nprobe=8 usearch:50 pgvector:40
  python 04_hnsw_search.py --seeds 0 1 2 3 4              each run on five graphs
  python 04_hnsw_search.py --lists milvus ids.npy         what another system returned
"""

import drift.pipeline.cli as cli

import argparse

from drift.protocols import Protocol
from drift.stages import grids, imported, lists
from drift.stages.exact import QUERY_VECTORS, exact_protocol
from drift.stages.search import built_index, choose_searches, parse_runs
from drift.stages.targets import ChooseSetting


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__, scheduler=True)
    add, whole = parser.add_argument, cli.integer
    add(
        "--runs",
        nargs="+",
        metavar="RUN",
        help="faiss, hnswlib, usearch or pgvector, and its efSearch: a number, 10..800 (a series), "
        "k, 2k, 0.25k, k,50, or overlap=0.99, recall=0.99, lid=0.01 for what reaches that; then "
        ",ef_construction=400. Or FAISS's IVF256,Flat:nprobe=8 (default: faiss:50 faiss:k,50 "
        "hnswlib:50; or --lists)",
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
    add("--postgres", metavar="URL", help="a server of yours, password by PGPASSWORD or ~/.pgpass")
    cli.add_grid(parser)
    add(
        "--lists",
        nargs="+",
        action="append",
        metavar=("NAME", "IDS"),
        help="a run of lists of another system: its name, as qdrant or qdrant:ef=64; its ids, a "
        "matrix, a table of hits or a folder of k0010_indices.npy ...; if wanted, its distances",
    )
    kinds = ("euclidean", "squared", "cosine", "similarity")
    add("--columns", nargs="+", metavar="ROLE=NAME", help="query=, id=, distance=, ... of IDS")
    add("--anyway", action="store_true", help="take lists that are as good as random")
    add("--reported", choices=kinds, help="what those distances are (default: euclidean)")
    add("--seconds", type=cli.positive, metavar="S", help="how long that system searched")
    add("--save-index", action="store_true", help="keep the graphs, for later runs")
    add("--replace", action="store_true", help="remove the runs that are not asked for")
    return parser


def main(args: argparse.Namespace) -> None:
    asked, given = parse_runs(args), imported.parse_lists(args)
    cli.check_grid(args)
    stage = cli.open_stage("04_hnsw", args)
    files = stage.require("02_embeddings.npy", "03_queries.npy")
    protocol = exact_protocol(stage)
    files += stage.require(QUERY_VECTORS) if protocol is Protocol.OUTSIDE else [None]
    of_every_run = list(stage.inputs)  # a run with a target is made from what follows too
    of_exact = stage.results.manifest("03_exact")["parameters"]
    exact = stage.require("03_exact_indices.npy", "03_exact_distances.npy")
    grid = cli.k_grid(args, longest := of_exact["k_max"])
    tasks = choose_searches(asked, grid, protocol, *files)
    is_asked = cli.is_grid_asked(args)
    tasks += imported.choose_lists(given, is_asked, grid, longest, protocol, *files)
    has_groups = protocol is not Protocol.OUTSIDE and any(task.run.target for task in tasks)
    rows = stage.require("02_rows.parquet") if has_groups else []
    parts, pending, more = {}, [], {"protocol": of_exact["protocol"]}
    for task in tasks:
        part = stage.part(task.run.name, *(stage.inputs if task.run.target else of_every_run))
        whole, former = grids.on_its_grid(part, task, more, longest, args)
        if part.begin(whole.parameters | more):
            parts[task.run.name] = part
            pending.append(grids.remaining(part, whole, former))
    for task in pending:
        task.check(*exact)
    for run in {task.run.index_name: task.run for task in tasks}.values():
        waiting = [task for task in pending if task.run.index_name == run.index_name]
        with built_index(stage, waiting, run, args.save_index, args.postgres) as ready:
            for task in ready:
                part = parts[task.run.name]
                part.start_clock()
                target = ChooseSetting(task, *exact, *rows) if task.run.target else None
                costs = lists.store_lists(part, target.choose(part) if target else task)
                costs |= target.notes(part) if target else {}
                part.commit(**grids.all_notes(part.kept, costs), asked_by=task.words)
    if args.replace:
        lists.remove_others(stage.results, [task.run for task in tasks])
    table = lists.summary(stage, [task.run for task in tasks])
    cli.print_table(f"runs in {stage.results.path('04_hnsw')}", table)


if __name__ == "__main__":
    cli.run(main, arguments())
