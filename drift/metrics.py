"""How the neighborhoods of an approximate index differ from the exact ones.

Every function takes neighbor lists, with a row for each query and a column for each neighbor in
ascending order of distance, from whatever system they come: arrays, or lists of Python, with ids of
any whole-number type and size. A neighbor that a system failed to return is id -1 at distance +inf,
at the end of its row; unsigned ids have no -1, and the largest of them is an id like any other.
Lists that cannot be measured are refused by an `InputError` that says which row. Results are
float64, one value for each query.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from drift import InputError
from drift.neighbor_lists import (
    as_distances,
    as_ids,
    checked_distance_pair,
    checked_distances,
    checked_ids,
    refuse_faulty_lists,
)
from drift.set_differences import barycenter_shift as barycenter_shift
from drift.set_differences import barycenter_shifts, query_blocks, set_differences
from drift.set_differences import neighborhood_overlap as neighborhood_overlap
from drift.vectors import expansion_noise


class Metric(NamedTuple):
    """A column of ``05_per_query.parquet``, and what it says of a query in a few words."""

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
    Metric("distance_ratio", "exact over returned distance, mean over ranks (missing: 0)"),
    Metric("barycenter_shift", "distance between the barycenters of the two neighborhoods"),
    Metric(
        "barycenter_shift_relative", "barycenter shift over the distance to the k-th exact neighbor"
    ),
    Metric("lid_exact", "local intrinsic dimensionality from the exact distances"),
    Metric("lid_ann", "local intrinsic dimensionality from the distances returned"),
    Metric("lid_difference", "LID with the index minus exact LID"),
)


def compute_metrics(
    exact_indices: ArrayLike,
    exact_distances: ArrayLike,
    ann: Mapping[int, tuple[ArrayLike, ArrayLike]],
    embeddings: np.ndarray,
    queries: np.ndarray | None = None,
    norms: np.ndarray | None = None,
    threads: int = 1,
) -> dict[str, np.ndarray]:
    """All of `METRICS`, for lists of G lengths in one pass.

    Overlap, recall, the share found and the barycenter shift are of the lists as they are. Where
    those contain the query itself, distances, `distance_ratio` and LID leave it out by its id, and
    are of the k or k - 1 neighbors that remain.

    Parameters
    ----------
    exact_indices, exact_distances : array_like of int and of float, shape (Q, K)
        Ids of the exact neighbors, rows of `embeddings`, and their Euclidean distances; the exact
        list of length k is the first k.
    ann : mapping of int to (array_like of int, array_like of float), shape (Q, k) each
        For each length k <= K, ascending, ids and distances that the index returned.
    embeddings : ndarray of float, shape (N, d)
        The vectors; a memory map will do.
    queries : ndarray of int, shape (Q,), optional
        Ids of the queries, to leave them out; None where they have no id among the rows.
    norms : ndarray of float, shape (N,), optional
        Norms of the vectors from which the exact distances were taken, where that was done by
        |x|^2 - 2xy + |y|^2 in float32. Recall then forgives what rounding can have done to r_k
        (`drift.vectors.expansion_noise`), and distances within the rounding of 0, those of near
        duplicates, count as 0 in `distance_ratio` and LID, on both sides alike.
    threads : int
        Blocks of queries that are worked on at a time. The results do not depend on it.

    Returns
    -------
    dict of ndarray of float64, shape (G, Q)
        In the order of `METRICS`.

    Raises
    ------
    InputError
        When shapes do not fit each other, or a row holds what cannot be, an id twice for instance.
    """
    exact = as_ids(exact_indices, "exact ids"), as_distances(exact_distances)
    n_queries, longest = exact[0].shape
    sides = [("exact", longest, exact)]
    for k, (ids, distances) in ann.items():
        sides.append((f"ANN (k = {k})", k, (as_ids(ids, "ANN ids"), as_distances(distances))))
    for name, k, (ids, distances) in sides:
        if not ids.shape == distances.shape == (n_queries, k) or k > longest:
            raise InputError(
                f"{name}: ids and distances must be of shape ({n_queries}, {k}), no longer than "
                f"the {longest} exact ones, not {ids.shape} and {distances.shape}"
            )
    if queries is not None and len(queries) != n_queries:
        raise InputError(f"neighbor lists are of {n_queries} queries, not of {len(queries)}")

    def block_metrics(block: tuple[int, int]) -> dict[str, np.ndarray]:
        rows = slice(*block)
        left_out = None if queries is None else np.asarray(queries)[rows]
        lists = []
        for name, _, side in sides:
            ids, distances = (array[rows] for array in side)
            refuse_faulty_lists(ids, distances, name, len(embeddings), first_row=rows.start)
            ids = ids.astype(np.int64, copy=False)
            lists.append(_leave_out(left_out, ids, distances, norms, embeddings.shape[1]))
        return _block_metrics(lists[0], lists[1:], embeddings)

    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(block_metrics, query_blocks(exact[0], embeddings)))
    return {metric.name: np.hstack([part[metric.name] for part in parts]) for metric in METRICS}


def recall(exact_distances: ArrayLike, ann_distances: ArrayLike) -> np.ndarray:
    """Share of k neighbors no farther than the exact k-th one, up to one part in a million.

    Distances (Q, k) of half precision are compared up to what they can tell apart. Unlike the
    overlap it does not ask which of several rows at the same distance was returned.

    References
    ----------
    Aumueller, Bernhardsson and Faithfull (2020), ANN-Benchmarks, section 2.
    """
    return _recall(*checked_distance_pair(exact_distances, ann_distances))


def found(ann_indices: ArrayLike) -> np.ndarray:
    """Share of the k neighbors asked for that were returned; (Q, k) ids to (Q,) in 0 to 1."""
    return (checked_ids(ann_indices) >= 0).mean(axis=1)


def mean_distance(distances: ArrayLike) -> np.ndarray:
    """Mean of the distances returned, (Q, k) to (Q,); NaN where there is none."""
    return _mean_distances(checked_distances(distances))[0]


def kth_distance(distances: ArrayLike) -> np.ndarray:
    """The last distance returned, the neighborhood's radius, (Q, k) to (Q,); NaN without any."""
    return _kth_distances(checked_distances(distances))[0]


