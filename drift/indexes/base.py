"""What an index of any library can do."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from drift.indexes.config import IndexConfig, SearchConfig
from drift.indexes.policies import Value


class Index:
    """An index that is built."""

    # By the last search, over all its points; None where the library does not count them.
    distance_computations: int | None = None
    # Whether its distances are direct differences of the vectors, and whether of compressed ones.
    is_direct, is_compressed = True, False

    @classmethod
    def check(cls, config: SearchConfig, d: int, lengths: Iterable[int]) -> None:
        """Raise InputError for settings that the library does not take.

        `d` are the dimensions of the vectors, `lengths` those of the lists, as policies count them.
        """

    @classmethod
    def build(cls, embeddings: np.ndarray, config: IndexConfig) -> Self:
        """Build an index on vectors, float32 (N, d)."""
        raise NotImplementedError

    @classmethod
    def load(cls, path: Path, embeddings: np.ndarray, config: IndexConfig) -> Self:
        """Read an index that `save` wrote, given the vectors and `config` it was built on."""
        raise NotImplementedError

    def save(self, path: Path) -> None:
        """Write the index to a file."""
        raise NotImplementedError

    def search(
        self, points: np.ndarray, length: int, settings: Mapping[str, Value]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids found, int64 (Q, length), and their squared distances, float32, nearest first.

        Ids are -1 at the end of a row that is short, and the distances there have no meaning.
        """
        raise NotImplementedError

    def value_range(self, setting: str, length: int) -> tuple[int, int]:
        """The smallest and the largest value of a setting that make a difference.

        An `InputError` says that more of it does not mean more effort.
        """
        raise NotImplementedError

    def statistics(self) -> dict[str, Any]:
        """What the library shows of its index: ``index_bytes`` at least."""
        raise NotImplementedError
