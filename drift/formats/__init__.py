"""Vectors and neighbor lists in the files that people have, memory-mapped where that is possible.

A file may be damaged, or made to do harm. What it claims about itself is held against its size
before anything is allocated, and nothing in it is run. Every format is a function of a file and its
size that gives what the file holds, by name (`drift.formats.opening.Held`); to add one, add it to
`READERS`.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from drift import InputError
from drift.formats import arrays, hdf5, tables
from drift.formats.opening import (
    AS_MATRIX,
    Contents,
    Held,
    file_size,
    in_memory,
    is_number,
    parsing,
    quoted,
)

READERS = {
    ".npy": arrays.read_npy,
    ".npz": arrays.read_npz,
    ".safetensors": arrays.read_safetensors,
    **dict.fromkeys((".pt", ".pth"), arrays.read_pt),
    **dict.fromkeys(arrays.ROWS_WITH_DIMENSIONS, arrays.read_rows_with_dimensions),
    **dict.fromkeys(arrays.HEADER_AND_VALUES, arrays.read_header_and_values),
    **dict.fromkeys((".hdf5", ".h5", ".h5ad"), hdf5.read_hdf5),
    ".parquet": tables.read_parquet,
    **dict.fromkeys((".csv", ".tsv", ".txt", ".vec"), tables.read_text),
    ".json": tables.read_json,
    **dict.fromkeys((".jsonl", ".ndjson"), tables.read_json_lines),
}
SUFFIXES = tuple(READERS)
NAMES = (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string)
# Matrices of these names are taken before others.
USUAL = ("emb", "")


def files_of(path: Path) -> list[Path]:
    """The files of which a matrix consists: one, or those of a folder or a pattern, by name."""
    if path.is_dir():
        files = [file for file in path.iterdir() if arrays.suffix_of(file) in READERS]
    elif not path.exists() and set("*?[") & set(path.name):
        files = list(path.parent.glob(path.name))
    else:
        return [path]
    if len(suffixes := {arrays.suffix_of(file) for file in files}) != 1:
        found = f"files {quoted(sorted(suffixes))}" if files else "no file of vectors"
        raise InputError(f"{path} has {found}: name those of one matrix, with a pattern say, *.npy")
    return sorted(files)


def contents_of(path: Path) -> Contents:
    """What a file holds, by name; InputError for one that is not whole, or of no known format."""
    size, suffix = file_size(path), arrays.suffix_of(path)
    if suffix in READERS:
        found = _parsed(path, functools.partial(READERS[suffix], path, size))
        reads = {name: functools.partial(_parsed, path, held.read) for name, held in found.items()}
        return {name: held._replace(read=reads[name]) for name, held in found.items()}
    known = ", ".join(SUFFIXES)
    raise InputError(f"{path} is of no known format: name a file {known}; or {AS_MATRIX}")


def _parsed(path: Path, read: Callable[[], Any]) -> Any:
    with parsing(path):
        return read()


def matrix_of(
    path: Path, contents: Contents, part: str = "train", column: str | None = None
) -> Held:
    """The matrix of a file that `column` names; else the one called `part`, or the only one."""
    matrices = [name for name, held in contents.items() if held.is_matrix]
    if path.suffix.lower() == ".h5ad":
        matrices = [name for name in matrices if name.startswith("obsm/")]
    if column is None:
        choice = [name for name in (part, *USUAL) if name in matrices][:1] or matrices
    else:  # of a path its last part will do
        choice = [name for name in contents if name == column]
        choice = choice or [name for name in contents if name.rpartition("/")[2] == column]
    held = contents[choice[0]] if len(choice) == 1 else None
    if held and held.is_column and held.is_matrix:
        with parsing(path):
            held = in_memory(tables.vectors_of(held, file_size(path)))
    if held and held.is_matrix and min(held.shape) > 0:
        return held
    if len(choice) > 1:
        raise InputError(f"{path} has several matrices, {quoted(choice)}: say which, --column")
    called = "" if column is None else f" called {column!r}"
    there = "; ".join(
        f"{quoted([name])}, {str(held.dtype)[:80]} of shape {str(held.shape)[:80]}"
        for name, held in itertools.islice(contents.items(), 10)
    )
    is_empty = contents and all(0 in held.shape for held in contents.values())
    advice = "write one row at the least" if is_empty else AS_MATRIX
    raise InputError(f"{path} has no rows of numbers{called}: it has {there}: {advice}")


def read_matrix(path: Path, part: str = "train", column: str | None = None) -> np.ndarray:
    """Vectors or other numbers from a file of one of `SUFFIXES`: float or int (rows, columns).

    Both are at least 1. The type and byte order are those of the file. It is a read-only memory map
    except for tables, and for arrays that are in chunks or compressed. What is null is NaN.
    InputError when there is no such file, or it is not whole, or holds anything else. Whether its
    numbers are finite, or are ids that can be, is not looked at.
    """
    return matrix_of(path, contents_of(path), part, column).read()


class MatrixRows:
    """Rows of matrices that lie one below the other, mapped anew for each block."""

    ndim = 2

    def __init__(self, parts: Sequence[Held], rows: np.ndarray | None = None):
        shapes, self._parts = {part.shape[1] for part in parts}, parts
        if len(shapes) > 1:
            raise InputError(f"the files have rows of {quoted(sorted(shapes))} values: name some")
        self._ends = np.cumsum([part.shape[0] for part in parts])
        self._rows = np.arange(self._ends[-1]) if rows is None else rows
        self.shape = (len(self._rows), parts[0].shape[1])
        self.dtype = np.result_type(*(part.dtype for part in parts))
        self.size = math.prod(self.shape)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, block: slice) -> np.ndarray:
        rows = self._rows[block]
        values = np.empty((len(rows), self.shape[1]), self.dtype)
        which = np.searchsorted(self._ends, rows, side="right")
        for part in np.unique(which):
            held, here = self._parts[part], which == part
            values[here] = held.read()[rows[here] - (self._ends[part] - held.shape[0])]
        return values


def column_of(contents: Contents, name: str, rows: int) -> pa.Array | None:
    """A column with a value for each of some rows, or None."""
    held = contents.get(name)
    if held is None or held.shape != (rows,):
        return None
    if not held.is_column:
        return pa.array(np.asarray(held.read()))
    return pa.chunked_array(held.read()).unify_dictionaries().combine_chunks()


def names_in(column: pa.Array, what: str) -> np.ndarray:
    """A column as the names of rows, each another one, array of str; else an InputError."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not any(is_kind(kind) for is_kind in NAMES):
        raise InputError(f"{what} holds {str(kind)[:60]}: names are words or whole numbers")
    names = column.cast(pa.string()).to_numpy(zero_copy_only=False)
    if column.null_count:
        raise InputError(f"{what} has no name in row {column.is_null().index(True)}")
    unique, counts = np.unique(names.astype(str), return_counts=True)
    if len(unique) < len(names):
        raise InputError(f"{what} names several rows {quoted(unique[counts > 1], 3)}")
    return names


