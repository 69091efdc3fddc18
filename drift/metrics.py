"""How the neighborhoods of an approximate index differ from the exact ones.

Every function takes neighbor lists, arrays with a row for each query and a column for each neighbor
in ascending order of distance, from whatever system they come. A neighbor that a system failed to
return is id -1 at distance +inf, at the end of its row. Results are float64, one value for each
query.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats
import torch

from drift.blocks import row_blocks
from drift.neighborhoods import STEPS_BUDGET, Step, steps
from drift.neighborhoods import neighborhood_overlap as neighborhood_overlap
from drift.vectors import center


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
    ann: Mapping[int, tuple[np.ndarray, np.ndarray]],
    embeddings: np.ndarray,
) -> dict[str, np.ndarray]:
    """All of `METRICS`, for lists of G lengths in one pass.

    Parameters
    ----------
    exact_indices : ndarray of int, shape (Q, K)
        Ids of the exact neighbors, rows of `embeddings`; the exact list of length k is the first k.
    exact_distances : ndarray of float, shape (Q, K)
        Their Euclidean distances.
    ann : mapping of int to (ndarray of int, ndarray of float), shape (Q, k) each
        For each length k <= K, ascending, ids and distances that the index returned.
    embeddings : ndarray of float32, shape (N, d)
        The vectors. The barycenter shift is the norm of float32 sums of them, good to about 1e-7
        of their distance from the origin: give `drift.vectors.center` of them.

    Returns
    -------
    dict of ndarray of float64, shape (G, Q)
        In the order of `METRICS`.
    """
    ks = list(ann)
    common, shift = _compare(exact_indices, [ids for ids, _ in ann.values()], embeddings)
    kth_exact = exact_distances[:, np.array(ks) - 1].T.astype(np.float64)
    lid_exact = _lids(exact_distances, ks)
    lid_ann = np.stack([lid(distances) for _, distances in ann.values()])
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = shift / kth_exact
    return {
        "overlap": common / np.array(ks)[:, None],
        "recall": np.stack([recall(exact_distances[:, :k], ann[k][1]) for k in ks]),
        "found": np.stack([found(ids) for ids, _ in ann.values()]),
        "mean_distance_exact": _mean_distances(exact_distances, ks),
        "mean_distance_ann": np.stack([mean_distance(distances) for _, distances in ann.values()]),
        "kth_distance_exact": kth_exact,
        "kth_distance_ann": np.stack([kth_distance(distances) for _, distances in ann.values()]),
        "barycenter_shift": shift,
        "barycenter_shift_relative": np.where(np.isfinite(relative), relative, np.nan),
        "lid_exact": lid_exact,
        "lid_ann": lid_ann,
        "lid_difference": lid_ann - lid_exact,
    }


def measure_notebook(
    exact_distances: np.ndarray, ann: Mapping[int, tuple[np.ndarray, np.ndarray]]
) -> dict[str, np.ndarray]:
    """All of `NOTEBOOK_METRICS`, for lists that include the query itself; else as `measure`.

    A row that came back short has no k-th distance, and is NaN.
    """
    exact = [exact_distances[:, :k] for k in ann]
    returned = [distances for _, distances in ann.values()]
    kth_exact, kth_ann = (
        np.stack([distances[:, -1] for distances in side]).astype(np.float64)
        for side in (exact, returned)
    )
    return {
        "kth_squared_distance_exact": kth_exact**2,
        "kth_squared_distance_ann": np.where(np.isfinite(kth_ann), kth_ann, np.nan) ** 2,
        "lid_notebook_exact": np.stack([lid_notebook(distances) for distances in exact]),
        "lid_notebook_ann": np.stack([lid_notebook(distances) for distances in returned]),
    }


def recall(exact_distances: np.ndarray, ann_distances: np.ndarray) -> np.ndarray:
    """Share of k neighbors no farther than the exact k-th one, up to one part in a million.

    Distances of half precision are compared up to what they can tell apart. Unlike the overlap it
    does not ask which of several rows at the same distance was returned.

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
    both = exact_distances, ann_distances
    tolerance = max(1e-6, *(np.finfo(distances.dtype).eps for distances in both))
    radius = exact_distances[:, -1:].astype(np.float64) * (1 + tolerance)
    near = np.isfinite(ann_distances) & (ann_distances <= radius)
    return np.minimum(near.sum(axis=1), k) / k


def found(ann_indices: np.ndarray) -> np.ndarray:
    """Share of the k neighbors asked for that were returned; (Q, k) ids to (Q,) in 0 to 1."""
    return (ann_indices >= 0).mean(axis=1)


def mean_distance(distances: np.ndarray) -> np.ndarray:
    """Mean of the distances returned, (Q, k) to (Q,); NaN where there is none."""
    return _mean_distances(distances, [distances.shape[1]])[0]


def kth_distance(distances: np.ndarray) -> np.ndarray:
    """The last distance returned, the neighborhood's radius, (Q, k) to (Q,); NaN without any."""
    count = np.isfinite(distances).sum(axis=1)
    last = np.take_along_axis(distances, np.maximum(count - 1, 0)[:, None], axis=1)[:, 0]
    return np.where(count > 0, last, np.nan).astype(np.float64)


