"""A stage: what it reads, whether it has to run, and its outputs until they are whole.

Outputs are written under ``.partial/`` in the results folder, beside a file of checkpoints. At the
end their manifest is written there, which decides, and they are moved into place, the manifest
last. Killed before the decision, a stage leaves the files that were good before, and its own work
for the next start; killed after it, the next script to start moves the rest.
"""

import argparse
import contextlib
import json
import os
import shutil
import time
import zlib
from collections.abc import Hashable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from drift import add_filename
from drift.pipeline.environment import n_threads, package_versions, processor
from drift.pipeline.results import (
    ArtifactError,
    Entries,
    Results,
    describe,
    manifest_hash,
    manifest_name,
    read_manifest,
    write_json,
)

if TYPE_CHECKING:
    import pandas as pd

PARTIAL = ".partial"
DECIDED = "manifest.json"


class Stage:
    """One stage of the pipeline, ``03_exact`` or ``04_hnsw/RUN``, in the order of its methods.

    `inputs` are manifest entries of files that are known to be whole and current.
    """

    def __init__(self, name: str, args: argparse.Namespace, inputs: Entries | None = None):
        self.name, self.args = name, args
        self.results = Results(args.results)
        self.inputs = dict(inputs or {})
        self.completed: Entries = {}
        self._folder = self.results.path(PARTIAL) / name.replace("/", "--")
        self._checkpoints = self._folder / "checkpoints.jsonl"
        self._plan: dict[str, Any] = {}
        self._outputs: list[str] = []
        self._arrays: dict[str, Any] = {}
        self._tables: dict[str, Any] = {}
        self._started = 0.0
        self._is_open = False

    def part(self, name: str, *inputs: str) -> Self:
        """A stage of its own below this one, made from some of its inputs, or from all."""
        chosen = {key: self.inputs[key] for key in inputs or self.inputs}
        return type(self)(f"{self.name}/{name}", self.args, chosen)

    def require(self, *names: str) -> list[Path]:
        """Record files as inputs, once `Results.require` has found them whole; their paths."""
        self.inputs |= self.results.require(*names)
        return [self.results.path(name).absolute() for name in names]

    def read(self, name: str, columns: list[str] | None = None) -> "np.ndarray | pd.DataFrame":
        """Read an input: an array memory-mapped, of a table all columns or some; see `require`."""
        (path,) = self.require(name)
        if path.suffix == ".npy":
            return self.results.load(name)
        import pandas as pd  # not needed to say that a stage is up to date

        return pd.read_parquet(path, columns=columns)

    def begin(self, parameters: dict[str, Any]) -> bool:
        """Whether the outputs have to be made: they are not current, or ``--force`` is given.

        Nothing is written yet. The first output resumes an interrupted run that had the same
        parameters, in types that JSON has, and inputs, or else throws away what it left.
        """
        if not self.args.force and self.results.up_to_date(self.name, parameters, self.inputs):
            print(f"{self.name}: up to date in {self.results.root} (--force runs it anyway)")
            return False
        self._plan = {"stage": self.name, "parameters": parameters, "inputs": dict(self.inputs)}
        self.start_clock()
        return True

    def start_clock(self) -> None:
        """Count the seconds of the manifest from now on, for a stage that waits for others."""
        self._started = time.monotonic()

    def create(
        self, name: str, shape: tuple[int, ...], dtype: type, scratch: bool = False
    ) -> np.memmap:
        """Make room for an array, or find what an interrupted run stored in it; for reading.

        A `scratch` array is no output, and only there to work with until `commit`.
        """
        self._open()
        path = self._folder / name if scratch else self.output(name)
        if name not in self._arrays:
            with add_filename(path), path.open("w+b") as file:
                np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
                if hasattr(os, "posix_fallocate"):
                    # A mapped write to a full disk kills the process; asking for the room fails
                    # with an error that can be reported.
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            self._arrays[name] = _form(path)
            self._append("array", name, self._arrays[name])
        return np.load(path, mmap_mode="r")

    def write(self, name: str, where: Any, values: np.ndarray) -> None:
        """Store part of an array that `create` made, at a pair of rows or any other index."""
        # Mapped anew each time: the pages of a mapping count as memory as long as it lives.
        array = np.lib.format.open_memmap(self._folder / name, mode="r+")
        is_rows = isinstance(where, tuple) and all(isinstance(row, int) for row in where)
        array[slice(*where) if is_rows else where] = values
        array.flush()

    def save(self, name: str, array: np.ndarray) -> Path:
        """Write a small array at once; where it lies until `commit`."""
        path = self.output(name)
        with add_filename(path):
            np.save(path, array, allow_pickle=False)
        return path

    def append(self, name: str, columns: dict[str, np.ndarray]) -> None:
        """Add rows to a parquet file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        class Writer(pq.ParquetWriter):
            def __del__(self) -> None:
                """Do not write the end of a table whose stage has failed."""

        table = pa.table(columns)
        if name not in self._tables:
            # Looking for repeated values among floats takes longer than writing them.
            texts = [field.name for field in table.schema if pa.types.is_string(field.type)]
            self._tables[name] = Writer(self.output(name), table.schema, use_dictionary=texts)
        self._tables[name].write_table(table)

    def output(self, name: str) -> Path:
        """Where to write an output, until `commit` moves it into place."""
        self._open()
        if name not in self._outputs:
            self._require_place(name)
            self._outputs.append(name)
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.absolute()

    def checkpoint(self, block: Hashable, **facts: Any) -> None:
        """Note that a block is stored, with what is to be remembered of it."""
        self.completed[str(block)] = facts
        self._append("completed", str(block), facts)

    def total(self, fact: str) -> float:
        """Sum over the blocks of something that `checkpoint` noted."""
        return sum(facts[fact] for facts in self.completed.values())

    def commit(self, **facts: Any) -> dict[str, Any]:
        """Move the outputs into place, then the manifest; return it. It holds `facts` as well."""
        for table in self._tables.values():
            table.close()
        manifest = {
            **self._plan,
            "outputs": {name: describe(self._folder / name) for name in self._outputs},
            **facts,
            "versions": package_versions(),
            "machine": {"processor": processor(), "threads": n_threads()},
            "seconds": round(time.monotonic() - self._started, 3),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        manifest["sha256"] = manifest_hash(manifest)
        for name in self._outputs:
            path = self._folder / name
            with add_filename(path), path.open("rb") as file:
                os.fsync(file.fileno())
        write_json(self._folder / DECIDED, manifest)
        _move_into_place(self.results, self._folder, manifest)
        return manifest

    def discard(self) -> None:
        """Remove what was written and not committed, by this process or an interrupted one."""
        if not self._folder.parent.is_symlink():
            shutil.rmtree(self._folder, ignore_errors=True)
            _remove_if_empty(self._folder.parent)

    def manifest(self) -> dict[str, Any]:
        """The manifest of the outputs that are in place."""
        return self.results.manifest(self.name)

    def _open(self) -> None:
        """Make the folder of the outputs, or resume with the one that is there."""
        if self._is_open:
            return
        self._require_place(str(self._checkpoints.relative_to(self.results.root)))
        self._require_place(manifest_name(self.name))
        if self.args.force or not self._resume():
            self._arrays.clear()
            self.completed.clear()
            if self._folder.exists():
                shutil.rmtree(self._folder)
            self._folder.mkdir(parents=True)
            self._checkpoints.touch()
            write_json(self._folder / "plan.json", self._plan)
        self._is_open = True

    def _require_place(self, name: str) -> None:
        """Refuse to write over a folder, or through a link to somewhere else."""
        target = self.results.path(name)
        if target.is_dir():
            raise ArtifactError(f"{target} is a folder where a file is to be written: remove it")
        while (target := target.parent) != self.results.root:
            if target.is_symlink() or target.is_file():
                raise ArtifactError(f"{target} is a link or a file, not a folder: remove it")

    def _append(self, *content: Any) -> None:
        text = json.dumps(content).encode()
        with add_filename(self._checkpoints), self._checkpoints.open("ab") as file:
            file.write(b"%08x %s\n" % (zlib.crc32(text), text))
            file.flush()
            os.fsync(file.fileno())

    def _resume(self) -> bool:
        """Whether an interrupted run with the same plan left whole arrays; take up its blocks."""
        try:
            if json.loads((self._folder / "plan.json").read_text()) != self._plan:
                return False
            whole = 0
            for line in self._checkpoints.read_bytes().splitlines(keepends=True):
                checksum, _, text = line.removesuffix(b"\n").partition(b" ")
                if line[-1:] != b"\n" or checksum != b"%08x" % zlib.crc32(text):
                    break  # the process was killed while it wrote this line, or it was edited
                kind, name, facts = json.loads(text)
                (self._arrays if kind == "array" else self.completed)[name] = facts
                whole += len(line)
            if any(_form(self._folder / name) != form for name, form in self._arrays.items()):
                return False
        except (OSError, ValueError, EOFError):
            return False
        os.truncate(self._checkpoints, whole)  # the next line must begin on a new line
        return True


def _form(path: Path) -> list[Any]:
    """Size in bytes, shape and dtype of an array on disk."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return [path.stat().st_size, list(array.shape), str(array.dtype)]


def finish_commits(results: Results) -> None:
    """Move into place what a process that was killed while it committed has left to move."""
    partial = results.path(PARTIAL)
    if partial.is_symlink():
        return  # a stage refuses it
    for folder in sorted(partial.glob("*")):
        manifest = read_manifest(folder / DECIDED)
        if manifest is not None:
            _move_into_place(results, folder, manifest)
        _remove_if_empty(folder)
    _remove_if_empty(partial)


def _move_into_place(results: Results, folder: Path, manifest: dict[str, Any]) -> None:
    """Move a stage's outputs into place, the manifest last. Killed anywhere, it can be redone."""
    previous = results.manifest(manifest["stage"])
    for name in manifest["outputs"]:
        target = results.path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        if (folder / name).exists():
            (folder / name).replace(target)
    for name in (previous or {"outputs": {}})["outputs"].keys() - manifest["outputs"].keys():
        results.path(name).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != DECIDED:
            path.unlink()
    (folder / DECIDED).replace(results.path(manifest_name(manifest["stage"])))
    _remove_if_empty(folder, folder.parent)


def _remove_if_empty(*folders: Path) -> None:
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()
