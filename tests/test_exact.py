"""Exact neighbor lists against float64 brute force, and harder ones against long doubles."""

import shutil
import subprocess
import sys
import tracemalloc
from functools import partial
from importlib.util import find_spec

import faiss
import numpy as np
import pytest

from drift import InputError, proposals
from drift.exact import (
    ExactSearch,
    expanded_neighbors,
    near_ties,
    neighbor_distances,
)
from drift.proposals import NumpyProduct, TorchProduct, choose_product
from drift.protocols import Protocol
from drift.vectors import product_error

# At least as much as a float32 sum of d squares and its root can be off, for the d used here.
FLOAT32_ERROR = 64 * 2.0**-24


# What a GPU would run, on the processor; those who bring vectors may have no PyTorch.
TORCH = [partial(TorchProduct, device="cpu")] if find_spec("torch") else []


def coarse(values):
    """Multiples of 1/64: below 8 their squares, and sums of 32 of those, are exact in float32."""
    return (np.clip(np.round(values * 64) / 64, -3.5, 3.5)).astype(np.float32)


def coarse_normal(n, d, seed=0):
    return coarse(np.random.default_rng(seed).normal(size=(n, d)))


def clustered(n, d, seed=0):
    rng = np.random.default_rng(seed)
    return coarse(rng.normal(size=(8, d))[rng.integers(8, size=n)] + rng.normal(0, 0.05, (n, d)))


def all_distances(embeddings, queries):
    """Float64 distances from the queries to every row, (Q, N), from direct differences."""
    x = embeddings.astype(np.float64)
    return np.stack([np.sqrt(((x - x[query]) ** 2).sum(axis=1)) for query in queries])


def brute_force(embeddings, queries, k, from_outside=False):
    distances = all_distances(embeddings, queries).astype(np.float32)
    lists = []
    for query, row in zip(queries, distances, strict=True):
        ids = sorted(range(len(row)), key=lambda i, row=row: (row[i], i))
        lists.append([i for i in ids if from_outside or i != query][:k])
    ids = np.array(lists)
    return ids, np.take_along_axis(distances, ids, axis=1)


def assert_is_brute_force(embeddings, k, queries=None, from_outside=False):
    """Same ids and the same float32 distances; for vectors whose distances float32 holds."""
    queries = np.arange(len(embeddings)) if queries is None else queries
    got = ExactSearch(embeddings).neighbors(queries, k, embeddings if from_outside else None)
    ids, distances = brute_force(embeddings, queries, k, from_outside)
    np.testing.assert_array_equal(got.indices, ids)
    np.testing.assert_array_equal(got.distances, distances)
    assert got.indices.dtype == np.int32 and got.distances.dtype == np.float32
    return got


def assert_is_nearest(embeddings, k, from_outside=False):
    """The k nearest up to the rounding of a float32 distance; for any vectors."""
    queries = np.arange(len(embeddings))
    got = ExactSearch(embeddings).neighbors(queries, k, embeddings if from_outside else None)
    true = all_distances(embeddings, queries)
    of_returned = np.take_along_axis(true, got.indices.astype(np.int64), axis=1)
    np.testing.assert_allclose(got.distances, of_returned, rtol=FLOAT32_ERROR)
    if not from_outside:
        true[queries, queries] = np.inf
        assert not (got.indices == queries[:, None]).any()
    np.testing.assert_allclose(of_returned, np.sort(true, axis=1)[:, :k], rtol=FLOAT32_ERROR)
    for ids, distances in zip(got.indices, got.distances, strict=True):
        assert len(set(ids)) == k
        pairs = list(zip(distances, ids, strict=True))
        assert pairs == sorted(pairs)
    return got


def assert_is_in_order(embeddings, queries, k):
    """Same ids, and distances up to rounding; where the order is that of float64 alone."""
    got = ExactSearch(embeddings).neighbors(queries, k)
    ids, distances = brute_force(embeddings, queries, k)
    np.testing.assert_array_equal(got.indices, ids)
    np.testing.assert_allclose(got.distances, distances, rtol=FLOAT32_ERROR)


