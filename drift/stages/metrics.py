"""Stage 05: how the lists of a run differ from the exact ones, and what that changes in use."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from drift import InputError, by_use, metrics
from drift.curves import TOGETHER
from drift.indexes.run import Run
from drift.pipeline import cli
from drift.pipeline.blocks import compute_blocks
from drift.pipeline.environment import n_threads
from drift.pipeline.manifests import PER_QUERY
from drift.pipeline.results import ArtifactError, load_array
from drift.pipeline.stage import Stage
from drift.protocols import Protocol
from drift.published import notebook, paper
from drift.stages import Task
from drift.stages.clusters import find_clusters
from drift.stages.embed import read_rows
from drift.stages.exact import exact_protocol
from drift.summaries import CURVES, RunValues, Table, as_table, summarize_runs
from drift.vectors import row_blocks, vector_norms

EXACT = ("03_queries.npy", "03_exact_indices.npy", "03_exact_distances.npy")
FEW = 30  # groups, or queries without groups, leave rough intervals
BY_USE = {"run": str, "k": np.int32, **dict.fromkeys(("use", "measure", "of"), str)}
BY_USE |= dict.fromkeys(("value", "ci_low", "ci_high"), np.float64)
BY_USE |= {"n": np.int32, "groups_that_differ": np.int32}
PUBLISHED = {Protocol.NOTEBOOK: notebook.METRICS, Protocol.PAPER: paper.METRICS}


class NeighborFiles(NamedTuple):
    """The files of lists (Q, k): ids, distances, and those that a compressed index reported."""

    indices: Path
    distances: Path
    reported: Path | None = None

    def read(self, rows: slice, k: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Ids and distances of some queries, the first k of each row."""
        # Mapped anew each time: the pages of a mapping count as memory as long as it lives.
        return tuple(np.asarray(load_array(path)[rows, :k]) for path in self[:2])


@dataclass(frozen=True)
class ComputeMetrics(Task):
    """Compute every metric of a run for a block of queries; float64 (metrics, grid, rows).

    `ann` are the files of a run by k. Lists by the protocol of a publication are measured by its
    own metrics too.
    """

    embeddings: Path
    queries: Path
    exact: NeighborFiles
    ann: Mapping[int, NeighborFiles]
    protocol: Protocol = Protocol.STUDY

    @cached_property
    def norms(self) -> np.ndarray | None:
        """Norms of the vectors, where the rounding of the exact distances depends on them."""
        return vector_norms(load_array(self.embeddings)) if self.protocol.is_published else None

    @property
    def n_queries(self) -> int:
        return len(load_array(self.queries))

    @property
    def query_rows(self) -> np.ndarray | None:
        """The rows that were searched for, int32 (Q,); None of queries from outside."""
        return None if self.protocol is Protocol.OUTSIDE else load_array(self.queries)

    @property
    def metrics(self) -> tuple[metrics.Metric, ...]:
        reported = any(files.reported for files in self.ann.values())
        own = metrics.REPORTED_METRICS if reported else ()
        return (*metrics.METRICS, *PUBLISHED.get(self.protocol, ()), *own)

    def blocks(self) -> list[tuple[int, int]]:
        """Blocks of queries, for each of which ids, distances and metrics of all k are held."""
        bytes_per_row = 8 * sum(self.ann) + 16 * len(self.metrics) * len(self.ann)
        return row_blocks(self.n_queries, bytes_per_row)

    def __call__(self, block: tuple[int, int]) -> np.ndarray:
        rows, vectors, ann = slice(*block), load_array(self.embeddings), self.ann.items()
        queries = None if self.query_rows is None else self.query_rows[rows]
        lists = *self.exact.read(rows), {k: files.read(rows, k) for k, files in ann}
        reported = {k: load_array(files.reported)[rows] for k, files in ann if files.reported}
        more = self.norms, n_threads(), reported, self.metrics
        return np.stack([*metrics.compute_metrics(*lists, vectors, queries, *more).values()])

    @property
    def is_graph(self) -> bool:
        """Whether every row was searched for, so that the lists are a k-NN graph."""
        return self.query_rows is not None and self.n_queries == len(load_array(self.embeddings))

    def hubs_and_orphans(self) -> Iterator[tuple[int, str, float, int]]:
        """k, metric, value and N, by k, where every row, or none, was searched for."""
        if self.query_rows is not None and not self.is_graph:
            return
        n, counted = len(load_array(self.embeddings)), 0
        exact = np.zeros(n, np.int64)
        for k, files in self.ann.items():
            # The exact lists continue each other: only what they grow by is counted.
            exact += metrics.occurrences(self.exact.read(np.s_[:], k)[0][:, counted:], n)
            ann, counted = metrics.occurrences(files.read(np.s_[:], k)[0], n), k
            for side, counts in (("exact", exact), ("ann", ann)):
                yield k, f"hubness_{side}", metrics.hubness(counts), n
                yield k, f"orphans_{side}", metrics.orphans(counts), n


