"""Neighbor lists that come from elsewhere."""

import faiss
import numpy as np
import pytest

from drift import InputError
from drift.neighbor_lists import as_ids, validate_neighbor_lists
from drift.pipeline.tasks.measure import NeighborFiles


def lists(n=200, d=20, k=15, scale=1.0, queries=40):
    """Vectors, and the neighbors of points that are none of them."""
    rng = np.random.default_rng(0)
    x = (scale * rng.normal(size=(n, d))).astype(np.float32)
    points = (scale * rng.normal(size=(queries, d))).astype(np.float32)
    squared, indices = faiss.knn(points, x, k)
    return x, points, indices, np.sqrt(squared)


def check(indices, distances, x, missing=False):
    validate_neighbor_lists(indices, distances, x, "--exact-lists", missing)


@pytest.mark.parametrize("scale", [1e-3, 1, 1e3])
def test_lists_of_points_that_are_no_rows_pass(scale):
    x, _, indices, distances = lists(scale=scale)
    check(indices, distances, x)
    check(indices, distances.astype(np.float16 if scale == 1 else np.float64), x)


@pytest.mark.parametrize("scale", [1e-3, 0.05, 10, 1e3])
def test_squared_distances_are_no_distances(scale):
    x, _, indices, distances = lists(scale=scale)
    with pytest.raises(InputError, match="Euclidean, not squared"):
        check(indices, distances**2, x)


def test_squares_that_could_be_distances_are_known_where_the_queries_are_the_rows():
    x, _, _, _ = lists(scale=0.4)
    squared, indices = faiss.knn(x, x, 16)
    squared, indices = squared[:, 1:], indices[:, 1:]
    check(indices, np.sqrt(squared), x)
    # Distances are from 1.5 to 1.9, their squares from 2.3 to 3.6: some point has such distances.
    check(indices[1:], squared[1:], x)
    with pytest.raises(InputError, match="Euclidean, not squared"):
        check(indices, squared, x)
    # As many queries as rows, but others: nothing is wrong with those.
    x, _, indices, distances = lists(queries=200)
    check(indices, distances, x)


def test_distances_of_other_vectors_are_known():
    x, _, indices, distances = lists()
    with pytest.raises(InputError, match="contradict the embeddings"):
        check(indices, distances, 3 * x)


def test_distances_that_a_quantizer_approximates_pass():
    x, points, _, _ = lists(n=2000, queries=300)
    index = faiss.index_factory(x.shape[1], "PQ10x8")
    index.train(x)
    index.add(x)
    squared, indices = index.search(points, 10)
    check(indices, np.sqrt(squared), x, missing=True)


@pytest.mark.parametrize("data", ["near duplicates", "far from the origin", "clusters"])
def test_distances_of_the_expanded_form_pass_where_they_are_rounding_noise(data):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 16))
    x = {
        "near duplicates": np.repeat(x[:30], 10, axis=0) + 1e-5 * x,
        "far from the origin": x + 1e4,
        "clusters": x + 1e4 * np.repeat(rng.normal(size=(10, 16)), 30, axis=0),
    }[data].astype(np.float32)
    index = faiss.IndexFlatL2(16)
    index.add(x)
    squared, indices = index.search(x, 6)
    distances = np.sqrt(np.maximum(squared, 0))
    check(indices, distances, x)
    check(indices[:, 1:], distances[:, 1:], x)


def test_distances_that_are_their_own_squares_pass():
    x = np.arange(300, dtype=np.float32)[:, None]
    ids = np.arange(300)[:, None] + [-1, 1]
    ids[0], ids[-1] = (1, 2), (298, 297)
    distances = np.abs(x[ids, 0] - x)
    check(ids, distances, x)


def test_more_queries_than_rows_pass():
    x, _, indices, distances = lists(n=50, queries=400)
    check(indices, distances, x)


@pytest.mark.parametrize(("share", "refused"), [(0.45, False), (0.55, True)])
def test_distances_are_refused_where_most_queries_have_impossible_ones(share, refused):
    x, _, indices, distances = lists(queries=200)
    wrong = np.arange(200) < 200 * share
    distances[wrong] *= 100
    if refused:
        with pytest.raises(InputError, match="contradict the embeddings"):
            check(indices, distances, x)
    else:
        check(indices, distances, x)


def test_rows_with_a_single_neighbor_and_none_pass():
    for count in (0, 1):
        x, _, indices, distances = lists(k=3)
        indices[1:, count:], distances[1:, count:] = -1, np.inf
        distances[0] *= 100  # one that is impossible is not most of them
        check(indices, distances, x, missing=True)


def test_files_of_any_whole_numbers_and_floats_are_read_by_rows(tmp_path):
    _, _, indices, distances = lists(k=8)
    files = NeighborFiles(tmp_path / "ids.npy", tmp_path / "distances.npy")
    for ids, lengths in (("i4", "f4"), ("u2", "f2"), (">i8", ">f8")):
        np.save(files.indices, indices.astype(ids))
        np.save(files.distances, distances.astype(lengths))
        read = files.read(5, 9, 3)
        assert read[0].dtype in (np.int32, np.int64)
        assert read[1].dtype.isnative
        np.testing.assert_array_equal(read[0], indices[5:9, :3])
        np.testing.assert_allclose(read[1], distances[5:9, :3], rtol=1e-3)
    assert files.read(0, 40)[0].shape == (40, 8)


def test_faults_are_named_by_row_and_id_in_whichever_block_they_are():
    x, _, indices, distances = lists(n=50, k=15, queries=40_000)
    indices[39_000, 4] = indices[39_000, 9]
    with pytest.raises(InputError, match=f"row 39000 has an id twice: {indices[39_000, 4]}$"):
        check(indices, distances, x)
    indices[38_999, 4] = 10**12
    with pytest.raises(InputError, match=f"row 38999 has an id that is no row .*: {10**12}$"):
        check(indices, distances, x)
    indices[38_999, 4] = -3
    with pytest.raises(InputError, match="row 38999 has the id -3: ids are whole numbers from 0"):
        check(indices, distances, x)


def test_lists_of_python_with_ids_that_only_some_types_hold():
    assert as_ids([[2**63, 1]]).dtype == np.uint64
    assert as_ids([[2**63 - 1, -1]]).dtype == np.int64
    for ids in ([[2**63, -1]], [[2**64, 1]], [[1.5, 2]], [[True, False]], np.ones((2, 2))):
        with pytest.raises(InputError, match="whole numbers"):
            as_ids(ids)
    ids = np.ones((2, 2), np.uint16)
    assert as_ids(ids) is ids
