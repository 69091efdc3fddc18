"""The lists of some queries side by side, and the formulas of the distances in them.

What `drift.metrics` computes, for lists of all lengths in one pass. Nothing is checked here.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np

from drift.set_differences import SetDifference, barycenter_shifts, set_differences
from drift.vectors import expansion_noise

# Distances that differ by no more than this share are equal up to rounding.
EQUAL = 1e-6


class Lists(NamedTuple):
    """Lists of some queries, (Q, k) each, and their distances without the queries' own."""

    ids: np.ndarray
    distances: np.ndarray
    others: np.ndarray  # the distances, NaN in the place of the query
    spread: np.ndarray  # the same, 0 where rounding hides whether they are 0
    noise: np.ndarray  # rounding error of the squares of the distances


class Neighborhoods:
    """The exact lists of some queries and, for each of G lengths `ks`, those of an index.

    `exact` are `Lists` of the largest k, `ann` those of each k, ascending; `reported` are the
    distances of each k as the index reported them. Methods without arguments are metrics, (G, Q).
    """

    def __init__(
        self,
        exact: Lists,
        ann: Sequence[Lists],
        embeddings: np.ndarray,
        reported: Sequence[np.ndarray] = (),
    ):
        self.exact, self.ann, self.embeddings, self.reported = exact, ann, embeddings, reported
        self.ks = [lists.ids.shape[1] for lists in ann]
        self._shared: dict[Callable, np.ndarray] = {}

    def shared(self, function: Callable[[Self], np.ndarray]) -> np.ndarray:
        """A metric, or anything that several of them need, computed once."""
        if function not in self._shared:
            self._shared[function] = function(self)
        return self._shared[function]

    @cached_property
    def steps(self) -> list[SetDifference]:
        """How the two sets of neighbors differ, from one length to the next."""
        ids = [lists.ids for lists in self.ann]
        return list(set_differences(self.exact.ids, ids, len(self.embeddings)))

    def overlap(self) -> np.ndarray:
        return np.stack([step.common / k for k, step in zip(self.ks, self.steps, strict=True)])

    def recall(self) -> np.ndarray:
        pairs = zip(self.ks, self.ann, strict=True)
        exact, noise = self.exact.distances, self.exact.noise
        near = [recalls(exact[:, :k], ann.distances, noise[:, k - 1]) for k, ann in pairs]
        # The exact neighbors themselves are near enough, whatever rounding made of them.
        return np.maximum(np.stack(near), self.shared(Neighborhoods.overlap))

    def found(self) -> np.ndarray:
        return np.stack([step.returned / k for k, step in zip(self.ks, self.steps, strict=True)])

    def mean_distance_exact(self) -> np.ndarray:
        return mean_distances(self.exact.others, self.ks)

    def mean_distance_ann(self) -> np.ndarray:
        return _of_each(mean_distances, (ann.others for ann in self.ann))

    def kth_distance_exact(self) -> np.ndarray:
        return kth_distances(self.exact.others, self.ks)

    def kth_distance_ann(self) -> np.ndarray:
        return _of_each(kth_distances, (ann.others for ann in self.ann))

    def distance_ratio(self) -> np.ndarray:
        pairs = zip(self.ks, self.ann, strict=True)
        return np.stack([distance_ratios(self.exact.spread[:, :k], ann.spread) for k, ann in pairs])

    def barycenter_shift(self) -> np.ndarray:
        return barycenter_shifts(self.steps, self.embeddings)

    def barycenter_shift_relative(self) -> np.ndarray:
        shift = self.shared(Neighborhoods.barycenter_shift)
        radius = self.shared(Neighborhoods.kth_distance_exact)
        return np.divide(shift, radius, out=np.full(shift.shape, np.nan), where=radius > 0)

    @cached_property
    def lids_exact(self) -> np.ndarray:
        return lids(self.exact.spread, self.ks)

    @cached_property
    def lids_ann(self) -> np.ndarray:
        return _of_each(lids, (ann.spread for ann in self.ann))

    def lid_exact(self) -> np.ndarray:
        return self.lids_exact[:, 0]

    def lid_ann(self) -> np.ndarray:
        return self.lids_ann[:, 0]

    def lid_difference(self) -> np.ndarray:
        return self.lids_ann[:, 0] - self.lids_exact[:, 0]

    def lid_exact_cut(self) -> np.ndarray:
        cut = self.lids_exact[:, 0].copy()
        for i, (k, ann) in enumerate(zip(self.ks, self.ann, strict=True)):
            exact, returned = _without_gaps(self.exact.spread[:, :k]), np.isfinite(ann.others)
            m = returned.sum(axis=1)
            short = m < np.isfinite(exact).sum(axis=1)
            first = np.arange(k) < m[short, None]
            cut[i, short] = lids(np.where(first, exact[short], np.inf))[0, 0]
        return cut

    def lid_inverse_exact(self) -> np.ndarray:
        return self.lids_exact[:, 1]

    def lid_inverse_ann(self) -> np.ndarray:
        return self.lids_ann[:, 1]

    def lid_reported(self) -> np.ndarray:
        return _of_each(lids, self.reported)[:, 0]

    def lid_inverse_reported(self) -> np.ndarray:
        return _of_each(lids, self.reported)[:, 1]

    def mean_distance_reported(self) -> np.ndarray:
        return _of_each(mean_distances, self.reported)

    def kth_distance_reported(self) -> np.ndarray:
        return _of_each(kth_distances, self.reported)


