"""Vectors, queries and lists of anyone's: by cosine, from outside, from another system."""

import re
import shlex
import shutil

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.neighbors import NearestNeighbors

from drift import InputError
from drift.pipeline.results import read_manifest
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
def stages(drive, tmp_path):
    """Run stages by number; each must end well. What was printed by the last one."""
    scripts = {path.name[:2]: path.name for path in ROOT.glob("0*.py")}
    folder = tmp_path / "own"

    def run(*commands, fails=False):
        for command in commands:
            number, *flags = command.split() if isinstance(command, str) else command
            status, out, err = drive(scripts[number], *flags, results=folder)
            assert (status == 2 and err.count("\n") == 1) if fails else status == 0, err
        return err if fails else out

    run.folder = folder
    run.lists = lambda run, k: np.load(folder / "04_hnsw" / run / f"k{k:04d}_indices.npy")
    return run


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


def test_cosine_lists_are_those_of_brute_force(stages, vectors, queries, tmp_path):
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
    assert "compared by cosine: a distance d is the chord sqrt(2 (1 - cos))" in words
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
    files = (
        "03_exact_indices",
        "03_exact_distances",
        "04_hnsw/faiss_M32_efc200_ef50/k0030_indices",
    )
    inside = {name: np.load(stages.folder / f"{name}.npy")[few, :K] for name in files}
    stages(f"03 --k-max {K + 1} --queries {copies}", "04 --runs faiss:50 --k 11 31", "05")
    stages("06 --dpi 40")
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
    assert run["halves"]["11"]["agrees"] and "02_rows.parquet" not in run["inputs"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("03 --queries few.npy --k-max 5", "queries of 5 dimensions, and the embeddings have 16"),
        ("03 --queries q.npy --protocol notebook", "is for queries that are rows"),
        ("03 --queries none.npy", "none.npy"),
        ("03 --queries 0", "--queries 0"),
        ("02 --from-file zero.npy --metric cosine", "row 17 is a zero vector"),
        ("02 --from-file q.npy --metric hamming", "not hamming"),
        ("02 --from-file q.npy --metric inner_product", "append sqrt(R^2 - |x|^2)"),
    ],
)
def test_vectors_and_queries_that_cannot_be(
    command, message, stages, searched, queries, tmp_path, monkeypatch
):
    np.save(tmp_path / "q.npy", queries)
    np.save(tmp_path / "few.npy", queries[:, :5])
    queries[17] = 0
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


def test_recall_is_that_of_ann_benchmarks(stages, searched, queries, tmp_path):
    stages(f"03 --queries {save(tmp_path / 'q.npy', queries)} --k-max {K}")
    stages("04 --runs faiss:5 --m 4 --ef-construction 8 --k 10 30", "05")
    measured = pd.read_parquet(stages.folder / "05_per_query.parquet")
    true = np.load(stages.folder / "03_exact_distances.npy")
    folder = stages.folder / "04_hnsw" / "faiss_M4_efc8_ef5"
    for k in (10, 30):
        # A neighbor counts when it is no farther than the true k-th one, up to an epsilon.
        returned = np.load(folder / f"k{k:04d}_distances.npy")
        recalls = [
            sum(distance <= threshold + 1e-5 for distance in row) / k
            for row, threshold in zip(returned, true[:, k - 1], strict=True)
        ]
        np.testing.assert_allclose(measured[measured["k"] == k]["recall"], recalls)
        assert np.mean(recalls) < 0.99


# Lists of another system.


def test_lists_of_another_system_are_a_run_like_any_other(stages, searched, tmp_path):
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
    assert f"has lists of 50 queries, and stage 03 has {N}" in message


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
        ("euclidean", lambda d: d**2, "squares: --reported squared"),
        ("euclidean", lambda d: d**2 / 2, "half of squares: double them"),
        ("squared", lambda d: d, "Euclidean: --reported euclidean"),
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
        (
            lambda ids: np.where(ids == N - 1, 0, ids + 1),
            "off by one: ",
        ),
        (lambda ids: np.where(ids == N - 1, 0, ids + 1), "% if you subtract 1"),
        (lambda ids: ids + 1, "subtract 1"),
        (lambda ids: np.where(ids == 0, N - 1, ids - 1), "% if you add 1"),
        (lambda ids: ids.astype(float), "write a missing neighbor, NaN or None, as -1"),
        (lambda ids: ids[:, :5], "lists of 5, shorter than the first k, 10: give --k 5"),
    ],
)
def test_ids_that_cannot_be_are_named(stages, searched, tmp_path, change, message):
    file = save(tmp_path / "ids.npy", change(searched[0]))
    assert message in stages(["04", "--lists", "x", file], fails=True)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--seconds 2", "say more of --lists"),
        ("--lists x ids.npy", "--protocol study, not paper"),
        ("--lists x", "it takes NAME IDS"),
        ("--lists x ids.npy --reported squared", "name a file of them"),
        ("--lists x ids.npy --lists y ids.npy --seconds 2", "one of --lists at a time"),
        ("--lists x ids.npy --lists x ids.npy", "is given twice"),
        ("--lists x . ids.npy", "is a folder"),
        ("--lists x .", "holds no k0010_indices.npy or the like"),
        *(
            (f"--lists {name} ids.npy", "a name is of letters, digits, dots")
            for name in ("faiss_M32_efc200_ef50", "a/b", "..", "graphs", "a_seed1", "''")
        ),
    ],
)
def test_flags_of_lists_that_cannot_be(flags, message, stages, searched, tmp_path, monkeypatch):
    save(tmp_path / "ids.npy", searched[0])
    monkeypatch.chdir(tmp_path)
    if "--protocol" in message:
        stages("03 --k-max 20 --protocol paper")
    assert message in stages(["04", *shlex.split(flags)], fails=True)


# The README.


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
def test_recipes_run_as_they_stand_in_the_readme(bench, comment, commands, drive, monkeypatch):
    monkeypatch.chdir(bench)
    for command in commands:
        status, _, err = drive(*shlex.split(command)[1:], results="results")
        assert status == 0, f"{comment}: {command}\n{err}"
