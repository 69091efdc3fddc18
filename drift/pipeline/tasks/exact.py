"""Stage 03: which queries are searched for, and their exact neighbors."""

import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from drift import InputError
from drift.formats import declared_distance
from drift.pipeline.environment import n_threads
from drift.pipeline.results import ArtifactError, content_hash, load_array
from drift.pipeline.stage import Stage
from drift.pipeline.tasks import Task
from drift.pipeline.tasks.embed import EUCLIDEAN, ImportEmbeddings
from drift.protocols import Protocol
from drift.vectors import check_embeddings, row_blocks

if TYPE_CHECKING:
    from drift.exact import ExactNeighbors, ExactSearch

Rows = tuple[int, int]
QUERY_VECTORS = "03_query_vectors.npy"


@dataclass(frozen=True)
class ExactKnn(Task):
    """Search for the exact neighbors of a block of queries, by certified direct differences."""

    embeddings: Path
    queries: Path
    k: int
    vectors: Path | None = None  # of queries from outside

    @cached_property
    def search(self) -> "ExactSearch":
        """The vectors, with a centered copy of them."""
        from drift.exact import ExactSearch

        return ExactSearch(load_array(self.embeddings))

    def blocks(self) -> list[Rows]:
        """Blocks of queries: a vector each, and its candidates with distances in the making."""
        dim = load_array(self.embeddings).shape[1]
        return row_blocks(len(load_array(self.queries)), dim * 4 + self.k * 64)

    def __call__(self, rows: Rows) -> "ExactNeighbors":
        queries = load_array(self.queries)[slice(*rows)]
        points = None if self.vectors is None else load_array(self.vectors)
        return self.search.neighbors(queries, self.k, points)


@dataclass(frozen=True)
class ExpandedKnn(Task):
    """Search for the neighbors of a block of queries by the expanded form, as the publications did.

    Its distances depend on the threads that multiply: wherever they are computed, it is with as
    many as the stage was started with.
    """

    embeddings: Path
    queries: Path
    k: int
    protocol: Protocol
    threads: int

    def blocks(self) -> list[Rows]:
        """Whole numbers of FAISS's own blocks, so that cutting the queries changes no rounding."""
        from drift.exact import FAISS_BLOCK

        dim, n = load_array(self.embeddings).shape[1], len(load_array(self.queries))
        return row_blocks(n, dim * 4 + self.k * 64, 256 << 20, FAISS_BLOCK)

    def __call__(self, rows: Rows) -> "ExactNeighbors":
        import faiss

        from drift.exact import ExactNeighbors, expanded_neighbors

        faiss.omp_set_num_threads(self.threads)
        queries = load_array(self.queries)[slice(*rows)]
        found = expanded_neighbors(load_array(self.embeddings), queries, self.k, self.protocol)
        return ExactNeighbors(*found, recomputed=0)


class Queries(NamedTuple):
    """Which queries are searched for: `name` is for the manifest, `source` of those from a file."""

    name: str | int
    protocol: str
    source: ImportEmbeddings | None = None

    def draw(
        self, embeddings: np.ndarray, k: int, seed: int
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Their numbers, int32 (Q,), and their vectors, float32 (Q, d), if they are no rows.

        Raises
        ------
        InputError
            When the embeddings are too few for them or for k neighbors, or of other dimensions.
        """
        from drift.exact import check_k

        check_embeddings(embeddings)
        n, dim = embeddings.shape
        check_k(k, n, leaves_out=self.source is None and self.protocol != Protocol.NOTEBOOK)
        if self.source is not None:
            self.source.prepare()
            if self.source.shape[1] != dim:
                raise InputError(
                    f"{self.source.file} has queries of {self.source.shape[1]} dimensions, and the "
                    f"embeddings have {dim}"
                )
            vectors = self.source((0, self.source.shape[0]))
            return np.arange(len(vectors), dtype=np.int32), vectors
        rows = np.arange(n, dtype=np.int32)
        if self.name == "all":
            return rows, None
        if self.name > n:
            raise InputError(f"--queries {self.name} is more than the {n} embeddings there are")
        drawn = np.random.default_rng(seed).choice(rows, self.name, replace=False)
        return np.sort(drawn), None


def choose_queries(text: str, protocol: str, metric: str | None) -> Queries:
    """The queries of ``--queries``: all rows, some of them, or vectors in a file."""
    if text == "all" or text.isdecimal():
        if text == "0":
            raise InputError("--queries 0: there must be one at the least")
        return Queries(text if text == "all" else int(text), protocol)
    file = Path(text).absolute()
    if protocol != Protocol.STUDY:
        raise InputError(f"--protocol {protocol} is for queries that are rows, not {text}")
    declared = declared_distance(file)
    if declared not in (None, metric or EUCLIDEAN):
        said = f"{text} says {declared}, and the embeddings are compared by {metric or EUCLIDEAN}"
        print(f"warning: {said}", file=sys.stderr)
    source = ImportEmbeddings(file, metric or EUCLIDEAN, part="test")
    return Queries(content_hash(file), protocol, source)


def exact_task(
    stage: Stage, protocol: Protocol, k: int, queries: Path, vectors: Path | None = None
) -> ExactKnn | ExpandedKnn:
    """What searches for the exact neighbors by a protocol."""
    embeddings = stage.results.path("02_embeddings.npy").absolute()
    if protocol is Protocol.STUDY:
        return ExactKnn(embeddings, queries, k, vectors)
    return ExpandedKnn(embeddings, queries, k, protocol, n_threads())


def exact_protocol(stage: Stage) -> Protocol:
    """The protocol of the exact lists, which the stages after them follow."""
    manifest = stage.results.manifest("03_exact")
    if "protocol" not in manifest["parameters"]:
        path = stage.results.path("03_exact.json")
        raise ArtifactError(f"{path} is of an earlier version: run 03_exact_knn.py again")
    is_outside = QUERY_VECTORS in manifest["outputs"]
    return Protocol.OUTSIDE if is_outside else Protocol(manifest["parameters"]["protocol"])
