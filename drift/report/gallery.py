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
    """A query with tables of neighbors: ``row``, ``rank`` (from 1 on), ``lost``, ``far`` in words.

    How far something is, is over the distance of the nearest neighbor that is no copy.
    """

    row: int
    lost: int  # of its neighbors, that were not returned
    missing: int  # places that stayed empty
    farther: str  # than what was lost is what came instead
    exact: pd.DataFrame  # the nearest of those that were lost, and of those that were kept
    instead: pd.DataFrame


class Gallery(NamedTuple):
    """The queries that drifted most, with a run at a k."""

    queries: list[DriftedQuery]
    label: str  # of the run
    k: int
    images: np.ndarray  # uint8 (N, S, S, 3)
    rows: pd.DataFrame  # by row `name` and `label`

    def name(self, row: int) -> str:
        """What to call an image: by its user, or where it is from, and its label."""
        name, label = self.rows["name"][row], self.rows["label"][row]
        return name if label < 0 else f"{name}, label {label}"


def name_rows(images: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """`name`, `label` and `group` of each row, from ``01_images.parquet`` and ``02_rows.parquet``.

    The name is the user's, or where the image is from, without the folders of its owner.
    """
    paths = images["source"].map(Path)
    names = images["source"].where(~paths.map(Path.is_absolute), paths.map(lambda one: one.name))
    is_own = rows["id"] != rows["row"].astype(str)
    return rows[["label", "group"]].assign(name=rows["id"].where(is_own, names))


def choose(study: Study, run: str | None, k: int | None) -> tuple[str, int]:
    """The run of stage 04 and the k to show queries of; an InputError if not measured.

    Without them that of `Study.drifted`, and the first k at which it is below `VISIBLE_DRIFT`, or
    its least.
    """
    if run is None:
        run = study.members[study.drifted[0]][0]
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
    overlap: np.ndarray,
    shift: np.ndarray,
    differs: np.ndarray,
    rows: np.ndarray,
    exact_indices: np.ndarray,
    n: int,
) -> list[int]:
    """Places of the `n` queries that drifted most.

    First those that got something else in place of what they lost, then those that kept least; of
    equals, those that moved farthest. Of Q queries whether it `differs`, `overlap`, barycenter
    `shift` (NaN is farthest) and `rows` are (Q,), their exact neighbors (Q, k). One that is a
    neighbor of another that was chosen before, or has it as one, shows nearly the same pictures,
    and is left out; so is one that kept everything.
    """
    order = np.lexsort((-np.nan_to_num(shift, nan=np.inf), overlap, ~differs))
    chosen: list[int] = []
    for i in order[overlap[order] < 1]:
        if len(chosen) == n:
            break
        has_it = rows[i] in exact_indices[chosen]
        if not has_it and not np.isin(rows[chosen], exact_indices[i]).any():
            chosen.append(int(i))
    return chosen


def got_something_else(
    rows: np.ndarray, exact_indices: np.ndarray, ann_indices: np.ndarray, known: pd.DataFrame
) -> np.ndarray:
    """Whether most of what each query got in place of what it lost has another label or group.

    `rows` are (Q,), lists (Q, k), and -1 is a label or a group that is not `known`.
    """
    # Whole numbers that ascend from row to row, -1 being nobody's: faster to look up than by isin.
    first = np.arange(len(rows))[:, None] * (len(known) + 1)
    exact, ann = np.sort(first + exact_indices, axis=1).ravel(), first + ann_indices
    place = np.minimum(np.searchsorted(exact, ann), exact.size - 1)
    is_new, differs = (ann_indices >= 0) & (exact[place] != ann), np.zeros(len(rows), bool)
    for kinds in (known["label"].to_numpy(), known["group"].to_numpy()):
        own, others = kinds[rows][:, None], kinds[ann_indices]
        is_other = is_new & (others != own) & (others >= 0) & (own >= 0)
        differs |= 2 * is_other.sum(axis=1) > is_new.sum(axis=1)
    return differs


def gallery(
    study: Study,
    run: str,
    k: int,
    lists: Sequence[np.ndarray],
    images: tuple[np.ndarray, pd.DataFrame, pd.DataFrame],
    n: int,
) -> Gallery:
    """At most `n` queries, those that drifted most with a run of stage 04 at a k.

    `lists`: queries (Q,), exact ids and distances, the run's ids and distances (Q, k or more);
    with `images` come what `name_rows` takes.
    """
    (rows, *lists), known = lists, name_rows(*images[1:])
    lists = [part[:, :k] for part in lists]
    queries = study.per_query.query("run == @run and k == @k").set_index("query").loc[rows]
    drift = queries[["overlap", "barycenter_shift"]].to_numpy().T
    differs = got_something_else(rows, lists[0], lists[2], known)
    worst = most_drifted(*drift, differs, rows, lists[0], n)
    shown = [drifted_query(rows[i], *(part[i] for part in lists)) for i in worst]
    return Gallery(shown, study.label_of(run), k, images[0], known)


def drifted_query(
    row: int,
    exact_indices: np.ndarray,
    exact_distances: np.ndarray,
    ann_indices: np.ndarray,
    ann_distances: np.ndarray,
) -> DriftedQuery:
    """At most `SHOWN` neighbors of either list, of shape (k,), with id -1 for a missing one."""
    ranks = np.arange(1, len(exact_indices) + 1)
    nearest = exact_distances[exact_distances > 0].min(initial=np.inf)
    exact = pd.DataFrame({"row": exact_indices, "rank": ranks, "distance": exact_distances})
    ann = pd.DataFrame({"row": ann_indices, "rank": ranks, "distance": ann_distances})
    exact["lost"], ann["lost"] = ~exact["row"].isin(ann["row"]), False
    for table in exact, ann:
        table["far"] = [times_as_far(distance / nearest) for distance in table["distance"]]
    instead = ann[~ann["row"].isin(exact["row"]) & (ann["row"] >= 0)]
    lost, kept = exact[exact["lost"]], exact[~exact["lost"]]
    farther = times_as_far(instead["distance"].mean() / (lost["distance"].mean() or np.nan))
    # Those that were kept are shown beside those that were lost: what is it that is missing?
    lost_shown = lost[: SHOWN - min(len(kept), LEAST_KEPT_SHOWN)]
    both = pd.concat([lost_shown, kept[: SHOWN - len(lost_shown)]]).sort_values("rank")
    missing = sum(ann["row"] < 0)
    return DriftedQuery(int(row), len(lost), missing, farther, both, instead[:SHOWN])


def times_as_far(ratio: float) -> str:
    """A ratio of distances in words: ``twice as far``; nothing where there is none."""
    if not 0 < ratio < np.inf:
        return ""
    return {"1.0": "as far", "2.0": "twice as far"}.get(f"{ratio:.1f}", f"{ratio:.1f} times as far")
