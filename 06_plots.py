"""Stage 06: draw the curves, and a page to hand on.

reads   results/05_*.parquet, the manifests of all stages, and for the gallery 01_images.npy with
        the lists of one run
writes  results/06_overlap.png, 06_distribution.png, 06_found.png, 06_distances.png,
        06_barycenter_shift.png, 06_lid.png, 06_hubness.png, 06_speed.png, 06_images.png
        results/06_report.html   figures, tables, findings and a gallery in one file
        results/06_figures.json  the manifest

examples
  python 06_plots.py
  python 06_plots.py --format pdf svg
  python 06_plots.py --gallery 12 --gallery-run faiss_M32_efc200_ef50 --gallery-k 100
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from tqdm import tqdm

from drift import catalogue, drawing, figures, gallery, page, provenance, report, sections, stage
from drift.artifacts import ArtifactError, Results, content_hash, manifest_name
from drift.draft import Draft

STAGE = "06_figures"
FILES = {
    "05_curves.parquet": "for each run, k and metric the mean, its interval, and quantiles",
    "05_safe_k.parquet": "for each run and tolerance the largest safe k, and the onset",
    "05_per_query.parquet": "each metric of every single query",
}
IMAGES_SHOWN = 40


def arguments() -> argparse.ArgumentParser:
    parser = stage.parser(__doc__)
    add = parser.add_argument
    add("--dpi", type=stage.integer(30, 1200), default=200, metavar="N", help="dots per inch")
    add(
        "--format",
        nargs="+",
        choices=("png", "svg", "pdf"),
        default=["png"],
        help="of the figures; svg and pdf come beside the PNG, which the page shows and which is "
        "written in any case",
    )
    add(
        "--gallery",
        type=stage.integer(0, 100),
        default=6,
        metavar="N",
        help="queries in the page's gallery, those that drifted most; 0: no gallery",
    )
    add("--gallery-run", metavar="RUN", help="its run; without it, the one with the least overlap")
    add(
        "--gallery-k",
        type=stage.integer(1),
        metavar="K",
        help=f"its k; without it, the first at which the run keeps less than "
        f"{100 * gallery.VISIBLE_DRIFT:.0f} %% of the neighbors, or where it keeps least",
    )
    return parser


def main(args: argparse.Namespace) -> None:
    results = Results(args.results)
    inputs = results.require(*FILES)
    runs, searched = runs_in_order(results)
    curves = pd.read_parquet(results.path("05_curves.parquet"))
    run, k = gallery.choose(curves, args.gallery_run, args.gallery_k)
    no_pictures = why_no_pictures(results)
    has_gallery = no_pictures is None and args.gallery > 0
    inputs |= results.require(*["01_images.npy"] * (no_pictures is None))
    inputs |= results.require(*lists_of(run, k) * has_gallery)
    manifests = manifests_of(results, searched)
    parameters = {
        "dpi": args.dpi,
        "formats": sorted({"png", *args.format}),
        "gallery": {"queries": args.gallery, "run": run, "k": k},
        "runs": list(runs),
        "manifests": {name: content_hash(results.path(manifest_name(name))) for name in manifests},
    }
    if stage.up_to_date(results, STAGE, parameters, inputs, args.force):
        return

    safe_k = pd.read_parquet(results.path("05_safe_k.parquet"))
    columns = ["run", "k", "query", "overlap", "barycenter_shift"]
    per_query = pd.read_parquet(results.path("05_per_query.parquet"), columns=columns)
    styles = drawing.run_styles(runs)
    labels = {run: style.label for run, style in styles.items()}
    speeds = {run: provenance.speeds(manifest) for run, manifest in searched.items()}
    study = figures.Study(curves, styles, figures.quantiles(per_query), speeds)

    draft = Draft(results, STAGE, parameters, inputs, fresh=args.force)
    plots, left_out = draw(study, draft, parameters)
    if no_pictures is None:
        plots.append(draw_images(results.load("01_images.npy"), draft, parameters))
    else:
        left_out["Images and gallery"] = no_pictures
    parts = [
        sections.what_was_run(manifests, searched, labels),
        sections.what_was_found(curves, safe_k, labels, speeds),
        sections.tables(curves, safe_k, labels),
        page.Section("Figures", [page.grid(plots)]),
    ]
    if has_gallery:
        drifted = drifted_queries(results, per_query, run, k, args.gallery)
        images = results.load("01_images.npy")
        parts.append(sections.drifted_queries(drifted, images, labels[run], k))
    parts.append(sections.files(FILES, left_out))
    html = page.page(sections.TITLE, sections.LEDE, parts)
    draft.path("06_report.html").write_text(html, encoding="utf-8")
    manifest = draft.publish(left_out=left_out)

    print("\n" + "\n".join(report.findings(curves, safe_k, labels)))
    for name, reason in left_out.items():
        print(f"left out: {name} ({reason})")
    if study.has(catalogue.PUBLISHED.needs):
        beside = report.beside_published(curves, figures.published_curve(), labels)
        stage.report("ours beside the published curve", beside)
    names = pd.DataFrame({"file": [str(results.path(name)) for name in manifest["outputs"]]})
    stage.report("figures and page", names)


def runs_in_order(results: Results) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters of the runs that were measured, and manifests of those that stage 04 searched.

    They are in the order in which they were searched: a run that is added takes the next color, and
    the others keep theirs.
    """
    manifest = results.manifest("05_metrics")
    measured = manifest["parameters"]["runs"]
    if any(Path(name).is_absolute() for name in manifest["inputs"]):
        return measured, {}  # lists of another system
    current = results.runs()[0]
    if set(measured) != set(current):
        raise ArtifactError(
            f"the runs in {results.path('04_hnsw')} are no longer those that were measured: "
            "run 05_metrics.py again"
        )
    order = sorted(measured, key=lambda run: current[run]["date"])
    return {run: measured[run] for run in order}, {run: current[run] for run in order}


