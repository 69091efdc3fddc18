"""Neighbor lists in files, and whether those that come from elsewhere can be measured."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from drift import InputError
from drift.artifacts import load_array
from drift.exact import pair_distances


class Pair(NamedTuple):
    """The files of neighbor lists.

    Attributes
    ----------
    indices : Path
        Whole numbers of any type, shape (Q, k).
    distances : Path
        Floats of any type, shape (Q, k).
    """

    indices: Path
    distances: Path

    def read(self, start: int, stop: int, k: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Ids and distances of some queries, the first k of each row.

        Returns
        -------
        indices : ndarray of int32 or int64, shape (stop - start, k)
        distances : ndarray of float, of this machine's byte order, shape (stop - start, k)
        """
        # Mapped anew each time: the pages of a mapping count as memory as long as it lives.
        indices, distances = (load_array(path)[start:stop, :k] for path in self)
        if indices.dtype not in (np.int32, np.int64):
            indices = indices.astype(np.int64)
        return indices, distances.astype(distances.dtype.newbyteorder("="), copy=False)


def check_lists(
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
    n = len(embeddings)
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
    gone = indices < 0
    in_order = np.sort(np.where(gone, np.arange(-1, -1 - indices.shape[1], -1), indices), axis=1)
    with np.errstate(invalid="ignore"):
        descending = np.diff(distances, axis=1) < 0
    faults = {
        f"an id that is no row of the {n} embeddings": (indices >= n) | (indices < -1),
        "a missing neighbor": gone & (not missing),
        "a missing neighbor before one that is there": gone[:, :-1] & ~gone[:, 1:],
        "an id twice": np.diff(in_order, axis=1) == 0,
        "a distance that is not a number or negative": np.isnan(distances) | (distances < 0),
        "an id -1 that is not at distance +inf, or another that is": gone != np.isinf(distances),
        "distances that do not ascend": descending,
    }
    for fault, where in faults.items():
        if where.any():
            row = int(np.flatnonzero(where.any(axis=1))[0])
            raise InputError(f"{name}: row {row} has {fault}")
    if _contradicted(indices, distances.astype(np.float64), embeddings):
        raise InputError(
            f"{name}: the distances contradict the embeddings: they must be Euclidean, not "
            "squared, and of these vectors"
        )


def _contradicted(indices: np.ndarray, distances: np.ndarray, embeddings: np.ndarray) -> bool:
    """Whether most rows have distances that are not those of their ids from any one point.

    Where the queries are the rows of the embeddings, the distances can be the squares of those that
    are measured. Wherever they are, the nearest and the farthest neighbor at r and R from a query
    lie between R - r and R + r from each other. Approximate distances, of a quantizer for instance,
    may break that now and then.
    """
    rows = np.flatnonzero((indices >= 0).sum(axis=1) > 1)
    if rows.size == 0:
        return False
    last = (indices[rows] >= 0).sum(axis=1) - 1
    near, far = indices[rows, 0], indices[rows, last]
    r, radius = distances[rows, 0], distances[rows, last]
    apart = pair_distances(embeddings, near, far)
    slack = 0.01 * (r + radius)
    impossible = (apart > r + radius + slack) | (apart < radius - r - slack)
    if len(indices) == len(embeddings):
        measured = pair_distances(embeddings, rows, far).astype(np.float64)
        near_square = np.abs(radius - measured**2) < 0.001 * radius
        impossible |= near_square & (np.abs(radius - measured) > 0.01 * measured)
    return bool(impossible.mean() > 0.5)