def names_in_file(path: Path, rows: int) -> np.ndarray:
    """Names of some rows: lines of text, or the column "id", else the first, of another file."""
    if path.suffix.lower() == ".txt":
        file_size(path)
        with parsing(path):
            column = pa.array(path.read_text().splitlines())
    else:
        contents = contents_of(path)
        held = contents["id" if "id" in contents else next(iter(contents))]
        column = column_of({"id": held}, "id", held.shape[0])
    if column is None or len(column) != rows:
        raise InputError(f"{path} must hold a name for each of {rows} rows: a line each, say")
    return names_in(column, str(path))


def codes_in(column: pa.Array, what: str, dtype: type[np.signedinteger]) -> np.ndarray:
    """A column as whole numbers.

    Numbers that are all whole, from -1 on, and fit `dtype` are taken as they stand. Of anything
    else each value gets the number of those that are seen before it. What is null is -1.
    InputError where there are more values than fit, or they are lists or records.
    """
    limit, kind = np.iinfo(dtype).max, column.type
    if pa.types.is_nested(kind):
        raise InputError(f"{what} holds {str(kind)[:60]}: write a word or a number, rename it")
    is_null = column.is_null(nan_is_null=True)
    if is_number(kind):
        numbers = np.where(is_null, -1, column.to_numpy(zero_copy_only=False))
        if ((numbers == np.floor(numbers)) & (numbers >= -1) & (numbers <= limit)).all():
            return numbers.astype(dtype)
    words = column.dictionary_encode().indices
    words = pc.if_else(is_null, pa.scalar(None, words.type), words)
    codes, values = pd.factorize(words.to_pandas())
    if len(values) > limit:
        raise InputError(f"{what} has {len(values):,} values, over {limit:,}: drop or rename it")
    return codes.astype(dtype)


def declared_distance(path: Path) -> str | None:
    """The distance that an HDF5 file says its neighbors were found by.

    "euclidean", "cosine" (also for "angular" and "normalized"), or another word; None where it says
    nothing, and for other formats. InputError for what is no word, or no file.
    """
    (path, *_) = files_of(path)
    file_size(path)
    if READERS.get(path.suffix.lower()) != hdf5.read_hdf5:
        return None
    with parsing(path), h5py.File(path) as file:
        (word,) = np.ravel(file.attrs.get("distance", [None])).tolist()
    if word is None:
        return None
    word = word.decode(errors="replace") if isinstance(word, bytes) else str(word)
    word = word.strip().lower()
    return "cosine" if word in ("angular", "normalized") else word
