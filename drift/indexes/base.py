"""What an index of any library can do."""

import errno
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from drift import InputError, add_filename
from drift.indexes.run import Run, Value

# Ids of neighbors, int64 (Q, length), and squared distances, float32, nearest first. Ids are -1 at
# the end of a row that is short, and the distances there have no meaning.
Nearest = tuple[np.ndarray, np.ndarray]


class Index:
    """An index that is built, in memory or in a server."""

    # Modules of the library, which need not be installed.
    packages: ClassVar[tuple[str, ...]] = ()
    # Settings of a search beside efSearch, and the words that they take.
    options: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    # By the last search, over all its points; None where the library does not count them.
    distance_computations: int | None = None
    # Whether its distances are direct differences of the vectors, and whether of compressed ones.
    is_direct, is_compressed = True, False

    @classmethod
    def check(cls, run: Run, d: int, lengths: Sequence[int]) -> None:
        """Raise InputError when the library does not take the settings; ImportError without it.

        `d` are the dimensions of the vectors, `lengths` those of the lists, as policies count them.
        """
        for package in cls.packages:
            importlib.import_module(package)

    @classmethod
    def warning(cls, run: Run) -> str | None:
        """What to know of such an index before it is built."""
        return None

    @classmethod
    def build(cls, embeddings: np.ndarray, run: Run) -> Self:
        """Build an index on vectors, float32 (N, d)."""
        raise NotImplementedError

    @classmethod
    def load(cls, path: Path, embeddings: np.ndarray, run: Run) -> Self:
        """Read an index that `save` wrote, given the vectors it was built on."""
        raise NotImplementedError

    @classmethod
    def stop_rule(cls, run: Run, length: int, ef_search: int) -> dict[str, int]:
        """What the library makes of an efSearch when a list of some length is searched for.

        It keeps as many ``candidates``, and stops when so many (``stops_after``) are nearer than
        the next one to visit. Here efSearch is raised to the length.
        """
        asked = {"list_length": length, "ef_search": ef_search}
        return asked | dict.fromkeys(("candidates", "stops_after"), max(ef_search, length))

    def save(self, path: Path) -> None:
        """Write the index to a file."""
        raise NotImplementedError

    def search(self, points: np.ndarray, length: int, settings: Mapping[str, Value]) -> Nearest:
        """As many neighbors of each point, float32 (Q, d), as the settings let it return."""
        raise NotImplementedError

    def value_range(self, setting: str, length: int) -> tuple[int, int]:
        """The smallest and the largest value of a setting that make a difference.

        Between them a higher value gives lists at least as good. Only targets need it.
        """
        raise NotImplementedError

    def statistics(self) -> dict[str, Any]:
        """What the library shows of its index: ``index_bytes`` at least."""
        raise NotImplementedError


def save_whole(path: Path, save: Callable[[str], None], n_bytes: int) -> None:
    """Save an index with a function of a library that does not notice a full disk."""
    save(str(path))
    if path.stat().st_size < n_bytes:
        with add_filename(path), path.open("ab") as file:
            file.write(bytes(1 << 20))  # what Python appends fails, and says why
            raise OSError(errno.EIO, "not all of it was written")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Name the file from which a library cannot read an index."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        why = str(error).rpartition("Error: ")[2] or "no reason is given"
        raise InputError(
            f"{path} cannot be read ({why}): remove it, then 04_hnsw_search.py builds it anew"
        ) from error
