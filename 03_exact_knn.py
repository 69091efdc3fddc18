"""Stage 03: the exact neighbors of every query, against which the index is measured.

reads   results/02_embeddings.npy
writes  results/03_queries.npy          int32 (Q,), the rows searched for
        results/03_query_vectors.npy    float32 (Q, d), with queries from a file, which are no rows
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

from drift.pipeline import cli  # first: from here on Ctrl-C ends in one line

# isort: split
import argparse

import numpy as np
import pandas as pd

from drift.pipeline.blocks import compute_blocks
from drift.pipeline.stage import Stage
from drift.pipeline.tasks.exact import choose_queries, exact_task
from drift.protocols import Protocol


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
    parser.add_argument(
        "--protocol",
        choices=("study", "notebook", "paper"),
        default="study",
        help="study: the query is not among its neighbors, and distances are direct differences; "
        "notebook: it is, and distances are FAISS's expanded ones in float32; paper: the first of "
        "k + 1 is dropped, whatever it is, and distances are expanded. Stages 04 and 05 follow",
    )
    return parser


def main(args: argparse.Namespace) -> None:
    stage = Stage("03_exact", args)
    stage.require("02_embeddings.npy")
    metric = stage.results.manifest("02_embeddings")["parameters"].get("metric")
    choice = choose_queries(args.queries, args.protocol, metric)
    parameters = {"k_max": args.k_max, "queries": choice.name, "protocol": args.protocol}
    if stage.begin(parameters | {"seed": args.seed}):
        queries, vectors = choice.draw(stage.read("02_embeddings.npy"), args.k_max, args.seed)
        files = {"queries": stage.save("03_queries.npy", queries)}
        if vectors is not None:
            files["vectors"] = stage.save("03_query_vectors.npy", vectors)
        search = exact_task(stage, Protocol(args.protocol), args.k_max, **files)
        shape = (len(queries), args.k_max)
        stage.create("03_exact_indices.npy", shape, np.int32)
        stage.create("03_exact_distances.npy", shape, np.float32)
        for rows, found in compute_blocks(stage, search, search.blocks(), "exact neighbors"):
            stage.write("03_exact_indices.npy", rows, found.indices)
            stage.write("03_exact_distances.npy", rows, found.distances)
            stage.checkpoint(rows, recomputed=found.recomputed)
        recomputed = stage.total("recomputed")
        stage.commit(certified_at_once=len(queries) - recomputed, recomputed=recomputed)
    print_summary(stage)


def print_summary(stage: Stage) -> None:
    manifest = stage.manifest()
    names = ("03_queries.npy", "03_exact_indices.npy", "03_exact_distances.npy")
    queries, indices, distances = map(stage.results.load, names)
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
