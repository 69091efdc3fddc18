"""The notebook's protocol: its curves are those of plain loops in the notebook's own way."""

import math

import faiss
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift import metrics
from drift.exact import ExactSearch, expanded_neighbors
from drift.pipeline.tasks.measure import ComputeMetrics, NeighborFiles
from drift.protocols import Protocol
from drift.published import notebook
from tests.conftest import GRID
from tests.test_metrics import INF, NAN, few_examples, neighborhoods


def naive_lid_notebook(lengths):
    s = [float(length) ** 2 for length in lengths]
    if len(s) < 2 or s[-1] == INF:
        return NAN
    logs = [math.log(s_i / (s[-1] + 1e-12) + 1e-12) for s_i in s[:-1]]
    return -1 / (sum(logs) / len(logs))


def notebook_loops(x):
    """Overlap, k-th squared distances, LID and barycenter shift, as the notebook computed them."""
    n, d = x.shape
    flat = faiss.IndexFlatL2(d)
    flat.add(x)
    hnsw = faiss.IndexHNSWFlat(d, 32)
    hnsw.hnsw.efConstruction = 200
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    hnsw.add(x)
    faiss.omp_set_num_threads(threads)
    hnsw.hnsw.efSearch = 50
    rows = []
    for k in GRID:
        exact_d, exact_i = flat.search(x, k)
        ann_d, ann_i = hnsw.search(x, k)
        for query in range(n):
            e, a = exact_i[query], ann_i[query]
            shift = x[e].astype(np.float64).mean(axis=0) - x[a].astype(np.float64).mean(axis=0)
            row = {"k": k, "overlap": len(set(e) & set(a)) / k}
            row["barycenter_shift"] = np.linalg.norm(shift)
            for side, squared in (("exact", exact_d[query]), ("ann", ann_d[query])):
                s = squared.astype(np.float64)
                row[f"kth_squared_distance_{side}"] = s[-1]
                logs = np.log(s[:-1] / (s[-1] + 1e-12) + 1e-12)
                row[f"lid_notebook_{side}"] = -1 / np.mean(logs)
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
            np.array([naive_lid_notebook(row) for row in lengths[usable]]),
            rtol=1e-9,
        )


def test_notebook_lid_is_dominated_by_the_self_match():
    lengths = np.array([[0, 8.0, 8.5, 9.0]])
    logs = [math.log(1e-12), math.log(64 / 81), math.log(8.5**2 / 81)]
    expected = -3 / sum(logs)
    np.testing.assert_allclose(notebook.lid_notebook(lengths), [expected], rtol=1e-9)
    assert expected == pytest.approx(3 / 27.6, rel=0.02)


def test_notebook_metrics():
    exact = np.array([[0, 1, 3], [0, 1, 2]], np.float32)
    ann = np.array([[0, 1, 4], [0, 1, INF]], np.float32)
    ids = np.array([[0, 1, 2], [0, 1, -1]])
    computed = notebook.compute_metrics(exact, {3: (ids, ann)})
    assert list(computed) == [metric.name for metric in notebook.METRICS]
    computed = {name: values for name, (values,) in computed.items()}
    np.testing.assert_allclose(computed["kth_squared_distance_exact"], [9, 4])
    np.testing.assert_allclose(computed["kth_squared_distance_ann"], [16, NAN])
    np.testing.assert_allclose(
        computed["lid_notebook_exact"], [naive_lid_notebook(row) for row in exact]
    )
    np.testing.assert_allclose(
        computed["lid_notebook_ann"], [naive_lid_notebook(row) for row in ann]
    )


@pytest.fixture
def with_itself(tmp_path):
    """Lists by the notebook's protocol, and an index that returns the true neighbors."""
    rng = np.random.default_rng(0)
    x = np.maximum(rng.normal(size=(600, 512)) @ rng.normal(size=(512, 512)) / 8, 0)
    x, queries, grid = x.astype(np.float32), np.arange(600), (10, 40)
    exact = expanded_neighbors(x, queries, grid[-1], Protocol.NOTEBOOK)
    assert (exact[1][exact[0] == queries[:, None]] > 0).mean() > 0.1, "noise at the self match"
    found = ExactSearch(x).neighbors(queries, grid[-1], x)

    def save(name, *lists):
        files = NeighborFiles(tmp_path / f"{name}_ids.npy", tmp_path / f"{name}_distances.npy")
        for path, array in zip(files[:2], lists, strict=True):
            np.save(path, array)
        return files

    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "queries.npy", queries)
    ann = {k: save(f"k{k}", found.indices[:, :k], found.distances[:, :k]) for k in grid}
    paths = tmp_path / "x.npy", tmp_path / "queries.npy", save("exact", *exact), {"run": ann}
    return found, ComputeMetrics(*paths, Protocol.NOTEBOOK)


def test_lid_and_recall_leave_rounding_of_the_self_match_out(with_itself):
    found, task = with_itself
    values = np.concatenate([task(block) for block in task.blocks("run")], axis=2)
    measured = dict(zip(task.descriptions("run"), values, strict=True))
    for i, k in enumerate(task.grid("run")):
        direct = metrics.lid(found.distances[:, 1:k])
        np.testing.assert_allclose(measured["lid_ann"][i], direct, rtol=1e-6)
        np.testing.assert_allclose(measured["lid_exact"][i], direct, rtol=1e-3)
        np.testing.assert_allclose(
            measured["mean_distance_exact"][i], found.distances[:, 1:k].mean(axis=1), rtol=1e-4
        )
        np.testing.assert_allclose(measured["distance_ratio"][i], 1, rtol=1e-4)
    assert (measured["recall"] == 1).all()


def test_curves_are_those_of_the_notebooks_loops(results, drive):
    protocol = ("--protocol", "notebook", "--k-max", "40")
    assert drive("03_exact_knn.py", *protocol, results=results)[0] == 0
    assert drive("04_hnsw_search.py", "--runs", "faiss:50", results=results)[0] == 0
    assert drive("05_metrics.py", results=results)[0] == 0
    status, out, _ = drive("06_plots.py", "--dpi", "40", results=results)
    assert status == 0
    assert "ours beside the published curve" in out
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
