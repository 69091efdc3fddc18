"""Files that others wrote: what is read from them, and what is said of those that are damaged."""

import contextlib
import resource
import struct
import tracemalloc

import faiss.contrib.vecs_io as theirs
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift import InputError
from drift.formats import declared_distance, read_codes, read_matrix
from tests.conftest import Malicious

X = np.random.default_rng(7).standard_normal((30, 6)).astype(np.float32)
IDS = np.random.default_rng(8).integers(0, 1000, (30, 6)).astype(np.int32)
BYTES = IDS.astype(np.uint8)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


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


WRITERS = {
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
    np.testing.assert_array_equal(got, values)
    assert isinstance(got, np.memmap) == (name not in ("gzip.h5", "a.parquet"))


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


@pytest.mark.parametrize("write", [write_hdf5, write_gzip])
def test_parts_of_hdf5(write, tmp_path):
    path = tmp_path / "a.hdf5"
    write(path)
    expected = {"train": X, "test": X[:5], "neighbors": IDS[:5], "distances": X[:5]}
    for part, values in expected.items():
        got = read_matrix(path, part=part)
        np.testing.assert_array_equal(got, values)
        assert isinstance(got, np.memmap) == (write is write_hdf5)


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
        *((np.bytes_("angular"), "cosine"), (["angular"], "cosine")),
    ],
)
def test_declared_distance(written, expected, tmp_path):
    write_hdf5(tmp_path / "a.hdf5", distance=written)
    assert declared_distance(tmp_path / "a.hdf5") == expected


def test_no_declared_distance(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["train"] = X
    assert declared_distance(tmp_path / "a.hdf5") is None
    np.save(tmp_path / "a.npy", X)
    assert declared_distance(tmp_path / "a.npy") is None
    write_hdf5(tmp_path / "b.hdf5", distance=3)
    with pytest.raises(InputError, match="no word"):
        declared_distance(tmp_path / "b.hdf5")


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
    assert "no column 'd'" in refusal(path, column="d")
    pq.write_table(pa.table(lists | {"emb": pa.array(X.tolist())}), path)
    np.testing.assert_array_equal(read_matrix(path), X)
    pq.write_table(pa.table({"a\nb": [1], "text": [["x"]]}), path)
    assert r"'a\nb', 'text'" in refusal(path)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[1.0, 2.0]] * 1500 + [[1.0]], "row 1500 has 1 values, row 0 has 2"),
        ([[1.0, 2.0]] * 1500 + [[1.0, None]], "row 1500 has no values, or one that is null"),
        ([[1.0, 2.0], None], "row 1 has no values"),
        ([None, [1.0, 2.0]], "row 0 has no values"),
        ([[], []], "row 0 has no values"),
        ([], "shape (0, 0)"),
    ],
)
def test_parquet_with_odd_rows_names_one(rows, words, tmp_path):
    kinds = [pa.list_(pa.float32())]
    if all(row is None or len(row) == 2 for row in rows):
        kinds.append(pa.list_(pa.float32(), 2))
    for kind in kinds:
        pq.write_table(pa.table({"emb": pa.array(rows, kind)}), tmp_path / "a.parquet")
        assert words in refusal(tmp_path / "a.parquet")


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


def test_hdf5_of_another_file_is_refused_and_of_others_the_datasets_are_named(tmp_path):
    write_hdf5(tmp_path / "a.hdf5")
    assert "'distances', 'neighbors', 'test', 'train'" in refusal(tmp_path / "a.hdf5", part="x")
    with h5py.File(tmp_path / "b.hdf5", "w") as file:
        file["train"] = h5py.ExternalLink("a.hdf5", "train")
    assert "another file" in refusal(tmp_path / "b.hdf5")


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
    assert "row 9 has dimension 4 and row 0 6" in refusal(tmp_path / "a.fvecs")


@pytest.mark.parametrize("name", ["a.csv", "a.txt"])
def test_the_line_that_converts_text_does_so(name, tmp_path):
    path = tmp_path / name
    np.savetxt(path, X, delimiter="," if name == "a.csv" else " ")
    line = refusal(path).partition("with ")[2]
    exec(line, {"numpy": np})
    np.testing.assert_allclose(read_matrix(tmp_path / "a.npy"), X)


def test_paths_that_are_no_such_files(tmp_path):
    assert "missing" in refusal(tmp_path / "a.npy")
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
@settings(deadline=None, max_examples=60)
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
        end = len(content) if name == "a.parquet" else min(len(content), 200)
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, end - 1))] = data.draw(st.integers(0, 255))
    path = folder / f"damaged{name}"
    path.write_bytes(content)
    simple = name not in ("a.hdf5", "gzip.h5", "a.parquet")
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


SHUFFLED = np.array([3, 0, 5, 1, 4, 2])


def test_rows_of_parquet_that_are_numbered_are_in_that_order(tmp_path):
    rows, path = np.arange(12, dtype=np.float32).reshape(6, 2), tmp_path / "shuffled.parquet"
    words = pa.array(["a", "b", "c", "d", "e", "f"]).take(pa.array(SHUFFLED))
    for ids, order in ((SHUFFLED, range(6)), (SHUFFLED + 1, SHUFFLED), (SHUFFLED * 2, SHUFFLED)):
        columns = {"id": ids, "emb": list(rows[SHUFFLED]), "number": SHUFFLED, "word": words}
        pq.write_table(pa.table(columns), path)
        np.testing.assert_array_equal(read_matrix(path), rows[order])
        np.testing.assert_array_equal(read_codes(path, "number", 6, np.int32), order)
        # By first appearance: in the order of the rows.
        np.testing.assert_array_equal(read_codes(path, "word", 6, np.int32), range(6))


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
        assert (read_codes(file, "label", 30, np.int16) == -1).all()
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
