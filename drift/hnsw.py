"""Approximate neighbors by hierarchical navigable small world graphs, in FAISS and in hnswlib.

The two libraries build nearly the same graph (Malkov and Yashunin 2018) but read efSearch
differently when a list longer than efSearch is asked for. FAISS keeps a candidate list of
max(efSearch, k), yet stops once efSearch candidates are nearer than the next one to visit; hnswlib
raises efSearch to k.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import faiss
import hnswlib
import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order

from drift import InputError
from drift.exact import by_distance, drop_self
from drift.files import naming

MISSING = -1
EF_SEARCH = re.compile("[1-9][0-9]{0,8}|([2-9]|[1-9][0-9]{1,2})?k")


@dataclass(frozen=True)
class Graph:
    """How an HNSW graph is built.

    Attributes
    ----------
    backend : str
        ``faiss`` or ``hnswlib``.
    M : int
        Links of a node on every level but the lowest, which has twice as many.
    ef_construction : int
        Candidates kept while a node's neighbors are looked for.
    seed : int
        Seed of the graph. FAISS draws the order of insertion with it (0: the rows in their order),
        hnswlib the levels of the nodes.
    build_threads : int
        With more than one the graph depends on how the threads interleave.
    """

    backend: str
    M: int
    ef_construction: int
    seed: int = 0
    build_threads: int = 1


@dataclass(frozen=True)
class HnswRun:
    """A graph and the breadth of the search in it.

    Attributes
    ----------
    graph : Graph
        The graph.
    ef_search : str
        Candidates kept in a search: a number, or ``k``, ``2k``, ... for as many as the list
        searched for is long, or twice as many.
    """

    graph: Graph
    ef_search: str

    def __post_init__(self) -> None:
        if self.graph.backend not in BACKENDS or not EF_SEARCH.fullmatch(self.ef_search):
            raise InputError(
                f"{self.graph.backend}:{self.ef_search} is no run: write BACKEND:EF, with BACKEND "
                f"one of {', '.join(BACKENDS)} and EF a whole number, k, or a multiple like 2k"
            )

    @property
    def name(self) -> str:
        """For instance ``faiss_M32_efc200_ef50``, or ``hnswlib_M32_efc200_efk_seed7``."""
        graph = self.graph
        seed = f"_seed{graph.seed}" if graph.seed else ""
        return f"{graph.backend}_M{graph.M}_efc{graph.ef_construction}_ef{self.ef_search}{seed}"

    def ef(self, length: int) -> int:
        """The efSearch that is set when a list of some length is searched for."""
        if not self.ef_search.endswith("k"):
            return int(self.ef_search)
        return int(self.ef_search[:-1] or 1) * length

    def effective_ef(self, length: int) -> dict[str, int]:
        """What the library makes of it, by its own rule.

        Returns
        -------
        dict
            ``list_length``, the neighbors asked for; ``ef_search``, what is set; ``candidates``,
            how many are kept; ``stops_after``, how many of them must be nearer than the next one
            to visit for the search to stop.
        """
        ef = self.ef(length)
        stop = ef if self.graph.backend == "faiss" else max(ef, length)
        return {
            "list_length": length,
            "ef_search": ef,
            "candidates": max(ef, length),
            "stops_after": stop,
        }


class HnswIndex(Protocol):
    """A built graph."""

    @classmethod
    def build(cls, embeddings: np.ndarray, graph: Graph) -> Self:
        """Build a graph on vectors, float32 (N, d)."""

    @classmethod
    def load(cls, path: Path, embeddings: np.ndarray, graph: Graph) -> Self:
        """Read a graph that `save` wrote, given the vectors and `graph` it was built on."""

    def save(self, path: Path) -> None:
        """Write the graph with its vectors to a file."""

    def search(
        self, points: np.ndarray, length: int, ef_search: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The neighbors found, nearest first.

        Returns
        -------
        ids : ndarray of int64, shape (Q, length)
            -1 at the end of a row that is short.
        squared : ndarray of float32, shape (Q, length)
            Squared distances, by direct differences; of no meaning where the id is -1.
        """

    def statistics(self) -> dict[str, Any]:
        """What the library shows of its graph: ``index_bytes`` at least."""


