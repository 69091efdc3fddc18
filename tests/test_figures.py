"""What the figures show: lines, bands, names, limits; and which queries the gallery is of."""

import itertools
import re
from xml.etree import ElementTree

import matplotlib.style
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.image import imread
from matplotlib.text import Text

from drift import InputError
from drift.indexes.run import Policy, Run
from drift.metrics import METRICS
from drift.published import notebook
from drift.report import figures, gallery, panels, svg
from drift.report.styles import COLORS, COLORS_BY_NIGHT, OTHERS
from tests.studies import (
    FAISS_50,
    FAISS_K,
    HNSWLIB_50,
    KS,
    N_QUERIES,
    OF_GRAPHS,
    SEEDS,
    THREE,
    falls,
    made_of,
    make_factory,
    make_run,
    make_study,
)

EIGHT = [
    *THREE,
    *(make_run("faiss", ef, M=m) for ef, m in ((100, 16), (200, 16), (64, 8), (230, 8))),
    make_run("faiss", "3k,50", M=64),
]
TWELVE = [*EIGHT, *(make_run("hnswlib", ef) for ef in ("3k", 100, "2k", "4k"))]
# Two ladders, one run that is in neither, and lists of another system by one of its settings.
LADDER = [10, 20, 40, 80, 160, 320]
QDRANT = [Run("qdrant", {}, {"ef": Policy(ef)}) for ef in (16, 64, 256)]
SWEEP = [*(make_run(of, ef) for of in ("faiss", "hnswlib") for ef in LADDER), THREE[1], *QDRANT]
OF_QUERIES = [metric.name for metric in METRICS]
NOTEBOOK = [*OF_QUERIES, *OF_GRAPHS, *(metric.name for metric in notebook.METRICS)]
NOTHING_LOST = falls(kept=lambda i, k: 1.0)
PGVECTOR = Run(r"_pgvector_$\lists$_with_probes_10_of_10000_rows")


def make_family():
    """A study of two runs on three graphs each, and what is known of them together."""
    curves = make_study(falls(SEEDS)).curves
    graphs = curves[curves["run"].isin([run.family for run in SEEDS])]
    graphs = graphs[graphs["metric"] == "overlap"].rename(columns={"run": "family"})
    graphs = graphs.assign(mean=0.8, ci_low=0.7, ci_high=0.9)
    return make_study(falls(SEEDS), graphs=graphs)


CASES = {
    "twelve runs": make_study(falls(TWELVE)),
    "nothing lost": make_study(NOTHING_LOST, metrics=NOTEBOOK),
    "one k": make_study(falls([make_run("faiss", 5)], [10], lambda i, k: 0.5)),
    "lists": make_study(falls([PGVECTOR]), timed=False),
    "sweep": make_study(falls(SWEEP), factors={run.name: 1.1 for run in SWEEP}),
    "grids of their own": make_study([*falls(THREE[2:]), *falls(THREE[:1], [50])]),
}
DRAWN = {
    f"{case}: {name}": (name, study)
    for case, study in CASES.items()
    for name in figures.possible_figures(study)[0]
    # In others these two do not differ from a sweep.
    if case not in ("twelve runs", "lists")
    or name in ("overlap", "distances", "distribution", "frontier")
}


def lines(axes):
    """The lines of an axes by their name."""
    drawn, names = axes.get_legend_handles_labels()
    return dict(zip(names, drawn, strict=True))


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def draw(name, study=None):
    return figures.FIGURES[name](make_study() if study is None else study)


def band_at(band, k):
    """The ends of a band at some k."""
    vertices = band.get_paths()[0].vertices
    heights = vertices[vertices[:, 0] == k, 1]
    return heights.min(), heights.max()


@pytest.mark.parametrize(("name", "study"), DRAWN.values(), ids=DRAWN)
def test_every_figure_can_be_read_at_half_a_pages_width_and_is_told_in_numbers(name, study):
    figure = draw(name, study)
    figure.draw_without_rendering()
    width, height = figure.get_size_inches()
    assert width == 3.5
    assert height < 12 or len(study.styles) > 8
    extent = figure.get_tightbbox()
    assert extent.x0 > -0.02
    assert extent.y0 > -0.02
    assert extent.x1 < width + 0.1, "nothing is cut at the right"
    assert extent.y1 < height + 0.02
    letters = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    assert min(text.get_fontsize() for text in letters) >= 8
    assert figure._suptitle is None, "the title is on the page"
    grouped = {study.labels[run] for runs in study.series.values() for run in runs}
    grouped |= {style.label for style in study.styles.values() if style.color == OTHERS}
    for axes in figure.axes:
        assert axes.get_window_extent().height > 0.5 * figure.dpi
        assert set(lines(axes)) - grouped <= set(legend(figure))
        assert grouped.isdisjoint(legend(figure)), "they have one entry together"
        low, high = sorted(axes.get_ylim())
        for line in lines(axes).values():
            values = np.asarray(line.get_ydata(), float)
            values = values[np.isfinite(values)]
            assert ((low <= values) & (values <= high)).all(), "a line leaves the panel"
        assert axes.get_ylabel() or len(figure.axes) > 1
    text = figures.alt_text(figure)
    assert any(letter.isdigit() for letter in text)
    assert "nan" not in text
    if study is not CASES["grids of their own"] and "frontier" not in name:
        told = sum(f"{style.label}: " in text for style in study.styles.values())
        assert told == (len(figure.axes) if name == "distribution" else len(study.styles))


