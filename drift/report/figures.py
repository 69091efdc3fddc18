"""What draws each figure from a `Study`, and what writes and describes them.

Titles, and how to read each figure, stand in ``page.html.j2``.
"""

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tqdm import tqdm

from drift.report import panels
from drift.report.effort import draw_effort, targets
from drift.report.experiments import EXPERIMENTS
from drift.report.panels import draw_curve, draw_line, finish, set_share_axis, styled
from drift.report.paper_figures import experiment
from drift.report.study import Study
from drift.report.tables import COSTS, evenly, format_number

REPORTED = "as it reports"  # of distances by compressed vectors
# Of the grid of images.
MOST_ROWS, MOST_COLUMNS = 5, 8
IMAGES_ALT = "some of the images, evenly spaced over the rows"


class Panel(NamedTuple):
    """A panel of a metric's means over k, where `over` is given as shares of its mean.

    The vertical axis covers `least` at least, since less is not worth looking at.
    """

    label: str
    metric: str
    over: str = ""
    least: float = 0.0
    from_0: bool = False


class Plot(NamedTuple):
    """A figure that was drawn: its name, what it shows in words, the picture."""

    name: str
    alt_text: str
    png: bytes


def over_k(*specs: Panel) -> Callable[[Study], Figure]:
    """What draws panels one above the other."""

    @styled
    def draw(study: Study) -> Figure:
        figure, grid = panels.stack(study, *[max(1.1, 2.8 / len(specs))] * len(specs))
        for spec, axes in zip(specs, grid, strict=True):
            _draw_panel(spec, axes, study)
        whole_graph = specs[0].metric.startswith("hubness")
        rows = f"from the lists of all {study.n_queries:,} queries"
        return finish(figure, study, rows if whole_graph else _footnote(study))

    return draw


def _draw_panel(spec: Panel, axes: Axes, study: Study) -> None:
    axes.set_ylabel(spec.label.replace("Euclidean", "chord" if study.is_cosine else "Euclidean"))
    if spec.metric.endswith("_ann") and not spec.over:
        exact = study.exact_curve(spec.metric.replace("_ann", "_exact"))
        draw_curve(axes, exact, panels.EXACT)
    for run, style in study.styles.items():
        curve = study.run_curve(run, spec.metric, spec.over)
        if spec.over and spec.metric != "lid_difference":
            # The interval of a ratio is not that of what stands above the line.
            draw_line(axes, curve.index, curve["mean"], style)
        else:
            draw_curve(axes, curve, style)
        as_reported = study.run_curve(run, spec.metric.replace("_ann", "_reported"))
        if spec.metric.endswith("_ann") and not spec.over and len(as_reported):
            axes.plot(
                as_reported["mean"],
                ":",
                color=style.color,
                lw=1,
                label=f"{style.label}, {REPORTED}",
            )
    if spec.metric == "lid_difference":
        panels.mark_crossings(axes, study, "lid")
    low, high = axes.get_ylim()
    room = max(0.0, spec.least - (high - low)) / 2
    axes.set_ylim(low - room, high + room)
    if spec.from_0:
        axes.set_ylim(0, max(high, spec.least))
    if spec.metric == "found":
        set_share_axis(axes)


@styled
def overlap(study: Study) -> Figure:
    """The overlap, and the loss on a logarithmic scale, with marks where it crosses tolerances."""
    figure, (kept, lost) = panels.stack(study, 1.9, 1.7)
    losses = []
    for run, style in study.styles.items():
        curve = study.run_curve(run, "overlap")[["mean", "ci_low", "ci_high"]]
        draw_curve(kept, curve, style)
        loss = (1 - curve).where(1 - curve > panels.ROUNDING, 0)
        draw_curve(lost, loss, style)
        losses.append(loss["mean"])
    panels.mark_crossings(lost, study, "overlap")
    kept.set_ylabel("overlap")
    set_share_axis(kept)
    lost.set_ylabel("1 - overlap, log scale")
    panels.set_loss_axis(lost, np.concatenate(losses))
    footnote = _footnote(study)
    if study.ties:
        footnote += "\nrows tie: see recall, of which less is lost"
    return finish(figure, study, footnote)


