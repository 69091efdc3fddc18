"""Where a file of others is opened, and what the readers of every format share."""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from drift import InputError, regular_file

# Deflate packs 1032 bytes into one at most. A file that claims to hold more is no file of numbers.
LARGEST_RATIO = 1100


class Held(NamedTuple):
    """What a file holds under one name, and how to get it once it is wanted.

    An array of a type of NumPy; or a column of Arrow's, which is read in batches.
    """

    dtype: np.dtype | pa.DataType | str
    shape: tuple[int, ...]
    read: Callable[[], Any]

    @property
    def is_column(self) -> bool:
        return isinstance(self.dtype, pa.DataType)

    @property
    def is_lists(self) -> bool:
        kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
        return self.is_column and any(is_kind(self.dtype) for is_kind in kinds)

    @property
    def is_matrix(self) -> bool:
        """Whether it is rows of numbers."""
        if self.is_column:
            return is_number(getattr(self.dtype, "value_type", None))
        return len(self.shape) == 2 and getattr(self.dtype, "kind", None) in ("f", "i", "u")

    @property
    def is_words(self) -> bool:
        """Whether it is rows of words, in an array."""
        return len(self.shape) == 2 and getattr(self.dtype, "kind", None) in ("U", "S")


# What makes a file that is read of anything that Python can.
AS_MATRIX = (
    "in Python, where it is x, numpy.save('rows.npy', numpy.array(list(x), 'float32').reshape("
    "len(x), -1)), and name that"
)
# By name; a file of one matrix without a name holds it as "".
Contents = dict[str, Held]


def in_memory(array: np.ndarray) -> Held:
    return Held(array.dtype, array.shape, lambda: array)


def is_number(kind: pa.DataType | None) -> bool:
    return kind is not None and (pa.types.is_integer(kind) or pa.types.is_floating(kind))


def file_size(path: Path) -> int:
    """Size of a regular file that can be opened; InputError for anything else."""
    try:
        size = regular_file(path).st_size
        path.open("rb").close()
    except OSError as error:
        message = f"{path} cannot be opened ({error.strerror}): see to its permissions and place"
        raise InputError(message) from error
    if size == 0:
        raise InputError(f"{path} is empty: write or copy it again")
    return size


@contextlib.contextmanager
def parsing(path: Path) -> Iterator[None]:
    """Make an InputError of any error; parsers of damaged files raise more kinds than they say."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise InputError(f"{path} cannot be read ({reason}): write or copy it again") from error


def quoted(names: Iterable[Any], most: int = 10) -> str:
    """The first of some names, quoted, which also keeps them in the line."""
    first = [repr(str(name)[:60]) for name in itertools.islice(names, most + 1)]
    return ", ".join([*first[:most], *(["..."] if len(first) > most else [])]) or "none"


def mapped(
    path: Path, dtype: np.dtype, shape: tuple[int, ...], offset: int, end: int, order: str = "C"
) -> Held:
    """An array of which the bytes from `offset` to `end` are all."""

    def read() -> np.ndarray:
        expected = offset + math.prod(shape) * dtype.itemsize
        if end != expected:
            flaw = "cut short" if end < expected else "too long"
            raise ValueError(f"it is {flaw}: {end} bytes, not {expected}, {dtype} of shape {shape}")
        return np.memmap(path, dtype, "r", offset, shape, order)

    return Held(dtype, shape, read)
