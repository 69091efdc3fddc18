"""The figures of the study, each drawn from a `Study`."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from drift import drawing
from drift.drawing import EXACT_COLOR, POINTS, Style

QUANTILES = {"q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95}
# Panels of the distribution over queries: above so many runs they stand in two columns.
ONE_COLUMN = 3
# The horizontal axis of speeds covers at least this factor.
LEAST_FACTOR = 6


@dataclass(frozen=True)
class Study:
    """What figures are drawn from.

    Attributes
    ----------
    curves : DataFrame
        The table ``05_curves.parquet``.
    styles : mapping of str to Style
        How each run looks, in the order in which they are drawn.
    quantiles : DataFrame
        For each ``run`` and ``k`` the quantiles of the overlap over the queries, see `quantiles`.
    speeds : mapping of str to Series
        Queries per second by k, for the runs where they are known.
    """

    curves: pd.DataFrame
    styles: Mapping[str, Style]
    quantiles: pd.DataFrame
    speeds: Mapping[str, pd.Series]

    def series(self, run: str, metric: str) -> pd.DataFrame:
        """A metric of a run over k: a column for each number of the table."""
        chosen = self.curves[(self.curves["run"] == run) & (self.curves["metric"] == metric)]
        return chosen.set_index("k").sort_index()

    def exact(self, metric: str) -> pd.DataFrame:
        """A metric of the exact side, which all runs share, over k."""
        chosen = self.curves[self.curves["metric"] == metric].drop_duplicates("k")
        return chosen.set_index("k").sort_index()

    def means(self, metric: str, over: str | None = None) -> dict[str, pd.Series]:
        """For each run a metric's mean over k, divided by that of another metric if one is given.

        Keys are the labels of the runs.
        """
        return {
            style.label: self.series(run, metric)["mean"]
            / (self.series(run, over)["mean"] if over else 1.0)
            for run, style in self.styles.items()
        }

    def has(self, metric: str) -> bool:
        """Whether the metric was measured."""
        return metric in set(self.curves["metric"])

    @property
    def ks(self) -> list[int]:
        """Every k of the grid, ascending."""
        return sorted(self.curves["k"].unique())

    @property
    def footnote(self) -> str:
        """What lines and bands are."""
        return f"mean over {self.curves['n'].max():,} queries; band: its 95 % interval"


def quantiles(per_query: pd.DataFrame) -> pd.DataFrame:
    """Quantiles of the overlap over the queries, from the table ``05_per_query.parquet``.

    Returns
    -------
    DataFrame
        Columns ``run``, ``k`` and the names in `QUANTILES`.
    """
    groups = per_query.groupby(["run", "k"], sort=False)["overlap"]
    table = groups.quantile(list(QUANTILES.values())).unstack()
    return table.set_axis(list(QUANTILES), axis=1).reset_index()


def overlap(study: Study) -> Figure:
    """Neighborhood overlap over k."""
    return _share(study, "overlap", "Overlap: share of the true neighbors kept", "overlap")


def found(study: Study) -> Figure:
    """Share of the neighbors asked for that came back."""
    title = "Neighbors returned, of the k asked for"
    return _share(study, "found", title, "found, over k")


def distribution(study: Study) -> Figure:
    """Quantiles of the overlap over the queries, a panel for each run."""
    columns = 1 if len(study.styles) <= ONE_COLUMN else 2
    rows = -(-len(study.styles) // columns)
    lines = max(style.short.count("\n") + 1 for style in study.styles.values())
    inches = rows * (1.15 + 0.13 * (lines if columns > 1 else 1))
    figure = Figure(figsize=(drawing.WIDTH, 0.95 + inches), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    drawing.head(figure, "Overlap of single queries")
    figure.supxlabel(
        f"line: median of {study.curves['n'].max():,} queries\n"
        "dark: the middle half; light: 5 % to 95 % of them",
        fontsize=POINTS,
        color="0.35",
    )
    for axes in list(grid.flat)[len(study.styles) :]:
        axes.remove()
    for axes, (run, style) in zip(figure.axes, study.styles.items(), strict=True):
        of_run = study.quantiles[study.quantiles["run"] == run].set_index("k").sort_index()
        for low, high, alpha in (("q05", "q95", 0.25), ("q25", "q75", 0.45)):
            axes.fill_between(
                of_run.index, of_run[low], of_run[high], color=style.color, alpha=alpha, lw=0
            )
        drawing.line(axes, of_run.index, of_run["median"], style)
        drawing.dress(axes)
        # Beside a neighbor the name has half the width.
        name = textwrap.fill(style.label, 40) if columns == 1 else style.short
        axes.set_title(name, fontsize=POINTS, loc="left", fontweight="bold", parse_math=False)
    drawing.over_k(figure, study.ks, columns)
    if len(figure.axes) % columns:
        # The panel over the empty place has no panel below it to bear the numbers.
        figure.axes[-2].tick_params(labelbottom=True)
    _share_axis(figure.axes[0])
    for axes in grid[:, 0]:
        axes.set_ylabel("overlap", fontsize=POINTS)
    for axes, style in zip(figure.axes, study.styles.values(), strict=True):
        drawing.mark_ef(axes, {"": style})
    return figure


def distances(study: Study) -> Figure:
    """Distance to the last neighbor and mean distance, and what the index makes of them."""
    title = "Neighbor distances, and index over exact"
    figure, panels = drawing.panels(title, (1.3, 0.9, 1.3, 0.9), study.styles, study.footnote)
    for at, (name, label) in enumerate((("kth_distance", "k-th"), ("mean_distance", "mean"))):
        value, ratio = panels[2 * at : 2 * at + 2]
        _draw_exact(value, study, f"{name}_exact")
        _draw_runs(value, study, f"{name}_ann")
        value.set_ylabel(f"{label} distance\n(Euclidean)")
        _draw_ratio(ratio, study, f"{name}_ann", f"{name}_exact")
        ratio.set_ylabel(f"{label} distance,\nindex / exact")
    return _finish(figure, study, top=True)


def barycenter_shift(study: Study) -> Figure:
    """How far the center of a neighborhood moves, absolutely and against its radius."""
    title = "Barycenter: how far a neighborhood moves"
    figure, (absolute, relative) = drawing.panels(title, (1.3, 1.3), study.styles, study.footnote)
    _draw_runs(absolute, study, "barycenter_shift")
    absolute.set_ylabel("shift (Euclidean)")
    _draw_runs(relative, study, "barycenter_shift_relative")
    relative.set_ylabel("shift / exact radius")
    relative.yaxis.set_major_formatter(PercentFormatter(1))
    # Both panels begin at no shift and go at least to a twentieth of the radius.
    radius = study.exact("kth_distance_exact")["mean"].max()
    for axes, least in ((absolute, 0.05 * radius), (relative, 0.05)):
        drawing.at_least(axes, 0, least)
        axes.set_ylim(bottom=0)
    return _finish(figure, study, top=True)


def lid(study: Study) -> Figure:
    """Local intrinsic dimensionality, exact and with the index, and the difference in percent."""
    title = "Local intrinsic dimensionality (LID)"
    figure, (value, difference) = drawing.panels(title, (1.4, 1.3), study.styles, study.footnote)
    _draw_exact(value, study, "lid_exact")
    _draw_runs(value, study, "lid_ann")
    value.set_ylabel("LID (dimensions)")
    difference.axhline(0, color=EXACT_COLOR, linewidth=0.8)
    _draw_runs(difference, study, "lid_difference", over="lid_exact")
    difference.set_ylabel("index minus exact")
    difference.yaxis.set_major_formatter(PercentFormatter(1))
    drawing.at_least(difference, -0.05, 0.05)
    return _finish(figure, study)


def hubness(study: Study) -> Figure:
    """Hubness and orphans: who is whose neighbor over all rows."""
    title = "Hubs and orphans"
    n = f"from the lists of all {study.curves['n'].max():,} rows"
    figure, (hubs, orphans) = drawing.panels(title, (1.3, 1.3), study.styles, n)
    for axes, name in ((hubs, "hubness"), (orphans, "orphans")):
        _draw_exact(axes, study, f"{name}_exact")
        _draw_runs(axes, study, f"{name}_ann")
    hubs.set_ylabel("hubness (skewness)")
    low, high = hubs.get_ylim()
    drawing.at_least(hubs, (low + high) / 2 - 0.25, (low + high) / 2 + 0.25)
    orphans.set_ylabel("orphans (of all rows)")
    orphans.yaxis.set_major_formatter(PercentFormatter(1))
    drawing.at_least(orphans, 0, 0.01)
    orphans.set_ylim(bottom=0)
    return _finish(figure, study, top=True)


def speed(study: Study) -> Figure:
    """Overlap against queries per second, each run a curve through its k."""
    timed = {run: style for run, style in study.styles.items() if run in study.speeds}
    figure, (axes,) = drawing.panels("Overlap against queries per second", (1.9,), timed)
    ends = {}
    for run, style in timed.items():
        of_run = study.series(run, "overlap")["mean"]
        per_second = study.speeds[run].reindex(of_run.index)
        # From the largest k to the smallest: mostly from slow to fast, the end that is named.
        drawing.line(axes, per_second[::-1], of_run[::-1], style)
        ends[of_run.iloc[-1]] = (f"k = {of_run.index[-1]}", per_second.iloc[-1])
    # The other end is marked where it is lowest; others can lie upon each other.
    lowest = min(ends)
    axes.annotate(
        ends[lowest][0],
        (ends[lowest][1], lowest),
        xytext=(-5, -2),
        textcoords="offset points",
        ha="right",
        va="center",
        fontsize=POINTS,
        color="0.35",
    )
    axes.set_ylabel("overlap")
    _share_axis(axes)
    axes.set_xscale("log")
    everything = np.concatenate([study.speeds[run] for run in timed])
    low, high = everything.min(), everything.max()
    room = max(1.2, np.sqrt(LEAST_FACTOR * low / high))
    axes.set_xlim(low / room, high * room)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("queries per second, log scale", fontsize=POINTS)
    if len(study.ks) > 1:
        span = f"along a line k goes from {study.ks[0]}, at the name, to {study.ks[-1]}"
        figure.supxlabel(span, fontsize=POINTS, color="0.35")
    drawing.label_ends(figure)
    return figure


def published(study: Study) -> Figure:
    """The notebook's quantities, beside the curves that were published of it."""
    title = "The notebook's curves, published and ours"
    heights = (1.3, 1.5, 1.5, 1.3)
    figure, panels = drawing.panels(title, heights, study.styles, "notebook's protocol")
    theirs = published_curve().set_index("k")
    theirs = theirs.where(np.isfinite(theirs))
    quantities = {
        "overlap": "overlap",
        "kth_squared_distance": "k-th squared\ndistance",
        "lid_notebook": "LID, the\nnotebook's way",
        "barycenter_shift": "barycenter shift\n(Euclidean)",
    }
    for axes, (name, label) in zip(panels, quantities.items(), strict=True):
        two_sided = f"{name}_ann" in theirs
        if two_sided:
            exact = study.exact(f"{name}_exact")["mean"]
            of_theirs = theirs[f"{name}_exact"]
            axes.plot(of_theirs, color="0", linestyle=":", lw=1.2, label="published,\nexact")
            axes.plot(exact, color="0.5", linestyle=":", lw=1.2, label="ours, exact")
            name = f"{name}_ann"
        axes.plot(theirs[name], color="0", label="published")
        for run, style in study.styles.items():
            of_run = study.series(run, name)["mean"]
            drawing.line(axes, of_run.index, of_run, style)
        axes.set_ylabel(label)
    _share_axis(panels[0])
    drawing.over_k(figure, sorted({*study.ks, *theirs.index}))
    drawing.label_ends(figure)
    return figure


