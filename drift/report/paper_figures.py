"""One figure for each of the paper's experiments: the published curves behind, ours in front."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from drift.report import panels
from drift.report.experiments import EXPERIMENTS, LADEN, runs_of, short_rows
from drift.report.panels import draw_line, finish, set_share_axis, styled
from drift.report.run_styles import RunStyle
from drift.report.study import Study

# From light to dark as the value grows, distinguishable with each common color blindness.
COLORS = ("#C48600", "#D55E00", "#CC79A7", "#0072B2", "#332288")
MARKERS = ("o", "s", "^", "D", "v")
PANELS = {
    "overlap": "overlap",
    "mean_squared_distance_ann": "mean squared\ndistance, log",
    "mean_distance_ann": "mean distance,\nmissing left out",
    "short": "rows short by one\n(thin: by more), log",
    "barycenter_shift_paper": "barycenter shift /\nsquared distance",
    "lid_paper_ann": "LID of squares",
}


def experiment(name: str) -> Callable[[Study], Figure]:
    """What draws an experiment, by its name in `EXPERIMENTS`."""

    @styled
    def draw(study: Study) -> Figure:
        published, jumps = (
            table[table["study"] == name]
            for table in (study.publication.curves, study.publication.jumps)
        )
        values = sorted(published["value"].unique())
        runs, short = runs_of(study, published, name), short_rows(study)
        figure, grid = panels.stack(study, *[1.3] * len(PANELS), is_marked=False)
        for axes, (metric, label) in zip(grid, PANELS.items(), strict=True):
            axes.set_ylabel(label)
            for i, value in enumerate(values):
                label = EXPERIMENTS[name].varied.format(value)
                look = RunStyle(label, COLORS[i], "-", MARKERS[i], 1.3, i, None)
                if metric in published:
                    _draw_published(axes, published[published["value"] == value], metric, look)
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
    if metric == "mean_squared_distance_ann" and (ours > LADEN).any():
        axes.axhline(LADEN, **panels.LIMIT)
