"""What the figures show: lines, bands, names, limits; and which queries the gallery is of."""

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.text import Annotation, Text

from drift import InputError, catalogue, drawing, figures, gallery
from drift.metrics import GRAPH_METRICS, METRICS, NOTEBOOK_METRICS

KS = list(range(10, 251, 10))


def parameters(backend, ef, **more):
    return {"backend": backend, "M": 32, "ef_construction": 200, "ef_search": ef, "seed": 0} | more


THREE = {
    "faiss_50": parameters("faiss", 50),
    "faiss_k": parameters("faiss", "k"),
    "hnswlib_50": parameters("hnswlib", 50),
}
EIGHT = THREE | {
    f"faiss_{ef}_M{m}": parameters("faiss", ef, M=m)
    for ef, m in ((100, 16), (200, 16), (64, 8), (230, 8), ("3k", 64))
}


def falling(at, k):
    """The overlap of the first run falls, that of the others by little."""
    return 1 - 0.4 * (k / 250) ** 2 / (1 + at)


def study(runs=THREE, ks=KS, kept=falling, timed=True, notebook=False, graph=True):
    """A study made by hand, in which everything follows from the overlap."""
    rows, quantiles = [], []
    metrics = METRICS + NOTEBOOK_METRICS * notebook + GRAPH_METRICS * graph
    for (at, run), k in itertools.product(enumerate(runs), ks):
        loss = 1 - kept(at, k)
        values = {
            "overlap": 1 - loss,
            "recall": 1 - loss,
            "found": 1 - loss / 2,
            "barycenter_shift": 3 * loss,
            "barycenter_shift_relative": loss / 3,
            "lid_difference": -8 * loss,
        }
        for name, exact in (
            ("mean_distance", 8 + k / 100),
            ("kth_distance", 9 + k / 50),
            ("lid", 12 - k / 50),
            ("hubness", 1 + k / 100),
            ("orphans", 0.05 / k),
            ("kth_squared_distance", 90 + k),
            ("lid_notebook", k / 60),
        ):
            values |= {f"{name}_exact": exact, f"{name}_ann": exact * (1 + loss)}
        values["lid_ann"] = values["lid_exact"] - 8 * loss
        for metric in metrics:
            mean, half = values[metric.name], 0.02 * loss
            row = {"run": run, "k": k, "metric": metric.name, "mean": mean, "n": 500}
            rows.append(row | {"ci_low": mean - half, "ci_high": mean + 2 * half})
        spread = dict(zip(figures.QUANTILES, (3, 2, 1, 0.5, 0), strict=True))
        of_run = {name: 1 - loss * times for name, times in spread.items()}
        quantiles.append({"run": run, "k": k, **of_run})
    speeds = {
        run: pd.Series({k: 1e6 / k / (at + 1) for k in ks}) for at, run in enumerate(runs) if timed
    }
    styles = drawing.run_styles(runs)
    return figures.Study(pd.DataFrame(rows), styles, pd.DataFrame(quantiles), speeds)


CASES = {
    "eight runs": study(EIGHT, notebook=True),
    "nothing lost": study(kept=lambda at, k: 1.0, notebook=True),
    "half lost": study({"faiss_15": THREE["faiss_50"]}, [10, 20, 30], lambda at, k: 0.5),
    "one k": study({"faiss_5": parameters("faiss", 5)}, ks=[10]),
    "lists": study(
        {
            "lists": {
                "backend": r"_pgvector_$\lists$_with_probes_10_of_10000_rows",
                "ef_search": None,
            }
        }
    ),
}
DRAWN = {
    f"{case}: {one.name}": (one, of_case)
    for case, of_case in CASES.items()
    for one in catalogue.drawings(of_case)[0]
}


def lines(axes):
    """The lines of an axes by their name, without the breaks."""
    named = (one for one in axes.get_lines() if not one.get_label().startswith("_child"))
    return {" ".join(one.get_label().split()): one for one in named}


def names(axes):
    """What is written at the ends of lines."""
    texts = (text for text in axes.texts if isinstance(text, Annotation) and text.arrowprops)
    return {" ".join(text.get_text().split()): text for text in texts}


def overlaps(one, other):
    return (
        min(one.x1, other.x1) - max(one.x0, other.x0) > 1
        and min(one.y1, other.y1) - max(one.y0, other.y0) > 1
    )


