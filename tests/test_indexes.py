"""Lists of an index: what both libraries return, and what is made of it."""

import sys

import faiss
import hnswlib
import numpy as np
import pytest
from usearch.index import Index as UsearchIndex

from drift import InputError
from drift.exact import ExactSearch, neighbor_distances
from drift.indexes import build_index, check_search, hnswlib_hnsw, load_index
from drift.indexes import search as index_search
from drift.indexes.config import GraphConfig, SearchConfig
from drift.indexes.faiss_hnsw import FaissHnsw
from drift.indexes.search import approximate_neighbors, group_shared_searches
from drift.metrics import found, neighborhood_overlap
from drift.protocols import Protocol
from drift.vectors import row_blocks

graph_backends = pytest.mark.parametrize("backend", ["faiss", "hnswlib", "usearch"])


def ef_config(graph, policy):
    return SearchConfig(graph, (("ef_search", policy),))


def set_ef(config, length):
    return config.values(length)["ef_search"]


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
    return build_index(GraphConfig(backend, M, ef_construction, seed), x)


def search(index, x, queries, k, ef_search, protocol=Protocol.STUDY):
    """Lists of one length; `ef_search` a number, or "k" for as many as that means."""
    ef = protocol.policy_length(k) if ef_search == "k" else ef_search
    settings = {"ef_search": ef}
    lists, _ = approximate_neighbors(index, x[queries], [k], settings, protocol, queries, x)
    return lists[k]


def search_all(index, x, k, ef_search, protocol=Protocol.STUDY):
    return search(index, x, np.arange(len(x)), k, ef_search, protocol)


def assert_well_formed(x, queries, lists, k):
    """Ascending, of different ids, and what is missing at the end."""
    ids, distances = lists.indices, lists.distances
    assert ids.shape == distances.shape == (len(queries), k)
    assert ids.dtype == np.int32 and distances.dtype == np.float32
    np.testing.assert_allclose(distances, neighbor_distances(x[queries], x, ids), rtol=1e-6)
    for row_ids, row in zip(ids, distances, strict=True):
        m = (row_ids >= 0).sum()
        assert (row_ids[m:] == -1).all() and np.isinf(row[m:]).all()
        assert len(set(row_ids[:m])) == m and np.isfinite(row[:m]).all()
        pairs = list(zip(row[:m], row_ids[:m], strict=True))
        assert pairs == sorted(pairs)


def test_names_of_runs():
    assert ef_config(GraphConfig("faiss", 32, 200, 0), "50").name == "faiss_M32_efc200_ef50"
    assert ef_config(GraphConfig("faiss", 32, 200, 0), "k").name == "faiss_M32_efc200_efk"
    assert ef_config(GraphConfig("hnswlib", 16, 100, 0), "50").name == "hnswlib_M16_efc100_ef50"
    assert ef_config(GraphConfig("hnswlib", 32, 200, 7), "k").name == "hnswlib_M32_efc200_efk_seed7"
    for policy, name in (("k,50", "efkmin50"), ("2k,50", "ef2kmin50")):
        assert ef_config(GraphConfig("faiss", 32, 200), policy).name == f"faiss_M32_efc200_{name}"
    seeded = ef_config(GraphConfig("hnswlib", 32, 200, 7), "k,5")
    assert seeded.name == "hnswlib_M32_efc200_efkmin5_seed7"


@graph_backends
def test_candidate_list_of_all_rows_is_exact(backend):
    x = normal(300, 8)
    exact = ExactSearch(x).neighbors(np.arange(300), 20)
    lists = search_all(build(backend, x), x, 20, 300)
    np.testing.assert_array_equal(lists.indices, exact.indices)
    np.testing.assert_allclose(lists.distances, exact.distances, rtol=1e-6)


