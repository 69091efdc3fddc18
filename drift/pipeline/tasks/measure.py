"""Stage 05: how the lists of a run differ from the exact ones."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from drift.pipeline.environment import n_threads
from drift.pipeline.results import ArtifactError, load_array
from drift.pipeline.tasks import Task
from drift.pipeline.tasks.exact import exact_protocol
from drift.protocols import Protocol
from drift.vectors import row_blocks, vector_norms

if TYPE_CHECKING:
    from drift.pipeline.stage import Stage

EXACT = ("03_queries.npy", "03_exact_indices.npy", "03_exact_distances.npy")


class NeighborFiles(NamedTuple):
    """The files of neighbor lists.

    Attributes
    ----------
    indices : Path
        Whole numbers of any type, shape (Q, k).
    distances : Path
        Floats of any type, shape (Q, k).
    """

    indices: Path
    distances: Path

    def read(self, start: int, stop: int, k: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Ids and distances of some queries, the first k of each row.

        Returns
        -------
        indices : ndarray of int32 or int64, shape (stop - start, k)
        distances : ndarray of float, of this machine's byte order, shape (stop - start, k)
        """
        # Mapped anew each time: the pages of a mapping count as memory as long as it lives.
        indices, distances = (np.asarray(load_array(path)[start:stop, :k]) for path in self)
        if indices.dtype not in (np.int32, np.int64):
            indices = indices.astype(np.int64)
        return indices, distances.astype(distances.dtype.newbyteorder("="), copy=False)


class MetricsBlock(NamedTuple):
    """A run, and the rows of some queries."""

    run: str
    start: int
    stop: int


@dataclass(frozen=True)
class ComputeMetrics(Task):
    """Compute every per-query metric of a run, for a block of queries; (metrics, grid, rows).

    Attributes
    ----------
    embeddings : Path
        The vectors.
    queries : Path
        The rows that were searched for, or numbers of queries from outside.
    exact : NeighborFiles
        The exact lists.
    ann : dict of str to dict of int to NeighborFiles
        For each run and k what the index returned.
    protocol : Protocol
        What the lists hold; those of a publication are measured by its own metrics too.
    """

    embeddings: Path
    queries: Path
    exact: NeighborFiles
    ann: dict[str, dict[int, NeighborFiles]]
    protocol: Protocol = Protocol.STUDY

    @cached_property
    def norms(self) -> np.ndarray | None:
        """Norms of the vectors, where the rounding of the exact distances depends on them."""
        if self.protocol in (Protocol.STUDY, Protocol.OUTSIDE):
            return None
        return vector_norms(load_array(self.embeddings))

    @property
    def query_rows(self) -> np.ndarray:
        """The rows that were searched for, int32 (Q,)."""
        return load_array(self.queries)

    @property
    def descriptions(self) -> dict[str, str]:
        """The metrics by name, with what each says of a query."""
        from drift import metrics
        from drift.published import notebook, paper

        published = {Protocol.NOTEBOOK: notebook.METRICS, Protocol.PAPER: paper.METRICS}
        chosen = metrics.METRICS + published.get(self.protocol, ())
        return {metric.name: metric.description for metric in chosen}

    def grid(self, run: str) -> list[int]:
        """The k of a run."""
        return list(self.ann[run])

    def blocks(self, run: str) -> list[MetricsBlock]:
        """Blocks of queries, for each of which ids, distances and metrics of all k are held."""
        grid = self.grid(run)
        bytes_per_row = 8 * sum(grid) + 16 * len(self.descriptions) * len(grid)
        return [
            MetricsBlock(run, *rows) for rows in row_blocks(len(self.query_rows), bytes_per_row)
        ]

    def __call__(self, block: MetricsBlock) -> np.ndarray:
        from drift import metrics
        from drift.published import notebook, paper

        run, start, stop = block
        exact = self.exact.read(start, stop)
        ann = {k: files.read(start, stop, k) for k, files in self.ann[run].items()}
        is_outside = self.protocol is Protocol.OUTSIDE
        queries = None if is_outside else self.query_rows[start:stop]
        vectors = load_array(self.embeddings)
        values = metrics.compute_metrics(*exact, ann, vectors, queries, self.norms, n_threads())
        if self.protocol is Protocol.NOTEBOOK:
            values |= notebook.compute_metrics(exact[1], ann)
        if self.protocol is Protocol.PAPER:
            values |= paper.compute_metrics(exact, ann, vectors, n_threads())
        return np.stack([values[name] for name in self.descriptions])

    def graph_metrics(self) -> pd.DataFrame:
        """Hubness and orphans by run and k, where every row, or none, was searched for."""
        from drift import metrics

        n = len(load_array(self.embeddings))
        rows = []
        n_queries, is_outside = len(self.query_rows), self.protocol is Protocol.OUTSIDE
        for run in self.ann if is_outside or n_queries == n else ():
            exact, counted = np.zeros(n, np.int64), 0
            for k in self.grid(run):
                # The exact lists continue each other: only what they grow by is counted.
                exact += metrics.occurrences(self.exact.read(0, n_queries, k)[0][:, counted:], n)
                ann, counted = metrics.occurrences(self.ann[run][k].read(0, n_queries, k)[0], n), k
                for side, counts in (("exact", exact), ("ann", ann)):
                    rows.append((run, k, f"hubness_{side}", metrics.hubness(counts), n))
                    rows.append((run, k, f"orphans_{side}", metrics.orphans(counts), n))
        return pd.DataFrame(rows, columns=["run", "k", "metric", "mean", "n"])


