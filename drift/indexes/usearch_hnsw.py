"""HNSW graphs of usearch."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np

from drift.indexes.base import Index, Nearest, reading, save_whole
from drift.indexes.run import Run, Value


class UsearchHnsw(Index):
    """usearch's ``Index`` in Euclidean space, with vectors in float32 (its default is half)."""

    packages = ("usearch.index",)

    def __init__(self, index: Any):
        self._index = index

    @classmethod
    def build(cls, embeddings: np.ndarray, run: Run) -> Self:
        from usearch.index import Index as UsearchIndex

        n, d = embeddings.shape
        index = UsearchIndex(
            ndim=d,
            metric="l2sq",
            dtype="f32",
            connectivity=run.M,
            expansion_add=run.ef_construction,
        )
        rows = run.insertion_order(n)
        index.add(rows, embeddings[rows], threads=run.build["threads"])
        return cls(index)

    @classmethod
    def load(cls, path: Path, embeddings: np.ndarray, run: Run) -> Self:
        from usearch.index import Index as UsearchIndex

        with reading(path):
            if (index := UsearchIndex.restore(str(path))) is None:
                raise RuntimeError("it is none of usearch")
        return cls(index)

    def save(self, path: Path) -> None:
        def save(name: str) -> None:
            with contextlib.suppress(RuntimeError):  # which does not say why
                self._index.save(name)

        save_whole(path, save, self._index.serialized_length)

    def search(self, points: np.ndarray, length: int, settings: Mapping[str, Value]) -> Nearest:
        # The library raises it to the length of the list by itself.
        self._index.expansion_search = settings["ef_search"]
        threads = faiss.omp_get_max_threads()  # what --threads sets
        matches = self._index.search(points, length, threads=threads)
        self.distance_computations = matches.computed_distances
        if len(points) == 1:  # the library leaves out a dimension, and what is missing
            gap = (0, length - len(matches))
            ids = np.pad(matches.keys.astype(np.int64), gap, constant_values=-1)
            return ids[None], np.pad(matches.distances, gap)[None]
        ids = matches.keys.astype(np.int64)
        ids[np.arange(length) >= matches.counts[:, None]] = -1
        return ids, matches.distances

    def value_range(self, setting: str, length: int) -> tuple[int, int]:
        return length, max(length, len(self._index))

    def statistics(self) -> dict[str, Any]:
        return {"index_bytes": int(self._index.serialized_length)}
