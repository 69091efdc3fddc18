"""Stage 04: the neighbors that an index returns."""

import argparse
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from drift import InputError
from drift.indexes import build_index, load_index
from drift.indexes.config import GraphConfig, SearchConfig
from drift.pipeline.blocks import compute_blocks
from drift.pipeline.environment import peak_memory
from drift.pipeline.results import load_array
from drift.pipeline.stage import PARTIAL, Stage
from drift.pipeline.tasks import Task
from drift.protocols import Protocol
from drift.vectors import row_blocks

if TYPE_CHECKING:
    from drift.indexes import Index
    from drift.indexes.search import NeighborLists, SearchCost
    from drift.pipeline.tasks.lists import ImportLists

WARM_UP_QUERIES = 1000
DEFAULT_RUNS = ("faiss:50", "faiss:k,50", "hnswlib:50")
LISTS = {"indices": np.int32, "distances": np.float32}


class SearchBlock(NamedTuple):
    """One search: the ks whose lists it gives, efSearch, and the rows of the queries."""

    ks: tuple[int, ...]
    ef_search: int
    start: int
    stop: int


@dataclass(frozen=True)
class SearchIndex(Task):
    """Search for a block of queries in an index; their lists by k, and what the search took."""

    embeddings: Path
    queries: Path
    index_file: Path
    config: SearchConfig
    grid: tuple[int, ...]
    protocol: Protocol
    vectors: Path | None = None  # of queries from outside

    @cached_property
    def index(self) -> "Index":
        """The index, read from its file and searched a little: a first search is a slow one.

        So every process that searches, a worker of a cluster too, times none that is its first.
        """
        from drift.indexes.search import timed_search

        embeddings = load_array(self.embeddings)
        index = load_index(self.config.graph, self.index_file, embeddings)
        k, points = min(self.grid), self.points(0, WARM_UP_QUERIES)
        timed_search(index, points, self.protocol.list_length(k), self._ef(k))
        return index

    def points(self, start: int, stop: int) -> np.ndarray:
        """The vectors of some queries, float32 (stop - start, d)."""
        queries = load_array(self.queries)[start:stop]
        return np.ascontiguousarray(load_array(self.vectors or self.embeddings)[queries])

    @cached_property
    def anchors(self) -> np.ndarray:
        """Numbers of the queries, by which near ones are searched for one after the other."""
        from drift.exact import nearest_anchors

        vectors = load_array(self.vectors or self.embeddings)
        return nearest_anchors(vectors, load_array(self.queries), load_array(self.embeddings))

    @property
    def n_queries(self) -> int:
        return len(load_array(self.queries))

    def blocks(self) -> list[SearchBlock]:
        from drift.indexes.search import group_shared_searches

        rows = row_blocks(
            self.n_queries, load_array(self.embeddings).shape[1] * 4 + max(self.grid) * 32
        )
        return [
            SearchBlock(ks, self._ef(max(ks)), *block)
            for ks in group_shared_searches(self.grid, self.config, self.protocol)
            for block in rows
        ]

    def __call__(self, block: SearchBlock) -> "tuple[dict[int, NeighborLists], SearchCost]":
        from drift.indexes.search import NeighborLists, approximate_neighbors

        queries = load_array(self.queries)[block.start : block.stop]
        order = np.argsort(self.anchors[block.start : block.stop], kind="stable")
        points = self.points(block.start, block.stop)[order]
        lists, cost = approximate_neighbors(
            self.index, points, block.ks, block.ef_search, self.protocol, queries[order]
        )
        for k, (indices, distances) in lists.items():
            back = np.empty_like(indices), np.empty_like(distances)
            back[0][order], back[1][order] = indices, distances
            lists[k] = NeighborLists(*back)
        return lists, cost

    def _ef(self, k: int) -> int:
        return self.config.ef(self.protocol.policy_length(k))

    def facts(self, costs: Mapping[SearchBlock, Mapping[str, Any]]) -> dict[str, Any]:
        """What the searches took, and what the library made of efSearch, by k.

        A search that several k share counts for each of them, and once in all. Distance
        computations are left out where the library does not count them.

        Parameters
        ----------
        costs : mapping
            For each block the fields of its `SearchCost`.
        """
        n, lengths = self.n_queries, {k: self.protocol.list_length(k) for k in self.grid}
        by_k = {k: [cost for block, cost in costs.items() if k in block.ks] for k in self.grid}
        seconds = {k: sum(cost["seconds"] for cost in by_k[k]) for k in self.grid}
        facts = {
            "peak_memory_bytes": peak_memory(),
            "search_seconds": seconds,
            "search_seconds_in_all": sum(cost["seconds"] for cost in costs.values()),
            "queries_per_second": {k: n / seconds[k] for k in self.grid},
            "effective_ef": {
                k: self.config.effective_ef(lengths[k], self._ef(k)) for k in self.grid
            },
        }
        counted = "distance_computations"
        if all(cost.get(counted) is not None for cost in costs.values()):
            per_query = {k: sum(cost[counted] for cost in by_k[k]) / n for k in self.grid}
            facts[f"{counted}_per_query"] = per_query
        return facts


