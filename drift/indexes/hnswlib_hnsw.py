"""HNSW graphs of hnswlib."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import faiss
import hnswlib
import numpy as np

from drift import add_filename
from drift.indexes.base import Index
from drift.indexes.config import GraphConfig
from drift.indexes.policies import Value
from drift.vectors import row_blocks


class HnswlibHnsw(Index):
    """hnswlib's ``Index`` in Euclidean space. Methods as in `drift.indexes.base.Index`."""

    def __init__(self, index: hnswlib.Index):
        self._index = index
        # FAISS's setting is what --threads sets, so both libraries search with as many.
        self._index.set_num_threads(faiss.omp_get_max_threads())

    @classmethod
    def build(cls, embeddings: np.ndarray, config: GraphConfig) -> Self:
        n, d = embeddings.shape
        index = hnswlib.Index(space="l2", dim=d)
        # The library's own seed, here its default, draws levels alone: the links of the lowest one,
        # in which all rows are, would be the same with any other.
        index.init_index(n, config.M, config.ef_construction, random_seed=100)
        order = config.insertion_order(n)
        order = np.arange(n) if order is None else order
        # In blocks, so that there is no second copy of the vectors.
        for start, stop in row_blocks(n, 4 * d):
            rows = order[start:stop]
            index.add_items(embeddings[rows], rows, num_threads=config.build_threads)
        return cls(index)

    @classmethod
    def load(cls, path: Path, embeddings: np.ndarray, config: GraphConfig) -> Self:
        index = hnswlib.Index(space="l2", dim=embeddings.shape[1])
        index.load_index(str(path))
        return cls(index)

    def save(self, path: Path) -> None:
        self._index.save_index(str(path))
        while path.stat().st_size < self._index.index_file_size():
            # The library does not notice a full disk. What Python appends fails, and says why.
            with add_filename(path), path.open("ab") as file:
                file.write(bytes(1 << 20))
            self._index.save_index(str(path))

    def search(
        self, points: np.ndarray, length: int, settings: Mapping[str, Value]
    ) -> tuple[np.ndarray, np.ndarray]:
        # The library does this by itself for this length; here it also holds for the shorter lists
        # of `_found`.
        self._index.set_ef(max(settings["ef_search"], length))
        try:
            ids, squared = self._index.knn_query(points, length)
        except RuntimeError:
            # One row with too few results makes the library refuse the whole batch.
            rows = [self._found(point[None], length) for point in points]
            ids, squared = (np.stack(side) for side in zip(*rows, strict=True))
        return ids.astype(np.int64), squared

    def value_range(self, setting: str, length: int) -> tuple[int, int]:
        return length, max(length, self._index.element_count)

    def statistics(self) -> dict[str, Any]:
        return {"index_bytes": int(self._index.index_file_size())}

    def _found(self, point: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """The longest list that the library gives for one point, filled up with -1."""
        ids, squared = np.full(length, -1, np.int64), np.full(length, np.inf, np.float32)
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