def grid():
    axis = np.arange(7)
    return np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(-1, 3).astype(np.float32)


def with_duplicates(different):
    return coarse_normal(different, 8)[np.random.default_rng(1).integers(different, size=400)]


# Vectors and k. Powers of two scale every distance without rounding.
VECTORS = {
    "random": (coarse_normal(400, 24), 20),
    "one dimension": (coarse_normal(300, 1), 15),
    "clustered": (clustered(400, 16), 30),
    "many duplicates": (with_duplicates(20), 30),
    "more duplicates than are proposed": (with_duplicates(3), 10),
    "all rows equal": (np.ones((200, 5), np.float32), 7),
    "a simplex, with equal distances": (np.eye(150, dtype=np.float32), 10),
    "a grid full of ties": (grid(), 20),
    "a common offset": (coarse_normal(300, 16) + np.float32(1000), 20),
    "tiny": (coarse_normal(300, 16) * np.float32(2.0**-20), 20),
    "huge": (coarse_normal(300, 16) * np.float32(2.0**20), 20),
    "all other rows": (coarse_normal(100, 6), 99),
    "all other rows, more than are proposed": (coarse_normal(200, 6), 199),
}


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("from_outside", [False, True])
def test_lists_are_those_of_brute_force(name, from_outside):
    assert_is_brute_force(*VECTORS[name], from_outside=from_outside)


@pytest.mark.parametrize(("offset", "scale"), [(0, 1), (1000, 1), (0, 1e-6), (0, 1e6)])
@pytest.mark.parametrize("from_outside", [False, True])
def test_normal_vectors_of_any_origin_and_scale(offset, scale, from_outside):
    x = np.random.default_rng(0).normal(size=(300, 16)) + offset
    assert_is_nearest(x.astype(np.float32) * np.float32(scale), 20, from_outside)


@pytest.mark.parametrize("dimension", [3, 64, 2048])
def test_near_ties_are_ordered_as_in_double(dimension):
    # Rows about the first one, at distances that differ by no more than a float32 sum of squares is
    # rounded by, and yet are mostly not the same.
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(2000, dimension))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    radii = 1 + 2.0**-23 * rng.uniform(0, 4000, size=(2000, 1))
    x = np.concatenate([np.zeros((1, dimension)), radii * directions]).astype(np.float32)
    assert_is_in_order(x, np.array([0]), 1000)


@pytest.mark.parametrize("reversed_first", [False, True])
def test_equal_distances_whose_float32_sums_differ_are_ordered_by_id(reversed_first):
    # Ones first, what is added to them is rounded away 127 times in each of sixteen lanes; last,
    # it is not: the sums differ by 31 units of 2^-24.
    row = np.full(2048, 2.0**-12.5, np.float32)
    row[:16] = 1
    pair = (row[::-1], row) if reversed_first else (row, row[::-1])
    x = np.stack([np.zeros(2048, np.float32), *pair])
    got = assert_is_brute_force(x, k=2, queries=np.array([0]))
    np.testing.assert_array_equal(got.indices, [[1, 2]])
    assert got.distances[0, 0] == got.distances[0, 1]


@pytest.mark.parametrize("k", [5, 40])
def test_order_holds_where_float32_sums_are_as_wrong_as_can_be(k):
    # Large terms in other places of each row, at radii next to each other.
    rng = np.random.default_rng(0)
    rows = np.full((100, 2048), 2.0**-12.5)
    for row in rows:
        row[rng.choice(2048, size=16, replace=False) if rng.random() < 0.5 else np.arange(16)] = 1
    rows *= 1 + 2.0**-22 * rng.integers(0, 40, size=(100, 1))
    x = np.concatenate([np.zeros((1, 2048)), rows]).astype(np.float32)
    assert_is_in_order(x, np.array([0]), k)


