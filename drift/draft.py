"""The outputs of a stage in the making: nothing counts before it is whole, and no work is lost.

They grow under ``.draft/`` in the results folder, beside a journal of what is done. At the end
their manifest is written there, which decides, and they are moved into place, the manifest last.
Killed before the decision, a stage leaves the files that were good before, and its own work for the
next start; killed after it, the next script to start moves the rest.
"""

import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import time
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from drift.artifacts import (
    ArtifactError,
    Results,
    describe,
    manifest_hash,
    manifest_name,
    read_manifest,
    write_json,
)
from drift.files import naming

DRAFTS = ".draft"
DECIDED = "manifest.json"
PACKAGES = (
    "torch",
    "torchvision",
    "faiss-cpu",
    "hnswlib",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "matplotlib",
    "scikit-image",
)


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that results can depend on."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def finish_publications(results: Results) -> None:
    """Move into place what a process that was killed while it published has left to move.

    Parameters
    ----------
    results : Results
        A folder that no other process works in.
    """
    drafts = results.path(DRAFTS)
    if drafts.is_symlink():
        return  # a draft refuses it
    for folder in sorted(drafts.glob("*")):
        manifest = read_manifest(folder / DECIDED)
        if manifest is not None:
            _move_into_place(results, folder, manifest)
        _remove_if_empty(folder)
    _remove_if_empty(drafts)


def _move_into_place(results: Results, folder: Path, manifest: dict[str, Any]) -> None:
    """Move a draft's outputs into place, the manifest last. Killed anywhere, it can be redone."""
    previous = results.manifest(manifest["stage"])
    for name in manifest["outputs"]:
        target = results.path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        if (folder / name).exists():
            (folder / name).replace(target)
    for name in set(previous["outputs"] if previous else ()) - set(manifest["outputs"]):
        results.path(name).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != DECIDED:
            path.unlink()
    (folder / DECIDED).replace(results.path(manifest_name(manifest["stage"])))
    _remove_if_empty(folder)
    _remove_if_empty(folder.parent)


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