def search_configs(args: argparse.Namespace) -> list[SearchConfig]:
    """Every run that is asked for, on a graph of every seed."""
    if args.seeds and args.seed is not None:
        raise InputError("--seeds is in place of --seed: give one of the two")
    configs = [
        SearchConfig.parse(text, args.m, args.ef_construction, seed, args.build_threads)
        for seed in args.seeds or [args.seed or 0]
        for text in args.runs or ([] if args.lists else DEFAULT_RUNS)
    ]
    return list(dict.fromkeys(configs))


@contextmanager
def built_graph(stage: Stage, graph: GraphConfig) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A graph in a file for as long as it is searched, built if need be, kept on ``--save-index``.

    Parameters
    ----------
    stage : Stage
        Stage 04, with the embeddings among its inputs.
    graph : GraphConfig
        How to build it.

    Yields
    ------
    path : Path
        The file.
    facts : dict
        How long it took to build, and what the library shows of it.
    """
    part = _graph_stage(stage, graph)
    name = f"{part.name}.{graph.backend}"
    saved = stage.results.path(name)
    if not part.begin(graph.parameters):
        facts = {fact: part.manifest()[fact] for fact in ("build_seconds", "graph")}
        yield saved.absolute(), facts
        return
    is_replaced = saved.exists()
    if is_replaced and not stage.args.force:
        print(f"{saved} is damaged or of other embeddings: the graph is built anew")
    path = part.output(name)
    if graph.name not in part.completed or not path.exists():
        start = time.perf_counter()
        index = build_index(graph, part.read("02_embeddings.npy"))
        seconds = time.perf_counter() - start
        index.save(path)
        with path.open("rb") as file:
            os.fsync(file.fileno())  # a power cut must not leave a checkpoint without its graph
        part.checkpoint(graph.name, build_seconds=seconds, graph=index.statistics())
        del index  # whoever searches reads it from the file
    facts = part.completed[graph.name]
    if stage.args.save_index or is_replaced:
        part.commit(**facts)
        path = saved.absolute()
    yield path, facts
    part.discard()


def discard_graph(stage: Stage, graph: GraphConfig) -> None:
    """Remove what `built_graph` left when it was interrupted, unless a run waits for it."""
    if not any(stage.results.path(PARTIAL).glob(f"{stage.name}--{graph.backend}_*")):
        _graph_stage(stage, graph).discard()


def _graph_stage(stage: Stage, graph: GraphConfig) -> Stage:
    return stage.part(f"graphs/{graph.name}", "02_embeddings.npy")


def store_lists(
    run: Stage, task: "SearchIndex | ImportLists", facts: dict[str, Any]
) -> dict[str, Any]:
    """Get the lists of every k, store them, and note what it took; the run's manifest."""
    run.start_clock()
    for k in task.grid:
        for part, dtype in LISTS.items():
            run.create(f"{run.name}/k{k:04d}_{part}.npy", (task.n_queries, k), dtype)
    for block, (lists, cost) in compute_blocks(run, task, task.blocks(), run.name):
        rows = (block.start, block.stop)
        for k in block.ks:
            for part in LISTS:
                run.write(f"{run.name}/k{k:04d}_{part}.npy", rows, getattr(lists[k], part))
        run.checkpoint(block, **cost._asdict())
    costs = {block: run.completed[str(block)] for block in task.blocks()}
    shown = (task.grid[0], task.grid[len(task.grid) // 2], task.grid[-1])
    ids = {k: run.output(f"{run.name}/k{k:04d}_indices.npy") for k in shown}
    summary = mean_overlap_and_found(run.results.path("03_exact_indices.npy"), ids)
    facts = facts | task.facts(costs)
    return run.commit(**facts, summary=summary)


def mean_overlap_and_found(exact: Path, lists: Mapping[int, Path]) -> dict[int, dict[str, float]]:
    """For lists of some k the mean overlap with the exact ones, and the share of ids found."""
    from drift.metrics import found, neighborhood_overlap

    exact_ids, shares = load_array(exact), {}
    for k, path in lists.items():
        ids = load_array(path)
        overlap = neighborhood_overlap(exact_ids[:, :k], ids).mean()
        shares[k] = {"overlap": float(overlap), "found": float(found(ids).mean())}
    return shares
