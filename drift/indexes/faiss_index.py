"""All indexes of FAISS, by factory strings: HNSW and NSG graphs, inverted lists, quantizers."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np

from drift import InputError, add_filename
from drift.indexes.base import Index, Nearest, reading
from drift.indexes.run import FAISS_NAMES, Run, Value

# Higher values of these give better lists. Those that refine keep so many times k candidates.
REFINE = ("k_factor", "k_factor_rf")
SEARCHED = ("efSearch", "nprobe", "search_L", *REFINE)


class Faiss(Index):
    """An index that ``faiss.index_factory`` makes, ``HNSW32`` where M = 32 is all that is said.

    Rows are inserted in the order of the run's seed: `row` is the one of each id that FAISS knows.
    Methods as in `drift.indexes.base.Index`.
    """

    def __init__(self, index: faiss.Index, row: np.ndarray):
        self._index, self._row = index, row
        self.is_compressed = not _keeps_vectors(index)
        # The others expand them, or leave it open.
        self.is_direct = isinstance(index, faiss.IndexHNSW) and not self.is_compressed

    @classmethod
    def check(cls, run: Run, d: int, lengths: Sequence[int]) -> None:
        factory, index = _untrained(run, d)
        for name, policy in run.policies.items():
            name = FAISS_NAMES.get(name, name)
            for value in [1] if policy.criterion else map(policy.value, lengths):
                is_whole = name in REFINE or isinstance(value, int)
                if name in SEARCHED and not (is_whole and value >= 1):
                    kind = "1 or more" if name in REFINE else "a whole number, 1 or more"
                    raise InputError(f"{factory}: {name} is {kind}, not {value}")
                _set(index, factory, name, value)
            if policy.criterion and name not in SEARCHED:
                raise InputError(
                    f"{name}={policy.criterion}=...: this can be looked for in "
                    f"{', '.join(SEARCHED)}"
                )

    @classmethod
    def warning(cls, run: Run) -> str | None:
        if run.M is None or run.ef_construction >= (least := 2 * run.M):
            return None
        return (
            f"{run.index_name}: FAISS prunes links from efConstruction = 2 M = "
            f"{least} on, and not below: this graph is denser, and its overlap is "
            "not comparable with that of a pruned one (in a factory string's settings it is "
            f"efConstruction={least}, and 40 without)"
        )

    @classmethod
    def build(cls, embeddings: np.ndarray, run: Run) -> Self:
        n, d = embeddings.shape
        (factory, index), row = _untrained(run, d), run.insertion_order(n)
        vectors = embeddings[row] if run.seed else embeddings
        search_threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(run.build["threads"])
        try:
            index.train(vectors)
            index.add(vectors)
        except RuntimeError as error:
            raise _refusal(f"no index {factory} on {n} x {d} vectors", error) from error
        finally:
            faiss.omp_set_num_threads(search_threads)
        return cls(index, row)

    @classmethod
    def load(cls, path: Path, embeddings: np.ndarray, run: Run) -> Self:
        with reading(path):
            return cls(faiss.read_index(str(path)), run.insertion_order(len(embeddings)))

    @classmethod
    def stop_rule(cls, run: Run, length: int, ef_search: int) -> dict[str, int]:
        return super().stop_rule(run, length, ef_search) | {"stops_after": ef_search}

    def save(self, path: Path) -> None:
        # Written by Python's hand, a full disk is an OSError as everywhere.
        with add_filename(path), path.open("wb") as file:
            faiss.write_index(self._index, faiss.PyCallbackIOWriter(file.write))

    def search(self, points: np.ndarray, length: int, settings: Mapping[str, Value]) -> Nearest:
        for name, value in settings.items():
            # More candidates than there are rows would only take memory, all of it in advance.
            _set(self._index, "this index", name, min(value, self.value_range(name, length)[1]))
        # Counters of the whole process, to which a search adds the sums of its threads: true as
        # long as a process searches for one thing at a time.
        counters = faiss.cvar.hnsw_stats, faiss.cvar.indexIVF_stats
        for counter in counters:
            counter.reset()
        try:
            squared, ids = self._index.search(points, length)
        except RuntimeError as error:
            raise _refusal(f"no search with {dict(settings)}", error) from error
        self.distance_computations = sum(counter.ndis for counter in counters) or None
        return np.where(ids < 0, -1, self._row[ids]), squared

    def value_range(self, setting: str, length: int) -> tuple[int, int]:
        if setting == "nprobe":
            return 1, faiss.extract_index_ivf(self._index).nlist
        n = self._index.ntotal
        return 1, -(-n // length) if setting in REFINE else n

    def statistics(self) -> dict[str, Any]:
        """Its size, and of an HNSW graph what `_hnsw_statistics` says."""
        sizes: list[int] = []
        writer = faiss.PyCallbackIOWriter(lambda part: sizes.append(len(part)))
        faiss.write_index(self._index, writer)
        graph = _innermost(self._index)
        statistics = _hnsw_statistics(graph.hnsw) if isinstance(graph, faiss.IndexHNSW) else {}
        return {**statistics, "index_bytes": sum(sizes), "compressed": self.is_compressed}


def _hnsw_statistics(hnsw: faiss.HNSW) -> dict[str, Any]:
    """Links of a node on the lowest level, and rows that no path of links leads to."""
    from scipy.sparse import csr_array  # slow to import
    from scipy.sparse.csgraph import breadth_first_order

    offsets = faiss.vector_to_array(hnsw.offsets).astype(np.int64)
    links, n = faiss.vector_to_array(hnsw.neighbors), len(offsets) - 1
    linked = links >= 0
    # The slots of a node stand in one piece, level 0 first; those that are free hold -1.
    degree = linked[offsets[:-1, None] + np.arange(hnsw.nb_neighbors(0))].sum(axis=1)
    taken = np.concatenate([[0], linked.cumsum()])
    adjacency = csr_array((np.ones(linked.sum()), links[linked], taken[offsets]), (n, n))
    reachable = breadth_first_order(adjacency, hnsw.entry_point, return_predecessors=False)
    return {
        "mean_degree_level_0": float(degree.mean()),
        "unreachable_rows": n - len(reachable),
    }


def _untrained(run: Run, d: int) -> tuple[str, faiss.Index]:
    factory = f"HNSW{run.M}" if run.factory is None else run.factory
    if re.search(r"(HNSW|NSG)[01](?![0-9])", factory):
        raise InputError(f"{factory}: FAISS crashes on graphs of fewer than 2 links")
    try:
        index = faiss.index_factory(d, factory)
    except RuntimeError as error:
        raise _refusal(f"FAISS has no index {factory} of {d} dimensions", error) from error
    if re.search(r"(^|,)LSH", factory):
        raise InputError(f"{factory}: it has Hamming distances, and no Euclidean ones")
    for name, value in run.build.items():
        if name not in ("factory", "M", "threads"):
            _set(index, factory, name, value)
    return factory, index


def _innermost(index: faiss.Index) -> faiss.Index:
    """What searches behind transformations and before refinements."""
    while inner := getattr(index, "base_index", None) or getattr(index, "index", None):
        index = faiss.downcast_index(inner)
    return index


def _set(index: faiss.Index, name_of_index: str, name: str, value: Value) -> None:
    """Set a parameter of an index."""
    own = FAISS_NAMES.get(name, name)
    if own == "search_L" and isinstance(graph := _innermost(index), faiss.IndexNSG):
        graph.nsg.search_L = int(value)  # FAISS's own function does not know this one
        return
    try:
        faiss.ParameterSpace().set_index_parameter(index, own, float(value))
    except RuntimeError as error:
        raise InputError(f"{name_of_index} has no setting {own}") from error


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
