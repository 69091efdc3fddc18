"""How the neighborhoods of an approximate index differ from the exact ones.

Every function takes neighbor lists, arrays with a row for each query and a column for each neighbor
in ascending order of distance, from whatever system they come. A neighbor that a system failed to
return is id -1 at distance +inf, at the end of its row. Results are float64, one value for each
query.
"""

from dataclasses import dataclass

import numpy as np
import scipy.stats
import torch

from drift import InputError
from drift.blocks import row_blocks


@dataclass(frozen=True)
class Metric:
    """A row of the table of metrics.

    Attributes
    ----------
    name : str
        Column in ``05_per_query.parquet``.
    description : str
        What it says of a query, in a few words.
    """

    name: str
    description: str


METRICS = (
    Metric("overlap", "share of the exact k neighbors that the index found"),
    Metric("recall", "share of neighbors returned no farther than the exact k-th (ties count)"),
    Metric("found", "neighbors returned, over k"),
    Metric("mean_distance_exact", "mean distance to the exact neighbors"),
    Metric("mean_distance_ann", "mean distance to the neighbors returned"),
    Metric("kth_distance_exact", "distance to the k-th exact neighbor"),
    Metric("kth_distance_ann", "distance to the last neighbor returned"),
    Metric("barycenter_shift", "distance between the barycenters of the two neighborhoods"),
    Metric(
        "barycenter_shift_relative", "barycenter shift over the distance to the k-th exact neighbor"
    ),
    Metric("lid_exact", "local intrinsic dimensionality from the exact distances"),
    Metric("lid_ann", "local intrinsic dimensionality from the distances returned"),
    Metric("lid_difference", "LID with the index minus exact LID"),
)
NOTEBOOK_METRICS = (
    Metric("kth_squared_distance_exact", "squared distance to the k-th exact neighbor"),
    Metric("kth_squared_distance_ann", "squared distance to the k-th neighbor returned"),
    Metric("lid_notebook_exact", "LID as the notebook computed it, exact"),
    Metric("lid_notebook_ann", "LID as the notebook computed it, with the index"),
)
GRAPH_METRICS = (
    Metric("hubness_exact", "skewness of the k-occurrence counts, exact"),
    Metric("hubness_ann", "skewness of the k-occurrence counts, with the index"),
    Metric("orphans_exact", "share of rows that are nobody's neighbor, exact"),
    Metric("orphans_ann", "share of rows that are nobody's neighbor, with the index"),
)


def measure(
    exact_indices: np.ndarray,
    exact_distances: np.ndarray,
    ann_indices: np.ndarray,
    ann_distances: np.ndarray,
    embeddings: np.ndarray,
) -> dict[str, np.ndarray]:
    """All of `METRICS`, for lists of one length.

    Parameters
    ----------
    exact_indices, ann_indices : ndarray of int, shape (Q, k)
        Ids of the neighbors, rows of `embeddings`.
    exact_distances, ann_distances : ndarray of float, shape (Q, k)
        Their Euclidean distances.
    embeddings : ndarray of float32, shape (N, d)
        The vectors.

    Returns
    -------
    dict of ndarray of float64, shape (Q,)
        In the order of `METRICS`.
    """
    matched = _match(exact_indices, ann_indices)
    shift = _shift(embeddings, exact_indices, ann_indices, *matched)
    lid_exact, lid_ann = lid(exact_distances), lid(ann_distances)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = shift / kth_distance(exact_distances)
    return {
        "overlap": matched[0].sum(axis=1) / exact_indices.shape[1],
        "recall": recall(exact_distances, ann_distances),
        "found": found(ann_indices),
        "mean_distance_exact": mean_distance(exact_distances),
        "mean_distance_ann": mean_distance(ann_distances),
        "kth_distance_exact": kth_distance(exact_distances),
        "kth_distance_ann": kth_distance(ann_distances),
        "barycenter_shift": shift,
        "barycenter_shift_relative": np.where(np.isfinite(relative), relative, np.nan),
        "lid_exact": lid_exact,
        "lid_ann": lid_ann,
        "lid_difference": lid_ann - lid_exact,
    }


def measure_notebook(
    exact_distances: np.ndarray, ann_distances: np.ndarray
) -> dict[str, np.ndarray]:
    """All of `NOTEBOOK_METRICS`, for lists of one length that include the query itself.

    A row that came back short has no k-th distance, and is NaN.
    """
    with np.errstate(invalid="ignore"):
        last = np.where(np.isfinite(ann_distances[:, -1]), ann_distances[:, -1], np.nan)
    return {
        "kth_squared_distance_exact": exact_distances[:, -1].astype(np.float64) ** 2,
        "kth_squared_distance_ann": last.astype(np.float64) ** 2,
        "lid_notebook_exact": lid_notebook(exact_distances),
        "lid_notebook_ann": lid_notebook(ann_distances),
    }


