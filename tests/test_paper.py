"""The paper's protocol: its curves are those of plain loops in the paper's own way."""

import faiss
import numpy as np
import pandas as pd
import pytest

from drift.images.stl10 import stl10_sample
from drift.metrics import compute_metrics
from drift.published import paper

MISSING = np.finfo(np.float32).max


def loops(x, k, D_exact, I_exact, D_ann, I_ann):
    """The paper's five means and its overlap at one k, query by query, in float32 as there."""
    rows = []
    for exact_d, exact_i, ann_d, ann_i in zip(D_exact, I_exact, D_ann, I_ann, strict=True):
        row = {"overlap": len(set(exact_i) & set(ann_i)) / k}
        with np.errstate(over="ignore", divide="ignore"):
            means = np.mean(exact_d), np.mean(ann_d)
            for side, mean in zip(("exact", "ann"), means, strict=True):
                kept = np.isfinite(means[0]) and np.isfinite(means[1])
                row[f"mean_squared_distance_{side}"] = mean if kept else np.nan
            shift = np.linalg.norm(x[exact_i].mean(axis=0) - x[ann_i].mean(axis=0))
            row["barycenter_shift_paper"] = shift / means[0] if means[0] > 0 else 0.0
            for side, d in (("exact", exact_d), ("ann", ann_d)):
                ratios = d[:-1] / (d[-1] + 1e-12)
                row[f"lid_paper_{side}"] = -1.0 / np.mean(np.log(ratios + 1e-12))
        rows.append(row)
    return pd.DataFrame(rows)


def search(x, length, ef_search, M=32, ef_construction=200):
    """Squared distances and ids of exact and of approximate lists, by FAISS alone."""
    flat, hnsw = faiss.IndexFlatL2(x.shape[1]), faiss.IndexHNSWFlat(x.shape[1], M)
    flat.add(x)
    hnsw.hnsw.efConstruction = ef_construction
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    hnsw.add(x)
    faiss.omp_set_num_threads(threads)
    hnsw.hnsw.efSearch = ef_search
    return [side for index in (flat, hnsw) for side in index.search(x, length)]


def papers_lists(x, k, *settings, **more):
    """The same with the first column dropped, as the paper's code had them."""
    return [side[:, 1:] for side in search(x, k + 1, *settings, **more)]


def as_stored(distances, ids):
    """Lists as the pipeline stores them: Euclidean distances, infinite for what is missing."""
    return ids, np.where(ids < 0, np.inf, np.sqrt(distances)).astype(np.float32)


