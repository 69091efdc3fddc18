"""Time stages on a local Dask cluster against the plain run, and two workers against one.

    python benchmarks/cluster.py [--rows 5000] [--dim 512] [--k 250] [--rounds 1]

In every round each stage is run plainly on both cores, then with two local workers of one thread,
then with one: the same data, one after the other, each with --force. The seconds are those of the
whole command, and what a cluster adds is in them: its start, the import of the packages in every
worker, the vectors and indexes that each of them opens. `overhead` is the time with two workers
over the plain one, `efficiency` that with one worker over twice that with two.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.machine import machine, timed
from benchmarks.vectors import clustered

WAYS = {
    "plain": ("--threads", "2"),
    "two workers": ("--scheduler", "local", "--threads", "2"),
    "one worker": ("--scheduler", "local", "--threads", "1"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--k", type=int, default=250)
    parser.add_argument("--images", type=int, default=256, help="for stage 02; 0: without it")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--until", choices=("03", "04", "05"), default="05", help="stage")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(args, Path(folder))
    seconds = measured.groupby(["stage", "way"], sort=False)["seconds"].median().unstack()
    seconds = seconds[list(WAYS)]
    by_round = measured.pivot(index=["stage", "round"], columns="way", values="seconds")
    seconds["overhead"] = (
        (by_round["two workers"] / by_round["plain"]).groupby("stage", sort=False).median()
    )
    seconds["efficiency"] = (
        (by_round["one worker"] / by_round["two workers"] / 2).groupby("stage", sort=False).median()
    )
    print(
        f"{args.images} images; {args.rows} x {args.dim}, K = {args.k}; {args.rounds} rounds, "
        f"seconds; {machine()}"
    )
    print(seconds.round(2).to_string())


def measure(args: argparse.Namespace, folder: Path) -> pd.DataFrame:
    def run(script: str, results: str, *flags: str) -> float:
        return timed(script, "--results", folder / results, *flags)[0]

    np.save(folder / "x.npy", clustered(args.rows, args.dim))
    if args.images:
        images = ("--dataset", "photos", "--n-images", str(args.images))
        run("01_download_stl10.py", "images", *images)
    run("02_embed_resnet50.py", "vectors", "--from-file", str(folder / "x.npy"))
    lite = ("--model", "efficientnet_lite0")
    stages = [
        ("02_embed_resnet50.py", "images", lite),
        ("03_exact_knn.py", "vectors", ("--k-max", str(args.k))),
        ("04_hnsw_search.py", "vectors", ("--runs", "faiss:k")),
        ("05_metrics.py", "vectors", ()),
    ]
    rows = []
    for script, results, flags in stages[0 if args.images else 1 :]:
        if script[:2] > args.until:
            break
        for round_ in range(args.rounds):
            for way, how in WAYS.items():
                seconds = run(script, results, *flags, *how, "--force")
                rows.append((script[:2], round_, way, seconds))
    return pd.DataFrame(rows, columns=["stage", "round", "way", "seconds"])


if __name__ == "__main__":
    main()
