"""The smallest setting that attains a target: the search for it, halves, what lists attain."""

import numpy as np
import pytest
from scipy import stats

from drift.indexes.run import Policy
from drift.indexes.targets import (
    MAX_VALUES,
    METRICS,
    attained,
    candidate_values,
    shortfall,
    smallest_setting,
    split_queries,
)
from drift.intervals import Estimate

OVERLAP, RECALL, LID = map(Policy.parse, ("overlap=0.9", "recall=90%", "lid=0.01"))


# The search for the smallest one.


@pytest.mark.parametrize(
    ("low", "high"), [(1, 1), (1, 2), (1, 254), (1, 255), (1, 300), (11, 10**6), (51, 400)]
)
def test_candidates_are_few_whole_numbers_from_end_to_end(low, high):
    values = candidate_values(low, high)
    assert values.dtype == np.int64
    assert len(values) <= MAX_VALUES == 255
    assert (values[0], values[-1]) == (low, high)
    assert (np.diff(values) > 0).all()
    # Evenly on a logarithmic scale, as far as whole numbers are.
    least = (high / low) ** (1 / (MAX_VALUES - 1)) if high > low else 1
    assert (np.diff(values) <= np.maximum(1, (least - 1) * values[:-1] + 1)).all()


def reach(mean, low=None, high=None):
    """An estimate; without ends it is one of no interval, as of one group."""
    return Estimate(mean, *((np.nan,) * 2 if low is None else (low, high)), 10, -1)


@pytest.mark.parametrize("target", [OVERLAP, LID])
@pytest.mark.parametrize(
    "values", [candidate_values(10, 10**6), candidate_values(1, 12), np.array([7])]
)
@pytest.mark.parametrize("earlier", [0, 1, 40])
def test_both_answers_take_eight_searches_each_at_most(target, values, earlier):
    for first in (*range(0, len(values), 7), len(values)):
        searched = []

        def search(value, first=first, searched=searched):
            searched.append(value)
            place = int(np.flatnonzero(values == value)[0])
            near, far = place / 1e6, place + earlier < first
            if target is OVERLAP:
                return reach(0.8 if far else 0.95, 0.8 + near if place < first else 0.9, 1.0)
            return reach(-0.2 if far else 0.0, -0.5 + near if place < first else -0.01, 0.005)

        setting = smallest_setting(target, values, search)
        assert len(searched) == len(set(searched)) == setting.searches <= 16
        assert set(searched) <= set(values.tolist())
        enough, on_mean = (
            [v for v in values.tolist() if shortfall(target, search(v), by_mean) <= 0]
            for by_mean in (False, True)
        )
        assert (setting.is_enough, bool(on_mean)) == (
            bool(enough),
            setting.value_on_mean is not None,
        )
        # Where none attains it: the one that came nearest, here the largest.
        assert setting.value == (enough[0] if enough else values[-1])
        assert setting.reached == search(setting.value)
        if on_mean:
            assert setting.value_on_mean == on_mean[0] <= setting.value
            assert setting.reached_on_mean == search(on_mean[0])
        else:
            assert setting.reached_on_mean is None


def test_where_none_attains_it_the_best_is_named():
    tried = {3: reach(0.9, 0.85, 1.0), 4: reach(0.9, 0.8, 1.0), 5: reach(0.9, 0.7, 1.0)}
    tried |= dict.fromkeys((1, 2), reach(0.5, 0.4, 0.6))
    setting = smallest_setting(OVERLAP, np.arange(1, 6), tried.__getitem__)
    assert setting == (3, False, tried[3], 3, tried[3], 3)
    tried = {3: reach(0.1, -0.05, 0.3), 5: reach(0.1, -0.1, 0.02)}
    setting = smallest_setting(LID, np.arange(1, 6), tried.__getitem__)
    assert setting == (5, False, tried[5], None, None, 2)
    # Without intervals it is the nearest by its mean.
    tried = dict(zip((4, 6, 7), map(reach, (np.nan, 0.3, 0.2)), strict=True))
    assert smallest_setting(LID, np.arange(1, 8), tried.__getitem__).value == 7
    # One that is known is better than one that is not.
    tried = {4: reach(np.nan), 6: reach(0.3, 0.2, 0.4), 7: reach(np.nan)}
    assert smallest_setting(LID, np.arange(1, 8), tried.__getitem__).value == 6


