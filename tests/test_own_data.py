"""Vectors, queries and lists of anyone's: by cosine, from outside, from another system."""

import re
import shlex
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.neighbors import NearestNeighbors

from drift import InputError
from drift.pipeline.results import read_manifest
from drift.vectors import unit_vectors
from tests.conftest import ROOT, shell

N, D, Q, K = 400, 12, 50, 30


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
    return run


def save(path, array):
    np.save(path, array)
    return str(path)


def write_hdf5(path, vectors, queries, distance, neighbors):
    """As ann-benchmarks writes its data sets."""
    with h5py.File(path, "w") as file:
        file.attrs["type"] = "dense"
        file.attrs["distance"] = distance
        file.attrs["dimension"] = vectors.shape[1]
        file.attrs["point_type"] = "float"
        for name, array in (("train", vectors), ("test", queries), ("neighbors", neighbors)):
            file.create_dataset(name, data=array)
    return str(path)


def neighbors_by(metric, vectors, queries, k):
    search = NearestNeighbors(n_neighbors=k, metric=metric, algorithm="brute")
    return search.fit(vectors.astype(np.float64)).kneighbors(queries.astype(np.float64))


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
    assert "compared by cosine: a distance d is the chord sqrt(2 (1 - cos))" in " ".join(
        out.split()
    )
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


def test_queries_that_are_copies_of_rows_find_what_the_rows_find(stages, vectors, tmp_path):
    file, few = save(tmp_path / "x.npy", vectors), np.arange(0, N, 8)
    copies = save(tmp_path / "copies.npy", vectors[few])
    stages(["02", "--from-file", file], f"03 --k-max {K}", "04 --runs faiss:50 --k 10 30")
    inside = {
        name: np.load(stages.folder / name)[few]
        for name in (
            "03_exact_indices.npy",
            "03_exact_distances.npy",
            "04_hnsw/faiss_M32_efc200_ef50/k0030_indices.npy",
        )
    }
    stages(
        f"03 --k-max {K + 1} --queries {copies}",
        "04 --runs faiss:50 --k 11 31",
        "05",
        "06 --dpi 40",
    )
    assert list(np.load(stages.folder / "03_queries.npy")) == list(range(len(few)))
    np.testing.assert_array_equal(np.load(stages.folder / "03_query_vectors.npy"), vectors[few])
    for name, lists in inside.items():
        outside = np.load(stages.folder / name.replace("k0030", "k0031"))
        np.testing.assert_allclose(outside[:, 1:], lists, rtol=1e-6, err_msg=name)
    np.testing.assert_array_equal(np.load(stages.folder / "03_exact_indices.npy")[:, 0], few)
    # Nothing is left out, although query 3 has the number of a row.
    per_query = pd.read_parquet(stages.folder / "05_per_query.parquet")
    first = per_query[per_query["k"] == 11].set_index("query")
    exact = np.load(stages.folder / "03_exact_distances.npy")
    np.testing.assert_allclose(first["mean_distance_exact"], exact[:, :11].mean(axis=1), rtol=1e-6)


def test_what_queries_from_a_file_cannot_be(stages, vectors, queries, tmp_path):
    stages(["02", "--from-file", save(tmp_path / "x.npy", vectors)])
    few = save(tmp_path / "few.npy", queries[:, :5])
    assert "queries of 5 dimensions, and the embeddings have 12" in stages(
        f"03 --queries {few} --k-max 5", fails=True
    )
    whole = save(tmp_path / "q.npy", queries)
    for protocol in ("notebook", "paper"):
        command = f"03 --queries {whole} --protocol {protocol}"
        assert "is for queries that are rows" in stages(command, fails=True)
    assert "none.npy" in stages("03 --queries none.npy", fails=True)
    assert "--queries 0" in stages("03 --queries 0", fails=True)


def test_zero_vectors_have_no_cosine(stages, vectors, tmp_path):
    vectors[17] = 0
    file = save(tmp_path / "x.npy", vectors)
    assert "row 17 is a zero vector" in stages(f"02 --from-file {file} --metric cosine", fails=True)
    stages(f"02 --from-file {file}")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.uint8])
def test_unit_vectors_of_any_type(dtype):
    given = np.random.default_rng(0).integers(1, 100, (20, 5)).astype(dtype)
    unit = unit_vectors(given)
    assert unit.dtype == np.float32
    np.testing.assert_allclose(unit, given / np.linalg.norm(given.astype(float), axis=1)[:, None])
    with pytest.raises(InputError, match="row 7 "):
        unit_vectors(np.zeros((1, 5), dtype), first_row=7)