@pytest.mark.parametrize(
    ("name", "study", "words"),
    [
        ("overlap", make_study(), "95 % interval, over 40 queries"),
        ("overlap", make_study(groups=15), "over 15 groups of rows that are alike"),
        ("overlap", make_family(), "over the graphs"),
        ("hubness", make_study(), "from the lists of all 40 queries"),
        ("lid", make_study(share=0.35), "35.0 % of the queries have an LID"),
        ("lid", make_study(share=0.9999, n_queries=10_000), "9,999 of 10,000 of the queries have"),
        ("lid", make_study(), "over 40 queries, of this graph"),
    ],
)
def test_bands_say_what_they_are_of(name, study, words):
    text = " ".join(draw(name, study)._supxlabel.get_text().split())
    assert words in text
    assert ("LID" in text) == ("queries have" in words)


def test_runs_that_differ_by_their_seed_are_one_line_with_the_band_of_queries_and_graphs():
    study, (family, *_) = make_family(), [run.family for run in SEEDS]
    labels = ["faiss 50 (3 graphs)", "faiss k,50 (3 graphs)"]
    assert list(study.labels.values()) == labels
    axes, _ = draw("overlap", study).axes
    assert list(lines(axes)) == labels
    for drawn, band in zip(lines(axes).values(), axes.collections, strict=True):
        assert set(drawn.get_ydata()) == {0.8}
        assert band_at(band, 250) == (0.7, 0.9)
    assert len(study.queries(family)) == 3 * len(KS) * N_QUERIES
    costs = study.cost(family, "queries_per_second")
    assert costs[10] == pytest.approx(np.mean([1e5 / place for place in (1, 3, 5)]))
    # One on another grid is none of the family.
    graphs, other = study.curves.rename(columns={"run": "family"}), make_run("faiss", 50, seed=9)
    study = make_study([*falls(SEEDS), *falls([other], [10, 20])], graphs=graphs)
    assert study.members[FAISS_50] == [FAISS_50, f"{FAISS_50}_seed1", f"{FAISS_50}_seed2"]
    assert study.labels[other.name] == "faiss 50 seed=9"


def test_a_family_is_as_safe_as_its_graphs_and_crosses_where_they_do():
    study = make_study(falls(SEEDS))
    safe_k = study.safe_k.set_index("run")
    for name, column, values in (
        (FAISS_50, "safe_k", (30, 30, 10)),
        (FAISS_50, "crossing_k", (40, 33, 33)),
        (FAISS_50, "crossing_low", (30, 25, 30)),
        (FAISS_50, "crossing_high", (35, 35, np.nan)),
    ):
        for suffix, value in zip(("", "_seed1", "_seed2"), values, strict=True):
            safe_k.loc[name + suffix, column] = value
    graphs = make_family().curves.rename(columns={"run": "family"})
    tables = study.curves, safe_k.reset_index(), graphs, study.differences, study.by_use
    (_, row), *_ = type(study)(*tables, study.manifests).limits(FAISS_50, "overlap").iterrows()
    assert tuple(row[["safe_k", "crossing_k", "crossing_low"]]) == (10, 33, 25)
    assert np.isnan(row["crossing_high"])


def test_crossings_are_marked_where_the_loss_passes_each_tolerance():
    study = make_study()
    study.safe_k.loc[0, "crossing_high"] = np.nan
    _, lost = draw("overlap", study).axes
    marks = [line for line in lost.get_lines() if line.get_marker() == "|"]
    assert len(marks) == 9
    spans = [(*mark.get_xdata(), round(mark.get_ydata()[0], 6)) for mark in marks[:2]]
    assert spans == [(61.2, 250, 0.01), (61.2, 72.5, 0.05)]
    _, error = draw("lid", study).axes
    (mark, *_) = (line for line in error.get_lines() if line.get_marker() == "|")
    assert set(mark.get_ydata()) == {-0.05}, "on the side of the error"
    study.safe_k["crossing_k"] = KS[0]  # or before it, where nobody measured
    _, lost = draw("overlap", study).axes
    assert "|" not in {line.get_marker() for line in lost.get_lines()}


