"""What figures are made of: panels, lines, bands, marks, limits, the legend."""

import itertools
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from drift.report.study import Study
from drift.report.styles import MOST_VOICES, OTHERS, RunStyle
from drift.report.tables import format_number, format_part

# Its dots are seen only where a curve has a single k.
EXACT = RunStyle("exact", "0.25", "currentColor", "-", ".", width=2.8, index=-1)
LIMIT = {"color": "0.5", "linestyle": ":", "linewidth": 1}
STYLE = Path(__file__).with_name("style.mplstyle")
MARKS_ON_A_LINE = 8
# Of a mean over many queries that kept everything, no more than this is missing to 1.
ROUNDING = 1e-12
# Without the date the same figure is the same file; packed harder, a PNG takes twice as long.
OPTIONS = {
    "png": {"pil_kwargs": {"compress_level": 3}},
    "svg": {"metadata": {"Date": None}},
    "pdf": {"metadata": {"CreationDate": None}},
}


class Panel(NamedTuple):
    """A metric's means over k, on an axis over `least` or more: less is not worth looking at."""

    label: str
    metric: str
    least: float = 0.0
    from_0: bool = False


def over_k(study: Study, *specs: Panel, footnote: str | None = None) -> Figure:
    """A figure of panels one above the other."""
    figure, grid = stack(study, *[max(1.1, 2.8 / len(specs))] * len(specs))
    for spec, axes in zip(specs, grid, strict=True):
        draw_panel(spec, axes, study)
    return finish(figure, study, interval_note(study) if footnote is None else footnote)


def interval_note(study: Study) -> str:
    return textwrap.fill(f"mean; band: its 95 % interval, over {study.interval_of}", 60)


def lid_note(study: Study) -> str:
    """How many queries have an LID where not all do, for the end of a footnote."""
    n, curves = study.n_queries, study.curves
    counts = curves.loc[(curves["metric"] == "lid_error") & (curves["n"] > 0), "n"]
    if counts.empty or counts.min() == n:
        return ""
    parts = dict.fromkeys(format_part(end / n, n) for end in (counts.min(), counts.max()))
    return f"\n{' to '.join(parts)} of the queries have an LID"


def stack(study: Study, *heights: float) -> tuple[Figure, list[Axes]]:
    """A figure of panels of some heights, in inches, one above the other, over k."""
    figure = Figure()
    figure.set_figheight(sum(heights) + 0.15 * len(heights) + 0.7)
    grid = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)
    margin = max(1, 0.04 * (study.ks[-1] - study.ks[0]))
    for axes in grid.flat:
        axes.set_xlim(study.ks[0] - margin, study.ks[-1] + margin)
        set_ticks(axes)
    axes.locator_params(axis="x", steps=[1, 2, 5, 10], integer=True)
    axes.set_xlabel("k, neighbors asked for")
    return figure, list(grid.flat)


