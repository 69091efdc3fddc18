"""Vectors, queries and lists of anyone's: by cosine, from outside, from another system."""

import json
import os
import re
import shlex
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.neighbors import NearestNeighbors

from drift import InputError
from drift.imported_lists import RowNames
from drift.pipeline.manifests import read_manifest
from drift.stages.embed import EmbedImages
from drift.vectors import unit_vectors
from tests.conftest import ROOT

N, D, Q, K = 400, 16, 50, 30


@pytest.fixture
def vectors():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(N, D)) + rng.normal(size=D)).astype(np.float32)


@pytest.fixture
def queries():
    return np.random.default_rng(1).normal(size=(Q, D)).astype(np.float32)


@pytest.fixture
def searched(stages, small):
    """Exact ids and distances of a small study, as another system would return them."""
    shutil.copytree(small, stages.folder)
    return [np.load(small / f"03_exact_{kind}.npy")[:, :K] for kind in ("indices", "distances")]


def save(path, array):
    np.save(path, array)
    return str(path)


def write_hdf5(path, vectors, queries, distance, neighbors):
    """As ann-benchmarks writes its data sets."""
    with h5py.File(path, "w") as file:
        attributes = ("dense", distance, vectors.shape[1], "float")
        names = ("type", "distance", "dimension", "point_type")
        file.attrs.update(dict(zip(names, attributes, strict=True)))
        for name, array in (("train", vectors), ("test", queries), ("neighbors", neighbors)):
            file.create_dataset(name, data=array)
    return str(path)


def neighbors_by(metric, vectors, queries, k):
    search = NearestNeighbors(n_neighbors=k, metric=metric, algorithm="brute")
    return search.fit(vectors.astype(np.float64)).kneighbors(queries.astype(np.float64))


# Vectors and queries.


def test_cosine_lists_are_those_of_brute_force(stages, vectors, queries, tmp_path, draw_only):
    draw_only("overlap", "distances")
    distances, ids = neighbors_by("cosine", vectors, queries, K)
    file = write_hdf5(tmp_path / "x-angular.hdf5", vectors, queries, "angular", ids)
    out = stages(["02", "--from-file", file], ["03", "--queries", file, "--k-max", str(K)])
    assert f"{Q} exact lists" in out
    assert read_manifest(stages.folder / "02_embeddings.json")["parameters"]["metric"] == "cosine"
    embeddings = np.load(stages.folder / "02_embeddings.npy")
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(np.load(stages.folder / "03_exact_indices.npy"), ids)
    chords = np.load(stages.folder / "03_exact_distances.npy")
    np.testing.assert_allclose(chords, np.sqrt(2 * distances), rtol=1e-5)
    # The whole of the study, of queries that are no rows.
    out = stages("04 --runs faiss:5 faiss:200", "05", "06 --dpi 40")
    words = " ".join(out.split())
    assert "compared by cosine" in words and "the chord sqrt(2 (1 - cos))" in words
    curves = pd.read_parquet(stages.folder / "05_curves.parquet")
    assert {"hubness_ann", "orphans_exact"} < set(curves["metric"])
    # With more candidates than rows the search is exact.
    best = curves[curves["run"] == "faiss_M32_efc200_ef200"].set_index(["metric", "k"])["mean"]
    assert best["overlap", K] == 1
    counts = np.bincount(ids[:, :10].ravel(), minlength=N)
    assert best["orphans_exact", 10] == (counts == 0).mean()
    page = (stages.folder / "06_report.html").read_text()
    assert "cos = 1 - d^2/2" in page.replace("\u00a0", " ")
    assert "k-th distance (chord)" in page and "(Euclidean)" not in page