def why_no_pictures(results: Results) -> str | None:
    """Why there is no image to each embedding; None if there is."""
    if any(Path(name).is_absolute() for name in results.manifest("05_metrics")["inputs"]):
        return "lists of another system come without pictures"
    made_from = (results.manifest("02_embeddings") or {"inputs": ()})["inputs"]
    if "01_images.npy" not in made_from:
        return "the embeddings were imported, and come without pictures"
    if not results.path("01_images.npy").exists():
        return f"{results.path('01_images.npy').name} is no longer there"
    return None


def manifests_of(results: Results, searched: dict[str, Any]) -> dict[str, Any]:
    """The manifests of the stages that the measurements come from, in order."""
    names = ["05_metrics"]
    if searched:
        names = ["02_embeddings", "03_exact", *(f"04_hnsw/{run}" for run in searched), *names]
        names = ["01_images"] * (why_no_pictures(results) is None) + names
    found = {name: results.manifest(name) for name in names}
    return {name: manifest for name, manifest in found.items() if manifest is not None}


def lists_of(run: str, k: int) -> list[str]:
    """Files with the queries, the exact lists, and those of a run for a k."""
    exact = ["03_queries.npy", "03_exact_indices.npy", "03_exact_distances.npy"]
    return [*exact, *(f"04_hnsw/{run}/k{k:04d}_{part}.npy" for part in ("indices", "distances"))]


def draw(
    study: figures.Study, draft: Draft, parameters: dict[str, Any]
) -> tuple[list[str], dict[str, str]]:
    """Every figure of the study for the page, and why others are left out."""
    plots = []
    chosen, left_out = catalogue.drawings(study)
    for one in tqdm(chosen, "figures", disable=None):
        png = write_figure(draft, one.name, one.draw(study), parameters)
        plots.append(page.plot(one.title, one.told(study), one.reading, png))
    return plots, left_out


def draw_images(images: np.ndarray, draft: Draft, parameters: dict[str, Any]) -> str:
    """Images evenly spaced over the rows, for the page."""
    shown = report.evenly(range(len(images)), IMAGES_SHOWN)
    png = write_figure(draft, "images", figures.sample(images[shown]), parameters)
    told = f"{len(shown)} of the {len(images):,} images, evenly spaced over the rows, in a grid."
    return page.plot("The images", told, "What the embeddings were made from.", png)


def write_figure(draft: Draft, name: str, figure: Figure, parameters: dict[str, Any]) -> bytes:
    """Write a figure in each format, and return the PNG's bytes."""
    for suffix in parameters["formats"]:
        drawing.save(figure, draft.path(f"06_{name}.{suffix}"), parameters["dpi"])
    return draft.path(f"06_{name}.png").read_bytes()


def drifted_queries(
    results: Results, per_query: pd.DataFrame, run: str, k: int, n: int
) -> list[gallery.DriftedQuery]:
    """The queries of a run that drifted most at a k."""
    queries, *lists = (results.load(name) for name in lists_of(run, k))
    at_k = per_query[(per_query["run"] == run) & (per_query["k"] == k)]
    at_k = at_k.set_index("query").loc[queries]
    worst = gallery.most_drifted(at_k["overlap"].to_numpy(), at_k["barycenter_shift"].to_numpy(), n)
    return [gallery.drifted_query(queries[at], *(part[at, :k] for part in lists)) for at in worst]


if __name__ == "__main__":
    stage.run(main, arguments())
