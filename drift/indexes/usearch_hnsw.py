"""HNSW graphs of usearch."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np
from usearch.index import Index as UsearchIndex

from drift import add_filename
from drift.indexes.base import Index
from drift.indexes.config import GraphConfig
from drift.indexes.policies import Value


class UsearchHnsw(Index):
    """usearch's ``Index`` in Euclidean space, with vectors in float32 (its default is half)."""

    def __init__(self, index: UsearchIndex):
        self._index = index

    @classmethod
    def build(cls, embeddings: np.ndarray, config: GraphConfig) -> Self:
        n, d = embeddings.shape
        index = UsearchIndex(
            ndim=d,
            metric="l2sq",
            dtype="f32",
            connectivity=config.M,
            expansion_add=config.ef_construction,
        )
        order = config.insertion_order(n)
        rows = np.arange(n) if order is None else order
        index.add(rows, embeddings[rows], threads=config.build_threads)
        return cls(index)

    @classmethod
    def load(cls, path: Path, embeddings: np.ndarray, config: GraphConfig) -> Self:
        return cls(UsearchIndex.restore(str(path)))

    def save(self, path: Path) -> None:
        self._save(path)
        while path.stat().st_size < self._index.serialized_length:
            # The library does not say why, or anything. What Python appends fails, and says it.
            with add_filename(path), path.open("ab") as file:
                file.write(bytes(1 << 20))
            self._save(path)

    def _save(self, path: Path) -> None:
        with contextlib.suppress(RuntimeError):
            self._index.save(str(path))

    def search(
        self, points: np.ndarray, length: int, settings: Mapping[str, Value]
    ) -> tuple[np.ndarray, np.ndarray]:
        # The library raises it to the length of the list by itself.
        self._index.expansion_search = settings["ef_search"]
        threads = faiss.omp_get_max_threads()  # what --threads sets
        found = self._index.search(points, length, threads=threads)
        self.distance_computations = found.computed_distances
        ids, squared = found.keys.astype(np.int64), found.distances
        ids[np.arange(length) >= found.counts[:, None]] = -1
        return ids, squared

    def value_range(self, setting: str, length: int) -> tuple[int, int]:
        return length, max(length, len(self._index))

    def statistics(self) -> dict[str, Any]:
        return {"index_bytes": int(self._index.serialized_length)}
