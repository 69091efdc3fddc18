"""Stage 06: draw the curves, and a page that shows them.

reads   results/05_curves.parquet, results/05_safe_k.parquet
writes  results/06_overlap.png, 06_found.png, 06_distances.png, 06_barycenter_shift.png, 06_lid.png
        results/06_report.html   the figures, the tables and the findings in one file
        results/06_figures.json  the manifest

examples
  python 06_plots.py
  python 06_plots.py --dpi 300
  python 06_plots.py --results results-notebook
"""

import argparse
from pathlib import Path

import pandas as pd

from drift import figures, report, stage
from drift.artifacts import ArtifactError, Results
from drift.draft import Draft

STAGE = "06_figures"
TABLE_KS = (10, 50, 100, 150, 200, 250)
TABLE_METRICS = (
    "overlap",
    "found",
    "kth_distance_exact",
    "kth_distance_ann",
    "barycenter_shift",
    "lid_exact",
    "lid_ann",
)


def arguments() -> argparse.ArgumentParser:
    parser = stage.parser(__doc__)
    parser.add_argument(
        "--dpi", type=stage.integer(30, 1200), default=150, metavar="N", help="dots per inch"
    )
    return parser


def main(args: argparse.Namespace) -> None:
    results = Results(args.results)
    inputs = results.require("05_curves.parquet", "05_safe_k.parquet")
    measured = results.manifest("05_metrics")["parameters"]["runs"]
    of_files = any(Path(name).is_absolute() for name in results.manifest("05_metrics")["inputs"])
    if not of_files and set(measured) != set(results.runs()[0]):
        raise ArtifactError(
            f"the runs in {results.path('04_hnsw')} are no longer those that were measured: "
            "run 05_metrics.py again"
        )
    parameters = {"dpi": args.dpi}
    if stage.up_to_date(results, STAGE, parameters, inputs, args.force):
        return

    curves = pd.read_parquet(results.path("05_curves.parquet"))
    safe_k = pd.read_parquet(results.path("05_safe_k.parquet"))
    styles = figures.run_styles(measured)
    labels = {run: style.label for run, style in styles.items()}

    draft = Draft(results, STAGE, parameters, inputs, fresh=args.force)
    pictures = []
    notebook = "lid_notebook_exact" in set(curves["metric"])
    for drawing in figures.DRAWINGS + (figures.PUBLISHED,) * notebook:
        path = draft.path(f"06_{drawing.name}.png")
        drawing.draw(curves, styles).savefig(path, dpi=args.dpi)
        pictures.append(report.Picture(drawing.title, drawing.reading, path.read_bytes()))
    sentences = report.findings(curves, safe_k, labels)
    tables = [
        ("Curves", curve_table(curves, labels)),
        ("Safe k and onset", safe_k.assign(run=safe_k["run"].map(labels))),
    ]
    if notebook:
        beside = report.beside_published(curves, figures.published_curve(), labels)
        tables.insert(0, ("Beside the published curve", beside))
    title = "What the index does to the neighborhoods"
    page = report.page(title, facts(results), sentences, tables, pictures)
    draft.path("06_report.html").write_text(page, encoding="utf-8")
    manifest = draft.publish()

    print("\n" + "\n".join(sentences))
    if notebook:
        stage.report("ours beside the published curve", beside)
    names = pd.DataFrame({"file": [str(results.path(name)) for name in manifest["outputs"]]})
    stage.report("figures and page", names)


def curve_table(curves: pd.DataFrame, labels: dict[str, str]) -> pd.DataFrame:
    """The means of the most telling metrics at a few k."""
    ks = [k for k in TABLE_KS if k in set(curves["k"])] or sorted(curves["k"].unique())
    chosen = curves[curves["k"].isin(ks) & curves["metric"].isin(TABLE_METRICS)]
    wide = chosen.pivot(index=["run", "k"], columns="metric", values="mean")[list(TABLE_METRICS)]
    return wide.rename(index=labels, level="run").rename_axis(columns=None).reset_index()


def facts(results: Results) -> pd.DataFrame:
    """Parameters, time and date of every stage, as the manifests record them."""
    stages = ["01_images", "02_embeddings", "03_exact"]
    stages += [f"04_hnsw/{run}" for run in results.runs()[0]] + ["05_metrics"]
    rows = []
    for name in stages:
        manifest = results.manifest(name)
        if manifest is None:
            continue  # the images can be gone; the embeddings are enough to come this far
        said = {key: value for key, value in manifest["parameters"].items() if key != "runs"}
        text = ", ".join(f"{key} {value}" for key, value in said.items() if key != "k_grid")
        rows.append((name, text, manifest["seconds"], manifest["date"]))
    return pd.DataFrame(rows, columns=["stage", "parameters", "seconds", "date"])


if __name__ == "__main__":
    stage.run(main, arguments())
