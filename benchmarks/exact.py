"""Time the exact search against FAISS, scikit-learn and the bare matrix product.

    python benchmarks/exact.py [--rows 10000] [--dim 2048] [--k 250] [--rounds 3]

The vectors are clustered, as embeddings are. Every round runs all four, one after the other; the
table holds the median over rounds, and the median of the ratios to FAISS in the same round.
"""

import argparse
import sys
import time
from pathlib import Path

import faiss
import numpy as np
import pandas as pd
from sklearn.neighbors import NearestNeighbors

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.vectors import clustered
from drift.exact import ExactSearch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--k", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    x = clustered(args.rows, args.dim)
    queries = np.arange(args.rows)

    def ours() -> int:
        return ExactSearch(x).neighbors(queries, args.k).recomputed

    def flat() -> None:
        index = faiss.IndexFlatL2(args.dim)
        index.add(x)
        index.search(x, args.k + 1)

    def sklearn() -> None:
        search = NearestNeighbors(n_neighbors=args.k, algorithm="brute", n_jobs=-1)
        search.fit(x).kneighbors(x)

    def product() -> None:
        for start in range(0, args.rows, 1000):
            x[start : start + 1000] @ x.T

    contenders = {
        "exact, with certificate": ours,
        "faiss.IndexFlatL2": flat,
        "scikit-learn brute force": sklearn,
        "float32 matrix product": product,
    }
    seconds = {name: [] for name in contenders}
    for _ in range(args.rounds):
        for name, run in contenders.items():
            start = time.perf_counter()
            recomputed = run()
            seconds[name].append(time.perf_counter() - start)
            if run is ours:
                print(f"{recomputed} of {args.rows} queries recomputed", file=sys.stderr)
    table = pd.DataFrame(seconds)
    ratios = table.div(table["faiss.IndexFlatL2"], axis=0)
    print(f"{args.rows} x {args.dim}, K = {args.k}, {args.rounds} rounds")
    print(
        pd.DataFrame({"seconds": table.median(), "over faiss": ratios.median()})
        .round(2)
        .to_string()
    )


if __name__ == "__main__":
    main()