@graph_backends
def test_policy_k_keeps_as_many_candidates_as_are_asked_for(backend):
    x = clustered(1000)
    index = build(backend, x, M=4, ef_construction=20)
    for protocol, asked in (("study", 101), ("notebook", 100), ("paper", 100)):
        policy, number = (search_all(index, x, 100, ef, Protocol(protocol)) for ef in ("k", asked))
        np.testing.assert_array_equal(policy.indices, number.indices)


def test_policy_k_asks_for_the_query_too():
    class Recorder:
        distance_computations, is_direct, is_compressed = None, True, False

        def search(self, points, k, settings):
            asked.append((k, settings["ef_search"]))
            return np.tile(np.arange(k), (len(points), 1)), np.zeros((len(points), k), np.float32)

    x, asked = normal(30, 3), []
    for ef_search in ("k", 5):
        for protocol in Protocol:
            search_all(Recorder(), x, 10, ef_search, protocol)
    assert list(dict.fromkeys(asked)) == [(11, 11), (10, 10), (11, 10), (11, 5), (10, 5)]


@graph_backends
def test_same_seed_same_lists(backend):
    x = normal(1000, 16)
    for seed in (0, 3):
        first, second = (search_all(build(backend, x, 4, 10, seed), x, 10, 1) for _ in range(2))
        np.testing.assert_array_equal(first.indices, second.indices)


@graph_backends
def test_each_seed_has_a_graph_of_its_own(backend):
    # At a tiny efSearch lists show the graph they were found in.
    x = normal(1000, 16)
    lists = [search_all(build(backend, x, 4, 10, seed), x, 1, 1).indices for seed in range(4)]
    for first in range(4):
        for second in range(first):
            assert (lists[first] != lists[second]).any(), f"seeds {second} and {first}"


def lowest_links(index, n):
    """Pairs of rows that a link of the lowest level joins, read from what the library holds."""
    if isinstance(index, FaissHnsw):
        hnsw, row = index._index.hnsw, index._row
        starts = faiss.vector_to_array(hnsw.offsets).astype(np.int64)[:-1]
        width = hnsw.nb_neighbors(0)
        links = faiss.vector_to_array(hnsw.neighbors)[starts[:, None] + np.arange(width)]
        row = np.arange(n) if row is None else row
    else:
        (state,) = index._index.__getstate__()
        nodes = state["data_level0"].reshape(n, state["size_data_per_element"]).view(np.uint8)
        count = np.ascontiguousarray(nodes[:, :2]).view(np.uint16)
        slots = np.ascontiguousarray(nodes[:, 4 : 4 + 4 * state["max_M0"]]).view(np.uint32)
        links = np.where(np.arange(state["max_M0"]) < count, slots.astype(np.int64), -1)
        row = np.empty(n, np.int64)
        row[state["label_lookup_internal"]] = state["label_lookup_external"]
    start = np.repeat(np.arange(n), links.shape[1]).reshape(links.shape)
    return {*zip(row[start[links >= 0]].tolist(), row[links[links >= 0]].tolist(), strict=True)}


@pytest.mark.parametrize("backend", ["faiss", "hnswlib"])
def test_a_seed_is_an_order_of_insertion_and_changes_the_links(backend):
    x = clustered(1000)
    links = [lowest_links(build(backend, x, 8, 40, seed), 1000) for seed in (0, 1, 2, 1)]
    assert links[1] == links[3]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        shared = len(links[first] & links[second]) / len(links[first])
        assert 0.3 < shared < 0.95, f"{shared:.0%} of the links are shared"


def test_the_rows_are_inserted_in_their_order_with_seed_0_and_in_a_drawn_one_with_another():
    x = normal(300, 8)
    for seed in (0, 4):
        graph = GraphConfig("hnswlib", 8, 40, seed)
        order = graph.insertion_order(300)
        assert (order is None) == (seed == 0)
        library = hnswlib.Index("l2", 8)
        library.init_index(300, 8, 40)  # with the library's own seed
        rows = np.arange(300) if order is None else order
        library.add_items(x[rows], rows, num_threads=1)
        expected = type("Wrapped", (), {"_index": library})
        assert lowest_links(build_index(graph, x), 300) == lowest_links(expected, 300)
    assert sorted(order) == list(range(300)) != list(order)


