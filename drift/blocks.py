"""Work cut into blocks, with a progress bar and a journal: it goes on where it stopped."""

import math
import sys
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, Protocol, Self, TypeVar

from tqdm import tqdm

Unit = TypeVar("Unit", bound=Hashable)
Outcome = TypeVar("Outcome")


class Journal(Protocol):
    """What is done, by the name of the unit, with the facts that were noted of it."""

    done: dict[str, dict[str, Any]]

    def mark(self, unit: str, facts: dict[str, Any]) -> None:
        """Note that a unit is done and stored."""


class Workers(Protocol):
    """Other processes that compute, on this machine or on others; `drift.cluster` has them."""

    def outcomes(
        self, units: Sequence[Unit], compute: Callable[[Unit], Outcome]
    ) -> Iterator[tuple[Unit, Outcome]]:
        """Compute every unit once, and give each with its outcome, in whatever order they come."""


class Portable:
    """What computes in another process is made there, by the same arguments as here.

    A subclass takes paths and parameters, and opens what it needs by itself: pickled, it is those
    arguments and nothing else.
    """

    def __new__(cls, *arguments: Any) -> Self:
        portable = super().__new__(cls)
        portable._arguments = arguments
        return portable

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        return type(self), self._arguments


def use_threads(threads: int) -> None:
    """Set the threads of the libraries that this process has loaded, and load no other for it."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    if "faiss" in sys.modules:
        sys.modules["faiss"].omp_set_num_threads(threads)


def row_blocks(
    n_rows: int, bytes_per_row: int, budget: int = 64 << 20, multiple: int = 1
) -> list[tuple[int, int]]:
    """Cut rows into blocks that each fit a buffer.

    Parameters
    ----------
    n_rows : int
        Rows in all.
    bytes_per_row : int
        Memory that the work on one row needs.
    budget : int
        Bytes that one block may need. A block holds one row at the least.
    multiple : int
        Rows that a block holds a whole number of times, where so many fit the budget.

    Returns
    -------
    list of (int, int)
        First row of each block, and the row after its last.
    """
    size = max(1, budget // max(1, bytes_per_row))
    size -= size % multiple if size > multiple else 0
    return [(start, min(start + size, n_rows)) for start in range(0, n_rows, size)]


def estimate(
    units: Sequence[Unit],
    compute: Callable[[Unit], Outcome],
    journal: Journal,
    n_rows: int,
    rows: Callable[[int, int], Unit],
) -> float:
    """Seconds that `run` will take in this process, by a fiftieth of the rows, 256 at most.

    Parameters
    ----------
    units, compute, journal
        As for `run`; nothing of what is computed here is stored.
    n_rows : int
        Rows in all units together.
    rows : callable
        The unit of the rows from the first to the one before the second number.
    """
    left = sum(str(unit) not in journal.done for unit in units) / len(units)
    if left == 0:
        return 0.0

    def seconds(stop: int) -> float:
        compute(rows(0, stop))  # opens, builds and allocates what the second time finds
        begun = time.perf_counter()
        compute(rows(0, stop))
        return time.perf_counter() - begun

    each_unit = seconds(1)
    sample = min(256, 1 + n_rows // 50)
    each_row = max(0.0, seconds(sample) - each_unit) / max(1, sample - 1)
    return left * (len(units) * each_unit + n_rows * each_row)


def announce(seconds: float, label: str) -> None:
    """Say how long some work will take, if that can be more than a minute.

    From half a minute on: an estimate by a small sample, and without what comes after the blocks,
    is not better than that.
    """
    if seconds > 30:
        minutes = math.ceil(seconds / 60)
        print(f"{label}: about {minutes} minute{'s' * (minutes > 1)}", flush=True)


def run(
    units: Sequence[Unit],
    compute: Callable[[Unit], Outcome],
    store: Callable[[Unit, Outcome], dict[str, Any] | None],
    journal: Journal,
    label: str,
    workers: Workers | None = None,
) -> None:
    """Compute and store each unit of work that the journal does not hold yet.

    Parameters
    ----------
    units : sequence
        Names of the units, (start, stop) of a block of rows for instance.
    compute : callable
        From a unit to its outcome. It writes nothing, so that it can run anywhere; for `workers`
        it must be `Portable`.
    store : callable
        Takes a unit and its outcome, stores it, and returns the facts to remember of it, if any.
    journal : Journal
        Asked what is done, told what was done.
    label : str
        What the progress bar calls the work. The bar is silent when the output is not a terminal.
    workers : Workers, optional
        Who computes; without them this process, unit after unit. It is always this process that
        stores, and that writes the journal.
    """
    todo = [unit for unit in units if str(unit) not in journal.done]
    outcomes = ((unit, compute(unit)) for unit in todo)
    if workers is not None:
        outcomes = workers.outcomes(todo, compute)
    with tqdm(total=len(units), initial=len(units) - len(todo), desc=label, disable=None) as bar:
        for unit, outcome in outcomes:
            facts = store(unit, outcome)
            journal.mark(str(unit), facts or {})
            bar.update()
