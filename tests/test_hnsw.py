"""HNSW lists: what both libraries return, and what is made of it."""

import numpy as np
import pytest

from drift import InputError
from drift.exact import ExactSearch, neighbor_distances
from drift.hnsw import (
    BACKENDS,
    Graph,
    HnswRun,
    hnsw_neighbors,
    list_length,
    searches,
)
from drift.metrics import found, neighborhood_overlap

both_backends = pytest.mark.parametrize("backend", BACKENDS)


def normal(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def clustered(n, d=16, n_clusters=10, seed=0):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(n_clusters, d)) * 6
    return (centers[rng.integers(n_clusters, size=n)] + rng.normal(size=(n, d))).astype(np.float32)


def two_islands(first, second):
    """Two clusters so far apart that links between them are few, or none."""
    x = np.random.default_rng(0).normal(size=(first + second, 4))
    x[first:] += 1000
    return x.astype(np.float32)


def build(backend, x, M=16, ef_construction=100, seed=0):
    return BACKENDS[backend].build(x, Graph(backend, M, ef_construction, seed))


def search(index, x, queries, k, ef_search, include_self=False):
    """Lists of one length; `ef_search` a number, or "k" for as many as are asked for."""
    ef = list_length(k, include_self) if ef_search == "k" else ef_search
    lists, _ = hnsw_neighbors(index, x, queries, [k], ef, include_self)
    return lists[k]


def search_all(index, x, k, ef_search, include_self=False):
    return search(index, x, np.arange(len(x)), k, ef_search, include_self)


def assert_well_formed(x, queries, lists, k):
    """What section 3 of the design says of any list."""
    ids, distances = lists.indices, lists.distances
    assert ids.shape == distances.shape == (len(queries), k)
    assert ids.dtype == np.int32 and distances.dtype == np.float32
    np.testing.assert_allclose(distances, neighbor_distances(x, queries, ids), rtol=1e-6)
    for row_ids, row in zip(ids, distances, strict=True):
        m = (row_ids >= 0).sum()
        assert (row_ids[m:] == -1).all() and np.isinf(row[m:]).all()
        assert len(set(row_ids[:m])) == m and np.isfinite(row[:m]).all()
        pairs = list(zip(row[:m], row_ids[:m], strict=True))
        assert pairs == sorted(pairs)


def test_names_of_runs():
    assert HnswRun(Graph("faiss", 32, 200, 0), "50").name == "faiss_M32_efc200_ef50"
    assert HnswRun(Graph("faiss", 32, 200, 0), "k").name == "faiss_M32_efc200_efk"
    assert HnswRun(Graph("hnswlib", 16, 100, 0), "50").name == "hnswlib_M16_efc100_ef50"
    assert HnswRun(Graph("hnswlib", 32, 200, 7), "k").name == "hnswlib_M32_efc200_efk_seed7"


@both_backends
def test_candidate_list_of_all_rows_is_exact(backend):
    x = normal(300, 8)
    exact = ExactSearch(x).neighbors(np.arange(300), 20)
    lists = search_all(build(backend, x), x, 20, 300)
    np.testing.assert_array_equal(lists.indices, exact.indices)
    np.testing.assert_allclose(lists.distances, exact.distances, rtol=1e-6)


@both_backends
def test_policy_k_keeps_as_many_candidates_as_are_asked_for(backend):
    x = clustered(1000)
    index = build(backend, x, M=4, ef_construction=20)
    for include_self, asked in ((False, 101), (True, 100)):
        policy, number = (search_all(index, x, 100, ef, include_self) for ef in ("k", asked))
        np.testing.assert_array_equal(policy.indices, number.indices)


def test_policy_k_asks_for_the_query_too():
    class Recorder:
        def search(self, points, k, ef_search):
            asked.append((k, ef_search))
            return np.tile(np.arange(k), (len(points), 1)), np.zeros((len(points), k), np.float32)

    x, asked = normal(30, 3), []
    for ef_search in ("k", 5):
        for include_self in (False, True):
            search_all(Recorder(), x, 10, ef_search, include_self)
    assert asked == [(11, 11), (10, 10), (11, 5), (10, 5)]


@both_backends
def test_same_seed_same_lists(backend):
    x = normal(1000, 16)
    for seed in (0, 3):
        first, second = (search_all(build(backend, x, 4, 10, seed), x, 10, 1) for _ in range(2))
        np.testing.assert_array_equal(first.indices, second.indices)


@both_backends
def test_each_seed_has_a_graph_of_its_own(backend):
    # At a tiny efSearch lists show the graph they were found in.
    x = normal(1000, 16)
    lists = [search_all(build(backend, x, 4, 10, seed), x, 1, 1).indices for seed in range(4)]
    for first in range(4):
        for second in range(first):
            assert (lists[first] != lists[second]).any(), f"seeds {second} and {first}"


@both_backends
def test_seed_changes_the_graph_and_not_the_ids(backend):
    x = normal(300, 8)
    exact = ExactSearch(x).neighbors(np.arange(300), 10)
    lists = search_all(build(backend, x, seed=5), x, 10, 300)
    np.testing.assert_array_equal(lists.indices, exact.indices)


