"""Vectors and neighbor lists in the files that people have, memory-mapped where that is possible.

A file may be damaged, or made to do harm. What it claims about itself is held against its size
before anything is allocated, and nothing in it is run.
"""

import contextlib
import io
import itertools
import json
import math
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from drift import InputError
from drift.vectors import row_blocks

# Each row is its dimension, an int32, and then its values.
ROWS_WITH_DIMENSIONS = {".fvecs": "<f4", ".bvecs": "u1", ".ivecs": "<i4"}
# The file begins with its numbers of rows and columns, two uint32.
HEADER_AND_VALUES = {".fbin": "<f4", ".u8bin": "u1", ".i8bin": "i1", ".ibin": "<i4"}
HDF5 = (".hdf5", ".h5")
SUFFIXES = (".npy", *ROWS_WITH_DIMENSIONS, *HEADER_AND_VALUES, *HDF5, ".parquet")
# Deflate packs 1032 bytes into one at most. A file that claims to hold more is no file of numbers.
LARGEST_RATIO = 1100
PARQUET_ROWS = 1024  # that are decoded at a time


def read_matrix(path: Path, part: str = "train", column: str | None = None) -> np.ndarray:
    """Vectors, neighbor lists or distances from a file, by its suffix.

    Parameters
    ----------
    path : Path
        A file ``.npy``, ``.fvecs``, ``.bvecs``, ``.ivecs``, ``.fbin``, ``.u8bin``, ``.i8bin``,
        ``.ibin``, ``.hdf5``, ``.h5`` or ``.parquet``.
    part : str
        Dataset of an HDF5 file: "train", "test", "neighbors" or "distances".
    column : str, optional
        Column of a Parquet file. Without it, "emb" where that is a column of lists, and the only
        column of lists where it is not.

    Returns
    -------
    ndarray of float or int, shape (rows, columns)
        Both at least 1; of the type and byte order that the file has. It is a read-only memory map
        except for a Parquet file, and for an HDF5 dataset that is in chunks or compressed. Rows of
        a Parquet file whose column "id" counts them from 0 on are in its order.

    Raises
    ------
    InputError
        When there is no such file, or it is not whole, or holds anything else. Whether its numbers
        are finite, or are ids that can be, is not looked at.
    """
    size, suffix = _size(path), path.suffix.lower()
    if suffix == ".npy":
        return _npy(path, size)
    if suffix in ROWS_WITH_DIMENSIONS:
        return _rows_with_dimensions(path, size, np.dtype(ROWS_WITH_DIMENSIONS[suffix]))
    if suffix in HEADER_AND_VALUES:
        return _header_and_values(path, size, np.dtype(HEADER_AND_VALUES[suffix]))
    if suffix in HDF5:
        return _hdf5(path, size, part)
    if suffix == ".parquet":
        return _parquet(path, size, column)
    if suffix in (".csv", ".txt"):
        names = [json.dumps(str(p), ensure_ascii=False) for p in (path.with_suffix(".npy"), path)]
        options = ', delimiter=","' if suffix == ".csv" else ""
        options += ", dtype=int" if part == "neighbors" else ""
        line = f"numpy.save({names[0]}, numpy.loadtxt({names[1]}{options}))"
        raise InputError(f"{path} is text, which is not read: convert it in Python with {line}")
    raise InputError(f"{path} is of no known format: name a file {', '.join(SUFFIXES)}")


def declared_distance(path: Path) -> str | None:
    """The distance that an HDF5 file says its neighbors were found by.

    Parameters
    ----------
    path : Path
        A file of any format.

    Returns
    -------
    str or None
        "euclidean"; "cosine", also where it is called "angular" or "normalized"; another word as it
        stands in the file's attribute ``distance``; None without it, and for other formats.

    Raises
    ------
    InputError
        When there is no such file, or it is no HDF5 file, or the attribute is no word.
    """
    _size(path)
    if path.suffix.lower() not in HDF5:
        return None
    import h5py

    with _parsing(path, "HDF5"), h5py.File(path) as file:
        if "distance" not in file.attrs:
            return None
        attribute = file.attrs.get_id("distance")
        one = attribute.shape in ((), (1,)) and attribute.dtype.itemsize <= 1024
        word = np.ravel(file.attrs["distance"]).tolist()[0] if one else None
    word = word.decode(errors="replace") if isinstance(word, bytes) else word
    if not isinstance(word, str):
        raise InputError(f"{path}: its attribute 'distance' is no word: write 'euclidean', say")
    known = {"angular": "cosine", "normalized": "cosine"}
    return known.get(word.strip().lower(), word.strip().lower())


