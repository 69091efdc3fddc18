"""The notebook's protocol: its curves are those of plain loops in the notebook's own way."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift import metrics
from drift.exact import ExactSearch, expanded_neighbors
from drift.protocols import Protocol
from drift.published import notebook
from drift.stages.metrics import ComputeMetrics, NeighborFiles
from tests.conftest import GRID
from tests.test_metrics import INF, NAN, few_examples, neighborhoods
from tests.test_paper import search


def naive_lid_notebook(s):
    """Of squared distances."""
    if len(s) < 2 or s[-1] == INF:
        return NAN
    logs = [math.log(s_i / (s[-1] + 1e-12) + 1e-12) for s_i in s[:-1]]
    return -1 / (sum(logs) / len(logs))


def notebook_loops(x):
    """Overlap, k-th squared distances, LID and barycenter shift, as the notebook computed them."""
    rows = []
    for k in GRID:
        for exact_d, e, ann_d, a in zip(*search(x, k, 50), strict=True):
            shift = x[e].astype(np.float64).mean(axis=0) - x[a].astype(np.float64).mean(axis=0)
            row = {"k": k, "overlap": len(set(e) & set(a)) / k}
            row["barycenter_shift"] = np.linalg.norm(shift)
            for side, squared in (("exact", exact_d), ("ann", ann_d)):
                s = squared.astype(np.float64)
                row[f"kth_squared_distance_{side}"] = s[-1]
                row[f"lid_notebook_{side}"] = naive_lid_notebook(s)
            rows.append(row)
    return pd.DataFrame(rows).groupby("k").mean()


@few_examples
@given(neighborhoods(), st.booleans())
def test_notebook_lid_is_its_definition(lists, with_self):
    for lengths in (lists[2], lists[4]):
        lengths = np.insert(lengths, 0, 0, axis=1) if with_self else lengths
        # Without the self match the last distances may equal the first, and the mean log be 0.
        usable = lengths[:, 0] < lengths[:, -1]
        np.testing.assert_allclose(
            notebook.lid_notebook(lengths[usable]),
            [naive_lid_notebook(row) for row in lengths[usable].astype(float) ** 2],
            rtol=1e-9,
        )


def test_a_row_that_is_short_has_no_kth_distance_and_no_lid():
    exact = [[0, 1, 2]] * 2, np.array([[0, 1, 3], [0, 1, 2]], np.float32)
    ann = np.array([[0, 1, 2], [0, 1, -1]]), np.array([[0, 1, 4], [0, 1, INF]], np.float32)
    computed = metrics.compute_metrics(*exact, {3: ann}, np.zeros((3, 2)), metrics=notebook.METRICS)
    lids = [naive_lid_notebook(s) for s in ([0, 1, 9], [0, 1, 4], [0, 1, 16])]
    expected = [[9, 4], [16, NAN], lids[:2], [lids[2], NAN]]
    assert list(computed) == [metric.name for metric in notebook.METRICS]
    np.testing.assert_allclose(np.concatenate(list(computed.values())), expected)


@pytest.fixture
def with_queries(tmp_path):
    """Lists by the notebook's protocol, and an index that returns the true neighbors."""
    rng = np.random.default_rng(0)
    x = np.maximum(rng.normal(size=(600, 512)) @ rng.normal(size=(512, 512)) / 8, 0)
    x, queries, grid = x.astype(np.float32), np.arange(600), (10, 40)
    exact = expanded_neighbors(x, queries, grid[-1], Protocol.NOTEBOOK)
    assert (exact[1][exact[0] == queries[:, None]] > 0).mean() > 0.1, "noise at the self match"
    true = ExactSearch(x).neighbors(queries, grid[-1], x)

    def save(name, *lists):
        files = NeighborFiles(tmp_path / f"{name}_ids.npy", tmp_path / f"{name}_distances.npy")
        for path, array in zip(files[:2], lists, strict=True):
            np.save(path, array)
        return files

    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "queries.npy", queries)
    ann = {k: save(f"k{k}", true.indices[:, :k], true.distances[:, :k]) for k in grid}
    paths = tmp_path / "x.npy", tmp_path / "queries.npy", save("exact", *exact), ann
    return true, ComputeMetrics(*paths, Protocol.NOTEBOOK)


def test_lid_and_recall_leave_rounding_of_the_self_match_out(with_queries):
    true, task = with_queries
    values = np.concatenate([task(block) for block in task.blocks()], axis=2)
    measured = {m.name: column for m, column in zip(task.metrics, values, strict=True)}
    for i, k in enumerate(task.ann):
        direct = metrics.lid(true.distances[:, 1:k])
        np.testing.assert_allclose(measured["lid_ann"][i], direct, rtol=1e-6)
        np.testing.assert_allclose(measured["lid_exact"][i], direct, rtol=1e-3)
        np.testing.assert_allclose(
            measured["mean_distance_exact"][i], true.distances[:, 1:k].mean(axis=1), rtol=1e-4
        )
        np.testing.assert_allclose(measured["distance_ratio"][i], 1, rtol=1e-4)
    assert (measured["recall"] == 1).all()


def test_curves_are_those_of_the_notebooks_loops(results, stages, draw_only):
    draw_only("overlap", "published")
    stages("03 --protocol notebook --k-max 40", "04 --runs faiss:50", "05", "06 --dpi 40")
    assert (results / "06_published.png").exists()

    curves = pd.read_parquet(results / "05_curves.parquet")
    ours = curves.pivot(index="k", columns="metric", values="mean")
    assert (ours["found"] == 1).all()
    loops = notebook_loops(np.load(results / "02_embeddings.npy"))
    for metric in loops.columns:
        np.testing.assert_allclose(
            ours[metric], loops[metric], rtol=1e-6, atol=1e-7, err_msg=metric
        )


def test_published_curve_is_whole():
    curve = notebook.curve()
    assert list(curve["k"]) == list(range(10, 251, 10))
    assert (np.diff(curve["overlap"]) < 0).all()
    assert np.isinf(curve["kth_squared_distance_ann"]).sum() == 9
    assert curve["overlap"].iloc[-1] == pytest.approx(0.7481)
