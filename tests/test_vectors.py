"""Embeddings made elsewhere: which are taken, and which are refused."""

import pickle

import numpy as np
import pytest

from drift import InputError
from drift.artifacts import load_array
from drift.vectors import check_embeddings, to_float32
from tests.conftest import Malicious


@pytest.fixture
def given():
    return np.random.default_rng(4).standard_normal((50, 6))


@pytest.mark.parametrize("dtype", ["<f8", "<f4", "<f2", ">f4", "longdouble"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_embeddings_of_any_float_are_taken(dtype, order, given, tmp_path):
    array = np.asarray(given, dtype=dtype, order=order)
    np.save(tmp_path / "given.npy", array)
    opened = load_array(tmp_path / "given.npy")
    check_embeddings(opened)
    taken = to_float32(opened, 10, 30)

    assert isinstance(opened, np.memmap)
    assert taken.dtype == np.float32
    assert taken.dtype.isnative
    np.testing.assert_array_equal(taken, array[10:30].astype(np.float32))


def save_objects(path):
    np.save(path, np.array([["a", None]], dtype=object), allow_pickle=True)


def save_archive(path):
    with path.open("wb") as file:
        np.savez(file, a=np.ones((2, 2)))


def save_half(path):
    np.save(path, np.ones((1000, 100)))
    path.write_bytes(path.read_bytes()[:1000])


NOT_EMBEDDINGS = [
    (save_objects, "given.npy"),
    (save_archive, "archive"),
    (save_half, "given.npy"),
    (lambda path: path.write_bytes(b""), "given.npy"),
    (lambda path: path.write_text("1,2,3\n4,5,6\n"), "given.npy"),
    (lambda path: path.write_bytes(pickle.dumps(Malicious(path.with_name("ran")))), "given.npy"),
    (lambda path: np.save(path, np.ones(6)), r"shape \(6,\)"),
    (lambda path: np.save(path, np.ones((2, 3, 4))), r"shape \(2, 3, 4\)"),
    (lambda path: np.save(path, np.float32(3)), r"shape \(\)"),
    (lambda path: np.save(path, np.ones((0, 6))), r"shape \(0, 6\)"),
    (lambda path: np.save(path, np.ones((6, 0))), r"shape \(6, 0\)"),
    (lambda path: np.save(path, np.ones((6, 2), np.int64)), "int64"),
    (lambda path: np.save(path, np.ones((6, 2), np.complex64)), "complex64"),
    (lambda path: np.save(path, np.array([["a"]])), "<U1"),
]


@pytest.mark.parametrize(("write", "said"), NOT_EMBEDDINGS)
def test_file_that_holds_no_embeddings_is_refused(write, said, tmp_path):
    path = tmp_path / "given.npy"
    write(path)

    with pytest.raises(InputError, match=said) as caught:
        check_embeddings(load_array(path), str(path))
    assert str(path) in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("value", "why"),
    [(np.nan, "not finite"), (-np.inf, "not finite"), (1e39, "too large"), (-1e300, "too large")],
)
def test_row_that_is_no_embedding_is_named(value, why, given):
    given[[17, 20], 3] = value

    with pytest.raises(InputError, match=f"row 17 .*{why}"):
        to_float32(given, 10, 30)
    to_float32(given, 21, 50)
