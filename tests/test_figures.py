"""What the figures show: lines, bands, names, limits; and which queries the gallery is of."""

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.text import Text

from drift import InputError
from drift.metrics import METRICS
from drift.published import notebook
from drift.report import figures, gallery, panels
from drift.report.panels import named_lines
from drift.report.run_styles import COLORS, MARKERS, run_styles
from drift.report.study import Study
from drift.report.tables import COSTS

KS = list(range(10, 251, 10))
N_QUERIES = 40


def parameters(backend, ef, **more):
    return {"backend": backend, "M": 32, "ef_construction": 200, "ef_search": ef, "seed": 0} | more


THREE = {
    "faiss_50": parameters("faiss", 50),
    "faiss_k": parameters("faiss", "k"),
    "hnswlib_50": parameters("hnswlib", 50),
}
EIGHT = THREE | {
    f"faiss_{ef}_M{m}": parameters("faiss", ef, M=m)
    for ef, m in ((100, 16), (200, 16), (64, 8), (230, 8), ("3k,50", 64))
}
TWELVE = EIGHT | {f"hnswlib_{ef}": parameters("hnswlib", ef) for ef in (20, 100, "2k", 300)}
SEEDS = {
    f"faiss_{ef}{suffix}": parameters("faiss", ef, seed=seed)
    for seed, suffix in ((0, ""), (1, "_seed1"), (2, "_seed2"))
    for ef in (50, "k,50")
}


def falling(i, k):
    """The overlap of the first run falls, that of the others by little."""
    return 1 - 0.4 * (k / 250) ** 2 / (1 + i)


