"""Figures of the publications' own quantities: the published curves behind, ours in front."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from drift.report import panels
from drift.report.experiments import EXPERIMENTS, HOLDS_MISSING, runs_of, short_rows
from drift.report.panels import Panel, draw_line, draw_panel, finish, set_share_axis
from drift.report.study import MARKERS, RunStyle, Study

# From light to dark as the value grows, distinguishable with each common color blindness.
COLORS = ("#C48600", "#D55E00", "#CC79A7", "#0072B2", "#332288")
PANELS = {
    "overlap": "overlap",
    "mean_squared_distance_ann": "mean squared\ndistance, log",
    "mean_distance_ann": "mean distance,\nmissing left out",
    "short": "rows short by one\n(thin: by more), log",
    "barycenter_shift_paper": "barycenter shift /\nsquared distance",
    "lid_paper_ann": "LID of squares",
}


def published(study: Study) -> Figure:
    """Black: 10,000 images of STL-10 embedded by ResNet-50, as the notebook published them; dotted:
    its exact side. It ends where a missing neighbor made it infinite; of squared distance and LID
    ours are means over complete lists. On other data compare the shapes, not the values.
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


def experiment(name: str) -> Callable[[Study], Figure]:
    """What draws an experiment, by its name in `EXPERIMENTS`."""

    def draw(study: Study) -> Figure:
        """Bands and dotted lines: as published, over ten samples of STL-10; lines with marks: ours.
        The mean squared distance jumps beyond the gray line where a row came back short by exactly
        one neighbor, and FAISS's 3.4e38 is averaged with the others; crosses: the first jump in
        each published sample. Below, the mean distance without the missing neighbors (Euclidean),
        which does not jump, and the share of rows that were short. Of other images compare the
        shapes, not the values.
        """
        curves, jumps = (table[table["study"] == name] for table in study.published[:2])
        runs, short = runs_of(study, name), short_rows(study)
        figure, grid = panels.stack(study, *[1.3] * len(PANELS))
        for axes, (metric, label) in zip(grid, PANELS.items(), strict=True):
            axes.set_ylabel(label)
            for i, value in enumerate(sorted(curves["value"].unique())):
                label = EXPERIMENTS[name].varied.format(value)
                look = RunStyle(label, COLORS[i], "-", MARKERS[i], width=1.3, index=i)
                if metric in curves:
                    _draw_published(axes, curves[curves["value"] == value], metric, look)
                if metric == "mean_squared_distance_ann":
                    first = jumps[jumps["value"] == value]
                    axes.plot(first["k"], first[metric], "x", color=look.color, markersize=4)
                if value in runs:
                    _draw_ours(axes, study, short, runs[value], metric, look)
        set_share_axis(grid[0])
        for axes in grid[1], grid[3]:
            if 0 < axes.dataLim.ymax < np.inf:  # there are values
                axes.set_yscale("log")
            axes.yaxis.set_major_formatter(lambda y, _: f"{y:.0e}" if y > 1e4 else f"{y:g}")
        grid[2].plot(study.exact_curve("mean_distance_exact")["mean"], color="0.25", label="exact")
        fixed = EXPERIMENTS[name].fixed
        return finish(figure, study, f"{fixed}; bands: as published, 2 sd over 10 samples", False)

    return draw


def _draw_published(axes: Axes, curve: pd.DataFrame, metric: str, look: RunStyle) -> None:
    """A mean with a band of two standard deviations; distances where no sample has a jump."""
    ks, mean, half = curve["k"], curve[metric], 2 * curve[f"{metric}_sd"]
    if metric == "mean_squared_distance_ann":
        mean = mean.where(curve["subsets_padded"] == 0)
    axes.fill_between(ks, mean - half, mean + half, color=look.color, alpha=0.3, lw=0)
    axes.plot(ks, mean, ":", color=look.color, linewidth=1.2)


def _draw_ours(
    axes: Axes, study: Study, short: pd.DataFrame, run: str, metric: str, look: RunStyle
) -> None:
    if metric == "short":
        shares = short.loc[run].replace(0, np.nan) / study.n_queries
        draw_line(axes, shares.index, shares["by_one"], look)
        axes.plot(shares.index, shares["by_more"], color=look.color, linewidth=0.7)
        return
    ours = study.run_curve(run, metric)["mean"]
    draw_line(axes, ours.index, ours.where(np.isfinite(ours)), look)
    if metric == "mean_squared_distance_ann" and (ours > HOLDS_MISSING).any():
        axes.axhline(HOLDS_MISSING, **panels.LIMIT)
