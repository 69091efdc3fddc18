"""Indexes of FAISS by their factory strings: what is built, what is found, what is reported."""

import functools
import os

import faiss
import numpy as np
import pytest

from drift import InputError
from drift.exact import ExactSearch, neighbor_distances
from drift.indexes import build_index, check_search, load_index
from drift.indexes.config import FactoryConfig, SearchConfig
from drift.indexes.search import approximate_neighbors, group_shared_searches
from drift.metrics import neighborhood_overlap
from drift.protocols import Protocol

N, D, K = 600, 16, 20
ALL = np.arange(N)
# With all settings at their most.
EXACT = [
    "Flat",
    f"HNSW32:efSearch={N}",
    f"HNSW32,Flat:efSearch={N}",
    f"NSG32,Flat:search_L={N}",
    "IVF16,Flat:nprobe=16",
    "IVF16_HNSW8,Flat:nprobe=16,quantizer_efSearch=16",
    f"PQ16x4fs,RFlat:k_factor_rf={N}",
    f"IVF16,PQ16x4fs,RFlat:nprobe=16,k_factor_rf={N}",
    f"HNSW32_SQ8,RFlat:efSearch={N},k_factor_rf={N}",
    f"PQ16x4fs,Refine(Flat):k_factor_rf={N}",
]
COMPRESSED = ["PQ16x4fs", "HNSW16_SQ8:efSearch=60", "IVF16,PQ8x4np:nprobe=4", "SQ8", "SQfp16"]
# With little effort, so that lists show how an index was built.
LOW = ["IVF16,Flat:nprobe=1", "HNSW4,Flat:efSearch=2", "NSG8,Flat:search_L=2", *COMPRESSED[:3]]


def vectors(n=N, d=D, seed=0):
    rng = np.random.default_rng(seed)
    centers = 2 * rng.normal(size=(8, d))
    return (centers[rng.integers(8, size=n)] + rng.normal(size=(n, d))).astype(np.float32)


def parse(text, seed=0):
    return SearchConfig.parse(text, 32, 200, seed)


def build(text, x, seed=0):
    return build_index(parse(text, seed).index, x)


@functools.cache
def built(text, seed=0):
    """The same, built once, for tests that set all there is to be set when they search."""
    return build(text, vectors(), seed)


def search(index, text, x, k=K, protocol=Protocol.STUDY, queries=None):
    queries = np.arange(len(x)) if queries is None else queries
    settings = parse(text).values(protocol.policy_length(k))
    lists, _ = approximate_neighbors(index, x[queries], [k], settings, protocol, queries, x)
    return lists[k]


