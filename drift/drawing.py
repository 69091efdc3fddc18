"""What all figures share: how a run looks, panels over k, bands, names at the ends of lines.

Figures are half a page wide, and no letter in them is smaller than 8 points there.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.ticker import MaxNLocator
from PIL import Image

# The palette of Okabe and Ito, safe for color blindness, without its yellow: too faint for a line.
# In gray, runs are told apart by their dashes and marks.
COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
# Dotted is left to what is no run.
DASHES = (
    "-",
    (0, (4, 2)),
    (0, (4, 1.5, 1, 1.5)),
    (0, (2, 1)),
    (0, (6, 1, 1, 1, 1, 1)),
    (0, (9, 2)),
)
MARKERS = ("o", "s", "^", "D", "v", "P")
EXACT_COLOR = "0.25"
BACKENDS = {"faiss": "FAISS"}

WIDTH = 3.5  # inches
POINTS = 8
TITLE_POINTS = 9
LINE_POINTS = 1.2 * POINTS
MARKS_ON_A_LINE = 8
# Without the date, and with ids that do not change, the same figure is the same file.
METADATA = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}


@dataclass(frozen=True)
class Style:
    """How a run looks in every figure.

    Attributes
    ----------
    label : str
        What to call it, in sentences and tables.
    short : str
        The same in lines short enough to stand beside a panel.
    color, dash, marker, width
        Of its line; `width` in points.
    at : int
        Its place among the runs.
    fixed_ef : int or None
        efSearch, where it is a number.
    """

    label: str
    short: str
    color: str
    dash: Any
    marker: str
    width: float
    at: int
    fixed_ef: int | None


def run_styles(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Style]:
    """A look for each run, given the parameters in its manifest, by the order of the runs.

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
        backend = BACKENDS.get(of_run["backend"], of_run["backend"])
        of_search = f"efSearch {ef}" if isinstance(ef, int) else f"efSearch = {ef}"
        of_graph = [f"{word} {of_run[key]}" for key, word in differing]
        words = [backend, *[of_search] * (ef is not None), *of_graph]
        lines = [" ".join([backend, *of_graph[:1]]), *words[1:2], *of_graph[1:]]
        styles[run] = Style(
            label=", ".join(words),
            short="\n".join(part for line in lines for part in textwrap.wrap(line, 18)),
            color=COLORS[at % len(COLORS)],
            dash=DASHES[(at + at // len(COLORS)) % len(DASHES)],
            marker=MARKERS[at % len(MARKERS)],
            # Each later run is drawn thinner, so that one it coincides with shows behind it.
            width=max(1.0, 2.0 - 0.4 * at),
            at=at,
            fixed_ef=ef if isinstance(ef, int) else None,
        )
    return styles


def panels(
    title: str, heights: Sequence[float], styles: Mapping[str, Style], footnote: str = ""
) -> tuple[Figure, list[Axes]]:
    """A figure of panels one above the other, with the same horizontal axis.

    Parameters
    ----------
    title : str
        Over the whole.
    heights : sequence of float
        Least height of each panel in inches; a panel is higher where the names of many runs stand
        beside it.
    styles : mapping of str to Style
        The runs whose names will stand there, beside the exact side.
    footnote : str
        Under the whole.
    """
    lines = sum(style.short.count("\n") + 1.2 for style in styles.values()) + 1.2
    heights = [max(height, lines * LINE_POINTS / 72) for height in heights]
    figure = Figure(figsize=(WIDTH, 0.75 + sum(heights) + 0.2 * len(heights)), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.04, w_pad=0.02)
    grid = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)
    head(figure, title)
    if footnote:
        figure.supxlabel(footnote, fontsize=POINTS, color="0.35")
    for axes in grid.flat:
        dress(axes)
    return figure, list(grid.flat)


def head(figure: Figure, title: str) -> None:
    """Write a title over a figure, in as many lines as it needs."""
    figure.suptitle(
        textwrap.fill(title, 42), x=0.01, ha="left", fontsize=TITLE_POINTS, fontweight="bold"
    )


def dress(axes: Axes) -> None:
    """Grid, spines and letters as all panels have them."""
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=POINTS)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_size(POINTS)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))


