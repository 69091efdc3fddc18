"""The figures of a `Study`: what draws each of them, and what writes and describes them.

To add one, write a function that takes a `Study` and gives a figure, with what is to stand below it
on the page as its docstring, and name it in `FIGURES`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from tqdm import tqdm

from drift.report import panels
from drift.report.experiments import EXPERIMENTS
from drift.report.panels import Panel, alt_text, draw_curve, draw_line, finish, set_share_axis
from drift.report.published_figures import experiment, published
from drift.report.sentences import drift_by_lid
from drift.report.study import Study
from drift.report.tables import COSTS, evenly

MOST_ROWS, MOST_COLUMNS = 5, 8  # of the grid of images
MOST_RUNS = 12  # lines or panels of more runs than this cannot be distinguished


def overlap(study: Study) -> Figure:
    """The share of the true neighbors that the index returns; below, the share it loses, on a scale
    on which 0.001 and 0.003 differ. Small bars mark where 1, 5 and 10 % are lost, with the interval
    of that; a dotted line the k at which a fixed efSearch is used up; a thin gray one what lists
    drawn at random have.
    """
    figure, (kept, lost) = panels.stack(study, 1.9, 1.7)
    losses = []
    for run, style in study.styles.items():
        curve = study.run_curve(run, "overlap")[["mean", "ci_low", "ci_high"]]
        draw_curve(kept, curve, style)
        loss = (1 - curve).where(1 - curve > panels.ROUNDING, 0)
        draw_curve(lost, loss, style)
        losses.append(loss["mean"])
    panels.mark_crossings(lost, study, "overlap")
    kept.set_ylabel("overlap")
    set_share_axis(kept)
    if study.chance is not None:
        label = f"drawn at random, k / {'N' if study.is_outside else '(N - 1)'}"
        for axes, chance in ((kept, study.chance), (lost, 1 - study.chance)):
            axes.plot(chance, color="0.5", lw=0.7, label=label)
        losses.append(1 - study.chance)
    lost.set_ylabel("1 - overlap, log scale")
    panels.set_loss_axis(lost, np.concatenate(losses))
    ties = "\nrows tie: see recall, of which less is lost" if study.ties else ""
    return finish(figure, study, panels.interval_note(study) + ties)


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


def distribution(study: Study) -> Figure:
    """The mean hides how unlike queries are: a wide band says that some keep nearly all of their
    neighbors and others lose most of them; one query in twenty lies below the light band.
    """
    figure, grid = panels.stack(study, *[0.95] * len(study.styles))
    for axes, (run, style) in zip(grid, study.styles.items(), strict=True):
        curve = study.queries(run).groupby("k")["overlap"]
        curve = curve.quantile([0.05, 0.25, 0.5, 0.75, 0.95]).unstack()
        for low, high, alpha in ((0.05, 0.95, 0.25), (0.25, 0.75, 0.45)):
            ends = curve[low], curve[high]
            axes.fill_between(curve.index, *ends, color=style.color, alpha=alpha, lw=0)
        draw_line(axes, curve.index, curve[0.5], style)
        axes.set_ylabel("overlap")
    lowest = min(axes.get_ylim()[0] for axes in grid)
    for axes in grid:
        axes.set_ylim(bottom=lowest)
        set_share_axis(axes)
    footnote = f"line: median of {study.n_queries:,} queries\n"
    return finish(figure, study, footnote + "dark: the middle half; light: 5 % to 95 % of them")


def who_drifts(study: Study) -> Figure:
    """The queries in fifths by their exact LID. Distance ratio: the exact distance over the one
    returned, 0 where none was.
    """
    figure, grid = panels.multiples(study.few_ks, 2)
    metrics = "overlap", "distance_ratio"
    for k, row in zip(study.few_ks, grid, strict=True):
        for run, style in study.styles.items():
            fifths = study.fifths(run, k)
            for axes, metric in zip(row, metrics, strict=True):
                draw_line(axes, fifths.index, fifths[metric], style)
        for axes, metric in zip(row, metrics, strict=True):
            axes.set_ylabel(metric.replace("_", " "))
            set_share_axis(axes)
            axes.set_xlim(0.7, 5.3)
            axes.set_xticks(range(1, 6))
    for axes in grid[-1]:
        axes.set_xlabel("fifth of the queries")
    footnote = f"1: lowest exact LID, 5: highest{panels.lid_note(study)}"
    return finish(figure, study, footnote, is_marked=False)


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
    the exact one it comes out too high or too low. Small bars mark where that passes 1, 5 and 10 %.
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
    is shown. Below, the distances that a search computes with it, beside those of all other runs.
    """
    figure, (needed, cost) = panels.stack(study, 1.9, 1.5)
    names = {}
    for run, style in study.styles.items():
        by_k = study.chosen(run)
        if len(by_k):
            values = by_k["value"].where(by_k["mean"].notna())  # else nothing is near
            draw_line(needed, by_k.index, values, style)
            label = f"{style.label}, on the mean"
            needed.plot(by_k["on_mean"], color=style.color, lw=0.7, label=label)
            missed = values[~by_k["is_enough"]]
            needed.plot(missed.index, missed, "x", color=style.color, ms=9)
            names[study.target(run)[0]] = run
    every_k = range(study.ks[0], study.ks[-1] + 1)
    needed.plot(every_k, every_k, color="0.5", ls=":", label="efSearch = k")
    needed.set_ylabel(f"{' or '.join(names)},\nlog scale")
    for run, style in study.styles.items():
        counts = study.cost(run, COSTS["distances computed"])
        if len(counts):
            draw_line(cost, counts.index, counts, style)
    cost.set_ylabel("distances per query,\nlog scale")
    for axes in (needed, cost):
        panels.set_log_axis(axes)
    return finish(figure, study, is_marked=False)


