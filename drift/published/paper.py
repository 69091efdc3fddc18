"""The paper's metrics, by its own arithmetic, and the curves that it published.

Cooper and Busch, Capacity-Limited Failure in ANN Search on Image Embedding Spaces, J. Imaging 12:55
(2026), doi 10.3390/jimaging12020055, with the raw results of its repository
NeighbourhoodDriftInImageEmbeddings (cooper-rm on GitHub): ten samples of 10,000 images of STL-10,
ResNet-50, FAISS HNSW, k = 10 .. 500, with the first of k + 1 neighbors dropped.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from drift.metrics import Metric
from drift.neighborhoods import Neighborhoods

# What FAISS writes for the squared distance of a neighbor that is missing.
MISSING = np.finfo(np.float32).max


def measure(lists: Neighborhoods) -> np.ndarray:
    """The paper's numbers, float64 (5, G, Q), by float32 arithmetic as in its code.

    A missing neighbor is at a squared distance of 3.4e38. In the mean over a row it stays finite
    when it is the only one, and overflows when there are two; rows without a finite mean on both
    sides are left out of both, as NaN. For the barycenter it is the last row of the embeddings. An
    LID can be infinite.
    """
    exact = _squared(lists.exact.distances)
    centers = zip(
        barycenters(lists.embeddings, [lists.exact.ids[:, :k] for k in lists.ks]),
        barycenters(lists.embeddings, [ann.ids for ann in lists.ann]),
        strict=True,
    )
    columns = []
    for k, ann, (center, center_ann) in zip(lists.ks, lists.ann, centers, strict=True):
        sides = exact[:, :k], _squared(ann.distances)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            means = np.stack([side.mean(axis=1) for side in sides])
            shift = np.linalg.norm(center - center_ann, axis=1) / means[0]
        kept = np.isfinite(means).all(axis=0)
        shift = np.where(means[0] > 0, shift, 0)
        columns.append([*np.where(kept, means, np.nan), shift, *map(lid_paper, sides)])
    return np.array(columns, np.float64).transpose(1, 0, 2)


def _measured(i: int, lists: Neighborhoods) -> np.ndarray:
    return lists.shared(measure)[i]


_DESCRIPTIONS = {
    "mean_squared_distance_exact": "mean squared distance, exact, as the paper has it",
    "mean_squared_distance_ann": "mean squared distance returned, as the paper has it",
    "barycenter_shift_paper": "barycenter shift over the mean exact squared distance",
    "lid_paper_exact": "LID as the paper computed it, exact",
    "lid_paper_ann": "LID as the paper computed it, with the index",
}
METRICS = tuple(
    Metric(name, text, partial(_measured, i))
    for i, (name, text) in enumerate(_DESCRIPTIONS.items())
)


def barycenters(embeddings: np.ndarray, lists: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Means of the rows in each list, added up in float32 in the order of the list, (Q, d).

    `lists` (Q, k) are of rows of float32 embeddings (N, d), for ascending k; -1 is the last one,
    as for Python.
    """
    (n, d), former = embeddings.shape, lists[0][:, :0]
    sums = np.zeros((len(former), d), np.float32)
    for ids in lists:
        rows, start = np.where(ids < 0, n - 1, ids), former.shape[1]
        # Most lists begin with the shorter one, whose sums are known.
        differs = (rows[:, :start] != former).any(axis=1)
        again = np.zeros((differs.sum(), d), np.float32)
        for column in rows[differs, :start].T:
            again += embeddings[column]
        sums[differs] = again
        for column in rows[:, start:].T:
            sums += embeddings[column]
        former = rows
        yield sums / np.float32(ids.shape[1])


def lid_paper(squared: np.ndarray) -> np.ndarray:
    """LID as the paper computed it, from ascending squared distances s, (Q, k), in their precision.

    It is -1 over the mean of ln(s_i / (s_k + 1e-12) + 1e-12), i = 1 .. k - 1, half of what the
    distances themselves give. A missing neighbor, far beyond all others, makes it a small number.
    Infinite where all are equal, NaN with k = 1.
    """
    if squared.shape[1] < 2:
        return np.full(len(squared), np.nan, squared.dtype)
    tiny = squared.dtype.type(1e-12)
    with np.errstate(divide="ignore"):
        return -1 / np.log(squared[:, :-1] / (squared[:, -1:] + tiny) + tiny).mean(axis=1)


def _squared(distances: np.ndarray) -> np.ndarray:
    """Squares in float32, with FAISS's value for what is missing."""
    squared = np.square(distances, dtype=np.float32)
    squared[np.isinf(squared)] = MISSING
    return squared


def curves() -> pd.DataFrame:
    """The published curves: mean and standard deviation over the ten samples.

    ``study`` (``ef_search``, ``ef_construction``, ``alpha``), ``value``, ``k``, ``subsets``,
    ``subsets_padded`` (samples whose mean distance contains FAISS's value for a missing neighbor),
    and a column with another ``_sd`` for each of ``overlap`` and `METRICS`.
    """
    return pd.read_csv(Path(__file__).with_name("paper.csv"))


def jumps() -> pd.DataFrame:
    """The first jump of the mean distance in each of the hundred runs that have one.

    ``study``, ``value``, ``subset`` (sample), ``k``, ``mean_squared_distance_ann``,
    ``rows_short_by_one`` (that mean times 10,000 k over FAISS's value for a missing neighbor),
    ``overlap``, ``lid_of_squares_ann`` and ``lid_of_squares_exact``.
    """
    return pd.read_csv(Path(__file__).with_name("paper_jumps.csv"))