def clustered(n, d):
    """Clusters of 60 rows with gaps between them, in which a search with a small efSearch ends."""
    rng = np.random.default_rng(0)
    centers = rng.normal(0, 8, (n // 60, d)).repeat(60, axis=0)
    return (centers + rng.normal(size=centers.shape)).astype(np.float32)


def with_copies(n, d):
    """Every row four times, so that the first of a list need not be the query itself."""
    return np.random.default_rng(0).normal(size=(n // 4, d)).astype(np.float32).repeat(4, axis=0)


def on_a_grid(n, d):
    """So coarse that many neighborhoods have one distance only, whose LID is infinite."""
    return np.random.default_rng(0).integers(0, 2, (n, d)).astype(np.float32)


@pytest.mark.parametrize("vectors", [clustered, with_copies, on_a_grid])
@pytest.mark.parametrize("ef_search", [2, 10, 200])
def test_metrics_are_those_of_the_papers_loops(vectors, ef_search):
    x = vectors(600, 12)
    lists = {k: papers_lists(x, k, ef_search, M=4) for k in (5, 20, 70)}
    exact = as_stored(*lists[70][:2])
    ann = {k: as_stored(*both[2:]) for k, both in lists.items()}
    measured = compute_metrics(*exact, ann, x, threads=2, metrics=paper.METRICS)
    for i, (k, both) in enumerate(lists.items()):
        expected = loops(x, k, *both)
        for metric, values in measured.items():
            # A root that is squared again is off in its last bits.
            with np.errstate(invalid="ignore"):
                np.testing.assert_allclose(
                    values[i], expected[metric], rtol=1e-4, atol=1e-9, err_msg=f"{metric}, k = {k}"
                )


def test_barycenters_are_float32_means_to_the_last_bit():
    x, rng = clustered(600, 30), np.random.default_rng(1)
    lists = [rng.permuted(np.tile(np.arange(600), (50, 1)), axis=1)[:, :40]]
    lists.append(np.hstack([lists[0], rng.integers(0, 600, (50, 25))]))
    lists[1][::3, 7] = 5  # these do not begin like the shorter ones
    lists[1][:, -1] = -1
    for ids, means in zip(lists, paper.barycenters(x, lists), strict=True):
        np.testing.assert_array_equal(means, [x[row].mean(axis=0) for row in ids])


def test_a_row_short_by_one_carries_the_missing_value_and_one_short_by_two_is_dropped():
    x = np.eye(6, dtype=np.float32)
    exact = np.tile([1, 2, 3], (3, 1)), np.full((3, 3), 2, np.float32) ** 0.5
    ids = np.array([[1, 2, 3], [1, 2, -1], [1, -1, -1]])
    ann = {3: as_stored(np.full((3, 3), 2), ids)}
    measured = compute_metrics(*exact, ann, x, metrics=paper.METRICS)
    means = measured["mean_squared_distance_ann"][0]
    np.testing.assert_allclose(means[0], 2, rtol=1e-6)
    assert means[1] == MISSING / np.float32(3)
    assert np.isnan(means[2])
    # The exact side loses the same rows.
    np.testing.assert_array_equal(
        np.isnan(measured["mean_squared_distance_exact"][0]), [False, False, True]
    )
    # A missing neighbor is the last row, and makes the LID a small number.
    shift = np.linalg.norm(x[[1, 2, 3]].mean(axis=0) - x[[1, 2, 5]].mean(axis=0)) / 2
    np.testing.assert_allclose(measured["barycenter_shift_paper"][0, 1], shift, rtol=1e-6)
    np.testing.assert_allclose(measured["lid_paper_ann"][0, 1], 1 / -np.log(1e-12), rtol=1e-5)
    assert np.isinf(measured["lid_paper_ann"][0, 0])


def test_curves_are_those_of_the_papers_loops(results, drive, stages):
    x = np.load(results / "02_embeddings.npy")
    stages("03 --protocol paper --k-max 40")
    runs = ("faiss:2", "faiss:0.25k,ef_construction=40", "faiss:2k,ef_construction=40")
    status, _, err = drive("04_hnsw_search.py", "--runs", *runs, results=results)
    assert status == 0
    assert err.count("FAISS prunes links from efConstruction = 2 M = 64 on") == 1
    stages("05")

    curves = pd.read_parquet(results / "05_curves.parquet")
    ours = curves.pivot(index=["run", "k"], columns="metric", values="mean")
    fraction = {"faiss_M32_efc200_ef2": None, "faiss_M32_efc40_ef0.25k": 0.25}
    fraction["faiss_M32_efc40_ef2k"] = 2
    assert set(curves["run"]) == set(fraction)
    for (run, k), row in ours.iterrows():
        ef_search = 2 if fraction[run] is None else max(2, int(fraction[run] * k))
        lists = papers_lists(x, k, ef_search, ef_construction=40 if fraction[run] else 200)
        expected = loops(x, k, *lists).mean()
        np.testing.assert_allclose(
            row[expected.index].astype(float), expected, rtol=1e-6, atol=1e-9, err_msg=f"{run} {k}"
        )
    assert (ours["mean_squared_distance_ann"] > 1e30).any()


def test_published_curves_are_whole():
    curves, jumps = paper.curves(), paper.jumps()
    assert curves.groupby(["study", "value"]).size().eq(50).all() and len(curves) == 14 * 50
    assert {metric.name for metric in paper.METRICS} < set(curves.columns)
    # The proof: at each first jump a whole number of rows carries the missing value. What is too
    # much is what the rows that were dropped do not count in the mean.
    rows = jumps["mean_squared_distance_ann"] * 10_000 * jumps["k"] / MISSING
    np.testing.assert_allclose(rows, jumps["rows_short_by_one"], rtol=1e-4)
    excess = rows / rows.round() - 1
    assert len(jumps) == 100 and excess.between(-1e-5, 0.008).all()


def test_seed_42_draws_the_papers_first_sample(tmp_path):
    file = tmp_path / "stl10_binary" / "unlabeled_X.bin"
    file.parent.mkdir()
    with file.open("wb") as split:
        split.truncate(100_000 * 96 * 96 * 3)  # nothing is written: the images are not looked at
    rows = np.random.default_rng(42 + 0).choice(100_000, 10_000, replace=False)
    sample = stl10_sample(tmp_path, "unlabeled", 10_000, seed=42)
    assert list(sample.sources) == [f"stl10/unlabeled/{row}" for row in np.sort(rows)]
