"""HDF5: any dataset of a file, mapped where it lies in one piece; and what AnnData keeps there."""

import functools
import math
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa

from drift.formats.opening import LARGEST_RATIO, Contents, Held


def read_hdf5(path: Path, size: int) -> Contents:
    """Datasets by their paths.

    Of AnnData the names of the rows are "id" as well, and a sparse matrix of ``obsp`` is lists: its
    values by the name of the matrix, their columns by NAME/neighbors.
    """
    contents: Contents = {}
    with h5py.File(path) as file:

        def visit(name: str, item: h5py.Dataset | h5py.Group) -> None:
            if isinstance(item, h5py.Dataset):
                read = functools.partial(_read, path, name, size)
                contents[name] = Held(item.dtype, item.shape or (), read)

        file.visititems(visit)  # no links, which may lead to any file, or to a pipe
        if any(name.startswith("obs/") for name in contents):
            names = f"obs/{file['obs'].attrs.get('_index')}"
            contents |= {"id": contents[names]} if names in contents else {}
        for place in [n[:-7] for n in contents if n.endswith("distances/indptr")]:
            rows = (contents[f"{place}/indptr"].shape[0] - 1,)
            for part, name in (("data", place), ("indices", f"{place}/neighbors")):
                kind = pa.large_list(pa.from_numpy_dtype(contents[f"{place}/{part}"].dtype))
                named = contents.get("id") if part == "indices" else None
                read = functools.partial(_sparse_rows, path, place, part, size, named)
                contents[name] = Held(kind, rows, read)
    return contents


def _sparse_rows(
    path: Path, place: str, part: str, size: int, named: Held | None
) -> list[pa.Array]:
    """What a sparse matrix holds, by row; of its columns the names, if they have any."""
    values = pa.array(_read(path, f"{place}/{part}", size))
    if named is not None:
        values = pa.DictionaryArray.from_arrays(values, named.read())
    offsets = _read(path, f"{place}/indptr", size).astype(np.int64)
    return [pa.LargeListArray.from_arrays(offsets, values)]


def _read(path: Path, name: str, size: int) -> np.ndarray:
    """A dataset, memory-mapped where it lies in one piece; words as strings of Python."""
    with h5py.File(path) as file:
        dataset, what = file[name], f"dataset {name!r}"
        if dataset.is_virtual or dataset.external:
            raise ValueError(f"{what} refers to another file")
        shape, dtype, chunks = dataset.shape or (), dataset.dtype, dataset.chunks
        n_bytes, offset = math.prod(shape) * dtype.itemsize, dataset.id.get_offset()
        # What was never written is no bytes in the file, and would be read as zeros.
        is_words = h5py.check_string_dtype(dtype) is not None
        if is_words:
            whole = n_bytes <= LARGEST_RATIO * size
        elif chunks is None:
            whole = dataset.id.get_storage_size() == n_bytes <= size - (offset or 0)
        else:
            needed = math.prod(-(-n // chunk) for n, chunk in zip(shape, chunks, strict=True))
            ratio = LARGEST_RATIO if dataset.id.get_create_plist().get_nfilters() else 1
            largest = max(n_bytes, math.prod(chunks) * dtype.itemsize)
            whole = largest <= ratio * size and dataset.id.get_num_chunks() == needed
        if not whole:
            raise ValueError(f"{what} is not whole: {shape} of {dtype} are more than it holds")
        if is_words:
            return dataset.asstr()[()]
        # HDF5 knows numbers that no type of NumPy lays out alike, such as integers of 24 bits.
        alike = h5py.h5t.py_create(dtype).equal(dataset.id.get_type())
        mapped = alike and offset is not None
        return np.memmap(path, dtype, "r", offset, shape) if mapped else dataset[()]
