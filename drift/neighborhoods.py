"""How the members of two neighborhoods differ, while their lists grow.

The exact lists of a study are the beginnings of one long list, and the lists of an index mostly
continue each other. So what sets E_k and A_k apart is followed from one k to the next by the few
ids that come and go, and is not worked out anew from k ids on either side.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from drift import InputError
from drift.blocks import row_blocks

# Bytes for a block of queries: the table of `steps` is read and written all over.
STEPS_BUDGET = 16 << 20


@dataclass(frozen=True)
class Step:
    """What lists of one length have in common, and what changed since the length before.

    Attributes
    ----------
    k : int
        The length.
    came : ndarray of int, shape (Q, c)
        Ids by which the exact lists have grown.
    returned : ndarray of int, shape (Q,)
        Ids in the other lists, the missing ones not counted.
    common : ndarray of int, shape (Q,)
        Ids that are in both lists.
    change : csr_array of int8, shape (Q, N)
        Change of the difference between the sets, that is of +1 where an id is in the exact list
        alone and -1 where it is in the other alone.
    """

    k: int
    came: np.ndarray
    returned: np.ndarray
    common: np.ndarray
    change: csr_array


def steps(exact: np.ndarray, lists: Sequence[np.ndarray], n: int) -> Iterator[Step]:
    """Follow the difference between exact lists and others through growing lengths.

    A table of Q x N bytes is held meanwhile: give a block of queries at a time.

    Parameters
    ----------
    exact : ndarray of int, shape (Q, K)
        Ids, none twice in a row, -1 for a missing one; the exact list of length k is the first k.
    lists : sequence of ndarray of int, shape (Q, k)
        The other lists, a length k <= K for each, ascending. They need not continue each other.
    n : int
        Ids are below it.
    """
    rows = np.arange(len(exact))
    difference = np.zeros((len(exact), n), np.int8)
    previous = np.empty((len(exact), 0), exact.dtype)
    in_exact, differing = 0, np.zeros(len(exact), np.int64)
    for ids in lists:
        k, before = ids.shape[1], previous.shape[1]
        moved = np.ones(ids.shape, bool)
        np.not_equal(ids[:, :before], previous, out=moved[:, :before])
        came = exact[:, before:k]
        keys = [
            _flat(came, came >= 0, n),
            _flat(previous, moved[:, :before] & (previous >= 0), n),
            _flat(ids, moved & (ids >= 0), n),
        ]
        signs = np.repeat(np.array([1, 1, -1], np.int8), [key.size for key in keys])
        touched = np.concatenate(keys)
        was = difference.ravel()[touched]
        for key, sign in zip(keys, (1, 1, -1), strict=True):
            difference.ravel()[key] += np.int8(sign)
        changed = difference.ravel()[touched] != was
        row, column = np.divmod(touched[changed], n)
        # An id that both left and came, or came on both sides, is one entry here.
        change = csr_array((signs[changed], (row, column)), difference.shape)
        now = difference[np.repeat(rows, np.diff(change.indptr)), change.indices]
        growth = np.abs(now) - np.abs(now - change.data)
        differing += csr_array((growth, change.indices, change.indptr), change.shape).sum(
            axis=1, dtype=np.int64
        )
        in_exact = in_exact + (came >= 0).sum(axis=1)
        returned = (ids >= 0).sum(axis=1)
        yield Step(k, came, returned, (in_exact + returned - differing) // 2, change)
        previous = ids


def neighborhood_overlap(exact_indices: np.ndarray, ann_indices: np.ndarray) -> np.ndarray:
    """Share of the exact neighbors that were found; a missing neighbor counts as a miss.

    Parameters
    ----------
    exact_indices, ann_indices : ndarray of int, shape (Q, k)
        Ids, none twice in a row.

    Returns
    -------
    ndarray of float64, shape (Q,)
        From 0 to 1.

    Raises
    ------
    InputError
        When the lists are not of the same shape.
    """
    exact_indices, ann_indices = np.asarray(exact_indices), np.asarray(ann_indices)
    if exact_indices.ndim != 2 or exact_indices.shape != ann_indices.shape:
        raise InputError(
            f"neighbor lists must be of one shape (Q, k), not {exact_indices.shape} and "
            f"{ann_indices.shape}"
        )
    n = 1 + max(int(ids.max(initial=-1)) for ids in (exact_indices, ann_indices))
    n_queries, k = exact_indices.shape
    common = np.empty(n_queries)
    for start, stop in row_blocks(n_queries, n + 64 * k, budget=STEPS_BUDGET):
        (step,) = steps(exact_indices[start:stop], [ann_indices[start:stop]], n)
        common[start:stop] = step.common
    return common / k


def _flat(ids: np.ndarray, chosen: np.ndarray, n: int) -> np.ndarray:
    """Places of chosen ids in a table of Q x n, row after row."""
    row, column = np.nonzero(chosen)
    return row * n + ids[row, column]
