"""How an index is built and searched: names and numbers alone, no library."""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np

from drift import InputError
from drift.indexes.policies import Policy, Target, Value

PGVECTOR = "pgvector"
BACKENDS = ("faiss", "hnswlib", "usearch", PGVECTOR)
OPTIONS = {PGVECTOR: {"iterative_scan": ("off", "relaxed_order", "strict_order")}}
# Settings of a factory string that are of the graph, and not of a search in it.
BUILD_SETTINGS = ("efConstruction", "quantizer_efConstruction")


class _Named:
    """What the two ways of saying how an index is built have in common."""

    seed: int
    settings_name: str

    @property
    def name(self) -> str:
        """For instance ``faiss_M32_efc200``, or ``hnswlib_M32_efc200_seed7``."""
        return f"{self.settings_name}{self.suffix}"

    @property
    def suffix(self) -> str:
        return f"_seed{self.seed}" if self.seed else ""

    def insertion_order(self, n: int) -> np.ndarray | None:
        """Rows in the order in which they are inserted, int64 (n,); None for their own order."""
        return None if self.seed == 0 else np.random.default_rng(self.seed).permutation(n)


@dataclass(frozen=True)
class GraphConfig(_Named):
    """How an HNSW graph is built."""

    backend: str  # of `BACKENDS`
    M: int  # links of a node on every level but the lowest, which has twice as many
    ef_construction: int  # candidates kept while a node's neighbors are looked for
    seed: int = 0  # of the order in which the rows are inserted; 0: as they are
    build_threads: int = 1  # with more than one the graph depends on how these interleave

    @property
    def least_ef_construction(self) -> int | None:
        """From which on links are pruned on the lowest level, where this one is below that."""
        least = 2 * self.M
        return least if self.backend == "faiss" and self.ef_construction < least else None

    @property
    def parameters(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def settings_name(self) -> str:
        return f"{self.backend}_M{self.M}_efc{self.ef_construction}"


@dataclass(frozen=True)
class FactoryConfig(_Named):
    """How an index of FAISS is built from a factory string, ``IVF256,Flat`` for instance."""

    factory: str
    build_settings: tuple[tuple[str, int], ...] = ()  # by names of FAISS's ``ParameterSpace``
    seed: int = 0
    build_threads: int = 1

    backend = "faiss"

    @property
    def least_ef_construction(self) -> int | None:
        """As in `GraphConfig`, for an HNSW graph; if not set, efConstruction is 40."""
        found = re.match("HNSW([0-9]*)", self.factory)
        least = 2 * int(found[1] or 32) if found else 0
        return least if dict(self.build_settings).get("efConstruction", 40) < least else None

    @property
    def parameters(self) -> dict[str, Any]:
        settings = {"build_settings": dict(self.build_settings)} if self.build_settings else {}
        seed = {"seed": self.seed, "build_threads": self.build_threads}
        return {"backend": self.backend, "factory": self.factory, **settings, **seed}

    @property
    def settings_name(self) -> str:
        settings = (f"_{name}_{value}" for name, value in self.build_settings)
        return as_filename(self.factory) + "".join(settings)


IndexConfig = GraphConfig | FactoryConfig


@dataclass(frozen=True)
class SearchConfig:
    """An index, and the settings of a search in it, as texts by their names.

    Those of an HNSW graph begin with ``ef_search``, the candidates kept in a search, a `Policy`.
    Those of a factory string are policies by the names of FAISS's ``ParameterSpace``. An
    `InputError` says what is none.
    """

    index: IndexConfig
    settings: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        if isinstance(self.index, GraphConfig):
            self._check_graph(*self.settings)
        if len([policy for policy in self.policies.values() if policy.target]) > 1:
            raise InputError(f"{self.name}: only one setting can be looked for at a time")

    def _check_graph(self, ef_search: tuple[str, str], *options: tuple[str, str]) -> None:
        backend, ef = self.index.backend, ef_search[1]
        is_policy = Policy.is_one(ef) and ef != "0" and not isinstance(Policy(ef).number, float)
        if backend not in BACKENDS or not is_policy:
            raise InputError(
                f"{backend}:{ef} is no run: write BACKEND:EF, with BACKEND one of "
                f"{', '.join(BACKENDS)} and EF a whole number, k, a multiple like 2k or 0.25k, "
                "k,50 for k but at least 50, overlap=0.99 or lid=0.01; or an index of FAISS "
                "as IVF256,Flat:nprobe=8"
            )
        known = OPTIONS.get(backend, {})
        for name, text in options:
            if text not in known.get(name, ()):
                others = [f"{option}={'|'.join(texts)}" for option, texts in known.items()]
                raise InputError(
                    f"{backend} has no setting {name}={text}: after efSearch it takes "
                    f"{' or '.join(['ef_construction=400', *others])}"
                )

    @classmethod
    def parse(
        cls, text: str, M: int, ef_construction: int, seed: int = 0, build_threads: int = 1
    ) -> Self:
        """The search that ``faiss:50``, ``hnswlib:k,50`` or ``IVF256,Flat:nprobe=8`` asks for.

        In a graph of these settings; after the policy of efSearch ``,ef_construction=400`` can
        follow, in place of the argument. What stands between commas and is no setting belongs to
        the policy before it. They do not apply to a factory string. An `InputError` says which
        backend, policy or setting there is not.
        """
        backend, colon, rest = text.partition(":")
        order = (seed, build_threads)
        if backend not in BACKENDS:
            return cls._of_factory(
                text, backend, _split_settings(rest, text) if colon else [], order
            )
        ef_search, *pieces = _split_settings(f"ef_search={rest}", text)
        options = []
        for name, value in pieces:
            if name != "ef_construction":
                options.append((name, value))
            elif not re.fullmatch("[1-9][0-9]{0,6}", value):
                raise InputError(f"{text}: ef_construction must be a whole number, not {value}")
            else:
                ef_construction = int(value)
        return cls(GraphConfig(backend, M, ef_construction, *order), (ef_search, *options))

    @classmethod
    def _of_factory(
        cls, text: str, factory: str, pieces: list[tuple[str, str]], order: tuple[int, int]
    ) -> Self:
        built, searched = [], []
        for name, value in pieces:
            if not name or not Policy.is_one(value):
                raise InputError(
                    f"{text} is no run: write BACKEND:EF, with BACKEND one of {', '.join(BACKENDS)}"
                    ", or an index of FAISS and its settings, IVF256,Flat:nprobe=8"
                )
            if name in BUILD_SETTINGS:
                if not isinstance(number := Policy(value).number, int) or number == 0:
                    raise InputError(f"{text}: {name} must be a whole number, not {value}")
                built.append((name, int(value)))
            else:
                searched.append((name, value))
        return cls(FactoryConfig(factory, tuple(built), *order), tuple(searched))

    @cached_property
    def policies(self) -> dict[str, Policy]:
        """The settings that are numbers, in the end, by name."""
        return {name: Policy(text) for name, text in self.settings if Policy.is_one(text)}

    @property
    def target(self) -> tuple[str, Target] | None:
        """The setting whose value is yet to be found, and what it has to reach."""
        targets = ((name, policy.target) for name, policy in self.policies.items())
        return next(((name, target) for name, target in targets if target), None)

    @property
    def name(self) -> str:
        """For instance ``faiss_M32_efc200_ef50``, or ``hnswlib_M32_efc200_efkmin50_seed7``."""
        if isinstance(self.index, FactoryConfig):
            settings = (f"_{name}_{text}" for name, text in self.settings)
            return as_filename(self.index.settings_name + "".join(settings)) + self.index.suffix
        (_, ef), *options = self.settings
        policy = ef.replace(",", "min").replace("=", "")
        settings = "".join(f"_{name}_{text}" for name, text in options)
        return f"{self.index.settings_name}_ef{policy}{settings}{self.index.suffix}"

    @property
    def parameters(self) -> dict[str, Any]:
        """What decides the lists, for the manifest."""
        if isinstance(self.index, FactoryConfig):
            ef = self.policies.get("efSearch")
            settings = {"ef_search": ef and _plain(ef.text), "settings": dict(self.settings)}
        else:
            settings = {name: _plain(text) for name, text in self.settings}
        return {**self.index.parameters, **settings}

    def values(self, length: int, found: int | None = None) -> dict[str, Value]:
        """The settings for lists of some length; `found` is the one that was to be found."""
        values = dict(self.settings)
        for name, policy in self.policies.items():
            values[name] = found if policy.target else policy.value(length)
        return values

    def shares_search(self, list_length: int, policy_length: int) -> bool:
        """Whether a list comes out of the search for a longer one, as its beginning.

        In an HNSW graph that is so as long as no list is longer than efSearch, and that is the same
        for all.
        """
        if isinstance(self.index, FactoryConfig) or self.target:
            return False
        ef = self.policies["ef_search"]
        return list_length <= ef.value(policy_length) == ef.least

    def effort(self, lengths: Iterable[int]) -> int | None:
        """About how long searches for lists of some lengths take, in no unit: candidates kept.

        None where that is not known in advance.
        """
        if isinstance(self.index, FactoryConfig) or self.target:
            return None
        ef = self.policies["ef_search"]
        return sum(ef.value(length) + length for length in lengths)

    def effective_ef(self, length: int, ef: int) -> dict[str, int]:
        """What the library makes of an efSearch when a list of some length is searched for.

        It keeps as many ``candidates``, and stops when so many (``stops_after``) are nearer than
        the next one to visit. pgvector keeps efSearch of them and returns no more, unless its
        ``iterative_scan`` goes on from there.
        """
        kept = max(ef, length)
        stop = ef if self.index.backend in ("faiss", PGVECTOR) else kept
        if self.index.backend == PGVECTOR:
            is_iterative = dict(self.settings).get("iterative_scan", "off") != "off"
            kept = stop = kept if is_iterative else ef
        return {"list_length": length, "ef_search": ef, "candidates": kept, "stops_after": stop}


def as_filename(text: str) -> str:
    """The same with an underscore for all but letters, digits, dots and minus."""
    return re.sub(r"[^A-Za-z0-9.-]", "_", text)


def _split_settings(settings: str, run: str) -> list[tuple[str, str]]:
    """Names and values of ``nprobe=8,efSearch=k,50``: a piece without ``=`` continues a value."""
    pieces: list[tuple[str, str]] = []
    for i, piece in enumerate(settings.split(",")):
        name, equals, value = piece.partition("=")
        if equals or not i:
            pieces.append((name, value))
        else:
            pieces[-1] = (pieces[-1][0], f"{pieces[-1][1]},{piece}")
    names = [name for name, _ in pieces]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{run}: {twice[0]} is there twice")
    return pieces


def _plain(text: str) -> int | str:
    """A whole number as such, in the manifest."""
    return int(text) if text.isdigit() else text