@dataclass(frozen=True)
class MetricsPlan:
    """What stage 05 measures.

    Attributes
    ----------
    task : ComputeMetrics
        Where the lists are, and what measures them.
    runs : dict
        Parameters of each run.
    searched : dict
        Manifest of each run that stage 04 searched.
    left_out : dict
        Why other runs are left out.
    groups : ndarray of int32, shape (Q,), or None
        Groups of the queries whose images are alike by construction.
    """

    task: ComputeMetrics
    runs: dict[str, dict[str, Any]]
    searched: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    groups: np.ndarray | None = None

    @property
    def n_groups(self) -> int | None:
        """How many groups there are, each image without one being its own; None without any."""
        if self.groups is None:
            return None
        shared = self.groups[self.groups >= 0]
        return len(np.unique(shared)) + len(self.groups) - len(shared)

    def family_and_seed(self, run: str) -> tuple[str, int]:
        """A run's name without the seed of its graph, and that seed."""
        seed = self.runs[run].get("seed", 0)
        return run.removesuffix(f"_seed{seed}"), seed


def plan_runs(stage: "Stage") -> MetricsPlan:
    """The runs of stage 04 that belong to stage 03's lists."""
    embeddings, queries, *exact = stage.require("02_embeddings.npy", *EXACT)
    searched, left_out = stage.results.runs()
    if not searched:
        raise ArtifactError(
            f"{stage.results.path('04_hnsw')} holds no run made from the present exact lists: "
            "run 04_hnsw_search.py first"
        )
    ann = {}
    for run, manifest in searched.items():
        ks = manifest["parameters"]["k_grid"]
        names = [f"04_hnsw/{run}/k{k:04d}_{part}.npy" for k in ks for part in NeighborFiles._fields]
        paths = stage.require(*names)
        ann[run] = dict(zip(ks, map(NeighborFiles, paths[::2], paths[1::2]), strict=True))
    protocol = exact_protocol(stage)
    task = ComputeMetrics(embeddings, queries, NeighborFiles(*exact), ann, protocol)
    runs = {run: manifest["parameters"] for run, manifest in searched.items()}
    groups = None if protocol is Protocol.OUTSIDE else _image_groups(stage, task.query_rows)
    return MetricsPlan(task, runs, searched, left_out, groups)


def _image_groups(stage: "Stage", queries: np.ndarray) -> np.ndarray | None:
    made_from = stage.results.manifest("02_embeddings")["inputs"]
    images = stage.results.manifest("01_images") or {"outputs": {}}
    table = images["outputs"].get("01_images.parquet", {"dtype": {}})
    if "01_images.npy" not in made_from or "group" not in table["dtype"]:
        return None
    groups = stage.read("01_images.parquet", ["group"])["group"].to_numpy()[queries]
    return None if (groups < 0).all() else groups