def make_study(
    runs=THREE, ks=KS, kept=falling, timed=True, published=False, graph=True, graphs=None, **facts
):
    """A study made by hand, in which everything follows from the overlap."""
    rows, safe, queries = [], [], []
    metrics = [metric.name for metric in METRICS + (notebook.METRICS if published else ())]
    if graph:
        metrics += ["hubness_exact", "hubness_ann", "orphans_exact", "orphans_ann"]
    for (i, run), k in itertools.product(enumerate(runs), ks):
        loss = 1 - kept(i, k)
        values = {
            "overlap": 1 - loss,
            "recall": 1 - loss,
            "found": 1 - loss / 2,
            "distance_ratio": 1 - loss / 3,
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
            mean, half = values[metric], 0.02 * loss
            row = {"run": run, "k": k, "metric": metric, "mean": mean, "n": N_QUERIES}
            rows.append(row | {"ci_low": mean - half, "ci_high": mean + 2 * half})
        place = np.linspace(0, 2, N_QUERIES)
        table = pd.DataFrame({"query": range(N_QUERIES), "overlap": 1 - loss * place})
        table = table.assign(run=run, k=k, distance_ratio=1 - loss * place / 3, barycenter_shift=0)
        queries.append(table.assign(lid_exact=values["lid_exact"] + place))
    for run in runs:
        for criterion, tolerance in (("overlap", 0.99), ("overlap", 0.95), ("lid", 0.05)):
            row = {"run": run, "criterion": criterion, "tolerance": tolerance, "safe_k": 20}
            safe.append(row | {"crossing_k": 33, "crossing_low": 30, "crossing_high": 35})
    searched = {}
    for i, (run, settings) in enumerate(runs.items()):
        searched[run] = {"queries_per_second": {str(k): 1e6 / k / (i + 1) for k in ks}}
        if settings["backend"] == "faiss":
            counted = {"distance_computations_per_query": {str(k): 100 + k * (i + 1) for k in ks}}
            searched[run] |= counted
    manifest = {"parameters": {"runs": runs}, "n_queries": N_QUERIES, "inputs": {}} | facts
    more = {"published": notebook.curve() if published else None}
    tables = pd.DataFrame(rows), pd.DataFrame(safe), graphs, manifest, searched if timed else {}
    return Study.from_tables(*tables, per_query=pd.concat(queries), **more)


def make_family():
    """A study of two runs on three graphs each, and what is known of them together."""
    curves = make_study(SEEDS).curves
    graphs = curves[
        curves["run"].isin(["faiss_50", "faiss_k,50"]) & (curves["metric"] == "overlap")
    ]
    graphs = graphs.rename(columns={"run": "family"}).assign(graphs=3, sd_between_graphs=0.1)
    graphs = graphs.assign(mean=0.8, ci_low=0.7, ci_high=0.9)
    return make_study(SEEDS, graphs=graphs)


CASES = {
    "twelve runs": make_study(TWELVE),
    "eight runs": make_study(EIGHT, published=True),
    "nothing lost": make_study(kept=lambda i, k: 1.0, published=True),
    "half lost": make_study({"faiss_15": THREE["faiss_50"]}, [10, 20, 30], lambda i, k: 0.5),
    "graphs": make_family(),
    "one k": make_study({"faiss_5": parameters("faiss", 5)}, ks=[10]),
    "lists": make_study(
        {
            "lists": {
                "backend": r"_pgvector_$\lists$_with_probes_10_of_10000_rows",
                "ef_search": None,
            }
        },
        timed=False,
    ),
}
DRAWN = {
    f"{case}: {name}": (name, study)
    for case, study in CASES.items()
    for name in figures.possible_figures(study)[0]
}


def lines(axes):
    """The lines of an axes by their name."""
    return {line.get_label(): line for line in named_lines(axes)}


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize(("name", "study"), DRAWN.values(), ids=DRAWN)
def test_every_figure_can_be_read_at_half_a_pages_width(name, study):
    figure = figures.FIGURES[name](study)
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
    assert not figure.get_suptitle(), "the title is on the page"
    for axes in figure.axes:
        assert axes.get_window_extent().height > 0.5 * figure.dpi
        assert set(lines(axes)) <= set(legend(figure))
        low, high = axes.get_ylim()
        for line in lines(axes).values():
            values = np.asarray(line.get_ydata(), float)
            values = values[np.isfinite(values)]
            assert ((low <= values) & (values <= high)).all(), "a line leaves the panel"
        assert axes.get_ylabel() or len(figure.axes) > 1


@pytest.mark.parametrize(("name", "study"), DRAWN.values(), ids=DRAWN)
def test_what_a_figure_shows_is_told_in_numbers(name, study):
    text = figures.alt_text(figures.FIGURES[name](study))
    assert any(letter.isdigit() for letter in text)
    assert "nan" not in text
    assert all(style.label in text for style in study.styles.values())


def test_overlap_lines_bands_and_names_are_those_of_the_runs():
    study = make_study()
    figure = figures.overlap(study)
    axes, _ = figure.axes
    names = ["FAISS efSearch 50", "FAISS efSearch k", "hnswlib efSearch 50"]
    assert list(lines(axes)) == names
    assert legend(figure) == [*names, "k = efSearch 50"]
    bands = [one for one in axes.collections if isinstance(one, PolyCollection)]
    assert len(bands) == 3
    for run, drawn, band in zip(THREE, lines(axes).values(), bands, strict=True):
        expected = study.run_curve(run, "overlap")
        np.testing.assert_array_equal(drawn.get_xdata(), KS)
        np.testing.assert_array_equal(drawn.get_ydata(), expected["mean"])
        vertices = band.get_paths()[0].vertices
        for k in (10, 130, 250):
            at_k = vertices[vertices[:, 0] == k, 1]
            assert (at_k.min(), at_k.max()) == tuple(expected.loc[k, ["ci_low", "ci_high"]])
        assert to_hex(drawn.get_color()) == to_hex(band.get_facecolor()[0])


def test_bands_say_what_they_are_of():
    of_queries = figures.overlap(make_study()).get_supxlabel()
    assert "95 % interval, over 40 queries" in " ".join(of_queries.split())
    of_groups = figures.overlap(make_study(groups=15)).get_supxlabel()
    assert "over 15 groups of images that are alike" in " ".join(of_groups.split())
    of_graphs = figures.overlap(make_family()).get_supxlabel()
    assert "over the graphs" in " ".join(of_graphs.split())
    of_rows = figures.FIGURES["hubness"](make_study()).get_supxlabel()
    assert of_rows == "from the lists of all 40 queries", "these are no means and have no interval"


def test_runs_that_differ_by_their_seed_are_one_line_with_the_band_of_queries_and_graphs():
    study = make_family()
    labels = ["FAISS efSearch 50 (3 graphs)", "FAISS efSearch k, at least 50 (3 graphs)"]
    assert list(study.labels.values()) == labels
    axes, _ = figures.overlap(study).axes
    assert list(lines(axes)) == labels
    for drawn, band in zip(lines(axes).values(), axes.collections, strict=True):
        assert set(drawn.get_ydata()) == {0.8}
        heights = band.get_paths()[0].vertices[:, 1]
        assert (heights.min(), heights.max()) == (0.7, 0.9)
    assert len(study.queries("faiss_50")) == 3 * len(KS) * N_QUERIES
    assert study.cost("faiss_50", "queries_per_second")[10] == pytest.approx(
        np.mean([1e5 / place for place in (1, 3, 5)])
    )


def test_a_run_on_another_grid_is_none_of_the_family():
    study = make_family()
    curves = make_study({"faiss_50_seed9": parameters("faiss", 50, seed=9)}, ks=[10, 20]).curves
    facts = {"parameters": {"runs": SEEDS | {"faiss_50_seed9": parameters("faiss", 50, seed=9)}}}
    graphs = study.curves.rename(columns={"run": "family"}).assign(graphs=3)
    both = pd.concat([make_study(SEEDS).curves, curves])
    merged = Study.from_tables(both, study.safe_k, graphs, facts, {})
    assert list(merged.members["faiss_50"]) == ["faiss_50", "faiss_50_seed1", "faiss_50_seed2"]
    assert merged.labels["faiss_50_seed9"] == "FAISS efSearch 50, seed 9"


def test_a_family_is_as_safe_as_its_graphs_and_crosses_where_they_do():
    study = make_family()
    safe_k = make_study(SEEDS).safe_k.set_index("run")
    for name, column, value in (
        ("faiss_50", "safe_k", 30),
        ("faiss_50_seed2", "safe_k", 10),
        ("faiss_50", "crossing_k", 40),
        ("faiss_50_seed1", "crossing_low", 25),
        ("faiss_50_seed2", "crossing_high", np.nan),
    ):
        safe_k.loc[name, column] = value
    graphs = study.curves.rename(columns={"run": "family"}).assign(graphs=3)
    together = (make_study(SEEDS).curves, safe_k.reset_index(), graphs, study.facts, {})
    row = Study.from_tables(*together).strictest("faiss_50")
    assert tuple(row[["safe_k", "crossing_k", "crossing_low"]]) == (10, 33, 25)
    assert np.isnan(row["crossing_high"])


def test_crossings_are_marked_where_the_loss_passes_each_tolerance():
    study = make_study()
    study.safe_k.loc[0, "crossing_high"] = np.nan
    _, lost = figures.overlap(study).axes
    marks = [line for line in lost.get_lines() if line.get_marker() == "|"]
    assert len(marks) == 6
    spans = [(*mark.get_xdata(), round(mark.get_ydata()[0], 6)) for mark in marks[:2]]
    assert spans == [(30, 250, 0.01), (30, 35, 0.05)]
    _, error = figures.FIGURES["lid"](study).axes
    (mark, *_) = (line for line in error.get_lines() if line.get_marker() == "|")
    assert set(mark.get_ydata()) == {-0.05}, "on the side of the error"


def test_a_fixed_ef_search_is_marked_where_it_ends():
    def marks(study):
        axes, _ = figures.overlap(study).axes
        return {one.get_xdata()[0] for one in axes.get_lines() if one.get_linestyle() == ":"}

    assert marks(make_study()) == {50}
    assert marks(make_study({"faiss_k": THREE["faiss_k"]})) == set()
    assert marks(make_study(EIGHT)) == {50, 64, 100, 200, 230}
    assert "k = efSearch 50, 64, 100, 200, 230" in legend(figures.overlap(make_study(EIGHT)))


def test_a_run_looks_the_same_in_every_figure_and_beside_more_runs():
    looks = {}
    study = make_study(published=True)
    for figure in figures.possible_figures(study)[0]:
        for axes in figures.FIGURES[figure](study).axes:
            for name, drawn in lines(axes).items():
                if drawn.get_marker() in MARKERS:
                    look = (drawn.get_color(), drawn.get_marker(), drawn.get_linewidth())
                    looks.setdefault(name, set()).add(look)
    assert len(looks) == 3
    assert all(len(look) == 1 for look in looks.values())
    few, many = run_styles(THREE), run_styles(EIGHT)
    for run in THREE:
        assert few[run].color == many[run].color
        assert few[run].marker == many[run].marker
    assert len({(style.color, str(style.dash)) for style in many.values()}) == len(EIGHT)
    assert len({style.label for style in many.values()}) == len(EIGHT)


def luminance(color):
    channels = np.array(to_rgb(color))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ (0.2126, 0.7152, 0.0722)


def test_up_to_twelve_runs_have_a_color_and_a_mark_of_their_own():
    styles = run_styles(TWELVE).values()
    assert len({style.color for style in styles}) == 12
    assert len({style.marker for style in styles}) == 12
    for color in COLORS:
        assert 1.05 / (luminance(color) + 0.05) >= 2.95, "too faint on white"
    thirty = {f"run {i}": parameters("faiss", i + 1) for i in range(30)}
    looks = {(style.color, style.marker) for style in run_styles(thirty).values()}
    assert len(looks) == 30


@pytest.mark.parametrize(
    ("ef", "label"),
    [
        (50, "FAISS efSearch 50"),
        ("k", "FAISS efSearch k"),
        ("k,50", "FAISS efSearch k, at least 50"),
        ("2k,30", "FAISS efSearch 2k, at least 30"),
    ],
)
def test_a_policy_of_ef_search_is_named_in_words(ef, label):
    (style,) = run_styles({"run": parameters("faiss", ef)}).values()
    assert style.label == label
    assert style.fixed_ef == (50 if ef == 50 else None)


@pytest.mark.parametrize(
    ("settings", "label"),
    [
        ({"factory": "PQ16x4fs", "settings": {}}, "PQ16x4fs"),
        ({"factory": "IVF9,Flat", "settings": {"nprobe": "8"}}, "IVF9,Flat nprobe 8"),
        (
            {
                "factory": "HNSW8,Flat",
                "settings": {"efSearch": "overlap=0.9"},
                "build_settings": {"efConstruction": 40},
            },
            "HNSW8,Flat efSearch for overlap 0.9, efConstruction 40",
        ),
        (
            {"backend": "pgvector", "ef_search": 40, "iterative_scan": "strict_order"},
            "pgvector efSearch 40, iterative scan strict_order",
        ),
    ],
)
def test_what_a_run_was_built_and_searched_with_is_in_its_name(settings, label):
    (style,) = run_styles({"run": {"backend": "faiss", "ef_search": None} | settings}).values()
    assert style.label == label


def test_the_loss_has_a_logarithmic_panel_on_which_small_losses_differ():
    kept = {0: 0.997, 1: 0.999, 2: 1.0}
    _, lost = figures.overlap(make_study(kept=lambda i, k: kept[i])).axes
    drawn = [line.get_ydata() for line in lines(lost).values()]
    np.testing.assert_allclose(drawn, np.repeat([[0.003], [0.001], [0.0]], len(KS), axis=1))
    low, high = lost.get_ylim()
    assert low < 0 < high
    heights = lost.transData.transform([(10, loss) for loss in (0.003, 0.001, 0.0)])[:, 1]
    panel = lost.get_window_extent()
    assert (-np.diff(heights) > 0.1 * panel.height).all()
    texts = [text.get_text() for text in lost.get_yticklabels()]
    assert {"0", "0.001", "0.01"} <= set(texts)


def test_axes_invent_no_drama_where_nothing_is_lost():
    nothing_lost, little_lost = (
        make_study(kept=lambda i, k: 1.0),
        make_study(kept=lambda i, k: 0.9995),
    )
    shares = ("overlap", "found", "distribution", "speed", "who_drifts")
    for name, study in itertools.product(shares, (nothing_lost, little_lost)):
        low, high = figures.FIGURES[name](study).axes[0].get_ylim()
        assert 0.9 < low <= 0.95
        assert 1 < high < 1.01
    _, kth_ratio, _, mean_ratio = figures.FIGURES["distances"](nothing_lost).axes
    for axes in (kth_ratio, mean_ratio):
        assert axes.get_ylim()[0] <= 0.95
        assert axes.get_ylim()[1] >= 1.05
    absolute, relative = figures.FIGURES["barycenter_shift"](nothing_lost).axes
    assert relative.get_ylim()[0] == absolute.get_ylim()[0] == 0
    assert relative.get_ylim()[1] >= 0.05
    assert absolute.get_ylim()[1] >= 0.05
    low, high = figures.FIGURES["lid"](nothing_lost).axes[1].get_ylim()
    assert low <= -0.05
    assert high >= 0.05


def test_lid_difference_is_a_share_of_the_exact_lid():
    study = make_study()
    value, difference = figures.FIGURES["lid"](study).axes
    means = (study.run_curve("faiss_50", name)["mean"] for name in ("lid_difference", "lid_exact"))
    expected = np.divide(*means)
    drawn = lines(difference)["FAISS efSearch 50"]
    np.testing.assert_allclose(drawn.get_ydata(), expected)
    (band, *_) = difference.collections
    at_k = band.get_paths()[0].vertices
    at_k = at_k[at_k[:, 0] == 250, 1]
    low = study.run_curve("faiss_50", "lid_difference")["ci_low"][250]
    assert at_k.min() == pytest.approx(low / study.exact_curve("lid_exact")["mean"][250])
    np.testing.assert_array_equal(
        lines(value)["exact"].get_ydata(), study.exact_curve("lid_exact")["mean"]
    )


def test_distances_have_the_exact_line_and_the_ratio_below():
    study = make_study()
    kth, kth_ratio, mean, mean_ratio = figures.FIGURES["distances"](study).axes
    for value, ratio, name in ((kth, kth_ratio, "kth"), (mean, mean_ratio, "mean")):
        ann = study.run_curve("faiss_50", f"{name}_distance_ann")["mean"]
        exact = study.exact_curve(f"{name}_distance_exact")["mean"]
        np.testing.assert_array_equal(lines(value)["exact"].get_ydata(), exact)
        np.testing.assert_array_equal(lines(value)["FAISS efSearch 50"].get_ydata(), ann)
        drawn = lines(ratio)["FAISS efSearch 50"].get_ydata()
        np.testing.assert_allclose(drawn, ann / exact)
        assert "exact" not in lines(ratio)


def test_hubness_and_orphans_have_their_exact_line():
    study = make_study()
    for axes, name in zip(
        figures.FIGURES["hubness"](study).axes, ("hubness", "orphans"), strict=True
    ):
        exact = study.exact_curve(f"{name}_exact")["mean"]
        np.testing.assert_array_equal(lines(axes)["exact"].get_ydata(), exact)
        assert len(lines(axes)) == 4


@pytest.mark.parametrize("runs", [THREE, EIGHT])
def test_the_distribution_has_a_panel_for_each_run(runs):
    study = make_study(runs)
    figure = figures.distribution(study)
    assert len({axes.get_ylim() for axes in figure.axes}) == 1, "panels can be compared"
    for axes, run in zip(figure.axes, runs, strict=True):
        expected = study.queries(run).groupby("k")["overlap"]
        (median,) = lines(axes).values()
        np.testing.assert_array_equal(median.get_ydata(), expected.median())
        light, dark = (one.get_paths()[0].vertices for one in axes.collections)
        for vertices, low, high in ((light, 0.05, 0.95), (dark, 0.25, 0.75)):
            at_k = vertices[vertices[:, 0] == 200, 1]
            ends = np.quantile(expected.get_group(200), [low, high])
            assert (at_k.min(), at_k.max()) == pytest.approx(tuple(ends))


def test_who_drifts_is_by_fifths_of_the_exact_lid():
    study = make_study()
    queries = study.per_query.query("run == 'faiss_50' and k == 250").sort_values("lid_exact")
    fifths = study.fifths("faiss_50", 250)
    assert list(fifths.index) == [1, 2, 3, 4, 5]
    for fifth in range(1, 6):
        part = queries.iloc[8 * (fifth - 1) : 8 * fifth]
        for metric in ("overlap", "distance_ratio"):
            assert fifths[metric][fifth] == pytest.approx(part[metric].mean())
    figure = figures.who_drifts(study)
    assert [axes.get_title(loc="left") for axes in figure.axes[::2]] == [
        *("k = 10", "k = 100", "k = 250"),
    ]
    kept, ratio = figure.axes[4:]
    drawn = lines(kept)["FAISS efSearch 50"], lines(ratio)["FAISS efSearch 50"]
    np.testing.assert_array_equal(drawn[0].get_ydata(), fifths["overlap"])
    np.testing.assert_array_equal(drawn[1].get_ydata(), fifths["distance_ratio"])


def test_fifths_leave_out_queries_without_an_lid():
    study = make_study(ks=[10])
    study.per_query.loc[study.per_query["query"] >= 10, "lid_exact"] = np.nan
    expected = study.per_query.query("run == 'faiss_50' and query in (8, 9)")["overlap"].mean()
    assert study.fifths("faiss_50", 10)["overlap"][5] == pytest.approx(expected)


def test_cost_compares_runs_at_one_k_at_a_time():
    study = make_study()
    figure = figures.speed(study)
    assert len(figure.axes) == 6
    for k, row in zip((10, 100, 250), np.reshape(figure.axes, (3, 2)), strict=True):
        assert list(lines(row[0])) == ["FAISS efSearch 50", "FAISS efSearch k"]
        assert len(lines(row[1])) == 3
        for axes, fact in zip(row, COSTS.values(), strict=True):
            assert axes.get_xscale() == "log"
            for run, style in study.styles.items():
                if style.label in lines(axes):
                    drawn = lines(axes)[style.label]
                    assert list(drawn.get_xdata()) == [study.cost(run, fact)[k]]
                    assert list(drawn.get_ydata()) == [study.run_curve(run, "overlap")["mean"][k]]
    assert "distances computed" in figure.axes[4].get_xlabel()
    assert "queries/s" in figure.axes[5].get_xlabel()


def test_published_curves_are_beside_ours_and_end_where_they_were_infinite():
    figure = figures.published(make_study(published=True))
    theirs = notebook.curve()
    for axes, name in zip(
        figure.axes,
        ("overlap", "kth_squared_distance_ann", "lid_notebook_ann", "barycenter_shift"),
        strict=True,
    ):
        drawn = lines(axes)["published"].get_ydata()
        finite = np.isfinite(theirs[name])
        np.testing.assert_array_equal(drawn[finite], theirs[name][finite])
        assert np.isnan(drawn[~finite]).all()
    assert set(lines(figure.axes[1])) >= {"published, exact", "exact"}


def test_what_there_are_no_numbers_for_is_left_out_with_a_reason():
    chosen, left_out = figures.possible_figures(make_study(timed=False, graph=False))
    assert {"hubness", "speed", "published"}.isdisjoint(chosen)
    assert "not every row is a query" in left_out["hubness"]
    assert "without search times" in left_out["speed"]
    chosen, left_out = figures.possible_figures(make_study(published=True))
    assert {"hubness", "speed", "published", "who_drifts"} <= set(chosen)
    assert left_out == {}
    without = make_study()
    without.curves.loc[without.curves["metric"] == "lid_exact", "mean"] = np.nan
    assert figures.possible_figures(without)[1] == {"who_drifts": "no query has an LID"}


def test_a_panel_without_values_says_so():
    study = make_study(ks=[1])
    study.curves.loc[study.curves["metric"].str.startswith("lid"), "mean"] = np.nan
    figure = figures.FIGURES["lid"](study)
    for axes in figure.axes:
        assert "no values" in [text.get_text() for text in axes.texts]
    assert "FAISS efSearch 50: no value" in figures.alt_text(figure)


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_the_same_figure_is_the_same_file(suffix, tmp_path):
    study = make_study()
    paths = [tmp_path / f"{name}.{suffix}" for name in ("one", "two")]
    one, two = (panels.save(figures.overlap(study), [path], dpi=100) for path in paths)
    assert one == two == paths[0].read_bytes()
    assert one.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix])


