"""Neighborhoods as an index reports them that computes distances from compressed vectors.

What such an index returns is off in two ways: it loses neighbors, and the distances that it gives
are not those of the ids beside them.
"""

from collections.abc import Mapping

import numpy as np

from drift.metrics import Metric, kth_distance, lid, mean_distance

METRICS = (
    Metric("lid_reported", "local intrinsic dimensionality from the distances as reported"),
    Metric("mean_distance_reported", "mean distance as reported"),
    Metric("kth_distance_reported", "distance to the last neighbor as reported"),
)


def compute_metrics(reported: Mapping[int, np.ndarray]) -> dict[str, np.ndarray]:
    """All of `METRICS`, for reported distances of G lengths.

    Parameters
    ----------
    reported : mapping of int to ndarray of float, shape (Q, k)
        For each length the distances as the index reported them: Euclidean, ascending, without the
        query's own; +inf where a neighbor is missing.

    Returns
    -------
    dict of ndarray of float64, shape (G, Q)
        In the order of `METRICS`.
    """
    functions = (lid, mean_distance, kth_distance)
    return {
        metric.name: np.stack([function(distances) for distances in reported.values()])
        for metric, function in zip(METRICS, functions, strict=True)
    }
