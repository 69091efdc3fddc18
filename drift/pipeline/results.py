"""The results folder: what each stage wrote there, and whether a file can be trusted.

Every stage writes its files together with a manifest, a JSON file that records the parameters, the
inputs and the outputs by content hash. A later stage trusts a file only when its hash is the one
in its manifest, and only when nothing it was made from has changed since. Hashes, not dates,
decide: a copied folder is as good as the original, and a stage repeated with the same result makes
nothing stale.

`drift.pipeline.stage` writes those files.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

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


class ArtifactError(InputError):
    """A file of the results folder is missing, damaged or stale; the message says what to run."""


def producer(name: str) -> str:
    """Stage that writes an artifact.

    ``03_exact`` for instance, ``04_hnsw/RUN`` for the files of a run, ``04_hnsw/graphs/GRAPH`` for
    a graph. A file that no stage wrote, recorded by its absolute path, is its own producer.
    """
    if Path(name).is_absolute():
        return name
    if name.startswith(GRAPHS):
        return str(Path(name).with_suffix(""))
    if name.startswith("04_hnsw/"):
        return "/".join(name.split("/")[:2])
    return next(stage for stage in SCRIPTS if stage[:3] == name[:3])


def producing_script(stage: str) -> str:
    """Script that runs a stage."""
    return SCRIPTS[stage.split("/")[0]]


def manifest_name(stage: str) -> str:
    """File that holds a stage's manifest, relative to the results folder."""
    is_run = "/" in stage and not stage.startswith(GRAPHS)
    return f"{stage}/run.json" if is_run else f"{stage}.json"


def content_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe(path: Path) -> dict[str, Any]:
    """Shape, dtype, size and content hash of an artifact, as its manifest records them.

    The shape of a table is (rows, columns) and its dtype a mapping from column to type; a figure or
    a page has neither.
    """
    shape, dtype = None, None
    if path.suffix == ".npy":
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        shape, dtype = list(array.shape), str(array.dtype)
    elif path.suffix == ".parquet":
        import pyarrow.parquet  # not needed to say that a stage is up to date

        file = pyarrow.parquet.ParquetFile(path)
        shape = [file.metadata.num_rows, file.metadata.num_columns]
        dtype = {field.name: str(field.type) for field in file.schema_arrow}
    return {
        "shape": shape,
        "dtype": dtype,
        "bytes": path.stat().st_size,
        "sha256": content_hash(path),
    }


