"""Tables by their columns: Parquet, CSV and other text, JSON and JSON lines."""

import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from drift.formats.opening import LARGEST_RATIO, Contents, Held, is_number, parsing

# What columns are called by what they hold; of several the first.
ROLES = {
    "id": "neighbors neighbor neighbor_id neighbor_ids hit hit_id doc_id docid corpus_id target "
    "dst item_id indices ids pk _id id",
    "query": "query query_id qid query_idx query_index q source src id",
    "rank": "rank position pos",
    "distance": "distance distances dist dists _distance d",
    "score": "score scores _score similarity sim",
}
# Columns that are no dimensions of a vector, the last one as pandas calls an index.
NO_DIMENSIONS = {"group", "label", "word", *" ".join(ROLES.values()).split()} - {"d", "q"}
NO_DIMENSIONS |= {"__index_level_0__"}
# Whose values are text, also where they look like numbers.
WORDS = {*ROLES["id"].split(), *ROLES["query"].split()} - {"q"}
# What is no word where numbers are.
NULLS = frozenset(pyarrow.csv.ConvertOptions().null_values)
# What of a text is looked at first, in bytes.
HEAD = 1 << 20
# What is decoded at a time.
BATCH = 16 << 20


def read_parquet(path: Path, size: int) -> Contents:
    about, schema = pq.read_metadata(path), pq.read_schema(path)

    def read(places: list[int]) -> Iterator[pa.RecordBatch]:
        return _batches(path, [schema.field(place) for place in places], size)

    return _columns(schema, about.num_rows, read)


