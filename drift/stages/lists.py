"""Stage 04: the neighbor lists of a run, those of another system among them."""

import argparse
import itertools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from drift import InputError
from drift.exact import by_distance, neighbor_distances
from drift.formats import read_matrix
from drift.imported_lists import (
    imported_ids,
    refuse_other_distances,
    refuse_other_rows,
    without_queries,
)
from drift.indexes.registry import LIBRARIES
from drift.indexes.run import Run
from drift.indexes.search import NeighborLists, SearchBlock, SearchCost
from drift.metrics import found, neighborhood_overlap
from drift.pipeline.blocks import compute_blocks
from drift.pipeline.results import Results, content_hash, load_array
from drift.pipeline.stage import Stage
from drift.protocols import Protocol
from drift.stages import Task
from drift.vectors import row_blocks

LISTS = {"indices": np.int32, "distances": np.float32}
_NAME = re.compile(
    rf"(?!graphs$|exact$|.*_seed[0-9]+$|(?:{'|'.join(LIBRARIES)})_M[0-9])"
    "[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
)


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

    is_compressed = False  # whether there are distances that the index reported

    @property
    def parameters(self) -> dict[str, Any]:
        """What decides the lists, for the manifest."""
        return self.run.parameters | {"k_grid": list(self.grid)}

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


@dataclass(frozen=True)
class ImportedLists(ListsTask):
    """Lists of another system, with distances computed from the vectors.

    Where most lists begin with the query, it is dropped.
    """

    ids: Path  # a file of lists, cut for each k; or a folder of files, one for each k
    distances: Path | None  # what the system reported, to be compared with ours
    reported: str  # as what, of `drift.imported_lists.REPORTED`
    seconds: float | None  # how long its searches took

    @property
    def parameters(self) -> dict[str, Any]:
        files = dict.fromkeys(map(self._file, self.grid))
        chosen = {"lists": [content_hash(file) for file in files], "seconds": self.seconds}
        if self.distances:
            chosen |= {"distances": content_hash(self.distances), "reported": self.reported}
        return super().parameters | chosen

    def at_available_k(self) -> "ImportedLists":
        """The same at those k of the grid for which there are lists."""
        if self.ids.is_dir():
            grid = tuple(k for k in self.grid if self._file(k).exists())
            if not grid:
                raise InputError(f"{self.ids} holds no {self._file(self.grid[0]).name} or the like")
            if gone := [str(k) for k in self.grid if k not in grid]:
                print(f"{self.run.name}: no lists for k = {', '.join(gone)} in {self.ids}")
        else:
            length = self._lists(self.ids).shape[1]
            grid = tuple(k for k in self.grid if k <= length)
            if not grid:
                raise InputError(
                    f"{self.ids} has lists of {length}, shorter than the first k, {self.grid[0]}: "
                    f"give --k {length}"
                )
        return replace(self, grid=grid)

    @property
    def own_share(self) -> float:
        """Share of the lists that hold their query."""
        if self.vectors:
            return 0.0
        ids, queries = self._raw(self._file(self.grid[0])), load_array(self.queries)
        return float((ids == queries[:, None]).any(axis=1).mean())

    def check(self, exact_ids: Path, exact_distances: Path) -> None:
        """Refuse lists that are off by one, and distances that are of another kind."""
        embeddings = load_array(self.embeddings)
        lists = self._lists(self._file(self.grid[-1]))
        refuse_other_rows(lists, load_array(exact_ids), len(embeddings), str(self.ids))
        if self.distances is not None:
            ids, given = self._raw(self.ids), read_matrix(self.distances, "distances")
            points, first = self.points(np.s_[:]), load_array(exact_distances)[:, 0]
            said = self.reported, str(self.distances)
            refuse_other_distances(points, embeddings, ids, given, first, *said)

    def blocks(self) -> list[SearchBlock]:
        return self.cut(tuple(ks) for _, ks in itertools.groupby(self.grid, self._file))

    def __call__(self, block: SearchBlock) -> tuple[dict[int, NeighborLists], SearchCost]:
        longest, rows = max(block.ks), np.s_[block.start : block.stop]
        ids = self._lists(self._file(longest))[rows, :longest].astype(np.int32)
        if ids.shape[1] < longest:
            raise InputError(
                f"{self._file(longest)} has lists of {ids.shape[1]} without the query, fewer than "
                f"{longest}"
            )
        distances = neighbor_distances(self.points(rows), load_array(self.embeddings), ids)
        cut = {k: by_distance(ids[:, :k], distances[:, :k]) for k in block.ks}
        return {k: NeighborLists(*lists) for k, lists in cut.items()}, SearchCost(0.0, None)

    def notes(self, costs: Any) -> dict[str, Any]:
        """What the system says of its searches, whatever it cost to read their results."""
        if self.seconds is None:
            return {}
        speed, seconds = self.n_queries / self.seconds, dict.fromkeys(self.grid, self.seconds)
        return {"queries_per_second": dict.fromkeys(self.grid, speed), "search_seconds": seconds}

    def _file(self, k: int) -> Path:
        return self.ids / f"k{k:04d}_indices.npy" if self.ids.is_dir() else self.ids

    def _raw(self, file: Path) -> np.ndarray:
        ids = read_matrix(file, "neighbors")
        return imported_ids(ids, len(load_array(self.embeddings)), self.n_queries, str(file))

    @cached_property
    def _lists(self) -> Callable[[Path], np.ndarray]:
        """The ids in a file, int64, without the queries; those of the last file are kept."""

        @lru_cache(maxsize=1)
        def read(file: Path) -> np.ndarray:
            ids = self._raw(file)
            return ids if self.vectors else without_queries(ids, load_array(self.queries))

        return read


