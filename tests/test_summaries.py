"""Intervals, crossings, safe k and differences of runs against what they are defined to be."""

import math
import warnings

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from drift import intervals, summaries
from drift.intervals import (
    bootstrap_means,
    crossing_interval,
    first_crossings,
    largest_safe_k,
    mean_intervals,
    percentile_interval,
    standard_errors,
    sum_by_group,
    t_quantile,
)
from drift.summaries import compare_families, summarize, summarize_graphs, summarize_run

GRID = np.arange(10, 260, 10)
CROSSING = ["crossing_k", "crossing_low", "crossing_high"]


def series_with_gaps(n_series=4, n_queries=60, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.exponential(size=(n_series, n_queries)) + 5
    values[1, rng.integers(n_queries, size=20)] = np.nan
    return values


def resample(values, seed, n_resamples=1000, groups=None):
    return bootstrap_means(sum_by_group(values, groups), seed, n_resamples)


def find_intervals(values, groups=None, seed=0, n_resamples=1000):
    sums = sum_by_group(values, groups)
    return mean_intervals(sums, bootstrap_means(sums, seed, n_resamples))


def resampled_directly(values, seed, n_resamples, members):
    """Means over whole groups drawn at random, one after the other; `members` are their queries."""
    draws = np.random.default_rng(seed).integers(len(members), size=(n_resamples, len(members)))
    chosen = [np.concatenate([members[group] for group in draw]) for draw in draws]
    return np.array([[np.nanmean(series[queries]) for queries in chosen] for series in values])


def run_of(overlap, lid_exact, lid_difference, **others):
    """Values of a run in which all of 40 queries agree, from one number for each k."""
    named = {"overlap": overlap, "lid_exact": lid_exact, "lid_difference": lid_difference, **others}
    return {name: np.tile(np.array(values)[:, None], (1, 40)) for name, values in named.items()}


def losing(ks, loss, n_queries=300, seed=0):
    """A run whose queries lose what one curve says, each by a factor of its own about 1."""
    factors = np.random.default_rng(seed).gamma(20, 1 / 20, size=n_queries)
    overlap = 1 - np.asarray(loss)[:, None] * factors / factors.mean()
    lid = np.full((len(ks), n_queries), 20.0)
    return {"overlap": overlap, "lid_exact": lid, "lid_difference": -lid * (1 - overlap)}


def safe_ks(run, ks, **settings):
    _, table = summarize_run(ks, run, 0, **{"n_resamples": 100, **settings})
    return {(row.criterion, row.tolerance): row.safe_k for row in table.itertuples()}


def crossings(run, ks, **settings):
    _, table = summarize_run(ks, run, 0, **{"n_resamples": 200, **settings})
    return table.set_index(["criterion", "tolerance"])[CROSSING]


def normal_groups(n_series, n_groups, size, seed):
    """Series with mean 0 whose queries differ by their group as much as within it, and groups."""
    rng = np.random.default_rng(seed)
    effects = rng.normal(size=(n_series, n_groups, 1))
    values = effects + rng.normal(size=(n_series, n_groups, size))
    return values.reshape(n_series, -1), np.repeat(np.arange(n_groups), size)


def compare_pair(ks, first, second, seed, groups=None):
    return compare_families(ks, {0: first}, {0: second}, seed, groups)


def binomial_bounds(trials, lowest=0.95, highest=0.95):
    """Shares that a true coverage within those leaves with a probability below 1e-3."""
    return (
        scipy.stats.binom.ppf(5e-4, trials, lowest) / trials,
        scipy.stats.binom.isf(5e-4, trials, highest) / trials,
    )


# The bootstrap


def test_bootstrap_is_direct_resampling_of_whole_groups_with_the_same_draws():
    values = series_with_gaps()
    expected = resampled_directly(values, 3, 50, np.arange(60)[:, None])
    np.testing.assert_allclose(resample(values, 3, 50), expected, rtol=1e-12)
    # Groups of several sizes, in any order of the queries; -1 is a group of its own.
    groups = np.random.default_rng(1).choice([-1, 7, 3, 1000, 12], size=60)
    members = [np.flatnonzero(groups == label) for label in (3, 7, 12, 1000)]
    members += list(np.flatnonzero(groups == -1)[:, None])
    expected = resampled_directly(values, 3, 50, members)
    np.testing.assert_allclose(resample(values, 3, 50, groups), expected, rtol=1e-12)


@pytest.mark.parametrize("groups", [np.full(60, -1), np.arange(60), np.arange(60) * 5])
def test_groups_of_one_are_no_groups(groups):
    values = series_with_gaps()
    np.testing.assert_array_equal(resample(values, 0, 20, groups), resample(values, 0, 20))
    np.testing.assert_array_equal(find_intervals(values, groups), find_intervals(values))


def test_bootstrap_in_pieces_is_the_bootstrap_in_one(monkeypatch):
    values = series_with_gaps()
    whole = resample(values, 1, 100)
    monkeypatch.setattr(intervals, "_WEIGHTS_AT_ONCE", 7 * 60)
    np.testing.assert_allclose(resample(values, 1, 100), whole, rtol=1e-12)


def test_bootstrap_interval_is_that_of_scipy():
    values = np.random.default_rng(0).exponential(size=300)
    ours = percentile_interval(resample(values[None], 0, 4000)[0])
    other = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    # A 2.5 % quantile of 4,000 means has a standard error of 0.042 of theirs; the difference of
    # two, 0.06; four of those.
    np.testing.assert_allclose(ours, other, atol=0.24 * values.std() / math.sqrt(300))


def test_missing_values_are_left_out_of_the_mean():
    values = np.array([[1.0, np.nan, 1.0, np.nan], [np.nan] * 4])
    means = resample(values, 0, 200)
    drawn = ~np.isnan(means[0])
    # Two of four queries have no value: one resample in 16 draws none that has.
    assert 0 < (~drawn).sum() < 50
    assert (means[0, drawn] == 1).all()
    assert np.isnan(means[1]).all()


@settings(deadline=None, max_examples=60)
@given(st.floats(-1e6, 1e6), st.integers(2, 200), st.integers(0, 1000))
def test_constant_series_is_exactly_constant(value, n_queries, seed):
    means = resample(np.full((1, n_queries), value), seed, 30)
    assert (means == value).all()
    low, high = percentile_interval(means[0])
    assert low == high == value


def test_percentile_interval_is_between_the_two_and_a_half_percent_quantiles():
    assert percentile_interval(np.arange(1001.0)) == pytest.approx((25, 975))
    with_gaps = np.append(np.arange(1001.0), [np.nan] * 1000)
    assert percentile_interval(with_gaps) == pytest.approx((25, 975))
    assert np.isnan(percentile_interval(np.array([1.0, 2.0, np.nan, np.nan]))).all()
    assert np.isnan(percentile_interval(np.full(4, np.nan))).all()


# Few groups


def test_standard_error_is_the_root_of_squared_group_sums():
    values = series_with_gaps()
    groups = np.random.default_rng(2).integers(8, size=60)
    expected = []
    for series in values:
        n = np.count_nonzero(~np.isnan(series))
        sums = [np.nansum(series[groups == g] - np.nanmean(series)) for g in range(8)]
        expected.append(math.sqrt(8 / 7) * math.sqrt(sum(s * s for s in sums)) / n)
    errors = standard_errors(sum_by_group(values, groups))
    np.testing.assert_allclose(errors, expected, rtol=1e-12)
    half = scipy.stats.t.ppf(0.975, 7) * np.array(expected)
    low, high = find_intervals(values, groups)
    np.testing.assert_allclose((low + high) / 2, np.nanmean(values, axis=1), rtol=1e-12)
    np.testing.assert_allclose((high - low) / 2, half, rtol=1e-9)


def test_t_quantile_is_that_of_scipy():
    degrees = np.array([1, 2, 14, 48, 1000])
    np.testing.assert_allclose(t_quantile(degrees), scipy.stats.t.ppf(0.975, degrees), rtol=1e-9)
    assert np.isnan(t_quantile(0)) and np.isnan(t_quantile(-1))


def test_bootstrap_from_50_groups_on():
    values = np.random.default_rng(0).exponential(size=(1, 150))
    for n_groups, percentile in ((49, False), (50, True), (51, True)):
        groups = np.arange(150) % n_groups
        ends = percentile_interval(resample(values, 0, groups=groups)[0])
        assert np.allclose(find_intervals(values, groups)[:, 0], ends, rtol=1e-9) == percentile


def test_groups_are_those_that_have_values():
    values = np.random.default_rng(0).normal(size=(2, 120))
    groups = np.arange(120) // 2
    values[1, groups >= 12] = np.nan
    low, high = find_intervals(values, groups)
    alone = find_intervals(values[1:, :24], groups[:24])
    np.testing.assert_allclose([low[1], high[1]], alone[:, 0], rtol=1e-12)
    assert low[0] == percentile_interval(resample(values[:1], 0, groups=groups)[0])[0]


def test_one_group_says_nothing_of_others():
    values = np.random.default_rng(0).uniform(size=(1, 30))
    for groups in (np.zeros(30, int), np.full(30, 5)):
        assert np.isnan(find_intervals(values, groups)).all()
    assert np.isnan(find_intervals(values[:, :1])).all()
    run = run_of([1.0], [20.0], [0.0])
    assert set(safe_ks(run, [10], groups=np.zeros(40, int)).values()) == {0}


def test_intervals_of_few_groups_are_cut_to_the_range():
    rng = np.random.default_rng(0)
    groups = np.arange(40) // 20
    names = ("overlap", "recall", "found", "distance_ratio", "kth_distance_ann", "lid_exact")
    run = {name: rng.beta(20, 1, (1, 40)) for name in (*names, "lid_difference")}
    for values in run.values():
        values[:, :20] -= 0.2
    run["kth_distance_ann"] = run["kth_distance_ann"] + 20 * (groups == 1)
    curves, _ = summarize_run([10], run, 0, groups, 50)
    ends = curves.set_index("metric")[["ci_low", "ci_high"]]
    for name in names[:4]:
        assert tuple(ends.loc[name]) == (0, 1)
    assert ends.loc["kth_distance_ann", "ci_low"] == 0 < ends.loc["kth_distance_ann", "ci_high"]
    assert ends.loc["lid_exact", "ci_low"] == 0 and ends.loc["lid_exact", "ci_high"] > 1
    assert ends.loc["lid_difference", "ci_low"] < 0 and ends.loc["lid_difference", "ci_high"] > 1


# Coverage: of many series, how many intervals hold the mean that they were drawn about


@pytest.mark.parametrize(
    ("n_groups", "size"), [(5, 10), (15, 10), (49, 10), (100, 10), (3, 1), (20, 1), (200, 1)]
)
def test_intervals_by_group_cover_the_mean_as_often_as_they_say(n_groups, size):
    values, groups = normal_groups(3000, n_groups, size, n_groups)
    low, high = find_intervals(values, groups, n_resamples=2000)
    # The percentile interval of 100 normal values is 1.96 sqrt(0.99) standard errors wide, where
    # the t interval is 1.984: a coverage of 0.946.
    lowest, highest = binomial_bounds(3000, 0.95 if n_groups < 50 else 0.944)
    assert lowest <= np.mean((low <= 0) & (high >= 0)) <= highest


def test_intervals_that_ignore_groups_do_not_cover():
    values, _ = normal_groups(1000, 15, 10, 0)
    low, high = find_intervals(values, n_resamples=500)
    assert np.mean((low <= 0) & (high >= 0)) < 0.7


@pytest.mark.parametrize("n_graphs", [2, 5])
def test_intervals_between_graphs_cover_the_difference_as_often_as_they_say(n_graphs):
    rng = np.random.default_rng(n_graphs)
    queries = rng.normal(size=60)
    effects = rng.normal(0, 0.01, size=(n_graphs, 3000, 1))
    # Many series take the place of the grid.
    first = {seed: 0.3 + queries + effects[seed] for seed in range(n_graphs)}
    second = {seed: np.tile(queries, (3000, 1)) for seed in range(n_graphs)}
    table = compare_families(np.arange(3000), first, second, 0, n_resamples=2)
    lowest, highest = binomial_bounds(3000)
    covered = (table["graphs_low"] <= 0.3) & (table["graphs_high"] >= 0.3)
    assert lowest <= covered.mean() <= highest


@pytest.mark.parametrize("between", [0.02, 0.2])
def test_intervals_of_graphs_and_queries_cover_the_mean(between):
    rng = np.random.default_rng(0)
    queries, groups = normal_groups(2000, 12, 5, 1)
    # As far apart as photographs are, or ten times less; what the query is spoils nothing.
    graphs = [
        {"lid_difference": queries + rng.normal(0, between * 5, size=(2000, 1))} for _ in range(4)
    ]
    table = summarize_graphs({"family": (np.arange(2000), graphs)}, groups)
    covered = ((table["ci_low"] <= 0) & (table["ci_high"] >= 0)).mean()
    # The quantile of R - 1 degrees is for the worst case, that graphs are all that differs.
    assert covered >= binomial_bounds(2000)[0]


# Curves


def test_summary_is_that_of_numpy():
    values = series_with_gaps()[1]
    numbers = summarize(values)
    valid = values[~np.isnan(values)]
    quantiles = dict(zip(("median", "q05", "q95"), np.percentile(valid, [50, 5, 95]), strict=True))
    moments = {"mean": np.mean(valid), "std": np.std(valid), "n": len(valid)}
    assert numbers == pytest.approx(moments | quantiles)
    numbers = summarize(np.full(5, np.nan))
    assert numbers.pop("n") == 0
    assert np.isnan(list(numbers.values())).all()


@pytest.mark.parametrize("groups", [None, np.arange(80) % 60, np.arange(80) % 7])
def test_curves_of_a_run(groups):
    run = losing(GRID, 0.0005 * GRID, n_queries=80) | {"found": np.ones((25, 80))}
    run["lid_exact"] = run["lid_exact"] + np.random.default_rng(0).normal(size=80)
    run["lid_exact"][:, :10] = np.nan
    curves, _ = summarize_run([int(k) for k in GRID], run, 7, groups, 200)
    assert tuple(curves.columns) == ("k", "metric", *summaries.SUMMARY)
    assert len(curves) == 4 * 25
    for name in run:
        curve = curves[curves["metric"] == name].set_index("k")
        np.testing.assert_array_equal(curve.index, GRID)
        ends = find_intervals(run[name], groups, 7, 200)
        np.testing.assert_allclose(curve[["ci_low", "ci_high"]].T, ends, rtol=1e-9)
        for k, per_query in zip(GRID, run[name], strict=True):
            for number, value in summarize(per_query).items():
                assert curve.loc[k, number] == pytest.approx(value)


def test_metrics_in_turn_are_metrics_at_once(monkeypatch):
    run = losing(GRID, 0.0005 * GRID)
    at_once = summarize_run(GRID, run, 0, n_resamples=50)
    monkeypatch.setattr(summaries, "_VALUES_AT_ONCE", 1)
    for ours, theirs in zip(summarize_run(GRID, run, 0, n_resamples=50), at_once, strict=True):
        np.testing.assert_allclose(
            ours.select_dtypes("number"), theirs.select_dtypes("number"), rtol=1e-9
        )


@pytest.mark.parametrize("n_queries", [40, 80])
def test_infinite_value_reaches_the_mean_and_leaves_no_interval(n_queries):
    run = losing(GRID[:2], [0.01, 0.02], n_queries)
    run["lid_paper_ann"] = np.full((2, n_queries), 5.0)
    run["lid_paper_ann"][1, 3] = np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        curves, _ = summarize_run(GRID[:2], run, 0)
        summarize_graphs({"family": (GRID[:2], [run, run])})
        compare_pair(GRID[:2], run["lid_paper_ann"], run["lid_paper_ann"], 0)
    first, second = curves[curves["metric"] == "lid_paper_ann"].itertuples()
    assert (first.mean, first.ci_low, first.ci_high) == (5, 5, 5)
    assert second.mean == np.inf and np.isnan([second.ci_low, second.ci_high]).all()


# Crossings


def test_loss_linear_in_k_crosses_where_the_line_does():
    table = crossings(losing(GRID, 0.0007 * GRID), GRID)
    for tolerance in (0.99, 0.95, 0.90):
        crossing, low, high = table.loc[("overlap", tolerance)]
        assert crossing == pytest.approx((1 - tolerance) / 0.0007)
        assert low < crossing < high
        np.testing.assert_allclose(
            table.loc[("lid", round(1 - tolerance, 2))], (crossing, low, high), rtol=1e-9
        )


def test_crossing_is_interpolated_on_a_grid_of_any_steps():
    ks = np.array([1, 2, 5, 10, 40, 100])
    loss = np.array([[0.0, 0.01, 0.02, 0.1, 0.04, 0.5]]).T
    for tolerance, expected in ((0.005, 1.5), (0.015, 3.5), (0.06, 7.5), (0.3, 40 + 60 * 26 / 46)):
        assert first_crossings(ks, loss, tolerance)[0] == pytest.approx(expected)
    assert first_crossings(ks, loss, 0.5) == np.inf, "what only reaches it does not pass it"
    for tolerance in (0.99, 0.95, 0.90):
        run = run_of([tolerance] * 3, [20.0] * 3, [0.0] * 3)
        assert crossings(run, GRID[:3]).loc[("overlap", tolerance)].isna().all()


def test_loss_beyond_the_tolerance_from_the_start_crosses_at_the_first_k():
    loss = np.array([0.02, 0.001, 0.03])
    assert first_crossings(GRID[:3], loss[:, None], 0.01) == 10
    # On the tolerance, and beyond it from there on.
    assert first_crossings(GRID[:2], np.array([[0.01], [0.02]]), 0.01) == 10
    table = crossings(run_of([0.8, 0.9, 0.7], [20.0] * 3, [5.0, 1.0, 2.0]), GRID[:3])
    assert (table == 10).all(axis=None)


def test_perfect_run_never_crosses():
    run = run_of([1.0] * 25, [20.0] * 25, [0.0] * 25)
    assert crossings(run, GRID).isna().all(axis=None)
    assert set(safe_ks(run, GRID).values()) == {250}


def test_system_that_returns_nothing_beyond_its_first_40_crosses_there():
    overlap = np.minimum(1, 40 / GRID)
    table = crossings(run_of(overlap, [20.0] * 25, [0.0] * 25), GRID)
    for tolerance in (0.99, 0.95, 0.90):
        crossing, low, high = table.loc[("overlap", tolerance)]
        # From 0 to 0.2 between 40 and 50.
        assert crossing == low == high == pytest.approx(40 + 10 * (1 - tolerance) / 0.2)


def test_lid_crosses_either_way():
    for sign in (-1, 1):
        difference = sign * np.array([0.0, 0.1, 0.4, 2.2])
        table = crossings(run_of([1.0] * 4, [20.0, 20.0, 20.0, 10.0], difference), GRID[:4])
        assert table.loc[("lid", 0.01), "crossing_k"] == pytest.approx(20 + 10 * 0.005 / 0.015)
        assert table.loc[("lid", 0.10), "crossing_k"] == pytest.approx(30 + 10 * 0.08 / 0.20)
    # From -0.9 % to 0.9 %: never beyond 1 %.
    table = crossings(run_of([1.0] * 2, [20.0] * 2, [-0.18, 0.18]), GRID[:2])
    assert table.loc["lid"].isna().all(axis=None)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(2, 24))
