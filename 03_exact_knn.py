"""Stage 03: the exact neighbors of every query, against which the index is measured.

reads   results/02_embeddings.npy
writes  results/03_queries.npy          int32 (Q,), the rows searched for
        results/03_exact_indices.npy    int32 (Q, K), ascending distance, then id
        results/03_exact_distances.npy  float32 (Q, K), Euclidean
        results/03_exact.json           the manifest

examples
  python 03_exact_knn.py
  python 03_exact_knn.py --queries 2000 --k-max 500
  python 03_exact_knn.py --include-self --no-refine   the notebook's way
  python 03_exact_knn.py --scheduler tcp://host:8786  on the workers of a Dask cluster
"""

from drift.pipeline import cli  # first: from here on Ctrl-C ends in one line

# isort: split
import argparse

import numpy as np
import pandas as pd

from drift import InputError
from drift.pipeline.blocks import compute_blocks
from drift.pipeline.environment import n_threads
from drift.pipeline.stage import Stage
from drift.pipeline.tasks.search import ExactKnn, ExpandedKnn
from drift.vectors import check_embeddings


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__, scheduler=True)
    parser.add_argument(
        "--k-max", type=cli.integer(1), default=250, metavar="K", help="neighbors of each query"
    )
    parser.add_argument(
        "--queries",
        type=cli.integer_or_all,
        default="all",
        metavar="all|N",
        help="rows to search for: all, or N drawn ones",
    )
    parser.add_argument(
        "--include-self", action="store_true", help="leave the query in its own neighbor list"
    )
    parser.add_argument(
        "--no-refine",
        action="store_true",
        help="keep FAISS's expanded float32 distances instead of direct differences",
    )
    return parser


def main(args: argparse.Namespace) -> None:
    stage = Stage("03_exact", args)
    (embeddings,) = stage.require("02_embeddings.npy")
    parameters = {
        "k_max": args.k_max,
        "queries": args.queries,
        "include_self": args.include_self,
        "refine": not args.no_refine,
        "seed": args.seed,
    }
    if stage.begin(parameters):
        queries = choose_queries(args, stage.read("02_embeddings.npy"))
        shape = (len(queries), args.k_max)
        search = (embeddings, stage.save("03_queries.npy", queries), args.k_max, args.include_self)
        threads = n_threads()
        search = ExpandedKnn(*search, threads) if args.no_refine else ExactKnn(*search)
        stage.create("03_exact_indices.npy", shape, np.int32)
        stage.create("03_exact_distances.npy", shape, np.float32)
        for rows, found in compute_blocks(stage, search, search.blocks(), "exact neighbors"):
            stage.write("03_exact_indices.npy", rows, found.indices)
            stage.write("03_exact_distances.npy", rows, found.distances)
            stage.checkpoint(rows, recomputed=found.recomputed)
        recomputed = stage.total("recomputed")
        stage.commit(certified_at_once=len(queries) - recomputed, recomputed=recomputed)
    print_summary(stage)


def choose_queries(args: argparse.Namespace, embeddings: np.ndarray) -> np.ndarray:
    """The rows to search for, once the embeddings are known to have enough of them."""
    from drift.exact import check_k

    n = len(embeddings)
    check_embeddings(embeddings)
    check_k(args.k_max, n, args.include_self)
    rows = np.arange(n, dtype=np.int32)
    if args.queries == "all":
        return rows
    if args.queries > n:
        raise InputError(f"--queries {args.queries} is more than the {n} embeddings there are")
    return np.sort(np.random.default_rng(args.seed).choice(rows, args.queries, replace=False))


def print_summary(stage: Stage) -> None:
    manifest = stage.manifest()
    names = ("03_queries.npy", "03_exact_indices.npy", "03_exact_distances.npy")
    queries, indices, distances = map(stage.results.load, names)
    if manifest["parameters"]["include_self"]:
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
