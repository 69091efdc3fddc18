"""Approximate neighbors by hierarchical navigable small world graphs, in FAISS and in hnswlib.

The two libraries build their graphs by the same rules (Malkov and Yashunin 2018) but read efSearch
differently when a list longer than efSearch is asked for. FAISS keeps a candidate list of
max(efSearch, k), yet stops once efSearch candidates are nearer than the next one to visit; hnswlib
raises efSearch to k.
"""

from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from drift.indexes.config import GraphConfig


class Index(Protocol):
    """A built graph."""

    # By the last search, over all its points; None where the library does not count them.
    distance_computations: int | None

    @classmethod
    def build(cls, embeddings: np.ndarray, config: GraphConfig) -> Self:
        """Build a graph on vectors, float32 (N, d)."""

    @classmethod
    def load(cls, path: Path, embeddings: np.ndarray, config: GraphConfig) -> Self:
        """Read a graph that `save` wrote, given the vectors and `config` it was built on."""

    def save(self, path: Path) -> None:
        """Write the graph with its vectors to a file."""

    def search(
        self, points: np.ndarray, length: int, ef_search: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids found, int64 (Q, length), and their squared distances, float32, nearest first.

        Distances are by direct differences. Ids are -1 at the end of a row that is short, and the
        distances there have no meaning.
        """

    def statistics(self) -> dict[str, Any]:
        """What the library shows of its graph: ``index_bytes`` at least."""


def build_index(config: GraphConfig, embeddings: np.ndarray) -> Index:
    """Build a graph on vectors, float32 (N, d)."""
    return _index_class(config.backend).build(embeddings, config)


def load_index(config: GraphConfig, path: Path, embeddings: np.ndarray) -> Index:
    """Read a graph that `Index.save` wrote, given the `config` and the vectors it was built on."""
    return _index_class(config.backend).load(path, embeddings, config)


def _index_class(backend: str) -> type[Index]:
    # A library is imported when one of its graphs is wanted: that takes a good part of a second.
    if backend == "faiss":
        from drift.indexes.faiss_hnsw import FaissHnsw

        return FaissHnsw
    from drift.indexes.hnswlib_hnsw import HnswlibHnsw

    return HnswlibHnsw
