"""The figures of a `Study`: what draws each of them, and what writes and describes them.

To add one, write a function that takes a `Study` and gives a figure, with what is to stand below it
on the page as its docstring, to which its label is added, and name it in `FIGURES`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from tqdm import tqdm

from drift.report import panels, svg
from drift.report.experiments import EXPERIMENTS
from drift.report.frontier import NO_SERIES, frontier
from drift.report.panels import Panel, alt_text, draw_curve, draw_line, finish, set_share_axis
from drift.report.published_figures import experiment, jump, published
from drift.report.query_figures import distribution, who_drifts
from drift.report.study import ENDS, Study
from drift.report.styles import COLORS, mixed
from drift.report.tables import evenly

MOST_ROWS, MOST_COLUMNS = 5, 8  # of the grid of images


def overlap(study: Study) -> Figure:
    """The share of the true neighbors that the index returns; below, the share it loses, on a scale
    on which 0.1 % and 0.3 % differ.
    """
    figure, (kept, lost) = panels.stack(study, 1.9, 1.7)
    losses = []
    for run, style in study.styles.items():
        curve = study.run_curve(run, study.kept_by(run))[ENDS]
        draw_curve(kept, curve, style)
        loss = (1 - curve).where(1 - curve > panels.ROUNDING, 0)
        draw_curve(lost, loss, style)
        losses.append(loss["mean"])
    panels.mark_crossings(lost, study, "")
    kept.set_ylabel("recall" if study.ties else "overlap")
    set_share_axis(kept)
    if study.chance is not None:
        label = f"drawn at random, k / {'N' if study.is_outside else '(N - 1)'}"
        for axes, chance in ((kept, study.chance), (lost, 1 - study.chance)):
            dot = "." if len(chance) == 1 else ""
            axes.plot(chance, marker=dot, color="0.5", lw=0.7, label=label)
        losses.append(1 - study.chance)
        panels.explain(figure, "Thin and gray: lists drawn at random.")
    lost.set_ylabel("neighbors lost, log scale")
    panels.set_loss_axis(lost, np.concatenate(losses))
    if study.ties:
        panels.explain(figure, "Rows tie: recall, since a tie is no loss.")
    return finish(figure, study, panels.interval_note(study))


def images(study: Study) -> Figure:
    """What was embedded."""
    columns, size = min(MOST_COLUMNS, len(study.images)), study.images.shape[1]
    rows, gap = min(MOST_ROWS, len(study.images) // columns), -(-size // 24)  # white between them
    places = evenly(range(len(study.images)), rows * columns)
    shown = np.stack([study.images[place] for place in places])
    padded = np.pad(shown, ((0, 0), (0, gap), (0, gap), (0, 0)), constant_values=255)
    pixels = np.vstack([np.hstack(row) for row in np.split(padded, rows)])
    figure = Figure(layout="none")
    figure.set_figheight(figure.get_figwidth() * rows / columns)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    label = "some of the images, evenly spaced over the rows"
    axes.imshow(pixels[:-gap, :-gap], aspect="auto", label=label)
    return figure


def found(study: Study) -> Figure:
    """Below 1 the index came back with fewer than k neighbors, whichever they were."""
    return panels.over_k(study, Panel("neighbors returned, over k", "found"))


def distances(study: Study) -> Figure:
    """A lost neighbor is replaced by a farther one, which lifts a line above the exact one, or not
    at all, which lets it fall; below each, by which share it comes out too long or too short.
    """
    return panels.over_k(
        study,
        Panel("k-th distance\n(Euclidean)", "kth_distance_ann"),
        Panel("index / exact - 1", "kth_distance_error", least=0.1),
        Panel("mean distance\n(Euclidean)", "mean_distance_ann"),
        Panel("index / exact - 1", "mean_distance_error", least=0.1),
    )


def barycenter_shift(study: Study) -> Figure:
    """The distance between the mean of the true neighbors and the mean of those returned, below as
    a share of the neighborhood's radius: at 0 the neighborhood has not moved.
    """
    return panels.over_k(
        study,
        Panel("shift (Euclidean)", "barycenter_shift", from_0=True),
        Panel("shift / exact radius", "barycenter_shift_relative", least=0.05, from_0=True),
    )


def lid(study: Study) -> Figure:
    """The dimension that the growth of the neighbor distances suggests; below, by which share of
    the exact one it comes out too high or too low.
    """
    return panels.over_k(
        study,
        Panel("LID (dimensions)", "lid_ann"),
        Panel("LID, index / exact - 1", "lid_error", least=0.1),
        footnote=panels.interval_note(study) + panels.lid_note(study),
    )


def hubness(study: Study) -> Figure:
    """Hubness is the skewness of how often rows are somebody's neighbor, orphans are nobody's; a
    line off the exact one says that the index favors some rows and forgets others.
    """
    return panels.over_k(
        study,
        Panel("hubness (skewness)", "hubness_ann", least=0.5),
        Panel("orphans, of all rows", "orphans_ann", least=0.01, from_0=True),
        footnote=f"from the lists of all {study.n_queries:,} queries",
    )


def targets(study: Study) -> Figure:
    """For each k the smallest setting found whose searches reach the target with their whole
    interval, on one half of the queries, or, thin, with their mean. A cross: none does, the nearest
    is shown. Dotted: efSearch = k.
    """
    figure, (axes,) = panels.stack(study, 1.9)
    names = {}
    for run, style in study.styles.items():
        by_k = study.chosen(run)
        if len(by_k):
            values = by_k["value"].where(by_k["mean"].notna())  # else nothing is near
            draw_line(axes, by_k.index, values, style)
            label = f"{style.label}, on the mean"
            axes.plot(by_k["on_mean"], color=style.color, lw=0.7, label=label)
            missed = values[~by_k["is_enough"]]
            axes.plot(missed.index, missed, "x", color=style.color, ms=9)
            names[study.target(run)[0]] = run
    every_k = range(study.ks[0], study.ks[-1] + 1)
    axes.plot(every_k, every_k, color="0.5", ls=":", label="efSearch = k")
    axes.set_ylabel(f"{' or '.join(names)},\nlog scale")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.9g}")
    axes.yaxis.set_minor_locator(NullLocator())
    return finish(figure, study, is_marked=False)


class Entry(NamedTuple):
    """A figure: what draws it, whose docstring is its caption, and its title.

    It is left out without a value of one that it `needs`, metrics, measures by use, entries in
    manifests of runs or a series, which is said where there is a reason `why`.
    """

    draw: Callable[[Study], Figure]
    title: str
    needs: str = "overlap"
    why: str = ""

    def __call__(self, study: Study) -> Figure:
        with matplotlib.style.context(panels.STYLE):
            return self.draw(study)


ALWAYS_OPEN = "overlap", "images"
OF_GRAPHS = "it describes whole graphs, and not every row is a query"
NO_TIMES = "these lists came without search times"
# By name: the file is ``06_NAME.png``.
FIGURES = {
    "overlap": Entry(overlap, "Neighborhood overlap"),
    "images": Entry(images, "Some of the images", "images"),
    "frontier": Entry(frontier("overlap"), "Overlap and cost", "queries_per_second", NO_TIMES),
    "frontier_lid": Entry(
        frontier("lid_error"), "LID and cost", "queries_per_second lid_error series"
    ),
    "frontier_density": Entry(
        frontier("factor"), "Density and cost", "queries_per_second factor series"
    ),
    "distribution": Entry(distribution, "Overlap of single queries"),
    "who_drifts": Entry(
        who_drifts, "Overlap and distances by LID", "lid_exact", "no query has an LID"
    ),
    "found": Entry(found, "Neighbors returned"),
    "distances": Entry(distances, "Neighbor distances"),
    "barycenter_shift": Entry(barycenter_shift, "Barycenter shift"),
    "lid": Entry(lid, "Local intrinsic dimensionality"),
    "hubness": Entry(hubness, "Hubness and orphans", "hubness_ann", OF_GRAPHS),
    "effort": Entry(targets, "The effort that a target needs", "ef_search_by_k"),
    "published": Entry(published, "The published curves", "lid_notebook_ann"),
    "published_jump": Entry(jump, "The paper's jump", "lid_paper_ann"),
} | {
    f"published_{name}": Entry(experiment(name), f"The paper's {one.title}", "lid_paper_ann")
    for name, one in EXPERIMENTS.items()
}


class Plot(NamedTuple):
    """A figure that was drawn: an SVG element of the page, but a PNG of pictures."""

    name: str
    title: str
    caption: str
    alt_text: str
    svg: str
    png: bytes
    folded: str = ""  # why it shows little, if it does


def possible_figures(study: Study) -> tuple[list[str], dict[str, str]]:
    """The figures that the study has the numbers for, and why others are left out, by name."""
    known = study.metrics.union(*study.searched.values(), study.by_use.get("measure", ()))
    if study.images is not None:
        known.add("images")
    if study.series:
        known.add("series")
    lacking = {name for name, one in FIGURES.items() if not known.issuperset(one.needs.split())}
    left_out = {name: one.why for name, one in FIGURES.items() if one.why and name in lacking}
    return [name for name in FIGURES if name not in lacking], left_out


def draw_figures(
    study: Study, dpi: int, formats: Sequence[str], output: Callable[[str], Path]
) -> tuple[list[Plot], dict[str, str]]:
    """Write the figures, each in all `formats`, the first for the page; why others are left out."""
    names, left_out = possible_figures(study)
    colors = dict(map(mixed, range(len(COLORS))))
    colors |= {style.color: style.css for style in study.styles.values()}
    plots = []
    for name in tqdm(names, "figures", disable=None):
        entry = FIGURES[name]
        figure = entry(study)
        if not any(map(panels.has_values, figure.axes)):
            left_out[name] = "no run has a value where it is drawn"
            continue
        paths = [output(f"06_{name}.{suffix}") for suffix in formats]
        png, alt = panels.save(figure, paths, dpi), alt_text(figure)
        caption = f"{entry.draw.__doc__} {figure.get_label()}"
        drawn = "" if name == "images" else svg.inline(figure, name, alt, colors)
        folded = panels.flat(figure) if name not in ALWAYS_OPEN else ""
        if name.startswith("frontier"):
            folded = "" if study.series else NO_SERIES
        plots.append(Plot(name, entry.title, " ".join(caption.split()), alt, drawn, png, folded))
    return plots, left_out
