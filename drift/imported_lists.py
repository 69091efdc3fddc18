"""Neighbor lists of another system: whether they are what they are taken for."""

import functools
from collections.abc import Callable

import numpy as np

from drift import InputError
from drift.exact import neighbor_distances
from drift.neighbor_lists import checked_ids
from drift.protocols import Protocol

# Distances of quantized vectors are off by some percent, those of another measure by far more.
AGREEMENT = 0.05
# A conversion is named when so many of the distances would be those of their ids.
FITS = 0.9
# Queries by which lists are judged.
JUDGED = 1000
# What a system's distance d can be, by the names of ``--reported``: as a Euclidean distance.
REPORTED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "euclidean": lambda d: d,
    "squared": lambda d: np.sqrt(np.maximum(d, 0)),
    "cosine": lambda d: np.sqrt(np.maximum(2 * d, 0)),
}


def imported_ids(ids: np.ndarray, n: int, n_queries: int, name: str) -> np.ndarray:
    """Ids of another system, int64 (Q, k), once they can be those of neighbors among n rows.

    Raises
    ------
    InputError
        When they cannot; the message says how to write a missing neighbor, if that is all.
    """
    if ids.dtype.kind in "fO":
        raise InputError(
            f"{name} holds {ids.dtype} and must hold whole numbers: write a missing neighbor, NaN "
            "or None, as -1"
        )
    if len(ids) != n_queries:
        raise InputError(f"{name} has lists of {len(ids)} queries, and stage 03 has {n_queries}")
    if ids.size and ids.min() >= 1 and ids.max() == n:
        raise InputError(f"{name} counts rows from 1 to {n}: subtract 1, rows are counted from 0")
    return checked_ids(ids, name, n).astype(np.int64)


def without_queries(ids: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Lists without the query itself, of ids (Q, k), which is no neighbor of its own.

    Where most lists hold it, all are one shorter: those without it lose their last entry. Where few
    do, its place counts as that of a missing neighbor.
    """
    is_query = ids == queries[:, None]
    if is_query.any(axis=1).mean() > 0.5:
        return Protocol.STUDY.leave_k(ids, np.zeros(ids.shape), queries)[0]
    return np.where(is_query, -1, ids)


def refuse_other_rows(ids: np.ndarray, exact: np.ndarray, n: int, name: str) -> None:
    """Raise InputError where ids, (Q, k), are off by one, by what they share with exact lists."""
    rows, length = _judged(ids), min(ids.shape[1], exact.shape[1], 100)
    ids, exact = ids[rows, :length], exact[rows, :length]
    shares = {
        shift: float((_moved(ids, shift)[:, :, None] == exact[:, None, :]).any(axis=2).mean())
        for shift in (0, -1, 1)
    }
    best = max(shares, key=shares.get)
    if best and shares[best] > 0.3 and shares[0] < 0.1 * shares[best] + 2 * length / n:
        sign = "subtract 1" if best < 0 else "add 1"
        raise InputError(
            f"{name}: ids are off by one: {shares[0]:.0%} are exact neighbors, and "
            f"{shares[best]:.0%} if you {sign}"
        )


def refuse_other_distances(
    points: np.ndarray,
    embeddings: np.ndarray,
    ids: np.ndarray,
    given: np.ndarray,
    exact_first: np.ndarray,
    reported: str,
    name: str,
) -> None:
    """Raise InputError where most distances are not those of their ids, with what would fit.

    Parameters
    ----------
    points, embeddings : ndarray of float32, shape (Q, d) and (N, d)
        The queries, and the rows among which their neighbors are.
    ids, given : ndarray, shape (Q, k)
        What was returned, and the distances that came with it, as `reported` of `REPORTED`.
    exact_first : ndarray of float, shape (Q,)
        The exact distance to the nearest neighbor.
    """
    if given.shape != ids.shape or given.dtype.kind not in "fiu":
        raise InputError(
            f"{name} must hold a number for each id, {ids.shape}, not {given.dtype} of shape "
            f"{given.shape}"
        )
    convert = REPORTED[reported]
    firsts = np.sort(convert(given[:, 0].astype(np.float64))), np.sort(exact_first)
    rows = _judged(ids)
    points, ids, given = points[rows], ids[rows], given[rows].astype(np.float64)
    present = (ids >= 0) & np.isfinite(given)

    @functools.cache
    def distances(shift: int) -> np.ndarray:
        moved = np.minimum(_moved(ids, shift), len(embeddings) - 1)
        return neighbor_distances(points, embeddings, moved).astype(np.float64)

    def agreement(given: np.ndarray, shift: int = 0) -> float:
        """Share of the neighbors that were returned of which the two distances are the same."""
        ours = distances(shift)
        with np.errstate(invalid="ignore"):  # what is missing is at infinity on both sides
            near = np.abs(given - ours) <= AGREEMENT * ours + 1e-3 * np.median(ours[present])
        return float(near[present].mean())

    if not present.any() or (share := agreement(convert(given))) >= 0.5:
        return
    cosine, half = REPORTED["cosine"], "half of squares: double them, --reported squared"
    if np.allclose(np.linalg.norm(points, axis=1), 1, atol=1e-3):
        half = "1 - cos of unit vectors: --reported cosine"
    causes = {
        "they are Euclidean: --reported euclidean": (given,),
        "they are squares: --reported squared": (REPORTED["squared"](given),),
        "they are similarities: give 1 - them, --reported cosine": (cosine(1 - given),),
        f"they are {half}": (cosine(given),),
        "ids are off by one: subtract 1 from the ids": (convert(given), -1),
        "ids are off by one: add 1 to the ids": (convert(given), 1),
    }
    fits = [cause for cause, values in causes.items() if agreement(*values) >= FITS]
    if not fits and np.isclose(*firsts, rtol=AGREEMENT).mean() > 0.5:
        fits.append("their rows are in another order than the queries, or the ids of others")
    raise InputError(
        f"{name}: {1 - share:.0%} of the distances are not the "
        f"{reported} ones of their ids; {' or '.join(fits) or 'no conversion fits'}"
    )


def _judged(lists: np.ndarray) -> np.ndarray:
    """Rows of at most `JUDGED` lists, evenly spaced."""
    return np.linspace(0, len(lists) - 1, min(JUDGED, len(lists))).astype(int)


def _moved(ids: np.ndarray, shift: int) -> np.ndarray:
    return np.where(ids < 0, -1, np.maximum(ids + shift, 0))
