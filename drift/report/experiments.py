"""The paper's three experiments: our curves beside the published ones."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from drift.indexes.run import Run
from drift.report.study import Study

MISSING = float(np.finfo(np.float32).max)  # what FAISS writes for a missing neighbor
HOLDS_MISSING = 1e30  # a mean above this holds it
N_PUBLISHED = 10_000  # queries in each of the published samples
# The published curves, by what they are called in the page.
QUANTITIES = {
    "overlap": "overlap",
    "mean_squared_distance_exact": "mean squared distance, exact",
    "mean_squared_distance_ann": "mean squared distance, index",
    "barycenter_shift_paper": "barycenter shift / mean squared distance",
    "lid_paper_exact": "LID of squares, exact",
    "lid_paper_ann": "LID of squares, index",
}


class Experiment(NamedTuple):
    title: str
    varied: str
    fixed: str


EXPERIMENTS = {
    "ef_search": Experiment("efSearch", "efSearch {:g}", "efConstruction 200"),
    "ef_construction": Experiment("efConstruction", "efConstruction {:g}", "efSearch 50"),
    "alpha": Experiment("efSearch proportional to k", "efSearch {:g} k", "efConstruction 400"),
}


def values_of(run: Run) -> dict[str, float]:
    """The value of a run in each of the experiments that it is part of."""
    if run.factory or (run.library, run.M, run.seed) != ("faiss", 32, 0):
        return {}
    ef, ef_construction = run.ef_search, run.ef_construction
    values = {
        "ef_search": ef.number if ef_construction == 200 else None,
        "ef_construction": ef_construction if ef.number == 50 else None,
        "alpha": ef.multiple if ef.least is None and ef_construction == 400 else None,
    }
    return {name: float(value) for name, value in values.items() if value is not None}


def runs_of(study: Study, experiment: str) -> dict[float, str]:
    """The runs that were searched as in an experiment, by its published values."""
    published = study.published.curves
    known = set(published.loc[published["study"] == experiment, "value"])
    values = {values_of(run).get(experiment): name for name, run in study.runs.items()}
    return {value: values[value] for value in sorted(known.intersection(values))}


def _compare(ours: pd.Series, published: pd.DataFrame, quantity: str) -> str:
    """Whether our curve, by k, is within two standard deviations wherever both have a mean."""
    rows = published.set_index("k").reindex(ours.index)
    deviations = (ours - rows[quantity]).abs() / rows[f"{quantity}_sd"]
    if quantity == "mean_squared_distance_ann":
        # Which row is missing a neighbor is chance: all that counts is whether a sample jumps too.
        jumps = ours > HOLDS_MISSING
        deviations[jumps] = np.where(rows["subsets_padded"][jumps] > 0, np.nan, np.inf)
    deviations = deviations.dropna()
    outside = deviations[deviations > 2]
    if deviations.empty:
        return "not comparable"
    if outside.empty:
        return "within"
    most = outside.idxmax()
    by = "a jump" if np.isinf(outside[most]) else f"{outside[most]:.1f} sd"
    return f"outside, by {by} at k = {most}; {len(outside)} of {len(deviations)} k"


def comparison(study: Study) -> pd.DataFrame:
    """For each published curve whether ours lies within its two standard deviations."""
    rows, curves = [], study.published.curves
    for name, experiment in EXPERIMENTS.items():
        for value, run in runs_of(study, name).items():
            published = curves[(curves["study"] == name) & (curves["value"] == value)]
            cells = {"curve": f"{experiment.varied.format(value)}, {experiment.fixed}"}
            for quantity, title in QUANTITIES.items():
                cells[title] = _compare(study.run_curve(run, quantity)["mean"], published, quantity)
            rows.append(cells)
    return pd.DataFrame(rows)


def short_rows(study: Study) -> pd.DataFrame:
    """How many queries of each run and k came back short by one neighbor, and by more."""
    queries = study.per_query
    missing = ((1 - queries["found"]) * queries["k"]).round()
    counts = pd.DataFrame({"by_one": missing == 1, "by_more": missing > 1})
    return counts.groupby([queries["run"], queries["k"]], observed=True).sum()


def is_same_data(study: Study) -> bool:
    """Whether our embeddings are of a sample of the images, by the network, of the paper."""
    images, embeddings = study.parameters("01_images"), study.parameters("02_embeddings")
    ours = images.get("dataset"), images.get("split"), embeddings.get("model"), study.n_queries
    return ours == ("stl10", "unlabeled", "resnet50", N_PUBLISHED)