class Draft:
    """A stage's outputs in the making, and the journal of the work that is done.

    What a killed run left behind is taken up again when the parameters and the inputs are the same,
    and thrown away when they are not.

    Parameters
    ----------
    results : Results
        The folder that the stage writes to.
    stage : str
        ``03_exact`` for instance, or ``04_hnsw/RUN``.
    parameters : dict
        What decides the outputs beside the inputs, in types that JSON has.
    inputs : dict
        The manifest entries of what the stage reads, from `Results.require`.
    fresh : bool
        Begin anew, whatever an interrupted run left behind.
    """

    def __init__(
        self,
        results: Results,
        stage: str,
        parameters: dict[str, Any],
        inputs: dict[str, dict[str, Any]],
        fresh: bool = False,
    ):
        self._results = results
        self._plan = {"stage": stage, "parameters": parameters, "inputs": inputs}
        self._folder = results.path(DRAFTS) / stage.replace("/", "--")
        self._journal = self._folder / "journal.jsonl"
        self._names: list[str] = []
        self._started = time.monotonic()
        self._arrays: dict[str, Any] = {}
        self.done: dict[str, dict[str, Any]] = {}
        self._require_place(str(self._journal.relative_to(results.root)))
        self._require_place(manifest_name(stage))
        if fresh or not self._resume():
            if self._folder.exists():
                shutil.rmtree(self._folder)
            self._folder.mkdir(parents=True)
            write_json(self._folder / "plan.json", self._plan)

    def array(self, name: str, shape: tuple[int, ...], dtype: type) -> np.memmap:
        """An output array, memory-mapped for writing, with what an interrupted run stored in it."""
        self.path(name)
        return self._open(name, shape, dtype)

    def scratch(self, name: str, shape: tuple[int, ...], dtype: type) -> np.memmap:
        """The like of `array`, but to work with until the stage is published: no output."""
        return self._open(name, shape, dtype)

    def save(self, name: str, array: np.ndarray) -> None:
        """Write a small output array at once."""
        path = self.path(name)
        with naming(path):
            np.save(path, array, allow_pickle=False)

    def path(self, name: str) -> Path:
        """Where to write an output, until `publish` moves it into place."""
        if name not in self._names:
            self._require_place(name)
            self._names.append(name)
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def mark(self, unit: str, facts: dict[str, Any]) -> None:
        """Note that a unit of work is stored, with what is to be remembered of it."""
        self.done[unit] = facts
        self._note("done", unit, facts)

    def publish(self, **facts: Any) -> dict[str, Any]:
        """Move the outputs into place, then write the manifest, which holds `facts` as well.

        Returns
        -------
        dict
            The manifest.
        """
        manifest = {
            **self._plan,
            "outputs": {name: describe(self._folder / name) for name in self._names},
            **facts,
            "versions": package_versions(),
            "seconds": round(time.monotonic() - self._started, 3),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        manifest["sha256"] = manifest_hash(manifest)
        for name in self._names:
            path = self._folder / name
            with naming(path), path.open("rb") as file:
                os.fsync(file.fileno())
        write_json(self._folder / DECIDED, manifest)
        _move_into_place(self._results, self._folder, manifest)
        return manifest

    def _require_place(self, name: str) -> None:
        """Refuse to write over a folder, or through a link to somewhere else."""
        target = self._results.path(name)
        if target.is_dir():
            raise ArtifactError(
                f"{target} is a folder, and a file is to be written there: remove it"
            )
        while (target := target.parent) != self._results.root:
            if target.is_symlink() or (target.exists() and not target.is_dir()):
                raise ArtifactError(
                    f"{target} is a link or a file, and a folder of {self._results.root} itself is "
                    "to be written to: remove it"
                )

    def _open(self, name: str, shape: tuple[int, ...], dtype: type) -> np.memmap:
        path = self._folder / name
        if name in self._arrays:
            return np.lib.format.open_memmap(path, mode="r+")
        temporary = path.with_name(f"{path.name}.tmp")
        with naming(path):
            array = np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=shape)
            if hasattr(os, "posix_fallocate"):
                # A mapped write to a full disk kills the process; asking for the room fails in
                # words.
                with temporary.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, temporary.stat().st_size)
        temporary.replace(path)
        self._arrays[name] = [path.stat().st_size, list(shape), str(array.dtype)]
        self._note("array", name, self._arrays[name])
        return array

    def _note(self, *content: Any) -> None:
        text = json.dumps(content).encode()
        with naming(self._journal), self._journal.open("ab") as file:
            file.write(b"%08x %s\n" % (zlib.crc32(text), text))
            file.flush()
            os.fsync(file.fileno())

    def _resume(self) -> bool:
        """Take up what an interrupted run left, unless it had another plan or is not whole."""
        try:
            if json.loads((self._folder / "plan.json").read_text()) != self._plan:
                return False
            lines = self._journal.read_bytes() if self._journal.exists() else b""
        except (OSError, ValueError):
            return False
        whole = 0
        for line in lines.splitlines(keepends=True):
            checksum, _, text = line.removesuffix(b"\n").partition(b" ")
            if line[-1:] != b"\n" or checksum != b"%08x" % zlib.crc32(text):
                break  # the process was killed while it wrote this line, or another hand did
            kind, name, facts = json.loads(text)
            noted = self._arrays if kind == "array" else self.done
            noted[name] = facts
            whole += len(line)
        if all(self._is_as_noted(name, noted) for name, noted in self._arrays.items()):
            if whole < len(lines):
                os.truncate(self._journal, whole)  # the next line would be glued to the rest
            return True
        self._arrays.clear()
        self.done.clear()
        return False

    def _is_as_noted(self, name: str, noted: Any) -> bool:
        """Whether an array has the size, shape and dtype with which it was begun."""
        path = self._folder / name
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            return noted == [path.stat().st_size, list(array.shape), str(array.dtype)]
        except (OSError, ValueError, EOFError):
            return False
