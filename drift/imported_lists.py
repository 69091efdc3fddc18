"""Neighbor lists of another system: whether they are what they are taken for."""

import re
from collections.abc import Callable, Collection

import numpy as np
import pandas as pd

from drift import InputError
from drift.exact import neighbor_distances
from drift.formats.hits import Lists
from drift.formats.opening import quoted
from drift.protocols import Protocol
from drift.vectors import row_blocks, vector_norms

# Distances of quantized vectors are off by some percent, those of another measure by far more.
AGREEMENT = 0.05
# Another kind is named when so many of the distances would be those of their ids.
FITS = 0.9
# A cause is named when it makes so many of the ids exact neighbors.
FOUND = 0.3
# What stands for a missing neighbor, as text.
MISSING = ("-1", str(2**32 - 1), str(2**64 - 1), "", "nan", "None")
# What a system's distance d can be, by the names of ``--reported``: as a Euclidean distance.
REPORTED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "euclidean": lambda d: d,
    "squared": lambda d: np.sqrt(np.maximum(d, 0)),
    "cosine": lambda d: np.sqrt(np.maximum(2 * d, 0)),
    "similarity": lambda d: np.sqrt(np.maximum(2 - 2 * d, 0)),
}


class RowNames:
    """Which row, or query, a name stands for."""

    def __init__(self, names: np.ndarray, of: str = "row"):
        self.n, self._of, self._names = len(names), of, pd.Index(names, dtype=object)
        # Numbers of rows are looked at as numbers: they may be off by one, or too large.
        self._are_numbers = bool((names == np.arange(self.n).astype(str)).all())

    def rows(self, names: np.ndarray, what: str) -> np.ndarray:
        """Rows of names, words or whole numbers, int64 in their shape; -1: a missing neighbor.

        A word that is a name is that, also where it could stand for a missing neighbor. InputError
        for what names none.
        """
        if self._are_numbers and names.dtype.kind not in "iu":
            words = ["-1" if word in MISSING else word for word in names.astype(str).tolist()]
            if all(re.fullmatch(r"-?\d{1,18}", word) for word in words):
                names = np.array(words, np.int64)
        if self._are_numbers and names.dtype.kind in "iu":
            rows = names.astype(np.int64)  # 2^64 - 1 becomes -1
            rows[rows == 2**32 - 1] = -1
            return rows
        unique, places = np.unique(names, return_inverse=True)
        rows = self._found(unique, what, MISSING)
        if names.dtype.kind == "i":
            rows[unique == -1] = -1
        return rows[places].reshape(names.shape)

    def places(self, names: np.ndarray, what: str) -> np.ndarray:
        """Where each row stands among some names, int64 (n,); -1 for one that does not."""
        places = np.full(self.n, -1)
        places[self._found(names, what)] = np.arange(len(names))
        return places

    def _found(self, words: np.ndarray, what: str, missing: Collection[str] = ()) -> np.ndarray:
        words = words.astype(str)
        rows = self._names.get_indexer(words.astype(object))
        if len(unknown := words[(rows < 0) & ~np.isin(words, missing)]):
            advice = "; 02_embed_resnet50.py --row-ids none takes rows by their numbers"
            advice = advice if self._of == "row" else ""
            raise InputError(
                f"{what}: {len(unknown)} of {len(words)} names are those of no {self._of}, as "
                f"{quoted(unknown, 3)}; {self._of} names are {quoted(self._names, 3)}{advice}"
            )
        return rows


