"""The smallest setting that attains a target: the search for it, halves, what lists attain."""

import numpy as np
import pytest
from scipy import stats

from drift.indexes.run import Policy
from drift.indexes.targets import (
    MAX_VALUES,
    Attained,
    attained,
    candidate_values,
    smallest_setting,
    split_queries,
)
from drift.metrics import lid

OVERLAP, LID = Policy.parse("overlap=0.9"), Policy.parse("lid=0.01")


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


@pytest.mark.parametrize("target", [OVERLAP, LID])
@pytest.mark.parametrize(
    "values", [candidate_values(10, 10**6), candidate_values(1, 12), np.array([7])]
)
def test_every_answer_takes_eight_searches_at_most(target, values):
    for first in range(len(values) + 1):
        searched = []

        def search(value, first=first, searched=searched):
            searched.append(value)
            place = int(np.flatnonzero(values == value)[0])
            good, near = place >= first, place / 1e6
            if target is OVERLAP:
                return Attained(0.95, 0.9 if good else 0.8 + near, 1.0)
            return Attained(0.0, -0.01 if good else -0.5 + near, 0.005)

        setting = smallest_setting(target, values, search)
        assert len(searched) == len(set(searched)) == setting.searches <= 8
        assert set(searched) <= set(values.tolist())
        sweep = [value for value in values.tolist() if search(value).is_enough(target)]
        assert setting.is_enough == bool(sweep)
        # Where none attains it: the one that came nearest, here the largest.
        assert setting.value == (sweep[0] if sweep else values[-1])
        assert setting.reached == search(setting.value)


def test_where_none_attains_it_the_best_is_named():
    tried = {3: Attained(0.9, 0.85, 1.0), 5: Attained(0.9, 0.7, 1.0)}
    setting = smallest_setting(OVERLAP, np.arange(1, 6), tried.__getitem__)
    assert setting == (3, False, tried[3], 2)
    tried = {3: Attained(0.0, -0.05, 0.3), 5: Attained(0.0, -0.1, 0.02)}
    assert smallest_setting(LID, np.arange(1, 6), tried.__getitem__) == (5, False, tried[5], 2)
    # One that is known is better than one that is not.
    unknown = Attained(np.nan, np.nan, np.nan)
    tried = {4: unknown, 6: Attained(0.3, 0.2, 0.4), 7: unknown}
    assert smallest_setting(LID, np.arange(1, 8), tried.__getitem__).value == 6


@pytest.mark.parametrize(
    ("target", "result", "enough", "agreed"),
    [
        (OVERLAP, (0.95, 0.9, 1.0), True, True),
        (OVERLAP, (0.95, 0.8999, 1.0), False, True),
        (OVERLAP, (0.89, 0.85, 0.95), False, False),
        (LID, (0.0, -0.01, 0.01), True, True),
        (LID, (0.0, -0.0101, 0.001), False, True),
        (LID, (0.0, -0.001, 0.0101), False, True),
        (LID, (-0.02, -0.03, -0.01), False, False),
        (LID, (0.02, 0.015, 0.03), False, False),
        *((target, (np.nan,) * 3, False, False) for target in (OVERLAP, LID)),
    ],
)
def test_what_is_enough_and_what_agrees(target, result, enough, agreed):
    assert Attained(*result).is_enough(target) is enough
    assert Attained(*result).agrees(target) is agreed


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
    none = (np.empty((0, 9), np.int32), np.empty((0, 9), np.float32))
    for target in (OVERLAP, LID):
        assert np.isnan(attained(target, none, none, np.empty(0, np.int32))).all()


# What lists attain.


def two_lists(n, k=20, seed=0):
    """Exact lists, and others that miss some neighbors and have farther ones in place of them."""
    rng = np.random.default_rng(seed)
    exact = np.tile(np.arange(k, dtype=np.int32), (n, 1))
    distances = np.sort(rng.uniform(1, 2, size=(n, k)), axis=1)
    missed = rng.random(n) < 0.6
    ids, farther = exact.copy(), distances.copy()
    ids[missed, -3:] += 1000
    farther[missed, -3:] *= 1.02
    return (exact, distances), (ids, farther)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("target", [OVERLAP, LID])
def test_with_few_groups_the_interval_is_students(target, grouped):
    exact, ann = two_lists(120 if grouped else 30)
    if target is OVERLAP:
        pairs = zip(exact[0], ann[0], strict=True)
        values = np.array([len(set(a) & set(b)) / 20 for a, b in pairs])
    else:
        values = (lid(ann[1]) - lid(exact[1])) / lid(exact[1]).mean()
    # Groups are of one size, so that their means are values like those of single queries.
    groups, values = (
        (np.arange(120) % 6, values.reshape(20, 6).mean(0)) if grouped else (None, values)
    )
    mean = values.mean()
    ends = stats.t.interval(0.95, len(values) - 1, mean, stats.sem(values))
    assert ends[1] - ends[0] > 0.002
    assert attained(target, exact, ann, groups) == pytest.approx((mean, *ends), rel=1e-9)


def test_a_share_is_not_above_1_and_what_is_the_same_is_certain():
    exact, _ = two_lists(30)
    assert attained(OVERLAP, exact, exact) == (1, 1, 1)
    assert attained(LID, exact, exact) == (0, 0, 0)
    ids = exact[0].copy()
    ids[0, -10:] += 1000
    assert attained(OVERLAP, exact, (ids, exact[1])).ci_high == 1
    # A difference can be below 0, whatever the LIDs are.
    low = attained(LID, exact, (exact[0], exact[1] ** 2))
    assert low.ci_low < low.mean < low.ci_high < 0


def test_too_few_lids_attain_nothing():
    exact, ann = two_lists(300)
    assert np.isfinite(attained(LID, exact, ann)).all()
    for lacking, is_known in ((3, True), (4, False)):  # of 300 queries 99 % are 297
        for side in (exact, ann):
            distances = side[1].copy()
            distances[:lacking] = 1.0  # all alike: no LID
            pair = [(s[0], distances) if s is side else s for s in (exact, ann)]
            result = attained(LID, *pair)
            assert np.isfinite(result).all() if is_known else np.isnan(result).all()
            assert result.is_enough(Policy.parse("lid=0.9")) is is_known
            assert np.isfinite(attained(OVERLAP, *pair)).all()
