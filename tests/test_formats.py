"""Files that others wrote: what is read from them, and what is said of those that are damaged."""

import contextlib
import json
import os
import pickle
import re
import resource
import struct
import tracemalloc

import faiss.contrib.vecs_io as theirs
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift import InputError
from drift.formats import (
    MatrixRows,
    codes_in,
    column_of,
    contents_of,
    declared_distance,
    files_of,
    matrix_of,
    read_matrix,
)
from drift.formats.hits import read_lists
from tests.conftest import Malicious

try:
    import torch
except ImportError:  # where vectors alone are worked with
    torch = None

X = np.random.default_rng(7).standard_normal((30, 6)).astype(np.float32)
IDS = np.random.default_rng(8).integers(0, 1000, (30, 6)).astype(np.int32)
BYTES = IDS.astype(np.uint8)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


def read_codes(path, name, n, dtype):
    column = column_of(contents_of(path), name, n)
    return codes_in(column, f"{path}, column {name!r},", dtype)


def write_rows(path, values):
    with path.open("wb") as file:
        for row in values:
            file.write(struct.pack("<i", len(row)) + row.tobytes())


def write_values(path, values):
    with path.open("wb") as file:
        np.array(values.shape, "<u4").tofile(file)
        values.tofile(file)


def write_hdf5(path, distance="angular", **options):
    """As ann-benchmarks does, whose vectors come whole and whose lists come row by row."""
    with h5py.File(path, "w") as file:
        file.attrs["type"] = "dense"
        file.attrs["distance"] = distance
        file.attrs["dimension"] = X.shape[1]
        file.create_dataset("train", data=X, **options)
        file.create_dataset("test", data=X[:5], **options)
        lists = file.create_dataset("neighbors", (5, 6), dtype="i", **options)
        distances = file.create_dataset("distances", (5, 6), dtype="f", **options)
        for row in range(5):
            lists[row], distances[row] = IDS[row], X[row]


def write_gzip(path, distance="angular"):
    write_hdf5(path, distance, chunks=(4, 4), compression="gzip")


def write_parquet(path, values=X):
    columns = {"id": list(range(len(values))), "emb": pa.array(list(values))}
    pq.write_table(pa.table(columns), path)


def write_safetensors(path, values):
    raw, kinds = values.tobytes(), {"float32": "F32", "int32": "I32"}
    place = {"dtype": kinds[str(values.dtype)], "data_offsets": [0, len(raw)]}
    header = json.dumps({"emb": place | {"shape": values.shape}, "__metadata__": {"a": "b"}})
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + raw)


def write_text(path, values, delimiter=",", before=(), header=""):
    """Rows of numbers as they print, after a word each, if there are words."""
    rows = [[*before[i : i + 1], *map(repr, row.tolist())] for i, row in enumerate(values)]
    path.write_text("\n".join([header, *map(delimiter.join, rows)][not header :]) + "\n")


def write_json(path, values):
    path.write_text(json.dumps(values.tolist()))


def write_json_lines(path, values):
    path.write_text("".join(json.dumps({"id": "a", "emb": row}) + "\n" for row in values.tolist()))


def write_h5ad(path, values):
    """As AnnData does: the names of the rows, their vectors, and who is near whom."""
    with h5py.File(path, "w") as file:
        file["X"], file["obsm/X_pca"] = BYTES, values
        file["obs/names"] = [f"cell {i}" for i in range(len(values))]
        file["obs"].attrs["_index"] = "names"
        for name, data in (("connectivities", np.ones(90)), ("distances", X[:, :3].ravel())):
            group = file.create_group(f"obsp/{name}")
            group["data"], group["indices"] = data, IDS[:, :3].ravel() % 30
            group["indptr"] = np.arange(0, 93, 3)


