"""Where a file of others is opened, and what the readers of every format share."""

import contextlib
import itertools
import json
import math
import re
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
def parsing(path: Path, kind: str) -> Iterator[None]:
    """Make an InputError of any error; parsers of damaged files raise more kinds than they say."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        message = f"{path} cannot be read as {kind} ({reason}): write or copy it again"
        raise InputError(message) from error


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
            raise InputError(
                f"{path} is {'cut short' if end < expected else 'too long'}: it has {end} bytes, "
                f"and {expected} by its header, {dtype} of shape {shape}: write or copy it again"
            )
        return np.memmap(path, dtype, "r", offset, shape, order)

    return Held(dtype, shape, read)


def check_matrix(path: Path, name: str, held: Held) -> None:
    """Refuse what is no matrix of numbers, with a line that makes one of it where there is such."""
    if held.is_matrix and min(held.shape) > 0:
        return
    what = f"{path}, {name!r}," if name else str(path)
    raise InputError(
        f"{what} holds {str(held.dtype)[:80]} of shape {str(held.shape)[:80]}: write floats or "
        "whole numbers of shape (rows, columns), both at least 1, and a missing neighbor as -1"
        + _as_matrix(path, name, held)
    )


def conversion(path: Path, expression: str) -> str:
    """A line of Python that makes a file which is read of one that is not, to end a sentence with.

    Of `expression` FILE becomes the name of the one, TO that of the other.
    """
    to = path.with_suffix(".rows.npy" if path.suffix == ".npy" else ".npy")
    for word, name in (("FILE", path), ("TO", to)):
        expression = expression.replace(word, json.dumps(str(name), ensure_ascii=False))
    modules = ("gzip", "h5py", "numpy", "pandas", "pickle", "safetensors.torch", "torch")
    used = [name for name in modules if re.search(rf"(?<![\w.]){name}\.", expression)]
    trust = "  (a pickle runs code: only what you trust)" if "pickle" in expression else ""
    return f"; in Python: import {', '.join(used)}; {expression}{trust}"


def _as_matrix(path: Path, name: str, held: Held) -> str:
    """The `conversion` of an array or a column of another kind, where there is one."""
    key, suffix, table = f"[{name!r}]", path.suffix.lower(), "pandas.read_parquet(FILE)"
    loads = {
        ".npy": "numpy.load(FILE, allow_pickle=True)",
        ".npz": f"numpy.load(FILE, allow_pickle=True){key}",
        ".safetensors": f"safetensors.torch.load_file(FILE){key}",
        **dict.fromkeys((".pt", ".pth"), f"torch.load(FILE){key if name else ''}"),
        **dict.fromkeys((".h5", ".hdf5", ".h5ad"), f"h5py.File(FILE){key}[()]"),
    }
    if 0 in held.shape or not held.shape:
        return ""
    if suffix == ".parquet" and pa.types.is_nested(held.dtype):
        matrix = f"pandas.DataFrame({table}{key}.tolist()).to_numpy('float32')"
    elif suffix == ".parquet":  # a column for each dimension
        matrix = f"{table}.drop(columns='id', errors='ignore').select_dtypes('number').to_numpy()"
    elif suffix in loads:
        matrix = f"numpy.array({loads[suffix]}.tolist(), 'float32').reshape({held.shape[0]}, -1)"
    else:
        return ""
    return conversion(path, f"numpy.save(TO, {matrix})")
