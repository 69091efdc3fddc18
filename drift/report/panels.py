"""What figures are made of: panels, lines, bands, marks, limits, the legend."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from drift.report.run_styles import RunStyle
from drift.report.study import Study

# Its dots are seen only where a curve has a single k.
EXACT = RunStyle("exact", "0.25", "-", ".", width=2.8, index=0, fixed_ef=None)
NOTE_COLOR = "0.35"
LIMIT = {"color": "0.5", "linestyle": ":", "linewidth": 1}
MARKS_ON_A_LINE = 8
# Of a mean over many queries that kept everything, no more than this is missing to 1.
ROUNDING = 1e-12
# Without the date the same figure is the same file.
METADATA = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}

styled = matplotlib.style.context(Path(__file__).with_name("style.mplstyle"))


def stack(study: Study, *heights: float, is_marked: bool = True) -> tuple[Figure, list[Axes]]:
    """A figure of panels of some heights, in inches, one above the other, over k.

    The k at which a fixed efSearch is used up can be marked.
    """
    figure = Figure()
    figure.set_figheight(sum(heights) + 0.15 * len(heights) + 0.7)
    grid = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)
    margin = max(1, 0.04 * (study.ks[-1] - study.ks[0]))
    for axes in grid.flat:
        axes.set_xlim(study.ks[0] - margin, study.ks[-1] + margin)
        _set_ticks(axes)
        for ef in _fixed_efs(study) if is_marked else ():
            axes.axvline(ef, zorder=1, **LIMIT)
    axes.locator_params(axis="x", steps=[1, 2, 5, 10], integer=True)
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
            _set_ticks(axes)
    return figure, grid


def finish(figure: Figure, study: Study, footnote: str = "", is_over_k: bool = True) -> Figure:
    """Add the note at the bottom, and the legend of all panels at the top."""
    figure.supxlabel(footnote, color=NOTE_COLOR)
    lines = {line.get_label(): line for axes in figure.axes for line in named_lines(axes)}
    handles, efs = list(lines.values()), _fixed_efs(study)
    if efs and is_over_k:
        label = textwrap.fill(f"k = efSearch {', '.join(map(str, efs))}", 45)
        handles.append(Line2D([], [], label=label, **LIMIT))
    figure.legend(handles=handles, loc="outside upper left")
    figure.set_figheight(figure.get_figheight() + 0.16 * len(handles))
    for axes in figure.axes:
        if not any(np.isfinite(line.get_ydata()).any() for line in named_lines(axes)):
            axes.text(0.5, 0.5, "no values", ha="center", transform=axes.transAxes)
    return figure


def named_lines(axes: Axes) -> list[Line2D]:
    """The lines of a panel that have a name."""
    return [line for line in axes.get_lines() if not line.get_label().startswith("_")]


def _fixed_efs(study: Study) -> list[int]:
    """The numbers that efSearch was fixed to, as far as they lie within the grid."""
    efs = {style.fixed_ef for style in study.styles.values() if style.fixed_ef is not None}
    return sorted(ef for ef in efs if study.ks[0] < ef < study.ks[-1])


def _set_ticks(axes: Axes) -> None:
    axes.locator_params(axis="y", nbins=5, steps=[1, 2, 2.5, 5, 10])


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
    """A line with its interval, from a table with ``mean``, ``ci_low`` and ``ci_high``."""
    draw_line(axes, curve.index, curve["mean"], style)
    # A band over a single k has no width to be seen.
    edge, ends = 3 if len(curve) == 1 else 0, (curve["ci_low"], curve["ci_high"])
    axes.fill_between(curve.index, *ends, color=style.color, alpha=0.25, lw=edge)


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
    """A logarithmic vertical axis that has a place for 0, and goes up to 0.01 at least.

    It begins at the power of ten below the least of the losses that is not 0.
    """
    least = 10 ** np.floor(np.log10(losses[losses > 0].min(initial=1e-3)))
    axes.set_yscale("symlog", linthresh=least, linscale=0.5)
    axes.yaxis.set_major_formatter(lambda loss, _: f"{loss:.9f}".rstrip("0.") or "0")
    axes.set_ylim(-0.1 * least, 1.5 * max(0.01, losses.max(initial=0)))


def set_log_axis(axes: Axes) -> None:
    """A logarithmic vertical axis with numbers as they are read."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.9g}")
    axes.yaxis.set_minor_locator(NullLocator())


def set_cost_axis(axes: Axes, costs: np.ndarray) -> None:
    """A logarithmic horizontal axis that covers a factor of 6 at least."""
    room = max(1.3, np.sqrt(6 * costs.min() / costs.max()))
    low, high = costs.min() / room, costs.max() * room
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.log10(high))
    ticks = np.outer(powers, (1, 3) if high / low > 20 else (1, 2, 5)).ravel()
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{t:g}" if t < 1000 else f"{t / 1000:g}k" for t in ticks])
    axes.minorticks_off()
    axes.set_xlim(low, high)


@styled
def save(figure: Figure, paths: Sequence[Path], dpi: int) -> bytes:
    """Write a figure, each time in the format that the file's name ends in.

    The same figure gives the same bytes; those of the first file are returned.
    """
    for path in paths:
        figure.savefig(path, dpi=dpi, metadata=METADATA.get(path.suffix[1:]))
    return paths[0].read_bytes()
