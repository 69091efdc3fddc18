"""One run of the study: a library, how its index is built, and how that is searched.

Names and numbers alone: no library is loaded here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Self

import numpy as np

from drift import InputError

Value = int | float | str
_POLICY = re.compile(
    r"(?P<number>(?:0|[1-9][0-9]{0,8})(?:\.[0-9]{1,6})?)"
    r"|(?!1k)(?P<multiple>[1-9][0-9]{0,2}|(?:0|[1-9][0-9]{0,2})\.[0-9]{0,3}[1-9])?k"
    r"(?:,(?P<least>[1-9][0-9]{0,8}))?"
    r"|(?P<criterion>overlap|recall|lid)="
    r"(?P<level>0\.[0-9]{0,5}[1-9]|(?![0.]+%)[0-9]{1,2}(?:\.[0-9]{1,4})?%)"
)
# FAISS's own names of the settings that every HNSW graph has, and its defaults.
FAISS_NAMES = {"ef_construction": "efConstruction", "ef_search": "efSearch"}
_FAISS_DEFAULTS = {"M": 32, "ef_construction": 40, "ef_search": 16}


@dataclass(frozen=True)
class Policy:
    """How a search setting depends on the length of the list that is asked for.

    A `number`; or a `multiple` of the length, rounded down, but at least 2, or `least`; or the
    smallest value that attains a target: by its `criterion` a `level` of ``overlap`` or ``recall``
    at least, or a relative error of ``lid`` at most.
    """

    number: int | float | None = None
    multiple: float | None = None
    least: int | None = None
    criterion: str | None = None
    level: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """What ``50``, ``k``, ``0.25k``, ``k,50``, ``overlap=0.99`` say; None for anything else.

        ``overlap=99%`` is the same as ``overlap=0.99``.
        """
        if (match := _POLICY.fullmatch(text)) is None:
            return None
        number, multiple, least, criterion, level = match.groups()
        if number:
            return cls(float(number) if "." in number else int(number))
        if criterion:
            share = Fraction(level.rstrip("%")) / (100 if level.endswith("%") else 1)
            return cls(criterion=criterion, level=float(share))
        return cls(multiple=float(multiple or 1), least=int(least) if least else None)

    def __str__(self) -> str:
        """What `parse` makes this policy of."""
        if self.number is not None:
            return _plain(self.number)
        if self.criterion:
            return f"{self.criterion}={_plain(self.level)}"
        least = f",{self.least}" if self.least else ""
        return f"{'' if self.multiple == 1 else _plain(self.multiple)}k{least}"

    @property
    def label(self) -> str:
        """The same in words: ``k, at least 50``; ``for overlap 0.99``."""
        if self.criterion:
            return f"for {self.criterion} {_plain(self.level)}"
        return str(self).replace(",", ", at least ")

    @property
    def smallest(self) -> int | float:
        """The value for the shortest lists."""
        return (self.least or 2) if self.number is None else self.number

    def value(self, length: int) -> int | float:
        """The value for lists of some length, of a policy without a target."""
        if self.number is not None:
            return self.number
        # A fraction, since 0.29 of 100 would be 28 in floating point.
        return max(int(Fraction(_plain(self.multiple)) * length), self.smallest)

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Run:
    """A library, how its index is built, and how that is searched."""

    library: str  # of `drift.indexes.registry.LIBRARIES`, or the name of imported lists
    # ``M`` and ``ef_construction`` of an HNSW graph; ``factory`` of an index by FAISS's factory
    # string, and what was set of it; ``threads`` that build it.
    build: Mapping[str, int | str] = field(default_factory=dict)
    # Policies, ``ef_search`` of an HNSW graph first, and words, by name.
    search: Mapping[str, Policy | str] = field(default_factory=dict)
    seed: int = 0  # of the order in which rows are inserted; 0: as they are

    @property
    def factory(self) -> str | None:
        """The factory string of FAISS that it was asked for by."""
        return self.build.get("factory")

    @property
    def name(self) -> str:
        """Of the folder of its lists."""
        return self.family + self._seed_suffix

    @property
    def family(self) -> str:
        """The name without the seed: ``faiss_M32_efc200_ef50``, ``IVF256_Flat_nprobe_8``."""
        return self._index_family + self._in_name(self.search)

    @property
    def index_name(self) -> str:
        """Of the file of its index: ``faiss_M32_efc200``, ``hnswlib_M32_efc200_seed7``."""
        return self._index_family + self._seed_suffix

    @property
    def _index_family(self) -> str:
        if self.factory:
            return as_filename(self.factory) + self._in_name(self.factory_settings)
        return f"{self.library}_M{self.M}_efc{self.ef_construction}" if self.M else self.library

    @property
    def _seed_suffix(self) -> str:
        return f"_seed{self.seed}" if self.seed else ""

    @property
    def factory_settings(self) -> dict[str, int | str]:
        settings = self.build.items() if self.factory else ()
        return {name: value for name, value in settings if name not in ("factory", "threads")}

    def _in_name(self, settings: Mapping[str, Any]) -> str:
        if self.factory:
            parts = (f"_{FAISS_NAMES.get(name, name)}_{settings[name]}" for name in settings)
            return as_filename("".join(parts))
        text = "".join(f"_{name}_{value}" for name, value in settings.items())
        if self.build:
            text = text.replace("_ef_search_", "_ef").replace(",", "min")
        return text.replace("=", "")

    @property
    def label(self) -> str:
        """What to call it, as it is written: ``faiss k,50``, ``IVF256,Flat nprobe=8``."""
        settings = {**self.search, **self.factory_settings}
        texts = [f"{FAISS_NAMES.get(name, name)}={value}" for name, value in settings.items()]
        text = ",".join(texts)
        if self.build and not self.factory:  # a graph, whose first setting is efSearch
            text = text.removeprefix("efSearch=")
        return f"{self.factory or self.library} {text}".strip()

    @property
    def in_title(self) -> str:
        """The same in words: ``FAISS at efSearch k, at least 50``."""
        return " at ".join(filter(None, [self._called, " and ".join(self._search_in_words)]))

    @property
    def description(self) -> str:
        """Everything in words: ``FAISS HNSW, M 32, efConstruction 200, efSearch 50``."""
        what, built = f"lists of {self.library}", dict(self.factory_settings)
        if self.factory:
            what = f"FAISS {self.factory}"
        elif self.build:
            what = f"{self._called} HNSW"
            built = {"M": self.M, "ef_construction": self.ef_construction}
        built |= {"seed": self.seed} if self.seed else {}
        texts = [f"{FAISS_NAMES.get(name, name)} {value}" for name, value in built.items()]
        return ", ".join([what, *texts, *self._search_in_words])

    @property
    def _called(self) -> str:
        return self.factory or ("FAISS" if self.library == "faiss" else self.library)

    @property
    def _search_in_words(self) -> list[str]:
        labels = {**self.search, **{name: one.label for name, one in self.policies.items()}}
        return [f"{FAISS_NAMES.get(name, name)} {label}" for name, label in labels.items()]

    @property
    def series_key(self) -> tuple[str, int | float] | None:
        """What its name has in common with runs of another number of the search, and its own.

        None where the search has not exactly one number.
        """
        numbers = {name: policy.number for name, policy in self.policies.items()}
        numbers = {name: number for name, number in numbers.items() if number is not None}
        if len(numbers) != 1:
            return None
        ((name, number),) = numbers.items()
        return replace(self, search={**self.search, name: "..."}).name, number

    @property
    def M(self) -> int | None:
        """Links of a node, on every level but the lowest, which has twice that.

        None where the index is no HNSW graph: then so are `ef_construction` and `ef_search`.
        """
        if self.factory:
            match = re.search(r"(?:^|,)HNSW(\d*)", self.factory)
            return match and int(match[1] or _FAISS_DEFAULTS["M"])
        return self.build.get("M")

    @property
    def ef_construction(self) -> int | None:
        """Candidates kept while a node's neighbors are looked for."""
        default = _FAISS_DEFAULTS["ef_construction"] if self.M else None
        return self.build.get("ef_construction", default)

    @property
    def ef_search(self) -> Policy | None:
        """Candidates kept in a search."""
        default = Policy(_FAISS_DEFAULTS["ef_search"]) if self.M else None
        return self.search.get("ef_search", default)

    @property
    def policies(self) -> dict[str, Policy]:
        """The settings of the search that are numbers, in the end."""
        return {name: value for name, value in self.search.items() if isinstance(value, Policy)}

    @property
    def target(self) -> tuple[str, Policy] | None:
        """The setting whose value is yet to be chosen, and what it has to attain."""
        return next((item for item in self.policies.items() if item[1].criterion), None)

    def values(self, length: int, chosen: int | None = None) -> dict[str, Value]:
        """The settings for lists of some length; `chosen` is the value of the one with a target."""
        numbers = {
            name: chosen if policy.criterion else policy.value(length)
            for name, policy in self.policies.items()
        }
        return {**self.search, **numbers}

    def insertion_order(self, n: int) -> np.ndarray:
        """Rows in the order in which they are inserted, int64 (n,)."""
        return np.random.default_rng(self.seed).permutation(n) if self.seed else np.arange(n)

    @property
    def parameters(self) -> dict[str, Any]:
        """For the manifest: the run, and beside it what most readers look for."""
        flat = {
            "backend": self.library,
            "factory": self.factory,
            "M": self.M,
            "ef_construction": self.ef_construction,
            "seed": self.seed if self.build else None,
        }
        flat = {name: value for name, value in flat.items() if value is not None}
        ef = self.ef_search
        flat["ef_search"] = ef and (str(ef) if ef.number is None else ef.number)
        return {"run": self.to_json(), **flat}

    def to_json(self) -> dict[str, Any]:
        """Everything `from_json` needs, and the names that follow from it."""
        policies = {name: policy.to_json() for name, policy in self.policies.items()}
        own = {**vars(self), "build": dict(self.build), "search": {**self.search, **policies}}
        return {**own, "name": self.name, "family": self.family}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """The run that `to_json` wrote; InputError for anything else."""
        try:
            search = {
                name: Policy(**value) if isinstance(value, Mapping) else value
                for name, value in content["search"].items()
            }
            run = cls(content["library"], content["build"], search, content["seed"])
            if run.to_json() == content:
                return run
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            pass
        name = content.get("name", "a run")
        raise InputError(f"{name} is not as its manifest says: run 04_hnsw_search.py again")


def as_filename(text: str) -> str:
    """The same with an underscore for all but letters, digits, dots and minus."""
    return re.sub(r"[^A-Za-z0-9.-]", "_", text)


def _plain(number: int | float) -> str:
    """A number without an exponent and without zeros at its end."""
    return f"{number:.6f}".rstrip("0").rstrip(".")
