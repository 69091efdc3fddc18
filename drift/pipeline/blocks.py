"""Work cut into blocks, with a progress bar and checkpoints, so that it resumes."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from drift.pipeline.dask_workers import Block, Result
from drift.pipeline.stage import Stage


def compute_blocks(
    stage: Stage, task: Callable[[Block], Result], blocks: Sequence[Block], label: str
) -> Iterator[tuple[Block, Result]]:
    """Compute every block that the stage has no checkpoint of yet, with ``--scheduler`` unordered.

    Store what comes, and call `stage.checkpoint`, before the next block is asked for. The task, for
    a Dask cluster picklable, writes nothing. `label` is what the progress bar calls the work; the
    bar is silent when the output is not a terminal.
    """
    pending = [block for block in blocks if str(block) not in stage.completed]
    if stage.workers is not None and pending:
        fields = [value for value in vars(task).values() if isinstance(value, Path)]
        reads = {*map(stage.results.path, stage.inputs), *fields}
        results = stage.workers.map_unordered(task, pending, reads)
    else:
        results = ((block, task(block)) for block in pending)
    done = len(blocks) - len(pending)
    with tqdm(total=len(blocks), initial=done, desc=label, disable=None) as bar:
        for block, result in results:
            yield block, result
            bar.update()