def test_short_rows_of_faiss():
    x = two_islands(300, 200)
    lists = search_all(build("faiss", x, M=2, ef_construction=20), x, 220, "k")
    assert_well_formed(x, np.arange(500), lists, 220)
    share = found(lists.indices)
    assert (share < 1).any() and (share == 1).any()


@pytest.mark.parametrize("seed", [0, 4])
def test_rows_that_the_stop_rule_of_faiss_cuts_short(seed):
    x = two_islands(200, 200)
    lists = search_all(build("faiss", x, M=4, ef_construction=20, seed=seed), x, 150, 10)
    assert_well_formed(x, np.arange(400), lists, 150)
    assert (found(lists.indices) < 1).any()
    assert not (lists.indices == np.arange(400)[:, None]).any()


def test_short_rows_of_hnswlib():
    x = two_islands(200, 200)
    index = build("hnswlib", x, M=3, ef_construction=10)
    k = 210
    lists = search_all(index, x, k, 10)
    assert_well_formed(x, np.arange(400), lists, k)
    short = found(lists.indices) < 1
    assert short.any() and not short.all()

    # Rows that the library serves are what it gives when they are searched without the others.
    alone = search(index, x, np.flatnonzero(~short), k, 10)
    assert (found(alone.indices) == 1).all()
    np.testing.assert_array_equal(lists.indices[~short], alone.indices)
    np.testing.assert_array_equal(lists.distances[~short], alone.distances)


def test_fallback_of_hnswlib_gives_all_that_the_library_gives():
    x = two_islands(200, 200)
    k = 210
    index = build("hnswlib", x, M=3, ef_construction=10)
    ids, _ = index.search(x, k, 10)
    library = index._index
    library.set_ef(k)
    with pytest.raises(RuntimeError):
        library.knn_query(x, k)
    lengths = (ids >= 0).sum(axis=1)
    assert 0 < (lengths < k).sum() < 400
    for row in range(0, 400, 5):
        m = lengths[row]
        np.testing.assert_array_equal(ids[row, :m], library.knn_query(x[row : row + 1], m)[0][0])
        assert (ids[row, m:] == -1).all()
        if m < k:
            with pytest.raises(RuntimeError):
                library.knn_query(x[row : row + 1], m + 1)


@both_backends
def test_more_neighbors_than_rows_come_back_short(backend):
    x = normal(12, 3)
    lists = search_all(build(backend, x), x, 20, 50)
    assert_well_formed(x, np.arange(12), lists, 20)
    assert ((lists.indices >= 0).sum(axis=1) == 11).all()


@both_backends
def test_one_neighbor(backend):
    x = normal(300, 8)
    lists = search_all(build(backend, x), x, 1, 300)
    np.testing.assert_array_equal(
        lists.indices, ExactSearch(x).neighbors(np.arange(300), 1).indices
    )
    own = search_all(build(backend, x), x, 1, 300, include_self=True)
    np.testing.assert_array_equal(own.indices[:, 0], np.arange(300))


@both_backends
def test_duplicates(backend):
    x = np.repeat(normal(40, 4), 10, axis=0)
    for include_self in (False, True):
        lists = search_all(build(backend, x, 8, 400), x, 15, 400, include_self)
        assert_well_formed(x, np.arange(400), lists, 15)
        copies = 10 if include_self else 9
        assert ((lists.distances == 0).sum(axis=1) == copies).mean() > 0.9


@both_backends
def test_distances_are_those_of_the_ids_bit_for_bit(backend):
    x = clustered(1000)
    lists = search_all(build(backend, x, 4, 20), x, 30, 10)
    assert_well_formed(x, np.arange(1000), lists, 30)


@both_backends
def test_query_is_not_its_own_neighbor(backend):
    x = clustered(1000)
    queries = np.array([1, 2, 500, 999])
    lists = search(build(backend, x, 4, 20), x, queries, 20, 10)
    assert_well_formed(x, queries, lists, 20)
    assert not (lists.indices == queries[:, None]).any()


@both_backends
def test_include_self_has_the_query_at_distance_zero(backend):
    x = normal(500, 8)
    lists = search_all(build(backend, x), x, 10, 50, include_self=True)
    np.testing.assert_array_equal(lists.indices[:, 0], np.arange(500))
    assert (lists.distances[:, 0] == 0).all()
    assert (lists.distances[:, 1] > 0).all()


@both_backends
def test_include_self_is_the_query_before_its_neighbors(backend):
    x = normal(500, 8)
    index = build(backend, x)
    own = search_all(index, x, 11, "k", include_self=True)
    proper = search_all(index, x, 10, "k")
    np.testing.assert_array_equal(own.indices[:, 1:], proper.indices)


@both_backends
def test_searching_does_not_change_the_index(backend):
    x = clustered(500)
    index = build(backend, x, 4, 20)
    before = search_all(index, x, 5, 10)
    search_all(index, x, 100, 400)
    after = search_all(index, x, 5, 10)
    np.testing.assert_array_equal(before.indices, after.indices)