class ImportedIds:
    """Ids of another system as rows of the embeddings, of which some are read at a time.

    `queries`, int (Q,), are the rows that the queries are, which are no neighbors of their own; -1
    for one from outside. `where`, int (Q,), is the list of each, -1 where it has none; without it
    they are in the same order. InputError for what cannot be neighbors among the rows.
    """

    def __init__(
        self,
        lists: Lists,
        names: RowNames,
        queries: np.ndarray,
        where: np.ndarray | None,
        name: str,
    ):
        if (ids := lists.ids).dtype.kind not in "iu":
            raise InputError(
                f"{name} holds {ids.dtype} and must hold whole numbers: write a missing neighbor "
                "as -1, and save it .astype(int)"
            )
        if where is None and len(ids) != len(queries):
            raise InputError(
                f"{name} has {len(ids)} lists of {ids.shape[1]} ids, and stage 03 has "
                f"{len(queries)} queries, with a row each"
            )
        self.lists, self._names, self._queries, self._name = lists, names, queries, name
        self._where = np.arange(len(queries)) if where is None else where
        # The last is the one of a missing neighbor.
        words = lists.words
        self._rows = None if words is None else np.append(names.rows(words, name), -1)
        self._check(names.n)

    def _check(self, n: int) -> None:
        self.repeated, own = 0, 0
        self.without_list = int((self._where < 0).sum())
        for start, stop in row_blocks(len(self._queries), 64 * self.lists.ids.shape[1]):
            ids = self._named(rows := np.arange(start, stop))
            for row, column in np.argwhere((ids < -1) | (ids >= n))[:1]:
                raise InputError(
                    f"{self._name}: row {start + row} has an id that is no row of the {n} "
                    f"embeddings: {ids[row, column]} (-1: a missing neighbor; rows are counted "
                    "from 0: if yours are from 1, subtract 1)"
                )
            own += int(((ids == self._queries[rows, None]) & (ids >= 0)).any(axis=1).sum())
            self.repeated += int((once(ids) != ids).any(axis=1).sum())
        self.own_share = own / len(self._queries)

    @property
    def length(self) -> int:
        """Of the lists without the queries: one less where most of them hold it."""
        return self.lists.ids.shape[1] - (self.own_share > 0.5)

    def _named(self, rows: np.ndarray) -> np.ndarray:
        where = self._where[rows]
        ids = self.lists.ids[where]
        ids = self._names.rows(ids, self._name) if self._rows is None else self._rows[ids]
        ids[where < 0] = -1
        return ids

    def align(self, distances: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """What came with the lists of some queries, in the shape of `given`."""
        where = self._where[rows]
        return np.where(where[:, None] < 0, np.inf, distances[where])

    def given(self, rows: np.ndarray) -> np.ndarray:
        """The lists of some queries, int64 (q, k), an id that stands there twice counting once."""
        return once(self._named(rows))

    def neighbors(self, rows: np.ndarray) -> np.ndarray:
        """The same without the query itself.

        Where most lists hold it, all are one shorter: those without it lose their last entry. Where
        few do, its place counts as that of a missing neighbor.
        """
        ids, queries = self.given(rows), self._queries[rows]
        if self.own_share > 0.5:
            return Protocol.STUDY.leave_k(ids, np.zeros(ids.shape), queries)[0]
        return np.where((ids == queries[:, None]) & (ids >= 0), -1, ids)


def once(ids: np.ndarray) -> np.ndarray:
    """Lists (q, k) in which an id that stands there a second time is a missing neighbor."""
    order = np.argsort(ids, axis=1, kind="stable")
    in_order = np.take_along_axis(ids, order, axis=1)
    in_order[:, 1:][in_order[:, 1:] == in_order[:, :-1]] = -1
    each_once = np.empty_like(ids)
    np.put_along_axis(each_once, order, in_order, axis=1)
    return each_once


def refuse_other_rows(ids: np.ndarray, exact: np.ndarray, n: int, name: str) -> None:
    """Raise InputError where ids, (Q, k), are off by one, by what they share with exact lists."""
    length = min(ids.shape[1], exact.shape[1], 100)
    ids, exact = ids[:, :length, None], exact[:, None, :length]
    ids = np.where(ids < 0, n + 1, ids)  # what is missing is no row, moved by one neither
    shares = {shift: float((ids + shift == exact).any(axis=2).mean()) for shift in (0, -1, 1)}
    best = max(shares, key=shares.get)
    if best and shares[best] > FOUND and shares[0] < 0.1 * shares[best] + 2 * length / n:
        sign = "subtract 1" if best < 0 else "add 1"
        raise InputError(
            f"{name}: ids are off by one: {shares[0]:.0%} are exact neighbors, and "
            f"{shares[best]:.0%} if you {sign}"
        )


def cause_of_chance(
    points: np.ndarray, embeddings: np.ndarray, ids: np.ndarray, exact: np.ndarray
) -> str:
    """What makes right lists look as if drawn at random, as far as it can be seen.

    `points` are queries (q, d), `ids` the lists that were returned for them (q, k), `exact` the
    exact lists of all queries, (Q, K).
    """
    n, k = len(embeddings), min(ids.shape[1], exact.shape[1])
    ids, exact = ids[:, :k], exact[:, :k]
    products = points @ embeddings.T
    cosines = products / np.maximum(vector_norms(embeddings), 1e-30)
    by_cosine, by_product = (
        np.argpartition(-values, k, axis=1)[:, :k] for values in (cosines, products)
    )
    for measure, lists in (("cosine", by_cosine), ("inner product", by_product)):
        if (ids[:, :, None] == lists[:, None]).any(axis=2).mean() > FOUND:
            return f"they are neighbors by {measure}: see 02_embed_resnet50.py --metric"
    # How many ids each list has in common with the exact one of any query; by chance some.
    listed = (np.isin(np.arange(n), of_one) for of_one in ids)
    if np.mean([is_listed[exact].sum(axis=1).max() for is_listed in listed]) > 0.5 * k:
        return "they are in another order than the queries"
    return "they number rows otherwise, or are of other vectors, another metric or an older state"


def refuse_other_distances(
    points: np.ndarray,
    embeddings: np.ndarray,
    ids: np.ndarray,
    given: np.ndarray,
    exact_first: np.ndarray,
    reported: str,
    name: str,
) -> None:
    """Raise InputError where most distances are not those of their ids, with what would fit.

    `ids` (Q, k) were returned for float32 `points` (Q, d) with distances `given`, as `reported` of
    `REPORTED`. `exact_first` (Q,) are the exact distances to the nearest neighbors.
    """
    given, ours = given.astype(np.float64), neighbor_distances(points, embeddings, ids)
    present = (ids >= 0) & np.isfinite(given)
    if not present.any():
        return
    found = ours[present].astype(np.float64)
    off = AGREEMENT * found + 1e-3 * np.median(found)
    shares = {
        kind: float((np.abs(convert(given[present]) - found) <= off).mean())
        for kind, convert in REPORTED.items()
    }
    if shares[reported] >= 0.5:
        return
    best, fits = max(shares, key=shares.get), "no conversion fits"
    firsts = np.sort(REPORTED[reported](given[:, 0])), np.sort(exact_first)
    if shares[best] >= FITS:
        fits = f"--reported {best} fits"
    elif np.isclose(*firsts, rtol=AGREEMENT).mean() > 0.5:
        fits = "their rows are in another order than the queries, or the ids of others"
    raise InputError(
        f"{name}: {1 - shares[reported]:.0%} of the distances are not the {reported} ones of their "
        f"ids; {fits}"
    )
