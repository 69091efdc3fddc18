"""How a graph is built and searched: names and numbers alone, neither library."""

import re
from dataclasses import asdict, dataclass
from typing import Self

import numpy as np

from drift import InputError

BACKENDS = ("faiss", "hnswlib")
# A number, or a multiple of k with or without a least number.
_EF_SEARCH = re.compile("([1-9][0-9]{0,8})|([2-9]|[1-9][0-9]{1,2})?k(?:,([1-9][0-9]{0,8}))?")


@dataclass(frozen=True)
class GraphConfig:
    """How an HNSW graph is built.

    Attributes
    ----------
    backend : str
        ``faiss`` or ``hnswlib``.
    M : int
        Links of a node on every level but the lowest, which has twice as many.
    ef_construction : int
        Candidates kept while a node's neighbors are looked for.
    seed : int
        Seed of the order in which the rows are inserted; 0: as they are.
    build_threads : int
        With more than one the graph depends on how the threads interleave.
    """

    backend: str
    M: int
    ef_construction: int
    seed: int = 0
    build_threads: int = 1

    @property
    def name(self) -> str:
        """For instance ``faiss_M32_efc200``, or ``hnswlib_M32_efc200_seed7``."""
        return f"{self._settings}{self._suffix}"

    def insertion_order(self, n: int) -> np.ndarray | None:
        """Rows in the order in which they are inserted, int64 (n,); None for their own order."""
        return None if self.seed == 0 else np.random.default_rng(self.seed).permutation(n)

    @property
    def parameters(self) -> dict[str, str | int]:
        """All of it by name, as a manifest records it."""
        return asdict(self)

    @property
    def _settings(self) -> str:
        return f"{self.backend}_M{self.M}_efc{self.ef_construction}"

    @property
    def _suffix(self) -> str:
        return f"_seed{self.seed}" if self.seed else ""


@dataclass(frozen=True)
class SearchConfig:
    """A graph and the breadth of the search in it.

    Attributes
    ----------
    graph : GraphConfig
        The graph.
    ef_search : str
        Candidates kept in a search: a number; ``k``, ``2k``, ... for as many as the list searched
        for is long, or twice as many; or ``k,50``, ``2k,50``, ... for the same, but at least 50.

    Raises
    ------
    InputError
        When there is no such backend, or `ef_search` is not of this form.
    """

    graph: GraphConfig
    ef_search: str

    def __post_init__(self) -> None:
        if self.graph.backend not in BACKENDS or not _EF_SEARCH.fullmatch(self.ef_search):
            raise InputError(
                f"{self.graph.backend}:{self.ef_search} is no run: write BACKEND:EF, with BACKEND "
                f"one of {', '.join(BACKENDS)} and EF a whole number, k, a multiple like 2k, or "
                "k,50 for k but at least 50"
            )

    @classmethod
    def parse(
        cls, text: str, M: int, ef_construction: int, seed: int = 0, build_threads: int = 1
    ) -> Self:
        """The search that ``faiss:50`` or ``hnswlib:k,50`` asks for, in a graph of these settings.

        After the policy of efSearch settings can follow, as ``,name=value``. What stands between
        commas and is no setting belongs to the policy. Neither backend has a setting so far.

        Raises
        ------
        InputError
            When there is no such backend, policy or setting.
        """
        backend, _, rest = text.partition(":")
        policy, *pieces = rest.split(",")
        while pieces and "=" not in pieces[0]:
            policy += f",{pieces.pop(0)}"
        config = cls(GraphConfig(backend, M, ef_construction, seed, build_threads), policy)
        if pieces:
            raise InputError(
                f"{text} is no run: {backend} has no setting {pieces[0].partition('=')[0]!r} that "
                "could follow efSearch"
            )
        return config

    @property
    def name(self) -> str:
        """For instance ``faiss_M32_efc200_ef50``, or ``hnswlib_M32_efc200_efkmin50_seed7``."""
        policy = self.ef_search.replace(",", "min")
        return f"{self.graph._settings}_ef{policy}{self.graph._suffix}"

    @property
    def follows_k(self) -> bool:
        """Whether efSearch depends on the length of the list."""
        return "k" in self.ef_search

    @property
    def parameters(self) -> dict[str, str | int]:
        """All of it by name, as a manifest records it."""
        ef_search = self.ef_search if self.follows_k else int(self.ef_search)
        return {**self.graph.parameters, "ef_search": ef_search}

    @property
    def least_ef(self) -> int:
        """The efSearch that is set at least, however short the list; 0 where none is named."""
        number, _, least = _EF_SEARCH.fullmatch(self.ef_search).groups()
        return int(number or least or 0)

    def ef(self, length: int) -> int:
        """The efSearch that is set when a list of some length is searched for."""
        number, multiple, _ = _EF_SEARCH.fullmatch(self.ef_search).groups()
        return self.least_ef if number else max(int(multiple or 1) * length, self.least_ef)

    def effective_ef(self, length: int) -> dict[str, int]:
        """What the library makes of it, by its own rule.

        Returns
        -------
        dict
            ``list_length``, the neighbors asked for; ``ef_search``, what is set; ``candidates``,
            how many are kept; ``stops_after``, how many of them must be nearer than the next one
            to visit for the search to stop.
        """
        ef = self.ef(length)
        stop = ef if self.graph.backend == "faiss" else max(ef, length)
        return {
            "list_length": length,
            "ef_search": ef,
            "candidates": max(ef, length),
            "stops_after": stop,
        }