@styled
def distribution(study: Study) -> Figure:
    """Quantiles of the overlap over the queries, in a panel for each run."""
    figure, grid = panels.stack(study, *[0.95] * len(study.styles))
    for axes, (run, style) in zip(grid, study.styles.items(), strict=True):
        curve = study.queries(run).groupby("k")["overlap"]
        curve = curve.quantile([0.05, 0.25, 0.5, 0.75, 0.95]).unstack()
        for low, high, alpha in ((0.05, 0.95, 0.25), (0.25, 0.75, 0.45)):
            ends = curve[low], curve[high]
            axes.fill_between(curve.index, *ends, color=style.color, alpha=alpha, lw=0)
        draw_line(axes, curve.index, curve[0.5], style)
        axes.set_ylabel("overlap")
    lowest = min(axes.get_ylim()[0] for axes in grid)
    for axes in grid:
        axes.set_ylim(bottom=lowest)
        set_share_axis(axes)
    footnote = f"line: median of {study.n_queries:,} queries\n"
    return finish(figure, study, footnote + "dark: the middle half; light: 5 % to 95 % of them")


@styled
def who_drifts(study: Study) -> Figure:
    """Overlap and distance ratio by fifths of the exact LID, at a few k."""
    figure, grid = panels.multiples(study.few_ks, 2)
    for k, row in zip(study.few_ks, grid, strict=True):
        for axes, metric in zip(row, ("overlap", "distance_ratio"), strict=True):
            for run, style in study.styles.items():
                fifths = study.fifths(run, k)
                draw_line(axes, fifths.index, fifths[metric], style)
            axes.set_ylabel(metric.replace("_", " "))
            set_share_axis(axes)
            axes.set_xlim(0.7, 5.3)
            axes.set_xticks(range(1, 6))
    for axes in grid[-1]:
        axes.set_xlabel("fifth of the queries")
    return finish(figure, study, "1: lowest exact LID, 5: highest", is_over_k=False)


@styled
def speed(study: Study) -> Figure:
    """Overlap over what a query costs, all runs at one k at a time."""
    costs = {name: {run: study.cost(run, COSTS[name]) for run in study.styles} for name in COSTS}
    costs = {name: by_run for name, by_run in costs.items() if any(map(len, by_run.values()))}
    figure, grid = panels.multiples(study.few_ks, len(costs))
    for (name, by_run), column in zip(costs.items(), grid.T, strict=True):
        for k, axes in zip(study.few_ks, column, strict=True):
            for run, cost in by_run.items():
                kept = study.run_curve(run, "overlap")["mean"]
                if k in cost.index and k in kept.index:
                    draw_line(axes, [cost[k]], [kept[k]], study.styles[run])
            set_share_axis(axes)
        shown = [cost.reindex(study.few_ks).dropna() for cost in by_run.values()]
        panels.set_cost_axis(column[-1], np.concatenate(shown))
        column[-1].set_xlabel(f"{name}, log scale")
    for axes in grid[:, 0]:
        axes.set_ylabel("overlap")
    return finish(figure, study, is_over_k=False)


@styled
def published(study: Study) -> Figure:
    """The notebook's quantities beside those it published."""
    specs = (
        Panel("overlap", "overlap"),
        Panel("k-th squared\ndistance", "kth_squared_distance_ann"),
        Panel("LID, the\nnotebook's way", "lid_notebook_ann"),
        Panel("barycenter shift\n(Euclidean)", "barycenter_shift"),
    )
    figure, grid = panels.stack(study, *[1.3] * len(specs))
    theirs = study.published.set_index("k")
    theirs = theirs.where(np.isfinite(theirs))
    for spec, axes in zip(specs, grid, strict=True):
        _draw_panel(spec, axes, study)
        axes.plot(theirs[spec.metric], color="0", label="published")
        exact = spec.metric.replace("_ann", "_exact")
        if exact != spec.metric:
            axes.plot(theirs[exact], ":", color="0", label="published, exact")
        axes.relim()
        axes.autoscale()
    return finish(figure, study, "the notebook's protocol")