@pytest.mark.parametrize("seed", [0, 4])
def test_hnswlib_inserts_in_blocks_what_it_would_insert_at_once(seed, monkeypatch):
    x, graph = normal(300, 8), GraphConfig("hnswlib", 8, 40, seed)
    at_once = lowest_links(build_index(graph, x), 300)
    monkeypatch.setattr(hnswlib_hnsw, "row_blocks", lambda n, _: row_blocks(n, 1, 7))
    assert lowest_links(build_index(graph, x), 300) == at_once


@graph_backends
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
    ids, _ = index.search(x, k, {"ef_search": 10})
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


@graph_backends
def test_more_neighbors_than_rows_come_back_short(backend):
    x = normal(12, 3)
    lists = search_all(build(backend, x), x, 20, 50)
    assert_well_formed(x, np.arange(12), lists, 20)
    assert ((lists.indices >= 0).sum(axis=1) == 11).all()


@graph_backends
def test_one_neighbor(backend):
    x = normal(300, 8)
    lists = search_all(build(backend, x), x, 1, 300)
    np.testing.assert_array_equal(
        lists.indices, ExactSearch(x).neighbors(np.arange(300), 1).indices
    )
    own = search_all(build(backend, x), x, 1, 300, Protocol.NOTEBOOK)
    np.testing.assert_array_equal(own.indices[:, 0], np.arange(300))


@graph_backends
def test_duplicates(backend):
    x = np.repeat(normal(40, 4), 10, axis=0)
    for protocol, copies in ((Protocol.STUDY, 9), (Protocol.NOTEBOOK, 10)):
        lists = search_all(build(backend, x, 8, 400), x, 15, 400, protocol)
        assert_well_formed(x, np.arange(400), lists, 15)
        assert ((lists.distances == 0).sum(axis=1) == copies).mean() > 0.9


@graph_backends
def test_distances_are_those_of_the_ids_bit_for_bit(backend):
    x = clustered(1000)
    lists = search_all(build(backend, x, 4, 20), x, 30, 10)
    assert_well_formed(x, np.arange(1000), lists, 30)


@graph_backends
def test_query_is_not_its_own_neighbor(backend):
    x = clustered(1000)
    queries = np.array([1, 2, 500, 999])
    lists = search(build(backend, x, 4, 20), x, queries, 20, 10)
    assert_well_formed(x, queries, lists, 20)
    assert not (lists.indices == queries[:, None]).any()


@graph_backends
def test_the_notebook_has_the_query_at_distance_zero(backend):
    x = normal(500, 8)
    lists = search_all(build(backend, x), x, 10, 50, Protocol.NOTEBOOK)
    np.testing.assert_array_equal(lists.indices[:, 0], np.arange(500))
    assert (lists.distances[:, 0] == 0).all()
    assert (lists.distances[:, 1] > 0).all()


@graph_backends
def test_the_notebook_has_the_query_before_its_neighbors(backend):
    x = normal(500, 8)
    index = build(backend, x)
    own = search_all(index, x, 11, "k", Protocol.NOTEBOOK)
    proper = search_all(index, x, 10, "k")
    np.testing.assert_array_equal(own.indices[:, 1:], proper.indices)


@graph_backends
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


def test_without_a_bounded_queue_faiss_stops_as_with_an_ef_search_of_the_length():
    x, length = clustered(3000), 200
    index = faiss.IndexHNSWFlat(x.shape[1], 16)
    index.add(x)
    lists = [
        index.search(x[::10], length, params=faiss.SearchParametersHNSW(**settings))[1]
        for settings in (
            {"efSearch": 20},
            {"efSearch": 20, "bounded_queue": False},
            {"efSearch": length},
        )
    ]
    assert found(lists[0]).mean() < 1
    assert found(lists[1]).mean() == 1
    assert neighborhood_overlap(lists[1], lists[2]).mean() > 0.99