@pytest.mark.parametrize(
    ("n", "shape"),
    [(1, (1, 1)), (5, (1, 5)), (8, (1, 8)), (13, (1, 8)), (39, (4, 8)), (40, (5, 8)), (99, (5, 8))],
)
def test_an_image_grid_shows_images_once_and_has_no_empty_place(n, shape):
    images = np.repeat(np.arange(n, dtype=np.uint8), 12 * 12 * 3).reshape(n, 12, 12, 3)
    figure = figures.image_grid(images)
    (axes,) = figure.axes
    np.testing.assert_allclose(axes.get_position().extents, [0, 0, 1, 1])
    pixels = axes.images[0].get_array()
    assert pixels.shape == (13 * shape[0] - 1, 13 * shape[1] - 1, 3)
    shown = pixels[::13, ::13, 0].ravel()
    assert len(set(shown)) == shape[0] * shape[1]
    assert (shown[0], shown[-1]) == (0, n - 1) or n == 1
    assert (pixels == 255).sum() == pixels.size - 12 * 12 * 3 * len(shown), "white between them"


def test_the_gallery_is_of_the_queries_that_kept_least():
    overlap = np.array([1.0, 0.2, 0.9, 0.2, 0.0, 1.0, 0.2])
    shift = np.array([0.0, 0.5, 9.0, 0.7, np.nan, 0.0, np.nan])
    rows, strangers = np.arange(7), np.full((7, 2), 99)
    assert gallery.most_drifted(overlap, shift, rows, strangers, 3) == [4, 6, 3]
    assert gallery.most_drifted(overlap, shift, rows, strangers, 100) == [4, 6, 3, 1, 2]
    assert gallery.most_drifted(np.ones(7), np.zeros(7), rows, strangers, 3) == []


