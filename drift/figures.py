"""The curves of the study, drawn from the table of curves."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

# The palette of Okabe and Ito, safe for color blindness, without its yellow: too faint for a line.
COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P")
EXACT_COLOR = "black"
WIDTH = 7.0
PANEL_HEIGHT = 3.2
LABEL_POINTS = 9


@dataclass(frozen=True)
class Style:
    """How a run looks in every figure."""

    label: str
    color: str
    dash: Any
    marker: str
    size: float
    fixed_ef: int | None


def run_styles(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Style]:
    """A look for each run, given the parameters in its manifest.

    The label says the backend and efSearch, and beside them only what differs between the runs.
    """
    differing = [
        (key, word)
        for key, word in (("M", "M"), ("ef_construction", "efConstruction"), ("seed", "seed"))
        if len({of_run.get(key) for of_run in runs.values()}) > 1
    ]
    styles = {}
    for at, (run, of_run) in enumerate(runs.items()):
        ef = of_run["ef_search"]
        words = [of_run["backend"]]
        words += [f"efSearch {ef}" if isinstance(ef, int) else f"efSearch = {ef}"] * (
            ef is not None
        )
        words += [f"{word} {of_run[key]}" for key, word in differing]
        styles[run] = Style(
            label=", ".join(words),
            color=COLORS[at % len(COLORS)],
            dash=DASHES[(at + at // len(COLORS)) % len(DASHES)],
            marker=MARKERS[at % len(MARKERS)],
            # Each later run is drawn smaller, so that one it coincides with shows behind it.
            size=max(2.0, 5.0 - 1.25 * at),
            fixed_ef=ef if isinstance(ef, int) else None,
        )
    return styles


def overlap(curves: pd.DataFrame, styles: Mapping[str, Style]) -> Figure:
    """Neighborhood overlap over k."""
    title = "Share of the exact k nearest neighbors that the index found"
    return _share(curves, styles, "overlap", title, "neighborhood overlap")


def found(curves: pd.DataFrame, styles: Mapping[str, Style]) -> Figure:
    """Share of the neighbors asked for that came back."""
    title = "Neighbors returned, of the k asked for"
    return _share(curves, styles, "found", title, "share returned")


def distances(curves: pd.DataFrame, styles: Mapping[str, Style]) -> Figure:
    """Distance to the last neighbor and mean distance, and what the index makes of them."""
    figure, panels = _panels(2, curves, "How far the neighbors are", columns=2)
    (kth, mean), (kth_ratio, mean_ratio) = panels[:2], panels[2:]
    for axes, ratio, name in (
        (kth, kth_ratio, "kth_distance"),
        (mean, mean_ratio, "mean_distance"),
    ):
        _draw_exact(axes, curves, f"{name}_exact")
        _draw_runs(axes, curves, f"{name}_ann", styles)
        _draw_ratio(ratio, curves, f"{name}_ann", f"{name}_exact", styles)
    kth.set_ylabel("Euclidean distance to the last")
    mean.set_ylabel("mean Euclidean distance")
    kth_ratio.set_ylabel("index over exact")
    _label_ends(mean)
    _label_ends(mean_ratio)
    return figure


def barycenter_shift(curves: pd.DataFrame, styles: Mapping[str, Style]) -> Figure:
    """How far the center of a neighborhood moves, absolutely and against its radius."""
    figure, (absolute, relative) = _panels(
        2, curves, "How far the barycenter of a neighborhood moves"
    )
    _draw_runs(absolute, curves, "barycenter_shift", styles)
    absolute.set_ylabel("shift (Euclidean)")
    _draw_runs(relative, curves, "barycenter_shift_relative", styles)
    relative.set_ylabel("shift / exact radius")
    relative.yaxis.set_major_formatter(PercentFormatter(1))
    for axes in (absolute, relative):
        axes.set_ylim(bottom=0)
        _mark_ef(axes, styles, height=0.92)
        _label_ends(axes)
    return figure


def lid(curves: pd.DataFrame, styles: Mapping[str, Style]) -> Figure:
    """Local intrinsic dimensionality, exact and with the index, and the difference in percent."""
    figure, (value, difference) = _panels(2, curves, "Local intrinsic dimensionality (LID)")
    _draw_exact(value, curves, "lid_exact")
    _draw_runs(value, curves, "lid_ann", styles)
    value.set_ylabel("LID (maximum likelihood)")
    difference.axhline(0, color=EXACT_COLOR, linewidth=0.8)
    _draw_runs(difference, curves, "lid_difference", styles, over="lid_exact")
    difference.set_ylabel("index minus exact")
    difference.yaxis.set_major_formatter(PercentFormatter(1))
    _at_least(difference, -0.01, 0.01)
    for axes in (value, difference):
        _mark_ef(axes, styles)
        _label_ends(axes)
    return figure


def published(curves: pd.DataFrame, styles: Mapping[str, Style]) -> Figure:
    """The notebook's quantities, beside the curves that were published of it."""
    figure, panels = _panels(2, curves, "The notebook's curves, published and ours", columns=2)
    theirs = published_curve()
    of_ours = {
        "overlap": "neighborhood overlap",
        "kth_squared_distance": "k-th squared distance",
        "lid_notebook": "LID, the notebook's way",
        "barycenter_shift": "barycenter shift",
    }
    for axes, (name, label) in zip(panels, of_ours.items(), strict=True):
        two_sided = f"{name}_ann" in theirs
        if two_sided:
            exact = _series(curves, next(iter(styles)), f"{name}_exact")["mean"]
            axes.plot(theirs["k"], theirs[f"{name}_exact"], "k:", label="published, exact")
            axes.plot(exact.index, exact, color="0.5", linestyle=":", label="ours, exact")
            name = f"{name}_ann"
        finite = theirs[np.isfinite(theirs[name])]
        label_of_theirs = "published, index" if two_sided else "published"
        axes.plot(finite["k"], finite[name], color=EXACT_COLOR, label=label_of_theirs)
        for run, style in styles.items():
            series = _series(curves, run, name)["mean"]
            _line(axes, series.index, series, style)
        axes.set_ylabel(label)
        axes.legend(fontsize=LABEL_POINTS - 2, frameon=False)
    return figure