def test_queries_that_are_copies_of_rows_find_what_the_rows_find(stages, searched, tmp_path):
    vectors, few = np.load(stages.folder / "02_embeddings.npy"), np.arange(0, N, 8)
    copies = save(tmp_path / "copies.npy", vectors[few])
    stages("04 --runs faiss:50 --k 10 30")
    files = [f"03_exact_{kind}" for kind in ("indices", "distances")]
    files += ["04_hnsw/faiss_M32_efc200_ef50/k0030_indices"]
    inside = {name: np.load(stages.folder / f"{name}.npy")[few, :K] for name in files}
    stages(f"03 --k-max {K + 1} --queries {copies}", "04 --runs faiss:50 --k 11 31", "05")
    assert list(np.load(stages.folder / "03_queries.npy")) == list(range(len(few)))
    np.testing.assert_array_equal(np.load(stages.folder / "03_query_vectors.npy"), vectors[few])
    for name, lists in inside.items():
        outside = np.load(stages.folder / f"{name.replace('k0030', 'k0031')}.npy")
        np.testing.assert_allclose(outside[:, 1:], lists, rtol=1e-6, err_msg=name)
    np.testing.assert_array_equal(np.load(stages.folder / "03_exact_indices.npy")[:, 0], few)
    inputs = read_manifest(stages.folder / "04_hnsw/faiss_M32_efc200_ef50/run.json")["inputs"]
    assert list(inputs) == ["02_embeddings.npy", "03_queries.npy", "03_query_vectors.npy"]
    # Nothing is left out, although query 3 has the number of a row.
    per_query = pd.read_parquet(stages.folder / "05_per_query.parquet")
    first = per_query[per_query["k"] == 11].set_index("query")
    exact = np.load(stages.folder / "03_exact_distances.npy")
    np.testing.assert_allclose(first["mean_distance_exact"], exact[:, :11].mean(axis=1), rtol=1e-6)
    # A target needs no groups of the rows then.
    stages("04 --runs faiss:overlap=0.9 --k 11")
    run = read_manifest(stages.folder / "04_hnsw/faiss_M32_efc200_efoverlap0.9/run.json")
    assert run["halves"]["11"] and "02_rows.parquet" not in run["inputs"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("03 --queries few.npy --k-max 5", "queries of 5 dimensions, and the embeddings have 16"),
        ("03 --queries none.npy", "none.npy"),
        (
            "02 --from-file zero.npy --metric cosine",
            "of which no cosine can be taken: '3', '17'; --drop",
        ),
        ("02 --from-file zero.npy", "1 of 50 rows of "),
        ("02 --from-file q.npy --column emb", "has no rows of numbers called 'emb'"),
        ("02 --from-file q.npy --row-ids few.txt", "a name for each of 50 rows"),
    ],
)
def test_vectors_and_queries_that_cannot_be(
    command, message, stages, searched, queries, tmp_path, monkeypatch
):
    np.save(tmp_path / "q.npy", queries)
    np.save(tmp_path / "few.npy", queries[:, :5])
    (tmp_path / "few.txt").write_text("a\nb\n")
    queries[17], queries[3, 2] = 0, np.nan
    np.save(tmp_path / "zero.npy", queries)
    monkeypatch.chdir(tmp_path)
    assert message in stages(command, fails=True)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.uint8])
def test_unit_vectors_of_any_type(dtype):
    given = np.random.default_rng(0).integers(1, 100, (20, 5)).astype(dtype)
    unit = unit_vectors(given)
    assert unit.dtype == np.float32
    np.testing.assert_allclose(unit, given / np.linalg.norm(given.astype(float), axis=1)[:, None])
    with pytest.raises(InputError, match="row 7 "):
        unit_vectors(np.zeros((1, 5), dtype), first_row=7)


def test_embedded_images_by_cosine(tmp_path):
    images = tmp_path / "images.npy"
    np.save(images, np.random.default_rng(0).integers(0, 256, (3, 2, 2, 3), dtype=np.uint8))
    rest = ("resnet50", None, 0, None, "cpu", "float32", False, 224)
    for metric in ("euclidean", "cosine"):
        task = EmbedImages(images, *rest, metric)
        vars(task)["extractor"] = lambda images: images.reshape(len(images), -1).astype(np.float32)
        features = task.extractor(np.load(images))
        expected = unit_vectors(features) if metric == "cosine" else features
        np.testing.assert_array_equal(task((0, 3)), expected)


# Lists of another system.