def test_stop_rule_of_faiss_is_no_matter_below_ef_search():
    x, queries = clustered(3000), np.arange(0, 3000, 10)
    exact = ExactSearch(x).neighbors(queries, 20).indices
    lists = search(build("faiss", x), x, queries, 20, 50)
    assert neighborhood_overlap(exact, lists.indices).mean() > 0.98


def test_policies_of_ef_search():
    graph = GraphConfig("faiss", 32, 200)
    assert [set_ef(ef_config(graph, ef), 11) for ef in ("50", "k", "2k", "10k")] == [
        50,
        11,
        22,
        110,
    ]
    assert ef_config(graph, "2k").name == "faiss_M32_efc200_ef2k"
    quarter = ef_config(graph, "0.25k")
    assert [set_ef(quarter, length) for length in (1, 7, 8, 11, 12, 101)] == [2, 2, 2, 2, 3, 25]
    assert quarter.name == "faiss_M32_efc200_ef0.25k"
    # 0.29 times 100 is 28.999999999999996 in floating point.
    assert set_ef(ef_config(graph, "0.29k"), 100) == 29
    assert ef_config(graph, "50").effective_ef(101, 50) == {
        "list_length": 101,
        "ef_search": 50,
        "candidates": 101,
        "stops_after": 50,
    }
    assert (
        ef_config(GraphConfig("hnswlib", 32, 200), "50").effective_ef(101, 50)["stops_after"] == 101
    )


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("k,50", [50, 50, 50, 51, 251]),
        ("2k,50", [50, 50, 100, 102, 502]),
        ("3k,1", [3, 75]),
        ("0.5k,1", [1, 12]),
    ],
)
def test_policies_with_a_least_ef_search(policy, expected):
    config = ef_config(GraphConfig("faiss", 32, 200), policy)
    lengths = (1, 25) if len(expected) == 2 else (11, 25, 50, 51, 251)
    assert [set_ef(config, length) for length in lengths] == expected
    assert config.parameters["ef_search"] == policy


def test_a_least_ef_search_in_what_the_library_makes_of_it():
    config = ef_config(GraphConfig("faiss", 32, 200), "k,50")
    for length, ef in ((11, 50), (101, 101)):
        made = {"list_length": length, "ef_search": ef, "candidates": ef, "stops_after": ef}
        assert config.effective_ef(length, set_ef(config, length)) == made


@pytest.mark.parametrize(
    ("backend", "ef"),
    [
        *(("annoy", "50"), ("faiss", ""), ("faiss", "0"), ("faiss", "0k"), ("hnswlib", "k2")),
        *(
            ("faiss", fraction)
            for fraction in ("0.50k", "0.0k", ".5k", "1.k", "1k", "0.2.5", "01.5k")
        ),
        *(("faiss", f"k,{least}") for least in ("", "0", "050", "k", "50,60", " 50")),
        *(("faiss", "50,40"), ("faiss", ",50"), ("faiss", "k;50")),
    ],
)
def test_what_is_no_run(backend, ef):
    with pytest.raises(InputError, match="is no run"):
        ef_config(GraphConfig(backend, 32, 200), ef)


def test_a_run_is_parsed_with_what_belongs_to_its_policy():
    for text, policy in (("faiss:50", "50"), ("hnswlib:k", "k"), ("faiss:2k,50", "2k,50")):
        config = SearchConfig.parse(text, 16, 100, 3)
        backend = text.partition(":")[0]
        assert config == ef_config(GraphConfig(backend, 16, 100, 3), policy)


def test_a_run_can_have_an_ef_construction_of_its_own():
    config = SearchConfig.parse("faiss:0.25k,ef_construction=400", 32, 200, 3)
    assert config == ef_config(GraphConfig("faiss", 32, 400, 3), "0.25k")
    assert config.name == "faiss_M32_efc400_ef0.25k_seed3"


