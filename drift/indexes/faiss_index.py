"""What all indexes of FAISS share."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import faiss
import numpy as np

from drift import add_filename
from drift.indexes.base import Index
from drift.indexes.config import IndexConfig


class FaissIndex(Index):
    """An index of FAISS, and the row of each id that it knows; None where they are the same."""

    def __init__(self, index: faiss.Index, row: np.ndarray | None):
        self._index, self._row = index, row

    @classmethod
    def load(cls, path: Path, embeddings: np.ndarray, config: IndexConfig) -> Self:
        return cls(faiss.read_index(str(path)), config.insertion_order(len(embeddings)))

    def save(self, path: Path) -> None:
        # Written by Python's hand, a full disk is an OSError as everywhere.
        with add_filename(path), path.open("wb") as file:
            faiss.write_index(self._index, faiss.PyCallbackIOWriter(file.write))

    def _rows(self, ids: np.ndarray) -> np.ndarray:
        return ids if self._row is None else np.where(ids < 0, -1, self._row[ids])


@contextlib.contextmanager
def threads(n: int) -> Iterator[None]:
    """Let FAISS work with so many threads for a while."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(n)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
