"""Work cut into blocks, with a progress bar and checkpoints, so that it resumes."""

import math
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tqdm import tqdm

if TYPE_CHECKING:
    from drift.pipeline.stage import Stage

Block = TypeVar("Block", bound=Hashable)
Result = TypeVar("Result")


def compute_blocks(
    stage: "Stage", task: Callable[[Block], Result], blocks: Sequence[Block], label: str
) -> Iterator[tuple[Block, Result]]:
    """Compute every block that the stage has no checkpoint of yet, with ``--scheduler`` unordered.

    Store what comes, and call `stage.checkpoint`, before the next block is asked for.

    Parameters
    ----------
    stage : Stage
        With its `completed` blocks.
    task : callable
        From a block to its result, for a Dask cluster picklable. It writes nothing.
    blocks : sequence
        Names of the blocks, (start, stop) of some rows for instance.
    label : str
        What the progress bar calls the work. The bar is silent when the output is not a terminal.
    """
    pending = [block for block in blocks if str(block) not in stage.completed]
    workers = stage.args.workers
    if workers is not None and pending:
        fields = [value for value in vars(task).values() if isinstance(value, Path)]
        reads = {*map(stage.results.path, stage.inputs), *fields}
        results = workers.map_unordered(task, pending, reads)
    else:
        results = _compute_here(task, pending, label)
    done = len(blocks) - len(pending)
    with tqdm(total=len(blocks), initial=done, desc=label, disable=None) as bar:
        for block, result in results:
            yield block, result
            bar.update()


def _compute_here(
    task: Callable[[Block], Result], blocks: Sequence[Block], label: str
) -> Iterator[tuple[Block, Result]]:
    """Compute blocks one after the other; after the first, say how long the rest takes."""
    start = time.perf_counter()
    for i, block in enumerate(blocks):
        yield block, task(block)
        if i == 0:
            seconds = (time.perf_counter() - start) * (len(blocks) - 1)
            if seconds > 60:
                print(f"{label}: about {math.ceil(seconds / 60)} minutes more", flush=True)
