"""Neighbor lists in files, and whether those that come from elsewhere can be measured."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from drift import InputError
from drift.artifacts import load_array
from drift.blocks import row_blocks
from drift.exact import expansion_error, pair_distances


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
        indices, distances = (np.asarray(load_array(path)[start:stop, :k]) for path in self)
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
        rows = np.arange(start, stop)
        block = indices[start:stop], distances[start:stop]
        for fault, where in _faults(*block, len(embeddings), missing).items():
            if where.any():
                row = int(rows[where.any(axis=1)][0])
                raise InputError(f"{name}: row {row} has {fault}")
        contradicted += int(_contradicted(rows, *block, embeddings).sum())
    if contradicted > len(indices) / 2:
        raise InputError(
            f"{name}: the distances contradict the embeddings: they must be Euclidean, not "
            "squared, and of these vectors"
        )


def _faults(
    indices: np.ndarray, distances: np.ndarray, n: int, missing: bool
) -> dict[str, np.ndarray]:
    """What can be wrong with a block of lists, and where it is."""
    gone = indices < 0
    in_order = np.sort(np.where(gone, np.arange(-1, -1 - indices.shape[1], -1), indices), axis=1)
    with np.errstate(invalid="ignore"):
        descending = np.diff(distances, axis=1) < 0
    return {
        f"an id that is no row of the {n} embeddings": (indices >= n) | (indices < -1),
        "a missing neighbor": gone & (not missing),
        "a missing neighbor before one that is there": gone[:, :-1] & ~gone[:, 1:],
        "an id twice": np.diff(in_order, axis=1) == 0,
        "a distance that is not a number or negative": np.isnan(distances) | (distances < 0),
        "an id -1 that is not at distance +inf, or another that is": gone != np.isinf(distances),
        "distances that do not ascend": descending,
    }


def _contradicted(
    queries: np.ndarray, indices: np.ndarray, distances: np.ndarray, embeddings: np.ndarray
) -> np.ndarray:
    """Which queries have distances that cannot be those of their neighbors; bool (Q,).

    From wherever a query lies, its nearest and its farthest neighbor at r and R are between R - r
    and R + r from each other. And where the queries are the first rows of the embeddings, the
    distances can be the squares of what is measured from there.
    """
    count = (indices >= 0).sum(axis=1)
    at = np.flatnonzero(count > 1)
    last = count[at] - 1
    near, far = indices[at, 0], indices[at, last]
    r, radius = (distances[at, column].astype(np.float64) for column in (0, last))
    apart = pair_distances(embeddings, near, far).astype(np.float64)
    # Distances may be approximate, a quantizer's for instance; and those of the expanded form hold
    # rounding noise, which grows with the norms: with |x| = |y| its squares are off by 4 c |y|^2.
    norm = np.sqrt(np.einsum("qd,qd->q", embeddings[far], embeddings[far], dtype=np.float64))
    slack = 0.01 * (r + radius) + 2 * expansion_error(embeddings.shape[1]) ** 0.5 * norm
    impossible = (apart > r + radius + slack) | (apart < radius - r - slack)

    rows = queries[at] < len(embeddings)
    measured = pair_distances(embeddings, queries[at][rows], far[rows]).astype(np.float64)
    of_rows = radius[rows]
    squared = np.abs(of_rows - measured**2) < 0.001 * of_rows
    # At a distance of about 1 the square is the same number.
    impossible[rows] |= squared & (np.abs(of_rows - measured) > 0.01 * measured)
    contradicted = np.zeros(len(indices), bool)
    contradicted[at] = impossible
    return contradicted