def check_lists(
    indices: np.ndarray, distances: np.ndarray, n: int, name: str, missing: bool
) -> None:
    """Check neighbor lists that come from elsewhere.

    Parameters
    ----------
    indices, distances : ndarray, shape (Q, k)
        Ids, rows of the embeddings, and Euclidean distances.
    n : int
        How many embeddings there are.
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
    """
    ann_in_exact, _ = _match(exact_indices, ann_indices)
    return ann_in_exact.sum(axis=1) / exact_indices.shape[1]


def recall(exact_distances: np.ndarray, ann_distances: np.ndarray) -> np.ndarray:
    """Share of k neighbors no farther than the exact k-th one, up to one part in a million.

    Unlike the overlap it does not ask which of several rows at the same distance was returned.

    Parameters
    ----------
    exact_distances, ann_distances : ndarray of float, shape (Q, k)
        Ascending distances.

    Returns
    -------
    ndarray of float64, shape (Q,)
        From 0 to 1.

    References
    ----------
    Aumueller, Bernhardsson and Faithfull (2020), ANN-Benchmarks, section 2.
    """
    k = exact_distances.shape[1]
    radius = exact_distances[:, -1:].astype(np.float64) * (1 + 1e-6)
    near = np.isfinite(ann_distances) & (ann_distances <= radius)
    return np.minimum(near.sum(axis=1), k) / k


def found(ann_indices: np.ndarray) -> np.ndarray:
    """Share of the k neighbors asked for that were returned; (Q, k) ids to (Q,) in 0 to 1."""
    return (ann_indices >= 0).mean(axis=1)


