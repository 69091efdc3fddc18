"""Ask each library for lists longer than efSearch, and print what comes back.

    python benchmarks/stop_rules.py [--results results] [--folder results-stop-rules]
    python benchmarks/stop_rules.py --libraries FAISS hnswlib --k 50 100

Takes the images, embeddings and exact lists of a results folder, those of `make demo` for instance,
links them into a folder of its own, and runs stages 04 and 05 there: every library on a graph of
M = 32 and efConstruction = 200, with efSearch = 50, at k = 50 and k = 250. Runs that are there
already are not repeated. --k asks for two other lengths of lists. The table is in Markdown.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.machine import ROOT, machine
from drift.indexes.registry import parse_run
from drift.report.tables import format_error, format_percent

RUNS = {
    "FAISS": "faiss:50",
    "hnswlib": "hnswlib:50",
    "usearch": "usearch:50",
    "pgvector": "pgvector:50",
    "pgvector, iterative scan": "pgvector:50,iterative_scan=strict_order",
}


def link(path: Path, folder: Path) -> None:
    """The same file in another folder. Stages replace links, and never write through them."""
    (folder / path.name).unlink(missing_ok=True)
    try:
        os.link(path, folder / path.name)
    except OSError:  # on another disk
        shutil.copy(path, folder)


def stage(script: str, *arguments: str | Path) -> None:
    command = [sys.executable, ROOT / script, *arguments]
    if subprocess.run(command, stdout=sys.stderr).returncode:
        sys.exit(2)  # the stage has said why


def table(folder: Path, libraries: list[str], short_k: int, long_k: int) -> pd.DataFrame:
    """A row for each library, from what stages 04 and 05 wrote."""
    curves = pd.read_parquet(folder / "05_curves.parquet").set_index(["run", "k", "metric"])
    rows = []
    for name in libraries:
        text = RUNS[name]
        run = parse_run(text, 32, 200).name
        notes = json.loads((folder / "04_hnsw" / run / "run.json").read_text())
        short, long = curves.loc[run, short_k], curves.loc[run, long_k]
        lid = long.loc["lid_error", ["mean", "ci_low", "ci_high"]]
        rule, speed = (notes[part][f"{long_k}"] for part in ("effective_ef", "queries_per_second"))
        is_iterative = "iterative_scan" in text
        stops = f"{rule['stops_after']} of {rule['list_length']}"
        rows.append(
            {
                "efSearch = 50": name,
                f"overlap at k = {short_k}": _fraction(short["mean"]["overlap"]),
                f"at k = {long_k}": _fraction(long["mean"]["overlap"]),
                "returned": f"{100 * long['mean']['found']:.3g} %",
                "LID off by %": "{} ({})".format(*format_error(*lid)),
                "of lists as short": format_percent(long["mean"]["lid_cut_error"]),
                "stops after": f"{rule['ef_search']} at a time" if is_iterative else stops,
                "queries/s": f"{speed:,.0f}{' at the client' if 'timed' in notes else ''}",
            }
        )
    return pd.DataFrame(rows)


def _fraction(share: float) -> str:
    text = f"{share:.3f}"
    return "> 0.999" if text == "1.000" and share < 1 else text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--folder", type=Path, default=Path("results-stop-rules"))
    parser.add_argument("--libraries", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--k", type=int, nargs=2, default=(50, 250))
    args = parser.parse_args()
    if not (args.results / "03_exact.json").exists():
        sys.exit(f"{args.results} has no exact lists: run stages 01 to 03, or make demo, first")
    args.folder.mkdir(parents=True, exist_ok=True)
    for path in args.results.glob("0[123]_*"):
        link(path, args.folder)
    place = ("--results", args.folder)
    grid = ("--k", *map(str, args.k))
    stage("04_hnsw_search.py", *place, *grid, "--runs", *(RUNS[name] for name in args.libraries))
    stage("05_metrics.py", *place)
    cells = table(args.folder, args.libraries, *args.k)
    print(f"On {machine()}:\n")
    for row in [cells.columns, ["---"] * len(cells.columns), *cells.to_numpy()]:
        print("|", " | ".join(row), "|")


if __name__ == "__main__":
    main()