def distance_ratio(exact_distances: ArrayLike, ann_distances: ArrayLike) -> np.ndarray:
    """Mean over the ranks of the exact distance over the one returned, missing ones counting 0.

    Distances are Euclidean ones (Q, k), without the query itself. No term is above 1, and one is 1
    where the distance returned is 0. NaN where there are no exact neighbors.

    References
    ----------
    Patella and Ciaccia (2008), The many facets of approximate similarity search: of the ratio's
    inverse, without missing neighbors.
    """
    return _distance_ratio(*checked_distance_pair(exact_distances, ann_distances))


def lid(distances: ArrayLike) -> np.ndarray:
    """Local intrinsic dimensionality, the maximum likelihood estimate without its bias.

    Over the p positive distances r_1 <= ... <= r_m returned it is -(p - 2) over the sum of
    ln(r_i / r_m); the last one, whose logarithm is 0, is counted in p. Levina and Bickel (2005)
    have p - 1 in place of p - 2, which MacKay and Ghahramani (2005) show to be too much on average
    by a factor of (p - 1) / (p - 2): 12 % at k = 10.

    Distances (Q, k) are ascending Euclidean ones, not squared, without the query itself. NaN with
    fewer than three positive ones, or when those are all equal.

    References
    ----------
    Levina and Bickel (2005), Maximum likelihood estimation of intrinsic dimension.
    MacKay and Ghahramani (2005), Comments on "Maximum likelihood estimation of intrinsic dimension"
    by E. Levina and P. Bickel.
    Amsaleg et al. (2015), Estimating local intrinsic dimensionality.
    """
    return _lids(checked_distances(distances))[0]


def occurrences(indices: ArrayLike, n: int) -> np.ndarray:
    """How many of the lists each of `n` rows is in: (Q, k) ids to int64 (n,)."""
    ids = checked_ids(indices, n=n).astype(np.int64, copy=False)
    return np.bincount(ids.ravel() + 1, minlength=n + 1)[1:]


def hubness(counts: np.ndarray) -> float:
    """Skewness of the k-occurrence counts, (n,); 0 where all rows occur equally often.

    References
    ----------
    Radovanovic, Nanopoulos and Ivanovic (2010), Hubs in space.
    """
    if counts.min() == counts.max():
        return 0.0
    deviations = counts - counts.mean()
    squares = deviations**2
    return float((squares * deviations).mean() / squares.mean() ** 1.5)


def orphans(counts: np.ndarray) -> float:
    """Share of rows that are in no list, from the k-occurrence counts, (n,)."""
    return float((counts == 0).mean())


class _Lists(NamedTuple):
    """A block of lists, and their distances without the queries' own; (Q, k) each."""

    ids: np.ndarray
    distances: np.ndarray
    others: np.ndarray  # the distances, NaN in the place of the query itself
    spread: np.ndarray  # the same, 0 where rounding hides whether they are 0
    noise: np.ndarray  # rounding error of the squares of the distances


def _leave_out(
    queries: np.ndarray | None,
    ids: np.ndarray,
    distances: np.ndarray,
    norms: np.ndarray | None,
    d: int,
) -> _Lists:
    """Lists of which the queries are left out by their ids."""
    others = distances
    if queries is not None and (itself := ids == queries[:, None]).any():
        others = np.where(itself, np.nan, distances)
    if norms is None:
        return _Lists(ids, distances, others, others, np.broadcast_to(0.0, ids.shape))
    # Of a query that is no row, |x| <= |y| + r.
    norm = norms[ids] + distances if queries is None else norms[queries][:, None]
    noise = np.where(ids < 0, 0, expansion_noise(d) * (norm + norms[ids]) ** 2)
    spread = np.where(np.square(others, dtype=np.float64) <= noise, 0, others)
    return _Lists(ids, distances, others, spread, noise)