class Measured(Mapping):
    """What was measured of a run, by metric float64 (grid, Q), read when it is asked for."""

    def __init__(self, path: Path, task: ComputeMetrics):
        self.path, self.shape = path, (-1, task.n_queries)
        self.names = [metric.name for metric in task.metrics]

    def __getitem__(self, name: str) -> np.ndarray:
        with pq.ParquetFile(self.path) as file:  # of a column `read_table` takes twice the time
            return file.read([name])[name].to_numpy().reshape(self.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class MetricsPlan:
    """What stage 05 measures, by the names of the runs."""

    tasks: dict[str, ComputeMetrics]
    searched: dict[str, dict]  # manifests
    left_out: dict[str, str]  # why others are not among them
    groups: np.ndarray | None  # of queries that are alike by construction, (Q,)
    labels: np.ndarray | None  # of the embeddings, (N,)

    @property
    def descriptions(self) -> dict[str, str]:
        """The metrics of all runs by name, with what each says of a query."""
        return {m.name: m.description for task in self.tasks.values() for m in task.metrics}

    @property
    def notes(self) -> dict[str, Any]:
        """For the manifest: of what, of how many queries, in how many groups, and warnings."""
        n, groups = next(iter(self.tasks.values())).n_queries, self.groups
        if groups is not None:  # a query without one is its own
            groups = len(np.unique(np.where(groups < 0, -1 - np.arange(n), groups)))
        warnings = [one for run in self.searched.values() for one in run.get("warnings", ())]
        if (groups or n) < FEW:
            over = f"{groups} groups of queries that are alike" if groups else f"{n} queries"
            warnings.append(
                f"intervals are over {over}, fewer than {FEW}: they are rough, and do not know of "
                "what happens to few"
            )
        noted = {"left_out": self.left_out, "metrics": self.descriptions | TOGETHER}
        return noted | {"n_queries": n, "groups": groups, "warnings": warnings}

    def k_of_interest(self, wanted: int | None) -> int:
        """The k that is asked for, or else the largest; InputError when no run has it."""
        grid = sorted({k for task in self.tasks.values() for k in task.ann})
        if wanted not in (None, *grid):
            folder = next(iter(self.tasks.values())).queries.parent
            command = cli.command_that_adds(wanted, self.searched.values(), folder)
            raise InputError(
                f"--k-of-interest {wanted} was searched by no run, but {cli.format_grid(grid)}; "
                f"this adds it: {command}"
            )
        return wanted or grid[-1]

    def values(self, name: str, measured: Path) -> RunValues:
        """What was measured of a run, from its file."""
        run = Run.from_json(self.searched[name]["parameters"]["run"])
        task = self.tasks[name]
        return RunValues(run.family, run.seed, list(task.ann), Measured(measured, task))

    def tables(self, measured: Mapping[str, RunValues], k: int) -> dict[str, Table]:
        """The tables of `drift.summaries.summarize_runs`, with hubs and orphans, by name."""
        tables = summarize_runs(measured, self.groups, k)._asdict()
        unknown = [np.nan] * 6  # single queries have no value of what follows
        rows = [
            (run, k, name, value, *unknown, n, -1)
            for run, task in self.tasks.items()
            for k, name, value, n in task.hubs_and_orphans()
        ]
        parts, runs = (tables["curves"], as_table(rows, CURVES)), [*self.tasks]
        curves = {name: np.concatenate([part[name] for part in parts]) for name in CURVES}
        order = np.lexsort((curves["k"], [runs.index(run) for run in curves["run"]]))
        return tables | {"curves": {name: column[order] for name, column in curves.items()}}

    def by_use(
        self, stage: Stage, measured: Mapping[str, RunValues], k: int, seed: int
    ) -> tuple[Table, dict[str, Any]]:
        """What the lists of length k of each run change for each use; notes, on why no clusters.

        `seed` is of the clusters. Where memory ends, they are noted as failed.
        """
        first = next(iter(self.tasks.values()))
        files = {run: task.ann[k] for run, task in self.tasks.items() if k in task.ann}
        lists, right, partitions, notes, rows = {"": first.exact, **files}, {}, {}, {}, []
        queries = first.query_rows
        if self.labels is not None and queries is not None and (self.labels[queries] >= 0).any():
            for run, one in lists.items():
                ids, _ = one.read(np.s_[:], k)
                right[run] = by_use.classification(ids, self.labels, queries)
        if first.is_graph:
            root = stage.results.root.absolute()
            names = {run: str(one.indices.relative_to(root)) for run, one in lists.items()}
            try:
                partitions = find_clusters(stage, names, k, seed)
                why = ""
            except InputError as error:
                why = str(error)
            except MemoryError as error:
                why, notes["failed"] = str(error) or "out of memory", "clusters"
        else:
            why = "not every row was a query"
        notes["no_clusters"] = [f"No clusters: {why}."] if why else []
        for run, one in files.items():
            place = measured[run].ks.index(k)
            values = {name: of_k[place] for name, of_k in measured[run].values.items()}
            uses = by_use.estimate_uses(values, self.groups)
            uses |= by_use.estimate_retrieval(values, self.groups)
            if right:
                uses |= by_use.estimate_classes(right[""], right[run], self.groups)
            if partitions:
                uses |= by_use.estimate_clusters(partitions[""], partitions[run])
            rows += [(run, k, *use, "ids", *estimate) for use, estimate in uses.items()]
            if one.reported:
                uses = by_use.estimate_uses(values, self.groups, "reported")
                rows += [(run, k, *use, "reported", *estimate) for use, estimate in uses.items()]
        return as_table(rows, BY_USE), notes


def plan_runs(stage: Stage) -> MetricsPlan:
    """The runs of stage 04 that belong to stage 03's lists."""
    embeddings, queries, *exact = stage.require("02_embeddings.npy", *EXACT)
    groups, labels = read_rows(stage)
    searched, left_out = stage.results.runs()
    if not searched:
        why = "; ".join(f"{run}: {reason}" for run, reason in left_out.items())
        raise ArtifactError(
            f"{stage.results.path('04_hnsw')} holds no run made from the present exact lists: "
            f"{why or 'run 04_hnsw_search.py first'}"
        )
    protocol, tasks = exact_protocol(stage), {}
    longest = load_array(exact[1]).shape[1]
    for run, manifest in searched.items():
        lists, grid = {}, manifest["parameters"]["k_grid"]
        for k in (k for k in grid if k <= longest):
            names = (f"04_hnsw/{run}/k{k:04d}_{part}.npy" for part in NeighborFiles._fields)
            lists[k] = [name for name in names if name in manifest["outputs"]]
        # All at once: manifests are read once, and all cores hash.
        paths = iter(stage.require(*itertools.chain(*lists.values())))
        ann = {k: NeighborFiles(*itertools.islice(paths, len(lists[k]))) for k in lists}
        if grid[-1] > longest:
            left_out[f"{run} beyond k = {longest}"] = "the exact lists end there"
        tasks[run] = ComputeMetrics(embeddings, queries, NeighborFiles(*exact), ann, protocol)
    is_outside = protocol is Protocol.OUTSIDE
    groups = None if is_outside or groups is None else groups[load_array(queries)]
    return MetricsPlan(tasks, searched, left_out, groups, labels)


def measure_run(stage: Stage, run: str, task: ComputeMetrics) -> None:
    """Measure every query of a run at every k, and store that in ``05_per_query/``, if need be."""
    lists = (name for name in stage.inputs if name.startswith(f"04_hnsw/{run}/"))
    part = stage.part(run, "02_embeddings.npy", *EXACT, *lists)
    parameters = {"k_grid": list(task.ann), "protocol": task.protocol}
    # A metric that was changed, or is new, has to be measured.
    if not part.begin(parameters, same_code=True):
        return
    names, queries = [metric.name for metric in task.metrics], load_array(task.queries)
    shape = len(names), len(task.ann), len(queries)
    stored = part.create("values.npy", shape, np.float64, scratch=True)
    for block, values in compute_blocks(part, task, task.blocks(), run):
        part.write("values.npy", np.s_[:, :, slice(*block)], values)
        part.checkpoint(block)
    for i, k in enumerate(task.ann):
        keys = {"run": np.full(len(queries), run), "k": np.full(len(queries), k, np.int32)}
        columns = dict(zip(names, stored[:, i], strict=True))
        part.append(part_file(run), {**keys, "query": queries, **columns})
    part.commit()


def part_file(run: str) -> str:
    """Where what was measured of a run is stored."""
    return f"{PER_QUERY}{run}.parquet"


def remove_other_parts(stage: Stage, plan: MetricsPlan) -> None:
    """Remove what was measured of runs that are no longer there."""
    for path in stage.results.path(PER_QUERY).glob("*.json"):
        if path.stem not in plan.tasks:
            stage.results.remove(f"{stage.name}/{path.stem}")


def store_per_query(stage: Stage, parts: Mapping[str, Path], names: list[str]) -> None:
    """Put the parts together; a metric that a run has not is NaN."""
    for path in parts.values():
        with pq.ParquetFile(path) as file:
            for i in range(file.num_row_groups):
                table = file.read_row_group(i)
                nothing = np.full(len(table), np.nan)
                columns = dict.fromkeys(("run", "k", "query", *names), nothing)
                columns |= zip(table.column_names, table.columns, strict=True)
                stage.append("05_per_query.parquet", columns)
