"""Indexes of FAISS by their factory strings: how they are built, what they return and report."""

import functools

import faiss
import numpy as np
import pytest

from drift import InputError
from drift.exact import ExactSearch, neighbor_distances
from drift.indexes.registry import index_class, parse_run
from drift.indexes.search import approximate_neighbors
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
# With settings so low that lists show how an index was built.
LOW = ["IVF16,Flat:nprobe=1", "HNSW4,Flat:efSearch=2", "NSG8,Flat:search_L=2", *COMPRESSED[:3]]


@functools.cache
def vectors(n=N, d=D, seed=0):
    rng = np.random.default_rng(seed)
    centers = 2 * rng.normal(size=(8, d))
    return (centers[rng.integers(8, size=n)] + rng.normal(size=(n, d))).astype(np.float32)


def build(text, x, seed=0):
    run = parse_run(text, seed=seed)
    index_class(run).check(run, D, [11, 61])
    return index_class(run).build(x, run)


@functools.cache
def built(text, seed=0):
    """The same, built once, for tests that set all there is to be set when they search."""
    return build(text, vectors(), seed)


def search(index, text, protocol=Protocol.STUDY):
    x, settings = vectors(), parse_run(text).values(protocol.policy_length(K))
    lists, _ = approximate_neighbors(index, x, [K], settings, protocol, ALL, x)
    return lists[K]