def test_marks_at_the_edge_are_whole_and_what_is_no_run_is_explained_where_it_is():
    lossless, one_k = CASES["nothing lost"], make_study(falls(THREE[1:2], [10], lambda i, k: 1.0))
    drawn = lines(draw("overlap", one_k).axes[0]).values()
    assert not any(line.get_clip_on() for line in drawn)
    bars, dotted, gray = "Small bars: where 1, 5", "Dotted upright: k = efSearch.", "Thin and gray:"
    for study, words in (
        (make_study(), {bars, dotted}),
        (lossless, {dotted}),
        (one_k, set()),
        (make_study(manifests=made_of(900)), {bars, dotted, gray}),
    ):
        label = draw("overlap", study).get_label()
        assert {one for one in (bars, dotted, gray) if one in label} == words


def test_a_fixed_ef_search_is_marked_where_it_ends_if_these_are_few():
    for runs, efs in (
        (THREE, {50}),
        (THREE[1:2], set()),
        (EIGHT, {50, 64, 100, 200, 230}),
        ([*EIGHT, make_run("faiss", 70)], set()),
    ):
        figure = draw("overlap", make_study(falls(runs)))
        drawn = figure.axes[0].get_lines()
        assert {one.get_xdata()[0] for one in drawn if one.get_linestyle() == ":"} == efs
        label = f"k = efSearch {', '.join(map(str, sorted(efs)))}"
        assert (label in legend(figure)) == bool(efs)


def luminance(color):
    channels = np.array(to_rgb(color))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ (0.2126, 0.7152, 0.0722)


def contrast(color, paper):
    darker, lighter = sorted((luminance(color), luminance(paper)))
    return (lighter + 0.05) / (darker + 0.05)


def test_five_runs_or_series_have_a_color_and_so_has_the_worst_the_others_are_gray():
    for colors, paper in ((COLORS, "#FFFFFF"), (COLORS_BY_NIGHT, "#16181C")):
        assert len(set(colors)) == 12
        assert min(contrast(color, paper) for color in colors) >= 3
    twelve = falls(TWELVE, kept=lambda i, k: 0.5 if i == 8 else 0.9)
    styles = list(make_study(twelve).styles.values())
    loud = [i for i, style in enumerate(styles) if style.color != OTHERS]
    assert loud == [0, 1, 2, 3, 4, 8]
    assert [styles[i].color for i in loud] == [COLORS[i] for i in loud]
    assert [styles[i].css for i in loud] == [f"var(--c{i})" for i in loud]
    assert {style.css for style in styles} == {*(styles[i].css for i in loud), "var(--others)"}
    assert len({styles[i].marker for i in loud}) == 6
    assert [i for i, style in enumerate(styles) if style.has_band] == [8]
    widths = [style.width for style in styles]
    assert widths == [2.0, 1.6, 1.2, 1.0, 1.0, *[0.8] * 3, 2.0, *[0.8] * 3]
    assert all(style.has_band for style in make_study().styles.values())
    # What was chosen for a target says nothing of an index, and a tie is no loss.
    aimed, tied = make_run("faiss", "overlap=0.5"), [(THREE[0], {10: 0.2}), (THREE[1], {10: 0.9})]
    study = make_study([(aimed, {10: 0.5}), *tied], recall={FAISS_50: 1.0})
    assert study.worst == FAISS_K
    assert make_study([(aimed, {10: 0.5})]).worst == aimed.name


def test_runs_that_differ_in_one_number_are_a_series_from_light_to_dark():
    study = CASES["sweep"]
    names = ["faiss 10 ... 320", "hnswlib 10 ... 320", "qdrant ef=16 ... 256"]
    assert list(study.series) == names
    assert study.series[names[2]] == [run.name for run in QDRANT]
    for name, color, css in zip(names, (0, 1, 3), ("c0", "c1", "c3"), strict=True):
        styles = [study.styles[run] for run in study.series[name]]
        lightness = [luminance(style.color) for style in styles]
        assert lightness == sorted(lightness, reverse=True)
        assert styles[-1].color == COLORS[color]
        assert styles[0].css == f"color-mix(in srgb, var(--{css}) 60%, var(--paper))"
        assert len({style.marker for style in styles}) == 1
    assert study.styles[FAISS_K].color == COLORS[2]
    # Other graphs, other seeds and two alone are none; whatever their order, they ascend.
    built = [make_run("faiss", ef, M=m, seed=s) for ef, m, s in ((9, 8, 0), (9, 8, 1), (7, 16, 0))]
    strict = [make_run("pgvector", ef, iterative_scan="strict_order") for ef in (90, 9, 40)]
    study = make_study(falls([*built, make_run("faiss", 8, M=8), *strict]))
    label = "pgvector 9 ... 90,iterative_scan=strict_order M=32 seed=0"
    assert study.series == {label: [strict[i].name for i in (1, 2, 0)]}