@pytest.mark.parametrize(("one", "of_case"), DRAWN.values(), ids=DRAWN)
def test_every_figure_can_be_read_at_half_a_pages_width(one, of_case):
    figure = one.draw(of_case)
    figure.draw_without_rendering()
    width, height = figure.get_size_inches()
    assert width == drawing.WIDTH == 3.5
    assert height < 12
    extent = figure.get_tightbbox()
    assert extent.x0 > -0.02
    assert extent.y0 > -0.02
    assert extent.x1 < width + 0.02, "nothing is cut at the right"
    assert extent.y1 < height + 0.02
    letters = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    assert min(text.get_fontsize() for text in letters) >= 8
    for axes in figure.axes:
        boxes = [Text.get_window_extent(text) for text in names(axes).values()]
        for pair in itertools.combinations(boxes, 2):
            assert not overlaps(*pair), "names lie upon each other"
        assert one.name == "distribution" or set(names(axes)) == set(lines(axes))
        low, high = axes.get_ylim()
        for of_run in lines(axes).values():
            values = np.asarray(of_run.get_ydata(), float)
            values = values[np.isfinite(values)]
            assert ((low <= values) & (values <= high)).all(), "a line leaves the panel"
        assert axes.get_ylabel() or len(figure.axes) > 1


@pytest.mark.parametrize(("one", "of_case"), DRAWN.values(), ids=DRAWN)
def test_what_a_figure_shows_is_told_in_numbers(one, of_case):
    told = one.told(of_case)
    assert any(letter.isdigit() for letter in told)
    assert "nan" not in told
    assert all(style.label in told for style in of_case.styles.values())


def test_overlap_lines_bands_and_names_are_those_of_the_runs():
    of_runs = study()
    (axes,) = figures.overlap(of_runs).axes
    assert set(lines(axes)) == set(names(axes))
    assert list(lines(axes)) == ["FAISS efSearch 50", "FAISS efSearch = k", "hnswlib efSearch 50"]
    bands = [one for one in axes.collections if isinstance(one, PolyCollection)]
    assert len(bands) == 3
    for run, drawn, band in zip(THREE, lines(axes).values(), bands, strict=True):
        expected = of_runs.series(run, "overlap")
        np.testing.assert_array_equal(drawn.get_xdata(), KS)
        np.testing.assert_array_equal(drawn.get_ydata(), expected["mean"])
        vertices = band.get_paths()[0].vertices
        for k in (10, 130, 250):
            at_k = vertices[vertices[:, 0] == k, 1]
            assert (at_k.min(), at_k.max()) == tuple(expected.loc[k, ["ci_low", "ci_high"]])
        assert to_hex(drawn.get_color()) == to_hex(band.get_facecolor()[0])


def test_a_fixed_ef_search_is_marked_where_it_ends():
    (axes,) = figures.overlap(study()).axes
    (mark,) = (one for one in axes.get_lines() if one.get_linestyle() == ":")
    assert set(mark.get_xdata()) == {50}
    assert [text.get_text() for text in axes.texts if not text.arrowprops] == ["efSearch 50"]
    without = {run: THREE[run] for run in ("faiss_k",)}
    (axes,) = figures.overlap(study(without)).axes
    assert not [one for one in axes.get_lines() if one.get_linestyle() == ":"]
    (axes,) = figures.overlap(study(EIGHT)).axes
    marks = {one.get_xdata()[0] for one in axes.get_lines() if one.get_linestyle() == ":"}
    assert marks == {50, 64, 100, 200, 230}


def test_a_run_looks_the_same_in_every_figure_and_beside_more_runs():
    looks = {}
    of_runs = study(notebook=True)
    for one in catalogue.drawings(of_runs)[0]:
        for axes in one.draw(of_runs).axes:
            for name, drawn in lines(axes).items():
                if drawn.get_marker() in drawing.MARKERS:
                    look = (drawn.get_color(), drawn.get_marker(), drawn.get_linewidth())
                    looks.setdefault(name, set()).add(look)
    assert len(looks) == 3
    assert all(len(look) == 1 for look in looks.values())
    few, many = drawing.run_styles(THREE), drawing.run_styles(EIGHT)
    for run in THREE:
        assert few[run].color == many[run].color
        assert few[run].marker == many[run].marker
    assert len({(style.color, str(style.dash)) for style in many.values()}) == len(EIGHT)
    assert len({style.label for style in many.values()}) == len(EIGHT)


def test_axes_invent_no_drama_where_nothing_is_lost():
    nothing_lost, little_lost = study(kept=lambda at, k: 1.0), study(kept=lambda at, k: 0.9995)
    shares = (figures.overlap, figures.found, figures.distribution, figures.speed)
    for draw, of_runs in itertools.product(shares, (nothing_lost, little_lost)):
        low, high = draw(of_runs).axes[0].get_ylim()
        assert 0.9 < low <= 0.95
        assert 1 < high < 1.01
    _, kth_ratio, _, mean_ratio = figures.distances(nothing_lost).axes
    for axes in (kth_ratio, mean_ratio):
        assert axes.get_ylim()[0] <= 0.95
        assert axes.get_ylim()[1] >= 1.05
    absolute, relative = figures.barycenter_shift(nothing_lost).axes
    assert relative.get_ylim()[0] == absolute.get_ylim()[0] == 0
    assert relative.get_ylim()[1] >= 0.05
    assert absolute.get_ylim()[1] >= 0.05 * 14
    low, high = figures.lid(nothing_lost).axes[1].get_ylim()
    assert low <= -0.05
    assert high >= 0.05


