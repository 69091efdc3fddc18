"""Neighbor lists of another system: whether they are what they are taken for."""

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
    """Ids of another system, once they can be those of neighbors.

    Parameters
    ----------
    ids : ndarray, shape (Q, k)
        Rows of the embeddings, -1 for a missing neighbor.
    n, n_queries : int
        How many rows there are, and how many queries.
    name : str
        What to call them in a message.

    Returns
    -------
    ndarray of int64, shape (Q, k)

    Raises
    ------
    InputError
        When they are not; the message says how to write a missing neighbor, if that is all.
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
    itself = ids == queries[:, None]
    if itself.any(axis=1).mean() > 0.5:
        return Protocol.STUDY.leave_k(ids, np.zeros(ids.shape), queries)[0]
    return np.where(itself, -1, ids)


def refuse_other_rows(ids: np.ndarray, exact: np.ndarray, n: int, name: str) -> None:
    """Raise InputError where ids, (Q, k), are off by one, by what they share with exact lists."""
    rows = np.linspace(0, len(ids) - 1, min(JUDGED, len(ids))).astype(int)
    length = min(ids.shape[1], exact.shape[1], 100)
    exact = exact[rows, :length]

    def shared(shift: int) -> float:
        moved = np.where(ids[rows, :length] < 0, -1, ids[rows, :length] + shift)
        return float((moved[:, :, None] == exact[:, None, :]).any(axis=2).mean())

    shares = {shift: shared(shift) for shift in (0, -1, 1)}
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
    points : ndarray of float32, shape (Q, d)
        The queries.
    embeddings : ndarray of float32, shape (N, d)
        The vectors.
    ids, given : ndarray, shape (Q, k)
        What was returned, and the distances that came with it, by the name `reported`.
    exact_first : ndarray of float, shape (Q,)
        The exact distance to the nearest neighbor.
    reported : str
        One of `REPORTED`.
    name : str
        What to call the distances in a message.
    """
    if given.shape != ids.shape or given.dtype.kind not in "fiu":
        raise InputError(
            f"{name} must hold a number for each id, {ids.shape}, not {given.dtype} of shape "
            f"{given.shape}"
        )
    firsts = np.sort(REPORTED[reported](given[:, 0].astype(np.float64))), np.sort(exact_first)
    rows = np.linspace(0, len(ids) - 1, min(JUDGED, len(ids))).astype(int)
    points, ids, given = points[rows], ids[rows], given[rows].astype(np.float64)
    ours = neighbor_distances(points, embeddings, ids).astype(np.float64)
    present = (ids >= 0) & np.isfinite(given)

    def agree(given: np.ndarray, ours: np.ndarray) -> float:
        """Share of the neighbors that were returned of which the two distances are the same."""
        with np.errstate(invalid="ignore"):  # what is missing is at infinity on both sides
            near = np.abs(given - ours) <= AGREEMENT * ours + 1e-3 * np.median(ours[present])
        return float(near[present].mean())

    if not present.any() or agree(REPORTED[reported](given), ours) >= 0.5:
        return
    fits = [
        f"they are {what}: {how}"
        for what, how, values in (
            ("Euclidean", "--reported euclidean", given),
            ("squares", "--reported squared", REPORTED["squared"](given)),
            ("similarities", "give 1 - them, --reported cosine", REPORTED["cosine"](1 - given)),
            ("1 - cos of unit vectors", "--reported cosine", REPORTED["cosine"](given))
            if np.allclose(np.linalg.norm(points, axis=1), 1, atol=1e-3)
            else ("half of squares", "double them, --reported squared", REPORTED["cosine"](given)),
        )
        if agree(values, ours) >= FITS
    ]
    converted = REPORTED[reported](given)
    for shift, how in ((-1, "subtract 1 from the ids"), (1, "add 1 to the ids")):
        moved = np.where(ids < 0, -1, np.clip(ids + shift, 0, len(embeddings) - 1))
        if (
            agree(converted, neighbor_distances(points, embeddings, moved).astype(np.float64))
            >= FITS
        ):
            fits.append(f"ids are off by one: {how}")
    if not fits and np.isclose(*firsts, rtol=AGREEMENT).mean() > 0.5:
        fits.append("their rows are in another order than the queries, or the ids of others")
    raise InputError(
        f"{name}: {1 - agree(converted, ours):.0%} of the distances are not the "
        f"{reported} ones of their ids; {' or '.join(fits) or 'no conversion fits'}"
    )
