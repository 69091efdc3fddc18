"""Whether neighbor lists can be measured: of any system, and of any whole numbers."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike

from drift import InputError
from drift.vectors import row_blocks

Faults = Iterator[tuple[str, np.ndarray]]  # what can be wrong with lists, and where it is


def as_ids(ids: ArrayLike, name: str = "ids") -> np.ndarray:
    """Neighbor lists as an array of whole numbers (Q, k) of any type and size.

    A missing neighbor is -1, of signed types only. `name` is what an `InputError` calls lists that
    are no whole numbers, or not of one shape (Q, k), k at least 1.
    """
    array = _as_array(ids, name)
    # NumPy makes floats of a list of Python in which some numbers fit int64 and others do not.
    if array.dtype.kind in "fO" and not isinstance(ids, np.ndarray):
        exact = np.asarray(ids, dtype=object)
        if all(isinstance(value, int) and 0 <= value < 2**64 for value in exact.ravel()):
            array = exact.astype(np.uint64)
    return _of_kind("iu", array, name, "whole numbers (-1: missing)")


def as_distances(distances: ArrayLike, name: str = "distances") -> np.ndarray:
    """Neighbor distances as an array of floats (Q, k), or an `InputError` as in `as_ids`."""
    array = _of_kind("fiu", _as_array(distances, name), name, "numbers (+inf: missing)")
    return array if array.dtype.kind == "f" else array.astype(np.float64)


def checked_ids(ids: ArrayLike, name: str = "ids", n: int | None = None) -> np.ndarray:
    """`as_ids`, refused where a row holds an id twice, or one that is not in 0 .. n - 1 or -1."""
    ids = as_ids(ids, name)
    for start, stop in row_blocks(len(ids), 64 * ids.shape[1]):
        _refuse(_id_faults(ids[start:stop], n), ids[start:stop], name, start)
    return ids


def checked_distances(distances: ArrayLike, name: str = "distances") -> np.ndarray:
    """`as_distances`, refused where a row holds one that cannot be, or does not ascend."""
    distances = as_distances(distances, name)
    _refuse(_distance_faults(distances), distances, name)
    return distances


def checked_pair(
    check: Callable[..., np.ndarray], what: str, exact: ArrayLike, ann: ArrayLike, *n: int
) -> tuple[np.ndarray, np.ndarray]:
    """`checked_ids` or `checked_distances` of exact lists and of those returned, of one shape."""
    one, other = check(exact, f"exact {what}", *n), check(ann, f"ANN {what}", *n)
    if one.shape != other.shape:
        raise InputError(f"{what} must be of one shape (Q, k), not {one.shape} and {other.shape}")
    return one, other


def refuse_faulty_lists(
    ids: np.ndarray, distances: np.ndarray, name: str, n: int, first_row: int = 0
) -> None:
    """Raise InputError where ids or distances (Q, k) cannot be; it names the first such row.

    Ids have to be below `n`, and none twice in a row; a missing neighbor is id -1 at distance +inf,
    at the end of the row. `first_row` is the number of the first row.
    """
    _refuse(_id_faults(ids, n), ids, name, first_row)
    _refuse(_distance_faults(distances, ids), ids, name, first_row)


def _as_array(values: ArrayLike, name: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError:  # NumPy's own message is of its inner workings
        raise InputError(f"{name} must be of one shape (Q, k): rows differ in length") from None


def _of_kind(kinds: str, array: np.ndarray, name: str, wanted: str) -> np.ndarray:
    if array.ndim != 2 or array.shape[1] == 0 or array.dtype.kind not in kinds:
        raise InputError(
            f"{name} must be {wanted} of shape (Q, k), not {array.dtype} of shape {array.shape}"
        )
    return array


def _refuse(faults: Faults, values: np.ndarray, name: str, first_row: int = 0) -> None:
    """Raise InputError for the first fault that is somewhere, with its row and what is there."""
    for fault, where in faults:
        if where.any():
            row, column = (int(place[0]) for place in np.nonzero(where))
            fault = fault.format(value=values[row, column])
            raise InputError(f"{name}: row {first_row + row} has {fault}")


def _id_faults(ids: np.ndarray, n: int | None) -> Faults:
    yield "the id {value}: ids are whole numbers from 0 on, -1 for a missing neighbor", ids < -1
    if n is not None:
        yield f"an id that is no row of the {n} embeddings: {{value}}", ids >= n
    in_order = np.sort(ids, axis=1)
    twice = (in_order[:, 1:] == in_order[:, :-1]) & (in_order[:, 1:] >= 0)
    if twice.any():
        row, column = (int(place[0]) for place in np.nonzero(twice))
        yield f"an id twice: {in_order[row, column]}", twice


def _distance_faults(distances: np.ndarray, ids: np.ndarray | None = None) -> Faults:
    yield "a distance that is not a number or negative", ~(distances >= 0)
    if ids is not None:
        gone = ids < 0
        yield "a missing neighbor before one that is there", gone[:, :-1] & ~gone[:, 1:]
        fault = "an id -1 that is not at distance +inf, or another that is"
        yield fault, gone != np.isinf(distances)
    yield "distances that do not ascend", distances[:, 1:] < distances[:, :-1]