def test_crossing_does_not_depend_on_where_the_grid_ends(seed, length):
    rng = np.random.default_rng(seed)
    steps = rng.gamma(0.3, 0.01, size=25) * rng.choice([-0.5, 1, 1], size=25)
    run = losing(GRID, np.abs(np.cumsum(steps)), 60, seed)
    ours = {name: values[:length] for name, values in run.items()}
    longer, shorter = crossings(run, GRID), crossings(ours, GRID[:length])
    # What lies within the short grid is there in both, and the short grid has nothing else.
    expected = longer.where(longer <= GRID[length - 1])
    np.testing.assert_allclose(shorter, expected, rtol=1e-9)


def test_resamples_that_never_cross_count_as_infinite():
    ks = np.array([10, 20])
    loss = np.array([0.0, 0.02])
    never, crossing = np.zeros((2, 300)), np.tile(loss[:, None], (1, 700))
    found = crossing_interval(ks, loss, np.hstack([never, crossing]), 0.01)
    np.testing.assert_array_equal(found, [15, 15, np.nan])
    # And with the mean that does not.
    found = crossing_interval(ks, 0 * loss, np.hstack([never, crossing]), 0.01)
    np.testing.assert_array_equal(found, [np.nan, 15, np.nan])
    found = crossing_interval(ks, 0 * loss, np.hstack([never] * 100 + [crossing]), 0.01)
    assert np.isnan(found).all()


