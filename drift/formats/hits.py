"""Neighbor lists as systems return them: matrices, columns of lists, or long tables of hits."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from drift import InputError
from drift.formats import column_of, contents_of, matrix_of, names_in
from drift.formats.opening import Contents, in_memory, parsing, quoted
from drift.formats.tables import ROLES, padded


class Lists(NamedTuple):
    """What a system returned for each query, the nearest first.

    `ids` are whole numbers (rows, k); where there are `words`, which are text, the places of ids
    among them, -1 for a missing neighbor. `queries` are the names of the queries, if they came with
    the lists. Of `distances`, (rows, k), that `are_scores` the larger are the nearer.
    """

    ids: np.ndarray
    words: np.ndarray | None
    distances: np.ndarray | None
    queries: np.ndarray | None
    columns: dict[str, str]  # where they were found, by `ROLES`
    by: str | None = None  # the role by which hits, one a row, were put in order

    @property
    def are_scores(self) -> bool:
        return "score" in self.columns and "distance" not in self.columns


def read_lists(path: Path, said: dict[str, str], reported: str | None = None) -> Lists:
    """Lists, one a row, or one hit a row; from the columns that are said, else guessed by names.

    What is `reported` as a similarity is a score, whatever its column is called.
    """
    contents = contents_of(path)
    if unknown := [name for name in said.values() if name not in contents]:
        raise InputError(f"{path} has no column {quoted(unknown)}: it has {quoted(contents)}")
    columns, by = said, None
    if "id" not in said:
        guessed = {role: of for role, of in _guess(contents).items() if of not in said.values()}
        columns = guessed | said
    if reported == "similarity" and "distance" in columns:
        columns = {"score" if role == "distance" else role: of for role, of in columns.items()}
    held, words = contents.get(columns.get("id")), None
    is_matrix = held is not None and len(held.shape) == 2
    if held is None or not (is_matrix or held.is_lists or "query" in columns):
        raise InputError(
            f"{path} has no lists of ids: it has {quoted(contents)}; say which columns they are, "
            "--columns query=NAME id=NAME, and rank=NAME, distance=NAME or score=NAME; or write "
            "JSON, a list for each query"
        )
    measure = next((role for role in ("distance", "score") if role in columns), None)
    with parsing(path):
        given = {
            role: column_of(contents, name, held.shape[0])
            for role, name in columns.items()
            if not is_matrix or role == "query"
        }
        queries = given.get("query")
        if is_matrix:
            if held.is_words:
                words, places = np.unique(held.read().astype(str), return_inverse=True)
                held = in_memory(places.reshape(held.shape))
                contents = contents | {columns["id"]: held}
            ids = matrix_of(path, contents, column=columns["id"]).read()
            distances = measure and matrix_of(path, contents, column=columns[measure]).read()
        else:
            if held.is_lists:
                lengths = pc.list_value_length(given["id"]).fill_null(0).to_numpy()
                hits = {role: of.flatten() for role, of in given.items() if role in ("id", measure)}
                order = np.s_[:]
            else:
                query, names = _words(queries)
                lengths, queries, hits = np.bincount(query), pa.array(names), given
                by = next((role for role in ("rank", "distance", "score") if role in given), None)
                keys = [] if by is None else [_numbers(given[by]) * (-1 if by == "score" else 1)]
                order = np.lexsort((*keys, query))
            hit = hits["id"]
            if pa.types.is_signed_integer(hit.type):  # -1 is missing, also beside a row "-1"
                hit = pc.if_else(pc.equal(hit, -1), None, hit)
            codes, words = _words(hit)
            ids = padded(lengths, codes[order], -1)
            distances = measure and padded(lengths, _numbers(hits[measure])[order], np.inf)
        names = None if queries is None else names_in(queries, f"{path}, {columns['query']!r},")
    return Lists(ids, words, distances, names, columns, by)


def _words(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of values, -1 for null, and what they are the numbers of, as text."""
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_finite(column), column, None).cast(pa.int64())
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    words = column.dictionary.cast(pa.string()).to_numpy(zero_copy_only=False)
    return column.indices.fill_null(-1).to_numpy(), words


def _numbers(column: pa.Array) -> np.ndarray:
    return column.cast(pa.float64()).fill_null(np.inf).to_numpy()


def _guess(contents: Contents) -> dict[str, str]:
    """Which columns are what, of the roles of a list or of a hit; none without ids."""
    lists = [
        name for name, held in contents.items() if held.is_matrix or held.is_lists or held.is_words
    ]
    values = [name for name, held in contents.items() if name not in lists and len(held.shape) == 1]
    if 2 <= len(values) <= 4 and all(name.isdecimal() for name in values):  # without a header
        kinds = ["rank" if pa.types.is_integer(contents[n].dtype) else "distance" for n in values]
        return dict(zip(["query", "id", *kinds[2:]], values, strict=True))

    def first(role: str, among: list[str]) -> str | None:
        by_word = {name.rpartition("/")[2].lower(): name for name in reversed(among)}
        return next((by_word[word] for word in ROLES[role].split() if word in by_word), None)

    columns, among = {"id": first("id", lists)}, lists
    if columns["id"] is None:
        columns["id"], among = first("id", values), values
        if first("query", [name for name in values if name != columns["id"]]) is None:
            columns["id"], among = lists[0] if len(lists) == 1 else None, lists
    for role in ("query", "rank", "distance", "score"):
        rest = [
            name for name in (values if role == "query" else among) if name not in columns.values()
        ]
        columns[role] = first(role, rest)
    return {role: name for role, name in columns.items() if name is not None}
