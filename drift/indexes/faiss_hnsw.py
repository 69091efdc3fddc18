"""HNSW graphs of FAISS."""

from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order

from drift import add_filename
from drift.indexes.config import GraphConfig


class FaissHnsw:
    """FAISS's ``IndexHNSWFlat``. Methods as in `drift.indexes.Index`."""

    def __init__(self, index: faiss.IndexHNSWFlat, row: np.ndarray | None):
        self._index = index
        self._row = row  # of each id that the index knows; None where they are the same
        self.distance_computations = 0

    @classmethod
    def build(cls, embeddings: np.ndarray, config: GraphConfig) -> Self:
        n, d = embeddings.shape
        index = faiss.IndexHNSWFlat(d, config.M)
        index.hnsw.efConstruction = config.ef_construction
        row = config.insertion_order(n)
        search_threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(config.build_threads)
        index.add(embeddings if row is None else embeddings[row])
        faiss.omp_set_num_threads(search_threads)
        return cls(index, row)

    @classmethod
    def load(cls, path: Path, embeddings: np.ndarray, config: GraphConfig) -> Self:
        return cls(faiss.read_index(str(path)), config.insertion_order(len(embeddings)))

    def save(self, path: Path) -> None:
        # Written by Python's hand, a full disk is an OSError as everywhere.
        with add_filename(path), path.open("wb") as file:
            faiss.write_index(self._index, faiss.PyCallbackIOWriter(file.write))

    def search(
        self, points: np.ndarray, length: int, ef_search: int
    ) -> tuple[np.ndarray, np.ndarray]:
        # More candidates than there are rows would only take memory, for each of them in advance.
        parameters = faiss.SearchParametersHNSW(efSearch=min(ef_search, self._index.ntotal))
        # One counter for the whole process, to which a search adds the sum of its threads: true as
        # long as a process searches for one thing at a time.
        counter = faiss.cvar.hnsw_stats
        counter.reset()
        squared, ids = self._index.search(points, length, params=parameters)
        self.distance_computations = counter.ndis
        if self._row is not None:
            ids = np.where(ids < 0, -1, self._row[ids])
        return ids, squared

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