WORDS = [f'word"{i}' for i in range(30)]
WRITERS = {
    "a.npz": (lambda path, values: np.savez(path, a=values, emb=values), X),
    "deflated.npz": (np.savez_compressed, X),
    "a.pt": (lambda path, values: torch.save(torch.from_numpy(values.T.copy()).T, path), X),
    "named.pt": (lambda path, v: torch.save({"n": 3, "emb": torch.from_numpy(v)[1:]}, path), X),
    "a.safetensors": (write_safetensors, X),
    "a.f16bin": (write_values, X.astype("f2")),
    "a.fbin.crop_nb_30": (write_values, X),
    "a.csv": (write_text, X.astype("f8")),
    "ids.csv": (write_text, IDS.astype("i8")),
    "glove.txt": (lambda path, values: write_text(path, values, " ", WORDS), X.astype("f8")),
    "a.vec": (lambda path, v: write_text(path, v, " ", WORDS, "30 6"), X.astype("f8")),
    "pandas.csv": (lambda path, values: pd.DataFrame(values).to_csv(path), X.astype("f8")),
    "a.tsv": (lambda p, v: write_text(p, v, "\t", WORDS, "\t".join("nabcdef")), X.astype("f8")),
    "a.json": (write_json, X.astype("f8")),
    "a.jsonl": (write_json_lines, X.astype("f8")),
    "a.h5ad": (write_h5ad, X),
    "a.npy": (np.save, X),
    "a.fvecs": (write_rows, X),
    "a.ivecs": (write_rows, IDS),
    "a.bvecs": (write_rows, BYTES),
    "A.FBIN": (write_values, X),
    "a.ibin": (write_values, IDS),
    "a.u8bin": (write_values, BYTES),
    "a.i8bin": (write_values, BYTES.astype(np.int8)),
    "a.hdf5": (lambda path, _: write_hdf5(path), X),
    "gzip.h5": (lambda path, _: write_gzip(path), X),
    "a.parquet": (write_parquet, X),
}


def readable(table):
    return {name: entry for name, entry in table.items() if torch or not name.endswith(".pt")}


WRITERS = readable(WRITERS)


@pytest.mark.parametrize("header", ["", "30 6", "30 3"])
@pytest.mark.parametrize("first", ["the", "7", "nan", "label"])
def test_words_of_word_vectors_are_names(header, first, tmp_path):
    words, values = [first, *WORDS[1:]], X[:, :3] if header == "30 3" else X
    for name in ("a.vec", "a.txt"):
        write_text(tmp_path / name, values, " ", words, header)
        np.testing.assert_array_equal(read_matrix(tmp_path / name), values.astype("f8"))
        assert column_of(contents_of(tmp_path / name), "id", 30).to_pylist() == words


# Files that are nothing but a header and values, so that nothing can be cut off or added unseen.
BARE = (".npy", ".fvecs", ".ivecs", ".bvecs", ".fbin", ".f16bin", ".ibin", ".u8bin", ".i8bin")
TABLES = (".json", ".jsonl", ".csv", ".tsv", ".txt", ".vec", ".parquet")
UNMAPPED = {
    "gzip.h5",
    "deflated.npz",
    "a.pt",
    "named.pt",
    *(name for name in WRITERS if name.endswith(TABLES)),
}


def refusal(path, **options):
    """The one line with which a file is refused; it begins with the file's name."""
    with pytest.raises(InputError) as error:
        read_matrix(path, **options)
    line = str(error.value)
    assert line.startswith(str(path))
    assert "\n" not in line
    return line


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_is_read_as_it_was_written(name, tmp_path):
    write, values = WRITERS[name]
    write(tmp_path / name, values)
    got = read_matrix(tmp_path / name)
    assert got.dtype == values.dtype
    np.testing.assert_array_equal(got, values[1:] if name == "named.pt" else values)
    assert isinstance(got, np.memmap) == (name not in UNMAPPED)


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8", ">f8", "i1", "u1", "<u8", ">i8", "<i2"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_npy_of_every_width_and_order_is_mapped(dtype, order, version, tmp_path):
    values = np.asarray(np.abs(X * 9), dtype, order=order)
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array(file, values, version)
    got = read_matrix(tmp_path / "a.npy")
    assert isinstance(got, np.memmap)
    assert got.dtype == values.dtype
    np.testing.assert_array_equal(got, values)


@pytest.mark.parametrize(
    ("name", "values", "write", "read"),
    [
        ("a.fvecs", X, theirs.fvecs_write, theirs.fvecs_read),
        ("a.ivecs", IDS, theirs.ivecs_write, theirs.ivecs_read),
        ("a.bvecs", BYTES, write_rows, theirs.bvecs_mmap),
    ],
)
def test_faiss_reads_the_same(name, values, write, read, tmp_path):
    write(tmp_path / name, values)
    np.testing.assert_array_equal(read_matrix(tmp_path / name), read(str(tmp_path / name)))


