"""Stage 05: how the lists of a run differ from the exact ones."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from drift import InputError
from drift.pipeline.environment import n_threads
from drift.pipeline.results import ArtifactError, describe, load_array
from drift.pipeline.tasks import Task
from drift.vectors import check_embeddings, row_blocks, vector_norms

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

    A file may hold longer lists than its k: the first k count.

    Attributes
    ----------
    embeddings : Path
        The vectors.
    queries : Path or None
        The rows that were searched for; None for the first ones.
    exact : NeighborFiles
        The exact lists.
    ann : dict of str to dict of int to NeighborFiles
        For each run and k what the index returned.
    notebook : bool
        Whether the lists are by the notebook's protocol, and its metrics are wanted too.
    expanded : bool
        Whether the exact distances are by the expanded form in float32, not by direct differences.
    """

    embeddings: Path
    queries: Path | None
    exact: NeighborFiles
    ann: dict[str, dict[int, NeighborFiles]]
    notebook: bool
    expanded: bool = False

    @cached_property
    def norms(self) -> np.ndarray | None:
        """Norms of the vectors, where the rounding of the exact distances depends on them."""
        return vector_norms(load_array(self.embeddings)) if self.expanded else None

    @property
    def query_rows(self) -> np.ndarray:
        """The rows that were searched for, int32 (Q,)."""
        if self.queries is None:
            return np.arange(len(load_array(self.exact.indices)), dtype=np.int32)
        return load_array(self.queries)

    @property
    def descriptions(self) -> dict[str, str]:
        """The metrics by name, with what each says of a query."""
        from drift import metrics
        from drift.published import notebook

        chosen = metrics.METRICS + (notebook.METRICS if self.notebook else ())
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
        from drift.published import notebook

        run, start, stop = block
        exact = self.exact.read(start, stop)
        ann = {k: files.read(start, stop, k) for k, files in self.ann[run].items()}
        # Of vectors that are no rows nobody knows the id.
        queries = None if self.queries is None else self.query_rows[start:stop]
        vectors = load_array(self.embeddings)
        values = metrics.compute_metrics(*exact, ann, vectors, queries, self.norms, n_threads())
        if self.notebook:
            values |= notebook.compute_metrics(exact[1], ann)
        return np.stack([values[name] for name in self.descriptions])

    def graph_metrics(self) -> pd.DataFrame:
        """Hubness and orphans by run and k, where every row was searched for."""
        from drift import metrics

        n = len(load_array(self.embeddings))
        rows = []
        for run in self.ann if len(self.query_rows) == n else ():
            exact, counted = np.zeros(n, np.int64), 0
            for k in self.grid(run):
                # The exact lists continue each other: only what they grow by is counted.
                exact += metrics.occurrences(self.exact.read(0, n, k)[0][:, counted:], n)
                ann, counted = metrics.occurrences(self.ann[run][k].read(0, n, k)[0], n), k
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
    protocol = stage.results.manifest("03_exact")["parameters"]
    exact, expanded = NeighborFiles(*exact), not protocol["refine"]
    task = ComputeMetrics(embeddings, queries, exact, ann, protocol["include_self"], expanded)
    runs = {run: manifest["parameters"] for run, manifest in searched.items()}
    return MetricsPlan(task, runs, searched, left_out, _image_groups(stage, task.query_rows))


def _image_groups(stage: "Stage", queries: np.ndarray) -> np.ndarray | None:
    made_from = stage.results.manifest("02_embeddings")["inputs"]
    images = stage.results.manifest("01_images") or {"outputs": {}}
    table = images["outputs"].get("01_images.parquet", {"dtype": {}})
    if "01_images.npy" not in made_from or "group" not in table["dtype"]:
        return None
    groups = stage.read("01_images.parquet", ["group"])["group"].to_numpy()[queries]
    return None if (groups < 0).all() else groups


def plan_files(stage: "Stage", exact: list[Path], ann: list[Path], vectors: Path) -> MetricsPlan:
    """Lists of another system: one pair of files, cut for each k."""
    from drift.neighbor_lists import validate_neighbor_lists

    paths = [path.resolve() for path in (*exact, *ann, vectors)]
    exact_ids, exact_distances, ann_ids, ann_distances, embeddings = map(load_array, paths)
    check_embeddings(embeddings, str(vectors))
    validate_neighbor_lists(exact_ids, exact_distances, embeddings, "--exact-lists", missing=False)
    validate_neighbor_lists(ann_ids, ann_distances, embeddings, "--ann-lists", missing=True)
    if len(exact_ids) != len(ann_ids):
        raise InputError(
            f"--exact-lists are of {len(exact_ids)} queries, --ann-lists of {len(ann_ids)}"
        )
    stage.inputs = {str(path): describe(path) for path in paths}
    k_max = min(exact_ids.shape[1], ann_ids.shape[1])
    grid = sorted({*range(10, k_max + 1, 10), k_max})
    lists = {"lists": dict.fromkeys(grid, NeighborFiles(*paths[2:4]))}
    task = ComputeMetrics(paths[4], None, NeighborFiles(*paths[:2]), lists, False)
    return MetricsPlan(task, {"lists": {"backend": ann[0].stem, "ef_search": None}})