TINY = {
    "rows beside others": lambda x: x * np.where(np.arange(300) < 200, 1e-25, 1)[:, None],
    "rows beside others that cancel": lambda x: np.where(
        np.arange(300)[:, None] < 200, 1e-25 * x, np.where(np.arange(300)[:, None] % 2, 1.0, -1.0)
    ),
    "one coordinate": lambda x: np.where(np.arange(16) == 3, 1e-25 * x, 1),
    "one coordinate, and the smallest": lambda x: np.where(np.arange(16) == 3, 1e-42 * x, 1),
    "on the edge": lambda x: x * np.where(np.arange(300) < 200, 1e-19, 1)[:, None],
    "on all scales": lambda x: x * 10.0 ** -np.linspace(0, 44, 300)[:, None],
}


@pytest.mark.parametrize("k", [3, 60, 199, 299])
@pytest.mark.parametrize("values", TINY)
def test_tiny_values_beside_others_keep_their_order(values, k):
    x = TINY[values](np.random.default_rng(0).normal(size=(300, 16))).astype(np.float32)
    assert_is_in_order(x, np.arange(0, 300, 7), k)


def hard_sets():
    """Sets on which approximate arithmetic gets lists wrong; float32 (N, d) and k."""
    rng = np.random.default_rng(3)
    normal = rng.normal(size=(400, 24)).astype(np.float32)
    steps = np.ones((300, 8), np.float32)
    steps[:, 0] = np.float32(1).view(np.int32) + rng.permutation(300)  # as bits, below
    steps[:, 0] = steps[:, 0].astype(np.int32).view(np.float32)
    centers = rng.normal(size=(12, 640))
    tight = centers[rng.integers(12, size=500)] + 0.8 * rng.normal(size=(500, 640))
    return {
        "500 duplicates": (np.concatenate([np.repeat(normal[:1], 500, axis=0), normal]), 40),
        "neighbors one ulp apart": (steps, 30),
        "squared norms of 1e20 beside 1": (
            np.where(np.arange(400) % 2, 1e10, 1)[:, None] * normal,
            25,
        ),
        "an offset of 1e7": (normal + np.float32(1e7), 25),
        "subnormal steps": ((np.arange(300)[:, None] * [1e-42, 0.0] + [0.0, 1.0]), 20),
        "one dimension": (rng.normal(size=(700, 1)), 30),
        "as many as there are": (normal[:31], 30),
        "a constant set": (np.full((300, 6), 3.7), 20),
        "all but one proposed": (np.full((63, 6), 3.7), 30),
        "tight clusters of many dimensions": (tight, 60),
    }


@pytest.mark.parametrize("name", hard_sets())
def test_hard_sets_hold_in_long_double_whoever_proposes(name, monkeypatch):
    x, k = hard_sets()[name]
    x = x.astype(np.float32)
    queries = np.arange(0, len(x), 7)
    got = ExactSearch(x).neighbors(queries, k)
    true = ((x[queries, None].astype(np.longdouble) - x[None].astype(np.longdouble)) ** 2).sum(
        axis=2
    )
    true = np.sqrt(true).astype(np.float64)
    rounded = true.astype(np.float32)
    rounded[np.arange(len(queries)), queries] = np.inf
    ids = np.lexsort((np.broadcast_to(np.arange(len(x)), true.shape), rounded))[:, :k]
    np.testing.assert_array_equal(got.indices, ids)
    np.testing.assert_allclose(
        got.distances, np.take_along_axis(rounded, ids, 1), rtol=(x.shape[1] + 5) * 2.0**-24
    )
    # Rows in many blocks, several threads, and the functions that a GPU would run.
    monkeypatch.setattr(proposals, "ROWS", 90)
    monkeypatch.setattr(TorchProduct, "ROWS", 90)
    monkeypatch.setattr("drift.exact.POINTS", 16)
    for product in (NumpyProduct, *TORCH):
        again = ExactSearch(x, 3, product).neighbors(queries, k)
        np.testing.assert_array_equal(again.indices, got.indices)
        np.testing.assert_array_equal(again.distances, got.distances)


