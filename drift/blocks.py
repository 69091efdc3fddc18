"""Work cut into blocks, with a progress bar and a journal: it goes on where it stopped."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol, TypeVar

from tqdm import tqdm

Unit = TypeVar("Unit", bound=Hashable)
Outcome = TypeVar("Outcome")


class Journal(Protocol):
    """What is done, by the name of the unit, with the facts that were noted of it."""

    done: dict[str, dict[str, Any]]

    def mark(self, unit: str, facts: dict[str, Any]) -> None:
        """Note that a unit is done and stored."""


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


def run(
    units: Sequence[Unit],
    compute: Callable[[Unit], Outcome],
    store: Callable[[Unit, Outcome], dict[str, Any] | None],
    journal: Journal,
    label: str,
) -> None:
    """Compute and store each unit of work that the journal does not hold yet.

    Parameters
    ----------
    units : sequence
        Names of the units, (start, stop) of a block of rows for instance.
    compute : callable
        From a unit to its outcome. It touches no file, so that it can run anywhere.
    store : callable
        Takes a unit and its outcome, stores it, and returns the facts to remember of it, if any.
    journal : Journal
        Asked what is done, told what was done.
    label : str
        What the progress bar calls the work. The bar is silent when the output is not a terminal.
    """
    todo = [unit for unit in units if str(unit) not in journal.done]
    with tqdm(total=len(units), initial=len(units) - len(todo), desc=label, disable=None) as bar:
        for unit in todo:
            facts = store(unit, compute(unit))
            journal.mark(str(unit), facts or {})
            bar.update()
