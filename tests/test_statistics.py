"""Bootstrap intervals, largest safe k and onset against what they are defined to be."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from drift import statistics
from drift.statistics import (
    bootstrap_means,
    largest_safe_k,
    onset_of_divergence,
    percentile_interval,
    summarize,
    summarize_run,
)

GRID = np.arange(10, 260, 10)
# 1 - overlap of the published curve, section 4 of the design.
PUBLISHED_LOSS = 1 - np.array([
    0.9953, 0.9934, 0.9912, 0.9880, 0.9839, 0.9785, 0.9713, 0.9621, 0.9515, 0.9398, 0.9274, 0.9145,
    0.9011, 0.8875, 0.8740, 0.8604, 0.8470, 0.8336, 0.8207, 0.8078, 0.7952, 0.7829, 0.7711, 0.7594,
    0.7481,
])  # fmt: skip


def series_with_gaps(n_series=4, n_queries=60, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.exponential(size=(n_series, n_queries)) + 5
    values[1, rng.integers(n_queries, size=20)] = np.nan
    return values


def resampled_directly(values, seed, n_resamples):
    draws = np.random.default_rng(seed).integers(values.shape[1], size=(n_resamples, len(values.T)))
    return np.array([[np.nanmean(series[draw]) for draw in draws] for series in values])


def noisy_curves(mean_loss, n_queries=200, seed=0, spread=0.02):
    """A loss for each k and query whose mean over queries is nearly the curve."""
    return mean_loss[:, None] + np.random.default_rng(seed).normal(
        0, spread, size=(len(mean_loss), n_queries)
    )


def onset_of(ks, per_query):
    return onset_of_divergence(ks, per_query.mean(axis=1), bootstrap_means(per_query, 0, 400))


def broken_line(ks, at, before, after):
    return 0.01 + before * ks + (after - before) * np.maximum(0, ks - at)


def has_none(onset):
    return np.isnan([onset.k, onset.low, onset.high]).all()


def run_of(overlap, lid_exact, lid_difference, **others):
    """Values of a run in which all of 40 queries agree, from one number for each k."""
    named = {"overlap": overlap, "lid_exact": lid_exact, "lid_difference": lid_difference, **others}
    return {name: np.tile(np.array(values)[:, None], (1, 40)) for name, values in named.items()}


def safe_ks(run, ks, n_resamples=100):
    _, table = summarize_run(ks, run, 0, n_resamples)
    return {(row.criterion, row.tolerance): row.safe_k for row in table.itertuples()}


def test_bootstrap_is_direct_resampling_with_the_same_draws():
    values = series_with_gaps()
    np.testing.assert_allclose(
        bootstrap_means(values, 3, 50), resampled_directly(values, 3, 50), rtol=1e-12
    )


def test_bootstrap_in_pieces_is_the_bootstrap_in_one(monkeypatch):
    values = series_with_gaps()
    whole = bootstrap_means(values, 1, 100)
    monkeypatch.setattr(statistics, "_WEIGHTS_AT_ONCE", 7 * 60)
    np.testing.assert_allclose(bootstrap_means(values, 1, 100), whole, rtol=1e-12)


def test_bootstrap_interval_is_that_of_scipy():
    values = np.random.default_rng(0).exponential(size=300)
    ours = percentile_interval(bootstrap_means(values[None], 0, 4000)[0])
    other = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    # A 2.5 % quantile of 4,000 means has a standard error of 0.042 of theirs; the difference of
    # two, 0.06; four of those.
    np.testing.assert_allclose(ours, other, atol=0.24 * values.std() / math.sqrt(300))


def test_bootstrap_has_the_standard_error_of_a_mean():
    values = np.random.default_rng(0).normal(size=(1, 500))
    spread = bootstrap_means(values, 0, 4000).std()
    # The relative error of a standard deviation over 4,000 values is 1 / sqrt(8000): four of them.
    assert spread == pytest.approx(values.std() / math.sqrt(500), rel=4 / math.sqrt(8000))


def test_bootstrap_is_seeded():
    values = series_with_gaps()
    np.testing.assert_array_equal(bootstrap_means(values, 5, 20), bootstrap_means(values, 5, 20))
    assert (bootstrap_means(values, 5, 20) != bootstrap_means(values, 6, 20)).any()


def test_default_number_of_resamples_is_a_thousand():
    assert bootstrap_means(np.ones((2, 10)), 0).shape == (2, 1000)


def test_missing_values_are_left_out_of_the_mean():
    values = np.array([[1.0, np.nan, 1.0, np.nan], [np.nan] * 4])
    means = bootstrap_means(values, 0, 200)
    drawn = ~np.isnan(means[0])
    # Two of four queries have no value: one resample in 16 draws none that has.
    assert 0 < (~drawn).sum() < 50
    assert (means[0, drawn] == 1).all()
    assert np.isnan(means[1]).all()


def test_resamples_are_paired():
    values = series_with_gaps()[[0, 2]]
    first, second = bootstrap_means(values, 0, 200)
    (difference,) = bootstrap_means(values[:1] - values[1:], 0, 200)
    np.testing.assert_allclose(difference, first - second, rtol=1e-9, atol=1e-12)
    # Separate calls share the resamples too.
    np.testing.assert_allclose(bootstrap_means(values[1:], 0, 200)[0], second, rtol=1e-12)


@settings(deadline=None, max_examples=60)
@given(st.floats(-1e6, 1e6), st.integers(1, 200), st.integers(0, 1000))
def test_constant_series_is_exactly_constant(value, n_queries, seed):
    means = bootstrap_means(np.full((1, n_queries), value), seed, 30)
    assert (means == value).all()
    low, high = percentile_interval(means[0])
    assert low == high == value


def test_interval_covers_the_mean_of_a_population_as_often_as_it_says():
    # Uniform over 0 to 1, so that 100 values are enough for the percentile interval.
    trials = 400
    covered = 0
    for trial in range(trials):
        values = np.random.default_rng(trial).uniform(size=(1, 100))
        low, high = percentile_interval(bootstrap_means(values, trial, 500)[0])
        covered += low <= 0.5 <= high
    # At a true coverage of 0.94 to 0.95, the small-sample loss of the percentile interval included,
    # counts beyond these have a probability below 1e-3.
    lowest = scipy.stats.binom.ppf(5e-4, trials, 0.94)
    highest = scipy.stats.binom.isf(5e-4, trials, 0.95)
    assert lowest <= covered <= highest


def test_percentile_interval_is_between_the_two_and_a_half_percent_quantiles():
    assert percentile_interval(np.arange(1001.0)) == pytest.approx((25, 975))
    with_gaps = np.append(np.arange(1001.0), [np.nan] * 1000)
    assert percentile_interval(with_gaps) == pytest.approx((25, 975))
    assert np.isnan(percentile_interval(np.array([1.0, 2.0, np.nan, np.nan]))).all()
    assert np.isnan(percentile_interval(np.full(4, np.nan))).all()


def test_summary_is_that_of_numpy():
    values = series_with_gaps()[1]
    resampled = bootstrap_means(values[None], 0, 500)[0]
    numbers = summarize(values, resampled)
    assert tuple(numbers) == statistics.SUMMARY
    there = values[~np.isnan(values)]
    assert numbers["n"] == len(there) < 60
    assert numbers["mean"] == pytest.approx(np.mean(there))
    assert numbers["std"] == pytest.approx(np.sqrt(np.mean((there - there.mean()) ** 2)))
    assert numbers["median"] == pytest.approx(np.median(there))
    assert numbers["q05"] == pytest.approx(np.percentile(there, 5))
    assert numbers["q95"] == pytest.approx(np.percentile(there, 95))
    assert numbers["ci_low"] == pytest.approx(np.percentile(resampled, 2.5))
    assert numbers["ci_high"] == pytest.approx(np.percentile(resampled, 97.5))


def test_summary_of_nothing():
    numbers = summarize(np.full(5, np.nan), np.full(100, np.nan))
    assert numbers["n"] == 0
    assert np.isnan([numbers[name] for name in statistics.SUMMARY if name != "n"]).all()


def test_largest_safe_k():
    ks = np.array([10, 20, 30, 40])
    assert largest_safe_k(ks, np.array([True, True, True, True])) == 40
    assert largest_safe_k(ks, np.array([False, False, False, False])) == 0
    assert largest_safe_k(ks, np.array([True, True, False, False])) == 20
    assert largest_safe_k(ks, np.array([True, False, True, True])) == 10
    assert largest_safe_k(ks, np.array([False, True, True, True])) == 0
    assert largest_safe_k(ks[:1], np.array([True])) == 10


@settings(deadline=None, max_examples=60)
@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_largest_safe_k_is_safe_at_it_and_at_every_smaller_k(safe):
    ks = np.arange(1, len(safe) + 1) * 5
    expected = max([0] + [int(k) for i, k in enumerate(ks) if all(safe[: i + 1])])
    assert largest_safe_k(ks, np.array(safe)) == expected


def test_known_break_is_recovered():
    for at in (50, 100, 187):
        onset = onset_of(GRID, noisy_curves(broken_line(GRID, at, 0.0002, 0.002)))
        assert onset.k == pytest.approx(at, abs=6)
        assert onset.low <= onset.k <= onset.high
        assert onset.high - onset.low < 20


def test_break_of_a_curve_without_noise_is_exact():
    curve = broken_line(GRID, 83, 0.0002, 0.002)
    onset = onset_of_divergence(GRID, curve, np.tile(curve[:, None], (1, 50)))
    assert (onset.k, onset.low, onset.high) == (83, 83, 83)


def test_break_on_a_grid_of_uneven_steps():
    ks = np.array([1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000])
    onset = onset_of(ks, noisy_curves(broken_line(ks, 300, 0.00001, 0.0004), spread=0.005))
    assert onset.k == pytest.approx(300, rel=0.1)


def test_interval_of_the_break_covers_it():
    covered = 0
    for trial in range(40):
        per_query = noisy_curves(broken_line(GRID, 120, 0.0002, 0.001), 100, trial, 0.05)
        onset = onset_of_divergence(
            GRID, per_query.mean(axis=1), bootstrap_means(per_query, trial, 200)
        )
        covered += onset.low <= 120 <= onset.high
    # At 5 % each, ten or more misses in 40 have probability 2e-5.
    assert covered >= 31


def test_published_curve_has_its_onset_where_it_was_published():
    onset = onset_of(GRID, noisy_curves(PUBLISHED_LOSS))
    assert 50 <= onset.low <= onset.k <= onset.high <= 90


def test_straight_constant_and_concave_curves_have_no_onset():
    for curve in (
        0.001 * GRID,
        np.zeros(25),
        np.full(25, 0.1),
        broken_line(GRID, 100, 0.002, 0.0002),
        np.sqrt(GRID) / 20,
        np.log(GRID) / 10,
    ):
        assert has_none(onset_of_divergence(GRID, curve, np.tile(curve[:, None], (1, 50))))


def test_falling_curve_that_flattens_has_no_onset():
    # It bends upwards, and yet nothing diverges.
    falling = broken_line(GRID, 100, -0.002, -0.0002) + 0.3
    assert has_none(onset_of_divergence(GRID, falling, np.tile(falling[:, None], (1, 50))))
    assert has_none(onset_of(GRID, noisy_curves(falling)))


def test_straight_lines_have_no_onset_by_rounding():
    rng = np.random.default_rng(0)
    for slope, start in rng.uniform(0, [0.002, 0.5], size=(30, 2)):
        curve = start + slope * GRID
        assert has_none(onset_of_divergence(GRID, curve, np.tile(curve[:, None], (1, 3))))


def test_straight_and_concave_curves_with_query_noise_have_no_onset():
    straight = [onset_of(GRID, noisy_curves(0.001 * GRID, 60, trial, 0.1)) for trial in range(30)]
    # At the 2.5 % of the definition's own threshold, four or more of 30 have probability 6e-3.
    assert sum(not has_none(onset) for onset in straight) <= 3
    assert has_none(onset_of(GRID, noisy_curves(np.sqrt(GRID) / 20)))


def test_straight_lines_whose_slope_differs_from_query_to_query_have_no_onset():
    slopes = np.random.default_rng(0).gamma(2, 0.0005, size=200)
    assert has_none(onset_of(GRID, GRID[:, None] * slopes))


def test_onset_needs_five_points_and_finite_numbers():
    curve = broken_line(GRID, 30, 0.0, 0.01)
    for length in (1, 2, 3, 4):
        resampled = np.tile(curve[:length, None], (1, 50))
        assert has_none(onset_of_divergence(GRID[:length], curve[:length], resampled))
    assert onset_of_divergence(GRID[:5], curve[:5], np.tile(curve[:5, None], (1, 50))).k == 30
    gap = np.where(GRID == 70, np.nan, curve)
    assert has_none(onset_of_divergence(GRID, gap, np.tile(gap[:, None], (1, 50))))


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


def test_safe_k_without_lid_is_none():
    run = run_of([1.0] * 3, [20.0, np.nan, 20.0], [0.0, np.nan, 0.0])
    assert safe_ks(run, [10, 20, 30])["lid", 0.10] == 10


def test_curves_and_onset_of_a_run():
    loss = broken_line(GRID, 100, 0.0001, 0.002)
    run = run_of(1 - loss, [20.0] * 25, [0.0] * 25, found=[1.0] * 25)
    run["overlap"] = 1 - noisy_curves(loss, n_queries=40)
    curves, table = summarize_run([int(k) for k in GRID], run, 7, 200)

    assert len(curves) == 4 * 25
    of_overlap = curves[curves["metric"] == "overlap"].set_index("k")
    np.testing.assert_array_equal(of_overlap.index, GRID)
    means = bootstrap_means(run["overlap"], 7, 200)
    for k, values, resampled in zip(GRID, run["overlap"], means, strict=True):
        for name, number in summarize(values, resampled).items():
            assert of_overlap.loc[k, name] == pytest.approx(number)

    assert len(table) == 6 and set(table["criterion"]) == {"overlap", "lid"}
    onset = onset_of_divergence(GRID, 1 - run["overlap"].mean(axis=1), 1 - means)
    assert onset.k == pytest.approx(100, abs=10)
    for row in table.itertuples():
        assert (row.onset, row.onset_low, row.onset_high) == pytest.approx(
            (onset.k, onset.low, onset.high)
        )


def test_run_without_onset():
    _, table = summarize_run([10, 20], run_of([1.0] * 2, [20.0] * 2, [0.0] * 2), 0, 50)
    assert table[["onset", "onset_low", "onset_high"]].isna().all(axis=None)
    assert (table["safe_k"] == 20).all()
