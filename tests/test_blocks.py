"""Cutting rows into blocks, and resuming work that was interrupted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift.pipeline import blocks
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


@given(n_rows=st.integers(1, 3000), bytes_per_row=st.integers(1, 100))
def test_row_blocks_use_the_budget(n_rows, bytes_per_row):
    bounds = row_blocks(n_rows, bytes_per_row, budget=1000)

    assert all((stop - start + 1) * bytes_per_row > 1000 for start, stop in bounds[:-1])


def test_row_blocks_have_a_budget_by_default():
    assert row_blocks(100, 1 << 20) == [(0, 64), (64, 100)]


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


def test_only_what_is_not_completed_is_computed():
    stage = Checkpoints({"1": {"seconds": 2}, "3": {}})

    results = compute_blocks(stage, lambda block: 10 * block, [1, 2, 3, 4], "work")

    assert list(results) == [(2, 20), (4, 40)]
    assert stage.completed == {"1": {"seconds": 2}, "3": {}}


@pytest.mark.parametrize("broken_step", ["compute", "store"])
def test_what_was_completed_before_an_exception_is_kept(broken_step):
    stored, stage, broken = [], Checkpoints(), broken_step

    def task(block):
        if broken == "compute" and block == 3:
            raise KeyboardInterrupt
        return block * block

    def compute_and_store():
        for block, result in compute_blocks(stage, task, [1, 2, 3, 4], "work"):
            if broken == "store" and block == 3:
                raise KeyboardInterrupt
            stored.append((block, result))
            stage.checkpoint(block)

    with pytest.raises(KeyboardInterrupt):
        compute_and_store()
    assert stored == [(1, 1), (2, 4)]

    broken = None
    compute_and_store()
    assert stored == [(1, 1), (2, 4), (3, 9), (4, 16)]


def test_the_progress_bar_is_silent_outside_a_terminal(capsys):
    assert len(list(compute_blocks(Checkpoints(), str, [1, 2], "work"))) == 2

    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "completed, seconds, message",
    [
        ("", 20, ""),  # three blocks are left after the first
        ("", 20.1, "work: about 2 minutes more\n"),
        ("", 40, "work: about 2 minutes more\n"),
        ("", 40.1, "work: about 3 minutes more\n"),
        ("b", 30, ""),
        ("b", 30.1, "work: about 2 minutes more\n"),
        ("bcd", 1000, ""),
        ("abcd", 1000, ""),
    ],
)
def test_how_long_the_rest_takes_is_printed_after_the_first_block(
    completed, seconds, message, capsys, monkeypatch
):
    clock = [0.0]
    monkeypatch.setattr(blocks.time, "perf_counter", lambda: clock[0])

    def task(_):
        clock[0] += seconds - 5

    printed = []
    stage = Checkpoints({block: {} for block in completed})
    for _ in compute_blocks(stage, task, "abcd", "work"):
        printed.append(capsys.readouterr().out)
        clock[0] += 5  # to store it takes time as well

    left = 4 - len(completed)
    assert printed == ["", message, "", ""][:left]
    assert capsys.readouterr().out == ""
