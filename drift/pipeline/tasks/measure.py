"""Stage 05: how the lists of a run differ from the exact ones."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from drift import InputError
from drift.pipeline.environment import n_threads
from drift.pipeline.results import ArtifactError, load_array
from drift.pipeline.tasks import Task
from drift.pipeline.tasks.exact import exact_protocol
from drift.pipeline.tasks.images import image_table, read_numbers
from drift.protocols import Protocol
from drift.vectors import row_blocks, vector_norms

if TYPE_CHECKING:
    from drift.pipeline.stage import Stage
    from drift.summary import RunValues

EXACT = ("03_queries.npy", "03_exact_indices.npy", "03_exact_distances.npy")


class NeighborFiles(NamedTuple):
    """The files of neighbor lists.

    Attributes
    ----------
    indices : Path
        Whole numbers of any type, shape (Q, k).
    distances : Path
        Floats of any type, shape (Q, k).
    reported : Path or None
        The same as an index reported them that computes with compressed vectors.
    """

    indices: Path
    distances: Path
    reported: Path | None = None

    def read(self, start: int, stop: int, k: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Ids and distances of some queries, the first k of each row.

        Returns
        -------
        indices : ndarray of int32 or int64, shape (stop - start, k)
        distances : ndarray of float, of this machine's byte order, shape (stop - start, k)
        """
        # Mapped anew each time: the pages of a mapping count as memory as long as it lives.
        indices, distances = (np.asarray(load_array(path)[start:stop, :k]) for path in self[:2])
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

    def descriptions(self, *runs: str) -> dict[str, str]:
        """The metrics of some runs by name, with what each says of a query."""
        from drift import metrics, reported
        from drift.published import notebook, paper

        published = {Protocol.NOTEBOOK: notebook.METRICS, Protocol.PAPER: paper.METRICS}
        chosen = metrics.METRICS + published.get(self.protocol, ())
        if any(files.reported for run in runs for files in self.ann[run].values()):
            chosen += reported.METRICS
        return {metric.name: metric.description for metric in chosen}

    def grid(self, run: str) -> list[int]:
        """The k of a run."""
        return list(self.ann[run])

    def blocks(self, run: str) -> list[MetricsBlock]:
        """Blocks of queries, for each of which ids, distances and metrics of all k are held."""
        grid = self.grid(run)
        bytes_per_row = 8 * sum(grid) + 16 * len(self.descriptions(run)) * len(grid)
        return [
            MetricsBlock(run, *rows) for rows in row_blocks(len(self.query_rows), bytes_per_row)
        ]

    def __call__(self, block: MetricsBlock) -> np.ndarray:
        from drift import metrics, reported
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
        own = {k: files.reported for k, files in self.ann[run].items() if files.reported}
        if own:
            distances = {k: load_array(path)[start:stop] for k, path in own.items()}
            values |= reported.compute_metrics(distances)
        return np.stack([values[name] for name in self.descriptions(run)])

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

    def components_and_majority(
        self, files: NeighborFiles, k: int, labels: np.ndarray | None
    ) -> tuple[int | None, np.ndarray | None]:
        """How many components a k-NN graph has, and each query's majority label, int64 (Q,).

        None where not every row was searched for, and where there are no labels, (N,).
        """
        from drift import by_use

        n, rows = len(load_array(self.embeddings)), self.query_rows
        is_outside = self.protocol is Protocol.OUTSIDE
        components = None if is_outside or len(rows) != n else np.arange(n)
        majority = None if labels is None else np.empty(len(rows), np.int64)
        for start, stop in row_blocks(len(rows), 64 * k):
            ids, _ = files.read(start, stop, k)
            queries = None if is_outside else rows[start:stop]
            if components is not None:
                components = by_use.join_components(components, queries, ids)
            if majority is not None:
                majority[start:stop] = by_use.majority_labels(ids, labels, queries)
        return None if components is None else int(components.max()) + 1, majority


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
    labels : ndarray of int16, shape (N,), or None
        Labels of the images that were embedded, -1 for none.
    """

    task: ComputeMetrics
    runs: dict[str, dict[str, Any]]
    searched: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    groups: np.ndarray | None = None
    labels: np.ndarray | None = None

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

    def k_of_interest(self, wanted: int | None) -> int:
        """The k that is asked for, or else the largest.

        Raises
        ------
        InputError
            When no run has it.
        """
        grid = sorted({k for run in self.runs for k in self.task.grid(run)})
        if wanted not in (None, *grid):
            ks = ", ".join(map(str, grid))
            raise InputError(f"--k-of-interest {wanted} was searched by no run, but {ks}")
        return wanted or grid[-1]

    def by_use(self, measured: "dict[str, RunValues]", k: int, seed: int) -> list[dict[str, Any]]:
        """What the lists of length k change for each use, a record for each run that has this k.

        Each holds ``run``, how many rows are short, `drift.by_use.Estimate` of ``kth_distance``,
        ``lid``, ``below_overlap``, ``below_recall`` (queries badly served) and ``same_label``, and
        ``components`` of the exact lists and the run's; None where that cannot be.
        """
        from drift import by_use

        measure, records = self.task.components_and_majority, []
        exact, majority = measure(self.task.exact, k, self.labels)
        for run in (run for run in measured if k in measured[run].ks):
            place = list(measured[run].ks).index(k)
            values = {name: at_k[place] for name, at_k in measured[run].values.items()}
            components, labels = measure(self.task.ann[run][k], k, self.labels)
            sides = ("kth_distance", "lid")
            errors = {name: (values[f"{name}_ann"], values[f"{name}_exact"]) for name in sides}
            shares = {f"below_{n}": values[n] < by_use.BADLY_SERVED for n in ("overlap", "recall")}
            if labels is not None:
                shares["same_label"] = labels == majority
            found = by_use.estimates(errors, shares, seed, self.groups)
            record = {"run": run, "short_rows": int(np.count_nonzero(values["found"] < 1))}
            record |= {name: estimate._asdict() for name, estimate in found.items()}
            counts = {"exact": exact, "ann": components}
            record["components"] = None if exact is None else counts
            records.append({"same_label": None} | record)
        return records


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
        names = {
            part: [f"04_hnsw/{run}/k{k:04d}_{part}.npy" for k in ks]
            for part in NeighborFiles._fields
        }
        if names["reported"][0] not in manifest["outputs"]:
            del names["reported"]
        paths = [stage.require(*files) for files in names.values()]
        ann[run] = dict(zip(ks, map(NeighborFiles, *paths), strict=True))
    protocol = exact_protocol(stage)
    task = ComputeMetrics(embeddings, queries, NeighborFiles(*exact), ann, protocol)
    runs = {run: manifest["parameters"] for run, manifest in searched.items()}
    table, groups, labels = image_table(stage), None, None
    if table:
        labels = read_numbers(table, "label")
        groups = None if protocol is Protocol.OUTSIDE else read_numbers(table, "group")
        groups = None if groups is None else groups[task.query_rows]
    return MetricsPlan(task, runs, searched, left_out, groups, labels)