def test_gaps_in_a_curve_do_not_cross():
    nan = np.nan
    ks = np.array([10, 20, 30, 40])
    curves = np.array([
        [nan, 0.0, nan, 0.02],
        [nan, 0.05, 0.0, 0.0],
        [0.0, nan, 0.0, nan],
        [nan, nan, nan, nan],
    ]).T  # fmt: skip
    np.testing.assert_array_equal(first_crossings(ks, curves, 0.01), [30, 20, np.inf, np.inf])
    run = run_of([1.0] * 4, [nan, 20.0, nan, 20.0], [nan, 0.0, nan, 0.4])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = crossings(run, ks)
    np.testing.assert_allclose(table.loc[("lid", 0.01)], 30)


def test_interval_of_the_crossing_covers_it():
    covered = 0
    for trial in range(200):
        slopes = np.random.default_rng(trial).gamma(2, 0.0004, size=200)
        overlap = np.maximum(0, 1 - GRID[:, None] * slopes)
        means = resample(overlap, trial, 300)
        _, low, high = crossing_interval(GRID, 1 - overlap.mean(axis=1), 1 - means, 0.05)
        covered += low <= 0.05 / 0.0008 <= high
    lowest, highest = binomial_bounds(200, 0.935)
    assert lowest <= covered / 200 <= highest


