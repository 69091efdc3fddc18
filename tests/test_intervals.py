"""Estimates over queries, graphs and k against what they are defined to be, by loops or by hand."""

import math
import warnings

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from drift.intervals import (
    adjust_by_holm,
    crossing_interval,
    estimate_mean,
    estimate_ratio,
    first_crossing,
    largest_safe_k,
    linearized_inverse,
    linearized_ratio,
    mean_over_graphs,
)

NAN = np.nan
GRID = np.arange(10, 260, 10)


def with_gaps(n_series=4, n_queries=60, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.exponential(size=(n_series, n_queries)) + 5
    values[1, rng.integers(n_queries, size=20)] = NAN
    return values


def interval_by_hand(values, linear, groups):
    """The t interval of the linear parts of a number, one query after the other."""
    sums = {}
    for query, (e, group) in enumerate(zip(linear, groups, strict=True)):
        if not math.isnan(e):
            name = (query, "alone") if group < 0 else group
            sums[name] = sums.get(name, 0) + e
    n, n_groups = np.count_nonzero(~np.isnan(linear)), len(sums)
    squares = sum(one**2 for one in sums.values())
    error = math.sqrt(n_groups / (n_groups - 1)) * math.sqrt(squares) / n
    half = scipy.stats.t.ppf(0.975, n_groups - 1) * error
    return values - half, values + half


@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 4, 5, 6, 7], [-1, 7, 3, 1000, 12], [-1]])
def test_estimates_by_hand(labels):
    values, groups = with_gaps(), np.random.default_rng(1).choice(labels, size=60)
    means = estimate_mean(values, groups)
    ratios = estimate_ratio(values[:2], values[2:], groups)
    for i, series in enumerate(values):
        mean = np.nanmean(series)
        ends = interval_by_hand(mean, series - mean, groups)
        assert (means.value[i], means.n[i]) == (pytest.approx(mean), (~np.isnan(series)).sum())
        assert (means.ci_low[i], means.ci_high[i]) == pytest.approx(ends)
        alone = estimate_mean(series, groups)
        assert alone[:3] == pytest.approx([column[i] for column in means[:3]])
        assert isinstance(alone.n, int) and isinstance(alone.value, float)
    for i, (x, y) in enumerate(zip(values[:2], values[2:], strict=True)):
        both = ~np.isnan(x)
        r = x[both].mean() / y[both].mean()
        ends = interval_by_hand(r - 1, (x - r * y) / y[both].mean(), groups)
        assert ratios.value[i] == pytest.approx(r - 1) and ratios.n[i] == both.sum()
        assert (ratios.ci_low[i], ratios.ci_high[i]) == pytest.approx(ends)
    assert (means.groups_that_differ == -1).all()
    # Numbers of groups do not matter, nor does their order.
    again = estimate_mean(values[:, ::-1], np.where(groups < 0, -5, groups * 3)[::-1])
    np.testing.assert_allclose(again[:3], means[:3], rtol=1e-12)


def test_two_groups_are_two_numbers():
    groups = np.repeat([4, 9], 20)
    estimate = estimate_mean(np.where(groups == 4, 0.991, 0.999), groups, 1, bounds=(0, 1))
    assert estimate == pytest.approx((0.995, 0.995 - 12.7062 * 0.004, 1, 40, 2), abs=1e-6)
    assert round(estimate.ci_low, 3) == 0.944


def test_one_group_says_nothing_of_others():
    for values, groups in (([0.5, 0.7], np.array([3, 3])), ([0.5], None), ([0.5, NAN], None)):
        estimate = estimate_mean(values, groups, 1.0)
        assert np.isnan(estimate[1:3]).all() and estimate.groups_that_differ == 1
    nothing = estimate_mean([NAN, NAN], no_loss=1.0)
    assert np.isnan(nothing[:3]).all() and nothing[3:] == (0, 0)
    assert estimate_mean([])[3:] == (0, -1)


@settings(deadline=None, max_examples=60)
@given(st.floats(-1e6, 1e6), st.integers(2, 200))
def test_constant_series_has_an_interval_of_no_width(value, n_queries):
    estimate = estimate_mean(np.full(n_queries, value))
    np.testing.assert_allclose(estimate[:3], value, rtol=1e-12)


