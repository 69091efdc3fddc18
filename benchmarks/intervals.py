"""How often the 95 % intervals of stage 05 hold the truth, where the truth is known.

    python benchmarks/intervals.py [--series 5000]

Prints for queries alone, and for queries in groups of one size and of several, how many of the
intervals of a mean hold it, for values that are normal and for values as skewed as losses are; what
they would be if the groups were ignored; and likewise the t interval of graphs, and of graphs and
queries together.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent.parent))

from drift.intervals import bootstrap_means, mean_intervals, sum_by_group
from drift.summaries import N_RESAMPLES, compare_families, summarize_graphs


def draw(shape: tuple[int, ...], skewed: bool, rng: np.random.Generator) -> np.ndarray:
    """Values of mean 0 and standard deviation 1; the skewed ones are log-normal, of skewness 6."""
    if not skewed:
        return rng.normal(size=shape)
    values = rng.lognormal(size=shape)
    return (values - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e)


def coverage(values: np.ndarray, groups: np.ndarray | None) -> float:
    """Share of series whose interval holds 0."""
    sums = sum_by_group(values, groups)
    low, high = mean_intervals(sums, bootstrap_means(sums, 0, N_RESAMPLES))
    return float(np.mean((low <= 0) & (high >= 0)))


def queries_alone(n_series: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame([
        {
            "queries": n_queries,
            "normal": coverage(draw((n_series, n_queries), False, rng), None),
            "skewed": coverage(draw((n_series, n_queries), True, rng), None),
        }
        for n_queries in (20, 49, 100, 300, 1000, 3000)
    ])  # fmt: skip


def queries_in_groups(n_series: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for n_groups in (5, 15, 30, 49, 50, 100, 200):
        row = {"groups": n_groups}
        for name, sizes in (
            ("10 in each", np.full(n_groups, 10)),
            ("5 to 15", rng.integers(5, 16, n_groups)),
            ("1 to 50", np.ceil(50 ** rng.uniform(size=n_groups)).astype(int)),
        ):
            groups = np.repeat(np.arange(n_groups), sizes)
            noise = rng.normal(size=(n_series, len(groups)))
            values = draw((n_series, n_groups), False, rng)[:, groups] + noise
            row[name] = coverage(values, groups)
            if name == "10 in each":
                row["ignored"] = coverage(values, None)
                skewed = draw((n_series, n_groups), True, rng)[:, groups] + noise
                row["skewed"] = coverage(skewed, groups)
        rows.append(row)
    return pd.DataFrame(rows)


def graphs(n_series: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    ks = np.arange(n_series)
    rows = []
    for n_graphs in (2, 3, 5, 10):
        row = {"graphs": n_graphs}
        queries = draw((n_series, 100), False, rng)
        effects = rng.normal(0, 0.01, (2, n_graphs, n_series, 1))
        families = [{seed: queries + side[seed] for seed in range(n_graphs)} for side in effects]
        table = compare_families(ks, *families, 0, n_resamples=2)
        row["difference"] = ((table["graphs_low"] <= 0) & (table["graphs_high"] >= 0)).mean()
        # The standard error over queries is 0.1.
        for ratio in (0.2, 1.0, 5.0):
            spread = 0.1 * ratio * np.sqrt(n_graphs)
            runs = [
                {"lid_difference": queries + rng.normal(0, spread, (n_series, 1))}
                for _ in range(n_graphs)
            ]
            table = summarize_graphs({"family": (ks, runs)})
            covered = (table["ci_low"] <= 0) & (table["ci_high"] >= 0)
            row[f"mean, graphs/queries {ratio}"] = covered.mean()
        rows.append(row)
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, default=5000)
    args = parser.parse_args()
    error = np.sqrt(0.95 * 0.05 / args.series)
    print(f"{args.series} series: the standard error of a coverage of 0.950 is {error:.4f}")
    for study in (queries_alone, queries_in_groups, graphs):
        table = study(args.series)
        print(f"\n{table.to_string(index=False, float_format=lambda share: f'{share:.3f}')}")


if __name__ == "__main__":
    main()
