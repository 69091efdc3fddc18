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
from drift.vectors import check_embeddings

STAGE = "05_metrics"
EXACT = ("03_queries.npy", "03_exact_indices.npy", "03_exact_distances.npy")


# Where lists lie: their ids and their distances.
Pair = tuple[Path, Path]


class Lists(blocks.Portable):
    """Embeddings, exact lists, and other lists for each k, memory-mapped; what measures a block.

    A file may hold longer lists than its k: the first k count.
    """

    def __init__(self, embeddings: Path, exact: Pair, ann: dict[int, Pair], notebook: bool):
        # A copy of those that are not of single precision.
        self.embeddings = np.ascontiguousarray(load_array(embeddings), np.float32)
        self.exact = tuple(native(load_array(path)) for path in exact)
        self.ann = {
            k: tuple(native(load_array(path)[:, :k]) for path in pair) for k, pair in ann.items()
        }
        self.notebook = notebook

    def __call__(self, unit: tuple[str, int, int]) -> dict[str, np.ndarray]:
        rows = slice(*unit[1:])
        exact = [part[rows] for part in self.exact]
        ann = {k: (ids[rows], distances[rows]) for k, (ids, distances) in self.ann.items()}
        measured = metrics.measure(*exact, ann, self.embeddings)
        if self.notebook:
            measured |= metrics.measure_notebook(exact[1], ann)
        return measured


def native(lists: np.ndarray) -> np.ndarray:
    """Ids as torch takes them, and floats of this machine's byte order; a copy if need be."""
    if lists.dtype.kind in "iu":
        return lists if lists.dtype in (np.int32, np.int64) else lists.astype(np.int64)
    return lists.astype(lists.dtype.newbyteorder("="), copy=False)


@dataclass(frozen=True)
class Comparison:
    """A run, the rows that were searched for, and the lists that were found."""

    run: str
    parameters: dict[str, Any]
    queries: np.ndarray
    lists: Lists


def arguments() -> argparse.ArgumentParser:
    parser = stage.parser(__doc__)
    stage.add_scheduler(parser)
    pair = {"nargs": 2, "type": Path, "metavar": ("IDS", "DISTANCES")}
    parser.add_argument("--exact-lists", **pair, help="measure lists of another system: exact ones")
    parser.add_argument("--ann-lists", **pair, help="and what that system returned")
    parser.add_argument("--embeddings", type=Path, metavar="FILE", help="and the vectors")
    return parser


def main(args: argparse.Namespace) -> None:
    results = Results(args.results)
    elsewhere = (args.exact_lists, args.ann_lists, args.embeddings)
    if any(elsewhere) and not all(elsewhere):
        raise InputError("--exact-lists, --ann-lists and --embeddings go together")
    inputs, comparisons, left_out = (
        lists_of_files(args) if any(elsewhere) else lists_of_runs(results)
    )
    parameters = {
        "runs": {comparison.run: comparison.parameters for comparison in comparisons},
        "n_resamples": statistics.N_RESAMPLES,
        "seed": args.seed,
    }
    for name, reason in left_out.items():
        print(f"left out: {name} ({reason})")
    if stage.up_to_date(results, STAGE, parameters, inputs, args.force):
        return

    notebook = comparisons[0].lists.notebook
    names = [metric.name for metric in metrics.METRICS + metrics.NOTEBOOK_METRICS * notebook]
    draft = Draft(results, STAGE, parameters, inputs, fresh=args.force)
    curves, safe_k = [], []
    reads = [results.path(name) for name in inputs]
    with (
        cluster.connect(args.scheduler, reads, args.threads) as workers,
        per_query_writer(draft.path("05_per_query.parquet"), names) as per_query,
    ):
        for comparison in comparisons:
            values = measure(comparison, draft, names, workers)
            write_per_query(per_query, comparison, values)
            by_name = dict(zip(names, values, strict=True))
            of_run, safe = statistics.summarize_run(list(comparison.lists.ann), by_name, args.seed)
            of_run = pd.concat([of_run.assign(run=comparison.run), graph_curves(comparison)])
            curves.append(of_run.sort_values("k", kind="stable"))
            safe_k.append(safe.assign(run=comparison.run))
    curves = pd.concat(curves)
    curves = curves[["run", "k", "metric", *statistics.SUMMARY]].astype(
        {"k": "int32", "n": "int32"}
    )
    curves.to_parquet(draft.path("05_curves.parquet"), index=False)
    safe_k = pd.concat(safe_k).astype({"safe_k": "int32"})
    safe_k.insert(0, "run", safe_k.pop("run"))
    safe_k.to_parquet(draft.path("05_safe_k.parquet"), index=False)
    draft.publish(left_out=left_out)

    runs = {comparison.run: comparison.run for comparison in comparisons}
    print("\n" + "\n".join(report.findings(curves, safe_k, runs)))
    title = f"curves in {results.path('05_curves.parquet')}"
    stage.report(title, report.overview(curves, safe_k))


