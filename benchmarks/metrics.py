"""Time the measuring of stage 05 against the notebook's loops over queries.

    python benchmarks/metrics.py [--rows 10000] [--dim 1280] [--rounds 1]

One run: the exact and the approximate lists of 25 values of k are made first, untimed. Then, in
every round, ours, all metrics with their intervals, by part; and the notebook's way, plain loops
over queries for overlap, LID and barycenter shift alone. The table holds medians over rounds.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.machine import machine
from benchmarks.notebook import GRID, Lists, loops
from benchmarks.vectors import clustered
from drift.exact import ExactSearch
from drift.indexes.registry import index_class, parse_run
from drift.indexes.search import approximate_neighbors
from drift.protocols import Protocol
from drift.stages.metrics import ComputeMetrics, NeighborFiles
from drift.summaries import RunValues, summarize_runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=1280)
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    x, queries = clustered(args.rows, args.dim), np.arange(args.rows)
    neighbors = ExactSearch(x).neighbors(queries, GRID[-1])
    exact = neighbors.indices, neighbors.distances
    run, ann = parse_run("faiss:50"), {}
    index = index_class(run).build(x, run)
    for k in GRID:
        search = ([k], run.values(k + 1), Protocol.STUDY, queries, x, 1)
        ann[k] = approximate_neighbors(index, x, *search)[0][k][:2]
    with tempfile.TemporaryDirectory() as folder:
        task = stored(Path(folder), x, exact, ann)
        rounds = []
        for _ in range(args.rounds):
            seconds = ours(task)
            start = time.perf_counter()
            loops(x, exact, ann)
            rounds.append(seconds | {"notebook's loops": time.perf_counter() - start})
    table = pd.DataFrame(rounds)
    table.insert(table.shape[1] - 1, "ours, all", table.iloc[:, :-1].sum(axis=1))
    ratios = table["notebook's loops"] / table["ours, all"]
    print(f"{args.rows} x {args.dim}, {args.rounds} rounds; {machine()}")
    print(table.median().round(2).to_frame("seconds").to_string())
    print(f"loops over ours: {ratios.median():.1f}")


def stored(folder: Path, x: np.ndarray, exact: Lists, ann: dict[int, Lists]) -> ComputeMetrics:
    """What stage 05 computes for a run, with all that it reads in a folder."""

    def save(name: str, *arrays: np.ndarray) -> list[Path]:
        paths = [folder / f"{name}_{i}.npy" for i in range(len(arrays))]
        for path, array in zip(paths, arrays, strict=True):
            np.save(path, array)
        return paths

    lists = {k: NeighborFiles(*save(f"k{k}", *ann[k])) for k in GRID}
    vectors, queries = save("rows", x, np.arange(len(x)))
    return ComputeMetrics(vectors, queries, NeighborFiles(*save("exact", *exact)), lists)


def ours(task: ComputeMetrics) -> dict[str, float]:
    """Seconds of each part."""
    starts = [time.perf_counter()]
    values = np.concatenate([task(block) for block in task.blocks()], axis=2)
    values = {m.name: column for m, column in zip(task.metrics, values, strict=True)}
    starts.append(time.perf_counter())
    list(task.hubs_and_orphans())
    starts.append(time.perf_counter())
    summarize_runs({"run": RunValues("run", 0, GRID, values)})
    starts.append(time.perf_counter())
    parts = "metrics of each query", "hubness, orphans", "curves, intervals"
    return dict(zip(parts, np.diff(starts).tolist(), strict=True))


if __name__ == "__main__":
    main()