@pytest.mark.parametrize("options", [{"userblock_size": 512}, {"libver": "latest"}])
def test_hdf5_offset_is_that_in_the_file(options, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w", **options) as file:
        file["train"] = X.astype(">f8")
    got = read_matrix(tmp_path / "a.h5")
    assert isinstance(got, np.memmap)
    np.testing.assert_array_equal(got, X)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        *(("euclidean", "euclidean"), ("Euclidean", "euclidean"), ("ip", "ip")),
        *(("angular", "cosine"), ("cosine", "cosine"), ("normalized", "cosine")),
        *((np.bytes_("angular"), "cosine"), (["angular"], "cosine"), (3, "3")),
    ],
)
def test_declared_distance(written, expected, tmp_path):
    write_hdf5(tmp_path / "a.hdf5", distance=written)
    assert declared_distance(tmp_path / "a.hdf5") == expected
    with h5py.File(tmp_path / "a.hdf5", "r+") as file:
        del file.attrs["distance"]
    np.save(tmp_path / "a.npy", X)
    for name in ("a.hdf5", "a.npy"):
        assert declared_distance(tmp_path / name) is None


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.list_(pa.float64(), 6), pa.large_list(pa.int64())]
)
def test_parquet_lists_of_every_kind(kind, tmp_path):
    # More rows than are decoded at a time, in row groups of another size.
    values = np.tile(IDS, (100, 1))
    table = pa.table({"id": range(3000), "any": pa.array(values.tolist(), kind)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=700)
    got = read_matrix(tmp_path / "a.parquet")
    assert got.dtype == kind.value_type.to_pandas_dtype()
    np.testing.assert_array_equal(got, values)


def test_parquet_column_is_chosen(tmp_path):
    lists = {name: pa.array((scale * X).tolist()) for name, scale in [("b", 2), ("c", 3)]}
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(lists), path)
    line = refusal(path)
    assert "'b', 'c'" in line
    assert "--column" in line
    np.testing.assert_array_equal(read_matrix(path, column="c"), 3 * X)
    assert re.search("called 'd': it has 'b', list<.*; 'c', list<", refusal(path, column="d"))
    pq.write_table(pa.table(lists | {"emb": pa.array(X.tolist())}), path)
    np.testing.assert_array_equal(read_matrix(path), X)
    pq.write_table(pa.table({"a\nb": [1], "text": [["x"]]}), path)
    assert r"'a\nb', int64 of shape (1,)" in refusal(path)


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), 2)])
def test_parquet_rows_that_are_null_are_not_numbers_and_others_are_of_one_length(kind, tmp_path):
    path, size = tmp_path / "a.parquet", kind.list_size if hasattr(kind, "list_size") else -1
    if size > 0 and int(pa.__version__.split(".")[0]) < 26:
        pytest.skip("lists of one size that are null are not read before pyarrow 26")
    rows = [None, [1.0, 2.0], [3.0, None]] + [[4.0, 5.0]] * 1500
    pq.write_table(pa.table({"emb": pa.array(rows, kind)}), path)
    nan = np.nan
    expected = [[nan, nan], [1, 2], [3, nan], *[[4, 5]] * 1500]
    np.testing.assert_array_equal(read_matrix(path), expected)
    for odd, words in (([], "shape (0,"), ([*rows, [1.0]], "row 1503 has 1 values")):
        if size < 0 or not odd:
            pq.write_table(pa.table({"emb": pa.array(odd, kind)}), path)
            assert words in refusal(path)


HOSTILE = [
    ("a.fvecs", struct.pack("<i", 2**31 - 1) + bytes(40), "dimension 2147483647"),
    ("a.fvecs", struct.pack("<i", -1) + bytes(40), "dimension -1"),
    ("a.ivecs", bytes(40), "dimension 0"),
    ("a.bvecs", b"\1\0", "dimension 0"),
    ("a.fbin", struct.pack("<II", 2**32 - 1, 2**32 - 1) + bytes(40), "cut short"),
    ("a.ibin", struct.pack("<II", 0, 4), "shape (0, 4)"),
    ("a.u8bin", struct.pack("<II", 2, 2) + bytes(5), "too long"),
    ("a.i8bin", b"1234", "within its header"),
    ("a.npy", b"\x93NUMPY\2\0\xff\xff\xff\xff{", "cannot be read"),
    ("a.npy", b"\x93NUMPY\1\0\xff\xff" + b"(" * 65535, "cannot be read"),
]
HOSTILE += [(f"a.{suffix}", PNG, "") for suffix in ("npy", "parquet", "hdf5", "fvecs", "fbin")]


