"""The results folder: what each stage wrote there, and whether a file can be trusted.

`drift.pipeline.stage` writes a stage's files together with a manifest, a JSON file that records
parameters, inputs and outputs by content hash. A later stage trusts a file only when its hash is
the one in its manifest, and only when nothing it was made from has changed since. Hashes, not
dates, decide: a copied folder is as good as the original, and a stage repeated with the same result
makes nothing stale.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from drift import InputError, add_filename

SCRIPTS = {
    "01_images": "01_download_stl10.py",
    "02_embeddings": "02_embed_resnet50.py",
    "03_exact": "03_exact_knn.py",
    "04_hnsw": "04_hnsw_search.py",
    "05_metrics": "05_metrics.py",
    "06_figures": "06_plots.py",
}
GRAPHS = "04_hnsw/graphs/"
PER_QUERY = "05_per_query/"
SETTLED_NS = 2 * 10**9  # after that long, another change to a file shows in its time
Entries = dict[str, dict[str, Any]]  # by the name of a file or a block
_hashes: dict[tuple[int, ...], str] = {}


class ArtifactError(InputError):
    """A file of the results folder is missing, damaged or stale; the message says what to run."""


def producer(name: str) -> str:
    """Stage that writes an artifact: ``03_exact``, ``04_hnsw/RUN``, ``05_metrics/RUN`` ...

    A file that no stage wrote, recorded by its absolute path, is its own producer.
    """
    if Path(name).is_absolute():
        return name
    if name.startswith(GRAPHS):
        return str(Path(name).with_suffix(""))
    if name.startswith(PER_QUERY):
        return f"05_metrics/{Path(name).stem}"
    if name.startswith("04_hnsw/"):
        return "/".join(name.split("/")[:2])
    return next(stage for stage in SCRIPTS if stage[:3] == name[:3])


def producing_script(stage: str) -> str:
    """Script that runs a stage."""
    return SCRIPTS[stage.partition("/")[0]]


def manifest_name(stage: str) -> str:
    """File that holds a stage's manifest, relative to the results folder."""
    whole, _, part = stage.partition("/")
    if whole == "05_metrics" and part:
        return f"{PER_QUERY}{part}.json"
    return f"{stage}/run.json" if part and not stage.startswith(GRAPHS) else f"{stage}.json"


