"""Stages 03 and 04: exact neighbors, and those that an index returns."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from drift.indexes import build_index, load_index
from drift.indexes.config import GraphConfig, SearchConfig
from drift.pipeline.results import load_array
from drift.pipeline.stage import PARTIAL, Stage
from drift.pipeline.tasks import Task
from drift.vectors import row_blocks

if TYPE_CHECKING:
    from drift.exact import ExactNeighbors, ExactSearch
    from drift.indexes import Index
    from drift.indexes.search import NeighborLists, SearchCost

Rows = tuple[int, int]
WARM_UP_QUERIES = 1000


@dataclass(frozen=True)
class ExactKnn(Task):
    """Search for the exact neighbors of a block of queries, by certified direct differences."""

    embeddings: Path
    queries: Path
    k: int
    include_self: bool

    @cached_property
    def search(self) -> "ExactSearch":
        """The vectors, with a centered copy of them."""
        from drift.exact import ExactSearch

        return ExactSearch(load_array(self.embeddings))

    def blocks(self) -> list[Rows]:
        """Blocks of queries: a vector each, and its candidates with distances in the making."""
        dim = load_array(self.embeddings).shape[1]
        return row_blocks(len(load_array(self.queries)), dim * 4 + self.k * 64)

    def __call__(self, rows: Rows) -> "ExactNeighbors":
        queries = load_array(self.queries)[slice(*rows)]
        return self.search.neighbors(queries, self.k, self.include_self)


@dataclass(frozen=True)
class ExpandedKnn(Task):
    """Search for the neighbors of a block of queries by the expanded form, as the notebook did.

    Its distances depend on the threads that multiply: wherever they are computed, it is with as
    many as the stage was started with.
    """

    embeddings: Path
    queries: Path
    k: int
    include_self: bool
    threads: int

    def blocks(self) -> list[Rows]:
        """Whole numbers of FAISS's own blocks, so that cutting the queries changes no rounding."""
        from drift.exact import FAISS_BLOCK

        dim, n = load_array(self.embeddings).shape[1], len(load_array(self.queries))
        return row_blocks(n, dim * 4 + self.k * 64, 256 << 20, FAISS_BLOCK)

    def __call__(self, rows: Rows) -> "ExactNeighbors":
        import faiss

        from drift.exact import ExactNeighbors
        from drift.published.notebook import expanded_neighbors

        faiss.omp_set_num_threads(self.threads)
        queries = load_array(self.queries)[slice(*rows)]
        found = expanded_neighbors(load_array(self.embeddings), queries, self.k, self.include_self)
        return ExactNeighbors(*found, recomputed=0)


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
    include_self: bool

    @cached_property
    def index(self) -> "Index":
        """The index, read from its file and searched a little: a first search is a slow one.

        So every process that searches, a worker of a cluster too, times none that is its first.
        """
        from drift.indexes.search import list_length, timed_search

        embeddings = load_array(self.embeddings)
        index = load_index(self.config.graph, self.index_file, embeddings)
        length = list_length(min(self.grid), self.include_self)
        points = embeddings[load_array(self.queries)[:WARM_UP_QUERIES]]
        timed_search(index, points, length, self.config.ef(length))
        return index

    @property
    def n_queries(self) -> int:
        return len(load_array(self.queries))

    def blocks(self) -> list[SearchBlock]:
        from drift.indexes.search import group_shared_searches, list_length

        rows = row_blocks(
            self.n_queries, load_array(self.embeddings).shape[1] * 4 + max(self.grid) * 32
        )
        return [
            SearchBlock(ks, self.config.ef(list_length(max(ks), self.include_self)), *block)
            for ks in group_shared_searches(self.grid, self.config, self.include_self)
            for block in rows
        ]

    def __call__(self, block: SearchBlock) -> "tuple[dict[int, NeighborLists], SearchCost]":
        from drift.indexes.search import approximate_neighbors

        queries = load_array(self.queries)[block.start : block.stop]
        return approximate_neighbors(
            self.index,
            load_array(self.embeddings),
            queries,
            block.ks,
            block.ef_search,
            self.include_self,
        )

    def facts(self, costs: Mapping[SearchBlock, Mapping[str, Any]]) -> dict[str, Any]:
        """What the searches took, and what the library made of efSearch, by k.

        A search that several k share counts for each of them, and once in all. Distance
        computations are left out where the library does not count them.

        Parameters
        ----------
        costs : mapping
            For each block the fields of its `SearchCost`.
        """
        from drift.indexes.search import list_length

        n, lengths = self.n_queries, {k: list_length(k, self.include_self) for k in self.grid}
        by_k = {k: [cost for block, cost in costs.items() if k in block.ks] for k in self.grid}
        seconds = {k: sum(cost["seconds"] for cost in by_k[k]) for k in self.grid}
        facts = {
            "search_seconds": seconds,
            "search_seconds_in_all": sum(cost["seconds"] for cost in costs.values()),
            "queries_per_second": {k: n / seconds[k] for k in self.grid},
            "effective_ef": {k: self.config.effective_ef(lengths[k]) for k in self.grid},
        }
        counted = "distance_computations"
        if all(cost.get(counted) is not None for cost in costs.values()):
            per_query = {k: sum(cost[counted] for cost in by_k[k]) / n for k in self.grid}
            facts[f"{counted}_per_query"] = per_query
        return facts


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


def mean_overlap_and_found(exact: Path, lists: Mapping[int, Path]) -> dict[int, dict[str, float]]:
    """For lists of some k the mean overlap with the exact ones, and the share of ids found."""
    from drift.metrics import found, neighborhood_overlap

    exact_ids, shares = load_array(exact), {}
    for k, path in lists.items():
        ids = load_array(path)
        overlap = neighborhood_overlap(exact_ids[:, :k], ids).mean()
        shares[k] = {"overlap": float(overlap), "found": float(found(ids).mean())}
    return shares
