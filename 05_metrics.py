"""Stage 05: measure how each run's neighborhoods differ from the exact ones.

reads   results/02_embeddings.npy, results/03_*, and the runs of results/04_hnsw/ made from them
writes  results/05_per_query.parquet  a row for each run, k and query, a column for each metric
        results/05_curves.parquet     for each run, k and metric the mean, its interval, quantiles
        results/05_safe_k.parquet     for each run and tolerance the largest safe k, the crossing
        results/05_graphs.parquet     where runs differ by their seed alone, means over the graphs
        results/05_differences.parquet  by how much each two runs differ
        results/05_by_use.parquet     what the lists of one length change for each use of them
        results/05_clusters.parquet   with igraph, clusters of the k-NN graphs
        results/05_per_query/RUN.parquet  what was measured of one run, from which the rest is made
        results/05_metrics.json       the manifest

examples
  python 05_metrics.py
  python 05_metrics.py --k-of-interest 100
  python 05_metrics.py --seed 1    other partitions into clusters
  python 05_metrics.py --scheduler tcp://host:8786    on the workers of a Dask cluster
"""

import drift.pipeline.cli as cli

import argparse

from drift.pipeline.environment import package_versions
from drift.pipeline.stage import Stage
from drift.report.by_use import TOLERANCES, by_use
from drift.report.sentences import paragraphs
from drift.report.study import Study
from drift.report.tables import fitting, overview
from drift.stages.metrics import (
    measure_run,
    part_file,
    plan_runs,
    remove_other_parts,
    store_per_query,
)


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__, scheduler=True)
    text = "the k of the verdict by use; without it, the largest of the grid"
    parser.add_argument("--k-of-interest", type=cli.integer(1), metavar="K", help=text)
    return parser


def main(args: argparse.Namespace) -> None:
    stage = cli.open_stage("05_metrics", args)
    plan = plan_runs(stage)
    for name, reason in plan.left_out.items():
        print(f"left out: {name} ({reason})")
    k = plan.k_of_interest(args.k_of_interest)
    for run, task in plan.tasks.items():
        measure_run(stage, run, task)
    parts = dict(zip(plan.tasks, stage.require(*map(part_file, plan.tasks)), strict=True))
    runs = {run: manifest["parameters"] for run, manifest in plan.searched.items()}
    parameters = {"runs": runs, "k_of_interest": k, "seed": args.seed}
    # It is optional: what was measured without it is not up to date with it.
    if stage.begin(parameters | {"igraph": package_versions().get("igraph")}):
        store_per_query(stage, parts, list(plan.descriptions))
        measured = {run: plan.values(run, path) for run, path in parts.items()}
        uses, notes = plan.by_use(stage, measured, k, args.seed)
        for name, table in (plan.tables(measured, k) | {"by_use": uses}).items():
            if name != "graphs" or len(table["k"]):
                stage.append(f"05_{name}.parquet", table)
        stage.commit(**plan.notes, **notes)
        remove_other_parts(stage, plan)
    print_summary(stage)


def print_summary(stage: Stage) -> None:
    study = Study.read(stage.read, stage.results.manifest, stage.results.root)
    for paragraph in paragraphs(study):
        cli.print_text(paragraph)
    use = by_use(study)
    cli.print_text(use.notes)
    uses = "; ".join(f"{name} is {what}" for name, what in use.uses.items())
    cli.print_text([f"By use, {uses}."])
    kept, changed = (f"{100 * tolerance:g} %" for tolerance in TOLERANCES)
    for part in fitting(use.table):
        title = f"by use, k = {study.k_of_interest}: kept up to {kept}, changed up to {changed}"
        cli.print_table(title, part)
    curves = f"curves in {stage.results.path('05_curves.parquet')}"
    for part in fitting(overview(study)):
        title = f"kept of k neighbors in %, the rest at k = {study.k_of_interest}; {curves}"
        cli.print_table(title, part)


if __name__ == "__main__":
    cli.run(main, arguments())
