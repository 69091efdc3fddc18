"""Time the exact search against FAISS, scikit-learn and the bare matrix product.

    python benchmarks/exact.py [--rows 10000] [--dim 2048] [--k 250] [--rounds 3] [--tight]

The vectors are clustered, as embeddings are. Every round runs all four, one after the other; the
table holds the median over rounds, and the medians of the ratios to the product and to FAISS in the
same round. With --tight the clusters are so dense that most neighbors are near ties; beside that
stands what their second look takes, over the product.
"""

import argparse
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import faiss
import numpy as np
import pandas as pd
from sklearn.neighbors import NearestNeighbors

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.machine import machine
from benchmarks.vectors import clustered, tight
from drift import exact
from drift.pipeline.environment import n_threads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--k", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tight", action="store_true")
    args = parser.parse_args()
    x = tight(args.rows, args.dim) if args.tight else clustered(args.rows, args.dim)
    queries = np.arange(args.rows)
    second_look = timed(exact, "chunked_distances"), timed(exact, "pair_distances")

    def ours() -> int:
        return exact.ExactSearch(x, n_threads()).neighbors(queries, args.k).recomputed

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
    seconds = {name: [] for name in (*contenders, "near ties of ours")}
    for _ in range(args.rounds):
        for name, run in contenders.items():
            start = time.perf_counter()
            recomputed = run()
            seconds[name].append(time.perf_counter() - start)
            if run is ours:
                print(f"{recomputed} of {args.rows} queries recomputed", file=sys.stderr)
                # Threads take them at the same time.
                seconds["near ties of ours"].append(sum(map(sum, second_look)) / n_threads())
                for times in second_look:
                    times.clear()
    table = pd.DataFrame(seconds)
    medians = {"seconds": table.median()}
    for name in ("float32 matrix product", "faiss.IndexFlatL2"):
        medians[f"over {name}"] = table.div(table[name], axis=0).median()
    print(f"{args.rows} x {args.dim}, K = {args.k}, {args.rounds} rounds; {machine()}")
    print(pd.DataFrame(medians).round(2).to_string())


def timed(module: ModuleType, name: str) -> list[float]:
    """Seconds that each call of a module's function will take from now on."""
    function, seconds = getattr(module, name), []

    def call(*args: Any) -> Any:
        start = time.perf_counter()
        result = function(*args)
        seconds.append(time.perf_counter() - start)
        return result

    setattr(module, name, call)
    return seconds


if __name__ == "__main__":
    main()