def over_k(figure: Figure, ks: Sequence[int], columns: int = 1) -> None:
    """Let the horizontal axis of every panel be k, from the first to the last of them."""
    first, last = min(ks), max(ks)
    margin = max(1, 0.04 * (last - first))
    for axes in figure.axes:
        axes.set_xlim(first - margin, last + margin)
        axes.xaxis.set_major_locator(
            MaxNLocator(nbins=6 // columns, steps=[1, 2, 5, 10], integer=True)
        )
    for axes in figure.axes[-columns:]:
        axes.set_xlabel("k, neighbors asked for", fontsize=POINTS)


def line(axes: Axes, xs: Sequence[float], ys: Sequence[float], style: Style) -> None:
    """A run's line. Marks are few and at other places than those of the next run."""
    step = -(-len(xs) // MARKS_ON_A_LINE)
    axes.plot(
        xs,
        ys,
        color=style.color,
        linestyle=style.dash,
        marker=style.marker,
        markersize=2.5 + style.width,
        markevery=(style.at % step, step),
        linewidth=style.width,
        label=style.short,
    )


def band(axes: Axes, series: pd.DataFrame, color: str) -> None:
    """The interval of a mean, over the index of a table with ``ci_low`` and ``ci_high``."""
    # A band over a single k has no width to be seen.
    width = 3 if len(series) == 1 else 0
    axes.fill_between(
        series.index, series["ci_low"], series["ci_high"], color=color, alpha=0.25, lw=width
    )


def mark_ef(axes: Axes, styles: Mapping[str, Style], words: bool = True, top: bool = False) -> None:
    """Mark the k at which a fixed efSearch is used up; in words at the bottom or the top.

    The first mark bears the word, and further ones their number alone.
    """
    low, high = axes.get_xlim()
    efs = {style.fixed_ef for style in styles.values() if style.fixed_ef is not None}
    for at, ef in enumerate(sorted(ef for ef in efs if low < ef < high)):
        axes.axvline(ef, color="0.5", linestyle=":", linewidth=1, zorder=1)
        if not words:
            continue
        before = ef > (low + high) / 2
        axes.annotate(
            f"efSearch {ef}" if at == 0 else f"{ef}",
            (ef, 1 if top else 0),
            xycoords=("data", "axes fraction"),
            # One below the other: two marks can be nearer than the words are long.
            xytext=(-3 if before else 3, (-1 if top else 1) * (3 + LINE_POINTS * at)),
            textcoords="offset points",
            ha="right" if before else "left",
            va="top" if top else "bottom",
            fontsize=POINTS,
            color="0.35",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
        )


def at_least(axes: Axes, low: float, high: float) -> None:
    """Widen the vertical axis to a span below which differences are not worth looking at."""
    bottom, top = axes.get_ylim()
    axes.set_ylim(min(bottom, low), max(top, high))


def label_ends(figure: Figure) -> None:
    """Write each line's name beside its right end, pushed apart where names would overlap.

    A panel without any value says so.
    """
    named = [(axes, _name_lines(axes)) for axes in figure.axes]
    figure.draw_without_rendering()  # gives the panels their heights
    for axes, names in named:
        if not names:
            middle = {"x": 0.5, "y": 0.7, "ha": "center", "transform": axes.transAxes}
            axes.text(s="no values", fontsize=POINTS, color="0.35", **middle)
            continue
        height = axes.get_window_extent().height * 72 / figure.dpi
        low, high = axes.get_ylim()
        ends = np.array([((name.xy[1] - low) / (high - low), name.xy[0]) for name in names])
        # From the bottom up. Of ends at the same height, the one further left goes below, so that
        # the threads do not cross, and of ends that coincide the first run comes on top.
        order = np.lexsort((-np.arange(len(ends)), ends[:, 1], ends[:, 0].round(2)))
        names, wanted = [names[at] for at in order], ends[order, 0]
        sizes = [(name.get_text().count("\n") + 1.2) * LINE_POINTS / height for name in names]
        for name, place in zip(names, _apart(wanted, np.array(sizes)), strict=True):
            name.set_position((1.05, place))


def save(figure: Figure, path: Path, dpi: int) -> None:
    """Write a figure in the format that the file's name ends in.

    The same figure gives the same bytes. A PNG without photographs has a palette of 256 colors, of
    which curves need no more, and a third of the size.
    """
    with matplotlib.rc_context({"svg.hashsalt": path.stem}):
        figure.savefig(path, dpi=dpi, metadata=METADATA.get(path.suffix[1:]))
    if path.suffix == ".png" and not figure.findobj(AxesImage):
        with Image.open(path) as drawn:
            few_colors = drawn.convert("RGB").quantize(256)
        few_colors.save(path, optimize=True, dpi=(dpi, dpi))


def _name_lines(axes: Axes) -> list[Annotation]:
    names = []
    for of_run in axes.get_lines():
        end = _last_point(of_run)
        if of_run.get_label().startswith("_child") or end is None:
            continue
        # Letters need more contrast with the paper than a line does.
        ink = tuple(0.6 * part for part in to_rgb(of_run.get_color()))
        names.append(
            axes.annotate(
                of_run.get_label(),
                end,
                xytext=(1.05, 0.5),
                textcoords="axes fraction",
                va="center",
                fontsize=POINTS,
                color=ink,
                linespacing=1.0,
                parse_math=False,
                annotation_clip=False,
                arrowprops={
                    "arrowstyle": "-",
                    "color": "0.6",
                    "linewidth": 0.6,
                    "shrinkA": 1,
                    "shrinkB": 1,
                    "relpos": (0, 0.5),
                },
            )
        )
    return names


def _last_point(of_run: Line2D) -> tuple[float, float] | None:
    xs, ys = np.asarray(of_run.get_xdata(), float), np.asarray(of_run.get_ydata(), float)
    finite = np.flatnonzero(np.isfinite(ys))
    return (xs[finite[-1]], ys[finite[-1]]) if finite.size else None


def _apart(wanted: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Places near the wanted ones, ascending, in 0 to 1, for names of these sizes."""
    places = np.clip(wanted, sizes / 2, 1 - sizes / 2)
    gaps = (sizes[:-1] + sizes[1:]) / 2
    for at in range(1, len(places)):
        places[at] = max(places[at], places[at - 1] + gaps[at - 1])
    # What was pushed over the top moves everything below it down again.
    for at in range(len(places) - 1, -1, -1):
        ceiling = 1 - sizes[at] / 2 if at == len(places) - 1 else places[at + 1] - gaps[at]
        places[at] = min(places[at], ceiling)
    return places
