"""The queries that drifted most: which they are, and which neighbors to show of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from drift import InputError
from drift.report.study import Study

SHOWN = 8
LEAST_KEPT_SHOWN = 2
VISIBLE_DRIFT = 0.95


class Neighbor(NamedTuple):
    """A neighbor of a query: its row, its rank in the list from 1 on, its distance, if lost."""

    row: int
    rank: int
    distance: float
    lost: bool = False


class DriftedQuery(NamedTuple):
    """A query, and by rank some of its exact neighbors, and some returned in their place.

    Of k neighbors asked for, `lost` were not returned, and `missing` places stayed empty. `exact`
    are the nearest of those that were lost, and the nearest of those that were kept.
    """

    row: int
    k: int
    lost: int
    missing: int
    exact: list[Neighbor]
    instead: list[Neighbor]


class Gallery(NamedTuple):
    """The queries that drifted most, the worst first, with a run, `label`, at a k.

    `images` is uint8 (N, S, S, 3), and `table` is ``01_images.parquet``.
    """

    queries: list[DriftedQuery]
    label: str
    k: int
    images: np.ndarray
    table: pd.DataFrame

    def name(self, row: int) -> str:
        """What to call an image: where it is from, without the folders of its owner, and label."""
        source, label = self.table["source"][row], self.table["label"][row]
        name = Path(source).name if Path(source).is_absolute() else source
        return name if label < 0 else f"{name}, label {label}"


def choose(study: Study, run: str | None, k: int | None) -> tuple[str, int]:
    """The run of stage 04, and the k, of which to show queries.

    Without a run, the one with the least overlap. Without a k, the first at which it keeps less
    than `VISIBLE_DRIFT` of the neighbors on average, or where it keeps least.

    Raises
    ------
    InputError
        When the run, or the k of the run, was not measured.
    """
    if run is None:
        run = study.members[study.worst[0]][0]
    if run not in study.owner:
        raise InputError(f"--gallery-run {run} was not measured, but {', '.join(study.owner)}")
    curve = study.run_curve(study.owner[run], "overlap")["mean"]
    if k is None:
        drifted = curve[curve < VISIBLE_DRIFT]
        k = drifted.index[0] if len(drifted) else curve.idxmin()
    if k not in curve.index:
        grid = ", ".join(map(str, curve.index))
        raise InputError(f"--gallery-k {k} was not measured for {run}, but {grid}")
    return run, int(k)


def most_drifted(
    overlap: np.ndarray, shift: np.ndarray, rows: np.ndarray, exact_indices: np.ndarray, n: int
) -> list[int]:
    """Places of the `n` queries that kept least; of equals, those that moved farthest first.

    A query that is an exact neighbor of one that was chosen before, or has it as a neighbor, shows
    nearly the same pictures, and is left out; so is one that kept everything.

    Parameters
    ----------
    overlap, shift, rows : ndarray, shape (Q,)
        Neighborhood overlap; barycenter shift, of which NaN is farthest; the row of each query.
    exact_indices : ndarray of int, shape (Q, k)
        Its exact neighbors.
    """
    order = np.lexsort((-np.where(np.isnan(shift), np.inf, shift), overlap))
    chosen: list[int] = []
    for i in order[overlap[order] < 1]:
        if len(chosen) == n:
            break
        is_neighbor = np.isin(rows[i], exact_indices[chosen])
        if not is_neighbor and not np.isin(rows[chosen], exact_indices[i]).any():
            chosen.append(int(i))
    return chosen


def drifted_queries(
    per_query: pd.DataFrame, run: str, k: int, rows: np.ndarray, lists: Sequence[np.ndarray], n: int
) -> list[DriftedQuery]:
    """At most `n` queries, those that drifted most with a run at a k.

    `per_query` is the table ``05_per_query.parquet``, `rows` (Q,) are the queries, and `lists` are
    exact ids and distances, and ids and distances of the run, of shape (Q, k or more).
    """
    chosen = per_query[(per_query["run"] == run) & (per_query["k"] == k)]
    chosen = chosen.set_index("query").loc[rows]
    lists = [part[:, :k] for part in lists]
    drift = chosen["overlap"].to_numpy(), chosen["barycenter_shift"].to_numpy()
    worst = most_drifted(*drift, rows, lists[0], n)
    return [drifted_query(rows[i], *(part[i] for part in lists)) for i in worst]


def drifted_query(
    row: int,
    exact_indices: np.ndarray,
    exact_distances: np.ndarray,
    ann_indices: np.ndarray,
    ann_distances: np.ndarray,
    shown: int = SHOWN,
) -> DriftedQuery:
    """What to show of a query, given its lists, of shape (k,), with id -1 for a missing neighbor.

    At most `shown` exact neighbors, and as many that were returned instead.
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
            Neighbor(int(exact_indices[i]), i + 1, float(exact_distances[i]), bool(is_lost[i]))
            for i in exact.tolist()
        ],
        instead=[
            Neighbor(int(ann_indices[i]), i + 1, float(ann_distances[i]))
            for i in np.flatnonzero(is_new)[:shown].tolist()
        ],
    )