def test_lists_of_another_system_are_a_run_like_any_other(stages, searched, tmp_path, draw_only):
    draw_only("overlap")
    ids = searched[0].copy()
    ids[::2, 4] = -1  # every second list lacks its fifth neighbor
    out = stages(["04", "--lists", "milvus", save(tmp_path / "ids.npy", ids[:, :20])])
    assert "milvus" in out and "faiss" not in out
    stages("04 --runs faiss:200", "05", "06 --dpi 40")
    curves = pd.read_parquet(stages.folder / "05_curves.parquet")
    assert set(curves["run"]) == {"milvus", "faiss_M32_efc200_ef200"}
    ours = curves[curves["run"] == "milvus"].set_index(["metric", "k"])["mean"]
    assert list(ours["overlap"].index) == [10, 20], "cut at the grid's k, up to their length"
    assert ours["overlap", 20] == pytest.approx(1 - 0.5 / 20)
    assert (stages.lists("milvus", 10)[::2, -1] == -1).all(), "what is missing is at the end"
    lengths = np.load(stages.folder / "04_hnsw" / "milvus" / "k0010_distances.npy")
    assert np.isinf(lengths[::2, -1]).all()
    np.testing.assert_array_equal(lengths[1::2], searched[1][1::2, :10])
    assert "milvus" in (stages.folder / "06_report.html").read_text()


def test_lists_of_each_k_in_a_folder(stages, searched, tmp_path):
    folder = tmp_path / "lists"
    folder.mkdir()
    for k in (10, 30):
        np.save(folder / f"k{k:04d}_indices.npy", searched[0][:, :k][:, ::-1])
    out = stages(["04", "--lists", "each", str(folder), "--seconds", "2"])
    assert "each: no lists for k = 20, 40, 50, 60" in out
    manifest = read_manifest(stages.folder / "04_hnsw" / "each" / "run.json")
    assert manifest["parameters"]["k_grid"] == [10, 30]
    assert manifest["queries_per_second"] == {"10": N / 2, "30": N / 2}
    for k in (10, 30):
        np.testing.assert_array_equal(stages.lists("each", k), searched[0][:, :k])
    np.save(folder / "k0010_indices.npy", searched[0][:50, :10])
    message = stages(["04", "--lists", "each", str(folder)], fails=True)
    assert "has 50 lists of 10 ids, and stage 03 has" in message
    (folder / "k0010_indices.npy").unlink()
    out = stages(["04", "--lists", "each", str(folder)])
    assert "each: its lists for k = 10, 30 will be overwritten by those for k = 30" in out


def test_a_query_in_its_own_list_is_no_neighbor(stages, searched, tmp_path):
    ids = np.hstack([np.arange(N)[:, None], searched[0]])[:, :21]
    ids[3] = searched[0][3, :21]  # one that does not hold its query loses its last
    out = stages(["04", "--lists", "own", save(tmp_path / "ids.npy", ids)])
    assert "own: 99.8% of the lists hold the query itself, which is dropped from all" in out
    np.testing.assert_array_equal(stages.lists("own", 20), searched[0][:, :20])
    ids = searched[0].copy()
    ids[5, 3] = 5
    out = stages(["04", "--lists", "x", save(tmp_path / "ids.npy", ids)])
    assert "x: 0.2% of the lists hold the query itself, which counts as missing there" in out
    assert list(np.flatnonzero((stages.lists("x", 10) < 0).any(axis=1))) == [5]


