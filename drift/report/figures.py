"""The table `FIGURES` of all figures, and what writes and describes them.

Titles, and how to read each figure, stand in ``page.html.j2``.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from drift.report import drawings, panels
from drift.report.drawings import Panel, over_k
from drift.report.study import Study
from drift.report.tables import format_number


class FigureSpec(NamedTuple):
    """A figure: what draws it, the metric without which it is left out, and why, if to be said."""

    draw: Callable[[Study], Figure]
    metric: str = "overlap"
    reason: str = ""


# By name: the file is ``06_NAME.png``.
FIGURES = {
    "overlap": FigureSpec(drawings.overlap),
    "distribution": FigureSpec(drawings.distribution),
    "who_drifts": FigureSpec(drawings.who_drifts, "lid_exact", "no query has an LID"),
    "found": FigureSpec(over_k(Panel("neighbors returned, over k", "found"))),
    "distances": FigureSpec(
        over_k(
            Panel("k-th distance\n(Euclidean)", "kth_distance_ann", exact="kth_distance_exact"),
            Panel("index / exact", "kth_distance_ann", "kth_distance_exact", least=0.1),
            Panel("mean distance\n(Euclidean)", "mean_distance_ann", exact="mean_distance_exact"),
            Panel("index / exact", "mean_distance_ann", "mean_distance_exact", least=0.1),
        )
    ),
    "barycenter_shift": FigureSpec(
        over_k(
            Panel("shift (Euclidean)", "barycenter_shift", bottom=0),
            Panel("shift / exact radius", "barycenter_shift_relative", least=0.05, bottom=0),
        )
    ),
    "lid": FigureSpec(
        over_k(
            Panel("LID (dimensions)", "lid_ann", exact="lid_exact"),
            Panel("LID, index / exact - 1", "lid_difference", "lid_exact", least=0.1),
        )
    ),
    "hubness": FigureSpec(
        over_k(
            Panel("hubness (skewness)", "hubness_ann", exact="hubness_exact", least=0.5),
            Panel("orphans, of all rows", "orphans_ann", "", "orphans_exact", 0.01, bottom=0),
        ),
        "hubness_ann",
        "it describes whole graphs, and not every row is a query",
    ),
    "speed": FigureSpec(
        drawings.speed, "speed", "lists of another system come without search times"
    ),
    "published": FigureSpec(drawings.published, "lid_notebook_ann"),
}


class Plot(NamedTuple):
    """A figure that was drawn: its name, what it shows in words, the picture."""

    name: str
    alt_text: str
    png: bytes


def possible_figures(study: Study) -> tuple[list[str], dict[str, str]]:
    """The figures that the study has the numbers for, and why others are left out, by name."""
    known = set(study.curves.dropna(subset="mean")["metric"])
    if study.searched:
        known.add("speed")
    left_out = {name: spec.reason for name, spec in FIGURES.items() if spec.metric not in known}
    possible = [name for name in FIGURES if name not in left_out]
    return possible, {name: reason for name, reason in left_out.items() if reason}


def alt_text(figure: Figure) -> str:
    """Where each line of each panel begins and ends."""
    texts = []
    for axes in figure.axes:
        column = axes.get_subplotspec().colspan
        below = [one for one in figure.axes if one.get_subplotspec().colspan == column]
        over = below[-1].get_xlabel().partition(",")[0]
        lines = []
        for line in panels.named_lines(axes):
            points = np.array(line.get_data(), dtype=float).T
            points = points[np.isfinite(points).all(axis=1)]
            ends = dict.fromkeys(map(tuple, points[[0, -1]])) if len(points) else ()
            parts = [f"{format_number(y)} at {over} = {format_number(x)}" for x, y in ends]
            lines.append(f"{line.get_label()}: {' to '.join(parts) or 'no value'}")
        name = f"{axes.get_ylabel()} {axes.get_title(loc='left')}".strip()
        texts.append(f"{name}: {'; '.join(lines)}.")
    return " ".join(" ".join(texts).split())


def draw_figures(
    study: Study, images: np.ndarray | None, dpi: int, paths: Callable[[str], list[Path]]
) -> tuple[list[Plot], dict[str, str]]:
    """Draw and write every figure that there are numbers for, and a grid of images.

    `paths` gives the files of a figure by its name, the PNG first. Where there are `images`, uint8
    (N, S, S, 3), some of them are the second figure. Besides the figures, which the page shows, it
    returns why others are left out, by name.
    """
    possible, left_out = possible_figures(study)
    plots = []
    for name in tqdm(possible, "figures", disable=None):
        figure = FIGURES[name].draw(study)
        plots.append(Plot(name, alt_text(figure), panels.save(figure, paths(name), dpi)))
    if images is not None:
        figure = drawings.image_grid(images)
        text = f"some of the {len(images):,} images, evenly spaced over the rows"
        plots.insert(1, Plot("images", text, panels.save(figure, paths("images"), dpi)))
    return plots, left_out