def speed(study: Study) -> Figure:
    """All runs at one k at a time: the higher the better, the further left on an axis of distances
    computed, the further right on one of queries per second. How many distances a search computes
    is the same on every machine, and not counted by every library; queries per second are those of
    this one, with near queries one after the other; of imported lists, those that their system
    took.
    """
    tables = {
        title: pd.DataFrame({run: study.cost(run, name) for run in study.styles}, study.few_ks)
        for title, name in COSTS.items()
    }
    tables = {title: costs for title, costs in tables.items() if costs.notna().any(axis=None)}
    if not tables:  # the k that are drawn are those of other runs
        return Figure()
    figure, grid = panels.multiples(study.few_ks, len(tables))
    for (title, costs), column in zip(tables.items(), grid.T, strict=True):
        for k, axes in zip(study.few_ks, column, strict=True):
            for run, cost in costs.loc[k].dropna().items():
                kept = study.run_curve(run, "overlap")["mean"][k]
                draw_line(axes, [cost], [kept], study.styles[run])
            set_share_axis(axes)
        panels.set_cost_axis(column[-1], np.nanmin(costs), np.nanmax(costs))
        column[-1].set_xlabel(f"{title}, log scale")
    for axes in grid[:, 0]:
        axes.set_ylabel("overlap")
    return finish(figure, study, is_marked=False)


class Entry(NamedTuple):
    """A figure: what draws it, whose docstring is its caption with what it `says` of a study.

    It is left out without a value of what it `needs`, a metric or an entry in manifests of runs,
    which is said where there is a reason `why`, and of more than `MOST_RUNS` if not `of_many`.
    """

    draw: Callable[[Study], Figure]
    title: str
    needs: str = "overlap"
    why: str = ""
    of_many: bool = False
    says: Callable[[Study], str] = lambda _: ""

    def __call__(self, study: Study) -> Figure:
        with matplotlib.style.context(panels.STYLE):
            return self.draw(study)

    def caption(self, study: Study) -> str:
        return " ".join(f"{self.draw.__doc__} {self.says(study)}".split())


OF_GRAPHS = "it describes whole graphs, and not every row is a query"
NO_TIMES = "these lists came without search times"
# By name: the file is ``06_NAME.png``.
FIGURES = {
    "overlap": Entry(overlap, "Neighborhood overlap", of_many=True),
    "images": Entry(images, "Some of the images", "images", of_many=True),
    "distribution": Entry(distribution, "Overlap of single queries"),
    "who_drifts": Entry(
        who_drifts,
        "Overlap and distances by LID",
        needs="lid_exact",
        why="no query has an LID",
        says=drift_by_lid,
    ),
    "found": Entry(found, "Neighbors returned"),
    "distances": Entry(distances, "Neighbor distances"),
    "barycenter_shift": Entry(barycenter_shift, "Barycenter shift"),
    "lid": Entry(lid, "Local intrinsic dimensionality"),
    "hubness": Entry(hubness, "Hubness and orphans", "hubness_ann", OF_GRAPHS),
    "effort": Entry(targets, "The effort that a target needs", "ef_search_by_k"),
    "speed": Entry(speed, "Overlap and cost", "queries_per_second", NO_TIMES),
    "published": Entry(published, "The published curves", "lid_notebook_ann", of_many=True),
} | {
    f"published_{name}": Entry(
        experiment(name), f"The paper's {one.title}", "lid_paper_ann", of_many=True
    )
    for name, one in EXPERIMENTS.items()
}


class Plot(NamedTuple):
    """A figure that was drawn."""

    name: str
    alt_text: str
    png: bytes
    title: str = ""
    caption: str = ""


def possible_figures(study: Study) -> tuple[list[str], dict[str, str]]:
    """The figures that the study has the numbers for, and why others are left out, by name."""
    known = study.metrics.union(*study.searched.values())
    if study.images is not None:
        known.add("images")
    are_few = len(study.styles) <= MOST_RUNS
    chosen = {name: one for name, one in FIGURES.items() if are_few or one.of_many}
    left_out = {n: one.why for n, one in chosen.items() if one.why and one.needs not in known}
    if not are_few:
        left_out["figures of all runs"] = f"there are more than {MOST_RUNS}"
    return [name for name, one in chosen.items() if one.needs in known], left_out


def draw_figures(
    study: Study, dpi: int, formats: Sequence[str], output: Callable[[str], Path]
) -> tuple[list[Plot], dict[str, str]]:
    """Write the figures, each in all `formats`, the first for the page; why others are left out."""
    names, left_out = possible_figures(study)
    plots = []
    for name in tqdm(names, "figures", disable=None):
        entry = FIGURES[name]
        figure = entry(study)
        if not any(map(panels.has_values, figure.axes)):
            left_out[name] = "no run has a value where it is drawn"
            continue
        paths = [output(f"06_{name}.{suffix}") for suffix in formats]
        png = panels.save(figure, paths, dpi)
        plots.append(Plot(name, alt_text(figure), png, entry.title, entry.caption(study)))
    return plots, left_out