def parse_lists(
    args: argparse.Namespace, grid: Iterable[int], protocol: Protocol, *files: Path | None
) -> list[ImportedLists]:
    """What ``--lists``, as often as it was given, asks for; `files` as in `ListsTask`."""
    given: list[list[str]] = args.lists or []
    if not given and (args.seconds or args.reported):
        raise InputError("--seconds and --reported say more of --lists: name those")
    if given and protocol not in (Protocol.STUDY, Protocol.OUTSIDE):
        raise InputError(f"--lists go with 03_exact_knn.py --protocol study, not {protocol}")
    if args.reported and not any(len(words) > 2 for words in given):
        raise InputError("--reported is of distances: name a file of them, --lists NAME IDS FILE")
    if args.seconds is not None and len(given) > 1:
        raise InputError("--seconds is of one system: give one of --lists at a time")
    tasks: dict[str, ImportedLists] = {}
    for words in given:
        if len(words) not in (2, 3):
            raise InputError(f"--lists {' '.join(words)}: it takes NAME IDS, or NAME IDS DISTANCES")
        name, *paths = words[0], *(Path(word).absolute() for word in words[1:])
        ids, distances = (*paths, None)[:2]
        if not _NAME.fullmatch(name):
            raise InputError(
                f"--lists {name}: a name is of letters, digits, dots, minus and underscores, and "
                "none that a run of an index could have"
            )
        if distances and ids.is_dir():
            raise InputError(f"--lists {name}: DISTANCES go with a file of ids, {ids} is a folder")
        if name in tasks:
            raise InputError(f"--lists {name} is given twice: each run needs a name of its own")
        what = (Run(name), ids, distances, args.reported or "euclidean", args.seconds)
        tasks[name] = task = ImportedLists(*files, tuple(grid), *what).at_available_k()
        if share := task.own_share:
            fate = "is dropped from all" if share > 0.5 else "counts as missing there"
            print(f"{name}: {share:.1%} of the lists hold the query itself, which {fate}")
    return list(tasks.values())


def announce_overwriting(results: Results, tasks: Iterable[ListsTask]) -> None:
    """Print which of some runs are there with lists of another grid, which these will replace."""
    for task in tasks:
        manifest, grid = results.manifest(f"04_hnsw/{task.run.name}"), list(task.grid)
        if manifest and (former := manifest["parameters"]["k_grid"]) != grid:
            print(
                f"{task.run.name}: its lists for k = {format_grid(former)} will be overwritten by "
                f"those for k = {format_grid(grid)}",
                flush=True,
            )


def format_grid(ks: list[int]) -> str:
    """A grid in a sentence: what is left out of a long one follows from the steps around it."""
    is_regular = len({after - k for k, after in itertools.pairwise(ks)}) == 1
    if is_regular and len(ks) > 4:
        return f"{ks[0]}, {ks[1]}, ... {ks[-1]}"
    return ", ".join(map(str, ks))


def remove_others(results: Results, runs: Iterable[Run]) -> None:
    """Remove all runs but these, and all saved indexes but theirs, once they are named."""
    kept, indexes = {run.name for run in runs}, {run.index_name for run in runs}
    others = [folder.name for folder in results.run_folders() if folder.name not in kept]
    unused = [index for index in results.graphs() if index not in indexes]
    if others or unused:
        print(f"removing from {results.path('04_hnsw')}: {', '.join(others + unused)}", flush=True)
    for run in others:
        results.remove_run(run)
    for index in unused:
        results.remove_graph(index)


def summary(stage: Stage, runs: Iterable[Run]) -> pd.DataFrame:
    """What each run returned at the first, the middle and the last k of its grid."""
    exact, rows = stage.results.load("03_exact_indices.npy"), []
    for run in runs:
        manifest = stage.results.manifest(f"{stage.name}/{run.name}")
        grid, speeds = manifest["parameters"]["k_grid"], manifest.get("queries_per_second", {})
        for k in sorted({grid[0], grid[len(grid) // 2], grid[-1]}):
            ids = stage.results.load(f"{stage.name}/{run.name}/k{k:04d}_indices.npy")
            overlap = neighborhood_overlap(exact[:, :k], ids).mean()
            row = {"run": run.name, "k": k, "overlap": overlap, "found": found(ids).mean()}
            costs = {"queries/s": speeds.get(str(k)), "build s": manifest.get("build_seconds")}
            rows.append(row | costs)
    return pd.DataFrame(rows)