def in_faiss(factory, x, **settings):
    """An index built by FAISS alone, with one thread as here."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    index = faiss.index_factory(x.shape[1], factory)
    for name, value in settings.items():
        faiss.ParameterSpace().set_index_parameter(index, name, value)
    index.train(x)
    index.add(x)
    faiss.omp_set_num_threads(threads)
    return index


# Lists.


@pytest.mark.parametrize("text", EXACT)
@pytest.mark.parametrize("seed", [0, 3])
def test_with_all_settings_at_their_most_the_lists_are_exact(text, seed):
    exact = ExactSearch(vectors()).neighbors(ALL, K)
    lists = search(built(text, seed), text)
    np.testing.assert_array_equal(lists.indices, exact.indices)
    np.testing.assert_allclose(lists.distances, exact.distances, rtol=1e-6)
    assert lists.reported is None


@pytest.mark.parametrize("text", COMPRESSED)
def test_reported_distances_are_those_of_faiss_and_the_others_the_true_ones(text):
    x, index = vectors(), built(text)
    lists = search(index, text, Protocol.OUTSIDE)
    squared, ids = index._index.search(x, K)
    expected = np.sort(np.where(ids < 0, np.inf, np.sqrt(np.maximum(squared, 0))), axis=1)
    assert lists.indices.dtype == np.int32
    assert lists.distances.dtype == lists.reported.dtype == np.float32
    np.testing.assert_array_equal(lists.distances, neighbor_distances(x, x, lists.indices))
    assert (np.diff(lists.distances, axis=1) >= 0).all()
    np.testing.assert_allclose(lists.reported, expected, rtol=1e-6)
    assert (lists.reported != lists.distances).mean() > 0.5


class Returned:
    """An index that returns what it is given."""

    distance_computations, is_direct, is_compressed = None, False, True

    def __init__(self, ids, squared):
        self.nearest = np.array(ids), np.array(squared, np.float32)

    def search(self, points, length, settings):
        return tuple(side[:, :length] for side in self.nearest)


INF = np.inf


@pytest.mark.parametrize(
    ("protocol", "ids", "squared", "expected_ids", "reported"),
    [
        # What is reported is sorted by itself.
        ("study", [4, 2, 5, 7], [1, 4, 9, 16], [5, 2, 7], [2, 3, 4]),
        # Without the query the last one goes by the index's own order: the nearest in truth.
        ("study", [2, 7, 5], [1, 4, 9], [2, 7], [1, 2]),
        # A negative square counts as 0, and a missing one is infinite.
        ("study", [4, 3, 5, -1], [-3, -1e-3, 4, 5], [3, 5, -1], [0, 2, INF]),
        # The query stays in the list, and is not its own neighbor.
        ("notebook", [3, 4, 5], [1, 4, 9], [4, 3, 5], [1, 3, INF]),
        ("paper", [3, 4, 5], [1, 4, 9], [4, 5], [2, 3]),
        # Numbers of queries from outside are no rows.
        ("outside", [3, 4, 5], [1, 4, 9], [4, 3, 5], [1, 2, 3]),
    ],
)
def test_reported_distances_by_protocol(protocol, ids, squared, expected_ids, reported):
    x, queries, k = np.arange(10, dtype=np.float32)[:, None], np.array([4]), len(expected_ids)
    index = Returned([ids], [squared])
    lists, _ = approximate_neighbors(index, x[queries], [k], {}, Protocol(protocol), queries, x)
    assert lists[k].indices.tolist() == [expected_ids]
    assert lists[k].reported.tolist() == [reported]


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
    assert index.is_compressed is index.statistics()["compressed"] is compressed
    assert index.statistics()["index_bytes"] == len(faiss.serialize_index(in_faiss(text, x)))
    ids, squared = index.search(x[:200], K, {})
    own = np.where(ids < 0, np.inf, np.sqrt(np.maximum(squared, 0)))
    exact = neighbor_distances(x[:200], x, ids.astype(np.int32))
    assert np.allclose(own[:, 1:], exact[:, 1:], rtol=1e-5, atol=2e-4) is not compressed


# Graphs.


def test_a_graph_by_m_and_one_by_its_factory_string_are_the_same():
    first, second = (
        build(text, vectors(), seed=3)
        for text in ("faiss:50,ef_construction=100", "HNSW32,Flat:efSearch=50,efConstruction=100")
    )
    assert first.statistics() == second.statistics()
    np.testing.assert_array_equal(*(faiss.serialize_index(one._index) for one in (first, second)))


@pytest.mark.parametrize("text", ["HNSW8_SQ8", "PCA16,HNSW8", "HNSW8,RFlat", "PCA16,HNSW8,RFlat"])
def test_a_graph_has_its_statistics_behind_transformations_and_refinements(text):
    plain, shown = (built(text).statistics() for text in ("HNSW8", text))
    assert shown["mean_degree_level_0"] == pytest.approx(plain["mean_degree_level_0"], rel=0.1)
    assert "mean_degree_level_0" not in built("IVF16_HNSW8,Flat").statistics()


# How it is built.


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize(
    ("factory", "settings"),
    [
        *((text.partition(":")[0], {}) for text in LOW),
        *(("HNSW8,Flat", {"efConstruction": ef}) for ef in (10, 200)),
        *(("IVF100_HNSW4,Flat", {"quantizer_efConstruction": ef}) for ef in (4, 200)),
    ],
)
def test_an_index_is_what_faiss_makes_of_the_rows_in_their_order(factory, settings, seed):
    text = f"{factory}:{','.join(f'{name}={value}' for name, value in settings.items())}"
    x = vectors()[parse_run("Flat", seed=seed).insertion_order(N)]
    index = build(text.rstrip(":"), vectors(), seed)._index
    by_faiss = in_faiss(factory, x, **settings)
    np.testing.assert_array_equal(*map(faiss.serialize_index, (index, by_faiss)))


def test_it_is_built_with_as_many_threads_as_are_asked_for(monkeypatch):
    numbers, search_threads = [], faiss.omp_get_max_threads()
    monkeypatch.setattr(faiss, "omp_set_num_threads", numbers.append)
    for text, n_threads in (("Flat", 1), ("faiss:50", 2), ("IVF700,Flat", 3)):
        run = parse_run(text, build_threads=n_threads)
        try:
            index_class(run).build(vectors(), run)
        except InputError:
            assert text == "IVF700,Flat"
    assert numbers == [1, search_threads, 2, search_threads, 3, search_threads]


# What is refused.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Annoy", "FAISS has no index Annoy of 16 dimensions: could not parse"),
        ("IVF16,Flut:nprobe=8", "FAISS has no index IVF16,Flut of 16 dimensions"),
        ("IVF16,Flat:probes=8", "IVF16,Flat has no setting probes"),
        ("PQ4x4fs:overlap=0.9", "PQ4x4fs has no setting overlap"),
        ("Flat:nprobe=8", "Flat has no setting nprobe"),
        ("Flat:efSearch=8", "Flat has no setting efSearch"),
        ("IVF16,Flat:search_L=8", "IVF16,Flat has no setting search_L"),
        ("IVF16,Flat:efConstruction=40", "IVF16,Flat has no setting efConstruction"),
        ("PQ5", "The dimension of the vector (d) should be a multiple"),
        ("IVF16,Flat:nprobe=0", "nprobe is a whole number, 1 or more, not 0"),
        ("IVF16,Flat:nprobe=1.5", "nprobe is a whole number, 1 or more, not 1.5"),
        ("HNSW8,Flat:efSearch=0", "HNSW8,Flat: efSearch is a whole number, 1 or more, not 0"),
        ("PQ16x4fs,RFlat:k_factor_rf=0.5", "k_factor_rf is 1 or more, not 0.5"),
        ("ITQ16,LSH", "Hamming"),
        ("HNSW0,Flat", "fewer than 2 links"),
        ("IVF16_HNSW1,Flat", "fewer than 2 links"),
        (
            "IVF700,Flat",
            "no index IVF700,Flat on 600 x 16 vectors: Number of training points (600)",
        ),
        ("IDMap,Flat", "no index IDMap,Flat on 600 x 16 vectors: add does not make sense"),
        ("PQ4x10", "no index PQ4x10 on 600 x 16 vectors: Number of training points"),
        ("PQ8x4:ht=overlap=0.9", "ht=overlap=...: this can be looked for in efSearch, nprobe, sea"),
    ],
)
def test_what_faiss_does_not_have_is_one_line(text, message, capfd):
    with pytest.raises(InputError) as error:
        build(text, vectors())
    assert message in str(error.value) and "\n" not in str(error.value)
    assert capfd.readouterr().err == ""


# What a search of it does.


@pytest.mark.parametrize(
    ("text", "setting", "length", "most"),
    [
        ("IVF16,Flat", "nprobe", 21, 16),
        ("PCA8,IVF9,Flat", "nprobe", 21, 9),
        ("HNSW4,Flat", "ef_search", 21, N),
        ("NSG8,Flat", "search_L", 21, N),
        ("PCA8,NSG8", "search_L", 21, N),
        ("PQ4x4fs,RFlat", "k_factor_rf", 20, 30),
        ("PQ4x4fs,RFlat", "k_factor_rf", 21, 29),
    ],
)
def test_settings_reach_the_index_and_have_an_end(text, setting, length, most):
    points, index = vectors()[:60], built(text)
    assert index.value_range(setting, length) == (1, most)
    lowest, highest, beyond, again = (
        index.search(points, length, {setting: value})[0] for value in (1, most, 10**8, 1)
    )
    assert (lowest != highest).any() and (lowest == again).all()
    np.testing.assert_array_equal(highest, beyond)


def test_distances_are_counted_where_faiss_does_so():
    counts = []
    settings = {"IVF16,Flat": {"nprobe": 16}, "HNSW8,Flat": {"ef_search": 40}, "Flat": {}}
    for text, chosen in settings.items():
        index = built(text)
        index.search(vectors(), K, chosen)
        counts.append(index.distance_computations)
    assert counts[0] == N * N and 40 * N <= counts[1] < N * N and counts[2] is None