def test_labels_say_in_what_the_indexes_of_runs_differ():
    runs = [make_run("faiss", "k,50"), make_run("faiss", 50, 16, 40), Run("_lists")]
    labels = make_study(falls([*runs, make_factory("IVF9,Flat", nprobe=8)])).labels.values()
    graphs = ["faiss k,50 M=32 efConstruction=200", "faiss 50 M=16 efConstruction=40"]
    assert [*labels] == [*graphs, "lists", "IVF9,Flat nprobe=8"]


def test_the_loss_has_a_logarithmic_panel_on_which_small_losses_differ():
    kept = (0.997, 0.999, 1.0)
    _, lost = draw("overlap", make_study(falls(kept=lambda i, k: kept[i]))).axes
    drawn = [line.get_ydata() for line in lines(lost).values()]
    np.testing.assert_allclose(drawn, np.repeat([[0.003], [0.001], [0.0]], len(KS), axis=1))
    heights = lost.transData.transform([(10, loss) for loss in (0.003, 0.001, 0.0)])[:, 1]
    assert (-np.diff(heights) > 0.1 * lost.get_window_extent().height).all()
    assert [text.get_text() for text in lost.get_yticklabels()] == ["0 %", "0.1 %", "1 %"]


@pytest.mark.parametrize("kept", [1.0, 0.9995])
def test_axes_invent_no_drama_where_nothing_is_lost(kept):
    study = make_study(falls(kept=lambda i, k: kept))
    for name in ("overlap", "found", "distribution", "who_drifts"):
        low, high = draw(name, study).axes[0].get_ylim()
        assert 0.9 < low <= 0.95 and 1 < high < 1.01
    for name, least in (("distances", 0.1), ("lid", 0.1), ("barycenter_shift", 0.05)):
        assert np.ptp(draw(name, study).axes[1].get_ylim()) >= least - 1e-9
    assert draw("barycenter_shift", study).axes[1].get_ylim()[0] == 0


@pytest.mark.parametrize(
    ("name", "place", "metric"),
    [
        ("overlap", 0, "overlap"),
        ("distances", 0, "kth_distance_ann"),
        ("distances", 3, "mean_distance_error"),
        ("hubness", 1, "orphans_ann"),
        ("lid", 1, "lid_error"),
    ],
)
def test_panels_are_rows_of_the_curves_with_their_intervals(name, place, metric):
    study = make_study()
    axes = draw(name, study).axes[place]
    drawn, bands = lines(axes), [b for b in axes.collections if isinstance(b, PolyCollection)]
    if metric.endswith("_ann"):
        exact = study.exact_curve(metric.replace("_ann", "_exact"))["mean"]
        np.testing.assert_array_equal(drawn.pop("exact").get_ydata(), exact)
    assert list(drawn) == ["faiss 50", "faiss k", "hnswlib 50"]
    for run, line, band in zip(study.styles, drawn.values(), bands[-3:], strict=True):
        curve = study.run_curve(run, metric)
        np.testing.assert_array_equal(line.get_xdata(), KS)
        np.testing.assert_array_equal(line.get_ydata(), curve["mean"])
        for k in (10, 130, 250):
            assert band_at(band, k) == tuple(curve.loc[k, ["ci_low", "ci_high"]])
        assert to_hex(line.get_color()) == to_hex(band.get_facecolor()[0])
    is_percent = "%" in axes.yaxis.get_major_formatter()(0.25)
    assert is_percent == metric.endswith("_error"), "as in the tables"


def test_the_overlap_by_chance_is_a_thin_line():
    of_others = "drawn at random, k / (N - 1)"
    for n, is_outside, last, name in (
        (251, False, 1.0, of_others),
        (500, True, 0.5, "drawn at random, k / N"),
        (500, False, 250 / 499, of_others),
    ):
        kept, lost = draw("overlap", make_study(manifests=made_of(n, is_outside))).axes
        expected = np.array([last / 25, last])
        np.testing.assert_allclose(lines(kept)[name].get_ydata()[[0, -1]], expected)
        np.testing.assert_allclose(lines(lost)[name].get_ydata()[[0, -1]], 1 - expected)
        assert kept.get_ylim()[0] > 0.5, "the axis is that of the runs"
        assert lost.get_ylim()[1] >= 1 - last / 25