class FaissHnsw:
    """FAISS's ``IndexHNSWFlat``. Methods as in `HnswIndex`."""

    def __init__(self, index: faiss.IndexHNSWFlat, row: np.ndarray | None):
        self._index = index
        self._row = row

    @staticmethod
    def _rows(n: int, seed: int) -> np.ndarray | None:
        """Where each row that the index knows stands in the embeddings; None for the same place."""
        return None if seed == 0 else np.random.default_rng(seed).permutation(n)

    @classmethod
    def build(cls, embeddings: np.ndarray, graph: Graph) -> Self:
        n, d = embeddings.shape
        index = faiss.IndexHNSWFlat(d, graph.M)
        index.hnsw.efConstruction = graph.ef_construction
        row = cls._rows(n, graph.seed)
        search_threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(graph.build_threads)
        index.add(embeddings if row is None else embeddings[row])
        faiss.omp_set_num_threads(search_threads)
        return cls(index, row)

    @classmethod
    def load(cls, path: Path, embeddings: np.ndarray, graph: Graph) -> Self:
        return cls(faiss.read_index(str(path)), cls._rows(len(embeddings), graph.seed))

    def save(self, path: Path) -> None:
        # Written by Python's hand, a full disk is an OSError as everywhere.
        with naming(path), path.open("wb") as file:
            faiss.write_index(self._index, faiss.PyCallbackIOWriter(file.write))

    def search(
        self, points: np.ndarray, length: int, ef_search: int
    ) -> tuple[np.ndarray, np.ndarray]:
        # More candidates than there are rows would only take memory, for each of them in advance.
        parameters = faiss.SearchParametersHNSW(efSearch=min(ef_search, self._index.ntotal))
        squared, ids = self._index.search(points, length, params=parameters)
        if self._row is not None:
            ids = np.where(ids == MISSING, MISSING, self._row[ids])
        return ids, squared

    def statistics(self) -> dict[str, Any]:
        """Levels, links of a node on the lowest one, and how many rows no search can reach.

        A row counts as out of reach when no path of links, on any level, leads to it from the entry
        point of the graph.
        """
        hnsw = self._index.hnsw
        n = self._index.ntotal
        offsets = faiss.vector_to_array(hnsw.offsets).astype(np.int64)
        links = faiss.vector_to_array(hnsw.neighbors)
        first_of_level = faiss.vector_to_array(hnsw.cum_nneighbor_per_level)
        linked = links >= 0
        # The slots of a node stand in one piece, level 0 first; those that are free hold -1.
        width = int(first_of_level[1])
        lowest = linked[offsets[:-1, None] + np.arange(width)]
        taken = np.concatenate([[0], linked.cumsum()])
        adjacency = csr_array(
            (np.ones(linked.sum(), np.int8), links[linked], taken[offsets]), (n, n)
        )
        reached = breadth_first_order(adjacency, hnsw.entry_point, return_predecessors=False)
        degree = lowest.sum(axis=1)
        levels = np.bincount(faiss.vector_to_array(hnsw.levels))
        return {
            "rows_by_highest_level": [int(count) for count in levels[1:]],
            "mean_degree_level_0": float(degree.mean()),
            "min_degree_level_0": int(degree.min()),
            "unreachable_rows": int(n - len(reached)),
            "index_bytes": int(n * (4 * self._index.d + 4) + links.nbytes + offsets.nbytes),
        }


