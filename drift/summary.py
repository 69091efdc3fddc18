"""All runs together: their curves, their families of graphs, their differences."""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from drift import statistics

COMPARED = ("overlap", "recall", "lid_difference")
COMPARED_KS = (10, 50, 100, 250)


class RunValues(NamedTuple):
    """What was measured of a run: by metric the values (G, Q), for each k of a grid and each query.

    Runs of one family differ by the seed of their graph alone.
    """

    family: str
    seed: int
    ks: Sequence[int]
    values: Mapping[str, np.ndarray]


class SummaryTables(NamedTuple):
    """The tables of all runs.

    Attributes
    ----------
    curves, safe_k : DataFrame
        Those of `drift.statistics.summarize_run`, with a column ``run``.
    graphs : DataFrame
        That of `drift.statistics.summarize_graphs`; empty where no family has two graphs.
    differences : DataFrame
        ``first``, ``second`` (families), ``metric``, and the columns of
        `drift.statistics.compare_families`, at a few k, where they have k and seeds in common.
    """

    curves: pd.DataFrame
    safe_k: pd.DataFrame
    graphs: pd.DataFrame
    differences: pd.DataFrame


def summarize_runs(
    runs: Mapping[str, RunValues], seed: int, groups: np.ndarray | None = None
) -> SummaryTables:
    """Summarize all runs, by name, over the same queries.

    `seed` and `groups` are those of `drift.statistics.summarize_run`.
    """
    curves, safe_k = [], []
    families: dict[str, dict[int, RunValues]] = {}
    for name, run in runs.items():
        curve, safe = statistics.summarize_run(run.ks, run.values, seed, groups)
        curves.append(curve.assign(run=name))
        safe_k.append(safe.assign(run=name))
        family = families.setdefault(run.family, {})
        # A graph that was searched on another grid has nothing to compare at most k.
        if not family or list(run.ks) == list(next(iter(family.values())).ks):
            family[run.seed] = run
    graphs = {
        name: (next(iter(family.values())).ks, [family[s].values for s in sorted(family)])
        for name, family in families.items()
    }
    return SummaryTables(
        pd.concat(curves, ignore_index=True),
        pd.concat(safe_k, ignore_index=True),
        statistics.summarize_graphs(graphs, groups),
        _compare(families, seed, groups),
    )


def _compare(
    families: Mapping[str, Mapping[int, RunValues]], seed: int, groups: np.ndarray | None
) -> pd.DataFrame:
    tables = [pd.DataFrame()]
    for (first, ours), (second, theirs) in itertools.combinations(families.items(), 2):
        seeds = sorted(set(ours) & set(theirs))
        grids = [list(next(iter(family.values())).ks) for family in (ours, theirs)]
        common = sorted(set(grids[0]) & set(grids[1]))
        ks = [k for k in common if k in COMPARED_KS or k in (common[0], common[-1])]
        for metric in COMPARED if seeds and ks else ():
            sides = [
                {s: family[s].values[metric][np.isin(grid, ks)] for s in seeds}
                for family, grid in zip((ours, theirs), grids, strict=True)
            ]
            table = statistics.compare_families(ks, *sides, seed, groups)
            tables.append(table.assign(first=first, second=second, metric=metric))
    return pd.concat(tables, ignore_index=True)