def test_the_distribution_has_a_panel_for_each_run_that_loses_something():
    study = make_study(falls(EIGHT, kept=lambda i, k: 1 - 0.1 * i * k / 250))
    figure = draw("distribution", study)
    assert len({axes.get_ylim() for axes in figure.axes}) == 1, "panels can be compared"
    for axes, run in zip(figure.axes, list(study.styles)[2:], strict=True):
        expected = study.queries(run).groupby("k")["overlap"]
        (median,) = lines(axes).values()
        np.testing.assert_array_equal(median.get_ydata(), expected.median())
        for band, low, high in zip(axes.collections, (0.05, 0.25), (0.95, 0.75), strict=True):
            ends = np.quantile(expected.get_group(200), [low, high])
            assert band_at(band, 200) == pytest.approx(tuple(ends))
    label = study.labels[EIGHT[0].name]
    kept = f"Not drawn: `{label}`, with which 95 % of the queries keep at least 99 %."
    dotted = "Dotted upright: k = efSearch."
    assert figure.get_label() == f"{kept} Of 7 others these 6 lose most. {dotted}"
    assert draw("distribution").get_label() == dotted


def test_who_drifts_is_by_fifths_of_the_exact_lid():
    study = make_study()
    queries = study.per_query.query("run == @FAISS_50 and k == 250").sort_values("lid_exact")
    fifths = study.fifths(FAISS_50, 250)
    assert list(fifths.index) == [1, 2, 3, 4, 5]
    for fifth, metric in itertools.product(range(1, 6), ("overlap", "distance_ratio")):
        part = queries.iloc[8 * (fifth - 1) : 8 * fifth]
        assert fifths[metric][fifth] == pytest.approx(part[metric].mean())
    figure = draw("who_drifts", study)
    titles = [axes.get_title(loc="left") for axes in figure.axes[::2]]
    assert titles == ["k = 10", "k = 100", "k = 250"]
    for axes, metric in zip(figure.axes[4:], ("overlap", "distance_ratio"), strict=True):
        drawn = lines(axes)["faiss 50"].get_ydata()
        np.testing.assert_array_equal(drawn, fifths[metric])
    study.per_query.loc[study.per_query["query"] >= 10, "lid_exact"] = np.nan
    expected = study.per_query.query("run == @FAISS_50 and k == 10 and query in (8, 9)")["overlap"]
    assert study.fifths(FAISS_50, 10)["overlap"][5] == pytest.approx(expected.mean()), "with an LID"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", lambda study, run: study.run_curve(run, "overlap")["mean"]),
        ("_lid", lambda study, run: abs(study.run_curve(run, "lid_error")["mean"])),
        ("_density", lambda study, run: {250: 1.25}),
    ],
)
def test_the_frontier_is_a_curve_for_each_series_at_the_k_of_interest(name, value):
    factors = {run.name: (0.8, 1.25)[i % 2] for i, run in enumerate(SWEEP)}  # off by the same
    study = make_study(falls(SWEEP), factors=factors)
    by_speed, by_distances = draw(f"frontier{name}", study).axes
    single, (faiss, hnswlib, qdrant) = study.labels[FAISS_K], study.series
    assert list(lines(by_speed)) == [faiss, hnswlib, single, qdrant]
    assert list(lines(by_distances)) == [faiss, single], "others do not count them"
    written = by_speed.yaxis.get_major_formatter()
    costs = ("queries_per_second", "distance_computations_per_query")
    for axes, cost in zip((by_speed, by_distances), costs, strict=True):
        assert axes.get_xscale() == "log"
        for label, line in lines(axes).items():
            runs = study.series.get(label, [FAISS_K])
            assert line.get_gid() == " ".join(f"run-{study.styles[run].index}" for run in runs)
            assert list(line.get_xdata()) == [study.cost(run, cost)[250] for run in runs]
            texts = [f"{value(study, run)[250]:.3f}" for run in runs]
            shown = [float(written(y).removesuffix(" %")) for y in line.get_ydata()]
            shown = [y / 100 if "%" in written(0.1) else y for y in shown]
            assert [f"{y:.3f}" for y in shown] == texts
    numbers = [text.get_text() for text in by_distances.texts]
    assert {*numbers[:2]} == {"10", "320"}
    assert len(numbers) == 4
    assert by_speed.figure.get_label() == "Numbers at points: efSearch or ef."
    assert by_speed.yaxis_inverted(), "the exact is at the top"
    assert f"{faiss}: " in panels.alt_text(by_speed.figure)
    study.notes["parameters"]["k_of_interest"] = 100
    assert study.k_of_interest == 100


def test_on_the_frontier_all_but_nothing_is_told_apart_and_one_k_is_enough():
    kept = (0.4, 0.9, 0.99, 0.999, 1.0)
    runs = [make_run("faiss", ef) for ef in LADDER[:5]]
    study = make_study(falls(runs, [10], lambda i, k: kept[i]))
    axes, _ = draw("frontier", study).axes
    ticks = [text.get_text() for text in axes.get_yticklabels()]
    assert ticks == ["1", "0.999", "0.99", "0.9", "0.5"]
    axes.figure.draw_without_rendering()
    assert ">0.999<" in svg.inline(axes.figure, "frontier", "", {})
    (line,) = lines(axes).values()
    heights = axes.transData.transform(np.column_stack(line.get_data()))[:, 1]
    assert (np.diff(heights) > 0.1 * axes.get_window_extent().height).all()
    assert draw("frontier", CASES["grids of their own"]).axes[0].get_ylabel() == "overlap, k = 250"


