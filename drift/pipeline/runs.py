"""The runs that accumulate in the results folder: which are overwritten, which are removed."""

import itertools
import math
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from drift.pipeline.results import Results

if TYPE_CHECKING:
    from drift.indexes.config import IndexConfig


def announce_overwriting(results: Results, grids: Mapping[str, list[int]]) -> None:
    """Print which of some runs are there with lists of another grid, which these will replace."""
    for run, grid in grids.items():
        manifest = results.manifest(f"04_hnsw/{run}")
        former = manifest["parameters"].get("k_grid") if manifest else None
        if former and former != grid:
            ks, new_ks = format_grid(former), format_grid(grid)
            replaced = f"its lists for k = {ks} will be overwritten by those for k = {new_ks}"
            print(f"{run}: {replaced}", flush=True)


def announce_rest(seconds: float, effort: list[int | None]) -> None:
    """Print how long the other runs take, after the first of them; `effort` is of all of them."""
    if None in effort:
        return
    rest = seconds * sum(effort[1:]) / effort[0]
    if rest > 60:
        print(f"the other runs: about {math.ceil(rest / 60)} minutes more", flush=True)


def warn_of_dense_graphs(graphs: Iterable["IndexConfig"]) -> None:
    """Print which graphs FAISS will not prune."""
    for graph in graphs:
        if least := graph.least_ef_construction:
            print(
                f"warning: {graph.name}: FAISS prunes links from efConstruction = 2 M = "
                f"{least} on, and not below: this graph is denser, and its overlap is "
                "not comparable with that of a pruned one (in a factory string's settings it is "
                f"efConstruction={least}, and 40 without)",
                file=sys.stderr,
            )


def format_grid(ks: list[int]) -> str:
    """A grid in a sentence: what is left out of a long one follows from the steps around it."""
    is_regular = len({after - k for k, after in itertools.pairwise(ks)}) == 1
    if is_regular and len(ks) > 4:
        return f"{ks[0]}, {ks[1]}, ... {ks[-1]}"
    return ", ".join(map(str, ks))


def remove_others(results: Results, runs: Iterable[str], graphs: Iterable[str]) -> None:
    """Remove all runs but these, and all saved graphs but these, once they are named."""
    runs, graphs = set(runs), set(graphs)
    others = [folder.name for folder in results.run_folders() if folder.name not in runs]
    unused = [graph for graph in results.graphs() if graph not in graphs]
    if others or unused:
        print(f"removing from {results.path('04_hnsw')}: {', '.join(others + unused)}", flush=True)
    for run in others:
        results.remove_run(run)
    for graph in unused:
        results.remove_graph(graph)