def _batches(path: Path, fields: list[pa.Field], size: int) -> Iterator[pa.RecordBatch]:
    # Words as numbers in a dictionary: a long one may stand there a million times.
    words = [field.name for field in fields if not field.type.num_fields and not _width(field)]
    with (
        parsing(path),
        pq.ParquetFile(path, memory_map=True, read_dictionary=words) as file,
    ):
        about, names = file.metadata, {field.name for field in fields}
        leaves = [  # of several columns none is nested
            i
            for i, leaf in enumerate(file.schema)
            if leaf.path in names or leaf.path.startswith(f"{fields[0].name}.")
        ]
        groups = [about.row_group(i) for i in range(about.num_row_groups)]
        values = sum(group.column(i).num_values for group in groups for i in leaves)
        width = values * max(_width(field) or 1 for field in fields)
        if width > LARGEST_RATIO * size:
            raise ValueError(f"{fields[0].name!r} claims more values than the file holds")
        at_a_time = max(1, min(1024, BATCH * about.num_rows // max(width, 1)))
        stop = 0
        for batch in file.iter_batches(at_a_time, columns=[*names]):
            stop += len(batch)
            yield batch.select([field.name for field in fields])
        if stop != about.num_rows:
            raise ValueError(f"it has {stop} rows, not {about.num_rows}")


def _width(field: pa.Field) -> int:
    """Bytes of a number in a column; 0 where there are none."""
    kind = getattr(field.type, "value_type", field.type)
    return kind.bit_width // 8 if is_number(kind) else 0


def _columns(
    schema: pa.Schema, n: int, read: Callable[[list[int]], Iterable[pa.RecordBatch]]
) -> Contents:
    """Columns of n rows by their names; and as "" all dimensions of vectors, a column each."""
    contents = {
        field.name: Held(field.type, (n,), lambda i=i: (b.column(0) for b in read([i])))
        for i, field in enumerate(schema)
    }
    dimensions = [
        i
        for i, field in enumerate(schema)
        if is_number(field.type) and field.name.lower() not in NO_DIMENSIONS
    ]
    if len(dimensions) > 1 and not any(held.is_matrix for held in contents.values()):
        types = [schema.field(i).type.to_pandas_dtype() for i in dimensions]
        kind = pa.from_numpy_dtype(np.result_type(*types))
        contents[""] = Held(pa.list_(kind), (n,), lambda: _rows(read(dimensions), kind))
    return contents


def _rows(batches: Iterable[pa.RecordBatch], kind: pa.DataType) -> Iterator[pa.Array]:
    """What several columns of numbers hold, row by row."""
    for batch in batches:
        values = pa.concat_arrays([column.cast(kind) for column in batch.columns])
        order = np.arange(len(values)).reshape(batch.num_columns, -1).T.ravel()
        yield pa.FixedSizeListArray.from_arrays(values.take(pa.array(order)), batch.num_columns)


def _of_table(table: pa.Table) -> Contents:
    return _columns(table.schema, len(table), lambda places: table.select(places).to_batches())


def read_json_lines(path: Path, size: int) -> Contents:
    options = pyarrow.json.ReadOptions(block_size=64 << 20)  # no line may be longer
    return _of_table(pyarrow.json.read_json(path, options))


def read_json(path: Path, size: int) -> Contents:
    """Records, or their columns; lists, or lists by the query."""
    content = json.loads(path.read_bytes())
    if isinstance(content, list) and isinstance(content[0], dict):
        return _of_table(pa.Table.from_pylist(content))
    if isinstance(content, list):
        content = {"": content}
    elif not set(content) & NO_DIMENSIONS:
        content = {"query": list(content), "neighbors": list(content.values())}
    return _of_table(pa.table(content))


def read_text(path: Path, size: int) -> Contents:
    """Columns by their names, or their numbers from 1 on.

    Fields are separated by comma, tab, semicolon or blank, with a header or without. A first column
    of words, as GloVe has it, is "id"; so is an index that pandas wrote.
    """
    with path.open("rb") as file:
        head = io.TextIOWrapper(io.BytesIO(file.read(HEAD)), errors="replace")
        lines = [line.rstrip("\n\r") for line in head]
    if size > HEAD and len(lines) > 2:
        lines.pop()  # it may be cut
    first, second = (*lines, "")[:2]
    delimiter = max(",\t; ", key=second.count if second else first.count)
    fields = [field.strip('" ') for field in first.split(delimiter)]
    # Of word2vec: how many words, of how many dimensions.
    dimensions = str(second.rstrip(" ").count(" "))
    counts = delimiter == " " and len(fields) == 2 and fields[1] == dimensions
    if counts:
        fields = second.split(delimiter)
    names = [str(place) for place in range(1, len(fields) + 1)]
    if has_header := not counts and _is_header(fields):
        names = [field or "id" for field in fields]
    elif counts or len(fields) > 4 or path.suffix.lower() == ".vec":
        starts = (line.split(delimiter)[0].strip('" ') for line in lines)
        if counts or not all(_is_float(start) or start in NULLS for start in starts):
            names[0] = "id"
    words = {name: pa.string() for name in names if name.lower() in WORDS}
    quote = '"' if delimiter != " " else False
    options = (
        pyarrow.csv.ReadOptions(column_names=names, skip_rows=int(has_header or counts)),
        pyarrow.csv.ParseOptions(delimiter=delimiter, quote_char=quote),
        pyarrow.csv.ConvertOptions(column_types=words),
    )
    return _of_table(pyarrow.csv.read_csv(path, *options))


def _is_header(fields: list[str]) -> bool:
    # pandas numbers columns, after a blank one for the index.
    known, index = NO_DIMENSIONS & {field.lower() for field in fields}, fields[fields[0] == "" :]
    of_pandas = len(index) > 4 and index == [str(place) for place in range(len(index))]
    # "label" may be the first word of vectors as well.
    known = known and all(field.isdecimal() or not _is_float(field) for field in fields)
    return bool(known) or of_pandas or (len(fields) > 2 and not any(map(_is_float, fields)))


def _is_float(text: str) -> bool:
    try:
        return bool(text) and float(text) is not None
    except ValueError:
        return False


def vectors_of(held: Held, size: int) -> np.ndarray:
    """A column of lists as rows of numbers; a row that is null, or holds what is, is NaN.

    Raises a ValueError for rows of several lengths, and for far more than a file of a `size` holds.
    """
    matrix, stop, d = np.empty((held.shape[0], 0)), 0, 0
    for lists in held.read():
        lengths = pc.list_value_length(lists).fill_null(0).to_numpy()
        values, there = lists.flatten(), lengths > 0
        if d == 0:
            d = int(lengths.max(initial=0))
            dtype = np.dtype(values.type.to_pandas_dtype())
            if len(matrix) * d * dtype.itemsize > LARGEST_RATIO * size:
                raise ValueError(f"it claims more rows, {len(matrix)}, than the file holds")
            matrix = np.empty((len(matrix), d), dtype)
        odd = np.flatnonzero(there & (lengths != d))
        if odd.size:
            row = stop + odd[0]
            raise ValueError(f"row {row} has {lengths[odd[0]]} values, others have {d}")
        if (values.null_count or not there.all()) and matrix.dtype.kind != "f":
            matrix = matrix.astype(np.float32)
        block = matrix[stop : stop + len(lists)]
        if matrix.dtype.kind == "f":
            block[~there] = np.nan
        block[there] = values.to_numpy(zero_copy_only=False).reshape(-1, max(d, 1))
        stop += len(lists)
    return matrix


def padded(lengths: np.ndarray, values: np.ndarray, fill: float) -> np.ndarray:
    """Lists of given lengths, whose values follow one another, filled up to the longest."""
    matrix = np.full((len(lengths), max(lengths.max(initial=0), 1)), fill, values.dtype)
    matrix[np.arange(matrix.shape[1]) < lengths[:, None]] = values
    return matrix
