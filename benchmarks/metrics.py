"""Time the measuring of stage 05 against the notebook's loops over queries.

    python benchmarks/metrics.py [--rows 10000] [--dim 1280]

One run: the exact and the approximate lists of 25 values of k are made first, untimed. Then ours,
all metrics with 1,000 resamples, by part; then the notebook's way, plain loops over queries for
overlap, LID and barycenter shift alone.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.notebook import GRID, loops
from benchmarks.vectors import clustered
from drift.exact import ExactSearch
from drift.indexes import build_index
from drift.indexes.config import GraphConfig
from drift.indexes.search import approximate_neighbors
from drift.pipeline.tasks.measure import ComputeMetrics, NeighborFiles
from drift.protocols import Protocol
from drift.statistics import summarize_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=1280)
    args = parser.parse_args()
    x, queries = clustered(args.rows, args.dim), np.arange(args.rows)
    found = ExactSearch(x).neighbors(queries, GRID[-1])
    exact = found.indices, found.distances
    index = build_index(GraphConfig("faiss", 32, 200), x)
    study, ann = Protocol.STUDY, {}
    for k in GRID:
        ann[k] = approximate_neighbors(index, x, [k], 50, study, queries)[0][k]
    seconds = {}

    def timed(part: str, run: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = run()
        seconds[part] = time.perf_counter() - start
        return result

    with tempfile.TemporaryDirectory() as folder:

        def save(name: str, lists: tuple[np.ndarray, np.ndarray]) -> NeighborFiles:
            files = NeighborFiles(
                *(Path(folder) / f"{name}_{part}.npy" for part in NeighborFiles._fields)
            )
            for path, array in zip(files, lists, strict=True):
                np.save(path, array)
            return files

        vectors = Path(folder) / "x.npy"
        np.save(vectors, x)
        np.save(Path(folder) / "queries.npy", queries)
        lists = {"run": {k: save(f"k{k}", ann[k]) for k in GRID}}
        rows = Path(folder) / "queries.npy"
        task = ComputeMetrics(vectors, rows, save("exact", exact), lists, False)

        def every_query() -> dict[str, np.ndarray]:
            values = np.concatenate([task(block) for block in task.blocks("run")], axis=2)
            return dict(zip(task.descriptions, values, strict=True))

        values = timed("metrics of each query", every_query)
        timed("hubness, orphans", task.graph_metrics)
        timed("bootstrap, curves", lambda: summarize_run(GRID, values, 0))
    ours = sum(seconds.values())
    start = time.perf_counter()
    loops(x, exact, ann)
    theirs = time.perf_counter() - start
    table = pd.DataFrame({"seconds": seconds})
    table["share"] = table["seconds"] / ours
    table.loc["ours, all"] = [ours, 1.0]
    table.loc["notebook's loops"] = [theirs, np.nan]
    print(table.round(2).to_string(na_rep=""))
    print(f"loops over ours: {theirs / ours:.1f}")


if __name__ == "__main__":
    main()
