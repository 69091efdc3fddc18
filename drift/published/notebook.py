"""The notebook's protocol: its neighbor lists, its metrics, and the curve it published.

Cooper, SimilarityDriftInImageEmbeddings (cooper-rm on GitHub): 10,000 images of STL-10, ResNet-50,
FAISS HNSW with efSearch 50, k = 10 .. 250, with the query in its own list.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from drift.metrics import as_metrics
from drift.neighborhoods import Neighborhoods
from drift.published.paper import lid_paper


def kth_squared_distance_exact(lists: Neighborhoods) -> np.ndarray:
    return np.stack([_squared(lists.exact.distances[:, k - 1]) for k in lists.ks])


def kth_squared_distance_ann(lists: Neighborhoods) -> np.ndarray:
    return np.stack([_squared(ann.distances[:, -1]) for ann in lists.ann])


def lid_notebook_exact(lists: Neighborhoods) -> np.ndarray:
    return np.stack([lid_notebook(lists.exact.distances[:, :k]) for k in lists.ks])


def lid_notebook_ann(lists: Neighborhoods) -> np.ndarray:
    return np.stack([lid_notebook(ann.distances) for ann in lists.ann])


# Of lists that include the query itself; NaN where a row came back short.
METRICS = as_metrics({
    kth_squared_distance_exact: "squared distance to the k-th exact neighbor",
    kth_squared_distance_ann: "squared distance to the k-th neighbor returned",
    lid_notebook_exact: "LID as the notebook computed it, exact",
    lid_notebook_ann: "LID as the notebook computed it, with the index",
})  # fmt: skip


def lid_notebook(distances: np.ndarray) -> np.ndarray:
    """The paper's LID of ascending Euclidean distances (Q, k), with the query in its own list.

    NaN where a neighbor is missing. Kept to reproduce the published curve, not to be used: the self
    match alone adds ln(1e-12) = -27.6 to the sum of the formula, and squares halve the value.
    """
    return lid_paper(_squared(distances))


def _squared(distances: np.ndarray) -> np.ndarray:
    """Squares in float64, NaN for what is missing."""
    squared = distances.astype(np.float64) ** 2
    return np.where(np.isfinite(squared), squared, np.nan)


def curve() -> pd.DataFrame:
    """The published curve: ``k`` and the names of the metrics, with ``overlap_std`` beside them.

    From k = 170 on the squared distance to the k-th neighbor returned is infinite: some neighbors
    were missing.
    """
    return pd.read_csv(Path(__file__).with_name("notebook.csv"))
