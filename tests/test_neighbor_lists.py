"""Neighbor lists that come from elsewhere."""

import faiss
import numpy as np
import pytest

from drift import InputError
from drift.neighbor_lists import as_ids, refuse_faulty_lists
from drift.pipeline.tasks.measure import NeighborFiles


def lists(n=200, d=20, k=15, scale=1.0, queries=40):
    """Vectors, and the neighbors of points that are none of them."""
    rng = np.random.default_rng(0)
    x = (scale * rng.normal(size=(n, d))).astype(np.float32)
    points = (scale * rng.normal(size=(queries, d))).astype(np.float32)
    squared, indices = faiss.knn(points, x, k)
    return x, points, indices, np.sqrt(squared)


def check(indices, distances, x):
    refuse_faulty_lists(indices, distances, "lists:", len(x))


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
