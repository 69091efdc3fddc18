"""How the members of two neighborhoods differ, and where they lie, while their lists grow.

Exact lists are the beginnings of one long list, and those of an index mostly continue each other:
what sets E_k and A_k apart is followed from one k to the next by the few ids that come and go.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from drift.neighbor_lists import checked_ids, checked_pair
from drift.vectors import row_blocks

_TABLE_BUDGET = 32 << 20  # bytes for a block of queries, whose table is read and written all over


class SetDifference(NamedTuple):
    """What lists of one length have in common, and what changed since the length before."""

    added: np.ndarray  # ids by which the exact lists have grown, (Q, c)
    wanted: np.ndarray  # how many ids are in the exact list, the missing ones not counted, (Q,)
    returned: np.ndarray  # in the other one
    common: np.ndarray  # in both
    # Change of the difference between the sets, that is of +1 where an id is in the exact list
    # alone and -1 where it is in the other alone; a `csr_array`, int8 (Q, N).
    change: Any


def query_blocks(
    exact_indices: np.ndarray, embeddings: np.ndarray, threads: int = 1
) -> list[tuple[int, int]]:
    """Blocks of queries, of one size and as many for each thread, that stay in its cache."""
    (n, d), (n_queries, k) = embeddings.shape, exact_indices.shape
    count = len(row_blocks(n_queries, n + 12 * d + 64 * k, _TABLE_BUDGET))
    size = -(-n_queries // max(-(-count // threads) * threads, 1))
    return row_blocks(n_queries, 1, size) or [(0, 0)]


def set_differences(
    exact: np.ndarray, lists: Sequence[np.ndarray], n: int
) -> Iterator[SetDifference]:
    """Follow the difference between exact lists (Q, K) and others through growing lengths.

    All are signed ids below `n`, none twice in a row, -1 for a missing one. The others are (Q, k)
    of a few k <= K, ascending. A table of Q x n bytes is held: give a block of queries at a time.
    """
    difference = np.zeros((len(exact), n), np.int8)
    previous = np.empty((len(exact), 0), exact.dtype)
    wanted, differing = 0, np.zeros(len(exact), np.int64)
    for ids in lists:
        k, before = ids.shape[1], previous.shape[1]
        moved = np.ones(ids.shape, bool)
        np.not_equal(ids[:, :before], previous, out=moved[:, :before])
        added = exact[:, before:k]
        keys = [
            _flat(added, added >= 0, n),
            _flat(previous, moved[:, :before] & (previous >= 0), n),
            _flat(ids, moved & (ids >= 0), n),
        ]
        signs = np.repeat(np.array([1, 1, -1], np.int8), [key.size for key in keys])
        touched = np.concatenate(keys)
        old = difference.ravel()[touched]
        for key, sign in zip(keys, (1, 1, -1), strict=True):
            difference.ravel()[key] += np.int8(sign)
        changed = difference.ravel()[touched] != old
        row, column = np.divmod(touched[changed], n)
        # An id that both left and came back, or was added on both sides, is one entry here.
        change = _sparse((signs[changed], (row, column)), difference.shape)
        row = np.repeat(np.arange(len(exact)), np.diff(change.indptr))
        new = difference[row, change.indices]
        growth = np.abs(new) - np.abs(new - change.data)
        differing += np.bincount(row, growth, len(exact)).astype(np.int64)
        wanted = wanted + (added >= 0).sum(axis=1)
        returned = (ids >= 0).sum(axis=1)
        common = (wanted + returned - differing) // 2
        yield SetDifference(added, wanted, returned, common, change)
        previous = ids


def barycenter_shifts(differences: Sequence[SetDifference], embeddings: np.ndarray) -> np.ndarray:
    """Distances between the barycenters of two neighborhoods, while their lists grow; (G, Q).

    With S_E and S_A the sums of the e exact and the m returned neighbors, the shift is the norm of
    S_E / e - S_A / m = (S_E - S_A) / m + S_E (1 / e - 1 / m), by sums in doubles. S_E itself is
    kept for the rows that came back short, where the second term is not 0; else only rows that are
    in one of the two lists are read. NaN where nothing was returned. `differences` are of all
    lengths, from the first on.
    """
    n, d = embeddings.shape
    wanted = np.stack([step.wanted for step in differences])
    returned = np.stack([step.returned for step in differences])
    common = np.stack([step.common for step in differences])
    short = np.flatnonzero((wanted != returned).any(axis=0))
    short_now = [np.flatnonzero(at_k) for at_k in (wanted != returned)[:, short]]
    added = [step.added[short] for step in differences]
    # The few rows that are needed, some columns at a time, are turned into doubles.
    used = np.zeros(n, bool)
    for ids, step in zip(added, differences, strict=True):
        used[ids[ids >= 0]] = used[step.change.indices] = True
    rows, places = np.flatnonzero(used), used.cumsum() - 1
    growth, changes = [], []
    for ids, (*_, change) in zip(added, differences, strict=True):
        present, shape = ids >= 0, (len(short), len(rows))
        starts = np.concatenate([[0], present.sum(axis=1).cumsum()])
        growth.append(_sparse((np.ones(starts[-1]), places[ids[present]], starts), shape))
        signs, shape = change.data.astype(float), (change.shape[0], len(rows))
        changes.append(_sparse((signs, places[change.indices], change.indptr), shape))
    squares = np.zeros(returned.shape)
    # A width that does not depend on the block of queries, for the sake of the last bit.
    width = int(np.clip((16 << 20) // (8 * n), 16, 64))
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = 1 / returned
        correction = 1 / wanted - scale
        for column in range(0, d, width):
            table = np.asarray(embeddings[rows, column : column + width], np.float64)
            difference = np.zeros((returned.shape[1], table.shape[1]))
            exact = np.zeros((len(short), table.shape[1]))
            for i, change in enumerate(changes):
                if change.nnz:
                    difference += change @ table
                part = np.einsum("qd,qd->q", difference, difference) * scale[i] ** 2
                if len(short):
                    exact += growth[i] @ table
                    now = short_now[i]
                    barycenters = difference[short[now]] * scale[i, short[now], None]
                    barycenters += exact[now] * correction[i, short[now], None]
                    part[short[now]] = np.einsum("qd,qd->q", barycenters, barycenters)
                squares[i] += part
        shifts = np.sqrt(squares)
    # The sums of rows that came and went again are 0 only up to rounding.
    shifts[(common == wanted) & (common == returned)] = 0
    shifts[(wanted == 0) | (returned == 0)] = np.nan
    return shifts


def neighborhood_overlap(exact_indices: ArrayLike, ann_indices: ArrayLike) -> np.ndarray:
    """Share of the exact neighbors that were returned; a missing neighbor counts as a miss.

    Lists (Q, k) are of ids of any whole-number type and size, none twice in a row; a missing
    neighbor is -1, of signed types only. The result is float64 (Q,), from 0 to 1.

    Raises
    ------
    InputError
        When the lists are not of the same shape, are no whole numbers, or a row holds an id twice.

    Examples
    --------
    >>> neighborhood_overlap([[1, 2, 3, 4]], [[2, 1, 9, -1]])
    array([0.5])
    """
    exact, ann = checked_pair(checked_ids, "ids", exact_indices, ann_indices)
    n_queries, k = exact.shape
    common = np.empty(n_queries)
    for start, stop in row_blocks(n_queries, 64 * k, budget=16 << 20):
        # None is twice on its own side: what is twice in both together is common.
        both = np.sort(_side_by_side(exact[start:stop], ann[start:stop]), axis=1)
        is_twice = (both[:, 1:] == both[:, :-1]) & (both[:, 1:] >= 0)
        common[start:stop] = np.count_nonzero(is_twice, axis=1)
    return common / k


def barycenter_shift(
    embeddings: np.ndarray, exact_indices: ArrayLike, ann_indices: ArrayLike
) -> np.ndarray:
    """Distance between the mean of the exact neighbors and the mean of those that were returned.

    Lists (Q, k) are of rows of the embeddings (N, d), as in `neighborhood_overlap`. The result,
    float64 (Q,), is right to a millionth; NaN where nothing was returned.

    Examples
    --------
    >>> barycenter_shift(np.array([[0.0], [1.0], [5.0]]), [[0, 1]], [[0, 2]])
    array([2.])
    """
    n = len(embeddings)
    lists = checked_pair(checked_ids, "ids", exact_indices, ann_indices, n)
    shift = np.empty(len(lists[0]))
    for start, stop in query_blocks(lists[0], embeddings):
        exact, ann = (ids[start:stop].astype(np.int64) for ids in lists)
        differences = list(set_differences(exact, [ann], n))
        (shift[start:stop],) = barycenter_shifts(differences, embeddings)
    return shift


def _side_by_side(*lists: np.ndarray) -> np.ndarray:
    """Both lists in one row; codes for their ids where no type of NumPy's holds all of them."""
    if np.result_type(*lists).kind in "iu":  # the smaller it is, the faster it is sorted
        return np.concatenate(lists, axis=1)
    both = np.concatenate(lists, axis=1, dtype=np.uint64, casting="unsafe")
    _, codes = np.unique(both, return_inverse=True)
    missing = np.concatenate([ids < 0 for ids in lists], axis=1)
    return np.where(missing, -1, codes.reshape(both.shape))  # flat before NumPy 2


def _sparse(values: tuple, shape: tuple[int, int]) -> Any:
    from scipy.sparse import csr_array  # slow to import, and not needed to compare ids

    return csr_array(values, shape)


def _flat(ids: np.ndarray, chosen: np.ndarray, n: int) -> np.ndarray:
    """Places of chosen ids in a table of Q x n, row after row."""
    row, column = np.nonzero(chosen)
    return row * n + ids[row, column]
