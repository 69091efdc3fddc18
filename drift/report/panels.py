"""What figures are made of: panels, lines, bands, marks, limits, the legend."""

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    FuncFormatter,
    MaxNLocator,
    NullFormatter,
    NullLocator,
    SymmetricalLogLocator,
)

from drift.report.run_styles import RunStyle
from drift.report.study import Study

STYLE = Path(__file__).with_name("style.mplstyle")
EXACT_COLOR = "0.25"
NOTE_COLOR = "0.35"
MARKS_ON_A_LINE = 8
# Of a mean over many queries that kept everything, no more than this is missing to 1.
ROUNDING = 1e-12
# Without the date the same figure is the same file.
METADATA = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}

styled = matplotlib.style.context(STYLE)


def stack(study: Study, *heights: float) -> tuple[Figure, list[Axes]]:
    """A figure of panels of some heights, in inches, one above the other, over k."""
    figure = Figure()
    figure.set_figheight(sum(heights) + 0.15 * len(heights) + 0.7)
    grid = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)
    for axes in grid.flat:
        set_k_axis(axes, study, study.styles.values())
    axes.set_xlabel("k, neighbors asked for")
    return figure, list(grid.flat)


def multiples(ks: Sequence[int], columns: int) -> tuple[Figure, np.ndarray]:
    """A figure with a row of panels for each k, in columns."""
    figure = Figure()
    figure.set_figheight(0.7 + 1.4 * len(ks))
    grid = figure.subplots(len(ks), columns, sharex="col", squeeze=False)
    for k, row in zip(ks, grid, strict=True):
        for axes in row:
            axes.set_title(f"k = {k}")
            set_ticks(axes)
    return figure, grid


def finish(figure: Figure, study: Study, footnote: str = "", is_over_k: bool = True) -> Figure:
    """Add the note at the bottom, and the legend of all panels at the top."""
    figure.supxlabel(footnote, color=NOTE_COLOR)
    lines = {line.get_label(): line for axes in figure.axes for line in named_lines(axes)}
    handles = list(lines.values())
    efs = [ef for ef in fixed_efs(study.styles.values()) if study.ks[0] < ef < study.ks[-1]]
    if efs and is_over_k:
        label = textwrap.fill(f"k = efSearch {', '.join(map(str, efs))}", 45)
        handles.append(Line2D([], [], color="0.5", linestyle=":", linewidth=1, label=label))
    figure.legend(handles=handles, loc="outside upper left")
    figure.set_figheight(figure.get_figheight() + 0.16 * len(handles))
    for axes in figure.axes:
        if not any(np.isfinite(line.get_ydata()).any() for line in named_lines(axes)):
            axes.text(0.5, 0.5, "no values", ha="center", transform=axes.transAxes)
    return figure


def named_lines(axes: Axes) -> list[Line2D]:
    """The lines of a panel that have a name."""
    return [line for line in axes.get_lines() if not line.get_label().startswith("_")]


def fixed_efs(styles: Iterable[RunStyle]) -> list[int]:
    """The numbers that efSearch was fixed to: each is used up at that k."""
    return sorted({style.fixed_ef for style in styles if style.fixed_ef is not None})


def set_k_axis(axes: Axes, study: Study, styles: Iterable[RunStyle]) -> None:
    """A horizontal axis from the first k to the last, on which the efSearch of runs is marked."""
    margin = max(1, 0.04 * (study.ks[-1] - study.ks[0]))
    axes.set_xlim(study.ks[0] - margin, study.ks[-1] + margin)
    axes.xaxis.set_major_locator(MaxNLocator(nbins="auto", steps=[1, 2, 5, 10], integer=True))
    set_ticks(axes)
    for ef in fixed_efs(styles):
        if study.ks[0] < ef < study.ks[-1]:
            axes.axvline(ef, color="0.5", linestyle=":", linewidth=1, zorder=1)


def set_ticks(axes: Axes) -> None:
    """Few and round numbers on the vertical axis."""
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))