def _block_metrics(
    exact: _Lists, ann: Sequence[_Lists], embeddings: np.ndarray
) -> dict[str, np.ndarray]:
    """`compute_metrics` of a block of queries."""
    ks = [lists.ids.shape[1] for lists in ann]
    steps = list(set_differences(exact.ids, [lists.ids for lists in ann], len(embeddings)))
    by_k = []
    for k, step, lists in zip(ks, steps, ann, strict=True):
        overlap = step.common / k
        recalled = _recall(exact.distances[:, :k], lists.distances, exact.noise[:, k - 1])
        of_k = {
            "overlap": overlap,
            # The exact neighbors themselves are near enough, whatever rounding made of them.
            "recall": np.maximum(recalled, overlap),
            "found": step.returned / k,
            "mean_distance_ann": _mean_distances(lists.others)[0],
            "kth_distance_ann": _kth_distances(lists.others)[0],
            "distance_ratio": _distance_ratio(exact.spread[:, :k], lists.spread),
            "lid_ann": _lids(lists.spread)[0],
        }
        by_k.append(of_k)
    values = {name: np.stack([of_k[name] for of_k in by_k]) for name in by_k[0]}
    shift = barycenter_shifts(steps, embeddings)
    radius, lid_exact = _kth_distances(exact.others, ks), _lids(exact.spread, ks)
    relative = np.divide(shift, radius, out=np.full(shift.shape, np.nan), where=radius > 0)
    return values | {
        "mean_distance_exact": _mean_distances(exact.others, ks),
        "kth_distance_exact": radius,
        "barycenter_shift": shift,
        "barycenter_shift_relative": relative,
        "lid_exact": lid_exact,
        "lid_difference": values["lid_ann"] - lid_exact,
    }


# The formulas. Distances ascend, +inf where a neighbor is missing, NaN where one is left out. For
# lengths `ks`, each the first k columns of (Q, K), results are (G, Q); without, of all columns.


def _recall(exact: np.ndarray, ann: np.ndarray, noise: np.ndarray | float = 0.0) -> np.ndarray:
    """`recall`, where the squares of the exact k-th distances may be too small by some noise."""
    # What float32 makes of one distance, or what coarser distances can tell apart.
    tolerance = max(1e-6, *(np.finfo(side.dtype).eps for side in (exact, ann)))
    radius = np.sqrt((exact[:, -1].astype(np.float64) * (1 + tolerance)) ** 2 + noise)
    return (np.isfinite(ann) & (ann <= radius[:, None])).mean(axis=1)


def _mean_distances(distances: np.ndarray, ks: Sequence[int] | None = None) -> np.ndarray:
    """`mean_distance` of the first k, for each k."""
    returned = np.isfinite(distances)
    with np.errstate(invalid="ignore"):
        total = _of_first(np.add, np.where(returned, distances, 0), ks)
        return total / _of_first(np.add, returned, ks)


def _kth_distances(distances: np.ndarray, ks: Sequence[int] | None = None) -> np.ndarray:
    """`kth_distance` of the first k, for each k."""
    last = _of_first(np.maximum, np.where(np.isfinite(distances), distances, -1), ks)
    return np.where(last < 0, np.nan, last)


def _distance_ratio(exact: np.ndarray, ann: np.ndarray) -> np.ndarray:
    exact, ann = _closed_up(exact), _closed_up(ann)
    count = np.isfinite(exact).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.minimum(np.divide(exact, ann, dtype=np.float64), 1)
        terms[ann == 0] = 1
        terms[np.arange(ann.shape[1]) >= count[:, None]] = 0
        return terms.sum(axis=1) / count


def _lids(distances: np.ndarray, ks: Sequence[int] | None = None) -> np.ndarray:
    """`lid` of the first k, for each k."""
    used = np.isfinite(distances) & (distances > 0)
    # In units of the row's last distance the logarithms are small, and so is their rounding.
    unit = np.max(distances, axis=1, where=used, initial=0, keepdims=True).astype(np.float64)
    logs = np.zeros(distances.shape)
    np.divide(distances, unit, out=logs, where=used)
    np.log(logs, out=logs, where=used)
    last = _of_first(np.maximum, np.where(used, logs, -np.inf), ks)
    count = _of_first(np.add, used, ks)
    varied = (count > 2) & (logs.min(axis=1) < last)
    with np.errstate(invalid="ignore"):
        total = _of_first(np.add, logs, ks) - count * last
    return np.divide(2 - count, total, out=np.full(count.shape, np.nan), where=varied)


def _of_first(ufunc: np.ufunc, values: np.ndarray, ks: Sequence[int] | None) -> np.ndarray:
    """Sum or maximum of the first k values of each row, for each k, in float64."""
    ks = ks or [values.shape[1]]
    parts = ufunc.reduceat(values[:, : ks[-1]], [0, *ks[:-1]], axis=1, dtype=np.float64)
    return ufunc.accumulate(parts, axis=1).T


def _closed_up(distances: np.ndarray) -> np.ndarray:
    """The same with no gap where a neighbor is left out; its place at the end counts as missing."""
    if not np.isnan(distances).any():
        return distances
    distances = np.sort(distances, axis=1)
    return np.where(np.isnan(distances), np.inf, distances)
