"""What lists change in use: components, labels and errors, against plain loops."""

import numpy as np
import pytest

from drift import InputError, by_use, vectors

# Components and labels, against plain loops.


def count_components(lists):
    """How many sets of rows are connected, by union and find."""
    parent = list(range(len(lists)))

    def root(row):
        while parent[row] != row:
            row = parent[row]
        return row

    for row, neighbors in enumerate(lists):
        for neighbor in neighbors:
            if neighbor >= 0:
                parent[root(row)] = root(neighbor)
    return len({root(row) for row in range(len(lists))})


def random_lists(seed, n, k, missing):
    """Lists without the row itself, some of which end early."""
    rng = np.random.default_rng(seed)
    lists = np.array([rng.permutation(np.delete(np.arange(n), row))[:k] for row in range(n)])
    returned = k - rng.binomial(k, missing, size=n)
    lists[np.arange(k) >= returned[:, None]] = -1
    return lists


def components(lists, block=None):
    joined = np.arange(len(lists))
    for start in range(0, len(lists), block or len(lists)):
        rows = np.arange(len(lists))[start : start + (block or len(lists))]
        joined = by_use.join_components(joined, rows, lists[rows])
    return joined


@pytest.mark.parametrize("block", [None, 1, 7])
@pytest.mark.parametrize(
    ("k", "missing"), [(1, 0.0), (1, 0.5), (2, 0.6), (3, 0.7), (4, 0.0), (5, 1.0)]
)
def test_components_are_those_of_union_and_find(k, missing, block):
    lists = random_lists(10 * k, 80, k, missing)
    expected = count_components(lists.tolist())
    assert (expected > 1) == (k < 4 or missing == 1)
    joined = components(lists, block=block)
    assert sorted(set(joined)) == list(range(expected))
    for row, neighbors in enumerate(lists):
        assert set(joined[neighbors[neighbors >= 0]]) <= {joined[row]}


def test_an_edge_is_there_where_either_lists_the_other():
    lists = np.array([[1], [-1], [-1], [2]])
    assert list(components(lists)) == [0, 0, 1, 1]


def test_however_many_edges_are_between_two_components_they_are_one():
    sides = np.repeat([0, 1], 300)
    lists = np.arange(300, 556)[None].repeat(300, axis=0)
    assert set(by_use.join_components(sides, np.arange(300), lists)) == {0}
    within = np.arange(256)[None].repeat(44, axis=0)
    assert set(by_use.join_components(sides, np.arange(256, 300), within)) == {0, 1}


def majority(neighbors, labels, query=None):
    counts = {}
    for neighbor in neighbors:
        if neighbor >= 0 and neighbor != query and labels[neighbor] >= 0:
            counts[labels[neighbor]] = counts.get(labels[neighbor], 0) + 1
    return min(counts, key=lambda label: (-counts[label], label), default=-1)


@pytest.mark.parametrize("names", [[0, 1], [-1, 3, 7, 500], [-1, -1, -1, 0]])
@pytest.mark.parametrize("is_row", [True, False])
def test_the_majority_label_is_that_of_plain_loops(names, is_row, monkeypatch):
    rng = np.random.default_rng(1)
    labels = rng.choice(names, size=60).astype(np.int16)
    lists = np.array([rng.permutation(60)[:6] for _ in range(200)])
    lists[np.arange(6) >= rng.integers(0, 7, 200)[:, None]] = -1
    queries = rng.integers(0, 60, 200) if is_row else None
    own = queries if is_row else [None] * 200
    expected = [majority(*row) for row in zip(lists, [labels] * 200, own, strict=True)]
    assert {-1, *names} == set(expected), "no neighbor with a label, and each label, are there"
    assert list(by_use.majority_labels(lists, labels, queries)) == expected
    monkeypatch.setattr(by_use, "row_blocks", lambda n, _: vectors.row_blocks(n, 1, 7))
    assert list(by_use.majority_labels(lists, labels, queries)) == expected


def test_of_several_labels_that_are_as_frequent_it_is_the_smallest():
    labels = np.array([5, 5, 2, 2, 9, -1])
    lists = np.array([[0, 1, 2, 3], [4, 0, -1, -1], [5, -1, -1, -1], [5, 5 - 1, -1, -1]])
    assert list(by_use.majority_labels(lists, labels)) == [2, 5, -1, 9]
    assert list(by_use.majority_labels(lists[:1], labels, np.array([3]))) == [5]
    assert list(by_use.majority_labels(lists, np.full(6, -1))) == [-1] * 4


def test_lists_that_cannot_be_are_refused():
    bad = np.array([[1, 2], [0, 4]])
    with pytest.raises(InputError, match="row 1 has an id that is no row of the 4 embeddings: 4"):
        by_use.join_components(np.arange(4), np.arange(2), bad)
    with pytest.raises(InputError, match="row 1 has an id that is no row"):
        by_use.majority_labels(bad, np.zeros(4, int))


