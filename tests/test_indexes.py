"""HNSW graphs of the libraries that run in this process: how they are built, what they return."""

import runpy
import sys

import faiss
import hnswlib
import numpy as np
import pytest
from usearch.index import Index as UsearchIndex

from drift.exact import ExactSearch, neighbor_distances
from drift.indexes import hnswlib_hnsw
from drift.indexes import search as index_search
from drift.indexes.registry import LIBRARIES, index_class, parse_run
from drift.indexes.search import approximate_neighbors
from drift.metrics import found, neighborhood_overlap
from drift.pipeline import missing_package
from drift.protocols import Protocol
from drift.vectors import row_blocks

libraries = pytest.mark.parametrize("library", ["faiss", "hnswlib", "usearch"])


def normal(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def clustered(n, d=16, n_clusters=10, seed=0):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(n_clusters, d)) * 6
    return (centers[rng.integers(n_clusters, size=n)] + rng.normal(size=(n, d))).astype(np.float32)


def two_islands(first, second):
    """Two clusters so far apart that links between them are few, or none."""
    x = normal(first + second, 4)
    x[first:] += 1000
    return x


def full_of_ties(n):
    """A coarse grid, on which rows coincide and most distances occur many times."""
    return np.random.default_rng(0).integers(0, 3, size=(n, 6)).astype(np.float32)


def build(library, x, M=16, ef_construction=100, seed=0):
    run = parse_run(f"{library}:50", M, ef_construction, seed)
    return index_class(run).build(x, run)


def search(index, x, k, ef_search, protocol=Protocol.STUDY, queries=None):
    queries = np.arange(len(x)) if queries is None else queries
    settings = {"ef_search": ef_search}
    lists, _ = approximate_neighbors(index, x[queries], [k], settings, protocol, queries, x)
    return lists[k]


def assert_well_formed(x, queries, lists, k):
    """Ascending, of different ids without the query, and what is missing at the end."""
    ids, distances = lists.indices, lists.distances
    assert ids.shape == distances.shape == (len(queries), k)
    assert ids.dtype == np.int32 and distances.dtype == np.float32
    assert not (ids == queries[:, None]).any()
    np.testing.assert_allclose(distances, neighbor_distances(x[queries], x, ids), rtol=1e-6)
    for row_ids, row in zip(ids, distances, strict=True):
        m = (row_ids >= 0).sum()
        assert (row_ids[m:] == -1).all() and np.isinf(row[m:]).all()
        assert len(set(row_ids[:m])) == m and np.isfinite(row[:m]).all()
        pairs = list(zip(row[:m], row_ids[:m], strict=True))
        assert pairs == sorted(pairs)


# How a graph is built.


@pytest.mark.parametrize("seed", [0, 4])
@pytest.mark.parametrize("library", ["hnswlib", "usearch"])  # those of FAISS have tests of theirs
def test_a_graph_is_what_the_library_makes_of_the_rows_in_their_order(
    library, seed, tmp_path, monkeypatch
):
    x, path = normal(300, 8), tmp_path / "by hand"
    rows = parse_run("faiss:50", seed=seed).insertion_order(300)
    if library == "hnswlib":
        index = hnswlib.Index("l2", 8)
        index.init_index(300, 8, 40)  # with the library's own seed
        index.add_items(x[rows], rows, num_threads=1)
        index.save_index(str(path))
        monkeypatch.setattr(hnswlib_hnsw, "row_blocks", lambda n, _: row_blocks(n, 1, 7))
    else:
        index = UsearchIndex(ndim=8, metric="l2sq", dtype="f32", connectivity=8, expansion_add=40)
        index.add(rows, x[rows], threads=1)
        index.save(str(path))

    build(library, x, 8, 40, seed).save(tmp_path / "index")

    assert (tmp_path / "index").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("seed", [0, 5])