def test_unit_vectors_do_not_change_by_cosine_but_for_the_words(stages, vectors, tmp_path):
    file = save(tmp_path / "x.npy", unit_vectors(vectors))
    commands = ("03 --k-max 30", "04 --runs faiss:20 --k 10 30", "05")
    stages(f"02 --from-file {file}", *commands)
    plain = pd.read_parquet(stages.folder / "05_curves.parquet")
    stages(f"02 --from-file {file} --metric cosine", *commands)
    cosine = pd.read_parquet(stages.folder / "05_curves.parquet")
    np.testing.assert_allclose(plain["mean"], cosine["mean"], rtol=1e-5, atol=1e-7)


def test_embedded_images_by_cosine(stages):
    stages("01 --dataset photos --n-images 12", "02 --model efficientnet_lite0")
    plain = np.load(stages.folder / "02_embeddings.npy")
    stages("02 --model efficientnet_lite0 --metric cosine")
    np.testing.assert_array_equal(np.load(stages.folder / "02_embeddings.npy"), unit_vectors(plain))


def test_recall_is_that_of_ann_benchmarks(stages, vectors, queries, tmp_path):
    files = save(tmp_path / "x.npy", vectors), save(tmp_path / "q.npy", queries)
    stages(f"02 --from-file {files[0]}", f"03 --queries {files[1]} --k-max {K}")
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