@pytest.mark.parametrize(
    ("text", "piece"),
    [
        ("faiss:k,50,threads=4", "threads=4"),
        ("faiss:50,iterative_scan=strict_order", "iterative_scan=strict_order"),
        ("hnswlib:k,a=1,50", "a=1,50"),
        ("faiss:k,=3", "=3"),
        ("faiss:50,ef_construction=0", "not 0"),
        ("faiss:50,ef_construction=9,ef_construction=8", "there twice"),
        ("faiss:50,ef_construction=", "ef_construction"),
    ],
)
def test_settings_that_no_run_has_are_refused_by_name(text, piece):
    with pytest.raises(InputError) as error:
        SearchConfig.parse(text, 32, 200)
    message = str(error.value)
    assert text.partition(":")[0] in message and piece in message and "\n" not in message


def test_searches_share_what_one_list_answers():
    ks = [10, 20, 49, 50, 60]
    fixed, policy = (
        ef_config(GraphConfig("faiss", 32, 200), "50"),
        ef_config(GraphConfig("faiss", 32, 200), "k"),
    )
    assert group_shared_searches(ks, fixed, Protocol.STUDY) == [(10, 20, 49), (50,), (60,)]
    assert group_shared_searches(ks, fixed, Protocol.NOTEBOOK) == [(10, 20, 49, 50), (60,)]
    assert group_shared_searches([60, 70], fixed, Protocol.NOTEBOOK) == [(60,), (70,)]
    assert group_shared_searches(ks, policy, Protocol.STUDY) == [(k,) for k in ks]
    least = ef_config(GraphConfig("faiss", 32, 200), "k,50")
    assert group_shared_searches(ks, least, Protocol.STUDY) == [(10, 20, 49), (50,), (60,)]
    assert group_shared_searches(ks, least, Protocol.NOTEBOOK) == [(10, 20, 49, 50), (60,)]
    twice = ef_config(GraphConfig("faiss", 32, 200), "2k,50")
    assert group_shared_searches(ks, twice, Protocol.STUDY) == [(10, 20), (49,), (50,), (60,)]


def full_of_ties(n):
    """A coarse grid, on which rows coincide and most distances occur many times."""
    return np.random.default_rng(0).integers(0, 3, size=(n, 6)).astype(np.float32)


@graph_backends
@pytest.mark.parametrize("protocol", Protocol)
@pytest.mark.parametrize("vectors", [clustered, full_of_ties])
@pytest.mark.parametrize("policy", ["50", "k,50"])
def test_lists_cut_from_a_longer_one_are_those_of_their_own_search(
    backend, protocol, vectors, policy, monkeypatch
):
    monkeypatch.setattr(index_search, "MAX_SEARCHES", 1)
    x, queries = vectors(2000), np.arange(0, 2000, 3)
    index = build(backend, x, M=8, ef_construction=40)
    run = ef_config(GraphConfig(backend, 8, 40), policy)
    ks, *_ = group_shared_searches(range(1, 80), run, protocol)
    assert protocol.list_length(max(ks)) == 50
    settings = {"ef_search": 50}
    together, _ = approximate_neighbors(index, x[queries], ks, settings, protocol, queries, x)
    for k in ks:
        alone = search(index, x, queries, k, 50, protocol)
        np.testing.assert_array_equal(together[k].indices, alone.indices)
        np.testing.assert_array_equal(together[k].distances, alone.distances)


@graph_backends
@pytest.mark.parametrize("seed", [0, 5])
def test_a_saved_graph_is_the_same_graph(backend, seed, tmp_path):
    x = clustered(1000)
    graph = GraphConfig(backend, 4, 10, seed)
    built = build_index(graph, x)
    built.save(tmp_path / "index")
    loaded = load_index(graph, tmp_path / "index", x)
    first, second = (search_all(index, x, 20, 5) for index in (built, loaded))
    np.testing.assert_array_equal(first.indices, second.indices)
    assert built.statistics() == loaded.statistics()


