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
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from drift import InputError
from drift.distances import (
    Neighborhoods,
    distance_ratios,
    kth_distances,
    lids,
    mean_distances,
    recalls,
)
from drift.neighbor_lists import (
    as_distances,
    as_ids,
    checked_distances,
    checked_pair,
    refuse_faulty_ids,
    refuse_faulty_lists,
    refuse_other_shape,
)
from drift.set_differences import TABLE_BUDGET, barycenter_shifts, set_differences
from drift.set_differences import neighborhood_overlap as neighborhood_overlap
from drift.vectors import row_blocks


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
    Metric("distance_ratio", "exact over returned distance, mean over ranks (missing: 0)"),
    Metric("barycenter_shift", "distance between the barycenters of the two neighborhoods"),
    Metric(
        "barycenter_shift_relative", "barycenter shift over the distance to the k-th exact neighbor"
    ),
    Metric("lid_exact", "local intrinsic dimensionality from the exact distances"),
    Metric("lid_ann", "local intrinsic dimensionality from the distances returned"),
    Metric("lid_difference", "LID with the index minus exact LID"),
)
GRAPH_METRICS = (
    Metric("hubness_exact", "skewness of the k-occurrence counts, exact"),
    Metric("hubness_ann", "skewness of the k-occurrence counts, with the index"),
    Metric("orphans_exact", "share of rows that are nobody's neighbor, exact"),
    Metric("orphans_ann", "share of rows that are nobody's neighbor, with the index"),
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
    exact_indices : array_like of int, shape (Q, K)
        Ids of the exact neighbors, rows of `embeddings`; the exact list of length k is the first k.
    exact_distances : array_like of float, shape (Q, K)
        Their Euclidean distances.
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

        def usable(name: str, ids: np.ndarray, distances: np.ndarray) -> Neighborhoods:
            ids, distances, (n, d) = ids[rows], distances[rows], embeddings.shape
            refuse_faulty_lists(ids, distances, f"{name}:", n, first_row=rows.start)
            if ids.dtype not in (np.int32, np.int64):
                ids = ids.astype(np.int64)
            return Neighborhoods.leave_out(left_out, ids, distances, norms, d)

        exact, *others = [usable(name, *side) for name, _, side in sides]
        return _block_metrics(exact, others, embeddings)

    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(block_metrics, _query_blocks(exact[0], embeddings)))
    return {metric.name: np.hstack([part[metric.name] for part in parts]) for metric in METRICS}


def recall(exact_distances: ArrayLike, ann_distances: ArrayLike) -> np.ndarray:
    """Share of k neighbors no farther than the exact k-th one, up to one part in a million.

    Distances of half precision are compared up to what they can tell apart. Unlike the overlap it
    does not ask which of several rows at the same distance was returned.

    Parameters
    ----------
    exact_distances, ann_distances : array_like of float, shape (Q, k)
        Ascending distances.

    Returns
    -------
    ndarray of float64, shape (Q,)
        From 0 to 1.

    References
    ----------
    Aumueller, Bernhardsson and Faithfull (2020), ANN-Benchmarks, section 2.
    """
    exact, ann = checked_pair(exact_distances, ann_distances)
    return recalls(exact, [ann])[0]


def found(ann_indices: ArrayLike) -> np.ndarray:
    """Share of the k neighbors asked for that were returned; (Q, k) ids to (Q,) in 0 to 1."""
    refuse_faulty_ids(ids := as_ids(ann_indices))
    return (ids >= 0).mean(axis=1)


def mean_distance(distances: ArrayLike) -> np.ndarray:
    """Mean of the distances returned, (Q, k) to (Q,); NaN where there is none."""
    distances = checked_distances(distances)
    return mean_distances(distances, [distances.shape[1]])[0]


def kth_distance(distances: ArrayLike) -> np.ndarray:
    """The last distance returned, the neighborhood's radius, (Q, k) to (Q,); NaN without any."""
    distances = checked_distances(distances)
    return kth_distances(distances, [distances.shape[1]])[0]


def distance_ratio(exact_distances: ArrayLike, ann_distances: ArrayLike) -> np.ndarray:
    """Mean over the ranks of the exact distance over the one returned, missing ones counting 0.

    Parameters
    ----------
    exact_distances, ann_distances : array_like of float, shape (Q, k)
        Ascending Euclidean distances, without the query itself.

    Returns
    -------
    ndarray of float64, shape (Q,)
        From 0 to 1: no term is above 1, and one is 1 where the distance returned is 0. NaN where
        there are no exact neighbors.

    References
    ----------
    Patella and Ciaccia (2008), The many facets of approximate similarity search: of the ratio's
    inverse, without missing neighbors.
    """
    exact, ann = checked_pair(exact_distances, ann_distances)
    return distance_ratios(exact, [ann])[0]