@pytest.mark.parametrize("metric", ["ip", "dot", "inner_product", "hamming", "Cosine"])
def test_other_metrics_are_refused(stages, vectors, tmp_path, metric):
    file = save(tmp_path / "x.npy", vectors)
    message = stages(f"02 --from-file {file} --metric {metric}", fails=True)
    is_product = metric in ("ip", "dot", "inner_product")
    assert ("append sqrt(R^2 - |x|^2)" if is_product else f"not {metric}") in message


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Results of stages 02 and 03 on a few vectors."""
    folder = tmp_path_factory.mktemp("small")
    np.save(folder / "x.npy", np.random.default_rng(0).normal(1, 1, (N, D)).astype(np.float32))
    for script, *flags in (
        ("02_embed_resnet50.py", "--from-file", folder / "x.npy"),
        ("03_exact_knn.py", "--k-max", str(K)),
    ):
        assert shell(script, *flags, results=folder / "results").returncode == 0
    return folder / "results"


@pytest.fixture
def searched(stages, small):
    """Exact lists of a small study, as another system would return them."""
    shutil.copytree(small, stages.folder)
    ids, distances = (
        np.load(stages.folder / f"03_exact_{part}.npy") for part in ("indices", "distances")
    )
    return ids, distances


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
    lists = np.load(stages.folder / "04_hnsw" / "milvus" / "k0010_indices.npy")
    assert (lists[::2, -1] == -1).all(), "what is missing is at the end"
    lengths = np.load(stages.folder / "04_hnsw" / "milvus" / "k0010_distances.npy")
    assert np.isinf(lengths[::2, -1]).all()
    np.testing.assert_array_equal(lengths[1::2], searched[1][1::2, :10])
    assert "milvus" in (stages.folder / "06_report.html").read_text()


def test_queries_at_the_front_are_dropped(stages, searched, tmp_path):
    ids = np.hstack([np.arange(N)[:, None], searched[0]])[:, :21]
    ids[3] = searched[0][3, :21]  # one that does not hold its query loses its last
    out = stages(["04", "--lists", "own", save(tmp_path / "ids.npy", ids)])
    assert "own: 99.8% of the lists hold the query itself, which is dropped from all" in out
    lists = np.load(stages.folder / "04_hnsw" / "own" / "k0020_indices.npy")
    np.testing.assert_array_equal(lists, searched[0][:, :20])


def test_lists_of_each_k_in_a_folder(stages, searched, tmp_path):
    folder = tmp_path / "lists"
    folder.mkdir()
    for k in (10, 30):
        np.save(folder / f"k{k:04d}_indices.npy", np.roll(searched[0][:, :k], 1, axis=0 * k))
    stages(["04", "--lists", "each", str(folder), "--seconds", "2"], "05")
    manifest = read_manifest(stages.folder / "04_hnsw" / "each" / "run.json")
    assert manifest["parameters"]["k_grid"] == [10, 30]
    assert manifest["queries_per_second"] == {"10": N / 2, "30": N / 2}


@pytest.mark.parametrize(
    ("reported", "given", "advice"),
    [
        ("euclidean", lambda d: d**2, "squares: --reported squared"),
        ("euclidean", lambda d: d**2 / 2, "half of squares: double them"),
        ("squared", lambda d: d, "Euclidean: --reported euclidean"),
        ("euclidean", lambda d: d[::-1], "another order"),
        ("euclidean", lambda d: 7 * d, "no conversion fits"),
    ],
)
def test_distances_of_another_kind_are_named(stages, searched, tmp_path, reported, given, advice):
    files = save(tmp_path / "ids.npy", searched[0]), save(tmp_path / "d.npy", given(searched[1]))
    message = stages(["04", "--lists", "x", *files, "--reported", reported], fails=True)
    assert advice in message
    assert not (stages.folder / "04_hnsw" / "x").exists()


@pytest.mark.parametrize(
    ("reported", "given"), [("euclidean", lambda d: 1.01 * d), ("squared", lambda d: d**2)]
)
def test_distances_that_fit_are_taken(stages, searched, tmp_path, reported, given):
    files = save(tmp_path / "ids.npy", searched[0]), save(tmp_path / "d.npy", given(searched[1]))
    stages(["04", "--lists", "x", *files, "--reported", reported])


def test_ids_that_count_from_1_are_named(stages, searched, tmp_path):
    shifted = np.where(searched[0] == N - 1, 0, searched[0] + 1)
    message = stages(["04", "--lists", "x", save(tmp_path / "ids.npy", shifted)], fails=True)
    assert "off by one" in message and "subtract 1" in message
    message = stages(["04", "--lists", "x", save(tmp_path / "i.npy", searched[0] + 1)], fails=True)
    assert "subtract 1" in message


def test_missing_neighbors_that_are_nan_are_told_how_to_be_written(stages, searched, tmp_path):
    ids = searched[0].astype(float)
    ids[0, -1] = np.nan
    message = stages(["04", "--lists", "x", save(tmp_path / "ids.npy", ids)], fails=True)
    assert "write a missing neighbor, NaN or None, as -1" in message


def test_a_folder_of_other_lists_is_refused(stages, searched, tmp_path):
    folder = tmp_path / "lists"
    folder.mkdir()
    np.save(folder / "k0010_indices.npy", searched[0][:50, :10])
    message = stages(["04", "--lists", "each", str(folder)], fails=True)
    assert f"has lists of 50 queries, and stage 03 has {N}" in message


def test_a_list_that_holds_its_query_lacks_a_neighbor(stages, searched, tmp_path):
    ids = searched[0].copy()
    ids[5, 3] = 5
    out = stages(["04", "--lists", "x", save(tmp_path / "ids.npy", ids)])
    assert "x: 0.2% of the lists hold the query itself, which counts as missing there" in out
    lists = np.load(stages.folder / "04_hnsw" / "x" / "k0010_indices.npy")
    assert list(np.flatnonzero((lists < 0).any(axis=1))) == [5]


@pytest.mark.parametrize(
    "name", ["faiss_M32_efc200_ef50", "a/b", "..", "graphs", "exact", "a_seed1", "", "-x"]
)
def test_names_that_no_list_can_have(stages, searched, tmp_path, name):
    message = stages(["04", "--lists", name, save(tmp_path / "ids.npy", searched[0])], fails=True)
    assert "--lists" in message


def test_lists_go_with_the_studys_own_protocol(stages, searched, tmp_path):
    stages("03 --k-max 20 --protocol paper")
    message = stages(["04", "--lists", "x", save(tmp_path / "ids.npy", searched[0])], fails=True)
    assert "--protocol study" in message


def recipes():
    """The commands of README's "Your own data", by the comment above them."""
    text = (ROOT / "README.md").read_text().partition("### Your own data")[2]
    block = text.partition("```\n")[2].partition("```")[0]
    found = re.findall(r"# (.*)\n((?:python .*\n)+)", block)
    return [(comment, commands.splitlines()) for comment, commands in found]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A folder with the scripts in it, and the files that the recipes name."""
    folder = tmp_path_factory.mktemp("bench")
    for name in ("drift", *(path.name for path in ROOT.glob("0*.py"))):
        (folder / name).symlink_to(ROOT / name)
    rng = np.random.default_rng(0)
    vectors, queries = rng.normal(size=(600, 16)), rng.normal(size=(40, 16))
    np.save(folder / "vectors.npy", vectors)
    _, ids = neighbors_by("cosine", vectors, queries, 100)
    write_hdf5(folder / "glove-100-angular.hdf5", vectors, queries, "angular", ids)
    pq.write_table(pa.table({"id": np.arange(600), "emb": list(vectors)}), folder / "clip.parquet")
    distances, ids = neighbors_by("euclidean", unit_vectors(vectors), unit_vectors(vectors), 251)
    np.save(folder / "ids.npy", ids[:, 1:])
    np.save(folder / "distances.npy", distances[:, 1:] ** 2)
    from PIL import Image

    (folder / "pictures").mkdir()
    for i in range(12):
        pixels = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"{i}.png")
    return folder


def test_there_are_five_recipes():
    assert len(recipes()) == 5


@pytest.mark.parametrize(("comment", "commands"), recipes(), ids=lambda value: str(value)[:20])
def test_recipes_run_as_they_stand_in_the_readme(bench, comment, commands):
    for command in commands:
        words = [sys.executable, *shlex.split(command)[1:]]
        done = subprocess.run(words, cwd=bench, capture_output=True, text=True)
        assert done.returncode == 0, f"{comment}: {command}\n{done.stderr}"
