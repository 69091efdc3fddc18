"""Stage 04: the neighbors that an index returns, and that index in its file."""

import argparse
import itertools
import os
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from drift import InputError
from drift.exact import nearest_anchors
from drift.indexes.base import Index
from drift.indexes.pgvector_hnsw import PgvectorHnsw, column_type
from drift.indexes.registry import expand_series, index_class, parse_run
from drift.indexes.run import Run, Value
from drift.indexes.search import (
    NeighborLists,
    SearchBlock,
    SearchCost,
    approximate_neighbors,
    group_shared_searches,
    timed_search,
)
from drift.pipeline import cli
from drift.pipeline.environment import peak_memory
from drift.pipeline.postgres import embedded_server
from drift.pipeline.results import load_array
from drift.pipeline.stage import Stage
from drift.protocols import Protocol
from drift.stages.lists import ListsTask

WARM_UP_QUERIES = 1000
DEFAULT_RUNS = ("faiss:50", "faiss:k,50", "hnswlib:50")
DEFAULTS = {"m": 32, "ef_construction": 200, "build_threads": 1, "seed": 0}


@dataclass(frozen=True)
class SearchIndex(ListsTask):
    """Search for a block of queries in an index."""

    protocol: Protocol
    index_file: Path | None = None  # once the index is built, with notes on that
    index_notes: Mapping[str, Any] = field(default_factory=dict)
    chosen: Mapping[int, int] = field(default_factory=dict)  # by k, what the run's target needs

    @property
    def is_compressed(self) -> bool:
        return self.index_notes["graph"].get("compressed", False)

    def check(self, *_: Path) -> None:
        """Refuse a run whose library is not installed, or does not take its settings."""
        run, lengths = self.run, map(self.protocol.policy_length, self.grid)
        index_class(run).check(run, load_array(self.embeddings).shape[1], [*lengths])
        if run.target and index_class(run).value_range is Index.value_range:
            raise InputError(f"{run.name}: {run.library} does not say from where to where to look")

    @cached_property
    def index(self) -> Index:
        """The index, read from its file and searched a little: a first search is a slow one."""
        index = index_class(self.run).load(self.index_file, load_array(self.embeddings), self.run)
        smallest = {name: policy.smallest for name, policy in self.run.policies.items()}
        points = self.points(np.s_[:WARM_UP_QUERIES])
        length = self.protocol.list_length(min(self.grid))
        timed_search(index, points, length, {**self.run.search, **smallest})
        return index

    @cached_property
    def anchors(self) -> np.ndarray:
        """Numbers of the queries, by which near ones are searched for one after the other."""
        vectors = load_array(self.vectors or self.embeddings)
        return nearest_anchors(vectors, load_array(self.queries), load_array(self.embeddings))

    def blocks(self) -> list[SearchBlock]:
        return self.cut(group_shared_searches(self.grid, self.run, self.protocol))

    def __call__(self, block: SearchBlock) -> tuple[dict[int, NeighborLists], SearchCost]:
        return self.search(np.arange(block.start, block.stop), block.ks)

    def search(
        self, rows: np.ndarray, ks: Sequence[int], tried: int | None = None
    ) -> tuple[dict[int, NeighborLists], SearchCost]:
        """Search for some queries by their numbers, near ones one after the other.

        With a `tried` value of the setting that is yet to be chosen, it is not timed.
        """
        order = np.argsort(self.anchors[rows], kind="stable")
        rows, back = rows[order], np.argsort(order)
        lists, cost = approximate_neighbors(
            self.index,
            self.points(rows),
            ks,
            self.settings(max(ks), tried),
            self.protocol,
            load_array(self.queries)[rows],
            load_array(self.embeddings),
            max_searches=1 if tried else None,
        )
        for k, arrays in lists.items():
            lists[k] = NeighborLists(*[side if side is None else side[back] for side in arrays])
        return lists, cost

    def settings(self, k: int, tried: int | None = None) -> dict[str, Value]:
        """The settings of the search for lists of k."""
        return self.run.values(self.protocol.policy_length(k), tried or self.chosen.get(k))

    @property
    def warnings(self) -> list[str]:
        """What to know of the index before its lists are compared with those of others."""
        dense = index_class(self.run).warning(self.run)
        warnings = [dense] if dense else []
        if n := self.index_notes["graph"].get("unreachable_rows"):
            rows, them = ("1 row is", "it") if n == 1 else (f"{n:,} rows are", "them")
            out = f"{rows} out of reach: no search returns {them}, no path of links leads there"
            warnings.append(f"{self.run.index_name}: {out}")
        return warnings

    def notes(self, costs: Mapping[SearchBlock, Mapping[str, Any]]) -> dict[str, Any]:
        """What the searches took, and what the library made of efSearch, by k.

        A search that several k share counts for each of them.
        """
        n, protocol, run = self.n_queries, self.protocol, self.run
        by_k = {k: [cost for block, cost in costs.items() if k in block.ks] for k in self.grid}
        seconds = {k: sum(cost["seconds"] for cost in by_k[k]) for k in self.grid}
        notes = {
            **self.index_notes,
            "warnings": self.warnings,
            "peak_memory_bytes": peak_memory(),
            "search_seconds": seconds,
            "queries_per_second": {k: n / seconds[k] for k in self.grid},
        }
        if run.ef_search:
            notes["effective_ef"] = rules = {}
            for k in self.grid:
                ef = self.settings(k).get("ef_search")
                ef = ef or run.ef_search.value(protocol.policy_length(k))  # FAISS's default
                rules[k] = index_class(run).stop_rule(run, protocol.list_length(k), ef)
        if all(cost["distance_computations"] is not None for cost in costs.values()):
            counts = {k: sum(cost["distance_computations"] for cost in by_k[k]) for k in self.grid}
            notes["distance_computations_per_query"] = {k: counts[k] / n for k in self.grid}
        return notes