@pytest.mark.parametrize(
    ("reported", "given", "advice"),
    [
        ("euclidean", lambda d: d**2, "--reported squared fits"),
        ("euclidean", lambda d: d**2 / 2, "--reported cosine fits"),
        ("squared", lambda d: d, "--reported euclidean fits"),
        ("euclidean", lambda d: d[::-1], "another order"),
        ("euclidean", lambda d: 7 * d, "no conversion fits"),
        ("euclidean", lambda d: 1.01 * d, None),
        ("squared", lambda d: d**2, None),
    ],
)
def test_distances_are_taken_where_they_fit(stages, searched, tmp_path, reported, given, advice):
    files = save(tmp_path / "ids.npy", searched[0]), save(tmp_path / "d.npy", given(searched[1]))
    command = ["04", "--lists", "x", *files, "--reported", reported]
    assert (advice or "x") in stages(command, fails=advice is not None)
    assert (stages.folder / "04_hnsw" / "x").exists() is (advice is None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ids: np.where(ids == N - 1, 0, ids + 1), "% if you subtract 1"),
        (lambda ids: ids + 1, "subtract 1"),
        (lambda ids: np.where(ids == 0, N - 1, ids - 1), "% if you add 1"),
        (lambda ids: ids.astype(float), "must hold whole numbers: write a missing neighbor as -1"),
        (lambda ids: ids.T, f"has {K} lists of {N} ids, and stage 03 has {N} queries"),
    ],
)
def test_ids_that_cannot_be_are_named(stages, searched, tmp_path, change, message):
    file = save(tmp_path / "ids.npy", change(searched[0]))
    assert message in stages(["04", "--lists", "x", file, "--anyway"], fails=True)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--lists x ids.npy", "--protocol study, not paper"),
        ("--lists x ids.npy --reported squared", "name a file of them"),
        ("--lists x . ids.npy", "is a folder"),
        ("--lists x .", "holds no k0010_indices.npy or the like"),
    ],
)
def test_flags_of_lists_that_cannot_be(flags, message, stages, searched, tmp_path, monkeypatch):
    save(tmp_path / "ids.npy", searched[0])
    monkeypatch.chdir(tmp_path)
    if "--protocol" in message:
        stages("03 --k-max 20 --protocol paper")
    assert message in stages(["04", *shlex.split(flags)], fails=True)


# Names.

NAMES = {
    "hashes": [f"{(i * 2654435761) % 2**32:08x}" for i in range(N)],
    "serial": list(range(1, N + 1)),
    "large": np.arange(N, dtype=np.uint64) + np.uint64(2**63),
}


@pytest.mark.parametrize("kind", NAMES)
def test_lists_and_queries_refer_to_rows_by_their_names(kind, stages, vectors, queries, tmp_path):
    names = NAMES[kind]
    heap = np.random.default_rng(2).permutation(N)  # the order in which a table happens to lie
    table = pa.table({"id": np.array(names)[heap], "emb": list(vectors[heap])})
    pq.write_table(table, tmp_path / "x.parquet")
    asked = [f"query {i}" for i in range(Q)]
    pq.write_table(pa.table({"id": asked, "emb": list(queries)}), tmp_path / "q.parquet")
    stages(["02", "--from-file", tmp_path / "x.parquet"], f"03 --k-max {K}")
    kept = pd.read_parquet(stages.folder / "02_rows.parquet")["id"]
    assert kept.tolist() == [str(names[i]) for i in heap]
    _, near = neighbors_by("euclidean", vectors, vectors, K + 1)  # in the order of the names
    hits = pd.DataFrame({"query": np.repeat(names, K), "hit": np.array(names)[near[:, 1:]].ravel()})
    file = tmp_path / ("hits.parquet" if kind == "large" else "hits.jsonl")
    hits.to_parquet(file) if kind == "large" else hits.to_json(file, orient="records", lines=True)
    out = stages(["04", "--lists", "hits", file])
    assert "columns: id=hit, query=query" in out
    # In sorted order: of two at nearly one distance either may be the nearer.
    exact = np.sort(np.load(stages.folder / "03_exact_indices.npy"))
    np.testing.assert_array_equal(np.sort(stages.lists("hits", 30)), exact)
    if kind != "hashes":
        np.save(tmp_path / "ids.npy", np.array(names)[near[heap]])
        stages(["04", "--lists", "matrix", tmp_path / "ids.npy"])
        np.testing.assert_array_equal(stages.lists("matrix", 30), stages.lists("hits", 30))
    hits["hit"] = "zz" + hits["hit"].astype(str)
    hits.to_csv(tmp_path / "other.csv", index=False)
    message = stages(["04", "--lists", "other", tmp_path / "other.csv"], fails=True)
    assert "names are those of no row, as 'zz" in message
    assert f"row names are '{kept[0]}', '{kept[1]}'" in message

    stages(["03", "--k-max", "30", "--queries", tmp_path / "q.parquet"])
    assert pd.read_parquet(stages.folder / "03_query_ids.parquet")["id"].tolist() == asked
    _, near = neighbors_by("euclidean", vectors, queries, K)
    found = {asked[i]: [str(names[row]) for row in near[i]] for i in range(Q - 1, 0, -1)}
    (tmp_path / "found.json").write_text(json.dumps(found))
    out = stages(["04", "--lists", "found", tmp_path / "found.json"])
    assert "1 queries have no list" in out
    exact = np.sort(np.load(stages.folder / "03_exact_indices.npy"))
    np.testing.assert_array_equal(np.sort(stages.lists("found", 30))[1:], exact[1:])
    assert (stages.lists("found", 30)[0] == -1).all()