def test_a_figure_without_a_value_is_left_out_and_that_is_said(tmp_path):
    chosen, left_out = figures.possible_figures(make_study(metrics=NOTEBOOK, factors={FAISS_K: 1}))
    assert {"hubness", "frontier", "published", "who_drifts"} <= set(chosen) and left_out == {}
    of_series = {"frontier_lid", "frontier_density"}
    assert of_series.isdisjoint(chosen)
    chosen, _ = figures.possible_figures(make_study(falls(SWEEP[:3]), factors={SWEEP[0].name: 1}))
    assert of_series <= set(chosen)
    chosen, left_out = figures.possible_figures(make_study(timed=False, metrics=OF_QUERIES))
    assert {"hubness", "frontier", "published", "effort", "images"}.isdisjoint(chosen)
    assert list(left_out) == ["frontier", "hubness"]
    # Imported lists came without times, and no other run has the k that are drawn.
    study = make_study([*falls([PGVECTOR]), *falls(THREE[:1], [50])])
    study.searched[PGVECTOR.name].clear()
    study.curves.loc[study.curves["metric"].str.startswith("lid"), "mean"] = np.nan
    assert "faiss 50: no value" in figures.alt_text(draw("lid", study))
    plots, left_out = figures.draw_figures(study, 30, ["png"], lambda name: tmp_path / name)
    assert {"frontier", "lid", "who_drifts"}.isdisjoint(plot.name for plot in plots)
    reason = "no run has a value where it is drawn"
    assert left_out == {"who_drifts": "no query has an LID", "frontier": reason, "lid": reason}
    assert {path.name for path in tmp_path.iterdir()} == {f"06_{plot.name}.png" for plot in plots}


def test_published_curves_are_beside_ours_and_end_where_they_were_infinite():
    figure = draw("published", make_study(metrics=NOTEBOOK))
    theirs = notebook.curve()
    names = ("overlap", "kth_squared_distance_ann", "lid_notebook_ann", "barycenter_shift")
    for axes, name in zip(figure.axes, names, strict=True):
        drawn = lines(axes)["published"].get_ydata()
        finite = np.isfinite(theirs[name])
        np.testing.assert_array_equal(drawn[finite], theirs[name][finite])
        assert np.isnan(drawn[~finite]).all()
    assert set(lines(figure.axes[1])) >= {"published, exact", "exact"}


def test_the_effort_is_shown_by_both_answers():
    run = make_run("faiss", "overlap=0.95")
    other = {"mean": 0.96, "ci_low": 0.95, "ci_high": 0.97}
    halves = [{"is_enough": k < 250, "reached": other, "other_half": other} for k in (10, 250)]
    notes = {
        "ef_search_by_k": {"10": 12, "250": 251},
        "ef_search_by_k_on_mean": {"10": 11, "250": None},
        "halves": dict(zip(("10", "250"), halves, strict=True)),
    }
    (needed,) = draw("effort", make_study(falls([run], [10, 250]), searched={run.name: notes})).axes
    label = "faiss overlap=0.95"
    assert list(lines(needed)[label].get_ydata()) == [12, 251]
    np.testing.assert_array_equal(lines(needed)[f"{label}, on the mean"].get_ydata(), [11, np.nan])
    (cross,) = (one for one in needed.get_lines() if one.get_marker() == "x")
    assert list(cross.get_xdata()) == [250]
    halves[1]["reached"] = dict.fromkeys(other)  # of an LID that too few have
    (needed,) = draw("effort", make_study(falls([run], [10, 250]), searched={run.name: notes})).axes
    np.testing.assert_array_equal(lines(needed)[label].get_ydata(), [12, np.nan])


def test_what_shows_nothing_is_folded_and_why_is_said(tmp_path):
    def folded(study):
        plots, _ = figures.draw_figures(study, 30, ["png"], lambda name: tmp_path / name)
        return {plot.name: plot.folded for plot in plots if plot.folded}

    no_series = "no three runs differ in one number of their search"
    nothing = folded(make_study(falls([*THREE, make_run("hnswlib", 70)], [10], lambda i, k: 1.0)))
    assert nothing.pop("frontier").startswith(no_series)
    assert nothing == {
        **dict.fromkeys(("distribution", "who_drifts", "found"), "every line is flat, at 1"),
        "barycenter_shift": "every line is flat, at 0",
    }
    whole = falls(SWEEP[:3], [10], kept=lambda i, k: 0.9)
    assert folded(make_study(whole, found=1.0)) == {"found": "every line is flat, at 1"}