def without_queries(
    queries: np.ndarray | None,
    ids: np.ndarray,
    distances: np.ndarray,
    norms: np.ndarray | None,
    d: int,
) -> Lists:
    """Lists of which the queries are left out by their ids."""
    others = distances
    if queries is not None and (own := ids == queries[:, None]).any():
        others = np.where(own, np.nan, distances)
    if norms is None:
        return Lists(ids, distances, others, others, np.broadcast_to(0.0, ids.shape))
    # Of a query that is no row, |x| <= |y| + r.
    norm = norms[ids] + distances if queries is None else norms[queries][:, None]
    noise = np.where(ids < 0, 0, expansion_noise(d) * (norm + norms[ids]) ** 2)
    spread = np.where(np.square(others, dtype=np.float64) <= noise, 0, others)
    return Lists(ids, distances, others, spread, noise)


# Distances ascend, +inf where a neighbor is missing, NaN where one is left out. For
# lengths `ks`, each the first k columns of (Q, K), results are (G, Q); without, of all columns.


def recalls(exact: np.ndarray, ann: np.ndarray, noise: np.ndarray | float = 0.0) -> np.ndarray:
    """`recall`, where the squares of the exact k-th distances may be too small by some noise."""
    # What float32 makes of one distance, or what coarser distances can tell apart.
    tolerance = max(1e-6, *(np.finfo(side.dtype).eps for side in (exact, ann)))
    radius = np.sqrt((exact[:, -1].astype(np.float64) * (1 + tolerance)) ** 2 + noise)
    return (np.isfinite(ann) & (ann <= radius[:, None])).mean(axis=1)


def mean_distances(distances: np.ndarray, ks: Sequence[int] | None = None) -> np.ndarray:
    """`mean_distance` of the first k, for each k."""
    returned = np.isfinite(distances)
    with np.errstate(invalid="ignore"):
        total = _of_first(np.add, np.where(returned, distances, 0), ks)
        return total / _of_first(np.add, returned, ks)


def kth_distances(distances: np.ndarray, ks: Sequence[int] | None = None) -> np.ndarray:
    """`kth_distance` of the first k, for each k."""
    last = _of_first(np.maximum, np.where(np.isfinite(distances), distances, -1), ks)
    return np.where(last < 0, np.nan, last)


def distance_ratios(exact: np.ndarray, ann: np.ndarray) -> np.ndarray:
    exact, ann = _without_gaps(exact), _without_gaps(ann)
    count = np.isfinite(exact).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.minimum(np.divide(exact, ann, dtype=np.float64), 1)
        terms[ann == 0] = 1
        terms[np.arange(ann.shape[1]) >= count[:, None]] = 0
        return terms.sum(axis=1) / count


def lids(distances: np.ndarray, ks: Sequence[int] | None = None) -> np.ndarray:
    """`lid` of the first k, for each k, and the unbiased estimate of 1 / LID; (G, 2, Q)."""
    used = np.isfinite(distances) & (distances > 0)
    # In units of the row's last distance the logarithms are small, and so is their rounding.
    unit = np.max(distances, axis=1, where=used, initial=0, keepdims=True).astype(np.float64)
    logs = np.zeros(distances.shape)
    np.divide(distances, unit, out=logs, where=used)
    np.log(logs, out=logs, where=used)
    last = _of_first(np.maximum, np.where(used, logs, -np.inf), ks)
    count = _of_first(np.add, used, ks)
    # Distances that are equal up to rounding have no dimension.
    varied = (count > 2) & (last - logs.min(axis=1) > np.log1p(EQUAL))
    with np.errstate(invalid="ignore"):
        total = np.where(varied, _of_first(np.add, logs, ks) - count * last, np.nan)
        return np.stack([(2 - count) / total, total / (1 - count)], axis=1)


def _of_each(function: Callable, of_lengths: Iterable[np.ndarray]) -> np.ndarray:
    return np.stack([function(distances)[0] for distances in of_lengths])


def _of_first(ufunc: np.ufunc, values: np.ndarray, ks: Sequence[int] | None) -> np.ndarray:
    """Sum or maximum of the first k values of each row, for each k, in float64."""
    ks = ks or [values.shape[1]]
    parts = ufunc.reduceat(values[:, : ks[-1]], [0, *ks[:-1]], axis=1, dtype=np.float64)
    return ufunc.accumulate(parts, axis=1).T


def _without_gaps(distances: np.ndarray) -> np.ndarray:
    """The same with no gap where a neighbor is left out; its place at the end counts as missing."""
    if not np.isnan(distances).any():
        return distances
    distances = np.sort(distances, axis=1)
    return np.where(np.isnan(distances), np.inf, distances)
