"""Stage 04: the neighbors that an index returns."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from drift import InputError
from drift.indexes import check_search, load_index
from drift.indexes.config import PGVECTOR, SearchConfig
from drift.indexes.policies import Value
from drift.pipeline.blocks import compute_blocks
from drift.pipeline.environment import peak_memory
from drift.pipeline.results import load_array
from drift.pipeline.stage import Stage
from drift.pipeline.tasks import Task
from drift.protocols import Protocol
from drift.vectors import row_blocks

if TYPE_CHECKING:
    from drift.indexes.base import Index
    from drift.indexes.search import NeighborLists, SearchCost
    from drift.pipeline.tasks.effort import FindEffort
    from drift.pipeline.tasks.lists import ImportLists

WARM_UP_QUERIES = 1000
DEFAULT_RUNS = ("faiss:50", "faiss:k,50", "hnswlib:50")
LISTS = {"indices": np.int32, "distances": np.float32}


class SearchBlock(NamedTuple):
    """One search: the ks whose lists it gives, its settings, and the rows of the queries."""

    ks: tuple[int, ...]
    settings: tuple[tuple[str, Value], ...]
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
    found: tuple[tuple[int, int], ...] = ()  # for each k the value that its policy stands for

    @cached_property
    def index(self) -> "Index":
        """The index, read from its file and searched a little: a first search is a slow one.

        So every process that searches, a worker of a cluster too, times none that is its first.
        """
        from drift.indexes.search import timed_search

        config, embeddings = self.config.index, load_array(self.embeddings)
        index = load_index(config, self.index_file, embeddings)
        k, points = min(self.grid), self.points(np.s_[:WARM_UP_QUERIES])
        least = {name: policy.least for name, policy in self.config.policies.items()}
        settings = self.config.values(k) | least
        timed_search(index, points, self.protocol.list_length(k), settings)
        return index

    def points(self, rows: slice | np.ndarray) -> np.ndarray:
        """The vectors of some queries, float32 (n, d)."""
        queries = load_array(self.queries)[rows]
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
            SearchBlock(ks, tuple(self.settings(max(ks)).items()), *block)
            for ks in group_shared_searches(self.grid, self.config, self.protocol)
            for block in rows
        ]

    def __call__(self, block: SearchBlock) -> "tuple[dict[int, NeighborLists], SearchCost]":
        return self.search(np.arange(block.start, block.stop), block.ks, dict(block.settings))

    def search(
        self,
        rows: np.ndarray,
        ks: Sequence[int],
        settings: Mapping[str, Value],
        max_searches: int | None = None,
    ) -> "tuple[dict[int, NeighborLists], SearchCost]":
        """Search for some queries by their numbers, near ones one after the other."""
        from drift.indexes.search import NeighborLists, approximate_neighbors

        order = np.argsort(self.anchors[rows], kind="stable")
        rows, back = rows[order], np.argsort(order)
        lists, cost = approximate_neighbors(
            self.index,
            self.points(rows),
            ks,
            settings,
            self.protocol,
            load_array(self.queries)[rows],
            load_array(self.embeddings),
            max_searches,
        )
        for k, arrays in lists.items():
            lists[k] = NeighborLists(*[side if side is None else side[back] for side in arrays])
        return lists, cost

    def settings(self, k: int) -> dict[str, Value]:
        """The settings of the search for lists of k."""
        return self.config.values(self.protocol.policy_length(k), dict(self.found).get(k))

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
        }
        efs = {k: self.settings(k).get("ef_search") for k in self.grid}
        if None not in efs.values():
            facts["effective_ef"] = {k: self.config.effective_ef(lengths[k], efs[k]) for k in efs}
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
    configs = list(dict.fromkeys(configs))
    names = [config.name for config in configs]
    if args.postgres and not any(config.index.backend == PGVECTOR for config in configs):
        raise InputError("--postgres is for runs of pgvector, and there is none")
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(f"two of --runs would have the name {min(twice)}: ask for one at a time")
    return configs


def check_configs(
    configs: Sequence[SearchConfig], embeddings: Path, grid: Sequence[int], protocol: Protocol
) -> None:
    """Refuse runs whose library is not installed, or does not take their settings."""
    d, lengths = load_array(embeddings).shape[1], [protocol.policy_length(k) for k in grid]
    for config in configs:
        check_search(config, d, lengths)
        is_published = protocol in (Protocol.NOTEBOOK, Protocol.PAPER)
        if is_published and config.target and config.target[1].criterion == "lid":
            raise InputError(f"lid=... goes with 03_exact_knn.py --protocol study, not {protocol}")


def store_lists(
    run: Stage,
    task: "SearchIndex | ImportLists",
    facts: dict[str, Any],
    effort: "FindEffort | None" = None,
) -> dict[str, Any]:
    """Get the lists of every k, store them, and note what it took; the run's manifest.

    `effort` finds what the policy of the search stands for, where that is a target.
    """
    run.start_clock()
    compressed = facts.get("graph", {}).get("compressed", False)
    parts = LISTS | ({"reported": np.float32} if compressed else {})
    for k in task.grid:
        for part, dtype in parts.items():
            run.create(f"{run.name}/k{k:04d}_{part}.npy", (task.n_queries, k), dtype)
    if effort:
        task = effort.find(run)
    for block, (lists, cost) in compute_blocks(run, task, task.blocks(), run.name):
        rows = (block.start, block.stop)
        for k in block.ks:
            for part in parts:
                run.write(f"{run.name}/k{k:04d}_{part}.npy", rows, getattr(lists[k], part))
        run.checkpoint(block, **cost._asdict())
    costs = {block: run.completed[str(block)] for block in task.blocks()}
    shown = (task.grid[0], task.grid[len(task.grid) // 2], task.grid[-1])
    ids = {k: run.output(f"{run.name}/k{k:04d}_indices.npy") for k in shown}
    summary = mean_overlap_and_found(run.results.path("03_exact_indices.npy"), ids)
    facts = facts | task.facts(costs) | (effort.facts(run) if effort else {})
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
