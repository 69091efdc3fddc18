"""The machine on which a table was made, and what a script takes on it."""

import resource
import subprocess
import sys
import time
from pathlib import Path

from drift.pipeline.environment import n_threads, processor

ROOT = Path(__file__).parent.parent


def machine() -> str:
    """Its processor and the threads that are used on it, to stand above a table."""
    return f"{processor()}, {n_threads()} threads"


def timed(*command: str | Path) -> tuple[float, float, str]:
    """Seconds that a Python script takes, those of the processors, and what it prints."""
    start = time.perf_counter(), _processor_time()
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    return time.perf_counter() - start[0], _processor_time() - start[1], done.stdout


def _processor_time() -> float:
    """Of all processes that have been waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
