"""Stage 04: the neighbor lists of a run, those of another system among them."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from drift.indexes.run import FAISS_NAMES, Run
from drift.indexes.search import SearchBlock
from drift.metrics import found, neighborhood_overlap
from drift.pipeline.blocks import compute_blocks
from drift.pipeline.manifests import GRAPHS
from drift.pipeline.results import Results, load_array
from drift.pipeline.stage import Stage
from drift.stages import Task
from drift.vectors import row_blocks

FEW_RUNS = 4  # have more than one line each where it is said what they returned
LISTS = {"indices": np.int32, "distances": np.float32}


@dataclass(frozen=True)
class ListsTask(Task):
    """What gives a run's lists of all queries for each k of a grid, and `notes` on their cost.

    Blocks are those of `SearchBlock`, results their `NeighborLists` by k and the `SearchCost`.
    `check` refuses what cannot be, given the files of the exact ids and distances.
    """

    embeddings: Path
    queries: Path
    vectors: Path | None  # of queries from outside
    grid: tuple[int, ...]
    run: Run
    words: str = field(default="", kw_only=True)  # that ask for it in a shell

    is_compressed = False  # whether there are distances that the index reported

    @property
    def parameters(self) -> dict[str, Any]:
        """What decides the lists, for the manifest."""
        return self.run.parameters | {"k_grid": list(self.grid)}

    def at(self, grid: Iterable[int]) -> Self:
        """The same on another grid."""
        return replace(self, grid=tuple(grid))

    @property
    def n_queries(self) -> int:
        return len(load_array(self.queries))

    def bytes_per_row(self, k: int) -> int:
        """What a query and its list of k take, in the making."""
        return load_array(self.embeddings).shape[1] * 4 + 32 * k

    def cut(self, groups: Iterable[tuple[int, ...]]) -> list[SearchBlock]:
        """Blocks of queries, of each group of ks."""
        rows = row_blocks(self.n_queries, self.bytes_per_row(max(self.grid)))
        return [SearchBlock(ks, *block) for ks in groups for block in rows]

    def points(self, rows: slice | np.ndarray) -> np.ndarray:
        """The vectors of some queries, float32 (n, d)."""
        queries = load_array(self.queries)[rows]
        return np.ascontiguousarray(load_array(self.vectors or self.embeddings)[queries])


def create_lists(part: Stage, task: ListsTask) -> list[str]:
    """Make room for the lists of every k, or resume; what there is of each."""
    kinds = LISTS | ({"reported": np.float32} if task.is_compressed else {})
    for k, (kind, dtype) in itertools.product(task.grid, kinds.items()):
        part.create(f"{part.name}/k{k:04d}_{kind}.npy", (task.n_queries, k), dtype)
    return list(kinds)


def store_lists(part: Stage, task: ListsTask) -> dict[str, Any]:
    """Get the lists of every k and store them; for the manifest, what it took."""
    kinds = create_lists(part, task)
    for block, (lists, cost) in compute_blocks(part, task, task.blocks(), part.name):
        rows = (block.start, block.stop)
        for k, kind in itertools.product(block.ks, kinds):
            part.write(f"{part.name}/k{k:04d}_{kind}.npy", rows, getattr(lists[k], kind))
        part.checkpoint(block, **cost._asdict())
    return task.notes({block: part.completed[str(block)] for block in task.blocks()})


def remove_others(results: Results, runs: Iterable[Run]) -> None:
    """Remove all runs but these, and all saved indexes but theirs, once they are named."""
    kept, indexes = {run.name for run in runs}, {run.index_name for run in runs}
    others = [folder.name for folder in results.run_folders() if folder.name not in kept]
    stages = [stage for run in others if results.own_files(stage := f"04_hnsw/{run}")]
    stages += [f"{GRAPHS}{index}" for index in results.graphs() if index not in indexes]
    if stages:
        names = ", ".join(Path(stage).name for stage in stages)
        print(f"removing from {results.path('04_hnsw')}: {names}", flush=True)
    for stage in stages:
        results.remove(stage)


def _setting(manifest: Mapping[str, Any], k: str) -> dict[str, str]:
    """What was found for a run's target at a k: with 95 % confidence, and on the mean."""
    if (setting := manifest.get("found_for")) is None:
        return {}
    on_mean, value = manifest["ef_search_by_k_on_mean"][k] or "none", manifest["ef_search_by_k"][k]
    sure = value if manifest["halves"][k]["is_enough"] else "none"
    return {"setting": f"{FAISS_NAMES.get(setting, setting)} {sure} (mean: {on_mean})"}


def summary(stage: Stage, runs: Iterable[Run]) -> pd.DataFrame:
    """What each run returned at the first, the middle and the last k that exact lists reach.

    Of many runs at the last.
    """
    exact, rows, runs = load_array(stage.results.path("03_exact_indices.npy")), [], list(runs)
    for run in runs:
        manifest = stage.results.manifest(f"{stage.name}/{run.name}")
        grid = [k for k in manifest["parameters"]["k_grid"] if k <= exact.shape[1]]
        speeds = manifest.get("queries_per_second", {})
        few = () if len(runs) > FEW_RUNS else (*grid[:1], *grid[len(grid) // 2 :][:1])
        for k in sorted({*few, *grid[-1:]}):
            ids = load_array(stage.results.path(f"{stage.name}/{run.name}/k{k:04d}_indices.npy"))
            overlap = neighborhood_overlap(exact[:, :k], ids).mean()
            row = {"run": run.name, "k": k, "overlap": overlap, "returned": found(ids).mean()}
            costs = {"queries/s": speeds.get(str(k)), "build s": manifest.get("build_seconds")}
            rows.append(row | costs | _setting(manifest, str(k)))
    return pd.DataFrame(rows)
