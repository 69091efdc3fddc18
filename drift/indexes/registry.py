"""The libraries whose indexes can be searched, and runs on them as they are written in a shell."""

import difflib
import re
from typing import Any

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
    "efSearch is a whole number from 1 on, k, 2k, 0.25k, k,50 for k but at least 50, overlap=0.99, "
    "recall=0.99 or lid=0.01"
)
TARGETS = {"overlap": 0.99, "recall": 0.99, "lid": 0.01}
PATH = r"/|\.[A-Za-z]\w*$"  # in what stands before the first colon
OF_ALL_RUNS = {"m": "--m", "seed": "--seed", "k": "--k", "build_threads": "--build-threads"}


def index_class(run: Run) -> type[Index]:
    """The class of the index that a run searches."""
    return LIBRARIES[run.library]


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
    if not _is_ef(policy := Policy.parse(ef)):
        is_target = ef.partition("=")[0] in TARGETS
        reason = "a target is more than 0 and less than 1 (or 100 %)" if is_target else EF
        raise InputError(f"{library}:{ef} is no run: {reason}: write {library}:{_nearest_ef(ef)}")
    for name, value in settings.items():
        if (flag := OF_ALL_RUNS.get(name.lower())) is not None:
            raise InputError(
                f"{text} is no run: {name} is set for all runs: write --runs {library}:{ef} {flag} "
                f"{value}"
            )
        if value not in options.get(name, ()):
            known = [f" or {option}={'|'.join(words)}" for option, words in options.items()]
            raise InputError(
                f"{library} has no setting {name}={value}: after efSearch it takes "
                f"ef_construction=400{''.join(known)}"
            )
    return build, {"ef_search": policy, **settings}


def _parse_factory(text: str) -> tuple[dict[str, int | str], dict[str, Policy]]:
    factory, colon, rest = text.partition(":")
    settings = _split(rest, text) if colon else {}
    policies = {own: Policy.parse(value) for own, value in settings.items()}
    is_foreign = re.search(f"^([^A-Z]|$)|{PATH}", factory) or factory.lower() in LIBRARIES
    if is_foreign or "" in policies or None in policies.values():
        raise InputError(f"{text} is no run: {_nearest_run(factory, rest)}")
    build, search = {"factory": factory}, {}
    generic = {own: name for name, own in FAISS_NAMES.items()}
    for own, policy in policies.items():
        if own.endswith("efConstruction"):
            build[generic.get(own, own)] = _whole(text, own, settings[own])
        else:
            search[generic.get(own, own)] = policy
    return build, search


def _is_ef(policy: Policy | None) -> bool:
    return policy is not None and policy.number != 0 and not isinstance(policy.number, float)


def _nearest_ef(text: str) -> str:
    """An efSearch that may have been meant."""
    text = re.sub(r"\s|ef_?(search)?=", "", text.lower())
    name, _, _ = text.partition("=")
    number = float(match[0]) if (match := re.search(r"[0-9]*\.?[0-9]+(e[0-9])?", text)) else 0.0
    if name in TARGETS:
        guesses = [f"{name}={number:g}{'%' if number > 1 else ''}", f"{name}={TARGETS[name]}"]
    elif "k" in text:
        guesses = [text, f"{number:g}k", "k"]
    else:
        guesses = [text, f"{number:.0f}", "50"]
    return next(guess for guess in guesses if _is_ef(Policy.parse(guess)))


def _nearest_run(head: str, rest: str) -> str:
    """Why something is neither a library's run nor an index of FAISS, and what to write."""
    close = difflib.get_close_matches(head.lower(), LIBRARIES, 1, 0.7)
    if re.search(PATH, head):
        return "the index in a file is not read: search it, and give --lists NAME IDS.npy"
    if close:
        return f"there is no {head}: write {close[0]}:{_nearest_ef(rest or '50')}"
    if _is_ef(Policy.parse(head or rest)):
        return f"it has no library: write faiss:{head or rest}"
    if re.match("(ivf|hnsw|nsg|o?pq|pca|sq|flat)[0-9,]", head.lower()):
        value = rest if _is_ef(Policy.parse(rest)) else 50
        setting = "efSearch" if "hnsw" in head.lower() else "nprobe"
        written = head if head[0].isupper() else "IVF256,Flat"
        return f"write an index of FAISS and its settings, by name, as {written}:{setting}={value}"
    return (
        f"{head or 'nothing'} is none of {', '.join(LIBRARIES)} and no index of FAISS like "
        f"IVF256,Flat:nprobe=8; what another system returned is --lists {head or 'NAME'} IDS.npy"
    )


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
