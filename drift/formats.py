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

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.lib import format as npy

from drift import InputError

# Each row is its dimension, an int32, and then its values.
ROWS_WITH_DIMENSIONS = {".fvecs": "<f4", ".bvecs": "u1", ".ivecs": "<i4"}
# The file begins with its numbers of rows and columns, two uint32.
HEADER_AND_VALUES = {".fbin": "<f4", ".u8bin": "u1", ".i8bin": "i1", ".ibin": "<i4"}
HDF5 = (".hdf5", ".h5")
SUFFIXES = (".npy", *ROWS_WITH_DIMENSIONS, *HEADER_AND_VALUES, *HDF5, ".parquet")
# Deflate packs 1032 bytes into one at most. A file that claims to hold more is no file of numbers.
LARGEST_RATIO = 1100


def read_matrix(path: Path, part: str = "train", column: str | None = None) -> np.ndarray:
    """Vectors, neighbor lists or distances from a file, by its suffix, one of `SUFFIXES`.

    Of an HDF5 file `part` is the dataset: "train", "test", "neighbors" or "distances". Of a Parquet
    file `column` is the column of lists; without it "emb", or else the only one.

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
    if dtype := ROWS_WITH_DIMENSIONS.get(suffix):
        return _rows_with_dimensions(path, size, np.dtype(dtype))
    if dtype := HEADER_AND_VALUES.get(suffix):
        if size < 8:
            raise InputError(f"{path} is cut short within its header: write or copy it again")
        shape = tuple(np.fromfile(path, "<u4", 2).tolist())
        return _mapped(path, size, np.dtype(dtype), shape, offset=8)
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

    "euclidean", "cosine" (which others call "angular" or "normalized"), or another word; None
    where it says nothing, and for other formats. InputError for what is no word, or no file.
    """
    _size(path)
    if path.suffix.lower() not in HDF5:
        return None
    with _parsing(path, "HDF5"), h5py.File(path) as file:
        if "distance" not in file.attrs:
            return None
        attribute = file.attrs.get_id("distance")
        one = attribute.shape in ((), (1,)) and attribute.dtype.itemsize <= 1024
        word = np.ravel(file.attrs["distance"]).tolist()[0] if one else None
    word = word.decode(errors="replace") if isinstance(word, bytes) else word
    if not isinstance(word, str):
        raise InputError(f"{path}: its attribute 'distance' is no word: write 'euclidean', say")
    word = word.strip().lower()
    return "cosine" if word in ("angular", "normalized") else word


def read_codes(path: Path, name: str, n: int, dtype: type[np.signedinteger]) -> np.ndarray:
    """A column of a file as whole numbers, `dtype` (n,), for the `n` rows of `read_matrix`.

    Numbers that are all whole, from -1 on, and fit `dtype` are taken as they stand. Of anything
    else each value gets the number of those that are seen before it. What is null is -1, and so
    are all where there is no such column; only Parquet has any. InputError where there are more
    values than fit, or they are lists or records.
    """
    codes, what, limit = np.full(n, -1, dtype), f"{path}, column {name!r},", np.iinfo(dtype).max
    if path.suffix.lower() != ".parquet":
        return codes
    with _parsing(path, "Parquet"):
        schema = pq.read_schema(path)
        if name not in schema.names:
            return codes
        kind = schema.field(name).type
        if pa.types.is_nested(kind):
            raise InputError(f"{what} holds {str(kind)[:60]}: write a word or a number, rename it")
        # Words as numbers in a dictionary: a long one may stand there a million times.
        with pq.ParquetFile(path, read_dictionary=[name]) as file:
            column, order = file.read(columns=[name])[name].combine_chunks(), _id_order(file)
        column = column if order is None else column.take(pa.array(order))
        is_null = column.is_null(nan_is_null=True).to_numpy(zero_copy_only=False)
        if _is_number(kind):
            numbers = np.where(is_null, -1, column.to_numpy(zero_copy_only=False))
            if ((numbers == np.floor(numbers)) & (numbers >= -1) & (numbers <= limit)).all():
                return numbers.astype(dtype)
        words = column.dictionary_encode().indices.filter(pa.array(~is_null)).to_numpy()
        _, first, which = np.unique(words, return_index=True, return_inverse=True)
        if len(first) > limit:
            raise InputError(f"{what} has {len(first):,} values, over {limit:,}: drop or rename it")
        codes[~is_null] = np.argsort(np.argsort(first))[which]
    return codes


def _size(path: Path) -> int:
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
    path: Path, size: int, dtype: np.dtype, shape: tuple[int, ...], offset: int, order: str = "C"
) -> np.ndarray:
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
    others = np.flatnonzero(dimensions != d)
    if others.size:
        raise InputError(
            f"{path} is damaged, or of several dimensions: row {others[0]} has dimension "
            f"{dimensions[others[0]]} and row 0 {d}; write it again"
        )
    if rest:
        raise InputError(
            f"{path} has {rest} bytes after row {n - 1}, and a row takes {row_bytes}: it is cut "
            "short, or too long; write or copy it again"
        )
    return raw[:, 4:].view(dtype)


def _hdf5(path: Path, size: int, part: str) -> np.ndarray:
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
            whole = dataset.id.get_storage_size() == n_bytes <= size - (offset or 0)
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
        mapped = alike and offset is not None
        return np.memmap(path, dtype, "r", offset, shape) if mapped else dataset[()]


def _parquet(path: Path, size: int, column: str | None) -> np.ndarray:
    with _parsing(path, "Parquet"), pq.ParquetFile(path, memory_map=True) as file:
        name = _list_column(path, file.schema_arrow, column)
        what, rows = f"{path}, column {name!r},", file.metadata.num_rows
        matrix, stop = np.empty((0, 0)), 0
        for batch in file.iter_batches(1024, columns=[name]):
            lists = batch.column(name)
            lengths = pc.list_value_length(lists).fill_null(-1).to_numpy()
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
        order = _id_order(file)
    return matrix if order is None else matrix[order]


def _id_order(file: pq.ParquetFile) -> np.ndarray | None:
    """Where each row stands; None unless a column "id" numbers them from 0 on in another order."""
    schema, rows = file.schema_arrow, np.arange(file.metadata.num_rows)
    if "id" not in schema.names or not pa.types.is_integer(schema.field("id").type):
        return None
    order = np.argsort(ids := file.read(columns=["id"])["id"].to_numpy(), kind="stable")
    return order if np.array_equal(ids[order], rows) and (order != rows).any() else None


def _list_column(path: Path, schema: pa.Schema, column: str | None) -> str:
    lists = [
        field.name
        for field in schema
        if pa.types.is_nested(field.type) and _is_number(getattr(field.type, "value_type", None))
    ]
    column = column or ("emb" if "emb" in lists else None)
    if column and column not in lists:
        raise InputError(f"{path} has no column {column!r} of lists of numbers: {_names(lists)}")
    if not lists:
        others = _names(schema.names)
        raise InputError(f"{path} has no column of lists of numbers: write one ({others} are none)")
    if column is None and len(lists) > 1:
        raise InputError(
            f"{path} has several columns of lists, {_names(lists)}: keep one, call it emb, or say "
            "02 --column"
        )
    return column or lists[0]


def _is_number(kind: pa.DataType | None) -> bool:
    return kind is not None and (pa.types.is_integer(kind) or pa.types.is_floating(kind))
