"""Formats whose numbers lie in the file as they lie in memory: they are mapped.

A reader takes a file and its size, and gives what the file holds. It looks at headers alone.
"""

import functools
import io
import json
import math
import re
import struct
import warnings
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from drift.formats.opening import LARGEST_RATIO, Contents, Held, in_memory, mapped

# Each row is its dimension, an int32, and then its values.
ROWS_WITH_DIMENSIONS = {".fvecs": "<f4", ".bvecs": "u1", ".ivecs": "<i4"}
# The file begins with its numbers of rows and columns, two uint32.
HEADER_AND_VALUES = {
    ".fbin": "<f4", ".f16bin": "<f2", ".u8bin": "u1", ".i8bin": "i1", ".ibin": "<i4"
}  # fmt: skip


def read_npy(path: Path, size: int) -> Contents:
    with path.open("rb") as file:
        return {"": _npy(path, file, 0, size)}


def _npy(path: Path, file: BinaryIO, start: int, end: int) -> Held:
    """The array between two places of a file, of which `file` gives the header."""
    # A header may say that it is of 4 GB: only so much of it can be read.
    header = io.BytesIO(file.read(1 << 16))
    with warnings.catch_warnings(action="ignore"):
        newer = npy.read_array_header_2_0
        readers = {(1, 0): npy.read_array_header_1_0, (2, 0): newer, (3, 0): newer}
        shape, fortran, dtype = readers[npy.read_magic(header)](header)
    return mapped(path, dtype, shape, start + header.tell(), end, "F" if fortran else "C")


def read_npz(path: Path, size: int) -> Contents:
    """Arrays by their names; those that are deflated are read, once they are wanted."""
    contents = {}
    with zipfile.ZipFile(path) as archive, path.open("rb") as raw:
        for record in archive.infolist():
            raw.seek(record.header_offset + 26)
            start = raw.tell() + 4 + sum(struct.unpack("<HH", raw.read(4)))
            with archive.open(record) as file:
                held = _npy(path, file, start, start + record.file_size)
            if record.compress_type != zipfile.ZIP_STORED:
                read = functools.partial(_inflate, path, record, held, LARGEST_RATIO * size)
                held = held._replace(read=read)
            contents[record.filename.removesuffix(".npy")] = held
    return contents


def _inflate(path: Path, record: zipfile.ZipInfo, held: Held, most: int) -> np.ndarray:
    if max(record.file_size, math.prod(held.shape) * held.dtype.itemsize) > most:
        raise ValueError(f"{record.filename!r} claims more values than the file holds")
    with zipfile.ZipFile(path) as archive, archive.open(record) as file:
        return npy.read_array(file, allow_pickle=False)


def read_rows_with_dimensions(path: Path, size: int) -> Contents:
    dtype = np.dtype(ROWS_WITH_DIMENSIONS[suffix_of(path)])
    d = int(np.fromfile(path, "<i4", 1)[0]) if size >= 4 else 0
    row_bytes = 4 + d * dtype.itemsize
    n, rest = divmod(size, row_bytes) if d > 0 else (0, 0)
    if n == 0:
        raise ValueError(f"{size} bytes that begin with a row of dimension {d}")

    @functools.cache
    def check() -> None:
        dimensions = np.memmap(path, np.uint8, "r", 0, (n, row_bytes))[:, :4].view("<i4")[:, 0]
        others = [*np.flatnonzero(dimensions != d)[:1], *([n] if rest else [])]
        if others:
            raise ValueError(f"row {others[0]} is not of the {d} of row 0, or is cut short")

    def read() -> np.ndarray:
        check()
        return np.memmap(path, np.uint8, "r", 0, (n, row_bytes))[:, 4:].view(dtype)

    return {"": Held(dtype, (n, d), read)}


def read_header_and_values(path: Path, size: int) -> Contents:
    """A matrix; of ids that are followed by as many distances, as big-ann has them, both."""
    if size < 8:
        raise ValueError("it is cut short within its header")
    dtype = np.dtype(HEADER_AND_VALUES[suffix_of(path)])
    n, d = shape = tuple(np.fromfile(path, "<u4", 2).tolist())
    middle = 8 + n * d * 4
    if suffix_of(path) == ".ibin" and size == middle + n * d * 4 > 8:
        distances = mapped(path, np.dtype("<f4"), shape, middle, size)
        return {"neighbors": mapped(path, dtype, shape, 8, middle), "distances": distances}
    return {"": mapped(path, dtype, shape, 8, size)}


def suffix_of(path: Path) -> str:
    """The suffix that says what a file is, of a part that big-ann's downloads cut as well."""
    return Path(re.sub(r"\.crop_nb_\d+$", "", path.name)).suffix.lower()


def read_safetensors(path: Path, size: int) -> Contents:
    """Tensors by their names, which a header of JSON places behind itself."""
    contents = {}
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(min(length, size)))
        header.pop("__metadata__", None)
        for name, tensor in header.items():
            start, end = (8 + length + int(offset) for offset in tensor["data_offsets"])
            shape, kind = tuple(map(int, tensor["shape"])), tensor["dtype"]
            if is_number := re.fullmatch(r"([FIU])(\d+)", kind):
                dtype = np.dtype(f"<{is_number[1].lower()}{int(is_number[2]) // 8}")
                contents[name] = mapped(path, dtype, shape, start, min(end, size))
            else:
                contents[name] = Held(kind, shape, lambda: None)
    return contents


def read_pt(path: Path, size: int) -> Contents:
    """Tensors that ``torch.save`` wrote, alone or by their names; no code of the file is run."""
    import torch

    found = torch.load(path, "cpu", weights_only=True, mmap=True)
    tensors = {"": found} if isinstance(found, torch.Tensor) else dict(found)
    return {
        str(name): in_memory(tensor.detach().numpy())
        if tensor.dtype != torch.bfloat16
        else Held("bfloat16", tuple(tensor.shape), lambda: None)
        for name, tensor in tensors.items()
        if isinstance(tensor, torch.Tensor)
    }