def barycenter_shift(
    embeddings: np.ndarray, exact_indices: np.ndarray, ann_indices: np.ndarray
) -> np.ndarray:
    """Distance between the mean of the exact neighbors and the mean of those that were returned.

    Parameters
    ----------
    embeddings : ndarray of float32, shape (N, d)
        The vectors. A centered copy is made of them: the shift is good to about 1e-7 of their
        distance from their mean.
    exact_indices, ann_indices : ndarray of int, shape (Q, k)
        Ids of the neighbors.

    Returns
    -------
    ndarray of float64, shape (Q,)
        In the unit of the embeddings; NaN where nothing was returned.
    """
    _, (shift,) = _compare(exact_indices, [ann_indices], center(embeddings))
    return shift


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
    return _lids(distances, [distances.shape[1]])[0]


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
    return np.bincount(indices.ravel() + 1, minlength=n + 1)[1:]


def hubness(counts: np.ndarray) -> float:
    """Skewness of the k-occurrence counts, (n,); 0 where all rows occur equally often.

    References
    ----------
    Radovanovic, Nanopoulos and Ivanovic (2010), Hubs in space.
    """
    return 0.0 if counts.min() == counts.max() else float(scipy.stats.skew(counts))


def orphans(counts: np.ndarray) -> float:
    """Share of rows that are in no list, from the k-occurrence counts, (n,)."""
    return float((counts == 0).mean())


def _compare(
    exact_indices: np.ndarray, ann_indices: Sequence[np.ndarray], embeddings: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Common neighbors and barycenter shift for lists of each length.

    Returns
    -------
    common : ndarray of int, shape (G, Q)
    shift : ndarray of float64, shape (G, Q)
        NaN where nothing was returned.
    """
    n, d = embeddings.shape
    shape = (len(ann_indices), len(exact_indices))
    common, shift = np.empty(shape, np.int64), np.empty(shape)
    bytes_per_row = n + 12 * d + 64 * exact_indices.shape[1]
    for start, stop in row_blocks(len(exact_indices), bytes_per_row, STEPS_BUDGET):
        exact, *lists = (ids[start:stop] for ids in (exact_indices, *ann_indices))
        shifts = _Shift(embeddings, exact, lists)
        for at, step in enumerate(steps(exact, lists, n)):
            common[at, start:stop] = step.common
            shift[at, start:stop] = shifts.after(step)
    return common, shift


class _Shift:
    """The barycenter shift of a block of queries, followed from one length of list to the next.

    With S_E and S_A the sums of the k exact and the m returned neighbors, the shift is the norm of
    S_E / k - S_A / m = (S_E - S_A) / m + S_E (1 / k - 1 / m). The second term is not 0 for the rows
    that came back short, and only for those S_E itself is kept. Where nothing is missing, no rows
    are read but those that are in one list and not in the other.
    """

    def __init__(self, embeddings: np.ndarray, exact: np.ndarray, lists: Sequence[np.ndarray]):
        self._vectors = torch.from_numpy(embeddings)
        self._short = np.flatnonzero(np.any([(ids < 0).any(axis=1) for ids in lists], axis=0))
        self._difference = torch.zeros(len(exact), embeddings.shape[1])
        self._exact = torch.zeros(len(self._short), embeddings.shape[1])

    def after(self, step: Step) -> np.ndarray:
        """The shift at the next length, float64 (Q,)."""
        weights = torch.from_numpy(step.change.data.astype(np.float32))
        indices, offsets = (
            torch.from_numpy(of) for of in (step.change.indices, step.change.indptr)
        )
        self._difference += torch.nn.functional.embedding_bag(
            indices, self._vectors, offsets[:-1], mode="sum", per_sample_weights=weights
        )
        m = torch.from_numpy(step.returned)
        shift = torch.linalg.vector_norm(self._difference, dim=1).double() / m
        if len(self._short):
            came = torch.from_numpy(step.came[self._short])
            self._exact += torch.nn.functional.embedding_bag(came, self._vectors, mode="sum")
            m = m[self._short, None]
            barycenters = self._difference[self._short] / m + self._exact * (1 / step.k - 1 / m)
            shift[self._short] = torch.linalg.vector_norm(barycenters, dim=1).double()
        shift = shift.numpy()
        # The sums of rows that came and went again are 0 only up to rounding.
        shift[step.common == step.k] = 0
        return np.where(step.returned > 0, shift, np.nan)


def _sums(values: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """Sums of the first k values of each row, for each k: (Q, K) to float64 (G, Q)."""
    parts = np.add.reduceat(values[:, : ks[-1]], [0, *ks[:-1]], axis=1, dtype=np.float64)
    return parts.cumsum(axis=1).T


def _mean_distances(distances: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """`mean_distance` of the first k, for each k: (Q, K) to (G, Q)."""
    there = np.isfinite(distances)
    with np.errstate(invalid="ignore"):
        return _sums(np.where(there, distances, 0), ks) / _sums(there, ks)


def _lids(distances: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """`lid` of the first k, for each k: (Q, K) to (G, Q)."""
    used = np.isfinite(distances) & (distances > 0)
    zeros = (distances == 0).sum(axis=1)
    # In units of the row's last distance the logarithms are small, and so is their rounding.
    unit = kth_distance(distances)[:, None]
    logs = np.zeros(distances.shape)
    np.divide(distances, unit, out=logs, where=used)
    np.log(logs, out=logs, where=used)
    lids = np.full((len(ks), len(distances)), np.nan)
    rows = np.arange(len(distances))
    for at, (k, count, total) in enumerate(zip(ks, _sums(used, ks), _sums(logs, ks), strict=True)):
        count = count.astype(int)
        first, last = (np.minimum(column, k - 1) for column in (zeros, zeros + count - 1))
        # r_m itself is among the used ones, adds ln 1 = 0 to the sum, and is not counted.
        varied = (count > 1) & (distances[rows, first] < distances[rows, last])
        total = total - count * logs[rows, last]
        lids[at, varied] = -(count[varied] - 1) / total[varied]
    return lids