@pytest.mark.parametrize(("name", "content", "words"), HOSTILE)
def test_hostile_headers_allocate_nothing(name, content, words, tmp_path):
    (tmp_path / name).write_bytes(content)
    tracemalloc.start()
    try:
        assert words in refusal(tmp_path / name)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "options", [{}, {"chunks": (1 << 10, 1 << 10)}, {"chunks": (8, 8), "compression": "gzip"}]
)
def test_hdf5_values_that_were_never_written_are_not_made_up(options, tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.create_dataset("train", (1 << 30, 1 << 10), dtype="f4", **options)
    assert "not whole" in refusal(tmp_path / "a.hdf5")


def test_a_file_without_a_row_says_so(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((0, 5), np.float32))
    assert refusal(tmp_path / "a.npy").endswith("of shape (0, 5): write one row at the least")


def test_hdf5_links_are_not_followed_and_datasets_are_named(tmp_path):
    write_hdf5(tmp_path / "a.hdf5")
    assert "'distances', 'neighbors', 'test', 'train'" in refusal(tmp_path / "a.hdf5", part="x")
    os.mkfifo(tmp_path / "pipe.hdf5")  # whoever opens it waits
    for target in ("a.hdf5", "pipe.hdf5"):
        with h5py.File(tmp_path / "b.hdf5", "w") as file:
            file["train"] = h5py.ExternalLink(target, "train")
        assert "no rows of numbers" in refusal(tmp_path / "b.hdf5")
    assert "a pipe" in refusal(tmp_path / "pipe.hdf5")


def test_a_parquet_file_that_unpacks_to_gigabytes_is_refused_before_it_is_unpacked(tmp_path):
    path, n = tmp_path / "a.parquet", 1 << 25
    row = pa.ListArray.from_arrays([0, n], pa.array(np.zeros(n, np.float32)))
    pq.write_table(pa.table({"emb": row}), path, compression="zstd")
    del row
    assert path.stat().st_size < 20_000
    before = pa.default_memory_pool().bytes_allocated()
    touched = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "claims more values" in refusal(path)
    assert pa.default_memory_pool().bytes_allocated() <= before
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - touched < 20 << 10


def test_shards_are_one_matrix_in_the_order_of_their_names(tmp_path):
    folder = tmp_path / "img_emb"
    folder.mkdir()
    for name, rows in (("b.npy", X[10:]), ("a.npy", X[:7].astype("f8")), ("aa.npy", X[7:10])):
        np.save(folder / name, rows)
    (folder / "notes.md").touch()
    for path in (folder, folder / "*.npy"):
        parts = [matrix_of(file, contents_of(file), "train") for file in files_of(path)]
        rows = MatrixRows(parts)
        assert (len(rows), rows.shape, rows.dtype) == (30, X.shape, np.float64)
        np.testing.assert_array_equal(rows[5:12], X[5:12])
    np.testing.assert_array_equal(MatrixRows(parts, np.array([29, 0, 8]))[0:3], X[[29, 0, 8]])
    np.save(folder / "c.npy", X[:, :2])
    with pytest.raises(InputError, match="rows of '2', '6' values"):
        MatrixRows([matrix_of(file, contents_of(file), "train") for file in files_of(folder)])
    write_parquet(folder / "metadata.parquet")
    for path, words in ((folder, "'.npy', '.parquet'"), (tmp_path / "*.npy", "no file")):
        with pytest.raises(InputError, match=words):
            files_of(path)


# Lists.

NEAR = {"b": ["7", "x", "9"], "a": ["4", "8"], "c": ["1", "2", "x"]}
HITS = pd.DataFrame(
    [(query, name, rank) for query, names in NEAR.items() for rank, name in enumerate(names)],
    columns=["query_id", "Neighbor", "rank"],
).assign(distance=lambda hits: hits["rank"] / 4)
SHUFFLED = HITS.sample(frac=1, random_state=0)
LISTS = {
    "id": [*NEAR],
    "ids": [*NEAR.values()],
    "dists": [[i / 4 for i in range(len(n))] for n in NEAR.values()],
}


def save_hdf5(path, **columns):
    with h5py.File(path, "w") as file:
        for name, values in columns.items():
            file[f"results/{name}"] = list(values)


# The same lists in as many forms: what is said of their columns, and whether there are distances.
FORMS = {
    "a.csv": (lambda path: SHUFFLED.to_csv(path, index=False), {}, True),
    "rank.csv": (lambda p: SHUFFLED.drop(columns="distance").to_csv(p, index=False), {}, False),
    "bare.csv": (
        lambda p: SHUFFLED.drop(columns="rank").to_csv(p, index=False, header=False),
        {},
        True,
    ),
    "bare.tsv": (lambda p: SHUFFLED.to_csv(p, sep="\t", index=False, header=False), {}, True),
    "order.csv": (lambda path: HITS[["query_id", "Neighbor"]].to_csv(path, index=False), {}, False),
    "a.jsonl": (lambda path: SHUFFLED.to_json(path, orient="records", lines=True), {}, True),
    "a.json": (lambda path: SHUFFLED.to_json(path, orient="records"), {}, True),
    "lists.json": (lambda path: path.write_text(json.dumps(NEAR)), {}, False),
    "columns.json": (lambda path: path.write_text(json.dumps(LISTS)), {}, True),
    "a.parquet": (lambda path: SHUFFLED.to_parquet(path), {}, True),
    "lists.parquet": (lambda path: save_parquet(path, **LISTS), {}, True),
    "said.parquet": (
        lambda path: SHUFFLED.rename(columns={"query_id": "x", "distance": "y"}).to_parquet(path),
        {"query": "x", "id": "Neighbor", "distance": "y"},
        True,
    ),
    "a.h5": (lambda path: save_hdf5(path, **SHUFFLED), {}, True),
}


@pytest.mark.parametrize("name", FORMS)
def test_lists_in_any_form_are_the_same(name, tmp_path):
    write, said, has_distances = FORMS[name]
    write(tmp_path / name)
    lists = read_lists(tmp_path / name, said)
    assert (lists.distances is not None) is has_distances
    for row, query in enumerate(lists.queries):
        length = len(NEAR[query])
        assert [lists.words[place] for place in lists.ids[row, :length]] == NEAR[query]
        assert (lists.ids[row, length:] == -1).all()
        if has_distances:
            np.testing.assert_array_equal(
                lists.distances[row], [0, 0.25, np.inf if length < 3 else 0.5]
            )
    assert {*lists.queries} == {*NEAR}


@pytest.mark.parametrize("dtype", ["U", "S"])
def test_names_in_arrays_are_lists(dtype, tmp_path):
    names = np.array([["x", "nan"], ["8", ""]], dtype)
    np.save(tmp_path / "a.npy", names)
    np.savez(tmp_path / "a.npz", ids=names, distances=X[:2, :2])
    for name in ("a.npy", "a.npz"):
        lists = read_lists(tmp_path / name, {})
        np.testing.assert_array_equal(lists.words[lists.ids], names.astype(str))
        assert (lists.distances is None) is (name == "a.npy")


def test_lists_that_are_not_read_are_refused_with_what_to_do(tmp_path):
    names = np.array([["x", "y", "7", "8", "x"], ["z", "8", "9", "y", "8"]])
    np.save(tmp_path / "a.npy", names.astype(object))
    pd.DataFrame(names).add_prefix("n").to_csv(tmp_path / "wide.csv", index=False)
    (tmp_path / "ragged.csv").write_text("1,2,3\n4,5\n")
    (tmp_path / "a.jsonl").write_text("[1, 2]\n[3, 4]\n")
    for name, words in (
        ("a.npy", "or write JSON, a list for each query"),
        ("wide.csv", "or write JSON, a list for each query"),
        ("ragged.csv", "Expected 3 columns, got 2"),
        ("a.jsonl", "cannot be read"),
    ):
        with pytest.raises(InputError, match=words):
            read_lists(tmp_path / name, {})


def test_scores_ground_truth_and_matrices_of_lists(tmp_path):
    SHUFFLED.assign(score=1 - SHUFFLED["rank"] / 4).drop(columns=["rank", "distance"]).to_csv(
        tmp_path / "scores.csv"
    )
    lists = read_lists(tmp_path / "scores.csv", {})
    assert "score" in lists.columns and "distance" not in lists.columns
    row = lists.queries.tolist().index("b")
    assert lists.words[lists.ids[row]].tolist() == NEAR["b"]
    assert lists.distances[row].tolist() == [1, 0.75, 0.5]
    write_values(tmp_path / "gt.ibin", IDS)  # as big-ann has it
    with (tmp_path / "gt.ibin").open("ab") as file:
        X.tofile(file)
    np.savez(tmp_path / "a.npz", ids=IDS, distances=X)
    for name in ("gt.ibin", "a.npz"):
        lists = read_lists(tmp_path / name, {})
        np.testing.assert_array_equal(lists.ids, IDS)
        np.testing.assert_array_equal(lists.distances, X)
        assert lists.queries is None and lists.words is None
    write_h5ad(tmp_path / "a.h5ad", X)
    lists = read_lists(tmp_path / "a.h5ad", {})
    assert lists.words[lists.ids[5, 0]] == f"cell {IDS[5, 0] % 30}"
    np.testing.assert_array_equal(lists.distances, X[:, :3])
    SHUFFLED.rename(columns={"query_id": "x"}).to_csv(tmp_path / "no.csv", index=False)
    for said, words in (
        ({}, "no lists of ids: .* --columns query=NAME"),
        ({"id": "y"}, "no column 'y'"),
    ):
        with pytest.raises(InputError, match=words):
            read_lists(tmp_path / "no.csv", said)


@pytest.mark.parametrize(
    "values", [X[0], X[None], X * 1j, X.astype("S"), X > 0, X[:0], X[:, :0], np.float32(1)]
)
def test_other_arrays_are_refused(values, tmp_path):
    np.save(tmp_path / "a.npy", values)
    assert "of shape" in refusal(tmp_path / "a.npy")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["train"] = values
    assert "of shape" in refusal(tmp_path / "a.h5")


def test_nothing_is_unpickled(tmp_path):
    objects = np.array([[Malicious(tmp_path / "victim")]], dtype=object)
    np.save(tmp_path / "a.npy", objects, allow_pickle=True)
    assert "object" in refusal(tmp_path / "a.npy")
    assert not (tmp_path / "victim").exists()


def test_rows_of_another_dimension_are_named(tmp_path):
    rows = [*X[:9], X[9, :4], *X[10:]]
    write_rows(tmp_path / "a.fvecs", rows)
    # The row after it does not begin where it would.
    assert "row 9 is not of the 6 of row 0" in refusal(tmp_path / "a.fvecs")


def save_parquet(path, **columns):
    pq.write_table(pa.table(columns), path)


# What is not read: how it is written, the column that is meant, and how people load it.
CONVERTED = {
    "bool.npy": (lambda path: np.save(path, X > 0), None, np.load),
    "pictures.npy": (lambda path: np.save(path, X.reshape(30, 2, 3)), None, np.load),
    "one.npy": (lambda path: np.save(path, X[:, 0]), None, np.load),
    "object.npy": (
        lambda path: np.save(path, X.astype(object), allow_pickle=True),
        None,
        lambda path: np.load(path, allow_pickle=True),
    ),
    "text.npz": (lambda p: np.savez(p, emb=X.astype("U"), n=3), "emb", lambda p: np.load(p)["emb"]),
    "bool.h5": (
        lambda path: h5py.File(path, "w").create_dataset("a/b", data=X > 0),
        "a/b",
        lambda path: h5py.File(path)["a/b"],
    ),
    "half.pt": (
        lambda path: torch.save({"e": torch.from_numpy(X).bfloat16()}, path),
        "e",
        lambda path: torch.load(path)["e"].tolist(),
    ),
    "bool.parquet": (
        lambda path: save_parquet(path, emb=(X > 0).tolist()),
        None,
        lambda path: pd.read_parquet(path)["emb"],
    ),
    "a.pkl": (
        lambda path: path.write_bytes(pickle.dumps(X.tolist())),
        None,
        lambda path: pickle.loads(path.read_bytes()),
    ),
}


@pytest.mark.parametrize("name", readable(CONVERTED))
def test_what_is_not_read_is_refused_with_a_line_that_converts_it(name, tmp_path, monkeypatch):
    write, column, load = CONVERTED[name]
    write(tmp_path / name)
    line = refusal(tmp_path / name, column=column).partition("where it is x, ")[2]
    monkeypatch.chdir(tmp_path)
    exec(line.partition(", and name")[0], {"numpy": np, "x": load(tmp_path / name)})
    got, flat = read_matrix(tmp_path / "rows.npy"), X[:, :1] if name == "one.npy" else X
    expected = flat > 0 if name.startswith("bool") else flat
    np.testing.assert_allclose(got, expected, rtol=1e-2 if name == "half.pt" else 1e-6)


WIDE = pd.DataFrame(X, columns=[f"x{i}" for i in range(6)])
WIDE_WRITERS = {
    ".parquet": lambda table, path: table.to_parquet(path, row_group_size=7),
    ".csv": lambda table, path: table.to_csv(path, index=False),
    ".json": lambda table, path: table.to_json(path, orient="records", double_precision=15),
    ".jsonl": lambda table, path: table.to_json(
        path, orient="records", lines=True, double_precision=15
    ),
}


@pytest.mark.parametrize("suffix", WIDE_WRITERS)
def test_one_column_per_dimension_beside_what_is_known_of_the_rows(suffix, tmp_path):
    path, table = tmp_path / f"a{suffix}", WIDE.assign(x2=range(30))
    table.insert(0, "id", [f"row {i}" for i in range(30)])
    table = table.assign(label=np.arange(30) % 3, Group=range(30), caption="a dog")
    table.loc[[3, 9], "x4"] = np.nan
    WIDE_WRITERS[suffix](table, path)
    expected = np.array(WIDE.assign(x2=range(30)))
    expected[[3, 9], 4] = np.nan
    np.testing.assert_allclose(read_matrix(path), expected, rtol=1e-6)
    contents = contents_of(path)
    assert column_of(contents, "id", 30).to_pylist() == table["id"].tolist()
    assert column_of(contents, "label", 30).to_pylist() == table["label"].tolist()
    # A column of lists is what is meant where there is one; a single number is no vector.
    WIDE_WRITERS[suffix](table[["id", "x1"]], path)
    assert "'x1'" in refusal(path)
    if suffix != ".csv":
        WIDE_WRITERS[suffix](table.assign(emb=(2 * X).tolist()), path)
        np.testing.assert_allclose(read_matrix(path), 2 * X, rtol=1e-6)


def test_lists_with_a_column_for_each_place(tmp_path):
    pd.DataFrame(IDS).add_prefix("n").to_parquet(tmp_path / "a.parquet")
    lists = read_lists(tmp_path / "a.parquet", {})
    np.testing.assert_array_equal(lists.words[lists.ids].astype(int), IDS)


def test_paths_that_are_no_such_files(tmp_path):
    assert "No such file" in refusal(tmp_path / "a.npy")
    assert "a folder" in refusal(tmp_path)
    assert "cannot be opened" in refusal(tmp_path / ("a" * 300))
    (tmp_path / "a.npy").touch()
    assert "empty" in refusal(tmp_path / "a.npy")
    (tmp_path / "a.xyz").write_bytes(b"1")
    assert ".fvecs" in refusal(tmp_path / "a.xyz")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder, and by the name of a file in it its bytes."""
    folder = tmp_path_factory.mktemp("whole")
    for name, (write, values) in WRITERS.items():
        write(folder / name, values)
    return folder, {name: (folder / name).read_bytes() for name in WRITERS}


@pytest.mark.parametrize("name", WRITERS)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_damaged_files_are_refused_or_read(name, whole, data):
    folder, contents = whole
    content = bytearray(contents[name])
    damage = data.draw(st.sampled_from(["truncate", "replace", "append"]))
    if damage == "truncate":
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    elif damage == "append":
        content += data.draw(st.binary(min_size=1, max_size=50))
    else:
        end = len(content) if name in ("a.parquet", "a.pt", "a.npz") else min(len(content), 200)
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, end - 1))] = data.draw(st.integers(0, 255))
    path = folder / f"damaged{name}"
    path.write_bytes(content)
    simple = name.lower().endswith(BARE)
    # Of NumPy, memory that is only asked for counts too; of the C libraries, what they touch.
    touched = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    try:
        got = read_matrix(path)
    except InputError as error:
        assert "\n" not in str(error)
        assert str(path) in str(error)
    else:
        assert got.ndim == 2
        assert got.nbytes <= len(content) or not simple
        # Without a sign of it a file cannot be cut or grow, if all of it is values.
        assert damage == "replace" or not simple or (got.shape != X.shape and "vecs" in name)
    finally:
        asked = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert asked < 8 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - touched < 50 << 10
    # HDF5 itself may take minutes over a text of which the length was replaced.
    if damage != "replace":
        with contextlib.suppress(InputError):
            assert declared_distance(path) in ("cosine", None)


LARGE = 2**60  # which is not LARGE + 1 in floats


@pytest.mark.parametrize(
    ("values", "codes"),
    [
        ([7, 3, None, 7, -1, 0], [7, 3, -1, 7, -1, 0]),
        ([7.0, 3.0, None, np.nan, 7.0, 0.0], [7, 3, -1, -1, 7, 0]),
        (pa.array([1, 2, 3, 1, 2, None], pa.uint8()), [1, 2, 3, 1, 2, -1]),
        # What is no fitting whole number, by first appearance.
        (["b", "a", None, "b", "c", "a"], [0, 1, -1, 0, 2, 1]),
        (pa.array(["b", "a", None, "b", "c", "a"]).dictionary_encode(), [0, 1, -1, 0, 2, 1]),
        ([True, False, None, True, False, True], [0, 1, -1, 0, 1, 0]),
        ([b"\xff", b"", None, b"\xff", b"c", b""], [0, 1, -1, 0, 2, 1]),
        ([0.5, 1.0, None, np.nan, 0.5, np.inf], [0, 1, -1, -1, 0, 2]),
        ([3, -5, None, 3, -1, -5], [0, 1, -1, 0, 2, 1]),
        ([LARGE, LARGE + 1, None, LARGE, 3, LARGE + 1], [0, 1, -1, 0, 2, 1]),
        (pa.array([32768, 1, None, 1, 0, 0], pa.int32()), [0, 1, -1, 1, 2, 2]),
        (pa.nulls(6), [-1] * 6),
    ],
)
def test_codes_of_a_column(values, codes, tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"emb": list(X[:6]), "label": values}), path, row_group_size=2)
    read = read_codes(path, "label", 6, np.int16)
    assert (read.dtype, read.tolist()) == (np.int16, codes)


def test_codes_of_no_column_and_of_too_many_values(tmp_path):
    path = tmp_path / "a.parquet"
    write_parquet(path)
    np.save(tmp_path / "a.npy", X)
    for file in (path, tmp_path / "a.npy"):
        assert column_of(contents_of(file), "label", 30) is None
    for n, words in ((32_767, None), (32_768, "32,768 values")):
        pq.write_table(pa.table({"label": [f"word {row}" for row in range(n)]}), path)
        if words is None:
            assert read_codes(path, "label", n, np.int16)[-1] == n - 1
            continue
        with pytest.raises(InputError, match=words):
            read_codes(path, "label", n, np.int16)
    pq.write_table(pa.table({"label": [[1], [2, 3]]}), path)
    with pytest.raises(InputError, match=r"'label', holds list<.*: write a word or a number"):
        read_codes(path, "label", 2, np.int16)


def test_long_words_are_not_multiplied(tmp_path):
    # A megabyte that stands in the file once, and in a thousand rows.
    words = pa.DictionaryArray.from_arrays(np.zeros(1000, np.int32), ["x" * (1 << 20)])
    pq.write_table(pa.table({"label": words}), tmp_path / "a.parquet", store_schema=False)
    before = pa.default_memory_pool().max_memory()
    assert (read_codes(tmp_path / "a.parquet", "label", 1000, np.int16) == 0).all()
    assert pa.default_memory_pool().max_memory() < before + (100 << 20)
