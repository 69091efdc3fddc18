"""Time and memory of stages 02 to 06 as the number of vectors grows.

    python benchmarks/scale.py [--rows 12500 25000 50000 100000] [--queries 10000] [--runs faiss:50]
    python benchmarks/scale.py --rows 250000 500000 1000000 --dim 128
    python benchmarks/scale.py --rows 1000000 --dim 128 --until 03    the exact search alone

For each number of rows clustered vectors are imported by stage 02, and every stage runs as a
process of its own, on the same number of queries, which are none of the rows. The tables hold its
seconds and the peak of its resident memory, in which the memory-mapped files count, and the
exponents by which they grow with the rows: the slope of a line through the logarithms. With the
vectors some gigabytes of disk are needed below --folder.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.machine import ROOT, machine
from benchmarks.vectors import clustered

ROWS_PER_CLUSTER = 100


def measure(script: str, *arguments: str | Path) -> tuple[float, float]:
    """Seconds and peak memory in GB of a script."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, script, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"{script} ended with status {os.waitstatus_to_exitcode(status)}")
    unit = 1 if sys.platform == "darwin" else 1024
    return time.perf_counter() - start, usage.ru_maxrss * unit / 1e9


def make(folder: Path, rows: int, n_queries: int, dim: int) -> None:
    """Write clustered vectors to two files, those of the last rows are queries."""
    vectors = clustered(rows + n_queries, dim, n_clusters=rows // ROWS_PER_CLUSTER)
    np.save(folder / "x.npy", vectors[:rows])
    np.save(folder / "queries.npy", vectors[rows:])


def stages(rows: int, args: argparse.Namespace, folder: Path) -> dict[str, tuple[float, float]]:
    """Each stage's seconds and peak memory for a number of rows."""
    results = folder / "results"
    # Made in another process: those that are started here take over the peak of this one.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as other:
        other.submit(make, folder, rows, args.queries, args.dim).result()
    commands = {
        "02": ("02_embed_resnet50.py", "--from-file", folder / "x.npy"),
        "03": ("03_exact_knn.py", "--queries", folder / "queries.npy"),
        "04": ("04_hnsw_search.py", "--runs", *args.runs, "--build-threads", args.build_threads),
        "05": ("05_metrics.py",),
        "06": ("06_plots.py",),
    }
    return {
        stage: measure(script, "--results", results, *arguments)
        for stage, (script, *arguments) in commands.items()
        if stage <= args.until
    }


def table(by_rows: dict[int, dict[str, float]]) -> str:
    """A line for each number of rows, and the exponents of growth."""
    frame = pd.DataFrame(by_rows).T.rename_axis("rows")
    if len(frame) > 1:
        slopes = np.polyfit(np.log(frame.index.to_numpy(float)), np.log(frame.to_numpy()), 1)[0]
        frame.loc["exponent"] = slopes
    return frame.round(2).to_string()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[12_500, 25_000, 50_000, 100_000], metavar="N"
    )
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--runs", nargs="+", default=["faiss:50"])
    parser.add_argument("--build-threads", default="1", metavar="N")
    parser.add_argument("--until", choices=("03", "04", "05", "06"), default="06", help="stage")
    parser.add_argument("--folder", type=Path, help="where to work; without it the system's own")
    args = parser.parse_args()
    seconds, memory = {}, {}
    for rows in args.rows:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            by_stage = stages(rows, args, Path(folder))
        seconds[rows], memory[rows] = (
            {stage: pair[part] for stage, pair in by_stage.items()} for part in (0, 1)
        )
        print(f"{rows} rows: {by_stage}", file=sys.stderr)
    print(f"{args.dim} dimensions, {args.queries} queries, {' '.join(args.runs)}; {machine()}")
    print(f"\nseconds of each stage\n{table(seconds)}")
    print(f"\npeak memory of each stage in GB\n{table(memory)}")
    last = max(args.rows)
    # What a query costs does not depend on how many there are; the graph is built once.
    until = min(args.until, "05")
    predicted = sum(seconds[last][stage] for stage in seconds[last] if "03" <= stage <= until)
    minutes = predicted * last / args.queries / 60
    print(f"\nwith all {last} rows as queries 03 to {until} take {minutes:.0f} minutes at most")


if __name__ == "__main__":
    main()
