"""Stage 06: draw the curves, and a page to hand on.

reads   results/05_*.parquet, the manifests of all stages, and for the gallery 01_images.* with the
        lists of one run
writes  results/06_NAME.png      overlap, images, distribution, who_drifts, found, distances,
                                 barycenter_shift, lid, hubness, speed; published with the
                                 notebook's protocol
        results/06_report.html   verdict, figures, tables and a gallery in one file
        results/06_figures.json  the manifest

examples
  python 06_plots.py
  python 06_plots.py --format pdf svg
  python 06_plots.py --gallery 12 --gallery-run faiss_M32_efc200_ef50 --gallery-k 100
"""

from drift.pipeline import cli  # first: from here on Ctrl-C ends in one line

# isort: split
import argparse
import dataclasses
from pathlib import Path

import pandas as pd

from drift.pipeline.results import ArtifactError, Results, content_hash, manifest_name
from drift.pipeline.stage import Stage
from drift.published import notebook
from drift.report import gallery, tables
from drift.report.study import PER_QUERY, Study, given_files
from drift.report.verdict import verdict

IMAGES = ("01_images.npy", "01_images.parquet")
EXACT = ("03_queries.npy", "03_exact_indices.npy", "03_exact_distances.npy")


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    add, formats = parser.add_argument, ("png", "svg", "pdf")
    add("--dpi", type=cli.integer(30, 1200), default=200, metavar="N", help="dots per inch")
    text = "of the figures, beside the PNG, which the page shows and which is always written"
    add("--format", nargs="+", choices=formats, default=["png"], help=text)
    text = "queries in the page's gallery, those that drifted most; 0: no gallery"
    add("--gallery", type=cli.integer(0, 100), default=6, metavar="N", help=text)
    add("--gallery-run", metavar="RUN", help="its run; without it, the one with the least overlap")
    text = (
        f"its k; without it, the first with an overlap below {gallery.VISIBLE_DRIFT}, or the worst"
    )
    add("--gallery-k", type=cli.integer(1), metavar="K", help=text)
    return parser


def main(args: argparse.Namespace) -> None:
    stage = Stage("06_figures", args)
    stage.require("05_curves.parquet", "05_safe_k.parquet", "05_per_query.parquet")
    no_pictures = why_no_pictures(stage.results)
    study = read_study(stage, ["01_images"] if no_pictures is None else [])
    run, k = gallery.choose(study, args.gallery_run, args.gallery_k)
    images = lists = None
    if no_pictures is None:
        images = [stage.read(name) for name in IMAGES]
    if images and args.gallery:
        ann = [f"04_hnsw/{run}/k{k:04d}_{part}.npy" for part in ("indices", "distances")]
        lists = [stage.read(name) for name in (*EXACT, *ann)]
    formats = ["png", *sorted({*args.format} - {"png"})]
    paths = {name: stage.results.path(manifest_name(name)) for name in study.manifests}
    parameters = {
        "dpi": args.dpi,
        "formats": formats,
        "gallery": {"queries": args.gallery, "run": run, "k": k},
        "runs": list(study.owner),
        "manifests": {name: content_hash(path) for name, path in paths.items()},
    }
    if stage.begin(parameters):
        from drift.report import figures, page  # matplotlib and Jinja take a while

        def files(name: str) -> list[Path]:
            return [stage.output(f"06_{name}.{suffix}") for suffix in formats]

        per_query = stage.read("05_per_query.parquet", PER_QUERY)
        study = dataclasses.replace(study, per_query=per_query)
        plots, left_out = figures.draw_figures(study, images and images[0], args.dpi, files)
        shown = None
        if no_pictures:
            left_out["images and gallery"] = no_pictures
        if lists:
            queries = gallery.drifted_queries(per_query, run, k, lists[0], lists[1:], args.gallery)
            shown = gallery.Gallery(queries, study.label_of(run), k, *images)
        html = page.render(study, plots, shown, left_out)
        stage.output("06_report.html").write_text(html, encoding="utf-8")
        stage.commit(left_out=left_out)

    cli.print_text(verdict(study).sentences)
    if study.published is not None:
        cli.print_table("ours beside the published curve", tables.published_table(study))
    manifest = stage.manifest()
    for name, reason in manifest["left_out"].items():
        print(f"left out: {name} ({reason})")
    files = [str(stage.results.path(name)) for name in manifest["outputs"]]
    cli.print_table("figures and page", pd.DataFrame({"file": files}))


def read_study(stage: Stage, stages: list[str]) -> Study:
    """What was measured, with the manifests of these stages and of those that came after."""
    names = [f"05_{table}.parquet" for table in ("curves", "safe_k", "graphs")]
    results, facts = stage.results, stage.results.manifest("05_metrics")
    curves, safe_k, graphs = (stage.read(n) if n in facts["outputs"] else None for n in names)
    searched, published = {}, None
    if not given_files(facts):
        searched = results.runs()[0]
        if set(facts["parameters"]["runs"]) != set(searched):
            raise ArtifactError(
                f"the runs in {results.path('04_hnsw')} are no longer those that were measured: "
                "run 05_metrics.py again"
            )
        runs = [f"04_hnsw/{run}" for run in searched]
        stages = [*stages, "02_embeddings", "03_exact", *runs]
    if "lid_notebook_ann" in set(curves["metric"]):
        published = notebook.curve()
    manifests = {name: results.manifest(name) for name in [*stages, "05_metrics"]}
    manifests = {name: manifest for name, manifest in manifests.items() if manifest}
    more = {"manifests": manifests, "published": published}
    return Study.from_tables(curves, safe_k, graphs, facts, searched, **more)


def why_no_pictures(results: Results) -> str | None:
    """Why there is no image to each embedding; None if there is."""
    if given_files(results.manifest("05_metrics")):
        return "lists of another system come without pictures"
    made_from = (results.manifest("02_embeddings") or {"inputs": ()})["inputs"]
    if "01_images.npy" not in made_from:
        return "the embeddings were imported, and come without pictures"
    missing = [name for name in IMAGES if not results.path(name).exists()]
    return f"{missing[0]} is no longer there" if missing else None


if __name__ == "__main__":
    cli.run(main, arguments())
