"""The notebook's protocol: its neighbor lists, its metrics, and the curve it published.

Cooper, SimilarityDriftInImageEmbeddings (cooper-rm on GitHub): 10,000 images of STL-10, ResNet-50,
FAISS HNSW with efSearch 50, k = 10 .. 250, with the query in its own list.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from drift.metrics import Metric

if TYPE_CHECKING:
    import pandas as pd

METRICS = (
    Metric("kth_squared_distance_exact", "squared distance to the k-th exact neighbor"),
    Metric("kth_squared_distance_ann", "squared distance to the k-th neighbor returned"),
    Metric("lid_notebook_exact", "LID as the notebook computed it, exact"),
    Metric("lid_notebook_ann", "LID as the notebook computed it, with the index"),
)


def compute_metrics(
    exact_distances: np.ndarray, ann: Mapping[int, tuple[np.ndarray, np.ndarray]]
) -> dict[str, np.ndarray]:
    """All of `METRICS`, for lists of G lengths that include the query itself.

    Parameters
    ----------
    exact_distances : ndarray of float, shape (Q, K)
        Euclidean distances of the exact neighbors.
    ann : mapping of int to (ndarray of int, ndarray of float), shape (Q, k) each
        For each length k <= K ids and distances that the index returned.

    Returns
    -------
    dict of ndarray of float64, shape (G, Q)
        In the order of `METRICS`; NaN where a row came back short, and has no k-th distance.
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


def curve() -> "pd.DataFrame":
    """The published curve.

    Returns
    -------
    DataFrame
        ``k`` and the names of the metrics, with ``overlap_std`` beside them. From k = 170 on the
        squared distance to the k-th neighbor returned is infinite: some neighbors were missing.
    """
    import pandas as pd  # here, since it takes half a second that only stage 06 has to spend

    return pd.read_csv(Path(__file__).with_name("notebook.csv"))
