"""Stage 05: measure how each run's neighborhoods differ from the exact ones.

reads   results/02_embeddings.npy, results/03_*, and the runs of results/04_hnsw/ made from them
writes  results/05_per_query.parquet  a row for each run, k and query, a column for each metric
        results/05_curves.parquet     for each run, k and metric the mean, its interval, quantiles
        results/05_safe_k.parquet     for each run and criterion the largest safe k, and the onset
        results/05_metrics.json       the manifest

examples
  python 05_metrics.py
  python 05_metrics.py --seed 1    other bootstrap resamples
  python 05_metrics.py --scheduler tcp://host:8786    on the workers of a Dask cluster
  python 05_metrics.py --results results-pgvector --embeddings x.npy \\
      --exact-lists ids.npy distances.npy --ann-lists their_ids.npy their_distances.npy
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from drift import InputError, blocks, cluster, metrics, report, stage, statistics
from drift.artifacts import ArtifactError, Results, describe, load_array
from drift.draft import Draft
from drift.lists import Pair, check_lists
from drift.vectors import center, check_embeddings

STAGE = "05_metrics"
EXACT = ("03_queries.npy", "03_exact_indices.npy", "03_exact_distances.npy")


# A run, the first of some queries, and the one after the last.
Unit = tuple[str, int, int]


class Measure(blocks.Portable):
    """Measure the lists of a run for a block of queries, beside the exact ones.

    A file may hold longer lists than its k: the first k count.
    """

    def __init__(self, vectors: Path, exact: Pair, ann: dict[str, dict[int, Pair]], notebook: bool):
        self.vectors, self.exact, self.ann, self.notebook = vectors, exact, ann, notebook
        self.centered: np.ndarray | None = None

    def __call__(self, unit: Unit) -> dict[str, np.ndarray]:
        run, start, stop = unit
        exact = self.exact.read(start, stop)
        ann = {k: pair.read(start, stop, k) for k, pair in self.ann[run].items()}
        if self.centered is None:
            self.centered = self.center()
        measured = metrics.measure(*exact, ann, self.centered)
        if self.notebook:
            measured |= metrics.measure_notebook(exact[1], ann)
        return measured

    def center(self) -> np.ndarray:
        """The vectors about their mean, in the memory of the map where they fit: it is a copy."""
        given = load_array(self.vectors)
        fits = given.dtype == np.float32 and given.flags.c_contiguous
        return center(given, out=given if fits else None)


@dataclass(frozen=True)
class Study:
    """What is to be measured.

    Attributes
    ----------
    runs : dict
        Parameters of each run, for the manifest.
    queries : ndarray of int32, shape (Q,)
        The rows that were searched for.
    measure : Measure
        Where the lists lie, and what measures them.
    """

    runs: dict[str, dict[str, Any]]
    queries: np.ndarray
    measure: Measure

    @property
    def metric_names(self) -> list[str]:
        """What is measured of every query."""
        chosen = metrics.METRICS + metrics.NOTEBOOK_METRICS * self.measure.notebook
        return [metric.name for metric in chosen]

    def grid(self, run: str) -> list[int]:
        """The k of a run."""
        return list(self.measure.ann[run])

    def units(self, run: str) -> list[Unit]:
        """Blocks of queries, for each of which ids, distances and metrics of all k are held."""
        grid = self.grid(run)
        bytes_per_row = 8 * sum(grid) + 16 * len(self.metric_names) * len(grid)
        return [(run, *rows) for rows in blocks.row_blocks(len(self.queries), bytes_per_row)]


def arguments() -> argparse.ArgumentParser:
    parser = stage.parser(__doc__)
    stage.add_scheduler(parser)
    pair = {"nargs": 2, "type": Path, "metavar": ("IDS", "DISTANCES")}
    parser.add_argument("--exact-lists", **pair, help="measure lists of another system: exact ones")
    parser.add_argument(
        "--ann-lists",
        **pair,
        help="and what that system returned; "
        "they are measured at k = 10, 20, ... and at their whole length",
    )
    parser.add_argument("--embeddings", type=Path, metavar="FILE", help="and the vectors")
    return parser


def main(args: argparse.Namespace) -> None:
    results = Results(args.results)
    elsewhere = (args.exact_lists, args.ann_lists, args.embeddings)
    if any(elsewhere) and not all(elsewhere):
        raise InputError("--exact-lists, --ann-lists and --embeddings go together")
    inputs, study, left_out = lists_of_files(args) if any(elsewhere) else lists_of_runs(results)
    parameters = {
        "runs": study.runs,
        "n_resamples": statistics.N_RESAMPLES,
        "seed": args.seed,
    }
    for name, reason in left_out.items():
        print(f"left out: {name} ({reason})")
    if stage.up_to_date(results, STAGE, parameters, inputs, args.force):
        return

    draft = Draft(results, STAGE, parameters, inputs, fresh=args.force)
    curves, safe_k = [], []
    reads = [results.path(name) for name in inputs]
    with (
        cluster.connect(args.scheduler, reads, args.threads) as workers,
        per_query_writer(draft.path("05_per_query.parquet"), study.metric_names) as per_query,
    ):
        if workers is None:
            seconds = sum(estimate(study, run, draft) for run in study.runs)
            blocks.announce(seconds, f"{len(study.runs)} runs")
        for run in study.runs:
            values = measure(study, run, draft, workers)
            write_per_query(per_query, study, run, values)
            by_name = dict(zip(study.metric_names, values, strict=True))
            of_run, safe = statistics.summarize_run(study.grid(run), by_name, args.seed)
            of_run = pd.concat([of_run.assign(run=run), graph_curves(study, run)])
            curves.append(of_run.sort_values("k", kind="stable"))
            safe_k.append(safe.assign(run=run))
    curves = pd.concat(curves)
    curves = curves[["run", "k", "metric", *statistics.SUMMARY]].astype(
        {"k": "int32", "n": "int32"}
    )
    curves.to_parquet(draft.path("05_curves.parquet"), index=False)
    safe_k = pd.concat(safe_k).astype({"safe_k": "int32"})
    safe_k.insert(0, "run", safe_k.pop("run"))
    safe_k.to_parquet(draft.path("05_safe_k.parquet"), index=False)
    draft.publish(left_out=left_out)

    names = {run: run for run in study.runs}
    print("\n" + "\n".join(report.findings(curves, safe_k, names)))
    title = f"curves in {results.path('05_curves.parquet')}"
    stage.report(title, report.overview(curves, safe_k))


def lists_of_runs(results: Results) -> tuple[dict[str, Any], Study, dict[str, str]]:
    """The runs of stage 04 that belong to stage 03's lists, and why others are left out."""
    inputs = results.require("02_embeddings.npy", *EXACT)
    runs, left_out = results.runs()
    if not runs:
        raise ArtifactError(
            f"{results.path('04_hnsw')} holds no run made from the present exact lists: "
            "run 04_hnsw_search.py first"
        )
    notebook = all(manifest["parameters"]["include_self"] for manifest in runs.values())
    embeddings, queries, *exact = (
        results.path(name).absolute() for name in ("02_embeddings.npy", *EXACT)
    )
    ann = {}
    for run, manifest in runs.items():
        inputs |= results.require(*(name for name in manifest["outputs"] if name.endswith(".npy")))
        folder = results.path(f"04_hnsw/{run}").absolute()
        ann[run] = {
            k: Pair(folder / f"k{k:04d}_indices.npy", folder / f"k{k:04d}_distances.npy")
            for k in manifest["parameters"]["k_grid"]
        }
    parameters = {run: manifest["parameters"] for run, manifest in runs.items()}
    measure = Measure(embeddings, Pair(*exact), ann, notebook)
    return inputs, Study(parameters, load_array(queries), measure), left_out


