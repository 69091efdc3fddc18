"""What the figures show: lines, bands, names, limits; and which queries the gallery is of."""

import itertools

import matplotlib.style
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.image import imread
from matplotlib.text import Text

from drift import InputError
from drift.indexes.run import Run
from drift.metrics import METRICS
from drift.published import notebook
from drift.report import figures, gallery, panels
from drift.report.study import COLORS, MARKERS, run_styles
from drift.report.tables import COSTS
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
TWELVE = [*EIGHT, *(make_run("hnswlib", ef) for ef in (20, 100, "2k", 300))]
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
    "grids of their own": make_study([*falls(THREE[2:]), *falls(THREE[:1], [50])]),
}
DRAWN = {
    f"{case}: {name}": (name, study)
    for case, study in CASES.items()
    for name in figures.possible_figures(study)[0]
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
    for axes in figure.axes:
        assert axes.get_window_extent().height > 0.5 * figure.dpi
        assert set(lines(axes)) <= set(legend(figure))
        low, high = axes.get_ylim()
        for line in lines(axes).values():
            values = np.asarray(line.get_ydata(), float)
            values = values[np.isfinite(values)]
            assert ((low <= values) & (values <= high)).all(), "a line leaves the panel"
        assert axes.get_ylabel() or len(figure.axes) > 1
    text = figures.alt_text(figure)
    assert any(letter.isdigit() for letter in text)
    assert "nan" not in text
    if study is not CASES["grids of their own"]:
        assert all(style.label in text for style in study.styles.values())


def test_bands_say_what_they_are_of():
    for study, words in (
        (make_study(), "95 % interval, over 40 queries"),
        (make_study(groups=15), "over 15 groups of rows that are alike"),
        (make_family(), "over the graphs"),
    ):
        assert words in " ".join(draw("overlap", study)._supxlabel.get_text().split())
    of_rows = draw("hubness")._supxlabel.get_text()
    assert of_rows == "from the lists of all 40 queries", "these are no means and have no interval"


def test_runs_that_differ_by_their_seed_are_one_line_with_the_band_of_queries_and_graphs():
    study, (family, *_) = make_family(), [run.family for run in SEEDS]
    labels = ["FAISS efSearch 50 (3 graphs)", "FAISS efSearch k, at least 50 (3 graphs)"]
    assert list(study.labels.values()) == labels
    axes, _ = draw("overlap", study).axes
    assert list(lines(axes)) == labels
    for drawn, band in zip(lines(axes).values(), axes.collections, strict=True):
        assert set(drawn.get_ydata()) == {0.8}
        assert band_at(band, 250) == (0.7, 0.9)
    assert len(study.queries(family)) == 3 * len(KS) * N_QUERIES
    costs = study.cost(family, "queries_per_second")
    assert costs[10] == pytest.approx(np.mean([1e5 / place for place in (1, 3, 5)]))


def test_a_run_on_another_grid_is_none_of_the_family():
    graphs = make_family().curves.rename(columns={"run": "family"})
    other = make_run("faiss", 50, seed=9)
    study = make_study([*falls(SEEDS), *falls([other], [10, 20])], graphs=graphs)
    assert study.members[FAISS_50] == [FAISS_50, f"{FAISS_50}_seed1", f"{FAISS_50}_seed2"]
    assert study.labels[other.name] == "FAISS efSearch 50, seed 9"


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


def test_a_fixed_ef_search_is_marked_where_it_ends():
    for runs, efs in ((THREE, {50}), (THREE[1:2], set()), (EIGHT, {50, 64, 100, 200, 230})):
        figure = draw("overlap", make_study(falls(runs)))
        drawn = figure.axes[0].get_lines()
        assert {one.get_xdata()[0] for one in drawn if one.get_linestyle() == ":"} == efs
    assert "k = efSearch 50, 64, 100, 200, 230" in legend(figure)


def test_a_run_looks_the_same_in_every_figure_and_beside_more_runs():
    looks, study = {}, make_study(metrics=NOTEBOOK)
    for name in figures.possible_figures(study)[0]:
        for axes in draw(name, study).axes:
            for label, drawn in lines(axes).items():
                if drawn.get_marker() in MARKERS:
                    look = (drawn.get_color(), drawn.get_marker(), drawn.get_linewidth())
                    looks.setdefault(label, set()).add(look)
    assert len(looks) == 3
    assert all(len(look) == 1 for look in looks.values())
    many = make_study(falls(EIGHT)).styles
    for run, style in study.styles.items():
        assert (style.color, style.marker) == (many[run].color, many[run].marker)
    assert len({style.label for style in many.values()}) == len(EIGHT)


def luminance(color):
    channels = np.array(to_rgb(color))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ (0.2126, 0.7152, 0.0722)


def test_up_to_twelve_runs_have_a_color_and_a_mark_of_their_own():
    styles = CASES["twelve runs"].styles.values()
    assert len({style.color for style in styles}) == len({style.marker for style in styles}) == 12
    for color in COLORS:
        assert 1.05 / (luminance(color) + 0.05) >= 2.95, "too faint on white"
    thirty = run_styles({f"run {i}": make_run("faiss", i + 1) for i in range(30)}, {})
    assert len({(style.color, style.marker) for style in thirty.values()}) == 30


def test_labels_say_what_runs_were_searched_with_and_in_what_their_indexes_differ():
    runs = {
        "FAISS efSearch k, at least 50, M 32, efConstruction 200": make_run("faiss", "k,50"),
        "FAISS efSearch 50, M 16, efConstruction 40": make_run("faiss", 50, 16, 40),
        "pgvector efSearch 40, iterative scan strict_order, M 32, efConstruction 200": make_run(
            "pgvector", 40, iterative_scan="strict_order"
        ),
        "IVF9,Flat nprobe 8": make_factory("IVF9,Flat", nprobe=8),
        "HNSW8,Flat efSearch for overlap 0.9, efConstruction 50": make_factory(
            "HNSW8,Flat", build={"ef_construction": 50}, ef_search="overlap=0.9"
        ),
        "lists": Run("_lists"),
    }
    styles = run_styles({str(i): run for i, run in enumerate(runs.values())}, {})
    assert [style.label for style in styles.values()] == list(runs)


def test_the_loss_has_a_logarithmic_panel_on_which_small_losses_differ():
    kept = (0.997, 0.999, 1.0)
    _, lost = draw("overlap", make_study(falls(kept=lambda i, k: kept[i]))).axes
    drawn = [line.get_ydata() for line in lines(lost).values()]
    np.testing.assert_allclose(drawn, np.repeat([[0.003], [0.001], [0.0]], len(KS), axis=1))
    low, high = lost.get_ylim()
    assert low < 0 < high
    heights = lost.transData.transform([(10, loss) for loss in (0.003, 0.001, 0.0)])[:, 1]
    assert (-np.diff(heights) > 0.1 * lost.get_window_extent().height).all()
    texts = [text.get_text() for text in lost.get_yticklabels()]
    assert {"0", "0.001", "0.01"} <= set(texts)


def test_axes_invent_no_drama_where_nothing_is_lost():
    nothing, little = make_study(NOTHING_LOST), make_study(falls(kept=lambda i, k: 0.9995))
    shares = ("overlap", "found", "distribution", "speed", "who_drifts")
    for name, study in itertools.product(shares, (nothing, little)):
        low, high = draw(name, study).axes[0].get_ylim()
        assert 0.9 < low <= 0.95
        assert 1 < high < 1.01
    for name, place, least, most in (
        ("distances", 1, -0.05, 0.05),
        ("barycenter_shift", 0, 0, 0.05),
        ("barycenter_shift", 1, 0, 0.05),
        ("lid", 1, -0.05, 0.05),
    ):
        low, high = draw(name, nothing).axes[place].get_ylim()
        assert low <= least
        assert high >= most
        assert low == 0 or least


@pytest.mark.parametrize(
    ("name", "place", "metric"),
    [
        ("overlap", 0, "overlap"),
        ("distances", 1, "kth_distance_error"),
        ("distances", 2, "mean_distance_ann"),
        ("distances", 3, "mean_distance_error"),
        ("hubness", 0, "hubness_ann"),
        ("hubness", 1, "orphans_ann"),
        ("lid", 0, "lid_ann"),
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
    assert list(drawn) == ["FAISS efSearch 50", "FAISS efSearch k", "hnswlib efSearch 50"]
    for run, line, band in zip(study.styles, drawn.values(), bands[-3:], strict=True):
        curve = study.run_curve(run, metric)
        np.testing.assert_array_equal(line.get_xdata(), KS)
        np.testing.assert_array_equal(line.get_ydata(), curve["mean"])
        for k in (10, 130, 250):
            assert band_at(band, k) == tuple(curve.loc[k, ["ci_low", "ci_high"]])
        assert to_hex(line.get_color()) == to_hex(band.get_facecolor()[0])


def test_the_overlap_by_chance_is_a_thin_line():
    for n, is_outside, last, name in (
        (10_001, False, 0.025, "drawn at random, k / (N - 1)"),
        (251, False, 1.0, "drawn at random, k / (N - 1)"),
        (500, True, 0.5, "drawn at random, k / N"),
        (500, False, 250 / 499, "drawn at random, k / (N - 1)"),
    ):
        kept, lost = draw("overlap", make_study(manifests=made_of(n, is_outside))).axes
        expected = np.array([last / 25, last])
        np.testing.assert_allclose(lines(kept)[name].get_ydata()[[0, -1]], expected)
        np.testing.assert_allclose(lines(lost)[name].get_ydata()[[0, -1]], 1 - expected)
        assert lines(lost)[name].get_linewidth() < 1
        assert kept.get_ylim()[0] > 0.5, "the axis is that of the runs"
        assert lost.get_ylim()[1] >= 1 - last / 25


def test_the_distribution_has_a_panel_for_each_run():
    study = make_study(falls(EIGHT))
    figure = draw("distribution", study)
    assert len({axes.get_ylim() for axes in figure.axes}) == 1, "panels can be compared"
    for axes, run in zip(figure.axes, study.styles, strict=True):
        expected = study.queries(run).groupby("k")["overlap"]
        (median,) = lines(axes).values()
        np.testing.assert_array_equal(median.get_ydata(), expected.median())
        for band, low, high in zip(axes.collections, (0.05, 0.25), (0.95, 0.75), strict=True):
            ends = np.quantile(expected.get_group(200), [low, high])
            assert band_at(band, 200) == pytest.approx(tuple(ends))


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
        drawn = lines(axes)["FAISS efSearch 50"].get_ydata()
        np.testing.assert_array_equal(drawn, fifths[metric])
    study.per_query.loc[study.per_query["query"] >= 10, "lid_exact"] = np.nan
    expected = study.per_query.query("run == @FAISS_50 and k == 10 and query in (8, 9)")
    highest = study.fifths(FAISS_50, 10)["overlap"][5]
    assert highest == pytest.approx(expected["overlap"].mean()), "those without an LID are left out"


def test_how_many_queries_have_an_lid_stands_below_where_that_is_not_all():
    for share, text in ((0.9999, "9,999 of 10,000"), (0.35, "35.0 %"), (1.0, None)):
        study = make_study(share=share, n_queries=10_000)
        for name in ("lid", "who_drifts"):
            below = draw(name, study)._supxlabel.get_text()
            assert below.endswith(f"\n{text} of the queries have an LID") == (text is not None)


def test_cost_compares_runs_at_one_k_at_a_time():
    study = make_study()
    figure = draw("speed", study)
    for k, row in zip((10, 100, 250), np.reshape(figure.axes, (3, 2)), strict=True):
        assert list(lines(row[0])) == ["FAISS efSearch 50", "FAISS efSearch k"]
        assert len(lines(row[1])) == 3
        for axes, name in zip(row, COSTS.values(), strict=True):
            assert axes.get_xscale() == "log"
            drawn = lines(axes)
            for run, label in study.labels.items():
                if label in drawn:
                    assert list(drawn[label].get_xdata()) == [study.cost(run, name)[k]]
                    kept = study.run_curve(run, "overlap")["mean"][k]
                    assert list(drawn[label].get_ydata()) == [kept]
    assert "distances computed" in figure.axes[4].get_xlabel()
    assert "queries/s" in figure.axes[5].get_xlabel()
    figure = draw("speed", CASES["grids of their own"])
    assert [axes.get_xlabel() for axes in figure.axes] == ["", "", "queries/s, log scale"]
    assert all(list(lines(axes)) == ["hnswlib efSearch 50"] for axes in figure.axes)


def test_a_figure_without_a_value_is_left_out_and_that_is_said(tmp_path):
    # Imported lists came without times, and no other run has the k that are drawn.
    study = make_study([*falls([PGVECTOR]), *falls(THREE[:1], [50])])
    study.searched[PGVECTOR.name].clear()
    study.curves.loc[study.curves["metric"].str.startswith("lid"), "mean"] = np.nan
    figure = draw("lid", study)
    assert all("no values" in [text.get_text() for text in axes.texts] for axes in figure.axes)
    assert "FAISS efSearch 50: no value" in figures.alt_text(figure)
    plots, left_out = figures.draw_figures(study, 30, ["png"], lambda name: tmp_path / name)
    assert {"speed", "lid", "who_drifts"}.isdisjoint(plot.name for plot in plots)
    reason = "no run has a value where it is drawn"
    assert left_out == {"who_drifts": "no query has an LID", "speed": reason, "lid": reason}
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
    needed, _ = draw("effort", make_study(falls([run], [10, 250]), searched={run.name: notes})).axes
    label = "FAISS efSearch for overlap 0.95"
    assert list(lines(needed)[label].get_ydata()) == [12, 251]
    np.testing.assert_array_equal(lines(needed)[f"{label}, on the mean"].get_ydata(), [11, np.nan])
    (cross,) = (one for one in needed.get_lines() if one.get_marker() == "x")
    assert list(cross.get_xdata()) == [250]
    halves[1]["reached"] = dict.fromkeys(other)  # of an LID that too few have
    needed, _ = draw("effort", make_study(falls([run], [10, 250]), searched={run.name: notes})).axes
    np.testing.assert_array_equal(lines(needed)[label].get_ydata(), [12, np.nan])


def test_what_there_are_no_numbers_for_is_left_out_with_a_reason():
    chosen, left_out = figures.possible_figures(make_study(timed=False, metrics=OF_QUERIES))
    assert {"hubness", "speed", "published", "effort", "images"}.isdisjoint(chosen)
    assert left_out == {
        "hubness": "it describes whole graphs, and not every row is a query",
        "speed": "these lists came without search times",
    }
    chosen, left_out = figures.possible_figures(make_study(metrics=NOTEBOOK))
    assert {"hubness", "speed", "published", "who_drifts"} <= set(chosen)
    assert left_out == {}
    many = make_study(falls([make_run("faiss", ef) for ef in range(1, 14)], [10]))
    assert figures.possible_figures(many) == (
        ["overlap"],
        {"figures of all runs": "there are more than 12"},
    )


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


@pytest.mark.parametrize(
    ("n", "shape"),
    [(1, (1, 1)), (5, (1, 5)), (8, (1, 8)), (13, (1, 8)), (39, (4, 8)), (40, (5, 8)), (99, (5, 8))],
)
def test_an_image_grid_shows_images_once_and_has_no_empty_place(n, shape):
    study = make_study(falls(ks=[10]))
    study.images = np.repeat(np.arange(n, dtype=np.uint8), 12 * 12 * 3).reshape(n, 12, 12, 3)
    figure = draw("images", study)
    (axes,) = figure.axes
    np.testing.assert_allclose(axes.get_position().extents, [0, 0, 1, 1])
    pixels = axes.images[0].get_array()
    assert pixels.shape == (13 * shape[0] - 1, 13 * shape[1] - 1, 3)
    shown = pixels[::13, ::13, 0].ravel()
    assert len(set(shown)) == shape[0] * shape[1]
    assert (shown[0], shown[-1]) == (0, n - 1) or n == 1
    assert (pixels == 255).sum() == pixels.size - 12 * 12 * 3 * len(shown), "white between them"
    assert figures.alt_text(figure) == "some of the images, evenly spaced over the rows"


def test_the_gallery_is_of_the_queries_that_kept_least():
    overlap = np.array([1.0, 0.2, 0.9, 0.2, 0.0, 1.0, 0.2])
    shift = np.array([0.0, 0.5, 9.0, 0.7, np.nan, 0.0, np.nan])
    rows, strangers = np.arange(7), np.full((7, 2), 99)
    assert gallery.most_drifted(overlap, shift, rows, strangers, 3) == [4, 6, 3]
    assert gallery.most_drifted(overlap, shift, rows, strangers, 100) == [4, 6, 3, 1, 2]
    assert gallery.most_drifted(np.ones(7), np.zeros(7), rows, strangers, 3) == []
    # No query stands beside its own neighbor: 20 is one of 10, 30 has 10 as one, 40 has 20 as one,
    # which is not shown.
    overlap, rows = np.array([0.1, 0.2, 0.3, 0.4, 0.5]), np.array([10, 20, 30, 40, 50])
    exact = np.array([[20, 1], [2, 3], [4, 10], [5, 20], [6, 7]])
    assert gallery.most_drifted(overlap, np.zeros(5), rows, exact, 5) == [0, 3, 4]
    assert gallery.most_drifted(overlap, np.zeros(5), rows, exact, 2) == [0, 3]


def test_a_gallery_row_shows_what_was_lost_and_what_came_instead():
    exact, ann = np.arange(20), np.concatenate([np.arange(10), [30, 31, 32], [-1] * 7])
    distances = np.linspace(1, 3, 20)
    ann_distances = np.concatenate([np.linspace(1, 4, 13), [np.inf] * 7])
    query = gallery.drifted_query(77, exact, distances, ann, ann_distances)
    assert (query.row, query.lost, query.missing) == (77, 10, 7)
    rows = [*((i, i + 1, distances[i], False) for i in (0, 1))]
    rows += [(i, i + 1, distances[i], True) for i in range(10, 16)]
    assert list(query.exact.itertuples(index=False, name=None)) == rows
    rows = [(20 + i, i + 1, ann_distances[i], False) for i in (10, 11, 12)]
    assert list(query.instead.itertuples(index=False, name=None)) == rows
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
    assert study.worst == (FAISS_50, 200)
    study.curves.loc[is_short, "q95"] = 0.9
    assert study.worst == (FAISS_K, 250)
    study.curves.loc[study.curves["metric"] == "found", "q95"] = 0.9
    assert study.worst == (FAISS_50, 250)
    with pytest.raises(InputError, match="--gallery-run x was not measured, but faiss_M32_efc200"):
        gallery.choose(study, "x", None)
    with pytest.raises(InputError, match=r"--gallery-k 15 was not measured for faiss.*, but 10"):
        gallery.choose(study, None, 15)
    family, last = make_family(), SEEDS[-2].name
    assert gallery.choose(family, last, None)[0] == last
    assert family.label_of(last) == last
    assert family.label_of(FAISS_50) == FAISS_50, "the lists are those of one graph"


def test_images_have_the_names_of_their_files_and_their_labels():
    table = pd.DataFrame({"source": ["photos/a/1", "/home/me/cats/tom.png"], "label": [-1, 3]})
    shown = gallery.Gallery([], "run", 10, np.zeros((2, 8, 8, 3), np.uint8), table)
    assert [shown.name(row) for row in (0, 1)] == ["photos/a/1", "tom.png, label 3"]
