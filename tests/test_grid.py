"""The grid of k that is asked for, and what is said of one that replaces another."""

import argparse

import pytest

from drift import InputError
from drift.pipeline import cli
from drift.stages.lists import format_grid


def grid(flags, exact_k=250):
    parser = argparse.ArgumentParser()
    cli.add_grid(parser)
    return cli.k_grid(parser.parse_args(flags.split()), exact_k)


@pytest.mark.parametrize(
    ("flags", "exact_k", "expected"),
    [
        # By steps it always ends at its last k, without flags at the last exact neighbor.
        ("", 250, list(range(10, 251, 10))),
        ("", 25, [10, 20, 25]),
        ("--k-step 100", 250, [10, 110, 210, 250]),
        ("--k-max 40", 250, [10, 20, 30, 40]),
        ("--k-min 7 --k-max 30 --k-step 11", 250, [7, 18, 29, 30]),
        ("--k-min 30 --k-max 30", 250, [30]),
        ("--k-min 249", 250, [249, 250]),
        ("--k-step 500", 250, [10, 250]),
        # Named itself it is ascending and has each k once.
        ("--k 100 10 100 50", 250, [10, 50, 100]),
    ],
)
def test_grids(flags, exact_k, expected):
    assert grid(flags, exact_k) == expected


@pytest.mark.parametrize(
    ("flags", "exact_k", "message"),
    [
        ("--k 10 --k-max 250", 250, "^--k is a grid by itself.* --k-max$"),
        ("--k 10 --k-min 5 --k-step 5", 250, "^--k .* --k-min and --k-step$"),
        (
            "--k 300",
            250,
            "^--k 300 is more than the 250 .* --k-max 300 first$",
        ),
        ("--k-max 300", 250, "^--k-max 300 is more .*: run 03_exact_knn.py --k-max 300 first$"),
        ("--k-min 50", 40, "the grid is empty: it starts at --k-min 50, ends at 40"),
        ("--k-max 5", 250, "starts at --k-min 10, ends at 5"),
    ],
)
def test_what_is_no_grid(flags, exact_k, message):
    with pytest.raises(InputError, match=message):
        grid(flags, exact_k)


@pytest.mark.parametrize(
    ("ks", "expected"),
    [
        ([10], "10"),
        ([10, 20, 30, 40], "10, 20, 30, 40"),
        ([10, 20, 30, 40, 50], "10, 20, ... 50"),
        ([10, 20, 30, 40, 45], "10, 20, 30, 40, 45"),  # "..." would say another grid
    ],
)
def test_in_a_sentence(ks, expected):
    assert format_grid(ks) == expected