def test_statistics_of_a_graph_of_faiss():
    x = clustered(1000)
    shown = build("faiss", x, M=8).statistics()
    assert sum(shown["rows_by_highest_level"]) == 1000
    assert len(shown["rows_by_highest_level"]) > 1
    assert 0 < shown["min_degree_level_0"] <= shown["mean_degree_level_0"] <= 16
    assert shown["index_bytes"] > x.nbytes


def test_rows_out_of_reach_are_counted():
    # Islands of 40 and 20 rows with at most 2 * 2 links each: none leads over, and the entry point
    # is on one of them.
    x = two_islands(40, 20)
    index = build("faiss", x, M=2, ef_construction=10)
    out_of_reach = index.statistics()["unreachable_rows"]
    found_from_far = search_all(index, x, 59, 60).indices
    seen = np.unique(found_from_far[found_from_far >= 0])
    assert out_of_reach == 60 - len(seen)


# usearch alone.


def test_usearch_keeps_vectors_in_single_precision():
    # In half precision these would be off by 1 in 2000, and most could not be distinguished.
    x = (normal(300, 8) * 1e-3 + 1).astype(np.float32)
    index = build("usearch", x)
    exact = ExactSearch(x).neighbors(np.arange(300), 10)
    np.testing.assert_array_equal(search_all(index, x, 10, 300).indices, exact.indices)
    ids, squared = index.search(x, 11, {"ef_search": 300})
    direct = ((x[:, None] - x[ids]) ** 2).sum(axis=2)
    np.testing.assert_allclose(squared, direct, rtol=1e-5, atol=1e-12)
    np.testing.assert_array_equal(index._index.get(np.arange(300)), x)
    assert index._index.dtype.name == "F32" and index.is_direct and not index.is_compressed


def test_usearch_knows_rows_by_their_own_numbers_in_whatever_order_they_come():
    x, saved = clustered(500), []
    for seed in (0, 4):
        graph = GraphConfig("usearch", 8, 40, seed)
        index = build_index(graph, x)._index
        np.testing.assert_array_equal(index.get(np.arange(500)), x)
        order = graph.insertion_order(500)
        rows = np.arange(500) if order is None else order
        library = UsearchIndex(
            ndim=16, metric="l2sq", dtype="f32", connectivity=8, expansion_add=40
        )
        library.add(rows, x[rows], threads=1)
        assert bytes(index.save()) == bytes(library.save())
        saved.append(bytes(library.save()))
    assert saved[0] != saved[1]


def test_usearch_raises_ef_search_to_the_length_of_the_list():
    x, queries = clustered(3000), np.arange(0, 3000, 10)
    exact = ExactSearch(x).neighbors(queries, 250).indices
    index = build("usearch", x)
    fixed, raised = (search(index, x, queries, 250, ef) for ef in (50, 251))
    assert neighborhood_overlap(exact, fixed.indices).mean() > 0.99
    np.testing.assert_array_equal(fixed.indices, raised.indices)
    assert index.value_range("ef_search", 251) == (251, 3000)
    made = ef_config(GraphConfig("usearch", 16, 100), "50").effective_ef(251, 50)
    assert (made["candidates"], made["stops_after"]) == (251, 251)


def test_usearch_counts_distances_and_searches_with_as_many_threads_as_are_set():
    x = clustered(500)
    index, ef = build("usearch", x), {"ef_search": 50}
    threads, found = faiss.omp_get_max_threads(), []
    try:
        for n_threads in (1, 3):
            faiss.omp_set_num_threads(n_threads)
            found.append((*index.search(x, 10, ef), index.distance_computations))
    finally:
        faiss.omp_set_num_threads(threads)
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    assert 50 < found[0][2] / 500 < 500


def test_without_the_package_there_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    monkeypatch.delitem(sys.modules, "drift.indexes.usearch_hnsw", raising=False)
    config = SearchConfig.parse("usearch:50", 32, 200)
    for refused in (lambda: check_search(config, 8, [11]), lambda: build("usearch", normal(9, 3))):
        with pytest.raises(InputError) as error:
            refused()
        message = str(error.value)
        assert message.startswith("a run on usearch needs its library (")
        assert message.endswith("): pip install -r requirements-backends.txt")
        assert "\n" not in message
    check_search(SearchConfig.parse("faiss:50", 32, 200), 8, [11])


