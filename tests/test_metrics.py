"""Each metric against a loop written from its definition."""

import math

import numpy as np
import pytest
import scipy.stats
import skdim
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.lid import mean_over_balls
from drift import InputError, metrics
from drift.exact import ExactSearch, expanded_neighbors
from drift.neighbor_lists import refuse_faulty_lists
from drift.protocols import Protocol
from drift.published import notebook
from drift.set_differences import query_blocks
from drift.vectors import vector_norms

few_examples = settings(deadline=None, max_examples=60)
INF, NAN = np.inf, np.nan


def distance(x, y):
    return math.sqrt(sum((float(a) - float(b)) ** 2 for a, b in zip(x, y, strict=True)))


def by_distance(embeddings, query, ids):
    return sorted(ids, key=lambda i: (distance(embeddings[query], embeddings[i]), i))


def padded(embeddings, query, ids, k):
    """Neighbors in the form of lists: -1 and +inf for those missing."""
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
    if len(positive) < 3 or max(positive) <= min(positive) * (1 + 1e-6):
        return NAN
    return -(len(positive) - 2) / sum(math.log(length / r[-1]) for length in positive)


def naive_inverse_lid(lengths):
    p = sum(0 < length < INF for length in lengths)
    return (p - 2) / (p - 1) / naive_lid(lengths) if p > 1 else NAN


def naive_ratio(r_exact, r_ann):
    terms = []
    for i, r in enumerate(r_exact):
        if i >= len(r_ann):
            terms.append(0)
        else:
            terms.append(min(1, r / r_ann[i]) if r_ann[i] > 0 else 1)
    return sum(terms) / len(r_exact)


def barycenter(x, ids):
    return [sum(float(x[i][axis]) for i in ids) / len(ids) for axis in range(x.shape[1])]


def naive_metrics(x, exact_ids, exact_lengths, ann_ids, ann_lengths):
    """All metrics of one query."""
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
        "distance_ratio": naive_ratio(r_exact, r_ann),
        "barycenter_shift": shift,
        "barycenter_shift_relative": shift / r_exact[-1] if r_exact[-1] > 0 else NAN,
        "lid_exact": naive_lid(r_exact),
        "lid_ann": naive_lid(r_ann),
        "lid_difference": naive_lid(r_ann) - naive_lid(r_exact),
        "lid_exact_cut": naive_lid(r_exact[:m]),
        "lid_inverse_exact": naive_inverse_lid(r_exact),
        "lid_inverse_ann": naive_inverse_lid(r_ann),
    }


def naive(lists):
    x, *per_query = lists
    return [naive_metrics(x, *row) for row in zip(*per_query, strict=True)]


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


def computed(lists):
    x, exact_ids, exact_lengths, ann_ids, ann_lengths = lists
    ann = {ann_ids.shape[1]: (ann_ids, ann_lengths)}
    return {
        name: values
        for name, (values,) in metrics.compute_metrics(exact_ids, exact_lengths, ann, x).items()
    }


@few_examples
@given(neighborhoods())
def test_all_metrics_are_their_definitions(lists):
    measured = computed(lists)
    assert list(measured) == [metric.name for metric in metrics.METRICS]
    expected = naive(lists)
    scale = np.abs(lists[0]).max()
    for name, values in measured.items():
        assert values.dtype == np.float64
        atol = 1e-12 * scale if name == "barycenter_shift" else 1e-5
        np.testing.assert_allclose(
            values, [row[name] for row in expected], rtol=2e-5, atol=atol, err_msg=name
        )


def test_all_metrics_on_vectors_without_ties():
    lists = spread_lists()
    expected = naive(lists)
    for name, values in computed(lists).items():
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
    together = metrics.compute_metrics(exact_ids, exact_lengths, ann, x)
    for i, (k, lists_of_k) in enumerate(ann.items()):
        alone = computed((x, exact_ids[:, :k], exact_lengths[:, :k], *lists_of_k))
        for name, values in alone.items():
            atol = 1e-12 * np.abs(x).max()
            np.testing.assert_allclose(
                together[name][i], values, rtol=1e-6, atol=atol, err_msg=f"{name} at {k}"
            )