def test_the_gallery_shows_no_query_beside_its_own_neighbor():
    overlap, shift = np.array([0.1, 0.2, 0.3, 0.4, 0.5]), np.zeros(5)
    rows = np.array([10, 20, 30, 40, 50])
    exact = np.array([[20, 1], [2, 3], [4, 10], [5, 20], [6, 7]])
    # 20 is a neighbor of 10, 30 has 10 as a neighbor, 40 has 20, which is not shown.
    assert gallery.most_drifted(overlap, shift, rows, exact, 5) == [0, 3, 4]
    assert gallery.most_drifted(overlap, shift, rows, exact, 2) == [0, 3]


def test_a_gallery_row_shows_what_was_lost_and_what_came_instead():
    exact, ann = np.arange(20), np.concatenate([np.arange(10), [30, 31, 32], [-1] * 7])
    distances = np.linspace(1, 3, 20)
    ann_distances = np.concatenate([np.linspace(1, 4, 13), [np.inf] * 7])
    query = gallery.drifted_query(77, exact, distances, ann, ann_distances, shown=6)
    assert (query.row, query.lost, query.missing) == (77, 10, 7)
    assert [(one.row, one.rank, one.lost) for one in query.exact.itertuples()] == [
        *((0, 1, False), (1, 2, False)),
        *((10, 11, True), (11, 12, True), (12, 13, True), (13, 14, True)),
    ]
    assert list(query.instead["row"]) == [30, 31, 32]
    assert list(query.instead["rank"]) == [11, 12, 13]
    assert query.exact["distance"].iloc[2] == distances[10]
    assert query.instead["distance"].iloc[0] == ann_distances[10]

    lost_one = gallery.drifted_query(0, exact, distances, np.append(exact[:-1], 50), distances, 6)
    assert list(lost_one.exact["rank"]) == [1, 2, 3, 4, 5, 20]
    nothing = gallery.drifted_query(0, exact, distances, np.full(20, -1), ann_distances, 6)
    assert nothing.lost == nothing.missing == 20
    assert len(nothing.exact) == 6
    assert len(nothing.instead) == 0


def test_the_gallery_is_by_default_where_drift_shows():
    study = make_study(kept=falling)
    run, k = gallery.choose(study, None, None)
    assert run == "faiss_50"
    assert k == 90  # 1 - 0.4 (k / 250)^2 is below 0.95 from 88.4 on
    assert gallery.choose(study, "hnswlib_50", None) == ("hnswlib_50", 160)
    assert gallery.choose(study, "faiss_k", 30) == ("faiss_k", 30)
    assert gallery.choose(make_study(kept=lambda i, k: 1 - k / 1e5), None, None)[1] == 250
    with pytest.raises(InputError, match="--gallery-run x was not measured, but faiss_50, "):
        gallery.choose(study, "x", None)
    with pytest.raises(InputError, match="--gallery-k 15 was not measured for faiss_50, but 10, "):
        gallery.choose(study, None, 15)
    family = make_family()
    assert gallery.choose(family, "faiss_50_seed2", None)[0] == "faiss_50_seed2"
    assert family.label_of("faiss_50_seed2") == "faiss_50_seed2"
    assert family.label_of("faiss_50") == "faiss_50", "the lists are those of one graph"
