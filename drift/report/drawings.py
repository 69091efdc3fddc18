"""What draws each figure from a `Study`."""

import textwrap
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from drift.report import panels
from drift.report.panels import finish, set_share_axis, styled
from drift.report.study import Study
from drift.report.tables import COSTS, evenly

# Of the grid of images.
MOST_ROWS, MOST_COLUMNS = 5, 8


class Panel(NamedTuple):
    """A panel of a metric's means over k, where `over` is given as shares of its mean.

    Beside them stand those of the metric `exact`. The vertical axis covers `least` at least, since
    less is not worth looking at, and begins at `bottom`.
    """

    label: str
    metric: str
    over: str = ""
    exact: str = ""
    least: float = 0.0
    bottom: float | None = None


PUBLISHED = (
    Panel("overlap", "overlap"),
    Panel("k-th squared\ndistance", "kth_squared_distance_ann", exact="kth_squared_distance_exact"),
    Panel("LID, the\nnotebook's way", "lid_notebook_ann", exact="lid_notebook_exact"),
    Panel("barycenter shift\n(Euclidean)", "barycenter_shift"),
)


def over_k(*specs: Panel) -> Callable[[Study], Figure]:
    """What draws panels one above the other."""

    @styled
    def draw(study: Study) -> Figure:
        figure, grid = panels.stack(study, *[max(1.1, 2.8 / len(specs))] * len(specs))
        for spec, axes in zip(specs, grid, strict=True):
            _draw_panel(spec, axes, study)
        whole_graph = specs[0].metric.startswith("hubness")
        rows = f"from the lists of all {study.n_queries:,} rows"
        return finish(figure, study, rows if whole_graph else _footnote(study))

    return draw


def _draw_panel(spec: Panel, axes: Axes, study: Study) -> None:
    axes.set_ylabel(spec.label)
    if spec.exact:
        panels.draw_exact(axes, study.exact_curve(spec.exact))
    for run, style in study.styles.items():
        curve = study.run_curve(run, spec.metric, spec.over)
        if spec.over and spec.metric != "lid_difference":
            # The interval of a ratio is not that of what stands above the line.
            panels.draw_line(axes, curve.index, curve["mean"], style)
        else:
            panels.draw_curve(axes, curve, style)
    if spec.metric == "lid_difference":
        panels.mark_crossings(axes, study, "lid")
    low, high = axes.get_ylim()
    room = max(0.0, spec.least - (high - low)) / 2
    axes.set_ylim(low - room, high + room)
    if spec.bottom is not None:
        axes.set_ylim(spec.bottom, max(high, spec.bottom + spec.least))
    if spec.metric == "found":
        set_share_axis(axes)


@styled
def overlap(study: Study) -> Figure:
    """The overlap, and the loss on a logarithmic scale, with marks where it crosses tolerances."""
    figure, (kept, lost) = panels.stack(study, 1.9, 1.7)
    losses = []
    for run, style in study.styles.items():
        curve = study.run_curve(run, "overlap")[["mean", "ci_low", "ci_high"]]
        panels.draw_curve(kept, curve, style)
        loss = (1 - curve).where(1 - curve > panels.ROUNDING, 0)
        panels.draw_curve(lost, loss, style)
        losses.append(loss["mean"])
    panels.mark_crossings(lost, study, "overlap")
    kept.set_ylabel("overlap")
    set_share_axis(kept)
    lost.set_ylabel("1 - overlap, log scale")
    panels.set_loss_axis(lost, np.concatenate(losses))
    footnote = _footnote(study)
    if "recall" in map(study.kept_by, study.styles):
        footnote += "\nrows tie: see recall, of which less is lost"
    return finish(figure, study, footnote)


@styled
def distribution(study: Study) -> Figure:
    """Quantiles of the overlap over the queries, in a panel for each run."""
    figure, grid = panels.stack(study, *[0.95] * len(study.styles))
    for axes, (run, style) in zip(grid, study.styles.items(), strict=True):
        curve = study.quantiles(run)
        for low, high, alpha in (("q05", "q95", 0.25), ("q25", "q75", 0.45)):
            ends = curve[low], curve[high]
            axes.fill_between(curve.index, *ends, color=style.color, alpha=alpha, lw=0)
        panels.draw_line(axes, curve.index, curve["median"], style)
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
    columns = {"overlap": "overlap", "distance_ratio": "distance ratio"}
    figure, grid = panels.multiples(study.few_ks, len(columns))
    for k, row in zip(study.few_ks, grid, strict=True):
        for run, style in study.styles.items():
            fifths = study.fifths(run, k)
            for axes, metric in zip(row, columns, strict=True):
                panels.draw_line(axes, fifths.index, fifths[metric], style)
        for axes, label in zip(row, columns.values(), strict=True):
            axes.set_ylabel(label)
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
                    panels.draw_line(axes, [cost[k]], [kept[k]], study.styles[run])
            set_share_axis(axes)
        shown = [cost.reindex(study.few_ks).dropna() for cost in by_run.values()]
        panels.set_cost_axis(column[-1], np.concatenate(shown))
        column[-1].set_xlabel(f"{name}, log scale")
    for axes in grid[:, 0]:
        axes.set_ylabel("overlap")
    counted = {run for run, cost in costs.get("distances computed", {}).items() if len(cost)}
    names = {study.labels[run].partition(" ")[0]: run for run in study.styles if run not in counted}
    footnote = f"not counted by {' and '.join(names)}: distances computed" if names else ""
    return finish(figure, study, footnote, is_over_k=False)


@styled
def published(study: Study) -> Figure:
    """The notebook's quantities beside those it published."""
    figure, grid = panels.stack(study, *[1.3] * len(PUBLISHED))
    theirs = study.published.set_index("k")
    theirs = theirs.where(np.isfinite(theirs))
    for spec, axes in zip(PUBLISHED, grid, strict=True):
        _draw_panel(spec, axes, study)
        for metric, label, dash in ((spec.metric, "", "-"), (spec.exact, ", exact", ":")):
            if metric:
                axes.plot(theirs[metric], dash, color="0", label=f"published{label}")
        axes.relim()
        axes.autoscale()
    return finish(figure, study, "the notebook's protocol")


@styled
def image_grid(images: np.ndarray) -> Figure:
    """Images, of uint8 (N, S, S, 3), evenly spaced over the rows, with a white line between them.

    As many as fill a grid without an empty place.
    """
    columns, size = min(MOST_COLUMNS, len(images)), images.shape[1]
    rows, gap = min(MOST_ROWS, len(images) // columns), -(-size // 24)
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
