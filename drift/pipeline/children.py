"""Calls in Python processes of their own, for what keeps Python's lock to itself."""

import contextlib
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any

from drift.pipeline.environment import n_threads

# What a child does. It draws nothing: igraph would import matplotlib, which takes half a second.
CHILD = """
import pickle, sys
sys.modules["matplotlib"] = None
sys.path[:] = pickle.load(sys.stdin.buffer)
from drift import InputError
function, given = pickle.load(sys.stdin.buffer)
try:
    result = function(*given)
except (InputError, MemoryError) as error:
    result = error
pickle.dump(result, sys.stdout.buffer)
"""
COMMAND = [sys.executable, "-P", "-c", CHILD]
PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}


def call_in_children(function: Callable, calls: Iterable[tuple]) -> list[Any]:
    """The results of some calls, in their order; as many at a time as there are threads.

    A child imports what the function needs, not the script, and outlives neither an interruption
    nor an error here. Raises a call's `InputError` or `MemoryError`; `MemoryError` for one killed.
    """
    running, results = [], []
    try:
        for given in calls:
            if len(running) == n_threads():
                results.append(_result(running[0]))
                del running[0]
            # Out of Ctrl-C's reach, which ends it here.
            running.append(subprocess.Popen(COMMAND, start_new_session=True, **PIPES))
            # One that was started, and is not among them yet, waits for this, and ends without it.
            with contextlib.suppress(BrokenPipeError), running[-1].stdin as pipe:
                pickle.dump(sys.path, pipe)
                pickle.dump((function, given), pipe)
        return [*results, *map(_result, running)]
    finally:
        for process in running:
            process.kill()
            process.wait()
            process.stdout.close()


def _result(process: subprocess.Popen) -> Any:
    answer = process.stdout.read()
    if (status := process.wait()) < 0:
        why = f"a process that this one had started ended by signal {-status}"
        raise MemoryError(f"{why}, for which a lack of memory is the usual reason")
    result = pickle.loads(answer)
    if isinstance(result, Exception):
        raise result
    return result
