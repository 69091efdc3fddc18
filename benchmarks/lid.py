"""LID against known dimensions: uniform balls, and flat tori and spheres in 64 dimensions.

    python benchmarks/lid.py [--balls 100000] [--rows 20000] [--k 100]

Prints the mean estimate over many balls, each about a query at its center, so that no neighborhood
has an edge. It is the dimension within 1 %, as the number of balls makes it; Levina and Bickel's
estimate, with p - 1 in place of p - 2, would be 12.5 % too high at k = 10.

Then the mean estimate on tori and spheres, that of scikit-dimension's unbiased MLE on the same
distances, and the truth. Above ten dimensions 20,000 points are few: a neighborhood of 100 is then
so wide that it feels the curvature and the edge of what a flat ball would hold, and any estimate
falls short.
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
from drift.vectors import row_blocks

AMBIENT = 64
DIMENSIONS = (2, 5, 10, 20)


def ball_distances(
    balls: int, k: int, dim: int, rng: np.random.Generator, points: int
) -> np.ndarray:
    """Distances of the k nearest of points, uniform in a unit ball, from its center; (balls, k)."""
    directions = rng.normal(size=(balls, points, dim)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=2, keepdims=True)
    directions *= rng.uniform(size=(balls, points, 1)).astype(np.float32) ** (1 / dim)
    distances = np.linalg.norm(directions, axis=2)
    return np.sort(np.partition(distances, k - 1, axis=1)[:, :k], axis=1)


def mean_over_balls(balls: int, k: int, dim: int, seed: int = 0) -> tuple[float, float]:
    """Mean LID over balls, each with k points beyond its neighborhood, and its standard error."""
    rng = np.random.default_rng(seed)
    parts = row_blocks(balls, bytes_per_row=2 * k * dim * 16)
    estimates = np.concatenate(
        [lid(ball_distances(stop - start, k, dim, rng, points=2 * k)) for start, stop in parts]
    )
    return estimates.mean(), estimates.std() / balls**0.5


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
    parser.add_argument("--balls", type=int, default=100_000, help="at k = 10; fewer at longer k")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--k", type=int, default=100)
    args = parser.parse_args()
    rows = []
    for k in (10, 50, 250):
        balls = max(100, args.balls * 8 // (k - 2))
        for dim in DIMENSIONS:
            mean, error = mean_over_balls(balls, k, dim)
            rows.append((k, dim, balls, mean, f"{mean / dim - 1:+.2%}", f"{error / dim:.2%}"))
    columns = ["k", "dimension", "balls", "mean LID", "off by", "standard error"]
    table = pd.DataFrame(rows, columns=columns)
    print("uniform balls, from their centers")
    print(table.to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    rows = []
    for name, make in (("torus", torus), ("sphere", sphere)):
        for dim in DIMENSIONS:
            rng = np.random.default_rng(0)
            x = embedded(make(args.rows, dim, rng), rng)
            neighbors = ExactSearch(x).neighbors(np.arange(args.rows), args.k)
            ours = lid(neighbors.distances)
            skdim_mle = skdim.id.MLE(unbiased=True)
            distances = neighbors.distances.astype(np.float64)
            theirs = skdim_mle.fit_transform_pw(
                x, precomputed_knn_arrays=(distances, neighbors.indices), n_neighbors=args.k
            )
            gap = np.abs(ours / theirs - 1).max()
            rows.append((name, dim, ours.mean(), np.mean(theirs), gap))
    columns = ["manifold", "dimension", "ours", "scikit-dimension", "largest relative gap"]
    table = pd.DataFrame(rows, columns=columns)
    print(f"{args.rows} points in {AMBIENT} dimensions, k = {args.k}")
    print(table.to_string(index=False, float_format=lambda value: f"{value:.4g}"))


if __name__ == "__main__":
    main()
