"""Cutting rows into blocks, and going on with work that was interrupted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift import blocks
from drift.blocks import row_blocks, run


class Notes:
    """A journal in memory."""

    def __init__(self, done=()):
        self.done = dict(done)

    def mark(self, unit, facts):
        self.done[unit] = facts


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


def test_run_computes_and_stores_every_unit_in_order():
    events, journal = [], Notes()
    units = [(0, 3), (3, 6), (6, 7)]

    def compute(unit):
        events.append(("compute", unit))
        return sum(unit)

    def store(unit, outcome):
        events.append(("store", unit, outcome))
        # Not before it is stored: a journal that is ahead of the data loses a block.
        assert str(unit) not in journal.done

    run(units, compute, store, journal, "work")

    assert events == [
        event for unit in units for event in (("compute", unit), ("store", unit, sum(unit)))
    ]
    assert journal.done == {"(0, 3)": {}, "(3, 6)": {}, "(6, 7)": {}}


def test_run_computes_only_what_is_not_done():
    stored = []
    journal = Notes({"1": {"facts": "kept"}, "3": {}})

    run([1, 2, 3, 4], lambda unit: unit, lambda unit, _: stored.append(unit), journal, "work")

    assert stored == [2, 4]
    assert journal.done == {"1": {"facts": "kept"}, "3": {}, "2": {}, "4": {}}


def test_run_of_finished_work_computes_nothing():
    journal = Notes({"1": {}, "2": {}})

    run([1, 2], lambda _: pytest.fail("computed again"), lambda *_: None, journal, "work")


@pytest.mark.parametrize("broken_step", ["compute", "store"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_run_keeps_what_was_done_before_an_exception(broken_step, error):
    stored, journal, broken = [], Notes(), True

    def compute(unit):
        if broken and broken_step == "compute" and unit == 3:
            raise error
        return unit * unit

    def store(unit, outcome):
        if broken and broken_step == "store" and unit == 3:
            raise error
        stored.append((unit, outcome))

    with pytest.raises(error):
        run([1, 2, 3, 4], compute, store, journal, "work")
    assert stored == [(1, 1), (2, 4)]
    assert list(journal.done) == ["1", "2"]

    broken = False
    run([1, 2, 3, 4], compute, store, journal, "work")
    assert stored == [(1, 1), (2, 4), (3, 9), (4, 16)]


def test_run_remembers_the_facts_of_each_unit():
    journal = Notes()

    run("ab", str.upper, lambda unit, outcome: {"unit": unit, "got": outcome}, journal, "work")

    assert journal.done == {"a": {"unit": "a", "got": "A"}, "b": {"unit": "b", "got": "B"}}


def test_the_progress_bar_is_silent_outside_a_terminal(capsys):
    run([1, 2], lambda unit: unit, lambda *_: None, Notes(), "work")

    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("done, left", [((), 1), ("123", 1 / 4), ("1234", 0)])
@pytest.mark.parametrize("n_rows, sample", [(1, 1), (10, 1), (1000, 21), (100_000, 256)])
def test_the_estimate_tells_units_and_rows_apart(n_rows, sample, done, left, monkeypatch):
    clock, computed = [0.0], []

    def compute(unit):
        _, stop = unit
        clock[0] += (
            3 + 0.01 * stop if unit in computed else 1000
        )  # the first opens what others find
        computed.append(unit)

    monkeypatch.setattr(blocks.time, "perf_counter", lambda: clock[0])
    journal = Notes({unit: {} for unit in done})

    seconds = blocks.estimate("1234", compute, journal, n_rows, lambda *rows: rows)

    assert computed == ([(0, 1)] * 2 + [(0, sample)] * 2 if left else [])
    each_row = 0.01 if sample > 1 else 0
    assert seconds == pytest.approx(left * (4 * 3.01 + n_rows * each_row))
    assert journal.done == {unit: {} for unit in done}


@pytest.mark.parametrize(
    "seconds, said",
    [
        (29, ""),
        (31, "work: about 1 minute\n"),
        (60, "work: about 1 minute\n"),
        (61, "work: about 2 minutes\n"),
        (3599, "work: about 60 minutes\n"),
    ],
)
def test_long_work_is_announced_in_whole_minutes(seconds, said, capsys):
    blocks.announce(seconds, "work")

    assert capsys.readouterr() == (said, "")
