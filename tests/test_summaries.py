"""Curves, safe k, graphs and differences of runs against what they are defined to be."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from drift import metrics
from drift.curves import RATIOS, TOGETHER, curve_names, estimate_curve, spread
from drift.intervals import adjust_by_holm, estimate_mean, estimate_ratio
from drift.summaries import COMPARED, RunValues, summarize_runs

NAN = np.nan
GRID = [10, 20, 30, 40, 50, 60]
CROSSING = ["crossing_k", "crossing_low", "crossing_high"]


def run_of(overlap, lid_error=0.0, n_queries=40, **others):
    """Values of a run in which all queries agree, from one number for each k."""
    lid = np.broadcast_to(np.add(20, np.multiply(20, lid_error)), len(overlap))
    named = {"overlap": overlap, "lid_exact": [20.0] * len(overlap), "lid_ann": lid, **others}
    return {name: np.tile(np.array(one)[:, None], (1, n_queries)) for name, one in named.items()}


def noisy(n_queries=120, n_ks=2, seed=0, loss=0.1):
    """Values of all metrics that curves are made of, with gaps on either side."""
    rng = np.random.default_rng(seed)
    shape = (n_ks, n_queries)
    overlap = 1 - rng.choice([0, 1], shape) * rng.uniform(0, 2 * loss, shape)
    values = {"overlap": overlap, "recall": overlap, "found": np.ones(shape)}
    for name in ("lid", "kth_distance", "mean_distance"):
        values[f"{name}_exact"] = rng.lognormal(2, 0.3, shape)
        values[f"{name}_ann"] = values[f"{name}_exact"] * overlap
    values["lid_exact_cut"] = values["lid_exact"] * rng.uniform(0.9, 1, shape)
    values["lid_exact"][:, 3] = values["lid_exact_cut"][:, 3] = values["lid_ann"][:, 5] = NAN
    values["lid_difference"] = values["lid_ann"] - values["lid_exact"]
    for side in ("exact", "ann"):
        values[f"lid_inverse_{side}"] = 1 / values[f"lid_{side}"]
    values["barycenter_shift"] = 1 - overlap
    return values


def tables(runs, ks=GRID, groups=None, **of_interest):
    """Tables of runs by name, or by family and seed, all on one grid."""
    named = {name if isinstance(name, tuple) else (name, 0): one for name, one in runs.items()}
    values = {
        f"{family}_{seed}": RunValues(family, seed, ks, one)
        for (family, seed), one in named.items()
    }
    found = summarize_runs(values, groups, **of_interest)
    return [pd.DataFrame(table) for table in found]


def limits(run, ks, groups=None):
    _, safe_k, *_ = tables({"run": run}, ks, groups)
    return safe_k.set_index(["criterion", "tolerance"])


# Curves


def test_spread_is_that_of_numpy():
    values = np.random.default_rng(0).exponential(size=(3, 61))
    values[1, ::3] = values[2] = NAN
    ours = np.array(spread(values))
    for at, row in enumerate(values[:2]):
        row = row[~np.isnan(row)]
        expected = [row.std(), *np.quantile(row, [0.5, 0.05, 0.95])]
        assert ours[:, at] == pytest.approx(expected, rel=1e-12)
    assert np.isnan(ours[:, 2]).all()
    assert np.isnan(spread(np.array([[1.0, np.inf, 2.0]]))[0])


@pytest.mark.parametrize("groups", [None, np.arange(120) % 7])
def test_curves_of_a_run(groups):
    values = noisy()
    curves, *_ = tables({"run": values}, [10, 20], groups)
    numbers = ["mean", "std", "median", "q05", "q95", "ci_low", "ci_high"]
    assert list(curves) == ["run", "k", "metric", *numbers, "n", "groups_that_differ"]
    assert set(curves[numbers].dtypes) == {np.dtype("float64")}
    assert set(curves[["k", "n", "groups_that_differ"]].dtypes) == {np.dtype("int32")}
    assert list(curves["metric"].unique()) == curve_names(values)
    assert not curves["metric"].str.startswith("lid_inverse").any()
    for name, curve in curves.groupby("metric"):
        assert list(curve["k"]) == [10, 20]
        estimate = estimate_curve(values, name, groups)
        columns = curve[["mean", "ci_low", "ci_high", "n", "groups_that_differ"]]
        np.testing.assert_allclose(columns.to_numpy().T, estimate)
        if name in TOGETHER:
            assert curve[["std", "median", "q05", "q95"]].isna().all(axis=None)
        else:
            np.testing.assert_allclose(columns["mean"], np.nanmean(values[name], axis=1))
            np.testing.assert_allclose(curve["q95"], np.nanquantile(values[name], 0.95, axis=1))


def test_ratios_are_of_the_queries_that_have_both_sides():
    values, groups = noisy(), np.arange(120) % 7
    both = np.delete(np.arange(120), [3, 5])
    for name, sides in {
        "lid_error": ("lid_ann", "lid_exact"),
        "kth_distance_error": ("kth_distance_ann", "kth_distance_exact"),
        "mean_distance_error": ("mean_distance_ann", "mean_distance_exact"),
        "lid_cut_error": ("lid_exact_cut", "lid_exact"),
    }.items():
        x, y = (values[side] for side in sides)
        of = ~np.isnan(x + y)[0]
        estimate = estimate_curve(values, name, groups)
        np.testing.assert_allclose(estimate, estimate_ratio(x, y, groups))
        np.testing.assert_allclose(estimate.value, x[:, of].mean(1) / y[:, of].mean(1) - 1)
        assert (estimate.n == of.sum()).all()
    assert (estimate_curve(values, "lid_error").n == len(both)).all()
    medians = (np.median(values[f"lid_{side}"][:, both], axis=1) for side in ("ann", "exact"))
    error = estimate_curve(values, "lid_median_error")
    np.testing.assert_allclose(error.value, np.divide(*medians) - 1)
    assert np.isnan(error[1:3]).all() and (error.n == len(both)).all()


def test_pooled_lids_are_of_queries_with_an_lid_on_both_sides():
    values, groups = noisy(), np.arange(120) % 7
    both = np.delete(np.arange(120), [3, 5])
    pooled = {}
    for side in ("exact", "ann"):
        inverse = values[f"lid_inverse_{side}"][:, both]
        mean = inverse.mean(axis=1)
        pooled[side] = estimate = estimate_curve(values, f"lid_pooled_{side}", groups)
        np.testing.assert_allclose(estimate.value, 1 / mean)
        # By linearizing 1 / mean, its error is that of the mean over the mean's square.
        low, high = estimate_mean(inverse, groups[both])[1:3]
        np.testing.assert_allclose(estimate.ci_high - estimate.ci_low, (high - low) / mean**2)
        assert (estimate.groups_that_differ == -1).all()
    error = estimate_curve(values, "lid_pooled_error", groups)
    np.testing.assert_allclose(error.value, pooled["ann"].value / pooled["exact"].value - 1)


def test_curves_are_made_of_what_there_is():
    values = noisy()
    without = {name: one for name, one in values.items() if not name.startswith("lid_inverse")}
    assert {*curve_names(values)} - {*curve_names(without)} == {
        "lid_pooled_exact", "lid_pooled_ann", "lid_pooled_error"
    }  # fmt: skip
    reported = {"lid_reported": 1, "kth_distance_reported": 1}
    assert {*curve_names({**values, **reported})} - {*curve_names(values)} == {
        *reported, "lid_reported_error", "kth_distance_reported_error"
    }  # fmt: skip
    assert curve_names({"overlap": 1, "found": 1}) == ["overlap", "found"]


def test_departures_from_no_loss():
    values = noisy() | {"recall": np.ones((2, 120)), "barycenter_shift_paper": np.zeros((2, 120))}
    # A difference that is rounding, and one that is not.
    for name in ("lid_ann", "lid_inverse_ann"):
        values[name] = values[name.replace("ann", "exact")] * (1 + 1e-13)
        values[name][:, 7] *= 1.01
    values["lid_difference"] = values["lid_ann"] - values["lid_exact"]
    expected = dict.fromkeys(curve_names(values), -1)
    lost = np.count_nonzero(values["overlap"][0] < 1)
    expected |= dict.fromkeys(("overlap", "barycenter_shift"), lost)
    expected |= dict.fromkeys(("kth_distance_error", "mean_distance_error"), lost)
    expected |= dict.fromkeys(("found", "recall", "barycenter_shift_paper"), 0)
    expected |= dict.fromkeys([n for n in RATIOS if n.startswith("lid") and n in expected], 1)
    expected |= {"lid_difference": 1, "lid_median_error": 1, "lid_cut_error": 119}
    for name, n in expected.items():
        assert estimate_curve(values, name).groups_that_differ[0] == n, name


def test_means_are_cut_to_the_range_of_their_metric():
    groups = np.arange(40) // 20
    apart = np.where(groups, 0.9, 0.2)
    for name, ends in {
        **dict.fromkeys(("overlap", "recall", "found", "distance_ratio"), (0, 1)),
        **dict.fromkeys(("kth_distance_ann", "lid_exact", "barycenter_shift"), (0, 5.0)),
        **dict.fromkeys(("lid_difference",), (-3.9, 5.0)),
    }.items():
        values = {name: apart, "lid_exact": apart, "lid_ann": apart}
        estimate = estimate_curve(values, name, groups)
        assert estimate[1:3] == pytest.approx(ends, abs=0.01)
    values = {"lid_ann": np.where(groups, 0.0, 0.9), "lid_exact": np.ones(40)}
    assert estimate_curve(values, "lid_error", groups).ci_low == -1


def test_a_query_beside_near_copies_makes_the_mean_lid_and_not_the_pooled_one():
    """One of 1,000 queries has near copies of one row as its neighbors, and an LID of thousands."""
    rng = np.random.default_rng(3)
    distances = np.sort(rng.uniform(size=(1000, 20)) ** (1 / 8), axis=1)
    distances[0] = np.sort(1 + 4e-5 * rng.uniform(size=20))
    # The index misses them, and finds others in the order of magnitude.
    found = np.concatenate([distances[1:2], distances[1:] ** 0.95])
    values = {}
    for side, lists in (("exact", distances), ("ann", found)):
        values[f"lid_{side}"] = metrics.lid(lists)[None]
        values[f"lid_inverse_{side}"] = -np.log(lists / lists[:, -1:]).sum(axis=1)[None] / 19
    assert values["lid_exact"][0, 0] > 20_000
    exact = estimate_mean(values["lid_exact"])
    assert exact.value > 25 and 7.5 < np.median(values["lid_exact"]) < 8.5
    mean, pooled, median = (
        estimate_curve(values, f"lid{name}_error") for name in ("", "_pooled", "_median")
    )
    assert mean.value < -0.6 and mean.ci_high < 0.2
    assert pooled.value == pytest.approx(median.value, abs=0.02)
    assert 0.03 < pooled.ci_low < 1 / 0.95 - 1 < pooled.ci_high < 0.07
    assert 7.9 < estimate_curve(values, "lid_pooled_exact").value < 8.1


# Safe k and crossings


def test_safe_k_by_overlap():
    table = limits(run_of([1.0, 0.99, 0.96, 0.94, 0.97, 0.89]), GRID)
    assert list(table["safe_k"]) == [20, 30, 50, 60, 60, 60]
    assert table["safe_k"].dtype == np.int32
    assert list(table.index.names) + list(table) == [
        "criterion", "tolerance", "run", "safe_k", *CROSSING
    ]  # fmt: skip
    assert table.index.tolist() == [
        *(("overlap", tolerance) for tolerance in (0.99, 0.95, 0.9)),
        *(("lid", tolerance) for tolerance in (0.01, 0.05, 0.1)),
    ]
    assert table.loc[("overlap", 0.95), CROSSING].tolist() == pytest.approx([35, 30, 40])
    assert table.loc["lid", CROSSING].isna().all(axis=None)


def test_safe_k_by_lid_looks_both_ways():
    for sign in (-1, 1):
        table = limits(run_of([0.5] * 4, sign * np.array([0.0075, -0.015, 0.075, -0.15])), GRID[:4])
        assert list(table["safe_k"]) == [0, 0, 0, 10, 20, 30]
        crossings = [(10 + 10 / 3, 10, 20), (20 + 10 * 35 / 60, 20, 30), (30 + 10 / 3, 30, 40)]
        np.testing.assert_allclose(table.loc["lid", CROSSING], crossings)
    assert limits(run_of([1.0] * 2, [-0.015, 0.0]), GRID[:2])["safe_k"]["lid", 0.01] == 0
    # From -0.9 % to 0.9 %: never beyond 1 %.
    table = limits(run_of([1.0] * 2, [-0.009, 0.009]), GRID[:2])
    assert table.loc["lid", CROSSING].isna().all(axis=None)


def test_safe_k_asks_for_the_interval_that_the_curves_have():
    """Two groups at .991 and .999: an interval from .944 on is not safely .99, nor .95."""
    groups = np.arange(40) // 20
    run = run_of([1.0, 1.0])
    run["overlap"][1] = np.where(groups, 0.991, 0.999)
    run["lid_ann"][1] = np.where(groups, 20 * 1.005, 20 * 1.0035)
    curves, safe_k, *_ = tables({"run": run}, [10, 20], groups)
    low = curves.query("metric == 'overlap'")["ci_low"].iloc[1]
    assert f"{low:.3f}" == "0.944"
    # The LID is off by 0.425 % with a standard error of 0.075 %: -0.5 to 1.4 %.
    assert list(safe_k["safe_k"]) == [10, 10, 20, 10, 20, 20]
    assert safe_k["crossing_k"].isna().all()
    # From where the lower end passes 99 %, 95 %, and the LID's interval 1 %.
    starts = [10 + 10 * 0.01 / (1 - low), 10 + 10 * 0.05 / (1 - low), NAN]
    starts += [10 + 10 * 0.01 / (0.00425 + 12.706 * 0.00075), NAN, NAN]
    np.testing.assert_allclose(safe_k["crossing_low"], starts, rtol=1e-3)
    assert safe_k["crossing_high"].isna().all()
    assert set(limits(run, [10, 20], groups * 0)["safe_k"]) == {0}, "one group"


def test_an_lid_that_may_be_right_may_never_cross():
    run = run_of([1.0, 1.0])
    run["lid_ann"][1] = np.where(np.arange(40) % 2, 20 * 1.025, 20 * 0.985)
    low, high = (
        tables({"run": run}, [10, 20], np.arange(40) % 2)[0]
        .query("metric == 'lid_error' and k == 20")[["ci_low", "ci_high"]]
        .iloc[0]
    )
    assert low < -0.1 and high > 0.1
    assert limits(run, [10, 20], np.arange(40) % 2)["crossing_high"].isna().all()


@pytest.mark.parametrize(("missing", "expected"), [(10, 20), (11, 10), (990, 10)])
def test_lid_of_few_queries_is_not_safe(missing, expected):
    run = run_of([1.0, 1.0], n_queries=1000)
    run["lid_ann"][1, :missing] = NAN
    assert limits(run, [10, 20])["safe_k"]["lid", 0.10] == expected


def test_recall_speaks_where_rows_tie():
    table = limits(run_of([0.433] * 2, recall=[1.0, 0.97]), [10, 20])
    assert list(table["safe_k"]) == [0, 0, 0, 10, 20, 20, 20, 20, 20]
    assert table.loc[("recall", 0.99), "crossing_k"] == pytest.approx(10 + 10 / 3)
    assert table.loc[("overlap", 0.9), CROSSING].tolist() == [10, 10, 10]
    # One neighbor of thousands that ties by chance is no story.
    assert "recall" not in limits(run_of([0.98] * 2, recall=[0.98, 0.9802]), [10, 20]).index


# Graphs


def test_graphs_of_a_family_have_their_means_and_others_none():
    families = {(name, seed): noisy(seed=seed) for name in ("a", "b") for seed in (2, 0, 1)}
    _, _, table, _ = tables({**families, "alone": noisy()}, [10, 20], np.arange(120) % 7)
    assert list(table) == [
        "family", "k", "metric", "graphs", "mean", "sd_between_graphs", "ci_low", "ci_high"
    ]  # fmt: skip
    assert set(table[["k", "graphs"]].dtypes) == {np.dtype("int32")}
    names = [name for name in curve_names(noisy()) if name != "lid_median_error"]
    assert list(table["family"]) == ["a"] * 2 * len(names) + ["b"] * 2 * len(names)
    assert list(table["metric"][::2]) == names * 2 and set(table["graphs"]) == {3}
    for name in names:
        row = table.query("family == 'a' and metric == @name and k == 20").iloc[0]
        means = [estimate_curve(noisy(seed=seed), name).value[1] for seed in range(3)]
        numbers = row[["mean", "sd_between_graphs"]].tolist()
        assert numbers == pytest.approx([np.mean(means), np.std(means, ddof=1)])
    _, _, nothing, _ = tables({"alone": noisy()}, [10, 20])
    assert len(nothing) == 0 and list(nothing) == list(table)


def test_graphs_of_other_grids_are_none_of_the_family_and_intervals_end_with_the_range():
    runs = {
        seed: RunValues("family", seed, ks, run_of([overlap] * len(ks), overlap - 1.5))
        for seed, ks, overlap in ((0, [10], 0.9), (1, [10], 1.0), (2, [10, 20], 0.2))
    }
    table = pd.DataFrame(summarize_runs(runs).graphs).set_index("metric")
    assert list(table.index) == ["overlap", "lid_exact", "lid_ann", "lid_error"]
    assert set(table["graphs"]) == {2}
    # sd^2 / 2 = 0.0025 alone, with one degree of freedom: 0.95 and -0.55, both 12.7 * 0.05 wide.
    ends = table.loc[["overlap", "lid_error"], ["mean", "ci_low", "ci_high"]]
    np.testing.assert_allclose(ends, [[0.95, 0.3147, 1], [-0.55, -1, 0.0853]], rtol=1e-3)


# Differences

COLUMNS = ["first", "second", "metric", "k", "graphs", "difference", "ci_low", "ci_high", "p"]
COLUMNS += ["p_adjusted", "different"]


def shifted(by, spread=0.02, seed=0, ks=(10,)):
    """A run that keeps less by so much on average, and by much more or less of single queries."""
    rng = np.random.default_rng(seed)
    queries = np.random.default_rng(9).uniform(0.5, 0.9, (len(ks), 200))
    noise = rng.normal(0, spread, queries.shape)
    kept = queries - np.reshape(by, (-1, 1)) - noise + noise.mean(axis=1, keepdims=True)
    ones = np.ones(queries.shape)
    lid = {"lid_exact": ones, "lid_ann": ones, "lid_difference": 0 * ones}
    return {"overlap": kept, "recall": ones, **lid}


def differences(runs, ks=(10,), groups=None, **of_interest):
    return tables(runs, list(ks), groups, **of_interest)[3]


def test_compared_runs_are_paired():
    first, second = shifted(0), shifted(0.005, seed=1)
    table = differences({"a": first, "b": second})
    assert list(table) == COLUMNS
    assert set(table[["k", "graphs"]].dtypes) == {np.dtype("int32")}
    assert table["different"].dtype == bool
    row = table.iloc[0]
    gaps = (first["overlap"] - second["overlap"])[0]
    test = scipy.stats.ttest_1samp(gaps, 0)
    expected = [0.005, *test.confidence_interval(), test.pvalue, test.pvalue]
    assert row[COLUMNS[5:10]].tolist() == pytest.approx(expected)
    assert row["different"] and row["graphs"] == 1
    # With recall and LID all is the same: no difference, for sure.
    assert (table[["difference", "ci_low", "ci_high"]][1:] == 0).all(axis=None)
    assert (table["p"][1:] == 1).all() and not table["different"][1:].any()


def test_runs_are_compared_by_group():
    first, groups = shifted(0), np.arange(200) // 20
    # One photograph of ten is all of the difference.
    second = {**first, "overlap": first["overlap"] - 0.1 * (groups == 3)}
    assert differences({"a": first, "b": second})["different"][0]
    assert not differences({"a": first, "b": second}, groups=groups)["different"][0]
    one = differences({"a": first, "b": second}, groups=0 * groups)
    assert one[["ci_low", "p", "p_adjusted"]].isna().all(axis=None) and not one["different"].any()


def test_p_values_are_adjusted_among_the_rows_of_the_run_of_interest():
    by = {"a": 0.0, "b": 0.003, "c": 0.002, "d": 0.0042}
    runs = {name: shifted(loss, seed=seed) for seed, (name, loss) in enumerate(by.items())}

    def of_overlap(**of_interest):
        table = differences(runs, **of_interest).query("metric == 'overlap'")
        return table.assign(pair=table["first"] + table["second"]).set_index("pair")

    # Without one it is the one that loses most.
    for wanted, table in (
        ("d", of_overlap()),
        ("c", of_overlap(run_of_interest="c")),
        ("a", of_overlap(run_of_interest="a_0")),
    ):
        takes_part = table.index.str.contains(wanted)
        p = table["p"][takes_part].to_numpy()
        np.testing.assert_allclose(table["p_adjusted"][takes_part], adjust_by_holm(p))
        assert (table["different"] == (table["p_adjusted"] < 0.05)).all()
        assert takes_part.sum() == 3 and table["p_adjusted"][~takes_part].isna().all()
        assert not table["different"][~takes_part].any() and table["p"].notna().all()


def test_the_run_that_loses_most_is_so_at_the_k_of_interest():
    ks = (10, 20)
    by = {"a": [0.2, 0.0], "b": [0.1, 0.1], "c": [0, 0]}
    runs = {name: shifted(loss, ks=ks) for name, loss in by.items()}
    for k in (10, 20, None, 30):
        pairs = {"ab", "ac" if k == 10 else "bc"}
        table = differences(runs, ks, k_of_interest=k).dropna(subset="p_adjusted")
        assert set(table["first"] + table["second"]) == pairs


def test_families_are_compared_over_their_common_seeds_and_k():
    def run(family, seed, ks, by=0.0):
        values = {
            name: np.full((len(ks), 9), 1 + by) for name in (*COMPARED, "lid_exact", "lid_ann")
        }
        return RunValues(family, seed, ks, values)

    ks, others = [5, 10, 15, 20, 50], [10, 15, 20, 60]
    runs = [run("a", 0, ks), run("a", 1, ks, 0.25), run("b", 1, others, 0.5), run("b", 7, others)]
    runs += [run("c", 2, ks), run("d", 0, [70])]
    found = summarize_runs(dict(enumerate(runs)), k_of_interest=15)
    table = pd.DataFrame(found.differences)
    # c has no seed and d no k in common with others; 5 and 50 are no k of b, 15 is asked for.
    assert set(zip(table["first"], table["second"], strict=True)) == {("a", "b")}
    assert list(table["k"]) == [10, 15, 20] * 3
    assert set(table["graphs"]) == {1} and set(table["difference"]) == {-0.25}


def test_families_differ_when_graphs_and_queries_say_so():
    base = {("b", seed): shifted(0, spread=0) for seed in range(3)}
    for effects, spread_of_queries, different in (
        ((0.010, 0.011, 0.012), 0.02, True),
        ((0.01, 0.05, -0.02), 0.02, False),  # graphs differ by more than the families do
        ((0.010, 0.011, 0.012), 1.0, False),  # queries do
    ):
        ours = {("a", s): shifted(by, spread_of_queries) for s, by in enumerate(effects)}
        row = differences({**ours, **base}).iloc[0]
        assert (row["graphs"], row["different"]) == (3, different)
        assert row["difference"] == pytest.approx(-np.mean(effects))