# Safe k


@settings(deadline=None, max_examples=60)
@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_largest_safe_k_is_safe_at_it_and_at_every_smaller_k(safe):
    ks = np.arange(1, len(safe) + 1) * 5
    expected = max([0] + [int(k) for i, k in enumerate(ks) if all(safe[: i + 1])])
    assert largest_safe_k(ks, np.array(safe)) == expected


def test_safe_k_by_overlap():
    run = run_of([1.0, 0.99, 0.96, 0.94, 0.97, 0.89], [20.0] * 6, [0.0] * 6)
    table = safe_ks(run, [10, 20, 30, 40, 50, 60])
    assert table["overlap", 0.99] == 20
    assert table["overlap", 0.95] == 30
    assert table["overlap", 0.90] == 50
    assert [table["lid", tolerance] for tolerance in (0.01, 0.05, 0.10)] == [60] * 3


def test_safe_k_by_lid_is_relative_and_looks_both_ways():
    run = run_of([0.5] * 4, [40.0, 20.0, 20.0, 20.0], [0.3, -0.3, 1.5, -3.0])
    table = safe_ks(run, [10, 20, 30, 40])
    assert table["lid", 0.01] == 10
    assert table["lid", 0.05] == 20
    assert table["lid", 0.10] == 30
    assert [table["overlap", tolerance] for tolerance in (0.99, 0.95, 0.90)] == [0] * 3
    run = run_of([1.0] * 2, [20.0] * 2, [-0.3, 0.0])
    assert safe_ks(run, [10, 20])["lid", 0.01] == 0