def lists_of_runs(results: Results) -> tuple[dict[str, Any], list[Comparison], dict[str, str]]:
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
    comparisons = []
    for run, manifest in runs.items():
        inputs |= results.require(*(name for name in manifest["outputs"] if name.endswith(".npy")))

        parameters = manifest["parameters"]
        folder = results.path(f"04_hnsw/{run}").absolute()
        ann = {
            k: (folder / f"k{k:04d}_indices.npy", folder / f"k{k:04d}_distances.npy")
            for k in parameters["k_grid"]
        }
        lists = Lists(embeddings, tuple(exact), ann, notebook)
        comparisons.append(Comparison(run, parameters, load_array(queries), lists))
    return inputs, comparisons, left_out


def lists_of_files(
    args: argparse.Namespace,
) -> tuple[dict[str, Any], list[Comparison], dict[str, str]]:
    """Lists of another system: one pair of files, cut for each k."""
    paths = [path.resolve() for path in (*args.exact_lists, *args.ann_lists, args.embeddings)]
    exact_ids, exact_distances, ann_ids, ann_distances, embeddings = map(load_array, paths)
    check_embeddings(embeddings, str(args.embeddings))
    metrics.check_lists(exact_ids, exact_distances, len(embeddings), "--exact-lists", missing=False)
    metrics.check_lists(ann_ids, ann_distances, len(embeddings), "--ann-lists", missing=True)
    if len(exact_ids) != len(ann_ids):
        raise InputError(
            f"--exact-lists are of {len(exact_ids)} queries, --ann-lists of {len(ann_ids)}"
        )
    k_max = min(exact_ids.shape[1], ann_ids.shape[1])
    grid = list(range(10, k_max + 1, 10)) or [k_max]
    comparison = Comparison(
        run="lists",
        parameters={"backend": args.ann_lists[0].stem, "ef_search": None},
        queries=np.arange(len(exact_ids), dtype=np.int32),
        lists=Lists(
            paths[4], (paths[0], paths[1]), dict.fromkeys(grid, (paths[2], paths[3])), False
        ),
    )
    return {str(path): describe(path) for path in paths}, [comparison], {}


def measure(
    comparison: Comparison, draft: Draft, names: list[str], workers: blocks.Workers | None
) -> np.ndarray:
    """Every per-query metric of a run: float64 (metrics, grid, queries)."""
    grid, n_queries = list(comparison.lists.ann), len(comparison.queries)
    shape = (len(names), len(grid), n_queries)
    values = draft.scratch(f"{comparison.run}.npy", shape, np.float64)

    def store(unit: tuple[str, int, int], measured: dict[str, np.ndarray]) -> None:
        values[:, :, slice(*unit[1:])] = [measured[name] for name in names]
        values.flush()

    # Ids and distances of all lengths, and one row of each metric for each of them.
    bytes_per_row = 8 * sum(grid) + 16 * len(names) * len(grid)
    units = [(comparison.run, *rows) for rows in blocks.row_blocks(n_queries, bytes_per_row)]
    rows, share = blocks.sample_rows(n_queries)
    sample = (comparison.run, *rows), share
    blocks.run(units, comparison.lists, store, draft, comparison.run, workers, sample)
    return values


def graph_curves(comparison: Comparison) -> pd.DataFrame:
    """Hubness and orphans over k, where every row was searched for: they describe whole graphs."""
    lists, n = comparison.lists, len(comparison.lists.embeddings)
    rows = []
    for k, (ann, _) in lists.ann.items() if len(comparison.queries) == n else ():
        for side, ids in (("exact", lists.exact[0][:, :k]), ("ann", ann)):
            counts = metrics.occurrences(ids, n)
            for name, measured in (("hubness", metrics.hubness), ("orphans", metrics.orphans)):
                rows.append((comparison.run, k, f"{name}_{side}", measured(counts), n))
    return pd.DataFrame(rows, columns=["run", "k", "metric", "mean", "n"])


def per_query_writer(path: Path, names: list[str]) -> pq.ParquetWriter:
    keys = [("run", pa.string()), ("k", pa.int32()), ("query", pa.int32())]
    schema = pa.schema(keys + [(name, pa.float64()) for name in names])
    # Looking for repeated values among floats takes longer than writing them.
    return pq.ParquetWriter(path, schema, use_dictionary=["run"])


def write_per_query(writer: pq.ParquetWriter, comparison: Comparison, values: np.ndarray) -> None:
    """Append a run to the table of single queries, one row group for each k."""
    n = len(comparison.queries)
    for at, k in enumerate(comparison.lists.ann):
        keys = [np.full(n, comparison.run), np.full(n, k, np.int32), comparison.queries]
        columns = [pa.array(column) for column in (*keys, *values[:, at])]
        writer.write_table(pa.table(columns, schema=writer.schema))


if __name__ == "__main__":
    stage.run(main, arguments())
