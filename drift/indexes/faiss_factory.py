"""Indexes of FAISS by their factory strings: inverted lists, quantizers, and what they refine."""

import contextlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

import faiss
import numpy as np

from drift import InputError
from drift.indexes.config import FactoryConfig, SearchConfig
from drift.indexes.faiss_index import FaissIndex, threads
from drift.indexes.policies import Value

# More of these settings is more effort. Those that refine keep so many times k candidates.
REFINE = ("k_factor", "k_factor_rf")
EFFORT = ("efSearch", "nprobe", "search_L", *REFINE)


class FaissFactory(FaissIndex):
    """An index that ``faiss.index_factory`` makes. Methods as in `drift.indexes.base.Index`."""

    is_direct = False  # a flat index, for instance, expands its distances

    def __init__(self, index: faiss.Index, row: np.ndarray | None):
        super().__init__(index, row)
        self.is_compressed = not _keeps_vectors(index)

    @classmethod
    def check(cls, config: SearchConfig, d: int, lengths: Iterable[int]) -> None:
        index = _untrained(config.index, d)
        for length in lengths:
            for name, value in config.values(length, found=1).items():
                is_whole = name in REFINE or isinstance(value, int)
                if name in EFFORT and not (is_whole and value >= 1):
                    kind = "1 or more" if name in REFINE else "a whole number, 1 or more"
                    raise InputError(f"{config.index.factory}: {name} is {kind}, not {value}")
                _set(index, config.index.factory, name, value)
        if config.target and config.target[0] not in EFFORT:
            raise InputError(
                f"{config.target[0]}={config.target[1].criterion}=...: this can be looked for in "
                f"{', '.join(EFFORT)}"
            )

    @classmethod
    def build(cls, embeddings: np.ndarray, config: FactoryConfig) -> Self:
        n, d = embeddings.shape
        index, row = _untrained(config, d), config.insertion_order(n)
        vectors = embeddings if row is None else embeddings[row]
        try:
            # The library advises to train on more vectors, once for each part of a vector.
            with _silent(), threads(config.build_threads):
                index.train(vectors)
                index.add(vectors)
        except RuntimeError as error:
            raise _refusal(f"no index {config.factory} on {n} x {d} vectors", error) from error
        return cls(index, row)

    def search(
        self, points: np.ndarray, length: int, settings: Mapping[str, Value]
    ) -> tuple[np.ndarray, np.ndarray]:
        for name, value in settings.items():
            # More candidates than there are rows would only take memory.
            refined = name in REFINE
            most = self.value_range(name, length)[1] if refined else self._index.ntotal
            _set(self._index, "this index", name, min(value, most))
        # Counters of the whole process, to which a search adds the sums of its threads.
        counters = faiss.cvar.hnsw_stats, faiss.cvar.indexIVF_stats
        for counter in counters:
            counter.reset()
        try:
            squared, ids = self._index.search(points, length)
        except RuntimeError as error:
            raise _refusal(f"no search with {dict(settings)}", error) from error
        self.distance_computations = sum(counter.ndis for counter in counters) or None
        return self._rows(ids), squared

    def value_range(self, setting: str, length: int) -> tuple[int, int]:
        if setting == "nprobe":
            return 1, faiss.extract_index_ivf(self._index).nlist
        n = self._index.ntotal
        return 1, -(-n // length) if setting in REFINE else n

    def statistics(self) -> dict[str, Any]:
        sizes: list[int] = []
        faiss.write_index(
            self._index, faiss.PyCallbackIOWriter(lambda part: sizes.append(len(part)))
        )
        return {"index_bytes": sum(sizes), "compressed": self.is_compressed}


def _untrained(config: FactoryConfig, d: int) -> faiss.Index:
    if re.search(r"(HNSW|NSG)[01](?![0-9])", config.factory):
        raise InputError(f"{config.factory}: FAISS crashes on graphs of fewer than 2 links")
    try:
        index = faiss.index_factory(d, config.factory)
    except RuntimeError as error:
        raise _refusal(f"FAISS has no index {config.factory} of {d} dimensions", error) from error
    if re.search(r"(^|,)LSH", config.factory):
        raise InputError(f"{config.factory}: it has Hamming distances, and no Euclidean ones")
    for name, value in config.build_settings:
        _set(index, config.factory, name, value)
    return index


def _set(index: faiss.Index, name_of_index: str, name: str, value: Value) -> None:
    """Set a parameter of an index."""
    if name == "search_L":  # FAISS's own function does not know this one
        graph = index
        while not isinstance(graph, faiss.IndexNSG):
            inner = getattr(graph, "base_index", None) or getattr(graph, "index", None)
            if inner is None:
                raise InputError(f"{name_of_index} has no setting {name}")
            graph = faiss.downcast_index(inner)
        graph.nsg.search_L = int(value)
        return
    try:
        faiss.ParameterSpace().set_index_parameter(index, name, float(value))
    except RuntimeError as error:
        raise InputError(f"{name_of_index} has no setting {name}") from error


def _keeps_vectors(index: faiss.Index) -> bool:
    """Whether distances are computed from the vectors as they are."""
    if isinstance(index, faiss.IndexRefine):
        index = faiss.downcast_index(index.refine_index)
    if isinstance(index, faiss.IndexHNSW | faiss.IndexNSG):
        index = faiss.downcast_index(index.storage)
    return isinstance(index, faiss.IndexFlat | faiss.IndexIVFFlat)


def _refusal(what: str, error: RuntimeError) -> InputError:
    """An error that says why in FAISS's words, without the place in its code."""
    why = re.sub(r"^Error in .* at \S+:\d+: ", "", str(error))
    return InputError(f"{what}: {why.rpartition(' failed: ')[2]}")


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Nothing is written to the error output, by a library either."""
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