@pytest.mark.parametrize(
    ("target", "result", "enough", "on_mean"),
    [
        (OVERLAP, (0.95, 0.9, 1.0), True, True),
        (RECALL, (0.95, 0.8999, 1.0), False, True),
        (OVERLAP, (0.89, 0.85, 0.95), False, False),
        (LID, (0.0, -0.01, 0.01), True, True),
        (LID, (0.0, -0.0101, 0.001), False, True),
        (LID, (0.0, -0.001, 0.0101), False, True),
        (LID, (-0.02, -0.03, -0.01), False, False),
        (LID, (0.02, 0.015, 0.03), False, False),
        (OVERLAP, (0.95,), False, True),
        *((target, (np.nan,), False, False) for target in (OVERLAP, LID)),
    ],
)
def test_what_is_enough_and_what_is_on_the_mean(target, result, enough, on_mean):
    for by_mean, expected in ((False, enough), (True, on_mean)):
        assert (shortfall(target, reach(*result), by_mean) <= 0) is expected


# Halves of the queries.


@pytest.mark.parametrize("n", [1, 2, 7, 1000])
@pytest.mark.parametrize("groups", [None, "alone", "grouped"])
def test_halves_of_queries(n, groups):
    if groups == "grouped":
        groups = np.random.default_rng(0).integers(-1, 30, size=n).astype(np.int32)
        largest = np.bincount(groups + 1)[1:].max(initial=1)
    else:
        groups, largest = groups and np.full(n, -1, np.int32), 1
    for seed in (0, 1):
        first, second = split_queries(n, groups, seed)
        assert sorted([*first, *second]) == list(range(n))
        assert abs(len(first) - len(second)) <= largest
        assert (np.diff(first) > 0).all() and (np.diff(second) > 0).all()
        if groups is not None:
            assert set(groups[first]) & set(groups[second]) <= {-1}, "no group is in both"
    assert first.tolist() == split_queries(n, groups, 1)[0].tolist()
    if n == 1000:
        assert first.tolist() != split_queries(n, groups, 0)[0].tolist()
        assert 200 < (first < 500).sum() < 300, "at random"


def test_one_group_has_no_other_half():
    assert [len(half) for half in split_queries(30, np.zeros(30, np.int32))] == [30, 0]
    for target in (OVERLAP, LID):
        values = dict.fromkeys(METRICS[target.criterion], np.empty(0))
        assert np.isnan(attained(target, values, np.empty(0, np.int32))[:3]).all()


# What lists attain.


def measured(n, seed=0):
    """Metrics of some queries, of which some lose neighbors."""
    rng = np.random.default_rng(seed)
    exact, lost = rng.gamma(9, 1, n), np.where(rng.random(n) < 0.6, rng.uniform(0.5, 1, n), 1)
    shares = {"overlap": lost, "recall": (1 + lost) / 2}
    return shares | {"lid_exact": exact, "lid_ann": exact * lost * 1.2}


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("target", [OVERLAP, RECALL, LID])
def test_the_interval_is_students_of_groups(target, grouped):
    values = measured(120 if grouped else 30)
    if target is LID:
        error = values["lid_ann"].mean() / values["lid_exact"].mean()
        linear = (values["lid_ann"] - error * values["lid_exact"]) / values["lid_exact"].mean()
        series = error - 1 + linear
    else:
        series = values[target.criterion]
    # Groups are of one size, so that their means are values like those of single queries.
    groups, series = (
        (np.arange(120) % 6, series.reshape(20, 6).mean(0)) if grouped else (None, series)
    )
    mean = series.mean()
    ends = stats.t.interval(0.95, len(series) - 1, mean, stats.sem(series))
    assert ends[1] - ends[0] > 0.002
    assert attained(target, values, groups)[:3] == pytest.approx((mean, *ends), rel=1e-9)


def test_a_share_is_not_above_1_and_what_is_the_same_is_certain():
    same = {**measured(30), "overlap": np.ones(30)}
    same["lid_ann"] = same["lid_exact"]
    assert attained(OVERLAP, same)[:3] == (1, 1, 1)
    assert attained(LID, same)[:3] == (0, 0, 0)
    same["overlap"] = np.where(np.arange(30) == 0, 0.5, 1)
    assert attained(OVERLAP, same).ci_high == 1


def test_too_few_lids_attain_nothing():
    for lacking, is_known in ((3, True), (4, False)):  # of 300 queries 99 % are 297
        for side in ("lid_exact", "lid_ann"):
            values = measured(300)
            values[side][:lacking] = np.nan
            result = attained(LID, values)
            assert np.isfinite(result[:3]).all() if is_known else np.isnan(result[:3]).all()
            assert (shortfall(Policy.parse("lid=0.9"), result) <= 0) is is_known
            assert np.isfinite(attained(OVERLAP, values)[:3]).all()
