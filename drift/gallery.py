"""The queries that drifted most: which they are, and which neighbors to show of them."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from drift import InputError

SHOWN = 8
LEAST_KEPT_SHOWN = 2
VISIBLE_DRIFT = 0.95


@dataclass(frozen=True)
class Neighbor:
    """A neighbor of a query: its row, its rank in the list from 1 on, its distance, if lost."""

    row: int
    rank: int
    distance: float
    lost: bool = False


@dataclass(frozen=True)
class DriftedQuery:
    """A query, some of its exact neighbors, and some that the index returned in their place.

    Attributes
    ----------
    row : int
        The query.
    k : int
        Neighbors asked for.
    lost, missing : int
        Exact neighbors that the index did not return, and places that it left empty.
    exact : list of Neighbor
        By rank: the nearest of those that were lost, and the nearest of those that were kept.
    instead : list of Neighbor
        By rank: the nearest that were returned and are no exact neighbors.
    """

    row: int
    k: int
    lost: int
    missing: int
    exact: list[Neighbor]
    instead: list[Neighbor]


def choose(curves: pd.DataFrame, run: str | None, k: int | None) -> tuple[str, int]:
    """The run and the k of which to show queries.

    Parameters
    ----------
    curves : DataFrame
        The table ``05_curves.parquet``.
    run : str or None
        None: the run with the least overlap.
    k : int or None
        None: the first at which the run keeps less than `VISIBLE_DRIFT` of the neighbors on
        average; where none does, the one at which it keeps least.

    Raises
    ------
    InputError
        When the run, or the k of the run, was not measured.
    """
    overlap = curves[curves["metric"] == "overlap"].set_index(["run", "k"])["mean"]
    runs = list(overlap.index.unique("run"))
    if run is None:
        run = overlap.idxmin()[0]
    if run not in runs:
        raise InputError(f"--gallery-run {run} was not measured, but {', '.join(runs)}")
    of_run = overlap[run].sort_index()
    if k is None:
        drifted = of_run[of_run < VISIBLE_DRIFT]
        k = drifted.index[0] if len(drifted) else of_run.idxmin()
    if k not in of_run.index:
        grid = ", ".join(map(str, of_run.index))
        raise InputError(f"--gallery-k {k} was not measured for {run}, but {grid}")
    return run, int(k)


def most_drifted(overlap: np.ndarray, shift: np.ndarray, n: int) -> np.ndarray:
    """The `n` queries that kept least of their neighbors; of equals, those that moved farthest.

    Parameters
    ----------
    overlap : ndarray of float, shape (Q,)
        Neighborhood overlap.
    shift : ndarray of float, shape (Q,)
        Barycenter shift; NaN, where nothing was returned, counts as farthest.

    Returns
    -------
    ndarray of int
        Places of the queries, the worst first; none that kept everything.
    """
    order = np.lexsort((-np.where(np.isnan(shift), np.inf, shift), overlap))
    return order[overlap[order] < 1][:n]


def drifted_query(
    row: int,
    exact_indices: np.ndarray,
    exact_distances: np.ndarray,
    ann_indices: np.ndarray,
    ann_distances: np.ndarray,
    shown: int = SHOWN,
) -> DriftedQuery:
    """What to show of a query.

    Parameters
    ----------
    row : int
        The query.
    exact_indices, exact_distances, ann_indices, ann_distances : ndarray, shape (k,)
        Its lists; id -1 for a missing neighbor.
    shown : int
        At most so many exact neighbors, and so many returned instead.
    """
    is_lost = ~np.isin(exact_indices, ann_indices)
    is_new = ~np.isin(ann_indices, exact_indices) & (ann_indices >= 0)
    lost, kept = np.flatnonzero(is_lost), np.flatnonzero(~is_lost)
    # Those that were kept are shown beside those that were lost: what is it that is missing?
    lost_shown = lost[: shown - min(len(kept), LEAST_KEPT_SHOWN)]
    exact = np.sort(np.concatenate([lost_shown, kept[: shown - len(lost_shown)]]))
    return DriftedQuery(
        row=int(row),
        k=len(exact_indices),
        lost=len(lost),
        missing=int((ann_indices < 0).sum()),
        exact=[
            Neighbor(int(exact_indices[at]), at + 1, float(exact_distances[at]), bool(is_lost[at]))
            for at in exact.tolist()
        ],
        instead=[
            Neighbor(int(ann_indices[at]), at + 1, float(ann_distances[at]))
            for at in np.flatnonzero(is_new)[:shown].tolist()
        ],
    )
