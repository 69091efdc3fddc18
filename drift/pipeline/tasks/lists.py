"""Stage 04: lists of another system, which become a run like any other."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from drift import InputError
from drift.exact import by_distance, neighbor_distances
from drift.formats import read_matrix
from drift.imported_lists import (
    imported_ids,
    refuse_other_distances,
    refuse_other_rows,
    without_queries,
)
from drift.indexes.search import NeighborLists, SearchCost
from drift.pipeline.results import content_hash, load_array
from drift.pipeline.tasks import Task
from drift.pipeline.tasks.search import SearchBlock
from drift.protocols import Protocol
from drift.vectors import row_blocks

_NAME = re.compile(
    r"(?!graphs$|exact$|.*_seed[0-9]+$|(?:faiss|hnswlib|usearch|pgvector)_M[0-9])[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
)


@dataclass(frozen=True)
class ImportLists(Task):
    """Take lists of another system, with distances computed from the vectors.

    Blocks and results are those of `drift.pipeline.tasks.search.SearchIndex`. Where most lists
    begin with the query, it is dropped.

    Attributes
    ----------
    name : str
        Of the run.
    ids : Path
        A file of lists, cut for each k; or a folder of files, one for each k.
    distances : Path or None
        What the system reported, to be compared with ours.
    reported : str
        As what, of `drift.imported_lists.REPORTED`.
    seconds : float or None
        How long its searches took.
    embeddings, queries, exact : Path
        The vectors, the queries, their exact neighbors.
    vectors : Path or None
        Of queries from outside.
    """

    name: str
    ids: Path
    distances: Path | None
    reported: str
    seconds: float | None
    embeddings: Path
    queries: Path
    exact: tuple[Path, Path]
    vectors: Path | None
    grid: tuple[int, ...] = ()

    @classmethod
    def parse(cls, words: Sequence[str], grid: Sequence[int], *rest: Any) -> Self:
        """From the words of ``--lists NAME IDS [DISTANCES]``, at the k that they are long for."""
        if len(words) not in (2, 3):
            raise InputError(f"--lists {' '.join(words)}: it takes NAME IDS, or NAME IDS DISTANCES")
        name, *files = words
        if not _NAME.fullmatch(name):
            raise InputError(
                f"--lists {name}: a name is of letters, digits, dots, minus and underscores, and "
                "none that a run of an index could have"
            )
        ids, distances = (Path(file).absolute() for file in (*files, files[0])[:2])
        if len(files) > 1 and ids.is_dir():
            raise InputError(f"--lists {name}: DISTANCES go with a file of ids, {ids} is a folder")
        task = cls(name, ids, distances if len(files) > 1 else None, *rest)
        return replace(task, grid=task._available(grid))

    def _available(self, wanted: Sequence[int]) -> tuple[int, ...]:
        if self.ids.is_dir():
            grid = tuple(k for k in wanted if self._file(k).exists())
            if not grid:
                raise InputError(f"{self.ids} holds no {self._file(wanted[0]).name} or the like")
            if gone := [str(k) for k in wanted if k not in grid]:
                print(f"{self.name}: no lists for k = {', '.join(gone)} in {self.ids}")
            return grid
        length = self.lists.shape[1]
        grid = tuple(k for k in wanted if k <= length)
        if not grid:
            raise InputError(
                f"{self.ids} has lists of {length}, shorter than the first k, {wanted[0]}: give "
                f"--k {length}"
            )
        return grid

    @property
    def parameters(self) -> dict[str, Any]:
        """What decides the lists, for the manifest."""
        files = sorted(self.ids.glob("*_indices.npy")) if self.ids.is_dir() else [self.ids]
        hashes = [content_hash(file) for file in files]
        chosen = {"backend": self.name, "ef_search": None, "lists": hashes}
        if self.distances:
            chosen |= {"distances": content_hash(self.distances), "reported": self.reported}
        return chosen | {"seconds": self.seconds, "k_grid": list(self.grid)}

    @property
    def n_queries(self) -> int:
        return len(load_array(self.queries))

    @cached_property
    def lists(self) -> np.ndarray:
        """The ids of a single file, int64 (Q, k), without the queries."""
        return self._checked(self.ids)

    @property
    def own_share(self) -> float:
        """Share of the lists that hold their query."""
        file = self._file(self.grid[0]) if self.ids.is_dir() else self.ids
        ids, queries = self._raw(file), load_array(self.queries)
        return float((ids == queries[:, None]).any(axis=1).mean()) if not self.vectors else 0.0

    def check(self) -> None:
        """Refuse lists that are off by one, and distances that are of another kind."""
        lists = self._checked(self._file(self.grid[-1])) if self.ids.is_dir() else self.lists
        indices, lengths = map(load_array, self.exact)
        n = len(load_array(self.embeddings))
        refuse_other_rows(lists, indices, n, str(self.ids))
        if self.distances is not None:
            ids = self._raw(self.ids)
            given = read_matrix(self.distances, "distances")
            points = load_array(self.vectors or self.embeddings)[load_array(self.queries)]
            refuse_other_distances(
                points,
                load_array(self.embeddings),
                ids,
                given,
                lengths[:, 0],
                self.reported,
                str(self.distances),
            )

    def blocks(self) -> list[SearchBlock]:
        dim = load_array(self.embeddings).shape[1]
        return [
            SearchBlock((k,), (), *rows)
            for k in self.grid
            for rows in row_blocks(self.n_queries, 4 * dim + 32 * k)
        ]

    def __call__(self, block: SearchBlock) -> tuple[dict[int, NeighborLists], SearchCost]:
        (k,), _, start, stop = block
        lists = self._checked(self._file(k)) if self.ids.is_dir() else self.lists
        if lists.shape[1] < k:
            raise InputError(
                f"{self._file(k)} has lists of {lists.shape[1]} without the query, fewer than {k}"
            )
        ids = lists[start:stop, :k]
        queries = load_array(self.queries)[start:stop]
        points = load_array(self.vectors or self.embeddings)[queries]
        distances = neighbor_distances(points, load_array(self.embeddings), ids)
        found = NeighborLists(*by_distance(ids.astype(np.int32), distances))
        return {k: found}, SearchCost(0.0, None)

    def facts(self, costs: Any) -> dict[str, Any]:
        """What the system says of its searches, whatever it cost to read their results."""
        if self.seconds is None:
            return {}
        speed = self.n_queries / self.seconds
        seconds = dict.fromkeys(self.grid, self.seconds)
        return {"queries_per_second": dict.fromkeys(self.grid, speed), "search_seconds": seconds}

    def _file(self, k: int) -> Path:
        return self.ids / f"k{k:04d}_indices.npy"

    def _raw(self, file: Path) -> np.ndarray:
        ids = read_matrix(file, "neighbors")
        return imported_ids(ids, len(load_array(self.embeddings)), self.n_queries, str(file))

    def _checked(self, file: Path) -> np.ndarray:
        ids = self._raw(file)
        return ids if self.vectors else without_queries(ids, load_array(self.queries))


def parse_lists(
    args: argparse.Namespace,
    grid: Sequence[int],
    protocol: Protocol,
    embeddings: Path,
    queries: Path,
    exact: Path,
    vectors: Path | None,
) -> list[ImportLists]:
    """What ``--lists``, as often as it was given, asks for."""
    if not args.lists:
        raise InputError("--seconds and --reported say more of --lists: name those")
    if protocol not in (Protocol.STUDY, Protocol.OUTSIDE):
        raise InputError(f"--lists go with 03_exact_knn.py --protocol study, not {protocol}")
    if args.reported and not any(len(words) > 2 for words in args.lists):
        raise InputError("--reported is of distances: name a file of them, --lists NAME IDS FILE")
    if args.seconds is not None and len(args.lists) > 1:
        raise InputError("--seconds is of one system: give one of --lists at a time")
    exact_files = exact, exact.with_name("03_exact_distances.npy")
    paths = (embeddings, queries, exact_files, vectors)
    tasks = [
        ImportLists.parse(words, grid, args.reported or "euclidean", args.seconds, *paths)
        for words in args.lists
    ]
    for task in tasks:
        if sum(task.name == other.name for other in tasks) > 1:
            raise InputError(
                f"--lists {task.name} is given twice: each run needs a name of its own"
            )
        if share := task.own_share:
            fate = "is dropped from all" if share > 0.5 else "counts as missing there"
            print(f"{task.name}: {share:.1%} of the lists hold the query itself, which {fate}")
    return tasks
