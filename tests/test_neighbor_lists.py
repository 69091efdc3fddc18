"""Neighbor lists that come from elsewhere."""

import faiss
import numpy as np
import pytest

from drift import InputError
from drift.neighbor_lists import as_ids, refuse_faulty_lists


def lists(n, k, queries):
    """The neighbors of points that are no rows."""
    rng = np.random.default_rng(0)
    x, points = (rng.normal(size=(size, 20)).astype(np.float32) for size in (n, queries))
    squared, indices = faiss.knn(points, x, k)
    return indices, np.sqrt(squared)


def test_faults_are_named_by_row_and_id_in_whichever_block_they_are():
    indices, distances = lists(n=50, k=15, queries=40_000)
    indices[39_000, 4] = indices[39_000, 9]
    with pytest.raises(InputError, match=f"row 39000 has an id twice: {indices[39_000, 4]}$"):
        refuse_faulty_lists(indices, distances, "lists", 50)
    indices[38_999, 4] = 10**12
    with pytest.raises(InputError, match=f"row 38999 has an id that is no row .*: {10**12}$"):
        refuse_faulty_lists(indices, distances, "lists", 50)
    indices[38_999, 4] = -3
    with pytest.raises(InputError, match="row 38999 has the id -3: ids are whole numbers from 0"):
        refuse_faulty_lists(indices, distances, "lists", 50)


def test_lists_of_python_with_ids_that_only_some_types_hold():
    assert as_ids([[2**63, 1]]).dtype == np.uint64
    assert as_ids([[2**63 - 1, -1]]).dtype == np.int64
    for ids in ([[2**63, -1]], [[2**64, 1]], [[1.5, 2]], [[True, False]], np.ones((2, 2))):
        with pytest.raises(InputError, match="whole numbers"):
            as_ids(ids)
    ids = np.ones((2, 2), np.uint16)
    assert as_ids(ids) is ids