def test_safe_k_asks_for_the_interval_and_not_only_for_the_mean():
    run = run_of([1.0, 1.0], [20.0] * 2, [0.0] * 2)
    # A mean of 0.955 with a standard error of 0.016; a mean difference of 0.5 % with one of 0.8 %.
    run["overlap"][1, ::2], run["overlap"][1, 1::2] = 0.855, 1.055
    run["lid_difference"][1, ::2], run["lid_difference"][1, 1::2] = -0.9, 1.1
    table = safe_ks(run, [10, 20], n_resamples=1000)
    assert run["overlap"][1].mean() >= 0.95
    assert table["overlap", 0.95] == 10 and table["overlap", 0.90] == 20
    assert table["lid", 0.01] == 10 and table["lid", 0.05] == 20


def test_safe_k_resamples_groups_however_few():
    run = run_of([1.0, 1.0], [20.0] * 2, [0.0] * 2)
    groups = np.arange(40) // 4
    run["overlap"][1] = np.where(groups % 2, 0.94, 1.0)
    low, _ = percentile_interval(resample(run["overlap"][1:], 0, 1000, groups)[0])
    ((t_low,), _) = find_intervals(run["overlap"][1:], groups)
    assert t_low < 0.95 < low
    assert safe_ks(run, [10, 20], groups=groups, n_resamples=1000)["overlap", 0.95] == 20
    # Ten photographs do not say as much as 40.
    run["overlap"][1] = np.where(groups % 2, 0.925, 1.0)
    assert safe_ks(run, [10, 20], n_resamples=1000)["overlap", 0.95] == 20
    assert safe_ks(run, [10, 20], groups=groups, n_resamples=1000)["overlap", 0.95] == 10


