"""HNSW graphs of hnswlib."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np

from drift.indexes.base import Index, Nearest, reading, save_whole
from drift.indexes.run import Run, Value
from drift.vectors import row_blocks

with contextlib.suppress(ImportError):  # `check` says so
    import hnswlib


class HnswlibHnsw(Index):
    """hnswlib's ``Index`` in Euclidean space. Methods as in `drift.indexes.base.Index`."""

    packages = ("hnswlib",)

    def __init__(self, index: Any):
        self._index = index
        # This is what --threads sets, so all libraries search with as many.
        self._index.set_num_threads(faiss.omp_get_max_threads())

    @classmethod
    def build(cls, embeddings: np.ndarray, run: Run) -> Self:
        n, d = embeddings.shape
        index = hnswlib.Index(space="l2", dim=d)
        # The library's own seed, here its default, draws levels alone: the links of the lowest one,
        # in which all rows are, would be the same with any other.
        index.init_index(n, run.M, run.ef_construction, random_seed=100)
        order = run.insertion_order(n)
        # In blocks, so that there is no second copy of the vectors.
        for start, stop in row_blocks(n, 4 * d):
            rows = order[start:stop]
            index.add_items(embeddings[rows], rows, num_threads=run.build["threads"])
        return cls(index)

    @classmethod
    def load(cls, path: Path, embeddings: np.ndarray, run: Run) -> Self:
        index = hnswlib.Index(space="l2", dim=embeddings.shape[1])
        with reading(path):
            index.load_index(str(path))
        return cls(index)

    def save(self, path: Path) -> None:
        save_whole(path, self._index.save_index, self._index.index_file_size())

    def search(self, points: np.ndarray, length: int, settings: Mapping[str, Value]) -> Nearest:
        # As the library does for this length; here it also holds for the shorter lists of
        # `_longest`.
        self._index.set_ef(max(settings["ef_search"], length))
        try:
            ids, squared = self._index.knn_query(points, length)
        except RuntimeError:
            # One row with too few results makes the library refuse the whole batch.
            rows = [self._longest(point[None], length) for point in points]
            ids, squared = (np.stack(side) for side in zip(*rows, strict=True))
        return ids.astype(np.int64), squared

    def value_range(self, setting: str, length: int) -> tuple[int, int]:
        return length, max(length, self._index.element_count)

    def statistics(self) -> dict[str, Any]:
        return {"index_bytes": int(self._index.index_file_size())}

    def _longest(self, point: np.ndarray, length: int) -> Nearest:
        """The longest list that the library gives for one point, filled up with -1."""
        ids, squared = np.full(length, -1, np.int64), np.full(length, np.inf, np.float32)
        low, high = 0, length
        while low < high:
            middle = (low + high + 1) // 2
            try:
                ids[:middle], squared[:middle] = self._index.knn_query(point, middle)
                low = middle
            except RuntimeError:
                high = middle - 1
        return ids, squared