@libraries
def test_a_saved_graph_is_the_same_graph(library, seed, tmp_path):
    x, run = clustered(1000), parse_run(f"{library}:50", 4, 10, seed)
    built = index_class(run).build(x, run)
    built.save(tmp_path / "index")
    loaded = index_class(run).load(tmp_path / "index", x, run)
    for one, other in zip(*(search(each, x, 20, 5)[:2] for each in (built, loaded)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert built.statistics() == loaded.statistics()
    assert built.statistics()["index_bytes"] > x.nbytes


def test_statistics_of_a_graph_of_faiss():
    x = clustered(1000)
    shown = build("faiss", x, M=8).statistics()
    assert 0 < shown["mean_degree_level_0"] <= 16
    # Islands of 40 and 20 rows with at most 2 * 2 links each: none leads over, and the entry point
    # is on one of them.
    x = two_islands(40, 20)
    index = build("faiss", x, M=2, ef_construction=10)
    ids = search(index, x, 59, 60).indices
    assert index.statistics()["unreachable_rows"] == 60 - len(np.unique(ids[ids >= 0]))


@pytest.mark.parametrize(
    ("text", "least"),
    [
        ("faiss:50", 64),
        ("faiss:50,ef_construction=64", None),
        ("HNSW32,Flat:efSearch=50", 64),
        ("HNSW:efConstruction=64", None),
        ("HNSW16_SQ8", None),  # 40, FAISS's own, is above 32
        ("PCA8,HNSW24,RFlat", 48),
        ("IVF9_HNSW32,Flat", None),
        ("hnswlib:50", None),
    ],
)
def test_what_faiss_does_not_prune_is_a_warning(text, least):
    run = parse_run(text, 32, 63)
    warning = index_class(run).warning(run)
    if least is None:
        assert warning is None
    else:
        assert warning.startswith(f"{run.index_name}: FAISS prunes links from efConstr")
        assert f" 2 M = {least} on, and not below" in warning and "\n" not in warning


# Lists.


@pytest.mark.parametrize("seed", [0, 5])
@libraries
def test_with_all_rows_as_candidates_the_lists_are_exact(library, seed):
    # In half precision, usearch's default, most of these could not be distinguished.
    x = (normal(300, 8) * 1e-3 + 1).astype(np.float32)
    index = build(library, x, seed=seed)
    for k in (1, 20):
        exact = ExactSearch(x).neighbors(np.arange(300), k)
        lists = search(index, x, k, 300)
        np.testing.assert_array_equal(lists.indices, exact.indices)
        np.testing.assert_allclose(lists.distances, exact.distances, rtol=1e-6)


@libraries
def test_lists_of_few_candidates_are_well_formed(library):
    x = clustered(1000)
    index = build(library, x, 4, 20)
    for queries in (np.arange(1000), np.array([1, 2, 500, 999]), np.array([7])):
        assert_well_formed(x, queries, search(index, x, 30, 10, queries=queries), 30)
    few = x[:12]
    for queries in (np.arange(12), np.array([5])):
        lists = search(build(library, few), few, 20, 50, queries=queries)
        assert_well_formed(few, queries, lists, 20)
        assert ((lists.indices >= 0).sum(axis=1) == 11).all(), "all there are"


@pytest.mark.parametrize("protocol", Protocol)
@pytest.mark.parametrize("vectors", [clustered, full_of_ties])
@libraries
def test_lists_cut_from_a_longer_one_are_those_of_their_own_search(
    library, protocol, vectors, monkeypatch
):
    monkeypatch.setattr(index_search, "MAX_SEARCHES", 1)
    x, queries, ef = vectors(2000), np.arange(0, 2000, 3), {"ef_search": 50}
    index = build(library, x, M=8, ef_construction=40)
    ks = range(1, 51 if protocol.drops_nothing else 50)
    together, _ = approximate_neighbors(index, x[queries], ks, ef, protocol, queries, x)
    for k in ks:
        alone = search(index, x, k, 50, protocol, queries)
        np.testing.assert_array_equal(together[k].indices, alone.indices)
        np.testing.assert_array_equal(together[k].distances, alone.distances)


def test_which_of_tied_rows_are_searched_again_may_be_one_alone():
    # Of the first point the second and third neighbor are tied, of no other one.
    x = np.array([[0], [1], [3], [-3], [70], [71], [73], [78]], np.float32)
    index, queries = build("usearch", x), np.arange(8)
    lists, _ = approximate_neighbors(
        index, x, [2, 3, 5], {"ef_search": 8}, Protocol.STUDY, queries, x
    )
    for k in (2, 3, 5):
        np.testing.assert_array_equal(lists[k].indices, search(index, x, k, 8).indices)


# Where a search stops.


@pytest.mark.parametrize(
    ("text", "length", "candidates", "stops_after"),
    [
        ("faiss:50", 101, 101, 50),
        ("faiss:50", 11, 50, 50),
        ("HNSW32,Flat:efSearch=50", 101, 101, 50),
        ("hnswlib:50", 101, 101, 101),
        ("usearch:50", 101, 101, 101),
        ("usearch:50", 11, 50, 50),
        ("pgvector:50", 101, 50, 50),
        ("pgvector:50,iterative_scan=off", 101, 50, 50),
        ("pgvector:50,iterative_scan=relaxed_order", 101, 101, 101),
    ],
)
def test_stop_rules(text, length, candidates, stops_after):
    run = parse_run(text)
    expected = {"candidates": candidates, "stops_after": stops_after}
    expected |= {"list_length": length, "ef_search": 50}
    assert index_class(run).stop_rule(run, length, 50) == expected


def test_the_stop_rule_of_faiss_costs_overlap_beyond_ef_search_where_others_raise_it():
    x, queries, k = clustered(3000), np.arange(0, 3000, 3), 200
    exact = ExactSearch(x).neighbors(queries, k).indices
    overlap = {}
    for library in ("faiss", "hnswlib", "usearch"):
        index = build(library, x)
        for ef in (50, k + 1):
            ids = search(index, x, k, ef, queries=queries).indices
            overlap[library, ef] = neighborhood_overlap(exact, ids).mean()
        if library == "faiss":
            few = search(index, x, 20, 50, queries=queries).indices
            assert neighborhood_overlap(exact[:, :20], few).mean() > 0.98
        assert index.value_range("ef_search", 201) == (1 if library == "faiss" else 201, 3000)
    assert overlap.pop(("faiss", 50)) < overlap["faiss", 201] - 0.02
    assert min(overlap.values()) > 0.99
    assert overlap["usearch", 50] == overlap["usearch", 201]


@pytest.mark.parametrize(
    ("sizes", "M", "k", "ef_search", "seed"),
    [((300, 200), 2, 220, 221, 0), ((200, 200), 4, 150, 10, 0), ((200, 200), 4, 150, 10, 4)],
)
def test_short_rows_of_faiss(sizes, M, k, ef_search, seed):
    x = two_islands(*sizes)
    lists = search(build("faiss", x, M, 20, seed), x, k, ef_search)
    assert_well_formed(x, np.arange(len(x)), lists, k)
    assert (found(lists.indices) < 1).any()


def test_short_rows_of_hnswlib_are_all_that_it_gives():
    x, k = two_islands(200, 200), 210
    index = build("hnswlib", x, M=3, ef_construction=10)
    assert_well_formed(x, np.arange(400), search(index, x, k, 10), k)
    library = index._index
    library.set_ef(k)
    with pytest.raises(RuntimeError):
        library.knn_query(x, k)

    ids, squared = index.search(x, k, {"ef_search": 10})

    lengths = (ids >= 0).sum(axis=1)
    assert 0 < (lengths < k).sum() < 400
    for row in range(0, 400, 5):
        m = lengths[row]
        alone = library.knn_query(x[row : row + 1], m)
        np.testing.assert_array_equal(ids[row, :m], alone[0][0])
        np.testing.assert_array_equal(squared[row, :m], alone[1][0])
        assert (ids[row, m:] == -1).all()
        if m < k:
            with pytest.raises(RuntimeError):
                library.knn_query(x[row : row + 1], m + 1)


# Libraries that are not installed.


@pytest.mark.parametrize(
    ("library", "package", "file"),
    [
        ("hnswlib", "hnswlib", "vectors"),
        ("usearch", "usearch.index", "backends"),
        ("pgvector", "psycopg", "backends"),
        ("pgvector", "pgvector.psycopg", "backends"),
    ],
)
def test_without_its_library_a_run_says_which_file_has_it(library, package, file, monkeypatch):
    run, known = parse_run(f"{library}:50"), LIBRARIES[library]
    known.check(run, 8, [11])
    monkeypatch.setitem(sys.modules, package, None)
    module = runpy.run_path(sys.modules[known.__module__].__file__)

    with pytest.raises(ImportError) as error:
        module[known.__name__].check(run, 8, [11])

    message = missing_package(error.value)
    assert message.startswith(f"{library.replace('pgvector', package.partition('.')[0])} cannot")
    assert message.endswith(f"): pip install -r requirements-{file}.txt")


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


@pytest.mark.parametrize("library", ["faiss", "usearch"])
def test_distance_computations_are_those_of_one_search_of_these_points(library):
    x, queries = clustered(1000), np.arange(0, 1000, 5)
    index, ef, counts = build(library, x, M=8), {"ef_search": 50}, {}
    threads = faiss.omp_get_max_threads()
    for n_threads in (1, 3):
        faiss.omp_set_num_threads(n_threads)
        for name, rows in (("all", queries), ("first", queries[:50]), ("rest", queries[50:])):
            for ks in ([10], [40, 10]):
                _, cost = approximate_neighbors(index, x[rows], ks, ef, Protocol.STUDY, rows, x)
                counts.setdefault(name, set()).add(cost.distance_computations)
    faiss.omp_set_num_threads(threads)
    index.search(x, 11, {"ef_search": 1000})
    # All of them, and those on the way down through the upper levels.
    assert 1000 <= index.distance_computations / 1000 < 1200
    assert build("hnswlib", x).distance_computations is None
    every, first, rest = (counts[name].pop() for name in ("all", "first", "rest"))
    assert not any(counts.values()), "the same each time"
    assert every == first + rest and 50 < every / len(queries) < 1000
