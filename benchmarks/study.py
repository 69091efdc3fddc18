"""Time the study after embedding, stages 03 to 06, against the notebook's way.

    python benchmarks/study.py [--results results] [--rounds 3]

Takes the embeddings of a results folder, those of `make demo` for instance. In every round each
stage runs as a process of its own, with `faiss:50` alone, then the notebook's way
(benchmarks/notebook.py) as one process. The table holds medians over rounds, in seconds.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.machine import machine, timed

STAGES = {
    "03": ("03_exact_knn.py",),
    "04": ("04_hnsw_search.py", "--runs", "faiss:50"),
    "05": ("05_metrics.py",),
    "06": ("06_plots.py",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    rows = []
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            for path in args.results.glob("0[12]_*"):
                shutil.copy(path, folder)
            row = {
                stage: timed(script, "--results", folder, *flags)[0]
                for stage, (script, *flags) in STAGES.items()
            }
            row["03 to 06"] = sum(row.values())
            embeddings = Path(folder) / "02_embeddings.npy"
            row["notebook"], _, output = timed("benchmarks/notebook.py", embeddings)
        row["of it FAISS"], row["of it loops"] = map(float, output.split())
        row["ratio"] = row["03 to 06"] / row["notebook"]
        rows.append(row)
    print(f"medians of {args.rounds} rounds, seconds; {machine()}")
    print("ratio: 03 to 06 over the notebook's way")
    print(pd.DataFrame(rows).median().round(2).to_frame().T.to_string(index=False))


if __name__ == "__main__":
    main()