class HnswlibHnsw:
    """hnswlib's ``Index`` in Euclidean space. Methods as in `HnswIndex`."""

    def __init__(self, index: hnswlib.Index):
        self._index = index
        # FAISS's setting is what --threads sets, so both libraries search with as many.
        self._index.set_num_threads(faiss.omp_get_max_threads())

    @classmethod
    def build(cls, embeddings: np.ndarray, graph: Graph) -> Self:
        n, d = embeddings.shape
        index = hnswlib.Index(space="l2", dim=d)
        # 100 is the library's own default; its generator takes 0 and 1 for the same seed.
        index.init_index(n, graph.M, graph.ef_construction, random_seed=100 + graph.seed)
        index.add_items(embeddings, num_threads=graph.build_threads)
        return cls(index)

    @classmethod
    def load(cls, path: Path, embeddings: np.ndarray, graph: Graph) -> Self:
        index = hnswlib.Index(space="l2", dim=embeddings.shape[1])
        index.load_index(str(path))
        return cls(index)

    def save(self, path: Path) -> None:
        self._index.save_index(str(path))
        while path.stat().st_size < self._index.index_file_size():
            # The library does not notice a full disk. What Python appends fails, and says why.
            with naming(path), path.open("ab") as file:
                file.write(bytes(1 << 20))
            self._index.save_index(str(path))

    def search(
        self, points: np.ndarray, length: int, ef_search: int
    ) -> tuple[np.ndarray, np.ndarray]:
        # The library does this by itself for this length; here it also holds for the shorter lists
        # of `_found`.
        self._index.set_ef(max(ef_search, length))
        try:
            ids, squared = self._index.knn_query(points, length)
        except RuntimeError:
            # One row with too few results makes the library refuse the whole batch.
            rows = [self._found(point[None], length) for point in points]
            ids, squared = (np.stack(side) for side in zip(*rows, strict=True))
        return ids.astype(np.int64), squared

    def statistics(self) -> dict[str, Any]:
        return {"index_bytes": int(self._index.index_file_size())}

    def _found(self, point: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """The longest list that the library gives for one point, filled up with -1."""
        ids, squared = np.full(length, MISSING, np.int64), np.full(length, np.inf, np.float32)
        low, high = 0, length
        while low < high:
            middle = (low + high + 1) // 2
            try:
                found = self._index.knn_query(point, middle)
            except RuntimeError:
                high = middle - 1
            else:
                ids[:middle], squared[:middle] = found
                low = middle
        return ids, squared


BACKENDS: dict[str, type[HnswIndex]] = {"faiss": FaissHnsw, "hnswlib": HnswlibHnsw}


def list_length(k: int, include_self: bool) -> int:
    """How many neighbors to ask an index for: one more than k if the query will be dropped."""
    return k if include_self else k + 1


def searches(ks: Sequence[int], run: HnswRun, include_self: bool) -> list[tuple[int, ...]]:
    """Group the ks whose lists one search gives.

    While the list asked for is no longer than a fixed efSearch, both libraries go the same way
    through the graph whatever k is, and return the k nearest of the same candidates: a shorter list
    is the beginning of a longer one, but for ties at its end, which `hnsw_neighbors` looks after.
    Beyond, every k is searched for by itself.
    """
    if run.ef_search.endswith("k"):
        return [(k,) for k in ks]
    shared = tuple(k for k in ks if list_length(k, include_self) <= run.ef(k))
    return ([shared] if shared else []) + [(k,) for k in ks if k not in shared]


class NeighborLists(NamedTuple):
    """Neighbor lists of one length.

    Attributes
    ----------
    indices : ndarray of int32, shape (Q, k)
        By ascending distance, then id; -1 for a neighbor that is missing, at the end of the row.
    distances : ndarray of float32, shape (Q, k)
        Euclidean, of those ids, as the library computed them by direct differences in float32;
        +inf where missing.
    """

    indices: np.ndarray
    distances: np.ndarray


def hnsw_neighbors(
    index: HnswIndex,
    embeddings: np.ndarray,
    queries: np.ndarray,
    ks: Sequence[int],
    ef_search: int,
    include_self: bool = False,
) -> tuple[dict[int, NeighborLists], float]:
    """Approximate neighbors of query rows, by one search for the longest of the lists asked for.

    Without `include_self` the index is asked for one more, and the query itself is dropped from its
    list, or the last entry where the list lacks it.

    Parameters
    ----------
    index : HnswIndex
        A graph built on `embeddings`.
    embeddings : ndarray of float32, shape (N, d)
        The vectors.
    queries : ndarray of int, shape (Q,)
        Rows to search for.
    ks : sequence of int
        Lengths of the lists; more than one only as `searches` groups them.
    ef_search : int
        Candidates kept.
    include_self : bool
        Whether a row may be its own neighbor.

    Returns
    -------
    lists : dict of int to NeighborLists
        For each k its lists.
    seconds : float
        Time that the library's search took.
    """
    points = np.ascontiguousarray(embeddings[queries])
    begun = time.perf_counter()
    longest = index.search(points, list_length(max(ks), include_self), ef_search)
    seconds = time.perf_counter() - begun
    lists = {}
    for k in ks:
        length = list_length(k, include_self)
        ids, squared = (part[:, :length] for part in longest)
        rows = _tied_at_the_end(*longest, length)
        if len(rows):
            # Which of the tied ones it keeps, and in which order, the library decides for each
            # length anew.
            ids, squared = ids.copy(), squared.copy()
            begun = time.perf_counter()
            ids[rows], squared[rows] = index.search(points[rows], length, ef_search)
            seconds += time.perf_counter() - begun
        distances = np.where(ids == MISSING, np.float32(np.inf), np.sqrt(squared))
        if not include_self:
            ids, distances = drop_self(ids, distances, queries)
        ids, distances = by_distance(ids, distances)
        lists[k] = NeighborLists(ids.astype(np.int32), distances)
    return lists, seconds


def _tied_at_the_end(ids: np.ndarray, squared: np.ndarray, length: int) -> np.ndarray:
    """Rows of which the last of `length` neighbors is tied with the one before it or behind it."""
    if length == ids.shape[1]:
        return np.empty(0, np.int64)
    ends = squared[:, max(0, length - 2) : length + 1]
    tied = (ends[:, 1:] == ends[:, :-1]).any(axis=1)
    return np.flatnonzero(tied & (ids[:, length - 1] != MISSING))