def test_infinite_value_reaches_the_mean_and_leaves_no_interval():
    values = np.array([[5.0, 5, np.inf], [5, 5, 5]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimate = estimate_mean(values)
        mean, _ = mean_over_graphs([values, values])
        assert np.isnan(mean.interval()[:, 0]).all()
    assert estimate.value[0] == np.inf and np.isnan([estimate.ci_low[0], estimate.ci_high[0]]).all()
    assert estimate[1][1] == estimate[2][1] == 5


def test_groups_that_differ_are_those_of_queries_that_lose():
    groups = np.array([0, 0, 1, 1, -1, -1, 2])
    shares = np.array([1, 1, 1, 0.9, 0.8, 0.7, NAN])
    assert estimate_mean(shares, groups, 1).groups_that_differ == 3
    assert estimate_mean(shares, None, 1).groups_that_differ == 3
    assert estimate_mean(np.where(shares < 1, -1e-12, 0), groups, 0).groups_that_differ == 3
    both = np.array([2, 2, 2, 2 * (1 + 1e-12), 2.1, 2, 3])
    assert estimate_ratio(both, [2, 2, 2, 2, 2, NAN, 2], groups).groups_that_differ == 2


def test_ratio_of_what_is_the_same_or_of_nothing():
    values = with_gaps()
    assert estimate_ratio(values[0], values[0])[:3] == (0, 0, 0)
    assert estimate_ratio(0 * values[0], values[0])[:3] == (-1, -1, -1), "cut to the range"
    for sides in ((values[0], 0 * values[0]), ([NAN, 1], [1, NAN])):
        assert np.isnan(estimate_ratio(*sides)[:3]).all()


def test_linearized_numbers_vary_as_the_numbers_do():
    values = with_gaps()
    np.testing.assert_allclose(
        np.nanmean(linearized_ratio(values[1], values[0])),
        np.nanmean(values[1]) / values[0][~np.isnan(values[1])].mean() - 1,
    )
    inverse = linearized_inverse(values)
    np.testing.assert_allclose(np.nanmean(inverse, axis=1), 1 / np.nanmean(values, axis=1))
    # As far as a query that is left out changes them, to first order.
    left_out = np.array([1 / np.delete(values[0], i).mean() for i in range(60)])
    changes = 60 / values[0].mean() - 59 * left_out
    np.testing.assert_allclose(inverse[0], changes, atol=0.02 * np.ptp(changes))


# Graphs


def test_mean_over_graphs_by_hand():
    graphs, groups = np.random.default_rng(0).normal(size=(3, 2, 30)), np.arange(30) // 5
    graphs += np.array([0.0, 0.05, 0.1])[:, None, None]
    graphs[1, 0, 4] = NAN
    mean, sd = mean_over_graphs(iter(graphs), groups)
    low, high = mean.interval()
    for i in range(2):
        means, average = np.nanmean(graphs[:, i], axis=1), np.nanmean(graphs[:, i], axis=0)
        sums = [(average[groups == g] - average.mean()).sum() for g in range(6)]
        v, s = 6 / 5 * np.sum(np.square(sums)) / 30**2, np.std(means, ddof=1)
        variance = s**2 / 3 + v
        degrees = variance**2 / ((s**2 / 3) ** 2 / 2 + v**2 / 5)
        assert 2 < degrees < 7 and mean.degrees[i] == pytest.approx(degrees)
        half = scipy.stats.t.ppf(0.975, degrees) * math.sqrt(variance)
        assert (mean.value[i], sd[i]) == pytest.approx((means.mean(), s))
        assert (low[i], high[i]) == pytest.approx((means.mean() - half, means.mean() + half))
        expected = 2 * scipy.stats.t.sf(abs(means.mean()) / math.sqrt(variance), degrees)
        assert mean.p[i] == pytest.approx(expected)


def test_one_graph_leaves_what_queries_say_and_one_group_nothing():
    values = with_gaps()
    mean, sd = mean_over_graphs([values])
    np.testing.assert_allclose(mean.interval(), estimate_mean(values)[1:3])
    assert np.isnan(sd).all()
    expected = scipy.stats.ttest_1samp(values - 5.9, 0, axis=1, nan_policy="omit").pvalue
    np.testing.assert_allclose(mean_over_graphs([values - 5.9])[0].p, expected)
    for graphs in ([values], [values, values + 1]):
        mean, _ = mean_over_graphs(graphs, np.zeros(60, int))
        assert np.isnan(mean.interval()).all() and np.isnan(mean.p).all()


def test_what_is_the_same_in_every_graph_is_no_difference():
    for graphs in ([np.zeros(9)], [np.zeros(9)] * 3):
        mean, _ = mean_over_graphs(graphs)
        assert mean.p == 1 and (mean.interval() == 0).all()
    mean, _ = mean_over_graphs([np.full(9, 0.5)] * 3)
    assert mean.p == 0 and (mean.interval() == 0.5).all()


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [
        # As of statsmodels' multipletests(method="holm").
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.5, 0.6, 0.01], [1, 1, 0.03]),
        ([0.04], [0.04]),
        ([NAN, 0.02, NAN, 0.03], [NAN, 0.04, NAN, 0.04]),
        ([NAN], [NAN]),
        ([], []),
    ],
)
def test_p_values_are_adjusted_for_the_number_of_those_that_there_are(p, adjusted):
    np.testing.assert_allclose(adjust_by_holm(np.array(p)), adjusted)


