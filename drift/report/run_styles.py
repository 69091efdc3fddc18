"""What each run is called and how it looks, in every figure, table and sentence."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Told apart with each common color blindness, and of a contrast of 3:1 to white and more. The first
# six are those of Okabe and Ito without the yellow, two of them darkened.
COLORS = (
    *("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#3A9BD6", "#C48600"),
    *("#332288", "#8C510A", "#01665E", "#AA4499", "#661100", "#5E35B1"),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p", "d")
DASHES = ("-", "--", "-.")  # dotted is left to what is no run
BACKENDS = {"faiss": "FAISS"}
SETTINGS = {"M": "M", "ef_construction": "efConstruction", "seed": "seed"}


@dataclass(frozen=True)
class RunStyle:
    """How a run looks; its `label` is its name in sentences, tables and figures.

    `index` is its place among the runs, `width` is in points, and `fixed_ef` is efSearch where that
    is a number.
    """

    label: str
    color: str
    dash: str
    marker: str
    width: float
    index: int
    fixed_ef: int | None


def run_styles(
    runs: Mapping[str, Mapping[str, Any]], graphs: Mapping[str, int] | None = None
) -> dict[str, RunStyle]:
    """A style for each run, by the order of the runs, given the parameters in their manifests.

    A run that is added leaves the others as they were. The label says the backend and efSearch, and
    of the settings of the graph only those in which the runs differ. `graphs` says of how many
    graphs a run is that stands for several, which differ by their seed alone.
    """
    graphs = graphs or {}
    differing = [
        key for key in SETTINGS if len({run[key] for run in runs.values() if key in run}) > 1
    ]
    styles = {}
    for i, (run, settings) in enumerate(runs.items()):
        ef, label = settings["ef_search"], _label(settings)
        for key in differing:
            if key in settings and not (key == "seed" and run in graphs):
                label += f", {SETTINGS[key]} {settings[key]}"
        if run in graphs:
            label += f" ({graphs[run]} graphs)"
        styles[run] = RunStyle(
            label=label,
            color=COLORS[i % len(COLORS)],
            # After twelve runs the colors come again with other marks.
            marker=MARKERS[(i + i // len(COLORS)) % len(MARKERS)],
            dash=DASHES[i % len(DASHES)],
            # Each later run is drawn thinner, so that one it coincides with shows behind it.
            width=max(1.0, 2.0 - 0.4 * i),
            index=i,
            fixed_ef=ef if isinstance(ef, int) else None,
        )
    return styles


def _label(settings: Mapping[str, Any]) -> str:
    """The library or the factory string, and the settings of the search."""
    if "factory" in settings:
        searched = settings["settings"] | settings.get("build_settings", {})
        name = settings["factory"]
    else:
        # Matplotlib hides lines whose name begins with an underscore.
        name = BACKENDS.get(settings["backend"], settings["backend"].lstrip("_"))
        searched = {"efSearch": settings["ef_search"]} if settings["ef_search"] is not None else {}
        if "iterative_scan" in settings:
            searched["iterative scan"] = settings["iterative_scan"]
    texts = []
    for setting, value in searched.items():
        criterion, is_target, level = str(value).partition("=")
        policy = f"for {criterion} {level}" if is_target else str(value).replace(",", ", at least ")
        texts.append(f"{setting} {policy}")
    return " ".join([name, ", ".join(texts)]).strip()
