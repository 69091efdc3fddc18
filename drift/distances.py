"""What distances say of neighborhoods, for lists that grow: the formulas of `drift.metrics`.

Arrays of distances have a row for each query, ascending, +inf where a neighbor is missing and NaN
where one is left out. `ks` are lengths of lists, G of them, each the first k columns. Results are
float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from drift.vectors import expansion_noise


@dataclass(frozen=True)
class Neighborhoods:
    """A block of lists as they are, and their distances without the query's own.

    Attributes
    ----------
    ids, distances : ndarray, shape (Q, k)
        The lists as they are.
    others : ndarray of float, shape (Q, k)
        The distances, NaN in the place of the query itself.
    spread : ndarray of float, shape (Q, k)
        The same, 0 where rounding hides whether they are 0.
    noise : ndarray of float64, shape (Q, k), or float
        Rounding error of their squares.
    """

    ids: np.ndarray
    distances: np.ndarray
    others: np.ndarray
    spread: np.ndarray
    noise: np.ndarray | float = 0.0

    @classmethod
    def leave_out(
        cls,
        queries: np.ndarray | None,
        ids: np.ndarray,
        distances: np.ndarray,
        norms: np.ndarray | None,
        d: int,
    ) -> "Neighborhoods":
        """Lists of which the queries are left out by their ids."""
        others = distances
        if queries is not None and (itself := ids == queries[:, None]).any():
            others = np.where(itself, np.nan, distances)
        if norms is None:
            return cls(ids, distances, others, others)
        # Of a query that is no row, |x| <= |y| + r.
        norm = norms[ids] + distances if queries is None else norms[queries][:, None]
        noise = np.where(ids < 0, 0, expansion_noise(d) * (norm + norms[ids]) ** 2)
        spread = np.where(np.square(others, dtype=np.float64) <= noise, 0, others)
        return cls(ids, distances, others, spread, noise)


def mean_distances(distances: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """Mean of the first k, for each k, (Q, K) to (G, Q); NaN where there is none."""
    returned = np.isfinite(distances)
    with np.errstate(invalid="ignore"):
        return _sums(np.where(returned, distances, 0), ks) / _sums(returned, ks)


def kth_distances(distances: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """The last of the first k, for each k, (Q, K) to (G, Q); NaN where there is none."""
    last = _last(np.isfinite(distances), ks)
    values = np.take_along_axis(distances, np.maximum(last, 0).T, axis=1).T
    return np.where(last >= 0, values, np.nan).astype(np.float64)


def recalls(
    exact: np.ndarray, lists: Sequence[np.ndarray], noise: np.ndarray | float = 0.0
) -> np.ndarray:
    """Share of each list's k that is no farther than the exact k-th: (Q, K) and (Q, k) to (G, Q).

    Parameters
    ----------
    noise : ndarray of float, shape (Q, K) or less
        By how much the squares of the exact distances may be too small.
    """
    noise = np.broadcast_to(noise, exact.shape)
    shares = []
    for ann in lists:
        k = ann.shape[1]
        # What float32 makes of one distance, or what coarser distances can tell apart.
        tolerance = max(1e-6, *(np.finfo(side.dtype).eps for side in (exact, ann)))
        radius = exact[:, k - 1].astype(np.float64) * (1 + tolerance)
        radius = np.sqrt(radius**2 + noise[:, k - 1])
        near = np.isfinite(ann) & (ann <= radius[:, None])
        shares.append(near.sum(axis=1) / k)
    return np.stack(shares)


def distance_ratios(exact: np.ndarray, lists: Sequence[np.ndarray]) -> np.ndarray:
    """Mean over ranks of the exact over the returned distance: (Q, K) and (Q, k) to (G, Q)."""
    counts = np.isfinite(exact).cumsum(axis=1)
    exact, ratios = _closed_up(exact), []
    for ann in map(_closed_up, lists):
        k = ann.shape[1]
        count = counts[:, k - 1]
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.minimum(np.divide(exact[:, :k], ann, dtype=np.float64), 1)
            terms[ann == 0] = 1
            terms[np.arange(k) >= count[:, None]] = 0
            ratios.append(terms.sum(axis=1) / count)
    return np.stack(ratios)


def lids(distances: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """`drift.metrics.lid` of the first k, for each k: (Q, K) to (G, Q)."""
    used = np.isfinite(distances) & (distances > 0)
    last, first = _last(used, ks), used.argmax(axis=1)
    rows = np.arange(len(distances))
    # In units of the row's last distance the logarithms are small, and so is their rounding.
    unit = distances[rows, np.maximum(_last(used, [distances.shape[1]])[0], 0)].astype(float)
    logs = np.zeros(distances.shape)
    np.divide(distances, unit[:, None], out=logs, where=used)
    np.log(logs, out=logs, where=used)
    estimates = np.full((len(ks), len(distances)), np.nan)
    for i, (count, total) in enumerate(zip(_sums(used, ks), _sums(logs, ks), strict=True)):
        varied = (count > 2) & (distances[rows, first] < distances[rows, last[i]])
        total = total - count * logs[rows, last[i]]
        estimates[i, varied] = -(count[varied] - 2) / total[varied]
    return estimates


def _sums(values: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """Sums of the first k values of each row, for each k: (Q, K) to float64 (G, Q)."""
    parts = np.add.reduceat(values[:, : ks[-1]], [0, *ks[:-1]], axis=1, dtype=np.float64)
    return parts.cumsum(axis=1).T


def _last(chosen: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """Column of the last that is chosen among the first k, -1 without any: (Q, K) to (G, Q)."""
    columns = np.where(chosen[:, : ks[-1]], np.arange(ks[-1], dtype=np.int32), np.int32(-1))
    parts = np.maximum.reduceat(columns, [0, *ks[:-1]], axis=1)
    return np.maximum.accumulate(parts, axis=1).T


def _closed_up(distances: np.ndarray) -> np.ndarray:
    """The same with no gap where a neighbor is left out; its place at the end counts as missing."""
    if not np.isnan(distances).any():
        return distances
    distances = np.sort(distances, axis=1)
    distances[np.isnan(distances)] = np.inf
    return distances
