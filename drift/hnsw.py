"""Approximate neighbors by hierarchical navigable small world graphs, in FAISS and in hnswlib.

The two libraries build nearly the same graph (Malkov and Yashunin 2018) but read efSearch
differently when a list longer than efSearch is asked for. FAISS keeps a candidate list of
max(efSearch, k), yet stops once efSearch candidates are nearer than the next one to visit; hnswlib
raises efSearch to k.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import faiss
import hnswlib
import numpy as np

from drift.blocks import row_blocks
from drift.exact import by_distance, drop_self, neighbor_distances

MISSING = -1


@dataclass(frozen=True)
class HnswRun:
    """One way to build and search an index.

    Attributes
    ----------
    backend : str
        ``faiss`` or ``hnswlib``.
    M : int
        Links of a node on every level but the lowest, which has twice as many.
    ef_construction : int
        Candidates kept while a node's neighbors are looked for.
    ef_search : int or str
        Candidates kept in a search; ``"k"`` for as many as the list searched for is long.
    seed : int
        Seed of the graph.
    """

    backend: str
    M: int
    ef_construction: int
    ef_search: int | str
    seed: int

    @property
    def name(self) -> str:
        """For instance ``faiss_M32_efc200_ef50``, or ``hnswlib_M32_efc200_efk_seed7``."""
        seed = f"_seed{self.seed}" if self.seed else ""
        return f"{self.backend}_M{self.M}_efc{self.ef_construction}_ef{self.ef_search}{seed}"


class HnswIndex(Protocol):
    """A built graph."""

    def search(self, points: np.ndarray, k: int, ef_search: int) -> np.ndarray:
        """Ids of the neighbors found, int64 (Q, k), -1 at the end of a row that came back short."""


class FaissHnsw:
    """FAISS's ``IndexHNSWFlat``.

    Parameters
    ----------
    embeddings : ndarray of float32, shape (N, d)
        The vectors.
    M, ef_construction : int
        See `HnswRun`.
    seed : int
        0 inserts the rows in their order, any other number in a random order drawn with it.
    build_threads : int
        With more than one the graph depends on how the threads interleave.
    """

    def __init__(
        self, embeddings: np.ndarray, M: int, ef_construction: int, seed: int, build_threads: int
    ):
        n, d = embeddings.shape
        self._index = faiss.IndexHNSWFlat(d, M)
        self._index.hnsw.efConstruction = ef_construction
        # Where each row that the index knows stands in the embeddings.
        self._row = None if seed == 0 else np.random.default_rng(seed).permutation(n)
        search_threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(build_threads)
        self._index.add(embeddings if self._row is None else embeddings[self._row])
        faiss.omp_set_num_threads(search_threads)

    def search(self, points: np.ndarray, k: int, ef_search: int) -> np.ndarray:
        """See `HnswIndex.search`."""
        _, ids = self._index.search(
            points, k, params=faiss.SearchParametersHNSW(efSearch=ef_search)
        )
        return ids if self._row is None else np.where(ids == MISSING, MISSING, self._row[ids])


class HnswlibHnsw:
    """hnswlib's ``Index`` in Euclidean space. Parameters as in `FaissHnsw`, the seed its own."""

    def __init__(
        self, embeddings: np.ndarray, M: int, ef_construction: int, seed: int, build_threads: int
    ):
        n, d = embeddings.shape
        self._index = hnswlib.Index(space="l2", dim=d)
        # 100 is the library's own default; its generator takes 0 and 1 for the same seed.
        self._index.init_index(n, M, ef_construction, random_seed=100 + seed)
        self._index.add_items(embeddings, num_threads=build_threads)
        # FAISS's setting is what --threads sets, so both libraries search with as many.
        self._index.set_num_threads(faiss.omp_get_max_threads())

    def search(self, points: np.ndarray, k: int, ef_search: int) -> np.ndarray:
        """See `HnswIndex.search`."""
        # The library does this by itself for k; here it also holds for the shorter lists of
        # `_found`.
        self._index.set_ef(max(ef_search, k))
        try:
            return self._index.knn_query(points, k)[0].astype(np.int64)
        except RuntimeError:
            # One row with fewer than k results makes the library refuse the whole batch.
            return np.stack([self._found(point[None], k) for point in points])

    def _found(self, point: np.ndarray, k: int) -> np.ndarray:
        """The longest list that the library gives for one point, filled up to k."""
        ids = np.full(k, MISSING, np.int64)
        low, high = 0, k
        while low < high:
            length = (low + high + 1) // 2
            try:
                found = self._index.knn_query(point, length)[0]
            except RuntimeError:
                high = length - 1
            else:
                ids[:length], low = found, length
        return ids


BACKENDS: dict[str, Callable[[np.ndarray, int, int, int, int], HnswIndex]] = {
    "faiss": FaissHnsw,
    "hnswlib": HnswlibHnsw,
}


@dataclass(frozen=True)
class HnswNeighbors:
    """Approximate neighbor lists.

    Attributes
    ----------
    indices : ndarray of int32, shape (Q, k)
        By ascending distance, then id; -1 for a neighbor that is missing, at the end of the row.
    distances : ndarray of float32, shape (Q, k)
        Euclidean, of those ids (see `neighbor_distances`); +inf where missing.
    search_seconds : float
        Time that the library's search took.
    """

    indices: np.ndarray
    distances: np.ndarray
    search_seconds: float


def hnsw_neighbors(
    index: HnswIndex,
    embeddings: np.ndarray,
    queries: np.ndarray,
    k: int,
    ef_search: int | str,
    include_self: bool = False,
) -> HnswNeighbors:
    """Search k approximate neighbors of each query row.

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
    k : int
        Neighbors for each.
    ef_search : int or ``"k"``
        Candidates kept; ``"k"`` for the length of the list that is asked for.
    include_self : bool
        Whether a row may be its own neighbor.

    Returns
    -------
    HnswNeighbors
    """
    asked = k if include_self else k + 1
    ef = asked if ef_search == "k" else ef_search
    indices = np.empty((len(queries), k), np.int32)
    distances = np.empty((len(queries), k), np.float32)
    seconds = 0.0
    for start, stop in row_blocks(len(queries), bytes_per_row=embeddings.shape[1] * 4 + asked * 24):
        rows = queries[start:stop]
        points = np.ascontiguousarray(embeddings[rows])
        begun = time.perf_counter()
        ids = index.search(points, asked, ef)
        seconds += time.perf_counter() - begun
        lengths = neighbor_distances(embeddings, rows, ids)
        if not include_self:
            ids, lengths = drop_self(ids, lengths, rows)
        indices[start:stop], distances[start:stop] = by_distance(ids, lengths)
    return HnswNeighbors(indices, distances, seconds)
