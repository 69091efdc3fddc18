"""Stage 03: the exact neighbors of every query, against which the index is measured.

reads   results/02_embeddings.npy
writes  results/03_queries.npy          int32 (Q,), the rows searched for
        results/03_query_vectors.npy    float32 (Q, d), with queries from a file, which are no rows
        results/03_query_ids.parquet    row, id: their names
        results/03_exact_indices.npy    int32 (Q, K), ascending distance, then id
        results/03_exact_distances.npy  float32 (Q, K), Euclidean
        results/03_exact.json           the manifest

examples
  python 03_exact_knn.py
  python 03_exact_knn.py --queries 2000 --k-max 500
  python 03_exact_knn.py --queries queries.fvecs      vectors that are not among the embeddings
  python 03_exact_knn.py --protocol notebook          as one of the publications did
  python 03_exact_knn.py --scheduler tcp://host:8786  on the workers of a Dask cluster
"""

import drift.pipeline.cli as cli

import argparse
from dataclasses import replace

import numpy as np
import pandas as pd

from drift.pipeline.blocks import compute_blocks
from drift.pipeline.environment import n_threads
from drift.pipeline.results import load_array
from drift.pipeline.stage import Stage
from drift.proposals import choose_product
from drift.protocols import Protocol
from drift.stages.embed import EUCLIDEAN, ImportEmbeddings
from drift.stages.exact import ExactKnn, ExpandedKnn, choose_queries, draw_queries, fitting_k


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__, scheduler=True)
    parser.add_argument(
        "--k-max", type=cli.integer(1), default=250, metavar="K", help="neighbors of each query"
    )
    parser.add_argument(
        "--queries",
        default="all",
        metavar="all|N|FILE",
        help="rows to search for: all, or N drawn ones; or vectors in a file, as for stage 02, "
        "which are scaled like the embeddings (of an .hdf5 file: test)",
    )
    parser.add_argument("--column", help="which matrix of such a file, by its name there")
    parser.add_argument("--drop-bad", action="store_true", help="leave out those not finite, or 0")
    parser.add_argument(
        "--protocol",
        choices=("study", "notebook", "paper"),
        default="study",
        help="study: the query is not among its neighbors, and distances are direct differences; "
        "notebook: it is, and distances are FAISS's expanded ones in float32; paper: the first of "
        "k + 1 is dropped, whatever it is, and distances are expanded. Stages 04 and 05 follow",
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="what proposes neighbors, which the processor checks; auto: a GPU if torch has one",
    )
    return parser


def main(args: argparse.Namespace) -> None:
    protocol = Protocol(args.protocol)
    choose_product(args.device)  # refuses a GPU that is not there
    chosen = choose_queries(args.queries, protocol, EUCLIDEAN, args.column, args.drop_bad)
    stage = cli.open_stage("03_exact", args)
    (embeddings,) = stage.require("02_embeddings.npy")
    if isinstance(chosen, ImportEmbeddings):
        metric = stage.results.manifest("02_embeddings")["parameters"].get("metric", EUCLIDEAN)
        chosen = replace(chosen, metric=metric)
    k = fitting_k(args.k_max, chosen, load_array(embeddings), protocol)
    named = chosen if isinstance(chosen, str | int) else chosen.parameters
    parameters = {"k_max": k, "queries": named, "protocol": args.protocol, "seed": args.seed}
    if stage.begin(parameters):
        rows, vectors, warnings = draw_queries(chosen, load_array(embeddings), args.seed)
        queries = stage.save("03_queries.npy", rows)
        if protocol is Protocol.STUDY:
            if vectors is not None:
                vectors = stage.save("03_query_vectors.npy", vectors)
                stage.append("03_query_ids.parquet", {"row": rows, "id": chosen.ids})
            search = ExactKnn(embeddings, queries, k, vectors, args.device)
        else:
            search = ExpandedKnn(embeddings, queries, k, protocol, n_threads())
        stage.create("03_exact_indices.npy", (len(rows), k), np.int32)
        stage.create("03_exact_distances.npy", (len(rows), k), np.float32)
        for block, lists in compute_blocks(stage, search, search.blocks(), "exact neighbors"):
            stage.write("03_exact_indices.npy", block, lists.indices)
            stage.write("03_exact_distances.npy", block, lists.distances)
            stage.checkpoint(block, recomputed=lists.recomputed)
        stage.commit(warnings, recomputed=stage.total("recomputed"))
    print_summary(stage)


def print_summary(stage: Stage) -> None:
    manifest = stage.manifest()
    names = ("03_queries.npy", "03_exact_indices.npy", "03_exact_distances.npy")
    queries, indices, distances = (load_array(stage.results.path(name)) for name in names)
    if manifest["parameters"]["protocol"] == "notebook":
        off = (distances[indices == queries[:, None]] > 0).mean()
        print(f"{off:.1%} of the queries are not at distance 0 from themselves")
    ks = [k for k in (1, 10, 50, 100, 250) if k <= distances.shape[1]]
    means = [distances[:, k - 1].mean() for k in ks]
    path, seconds = stage.results.path("03_exact_indices.npy"), manifest["seconds"]
    cli.print_table(
        f"{len(queries)} exact lists in {path}, {seconds:.1f} s",
        pd.DataFrame({"k": ks, "mean distance to the k-th": means}),
    )


if __name__ == "__main__":
    cli.run(main, arguments())
