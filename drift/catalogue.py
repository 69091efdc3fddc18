"""What the figures are called, what they show in words and numbers, and how they are read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from drift import figures
from drift.figures import Study
from drift.report import share


def from_to(lines: Mapping[str, pd.Series], form: Callable[[float], str]) -> str:
    """Where lines over k begin and end, in words: the alternative text of a figure."""
    parts = []
    for label, values in lines.items():
        there = values.dropna()
        if there.empty:
            parts.append(f"{label}: nowhere a value")
            continue
        ends = [f"{form(there[k])} at k = {k}" for k in dict.fromkeys(there.index[[0, -1]])]
        parts.append(f"{label}: {' to '.join(ends)}")
    return "; ".join(parts)


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
        How to read it.
    draw : callable
        From the study to the figure.
    told : callable
        From the study to what the figure shows, with numbers.
    needs : str
        A metric without which the figure is not drawn.
    """

    name: str
    title: str
    reading: str
    draw: Callable[[Study], Figure]
    told: Callable[[Study], str]
    needs: str = "overlap"


def _number(value: float) -> str:
    return f"{value:.3g}"


def _percent(value: float) -> str:
    return f"{value:+.1%}"


def _told_of(*metrics: str, form: Callable[[float], str] = share) -> Callable[[Study], str]:
    """Alternative text from the means of some metrics, each with its exact side if it has one."""

    def told(study: Study) -> str:
        parts = []
        for metric in metrics:
            ann = f"{metric}_ann" if study.has(f"{metric}_ann") else metric
            lines = study.means(ann)
            if ann != metric:
                lines = {"exact": study.exact(f"{metric}_exact")["mean"], **lines}
            parts.append(f"{metric.replace('_', ' ')}, {from_to(lines, form)}")
        return ". ".join(parts) + "."

    return told


def _told_lid(study: Study) -> str:
    difference = from_to(study.means("lid_difference", over="lid_exact"), _percent)
    return f"{_told_of('lid', form=_number)(study)} Difference, {difference}."


def _told_distribution(study: Study) -> str:
    worst = {
        style.label: study.quantiles[study.quantiles["run"] == run].set_index("k")["q05"]
        for run, style in study.styles.items()
    }
    return f"Overlap that 95 % of the queries reach, {from_to(worst, share)}."


def _told_speed(study: Study) -> str:
    speeds = {study.styles[run].label: speeds for run, speeds in study.speeds.items()}
    return f"Queries per second, {from_to(speeds, lambda number: f'{number:,.0f}')}."


DRAWINGS = (
    Drawing(
        "overlap",
        "Neighborhood overlap",
        "At 1 the index returns exactly the true neighbors; where a line falls, that share of them "
        "is lost. Where efSearch is a fixed number, a dotted line marks the k at which it is used "
        "up.",
        figures.overlap,
        _told_of("overlap"),
    ),
    Drawing(
        "distribution",
        "Overlap of single queries",
        "The mean hides how unlike queries are: a wide band says that some keep nearly all of "
        "their neighbors and others lose most of them; one query in twenty lies below the light "
        "band.",
        figures.distribution,
        _told_distribution,
    ),
    Drawing(
        "found",
        "Neighbors returned",
        "Below 1 the index came back with fewer than k neighbors, whichever they were.",
        figures.found,
        _told_of("found"),
    ),
    Drawing(
        "distances",
        "Neighbor distances",
        "A lost neighbor is replaced by a farther one, which lifts a line above the exact one, or "
        "not at all, which lets it fall; below each, the same as a ratio to the exact distance.",
        figures.distances,
        _told_of("kth_distance", "mean_distance", form=_number),
    ),
    Drawing(
        "barycenter_shift",
        "Barycenter shift",
        "The distance between the mean of the true neighbors and the mean of those returned, below "
        "as a share of the neighborhood's radius: at 0 the neighborhood has not moved.",
        figures.barycenter_shift,
        _told_of("barycenter_shift", "barycenter_shift_relative", form=_number),
    ),
    Drawing(
        "lid",
        "Local intrinsic dimensionality",
        "The dimension that the growth of the neighbor distances suggests; below, by how much the "
        "index misstates it.",
        figures.lid,
        _told_lid,
    ),
    Drawing(
        "hubness",
        "Hubness and orphans",
        "Hubness is the skewness of how often rows are somebody's neighbor, orphans are nobody's; "
        "a line off the exact one says that the index favors some rows and forgets others.",
        figures.hubness,
        _told_of("hubness", "orphans", form=_number),
        needs="hubness_ann",
    ),
)
SPEED = Drawing(
    "speed",
    "Overlap and speed",
    "The further to the right and the higher, the better; each line is one run, from the smallest "
    "k, where its name points, to the largest. Times are of this machine.",
    figures.speed,
    _told_speed,
)
PUBLISHED = Drawing(
    "published",
    "The published curves",
    "Black: 10,000 images of STL-10 embedded by ResNet-50, as the notebook published them; dotted: "
    "the exact side. On other data compare the shapes, not the values.",
    figures.published,
    _told_of("overlap", "kth_squared_distance", "lid_notebook", "barycenter_shift", form=_number),
    needs="lid_notebook_ann",
)


def drawings(study: Study) -> tuple[list[Drawing], dict[str, str]]:
    """The figures that the study has the numbers for, and why others are left out, by title."""
    chosen = [drawing for drawing in DRAWINGS if study.has(drawing.needs)]
    left_out = {}
    if len(chosen) < len(DRAWINGS):
        left_out["Hubness and orphans"] = "they describe whole graphs, and not every row is a query"
    if study.speeds:
        chosen.append(SPEED)
    else:
        left_out[SPEED.title] = "lists of another system come without search times"
    if study.has(PUBLISHED.needs):
        chosen.append(PUBLISHED)
    return chosen, left_out