def draw_line(axes: Axes, xs: Sequence[float], ys: Sequence[float], style: RunStyle) -> None:
    """A run's line. Marks are few and at other places than those of the next run."""
    step = max(1, -(-len(xs) // MARKS_ON_A_LINE))
    axes.plot(
        xs,
        ys,
        color=style.color,
        linestyle=style.dash,
        marker=style.marker,
        markersize=2.5 + style.width,
        markevery=(style.index % step, step),
        linewidth=style.width,
        label=style.label,
    )


def draw_curve(axes: Axes, curve: pd.DataFrame, style: RunStyle) -> None:
    """A run's line with its interval, from a table with ``mean``, ``ci_low`` and ``ci_high``."""
    draw_line(axes, curve.index, curve["mean"], style)
    _draw_band(axes, curve, style.color)


def draw_exact(axes: Axes, curve: pd.DataFrame) -> None:
    """The exact side, with its interval."""
    # A single point would be no line to be seen.
    marker = "o" if len(curve) == 1 else None
    look = {"color": EXACT_COLOR, "linewidth": 2.8, "marker": marker}
    axes.plot(curve.index, curve["mean"], label="exact", **look)
    _draw_band(axes, curve, EXACT_COLOR)


def _draw_band(axes: Axes, curve: pd.DataFrame, color: str) -> None:
    # A band over a single k has no width to be seen.
    width = 3 if len(curve) == 1 else 0
    ends = curve["ci_low"], curve["ci_high"]
    axes.fill_between(curve.index, *ends, color=color, alpha=0.25, lw=width)


def mark_crossings(axes: Axes, study: Study, criterion: str) -> None:
    """Mark where each run crosses each tolerance, with the interval of that, at the loss itself."""
    for run, style in study.styles.items():
        sign = np.sign(study.lid_error(run)["mean"].sum()) if criterion == "lid" else 1
        for row in study.limits(run, criterion).dropna(subset="crossing_k").itertuples():
            loss = sign * min(row.tolerance, 1 - row.tolerance)
            last = study.ks[-1] if np.isnan(row.crossing_high) else row.crossing_high
            ends = [row.crossing_low, last], [loss, loss]
            axes.plot(*ends, "|-", color=style.color, markersize=6, linewidth=1)


def set_share_axis(axes: Axes) -> None:
    """A vertical axis up to 1, on which 0.999 looks like what it is."""
    low = min(axes.get_ylim()[0], 0.95)
    axes.set_ylim(low, 1 + 0.04 * (1 - low))


def set_loss_axis(axes: Axes, losses: np.ndarray) -> None:
    """A logarithmic vertical axis that has a place for 0, below its last power of ten.

    It begins at the power of ten below the least of the losses that is not 0, and goes up to 0.01
    at least.
    """
    least = 10 ** np.floor(np.log10(losses[losses > 0].min(initial=1e-3)))
    axes.set_yscale("symlog", linthresh=least, linscale=0.5)
    axes.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=least))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda loss, _: f"{loss:.9f}".rstrip("0.") or "0"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(-0.1 * least, 1.5 * max(0.01, losses.max(initial=0)))


def set_cost_axis(axes: Axes, costs: np.ndarray) -> None:
    """A logarithmic horizontal axis that covers a factor of 6 at least."""
    room = max(1.3, np.sqrt(6 * costs.min() / costs.max()))
    low, high = costs.min() / room, costs.max() * room
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.log10(high))
    ticks = np.outer(powers, (1, 3) if high / low > 20 else (1, 2, 5)).ravel()
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{t:g}" if t < 1000 else f"{t / 1000:g}k" for t in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(low, high)


@styled
def save(figure: Figure, paths: Sequence[Path], dpi: int) -> bytes:
    """Write a figure, each time in the format that the file's name ends in.

    The same figure gives the same bytes; those of the first file are returned.
    """
    for path in paths:
        figure.savefig(path, dpi=dpi, metadata=METADATA.get(path.suffix[1:]))
    return paths[0].read_bytes()
