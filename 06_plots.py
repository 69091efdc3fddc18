"""Stage 06: draw the curves, and a page to hand on.

reads   results/05_*.parquet, the manifests of all stages, and for the gallery 01_images.* with the
        lists of one run
writes  results/06_NAME.png      overlap, images, distribution, who_drifts, found, distances,
                                 barycenter_shift, lid, hubness, effort, frontier*, published*
        results/06_report.html   finding, figures, tables and a gallery in one file
        results/06_figures.json  the manifest

examples
  python 06_plots.py
  python 06_plots.py --format pdf svg --tolerance 0.02 0.1
  python 06_plots.py --gallery 12 --gallery-run faiss_M32_efc200_ef50 --gallery-k 100
"""

import drift.pipeline.cli as cli

import argparse

import pandas as pd

from drift import InputError
from drift.pipeline.results import ArtifactError
from drift.pipeline.stage import Stage
from drift.published import notebook, paper
from drift.report import gallery
from drift.report.by_use import TOLERANCES
from drift.report.sentences import paragraphs
from drift.report.study import PER_QUERY, Published, Study

IMAGES = ("01_images.npy", "01_images.parquet", "02_rows.parquet")
EXACT = ("03_queries.npy", "03_exact_indices.npy", "03_exact_distances.npy")


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--dpi", type=cli.integer(30, 1200), default=200, metavar="N", help="dots per inch")
    text = "of the figures, beside the PNG, which the page shows and which is always written"
    add("--format", nargs="+", choices=("png", "svg", "pdf"), default=["png"], help=text)
    text = "queries in the page's gallery, those that drifted most; 0: no gallery"
    add("--gallery", type=cli.integer(0, 100), default=6, metavar="N", help=text)
    add("--gallery-run", metavar="RUN", help="its run; without it, the one with the least overlap")
    text = f"its k; without it, the first with overlap below {gallery.VISIBLE_DRIFT}, or the worst"
    add("--gallery-k", type=cli.integer(1), metavar="K", help=text)
    text = "a use of the lists is kept up to the first change, changed up to the second, else lost"
    of_two = {"nargs": 2, "default": TOLERANCES, "metavar": ("KEPT", "CHANGED")}
    add("--tolerance", type=cli.positive, **of_two, help=text)
    return parser


def main(args: argparse.Namespace) -> None:
    if not args.tolerance[0] < args.tolerance[1] < 1:
        raise InputError("--tolerance takes two numbers between 0 and 1, the smaller one first")
    stage = cli.open_stage("06_figures", args)
    stage.require("05_curves.parquet", "05_safe_k.parquet", "05_per_query.parquet")
    study = read_study(stage)
    run, k = gallery.choose(study, args.gallery_run, args.gallery_k)
    ann = [f"04_hnsw/{run}/k{k:04d}_{part}.npy" for part in ("indices", "distances")]
    exist = all(stage.results.path(name).exists() for name in IMAGES)
    images = [stage.read(name) for name in IMAGES if exist and "01_images" in study.manifests]
    has_gallery = images and args.gallery and not study.is_outside
    lists = [stage.read(name) for name in (*EXACT, *ann)] if has_gallery else []
    formats = ["png", *sorted({*args.format} - {"png"})]
    parameters = {
        "dpi": args.dpi,
        "tolerance": list(args.tolerance),
        "formats": formats,
        "gallery": {"queries": args.gallery, "run": run, "k": k},
        "runs": list(study.owner),
        "manifests": {name: manifest["sha256"] for name, manifest in study.manifests.items()},
    }
    if stage.begin(parameters):
        from drift.report import figures, page  # matplotlib and Jinja take a while

        study.per_query = stage.read("05_per_query.parquet", PER_QUERY)
        study.images = images[0] if images else None
        plots, left_out = figures.draw_figures(study, args.dpi, formats, stage.output)
        if not images:
            left_out["images and gallery"] = "01_images.npy is missing, or is not what was embedded"
        elif study.is_outside:
            left_out["gallery"] = "the queries are not among the images"
        shown = gallery.gallery(study, run, k, lists, images, args.gallery) if lists else None
        html = page.render(study, plots, shown, left_out, args.tolerance)
        stage.output("06_report.html").write_text(html, "utf-8", "backslashreplace")
        stage.commit(left_out=left_out)
    print_summary(stage, study)


def print_summary(stage: Stage, study: Study) -> None:
    for paragraph in paragraphs(study):
        cli.print_text(paragraph)
    manifest = stage.manifest()
    for name, reason in manifest["left_out"].items():
        print(f"left out: {name} ({reason})")
    files = [str(stage.results.path(name)) for name in manifest["outputs"]]
    cli.print_table("figures and page", pd.DataFrame({"file": files}))


def read_study(stage: Stage) -> Study:
    """What was measured, with the manifests of all stages that it was made from."""
    results, measured = stage.results, stage.results.manifest("05_metrics")
    searched, _ = results.runs()
    if set(measured["parameters"]["runs"]) != set(searched):
        raise ArtifactError(
            f"the runs in {results.path('04_hnsw')} are no longer those that were measured: "
            "run 05_metrics.py again"
        )
    study = Study.read(stage.read, results.manifest, results.root)
    study.published = Published(paper.curves(), paper.jumps(), notebook.curve())
    return study


if __name__ == "__main__":
    cli.run(main, arguments())