def barycenter_shift(
    embeddings: np.ndarray, exact_indices: ArrayLike, ann_indices: ArrayLike
) -> np.ndarray:
    """Distance between the mean of the exact neighbors and the mean of those that were returned.

    Parameters
    ----------
    embeddings : ndarray of float, shape (N, d)
        The vectors.
    exact_indices, ann_indices : array_like of int, shape (Q, k)
        Ids of the neighbors.

    Returns
    -------
    ndarray of float64, shape (Q,)
        In the unit of the embeddings, to a millionth of itself; NaN where nothing was returned.
    """
    lists = as_ids(exact_indices, "exact ids"), as_ids(ann_indices, "ANN ids")
    refuse_other_shape(*lists)
    shift = np.empty(len(lists[0]))
    for start, stop in _query_blocks(lists[0], embeddings):
        exact, ann = (ids[start:stop] for ids in lists)
        refuse_faulty_ids(exact, "exact ids:", len(embeddings), start)
        refuse_faulty_ids(ann, "ANN ids:", len(embeddings), start)
        exact, ann = exact.astype(np.int64), ann.astype(np.int64)
        steps = list(set_differences(exact, [ann], len(embeddings)))
        (shift[start:stop],) = barycenter_shifts(steps, embeddings)
    return shift


def lid(distances: ArrayLike) -> np.ndarray:
    """Local intrinsic dimensionality, the maximum likelihood estimate without its bias.

    Over the p positive distances r_1 <= ... <= r_m returned it is -(p - 2) over the sum of
    ln(r_i / r_m); the last one, whose logarithm is 0, is counted in p. Levina and Bickel (2005)
    have p - 1 in place of p - 2, which MacKay and Ghahramani (2005) show to be too much on average
    by a factor of (p - 1) / (p - 2): 12 % at k = 10.

    Parameters
    ----------
    distances : array_like of float, shape (Q, k)
        Ascending Euclidean distances, not squared, without the query itself.

    Returns
    -------
    ndarray of float64, shape (Q,)
        NaN with fewer than three positive distances, or when they are all equal.

    References
    ----------
    Levina and Bickel (2005), Maximum likelihood estimation of intrinsic dimension.
    MacKay and Ghahramani (2005), Comments on "Maximum likelihood estimation of intrinsic dimension"
    by E. Levina and P. Bickel.
    Amsaleg et al. (2015), Estimating local intrinsic dimensionality.
    """
    distances = checked_distances(distances)
    return lids(distances, [distances.shape[1]])[0]


def occurrences(indices: ArrayLike, n: int) -> np.ndarray:
    """How many of the lists each of `n` rows is in: (Q, k) ids to int64 (n,)."""
    indices = as_ids(indices)
    refuse_faulty_ids(indices, "ids:", n)
    indices = indices.astype(np.int64, copy=False)
    return np.bincount(indices.ravel() + 1, minlength=n + 1)[1:]


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


def _query_blocks(exact_indices: np.ndarray, embeddings: np.ndarray) -> list[tuple[int, int]]:
    """Blocks of queries whose tables and sums stay in the processor's cache, one at the least."""
    n, d = embeddings.shape
    n_queries, k = exact_indices.shape
    return row_blocks(n_queries, n + 12 * d + 64 * k, TABLE_BUDGET) or [(0, 0)]


def _block_metrics(
    exact: Neighborhoods, ann: Sequence[Neighborhoods], embeddings: np.ndarray
) -> dict[str, np.ndarray]:
    """`compute_metrics` of a block of queries."""
    ks = [lists.ids.shape[1] for lists in ann]
    steps = list(set_differences(exact.ids, [lists.ids for lists in ann], len(embeddings)))
    overlap = np.stack([step.common for step in steps]) / np.array(ks)[:, None]
    shift = barycenter_shifts(steps, embeddings)
    recalled = recalls(exact.distances, [lists.distances for lists in ann], exact.noise)
    kth_exact, lid_exact = kth_distances(exact.others, ks), lids(exact.spread, ks)
    lid_ann = np.concatenate([lids(lists.spread, [k]) for k, lists in zip(ks, ann, strict=True)])
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = shift / kth_exact
    return {
        "overlap": overlap,
        # The exact neighbors themselves are near enough, whatever rounding made of their distances.
        "recall": np.maximum(recalled, overlap),
        "found": np.stack([(lists.ids >= 0).mean(axis=1) for lists in ann]),
        "mean_distance_exact": mean_distances(exact.others, ks),
        "mean_distance_ann": np.concatenate(
            [mean_distances(lists.others, [k]) for k, lists in zip(ks, ann, strict=True)]
        ),
        "kth_distance_exact": kth_exact,
        "kth_distance_ann": np.concatenate(
            [kth_distances(lists.others, [k]) for k, lists in zip(ks, ann, strict=True)]
        ),
        "distance_ratio": distance_ratios(exact.spread, [lists.spread for lists in ann]),
        "barycenter_shift": shift,
        "barycenter_shift_relative": np.where(np.isfinite(relative), relative, np.nan),
        "lid_exact": lid_exact,
        "lid_ann": lid_ann,
        "lid_difference": lid_ann - lid_exact,
    }