def _size(path: Path) -> int:
    """Bytes of a file that can be opened."""
    try:
        # One that is no file is not opened: a pipe would wait for its writer.
        if not path.is_file():
            is_what = "a folder" if path.is_dir() else "no file" if path.exists() else "missing"
            raise InputError(f"{path} is {is_what}: name a file of vectors or neighbor lists")
        with path.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
    except OSError as error:
        message = f"{path} cannot be opened ({error.strerror}): see to its permissions and place"
        raise InputError(message) from error
    if size == 0:
        raise InputError(f"{path} is empty: write or copy it again")
    return size


@contextlib.contextmanager
def _parsing(path: Path, kind: str) -> Iterator[None]:
    """Make an InputError of any error; parsers of damaged files raise more kinds than they say."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        message = f"{path} cannot be read as {kind} ({reason}): write or copy it again"
        raise InputError(message) from error


def _names(names: Iterable[str]) -> str:
    """The first names of some, quoted, which also keeps them in the line."""
    first = [repr(name) for name in itertools.islice(names, 11)]
    return ", ".join([*first[:10], *(["..."] if len(first) > 10 else [])]) or "none"


def _check(name: str, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    if len(shape) != 2 or dtype.kind not in "fiu" or min(shape) < 1:
        raise InputError(
            f"{name} holds {str(dtype)[:80]} of shape {str(shape)[:80]}: write floats or whole "
            "numbers of shape (rows, columns), both at least 1, and a missing neighbor as -1"
        )


def _mapped(
    path: Path, size: int, dtype: np.dtype, shape: tuple[int, ...], offset: int, order: Any = "C"
) -> np.ndarray:
    """A memory map of a file of which all is values from some byte on."""
    _check(str(path), dtype, shape)
    expected = offset + math.prod(shape) * dtype.itemsize
    if size != expected:
        raise InputError(
            f"{path} is {'cut short' if size < expected else 'too long'}: it has {size} bytes, and "
            f"{expected} by its header, {dtype} of shape {shape}: write or copy it again"
        )
    return np.memmap(path, dtype, "r", offset, shape, order)


def _npy(path: Path, size: int) -> np.ndarray:
    with path.open("rb") as file:
        # A header may say that it is of 4 GB: only so much of it can be read.
        start = io.BytesIO(file.read(1 << 16))
    with _parsing(path, ".npy"), warnings.catch_warnings(action="ignore"):
        newer = npy.read_array_header_2_0
        readers = {(1, 0): npy.read_array_header_1_0, (2, 0): newer, (3, 0): newer}
        shape, fortran, dtype = readers[npy.read_magic(start)](start)
        # In here for a shape of numbers that Python refuses to print.
        return _mapped(path, size, dtype, shape, start.tell(), "F" if fortran else "C")


def _rows_with_dimensions(path: Path, size: int, dtype: np.dtype) -> np.ndarray:
    d = int(np.fromfile(path, "<i4", 1)[0]) if size >= 4 else 0
    row_bytes = 4 + d * dtype.itemsize
    n, rest = divmod(size, row_bytes) if d > 0 else (0, 0)
    if n == 0:
        raise InputError(
            f"{path} has {size} bytes and begins with a row of dimension {d}: it is cut short, or "
            f"no {path.suffix} file; write or copy it again"
        )
    raw = np.memmap(path, np.uint8, "r", 0, (n, row_bytes))
    dimensions = raw[:, :4].view("<i4")[:, 0]
    for start, stop in row_blocks(n, row_bytes):
        others = np.flatnonzero(dimensions[start:stop] != d)
        if others.size:
            row = start + int(others[0])
            raise InputError(
                f"{path} is damaged, or of several dimensions: row {row} has dimension "
                f"{dimensions[row]} and row 0 {d}; write it again"
            )
    if rest:
        raise InputError(
            f"{path} has {rest} bytes after row {n - 1}, and a row takes {row_bytes}: it is cut "
            "short, or too long; write or copy it again"
        )
    return raw[:, 4:].view(dtype)


def _header_and_values(path: Path, size: int, dtype: np.dtype) -> np.ndarray:
    if size < 8:
        raise InputError(f"{path} is cut short within its header: write or copy it again")
    rows, columns = np.fromfile(path, "<u4", 2).tolist()
    return _mapped(path, size, dtype, (rows, columns), offset=8)


def _hdf5(path: Path, size: int, part: str) -> np.ndarray:
    import h5py

    with _parsing(path, "HDF5"), h5py.File(path) as file:
        dataset, name = file.get(part), f"{path}, dataset {part!r},"
        if not isinstance(dataset, h5py.Dataset):
            raise InputError(f"{path} has no dataset {part!r}: it has {_names(file)}")
        home, own = (h5py.h5o.get_info(item.id).fileno for item in (file, dataset))
        if home != own or dataset.is_virtual or dataset.external:
            raise InputError(f"{name} refers to another file: copy its values into one file")
        shape, dtype, chunks = dataset.shape or (), dataset.dtype, dataset.chunks
        _check(name, dtype, shape)
        n_bytes, offset = math.prod(shape) * dtype.itemsize, dataset.id.get_offset()
        # What was never written is no bytes in the file, and would be read as zeros.
        if chunks is None:
            end = (offset or 0) + n_bytes
            whole = dataset.id.get_storage_size() == n_bytes and end <= size
        else:
            needed = math.prod(-(-n // chunk) for n, chunk in zip(shape, chunks, strict=True))
            ratio = LARGEST_RATIO if dataset.id.get_create_plist().get_nfilters() else 1
            largest = max(n_bytes, math.prod(chunks) * dtype.itemsize)
            whole = largest <= ratio * size and dataset.id.get_num_chunks() == needed
        if not whole:
            raise InputError(
                f"{name} is not whole: {shape} of {dtype} are more than the file holds; write or "
                "copy it again"
            )
        # HDF5 knows numbers that no type of NumPy lays out alike, such as integers of 24 bits.
        alike = h5py.h5t.py_create(dtype).equal(dataset.id.get_type())
        if offset is None or not alike:
            return dataset[()]
        return np.memmap(path, dtype, "r", offset, shape)


def _parquet(path: Path, size: int, column: str | None) -> np.ndarray:
    import pyarrow.compute
    import pyarrow.parquet

    with _parsing(path, "Parquet"), pyarrow.parquet.ParquetFile(path, memory_map=True) as file:
        name = _list_column(path, file.schema_arrow, column)
        what, rows = f"{path}, column {name!r},", file.metadata.num_rows
        matrix, stop = np.empty((0, 0)), 0
        for batch in file.iter_batches(PARQUET_ROWS, columns=[name]):
            lists = batch.column(name)
            lengths = pyarrow.compute.list_value_length(lists).fill_null(-1).to_numpy()
            values = lists.flatten()
            if stop == 0:
                d, dtype = int(lengths[0]), np.dtype(values.type.to_pandas_dtype())
                if rows * max(d, 1) * dtype.itemsize > LARGEST_RATIO * size:
                    raise InputError(f"{what} claims more rows, {rows}, than the file holds")
                matrix = np.empty((rows, max(d, 0)), dtype)
            start, stop = stop, stop + len(lists)
            odd = np.flatnonzero((lengths != d) | (lengths < 1))
            if odd.size or values.null_count:
                row = odd[0] if odd.size else values.is_null().index(True).as_py() // d
                fault = f"has {lengths[row]} values, row 0 has {d}"
                if lengths[row] < 1 or not odd.size:
                    fault = "has no values, or one that is null"
                fault += ": complete it (-1: a missing neighbor)"
                raise InputError(f"{what} row {start + row} {fault}")
            matrix[start:stop] = values.to_numpy().reshape(-1, d)
        _check(what, matrix.dtype, matrix.shape)
        if stop != rows:
            raise InputError(f"{what} has {stop} rows, not {rows} as it says: write it again")
        schema = file.schema_arrow
        if "id" not in schema.names or not pyarrow.types.is_integer(schema.field("id").type):
            return matrix
        ids = file.read(columns=["id"])["id"].to_numpy()
    # Rows that are numbered from 0 on stand where their numbers say.
    is_numbered = ids.dtype.kind in "iu" and np.array_equal(np.sort(ids), np.arange(rows))
    if not is_numbered or np.array_equal(ids, np.arange(rows)):
        return matrix
    ordered = np.empty_like(matrix)
    ordered[ids] = matrix
    return ordered


def _list_column(path: Path, schema: Any, column: str | None) -> str:
    """Name of the column of a Parquet file that holds the lists."""
    import pyarrow.types as t

    tests = t.is_list, t.is_large_list, t.is_fixed_size_list
    lists = [
        field.name
        for field in schema
        if any(test(field.type) for test in tests)
        and (t.is_integer(field.type.value_type) or t.is_floating(field.type.value_type))
    ]
    if column is not None and column not in lists:
        raise InputError(f"{path} has no column {column!r} of lists of numbers: {_names(lists)}")
    if not lists:
        others = _names(schema.names)
        raise InputError(f"{path} has no column of lists of numbers: write one ({others} are none)")
    if column is None and "emb" not in lists and len(lists) > 1:
        raise InputError(
            f"{path} has several columns of lists, {_names(lists)}: keep one, call it emb, or say "
            "02 --column"
        )
    return column or ("emb" if "emb" in lists else lists[0])