def published_curve() -> pd.DataFrame:
    """The published curve: 10,000 images of STL-10, ResNet-50, FAISS HNSW with efSearch 50.

    Columns are ``k`` and the names of the metrics, with ``overlap_std`` beside them.
    """
    return pd.read_csv(Path(__file__).with_name("published_curve.csv"))


@dataclass(frozen=True)
class Drawing:
    """A figure, its file and what it is called.

    Attributes
    ----------
    name : str
        The file is ``06_NAME.png``.
    title : str
        Heading in the page.
    reading : str
        One sentence on how to read it.
    draw : callable
        From the curves and the styles of the runs to the figure.
    """

    name: str
    title: str
    reading: str
    draw: Callable[[pd.DataFrame, Mapping[str, Style]], Figure]


DRAWINGS = (
    Drawing(
        "overlap",
        "Neighborhood overlap",
        "At 1 the index returns exactly the true neighbors; where a line falls, that share of them "
        "is lost. The dotted line marks the k at which a fixed efSearch is used up.",
        overlap,
    ),
    Drawing(
        "found",
        "Neighbors returned",
        "Below 1 the index came back with fewer than k neighbors, whichever they were.",
        found,
    ),
    Drawing(
        "distances",
        "Neighbor distances",
        "A lost neighbor is replaced by a farther one, which lifts a line above the exact one, or "
        "not at all, which lets it fall. Below, the same as a ratio to the exact distance.",
        distances,
    ),
    Drawing(
        "barycenter_shift",
        "Barycenter shift",
        "The distance between the mean of the true neighbors and the mean of those returned, below "
        "as a share of the neighborhood's radius.",
        barycenter_shift,
    ),
    Drawing(
        "lid",
        "Local intrinsic dimensionality",
        "The dimension that the growth of the neighbor distances suggests; below, by how much the "
        "index misstates it.",
        lid,
    ),
)


PUBLISHED = Drawing(
    "published",
    "The published curves",
    "Black: 10,000 images of STL-10 embedded by ResNet-50, as the notebook published them. On "
    "other data compare the shapes, not the values. Dotted: the exact side.",
    published,
)


