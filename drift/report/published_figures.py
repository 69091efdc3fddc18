"""Figures of the publications' own quantities: the published curves behind, ours in front."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from drift.report import panels
from drift.report.experiments import EXPERIMENTS, HOLDS_MISSING, runs_of, short_rows
from drift.report.panels import Panel, draw_line, draw_panel, finish, set_share_axis
from drift.report.study import Study
from drift.report.styles import MARKERS, RunStyle, mixed

# From light to dark as the value grows, distinguishable with each common color blindness.
COLORS = [mixed(i) for i in (5, 0, 3, 1, 6)]
PUBLISHED = {"color": "0.5", "linestyle": ":", "label": "published"}
SQUARED = "mean_squared_distance_ann"
PANELS = {
    "overlap": "overlap",
    "barycenter_shift_paper": "barycenter shift /\nsquared distance",
    "lid_paper_ann": "LID of squares",
}


def published(study: Study) -> Figure:
    """Without marks: 10,000 images of STL-10 embedded by ResNet-50, as the notebook published them;
    dotted: its exact side. It ends where a missing neighbor made it infinite; of squared distance
    and LID ours are means over complete lists. On other data compare the shapes, not the values.
    """
    specs = (
        Panel("overlap", "overlap"),
        Panel("k-th squared\ndistance", "kth_squared_distance_ann"),
        Panel("LID, the\nnotebook's way", "lid_notebook_ann"),
        Panel("barycenter shift\n(Euclidean)", "barycenter_shift"),
    )
    figure, grid = panels.stack(study, *[1.3] * len(specs))
    theirs = study.published.notebook.set_index("k")
    theirs = theirs.where(np.isfinite(theirs))
    for spec, axes in zip(specs, grid, strict=True):
        draw_panel(spec, axes, study)
        axes.plot(theirs[spec.metric], color="0", label="published")
        if spec.metric.endswith("_ann"):
            exact = theirs[spec.metric.replace("_ann", "_exact")]
            axes.plot(exact, ":", color="0", label="published, exact")
        axes.relim()
        axes.autoscale()
    return finish(figure, study, "the notebook's protocol")


def jump(study: Study) -> Figure:
    """One run as an example. Where a row is short by exactly one neighbor, FAISS's 3.4e38 is
    averaged with the others, and the mean squared distance jumps to the marks at the top; crosses:
    the first such k in each published sample. Without the missing neighbors the mean distance
    (Euclidean) does not jump. Below, the share of the rows that are short by one, thin: by more.
    """
    runs = [(name, *one) for name in EXPERIMENTS for one in runs_of(study, name).items()]
    if not runs:
        return Figure()
    name, value, run = min(runs, key=lambda one: one[1] != 50)
    curve, first = _published(study, name, value)
    look, ours = _look(name, value, 1), study.run_curve(run, SQUARED)["mean"]
    short = short_rows(study).loc[run].replace(0, np.nan) / study.n_queries
    figure, (squared, mean, rows) = panels.stack(study, 1.5, 1.3, 1.3)
    squared.plot(curve["k"], curve[SQUARED].where(curve["subsets_padded"] == 0), **PUBLISHED)
    squared.plot(first["k"], first[SQUARED], "x", color="0.5", markersize=4)
    draw_line(squared, ours.index, ours.mask(ours > HOLDS_MISSING), look)
    squared.plot(ours[ours > HOLDS_MISSING], look.marker, color=look.color, markersize=4)
    mean.plot(study.exact_curve("mean_distance_exact")["mean"], color="0.25", label="exact")
    draw_line(mean, short.index, study.run_curve(run, "mean_distance_ann")["mean"], look)
    draw_line(rows, short.index, short["by_one"], look)
    rows.plot(short["by_more"], color=look.color, linewidth=0.7)
    for axes in squared, rows:
        if 0 < axes.dataLim.ymax < np.inf:  # there are values
            axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda y, _: f"{y:.0e}" if y > 1e4 else f"{y:g}")
    squared.set_ylabel("mean squared\ndistance, log")
    mean.set_ylabel("mean distance,\nmissing left out")
    rows.set_ylabel("rows short, log")
    return _finish(figure, study, EXPERIMENTS[name].fixed)


def experiment(name: str) -> Callable[[Study], Figure]:
    """What draws an experiment, by its name in `EXPERIMENTS`."""

    def draw(study: Study) -> Figure:
        """Bands and dotted lines: as published, over ten samples of STL-10; lines with marks: ours.
        In the last panel stand the k at which our mean squared distance jumps, crosses: the first
        such in each published sample. Of other images compare the shapes, not the values.
        """
        values = sorted(study.published.curves.query("study == @name")["value"].unique())
        runs, (figure, grid) = runs_of(study, name), panels.stack(study, *[1.5] * (len(PANELS) + 1))
        for i, value in enumerate(values):
            (curve, first), look = _published(study, name, value), _look(name, value, i)
            for axes, metric in zip(grid, PANELS, strict=False):
                ends = (curve[metric] + sign * 2 * curve[f"{metric}_sd"] for sign in (-1, 1))
                axes.fill_between(curve["k"], *ends, color=look.color, alpha=0.3, lw=0)
                label = None if value in runs else f"{look.label}, published"
                axes.plot(curve["k"], curve[metric], ":", color=look.color, lw=1.2, label=label)
                if value in runs:
                    ours = study.run_curve(runs[value], metric)["mean"]
                    draw_line(axes, ours.index, ours.where(np.isfinite(ours)), look)
            points = {"color": look.color, "markersize": 4}
            grid[-1].plot(first["k"], np.full(len(first), i + 0.2), "x", **points)
            if value in runs:
                ours = study.run_curve(runs[value], SQUARED)["mean"]
                ks = ours.index[ours > HOLDS_MISSING]
                grid[-1].plot(
                    ks, np.full(len(ks), i - 0.2), look.marker, label=look.label, **points
                )
        for axes, label in zip(grid, [*PANELS.values(), "jumps"], strict=True):
            axes.set_ylabel(label)
        set_share_axis(grid[0])
        grid[-1].set_ylim(-0.6, len(values) - 0.4)
        grid[-1].set_yticks(range(len(values)))
        grid[-1].yaxis.set_major_formatter(lambda y, _: f"{values[round(y)]:g}")
        grid[0].plot([], [], **PUBLISHED)
        return _finish(figure, study, EXPERIMENTS[name].fixed)

    return draw


def _published(study: Study, name: str, value: float) -> list[pd.DataFrame]:
    """The curve of an experiment's value, and the first jump in each of its samples."""
    tables = study.published[:2]
    return [table[(table["study"] == name) & (table["value"] == value)] for table in tables]


def _look(name: str, value: float, i: int) -> RunStyle:
    label = EXPERIMENTS[name].varied.format(value)
    return RunStyle(label, *COLORS[i], "-", MARKERS[i], width=1.3, index=-1)


def _finish(figure: Figure, study: Study, fixed: str) -> Figure:
    figure.set_label(f"With {fixed}.")
    note = f"{fixed}; bands: as published, 2 sd over 10 samples"
    return finish(figure, study, note, is_marked=False)
