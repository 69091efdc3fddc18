"""Each metric against a loop written from the definitions in section 4 of the design."""

import math

import numpy as np
import pytest
import skdim
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.lid import embedded, sphere, torus
from drift import metrics
from drift.exact import ExactSearch

few_examples = settings(deadline=None, max_examples=60)
INF, NAN = np.inf, np.nan


def distance(x, y):
    return math.sqrt(sum((float(a) - float(b)) ** 2 for a, b in zip(x, y, strict=True)))


def by_distance(embeddings, query, ids):
    return sorted(ids, key=lambda i: (distance(embeddings[query], embeddings[i]), i))


def padded(embeddings, query, ids, k):
    """Neighbors in the form that the design gives to lists: -1 and +inf for those missing."""
    lengths = [distance(embeddings[query], embeddings[i]) for i in ids]
    return list(ids) + [-1] * (k - len(ids)), lengths + [INF] * (k - len(ids))


@st.composite
def neighborhoods(draw):
    """Vectors on a coarse grid, hence ties and duplicates, with exact lists and any other lists."""
    n = draw(st.integers(3, 12))
    d = draw(st.integers(1, 3))
    k = draw(st.integers(1, n - 1))
    coordinates = st.lists(st.integers(-2, 2), min_size=d, max_size=d)
    x = np.array(draw(st.lists(coordinates, min_size=n, max_size=n)), np.float32)
    x *= np.float32(draw(st.sampled_from([1, 0.25, 1024])))
    exact, ann = [], []
    for query in range(draw(st.integers(1, n))):
        others = [i for i in range(n) if i != query]
        exact.append(padded(x, query, by_distance(x, query, others)[:k], k))
        # From nothing at all to a full row of any neighbors.
        returned = draw(st.permutations(others))[: draw(st.integers(0, k))]
        ann.append(padded(x, query, by_distance(x, query, returned), k))
    return (
        x,
        np.array([ids for ids, _ in exact], np.int32),
        np.array([lengths for _, lengths in exact], np.float32),
        np.array([ids for ids, _ in ann], np.int32),
        np.array([lengths for _, lengths in ann], np.float32),
    )


def naive_lid(lengths):
    r = [float(length) for length in lengths if length < INF]
    positive = [length for length in r if length > 0]
    if len(positive) < 2 or min(positive) == max(positive):
        return NAN
    logs = [math.log(length / r[-1]) for length in r[:-1] if length > 0]
    return -1 / (sum(logs) / len(logs))


def naive_lid_notebook(lengths):
    s = [float(length) ** 2 for length in lengths]
    if len(s) < 2 or s[-1] == INF:
        return NAN
    logs = [math.log(s_i / (s[-1] + 1e-12) + 1e-12) for s_i in s[:-1]]
    return -1 / (sum(logs) / len(logs))


def barycenter(x, ids):
    return [sum(float(x[i][axis]) for i in ids) / len(ids) for axis in range(x.shape[1])]


def naive_measures(x, exact_ids, exact_lengths, ann_ids, ann_lengths):
    """The table of section 4, for one query."""
    k = len(exact_ids)
    e, a = set(exact_ids), {i for i in ann_ids if i >= 0}
    r_exact, m = [float(r) for r in exact_lengths], len(a)
    r_ann = [float(r) for r in ann_lengths[:m]]
    near = [r for r in r_ann if r <= r_exact[-1] * (1 + 1e-6)]
    shift = distance(barycenter(x, e), barycenter(x, a)) if a else NAN
    return {
        "overlap": len(e & a) / k,
        "recall": min(len(near), k) / k,
        "found": m / k,
        "mean_distance_exact": sum(r_exact) / k,
        "mean_distance_ann": sum(r_ann) / m if m else NAN,
        "kth_distance_exact": r_exact[-1],
        "kth_distance_ann": r_ann[-1] if m else NAN,
        "barycenter_shift": shift,
        "barycenter_shift_relative": shift / r_exact[-1] if r_exact[-1] > 0 else NAN,
        "lid_exact": naive_lid(r_exact),
        "lid_ann": naive_lid(r_ann),
        "lid_difference": naive_lid(r_ann) - naive_lid(r_exact),
    }


