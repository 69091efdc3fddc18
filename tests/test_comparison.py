"""`drift.compare` for two arrays of lists, and the examples in the docstrings."""

import doctest

import numpy as np
import pandas as pd
import pytest

import drift
from drift import InputError, intervals, metrics, set_differences, summaries
from drift.intervals import estimate_mean, estimate_ratio

Q, K = 120, 10


@pytest.fixture
def lists():
    rng = np.random.default_rng(0)
    ids = rng.permuted(np.tile(np.arange(30), (2 * Q, 1)), axis=1)[:, :K].reshape(2, Q, K)
    return [*ids, *np.sort(rng.random((2, Q, K)), axis=2)]


def test_estimates_are_those_of_the_curves(lists):
    groups = np.arange(Q) // 10
    table = pd.DataFrame(drift.compare(*lists, groups=groups)).set_index("metric")
    assert list(table.columns) == ["mean", "ci_low", "ci_high", "n", "groups_that_differ"]
    overlap = estimate_mean(metrics.neighborhood_overlap(*lists[:2]), groups, 1, (0, 1))
    assert table.loc["overlap"].tolist() == pytest.approx(list(overlap))
    exact, ann = (metrics.lid(side) for side in lists[2:])
    assert table.loc["lid_ann", "mean"] == pytest.approx(np.nanmean(ann))
    error = estimate_ratio(ann, exact, groups)
    assert table.loc["lid_error"].tolist() == pytest.approx(list(error))
    assert table.loc["lid_median_error", "mean"] == pytest.approx(
        np.median(ann) / np.median(exact) - 1
    )


def test_without_distances_only_ids_are_compared(lists):
    assert [estimate.metric for estimate in drift.compare(*lists[:2])] == ["overlap", "found"]


def test_lists_that_do_not_fit_each_other_are_refused(lists):
    with pytest.raises(InputError, match="of one shape"):
        drift.compare(lists[0], lists[1][:, :5])
    with pytest.raises(InputError, match="of both sides, or of none"):
        drift.compare(*lists[:3])
    with pytest.raises(InputError, match="ids and distances must be of one shape"):
        drift.compare(*lists[:2], *(side[:, :5] for side in lists[2:]))


@pytest.mark.parametrize("groups", [np.arange(5), np.zeros((Q, 2), int), np.zeros(Q), ["a"] * Q])
def test_groups_are_a_whole_number_for_each_query(groups, lists):
    with pytest.raises(InputError, match="groups must be whole numbers"):
        drift.compare(*lists[:2], groups=groups)


def test_the_package_has_a_version_and_nothing_else_that_is_loaded_when_asked_for():
    assert drift.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="no attribute 'contrast'"):
        drift.contrast  # noqa: B018


@pytest.mark.parametrize("module", [metrics, set_differences, summaries, intervals])
def test_examples_in_docstrings_hold(module):
    tried = doctest.testmod(module)
    assert tried.attempted and not tried.failed


def test_a_metric_has_the_name_of_its_function():
    assert [metric.function.__name__ for metric in metrics.METRICS] == [
        metric.name for metric in metrics.METRICS
    ]
