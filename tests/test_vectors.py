"""Embeddings made elsewhere: which are taken, what rounding does to them, and their origin."""

import itertools
import pickle

import faiss
import numpy as np
import pytest

from drift import InputError
from drift.pipeline.results import load_array
from drift.vectors import (
    center,
    check_embeddings,
    expansion_noise,
    mean_vector,
    pair_distances,
    product_error,
    rounding_to_float32,
    smallest_value,
    vector_norms,
)
from tests.conftest import Malicious


@pytest.fixture
def given():
    return np.random.default_rng(4).standard_normal((50, 6))


NOT_ARRAYS = [
    lambda path: np.save(path, np.array([["a", None]], dtype=object), allow_pickle=True),
    lambda path: path.write_bytes(pickle.dumps(Malicious(path.with_name("ran")))),
    lambda path: path.write_bytes(b""),
    lambda path: path.write_text("1,2,3\n4,5,6\n"),
]


@pytest.mark.parametrize("write", NOT_ARRAYS)
def test_file_that_holds_no_array_is_refused(write, tmp_path):
    path = tmp_path / "given.npy"
    write(path)
    with pytest.raises(InputError, match=str(path)):
        load_array(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones(6), r"x must be floats.*shape \(6,\)"),
        (np.ones((2, 3, 4)), r"shape \(2, 3, 4\)"),
        (np.float32(3), r"shape \(\)"),
        (np.ones((0, 6)), r"shape \(0, 6\)"),
        (np.ones((6, 0)), r"shape \(6, 0\)"),
        (np.ones((6, 2), np.int64), r"int64 of shape \(6, 2\): save them .astype"),
        (np.ones((6, 2), np.complex64), "complex64"),
        (np.array([["a"]]), "<U1"),
    ],
)
def test_arrays_that_are_no_embeddings_are_refused(array, message):
    with pytest.raises(InputError, match=message):
        check_embeddings(array, "x")


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "row 17"), (-np.inf, "not finite"), (1e39, "rescale"), (-1e300, "rescale")],
)
def test_values_that_no_embedding_has_are_refused(value, message, given):
    given[[17, 20], 3] = value
    with pytest.raises(InputError, match=message):
        check_embeddings(given)


@pytest.mark.parametrize(
    ("dtype", "order", "rows"),
    [
        *itertools.product(("<f8", "<f4", ">f4"), "CF", (1, 50)),
        ("<f4", "F", 5000),  # more than one block
    ],
)
def test_centered_vectors_are_rounded_once(dtype, order, rows):
    given = 100 + np.random.default_rng(0).standard_normal((rows, 2000 if rows == 5000 else 6))
    given = np.asarray(given, dtype=dtype, order=order)
    before = given.copy()
    expected = (given.astype(np.float64) - given.mean(axis=0, dtype=np.float64)).astype(np.float32)

    centered = center(given, mean_vector(given))

    assert (centered.dtype, centered.flags.c_contiguous) == (np.float32, True)
    # Means that were summed in another order differ in their last bits.
    np.testing.assert_allclose(centered, expected, rtol=2.0**-23, atol=1e-11)
    np.testing.assert_array_equal(given, before)


def test_rounding_is_a_share_of_the_distance_from_the_mean(given):
    offset = 1e5
    shifted = given + offset
    moved = np.linalg.norm(shifted - shifted.astype(np.float32))

    share = rounding_to_float32(shifted)

    assert share == pytest.approx(moved / np.linalg.norm(given - given.mean(axis=0)), rel=1e-6)
    assert rounding_to_float32(7 * shifted) == pytest.approx(share, rel=0.5)
    assert rounding_to_float32(given) < 1e-7
    assert rounding_to_float32(shifted.astype(np.float32)) == 0
    assert rounding_to_float32(np.full((3, 2), 0.1)) == 0, "one point, wherever it is"


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2"])
def test_norms_pair_distances_and_smallest_values_of_any_float(dtype, given):
    given = given.astype(dtype)
    exact = given.astype(np.float64)
    np.testing.assert_allclose(vector_norms(given), np.linalg.norm(exact, axis=1), rtol=1e-12)
    got = pair_distances(given[:4], np.array([0, 3]), given, np.array([5, 3]))
    np.testing.assert_allclose(got, [np.linalg.norm(exact[0] - exact[5]), 0], rtol=1e-7)
    assert smallest_value(given) == np.abs(exact).min()


@pytest.mark.parametrize("offset", [0, 30])
@pytest.mark.parametrize("d", [8, 1000])
def test_noise_of_the_expanded_form_is_what_it_is_said_to_be(d, offset):
    rng = np.random.default_rng(0)
    x = (offset + rng.normal(size=(400, d))).astype(np.float32)
    squared, ids = faiss.knn(x, x, 100)
    true = ((x[:, None, :].astype(float) - x[ids]) ** 2).sum(axis=2)
    norms = vector_norms(x)
    share = np.abs(squared - true) / (norms[:, None] + norms[ids]) ** 2
    assert share.max() < expansion_noise(d) < product_error(d)
    if d >= 500:  # the bound that is certain is far from it
        assert share.max() < product_error(d) / 8
