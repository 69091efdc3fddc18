"""The paper's metrics, by its own arithmetic, and the curves that it published.

Cooper and Busch, Capacity-Limited Failure in ANN Search on Image Embedding Spaces, J. Imaging 12:55
(2026), doi 10.3390/jimaging12020055, with the raw results of its repository
NeighbourhoodDriftInImageEmbeddings (cooper-rm on GitHub): ten samples of 10,000 images of STL-10,
ResNet-50, FAISS HNSW, k = 10 .. 500, with the first of k + 1 neighbors dropped.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array

from drift.metrics import Metric
from drift.vectors import row_blocks

if TYPE_CHECKING:
    import pandas as pd

METRICS = (
    Metric("mean_squared_distance_exact", "mean squared distance, exact, as the paper has it"),
    Metric("mean_squared_distance_ann", "mean squared distance returned, as the paper has it"),
    Metric("barycenter_shift_paper", "barycenter shift over the mean exact squared distance"),
    Metric("lid_paper_exact", "LID as the paper computed it, exact"),
    Metric("lid_paper_ann", "LID as the paper computed it, with the index"),
)
# What FAISS writes for the squared distance of a neighbor that is missing.
MISSING = np.finfo(np.float32).max
# Barycenters of some queries, which stay in the processor's cache.
_BLOCK_BYTES = 1 << 19


def compute_metrics(
    exact: tuple[np.ndarray, np.ndarray],
    ann: Mapping[int, tuple[np.ndarray, np.ndarray]],
    embeddings: np.ndarray,
    threads: int = 1,
) -> dict[str, np.ndarray]:
    """All of `METRICS`, for lists of G lengths, in float32 as in the paper's code.

    A missing neighbor is at a squared distance of 3.4e38. In the mean over a row it stays finite
    when it is the only one, and overflows when there are two; rows without a finite mean on both
    sides are left out of both. For the barycenter it is the last row of the embeddings.

    Parameters
    ----------
    exact : (ndarray of int, ndarray of float), shape (Q, K) each
        Ids and Euclidean distances of the exact neighbors.
    ann : mapping of int to (ndarray of int, ndarray of float), shape (Q, k) each
        For each length k <= K ids and Euclidean distances that the index returned, -1 and infinite
        for a neighbor that is missing.
    embeddings : ndarray of float32, shape (N, d)
        The vectors.
    threads : int
        Blocks of queries that are worked on at a time.

    Returns
    -------
    dict of ndarray of float64, shape (G, Q)
        In the order of `METRICS`; NaN for a mean that is left out. An LID can be infinite.
    """
    blocks = row_blocks(len(exact[0]), 4 * embeddings.shape[1], _BLOCK_BYTES)

    def block_metrics(block: tuple[int, int]) -> dict[str, np.ndarray]:
        return _block_metrics(slice(*block), exact, ann, embeddings)

    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(block_metrics, blocks))
    return {metric.name: np.hstack([part[metric.name] for part in parts]) for metric in METRICS}


def barycenters(embeddings: np.ndarray, lists: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Means of the rows in each list, added up in float32 in the order of the list.

    Parameters
    ----------
    embeddings : ndarray of float32, shape (N, d)
        The vectors.
    lists : sequence of ndarray of int, shape (Q, k) each
        Rows, for ascending k; -1 is the last one, as for Python.

    Yields
    ------
    ndarray of float32, shape (Q, d)
    """
    (n, d), former = embeddings.shape, lists[0][:, :0]
    sums = np.zeros((len(former), d), np.float32)
    for ids in lists:
        k, start = ids.shape[1], former.shape[1]
        rows = np.where(ids < 0, n - 1, ids)
        # Most lists begin with the shorter one, whose sums are known.
        begins_alike = (rows[:, :start] == former).all(axis=1)
        longer = sums[begins_alike]
        for column in rows[begins_alike, start:].T:
            longer += embeddings[column]
        sums[begins_alike] = longer
        # A sparse product adds up the rows of the others in the same way.
        others = rows[~begins_alike]
        ones, starts = np.ones(others.size, np.float32), np.arange(0, others.size + 1, k)
        chosen = csr_array((ones, others.ravel(), starts), (len(others), n))
        sums[~begins_alike] = chosen @ embeddings
        former = rows
        yield sums / np.float32(k)