def test_lid_difference_is_in_percent_of_the_exact_lid():
    of_runs = study()
    value, difference = figures.lid(of_runs).axes
    expected = of_runs.means("lid_difference", over="lid_exact")["FAISS, efSearch 50"]
    drawn = lines(difference)["FAISS efSearch 50"]
    np.testing.assert_allclose(drawn.get_ydata(), expected)
    assert difference.yaxis.get_major_formatter()(-0.1).startswith("\N{MINUS SIGN}10")
    np.testing.assert_array_equal(
        lines(value)["exact"].get_ydata(), of_runs.exact("lid_exact")["mean"]
    )


def test_distances_have_the_exact_line_and_the_ratio_below():
    of_runs = study()
    kth, kth_ratio, mean, mean_ratio = figures.distances(of_runs).axes
    for value, ratio, name in ((kth, kth_ratio, "kth"), (mean, mean_ratio, "mean")):
        ann = of_runs.series("faiss_50", f"{name}_distance_ann")["mean"]
        exact = of_runs.exact(f"{name}_distance_exact")["mean"]
        np.testing.assert_array_equal(lines(value)["exact"].get_ydata(), exact)
        np.testing.assert_array_equal(lines(value)["FAISS efSearch 50"].get_ydata(), ann)
        drawn = lines(ratio)["FAISS efSearch 50"].get_ydata()
        np.testing.assert_allclose(drawn, ann / exact)
        assert "exact" not in lines(ratio)


def test_hubness_and_orphans_have_their_exact_line():
    of_runs = study()
    for axes, name in zip(figures.hubness(of_runs).axes, ("hubness", "orphans"), strict=True):
        exact = of_runs.exact(f"{name}_exact")["mean"]
        np.testing.assert_array_equal(lines(axes)["exact"].get_ydata(), exact)
        assert len(lines(axes)) == 4


@pytest.mark.parametrize(("runs", "columns"), [(THREE, 1), (EIGHT, 2)])
def test_the_distribution_has_a_panel_for_each_run(runs, columns):
    of_runs = study(runs)
    figure = figures.distribution(of_runs)
    assert len(figure.axes) == len(runs)
    assert len({axes.get_position().x0 for axes in figure.axes}) == columns
    for axes, run in zip(figure.axes, runs, strict=True):
        expected = of_runs.quantiles[of_runs.quantiles["run"] == run].set_index("k")
        (median,) = lines(axes).values()
        np.testing.assert_array_equal(median.get_ydata(), expected["median"])
        light, dark = (one.get_paths()[0].vertices for one in axes.collections)
        for vertices, low, high in ((light, "q05", "q95"), (dark, "q25", "q75")):
            at_k = vertices[vertices[:, 0] == 200, 1]
            assert (at_k.min(), at_k.max()) == tuple(expected.loc[200, [low, high]])


def test_quantiles_are_those_of_the_single_queries():
    rng = np.random.default_rng(0)
    per_query = pd.DataFrame(
        {"run": ["a"] * 40 + ["b"] * 40, "k": [10, 20] * 40, "overlap": rng.random(80)}
    )
    table = figures.quantiles(per_query)
    assert list(table.columns) == ["run", "k", *figures.QUANTILES]
    for row in table.itertuples():
        chosen = per_query.query("run == @row.run and k == @row.k")["overlap"]
        assert row.q25 == pytest.approx(np.quantile(chosen, 0.25))
        assert row.q95 == pytest.approx(np.quantile(chosen, 0.95))


def test_speed_is_a_curve_through_the_k_of_each_run():
    of_runs = study()
    (axes,) = figures.speed(of_runs).axes
    assert axes.get_xscale() == "log"
    for run, drawn in zip(THREE, lines(axes).values(), strict=True):
        np.testing.assert_array_equal(drawn.get_xdata()[::-1], of_runs.speeds[run])
        overlap = of_runs.series(run, "overlap")["mean"]
        np.testing.assert_array_equal(drawn.get_ydata()[::-1], overlap)
    assert "k = 250" in [text.get_text() for text in axes.texts]


def test_published_curves_are_beside_ours_and_end_where_they_were_infinite():
    figure = figures.published(study(notebook=True))
    theirs = figures.published_curve()
    for axes, name in zip(
        figure.axes,
        ("overlap", "kth_squared_distance_ann", "lid_notebook_ann", "barycenter_shift"),
        strict=True,
    ):
        drawn = lines(axes)["published"].get_ydata()
        finite = np.isfinite(theirs[name])
        np.testing.assert_array_equal(drawn[finite], theirs[name][finite])
        assert np.isnan(drawn[~finite]).all()
    assert set(lines(figure.axes[1])) >= {"published, exact", "ours, exact"}


