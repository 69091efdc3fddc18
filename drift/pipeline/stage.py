"""A stage: what it reads, whether it has to run, and its outputs until they are whole.

Outputs are written under ``.partial/`` in the results folder, beside a plan that says which blocks
are stored. At the end their manifest is written there, which decides, and they are moved into
place, the manifest last. Killed before the decision, a stage leaves the files that were good
before, and its own work for the next start; killed after it, the next script to start moves the
rest.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Hashable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from drift import add_filename
from drift.pipeline.dask_workers import DaskWorkers
from drift.pipeline.environment import code_hash, n_threads, package_versions, processor
from drift.pipeline.manifests import (
    PARTIAL,
    Entries,
    Manifest,
    foreign_path,
    manifest_hash,
    manifest_name,
    partial_name,
    producer,
    producing_script,
    read_manifest,
    read_plan,
    remove_if_empty,
    write_json,
)
from drift.pipeline.results import ArtifactError, Results, describe, load_array

PLAN = "plan.json"
DECIDED = "manifest.json"


class Stage:
    """One stage of the pipeline, ``03_exact`` or ``04_hnsw/RUN``, in the order of its methods.

    With `force` it runs even if it is up to date, and resumes nothing. `workers` compute its
    blocks, if there are any. `inputs` are manifest entries of files known to be whole and current.
    """

    def __init__(
        self,
        name: str,
        results: Path | Results,
        force: bool = False,
        workers: DaskWorkers | None = None,
        inputs: Entries | None = None,
    ):
        self.name, self.force, self.workers = name, force, workers
        self.results = results if isinstance(results, Results) else Results(results)
        self.inputs = dict(inputs or {})
        self.completed: Entries = {}
        self.kept: Manifest | None = None  # of outputs in place that stay beside those made
        self._folder = self.results.path(PARTIAL) / partial_name(name)
        self._plan: dict[str, Any] = {}
        self._outputs: list[str] = []
        self._arrays: dict[str, Any] = {}
        self._tables: dict[str, _TableWriter] = {}
        self._started = 0.0
        self._is_open = False

    def part(self, name: str, *inputs: str) -> Self:
        """A stage of its own below this one, made from some of its inputs, or from all."""
        chosen = {key: self.inputs[key] for key in inputs or self.inputs}
        return type(self)(f"{self.name}/{name}", self.results, self.force, self.workers, chosen)

    def require(self, *names: str) -> list[Path]:
        """Record files as inputs, once `Results.require` has found them whole; their paths."""
        self.inputs |= self.results.require(*names)
        return [self.results.path(name).absolute() for name in names]

    def read(self, name: str, columns: list[str] | None = None) -> np.ndarray | pd.DataFrame:
        """Read an input: an array memory-mapped, of a table all columns or some; see `require`."""
        (path,) = self.require(name)
        return load_array(path) if path.suffix == ".npy" else pd.read_parquet(path, columns=columns)

    def begin(self, parameters: dict[str, Any], same_code: bool = False) -> bool:
        """Whether the outputs have to be made: they are not current, or ``--force`` is given.

        Those that other code made are current, which is said, unless `same_code` is asked for; what
        `commit` has noted as `failed` is made again.
        Nothing is written yet. The first output resumes an interrupted run of the same code,
        parameters (in JSON's types) and inputs, or else throws away what it left.
        """
        self._plan = {"stage": self.name, "parameters": parameters, "inputs": dict(self.inputs)}
        self._plan["code"] = code_hash(producing_script(self.name))
        self.start_clock()
        if self.force or not self.results.up_to_date(self.name, parameters, self.inputs):
            return True
        if self.manifest().get("failed"):
            print(f"{self.name}: {self.manifest()['failed']} failed the last time, is made again")
            return True
        is_same = self.manifest().get("code") == self._plan["code"]
        if same_code and not is_same:
            print(f"{self.name}: made by other code, is made again")
            return True
        # What a killed --force has left: nobody would resume it.
        if self._left_by("parameters", "inputs"):
            self.discard()
        other = ", made by other code; --force makes it again"
        more = " (--force runs it anyway)" if is_same else other
        print(f"{self.name}: up to date in {self.results.root}{more}")
        return False

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
            path.unlink(missing_ok=True)
            with add_filename(path), path.open("x+b") as file:
                np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
                if hasattr(os, "posix_fallocate"):
                    # A mapped write to a full disk kills the process; asking for the room fails
                    # with an error that can be reported.
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            self._arrays[name] = _form(path)
            self._write_plan(on_disk=False)  # nothing is stored in it yet
        return np.load(path, mmap_mode="r")

    def write(self, name: str, where: Any, values: np.ndarray) -> None:
        """Store part of an array that `create` made, at a pair of rows or any other index."""
        # Mapped anew each time: the pages of a mapping count as memory as long as it lives.
        path = self._folder / name
        array = np.lib.format.open_memmap(path, mode="r+")
        if not (isinstance(where, tuple) and isinstance(where[0], int)):
            array[where] = values
            array.flush()
            return
        # In one piece, which takes a third of the time that the pages of a mapping take.
        piece = np.broadcast_to(values, array[slice(*where)].shape).astype(array.dtype, "C")
        with add_filename(path), path.open("r+b") as file:
            file.seek(array.offset + where[0] * array.strides[0])
            file.write(piece)
            file.flush()
            os.fsync(file.fileno())

    def save(self, name: str, array: np.ndarray) -> Path:
        """Write a small array at once; where it lies until `commit`."""
        path = self.output(name)
        with add_filename(path):
            np.save(path, array, allow_pickle=False)
        return path

    def append(self, name: str, columns: dict[str, np.ndarray]) -> None:
        """Add rows to a parquet file."""
        table = pa.table(columns)
        if name not in self._tables:
            # Looking for repeated values among floats takes longer than writing them.
            texts = [field.name for field in table.schema if pa.types.is_string(field.type)]
            path = self.output(name)
            self._tables[name] = _TableWriter(path, table.schema, use_dictionary=texts)
        self._tables[name].write_table(table)

    def output(self, name: str) -> Path:
        """Where to write an output, until `commit` moves it into place."""
        self._open()
        if name not in self._outputs:
            if producer(name) != self.name:
                raise ValueError(f"{name} is no file of {self.name}")
            self.results.require_place(name)
            self._outputs.append(name)
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.absolute()

    def checkpoint(self, block: Hashable, **notes: Any) -> None:
        """Note that a block is stored, with what is to be remembered of it."""
        self.completed[str(block)] = notes
        self._write_plan()

    def total(self, name: str) -> float:
        """Sum over the blocks of something that `checkpoint` noted."""
        return sum(notes[name] for notes in self.completed.values())

    def commit(self, warnings: Iterable[str] = (), **notes: Any) -> Manifest:
        """Move the outputs into place, then the manifest, with `notes`, which is returned.

        `warnings` are sentences on what limits the results.
        """
        for table in self._tables.values():
            table.close()
        manifest = {
            **self._plan,
            "outputs": (self.kept or {"outputs": {}})["outputs"]
            | {name: describe(self._folder / name) for name in self._outputs},
            "warnings": list(dict.fromkeys(warnings)),
            **notes,
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
        if read_manifest(self._folder / DECIDED) is None:
            raise ValueError(f"{self.name}: drift/pipeline/manifests.py has another form for this")
        _move_into_place(self.results, self._folder, manifest)
        return manifest

    def discard(self) -> None:
        """Remove what was written and not committed, by this process or an interrupted one."""
        if not self._folder.parent.is_symlink():
            shutil.rmtree(self._folder, ignore_errors=True)
            remove_if_empty(self._folder.parent)

    def manifest(self) -> Manifest:
        """The manifest of the outputs that are in place."""
        return self.results.manifest(self.name)

    def _open(self) -> None:
        """Make the folder of the outputs, or resume with the one that is there."""
        if self._is_open:
            return
        self.results.require_place(f"{PARTIAL}/{self._folder.name}/{PLAN}")
        self.results.require_place(manifest_name(self.name))
        if foreign := foreign_path(self._folder):
            raise ArtifactError(f"{foreign} is a link, or no file of this stage: remove it")
        if self.force or not self._resume():
            if self._folder.exists():
                shutil.rmtree(self._folder)
            self._folder.mkdir(parents=True)
            self._write_plan(on_disk=False)
        self._is_open = True

    def _write_plan(self, on_disk: bool = True) -> None:
        plan = {**self._plan, "arrays": self._arrays, "completed": self.completed}
        plan["sha256"] = manifest_hash(plan)
        write_json(self._folder / PLAN, plan, on_disk)

    def _left_by(self, *same: str) -> Manifest | None:
        """The plan of an interrupted run with the same entries."""
        plan = read_plan(self._folder / PLAN)
        return plan if plan and all(plan[key] == self._plan[key] for key in same) else None

    def _resume(self) -> bool:
        """Whether an interrupted run with the same plan left whole arrays; take up its blocks."""
        if (plan := self._left_by(*self._plan)) is None:
            return False
        with contextlib.suppress(OSError, ValueError):
            self._arrays = {name: _form(self._folder / name) for name in plan["arrays"]}
        if self._arrays != plan["arrays"]:
            self._arrays = {}
            return False
        self.completed = plan["completed"]
        return True


class _TableWriter(pq.ParquetWriter):
    def __del__(self) -> None:
        """Do not write the end of a table whose stage has failed."""


def _form(path: Path) -> list[Any]:
    """Size in bytes, shape and dtype of an array on disk."""
    array = load_array(path)
    return [path.stat().st_size, list(array.shape), str(array.dtype)]


def finish_commits(results: Results) -> None:
    """Move into place what a process that was killed while it committed has left to move."""
    partial = results.path(PARTIAL)
    if partial.is_symlink():
        return  # a stage refuses it
    for folder in sorted(partial.glob("*")):
        manifest = read_manifest(folder / DECIDED)
        is_own = not folder.is_symlink() and foreign_path(folder) is None
        if manifest and is_own and partial_name(manifest["stage"]) == folder.name:
            _move_into_place(results, folder, manifest)
        remove_if_empty(folder)
    remove_if_empty(partial)


def _move_into_place(results: Results, folder: Path, manifest: Manifest) -> None:
    """Move a stage's outputs into place, the manifest last. Killed anywhere, it can be redone."""
    own = manifest_name(manifest["stage"])
    for name in (own, *manifest["outputs"]):
        results.require_place(name)
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
    (folder / DECIDED).replace(results.path(own))
    remove_if_empty(folder, folder.parent)
