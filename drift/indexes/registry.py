"""The libraries whose indexes can be searched, and runs on them as they are written in a shell."""

import re
from typing import Any

import numpy as np

from drift import InputError
from drift.indexes.base import Index
from drift.indexes.faiss_index import Faiss
from drift.indexes.hnswlib_hnsw import HnswlibHnsw
from drift.indexes.pgvector_hnsw import PgvectorHnsw
from drift.indexes.run import FAISS_NAMES, Policy, Run
from drift.indexes.usearch_hnsw import UsearchHnsw

LIBRARIES: dict[str, type[Index]] = {
    "faiss": Faiss,
    "hnswlib": HnswlibHnsw,
    "usearch": UsearchHnsw,
    "pgvector": PgvectorHnsw,
}
EF = (
    "in place of 50 another whole number, k, 2k, 0.25k, k,50 for k but at least 50, 10..800 for a "
    "series, or overlap=0.99, recall=99%, lid=0.01 for what reaches that"
)
RUNS = (
    f"write one of {', '.join(LIBRARIES)} and its efSearch, as faiss:50, or an index of FAISS and "
    "its settings by name, as IVF256,Flat:nprobe=8; what another system returned is --lists NAME "
    "IDS.npy"
)
LONGEST_SERIES = 10  # runs
SERIES = re.compile(r"(.*[:=,])([1-9][0-9]{0,8})\.\.([1-9][0-9]{0,8})((?:,.*)?)")
_SETTING = re.compile("[A-Za-z][A-Za-z0-9_]*")
# Of lists of another system: no name of a folder that is there for something else.
_NAME = re.compile(
    rf"(?!graphs$|exact$|.*_seed[0-9]+$|(?:{'|'.join(LIBRARIES)})_M[0-9])"
    "[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
)


def index_class(run: Run) -> type[Index]:
    """The class of the index that a run searches."""
    return LIBRARIES[run.library]


def expand_series(text: str) -> list[str]:
    """Of ``faiss:10..800`` the text of each run of the series; of a single run its own.

    They are at most ten, evenly on a logarithmic scale, the first and the last among them.
    """
    if ".." not in text.partition(":")[2]:
        return [text]
    match = SERIES.fullmatch(text)
    first, last = (int(number) for number in match.group(2, 3)) if match else (0, 0)
    if first >= last or text.count("..") > 1:
        raise InputError(
            f"{text} is no series: it is of two whole numbers from 1 on, the smaller one first, as "
            "faiss:10..800 or IVF256,Flat:nprobe=1..64"
        )
    numbers = np.unique(np.rint(np.geomspace(first, last, LONGEST_SERIES)).astype(int))
    return [f"{match[1]}{number}{match[4]}" for number in numbers]


def parse_imported(text: str) -> Run:
    """The run that lists of another system are: ``milvus``, ``qdrant:ef=64``."""
    name, colon, rest = text.partition(":")
    search = _split(rest, text) if colon else {}
    search = {setting: Policy.parse(value) for setting, value in search.items()}
    for setting, policy in search.items():
        if not _SETTING.fullmatch(setting) or policy is None or policy.number is None:
            raise InputError(f"--lists {text}: a setting is a number by its name, as qdrant:ef=64")
    run = Run(name, {}, search)
    if not _NAME.fullmatch(run.name):
        raise InputError(
            f"--lists {text}: a name is of letters, digits, dots, minus and underscores, and none "
            "that a run of an index could have"
        )
    return run


def parse_run(
    text: str, M: int = 32, ef_construction: int = 200, seed: int = 0, build_threads: int = 1
) -> Run:
    """The run that ``faiss:50``, ``hnswlib:k,50`` or ``IVF256,Flat:nprobe=8`` asks for.

    An HNSW graph is built with these settings; after the policy of efSearch
    ``,ef_construction=400`` can follow, in place of the argument. They do not apply to a factory
    string of FAISS. An `InputError` says which library, policy or setting there is not.
    """
    library, _, rest = text.partition(":")
    if library in LIBRARIES:
        build, search = _parse_hnsw(text, library, rest)
        build = {"M": M, "ef_construction": ef_construction, **build}
    else:
        build, search = _parse_factory(text)
        library = "faiss"
    run = Run(library, build | {"threads": build_threads}, search, seed)
    if sum(policy.criterion is not None for policy in run.policies.values()) > 1:
        raise InputError(f"{run.name}: only one setting can be looked for at a time")
    return run


def _parse_hnsw(text: str, library: str, rest: str) -> tuple[dict[str, int], dict[str, Any]]:
    settings = _split(f"ef_search={rest}", text)
    ef, build, options = settings.pop("ef_search"), {}, LIBRARIES[library].options
    if "ef_construction" in settings:
        build["ef_construction"] = _whole(text, "ef_construction", settings.pop("ef_construction"))
    policy = Policy.parse(ef)
    if policy is None or policy.number == 0 or isinstance(policy.number, float):
        raise InputError(f"{library}:{ef} is no run: write {library}:50, or {EF}")
    for name, value in settings.items():
        if value not in options.get(name, ()):
            known = [f" or {option}={'|'.join(words)}" for option, words in options.items()]
            raise InputError(
                f"{library} has no setting {name}={value}: after efSearch it takes "
                f"ef_construction=400{''.join(known)}; --m, --k and --seed are of all runs"
            )
    return build, {"ef_search": policy, **settings}


def _parse_factory(text: str) -> tuple[dict[str, int | str], dict[str, Policy]]:
    factory, colon, rest = text.partition(":")
    settings = _split(rest, text) if colon else {}
    policies = {own: Policy.parse(value) for own, value in settings.items()}
    is_foreign = re.search(r"^([^A-Z]|$)|/|\.[A-Za-z]\w*$", factory) or factory.lower() in LIBRARIES
    if is_foreign or "" in policies or None in policies.values():
        raise InputError(f"{text} is no run: {RUNS}")
    build, search = {"factory": factory}, {}
    generic = {own: name for name, own in FAISS_NAMES.items()}
    for own, policy in policies.items():
        if own.endswith("efConstruction"):
            build[generic.get(own, own)] = _whole(text, own, settings[own])
        else:
            search[generic.get(own, own)] = policy
    return build, search


def _whole(text: str, name: str, value: str) -> int:
    if not re.fullmatch("[1-9][0-9]{0,6}", value):
        raise InputError(f"{text}: {name} must be a whole number, not {value}")
    return int(value)


def _split(settings: str, text: str) -> dict[str, str]:
    """Values of ``nprobe=8,efSearch=k,50`` by name: a piece without ``=`` continues a value."""
    values: dict[str, str] = {}
    name = ""
    for i, piece in enumerate(settings.split(",")):
        first, equals, value = piece.partition("=")
        if i and not equals:
            values[name] += f",{piece}"
        elif first in values:
            raise InputError(f"{text}: {first} is there twice")
        else:
            name, values[first] = first, value
    return values