def test_what_there_are_no_numbers_for_is_left_out_with_a_reason():
    chosen, left_out = catalogue.drawings(study(timed=False, graph=False))
    assert {"hubness", "speed", "published"}.isdisjoint(one.name for one in chosen)
    assert "not every row is a query" in left_out["Hubness and orphans"]
    assert "without search times" in left_out["Overlap and speed"]
    chosen, left_out = catalogue.drawings(study(notebook=True))
    assert {"hubness", "speed", "published"} <= {one.name for one in chosen}
    assert left_out == {}


def test_a_panel_without_values_says_so():
    of_runs = study(ks=[1])
    of_runs.curves.loc[of_runs.curves["metric"].str.startswith("lid"), "mean"] = np.nan
    for axes in figures.lid(of_runs).axes:
        assert "no values" in [text.get_text() for text in axes.texts]
    assert "FAISS, efSearch 50: nowhere a value" in catalogue.DRAWINGS[5].told(of_runs)


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_the_same_figure_is_the_same_file(suffix, tmp_path):
    of_runs = study()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        drawing.save(figures.overlap(of_runs), tmp_path / name / f"06_overlap.{suffix}", dpi=100)
    one, two = ((tmp_path / name / f"06_overlap.{suffix}").read_bytes() for name in ("one", "two"))
    assert one == two
    assert one.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix])


@pytest.mark.parametrize("n", [1, 5, 8, 40])
def test_a_sample_shows_every_image_once(n):
    images = np.arange(n * 12, dtype=np.uint8).reshape(n, 2, 2, 3)
    drawn = [axes.images[0].get_array() for axes in figures.sample(images).axes if axes.images]
    np.testing.assert_array_equal(drawn, images)


def test_the_gallery_is_of_the_queries_that_kept_least():
    overlap = np.array([1.0, 0.2, 0.9, 0.2, 0.0, 1.0, 0.2])
    shift = np.array([0.0, 0.5, 9.0, 0.7, np.nan, 0.0, np.nan])
    assert gallery.most_drifted(overlap, shift, 3).tolist() == [4, 6, 3]
    assert gallery.most_drifted(overlap, shift, 100).tolist() == [4, 6, 3, 1, 2]
    assert gallery.most_drifted(np.ones(3), np.zeros(3), 3).size == 0


def test_a_gallery_row_shows_what_was_lost_and_what_came_instead():
    exact, ann = np.arange(20), np.concatenate([np.arange(10), [30, 31, 32], [-1] * 7])
    distances = np.linspace(1, 3, 20)
    ann_distances = np.concatenate([np.linspace(1, 4, 13), [np.inf] * 7])
    query = gallery.drifted_query(77, exact, distances, ann, ann_distances, shown=6)
    assert (query.row, query.k, query.lost, query.missing) == (77, 20, 10, 7)
    assert [(at.row, at.rank, at.lost) for at in query.exact] == [
        *((0, 1, False), (1, 2, False)),
        *((10, 11, True), (11, 12, True), (12, 13, True), (13, 14, True)),
    ]
    assert [(at.row, at.rank) for at in query.instead] == [(30, 11), (31, 12), (32, 13)]
    assert query.exact[2].distance == distances[10]
    assert query.instead[0].distance == ann_distances[10]

    lost_one = gallery.drifted_query(0, exact, distances, np.append(exact[:-1], 50), distances, 6)
    assert [at.rank for at in lost_one.exact] == [1, 2, 3, 4, 5, 20]
    nothing = gallery.drifted_query(0, exact, distances, np.full(20, -1), ann_distances, 6)
    assert nothing.lost == nothing.missing == 20
    assert len(nothing.exact) == 6
    assert nothing.instead == []


def test_the_gallery_is_by_default_where_drift_shows():
    curves = study(kept=falling).curves
    run, k = gallery.choose(curves, None, None)
    assert run == "faiss_50"
    assert k == 90  # 1 - 0.4 (k / 250)^2 is below 0.95 from 88.4 on
    assert gallery.choose(curves, "hnswlib_50", None) == ("hnswlib_50", 160)
    assert gallery.choose(curves, "faiss_k", 30) == ("faiss_k", 30)
    assert gallery.choose(study(kept=lambda at, k: 1 - k / 1e5).curves, None, None)[1] == 250
    with pytest.raises(InputError, match="--gallery-run x was not measured, but faiss_50, "):
        gallery.choose(curves, "x", None)
    with pytest.raises(InputError, match="--gallery-k 15 was not measured for faiss_50, but 10, "):
        gallery.choose(curves, None, 15)