def mean_distance(distances: np.ndarray) -> np.ndarray:
    """Mean of the distances returned, (Q, k) to (Q,); NaN where there is none."""
    there = np.isfinite(distances)
    total = np.where(there, distances, 0).sum(axis=1, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return total / there.sum(axis=1)


def kth_distance(distances: np.ndarray) -> np.ndarray:
    """The last distance returned, the neighborhood's radius, (Q, k) to (Q,); NaN without any."""
    count = np.isfinite(distances).sum(axis=1)
    last = np.take_along_axis(distances, np.maximum(count - 1, 0)[:, None], axis=1)[:, 0]
    return np.where(count > 0, last, np.nan).astype(np.float64)


def barycenter_shift(
    embeddings: np.ndarray, exact_indices: np.ndarray, ann_indices: np.ndarray
) -> np.ndarray:
    """Distance between the mean of the exact neighbors and the mean of those that were returned.

    Only the rows whose weights in the two means differ are read: where nothing is missing, the few
    rows that are in one list and not in the other.

    Parameters
    ----------
    embeddings : ndarray of float32, shape (N, d)
        The vectors.
    exact_indices, ann_indices : ndarray of int, shape (Q, k)
        Ids of the neighbors.

    Returns
    -------
    ndarray of float64, shape (Q,)
        In the unit of the embeddings; NaN where nothing was returned.
    """
    return _shift(embeddings, exact_indices, ann_indices, *_match(exact_indices, ann_indices))


def lid(distances: np.ndarray) -> np.ndarray:
    """Local intrinsic dimensionality by maximum likelihood.

    With r_1 <= ... <= r_m the distances returned it is -1 over the mean of ln(r_i / r_m), i = 1 ..
    m - 1, zero distances left out of the mean.

    Parameters
    ----------
    distances : ndarray of float, shape (Q, k)
        Ascending Euclidean distances, not squared, without the query itself.

    Returns
    -------
    ndarray of float64, shape (Q,)
        NaN with fewer than two positive distances, or when they are all equal.

    References
    ----------
    Levina and Bickel (2005), Maximum likelihood estimation of intrinsic dimension.
    Amsaleg et al. (2015), Estimating local intrinsic dimensionality.
    """
    radius = kth_distance(distances)[:, None]
    used = np.isfinite(distances) & (distances > 0)
    logs = np.log(
        np.where(used, distances, radius).astype(np.float64),
        where=radius > 0,
        out=np.zeros(distances.shape),
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        logs -= np.log(radius)
        # r_m itself is among the used ones, adds ln 1 = 0 to the sum, and is not counted.
        mean = np.where(used, logs, 0).sum(axis=1) / (used.sum(axis=1) - 1)
        return np.where(mean < 0, -1 / mean, np.nan)


def lid_notebook(distances: np.ndarray) -> np.ndarray:
    """LID as the notebook computed it, on squared distances s and with the query in its own list.

    It is -1 over the mean of ln(s_i / (s_k + 1e-12) + 1e-12), i = 1 .. k - 1. Kept to reproduce the
    published curve, not to be used: the self match alone adds ln(1e-12) = -27.6 to the sum, and
    squares halve the value.

    Parameters
    ----------
    distances : ndarray of float, shape (Q, k)
        Ascending Euclidean distances, not squared.

    Returns
    -------
    ndarray of float64, shape (Q,)
        NaN where a neighbor is missing, or k is 1.
    """
    squared = distances.astype(np.float64) ** 2
    last = np.where(np.isfinite(squared[:, -1:]), squared[:, -1:], np.nan)
    if squared.shape[1] < 2:
        return np.full(len(squared), np.nan)
    return -1 / np.log(squared[:, :-1] / (last + 1e-12) + 1e-12).mean(axis=1)


def occurrences(indices: np.ndarray, n: int) -> np.ndarray:
    """How many of the lists each of `n` rows is in: (Q, k) ids to int64 (n,)."""
    return np.bincount(indices[indices >= 0], minlength=n)


def hubness(indices: np.ndarray, n: int) -> float:
    """Skewness of the k-occurrence counts; 0 where all rows occur equally often.

    References
    ----------
    Radovanovic, Nanopoulos and Ivanovic (2010), Hubs in space.
    """
    counts = occurrences(indices, n)
    return 0.0 if counts.min() == counts.max() else float(scipy.stats.skew(counts))


def orphans(indices: np.ndarray, n: int) -> float:
    """Share of `n` rows that are in no list."""
    return float((occurrences(indices, n) == 0).mean())


def _shift(
    embeddings: np.ndarray,
    exact_indices: np.ndarray,
    ann_indices: np.ndarray,
    ann_in_exact: np.ndarray,
    exact_in_ann: np.ndarray,
) -> np.ndarray:
    vectors = torch.from_numpy(embeddings)
    shift = np.empty(len(exact_indices))
    k, d = exact_indices.shape[1], embeddings.shape[1]
    for start, stop in row_blocks(len(exact_indices), bytes_per_row=2 * k * 16 + d * 4):
        exact, ann = exact_indices[start:stop], ann_indices[start:stop]
        there = ann >= 0
        with np.errstate(divide="ignore"):
            ann_weight = 1 / there.sum(axis=1, keepdims=True)
        exact_weights = 1 / k - np.where(exact_in_ann[start:stop], ann_weight, 0)
        ann_weights = np.where(ann_in_exact[start:stop], 0, -ann_weight)
        ids = np.concatenate([exact, ann], axis=1)
        weights = np.concatenate([exact_weights, ann_weights], axis=1)
        used = (ids >= 0) & (weights != 0)
        offsets = np.concatenate([[0], used.sum(axis=1).cumsum()[:-1]])
        difference = torch.nn.functional.embedding_bag(
            torch.from_numpy(ids[used].astype(np.int64)),
            vectors,
            torch.from_numpy(offsets),
            mode="sum",
            per_sample_weights=torch.from_numpy(weights[used].astype(np.float32)),
        )
        norm = torch.linalg.vector_norm(difference, dim=1).numpy()
        shift[start:stop] = np.where(there.any(axis=1), norm, np.nan)
    return shift


def _match(exact: np.ndarray, ann: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each id of one list is in the other of the same row, both ways; -1 is in none.

    Returns
    -------
    ann_in_exact, exact_in_ann : ndarray of bool
        Of the shapes of `ann` and `exact`.
    """
    # The rank of every id in the exact list, for a few queries at a time. One column more than
    # there are ids takes the rank of -1, the last column, and is wiped.
    width = max(int(exact.max(initial=-1)), int(ann.max(initial=-1))) + 2
    ann_in_exact, exact_in_ann = np.empty(ann.shape, bool), np.zeros(exact.shape, bool)
    ranks_in_order = np.arange(exact.shape[1], dtype=np.int32)[None]
    for start, stop in row_blocks(len(exact), bytes_per_row=4 * width, budget=4 << 20):
        ranks = np.full((stop - start, width), -1, np.int32)
        np.put_along_axis(ranks, exact[start:stop], ranks_in_order, axis=1)
        ranks[:, -1] = -1
        rank = np.take_along_axis(ranks, ann[start:stop], axis=1)
        ann_in_exact[start:stop] = rank >= 0
        row, column = np.nonzero(rank >= 0)
        exact_in_ann[start + row, rank[row, column]] = True
    return ann_in_exact, exact_in_ann
