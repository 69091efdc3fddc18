"""Stage 04: an index in a file, or in a database, for as long as it is searched."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from drift.indexes import build_index
from drift.indexes.config import PGVECTOR, IndexConfig
from drift.pipeline.stage import PARTIAL, Stage


@contextmanager
def built_graph(stage: Stage, graph: IndexConfig) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A graph in a file for as long as it is searched, built if need be, kept on ``--save-index``.

    Parameters
    ----------
    stage : Stage
        Stage 04, with the embeddings among its inputs.
    graph : IndexConfig
        How to build it.

    Yields
    ------
    path : Path
        The file.
    facts : dict
        How long it took to build, and what the library shows of it.
    """
    if graph.backend == PGVECTOR:
        with _graph_in_database(stage, graph) as found:
            yield found
        return
    part = _graph_stage(stage, graph)
    name = f"{part.name}.{graph.backend}"
    saved = stage.results.path(name)
    if not part.begin(graph.parameters):
        facts = {fact: part.manifest()[fact] for fact in ("build_seconds", "graph")}
        yield saved.absolute(), facts
        return
    is_replaced = saved.exists()
    if is_replaced and not stage.args.force:
        print(f"{saved} is damaged or of other embeddings: the graph is built anew")
    path = part.output(name)
    if graph.name not in part.completed or not path.exists():
        start = time.perf_counter()
        index = build_index(graph, part.read("02_embeddings.npy"))
        seconds = time.perf_counter() - start
        index.save(path)
        with path.open("rb") as file:
            os.fsync(file.fileno())  # a power cut must not leave a checkpoint without its graph
        part.checkpoint(graph.name, build_seconds=seconds, graph=index.statistics())
        del index  # whoever searches reads it from the file
    facts = part.completed[graph.name]
    if stage.args.save_index or is_replaced:
        part.commit(**facts)
        path = saved.absolute()
    yield path, facts
    part.discard()


@contextmanager
def _graph_in_database(stage: Stage, graph: IndexConfig) -> Iterator[tuple[Path, dict[str, Any]]]:
    """`built_graph` in a PostgreSQL, ``--postgres`` or one of its own; the file says where."""
    from drift.indexes.pgvector_hnsw import PgvectorHnsw, column_type
    from drift.pipeline.postgres import embedded_server

    embeddings = stage.read("02_embeddings.npy")
    if column_type(embeddings.shape[1]) == "halfvec":
        print(f"{graph.name}: more dimensions than pgvector indexes as they are: half precision")
    if stage.args.save_index:
        print(f"{graph.name} lives in its server: --save-index does not keep it")
    with ExitStack() as stack:
        url = stage.args.postgres
        url = stack.enter_context(embedded_server()) if url is None else url
        start = time.perf_counter()
        index = stack.enter_context(closing(PgvectorHnsw.build(embeddings, graph, url)))
        facts = {"build_seconds": time.perf_counter() - start, "graph": index.statistics()}
        path = Path(stack.enter_context(TemporaryDirectory())) / "place.json"
        index.save(path)
        yield path, {**facts, "timed": "at the client"}


def discard_graph(stage: Stage, graph: IndexConfig) -> None:
    """Remove what `built_graph` left when it was interrupted, unless a run waits for it."""
    if not any(stage.results.path(PARTIAL).glob(f"{stage.name}--{graph.settings_name}_*")):
        _graph_stage(stage, graph).discard()


def _graph_stage(stage: Stage, graph: IndexConfig) -> Stage:
    return stage.part(f"graphs/{graph.name}", "02_embeddings.npy")
