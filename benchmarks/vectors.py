"""Vectors to measure with."""

import numpy as np


def clustered(n: int, d: int, n_clusters: int = 100, spread: float = 0.5) -> np.ndarray:
    """Gaussian clusters with a decaying spectrum, all positive as pooled features are; float32."""
    rng = np.random.default_rng(0)
    scale = (1 + np.arange(d)) ** -0.5
    centers = rng.normal(size=(n_clusters, d)) * scale
    x = np.empty((n, d), np.float32)
    for start in range(0, n, 1000):
        stop = min(start + 1000, n)
        cluster = rng.integers(n_clusters, size=stop - start)
        x[start:stop] = centers[cluster] + spread * scale * rng.normal(size=(stop - start, d))
    return np.maximum(x + 0.1, 0, out=x)


def tight(n: int, d: int, n_clusters: int = 300, spread: float = 0.8) -> np.ndarray:
    """Gaussian clusters of few rows each, in which most distances are near ties; float32."""
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((n_clusters, d), np.float32)
    noise = rng.standard_normal((n, d), np.float32)
    return centers[rng.integers(n_clusters, size=n)] + np.float32(spread) * noise
