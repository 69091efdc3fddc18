"""Cutting rows into blocks, and resuming work that was interrupted."""

from hypothesis import given
from hypothesis import strategies as st

from drift.pipeline.blocks import compute_blocks
from drift.vectors import row_blocks


class Checkpoints:
    """What `compute_blocks` needs of a stage, in memory."""

    def __init__(self, completed=()):
        self.workers, self.completed = None, dict(completed)

    def checkpoint(self, block, **notes):
        self.completed[str(block)] = notes


@given(
    n_rows=st.integers(0, 3000),
    bytes_per_row=st.integers(0, 10_000),
    budget=st.integers(1, 100_000),
)
def test_row_blocks_cover_every_row_once_within_the_budget(n_rows, bytes_per_row, budget):
    bounds = row_blocks(n_rows, bytes_per_row, budget)

    assert [row for start, stop in bounds for row in range(start, stop)] == list(range(n_rows))
    for start, stop in bounds:
        assert stop - start == 1 or 1 < (stop - start) * max(1, bytes_per_row) <= budget
    assert all((stop - start + 1) * max(1, bytes_per_row) > budget for start, stop in bounds[:-1])


def test_every_block_is_computed_and_given_before_the_next_one():
    events, stage = [], Checkpoints()
    rows = [(0, 3), (3, 6), (6, 7)]

    def task(block):
        events.append(("compute", block))
        return sum(block)

    for block, result in compute_blocks(stage, task, rows, "work"):
        events.append(("store", block, result))
        # Not before it is stored: checkpoints that are ahead of the data lose a block.
        assert str(block) not in stage.completed
        stage.checkpoint(block)

    assert events == [
        event for block in rows for event in (("compute", block), ("store", block, sum(block)))
    ]
    assert stage.completed == {"(0, 3)": {}, "(3, 6)": {}, "(6, 7)": {}}
