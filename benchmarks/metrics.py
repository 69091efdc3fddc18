"""Time the measuring of stage 05 against the notebook's loops over queries.

    python benchmarks/metrics.py [--rows 10000] [--dim 1280]

One run: the exact and the approximate lists of 25 values of k are made first, untimed. Then ours,
all metrics with 1,000 resamples and the tables written, by part; then the notebook's way, plain
loops over queries for overlap, LID and barycenter shift alone.
"""

import argparse
import runpy
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.vectors import clustered
from drift.exact import ExactSearch
from drift.hnsw import FaissHnsw, Graph, hnsw_neighbors
from drift.lists import Pair
from drift.statistics import summarize_run

ROOT = Path(__file__).parent.parent
GRID = list(range(10, 251, 10))


def notebook_loops(x: np.ndarray, exact: tuple, ann: dict[int, tuple]) -> None:
    for k in GRID:
        ann_ids, ann_distances = ann[k]
        for query in range(len(x)):
            e, a = exact[0][query, :k], ann_ids[query]
            a = a[a >= 0]
            len(set(e) & set(a)) / k
            np.linalg.norm(x[e].mean(axis=0) - x[a].mean(axis=0))
            for r in (exact[1][query, :k], ann_distances[query, : len(a)]):
                s = r**2
                -1 / np.mean(np.log(s[:-1] / (s[-1] + 1e-12) + 1e-12))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=1280)
    args = parser.parse_args()
    x, queries = clustered(args.rows, args.dim), np.arange(args.rows)
    found = ExactSearch(x).neighbors(queries, GRID[-1])
    exact = found.indices, found.distances
    index = FaissHnsw.build(x, Graph("faiss", 32, 200))
    ann = {k: hnsw_neighbors(index, x, queries, [k], 50)[0][k] for k in GRID}

    stage = SimpleNamespace(**runpy.run_path(str(ROOT / "05_metrics.py")))
    seconds = {}

    def timed(part: str, run: Callable[[], Any]) -> Any:
        begun = time.perf_counter()
        result = run()
        seconds[part] = time.perf_counter() - begun
        return result

    with tempfile.TemporaryDirectory() as folder:

        def save(name: str, lists: tuple[np.ndarray, np.ndarray]) -> Pair:
            pair = Pair(*(Path(folder) / f"{name}_{part}.npy" for part in Pair._fields))
            for path, array in zip(pair, lists, strict=True):
                np.save(path, array)
            return pair

        vectors = Path(folder) / "x.npy"
        np.save(vectors, x)
        pairs = {"run": {k: save(f"k{k}", ann[k]) for k in GRID}}
        measure = stage.Measure(vectors, save("exact", exact), pairs, False)
        study = stage.Study({"run": {}}, queries, measure)

        def every_query() -> dict[str, np.ndarray]:
            blocks = [measure(unit) for unit in study.units("run")]
            return {name: np.hstack([of[name] for of in blocks]) for name in study.metric_names}

        def write() -> None:
            with stage.per_query_writer(Path(folder) / "all.parquet", study.metric_names) as writer:
                stage.write_per_query(writer, study, "run", np.stack(list(measured.values())))
            curves.to_parquet(Path(folder) / "curves.parquet")

        measured = timed("metrics of each query", every_query)
        timed("hubness, orphans", lambda: stage.graph_curves(study, "run"))
        curves, _ = timed("bootstrap, curves, onset", lambda: summarize_run(GRID, measured, 0))
        timed("tables written", write)
    ours = sum(seconds.values())
    begun = time.perf_counter()
    notebook_loops(x, exact, ann)
    loops = time.perf_counter() - begun
    table = pd.DataFrame({"seconds": seconds})
    table["share"] = table["seconds"] / ours
    table.loc["ours, all"] = [ours, 1.0]
    table.loc["notebook's loops"] = [loops, np.nan]
    print(table.round(2).to_string(na_rep=""))
    print(f"loops over ours: {loops / ours:.1f}")


if __name__ == "__main__":
    main()
