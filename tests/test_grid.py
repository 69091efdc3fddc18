"""The grid of k that is asked for, and what is said of one that replaces another."""

import argparse

import pytest

from drift import InputError
from drift.pipeline import cli
from drift.pipeline.runs import format_grid


def grid(*flags, exact_k=250):
    parser = argparse.ArgumentParser()
    cli.add_grid(parser)
    return cli.k_grid(parser.parse_args(list(map(str, flags))), exact_k)


def test_without_flags_it_goes_by_tens_to_the_last_exact_neighbor():
    assert grid() == list(range(10, 251, 10))
    assert grid(exact_k=40) == [10, 20, 30, 40]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--k-step", 100), [10, 110, 210, 250]),
        (("--k-max", 35), [10, 20, 30, 35]),
        (("--k-max", 40), [10, 20, 30, 40]),
        (("--k-min", 7, "--k-max", 30, "--k-step", 11), [7, 18, 29, 30]),
        (("--k-min", 30, "--k-max", 30), [30]),
        (("--k-min", 249), [249, 250]),
        (("--k-step", 500), [10, 250]),
        (("--k-min", 1, "--k-max", 3, "--k-step", 1), [1, 2, 3]),
    ],
)
def test_by_steps_it_always_ends_at_its_last_k(flags, expected):
    assert grid(*flags) == expected


def test_with_an_end_that_no_step_of_the_exact_lists_meets():
    assert grid(exact_k=25) == [10, 20, 25]


@pytest.mark.parametrize(
    ("ks", "expected"),
    [
        ((10, 50, 100, 250), [10, 50, 100, 250]),
        ((100, 10, 100, 50), [10, 50, 100]),
        ((1,), [1]),
    ],
)
def test_named_itself_it_is_ascending_and_has_each_k_once(ks, expected):
    assert grid("--k", *ks) == expected


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--k-min", 10), "--k-min"),
        (("--k-max", 250), "--k-max"),
        (("--k-step", 10), "--k-step"),
        (("--k-min", 5, "--k-step", 5), "--k-min and --k-step"),
    ],
)
def test_it_is_named_itself_or_by_steps(flags, named):
    with pytest.raises(InputError, match=f"^--k .* {named}$"):
        grid("--k", 10, 50, *flags)


@pytest.mark.parametrize("flag", ["--k", "--k-max"])
def test_a_k_beyond_the_exact_lists_names_the_command_to_run(flag):
    message = f"^{flag} 300 is more than the 250 .*: run 03_exact_knn.py --k-max 300 first$"
    with pytest.raises(InputError, match=message):
        grid(flag, 300)


def test_a_grid_that_ends_before_it_starts_is_empty():
    with pytest.raises(InputError, match="the grid is empty: it starts at --k-min 50, ends at 40"):
        grid("--k-min", 50, exact_k=40)
    with pytest.raises(InputError, match="starts at --k-min 10, ends at 5"):
        grid("--k-max", 5)


@pytest.mark.parametrize(
    ("ks", "expected"),
    [
        ([10], "10"),
        ([10, 250], "10, 250"),
        ([10, 20, 30, 40], "10, 20, 30, 40"),
        ([10, 20, 30, 40, 50], "10, 20, ... 50"),
        (list(range(10, 251, 10)), "10, 20, ... 250"),
        ([10, 20, 30, 40, 45], "10, 20, 30, 40, 45"),  # "..." would say another grid
    ],
)
def test_in_a_sentence(ks, expected):
    assert format_grid(ks) == expected