@pytest.mark.parametrize(("missing", "expected"), [(10, 20), (11, 10), (990, 10)])
def test_lid_of_few_queries_is_not_safe(missing, expected):
    ones = np.ones((2, 1000))
    run = {"overlap": ones, "lid_exact": 20 * ones, "lid_difference": 0 * ones}
    run["lid_difference"][1, :missing] = np.nan
    assert safe_ks(run, [10, 20])["lid", 0.10] == expected


def test_recall_speaks_where_rows_tie():
    tied = run_of([0.433] * 2, [20.0] * 2, [0.0] * 2, recall=[1.0, 0.97])
    table = safe_ks(tied, [10, 20])
    assert [table["overlap", tolerance] for tolerance in (0.99, 0.95, 0.90)] == [0] * 3
    assert [table["recall", tolerance] for tolerance in (0.99, 0.95, 0.90)] == [10, 20, 20]
    crossing = crossings(tied, np.array([10, 20])).loc[("recall", 0.99), "crossing_k"]
    assert crossing == pytest.approx(10 + 10 / 3)
    # One neighbor of thousands that ties by chance is no story.
    untied = run_of([0.98] * 2, [20.0] * 2, [0.0] * 2, recall=[0.98, 0.9802])
    assert {criterion for criterion, _ in safe_ks(untied, [10, 20])} == {"overlap", "lid"}


