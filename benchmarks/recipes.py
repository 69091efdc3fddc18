"""Run the recipes of docs/recipes.md whose libraries are installed, and measure their lists.

    python benchmarks/recipes.py [--results results] [--folder results-recipes] [--python PYTHON]

Takes the embeddings and exact lists of a results folder, those of `make demo` for instance, links
them into a folder of its own, runs each recipe there by PYTHON, and stages 04 and 05 on what it
wrote. The table is in Markdown.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.machine import ROOT
from benchmarks.stop_rules import link, stage
from drift.report.tables import format_number

FILES = ("01_images.*", "02_*", "03_*")
START = 'import numpy\nvectors = numpy.load("02_embeddings.npy")\n'
REPORTED = {"lancedb": ["--reported", "squared"]}


def recipes() -> dict[str, str]:
    """Code of each recipe that needs no server, by its heading."""
    sections = (ROOT / "docs" / "recipes.md").read_text().split("\n## ")[1:]
    parts = {text.partition("\n")[0]: text.partition("```python\n")[2] for text in sections}
    return {name: code.partition("```")[0] for name, code in parts.items() if code}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--folder", type=Path, default=Path("results-recipes"))
    parser.add_argument("--python", default=sys.executable, help="of the libraries")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for pattern in FILES:
        for path in args.results.glob(pattern):
            link(path, args.folder)
    names, python = {}, Path(args.python).absolute()
    for heading, code in recipes().items():
        (file,) = re.findall(r'"([a-z_]+\.(?:npz|npy|json|parquet))"', code)
        written = file.partition(".")[0]
        done = subprocess.run(
            [python, "-c", START + code], cwd=args.folder, capture_output=True, text=True
        )
        if done.returncode:
            print(f"{heading}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            continue
        lists = ["--lists", written, args.folder / file, *REPORTED.get(written, [])]
        stage("04_hnsw_search.py", "--results", args.folder, *lists, "--k", "50", "250")
        names[written] = heading
    stage("05_metrics.py", "--results", args.folder)
    curves = pd.read_parquet(args.folder / "05_curves.parquet")
    means = curves.set_index(["run", "k", "metric"])["mean"]
    print("| library | overlap at k = 50 | at k = 250 | returned | LID off by |")
    print("| --- | --- | --- | --- | --- |")
    for name, heading in names.items():
        cells = [format_number(means[name, k, "overlap"]) for k in (50, 250)]
        cells += [f"{means[name, 250, 'found']:.1%}", f"{means[name, 250, 'lid_error']:+.1%}"]
        print(f"| {heading} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