def test_names_that_could_stand_for_a_missing_neighbor(stages, vectors, tmp_path):
    names = [*map(str, range(1000, 1000 + N - 3)), "nan", "None", "-1"]
    table = pa.table({"id": names, "emb": list(vectors)})
    pq.write_table(table, tmp_path / "x.parquet")
    stages(["02", "--from-file", tmp_path / "x.parquet"], f"03 --k-max {K}")
    exact = np.load(stages.folder / "03_exact_indices.npy")
    near = np.array(names)[exact].tolist()
    assert {"nan", "None", "-1"} < {name for row in near for name in row}
    found = [[None, *row[1:]] for row in near]
    (tmp_path / "w.json").write_text(json.dumps(found))
    hits = {"query": np.repeat(names, K), "hit": np.ravel(near)}
    pd.DataFrame(hits).to_csv(tmp_path / "w.csv", index=False)
    np.save(tmp_path / "w.npy", np.array(near))
    for name in ("w.json", "w.csv", "w.npy"):
        stages(["04", "--lists", name, tmp_path / name])
        missing = int(name == "w.json")
        returned = np.sort(stages.lists(name, K)[:, : K - missing])
        np.testing.assert_array_equal(returned, np.sort(exact[:, missing:]))
    # As a number -1 is a missing neighbor, whatever rows are called.
    numbers = RowNames(np.array(["7", "-1"])).rows(np.array([[7, -1]]), "ids")
    assert numbers.tolist() == [[0, -1]]
    with pytest.raises(InputError, match="no query, as '-1'"):
        RowNames(np.array(["a", "b"]), "query").places(np.array(["a", "-1"]), "queries")


def test_what_to_do_about_lists_that_do_not_fit(stages, vectors, tmp_path):
    table = pa.table({"id": [f"row {i}" for i in range(N)], "emb": list(vectors)})
    pq.write_table(table, tmp_path / "x.parquet")
    stages(["02", "--from-file", tmp_path / "x.parquet"], f"03 --k-max {K}")
    exact = np.load(stages.folder / "03_exact_indices.npy")
    said = stages(["04", "--lists", "x", save(tmp_path / "ids.npy", exact)], fails=True)
    assert "--row-ids none takes rows by" in said