@pytest.mark.parametrize("order", ["random", "rising", "signs that cancel"])
@pytest.mark.parametrize("d", [1, 16, 2048])
@pytest.mark.parametrize("product", [NumpyProduct, *TORCH])
def test_products_are_off_by_their_bound_at_most(product, d, order):
    rng = np.random.default_rng(0)
    x = rng.lognormal(sigma=2, size=(60, d)) + (order == "signs that cancel")
    x = np.sort(x, axis=1) if order == "rising" else x
    x = (x * np.where(np.arange(d) % 2, -1, 1) if order == "signs that cancel" else x).astype("f4")
    indices, squared = product(x).propose(x, len(x))
    true = ((x[:, None].astype(float) - x[indices]) ** 2).sum(axis=2)
    norms = np.linalg.norm(x.astype(float), axis=1)
    assert (
        np.abs(squared - true) <= product_error(d) * (norms[:, None] + norms[indices]) ** 2
    ).all()


def test_proposals_take_the_same_memory_for_any_number_of_rows():
    peaks = []
    for n in (20_000, 100_000):
        rows = np.random.default_rng(0).random((n, 8), np.float32)
        product = NumpyProduct(rows)
        tracemalloc.start()
        product.propose(rows[:1000], 50)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


def test_a_gpu_is_asked_for_only_where_there_is_a_driver():
    assert choose_product("cpu") is NumpyProduct
    ask = "import sys, drift.proposals as p; p.DRIVERS = (); p.choose_product('auto'); "
    ask += "p.choose_product('cpu'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", ask]).returncode == 0
    if choose_product("auto") is NumpyProduct:
        with pytest.raises(InputError, match="take --device cpu"):
            choose_product("cuda")


def test_few_distances_of_ordinary_vectors_are_taken_twice():
    x = np.random.default_rng(0).normal(size=(2000, 64)).astype(np.float32)
    distances = ExactSearch(x).neighbors(np.arange(100), 200).distances
    assert near_ties(distances, 200, 64, 64, can_vanish=False).mean() < 0.05
    # A distance of 0 is exact, unless squares can vanish.
    zeros = np.array([[0, 0, 0, 1]], np.float32)
    assert not near_ties(zeros, 4, 64, 64, can_vanish=False).any()
    assert near_ties(zeros, 4, 64, 64, can_vanish=True).tolist() == [[True, True, True, False]]
    # Beyond k only those that could belong before it.
    close = np.array([[1, 2, 2 + 2e-6, 2 + 4e-6, 2 + 6e-5, 2 + 6e-5]], np.float32)
    assert near_ties(close, 2, 64, 64, False).tolist() == [[False, True, True, True, False, False]]


def test_only_some_queries_recomputed():
    # One crowd of equal rows, and rows well apart from everything.
    x = np.concatenate([np.zeros((120, 8), np.float32), 3 * coarse_normal(60, 8)])
    shuffled = x[np.random.default_rng(0).permutation(len(x))]
    got = assert_is_brute_force(shuffled, k=5)
    assert 120 <= got.recomputed < 180


def test_recomputed_counts_the_uncertain_queries():
    x = np.random.default_rng(0).normal(size=(400, 24)).astype(np.float32)
    assert ExactSearch(x).neighbors(np.arange(400), 20).recomputed == 0
    # Neither does an origin far away make the proposal uncertain.
    assert ExactSearch(x + np.float32(1000)).neighbors(np.arange(400), 20).recomputed == 0
    equal = np.ones((200, 5), np.float32)
    assert ExactSearch(equal).neighbors(np.arange(200), 20).recomputed == 200
    # Where all rows were proposed there is nothing to doubt.
    assert ExactSearch(equal[:50]).neighbors(np.arange(50), 20).recomputed == 0


def test_values_that_are_not_finite_and_too_large_k_are_refused():
    x = coarse_normal(30, 4)
    with pytest.raises(ValueError, match="row 17 "):
        ExactSearch(np.where(np.arange(30)[:, None] == 17, np.inf, x))
    rows, search = np.arange(30), ExactSearch(x)
    with pytest.raises(ValueError, match="29"):
        search.neighbors(rows, 30)
    with pytest.raises(ValueError, match="30"):
        search.neighbors(rows, 31, x)
    for protocol, most in (("study", 29), ("paper", 29), ("notebook", 30)):
        with pytest.raises(ValueError, match=f"at most {most} "):
            expanded_neighbors(x, rows, most + 1, Protocol(protocol))


