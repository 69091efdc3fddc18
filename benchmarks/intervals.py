"""How often the 95 % intervals of stage 05 hold the truth, where the truth is known.

    python benchmarks/intervals.py [--series 2000]

Queries come in 2, 5 and 15 groups of 10, and in 1,000 of 2. What a group loses is normal (.1 with a
standard deviation of .03), skewed (.05 on average, of skewness 3.6), or rare (a half in 1 group of
20, nothing in the others); its queries lose half to one and a half times that. Prints the coverage
of the means of overlaps, of ratios of mean LIDs, of differences over three graphs of two indexes
that lose the same, of crossings of a curve that falls in proportion to k, and of shares of queries.

By 2,000 series, and beside them one last time the bootstrap whose place they took: of groups, by
percentiles of 1,000 resamples, of 1,000 such series (500 of 1,000 groups); of differences it knows
the queries and not the graphs.

                        t intervals          bootstrap
    groups                2    5   15 1000     2    5   15 1000
    mean       normal   .96  .96  .95  .95   .52  .83  .93  .93
    mean       skewed   .53  .64  .79  .94   .32  .59  .76  .95
    mean       rare     .09  .24  .52  .95   .10  .22  .52  .96
    ratio      normal   .95  .95  .95  .95   .52  .82  .92  .93
    ratio      skewed   .53  .64  .79  .94   .32  .60  .76  .95
    ratio      rare     .09  .24  .52  .95   .10  .22  .52  .96
    difference normal   .97  .97  .97  .93   .49  .81  .86  .56
    difference skewed   .97  .97  .97  .94   .24  .46  .63  .68
    difference rare     .96  .97  .97  .93   .06  .11  .28  .54
    crossing   normal   .97  .97  .98 1.00   .52  .83  .93  .94
    crossing   skewed   .53  .64  .79  .94   .32  .59  .77  .95
    crossing   rare     .09  .24  .52  .95   .10  .22  .52  .96
    share      normal   .96  .99  .98  .96   .80  .86  .93  .93
    share      skewed   .99 1.00 1.00  .94   .30  .64  .78  .94
    share      rare    1.00 1.00 1.00  .94   .10  .22  .52  .97

So t intervals hold what they say of what happens to all, and too few of what happens to few: that
is why the tables say in how many groups something differs.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent.parent))

from drift.by_use import estimate_share
from drift.intervals import crossing_interval, estimate_mean, estimate_ratio, mean_over_graphs

GROUPS = {2: 10, 5: 10, 15: 10, 1000: 2}  # and their sizes
MEANS = {"normal": 0.1, "skewed": 0.05, "rare": 0.025}
KS = np.arange(10, 410, 10)
TOLERANCE = 0.05  # crossed at k = 50, 100 and 200


def group_losses(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Shares lost, in 0 to 1, of the mean that `MEANS` says."""
    if kind == "normal":
        return np.clip(rng.normal(0.1, 0.03, shape), 0, 0.2)
    if kind == "skewed":
        return rng.beta(0.1, 1.9, shape)
    return 0.5 * (rng.uniform(size=shape) < 0.05)


def held(low: np.ndarray, high: np.ndarray, truth: float) -> float:
    """Share of the intervals that hold the truth, up to rounding."""
    return float(np.mean((low <= truth + 1e-12) & (high >= truth - 1e-12)))


def coverages(
    kind: str, n_groups: int, n_series: int, rng: np.random.Generator
) -> Iterator[tuple[str, float]]:
    """How often each interval holds the truth; by name."""
    groups = np.repeat(np.arange(n_groups), GROUPS[n_groups])
    of_groups, mean = group_losses(kind, (n_series, n_groups), rng)[:, groups], MEANS[kind]

    def lost() -> np.ndarray:
        return of_groups * rng.uniform(0.5, 1.5, of_groups.shape)

    loss = lost()
    overlap = estimate_mean(1 - loss, groups, bounds=(0, 1))
    yield "mean", held(*overlap[1:3], 1 - mean)

    lid = rng.lognormal(2.5, 0.3, loss.shape)
    yield "ratio", held(*estimate_ratio(lid * (1 - loss), lid, groups)[1:3], -mean)

    shifts = rng.normal(0, 0.003, (3, n_series, 1))
    difference, _ = mean_over_graphs((lost() - loss + shift for shift in shifts), groups)
    yield "difference", held(*difference.interval(), 0)

    losses = (1 - side[:, None] for side in (overlap[0], overlap[2], overlap[1]))
    curves = zip(*(loss * KS / 100 for loss in losses), strict=True)
    ends = [crossing_interval(KS, *curve, TOLERANCE)[1:] for curve in curves]
    # NaN: beyond the grid.
    yield "crossing", held(*np.nan_to_num(ends, nan=np.inf).T, 100 * TOLERANCE / mean)

    hit = (rng.uniform(size=loss.shape) < of_groups).astype(float)
    shares = [estimate_share(one, groups)[1:3] for one in hit]
    yield "share", held(*np.transpose(shares), mean)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, default=2000)
    args = parser.parse_args()
    error, rng = np.sqrt(0.95 * 0.05 / args.series), np.random.default_rng(0)
    rows = [
        (name, kind, n_groups, share)
        for kind in MEANS
        for n_groups in GROUPS
        for name, share in coverages(kind, n_groups, args.series, rng)
    ]
    table = pd.DataFrame(rows, columns=["interval of", "losses", "groups", "coverage"])
    table = table.pivot(index=["interval of", "losses"], columns="groups", values="coverage")
    print(f"{args.series} series: the standard error of a coverage of 0.950 is {error:.4f}")
    print(table.to_string(float_format=lambda share: f"{share:.3f}"))


if __name__ == "__main__":
    main()