def in_faiss(text, x, setting=None):
    """An index built by FAISS alone, with one thread as here."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    index = faiss.index_factory(x.shape[1], text.partition(":")[0])
    if setting:
        faiss.ParameterSpace().set_index_parameter(index, *setting)
    index.train(x)
    index.add(x)
    faiss.omp_set_num_threads(threads)
    for pieces in filter(None, text.partition(":")[2].split(",")):
        name, _, value = pieces.partition("=")
        faiss.ParameterSpace().set_index_parameter(index, name, float(value))
    return index


def links(index):
    return faiss.vector_to_array(faiss.downcast_index(index).hnsw.neighbors)


# What is found.


@pytest.mark.parametrize("text", EXACT)
@pytest.mark.parametrize("seed", [0, 3])
def test_with_all_settings_at_their_most_the_lists_are_exact(text, seed):
    x = vectors()
    exact = ExactSearch(x).neighbors(ALL, K)
    lists = search(built(text, seed), text, x)
    np.testing.assert_array_equal(lists.indices, exact.indices)
    np.testing.assert_allclose(lists.distances, exact.distances, rtol=1e-6)
    assert lists.reported is None


@pytest.mark.parametrize("text", [LOW[0], LOW[1], "NSG4,Flat:search_L=1"])
def test_less_effort_finds_less(text):
    x = vectors()
    exact = ExactSearch(x).neighbors(ALL, K).indices
    overlap = neighborhood_overlap(exact, search(built(text), text, x).indices).mean()
    assert 0.1 < overlap < 0.98


@pytest.mark.parametrize("text", ["SQ8", "HNSW32_SQ8:efSearch=100", "IVF16,SQ8:nprobe=16"])
def test_bytes_keep_most_neighbors(text):
    x = vectors()
    exact = ExactSearch(x).neighbors(ALL, K).indices
    overlap = neighborhood_overlap(exact, search(built(text), text, x).indices).mean()
    assert 0.9 < overlap < 1


@pytest.mark.parametrize("text", COMPRESSED)
def test_distances_are_the_true_ones_of_the_ids(text):
    x = vectors()
    lists = search(built(text), text, x)
    assert lists.indices.dtype == np.int32 and lists.distances.dtype == np.float32
    np.testing.assert_array_equal(lists.distances, neighbor_distances(x, x, lists.indices))
    assert (np.diff(lists.distances, axis=1) >= 0).all()
    assert not (lists.indices == ALL[:, None]).any()


@pytest.mark.parametrize("text", COMPRESSED)
@pytest.mark.parametrize("protocol", Protocol)
def test_reported_distances_are_those_of_faiss(text, protocol):
    x = vectors()
    squared, ids = in_faiss(text, x).search(x, protocol.list_length(K))
    expected = np.full((N, K), np.inf, np.float32)
    for row, (own, near) in enumerate(zip(np.sqrt(np.maximum(squared, 0)), ids, strict=True)):
        own = [distance if i >= 0 else np.inf for distance, i in zip(own, near, strict=True)]
        if protocol is Protocol.PAPER:
            del own[0]
        elif protocol is not Protocol.OUTSIDE and row in near:
            del own[list(near).index(row)]
        elif protocol is Protocol.STUDY:
            del own[-1]
        expected[row, : len(own)] = sorted(own)

    lists = search(built(text), text, x, protocol=protocol)

    assert lists.reported.dtype == np.float32
    np.testing.assert_allclose(lists.reported, expected, rtol=1e-6)
    assert (lists.reported != lists.distances).mean() > 0.5
    with_queries = (ids == ALL[:, None]).any(axis=1)
    if protocol is Protocol.NOTEBOOK:
        np.testing.assert_array_equal(np.isinf(lists.reported[:, -1]), with_queries)
    elif text != "IVF16,PQ8x4np:nprobe=4":  # whose lists can end early
        assert np.isfinite(lists.reported).all()


class Returned:
    """An index that returns what it is given."""

    distance_computations, is_direct, is_compressed = None, False, True

    def __init__(self, ids, squared):
        self.found = np.array(ids), np.array(squared, np.float32)

    def search(self, points, length, settings):
        return tuple(side[:, :length] for side in self.found)


def returned(ids, squared, queries, protocol=Protocol.STUDY):
    x = np.arange(10, dtype=np.float32)[:, None]
    k = len(ids[0]) - (0 if protocol.drops_nothing else 1)
    index, queries = Returned(ids, squared), np.array(queries)
    lists, _ = approximate_neighbors(index, x[queries], [k], {}, protocol, queries, x)
    return lists[k]


def test_what_is_reported_is_sorted_by_itself():
    lists = returned([[4, 2, 5, 7]], [[1.0, 4.0, 9.0, 16.0]], [4])
    assert lists.indices.tolist() == [[5, 2, 7]]
    assert lists.distances.tolist() == [[1, 2, 3]]
    assert lists.reported.tolist() == [[2, 3, 4]]


def test_a_query_that_is_not_found_leaves_the_last_as_the_index_ordered_them():
    # The last one is the nearest in truth.
    lists = returned([[2, 7, 5]], [[1.0, 4.0, 9.0]], [4])
    assert lists.indices.tolist() == [[2, 7]]
    assert lists.reported.tolist() == [[1, 2]]


def test_a_negative_square_counts_as_0_and_a_missing_one_is_infinite():
    lists = returned([[4, 3, 5, -1]], [[-3.0, -1e-3, 4.0, 5.0]], [4])
    assert lists.reported.tolist() == [[0, 2, np.inf]]
    assert lists.indices.tolist() == [[3, 5, -1]]


def test_the_published_protocols_of_reported_distances():
    ids, squared = [[3, 4, 5]], [[1.0, 4.0, 9.0]]
    own = returned(ids, squared, [4], Protocol.NOTEBOOK)
    assert own.indices.tolist() == [[4, 3, 5]], "the query stays in the list"
    assert own.reported.tolist() == [[1, 3, np.inf]], "and is not its own neighbor"
    assert returned(ids, squared, [4], Protocol.PAPER).reported.tolist() == [[2, 3]]
    # Numbers of queries from outside are no rows.
    assert returned(ids, squared, [4], Protocol.OUTSIDE).reported.tolist() == [[1, 2, 3]]


def test_each_length_is_searched_for_by_itself():
    for text in ("HNSW32,Flat:efSearch=50", "IVF16,Flat:nprobe=4", "PQ16x4fs"):
        groups = group_shared_searches([5, 10, 20], parse(text), Protocol.STUDY)
        assert groups == [(5,), (10,), (20,)]
        assert parse(text).effort([10, 20]) is None


@pytest.mark.parametrize(
    ("text", "compressed"),
    [
        *(("Flat", False), ("IVF16,Flat", False), ("HNSW16,Flat", False), ("HNSW16", False)),
        *(("NSG16,Flat", False), ("PQ16x4fs,RFlat", False), ("IVF16,PQ16x4fs,RFlat", False)),
        *(("PQ16x4fs,Refine(Flat)", False), ("IVF16_HNSW8,Flat", False)),
        *(("PQ16x4fs", True), ("SQ8", True), ("SQfp16", True), ("HNSW16_SQ8", True)),
        *(("HNSW16_PQ8x4np", True), ("NSG16,SQ8", True), ("IVF16,PQ16x4fs", True)),
        *(("IVF16,SQ8", True), ("PQ16x4fs,Refine(SQ8)", True), ("PCA8,Flat", True)),
    ],
)
def test_which_indexes_compute_from_compressed_vectors(text, compressed):
    x = vectors()
    index = build(text, x)
    assert index.is_compressed is compressed
    statistics = index.statistics()
    assert statistics.pop("index_bytes") == len(faiss.serialize_index(in_faiss(text, x)))
    assert statistics == {"compressed": compressed}
    ids, squared = index.search(x[:200], K, {})
    own = np.where(ids < 0, np.inf, np.sqrt(np.maximum(squared, 0)))
    exact = neighbor_distances(x[:200], x, ids.astype(np.int32))
    assert np.allclose(own, exact, rtol=1e-5, atol=1e-3) is not compressed


# How it is built.


@pytest.mark.parametrize("ef", [40, 200])
def test_build_settings_take_effect_before_vectors_are_added(ef):
    x = vectors()
    built = links(build(f"HNSW8,Flat:efConstruction={ef},efSearch=20", x)._index)
    np.testing.assert_array_equal(
        built, links(in_faiss("HNSW8,Flat", x, ("efConstruction", float(ef))))
    )
    by_hand = faiss.IndexHNSWFlat(D, 8)
    by_hand.hnsw.efConstruction = ef
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    by_hand.add(x)
    faiss.omp_set_num_threads(threads)
    np.testing.assert_array_equal(built, links(by_hand))
    assert (built != links(build("HNSW8,Flat:efConstruction=10", x)._index)).any()


def test_an_ef_construction_changes_links():
    x = vectors()
    low, high = (links(build(f"HNSW8,Flat:efConstruction={ef}", x)._index) for ef in (20, 200))
    assert (low != high).any()


def test_a_quantizer_is_built_by_its_settings():
    x, graphs = vectors(), []
    for ef in (4, 200):
        text = f"IVF100_HNSW4,Flat:quantizer_efConstruction={ef},nprobe=1"
        assert parse(text).index.build_settings == (("quantizer_efConstruction", ef),)
        index = build(text, x)  # which owns its quantizer
        graphs.append(links(faiss.extract_index_ivf(index._index).quantizer))
    assert (graphs[0] != graphs[1]).any()


@pytest.mark.parametrize("text", LOW)
def test_the_same_seed_gives_the_same_bytes_and_another_one_another_index(text):
    x = vectors()
    built = [faiss.serialize_index(build(text, x, seed)._index) for seed in (0, 0, 3, 3)]
    np.testing.assert_array_equal(built[0], built[1])
    np.testing.assert_array_equal(built[2], built[3])
    assert not np.array_equal(built[0], built[2])


def test_a_seed_is_an_order_of_insertion():
    x = vectors()
    order = parse("Flat", seed=3).index.insertion_order(N)
    assert sorted(order) == list(range(N)) != list(order)
    for text in ("Flat", "HNSW8,Flat", "NSG8,Flat"):
        index = build(text, x, seed=3)._index
        np.testing.assert_array_equal(index.reconstruct_n(0, N), x[order])
        np.testing.assert_array_equal(build(text, x)._index.reconstruct_n(0, N), x)


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("text", [*LOW, "IVF16,PQ16x4fs,RFlat:nprobe=2,k_factor_rf=2"])
def test_a_saved_index_gives_the_same_lists(text, seed, tmp_path):
    x, config = vectors(), parse(text, seed).index
    first_index = build_index(config, x)
    first_index.save(tmp_path / "index")
    loaded = load_index(config, tmp_path / "index", x)
    first, second = (search(index, text, x) for index in (first_index, loaded))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    assert first_index.statistics() == loaded.statistics()
    assert first_index.is_compressed is loaded.is_compressed


def test_training_says_nothing(capfd):
    x = vectors(300)
    for text in ("PQ2np", "IVF20,PQ4x4fs"):
        in_faiss(text, x)
        assert "WARNING" in capfd.readouterr().err, "what FAISS itself says"
        build(text, x)
        assert capfd.readouterr() == ("", "")
    os.write(2, b"heard again")
    assert capfd.readouterr().err == "heard again"


def test_threads_are_those_of_the_search_again_when_it_is_built():
    threads = faiss.omp_get_max_threads()
    try:
        faiss.omp_set_num_threads(3)
        build("IVF16,Flat", vectors())
        assert faiss.omp_get_max_threads() == 3
        with pytest.raises(InputError):
            build("IVF700,Flat", vectors())
        assert faiss.omp_get_max_threads() == 3
    finally:
        faiss.omp_set_num_threads(threads)


def test_it_is_built_with_as_many_threads_as_are_asked_for(monkeypatch):
    numbers, search_threads = [], faiss.omp_get_max_threads()
    monkeypatch.setattr(faiss, "omp_set_num_threads", numbers.append)
    for build_threads in (1, 2):
        build_index(FactoryConfig("Flat", (), 0, build_threads), vectors())
    assert numbers == [1, search_threads, 2, search_threads]


# What it is called, and what is no run.


@pytest.mark.parametrize(
    ("text", "graph", "name"),
    [
        ("IVF256,Flat:nprobe=8", "IVF256_Flat", "IVF256_Flat_nprobe_8"),
        ("HNSW32_SQ8:efSearch=50", "HNSW32_SQ8", "HNSW32_SQ8_efSearch_50"),
        ("NSG32,Flat:search_L=50", "NSG32_Flat", "NSG32_Flat_search_L_50"),
        ("PQ64x4fs", "PQ64x4fs", "PQ64x4fs"),
        (
            "IVF256,PQ64x4fs,RFlat:nprobe=8,k_factor_rf=4",
            "IVF256_PQ64x4fs_RFlat",
            "IVF256_PQ64x4fs_RFlat_nprobe_8_k_factor_rf_4",
        ),
        ("HNSW32,Flat:efSearch=k,50", "HNSW32_Flat", "HNSW32_Flat_efSearch_k_50"),
        ("HNSW32:efSearch=0.25k", "HNSW32", "HNSW32_efSearch_0.25k"),
        ("IVF9,Flat:nprobe=overlap=0.99", "IVF9_Flat", "IVF9_Flat_nprobe_overlap_0.99"),
        (
            "HNSW8,Flat:efSearch=9,efConstruction=40",
            "HNSW8_Flat_efConstruction_40",
            "HNSW8_Flat_efConstruction_40_efSearch_9",
        ),
        ("IVF16(HNSW8),Refine(SQ8)", "IVF16_HNSW8__Refine_SQ8_", "IVF16_HNSW8__Refine_SQ8_"),
        ("Residual-2,x é", "Residual-2_x__", "Residual-2_x__"),
    ],
)
def test_names(text, graph, name):
    for seed, suffix in ((0, ""), (7, "_seed7")):
        config = parse(text, seed)
        assert config.index.name == graph + suffix
        assert config.name == name + suffix


def test_pieces_without_an_equals_sign_belong_to_the_policy_before_them():
    config = parse("IVF256,PQ64x4fs,RFlat:nprobe=0.5k,8,k_factor_rf=4", seed=2)
    assert config.index == FactoryConfig("IVF256,PQ64x4fs,RFlat", (), 2)
    assert config.settings == (("nprobe", "0.5k,8"), ("k_factor_rf", "4"))
    assert [config.values(length) for length in (10, 101)] == [
        {"nprobe": 8, "k_factor_rf": 4},
        {"nprobe": 50, "k_factor_rf": 4},
    ]
    assert config.parameters == {
        "backend": "faiss",
        "factory": "IVF256,PQ64x4fs,RFlat",
        "seed": 2,
        "build_threads": 1,
        "ef_search": None,
        "settings": {"nprobe": "0.5k,8", "k_factor_rf": "4"},
    }


def test_settings_of_graphs_do_not_apply():
    one, other = (SearchConfig.parse("HNSW8,Flat:efSearch=k,50", m, 40) for m in (4, 64))
    assert one == other
    built = parse("HNSW8,Flat:efSearch=5,efConstruction=40")
    assert built.parameters["build_settings"] == {"efConstruction": 40}
    assert built.parameters["ef_search"] == 5
    assert built.settings == (("efSearch", "5"),)


def refused(text, d=D):
    """What is said of a run that is none, before anything is built."""
    with pytest.raises(InputError) as error:
        check_search(parse(text), d, [11, 61])
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("text", [*EXACT, *COMPRESSED, *LOW, "PQ8x4:ht=20"])
def test_what_is_a_run_is_not_refused(text):
    check_search(parse(text), D, [11, 61])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fiass:50", "fiass:50 is no run: write BACKEND:EF"),
        ("fiass:k,50", "fiass:k,50 is no run"),
        ("annoy", "FAISS has no index annoy of 16 dimensions: could not parse"),
        ("IVF16,Flut:nprobe=8", "FAISS has no index IVF16,Flut of 16 dimensions"),
        ("", "FAISS has no index"),
        ("IVF16,Flat:", "is no run"),
        ("IVF16,Flat:nprobe", "is no run"),
        ("IVF16,Flat:nprobe=8,k", "is no run"),
        ("IVF16,Flat:nprobe=-3", "is no run"),
        ("IVF16,Flat:=3", "is no run"),
        ("IVF16,Flat:probes=8", "IVF16,Flat has no setting probes"),
        ("Flat:nprobe=8", "Flat has no setting nprobe"),
        ("IVF16,Flat:search_L=8", "IVF16,Flat has no setting search_L"),
        ("IVF16,Flat:efConstruction=40", "IVF16,Flat has no setting efConstruction"),
        ("HNSW8,Flat:efConstruction=k", "efConstruction must be a whole number, not k"),
        ("HNSW8,Flat:efConstruction=2.5", "efConstruction must be a whole number, not 2.5"),
        ("HNSW8,Flat:efConstruction=0", "efConstruction must be a whole number, not 0"),
        ("HNSW8,Flat:efConstruction=lid=0.1", "efConstruction must be a whole number"),
        ("PQ5", "The dimension of the vector (d) should be a multiple"),
        ("IVF16,Flat:nprobe=0", "nprobe is a whole number, 1 or more, not 0"),
        ("IVF16,Flat:nprobe=0.5", "nprobe is a whole number, 1 or more, not 0.5"),
        ("HNSW8,Flat:efSearch=0", "efSearch is a whole number, 1 or more"),
        ("IVF16,Flat:nprobe=1.5", "nprobe is a whole number, 1 or more, not 1.5"),
        ("ITQ16,LSH", "Hamming"),
        ("PQ16x4fs,RFlat:k_factor_rf=0.5", "k_factor_rf is 1 or more"),
        ("IVF16,Flat:nprobe=8,nprobe=9", "nprobe is there twice"),
        ("HNSW0,Flat", "fewer than 2 links"),
        ("IVF16_HNSW1,Flat", "fewer than 2 links"),
        ("PQ8x4:ht=overlap=0.9", "this can be looked for in efSearch, nprobe, search_L"),
        ("IVF9,PQ4,RFlat:nprobe=overlap=0.9,k_factor_rf=lid=0.1", "only one setting"),
    ],
)
def test_what_is_no_run_is_one_line(text, message):
    assert message in refused(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("IVF700,Flat", "Number of training points (600) should be at least as large as number"),
        ("IDMap,Flat", "add does not make sense"),
        ("PQ4x10", "Number of training points (600)"),
    ],
)
def test_what_the_vectors_are_too_few_for_is_one_line(text, why, capfd):
    with pytest.raises(InputError) as error:
        build(text, vectors())
    message = str(error.value)
    assert message.startswith(f"no index {text} on 600 x 16 vectors: ")
    assert why in message and "\n" not in message
    assert capfd.readouterr().err == ""


def test_what_faiss_does_not_search_with_is_one_line():
    with pytest.raises(InputError, match=r"no search with \{'nprobe': 0\}: .*nprobe > 0") as error:
        build("IVF16,Flat", vectors()).search(vectors(), K, {"nprobe": 0})
    assert "\n" not in str(error.value)


# What a search of it does.


def test_settings_reach_the_index():
    x = vectors()
    for text, name in (
        ("NSG8,Flat", "search_L"),
        ("HNSW4,Flat", "efSearch"),
        ("IVF16,Flat", "nprobe"),
        ("PQ4x4fs,RFlat", "k_factor_rf"),
        ("PCA8,NSG8", "search_L"),
    ):
        index = build(text, x)
        few = index.search(x[:60], K, {name: 1})[0]
        assert (few != index.search(x[:60], K, {name: N})[0]).any(), text
        np.testing.assert_array_equal(few, index.search(x[:60], K, {name: 1})[0])
        # More than there are rows is as good as all of them.
        np.testing.assert_array_equal(*(index.search(x[:60], K, {name: v})[0] for v in (N, 10**8)))


def test_distances_are_counted_where_faiss_does_so():
    x = vectors()
    index = build("IVF16,Flat", x)
    index.search(x, K, {"nprobe": 16})
    assert index.distance_computations == N * N
    index.search(x, K, {"nprobe": 2})
    assert 0 < index.distance_computations < N * N / 4
    graph = build("HNSW8,Flat", x)
    graph.search(x, K, {"efSearch": 40})
    assert 40 * N < graph.distance_computations < N * N
    flat = build("Flat", x)
    flat.search(x, K, {})
    assert flat.distance_computations is None


@pytest.mark.parametrize(
    ("text", "setting", "length", "expected"),
    [
        ("IVF16,Flat", "nprobe", 21, (1, 16)),
        ("IVF16,PQ16x4fs,RFlat", "nprobe", 21, (1, 16)),
        ("PCA8,IVF9,Flat", "nprobe", 21, (1, 9)),
        ("HNSW8,Flat", "efSearch", 21, (1, N)),
        ("NSG8,Flat", "search_L", 21, (1, N)),
        ("PQ16x4fs,RFlat", "k_factor_rf", 20, (1, 30)),
        ("PQ16x4fs,RFlat", "k_factor_rf", 21, (1, 29)),
        ("PQ16x4fs,RFlat", "k_factor_rf", 1000, (1, 1)),
    ],
)
def test_from_least_to_most_effort(text, setting, length, expected):
    points, index = vectors()[:60], built(text)
    assert index.value_range(setting, length) == expected
    if length == 1000:
        return
    # More than the most makes no difference.
    most = [index.search(points, length, {setting: value})[0] for value in (expected[1], N)]
    np.testing.assert_array_equal(*most)