# What a search costs.


class Clock:
    """A clock that only a search moves on, and an index whose searches take given times."""

    distance_computations, is_direct, is_compressed = None, True, False

    def __init__(self, *seconds):
        self.now, self.seconds, self.searches = 0.0, list(seconds), []

    def perf_counter(self):
        return self.now

    def search(self, points, length, settings):
        self.searches.append((len(points), length))
        self.now += self.seconds.pop(0)
        return np.tile(np.arange(length), (len(points), 1)), np.zeros((len(points), length), "f4")


@pytest.mark.parametrize(
    ("seconds", "searches", "median"),
    [
        ([9.0, 1.0], 1, 9.0),  # a long one is not repeated
        ([0.0625, 0.125, 1.0], 2, 0.09375),
        ([0.01, 0.9, 0.02, 0.02], 2, 0.455),
        ([0.02, 0.01, 0.04, 0.01, 0.01, 0.01], 5, 0.01),  # one that was held up does not count
        ([0.0] * 9, 5, 0.0),
    ],
)
def test_a_short_search_is_repeated_and_its_median_kept(seconds, searches, median, monkeypatch):
    clock = Clock(*seconds)
    monkeypatch.setattr(index_search, "time", clock)
    (ids, _), cost = index_search.timed_search(clock, np.zeros((3, 2)), 4, {})
    assert clock.searches == [(3, 4)] * searches
    assert cost == (pytest.approx(median), None)
    assert ids.shape == (3, 4)


def test_searches_for_what_ties_left_open_do_not_count(monkeypatch):
    clock = Clock(1.0, 50.0, 50.0)
    monkeypatch.setattr(index_search, "time", clock)
    x = normal(30, 3)
    _, cost = approximate_neighbors(clock, x[:4], [5, 10, 20], {}, Protocol.STUDY, np.arange(4), x)
    assert clock.searches == [(4, 21), (4, 6), (4, 11)]
    assert cost.seconds == 1


def test_distance_computations_are_those_of_one_search_of_these_points():
    x, queries = clustered(1000), np.arange(0, 1000, 5)
    index, ef = build("faiss", x, M=8), {"ef_search": 50}
    cost = {}
    for name, rows in (("all", queries), ("first", queries[:50]), ("rest", queries[50:])):
        for ks in ([10], [40, 10]):
            _, cost[name] = approximate_neighbors(index, x[rows], ks, ef, Protocol.STUDY, rows, x)
    counts = {name: each.distance_computations for name, each in cost.items()}
    assert counts["all"] == counts["first"] + counts["rest"]
    assert 50 < counts["all"] / len(queries) < 1000
    threads = faiss.omp_get_max_threads()
    for n_threads in (1, 4):
        faiss.omp_set_num_threads(n_threads)
        _, again = approximate_neighbors(index, x[queries], [10], ef, Protocol.STUDY, queries, x)
        assert again.distance_computations == counts["all"]
    faiss.omp_set_num_threads(threads)


def test_who_keeps_all_rows_as_candidates_computes_all_distances():
    x = normal(300, 8)
    index = build("faiss", x)
    _, cost = approximate_neighbors(
        index, x[:100], [10], {"ef_search": 300}, Protocol.STUDY, np.arange(100), x
    )
    # Besides, those on the way down through the upper levels.
    assert 300 <= cost.distance_computations / 100 < 400


def test_hnswlib_keeps_no_count_of_distances():
    x = normal(300, 8)
    index, rows, ef = build("hnswlib", x), np.arange(100), {"ef_search": 50}
    _, cost = approximate_neighbors(index, x[:100], [10], ef, Protocol.STUDY, rows, x)
    assert cost.distance_computations is None
    assert cost.seconds > 0