def test_names_in_a_file_and_rows_that_are_left_out(stages, vectors, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bad = vectors.astype("f8")
    bad[3], bad[8, 2], bad[11] = 0, np.inf, np.nan
    np.save("x.npy", bad)
    Path("names.txt").write_text("".join(f"row {i}\n" for i in range(N)))
    for flags, name, gone in (
        ("--metric cosine --row-ids names.txt", "row {}", [3, 8, 11]),
        ("", "{}", [8, 11]),
    ):
        stages(f"02 --from-file x.npy --drop-bad {flags}")
        rest = [i for i in range(N) if i not in gone]
        kept = pd.read_parquet(stages.folder / "02_rows.parquet")
        assert kept["id"].tolist() == [name.format(i) for i in rest]
        assert kept["row"].tolist() == list(range(len(rest)))
        stored = np.load(stages.folder / "02_embeddings.npy")
        expected = unit_vectors(bad[rest]) if "cosine" in flags else bad[rest].astype(np.float32)
        np.testing.assert_array_equal(stored, expected)
        (warning,) = read_manifest(stages.folder / "02_embeddings.json")["warnings"]
        assert warning.startswith(f"{len(gone)} of {N} rows of ")
        assert ", ".join(repr(name.format(i)) for i in gone) in warning
    np.save("same.npy", vectors)
    Path("twice.txt").write_text("a\n" * N)
    message = stages("02 --from-file same.npy --row-ids twice.txt", fails=True)
    assert "names several rows 'a'" in message
    shuffled = np.random.default_rng(0).permutation(N)
    table = pa.table({"id": shuffled, "emb": list(vectors[shuffled]), "label": shuffled % 7})
    pq.write_table(table, "numbered.parquet")
    for flags, order in (("", np.arange(N)), ("--row-ids none", shuffled)):
        stages(f"02 --from-file numbered.parquet {flags}")
        np.testing.assert_array_equal(np.load(stages.folder / "02_embeddings.npy"), vectors[order])
        kept = pd.read_parquet(stages.folder / "02_rows.parquet")
        assert kept["id"].tolist() == list(map(str, range(N)))
        np.testing.assert_array_equal(kept["label"], order % 7)


# Lists that are no answer.


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda ids, x: np.random.default_rng(0).integers(0, N, (N, K)), "they number rows"),
        (lambda ids, x: np.roll(ids, 50, axis=0), "in another order than the queries"),
        (lambda ids, x: np.argsort(-(x @ x.T), axis=1)[:, :K], "neighbors by inner product"),
        (lambda ids, x: np.argsort(x @ x.T, axis=1)[:, :K], "they number rows"),
    ],
)  # fmt: skip
def test_lists_at_chance_level_are_refused(change, cause, stages, tmp_path):
    x = np.random.default_rng(0).normal(size=(N, D))
    if "product" in cause:
        x *= np.geomspace(1, 1000, N)[:, None]  # the largest is with others than the nearest
    stages(["02", "--from-file", save(tmp_path / "x.npy", x)], f"03 --k-max {K}")
    ids = change(np.load(stages.folder / "03_exact_indices.npy"), x)
    given = ["04", "--lists", "x", save(tmp_path / "ids.npy", ids)]
    message = stages(given, fails=True)
    assert cause in message and "no answer to these queries" in message
    stages([*given, "--anyway"])


def test_the_bound_of_chance_is_that_of_the_rule(stages, searched, tmp_path):
    # At k = 30, the largest with k <= (N - 1) / 10: 2 k / (N - 1) + 3 / (Q k) = .1506.
    exact, rng = searched[0], np.random.default_rng(0)
    far = np.load(stages.folder / "03_exact_indices.npy")[:, -1:]
    for hits, is_chance in ((4, True), (5, False)):
        ids = np.full((N, 30), -1)
        ids[:, :hits], ids[:, hits:] = exact[:, :hits], -1
        ids[:, -1:] = far
        file = save(tmp_path / "ids.npy", rng.permuted(ids, axis=1))
        out = stages(["04", "--lists", f"x{hits}", file], fails=is_chance)
        assert ("no answer" in out) is is_chance
    # Judged at k = 30 alone; with fewer than 30 queries not at all.
    stages(f"03 --queries 29 --k-max {K}")
    stages(["04", "--lists", "few", save(tmp_path / "few.npy", ids[:29] * 0 - 1)])


