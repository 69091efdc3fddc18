"""The results folder: what each stage wrote there, and whether a file can be trusted.

A stage's manifest records parameters, inputs and outputs by content hash. A later stage trusts a
file only when its hash is the one there, and nothing that it was made from has changed since.
Hashes, not dates, decide: a copied folder is as good as the original, and a stage repeated with the
same result makes nothing stale.
"""

import contextlib
import hashlib
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from drift import InputError, regular_file
from drift.pipeline.manifests import (
    GRAPHS,
    PART,
    RUNS,
    Entries,
    Manifest,
    manifest_name,
    producer,
    producing_script,
    read_manifest,
    remove_if_empty,
)

MISSING = "missing, damaged or of an earlier version"
SETTLED_NS = 2 * 10**9  # after that long, another change to a file shows in its time
_hashes: dict[tuple[int, ...], str] = {}


class ArtifactError(InputError):
    """A file of the results folder is missing, damaged or stale; the message says what to run."""


def content_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; they are read again only when it has changed."""
    status = regular_file(path)
    key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if key in _hashes:
        return _hashes[key]
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if time.time_ns() - status.st_mtime_ns > SETTLED_NS:
        _hashes[key] = sha256
    return sha256


def describe(path: Path) -> dict[str, Any]:
    """Shape, dtype, size and content hash of an artifact, as its manifest records them.

    The shape of a table is (rows, columns) and its dtype a mapping from column to type.
    """
    shape, dtype = None, None  # of a figure or a page
    if path.suffix == ".npy":
        array = load_array(path)
        shape, dtype = list(array.shape), str(array.dtype)
    elif path.suffix == ".parquet":
        file = pq.ParquetFile(path)
        shape = [file.metadata.num_rows, file.metadata.num_columns]
        dtype = {field.name: str(field.type) for field in file.schema_arrow}
    size, sha256 = path.stat().st_size, content_hash(path)
    return {"shape": shape, "dtype": dtype, "bytes": size, "sha256": sha256}


def load_array(path: Path) -> np.ndarray:
    """An array from a ``.npy`` file, memory-mapped; a change to it does not reach the file.

    Map it anew for each block: the pages of a mapping count as memory as long as it lives.
    An InputError for another file, and for Python objects, whose code is not run.
    """
    regular_file(path)
    try:
        # Copy-on-write: torch takes no read-only array.
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except (ValueError, EOFError, TypeError, SyntaxError) as error:
        message = f"{path} is not a whole .npy file of numbers: write it with numpy.save"
        raise InputError(message) from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise InputError(f"{path} is an archive of arrays: write one array with numpy.save")
    return array


class Results:
    """A results folder, created when the first stage writes to it; no other kind of file."""

    def __init__(self, root: Path):
        if not root.is_dir() and (root.exists() or root.is_symlink()):
            raise ArtifactError(f"{root} is not a folder: name another one with --results")
        self.root = root

    def path(self, name: str | Path) -> Path:
        """Where an artifact lies."""
        return self.root / name

    def manifest(self, stage: str) -> Manifest | None:
        """A stage's manifest, or None where it is missing or is not one."""
        manifest = read_manifest(self.path(manifest_name(stage)))
        return manifest if manifest and manifest["stage"] == stage else None

    def require_place(self, name: str) -> None:
        """Refuse to write over a folder, or through a link to somewhere else."""
        target = self.path(name)
        if target.is_dir():
            raise ArtifactError(f"{target} is a folder where a file is to be written: remove it")
        while (target := target.parent) != self.root:
            if target.is_symlink() or (target.exists() and not target.is_dir()):
                raise ArtifactError(f"{target} is a link or a file, not a folder: remove it")

    def require(self, *names: str) -> Entries:
        """Check that artifacts are there, whole and current; return their manifest entries.

        An ArtifactError, which names the script to run, when one is missing, not what its stage
        wrote, or older than what it was made from.
        """
        entries: Entries = {}
        manifests: dict[str, Manifest | None] = {}
        for name in names:
            stage, path = producer(name), self.path(name)
            script, manifest = producing_script(stage), manifests.get(stage) or self.manifest(stage)
            if not path.exists():
                raise ArtifactError(f"{path} is missing: run {script} first")
            if manifest is None or name not in manifest["outputs"]:
                raise ArtifactError(
                    f"{self.path(manifest_name(stage))}, which vouches for {name}, is "
                    f"{MISSING}: run {script} again"
                )
            entries[name] = manifest["outputs"][name]
            self._require_current(stage, manifests)
        for name in self._damaged(entries):
            script = producing_script(producer(name))
            raise ArtifactError(
                f"{self.path(name)} is damaged, it is not what {script} wrote: run {script} again"
            )
        return entries

    def up_to_date(self, stage: str, parameters: dict[str, Any], inputs: Entries) -> bool:
        """Whether a stage's outputs are there, whole, and made from these parameters and inputs."""
        manifest = self.manifest(stage)
        return (
            manifest is not None
            and manifest["parameters"] == parameters
            and manifest["inputs"] == inputs
            and not self._damaged(manifest["outputs"])
        )

    def runs(self) -> tuple[Entries, dict[str, str]]:
        """Manifests of the ANN runs that the present exact lists can be compared with, by name.

        With it, why each other folder below ``04_hnsw/`` is not one of them.
        """
        exact = (self.manifest("03_exact") or {"parameters": {}})["parameters"]
        current, left_out = {}, {}
        for run in (folder.name for folder in self.run_folders()):
            manifest = self.manifest(f"04_hnsw/{run}")
            if reason := self._why_left_out(manifest, exact):
                left_out[run] = reason
            else:
                current[run] = manifest
        return current, left_out

    def _why_left_out(self, manifest: Manifest | None, exact: dict[str, Any]) -> str | None:
        if manifest is None:
            return f"its run.json is {MISSING}: run 04_hnsw_search.py again"
        parameters = manifest["parameters"]
        try:
            self._require_current(manifest["stage"], {})
        except ArtifactError:
            command = f"04_hnsw_search.py {manifest.get('asked_by', '')}".strip()
            return f"made from other embeddings or exact lists: run {command} again"
        if exact.get("protocol", parameters["protocol"]) != parameters["protocol"]:
            return "searched by another protocol than that of the exact lists"
        if (shortest := min(parameters["k_grid"])) > exact.get("k_max", shortest):
            return (
                f"searched from k = {shortest} on, and the exact lists end at {exact['k_max']}: "
                f"run 03_exact_knn.py --k-max {shortest} or more"
            )
        return None

    def run_folders(self) -> list[Path]:
        """Folders of the runs of stage 04, whole or not, in the order of the numbers in them."""
        folders = [path for path in self.path(RUNS).glob("*") if path.is_dir()]
        runs = [path for path in folders if path.name != "graphs" and PART.fullmatch(path.name)]
        return sorted(runs, key=lambda run: re.sub(r"\d+", lambda n: n[0].zfill(9), run.name))

    def graphs(self) -> list[str]:
        """Names of the graphs that stage 04 has saved."""
        stems = sorted({path.stem for path in self.path(GRAPHS).glob("*.json")})
        return [stem for stem in stems if self.manifest(f"{GRAPHS}{stem}")]

    def own_files(self, stage: str) -> list[str]:
        """What a stage, a run, a graph or a part has written, in the order in which it can go.

        Of a run without its manifest these are its lists, if there is nothing else in its folder.
        """
        own, manifest = manifest_name(stage), self.manifest(stage)
        if manifest:
            # Without its manifest nobody trusts a run; of others the last file leads to the first.
            names = [*manifest["outputs"], own]
            return names[::-1] if own.endswith("run.json") else names
        names = [f"{stage}/{path.name}" for path in self.path(stage).glob("*")]
        with contextlib.suppress(ValueError):
            if own not in names and all(producer(name) == stage for name in names):
                return names
        return []

    def remove(self, stage: str) -> None:
        """Remove `own_files`, and the folders that become empty; what is behind a link stays.

        Of a run whose folder is a link the link goes.
        """
        folder = self.path(stage)
        if folder.is_symlink() and not folder.parent.is_symlink():
            folder.unlink()
            return
        for name in self.own_files(stage):
            path, folders = (
                self.path(name),
                [self.path(str(one)) for one in Path(name).parents][:-1],
            )
            if not path.is_dir() and not any(one.is_symlink() for one in folders):
                path.unlink(missing_ok=True)
                remove_if_empty(*folders)

    def _damaged(self, entries: Entries) -> list[str]:
        """Which artifacts are not what their entries say; hashing them takes all cores."""

        def is_whole(name: str) -> bool:
            path, entry = self.path(name), entries[name]
            has_size = path.is_file() and path.stat().st_size == entry["bytes"]
            return has_size and content_hash(path) == entry["sha256"]

        def is_as_said(name: str) -> bool:
            with contextlib.suppress(ValueError):  # not even an array, or a table
                return describe(self.path(name)) == entries[name]
            return False

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            whole = zip(entries, pool.map(is_whole, entries), strict=True)
            # Not in the pool: headers of arrays are parsed by a function that is for one thread.
            return [name for name, is_ in whole if not (is_ and is_as_said(name))]

    def _require_current(self, stage: str, manifests: dict[str, Manifest | None]) -> None:
        """Raise when anything a stage was made from, directly or not, has changed since."""
        if stage in manifests:
            return
        manifests[stage] = manifest = self.manifest(stage)
        inputs = manifest["inputs"] if manifest else {}
        for upstream in dict.fromkeys(map(producer, inputs)):
            self._require_current(upstream, manifests)
        for name, recorded in inputs.items():
            # What is gone has not changed: the stage that needs it itself will miss it.
            source = manifests[producer(name)]
            outputs = source["outputs"] if source else inputs
            if outputs.get(name, {}).get("sha256") != recorded["sha256"]:
                raise ArtifactError(
                    f"the files of stage {stage} in {self.root} are older than {name}, from which "
                    f"they were made: run {producing_script(stage)} again"
                )