@pytest.mark.filterwarnings("error::UserWarning")  # Matplotlib's
@pytest.mark.parametrize("name", ["overlap", "images", "who_drifts"])
def test_the_same_figure_is_the_same_file_with_the_pixels_that_matplotlib_gives_it(name, tmp_path):
    study = make_study(falls(ks=[10, 20]))
    study.images = np.zeros((9, 12, 12, 3), np.uint8)
    for suffix, start in (("svg", b"<?xml"), ("pdf", b"%PDF"), ("png", b"\x89PNG")):
        path = tmp_path / f"own.{suffix}"
        one, two = (panels.save(draw(name, study), [path, path], dpi=100) for _ in range(2))
        assert one == two == path.read_bytes()
        assert one.startswith(start)
    with matplotlib.style.context([panels.STYLE, {"figure.constrained_layout.use": False}]):
        draw(name, study).savefig(tmp_path / "plain.png", dpi=100)
    np.testing.assert_array_equal(imread(path), imread(tmp_path / "plain.png"))


VARIABLES = {"paper", "ink", "faint", "rule", "others", *(f"c{i}" for i in range(12))}


def test_on_the_page_figures_are_text_in_its_colors_without_what_it_has_once(tmp_path):
    study = CASES["sweep"]
    one, again, plots = (
        figures.draw_figures(CASES[case], 30, ["png"], lambda name: tmp_path / name)[0]
        for case in ("one k", "one k", "sweep")
    )
    assert one == again, "the same bytes"
    runs = {f"run-{style.index}" for style in study.styles.values()}
    for plot in plots:
        root = ElementTree.fromstring(plot.svg)
        assert root.attrib.pop("aria-label") == plot.alt_text
        assert {"width", "height"}.isdisjoint(root.attrib)
        x, _, width, _ = map(float, root.get("viewBox").split())
        assert (x, width) == (0, 252), "so that 8 points are 11 pixels on a phone"
        texts = [text.text for text in root.iter("text")]
        assert not any("95 %" in text or text in study.labels.values() for text in texts)
        if plot.name == "overlap":
            assert texts.count("k, neighbors asked for") == 1
            groups = {one.get("class") for one in root.iter("g")} - {None}
            assert groups == runs | {f"band {run}" for run in runs}
        own = [one.get("id") for one in root.iter() if one.get("id")]
        assert all(one.startswith(f"{plot.name}-") for one in own)
        content = ElementTree.tostring(root, "unicode")
        assert set(re.findall(r"#([\w-]+)", content)) == set(own), "no color, no other id"
        assert len(own) == len(set(own))
        assert set(re.findall(r"var\(--(\w+)\)", content)) <= VARIABLES
        assert not re.search(r"\d\.\d{5}|font-family|xlink|<style", content)
    assert sum(len(plot.svg) for plot in plots) < 700_000


def test_a_run_has_a_mark_of_its_own_for_tables_and_texts():
    assert len({svg.mark(style) for style in CASES["twelve runs"].styles.values()}) == 12
    for i, style in enumerate(make_study().styles.values()):
        root = ElementTree.fromstring(svg.mark(style))
        assert (root.get("class"), root.get("style")) == (f"mark run-{i}", f"color:{style.css}")
        assert root[0].get("stroke-dasharray", "") == ("", "5 2.5", "5 2 1 2")[i]
        assert root[1].get("d").count("L") == (0, 3, 2)[i], "a circle, a square, a triangle"


@pytest.mark.parametrize(("n", "shape"), [(1, (1, 1)), (13, (1, 8)), (39, (4, 8)), (99, (5, 8))])
def test_an_image_grid_shows_images_once_and_has_no_empty_place(n, shape):
    study = make_study(falls(ks=[10]))
    study.images = np.repeat(np.arange(n, dtype=np.uint8), 12 * 12 * 3).reshape(n, 12, 12, 3)
    (axes,) = draw("images", study).axes
    pixels = axes.images[0].get_array()
    assert pixels.shape == (13 * shape[0] - 1, 13 * shape[1] - 1, 3)
    shown = pixels[::13, ::13, 0].ravel()
    assert len(set(shown)) == shape[0] * shape[1]
    assert (shown[0], shown[-1]) == (0, n - 1)
    assert (pixels == 255).sum() == pixels.size - 12 * 12 * 3 * len(shown), "white between them"
    assert figures.alt_text(axes.figure) == "some of the images, evenly spaced over the rows"