# Graphs and differences


def test_graphs_by_hand():
    rng = np.random.default_rng(0)
    groups = np.arange(30) // 5
    graphs = [{"lid_difference": rng.normal(size=(2, 30))} for _ in range(3)]
    graphs[1]["lid_difference"][0, 4] = np.nan
    families = {"faiss_ef50": ([10, 20], graphs), "alone": ([10, 20], graphs[:1])}
    table = summarize_graphs(families, groups)
    assert list(table["family"]) == ["faiss_ef50"] * 2 and list(table["k"]) == [10, 20]
    for i, row in enumerate(table.itertuples()):
        per_query = np.stack([graph["lid_difference"][i] for graph in graphs])
        means = np.nanmean(per_query, axis=1)
        average = np.nanmean(per_query, axis=0)
        sums = [(average[groups == g] - average.mean()).sum() for g in range(6)]
        v = 6 / 5 * np.sum(np.square(sums)) / 30**2
        s = np.std(means, ddof=1)
        half = scipy.stats.t.ppf(0.975, 2) * math.sqrt(s**2 / 3 + v)
        assert (row.metric, row.graphs) == ("lid_difference", 3)
        assert row.mean == pytest.approx(means.mean())
        assert row.sd_between_graphs == pytest.approx(s)
        assert (row.ci_low, row.ci_high) == pytest.approx((row.mean - half, row.mean + half))