def test_stop_rule_of_faiss_costs_overlap_beyond_ef_search():
    x, queries, k = clustered(3000), np.arange(0, 3000, 3), 200
    exact = ExactSearch(x).neighbors(queries, k).indices
    index = build("faiss", x)
    fixed, following = (
        neighborhood_overlap(exact, search(index, x, queries, k, ef).indices).mean()
        for ef in (50, "k")
    )
    assert following > 0.99
    assert fixed < following - 0.02

    # hnswlib raises efSearch to k by itself.
    lists = search(build("hnswlib", x), x, queries, k, 50)
    assert neighborhood_overlap(exact, lists.indices).mean() > 0.99


def test_stop_rule_of_faiss_is_no_matter_below_ef_search():
    x, queries = clustered(3000), np.arange(0, 3000, 10)
    exact = ExactSearch(x).neighbors(queries, 20).indices
    lists = search(build("faiss", x), x, queries, 20, 50)
    assert neighborhood_overlap(exact, lists.indices).mean() > 0.98


def test_policies_of_ef_search():
    graph = Graph("faiss", 32, 200)
    assert [HnswRun(graph, ef).ef(11) for ef in ("50", "k", "2k", "10k")] == [50, 11, 22, 110]
    assert HnswRun(graph, "2k").name == "faiss_M32_efc200_ef2k"
    assert HnswRun(graph, "50").effective_ef(101) == {
        "list_length": 101,
        "ef_search": 50,
        "candidates": 101,
        "stops_after": 50,
    }
    assert HnswRun(Graph("hnswlib", 32, 200), "50").effective_ef(101)["stops_after"] == 101


@pytest.mark.parametrize(
    ("backend", "ef"),
    [("annoy", "50"), ("faiss", ""), ("faiss", "0"), ("faiss", "0k"), ("hnswlib", "k2")],
)
def test_what_is_no_run(backend, ef):
    with pytest.raises(InputError, match="is no run"):
        HnswRun(Graph(backend, 32, 200), ef)


def test_searches_share_what_one_list_answers():
    ks = [10, 20, 49, 50, 60]
    fixed, policy = HnswRun(Graph("faiss", 32, 200), "50"), HnswRun(Graph("faiss", 32, 200), "k")
    assert searches(ks, fixed, False) == [(10, 20, 49), (50,), (60,)]
    assert searches(ks, fixed, True) == [(10, 20, 49, 50), (60,)]
    assert searches([60, 70], fixed, True) == [(60,), (70,)]
    assert searches(ks, policy, False) == [(k,) for k in ks]


def full_of_ties(n):
    """A coarse grid, on which rows coincide and most distances occur many times."""
    return np.random.default_rng(0).integers(0, 3, size=(n, 6)).astype(np.float32)


@both_backends
@pytest.mark.parametrize("include_self", [False, True])
@pytest.mark.parametrize("vectors", [clustered, full_of_ties])
def test_lists_cut_from_a_longer_one_are_those_of_their_own_search(backend, include_self, vectors):
    x, queries = vectors(2000), np.arange(0, 2000, 3)
    index = build(backend, x, M=8, ef_construction=40)
    run = HnswRun(Graph(backend, 8, 40), "50")
    ks, *_ = searches(range(1, 80), run, include_self)
    assert max(ks) == (50 if include_self else 49)
    together, _ = hnsw_neighbors(index, x, queries, ks, 50, include_self)
    for k in ks:
        alone = search(index, x, queries, k, 50, include_self)
        np.testing.assert_array_equal(together[k].indices, alone.indices)
        np.testing.assert_array_equal(together[k].distances, alone.distances)


@both_backends
@pytest.mark.parametrize("seed", [0, 5])
def test_a_saved_graph_is_the_same_graph(backend, seed, tmp_path):
    x = clustered(1000)
    graph = Graph(backend, 4, 10, seed)
    built = BACKENDS[backend].build(x, graph)
    built.save(tmp_path / "index")
    loaded = BACKENDS[backend].load(tmp_path / "index", x, graph)
    first, second = (search_all(index, x, 20, 5) for index in (built, loaded))
    np.testing.assert_array_equal(first.indices, second.indices)
    assert built.statistics() == loaded.statistics()


def test_statistics_of_a_graph_of_faiss():
    x = clustered(1000)
    said = build("faiss", x, M=8).statistics()
    assert sum(said["rows_by_highest_level"]) == 1000
    assert len(said["rows_by_highest_level"]) > 1
    assert 0 < said["min_degree_level_0"] <= said["mean_degree_level_0"] <= 16
    assert said["index_bytes"] > x.nbytes


def test_rows_out_of_reach_are_counted():
    # Islands of 40 and 20 rows with at most 2 * 2 links each: none leads over, and the entry point
    # is on one of them.
    x = two_islands(40, 20)
    index = build("faiss", x, M=2, ef_construction=10)
    out_of_reach = index.statistics()["unreachable_rows"]
    found_from_far = search_all(index, x, 59, 60).indices
    seen = np.unique(found_from_far[found_from_far >= 0])
    assert out_of_reach == 60 - len(seen)
