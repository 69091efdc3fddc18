"""What lists change in use, against plain loops, other libraries, and answers that are known."""

import sys

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from drift import InputError, by_use, vectors
from drift.intervals import estimate_mean, estimate_ratio

# Clusters.


def random_lists(seed, n, k, missing):
    """Lists without the row itself, some of which end early."""
    rng = np.random.default_rng(seed)
    lists = np.array([rng.permutation(np.delete(np.arange(n), row))[:k] for row in range(n)])
    returned = k - rng.binomial(k, missing, size=n)
    lists[np.arange(k) >= returned[:, None]] = -1
    return lists


def edges_of(lists):
    """By plain loops."""
    joined = {(min(i, j), max(i, j)) for i, row in enumerate(lists.tolist()) for j in row if j >= 0}
    return sorted(pair for pair in joined if pair[0] != pair[1])


@pytest.mark.parametrize(("k", "missing"), [(1, 0.0), (4, 0.5), (9, 0.0), (3, 1.0)])
def test_an_edge_is_there_once_where_either_lists_the_other(k, missing, monkeypatch):
    lists = random_lists(k, 60, k, missing)
    expected = edges_of(lists)
    assert by_use.knn_edges(lists).tolist() == [list(pair) for pair in expected]
    # The query in its own list, as in a publication's protocol, is joined to nothing.
    with_query = np.column_stack([np.arange(60), lists])
    assert by_use.knn_edges(with_query).tolist() == [list(pair) for pair in expected]
    for most in (len(expected), len(expected) - 1, len(expected) // 3):
        monkeypatch.setattr(by_use, "MOST_EDGES", most)
        if most >= len(expected):
            assert len(by_use.knn_edges(lists)) == most
        else:
            with pytest.raises(InputError, match=f"the k-NN graph has more than {most} edges"):
                by_use.knn_edges(lists)


@pytest.mark.parametrize("names", [(1, 1), (2, 3), (7, 40), (300, 300)])
def test_the_adjusted_rand_index_is_that_of_scikit_learn(names):
    rng = np.random.default_rng(sum(names))
    for _ in range(20):
        first, second = (rng.integers(0, n, 300) for n in names)
        second = np.where(rng.random(300) < 0.5, first, second)
        expected = adjusted_rand_score(first, second)
        assert by_use.adjusted_rand_index(first, second) == pytest.approx(expected, abs=1e-12)
        assert by_use.adjusted_rand_index(-first, first) == 1
    alone = np.arange(300)
    assert by_use.adjusted_rand_index(alone, alone) == 1
    assert by_use.adjusted_rand_index(alone, 0 * alone) == 0


@pytest.fixture
def rings():
    """Lists of four rings of 30 rows, and the same where two rings are one."""
    row, ring = np.arange(120) % 30, np.arange(120) // 30
    steps = np.array([1, 2, 29, 28])
    apart = (row[:, None] + steps) % 30 + 30 * ring[:, None]
    mixed = apart.copy()
    mixed[:60] = np.random.default_rng(0).permuted(np.tile(np.arange(60), (60, 1)), axis=1)[:, :4]
    return apart, mixed


def test_clusters_are_found_again_where_lists_keep_them(rings):
    pytest.importorskip("igraph")
    # Each ring is one cluster for each of three seeds, whatever these are, or a few arcs of it.
    apart, mixed = (by_use.leiden_partitions(lists, seed=5) for lists in rings)
    again = by_use.leiden_partitions(rings[0], seed=6)
    assert len(apart) == 3
    np.testing.assert_array_equal(apart[1:], again[:2])
    same, other = by_use.estimate_clusters(apart, apart), by_use.estimate_clusters(apart, mixed)
    assert list(same) == [
        ("clusters", name) for name in ("clusters_exact", "clusters_ann", "ari", "ari_yardstick")
    ]
    values = {name: estimate.value for (_, name), estimate in other.items()}
    pairs = [adjusted_rand_score(one, two) for one in apart for two in mixed]
    own = [adjusted_rand_score(apart[i], apart[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert values["ari"] == pytest.approx(np.median(pairs))
    assert values["ari_yardstick"] == pytest.approx(np.median(own))
    assert values["clusters_exact"] == np.median([len(set(one)) for one in apart]) >= 4
    assert values["clusters_ann"] == np.median([len(set(one)) for one in mixed])
    assert values["ari"] < same["clusters", "ari"].value
    for estimate in other.values():
        assert np.isnan(estimate[1:3]).all() and estimate[3:] == (120, -1)


def test_without_igraph_it_says_what_to_install(rings, monkeypatch):
    monkeypatch.setitem(sys.modules, "igraph", None)
    with pytest.raises(InputError, match=r"not installed: .* requirements-leiden\.txt"):
        by_use.leiden_partitions(rings[0])


# Classes.


def right(neighbors, labels, query):
    """How often a draw among the most frequent labels of the neighbors is the query's own."""
    counts = {}
    for neighbor in neighbors:
        if neighbor >= 0 and neighbor != query and labels[neighbor] >= 0:
            counts[labels[neighbor]] = counts.get(labels[neighbor], 0) + 1
    if labels[query] < 0:
        return np.nan
    most = [label for label in counts if counts[label] == max(counts.values())]
    return (labels[query] in most) / max(1, len(most))


@pytest.mark.parametrize("names", [[0, 1], [-1, 3, 7, 500], [-1, -1, -1, 0]])
def test_classification_is_that_of_plain_loops(names, monkeypatch):
    rng = np.random.default_rng(1)
    labels = rng.choice(names, size=60).astype(np.int16)
    lists = np.array([rng.permutation(60)[:6] for _ in range(200)])
    lists[np.arange(6) >= rng.integers(0, 7, 200)[:, None]] = -1
    queries = rng.integers(0, 60, 200)
    expected = [right(row, labels, query) for row, query in zip(lists, queries, strict=True)]
    assert {0, 1} < set(expected) or len(names) > 3, "ties are there"
    got = by_use.classification(lists, labels, queries)
    np.testing.assert_array_equal(got, expected)
    monkeypatch.setattr(by_use, "row_blocks", lambda n, _: vectors.row_blocks(n, 1, 7))
    np.testing.assert_array_equal(by_use.classification(lists, labels, queries), expected)


def test_of_labels_that_are_as_frequent_each_is_right_as_often():
    labels = np.array([5, 5, 2, 2, 9, -1])
    lists = np.array([[1, 2, 3, 4], [1, 2, -1, -1], [5, -1, -1, -1], [0, 1, 2, 3], [3, -1, -1, -1]])
    got = by_use.classification(lists, labels, np.array([2, 0, 0, 5, 3]))
    # Of the query itself no vote is taken.
    np.testing.assert_array_equal(got, [1 / 3, 0.5, 0, np.nan, 0])
    assert np.isnan(by_use.classification(lists, np.full(6, -1), np.arange(5))).all()
    with pytest.raises(InputError, match="row 0 has an id that is no row of the 4 embeddings: 4"):
        by_use.classification(lists, labels[:4], np.arange(5))


def test_accuracies_are_paired():
    rng = np.random.default_rng(0)
    exact, groups = (rng.random(90) < 0.7).astype(float), np.arange(90) % 9
    ann, exact[0] = np.where(rng.random(90) < 0.1, 0.5, exact), np.nan
    ann[0] = np.nan
    uses = by_use.estimate_classes(exact, ann, groups)
    difference = uses["classes", "accuracy_difference"]
    assert difference == estimate_mean(ann - exact, groups, 0, (-1, 1))
    assert difference.n == 89 and difference.value == pytest.approx(np.nanmean(ann - exact))
    assert uses["classes", "accuracy_ann"][:3] == estimate_mean(ann, groups, bounds=(0, 1))[:3]
    assert difference.ci_high - difference.ci_low < 0.2


# Distances.


@pytest.fixture
def values():
    """Metrics of 400 queries, some of which have no neighbor, or no distance above 0."""
    rng = np.random.default_rng(2)
    found = np.where(rng.random(400) < 0.3, rng.uniform(0.1, 1, 400), 1)
    exact = {"kth_distance": rng.gamma(9, 1, 400), "lid": rng.gamma(9, 1, 400)}
    values = {"overlap": found, "recall": np.sqrt(found), "found": found}
    for side, factor in (("exact", 1), ("ann", 1.1), ("reported", 0.8)):
        noise = rng.normal(factor, 0.1 * (factor != 1), 400)
        values |= {f"{name}_{side}": column * noise for name, column in exact.items()}
        values[f"lid_inverse_{side}"] = rng.uniform(0.9, 1.1, 400) / values[f"lid_{side}"]
    values["lid_exact_cut"] = exact["lid"] * rng.uniform(1, 1.1, 400)
    values["kth_distance_ann"][:3], values["kth_distance_exact"][3:5] = np.nan, 0
    values["kth_distance_ann"][9] = values["kth_distance_reported"][9] = 0
    for name in ("lid_ann", "lid_inverse_ann"):
        values[name][:9] = np.nan
    return values


@pytest.mark.parametrize("side", ["ann", "reported"])
@pytest.mark.parametrize("groups", [None, np.arange(400) % 12])
def test_errors_are_those_of_the_curves_and_the_factor_is_of_densities(values, side, groups):
    uses = by_use.estimate_uses(values, groups, side)
    ratios = {
        ("density", "kth_distance_error"): (f"kth_distance_{side}", "kth_distance_exact"),
        ("dimension", "lid_error"): (f"lid_{side}", "lid_exact"),
        ("dimension", "lid_cut_error"): ("lid_exact_cut", "lid_exact"),
        ("dimension", "lid_pooled_error"): ("lid_inverse_exact", f"lid_inverse_{side}"),
    }
    assert set(uses) == {*ratios, ("density", "factor")}
    for use, (over, under) in ratios.items():
        assert uses[use] == estimate_ratio(values[over], values[under], groups)
    # The LID of the queries that have one on both sides.
    pooled = 1 / values["lid_inverse_exact"][9:].mean()
    logs = np.full(400, np.nan)
    for i in range(400):
        exact, ann = values["kth_distance_exact"][i], values[f"kth_distance_{side}"][i]
        if exact > 0 and ann > 0:
            logs[i] = np.log(values["found"][i]) - pooled * np.log(ann / exact)
    expected, factor = estimate_mean(logs, groups), uses["density", "factor"]
    assert factor[:3] == pytest.approx(np.exp(expected[:3]))
    assert factor.n == expected.n == (394 if side == "ann" else 397)


def test_a_density_of_farther_neighbors_is_lower_by_the_power_of_the_lid(values):
    same = {name: np.full(400, column) for name, column in dict.fromkeys(values, 1.0).items()}
    same |= {"lid_inverse_exact": np.full(400, 0.1), "kth_distance_ann": np.full(400, 1.05)}
    factor = by_use.estimate_uses(same)["density", "factor"]
    assert factor == pytest.approx((1.05**-10, 1.05**-10, 1.05**-10, 400, 400))
    half = by_use.estimate_uses(same | {"found": np.full(400, 0.5)})["density", "factor"]
    assert half.value == pytest.approx(0.5 * factor.value)


# Shares.


@pytest.mark.parametrize(("n_groups", "far"), [(15, 0.2180), (2, 0.8419), (400, 0.00918)])
@pytest.mark.parametrize("edge", [0, 1])
def test_what_never_happened_in_a_few_groups_may_still_happen(n_groups, far, edge):
    groups = np.arange(1200) % n_groups
    share = by_use.estimate_share(np.full(1200, float(edge)), groups, no_loss=edge)
    expected = (0, 0, far) if edge == 0 else (1, 1 - far, 1)
    assert share[:3] == pytest.approx(expected, abs=1e-4)
    assert share[3:] == (1200, 0)


def test_the_edge_is_of_more_than_half_of_the_groups():
    for n, bad, is_wide in ((15, 7, True), (15, 8, False), (14, 7, False)):
        groups = np.arange(100 * n) % n
        shares = (groups < bad) & (np.arange(100 * n) < 10 * n)
        share, plain = by_use.estimate_share(shares * 1.0, groups), estimate_mean(shares, groups)
        assert share.value == plain.value
        far = 1 - 0.025 ** (1 / n)
        assert plain.ci_high < far == pytest.approx(share.ci_high) or not is_wide
        assert (share.ci_high > plain.ci_high) is is_wide
        others = by_use.estimate_share(1.0 - shares, groups)
        mirrored = 1 - share.value, 1 - share.ci_high, 1 - share.ci_low
        assert others[:3] == pytest.approx(mirrored)
    assert np.isnan(by_use.estimate_share(np.zeros(9), np.zeros(9, int))[1:3]).all()


def test_retrieval_is_the_share_below_nine_tenths(values):
    groups = np.arange(400) % 12
    uses = by_use.estimate_retrieval(values, groups)
    for name in ("overlap", "recall"):
        below = (values[name] < 0.9).astype(float)
        assert uses["retrieval", f"below_{name}"] == by_use.estimate_share(below, groups, 0)
        assert 0.05 < uses["retrieval", f"below_{name}"].value < 0.5