def naive(lists):
    x, *per_query = lists
    return [naive_measures(x, *row) for row in zip(*per_query, strict=True)]


def spread_lists(n=400, d=8, k=20, seed=0):
    """Exact lists of normal vectors, and the same with every row's last few replaced or missing."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)).astype(np.float32)
    longer = ExactSearch(x).neighbors(np.arange(n), 2 * k)
    ids, lengths = np.full((n, k), -1, np.int32), np.full((n, k), INF, np.float32)
    for row in range(n):
        m = rng.integers(k // 2, k + 1)
        chosen = np.sort(rng.choice(2 * k, size=m, replace=False))
        ids[row, :m], lengths[row, :m] = longer.indices[row, chosen], longer.distances[row, chosen]
    return x, longer.indices[:, :k], longer.distances[:, :k], ids, lengths


def measure(lists):
    x, exact_ids, exact_lengths, ann_ids, ann_lengths = lists
    ann = {ann_ids.shape[1]: (ann_ids, ann_lengths)}
    return {name: of for name, (of,) in metrics.measure(exact_ids, exact_lengths, ann, x).items()}


@few_examples
@given(neighborhoods())
def test_all_metrics_are_their_definitions(lists):
    measured = measure(lists)
    assert list(measured) == [metric.name for metric in metrics.METRICS]
    expected = naive(lists)
    scale = np.abs(lists[0]).max()
    for name, values in measured.items():
        assert values.dtype == np.float64
        # A shift is a float32 sum of rows: its error is a share of the rows, not of itself.
        atol = 1e-5 * scale if name == "barycenter_shift" else 1e-5
        np.testing.assert_allclose(
            values, [row[name] for row in expected], rtol=2e-5, atol=atol, err_msg=name
        )


def test_all_metrics_on_vectors_without_ties():
    lists = spread_lists()
    expected = naive(lists)
    for name, values in measure(lists).items():
        np.testing.assert_allclose(
            values, [row[name] for row in expected], rtol=1e-5, atol=1e-6, err_msg=name
        )


@few_examples
@given(neighborhoods(), st.randoms(use_true_random=False))
def test_lists_of_all_lengths_in_one_pass_are_measured_as_each_by_itself(lists, random):
    x, exact_ids, exact_lengths, _, _ = lists
    ann = {}
    for k in range(1, exact_ids.shape[1] + 1):
        # A list need not continue the one before it, and can be short where that one was full.
        rows = []
        for query in range(len(exact_ids)):
            others = [i for i in range(len(x)) if i != query]
            returned = random.sample(others, random.randint(0, k))
            if ann and random.random() < 0.5:
                kept = [i for i in ann[k - 1][0][query] if i >= 0]
                returned = kept + [i for i in returned if i not in kept][: k - len(kept)]
            rows.append(padded(x, query, by_distance(x, query, returned), k))
        ids, lengths = (np.array(side) for side in zip(*rows, strict=True))
        ann[k] = ids.astype(np.int32), lengths.astype(np.float32)
    together = metrics.measure(exact_ids, exact_lengths, ann, x)
    for at, (k, of_k) in enumerate(ann.items()):
        alone = measure((x, exact_ids[:, :k], exact_lengths[:, :k], *of_k))
        for name, values in alone.items():
            # A sum that was followed through all lengths was rounded at each of them.
            atol = 1e-5 * np.abs(x).max() if name.startswith("barycenter") else 1e-12
            np.testing.assert_allclose(
                together[name][at], values, rtol=1e-6, atol=atol, err_msg=f"{name} at {k}"
            )


def test_barycenter_shift_is_exact_where_a_list_recovers_or_comes_back_short():
    # 30 lengths, of which every third is short and every other third complete, at a large offset.
    rng = np.random.default_rng(0)
    x = (1000 + rng.normal(size=(400, 16))).astype(np.float32)
    exact = ExactSearch(x).neighbors(np.arange(400), 60)
    ann = {}
    for k in range(2, 61, 2):
        ids = exact.indices[:, :k].copy()
        lengths = exact.distances[:, :k].copy()
        if k % 3:
            ids[:, k // 2 :], lengths[:, k // 2 :] = -1, INF
        ann[k] = ids, lengths
    shift = metrics.measure(exact.indices, exact.distances, ann, x)["barycenter_shift"]
    for at, k in enumerate(ann):
        means = [
            np.array([x[row[row >= 0]].astype(float).mean(axis=0) for row in ids])
            for ids in (exact.indices[:, :k], ann[k][0])
        ]
        expected = np.linalg.norm(means[0] - means[1], axis=1)
        if k % 3:
            # Each of k rows is rounded at 1000 by up to 2^-24 of it, and so are their sums.
            np.testing.assert_allclose(shift[at], expected, atol=1000 * 2.0**-24 * 16)
        else:
            assert (shift[at] == 0).all()


@few_examples
@given(neighborhoods())
def test_shares_are_between_zero_and_one_and_overlap_is_no_more_than_recall_or_found(lists):
    measured = measure(lists)
    for name in ("overlap", "recall", "found"):
        assert ((measured[name] >= 0) & (measured[name] <= 1)).all()
    assert (measured["overlap"] <= measured["found"]).all()
    assert (measured["overlap"] <= measured["recall"]).all()


@few_examples
@given(neighborhoods(), st.randoms(use_true_random=False))
def test_order_of_ids_in_a_row_does_not_matter(lists, random):
    x, exact, _, ann, _ = lists
    orders = [random.sample(range(exact.shape[1]), exact.shape[1]) for _ in range(2)]
    shuffled = exact[:, orders[0]], ann[:, orders[1]]
    np.testing.assert_array_equal(
        metrics.neighborhood_overlap(*shuffled), metrics.neighborhood_overlap(exact, ann)
    )
    np.testing.assert_array_equal(metrics.found(shuffled[1]), metrics.found(ann))
    np.testing.assert_allclose(
        metrics.barycenter_shift(x, *shuffled),
        metrics.barycenter_shift(x, exact, ann),
        atol=1e-5 * np.abs(x).max(),
    )


def test_equal_lists_do_not_differ():
    x, exact, lengths, _, _ = spread_lists()
    measured = measure((x, exact, lengths, exact, lengths))
    for name in ("overlap", "recall", "found"):
        assert (measured[name] == 1).all()
    for name in ("barycenter_shift", "barycenter_shift_relative", "lid_difference"):
        assert (measured[name] == 0).all()


def test_overlap_and_found_with_missing_neighbors():
    exact = np.array([[1, 2, 3, 4]] * 5)
    ann = np.array([[1, 2, 3, 4], [4, 9, 1, 8], [2, 1, -1, -1], [-1] * 4, [9, 8, 7, 0]])
    np.testing.assert_array_equal(metrics.neighborhood_overlap(exact, ann), [1, 0.5, 0.5, 0, 0])
    np.testing.assert_array_equal(metrics.found(ann), [1, 1, 0.5, 0, 1])


def test_missing_neighbors_on_both_sides_do_not_overlap():
    exact = np.array([[1, 2, -1, -1]])
    np.testing.assert_array_equal(
        metrics.neighborhood_overlap(exact, np.array([[2, 5, -1, -1]])), [0.25]
    )


def test_overlap_of_the_largest_id_is_not_taken_for_a_missing_one():
    np.testing.assert_array_equal(
        metrics.neighborhood_overlap(np.array([[6, 9]]), np.array([[9, -1]])), [0.5]
    )


def test_overlap_of_lists_of_different_lengths_is_refused():
    with pytest.raises(ValueError, match=r"one shape .* \(1, 2\) and \(1, 3\)"):
        metrics.neighborhood_overlap([[1, 2]], [[1, 2, 3]])


def test_overlap_of_more_queries_than_fit_one_block():
    # Ids near a million: each query's row of marks is a megabyte, and a block holds four.
    rng = np.random.default_rng(0)
    exact = np.stack([rng.choice(1_000_000, 20, replace=False) for _ in range(11)])
    ann = exact.copy()
    for row in range(11):
        ann[row, row:] = -1
    np.testing.assert_allclose(metrics.neighborhood_overlap(exact, ann), np.arange(11) / 20)


def test_recall_counts_ties_and_not_what_is_missing():
    exact = np.array([[1, 2, 2]] * 5, np.float32)
    ann = [[1, 2, 2], [2, 2, 2], [1, 2, 3], [1, INF, INF], [INF, INF, INF]]
    np.testing.assert_allclose(
        metrics.recall(exact, np.array(ann, np.float32)), [1, 1, 2 / 3, 1 / 3, 0]
    )


def test_recall_tolerates_one_part_in_a_million():
    exact = np.array([[1.0, 2.0]] * 3)
    ann = np.array([[1.0, 2 * (1 + 0.9e-6)], [1.0, 2 * (1 + 1.1e-6)], [2.1, 2.2]])
    np.testing.assert_array_equal(metrics.recall(exact, ann), [1, 0.5, 0])


def test_mean_and_last_distance_of_short_rows():
    lengths = np.array([[1, 2, 6], [1, 2, INF], [3, INF, INF], [INF] * 3], np.float32)
    np.testing.assert_array_equal(metrics.mean_distance(lengths), [3, 1.5, 3, NAN])
    np.testing.assert_array_equal(metrics.kth_distance(lengths), [6, 2, 3, NAN])


def test_recall_of_the_same_neighbors_is_all_in_half_precision_too():
    exact = np.sort(np.random.default_rng(0).random((200, 10), np.float32), axis=1)
    half = exact.astype(np.float16)
    assert (half[:, -1] > exact[:, -1] * (1 + 1e-6)).any()
    for sides in ((exact, half), (half, exact)):
        assert (metrics.recall(*sides) == 1).all()
    farther = exact.copy()
    farther[:, -1] *= 1 + 1e-5
    assert (metrics.recall(exact, farther) == 0.9).all()


def test_barycenter_shift_of_full_short_and_empty_rows():
    x = np.array([[0, 0], [2, 0], [0, 2], [2, 2], [7, 9]], np.float32)
    exact = np.array([[0, 1, 2, 3]] * 6)
    ann = [[3, 2, 1, 0], [0, 1, 2, 4], [0, 1, -1, -1], [3, -1, -1, -1], [4, -1, -1, -1], [-1] * 4]
    barycenters = [[1, 1], [9 / 4, 11 / 4], [1, 0], [2, 2], [7, 9], [NAN, NAN]]
    shift = [math.hypot(a - 1, b - 1) for a, b in barycenters]
    np.testing.assert_allclose(
        metrics.barycenter_shift(x, exact, np.array(ann)), shift, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("offset", [30, 1e4])
def test_barycenter_shift_does_not_depend_on_the_origin(offset):
    x, exact, _, ann, _ = spread_lists()
    # Steps of 1/64, so that nothing is rounded where they are added to the offset.
    x = np.round(64 * x) / np.float32(64)
    np.testing.assert_allclose(
        metrics.barycenter_shift(x + np.float32(offset), exact, ann),
        metrics.barycenter_shift(x, exact, ann),
        atol=1e-6 * np.abs(x).max(),
    )


def test_barycenter_shift_of_more_queries_than_fit_one_block():
    x, exact, _, ann, _ = spread_lists(k=20)
    repeats = 300
    got = metrics.barycenter_shift(x, np.tile(exact, (repeats, 1)), np.tile(ann, (repeats, 1)))
    np.testing.assert_allclose(
        got, np.tile(metrics.barycenter_shift(x, exact, ann), repeats), rtol=1e-6
    )


def test_lid_is_the_maximum_likelihood_estimate_of_another_package():
    _, _, lengths, _, _ = spread_lists(k=50)
    # skdim's MLE divides k - 1 by the sum of ln(r_k / r_i): ours to the letter. Its unbiased form
    # divides k - 2.
    biased, unbiased = (
        skdim.id.MLE(unbiased=unbiased).fit(
            np.zeros((len(lengths), 2)), precomputed_knn_arrays=(lengths.astype(np.float64), None)
        )
        for unbiased in (False, True)
    )
    np.testing.assert_allclose(metrics.lid(lengths), biased.dimension_pw_, rtol=1e-10)
    np.testing.assert_allclose(metrics.lid(lengths) * 48 / 49, unbiased.dimension_pw_, rtol=1e-10)


@pytest.mark.parametrize("manifold", [torus, sphere])
@pytest.mark.parametrize("dimension", [2, 5, 10, 20])
def test_lid_on_manifolds_in_64_dimensions_is_that_of_another_package(manifold, dimension):
    rng = np.random.default_rng(0)
    x = embedded(manifold(1000, dimension, rng), rng)
    found = ExactSearch(x).neighbors(np.arange(1000), 100)
    theirs = skdim.id.MLE(unbiased=False).fit_transform_pw(
        x, precomputed_knn_arrays=(found.distances.astype(np.float64), found.indices)
    )
    np.testing.assert_allclose(metrics.lid(found.distances), theirs, rtol=1e-6)


def test_lid_recovers_a_power_law():
    # At distances with P(r < t) = t^D, -ln r is exponential with mean 1 / D, whatever the last one
    # is: 1 / lid has mean 1 / D and, over 2,000 queries and k = 100, a relative error of 0.0023.
    rng = np.random.default_rng(0)
    for dimension in (1, 5, 30):
        lengths = np.sort(rng.uniform(size=(2000, 100)) ** (1 / dimension), axis=1)
        assert np.mean(1 / metrics.lid(lengths)) * dimension == pytest.approx(1, abs=0.01)


def test_lid_on_flat_tori_of_known_dimension():
    n, k, rng = 4000, 100, np.random.default_rng(0)
    for dimension in (2, 5):
        angles = rng.uniform(0, 2 * np.pi, size=(n, dimension))
        x = np.hstack([np.cos(angles), np.sin(angles)]).astype(np.float32)
        got = metrics.lid(ExactSearch(x).neighbors(np.arange(n), k).distances)

        # 100 of 4,000 neighbors reach far enough in five dimensions to feel the chords (2 sin(t/2)
        # for an angle t), so what to expect comes from the distances between independent angles.
        angles = rng.uniform(0, 2 * np.pi, size=(1_000_000, dimension))
        chords = np.sort(np.sqrt((4 * np.sin(angles / 2) ** 2).sum(axis=1)))
        ball = chords[: len(chords) * k // n]
        expected = 1 / np.mean(np.log(ball[-1] / ball)) * (k - 1) / (k - 2)
        # Single estimates scatter by 1 / sqrt(k); n / k neighborhoods do not share neighbors. Their
        # mean has a standard error of 1 / sqrt(n), 1.6 %: three of them.
        assert got.mean() == pytest.approx(expected, rel=0.05)
        if dimension == 2:
            assert got.mean() == pytest.approx(dimension, rel=0.05)
        # And nearly unbiased where the ball is small.
        small = metrics.lid(ExactSearch(x).neighbors(np.arange(n), 10).distances)
        assert 1 / np.mean(1 / small) == pytest.approx(dimension, rel=0.08)


def test_lid_does_not_depend_on_the_unit():
    _, _, lengths, _, short = spread_lists()
    for of in (lengths.astype(np.float64), short.astype(np.float64)):
        np.testing.assert_allclose(metrics.lid(of * 1e-3), metrics.lid(of), rtol=1e-9)
        # Squares halve it: the notebook's first mistake.
        np.testing.assert_allclose(metrics.lid(of**2), metrics.lid(of) / 2, rtol=1e-9)


def test_lid_by_hand():
    lengths = [
        [1, math.e, math.e**2],
        [0, 1, math.e],
        [0, 0, 1],
        [0, 0, 0],
        [2, 2, 2],
        [0, 2, 2],
        [1, 2, 2],
        [1, math.e, INF],
        [1, INF, INF],
        [0, 1, INF],
        [INF, INF, INF],
    ]
    expected = [2 / 3, 1, NAN, NAN, NAN, NAN, 2 / math.log(2), 1, NAN, NAN, NAN]
    np.testing.assert_allclose(metrics.lid(np.array(lengths)), expected, rtol=1e-12)


def test_lid_of_one_neighbor_is_not_a_number():
    assert np.isnan(metrics.lid(np.array([[1.0], [0.0], [INF]]))).all()


@few_examples
@given(neighborhoods(), st.booleans())
def test_notebook_lid_is_its_definition(lists, with_self):
    for lengths in (lists[2], lists[4]):
        lengths = np.insert(lengths, 0, 0, axis=1) if with_self else lengths
        # Without the self match the last distances may equal the first, and the mean log be 0.
        usable = lengths[:, 0] < lengths[:, -1]
        np.testing.assert_allclose(
            metrics.lid_notebook(lengths[usable]),
            np.array([naive_lid_notebook(row) for row in lengths[usable]]),
            rtol=1e-9,
        )


def test_notebook_lid_is_dominated_by_the_self_match():
    lengths = np.array([[0, 8.0, 8.5, 9.0]])
    logs = [math.log(1e-12), math.log(64 / 81), math.log(8.5**2 / 81)]
    expected = -3 / sum(logs)
    np.testing.assert_allclose(metrics.lid_notebook(lengths), [expected], rtol=1e-9)
    assert expected == pytest.approx(3 / 27.6, rel=0.02)


def test_notebook_measures():
    exact = np.array([[0, 1, 3], [0, 1, 2]], np.float32)
    ann = np.array([[0, 1, 4], [0, 1, INF]], np.float32)
    ids = np.array([[0, 1, 2], [0, 1, -1]])
    measured = metrics.measure_notebook(exact, {3: (ids, ann)})
    assert list(measured) == [metric.name for metric in metrics.NOTEBOOK_METRICS]
    measured = {name: of for name, (of,) in measured.items()}
    np.testing.assert_allclose(measured["kth_squared_distance_exact"], [9, 4])
    np.testing.assert_allclose(measured["kth_squared_distance_ann"], [16, NAN])
    np.testing.assert_allclose(
        measured["lid_notebook_exact"], [naive_lid_notebook(row) for row in exact]
    )
    np.testing.assert_allclose(
        measured["lid_notebook_ann"], [naive_lid_notebook(row) for row in ann]
    )


def test_hubness_and_orphans_of_known_in_degrees():
    # In-degrees 3, 1, 1, 1, 0, 0: mean 1, second and third central moments 1 and 1.
    lists = np.array([[1, 2], [0, 3], [0, -1], [0, -1], [-1, -1], [-1, -1]])
    counts = metrics.occurrences(lists, 6)
    np.testing.assert_array_equal(counts, [3, 1, 1, 1, 0, 0])
    assert metrics.hubness(counts) == pytest.approx(1.0)
    assert metrics.orphans(counts) == pytest.approx(2 / 6)


def test_ring_has_neither_hubs_nor_orphans():
    rows = np.arange(9)
    ring = metrics.occurrences(np.stack([(rows + 1) % 9, (rows - 1) % 9], axis=1), 9)
    assert metrics.hubness(ring) == 0
    assert metrics.orphans(ring) == 0


def test_star_has_one_hub():
    # Everyone's neighbor is row 0, whose neighbor is row 1: in-degrees n - 1, 1, 0, 0, ...
    n = 50
    star = np.zeros((n, 1), int)
    star[0] = 1
    counts = metrics.occurrences(star, n)
    deviations = np.array([n - 1, 1] + [0] * (n - 2)) - 1
    assert metrics.hubness(counts) == pytest.approx(
        (deviations**3).mean() / (deviations**2).mean() ** 1.5
    )
    assert metrics.orphans(counts) == pytest.approx((n - 2) / n)


def test_rows_beyond_the_largest_id_are_orphans():
    nobody = metrics.occurrences(np.full((4, 2), -1), 4)
    assert metrics.orphans(metrics.occurrences(np.array([[1], [0]]), 8)) == pytest.approx(6 / 8)
    assert metrics.orphans(nobody) == 1
    assert metrics.hubness(nobody) == 0


def test_tables_of_metrics_name_each_once():
    names = [
        metric.name for metric in metrics.METRICS + metrics.NOTEBOOK_METRICS + metrics.GRAPH_METRICS
    ]
    assert len(set(names)) == len(names)
