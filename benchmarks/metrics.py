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
from drift.indexes.registry import index_class, parse_run
from drift.indexes.search import approximate_neighbors
from drift.protocols import Protocol
from drift.stages.metrics import ComputeMetrics, NeighborFiles
from drift.summaries import summarize_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=1280)
    args = parser.parse_args()
    x, queries = clustered(args.rows, args.dim), np.arange(args.rows)
    neighbors = ExactSearch(x).neighbors(queries, GRID[-1])
    exact = neighbors.indices, neighbors.distances
    run, ann = parse_run("faiss:50"), {}
    index = index_class(run).build(x, run)
    for k in GRID:
        search = ([k], run.values(k + 1), Protocol.STUDY, queries, x, 1)
        ann[k] = approximate_neighbors(index, x, *search)[0][k][:2]
    seconds = {}

    def timed(part: str, run: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = run()
        seconds[part] = time.perf_counter() - start
        return result

    with tempfile.TemporaryDirectory() as folder:

        def save(name: str, lists: tuple[np.ndarray, np.ndarray]) -> NeighborFiles:
            files = NeighborFiles(
                *(Path(folder) / f"{name}_{part}.npy" for part in ("indices", "distances"))
            )
            for path, array in zip(files[:2], lists, strict=True):
                np.save(path, array)
            return files

        vectors = Path(folder) / "x.npy"
        np.save(vectors, x)
        np.save(Path(folder) / "queries.npy", queries)
        lists = {k: save(f"k{k}", ann[k]) for k in GRID}
        rows = Path(folder) / "queries.npy"
        task = ComputeMetrics(vectors, rows, save("exact", exact), lists)

        def every_query() -> dict[str, np.ndarray]:
            values = np.concatenate([task(block) for block in task.blocks()], axis=2)
            return {m.name: column for m, column in zip(task.metrics, values, strict=True)}

        values = timed("metrics of each query", every_query)
        timed("hubness, orphans", lambda: list(task.hubs_and_orphans()))
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