def content_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; they are read again only when it has changed."""
    status = path.stat()
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
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        shape, dtype = list(array.shape), str(array.dtype)
    elif path.suffix == ".parquet":
        file = pq.ParquetFile(path)
        shape = [file.metadata.num_rows, file.metadata.num_columns]
        dtype = {field.name: str(field.type) for field in file.schema_arrow}
    size, sha256 = path.stat().st_size, content_hash(path)
    return {"shape": shape, "dtype": dtype, "bytes": size, "sha256": sha256}


def manifest_hash(manifest: dict[str, Any]) -> str:
    """SHA-256 of a manifest's own content, by which a damaged one is noticed.

    Raises a `ValueError` for one with NaN, which is no JSON.
    """
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, allow_nan=False).encode()).hexdigest()


def read_manifest(path: Path) -> dict[str, Any] | None:
    """A manifest, or None where there is none, or not the one that was written."""
    try:
        manifest = json.loads(path.read_text())
        return manifest if manifest["sha256"] == manifest_hash(manifest) else None
    except PermissionError:
        raise  # it may well be whole
    except (OSError, ValueError, KeyError, TypeError):
        return None


def load_array(path: Path) -> np.ndarray:
    """An array from a ``.npy`` file, memory-mapped; a change to it does not reach the file.

    Raises
    ------
    InputError
        When the file is no such array, or one of Python objects, whose code is not run.
    """
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


def write_json(path: Path, content: dict[str, Any], on_disk: bool = True) -> None:
    """Write a JSON file under a temporary name, and rename it when it is whole and `on_disk`."""
    temporary = path.with_name(f".{path.name}.tmp")
    with add_filename(path), temporary.open("w") as file:
        json.dump(content, file, indent=2, allow_nan=False)
        file.write("\n")
        file.flush()
        if on_disk:
            os.fsync(file.fileno())
    temporary.replace(path)


class Results:
    """A results folder, created when the first stage writes to it; no other kind of file."""

    def __init__(self, root: Path):
        if not root.is_dir() and (root.exists() or root.is_symlink()):
            raise ArtifactError(f"{root} is not a folder: name another one with --results")
        self.root = root

    def path(self, name: str) -> Path:
        """Where an artifact lies."""
        return self.root / name

    def load(self, name: str) -> np.ndarray:
        """An array of the folder, memory-mapped. Call `require` on it first."""
        return load_array(self.path(name))

    def manifest(self, stage: str) -> dict[str, Any] | None:
        """A stage's manifest, or None where it is missing or is not one."""
        manifest = read_manifest(self.path(manifest_name(stage)))
        return manifest if manifest and manifest["stage"] == stage else None

    def require(self, *names: str) -> Entries:
        """Check that artifacts are there, whole and current; return their manifest entries.

        Raises
        ------
        ArtifactError
            When one is missing, is not what its stage wrote, or is older than what it was made
            from. The message names the script to run.
        """
        entries: Entries = {}
        manifests: dict[str, dict[str, Any] | None] = {}
        for name in names:
            stage, path = producer(name), self.path(name)
            script, manifest = producing_script(stage), manifests.get(stage) or self.manifest(stage)
            if not path.exists():
                raise ArtifactError(f"{path} is missing: run {script} first")
            if manifest is None or name not in manifest["outputs"]:
                raise ArtifactError(
                    f"{self.path(manifest_name(stage))}, which vouches for {name}, is missing "
                    f"or damaged: run {script} again"
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

    def _why_left_out(self, manifest: dict[str, Any] | None, exact: dict[str, Any]) -> str | None:
        if manifest is None:
            return "its run.json is missing or damaged: run 04_hnsw_search.py again"
        parameters = manifest["parameters"]
        if "run" not in parameters:
            return "made by an earlier version: run 04_hnsw_search.py again"
        try:
            self._require_current(manifest["stage"], {})
        except ArtifactError:
            return "made from other embeddings or exact lists: run 04_hnsw_search.py again"
        if exact.get("protocol", parameters["protocol"]) != parameters["protocol"]:
            return "searched by another protocol than that of the exact lists"
        shortest = min(parameters["k_grid"])
        if shortest > exact.get("k_max", shortest):
            return (
                f"searched from k = {shortest} on, and the exact lists end at {exact['k_max']}: "
                f"run 03_exact_knn.py --k-max {shortest} or more"
            )
        return None

    def run_folders(self) -> list[Path]:
        """Folders of the runs of stage 04, whole or not, in the order of the numbers in them."""
        folders = {path for path in self.path("04_hnsw").glob("*") if path.is_dir()}
        folders -= {self.path(GRAPHS)}
        return sorted(folders, key=lambda run: re.sub(r"\d+", lambda n: n[0].zfill(9), run.name))

    def graphs(self) -> list[str]:
        """Names of the graphs of which stage 04 has saved a file."""
        folder = self.path(GRAPHS)
        return [] if folder.is_symlink() else sorted({path.stem for path in folder.glob("*")})

    def remove_run(self, run: str) -> None:
        """Remove a run's folder, and of a link to a folder the link alone."""
        folder = self.path(f"04_hnsw/{run}")
        if folder.is_symlink():
            folder.unlink()
            return
        (folder / "run.json").unlink(missing_ok=True)  # without it the rest is not trusted
        shutil.rmtree(folder)

    def remove_graph(self, graph: str) -> None:
        """Remove a saved graph."""
        self._remove_files(GRAPHS, graph)

    def remove_part(self, run: str) -> None:
        """Remove what stage 05 has stored of a run alone."""
        self._remove_files(PER_QUERY, run)

    def _remove_files(self, folder: str, stem: str) -> None:
        paths = [path for path in self.path(folder).glob("*") if path.stem == stem]
        if not self.path(folder).is_symlink():
            for path in sorted(paths, key=lambda path: path.suffix != ".json"):
                path.unlink()  # the manifest first, without which the rest is not trusted
            with contextlib.suppress(OSError):
                self.path(folder).rmdir()

    def _damaged(self, entries: Entries) -> list[str]:
        """Which artifacts are not what their entries say; hashing them takes all cores."""

        def is_whole(name: str) -> bool:
            path, entry = self.path(name), entries[name]
            has_size = path.is_file() and path.stat().st_size == entry["bytes"]
            return has_size and content_hash(path) == entry["sha256"]

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            whole = pool.map(is_whole, entries)
            return [name for name, is_ in zip(entries, whole, strict=True) if not is_]

    def _require_current(self, stage: str, manifests: dict[str, dict[str, Any] | None]) -> None:
        """Raise when anything a stage was made from, directly or not, has changed since."""
        if stage in manifests:
            return
        manifests[stage] = manifest = self.manifest(stage)
        inputs = manifest["inputs"] if manifest else {}
        for upstream in dict.fromkeys(map(producer, inputs)):
            self._require_current(upstream, manifests)
        for name, recorded in inputs.items():
            # What is gone has not changed: the stage that needs it itself will miss it.
            if Path(name).is_absolute():  # the user's own, that no manifest vouches for
                is_same = not Path(name).exists() or not self._damaged({name: recorded})
            else:
                source = manifests[producer(name)]
                outputs = source["outputs"] if source else inputs
                is_same = outputs.get(name, {}).get("sha256") == recorded["sha256"]
            if not is_same:
                raise ArtifactError(
                    f"the files of stage {stage} in {self.root} are older than {name}, from which "
                    f"they were made: run {producing_script(stage)} again"
                )
