"""Stage 05: measure how each run's neighborhoods differ from the exact ones.

reads   results/02_embeddings.npy, results/03_*, and the runs of results/04_hnsw/ made from them
writes  results/05_per_query.parquet  a row for each run, k and query, a column for each metric
        results/05_curves.parquet     for each run, k and metric the mean, its interval, quantiles
        results/05_safe_k.parquet     for each run and criterion the largest safe k, and the onset
        results/05_metrics.json       the manifest

examples
  python 05_metrics.py
  python 05_metrics.py --seed 1           other bootstrap resamples
  python 05_metrics.py --results results-notebook
"""

import argparse

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from drift import blocks, metrics, stage, statistics
from drift.artifacts import ArtifactError, Draft, Results

STAGE = "05_metrics"
EXACT = ("03_queries.npy", "03_exact_indices.npy", "03_exact_distances.npy")


def main(args: argparse.Namespace) -> None:
    results = Results(args.results)
    inputs = results.require("02_embeddings.npy", *EXACT)
    runs, left_out = results.runs()
    for name, reason in left_out.items():
        print(f"left out: {name} ({reason})")
    if not runs:
        raise ArtifactError(
            f"{results.path('04_hnsw')} holds no run made from the present exact lists: "
            "run 04_hnsw_search.py first"
        )
    for manifest in runs.values():
        inputs |= results.require(*manifest["outputs"])
    parameters = {"runs": list(runs), "n_resamples": statistics.N_RESAMPLES, "seed": args.seed}
    if stage.up_to_date(results, STAGE, parameters, inputs, args.force):
        return

    include_self = results.manifest("03_exact")["parameters"]["include_self"]
    names = [metric.name for metric in metrics.METRICS + metrics.NOTEBOOK_METRICS * include_self]
    curves, safe_ks = [], []
    draft = results.draft(STAGE, parameters, inputs, fresh=args.force)
    with pq.ParquetWriter(draft.path("05_per_query.parquet"), per_query_schema(names)) as per_query:
        for run, manifest in runs.items():
            grid = manifest["parameters"]["k_grid"]
            values = measure_run(results, draft, run, grid, names)
            write_per_query(per_query, run, grid, results.load("03_queries.npy"), values)
            curve, safe_k = statistics.summarize_run(
                grid, dict(zip(names, values, strict=True)), args.seed
            )
            curve = pd.concat([curve, graph_curve(results, run, grid)]).sort_values(
                "k", kind="stable"
            )
            curves.append(curve.assign(run=run))
            safe_ks.append(safe_k.assign(run=run))
    curves = pd.concat(curves)[["run", "k", "metric", *statistics.SUMMARY]].astype({"k": "int32"})
    curves.to_parquet(draft.path("05_curves.parquet"), index=False)
    safe_k = pd.concat(safe_ks)
    safe_k.insert(0, "run", safe_k.pop("run"))
    safe_k.astype({"safe_k": "int32"}).to_parquet(draft.path("05_safe_k.parquet"), index=False)
    draft.publish(left_out=left_out)
    stage.report(f"curves in {results.path('05_curves.parquet')}", overview(curves, safe_k))


def measure_run(
    results: Results, draft: Draft, run: str, grid: list[int], names: list[str]
) -> np.ndarray:
    """Every per-query metric of a run: float64 (metrics, grid, queries)."""
    embeddings = results.load("02_embeddings.npy")
    exact_indices, exact_distances = (
        results.load("03_exact_indices.npy"),
        results.load("03_exact_distances.npy"),
    )
    values = draft.scratch(f"{run}.npy", (len(names), len(grid), len(exact_indices)), np.float64)
    notebook = "lid_notebook_exact" in names

    def compute(unit: tuple[str, int]) -> dict[str, np.ndarray]:
        _, k = unit
        exact = exact_indices[:, :k], exact_distances[:, :k]
        ann = tuple(
            results.load(f"04_hnsw/{run}/k{k:04d}_{part}.npy") for part in ("indices", "distances")
        )
        measured = metrics.measure(*exact, *ann, embeddings)
        return measured | metrics.measure_notebook(exact[1], ann[1]) if notebook else measured

    def store(unit: tuple[str, int], measured: dict[str, np.ndarray]) -> None:
        _, k = unit
        values[:, grid.index(k)] = [measured[name] for name in names]
        values.flush()

    blocks.run([(run, k) for k in grid], compute, store, draft, run)
    return values


def graph_curve(results: Results, run: str, grid: list[int]) -> pd.DataFrame:
    """Hubness and orphans over k, where every row was searched for: they describe whole graphs."""
    exact = results.load("03_exact_indices.npy")
    n = results.manifest("02_embeddings")["outputs"]["02_embeddings.npy"]["shape"][0]
    rows = []
    for k in grid if len(exact) == n else []:
        ann = results.load(f"04_hnsw/{run}/k{k:04d}_indices.npy")
        for side, lists in (("exact", exact[:, :k]), ("ann", ann)):
            rows.append(
                {"k": k, "metric": f"hubness_{side}", "mean": metrics.hubness(lists, n), "n": n}
            )
            rows.append(
                {"k": k, "metric": f"orphans_{side}", "mean": metrics.orphans(lists, n), "n": n}
            )
    return pd.DataFrame(rows)


def per_query_schema(names: list[str]) -> pa.Schema:
    keys = [("run", pa.string()), ("k", pa.int32()), ("query", pa.int32())]
    return pa.schema(keys + [(name, pa.float64()) for name in names])


def write_per_query(
    writer: pq.ParquetWriter, run: str, grid: list[int], queries: np.ndarray, values: np.ndarray
) -> None:
    """Append a run to the table of single queries, one row group for each k."""
    for at, k in enumerate(grid):
        columns = [
            np.full(len(queries), run),
            np.full(len(queries), k, np.int32),
            queries,
            *values[:, at],
        ]
        writer.write_table(pa.table([pa.array(column) for column in columns], schema=writer.schema))


def overview(curves: pd.DataFrame, safe_k: pd.DataFrame) -> pd.DataFrame:
    """For each run the overlap at a few k, the share found at the last, safe k and onset."""
    wide = curves.pivot(index="run", columns=["metric", "k"], values="mean")
    ks = sorted(curves["k"].unique())
    shown = [k for k in ks if k in (10, 50, 100, 250)] or ks[:1]
    table = pd.DataFrame({f"overlap@{k}": wide["overlap", k] for k in shown})
    table[f"found@{ks[-1]}"] = wide["found", ks[-1]]
    strictest = safe_k[safe_k["criterion"] == "overlap"].set_index("run").groupby(level=0).first()
    table["safe k (0.99)"], table["onset"] = strictest["safe_k"], strictest["onset"]
    return table.reset_index()


if __name__ == "__main__":
    stage.run(main, stage.parser(__doc__))