def parse_runs(args: argparse.Namespace) -> dict[str, tuple[Run, str]]:
    """Every run that is asked for, on an index of every seed, and how, by its name."""
    if args.seeds and args.seed is not None:
        raise InputError("--seeds is in place of --seed: give one of the two")
    runs: dict[str, tuple[Run, str]] = {}
    for seed in args.seeds or [args.seed or 0]:
        asked = args.runs or ([] if args.lists else DEFAULT_RUNS)
        for text in itertools.chain(*map(expand_series, asked)):
            run = parse_run(text, args.m, args.ef_construction, seed, args.build_threads)
            given = {name: getattr(args, name) for name in DEFAULTS} | {"seed": seed}
            given = {name: value for name, value in given.items() if value != DEFAULTS[name]}
            flags = (f"--{name.replace('_', '-')} {value}" for name, value in given.items())
            words = " ".join(["--runs", shlex.quote(text), *flags])
            if runs.setdefault(run.name, (run, words))[0] != run:
                raise InputError(
                    f"two of --runs would have the name {run.name}: ask for one at a time"
                )
    if not any(_is_in_server(run) for run, _ in runs.values()):
        cli.refuse_without("--runs pgvector:40", args, "postgres")
    return runs


def choose_searches(
    asked: Mapping[str, tuple[Run, str]],
    grid: Iterable[int],
    protocol: Protocol,
    *files: Path | None,
) -> list[ListsTask]:
    """The tasks of runs as `parse_runs` gives them; `files` as in `ListsTask`."""
    warnings = dict.fromkeys(index_class(run).warning(run) for run, _ in asked.values())
    for warning in filter(None, warnings):
        print(f"warning: {warning}", file=sys.stderr)
    return [
        SearchIndex(*files, tuple(grid), run, protocol, words=words)
        for run, words in asked.values()
    ]


@contextmanager
def built_index(
    stage: Stage, tasks: list[ListsTask], run: Run, is_kept: bool, postgres: str | None
) -> Iterator[list[ListsTask]]:
    """Some tasks in the index of a run, which is built if need be, for as long as it is in a file.

    It stays in the results folder if `is_kept`. One of pgvector is in the server `postgres`, or
    else in one that ends with the searches. Lists of another system have no index.
    """
    if not run.build:
        yield tasks
    elif not tasks and (_is_in_server(run) or not is_kept):
        yield []
    else:
        opened = _index_in_file(stage, run, is_kept)
        if _is_in_server(run):
            opened = _index_in_server(stage, run, is_kept, postgres)
            for task in tasks:  # an interrupted one was in another index, and starts over
                stage.part(task.run.name).discard()
        with opened as (path, notes):
            yield [replace(task, index_file=path, index_notes=notes) for task in tasks]


@contextmanager
def _index_in_file(stage: Stage, run: Run, is_kept: bool) -> Iterator[tuple[Path, dict[str, Any]]]:
    part = stage.part(f"graphs/{run.index_name}", "02_embeddings.npy")
    name = f"{part.name}.{run.library}"
    saved = stage.results.path(name)
    if not part.begin({"library": run.library, "build": dict(run.build), "seed": run.seed}):
        manifest = part.manifest()
        yield saved.absolute(), {note: manifest[note] for note in ("build_seconds", "graph")}
        return
    is_replaced = saved.exists()
    if is_replaced and not stage.force:
        print(f"{saved} is damaged or of other embeddings: the graph is built anew")
    path = part.output(name)
    if run.index_name not in part.completed or not path.exists():
        start = time.perf_counter()
        index = index_class(run).build(part.read("02_embeddings.npy"), run)
        notes = {"build_seconds": time.perf_counter() - start, "graph": index.statistics()}
        index.save(path)
        with path.open("rb") as file:
            os.fsync(file.fileno())  # a power cut must not leave a checkpoint without its index
        part.checkpoint(run.index_name, **notes)
        del index  # whoever searches reads it from the file
    notes = part.completed[run.index_name]
    if is_kept or is_replaced:
        part.commit(**notes)
        path = saved.absolute()
    yield path, notes
    part.discard()


@contextmanager
def _index_in_server(
    stage: Stage, run: Run, is_kept: bool, url: str | None
) -> Iterator[tuple[Path, dict[str, Any]]]:
    embeddings = stage.read("02_embeddings.npy")
    if column_type(embeddings.shape[1]) == "halfvec":
        print(
            f"{run.index_name}: more dimensions than pgvector indexes as they are: half precision"
        )
    if is_kept:
        print(f"{run.index_name} lives in its server: --save-index does not keep it")
    with (
        embedded_server() if url is None else nullcontext(url) as url,
        TemporaryDirectory() as folder,
    ):
        start = time.perf_counter()
        with closing(PgvectorHnsw.build(embeddings, run, url)) as index:
            notes = {"build_seconds": time.perf_counter() - start, "graph": index.statistics()}
            path = Path(folder) / "place.json"
            index.save(path)
            yield path, {**notes, "timed": "at the client"}


def _is_in_server(run: Run) -> bool:
    return index_class(run) is PgvectorHnsw
