"""The notebook's protocol: its curves are those of plain loops in the notebook's own way."""

import faiss
import numpy as np
import pandas as pd
import pytest

from drift import figures
from tests.conftest import GRID


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


def test_curves_are_those_of_the_notebooks_loops(results, drive):
    protocol = ("--include-self", "--no-refine", "--k-max", "40")
    assert drive("03_exact_knn.py", *protocol, results=results)[0] == 0
    assert drive("04_hnsw_search.py", "--runs", "faiss:50", results=results)[0] == 0
    assert drive("05_metrics.py", results=results)[0] == 0
    status, out, _ = drive("06_plots.py", results=results)
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
    curve = figures.published_curve()
    assert list(curve["k"]) == list(range(10, 251, 10))
    assert (np.diff(curve["overlap"]) < 0).all()
    assert np.isinf(curve["kth_squared_distance_ann"]).sum() == 9
    assert curve["overlap"].iloc[-1] == pytest.approx(0.7481)