def manifest_hash(manifest: dict[str, Any]) -> str:
    """SHA-256 of a manifest's own content, by which a damaged one is noticed."""
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


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
    """An array from a ``.npy`` file of the user's, memory-mapped.

    Raises
    ------
    InputError
        When the file is no such array, or one of Python objects, whose code is not run.
    """
    try:
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except (ValueError, EOFError, TypeError, SyntaxError) as error:
        raise InputError(
            f"{path} is not a whole .npy file of numbers: write it with numpy.save"
        ) from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise InputError(f"{path} is an archive of arrays: write one array with numpy.save")
    return array


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file under a temporary name, and rename it when it is whole and on disk."""
    temporary = path.with_name(f".{path.name}.tmp")
    with add_filename(path), temporary.open("w") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _by_numbers(folder: Path) -> list[tuple[int, str]]:
    """Sorting key by which ``ef50`` comes before ``ef200``."""
    parts = re.split(r"(\d+)", folder.name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


class Results:
    """A results folder.

    Parameters
    ----------
    root : Path
        The folder. It is created when the first stage writes to it.

    Raises
    ------
    ArtifactError
        When `root` is something other than a folder.
    """

    def __init__(self, root: Path):
        if not root.is_dir() and (root.exists() or root.is_symlink()):
            raise ArtifactError(f"{root} is not a folder: name another one with --results")
        self.root = root

    def path(self, name: str) -> Path:
        """Where an artifact lies."""
        return self.root / name

    def load(self, name: str) -> np.ndarray:
        """An array of the folder, memory-mapped. Call `require` on it first."""
        # Copy-on-write: torch takes no read-only array, and nothing that is written here reaches
        # the file.
        return np.load(self.path(name), mmap_mode="c", allow_pickle=False)

    def manifest(self, stage: str) -> dict[str, Any] | None:
        """A stage's manifest, or None where it is missing or is not one."""
        manifest = read_manifest(self.path(manifest_name(stage)))
        return manifest if manifest and manifest["stage"] == stage else None

    def require(self, *names: str) -> dict[str, dict[str, Any]]:
        """Check that artifacts are there, whole and current.

        Returns
        -------
        dict
            For each name its entry in the manifest of the stage that wrote it.

        Raises
        ------
        ArtifactError
            When one is missing, is not what its stage wrote, or is older than what it was made
            from. The message names the script to run.
        """
        entries, current = {}, set()
        for name in names:
            stage = producer(name)
            script = producing_script(stage)
            if not self.path(name).exists():
                raise ArtifactError(f"{self.path(name)} is missing: run {script} first")
            manifest = self.manifest(stage)
            if manifest is None or name not in manifest["outputs"]:
                raise ArtifactError(
                    f"{self.path(manifest_name(stage))}, which vouches for {name}, is missing or "
                    f"damaged: run {script} again"
                )
            if stage not in current:
                self._require_current(stage)
                current.add(stage)
            entries[name] = manifest["outputs"][name]
        for name in self._damaged(entries):
            script = producing_script(producer(name))
            raise ArtifactError(
                f"{self.path(name)} is damaged, it is not what {script} wrote: run {script} again"
            )
        return entries

    def up_to_date(
        self, stage: str, parameters: dict[str, Any], inputs: dict[str, dict[str, Any]]
    ) -> bool:
        """Whether a stage's outputs are there, whole, and made from these parameters and inputs."""
        manifest = self.manifest(stage)
        return (
            manifest is not None
            and manifest["parameters"] == parameters
            and manifest["inputs"] == inputs
            and not self._damaged(manifest["outputs"])
        )

    def runs(self) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
        """The ANN runs of stage 04.

        Returns
        -------
        current : dict
            Manifest of each run that was searched with the present embeddings and exact lists, by
            name.
        left_out : dict
            Why each other folder below ``04_hnsw/`` is not one of them, by name.
        """
        current, left_out = {}, {}
        for folder in self.run_folders():
            manifest = self.manifest(f"04_hnsw/{folder.name}")
            if manifest is None:
                left_out[folder.name] = (
                    "its run.json is missing or damaged: run 04_hnsw_search.py again"
                )
                continue
            try:
                self._require_current(f"04_hnsw/{folder.name}")
            except ArtifactError:
                left_out[folder.name] = "made from other embeddings or exact lists"
            else:
                current[folder.name] = manifest
        return current, left_out

    def run_folders(self) -> list[Path]:
        """Folders of the runs of stage 04, whole or not, in the order of the numbers in them."""
        folders = (path for path in self.path("04_hnsw").glob("*") if path.is_dir())
        return sorted((path for path in folders if path.name != "graphs"), key=_by_numbers)

    def graphs(self) -> list[str]:
        """Names of the graphs that stage 04 has saved, or of which it has left a file."""
        folder = self.path(GRAPHS)
        return [] if folder.is_symlink() else sorted({path.stem for path in folder.glob("*")})

    def remove_graph(self, graph: str) -> None:
        """Remove a saved graph, its manifest first: killed then, it leaves none that is trusted."""
        for path in sorted(self.path(GRAPHS).glob(f"{graph}.*"), key=lambda p: p.suffix != ".json"):
            path.unlink()
        with contextlib.suppress(OSError):
            self.path(GRAPHS).rmdir()

    def remove_run(self, run: str) -> None:
        """Remove a run's folder, and of a link to a folder the link alone."""
        folder = self.path(f"04_hnsw/{run}")
        if folder.is_symlink():
            folder.unlink()
            return
        # First of all: killed then, it leaves no run that lacks files.
        (folder / "run.json").unlink(missing_ok=True)
        shutil.rmtree(folder)

    def _damaged(self, entries: dict[str, dict[str, Any]]) -> list[str]:
        """Which artifacts are not what their entries say; hashing them takes all cores."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            matches = list(pool.map(self._matches_manifest, entries, entries.values()))
        return [name for name, match in zip(entries, matches, strict=True) if not match]

    def _matches_manifest(self, name: str, entry: dict[str, Any]) -> bool:
        path = self.path(name)
        return (
            path.is_file()
            and path.stat().st_size == entry.get("bytes")
            and content_hash(path) == entry["sha256"]
        )

    def _is_unchanged(self, name: str, recorded: dict[str, Any]) -> bool:
        """Whether an input is what it was, or gone: the stage that needs it itself will miss it."""
        if Path(name).is_absolute():  # the user's own, that no manifest vouches for
            return not Path(name).exists() or self._matches_manifest(name, recorded)
        source = self.manifest(producer(name))
        return source is None or source["outputs"].get(name, {}).get("sha256") == recorded["sha256"]

    def _require_current(self, stage: str) -> None:
        """Raise when anything a stage was made from, directly or not, has changed since."""
        manifest = self.manifest(stage)
        inputs = {} if manifest is None else manifest["inputs"]
        for upstream in dict.fromkeys(producer(name) for name in inputs):
            self._require_current(upstream)
        for name, recorded in inputs.items():
            if not self._is_unchanged(name, recorded):
                raise ArtifactError(
                    f"the files of stage {stage} in {self.root} are older than {name}, from which "
                    f"they were made: run {producing_script(stage)} again"
                )
