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

import argparse
from pathlib import Path

import faiss
import numpy as np
import pandas as pd

from drift import InputError, blocks, cluster, stage
from drift.artifacts import Results, load_array
from drift.draft import Draft
from drift.exact import FAISS_BLOCK, ExactSearch, check_k, expanded_neighbors
from drift.vectors import check_embeddings

STAGE = "03_exact"


class Search(blocks.Portable):
    """Search for the exact neighbors of a block of queries.

    Expanded distances depend on the threads that multiply: wherever they are computed, it is with
    as many as the stage was started with.
    """

    def __init__(
        self,
        embeddings: Path,
        queries: Path,
        k: int,
        include_self: bool,
        refine: bool,
        threads: int,
    ):
        self.embeddings, self.queries = load_array(embeddings), load_array(queries)
        self.k, self.include_self, self.refine, self.threads = k, include_self, refine, threads
        self.exact: ExactSearch | None = None

    def __call__(self, rows: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, int]:
        wanted = self.queries[slice(*rows)]
        if not self.refine:
            faiss.omp_set_num_threads(self.threads)
            return *expanded_neighbors(self.embeddings, wanted, self.k, self.include_self), 0
        self.exact = self.exact or ExactSearch(self.embeddings)
        found = self.exact.neighbors(wanted, self.k, self.include_self)
        return found.indices, found.distances, found.recomputed


def arguments() -> argparse.ArgumentParser:
    parser = stage.parser(__doc__)
    stage.add_scheduler(parser)
    parser.add_argument(
        "--k-max", type=stage.integer(1), default=250, metavar="K", help="neighbors of each query"
    )
    parser.add_argument(
        "--queries",
        type=count_or_all,
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


def count_or_all(text: str) -> int | str:
    return text if text == "all" else stage.integer(1)(text)


def main(args: argparse.Namespace) -> None:
    results = Results(args.results)
    inputs = results.require("02_embeddings.npy")
    parameters = {
        "k_max": args.k_max,
        "queries": args.queries,
        "include_self": args.include_self,
        "refine": not args.no_refine,
        "seed": args.seed,
    }
    embeddings = results.load("02_embeddings.npy")
    n, d = embeddings.shape
    check_embeddings(embeddings)
    check_k(args.k_max, n, args.include_self)
    queries = np.arange(n, dtype=np.int32)
    if args.queries != "all":
        if args.queries > n:
            raise InputError(f"--queries {args.queries} is more than the {n} embeddings there are")
        queries = np.sort(
            np.random.default_rng(args.seed).choice(queries, size=args.queries, replace=False)
        )
    if stage.up_to_date(results, STAGE, parameters, inputs, args.force):
        return
    # The search maps the file by itself: memory that is mapped twice would be counted twice.
    del embeddings

    draft = Draft(results, STAGE, parameters, inputs, fresh=args.force)
    draft.save("03_queries.npy", queries)
    indices = draft.array("03_exact_indices.npy", (len(queries), args.k_max), np.int32)
    distances = draft.array("03_exact_distances.npy", (len(queries), args.k_max), np.float32)
    search = Search(
        results.path("02_embeddings.npy").absolute(),
        draft.path("03_queries.npy").absolute(),
        args.k_max,
        args.include_self,
        not args.no_refine,
        faiss.omp_get_max_threads(),
    )

    def store(rows: tuple[int, int], found: tuple[np.ndarray, np.ndarray, int]) -> dict[str, int]:
        indices[slice(*rows)], distances[slice(*rows)], recomputed = found
        indices.flush()
        distances.flush()
        return {"recomputed": recomputed}

    # A query's vector, and its candidates with their distances in the making. Expanded distances
    # are kept as they come: there blocks are whole numbers of FAISS's own, so that cutting the
    # queries changes no rounding.
    bytes_per_row = d * 4 + args.k_max * 64
    budget, multiple = (256 << 20, FAISS_BLOCK) if args.no_refine else (64 << 20, 1)
    query_blocks = blocks.row_blocks(len(queries), bytes_per_row, budget, multiple)
    reads = [results.path(name) for name in inputs]
    with cluster.connect(args.scheduler, reads, args.threads) as workers:
        if workers is None:
            n_queries = len(queries)
            seconds = blocks.estimate(query_blocks, search, draft, n_queries, lambda *rows: rows)
            blocks.announce(seconds, "exact neighbors")
        blocks.run(query_blocks, search, store, draft, "exact neighbors", workers)
    recomputed = sum(facts["recomputed"] for facts in draft.done.values())
    manifest = draft.publish(certified_at_once=len(queries) - recomputed, recomputed=recomputed)

    if args.include_self:
        off = (distances[indices == queries[:, None]] > 0).mean()
        print(f"{off:.1%} of the queries are not at distance 0 from themselves")
    ks = [k for k in (1, 10, 50, 100, 250) if k <= args.k_max]
    table = pd.DataFrame(
        {"k": ks, "mean distance to the k-th": [distances[:, k - 1].mean() for k in ks]}
    )
    seconds = manifest["seconds"]
    stage.report(
        f"{len(queries)} exact lists in {results.path('03_exact_indices.npy')}, {seconds:.1f} s",
        table,
    )


if __name__ == "__main__":
    stage.run(main, arguments())