# Errors and shares, with answers that are known.


def relative_error(values, exact, seed=0, groups=None):
    return by_use.estimates({"error": (values, exact)}, {}, seed, groups)["error"]


def share(is_so, seed=0, groups=None):
    return by_use.estimates({}, {"share": is_so}, seed, groups)["share"]


@pytest.fixture
def sides():
    rng = np.random.default_rng(2)
    exact = rng.gamma(4, 1, 400)
    return exact * rng.normal(1.1, 0.2, 400), exact


def test_an_error_of_10_percent_is_one_and_has_no_spread():
    exact = np.random.default_rng(0).random(100)
    error = relative_error(1.1 * exact, exact, seed=0)
    assert error == pytest.approx((0.1, 0.1, 0.1, 100))
    assert relative_error(exact, exact, seed=0) == (0, 0, 0, 100)


def test_the_error_is_that_of_the_mean_and_has_one_where_an_exact_value_is_0():
    error = relative_error(np.array([1.0, 3.0, 6.0]), np.array([0.0, 2.0, 6.0]), seed=0)
    assert error.value == pytest.approx(2 / 8)
    assert error.n == 3


def test_queries_without_a_value_on_one_side_are_left_out_on_both(sides):
    values, exact = (side.copy() for side in sides)
    values[:50], exact[50:60] = np.nan, np.nan
    error = relative_error(values, exact, seed=0)
    assert error.n == 340
    assert error.value == pytest.approx(values[60:].mean() / exact[60:].mean() - 1)


@pytest.mark.parametrize("exact", [np.zeros(60), np.full(60, np.nan)])
def test_without_an_exact_value_there_is_no_error(exact):
    error = relative_error(np.ones(60), exact, seed=0)
    assert np.isnan(error[:3]).all()
    assert error.n == np.count_nonzero(exact == 0)


def test_without_groups_the_interval_is_that_of_resampled_ratios(sides):
    values, exact = sides
    draws = np.random.default_rng(5).integers(400, size=(1000, 400))
    ratios = values[draws].mean(axis=1) / exact[draws].mean(axis=1) - 1
    error = relative_error(values, exact, seed=5)
    assert error[1:3] == pytest.approx(np.quantile(ratios, [0.025, 0.975]))
    assert error != relative_error(values, exact, seed=6)
    is_so = values < exact
    estimate = share(is_so, seed=5)
    assert estimate.value == is_so.mean()
    assert estimate[1:3] == pytest.approx(np.quantile(is_so[draws].mean(axis=1), [0.025, 0.975]))


def plain_t_interval(residuals, groups, quantile):
    """Plus and minus t times the standard error of a mean, by group, with the residuals' sums."""
    sums = [sum(residuals[groups == group]) for group in set(groups)]
    n_groups = len(sums)
    variance = n_groups / (n_groups - 1) * sum(one**2 for one in sums) / len(residuals) ** 2
    return quantile * variance**0.5


def test_with_few_groups_the_interval_is_the_t_interval_by_group(sides):
    values, exact = sides
    groups = np.arange(400) % 15 // 2  # 8 groups of other sizes
    values = values + groups
    ratio = values.mean() / exact.mean() - 1
    residuals = (values - exact - ratio * exact) / exact.mean()
    half = plain_t_interval(residuals, groups, quantile=2.364624)  # of 7 degrees
    error = relative_error(values, exact, 0, groups)
    assert error[1:3] == pytest.approx((ratio - half, ratio + half))
    assert half > 3 * (relative_error(values, exact, 0).ci_high - error.value)

    is_so = groups < 1
    half = plain_t_interval(is_so - is_so.mean(), groups, quantile=2.364624)
    assert share(is_so, 0, groups)[1:3] == pytest.approx((0, is_so.mean() + half))


def test_what_is_estimated_together_is_as_alone(sides):
    values, exact = sides
    holes = np.where(np.arange(400) < 9, np.nan, values)
    together = by_use.estimates(
        {"a": sides, "b": (holes, exact)}, {"c": values < exact, "d": exact < 3}, 4
    )
    alone = [relative_error(*sides, 4), relative_error(holes, exact, 4)]
    alone += [share(values < exact, 4), share(exact < 3, 4)]
    assert list(together) == list("abcd")
    for one, other in zip(together.values(), alone, strict=True):
        assert one == pytest.approx(other)


def test_one_group_leaves_no_interval(sides):
    error = relative_error(*sides, 0, np.zeros(400, int))
    assert np.isnan(error[1:3]).all()
    assert error.value == relative_error(*sides, 0).value


def test_nothing_can_be_more_than_gone():
    exact, groups = np.ones(60), np.arange(60) % 2
    error = relative_error(np.where(groups == 0, 0.0, 0.1), exact, 0, groups)
    assert error.ci_low == -1