def test_odd_lists_are_taken_and_said(stages, searched, tmp_path):
    ids = searched[0].astype(np.uint32)
    ids[:7, 4] = ids[:7, 3]
    ids[7:9, 20:] = 2**32 - 1
    out = stages(["04", "--lists", "odd", save(tmp_path / "ids.npy", ids)])
    assert "odd: 7 lists hold an id twice, which counts once" in out
    assert ((stages.lists("odd", 30) < 0).sum(axis=1)[:10] == [1] * 7 + [10] * 2 + [0]).all()
    unit = unit_vectors(np.load(stages.folder / "02_embeddings.npy"))
    stages(["02", "--from-file", save(tmp_path / "unit.npy", unit)], f"03 --k-max {K}")
    exact, chords = (np.load(stages.folder / f"03_exact_{k}.npy") for k in ("indices", "distances"))
    hits = {"query": np.repeat(np.arange(N), K), "id": exact.ravel()}
    hits["score"] = 1 - chords.ravel().astype(float) ** 2 / 2
    pd.DataFrame(hits).sample(frac=1, random_state=0).to_parquet(tmp_path / "hits.parquet")
    given = ["04", "--lists", "db", tmp_path / "hits.parquet"]
    out = stages(given)
    assert "columns: id=id, query=query, score=score" in out
    assert "scores are left out (--reported similarity" in out
    assert "left out" not in stages([*given, "--reported", "similarity"])
    np.testing.assert_array_equal(stages.lists("db", 30), exact)
    # By whatever name, they have put the hits in order.
    pd.DataFrame(hits).rename(columns={"score": "distance"}).to_parquet(tmp_path / "hits.parquet")
    assert "--reported similarity fits" in stages(given, fails=True)
    stages([*given, "--reported", "similarity"])
    np.testing.assert_array_equal(stages.lists("db", 10), exact[:, :10])
    pd.DataFrame(hits).rename(columns={"score": "mine"}).to_parquet(tmp_path / "hits.parquet")
    stages([*given, "--columns", "score=mine", "--reported", "similarity"])
    np.testing.assert_array_equal(stages.lists("db", 10), exact[:, :10])
    # Distances beside the ids that are other ones: taken along unasked they are left out.
    pq.write_table(
        pa.table({"ids": list(exact), "distances": list(7 * chords)}), tmp_path / "w.parquet"
    )
    given = ["04", "--lists", "w", tmp_path / "w.parquet"]
    assert "w: left out, lists work without them: " in stages(given)
    message = stages([*given, "--columns", "id=ids", "distance=distances"], fails=True)
    assert "no conversion fits" in message
    os.mkfifo(tmp_path / "pipe.npy")
    os.mkfifo(tmp_path / "k0010_indices.npy")
    for words in (["pipe.npy"], [""], ["ids.npy", "pipe.npy"]):
        paths = [tmp_path / word for word in words]
        assert "is a pipe" in stages(["04", "--lists", "pipe", *paths], fails=True)


# The README.


@pytest.mark.parametrize("name", ["scikit-learn", "An index of one's own"])
def test_lists_by_the_recipes(name, stages, searched, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = (ROOT / "docs" / "recipes.md").read_text().partition(f"## {name}\n")[2]
    code = code.partition("```python\n")[2].partition("```")[0]
    exec(code, {"vectors": np.load(stages.folder / "02_embeddings.npy")})
    (file,) = tmp_path.glob("*.np*")
    stages(["04", "--lists", "own", file])
    exact = np.load(stages.folder / "03_exact_indices.npy")[:, :60]
    share = (np.sort(stages.lists("own", 60)) == np.sort(exact)).all(axis=1).mean()
    assert share > 0.99 if name == "scikit-learn" else share < 0.01


def recipes():
    """The commands of README's "Your own data", by the comment above them."""
    text = (ROOT / "README.md").read_text().partition("### Your own data")[2]
    block = text.partition("```\n")[2].partition("```")[0]
    recipes = re.findall(r"# (.*)\n((?:python .*\n)+)", block)
    return [(comment, commands.splitlines()) for comment, commands in recipes]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A folder with the files that the five recipes name."""
    assert len(recipes()) == 5
    folder = tmp_path_factory.mktemp("bench")
    rng = np.random.default_rng(0)
    vectors, queries = rng.normal(size=(600, 16)), rng.normal(size=(40, 16))
    np.save(folder / "vectors.npy", vectors)
    _, ids = neighbors_by("cosine", vectors, queries, 100)
    write_hdf5(folder / "glove-100-angular.hdf5", vectors, queries, "angular", ids)
    pq.write_table(pa.table({"id": np.arange(600), "emb": list(vectors)}), folder / "clip.parquet")
    distances, ids = neighbors_by("euclidean", unit_vectors(vectors), unit_vectors(vectors), 251)
    np.save(folder / "ids.npy", ids[:, 1:])
    np.save(folder / "distances.npy", distances[:, 1:] ** 2)
    (folder / "pictures").mkdir()
    for i in range(12):
        pixels = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"{i}.png")
    return folder


@pytest.mark.parametrize(("comment", "commands"), recipes(), ids=lambda value: str(value)[:20])
def test_recipes_run_as_they_stand_in_the_readme(
    bench, comment, commands, drive, draw_only, monkeypatch
):
    draw_only("overlap")
    if "pictures" in comment:
        pytest.importorskip("torch")
    monkeypatch.chdir(bench)
    for command in commands:
        status, _, err = drive(*shlex.split(command)[1:], results="results")
        assert status == 0, f"{comment}: {command}\n{err}"