def test_graphs_are_cut_to_the_range_and_may_be_none():
    graphs = [{"overlap": np.full((1, 20), overlap)} for overlap in (0.9, 1.0)]
    (row,) = summarize_graphs({"family": ([10], graphs)}).itertuples()
    assert (row.mean, row.ci_low, row.ci_high) == (
        pytest.approx(0.95),
        pytest.approx(0.3147, rel=1e-4),
        1,
    )
    none = summarize_graphs({"alone": ([10], graphs[:1])})
    assert len(none) == 0
    assert list(none) == [
        "family", "k", "metric", "graphs", "mean", "sd_between_graphs", "ci_low", "ci_high"
    ]  # fmt: skip


def test_compared_runs_are_paired():
    rng = np.random.default_rng(0)
    queries = rng.uniform(size=(2, 400))
    # A difference far smaller than the queries' own, and none.
    other = queries - np.array([[0.002], [0.0]]) - rng.normal(0, 0.01, size=(2, 400))
    other[1] -= (other[1] - queries[1]).mean()
    table = compare_pair([10, 20], queries, other, 3)
    assert list(table["different"]) == [True, False]
    np.testing.assert_allclose(table["difference"], (queries - other).mean(axis=1), atol=1e-15)
    resampled = resample(queries, 3) - resample(other, 3)
    for row, means in zip(table.itertuples(), resampled, strict=True):
        assert (row.ci_low, row.ci_high) == pytest.approx(percentile_interval(means))


def test_run_does_not_differ_from_itself():
    values = np.random.default_rng(0).uniform(size=(2, 100))
    values[0, 3] = np.nan
    table = compare_pair([10, 20], values, values, 0)
    assert not table["different"].any()
    assert (table[["difference", "ci_low", "ci_high"]] == 0).all(axis=None)


def test_runs_are_compared_by_group():
    values, groups = normal_groups(1, 10, 50, 3)
    values += 0.3 - values.mean()
    ones = np.zeros_like(values)
    assert compare_pair([10], values, ones, 0)["different"].all()
    assert not compare_pair([10], values, ones, 0, groups)["different"].any()


def test_families_differ_when_graphs_and_queries_say_so():
    queries = np.random.default_rng(0).uniform(size=(1, 400))
    base = dict.fromkeys(range(3), queries)

    def family(*effects, spread=0.0):
        noise = spread * np.random.default_rng(1).normal(size=queries.shape)
        return {seed: queries + effect + noise for seed, effect in enumerate(effects)}

    for steady, different in (
        (family(0.010, 0.011, 0.012), True),
        # Graphs differ by more than the families do, though every query says the same.
        (family(0.01, 0.05, -0.02), False),
        # Queries do, though every graph says the same.
        (family(0.010, 0.011, 0.012, spread=0.5), False),
    ):
        (row,) = compare_families([10], steady, base, 0).itertuples()
        assert (row.graphs, row.different) == (3, different)
        differences = [np.mean(steady[seed] - queries) for seed in range(3)]
        expected = scipy.stats.t.interval(
            0.95, 2, loc=np.mean(differences), scale=scipy.stats.sem(differences)
        )
        assert (row.graphs_low, row.graphs_high) == pytest.approx(expected)
        assert row.difference == pytest.approx(np.mean(differences))


def test_families_are_compared_over_their_common_seeds():
    values = np.random.default_rng(0).uniform(size=(3, 1, 100))
    first = {0: values[0], 1: values[1]}
    (row,) = compare_families([10], first, {1: values[2], 5: values[0]}, 0).itertuples()
    (pair,) = compare_pair([10], values[1], values[2], 0).itertuples()
    assert row.graphs == 1 and np.isnan([row.graphs_low, row.graphs_high]).all()
    assert (row.difference, row.ci_low, row.different) == (
        pair.difference, pair.ci_low, pair.different
    )  # fmt: skip
    with pytest.raises(ValueError, match="no seed in common"):
        compare_families([10], first, {7: values[2]}, 0)
