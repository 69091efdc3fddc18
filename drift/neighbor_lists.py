"""Whether neighbor lists can be measured: of any system, and of any whole numbers."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from drift import InputError
from drift.vectors import expansion_error, pair_distances, row_blocks


def as_ids(ids: ArrayLike, name: str = "ids") -> np.ndarray:
    """Neighbor lists as an array of whole numbers of any type and size.

    Parameters
    ----------
    ids : array_like of int, shape (Q, k)
        An array, or lists of Python. A missing neighbor is -1; unsigned types have no such id, and
        the largest of theirs is an id like any other.
    name : str
        What to call them in a message.

    Returns
    -------
    ndarray of int, shape (Q, k)
        The same array where it is one.

    Raises
    ------
    InputError
        When they are no whole numbers, or not of one shape (Q, k), k at least 1.
    """
    array = _as_array(ids, name)
    # NumPy makes floats of a list of Python in which some numbers fit int64 and others do not.
    if array.dtype.kind in "fO" and not isinstance(ids, np.ndarray):
        exact = np.asarray(ids, dtype=object)
        if all(isinstance(value, int) and 0 <= value < 2**64 for value in exact.ravel()):
            array = exact.astype(np.uint64)
    if array.ndim != 2 or array.shape[1] == 0 or array.dtype.kind not in "iu":
        raise InputError(
            f"{name} must be whole numbers of shape (Q, k), -1 for a missing one, not "
            f"{array.dtype} of shape {array.shape}"
        )
    return array


def as_distances(distances: ArrayLike, name: str = "distances") -> np.ndarray:
    """Neighbor distances as an array of floats.

    Parameters
    ----------
    distances : array_like of float, shape (Q, k)
        An array, or lists of Python.
    name : str
        What to call them in a message.

    Returns
    -------
    ndarray of float, shape (Q, k)

    Raises
    ------
    InputError
        When they are no numbers, or not of one shape (Q, k), k at least 1.
    """
    array = _as_array(distances, name)
    if array.ndim != 2 or array.shape[1] == 0 or array.dtype.kind not in "fiu":
        raise InputError(
            f"{name} must be numbers of shape (Q, k), +inf for a missing neighbor, not "
            f"{array.dtype} of shape {array.shape}"
        )
    return array if array.dtype.kind == "f" else array.astype(np.float64)


def checked_distances(distances: ArrayLike, name: str = "distances") -> np.ndarray:
    """`as_distances`, refused where a row holds one that cannot be, or does not ascend."""
    distances = as_distances(distances, name)
    _refuse(_distance_faults(distances), distances, f"{name}:")
    return distances


def checked_pair(exact: ArrayLike, ann: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """`checked_distances`, exact ones and those returned, of one shape."""
    pair = checked_distances(exact, "exact distances"), checked_distances(ann, "ANN distances")
    refuse_other_shape(*pair, "distances")
    return pair


def refuse_other_shape(one: np.ndarray, other: np.ndarray, what: str = "neighbor lists") -> None:
    """Raise InputError unless two arrays are of one shape."""
    if one.shape != other.shape:
        raise InputError(f"{what} must be of one shape (Q, k), not {one.shape} and {other.shape}")


def refuse_faulty_ids(
    ids: np.ndarray, name: str = "ids:", n: int | None = None, first_row: int = 0
) -> None:
    """Raise InputError where a row holds an id twice, or one that cannot be.

    Parameters
    ----------
    ids : ndarray of int, shape (Q, k)
        -1 may be in a row any number of times.
    name : str
        What to call them in the message, which names the first row and its id.
    n : int, optional
        Ids have to be below it.
    first_row : int
        Number of the first row.
    """
    _refuse(_id_faults(ids, n), ids, name, first_row)


def refuse_faulty_lists(
    ids: np.ndarray,
    distances: np.ndarray,
    name: str,
    n: int,
    missing: bool = True,
    first_row: int = 0,
) -> None:
    """Raise InputError where ids or distances of lists cannot be; `refuse_faulty_ids` has the rest.

    Parameters
    ----------
    distances : ndarray of float, shape (Q, k)
        Distances of the ids.
    missing : bool
        Whether neighbors may be missing: id -1 at distance +inf, at the end of the row.
    """
    _refuse(_id_faults(ids, n, missing), ids, name, first_row)
    _refuse(_distance_faults(distances, ids), ids, name, first_row)


def validate_neighbor_lists(
    indices: np.ndarray, distances: np.ndarray, embeddings: np.ndarray, name: str, missing: bool
) -> None:
    """Check neighbor lists of another system.

    Parameters
    ----------
    indices, distances : ndarray, shape (Q, k)
        Ids, rows of the embeddings, and Euclidean distances.
    embeddings : ndarray of float, shape (N, d)
        The vectors.
    name : str
        What to call the lists in a message.
    missing : bool
        Whether neighbors may be missing: id -1 at distance +inf, at the end of the row.

    Raises
    ------
    InputError
        When something is wrong with them; the message says what, and in which row first.
    """
    if indices.ndim != 2 or indices.dtype.kind not in "iu" or indices.size == 0:
        raise InputError(
            f"{name}: ids must be whole numbers of shape (Q, k), not {indices.dtype} "
            f"{indices.shape}"
        )
    if distances.shape != indices.shape or distances.dtype.kind != "f":
        raise InputError(
            f"{name}: distances must be floats of the ids' shape {indices.shape}, not "
            f"{distances.dtype} {distances.shape}"
        )
    contradicted = 0
    bytes_per_row = 64 * indices.shape[1] + 16 * embeddings.shape[1]
    for start, stop in row_blocks(len(indices), bytes_per_row):
        block = indices[start:stop], distances[start:stop]
        refuse_faulty_lists(*block, f"{name}:", len(embeddings), missing, start)
        contradicted += int(_contradicted(np.arange(start, stop), *block, embeddings).sum())
    if contradicted > len(indices) / 2:
        raise InputError(
            f"{name}: the distances contradict the embeddings: they must be Euclidean, not "
            "squared, and of these vectors"
        )


Faults = Iterator[tuple[str, np.ndarray]]


def _as_array(values: ArrayLike, name: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError:  # NumPy's own message is of its inner workings
        raise InputError(f"{name} must be of one shape (Q, k): rows differ in length") from None


def _refuse(faults: Faults, values: np.ndarray, name: str, first_row: int = 0) -> None:
    """Raise InputError for the first fault that is somewhere, with its row and what is there."""
    for fault, where in faults:
        if where.any():
            row, column = (int(place[0]) for place in np.nonzero(where))
            fault = fault.format(value=values[row, column])
            raise InputError(f"{name} row {first_row + row} has {fault}")


def _id_faults(ids: np.ndarray, n: int | None, missing: bool = True) -> Faults:
    """What can be wrong with ids, and where it is."""
    gone = ids < 0
    yield "the id {value}: ids are whole numbers from 0 on, -1 for a missing neighbor", ids < -1
    if n is not None:
        yield f"an id that is no row of the {n} embeddings: {{value}}", ids >= n
    if not missing:
        yield "a missing neighbor", gone
    in_order = np.sort(ids, axis=1)
    twice = (in_order[:, 1:] == in_order[:, :-1]) & (in_order[:, 1:] >= 0)
    if twice.any():
        row, column = (int(place[0]) for place in np.nonzero(twice))
        yield f"an id twice: {in_order[row, column]}", twice


def _distance_faults(distances: np.ndarray, ids: np.ndarray | None = None) -> Faults:
    """What can be wrong with distances, and where it is."""
    yield "a distance that is not a number or negative", ~(distances >= 0)
    if ids is not None:
        gone = ids < 0
        yield "a missing neighbor before one that is there", gone[:, :-1] & ~gone[:, 1:]
        fault = "an id -1 that is not at distance +inf, or another that is"
        yield fault, gone != np.isinf(distances)
    yield "distances that do not ascend", distances[:, 1:] < distances[:, :-1]


def _contradicted(
    queries: np.ndarray, indices: np.ndarray, distances: np.ndarray, embeddings: np.ndarray
) -> np.ndarray:
    """Which queries have distances that cannot be those of their neighbors; bool (Q,).

    From wherever a query lies, its nearest and its farthest neighbor at r and R are between R - r
    and R + r from each other. And where the queries are the first rows of the embeddings, the
    distances can be the squares of what is measured from there.
    """
    count = (indices >= 0).sum(axis=1)
    several = np.flatnonzero(count > 1)
    last = count[several] - 1
    near, far = indices[several, 0], indices[several, last]
    r, radius = (distances[several, column].astype(np.float64) for column in (0, last))
    apart = pair_distances(embeddings, near, far).astype(np.float64)
    # Distances may be approximate, a quantizer's for instance; and those of the expanded form hold
    # rounding noise, which grows with the norms: with |x| = |y| its squares are off by 4 c |y|^2.
    norm = np.sqrt(np.einsum("qd,qd->q", embeddings[far], embeddings[far], dtype=np.float64))
    slack = 0.01 * (r + radius) + 2 * expansion_error(embeddings.shape[1]) ** 0.5 * norm
    impossible = (apart > r + radius + slack) | (apart < radius - r - slack)

    rows = queries[several] < len(embeddings)
    pairs = queries[several][rows], far[rows]
    measured, given = pair_distances(embeddings, *pairs).astype(np.float64), radius[rows]
    squared = np.abs(given - measured**2) < 0.001 * given
    # At a distance of about 1 the square is the same number.
    impossible[rows] |= squared & (np.abs(given - measured) > 0.01 * measured)
    contradicted = np.zeros(len(indices), bool)
    contradicted[several] = impossible
    return contradicted
