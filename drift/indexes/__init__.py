"""Approximate neighbors by indexes of several libraries, a module for each.

Those of hierarchical navigable small world graphs build by the same rules (Malkov and Yashunin
2018) but read efSearch differently when a list longer than efSearch is asked for. FAISS keeps a
candidate list of max(efSearch, k), yet stops once efSearch candidates are nearer than the next one
to visit; hnswlib and usearch raise efSearch to k; pgvector returns efSearch rows at most.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from drift import InputError
from drift.indexes.base import Index
from drift.indexes.config import FactoryConfig, IndexConfig, SearchConfig

REQUIREMENTS = "requirements-backends.txt"


def check_search(config: SearchConfig, d: int, lengths: Iterable[int]) -> None:
    """Raise InputError when the library is not installed, or for what `Index.check` refuses."""
    _index_class(config.index).check(config, d, lengths)


def build_index(config: IndexConfig, embeddings: np.ndarray) -> Index:
    """Build an index on vectors, float32 (N, d)."""
    return _index_class(config).build(embeddings, config)


def load_index(config: IndexConfig, path: Path, embeddings: np.ndarray) -> Index:
    """Read an index that `Index.save` wrote, given the `config` and the vectors it was built on."""
    return _index_class(config).load(path, embeddings, config)


def _index_class(config: IndexConfig) -> type[Index]:
    # A library is imported when one of its indexes is wanted: that takes a good part of a second.
    try:
        if isinstance(config, FactoryConfig):
            from drift.indexes.faiss_factory import FaissFactory

            return FaissFactory
        if config.backend == "faiss":
            from drift.indexes.faiss_hnsw import FaissHnsw

            return FaissHnsw
        if config.backend == "hnswlib":
            from drift.indexes.hnswlib_hnsw import HnswlibHnsw

            return HnswlibHnsw
        if config.backend == "usearch":
            from drift.indexes.usearch_hnsw import UsearchHnsw

            return UsearchHnsw
        from drift.indexes.pgvector_hnsw import PgvectorHnsw

        return PgvectorHnsw
    except ImportError as error:
        raise InputError(
            f"a run on {config.backend} needs its library ({error}): pip install -r {REQUIREMENTS}"
        ) from error
