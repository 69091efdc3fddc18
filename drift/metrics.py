"""How the neighborhoods of an approximate index differ from the exact ones.

Every function takes neighbor lists, with a row for each query and a column for each neighbor in
ascending order of distance, from whatever system they come: arrays, or lists of Python, with ids of
any whole-number type and size. A neighbor that a system failed to return is id -1 at distance +inf,
at the end of its row; unsigned ids have no -1, and the largest of them is an id like any other.
Lists that cannot be measured are refused by an `InputError` that says which row. Results are
float64, one value for each query.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from drift import InputError
from drift.neighbor_lists import (
    as_distances,
    as_ids,
    checked_distances,
    checked_ids,
    checked_pair,
    refuse_faulty_lists,
)
from drift.neighborhoods import (
    Neighborhoods,
    distance_ratios,
    kth_distances,
    lids,
    mean_distances,
    recalls,
    without_queries,
)
from drift.set_differences import barycenter_shift as barycenter_shift
from drift.set_differences import neighborhood_overlap as neighborhood_overlap
from drift.set_differences import query_blocks


def recall(exact_distances: ArrayLike, ann_distances: ArrayLike) -> np.ndarray:
    """Share of k neighbors no farther than the exact k-th one, up to one part in a million.

    Distances (Q, k) of half precision are compared up to what they can tell apart. Unlike the
    overlap it does not ask which of several rows at the same distance was returned.

    References
    ----------
    Aumueller, Bernhardsson and Faithfull (2020), ANN-Benchmarks, section 2.

    Examples
    --------
    >>> recall([[1.0, 2.0, 2.0]], [[1.0, 2.0, 3.0]]).round(3)
    array([0.667])
    """
    pair = checked_pair(checked_distances, "distances", exact_distances, ann_distances)
    return recalls(*pair)


def found(ann_indices: ArrayLike) -> np.ndarray:
    """Share of the k neighbors asked for that were returned; (Q, k) ids to (Q,) in 0 to 1.

    Examples
    --------
    >>> found([[4, 7, -1, -1], [1, 2, 3, 4]])
    array([0.5, 1. ])
    """
    return (checked_ids(ann_indices) >= 0).mean(axis=1)


def mean_distance(distances: ArrayLike) -> np.ndarray:
    """Mean of the distances returned, (Q, k) to (Q,); NaN where there is none.

    Examples
    --------
    >>> mean_distance([[1.0, 2.0, np.inf]])
    array([1.5])
    """
    return mean_distances(checked_distances(distances))[0]


def kth_distance(distances: ArrayLike) -> np.ndarray:
    """The last distance returned, the neighborhood's radius, (Q, k) to (Q,); NaN without any.

    Examples
    --------
    >>> kth_distance([[1.0, 2.0, np.inf]])
    array([2.])
    """
    return kth_distances(checked_distances(distances))[0]


def distance_ratio(exact_distances: ArrayLike, ann_distances: ArrayLike) -> np.ndarray:
    """Mean over the ranks of the exact distance over the one returned, missing ones counting 0.

    Distances are Euclidean ones (Q, k), without the query itself. No term is above 1, and one is 1
    where the distance returned is 0. NaN where there are no exact neighbors.

    References
    ----------
    Patella and Ciaccia (2008), The many facets of approximate similarity search: of the ratio's
    inverse, without missing neighbors.

    Examples
    --------
    >>> distance_ratio([[1.0, 2.0, 3.0]], [[1.0, 4.0, np.inf]])
    array([0.5])
    """
    pair = checked_pair(checked_distances, "distances", exact_distances, ann_distances)
    return distance_ratios(*pair)


def lid(distances: ArrayLike) -> np.ndarray:
    """Local intrinsic dimensionality, the maximum likelihood estimate without its bias.

    Over the p positive distances r_1 <= ... <= r_m returned it is -(p - 2) over the sum of
    ln(r_i / r_m). Levina and Bickel (2005) have p - 1 in place of p - 2, on average too much by
    (p - 1) / (p - 2), as MacKay and Ghahramani (2005) show: 12 % at k = 10.

    Distances (Q, k) are ascending Euclidean ones, not squared, without the query itself. NaN with
    fewer than three positive ones, or when those are all equal but for one part in a million.

    References
    ----------
    Levina and Bickel (2005), Maximum likelihood estimation of intrinsic dimension.
    MacKay and Ghahramani (2005), Comments on "Maximum likelihood estimation of intrinsic dimension"
    by E. Levina and P. Bickel.
    Amsaleg et al. (2015), Estimating local intrinsic dimensionality.

    Examples
    --------
    >>> lid([[0.25, 0.5, 1.0]]).round(3)  # -1 / (ln(1/4) + ln(1/2) + ln(1))
    array([0.481])
    """
    return lids(checked_distances(distances))[0, 0]


def occurrences(indices: ArrayLike, n: int) -> np.ndarray:
    """How many of the lists each of `n` rows is in: (Q, k) ids to int64 (n,).

    Examples
    --------
    >>> occurrences([[1, 2], [2, 0]], n=4)
    array([1, 1, 2, 0])
    """
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


def compute_metrics(
    exact_indices: ArrayLike,
    exact_distances: ArrayLike,
    ann: Mapping[int, tuple[ArrayLike, ArrayLike]],
    embeddings: np.ndarray,
    queries: np.ndarray | None = None,
    norms: np.ndarray | None = None,
    threads: int = 1,
    reported: Mapping[int, ArrayLike] | None = None,
    metrics: Sequence["Metric"] = (),
) -> dict[str, np.ndarray]:
    """All of `METRICS`, for lists of G lengths in one pass; by name float64 (G, Q).

    Overlap, recall, the share found and the barycenter shift are of the lists as they are. Where
    those contain the query itself, distances, `distance_ratio` and LID leave it out by its id.

    Parameters
    ----------
    exact_indices, exact_distances : array_like of int and of float, shape (Q, K)
        Rows of `embeddings` and their Euclidean distances; a list of length k is the first k.
    ann : mapping of int to (array_like of int, array_like of float), shape (Q, k) each
        For each length k <= K, ascending, ids and distances that the index returned.
    embeddings : ndarray of float, shape (N, d)
        The vectors; a memory map will do.
    queries : ndarray of int, shape (Q,), optional
        Ids of the queries, to leave them out; None where they have no id among the rows.
    norms : ndarray of float, shape (N,), optional
        Norms of the vectors, where the exact distances were expanded in float32. Recall then
        forgives what rounding can have done to r_k (`drift.vectors.expansion_noise`), and distances
        within the rounding of 0 count as 0 in `distance_ratio` and LID, on both sides.
    threads : int
        Blocks of queries that are worked on at a time. The results do not depend on it.
    reported : mapping of int to array_like of float, shape (Q, k), optional
        For each length the distances as an index of compressed vectors reported them: Euclidean,
        ascending, without the query's own.
    metrics : sequence of Metric, optional
        In place of `METRICS`.

    Raises
    ------
    InputError
        When shapes do not fit each other, or a row holds what cannot be, an id twice for instance.
    """
    metrics = metrics or METRICS
    exact = as_ids(exact_indices, "exact ids"), as_distances(exact_distances)
    own = [checked_distances(side, "reported distances") for side in (reported or {}).values()]
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

    def block_metrics(block: tuple[int, int]) -> list[np.ndarray]:
        rows = slice(*block)
        left_out = None if queries is None else np.asarray(queries)[rows]
        lists = []
        for name, _, side in sides:
            ids, distances = (array[rows] for array in side)
            refuse_faulty_lists(ids, distances, name, len(embeddings), first_row=rows.start)
            ids = ids.astype(np.int64, copy=False)
            lists.append(without_queries(left_out, ids, distances, norms, embeddings.shape[1]))
        both = Neighborhoods(lists[0], lists[1:], embeddings, [side[rows] for side in own])
        return [both.shared(metric.function) for metric in metrics]

    with ThreadPoolExecutor(threads) as pool:
        parts = pool.map(block_metrics, query_blocks(exact[0], embeddings, threads))
        columns = [np.hstack(of_blocks) for of_blocks in zip(*parts, strict=True)]
    return {metric.name: column for metric, column in zip(metrics, columns, strict=True)}


class Metric(NamedTuple):
    """A column of ``05_per_query.parquet``, what it says of a query, and its function.

    Functions are from `Neighborhoods` to float64 (G, Q).
    """

    name: str
    description: str
    function: Callable[[Neighborhoods], np.ndarray]


def as_metrics(descriptions: Mapping[Callable, str]) -> tuple[Metric, ...]:
    """Metrics that have their functions' names."""
    return tuple(
        Metric(function.__name__, text, function) for function, text in descriptions.items()
    )