@styled
def image_grid(images: np.ndarray) -> Figure:
    """As many images, uint8 (N, S, S, 3), evenly spaced over the rows, as fill a grid."""
    columns, size = min(MOST_COLUMNS, len(images)), images.shape[1]
    rows, gap = min(MOST_ROWS, len(images) // columns), -(-size // 24)  # white between them
    chosen = np.stack([images[i] for i in evenly(range(len(images)), rows * columns)])
    padded = np.pad(chosen, ((0, 0), (0, gap), (0, gap), (0, 0)), constant_values=255)
    pixels = padded.reshape(rows, columns, *padded.shape[1:]).swapaxes(1, 2)
    pixels = pixels.reshape(rows * (size + gap), columns * (size + gap), 3)
    figure = Figure(layout="none")
    figure.set_figheight(figure.get_figwidth() * rows / columns)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.imshow(pixels[:-gap, :-gap], aspect="auto")
    return figure


def _footnote(study: Study) -> str:
    return textwrap.fill(f"mean; band: its 95 % interval, over {study.interval_of}", 60)


# By name: the file is ``06_NAME.png``.
FIGURES = {
    "overlap": overlap,
    "distribution": distribution,
    "who_drifts": who_drifts,
    "found": over_k(Panel("neighbors returned, over k", "found")),
    "distances": over_k(
        Panel("k-th distance\n(Euclidean)", "kth_distance_ann"),
        Panel("index / exact", "kth_distance_ann", "kth_distance_exact", least=0.1),
        Panel("mean distance\n(Euclidean)", "mean_distance_ann"),
        Panel("index / exact", "mean_distance_ann", "mean_distance_exact", least=0.1),
    ),
    "barycenter_shift": over_k(
        Panel("shift (Euclidean)", "barycenter_shift", from_0=True),
        Panel("shift / exact radius", "barycenter_shift_relative", least=0.05, from_0=True),
    ),
    "lid": over_k(
        Panel("LID (dimensions)", "lid_ann"),
        Panel("LID, index / exact - 1", "lid_difference", "lid_exact", least=0.1),
    ),
    "hubness": over_k(
        Panel("hubness (skewness)", "hubness_ann", least=0.5),
        Panel("orphans, of all rows", "orphans_ann", least=0.01, from_0=True),
    ),
    "effort": draw_effort,
    "speed": speed,
    "published": published,
    **{f"published_{name}": experiment(name) for name in EXPERIMENTS},
}
# The metric without which a figure is left out, and why, if that is to be said.
NEEDED = {
    "who_drifts": ("lid_exact", "no query has an LID"),
    "hubness": ("hubness_ann", "it describes whole graphs, and not every row is a query"),
    "effort": ("effort", ""),
    "speed": ("speed", "these lists came without search times"),
    "published": ("lid_notebook_ann", ""),
    **{f"published_{name}": ("lid_paper_ann", "") for name in EXPERIMENTS},
}
# Lines or panels of more runs than this cannot be distinguished.
MOST_RUNS = 12
FOR_FEW_RUNS = set(FIGURES) - {"overlap", "published"} - {f"published_{e}" for e in EXPERIMENTS}


def possible_figures(study: Study) -> tuple[list[str], dict[str, str]]:
    """The figures that the study has the numbers for, and why others are left out, by name."""
    known = set(study.curves.dropna(subset="mean")["metric"])
    if any("queries_per_second" in manifest for manifest in study.searched.values()):
        known.add("speed")
    if targets(study):
        known.add("effort")
    left_out = {name: why for name, (metric, why) in NEEDED.items() if metric not in known}
    if len(study.styles) > MOST_RUNS:
        left_out |= dict.fromkeys(FOR_FEW_RUNS, "")
        left_out["figures of all runs"] = f"there are more than {MOST_RUNS}"
    possible = [name for name in FIGURES if name not in left_out]
    return possible, {name: why for name, why in left_out.items() if why}


def alt_text(figure: Figure) -> str:
    """Where each line of each panel begins and ends."""
    texts = []
    for axes in figure.axes:
        column = axes.get_subplotspec().colspan
        below = [one for one in figure.axes if one.get_subplotspec().colspan == column]
        over = below[-1].get_xlabel().partition(",")[0]
        lines = []
        for line in panels.named_lines(axes):
            points = np.array(line.get_data(), dtype=float).T
            points = points[np.isfinite(points).all(axis=1)]
            ends = dict.fromkeys(map(tuple, points[[0, -1]])) if len(points) else ()
            parts = [f"{format_number(y)} at {over} = {format_number(x)}" for x, y in ends]
            lines.append(f"{line.get_label()}: {' to '.join(parts) or 'no value'}")
        name = f"{axes.get_ylabel()} {axes.get_title(loc='left')}".strip()
        texts.append(f"{name}: {'; '.join(lines)}.")
    return " ".join(" ".join(texts).split())


def draw_figures(
    study: Study,
    dpi: int,
    formats: Sequence[str],
    output: Callable[[str], Path],
    images: np.ndarray | None = None,
) -> tuple[list[Plot], dict[str, str]]:
    """Draw and write every figure that there are numbers for; and why others are left out.

    The first of the `formats` is that of the page, ``output`` gives the path of a file by its name.
    Where there are `images`, uint8 (N, S, S, 3), some of them are the second figure.
    """
    names, left_out = possible_figures(study)
    if images is not None:
        names.insert(1, "images")
    plots = []
    for name in tqdm(names, "figures", disable=None):
        figure = image_grid(images) if name == "images" else FIGURES[name](study)
        text = IMAGES_ALT if name == "images" else alt_text(figure)
        paths = [output(f"06_{name}.{suffix}") for suffix in formats]
        plots.append(Plot(name, text, panels.save(figure, paths, dpi)))
    return plots, left_out