def test_threads_and_blocks_of_queries_change_no_bit():
    x, exact_ids, exact_lengths, ids, lengths = spread_lists(n=600, d=1000)
    ann = {10: (exact_ids[:, :10], exact_lengths[:, :10]), 20: (ids, lengths)}
    whole = metrics.compute_metrics(exact_ids, exact_lengths, ann, x)
    for threads in (2, 5):
        blocks = query_blocks(exact_ids, x, threads)
        assert np.diff(blocks).ravel().tolist() == [600 // threads] * threads, "each has the same"
        again = metrics.compute_metrics(exact_ids, exact_lengths, ann, x, threads=threads)
        for name, values in whole.items():
            np.testing.assert_array_equal(again[name], values, err_msg=name)
    for start in (0, 7, 599):
        few = {k: (ids[start:], lengths[start:]) for k, (ids, lengths) in ann.items()}
        part = metrics.compute_metrics(exact_ids[start:], exact_lengths[start:], few, x)
        for name, values in whole.items():
            np.testing.assert_array_equal(part[name], values[:, start:], err_msg=name)


def test_equal_lists_do_not_differ():
    x, exact, lengths, _, _ = spread_lists()
    measured = computed((x, exact, lengths, exact, lengths))
    for name in ("overlap", "recall", "found"):
        assert (measured[name] == 1).all()
    for name in ("barycenter_shift", "barycenter_shift_relative", "lid_difference"):
        assert (measured[name] == 0).all()


def test_overlap_and_found_by_hand():
    exact = [[1, 2, 3, 4]] * 6 + [[1, 2, -1, -1]]
    ann = [[1, 2, 3, 4], [4, 9, 1, 8], [2, 1, -1, -1], [-1] * 4, [9, 8, 7, 0], [4, -1, -1, -1]]
    ann.append([2, 5, -1, -1])  # what is missing on both sides is not common
    overlap = [1, 0.5, 0.5, 0, 0, 0.25, 0.25]
    np.testing.assert_array_equal(metrics.neighborhood_overlap(exact, ann), overlap)
    np.testing.assert_array_equal(metrics.found(ann), [1, 1, 0.5, 0, 1, 0.25, 0.5])


def test_recall_by_hand():
    exact = np.array([[1, 2, 2]] * 8, np.float32)
    ann = [[1, 2, 2], [2, 2, 2], [1, 2, 3], [1, INF, INF], [INF] * 3, [2.1, 2.2, 2.3]]
    # One part in a million is forgiven.
    ann += [[1, 2, 2 * (1 + 0.9e-6)], [1, 2, 2 * (1 + 1.1e-6)]]
    expected = [1, 1, 2 / 3, 1 / 3, 0, 0, 1, 2 / 3]
    np.testing.assert_allclose(metrics.recall(exact, np.array(ann)), expected)


def test_recall_of_the_same_neighbors_is_all_whatever_the_rounding():
    x, exact_ids, exact, _, _ = spread_lists()
    half = exact.astype(np.float16)
    assert (half[:, -1] > exact[:, -1] * (1 + 1e-6)).any()
    for sides in ((exact, half), (half, exact)):
        assert (metrics.recall(*sides) == 1).all()
    noisy = exact * np.float32(1 + 1e-4)
    assert (metrics.recall(exact, noisy) < 1).all()
    measured = metrics.compute_metrics(exact_ids, exact, {20: (exact_ids, noisy)}, x)
    assert (measured["recall"] == 1).all()


def clusters(offset=1e4, spread=1.0, per_cluster=300, d=16):
    """Eight clusters far from each other, and from the origin."""
    rng = np.random.default_rng(0)
    centers = np.repeat(rng.choice([-offset, offset], size=(8, d)), per_cluster, axis=0)
    return (centers + rng.normal(scale=spread, size=(8 * per_cluster, d))).astype(np.float32)


def long_double_shift(x, exact, ann):
    means = [
        np.array([x[row[row >= 0]].astype(np.longdouble).mean(axis=0) for row in ids])
        for ids in (exact, ann)
    ]
    return np.sqrt(((means[0] - means[1]) ** 2).sum(axis=1)).astype(float)


@pytest.mark.parametrize("returned", [1, 2, 100, 249, 250])
def test_barycenter_shift_between_clusters_far_apart_is_right_to_a_millionth(returned):
    x, queries = clusters(), np.arange(0, 2400, 40)
    found = ExactSearch(x).neighbors(queries, 260)
    exact, r_k = found.indices[:, :250], found.distances[:, 249]
    ann, lengths = found.indices[:, 10:260].copy(), found.distances[:, 10:260].copy()
    ann[:, returned:], lengths[:, returned:] = -1, INF
    expected = long_double_shift(x, exact, ann)
    tolerance = 1e-6 * np.maximum(expected, r_k)

    assert (np.abs(metrics.barycenter_shift(x, exact, ann) - expected) <= tolerance).all()
    # A list that held far rows before, and recovers from it.
    far = (exact[:, :125] + 1200) % 2400
    far_lengths = np.sort(np.linalg.norm(x[queries][:, None] - x[far], axis=2), axis=1)
    steps = {125: (far, far_lengths), 250: (ann, lengths)}
    measured = metrics.compute_metrics(exact, found.distances[:, :250], steps, x, queries)
    assert (np.abs(measured["barycenter_shift"][1] - expected) <= tolerance).all()


def test_rows_that_came_and_went_leave_no_shift():
    x = np.float32([[0, 0], [0.6, 1], [0.6, 2], [1e16, 0], [0, 3]])
    ids, distances = np.array([[1, 2, 4]]), np.array([[1.0, 2.0, 3.0]])
    far = np.array([[3, 0]])
    steps = {k: (far[:, :k], distances[:, :k]) for k in (1, 2)} | {3: (ids, distances)}
    shift = metrics.compute_metrics(ids, distances, steps, x)["barycenter_shift"]
    assert shift[0] > 0 and shift[2] == 0


def test_distance_ratio_by_hand():
    exact = [[1, 2, 4]] * 6 + [[0, 0, 2]] * 3 + [[0, 0, 0]]
    ann = [[1, 2, 4], [2, 4, 8], [1, 4, INF], [INF, INF, INF], [0.5, 1, 2], [0, 2, 5]]
    ann += [[0, 0, 2], [0, 1, 2], [1, 2, 4], [0, 0, INF]]
    expected = [1, 0.5, 0.5, 0, 1, 2.8 / 3, 1, 2 / 3, 0.5 / 3, 2 / 3]
    np.testing.assert_allclose(metrics.distance_ratio(exact, ann), expected)
    np.testing.assert_array_equal(metrics.distance_ratio([[INF]], [[1.0]]), [NAN])


DISTANCES = ("mean_distance", "kth_distance", "lid")
SIDES = ("exact", "ann")


def assert_measured_without_the_query(measured, exact, ann):
    """Compared with lists of which the query was taken by hand; `ann` may be short."""
    for side, lengths in zip(SIDES, (exact, ann), strict=True):
        for name in DISTANCES:
            (got,), expected = measured[f"{name}_{side}"], getattr(metrics, name)(lengths)
            np.testing.assert_allclose(got, expected, rtol=1e-9, err_msg=f"{name}_{side}")
    np.testing.assert_allclose(
        measured["distance_ratio"][0], metrics.distance_ratio(exact, ann), rtol=1e-9
    )
    rows = zip(exact, np.isfinite(ann).sum(axis=1), strict=True)
    cut = [naive_lid(lengths[:m]) for lengths, m in rows]
    np.testing.assert_allclose(measured["lid_exact_cut"][0], cut, rtol=1e-9)
    relative = measured["barycenter_shift"][0] / metrics.kth_distance(exact)
    np.testing.assert_allclose(measured["barycenter_shift_relative"][0], relative)


@pytest.mark.parametrize("place", [0, 1, 19])
def test_the_query_is_left_out_by_its_id_wherever_it_is(place):
    x, exact_ids, exact, _, _ = spread_lists()
    queries, k = np.arange(len(x)), exact.shape[1]

    def with_query(ids, lengths):
        # At a distance that noise might have given it; the last neighbor makes room.
        ids = np.insert(ids[:, :-1], place, queries, axis=1)
        own = lengths[:, place - 1] if place else 0.5 * lengths[:, 0]
        return ids, np.insert(lengths[:, :-1], place, own, axis=1)

    ids, lengths = exact_ids[:, ::-1].copy(), exact * np.float32(1.5)
    ann = {k: with_query(ids, lengths)}
    measured = metrics.compute_metrics(*with_query(exact_ids, exact), ann, x, queries)
    assert_measured_without_the_query(measured, exact[:, :-1], lengths[:, :-1])
    assert (measured["found"] == 1).all()
    # Overlap is of the lists as they are: the query itself is in both.
    both = with_query(exact_ids, exact)[0], ann[k][0]
    np.testing.assert_array_equal(measured["overlap"][0], metrics.neighborhood_overlap(*both))


def test_a_query_that_only_one_side_has_is_left_out_there():
    x, exact_ids, exact, _, _ = spread_lists(k=20)
    queries = np.arange(len(x))
    with_query = np.insert(exact_ids[:, :-1], 0, queries, axis=1)
    lengths = np.insert(exact[:, :-1], 0, 0, axis=1)
    measured = metrics.compute_metrics(with_query, lengths, {20: (exact_ids, exact)}, x, queries)
    for name in DISTANCES:
        for side, of in zip(SIDES, (exact[:, :-1], exact), strict=True):
            np.testing.assert_allclose(measured[f"{name}_{side}"][0], getattr(metrics, name)(of))
    assert (measured["distance_ratio"] == 1).all()  # over the nineteen that the exact side has
    measured = metrics.compute_metrics(exact_ids, exact, {20: (with_query, lengths)}, x, queries)
    np.testing.assert_allclose(measured["distance_ratio"], 0.95)


def test_of_queries_without_ids_nothing_is_left_out():
    x, exact_ids, exact, ids, lengths = spread_lists()
    row = np.roll(np.arange(len(x)), 1)  # these ids are neighbors like any other
    for queries in (None, np.full(len(x), len(x) + 5)):
        measured = metrics.compute_metrics(exact_ids, exact, {20: (ids, lengths)}, x, queries)
        for side, of in zip(SIDES, (exact, lengths), strict=True):
            np.testing.assert_allclose(measured[f"lid_{side}"][0], metrics.lid(of))
    with pytest.raises(InputError, match="400 queries, not of 399"):
        metrics.compute_metrics(exact_ids, exact, {20: (ids, lengths)}, x, row[1:])


def test_an_index_is_not_blamed_for_rounding_on_the_exact_side():
    # Expanded distances of vectors far from the origin, with near duplicates among them.
    rng = np.random.default_rng(0)
    x = 3 + rng.normal(size=(500, 512))
    x[450:] = x[:50] + 1e-6 * rng.normal(size=(50, 512))
    x, queries, k = x.astype(np.float32), np.arange(500), 10
    exact = expanded_neighbors(x, queries, k, Protocol.NOTEBOOK)
    found = ExactSearch(x).neighbors(queries, k, x)
    ann = {k: (found.indices, found.distances)}
    assert (exact[1][exact[0] == queries[:, None]] > 0).any()
    assert (exact[0] != found.indices).any()

    measured = metrics.compute_metrics(*exact, ann, x, queries, vector_norms(x))
    assert (measured["recall"] == 1).all()
    assert (measured["recall"] >= measured["overlap"]).all()
    np.testing.assert_allclose(measured["distance_ratio"], 1, atol=1e-4)
    assert (np.abs(measured["lid_difference"]) < 0.01 * measured["lid_exact"]).all()
    # A neighbor that is truly lost is not forgiven.
    longer = ExactSearch(x).neighbors(queries, 100, x)
    ids, lengths = (
        np.delete(side, np.s_[5:95], axis=1) for side in (longer.indices, longer.distances)
    )
    lossy = metrics.compute_metrics(*exact, {k: (ids, lengths)}, x, queries, vector_norms(x))
    assert (lossy["recall"] == 0.5).all()
    # Outside queries have a norm too: |x| <= |y| + r.
    outside = metrics.compute_metrics(*exact, ann, x, None, vector_norms(x))
    assert (outside["recall"] == 1).all()


INTEGERS = [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64, ">i8"]


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("other", [np.int32, np.uint64, list])
def test_ids_of_any_whole_numbers(dtype, other):
    x, exact_ids, exact, _, _ = spread_lists(n=100)
    ids = np.stack([np.roll(np.arange(100), 3 * row)[:20] for row in range(100)])
    mine = ids.astype(dtype)
    theirs = exact_ids.tolist() if other is list else exact_ids.astype(other)
    expected = metrics.neighborhood_overlap(exact_ids, ids)
    np.testing.assert_array_equal(metrics.neighborhood_overlap(theirs, mine), expected)
    np.testing.assert_array_equal(metrics.found(mine), 1)
    np.testing.assert_array_equal(
        metrics.occurrences(mine, 100), np.bincount(ids.ravel(), minlength=100)
    )
    np.testing.assert_array_equal(
        metrics.barycenter_shift(x, theirs, mine), metrics.barycenter_shift(x, exact_ids, ids)
    )
    got, plain = (
        metrics.compute_metrics(side, exact, {20: (other_side, exact)}, x)
        for side, other_side in ((theirs, mine), (exact_ids, ids))
    )
    for name, values in plain.items():
        np.testing.assert_array_equal(got[name], values, err_msg=name)


@pytest.mark.parametrize("first", [10**12, 2**31, 2**53, 2**63 - 50, 2**63, 2**64 - 100])
def test_overlap_of_ids_of_any_size(first):
    exact = [[first + 3 * i + row for i in range(20)] for row in range(30)]
    ann = [[row[0], *(value + 1 for value in row[1:10]), *row[10:]] for row in exact]
    expected = [
        np.intersect1d(*pair).size / 20
        for pair in zip(*(np.array(ids, dtype=object) for ids in (exact, ann)), strict=True)
    ]
    assert set(expected) == {11 / 20}
    largest = np.uint64 if first >= 2**62 else np.int64
    for kinds in ((list, list), (list, largest), (np.uint64, np.uint64), (largest, np.uint64)):
        sides = [
            ids if kind is list else np.array(ids, kind)
            for ids, kind in zip((exact, ann), kinds, strict=True)
        ]
        np.testing.assert_array_equal(metrics.neighborhood_overlap(*sides), expected)
    np.testing.assert_array_equal(metrics.found(exact), 1)


def test_only_minus_one_of_signed_types_is_missing():
    largest = 2**64 - 1
    unsigned = np.array([[largest, 5], [largest - 1, 5]], np.uint64)
    signed = np.array([[-1, 5], [5, -1]])
    np.testing.assert_array_equal(metrics.neighborhood_overlap(unsigned, signed), [0.5, 0.5])
    np.testing.assert_array_equal(metrics.neighborhood_overlap(unsigned, unsigned), [1, 1])
    np.testing.assert_array_equal(metrics.found(unsigned), [1, 1])
    np.testing.assert_array_equal(metrics.found(signed), [0.5, 0.5])
    np.testing.assert_array_equal(metrics.found([[-1, -1, -1]]), [0])


X = np.zeros((10, 2), np.float32)
GOOD = [[1, 2, 3]]
ON_IDS = [
    lambda ids: metrics.neighborhood_overlap(GOOD * 2, ids),
    lambda ids: metrics.neighborhood_overlap(ids, GOOD * 2),
    lambda ids: metrics.found(ids),
    lambda ids: metrics.occurrences(ids, 10),
    lambda ids: metrics.barycenter_shift(X, GOOD * 2, ids),
    lambda ids: metrics.barycenter_shift(X, ids, GOOD * 2),
    lambda ids: metrics.compute_metrics(GOOD * 2, GOOD * 2, {3: (ids, GOOD * 2)}, X),
    lambda ids: metrics.compute_metrics(ids, GOOD * 2, {3: (GOOD * 2, GOOD * 2)}, X),
]
BAD_IDS = [
    ([[1, 2, 3], [4, 7, 4]], "row 1 has an id twice: 4"),
    (np.array([[1, 2, 3], [7, 4, 4]], np.uint64), "row 1 has an id twice: 4"),
    ([[1, 2, 3], [4, -7, 5]], "row 1 has the id -7"),
    ([[1.0, 2, 3]] * 2, "whole numbers .* not float64"),
    ([["a", "b", "c"]] * 2, "whole numbers"),
    ([[1, 2, 3], [4, 5]], "rows differ in length"),
    ([1, 2, 3], r"\(3,\)"),
]


@pytest.mark.parametrize(("ids", "message"), BAD_IDS)
@pytest.mark.parametrize("call", ON_IDS)
def test_ids_that_cannot_be_are_refused_in_one_line(call, ids, message):
    with pytest.raises(InputError, match=message) as caught:
        call(ids)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("call", ON_IDS[3:])
@pytest.mark.parametrize("large", [10, 10**12, 2**63])
def test_ids_that_are_no_rows_are_refused_by_name(call, large):
    with pytest.raises(InputError, match=f"row 1 has an id that is no row of .*: {large}"):
        call([[1, 2, 3], [4, 5, large]])


def test_faults_are_named_by_row_and_id_in_whichever_block_they_are():
    ids = np.tile(np.arange(15), (40_000, 1))
    for row, faulty, message in (
        (39_000, 9, "row 39000 has an id twice: 9$"),
        (38_999, 10**12, f"row 38999 has an id that is no row .*: {10**12}$"),
        (38_999, -3, "row 38999 has the id -3: ids are whole numbers from 0"),
    ):
        ids[row, 4] = faulty
        with pytest.raises(InputError, match=message):
            refuse_faulty_lists(ids, ids.astype(np.float32), "lists", 50)


ON_DISTANCES = [
    metrics.mean_distance,
    metrics.kth_distance,
    metrics.lid,
    lambda lengths: metrics.recall([[1, 2, 3]] * 2, lengths),
    lambda lengths: metrics.distance_ratio(lengths, [[1, 2, 3]] * 2),
    lambda lengths: metrics.compute_metrics(GOOD * 2, GOOD * 2, {3: (GOOD * 2, lengths)}, X),
]


@pytest.mark.parametrize("call", ON_DISTANCES)
def test_distances_in_lists_of_python_are_taken_and_bad_ones_refused(call):
    call([[1, 2, 3], [1.0, 2.0, 3.0]])
    for lengths, message in [
        ([[1, 2, 3], [1, NAN, 3]], "row 1 has a distance that is not a number or negative"),
        ([[1, 2, 3], [-1, 2, 3]], "row 1 has a distance that is not a number or negative"),
        ([[1, 2, 3], [1, 3, 2]], "row 1 has distances that do not ascend"),
        ([[1, 2, 3], [1, 2]], "rows differ in length"),
        ([["a", "b", "c"]] * 2, "numbers"),
        ([1, 2, 3], r"\(3,\)"),
    ]:
        with pytest.raises(InputError, match=message):
            call(lengths)


def test_shapes_that_differ_are_refused_in_one_clear_line():
    two, three = [[1, 2]], [[1, 2, 3]]
    for call in (metrics.neighborhood_overlap, metrics.recall, metrics.distance_ratio):
        with pytest.raises(InputError, match=r"one shape \(Q, k\), not \(1, 2\) and \(1, 3\)"):
            call(two, three)
    with pytest.raises(InputError, match=r"not \(1, 2\) and \(1, 3\)"):
        metrics.barycenter_shift(X, two, three)
    for ann in (
        {2: (two, three)},
        {3: (two, two)},
        {4: ([[1, 2, 3, 4]],) * 2},
        {3: (three * 2,) * 2},
    ):
        with pytest.raises(InputError, match=r"must be of shape"):
            metrics.compute_metrics(three, three, ann, X)


def test_a_missing_neighbor_at_a_distance_that_is_no_infinity_is_refused():
    largest = float(np.finfo(np.float32).max)  # FAISS's own mark
    with pytest.raises(InputError, match="row 0 has an id -1 that is not at distance"):
        metrics.compute_metrics(GOOD, GOOD, {3: ([[1, 2, -1]], [[1, 2, largest]])}, X)


def test_lid_is_the_maximum_likelihood_estimate_of_another_package():
    _, _, lengths, _, _ = spread_lists(k=50)
    # skdim's MLE divides k - 1 by the sum of ln(r_k / r_i), as Levina and Bickel do. Its unbiased
    # form divides k - 2: ours to the letter.
    biased, unbiased = (
        skdim.id.MLE(unbiased=unbiased).fit(
            np.zeros((len(lengths), 2)), precomputed_knn_arrays=(lengths.astype(np.float64), None)
        )
        for unbiased in (False, True)
    )
    np.testing.assert_allclose(metrics.lid(lengths), unbiased.dimension_pw_, rtol=1e-10)
    np.testing.assert_allclose(metrics.lid(lengths) * 49 / 48, biased.dimension_pw_, rtol=1e-10)


@pytest.mark.parametrize(("k", "balls"), [(10, 100_000), (50, 16_000), (250, 3_000)])
@pytest.mark.parametrize("dimension", [2, 8])
def test_lid_of_uniform_balls_is_their_dimension_within_one_percent(k, balls, dimension):
    mean, error = mean_over_balls(balls, k, dimension)
    assert error / dimension < 0.002
    assert mean == pytest.approx(dimension, rel=0.01)


def test_lid_by_hand():
    lengths = [[1, math.e, math.e**2], [1, 2, 2]]
    np.testing.assert_allclose(metrics.lid(lengths), [1 / 3, 1 / math.log(2)], rtol=1e-12)
    lengths = [[0, 1, math.e], [0, 0, 1], [0] * 3, [2] * 3, [0, 2, 2], [1, math.e, INF]]
    assert np.isnan(metrics.lid([*lengths, [1, INF, INF], [0, 1, INF], [INF] * 3])).all()
    lengths = [[0, 1, math.e, math.e**2], [1, math.e, math.e, INF], [0, 1, 1, 1], [0, 0, 1, 2]]
    np.testing.assert_allclose(metrics.lid(lengths), [1 / 3, 1, NAN, NAN], rtol=1e-12)
    assert np.isnan(metrics.lid([[1.0], [0.0], [INF]])).all()
    # Copies that differ by rounding alone, beside the row itself or without it, have none.
    apart = np.array([0.9e-6, 1.1e-6])[:, None] * [0, 0.5, 1]
    for near in (1 + apart, np.insert(1 + apart, 0, 0, axis=1)):
        assert np.isnan(metrics.lid(near)).tolist() == [True, False]


def test_hubness_and_orphans_of_known_in_degrees():
    # In-degrees 3, 1, 1, 1, 0, 0: mean 1, second and third central moments 1 and 1.
    lists = np.array([[1, 2], [0, 3], [0, -1], [0, -1], [-1, -1], [-1, -1]])
    counts = metrics.occurrences(lists, 6)
    np.testing.assert_array_equal(counts, [3, 1, 1, 1, 0, 0])
    assert metrics.hubness(counts) == pytest.approx(1.0)
    assert metrics.orphans(counts) == pytest.approx(2 / 6)
    # Rows beyond the largest id are orphans too.
    assert metrics.orphans(metrics.occurrences(np.array([[1], [0]]), 8)) == pytest.approx(6 / 8)
    nobody = metrics.occurrences(np.full((4, 2), -1), 4)
    assert (metrics.orphans(nobody), metrics.hubness(nobody)) == (1, 0)


@few_examples
@given(st.lists(st.integers(0, 1000), min_size=2, max_size=300))
def test_hubness_is_the_skewness_of_scipy(counts):
    expected = scipy.stats.skew(counts) if len(set(counts)) > 1 else 0
    assert metrics.hubness(np.array(counts)) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_tables_of_metrics_name_each_once():
    names = [metric.name for metric in metrics.METRICS + notebook.METRICS]
    assert len(set(names)) == len(names)