# Crossings and safe k


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ([0.0, 0.02, 0.01, 0.03], (15, 10, 20)),
        ([0.0, 0.005, 0.01, 0.06], (30, 30, 70)),  # what only reaches it does not pass it
        ([0.0, 0.005, 0.0, 0.04], (40, 30, 70)),
        ([0.02, 0.001, 0.03, 0.03], (10, 10, 10)),  # beyond it from the start
        ([NAN, 0.0, NAN, 0.02], (45, 20, 70)),  # a gap does not cross
        ([NAN, 0.05, 0.0, 0.0], (20, 20, 20)),
        ([0.0, NAN, 0.0, NAN], (NAN, NAN, NAN)),
        ([0.01 + 1e-15] * 4, (NAN, NAN, NAN)),  # by rounding
    ],
)
def test_first_crossing_is_interpolated(loss, expected):
    found = first_crossing(np.array([10, 20, 30, 70]), np.array(loss), 0.01)
    assert found == pytest.approx(expected, nan_ok=True)


def test_interval_of_a_crossing_is_no_narrower_than_what_was_searched():
    """An index returns 39 neighbors at most: the true crossing is 39.4, and no query varies."""
    ks = np.array([25, 50, 75])
    loss = 1 - np.minimum(1, 39 / ks)
    crossing, low, high = crossing_interval(ks, loss, loss, loss, 0.01)
    assert (f"{crossing:.1f}", low, high) == ("26.1", 25, 50)


def test_interval_of_a_crossing_is_where_the_ends_of_the_loss_cross():
    ks, loss = np.arange(10, 110, 10), np.arange(10, 110, 10) / 1000
    for tolerance, low, high, expected in (
        (0.045, loss * 0.6, loss * 1.5, (45, 30, 75)),
        (0.045, loss * 0.99, loss * 1.01, (45, 40, 50)),
        (0.045, loss * 0.3, loss * 1.5, (45, 30, NAN)),  # the end is beyond the grid
        (0.2, loss * 0.3, loss * 2.5, (NAN, 80, NAN)),
        (0.2, loss * 0.3, loss * 1.5, (NAN, NAN, NAN)),
        (0.005, loss * 0.25, loss * 1.5, (10, 10, 20)),
        (0.045, loss * NAN, loss * NAN, (45, NAN, NAN)),  # of one group
    ):
        found = crossing_interval(ks, loss, low, high, tolerance)
        assert found == pytest.approx(expected, nan_ok=True)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 10_000), st.integers(1, 24), st.sampled_from([0.01, 0.05, 0.1]))
def test_safe_k_and_crossing_agree_and_do_not_depend_on_where_the_grid_ends(
    seed, length, tolerance
):
    rng = np.random.default_rng(seed)
    loss = np.abs(np.cumsum(rng.gamma(0.3, 0.01, size=25) * rng.choice([-0.5, 1, 1], size=25)))
    width = loss * rng.uniform(0, 0.5, size=25)
    curves = np.array([loss, loss - width, loss + width])
    safe_k = largest_safe_k(GRID, curves[2], tolerance)
    crossing = crossing_interval(GRID, *curves, tolerance)
    assert not safe_k > crossing[1] and (safe_k == GRID[-1] or np.isfinite(crossing[1]))
    assert not crossing[1] > crossing[0] and not crossing[0] > crossing[2]
    shorter = crossing_interval(GRID[:length], *curves[:, :length], tolerance)
    last = GRID[length - 1]
    assert largest_safe_k(GRID[:length], curves[2, :length], tolerance) == min(safe_k, last)
    # Where the mean crosses within the short grid, the points about it are there.
    expected = np.where(np.array(crossing) <= last, crossing, NAN)
    if np.isnan(expected[0]) and not np.isnan(expected[1]):
        expected[1] = first_crossing(GRID, curves[2], tolerance)[0]
    if expected[1] > last:
        expected[1] = NAN
    np.testing.assert_allclose(shorter, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("loss", "safe_k"),
    [
        ([0, 0.1, 0.1 + 1e-15, 0.2], 30),
        ([0, 0.2, 0, 0], 10),
        ([0.2, 0, 0, 0], 0),
        ([0, NAN, 0, 0], 10),
        ([0] * 4, 40),
    ],
)
def test_largest_safe_k_is_safe_at_it_and_at_every_smaller_k(loss, safe_k):
    assert largest_safe_k(np.array([10, 20, 30, 40]), np.array(loss), 0.1) == safe_k