def sample(images: np.ndarray) -> Figure:
    """A grid of images.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, S, S, 3)
        RGB.
    """
    columns = min(8, len(images))
    rows = -(-len(images) // columns)
    side = drawing.WIDTH / columns
    figure = Figure(figsize=(drawing.WIDTH, 0.3 + rows * side), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.01, w_pad=0.01, hspace=0, wspace=0)
    drawing.head(figure, "Some of the images")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, image in zip(grid.flat, images, strict=False):
        axes.imshow(image, interpolation="antialiased")
    return figure


def published_curve() -> pd.DataFrame:
    """The published curve: 10,000 images of STL-10, ResNet-50, FAISS HNSW with efSearch 50.

    Columns are ``k`` and the names of the metrics, with ``overlap_std`` beside them.
    """
    return pd.read_csv(Path(__file__).with_name("published_curve.csv"))


def _finish(figure: Figure, study: Study, top: bool = False) -> Figure:
    """Axis of k, marks of efSearch, in words in the first panel, and the names of the lines."""
    drawing.over_k(figure, study.ks)
    for at, axes in enumerate(figure.axes):
        drawing.mark_ef(axes, study.styles, words=at == 0, top=top)
    drawing.label_ends(figure)
    return figure


def _draw_runs(axes: Axes, study: Study, metric: str, over: str | None = None) -> None:
    """A line and a band for each run, divided by the mean of another metric if one is given."""
    for run, style in study.styles.items():
        values = study.series(run, metric)[["mean", "ci_low", "ci_high"]]
        if over:
            values = values.div(study.series(run, over)["mean"], axis=0)
        drawing.line(axes, values.index, values["mean"], style)
        drawing.band(axes, values, style.color)


def _draw_ratio(axes: Axes, study: Study, metric: str, over: str) -> None:
    axes.axhline(1, color=EXACT_COLOR, linewidth=0.8)
    ratios = study.means(metric, over=over).values()
    for style, ratio in zip(study.styles.values(), ratios, strict=True):
        drawing.line(axes, ratio.index, ratio, style)
    drawing.at_least(axes, 0.95, 1.05)


def _draw_exact(axes: Axes, study: Study, metric: str) -> None:
    """The exact side, with its interval."""
    exact = study.exact(metric)
    # A single point would be no line to be seen.
    marker = "o" if len(exact) == 1 else None
    axes.plot(
        exact.index, exact["mean"], label="exact", color=EXACT_COLOR, linewidth=2.8, marker=marker
    )
    drawing.band(axes, exact, EXACT_COLOR)


def _share(study: Study, metric: str, title: str, label: str) -> Figure:
    """A share of neighbors over k, on an axis on which 0.999 looks like what it is."""
    figure, (axes,) = drawing.panels(title, (1.9,), study.styles, study.footnote)
    _draw_runs(axes, study, metric)
    axes.set_ylabel(label)
    _share_axis(axes)
    return _finish(figure, study)


def _share_axis(axes: Axes) -> None:
    low = min(axes.get_ylim()[0], 0.95)
    axes.set_ylim(low, 1 + 0.04 * (1 - low))
    axes.autoscale(False, axis="y")