def lists_of_files(
    args: argparse.Namespace,
) -> tuple[dict[str, Any], Study, dict[str, str]]:
    """Lists of another system: one pair of files, cut for each k."""
    paths = [path.resolve() for path in (*args.exact_lists, *args.ann_lists, args.embeddings)]
    exact_ids, exact_distances, ann_ids, ann_distances, embeddings = map(load_array, paths)
    check_embeddings(embeddings, str(args.embeddings))
    check_lists(exact_ids, exact_distances, embeddings, "--exact-lists", missing=False)
    check_lists(ann_ids, ann_distances, embeddings, "--ann-lists", missing=True)
    if len(exact_ids) != len(ann_ids):
        raise InputError(
            f"--exact-lists are of {len(exact_ids)} queries, --ann-lists of {len(ann_ids)}"
        )
    k_max = min(exact_ids.shape[1], ann_ids.shape[1])
    grid = sorted({*range(10, k_max + 1, 10), k_max})
    runs = {"lists": {"backend": args.ann_lists[0].stem, "ef_search": None}}
    queries = np.arange(len(exact_ids), dtype=np.int32)
    ann = {"lists": dict.fromkeys(grid, Pair(*paths[2:4]))}
    measure = Measure(paths[4], Pair(*paths[:2]), ann, False)
    return {str(path): describe(path) for path in paths}, Study(runs, queries, measure), {}


