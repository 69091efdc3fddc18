"""Stage 05: measure how each run's neighborhoods differ from the exact ones.

reads   results/02_embeddings.npy, results/03_*, and the runs of results/04_hnsw/ made from them
writes  results/05_per_query.parquet  a row for each run, k and query, a column for each metric
        results/05_curves.parquet     for each run, k and metric the mean, its interval, quantiles
        results/05_safe_k.parquet     for each run and tolerance the largest safe k, the crossing
        results/05_graphs.parquet     where runs differ by their seed alone, means over the graphs
        results/05_metrics.json       the manifest, with what the lists of one length change for
                                      each use of them: densities, dimensions, retrieval, graphs
                                      and, where images have labels, classes

examples
  python 05_metrics.py
  python 05_metrics.py --k-of-interest 100
  python 05_metrics.py --seed 1    other bootstrap resamples
  python 05_metrics.py --scheduler tcp://host:8786    on the workers of a Dask cluster
"""

from drift.pipeline import cli  # first: from here on Ctrl-C ends in one line

# isort: split
import argparse

import numpy as np
import pandas as pd

from drift import statistics
from drift.pipeline.blocks import compute_blocks
from drift.pipeline.stage import Stage
from drift.pipeline.tasks.measure import MetricsPlan, plan_runs
from drift.report.by_use import by_use
from drift.report.study import Study
from drift.report.tables import overview
from drift.report.verdict import verdict
from drift.summary import RunValues, summarize_runs

NAMED = ("01_images", "02_embeddings", "03_exact")  # in what is printed


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__, scheduler=True)
    text = "the k of the verdict by use; without it, the largest of the grid"
    parser.add_argument("--k-of-interest", type=cli.integer(1), metavar="K", help=text)
    return parser


def main(args: argparse.Namespace) -> None:
    stage = Stage("05_metrics", args)
    plan = plan_runs(stage)
    for name, reason in plan.left_out.items():
        print(f"left out: {name} ({reason})")
    k = plan.k_of_interest(args.k_of_interest)
    parameters = {"runs": plan.runs, "n_resamples": statistics.N_RESAMPLES, "seed": args.seed}
    parameters["k_of_interest"] = k
    if stage.begin(parameters):
        measured = {run: measure_queries(stage, plan, run) for run in plan.runs}
        tables = summarize_runs(measured, args.seed, plan.groups)
        curves = pd.concat([tables.curves, plan.task.graph_metrics()])
        order = {run: i for i, run in enumerate(plan.runs)}
        curves = curves.iloc[np.lexsort((curves["k"], curves["run"].map(order)))]
        columns = ["run", "k", "metric", *statistics.SUMMARY]
        curves = curves[columns].astype({"k": "int32", "n": "int32"})
        curves.to_parquet(stage.output("05_curves.parquet"), index=False)
        safe_k = tables.safe_k.astype({"safe_k": "int32"})
        safe_k.insert(0, "run", safe_k.pop("run"))
        safe_k.to_parquet(stage.output("05_safe_k.parquet"), index=False)
        if len(tables.graphs):
            tables.graphs.to_parquet(stage.output("05_graphs.parquet"), index=False)
        stage.commit(
            left_out=plan.left_out,
            metrics=plan.task.descriptions(*plan.runs),
            n_queries=len(plan.task.query_rows),
            groups=plan.n_groups,
            differences=tables.differences.to_dict("records"),
            by_use=plan.by_use(measured, k, args.seed),
        )
    print_summary(stage, plan)


def measure_queries(stage: Stage, plan: MetricsPlan, run: str) -> RunValues:
    """Measure every query of a run at every k, and store that."""
    names, grid, queries = plan.task.descriptions(run), plan.task.grid(run), plan.task.query_rows
    array = (f"{run}.npy", (len(names), len(grid), len(queries)), np.float64)
    stage.create(*array, scratch=True)
    for block, values in compute_blocks(stage, plan.task, plan.task.blocks(run), run):
        stage.write(f"{run}.npy", np.s_[:, :, block.start : block.stop], values)
        stage.checkpoint(block)
    values = stage.create(*array, scratch=True)
    for k, at_k in zip(grid, values.transpose(1, 0, 2), strict=True):
        keys = {"run": np.full(len(queries), run), "k": np.full(len(queries), k, np.int32)}
        columns = dict.fromkeys(plan.task.descriptions(*plan.runs), np.full(len(queries), np.nan))
        columns |= zip(names, at_k, strict=True)
        stage.append("05_per_query.parquet", {**keys, "query": queries, **columns})
    return RunValues(*plan.family_and_seed(run), grid, dict(zip(names, values, strict=True)))


def print_summary(stage: Stage, plan: MetricsPlan) -> None:
    facts = stage.manifest()
    names = [f"05_{table}.parquet" for table in ("curves", "safe_k", "graphs")]
    tables = [stage.read(name) if name in facts["outputs"] else None for name in names]
    stages = {name: stage.results.manifest(name) for name in NAMED}
    manifests = {name: manifest for name, manifest in stages.items() if manifest}
    study = Study.from_tables(*tables, facts, plan.searched, manifests=manifests)
    cli.print_text(verdict(study).sentences)
    use = by_use(study)
    cli.print_text(use.sentences)
    cli.print_table(use.title, use.table.set_index("run").T.reset_index(names=""))
    cli.print_table(f"curves in {stage.results.path(names[0])}", overview(study))


if __name__ == "__main__":
    cli.run(main, arguments())