# A column has its function's name.
DESCRIPTIONS = {
    Neighborhoods.overlap: "share of the exact k neighbors that the index returned",
    Neighborhoods.recall: "share of neighbors returned no farther than the exact k-th (ties count)",
    Neighborhoods.found: "neighbors returned, over k",
    Neighborhoods.mean_distance_exact: "mean distance to the exact neighbors",
    Neighborhoods.mean_distance_ann: "mean distance to the neighbors returned",
    Neighborhoods.kth_distance_exact: "distance to the k-th exact neighbor",
    Neighborhoods.kth_distance_ann: "distance to the last neighbor returned",
    Neighborhoods.distance_ratio: "exact over returned distance, mean over ranks (missing: 0)",
    Neighborhoods.barycenter_shift: "distance between the barycenters of the two neighborhoods",
    Neighborhoods.barycenter_shift_relative: (
        "barycenter shift over the distance to the k-th exact neighbor"
    ),
    Neighborhoods.lid_exact: "local intrinsic dimensionality from the exact distances",
    Neighborhoods.lid_ann: "local intrinsic dimensionality from the distances returned",
    Neighborhoods.lid_difference: "LID with the index minus exact LID",
    Neighborhoods.lid_exact_cut: "LID of the exact distances, as many as the index returned",
    Neighborhoods.lid_inverse_exact: "unbiased estimate of 1 / LID, exact",
    Neighborhoods.lid_inverse_ann: "unbiased estimate of 1 / LID from the distances returned",
}
METRICS = as_metrics(DESCRIPTIONS)
REPORTED_METRICS = as_metrics({
    Neighborhoods.lid_reported: "local intrinsic dimensionality from the distances as reported",
    Neighborhoods.mean_distance_reported: "mean distance as reported",
    Neighborhoods.kth_distance_reported: "distance to the last neighbor as reported",
    Neighborhoods.lid_inverse_reported: "unbiased estimate of 1 / LID as reported",
})  # fmt: skip