def estimate(study: Study, run: str, draft: Draft) -> float:
    """Seconds that `measure` will take."""
    units, n = study.units(run), len(study.queries)
    return blocks.estimate(units, study.measure, draft, n, lambda *rows: (run, *rows))


def measure(study: Study, run: str, draft: Draft, workers: blocks.Workers | None) -> np.ndarray:
    """Every per-query metric of a run: float64 (metrics, grid, queries)."""
    shape = (len(study.metric_names), len(study.grid(run)), len(study.queries))
    values = draft.scratch(f"{run}.npy", shape, np.float64)

    def store(unit: Unit, measured: dict[str, np.ndarray]) -> None:
        values[:, :, slice(*unit[1:])] = [measured[name] for name in study.metric_names]
        values.flush()

    blocks.run(study.units(run), study.measure, store, draft, run, workers)
    return values


def graph_curves(study: Study, run: str) -> pd.DataFrame:
    """Hubness and orphans over k, where every row was searched for: they describe whole graphs."""
    lists, n = study.measure, len(load_array(study.measure.vectors))
    rows = []
    exact, before = np.zeros(n, np.int64), 0
    for k in study.grid(run) if len(study.queries) == n else ():
        # The exact lists continue each other: only what they grow by is counted.
        exact += metrics.occurrences(lists.exact.read(0, n, k)[0][:, before:], n)
        ann, before = metrics.occurrences(lists.ann[run][k].read(0, n, k)[0], n), k
        for side, counts in (("exact", exact), ("ann", ann)):
            for name, measured in (("hubness", metrics.hubness), ("orphans", metrics.orphans)):
                rows.append((run, k, f"{name}_{side}", measured(counts), n))
    return pd.DataFrame(rows, columns=["run", "k", "metric", "mean", "n"])


def per_query_writer(path: Path, names: list[str]) -> pq.ParquetWriter:
    keys = [("run", pa.string()), ("k", pa.int32()), ("query", pa.int32())]
    schema = pa.schema(keys + [(name, pa.float64()) for name in names])
    # Looking for repeated values among floats takes longer than writing them.
    return pq.ParquetWriter(path, schema, use_dictionary=["run"])


def write_per_query(writer: pq.ParquetWriter, study: Study, run: str, values: np.ndarray) -> None:
    """Append a run to the table of single queries, one row group for each k."""
    n = len(study.queries)
    for at, k in enumerate(study.grid(run)):
        keys = [np.full(n, run), np.full(n, k, np.int32), study.queries]
        columns = [pa.array(column) for column in (*keys, *values[:, at])]
        writer.write_table(pa.table(columns, schema=writer.schema))


if __name__ == "__main__":
    stage.run(main, arguments())