def lid_paper(squared: np.ndarray) -> np.ndarray:
    """LID as the paper computed it, from squared distances s.

    It is -1 over the mean of ln(s_i / (s_k + 1e-12) + 1e-12), i = 1 .. k - 1, half of what the
    distances themselves give. A missing neighbor, far beyond all others, makes it a small number.

    Parameters
    ----------
    squared : ndarray of float32, shape (Q, k)
        Ascending.

    Returns
    -------
    ndarray of float32, shape (Q,)
        Infinite where all are equal, NaN with k = 1.
    """
    if squared.shape[1] < 2:
        return np.full(len(squared), np.nan, np.float32)
    tiny = np.float32(1e-12)
    with np.errstate(divide="ignore"):
        return -1 / np.log(squared[:, :-1] / (squared[:, -1:] + tiny) + tiny).mean(axis=1)


def _squared(distances: np.ndarray) -> np.ndarray:
    """Squares in float32, with FAISS's value for what is missing."""
    squared = np.square(distances, dtype=np.float32)
    squared[np.isinf(squared)] = MISSING
    return squared


def _block_metrics(
    rows: slice,
    exact: tuple[np.ndarray, np.ndarray],
    ann: Mapping[int, tuple[np.ndarray, np.ndarray]],
    embeddings: np.ndarray,
) -> dict[str, np.ndarray]:
    """`compute_metrics` of a block of queries."""
    exact_ids, exact_squared = exact[0][rows], _squared(exact[1][rows])
    centers = zip(
        barycenters(embeddings, [exact_ids[:, :k] for k in ann]),
        barycenters(embeddings, [ids[rows] for ids, _ in ann.values()]),
        strict=True,
    )
    columns = []
    for (k, (_, distances)), (center, center_ann) in zip(ann.items(), centers, strict=True):
        sides = exact_squared[:, :k], _squared(distances[rows])
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            means = np.stack([side.mean(axis=1) for side in sides])
            shift = np.linalg.norm(center - center_ann, axis=1) / means[0]
        kept = np.isfinite(means).all(axis=0)
        shift = np.where(means[0] > 0, shift, 0)
        columns.append([*np.where(kept, means, np.nan), shift, *map(lid_paper, sides)])
    values = np.array(columns, np.float64).transpose(1, 0, 2)
    return {metric.name: value for metric, value in zip(METRICS, values, strict=True)}


def curves() -> "pd.DataFrame":
    """The published curves: mean and standard deviation over the ten samples.

    Returns
    -------
    DataFrame
        ``study`` (``ef_search``, ``ef_construction``, ``alpha``), ``value``, ``k``, ``subsets``,
        ``subsets_padded`` (samples whose mean distance contains FAISS's value for a missing
        neighbor), and a column with another ``_sd`` for each of ``overlap`` and `METRICS`.
    """
    return _read("paper.csv").rename(
        columns=lambda name: name.replace(
            "barycenter_shift_over_mean_squared_distance", "barycenter_shift_paper"
        ).replace("lid_of_squares", "lid_paper")
    )


def jumps() -> "pd.DataFrame":
    """The first jump of the mean distance in each of the hundred runs that have one.

    Returns
    -------
    DataFrame
        ``study``, ``value``, ``subset`` (sample), ``k``, ``mean_squared_distance_ann``,
        ``rows_short_by_one`` (that mean times 10,000 k over FAISS's value for a missing neighbor),
        ``overlap``, ``lid_of_squares_ann`` and ``lid_of_squares_exact``.
    """
    return _read("paper_jumps.csv")


def _read(name: str) -> "pd.DataFrame":
    import pandas as pd  # half a second that only stage 06 has to spend

    return pd.read_csv(Path(__file__).with_name(name))
