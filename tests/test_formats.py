"""Files that others wrote: what is read from them, and what is said of those that are damaged."""

import contextlib
import resource
import struct
import subprocess
import sys
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
from drift.formats import declared_distance, read_matrix
from tests.conftest import ROOT, Malicious

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
    "a.fbin": (write_values, X),
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


def test_suffixes_are_known_in_capitals(tmp_path):
    write_values(tmp_path / "A.FBIN", X)
    np.testing.assert_array_equal(read_matrix(tmp_path / "A.FBIN"), X)


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
        ("euclidean", "euclidean"),
        ("Euclidean", "euclidean"),
        ("angular", "cosine"),
        ("cosine", "cosine"),
        (np.bytes_("angular"), "cosine"),
        (["angular"], "cosine"),
        ("normalized", "cosine"),
        ("ip", "ip"),
        ("hamming", "hamming"),
    ],
)
def test_declared_distance(written, expected, tmp_path):
    write_hdf5(tmp_path / "a.hdf5", distance=written)
    assert declared_distance(tmp_path / "a.hdf5") == expected


def test_no_declared_distance(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["train"] = X
    np.save(tmp_path / "a.npy", X)
    assert declared_distance(tmp_path / "a.hdf5") is None
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


def test_parquet_without_lists_names_its_columns(tmp_path):
    pq.write_table(pa.table({"a\nb": [1], "text": [["x"]]}), tmp_path / "a.parquet")
    assert r"'a\nb', 'text'" in refusal(tmp_path / "a.parquet")


def write_unwritten(path, **options):
    with h5py.File(path, "w") as file:
        file.create_dataset("train", (1 << 30, 1 << 10), dtype="f4", **options)


def write_elsewhere(path):
    write_hdf5(path.with_name("other.hdf5"))
    with h5py.File(path, "w") as file:
        file["train"] = h5py.ExternalLink("other.hdf5", "train")


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
    import h5py  # noqa: F401 (what it allocates is not what is measured)

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
    write_unwritten(tmp_path / "a.hdf5", **options)
    assert "not whole" in refusal(tmp_path / "a.hdf5")


def test_hdf5_of_another_file_is_refused(tmp_path):
    write_elsewhere(tmp_path / "a.hdf5")
    assert "another file" in refusal(tmp_path / "a.hdf5")


def test_hdf5_names_the_datasets_it_has(tmp_path):
    write_hdf5(tmp_path / "a.hdf5")
    assert "'distances', 'neighbors', 'test', 'train'" in refusal(tmp_path / "a.hdf5", part="x")


@pytest.mark.parametrize(
    "values", [X[0], X[None], X * 1j, X.astype(str), X > 0, X[:0], X[:, :0], np.float32(1)]
)
@pytest.mark.parametrize("suffix", ["npy", "hdf5"])
def test_other_arrays_are_refused(values, suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    if suffix == "npy":
        np.save(path, values)
    else:
        with h5py.File(path, "w") as file:
            file["train"] = np.asarray(values).astype("S") if values.dtype.kind == "U" else values
    assert "of shape" in refusal(path)


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


def test_a_file_without_permission(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", X)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    # Root may read anything, so that the file's mode would not do.
    monkeypatch.setattr(type(tmp_path), "open", refuse)
    assert "Permission denied" in refusal(tmp_path / "a.npy")


def test_libraries_are_imported_when_they_are_needed():
    code = "import sys, drift.formats; print(sorted({'h5py', 'pyarrow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


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


def test_rows_of_parquet_that_are_numbered_are_in_that_order(tmp_path):
    rows = np.arange(12, dtype=np.float32).reshape(6, 2)
    ids = np.array([3, 0, 5, 1, 4, 2])
    path = tmp_path / "shuffled.parquet"
    for numbers, expected in ((ids, rows), (ids + 1, rows[ids]), (ids * 2, rows[ids])):
        pq.write_table(pa.table({"id": numbers, "emb": list(rows[ids])}), path)
        np.testing.assert_array_equal(read_matrix(path), expected)
