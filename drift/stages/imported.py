"""Stage 04: lists of another system, as a run beside those of indexes."""

import argparse
import itertools
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np

from drift import InputError
from drift.exact import by_distance, neighbor_distances
from drift.formats import names_in_file, read_matrix
from drift.formats.hits import read_lists
from drift.formats.tables import ROLES
from drift.imported_lists import (
    ImportedIds,
    RowNames,
    cause_of_chance,
    refuse_other_distances,
    refuse_other_rows,
)
from drift.indexes.registry import parse_imported
from drift.indexes.search import NeighborLists, SearchBlock, SearchCost
from drift.neighborhoods import recalls
from drift.pipeline import cli
from drift.pipeline.results import load_array
from drift.protocols import Protocol
from drift.stages.embed import hash_of
from drift.stages.lists import ListsTask
from drift.vectors import row_blocks

# Queries by which lists are judged.
JUDGED = 1000


@dataclass(frozen=True)
class ImportedLists(ListsTask):
    """Lists of another system, with distances computed from the vectors.

    Where most lists begin with the query, it is dropped.
    """

    ids: Path  # a file of lists, cut for each k; or a folder of files, one for each k
    distances: Path | None  # what the system reported, to be compared with ours
    columns: dict[str, str]  # where they are in a file; empty: guessed
    reported: str | None  # as what, of `drift.imported_lists.REPORTED`
    seconds: float | None  # how long its searches took
    anyway: bool  # even if they look as if drawn at random

    @property
    def parameters(self) -> dict[str, Any]:
        files = dict.fromkeys(map(self._file, self.grid))
        chosen = {"lists": [hash_of(file) for file in files], "seconds": self.seconds}
        chosen |= {"columns": self.columns, "names": [hash_of(file) for file in self._tables]}
        if self.distances:
            chosen["distances"] = hash_of(self.distances)
        return super().parameters | chosen | {"reported": self.reported}

    def at(self, grid: Iterable[int]) -> Self:
        task = super().at(grid)
        vars(task).update(_source=self._source)  # what was read stays read
        return task

    def at_available_k(self, is_asked: bool, longest: int) -> Self:
        """The same at those k of the grid for which there are lists, and at their own length.

        The files of a folder say theirs, unless a grid is asked for. No exact list is longer than
        `longest`.
        """
        if self.ids.is_dir():
            ks = self.grid if is_asked else range(1, longest + 1)
            grid = tuple(k for k in ks if self._file(k).exists())
            if not grid:
                raise InputError(f"{self.ids} holds no {self._file(self.grid[0]).name} or the like")
            if gone := [str(k) for k in self.grid if k not in grid]:
                print(f"{self.run.name}: no lists for k = {', '.join(gone)} in {self.ids}")
        else:
            source = self._source(self.ids)
            length, own = source.length, source.lists.ids.shape[1]
            if length < own <= longest:
                print(
                    f"{self.run.name}: lists of {own} hold the query itself, which leaves {length}:"
                    f" ask for {own + 1} to measure k = {own}"
                )
            if length == 0:
                raise InputError(f"{self.ids} has lists of the query alone: ask for more")
            grid = sorted({k for k in (*self.grid, length) if k <= min(length, longest)})
        return self.at(grid)

    def announce(self) -> None:
        """Print how the first file was read, and what is odd in it."""
        if self.reported and self._given_distances(np.arange(1)) is None:
            raise InputError(
                "--reported is of distances: name a file of them, --lists NAME IDS FILE, or of "
                "both, --columns id=NAME distance=NAME"
            )
        source, notes = self._source(self._file(self.grid[0])), []
        columns = source.lists.columns
        if len(columns) > 1 and not self.columns:
            notes.append("columns: " + ", ".join(f"{role}={columns[role]}" for role in columns))
        if source.lists.are_scores and self.reported != "similarity":
            notes.append("scores are left out (--reported similarity compares those by cosine)")
        if share := source.own_share:
            fate = "is dropped from all" if share > 0.5 else "counts as missing there"
            notes.append(f"{share:.1%} of the lists hold the query itself, which {fate}")
        if source.repeated:
            notes.append(f"{source.repeated} lists hold an id twice, which counts once")
        if source.without_list:
            notes.append(f"{source.without_list} queries have no list: all neighbors are missing")
        for note in notes:
            print(f"{self.run.name}: {note}", flush=True)

    def check(self, exact_ids: Path, exact_distances: Path) -> None:
        """Refuse lists that are off by one or at chance level, and distances of another kind."""
        n = self.n_queries
        rows = np.linspace(0, n - 1, min(n, JUDGED)).astype(int)
        exact = load_array(exact_ids)
        lists = self._source(self._file(self.grid[-1])).neighbors(rows)
        refuse_other_rows(lists, exact[rows], len(load_array(self.embeddings)), str(self.ids))
        self._refuse_chance(rows, exact, load_array(exact_distances))
        if (distances := self._given_distances(rows)) is None:
            return
        of = self.points(rows), load_array(self.embeddings), self._source(self.ids).given(rows)
        first, what = load_array(exact_distances)[rows, 0], str(self.distances or self.ids)
        try:
            refuse_other_distances(*of, distances, first, self.reported or "euclidean", what)
        except InputError as error:
            # What hits were put in order by is no such thing as could be left out.
            is_order = self._source(self.ids).lists.by == "distance"
            if self.distances or self.columns or self.reported or is_order:
                raise
            print(f"{self.run.name}: left out, lists work without them: {error}")

    def _refuse_chance(
        self, rows: np.ndarray, exact: np.ndarray, exact_distances: np.ndarray
    ) -> None:
        n = len(embeddings := load_array(self.embeddings))
        ks = [k for k in self.grid if k <= (n - 1) / 10]
        if self.anyway or not ks or self.n_queries < 30:
            return
        k = ks[-1]
        limit = 2 * k / (n - 1) + 3 / (self.n_queries * k)  # up to which it can be by chance
        # Lists that are far better than by chance where they are judged are so on the whole.
        recall = self._recall(k, rows, exact_distances)
        if recall <= 3 * limit:
            rows = np.arange(self.n_queries)
            recall = self._recall(k, rows, exact_distances)
        if recall > limit:
            return
        few = rows[:: max(1, len(rows) // 100)]
        lists = self._source(self._file(k)).neighbors(few)[:, :k]
        cause = cause_of_chance(self.points(few), embeddings, lists, exact)
        raise InputError(
            f"{self.ids}: these lists are no answer to these queries, their mean recall at k = {k} "
            f"is {recall:.4f}, and at random {k / (n - 1):.4f}: {cause}; --anyway measures them as "
            "they are"
        )

    def _recall(self, k: int, rows: np.ndarray, exact_distances: np.ndarray) -> float:
        total = 0.0
        for start, stop in row_blocks(len(rows), self.bytes_per_row(k)):
            block = rows[start:stop]
            ids = self._source(self._file(k)).neighbors(block)[:, :k]
            distances = neighbor_distances(self.points(block), load_array(self.embeddings), ids)
            total += recalls(exact_distances[block, k - 1 : k], distances).sum()
        return total / len(rows)

    def _given_distances(self, rows: np.ndarray) -> np.ndarray | None:
        """What the system reported for some queries, where it did, (q, k)."""
        if self.ids.is_dir():
            return None
        lists = self._source(self.ids).lists
        are_left_out = lists.are_scores and self.reported != "similarity"
        distances = None if are_left_out else lists.distances
        if self.distances:
            distances = read_matrix(self.distances, "distances")
        if distances is None:
            return None
        if distances.shape != lists.ids.shape:
            raise InputError(
                f"{self.distances or self.ids} must hold a number for each id, {lists.ids.shape}, "
                f"not {distances.dtype} of shape {distances.shape}"
            )
        return self._source(self.ids).align(distances, rows)

    def blocks(self) -> list[SearchBlock]:
        return self.cut(tuple(ks) for _, ks in itertools.groupby(self.grid, self._file))

    def __call__(self, block: SearchBlock) -> tuple[dict[int, NeighborLists], SearchCost]:
        longest, rows = max(block.ks), np.arange(block.start, block.stop)
        source = self._source(self._file(longest))
        if source.length < longest:
            raise InputError(
                f"{self._file(longest)} has lists of {source.length} without the query, fewer than "
                f"{longest}"
            )
        ids = source.neighbors(rows)[:, :longest].astype(np.int32)
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

    @property
    def _tables(self) -> list[Path]:
        """Those with the names of the rows, and of queries from outside."""
        names = ["02_rows.parquet", *(["03_query_ids.parquet"] if self.vectors else [])]
        return [self.embeddings.with_name(name) for name in names]

    @cached_property
    def _source(self) -> Callable[[Path], ImportedIds]:
        """The ids in a file; those of the last file are kept."""

        @lru_cache(maxsize=1)
        def read(file: Path) -> ImportedIds:
            lists, queries = read_lists(file, self.columns, self.reported), load_array(self.queries)
            n = len(load_array(self.embeddings))
            names, where = RowNames(names_in_file(self._tables[0], n)), None
            if lists.queries is not None:
                of = names
                if self.vectors:
                    of = RowNames(names_in_file(self._tables[1], len(queries)), "query")
                where = of.places(lists.queries, f"{file}, {lists.columns['query']!r},")[queries]
            elif len(lists.ids) == n > len(queries) and not self.vectors:
                where = queries  # lists of all rows
            own = np.full(len(queries), -1) if self.vectors else queries
            return ImportedIds(lists, names, own, where, str(file))

        return read


def parse_lists(args: argparse.Namespace) -> list[dict[str, Any]]:
    """What ``--lists``, as often as it was given, asks for: the fields of its `ImportedLists`."""
    if not args.lists:
        cli.refuse_without("--lists", args, "seconds", "reported", "columns", "anyway")
        return []
    if args.seconds is not None and len(args.lists) > 1:
        raise InputError("--seconds is of one system: give one of --lists at a time")
    columns = dict(word.split("=", 1) for word in args.columns or [] if "=" in word)
    if len(columns) < len(args.columns or []) or not columns.keys() <= ROLES.keys():
        raise InputError(f"--columns are {', '.join(f'{role}=NAME' for role in ROLES)}, each once")
    about = {"columns": columns, "reported": args.reported, "anyway": args.anyway}
    flags = ["--anyway"] if args.anyway else []
    flags += ["--columns", *args.columns] if args.columns else []
    flags += ["--reported", args.reported] if args.reported else []
    given: dict[str, dict[str, Any]] = {}
    for name, *words in args.lists:
        if len(words) not in (1, 2):
            raise InputError(f"--lists {name}: it takes NAME IDS, or NAME IDS DISTANCES")
        run, paths = parse_imported(name), [Path(word).absolute() for word in words]
        if run.name in given:
            raise InputError(f"--lists {name} is given twice: each run needs a name of its own")
        files = {"ids": paths[0], "distances": paths[1] if len(paths) > 1 else None}
        asking = shlex.join(["--lists", name, *map(str, paths), *flags])
        given[run.name] = {"run": run, "seconds": args.seconds, "words": asking, **files, **about}
    return list(given.values())


def choose_lists(
    given: list[dict[str, Any]],
    is_asked: bool,
    grid: Iterable[int],
    longest: int,
    protocol: Protocol,
    *files: Path | None,
) -> list[ImportedLists]:
    """The tasks of what `parse_lists` gives, on a grid that is asked for or not.

    `files` are as in `ListsTask`. No exact list is longer than `longest`.
    """
    if given and protocol not in (Protocol.STUDY, Protocol.OUTSIDE):
        raise InputError(f"--lists go with 03_exact_knn.py --protocol study, not {protocol}")
    tasks = []
    for fields in given:
        task = ImportedLists(*files, tuple(grid), **fields)
        if task.distances and task.ids.is_dir():
            raise InputError(f"{task.ids} is a folder, and distances go with a file of ids")
        tasks.append(task.at_available_k(is_asked, longest))
        tasks[-1].announce()
    return tasks