def finish(figure: Figure, study: Study, footnote: str = "", is_marked: bool = True) -> Figure:
    """Add the note at the bottom, the legend of all panels at the top, and the marks.

    They are at the k, within the grid, at which a fixed efSearch is used up.
    """
    figure.supxlabel(footnote, color="0.35")
    # A series has one entry, the look of its last run, and so have all that are gray.
    names = {study.labels[run]: name for run, name in study.voice_of.items()}
    gray = [style.label for style in study.styles.values() if style.color == OTHERS]
    names |= dict.fromkeys(gray, f"{len(gray)} others")
    lines = [line for axes in figure.axes for line in axes.get_legend_handles_labels()[0]]
    handles = {names.get(line.get_label(), line.get_label()): line for line in lines}
    efs = {run.ef_search.number for run in study.runs.values() if run.ef_search} - {None}
    efs = sorted(ef for ef in efs if study.ks[0] < ef < study.ks[-1])
    if is_marked and 0 < len(efs) <= MOST_VOICES:
        label = textwrap.fill(f"k = efSearch {', '.join(map(str, efs))}", 45)
        handles[label] = Line2D([], [], **LIMIT)
        for axes, ef in itertools.product(figure.axes, efs):
            axes.axvline(ef, zorder=0.9, **LIMIT)  # behind the bands
        explain(figure, "Dotted upright: k = efSearch.")
    columns = 2 if all(len(name) < 20 for name in handles) else 1
    figure.legend(handles.values(), handles, loc="outside upper left", ncols=columns)
    figure.set_figheight(figure.get_figheight() + 0.16 * -(-len(handles) // columns))
    for axes in figure.axes:
        if not has_values(axes):
            axes.text(0.5, 0.5, "no values", ha="center", transform=axes.transAxes)
    return figure


def has_values(axes: Axes) -> bool:
    """Whether there is a line with a name, or a picture, to be seen."""
    lines, _ = axes.get_legend_handles_labels()
    return bool(axes.images) or any(np.isfinite(line.get_ydata()).any() for line in lines)


def flat(figure: Figure) -> str:
    """That every line of a run is at 0 or at 1 all along, if it is."""
    lines = [one for axes in figure.axes for one in axes.get_lines()]
    lines = [line for line in lines if str(line.get_gid()).startswith("run-")]
    values = np.unique(np.concatenate([np.round(line.get_ydata(), 3) for line in lines]))
    ends = [f"{value:g}" for value in values if np.isfinite(value)]
    return f"every line is flat, at {' or '.join(ends)}" if {*ends} <= {"0", "1"} else ""


def explain(figure: Figure, text: str) -> None:
    """Add to what is said below a figure, once."""
    if text not in (said := figure.get_label()):
        figure.set_label(f"{said} {text}".strip())


def alt_text(figure: Figure) -> str:
    """Where each line of each panel begins and ends; of a picture its label."""
    texts = [picture.get_label() for axes in figure.axes for picture in axes.images]
    for axes in figure.axes if not texts else ():
        column = axes.get_subplotspec().colspan
        below = [one for one in figure.axes if one.get_subplotspec().colspan == column]
        over = below[-1].get_xlabel().partition(",")[0]
        form = axes.yaxis.get_major_formatter()
        number = form.func if isinstance(form, FuncFormatter) else lambda y, _: format_number(y)
        lines, common = [], ""
        for line in axes.get_legend_handles_labels()[0]:
            points = np.array(line.get_data(), dtype=float).T
            points = points[np.isfinite(points).all(axis=1)]
            ends = points[[0, -1]] if len(points) > 1 else points
            at = " to ".join(format_number(x) for x, _ in ends)
            common = common or at
            values = " to ".join(number(y, None) for _, y in ends) or "no value"
            where = f" at {over} = {at}" if at and at != common else ""
            lines.append(f"{line.get_label()}: {values}{where}")
        name = f"{axes.get_ylabel()} {axes.get_title(loc='left')}".strip()
        texts.append(f"{name}, at {over} = {common}: {'; '.join(lines)}.")
    return " ".join(" ".join(texts).split())


def set_ticks(axes: Axes) -> None:
    axes.locator_params(axis="y", nbins=5, steps=[1, 2, 2.5, 5, 10])


def draw_line(axes: Axes, xs: Sequence[float], ys: Sequence[float], style: RunStyle) -> None:
    """A run's line. Marks are few and at other places than those of the next run."""
    step = max(1, -(-len(xs) // MARKS_ON_A_LINE))
    is_gray = style.color == OTHERS
    axes.plot(
        xs,
        ys,
        color=style.color,
        linestyle=style.dash,
        marker=style.marker,
        markersize=0 if is_gray and step > 1 else 2.5 + style.width,
        zorder=1.9 if is_gray else 2,
        markevery=(style.index % step, step),
        linewidth=style.width,
        label=style.label,
        gid=f"run-{style.index}",
        clip_on=False,  # marks at the edge are whole
        in_layout=False,
    )


def draw_curve(axes: Axes, curve: pd.DataFrame, style: RunStyle) -> None:
    """A line with its interval, from a table with ``mean``, ``ci_low`` and ``ci_high``."""
    draw_line(axes, curve.index, curve["mean"], style)
    # A band over a single k has no width to be seen.
    edge, ends = 3 if len(curve) == 1 else 0, (curve["ci_low"], curve["ci_high"])
    look = {"color": style.color, "gid": f"band run-{style.index}", "visible": style.has_band}
    axes.fill_between(curve.index, *ends, alpha=0.25, lw=edge, **look)


def draw_panel(spec: Panel, axes: Axes, study: Study) -> None:
    label = spec.label.replace("Euclidean", "chord") if study.is_cosine else spec.label
    axes.set_ylabel(label)
    if spec.metric.endswith("_ann"):
        draw_curve(axes, study.exact_curve(spec.metric.replace("_ann", "_exact")), EXACT)
    reports = spec.metric.replace("_ann", "_reported").replace("_error", "_reported_error")
    for run, style in study.styles.items():
        draw_curve(axes, study.run_curve(run, spec.metric), style)
        reported = study.run_curve(run, reports)["mean"]
        if reports != spec.metric and len(reported):
            label = f"{style.label}, as it reports"
            axes.plot(reported, ":", color=style.color, lw=1, label=label)
            explain(axes.figure, "Dotted: by the distances that the index reports.")
    if spec.metric == "lid_error":
        mark_crossings(axes, study, "lid")
    low, high = axes.get_ylim()
    room = max(0.0, spec.least - (high - low)) / 2
    axes.set_ylim(low - room, high + room)
    if spec.from_0:
        axes.set_ylim(0, max(high, spec.least))
    if spec.metric == "found":
        set_share_axis(axes)
    elif spec.metric.endswith(("_error", "_relative")):
        axes.yaxis.set_major_formatter(percent)


def mark_crossings(axes: Axes, study: Study, criterion: str) -> None:
    """Mark where each run crosses each tolerance, with the interval of that, at the loss itself.

    By ``lid``, or else by what the run keeps.
    """
    for run, style in study.styles.items():
        sign = np.sign(study.lid_error(run)["mean"].sum()) if criterion == "lid" else 1
        limits = study.limits(run, criterion or study.kept_by(run))
        # Of what is lost at the first k already there is no interval to be seen.
        for row in limits[limits["crossing_k"] > study.ks[0]].itertuples():
            loss = sign * min(row.tolerance, 1 - row.tolerance)
            last = study.ks[-1] if np.isnan(row.crossing_high) else row.crossing_high
            ends = [row.crossing_low, last], [loss, loss]
            look = {"color": style.color, "gid": f"band run-{style.index}"}
            axes.plot(*ends, "|-", ms=6, lw=1, visible=style.has_band, **look)
            bars = "Small bars: where 1, 5 and 10 % are passed, with the interval of that."
            explain(axes.figure, bars)


def set_share_axis(axes: Axes) -> None:
    """A vertical axis up to 1, on which 0.999 looks like what it is."""
    low = min(axes.get_ylim()[0], 0.95)
    axes.set_ylim(low, 1 + 0.04 * (1 - low))


def percent(share: float, _: int | None = None) -> str:
    """A share as an axis says it."""
    return f"{100 * share:.6g} %"


def set_loss_axis(
    axes: Axes,
    losses: np.ndarray,
    form: Callable = percent,
    ticks: Sequence[float] = tuple(10.0 ** np.arange(-9, 3)),
) -> None:
    """A logarithmic vertical axis that has a place for 0, and goes up to 0.01 at least."""
    # It begins at the power of ten below the least of the losses that is not 0, or at 0.01 %.
    least = max(1e-4, 10 ** np.floor(np.log10(losses[losses > 0].min(initial=1e-3))))
    top = 1.5 * max(0.01, losses.max(initial=0))
    axes.set_yscale("symlog", linthresh=least, linscale=0.5)
    axes.set_yticks([0, *(tick for tick in ticks if 0.99 * least < tick < top)])
    axes.yaxis.set_major_formatter(form)
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(-0.1 * least, top)


def set_cost_axis(axes: Axes, low: float, high: float) -> None:
    """A logarithmic horizontal axis that covers a factor of 6 at least."""
    room = max(1.3, np.sqrt(6 * low / high))
    low, high = low / room, high * room
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.log10(high))
    ticks = np.outer(powers, (1, 3) if high / low > 20 else (1, 2, 5)).ravel()
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{t:g}" if t < 1000 else f"{t / 1000:g}k" for t in ticks])
    axes.minorticks_off()
    axes.set_xlim(low, high)


def save(figure: Figure, paths: Sequence[Path], dpi: int) -> bytes:
    """Write a figure to all paths, the same bytes each time; those of the first are returned."""
    figure.set_dpi(dpi)
    if layout := figure.get_layout_engine():
        layout.execute(figure)
    # Without one, a figure is not drawn once more before each file, for the sake of its layout.
    with matplotlib.style.context([STYLE, {"figure.constrained_layout.use": False}]):
        figure.set_layout_engine(None)
        for path in paths:
            figure.savefig(path, dpi=dpi, **OPTIONS.get(path.suffix[1:], {}))
    return paths[0].read_bytes()