def test_neighbor_distances():
    x = np.random.default_rng(0).normal(size=(50, 12)).astype(np.float32)
    queries = np.array([5, 0, 49])
    ids = np.array([[5, 0, 12, -1], [-1, -1, -1, -1], [3, 49, 3, 48]])
    got = neighbor_distances(x[queries], x, ids)
    true = np.take_along_axis(all_distances(x, queries), np.maximum(ids, 0), axis=1)
    np.testing.assert_allclose(got, np.where(ids < 0, np.inf, true), rtol=FLOAT32_ERROR)
    assert got.dtype == np.float32
    assert got[0, 0] == 0 and got[2, 1] == 0


def test_neighbor_distances_do_not_depend_on_the_list_around_them():
    x = np.random.default_rng(0).normal(size=(50, 13)).astype(np.float32)
    everything = neighbor_distances(x[:50], x, np.tile(np.arange(50), (50, 1)))
    for column in range(50):
        single = neighbor_distances(x[:50], x, np.full((50, 1), column, np.int32))
        np.testing.assert_array_equal(single[:, 0], everything[:, column])


def test_what_each_protocol_leaves():
    ids = np.array([[4, 7, 1], [7, 9, 2], [2, 5, 6], [1, -1, -1], [8, 3, 4]])
    distances = np.array([[0, 1, 2], [1, 2, 3], [1, 1, 4], [1, np.inf, np.inf], [0, 0, 5]])
    queries = np.array([4, 9, 3, 0, 4])
    got_ids, got_distances = Protocol.STUDY.leave_k(ids, distances, queries)
    np.testing.assert_array_equal(got_ids, [[7, 1], [7, 2], [2, 5], [1, -1], [8, 3]])
    np.testing.assert_array_equal(got_distances, [[1, 2], [1, 3], [1, 1], [1, np.inf], [0, 0]])
    # The paper drops the first, whether it is the query or not; the notebook nothing.
    got_ids, got_distances = Protocol.PAPER.leave_k(ids, distances, queries)
    np.testing.assert_array_equal(got_ids, ids[:, 1:])
    np.testing.assert_array_equal(got_distances, distances[:, 1:])
    got_ids, got_distances = Protocol.NOTEBOOK.leave_k(ids, distances, queries)
    np.testing.assert_array_equal(got_ids, ids)
    np.testing.assert_array_equal(got_distances, distances)
    lengths = {one: (one.list_length(10), one.policy_length(10)) for one in Protocol}
    expected = {"study": (11, 11), "notebook": (10, 10), "paper": (11, 10), "outside": (10, 10)}
    assert lengths == expected


def test_expanded_neighbors_are_those_of_the_flat_index():
    x = np.random.default_rng(0).normal(size=(300, 24)).astype(np.float32)
    index = faiss.IndexFlatL2(24)
    index.add(x)
    queries = np.arange(1, 300, 2)
    squared, ids = index.search(x[queries], 11)

    got_ids, got_distances = expanded_neighbors(x, queries, 11, Protocol.NOTEBOOK)
    np.testing.assert_array_equal(got_ids, ids)
    np.testing.assert_array_equal(got_distances, np.sqrt(squared))
    assert got_ids.dtype == np.int32 and got_distances.dtype == np.float32

    # These vectors are far enough apart for each query to come first in its own list.
    for protocol in (Protocol.STUDY, Protocol.PAPER):
        got_ids, got_distances = expanded_neighbors(x, queries, 10, protocol)
        np.testing.assert_array_equal(got_ids, ids[:, 1:])
        np.testing.assert_array_equal(got_distances, np.sqrt(squared[:, 1:]))


def test_the_device_changes_no_list(drive, small, tmp_path):
    results = shutil.copytree(small, tmp_path / "results")
    status, out, _ = drive("03_exact_knn.py", "--k-max", "60", "--device", "cpu", results=results)
    assert status == 0 and "up to date" in out
    if choose_product("auto") is NumpyProduct:
        status, _, err = drive("03_exact_knn.py", "--device", "cuda", results=results)
        assert status == 2 and err.count("\n") == 1 and "take --device cpu" in err
