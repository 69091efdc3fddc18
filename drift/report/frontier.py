"""What a search costs and what it keeps: one curve for runs that differ in one number alone."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from drift.indexes.run import FAISS_NAMES
from drift.report import panels
from drift.report.study import Study
from drift.report.tables import COSTS, format_number

NUMBERS_ON_A_CURVE = 4
NO_SERIES = (
    "no three runs differ in one number of their search, as the ten of --runs faiss:10..800 of "
    "stage 04 do"
)
# How far a search is off, 0 where it is exact: as its axis calls it, its numbers and ticks there.
SMALL = 1e-4, 1e-3, 1e-2, 1e-1
AXES = {
    "overlap": ("overlap", lambda loss, _: format_number(1 - loss), (*SMALL, 0.5)),
    "lid_error": ("LID off", panels.percent, (*SMALL, 1, 10)),
    "factor": (
        "density off by a factor",
        lambda off, _: format_number(1 + off),
        (*SMALL, 1, 9, 99, 999),
    ),
}


def frontier(measure: str) -> Callable[[Study], Figure]:
    """What draws how far searches are off, by one of `AXES`, over what they cost."""
    label, form, ticks = AXES[measure]

    def draw(study: Study) -> Figure:
        """The higher and the further left on an axis of distances computed, or right on one of
        queries per second, the better. How many distances a search computes is the same on every
        machine, and not counted by every library; queries per second are those of this one; of
        imported lists, those that their system took.
        """
        k, points = study.k_of_interest, pd.DataFrame(index=list(study.styles))
        points["off"] = [_off(study, measure, run, k) for run in study.styles]
        for cost, name in COSTS.items():
            points[cost] = [study.cost(run, name).get(k, np.nan) for run in study.styles]
        costs = [cost for cost in COSTS if (points[cost] + points["off"]).notna().any()]
        figure = Figure()
        if not costs:
            return figure
        figure.set_figheight(0.4 + 2.1 * len(costs))
        for axes, cost in zip(figure.subplots(len(costs), squeeze=False).flat, costs, strict=True):
            shown = points[[cost, "off"]].dropna()
            panels.set_loss_axis(axes, shown["off"].to_numpy(), form, ticks)
            axes.invert_yaxis()
            panels.set_cost_axis(axes, shown[cost].min(), shown[cost].max())
            axes.set_xlabel(f"{cost}, log scale")
            name = "recall" if measure == "overlap" and study.ties else label
            axes.set_ylabel(f"{name}, k = {k}")
            _draw_curves(axes, study, shown)
        policies = (study.first_graph(runs[0])[0].policies for runs in study.series.values())
        settings = (name for one in policies for name in one if one[name].number is not None)
        settings = dict.fromkeys(FAISS_NAMES.get(name, name) for name in settings)
        figure.set_label(f"Numbers at points: {' or '.join(settings)}." if settings else "")
        return panels.finish(figure, study, is_marked=False)

    return draw


def _off(study: Study, measure: str, run: str, k: int) -> float:
    if measure == "factor":  # too much or too little, on average over the graphs
        rows = study.by_use.query("run in @study.members[@run] and k == @k and of == 'ids'")
        factor = rows.loc[rows["measure"] == measure, "value"].mean()
        return np.expm1(np.abs(np.log(factor)))
    is_kept = measure == "overlap"
    curve = study.run_curve(run, study.kept_by(run) if is_kept else measure)
    off = abs(curve["mean"].get(k, np.nan) - is_kept)
    return 0.0 if off < panels.ROUNDING else off


def _draw_curves(axes: Axes, study: Study, points: pd.DataFrame) -> None:
    """A curve with numbers at some points for each series, a mark for every other run."""
    places = pd.DataFrame((axes.transScale + axes.transLimits).transform(points), points.index)
    written: list[str] = []  # runs whose number is
    for name in dict.fromkeys(study.voice_of[run] for run in points.index):
        runs = study.voices[name]
        curve, style = points.reindex(runs).dropna(), study.styles[runs[-1]]
        panels.draw_line(axes, *curve.to_numpy().T, style._replace(label=name))
        line, n = axes.get_lines()[-1], len(curve)
        line.set_markevery(1)
        line.set_gid(" ".join(f"run-{study.styles[run].index}" for run in curve.index))
        spread = np.linspace(0, n - 1, NUMBERS_ON_A_CURVE).astype(int)
        for i in dict.fromkeys([0, n - 1, *spread]) if name in study.series else ():
            run = curve.index[i]
            away = (places.loc[written] - places.loc[run]).abs().to_numpy() > (0.1, 0.14)
            if away.any(axis=1).all():
                written.append(run)
                number = study.first_graph(run)[0].series_key[1]
                above = {"xytext": (0, 4), "textcoords": "offset points", "ha": "center"}
                axes.annotate(f"{number:g}", curve.iloc[i], **above)