def _panels(
    rows: int, curves: pd.DataFrame, title: str, columns: int = 1
) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH, 0.7 + PANEL_HEIGHT * (rows + 0.3) / 1.3), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, squeeze=False)
    n = int(curves["n"].max())
    figure.suptitle(title, fontsize="large", fontweight="bold")
    figure.supxlabel(
        f"k, neighbors asked for\nmean over {n:,} queries; band: 95 % interval of the mean",
        fontsize="small",
    )
    first, last = curves["k"].min(), curves["k"].max()
    margin = max(1, 0.04 * (last - first))
    for axes in grid.flat:
        axes.set_xlim(first - margin, last + margin)
        axes.grid(color="0.9")
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(
            MaxNLocator(nbins=9 // columns, steps=[1, 2, 5, 10], integer=True)
        )
    return figure, list(grid.flat)


def _series(curves: pd.DataFrame, run: str, metric: str) -> pd.DataFrame:
    chosen = curves[(curves["run"] == run) & (curves["metric"] == metric)]
    return chosen.set_index("k").sort_index()


def _draw_runs(
    axes: Axes,
    curves: pd.DataFrame,
    metric: str,
    styles: Mapping[str, Style],
    over: str | None = None,
) -> None:
    """A line and a band for each run, divided by the mean of another metric if one is given."""
    for run, style in styles.items():
        series = _series(curves, run, metric)
        unit = _series(curves, run, over)["mean"] if over else 1.0
        values = series[["mean", "ci_low", "ci_high"]].div(unit, axis=0) if over else series
        _line(axes, values.index, values["mean"], style)
        axes.fill_between(
            values.index, values["ci_low"], values["ci_high"], color=style.color, alpha=0.25, lw=0
        )


def _draw_ratio(
    axes: Axes, curves: pd.DataFrame, metric: str, over: str, styles: Mapping[str, Style]
) -> None:
    axes.axhline(1, color=EXACT_COLOR, linewidth=0.8)
    for run, style in styles.items():
        ratio = _series(curves, run, metric)["mean"] / _series(curves, run, over)["mean"]
        _line(axes, ratio.index, ratio, style)
    _at_least(axes, 0.99, 1.01)


def _line(axes: Axes, ks: pd.Index, values: pd.Series, style: Style) -> None:
    axes.plot(
        ks,
        values,
        color=style.color,
        linestyle=style.dash,
        marker=style.marker,
        markersize=style.size,
        linewidth=0.4 * style.size,
        label=style.label,
    )


def _draw_exact(axes: Axes, curves: pd.DataFrame, metric: str) -> None:
    """The exact side, which all runs share, with its interval."""
    exact = curves[curves["metric"] == metric].drop_duplicates("k").set_index("k").sort_index()
    # A single point would be no line to be seen.
    marker = "o" if len(exact) == 1 else None
    style = {"color": EXACT_COLOR, "linewidth": 2.5, "alpha": 0.6, "marker": marker}
    axes.plot(exact.index, exact["mean"], label="exact", **style)
    axes.fill_between(
        exact.index, exact["ci_low"], exact["ci_high"], color=EXACT_COLOR, alpha=0.15, lw=0
    )


def _mark_ef(axes: Axes, styles: Mapping[str, Style], height: float = 0.02) -> None:
    """Mark the k at which a fixed efSearch is used up, in words at a height of the axes."""
    low, high = axes.get_xlim()
    for ef in {style.fixed_ef for style in styles.values()} - {None}:
        if low < ef < high:
            axes.axvline(ef, color="0.5", linestyle=":", linewidth=1)
            axes.annotate(
                f"k = efSearch {ef}",
                (ef, height),
                xycoords=("data", "axes fraction"),
                xytext=(3, 0),
                textcoords="offset points",
                fontsize=LABEL_POINTS - 1,
                color="0.4",
            )


def _label_ends(axes: Axes) -> None:
    """Write each line's name at its right end, pushed apart where they would overlap."""
    lines = [line for line in axes.get_lines() if not line.get_label().startswith("_")]
    low, high = axes.get_ylim()
    rows = axes.get_subplotspec().get_gridspec().nrows
    height = axes.figure.get_figheight() * 72 / rows * 0.75
    gap = (LABEL_POINTS + 3) / height
    ends = []
    for line in lines:
        values = np.asarray(line.get_ydata(), float)
        values = values[np.isfinite(values)]
        if values.size:
            ends.append(((values[-1] - low) / (high - low), line))
    ends.sort(key=lambda end: end[0])
    places = [place for place, _ in ends]
    for at in range(1, len(places)):
        places[at] = max(places[at], places[at - 1] + gap)
    # What was pushed over the top moves everything below it down again.
    for at in range(len(places) - 1, -1, -1):
        ceiling = 1 if at == len(places) - 1 else places[at + 1] - gap
        places[at] = min(places[at], ceiling)
    for place, (_, line) in zip(places, ends, strict=True):
        axes.annotate(
            line.get_label(),
            (1, place),
            xycoords="axes fraction",
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=LABEL_POINTS,
            color=line.get_color(),
            annotation_clip=False,
        )


def _share(
    curves: pd.DataFrame, styles: Mapping[str, Style], metric: str, title: str, label: str
) -> Figure:
    """A share of neighbors over k, on an axis on which 0.999 looks like what it is."""
    figure, (axes,) = _panels(1, curves, title)
    _draw_runs(axes, curves, metric, styles)
    axes.set_ylabel(label)
    low = min(axes.get_ylim()[0], 0.95)
    axes.set_ylim(low, 1 + 0.02 * (1 - low))
    _mark_ef(axes, styles)
    _label_ends(axes)
    return figure


def _at_least(axes: Axes, low: float, high: float) -> None:
    """Widen the vertical axis to a span below which differences are not worth looking at."""
    bottom, top = axes.get_ylim()
    axes.set_ylim(min(bottom, low), max(top, high))
