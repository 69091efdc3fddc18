"""The outputs of a stage in the making: nothing counts before it is whole, and no work is lost.

They grow under ``.draft/`` in the results folder, beside a journal of what is done, and are moved
into place at the end, the manifest last. Killed at any moment, a stage leaves the files that were
good before, and its own work for the next start.
"""

import importlib.metadata
import json
import os
import platform
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from drift.artifacts import ArtifactError, Results, describe, manifest_name, write_json

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
        self._folder = results.path(".draft") / stage.replace("/", "--")
        self._journal = self._folder / "journal.jsonl"
        self._names: list[str] = []
        self._started = time.monotonic()
        self._arrays: dict[str, Any] = {}
        self.done: dict[str, dict[str, Any]] = {}
        self._require_no_folder(manifest_name(stage))
        if fresh or not self._resume():
            shutil.rmtree(self._folder, ignore_errors=True)
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
        np.save(self.path(name), array, allow_pickle=False)

    def path(self, name: str) -> Path:
        """Where to write an output, until `publish` moves it into place."""
        if name not in self._names:
            self._require_no_folder(name)
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
        stage = manifest["stage"]
        previous = self._results.manifest(stage)
        for name in self._names:
            with (self._folder / name).open("rb") as file:
                os.fsync(file.fileno())
            target = self._results.path(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            (self._folder / name).replace(target)
        write_json(self._results.path(manifest_name(stage)), manifest)
        for name in set(previous["outputs"] if previous else ()) - set(self._names):
            self._results.path(name).unlink(missing_ok=True)
        shutil.rmtree(self._folder)
        if not any(self._folder.parent.iterdir()):
            self._folder.parent.rmdir()
        return manifest

    def _require_no_folder(self, name: str) -> None:
        target = self._results.path(name)
        if target.is_dir():
            raise ArtifactError(
                f"{target} is a folder, and a file is to be written there: remove it"
            )

    def _open(self, name: str, shape: tuple[int, ...], dtype: type) -> np.memmap:
        path = self._folder / name
        if name in self._arrays:
            return np.lib.format.open_memmap(path, mode="r+")
        temporary = path.with_name(f"{path.name}.tmp")
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=shape)
        if hasattr(os, "posix_fallocate"):
            # A mapped write to a full disk kills the process; asking for the room fails in words.
            with temporary.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, temporary.stat().st_size)
        temporary.replace(path)
        self._arrays[name] = [path.stat().st_size, list(shape), str(array.dtype)]
        self._note("array", name, self._arrays[name])
        return array

    def _note(self, *line: Any) -> None:
        with self._journal.open("a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _resume(self) -> bool:
        """Take up what an interrupted run left, unless it had another plan or is not whole."""
        try:
            if json.loads((self._folder / "plan.json").read_text()) != self._plan:
                return False
            lines = self._journal.read_text().splitlines() if self._journal.exists() else []
        except (OSError, ValueError):
            return False
        whole = []
        for line in lines:
            try:
                kind, name, facts = json.loads(line)
            except (ValueError, TypeError):
                break  # the process was killed while it wrote this line
            noted = self._arrays if kind == "array" else self.done
            noted[str(name)] = facts
            whole.append(line + "\n")
        if all(self._is_as_noted(name, noted) for name, noted in self._arrays.items()):
            # Without a half-written last line, to which the next one would be glued.
            self._journal.write_text("".join(whole))
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
