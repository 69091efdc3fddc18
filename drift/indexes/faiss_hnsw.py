"""HNSW graphs of FAISS."""

from collections.abc import Mapping
from typing import Any, Self

import faiss
import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order

from drift.indexes.config import GraphConfig
from drift.indexes.faiss_index import FaissIndex, threads
from drift.indexes.policies import Value


class FaissHnsw(FaissIndex):
    """FAISS's ``IndexHNSWFlat``. Methods as in `drift.indexes.base.Index`."""

    @classmethod
    def build(cls, embeddings: np.ndarray, config: GraphConfig) -> Self:
        n, d = embeddings.shape
        index = faiss.IndexHNSWFlat(d, config.M)
        index.hnsw.efConstruction = config.ef_construction
        row = config.insertion_order(n)
        with threads(config.build_threads):
            index.add(embeddings if row is None else embeddings[row])
        return cls(index, row)

    def search(
        self, points: np.ndarray, length: int, settings: Mapping[str, Value]
    ) -> tuple[np.ndarray, np.ndarray]:
        # More candidates than there are rows would only take memory, for each of them in advance.
        ef_search = min(settings["ef_search"], self._index.ntotal)
        parameters = faiss.SearchParametersHNSW(efSearch=ef_search)
        # One counter for the whole process, to which a search adds the sum of its threads: true as
        # long as a process searches for one thing at a time.
        counter = faiss.cvar.hnsw_stats
        counter.reset()
        squared, ids = self._index.search(points, length, params=parameters)
        self.distance_computations = counter.ndis
        return self._rows(ids), squared

    def value_range(self, setting: str, length: int) -> tuple[int, int]:
        return 1, self._index.ntotal

    def statistics(self) -> dict[str, Any]:
        """Levels, links of a node on the lowest one, and rows that no path of links leads to."""
        hnsw, n = self._index.hnsw, self._index.ntotal
        offsets = faiss.vector_to_array(hnsw.offsets).astype(np.int64)
        links = faiss.vector_to_array(hnsw.neighbors)
        linked = links >= 0
        # The slots of a node stand in one piece, level 0 first; those that are free hold -1.
        width = int(faiss.vector_to_array(hnsw.cum_nneighbor_per_level)[1])
        degree = linked[offsets[:-1, None] + np.arange(width)].sum(axis=1)
        taken = np.concatenate([[0], linked.cumsum()])
        adjacency = csr_array((np.ones(linked.sum()), links[linked], taken[offsets]), (n, n))
        reached = breadth_first_order(adjacency, hnsw.entry_point, return_predecessors=False)
        levels = np.bincount(faiss.vector_to_array(hnsw.levels))
        return {
            "rows_by_highest_level": [int(count) for count in levels[1:]],
            "mean_degree_level_0": float(degree.mean()),
            "min_degree_level_0": int(degree.min()),
            "unreachable_rows": n - len(reached),
            "index_bytes": int(n * (4 * self._index.d + 4) + links.nbytes + offsets.nbytes),
        }
