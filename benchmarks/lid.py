"""LID against known dimensions: flat tori and spheres in 64 dimensions.

    python benchmarks/lid.py [--rows 20000] [--k 100]

Prints the mean estimate for each, that of scikit-dimension's MLE on the same distances, and the
truth. Above ten dimensions 20,000 points are few: a neighborhood of 100 is then so wide that it
feels the curvature and the edge of what a flat ball would hold, and any estimate falls short.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import skdim

sys.path.insert(0, str(Path(__file__).parent.parent))

from drift.exact import ExactSearch
from drift.metrics import lid

AMBIENT = 64


def torus(n: int, dim: int, rng: np.random.Generator) -> np.ndarray:
    """Uniform on a product of `dim` circles."""
    angles = rng.uniform(0, 2 * np.pi, (n, dim))
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)


def sphere(n: int, dim: int, rng: np.random.Generator) -> np.ndarray:
    """Uniform on the unit sphere of `dim` dimensions."""
    points = rng.normal(size=(n, dim + 1))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def embedded(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same points, turned at random in 64 dimensions; distances stay."""
    basis, _ = np.linalg.qr(rng.normal(size=(AMBIENT, points.shape[1])))
    return (points @ basis.T).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--k", type=int, default=100)
    args = parser.parse_args()
    rows = []
    for name, make in (("torus", torus), ("sphere", sphere)):
        for dim in (2, 5, 10, 20):
            rng = np.random.default_rng(0)
            x = embedded(make(args.rows, dim, rng), rng)
            found = ExactSearch(x).neighbors(np.arange(args.rows), args.k)
            ours = lid(found.distances)
            skdim_mle = skdim.id.MLE(unbiased=False)
            distances = found.distances.astype(np.float64)
            theirs = skdim_mle.fit_transform_pw(
                x, precomputed_knn_arrays=(distances, found.indices), n_neighbors=args.k
            )
            gap = np.abs(ours / theirs - 1).max()
            rows.append((name, dim, ours.mean(), np.mean(theirs), gap))
    columns = ["manifold", "dimension", "ours", "scikit-dimension", "largest relative gap"]
    table = pd.DataFrame(rows, columns=columns)
    print(f"{args.rows} points in {AMBIENT} dimensions, k = {args.k}")
    print(table.to_string(index=False, float_format=lambda value: f"{value:.4g}"))


if __name__ == "__main__":
    main()
