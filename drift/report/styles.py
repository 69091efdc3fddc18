"""What runs are called and how they look: in figures, in tables and in sentences."""

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from drift.indexes.run import Run

# Told apart with each common color blindness, and of a contrast of 3:1 to their paper and more: in
# files and by day, and by night. The first six are those of Okabe and Ito without the yellow,
# darkened or lightened.
COLORS = (
    *("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#C48600", "#3A9BD6"),
    *("#332288", "#8C510A", "#01665E", "#AA4499", "#661100", "#5E35B1"),
)
COLORS_BY_NIGHT = (
    *("#FF8A3D", "#4DA3E0", "#2BC49A", "#E3A0C6", "#E0B040", "#8CCBF2"),
    *("#A79BFF", "#D19A5B", "#5CC4B8", "#DD84CE", "#E8806C", "#B39DDB"),
)
OTHERS = "#999999"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p", "d")
DASHES = ("-", "--", "-.")  # dotted is left to what is no run
MOST_VOICES = 5  # runs, or series of them, that have a color of their own
LIGHTEST = 0.6  # of a series, the part of its color in that of the first run


class RunStyle(NamedTuple):
    """How a run looks, and its name in sentences, tables and figures."""

    label: str
    color: str  # in files
    css: str  # the same on the page, by day and by night
    dash: str
    marker: str
    width: float  # in points
    index: int = 0  # its place among the runs
    has_band: bool = True  # in files; on the page every run has one, which is not always seen


def run_labels(runs: Mapping[str, Run], graphs: Mapping[str, int]) -> dict[str, str]:
    """What to call each run: its label, and that in which the runs differ of how they are built.

    `graphs` says of how many graphs a run is that stands for several, which differ by their seed.
    """
    built = {name: {"seed": run.seed} if run.build else {} for name, run in runs.items()}
    for name, run in runs.items():
        if run.M and not run.factory:  # what a factory string says is in the label already
            built[name] = {"M": run.M, "efConstruction": run.ef_construction, **built[name]}
    labels = {}
    for name, run in runs.items():
        differing = [
            f" {key}={value}"
            for key, value in built[name].items()
            if any(other.get(key, value) != value for other in built.values())
            and not (key == "seed" and name in graphs)
        ]
        several = f" ({graphs[name]} graphs)" if name in graphs else ""
        # Matplotlib hides lines whose name begins with an underscore.
        labels[name] = "".join([run.label.lstrip("_"), *differing, several])
    return labels


def voices_of(runs: Mapping[str, Run], labels: Mapping[str, str]) -> dict[str, list[str]]:
    """Three runs and more that differ in one number of their search, ascending; others alone."""
    alike: dict[str, dict[float, str]] = {}
    for name, run in runs.items():
        key, number = run.series_key or (name, 0)
        alike.setdefault(key, {})[number] = name
    voices = {}
    for name, run in runs.items():
        numbers = alike[(run.series_key or [name])[0]]
        if len(numbers) < 3:
            voices[labels[name]] = [name]
            continue
        first, last = min(numbers), max(numbers)
        number = rf"(?<![\w.]){re.escape(f'{first:g}')}(?![\w.])"
        label = re.sub(number, f"{first:g} ... {last:g}", labels[numbers[first]], count=1)
        voices[label] = [numbers[number] for number in sorted(numbers)]
    return voices


def run_styles(
    labels: Mapping[str, str], voices: Mapping[str, list[str]], worst: str
) -> dict[str, RunStyle]:
    """A style for each run, by the order of the runs: one that is added changes few others.

    The first five voices have a color, a series from light to dark, and so has that of the `worst`
    run; if there are more, they are thin and gray.
    """
    styles, are_few = {}, len(labels) <= MOST_VOICES
    places = {run: i for i, run in enumerate(labels)}
    for v, runs in enumerate(voices.values()):
        # Each later one is drawn thinner, so that one it coincides with shows behind it.
        dash, width = DASHES[v % len(DASHES)], 1.2 if len(runs) > 1 else max(1.0, 2.0 - 0.4 * v)
        is_loud = v < MOST_VOICES or worst in runs
        if not is_loud:
            dash, width = "-", 0.8
        for run, part in zip(runs, np.linspace(1, LIGHTEST, len(runs))[::-1], strict=True):
            color = mixed(v, part) if is_loud else (OTHERS, "var(--others)")
            wide = 2.0 if run == worst and not are_few else width
            look = (*color, dash, MARKERS[v % len(MARKERS)], wide)
            has_band = are_few or run == worst
            styles[run] = RunStyle(labels[run], *look, places[run], has_band)
    return {run: styles[run] for run in labels}


def mixed(voice: int, part: float = 1.0) -> tuple[str, str]:
    """A `part` of a color in that of the paper: in files, and on the page."""
    i = voice % len(COLORS)
    if part == 1:
        return COLORS[i], f"var(--c{i})"
    channels = (255 - part * (255 - channel) for channel in bytes.fromhex(COLORS[i][1:]))
    color = "#" + "".join(f"{round(channel):02X}" for channel in channels)
    return color, f"color-mix(in srgb, var(--c{i}) {100 * part:.0f}%, var(--paper))"
