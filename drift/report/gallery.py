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


class DriftedQuery(NamedTuple):
    """A query with tables of neighbors: ``row``, ``rank`` (from 1 on), ``distance``, ``lost``."""

    row: int
    lost: int  # of its neighbors, that were not returned
    missing: int  # places that stayed empty
    exact: pd.DataFrame  # the nearest of those that were lost, and of those that were kept
    instead: pd.DataFrame


class Gallery(NamedTuple):
    """The queries that drifted most, the worst first, with a run at a k."""

    queries: list[DriftedQuery]
    label: str  # of the run
    k: int
    images: np.ndarray  # uint8 (N, S, S, 3)
    table: pd.DataFrame  # 01_images.parquet

    def name(self, row: int) -> str:
        """What to call an image: where it is from, without the folders of its owner, and label."""
        source, label = self.table["source"][row], self.table["label"][row]
        name = Path(source).name if Path(source).is_absolute() else source
        return name if label < 0 else f"{name}, label {label}"


def choose(study: Study, run: str | None, k: int | None) -> tuple[str, int]:
    """The run of stage 04 and the k to show queries of; an InputError if not measured.

    Else that of `Study.worst`, and the first k at which it is below `VISIBLE_DRIFT`, or its least.
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

    Of Q queries `overlap`, barycenter `shift` (NaN is farthest) and `rows` are (Q,), their exact
    neighbors (Q, k). One that is a neighbor of another that was chosen before, or has it as one,
    shows nearly the same pictures, and is left out; so is one that kept everything.
    """
    order = np.lexsort((-np.nan_to_num(shift, nan=np.inf), overlap))
    chosen: list[int] = []
    for i in order[overlap[order] < 1]:
        if len(chosen) == n:
            break
        has_it = rows[i] in exact_indices[chosen]
        if not has_it and not np.isin(rows[chosen], exact_indices[i]).any():
            chosen.append(int(i))
    return chosen


def gallery(
    study: Study,
    run: str,
    k: int,
    lists: Sequence[np.ndarray],
    images: tuple[np.ndarray, pd.DataFrame],
    n: int,
) -> Gallery:
    """At most `n` queries, those that drifted most with a run of stage 04 at a k.

    `lists`: queries (Q,), exact ids and distances, the run's ids and distances (Q, k or more).
    """
    rows, *lists = lists
    lists = [part[:, :k] for part in lists]
    queries = study.per_query.query("run == @run and k == @k").set_index("query").loc[rows]
    drift = queries[["overlap", "barycenter_shift"]].to_numpy().T
    worst = most_drifted(*drift, rows, lists[0], n)
    shown = [drifted_query(rows[i], *(part[i] for part in lists)) for i in worst]
    return Gallery(shown, study.label_of(run), k, *images)


def drifted_query(
    row: int,
    exact_indices: np.ndarray,
    exact_distances: np.ndarray,
    ann_indices: np.ndarray,
    ann_distances: np.ndarray,
) -> DriftedQuery:
    """At most `SHOWN` neighbors of either list, of shape (k,), with id -1 for a missing one."""
    ranks = np.arange(1, len(exact_indices) + 1)
    exact = pd.DataFrame({"row": exact_indices, "rank": ranks, "distance": exact_distances})
    ann = pd.DataFrame({"row": ann_indices, "rank": ranks, "distance": ann_distances})
    exact["lost"], ann["lost"] = ~exact["row"].isin(ann["row"]), False
    instead = ann[~ann["row"].isin(exact["row"]) & (ann["row"] >= 0)]
    lost, kept = exact[exact["lost"]], exact[~exact["lost"]]
    # Those that were kept are shown beside those that were lost: what is it that is missing?
    lost_shown = lost[: SHOWN - min(len(kept), LEAST_KEPT_SHOWN)]
    both = pd.concat([lost_shown, kept[: SHOWN - len(lost_shown)]]).sort_values("rank")
    return DriftedQuery(int(row), len(lost), sum(ann["row"] < 0), both, instead[:SHOWN])
