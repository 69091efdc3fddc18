"""What results depend on beside parameters and inputs: code, packages, and the machine."""

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import resource
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import drift
from drift import InputError

PACKAGES = (
    *("torch", "torchvision", "faiss-cpu", "hnswlib", "numpy", "scipy", "pandas", "pyarrow"),
    *("matplotlib", "scikit-image"),
)


_threads: int | None = None


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that results can depend on."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def processor() -> str:
    """What the system calls its processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def n_threads() -> int:
    """Threads to compute with: those of `use_threads`, else one for each core of this process."""
    if _threads is not None:
        return _threads
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def use_threads(threads: int) -> None:
    """Set the threads of this process and of the libraries that it has loaded or will load."""
    global _threads
    _threads = threads
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    if "faiss" in sys.modules:
        sys.modules["faiss"].omp_set_num_threads(threads)


def _code_hash() -> str:
    """Hash of the package's source as it is on disk now."""
    digest = hashlib.sha256()
    for path in sorted(Path(drift.__file__).parent.rglob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


# Taken when the module is loaded: a worker that was started long ago does not run what is on disk.
_CODE = _code_hash()


@dataclass(frozen=True)
class Environment:
    """What a worker must have in common with the process that hands out the blocks.

    Attributes
    ----------
    code : str
        Hash of the package's source.
    versions : dict
        Versions of Python and of the packages that results depend on, and of Dask.
    files : dict
        Size in bytes and time of the last change in ns, by absolute path.
    """

    code: str
    versions: dict[str, str]
    files: dict[Path, tuple[int, int]]

    @classmethod
    def here(cls, files: Iterable[Path]) -> Self:
        """The environment here, with the files that a task reads."""
        sizes_and_times = {path.absolute(): _size_and_time(path) for path in files}
        return cls(_CODE, _worker_versions(), sizes_and_times)

    def check(self, worker: str) -> None:
        """Check that this process, a worker, computes the same.

        Raises
        ------
        InputError
            When it has other packages, runs other code or sees other files.
        """
        versions = _worker_versions()
        others = [
            f"{package} {versions.get(package, 'missing')}, not {version}"
            for package, version in self.versions.items()
            if versions.get(package) != version
        ]
        if others:
            raise InputError(
                f"the worker {worker} has other packages ({'; '.join(others)}): give it the same"
            )
        if self.code != _CODE:
            raise InputError(
                f"the worker {worker} runs another state of drift/: start it again, in a checkout "
                "like this one"
            )
        for path, expected in self.files.items():
            try:
                same = _size_and_time(path) == expected
            except OSError:
                same = False
            if not same:
                raise InputError(
                    f"the worker {worker} does not see {path} as this machine does: the results "
                    "folder must be one that all machines share, under the same path"
                )


def _size_and_time(path: Path) -> tuple[int, int]:
    # Opened first: only then does a network file system ask its server.
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _worker_versions() -> dict[str, str]:
    import distributed

    return {**package_versions(), "distributed": distributed.__version__}
