"""Stage 03: which queries are searched for, and their exact neighbors."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from drift import InputError
from drift.exact import ExactNeighbors, ExactSearch, check_k, expanded_neighbors
from drift.formats import declared_distance
from drift.pipeline.environment import n_threads
from drift.pipeline.results import load_array
from drift.pipeline.stage import Stage
from drift.proposals import choose_product
from drift.protocols import Protocol
from drift.stages import Task
from drift.stages.embed import ImportEmbeddings, Rows, warn
from drift.vectors import check_embeddings, row_blocks

QUERY_VECTORS = "03_query_vectors.npy"


@dataclass(frozen=True)
class ExactKnn(Task):
    """Search for the exact neighbors of a block of queries, by certified direct differences."""

    embeddings: Path
    queries: Path
    k: int
    vectors: Path | None = None  # of queries from outside
    device: str = "cpu"

    @cached_property
    def search(self) -> ExactSearch:
        """The vectors, with a centered copy of them."""
        product = choose_product(self.device)
        return ExactSearch(load_array(self.embeddings), n_threads(), product)

    def blocks(self) -> list[Rows]:
        """Blocks of queries: a vector each, and its candidates with distances in the making."""
        dim = load_array(self.embeddings).shape[1]
        return row_blocks(len(load_array(self.queries)), dim * 4 + self.k * 64)

    def __call__(self, rows: Rows) -> ExactNeighbors:
        queries = load_array(self.queries)[slice(*rows)]
        points = None if self.vectors is None else load_array(self.vectors)
        return self.search.neighbors(queries, self.k, points)


@dataclass(frozen=True)
class ExpandedKnn(Task):
    """Search for the neighbors of a block of queries by the expanded form, as the publications did.

    Its distances depend on the threads that multiply: they are those of the stage's start.
    """

    embeddings: Path
    queries: Path
    k: int
    protocol: Protocol
    threads: int

    def blocks(self) -> list[Rows]:
        """Whole numbers of the queries that FAISS multiplies at a time.

        The rounding of a row depends on the product's shape.
        """
        import faiss

        size = faiss.cvar.distance_compute_blas_query_bs
        dim, n = load_array(self.embeddings).shape[1], len(load_array(self.queries))
        return row_blocks(n, dim * 4 + self.k * 64, 256 << 20, size)

    def __call__(self, rows: Rows) -> ExactNeighbors:
        import faiss

        faiss.omp_set_num_threads(self.threads)
        queries = load_array(self.queries)[slice(*rows)]
        lists = expanded_neighbors(load_array(self.embeddings), queries, self.k, self.protocol)
        return ExactNeighbors(*lists, recomputed=0)


def choose_queries(
    text: str, protocol: Protocol, metric: str, column: str | None = None, drop_bad: bool = False
) -> str | int | ImportEmbeddings:
    """The queries of ``--queries``: "all" rows, a number of drawn ones, or vectors in a file."""
    if (column or drop_bad) and (text == "all" or text.isdecimal()):
        raise InputError(
            "--column and --drop-bad are of queries in a file: name one, --queries FILE"
        )
    if text == "all":
        return text
    if text.isdecimal():
        if text == "0":
            raise InputError("--queries 0: there must be one at the least")
        return int(text)
    if protocol is not Protocol.STUDY:
        raise InputError(f"--protocol {protocol} is for queries that are rows, not {text}")
    file = Path(text).absolute()
    return ImportEmbeddings(file, metric, column, drop_bad=drop_bad, part="test")


def fitting_k(
    k: int, chosen: str | int | ImportEmbeddings, embeddings: np.ndarray, protocol: Protocol
) -> int:
    """As many neighbors as there are, where these are fewer than k, which is printed.

    InputError when there are none.
    """
    leaves_out = not isinstance(chosen, ImportEmbeddings) and protocol is not Protocol.NOTEBOOK
    n = len(embeddings)
    available = max(1, n - leaves_out)
    check_k(min(k, available), n, leaves_out)
    if available < k:
        print(f"--k-max {k} is cut to {available}: {n} rows give a query no more neighbors")
    return min(k, available)


def draw_queries(
    chosen: str | int | ImportEmbeddings, embeddings: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Queries by number, int32 (Q,); their vectors, float32 (Q, d), if they are no rows; warnings.

    InputError when the embeddings are too few for them, or of other dimensions.
    """
    check_embeddings(embeddings)
    n, dim = embeddings.shape
    if isinstance(chosen, ImportEmbeddings):
        warnings = chosen.prepare()["warnings"]
        if (declared := declared_distance(chosen.file)) not in (None, chosen.metric):
            said = f"{chosen.file} says {declared}, and the embeddings are compared by"
            warnings += warn(f"{said} {chosen.metric}")
        n_queries, query_dim = chosen.shape
        if query_dim != dim:
            raise InputError(
                f"{chosen.file} has queries of {query_dim} dimensions, and the embeddings have "
                f"{dim}"
            )
        return np.arange(n_queries, dtype=np.int32), chosen((0, n_queries)), warnings
    rows = np.arange(n, dtype=np.int32)
    if chosen == "all":
        return rows, None, []
    if chosen > n:
        raise InputError(f"--queries {chosen} is more than the {n} embeddings there are")
    return np.sort(np.random.default_rng(seed).choice(rows, chosen, replace=False)), None, []


def exact_protocol(stage: Stage) -> Protocol:
    """The protocol of the exact lists, which the stages after them follow."""
    manifest = stage.results.manifest("03_exact")
    is_outside = QUERY_VECTORS in manifest["outputs"]
    return Protocol.OUTSIDE if is_outside else Protocol(manifest["parameters"]["protocol"])
