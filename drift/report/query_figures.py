"""Figures of single queries, whom the mean hides: how unlike they are, and which of them drift."""

import pandas as pd
from matplotlib.figure import Figure

from drift.report import panels
from drift.report.panels import draw_line, finish, set_share_axis
from drift.report.sentences import drift_by_lid
from drift.report.study import Study
from drift.report.tables import join

MOST_PANELS = 6
NEARLY_ALL = 0.99


def distribution(study: Study) -> Figure:
    """The mean hides how unlike queries are: a wide band says that some keep nearly all of their
    neighbors and others lose most of them; one query in twenty lies below the light band.
    """
    curves = {}
    for run in study.styles:
        queries = study.queries(run).groupby("k")["overlap"]
        curves[run] = queries.quantile([0.05, 0.25, 0.5, 0.75, 0.95]).unstack()
    least = pd.Series({run: curve[0.05].min() for run, curve in curves.items()})
    lossy, kept = least[least < NEARLY_ALL], least.index[least >= NEARLY_ALL]
    shown, text = lossy.nsmallest(MOST_PANELS).index, ""
    if len(shown) and len(kept):
        names = join([f"`{study.labels[run]}`" for run in kept])
        text = f"Not drawn: {names}, with which 95 % of the queries keep at least 99 %."
    if len(lossy) > MOST_PANELS:
        text += f" Of {len(lossy)} others these {MOST_PANELS} lose most."
    shown = shown if len(shown) else kept[:1]
    figure, grid = panels.stack(study, *[0.95] * len(shown))
    for axes, run in zip(grid, filter(shown.__contains__, curves), strict=True):
        curve, style = curves[run], study.styles[run]
        for low, high, alpha in ((0.05, 0.95, 0.25), (0.25, 0.75, 0.45)):
            ends = curve[low], curve[high]
            axes.fill_between(curve.index, *ends, color=style.color, alpha=alpha, lw=0)
        draw_line(axes, curve.index, curve[0.5], style)
        axes.set_ylabel("overlap")
    lowest = min(axes.get_ylim()[0] for axes in grid)
    for axes in grid:
        axes.set_ylim(bottom=lowest)
        set_share_axis(axes)
    figure.set_label(text)
    footnote = f"line: median of {study.n_queries:,} queries\n"
    return finish(figure, study, footnote + "dark: the middle half; light: 5 % to 95 % of them")


def who_drifts(study: Study) -> Figure:
    """The queries in fifths by their exact LID. Distance ratio: the exact distance over the one
    returned, 0 where none was.
    """
    metrics = ["overlap", "distance_ratio"]
    ks = sorted({study.ks[0], min(study.ks, key=lambda k: abs(k - 100)), study.ks[-1]})
    fifths = {k: {run: study.fifths(run, k) for run in study.styles} for k in ks}
    figure = Figure()
    figure.set_figheight(0.7 + 1.4 * len(ks))
    grid = figure.subplots(len(ks), 2, sharex="col", squeeze=False)
    for k, row in zip(ks, grid, strict=True):
        for run, style in study.styles.items():
            for axes, metric in zip(row, metrics, strict=True):
                draw_line(axes, fifths[k][run].index, fifths[k][run][metric], style)
        for axes, metric in zip(row, metrics, strict=True):
            axes.set_title(f"k = {k}")
            axes.set_ylabel(metric.replace("_", " "))
            panels.set_ticks(axes)
            set_share_axis(axes)
            axes.set_xlim(0.7, 5.3)
            axes.set_xticks(range(1, 6))
    for axes in grid[-1]:
        axes.set_xlabel("fifth of the queries")
    figure.set_label(drift_by_lid(study))
    footnote = f"1: lowest exact LID, 5: highest{panels.lid_note(study)}"
    return finish(figure, study, footnote, is_marked=False)