def test_the_gallery_is_of_the_queries_that_kept_least():
    overlap = np.array([1.0, 0.2, 0.9, 0.2, 0.0, 1.0, 0.2])
    shift = np.array([0.0, 0.5, 9.0, 0.7, np.nan, 0.0, np.nan])
    rows, strangers = np.arange(7), np.full((7, 2), 99)
    same, kept = np.zeros(7, bool), np.ones(7)
    assert gallery.most_drifted(overlap, shift, same, rows, strangers, 3) == [4, 6, 3]
    assert gallery.most_drifted(overlap, shift, rows == 1, rows, strangers, 9) == [1, 4, 6, 3, 2]
    assert gallery.most_drifted(kept, np.zeros(7), same, rows, strangers, 3) == []
    # No query stands beside its own neighbor: 20 is one of 10, 30 has 10 as one, 40 has 20 as one,
    # which is not shown.
    overlap, rows = np.array([0.1, 0.2, 0.3, 0.4, 0.5]), np.array([10, 20, 30, 40, 50])
    exact = np.array([[20, 1], [2, 3], [4, 10], [5, 20], [6, 7]])
    assert gallery.most_drifted(overlap, np.zeros(5), same[:5], rows, exact, 5) == [0, 3, 4]
    assert gallery.most_drifted(overlap, np.zeros(5), same[:5], rows, exact, 2) == [0, 3]


def test_a_gallery_row_shows_what_was_lost_and_what_came_instead():
    exact, ann = np.arange(20), np.concatenate([np.arange(10), [30, 31, 32], [-1] * 7])
    distances = np.linspace(1, 3, 20)
    ann_distances = np.concatenate([np.linspace(1, 4, 13), [np.inf] * 7])
    query = gallery.drifted_query(77, exact, distances, ann, ann_distances)
    assert (query.row, query.lost, query.missing) == (77, 10, 7)
    assert list(query.exact["row"]) == [0, 1, *range(10, 16)]
    assert list(query.exact["rank"]) == [1, 2, *range(11, 17)]
    assert list(query.exact["lost"]) == [False] * 2 + [True] * 6
    assert query.instead[["row", "rank"]].to_numpy().tolist() == [[30, 11], [31, 12], [32, 13]]
    assert (query.exact["far"][0], query.exact["far"][15]) == ("as far", "2.6 times as far")
    lost_one = gallery.drifted_query(0, exact, distances, np.append(exact[:-1], 50), distances)
    assert list(lost_one.exact["rank"]) == [*range(1, 8), 20]
    nothing = gallery.drifted_query(0, exact, distances, np.full(20, -1), ann_distances)
    assert nothing.lost == nothing.missing == 20
    assert (len(nothing.exact), len(nothing.instead)) == (8, 0)


def test_the_gallery_is_by_default_where_drift_shows():
    study = make_study()
    assert gallery.choose(study, None, None) == (FAISS_50, 90)  # below 0.95 from k = 88.4 on
    assert gallery.choose(study, HNSWLIB_50, None) == (HNSWLIB_50, 160)
    assert gallery.choose(study, FAISS_K, 30) == (FAISS_K, 30)
    assert gallery.choose(make_study(falls(kept=lambda i, k: 1 - k / 1e5)), None, None)[1] == 250
    # What is short in nearly every list shows nothing, if another loses by choice.
    is_short = (study.curves["run"] == FAISS_50) & (study.curves["metric"] == "found")
    study.curves.loc[is_short & (study.curves["k"] > 200), "q95"] = 0.9
    assert study.drifted == (FAISS_50, 200)
    study.curves.loc[is_short, "q95"] = 0.9
    assert study.drifted == (FAISS_K, 250)
    study.curves.loc[study.curves["metric"] == "found", "q95"] = 0.9
    assert study.drifted == (FAISS_50, 250)
    with pytest.raises(InputError, match="--gallery-run x was not measured, but faiss_M32_efc200"):
        gallery.choose(study, "x", None)
    with pytest.raises(InputError, match=r"--gallery-k 15 was not measured for faiss.*, but 10"):
        gallery.choose(study, None, 15)
    family, last = make_family(), SEEDS[-2].name
    assert gallery.choose(family, last, None)[0] == last
    assert family.label_of(last) == "faiss 50 seed=2"
    assert family.label_of(FAISS_50) == "faiss 50 seed=0", "the lists are those of one graph"


def test_images_have_the_names_of_their_users_or_files_and_their_labels():
    images = pd.DataFrame({"source": ["photos/a/1", "/home/me/cats/tom.png", "x"]})
    rows = pd.DataFrame(
        {"row": [0, 1, 2], "id": ["0", "1", "Kim"], "label": [-1, 3, 3], "group": 0}
    )
    known = gallery.name_rows(images, rows)
    shown = gallery.Gallery([], "run", 10, np.zeros((3, 8, 8, 3), np.uint8), known)
    assert list(map(shown.name, range(3))) == ["photos/a/1", "tom.png, label 3", "Kim, label 3"]
