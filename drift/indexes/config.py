"""How a graph is built and searched: names and numbers alone, neither library."""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Self

import numpy as np

from drift import InputError

BACKENDS = ("faiss", "hnswlib")
# A number; or k, a multiple or a fraction of it, with or without a least number.
_EF_SEARCH = re.compile(
    r"([1-9][0-9]{0,8})|(?!1k)([1-9][0-9]{0,2}|(?:0|[1-9][0-9]{0,2})\.[0-9]{0,3}[1-9])?k"
    r"(?:,([1-9][0-9]{0,8}))?"
)


@dataclass(frozen=True)
class GraphConfig:
    """How an HNSW graph is built."""

    backend: str  # ``faiss`` or ``hnswlib``
    M: int  # links of a node on every level but the lowest, which has twice as many
    ef_construction: int  # candidates kept while a node's neighbors are looked for
    seed: int = 0  # of the order in which the rows are inserted; 0: as they are
    build_threads: int = 1  # with more than one the graph depends on how these interleave

    @property
    def name(self) -> str:
        """For instance ``faiss_M32_efc200``, or ``hnswlib_M32_efc200_seed7``."""
        return f"{self._settings}{self._suffix}"

    def insertion_order(self, n: int) -> np.ndarray | None:
        """Rows in the order in which they are inserted, int64 (n,); None for their own order."""
        return None if self.seed == 0 else np.random.default_rng(self.seed).permutation(n)

    @property
    def prunes_links(self) -> bool:
        """Whether links are pruned on the lowest level: FAISS does so from 2 M candidates on."""
        return self.backend != "faiss" or self.ef_construction >= 2 * self.M

    @property
    def parameters(self) -> dict[str, str | int]:
        return asdict(self)

    @property
    def _settings(self) -> str:
        return f"{self.backend}_M{self.M}_efc{self.ef_construction}"

    @property
    def _suffix(self) -> str:
        return f"_seed{self.seed}" if self.seed else ""


@dataclass(frozen=True)
class SearchConfig:
    """A graph and `ef_search`, the candidates kept in a search of it.

    That is a number; ``k``, ``2k``, ``0.25k``, ... for as many as the list searched for is long, or
    twice or a quarter as many, rounded down, but at least 2; or ``k,50``, ``2k,50``, ... for the
    same, but at least 50. Anything else, or a backend that is none, is an `InputError`.
    """

    graph: GraphConfig
    ef_search: str

    def __post_init__(self) -> None:
        if self.graph.backend not in BACKENDS or not _EF_SEARCH.fullmatch(self.ef_search):
            raise InputError(
                f"{self.graph.backend}:{self.ef_search} is no run: write BACKEND:EF, with BACKEND "
                f"one of {', '.join(BACKENDS)} and EF a whole number, k, a multiple like 2k or "
                "0.25k, or k,50 for k but at least 50"
            )

    @classmethod
    def parse(
        cls, text: str, M: int, ef_construction: int, seed: int = 0, build_threads: int = 1
    ) -> Self:
        """The search that ``faiss:50`` or ``hnswlib:k,50`` asks for, in a graph of these settings.

        After the policy of efSearch ``,ef_construction=400`` can follow, in place of the argument.
        What stands between commas and is no setting belongs to the policy. An `InputError` says
        which backend, policy or setting there is not.
        """
        backend, _, rest = text.partition(":")
        policy, *pieces = rest.split(",")
        while pieces and "=" not in pieces[0]:
            policy += f",{pieces.pop(0)}"
        for piece in pieces:
            name, _, value = piece.partition("=")
            if name != "ef_construction" or not re.fullmatch("[1-9][0-9]{0,6}", value):
                raise InputError(
                    f"{text} is no run: what follows efSearch can be ef_construction=400, or "
                    f"another whole number, and not {piece}"
                )
            ef_construction = int(value)
        return cls(GraphConfig(backend, M, ef_construction, seed, build_threads), policy)

    @property
    def name(self) -> str:
        """For instance ``faiss_M32_efc200_ef50``, or ``hnswlib_M32_efc200_efkmin50_seed7``."""
        policy = self.ef_search.replace(",", "min")
        return f"{self.graph._settings}_ef{policy}{self.graph._suffix}"

    @property
    def parameters(self) -> dict[str, str | int]:
        ef_search = self.ef_search if "k" in self.ef_search else int(self.ef_search)
        return {**self.graph.parameters, "ef_search": ef_search}

    @property
    def least_ef(self) -> int:
        """The efSearch that is set at least, however short the list."""
        number, _, least = _EF_SEARCH.fullmatch(self.ef_search).groups()
        return int(number or least or 2)

    def ef(self, length: int) -> int:
        """The efSearch that is set where k stands for some length."""
        number, multiple, _ = _EF_SEARCH.fullmatch(self.ef_search).groups()
        # A fraction, since 0.29 of 100 would be 28 in floating point.
        return max(0 if number else int(Fraction(multiple or 1) * length), self.least_ef)

    def effort(self, lengths: Iterable[int]) -> int:
        """About how long searches for lists of some lengths take, in no unit: candidates kept."""
        return sum(self.ef(length) + length for length in lengths)

    def effective_ef(self, length: int, ef: int) -> dict[str, int]:
        """What the library makes of an efSearch when a list of some length is searched for.

        It keeps as many ``candidates``, and stops when so many (``stops_after``) are nearer than
        the next one to visit.
        """
        kept = max(ef, length)
        stop = ef if self.graph.backend == "faiss" else kept
        return {"list_length": length, "ef_search": ef, "candidates": kept, "stops_after": stop}
