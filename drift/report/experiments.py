"""The paper's three experiments: our curves beside the published ones."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from drift.report.study import Study

LADEN = 1e30  # a mean above this holds what FAISS writes for a missing neighbor
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
    """What the paper varied, and what it left as it was."""

    varied: str
    fixed: str


EXPERIMENTS = {
    "ef_search": Experiment("efSearch {:g}", "efConstruction 200"),
    "ef_construction": Experiment("efConstruction {:g}", "efSearch 50"),
    "alpha": Experiment("efSearch {:g} k", "efConstruction 400"),
}


def values_of(parameters: Mapping[str, Any]) -> dict[str, float]:
    """The value of a run in each of the experiments that it is part of."""
    if [parameters.get(key) for key in ("backend", "M", "seed")] != ["faiss", 32, 0]:
        return {}
    ef_search, ef_construction = str(parameters["ef_search"]), parameters["ef_construction"]
    values = {}
    if ef_search.isdigit() and ef_construction == 200:
        values["ef_search"] = float(ef_search)
    if ef_search == "50":
        values["ef_construction"] = float(ef_construction)
    if ef_search.endswith("k") and ef_construction == 400:
        values["alpha"] = float(ef_search[:-1] or 1)
    return values


def runs_of(study: Study, published: pd.DataFrame, experiment: str) -> dict[float, str]:
    """The runs that were searched as in an experiment, by its published values."""
    known = set(published.loc[published["study"] == experiment, "value"])
    runs = {}
    for run, parameters in study.facts["parameters"]["runs"].items():
        value = values_of(parameters).get(experiment)
        if value in known:
            runs[value] = run
    return dict(sorted(runs.items()))


def compare(ours: pd.Series, published: pd.DataFrame, quantity: str) -> str:
    """Whether a curve lies within two standard deviations of the published mean at every k.

    Compared is where both have a mean; of distances that hold FAISS's value for a missing neighbor,
    which depend on single rows, only that no published sample has them at this k.

    Parameters
    ----------
    ours : Series
        By k.
    published : DataFrame
        One published curve, with columns ``k``, `quantity`, its ``_sd``, ``subsets_padded``.
    quantity : str
        Of `QUANTITIES`.
    """
    rows = published.set_index("k").reindex(ours.index)
    deviations = (ours - rows[quantity]).abs() / rows[f"{quantity}_sd"]
    if quantity == "mean_squared_distance_ann":
        laden = ours > LADEN
        deviations[laden] = np.where(rows["subsets_padded"][laden] > 0, np.nan, np.inf)
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
    rows, publication = [], study.publication
    for name, experiment in EXPERIMENTS.items():
        for value, run in runs_of(study, publication.curves, name).items():
            chosen = (publication.curves["study"] == name) & (publication.curves["value"] == value)
            cells = {"curve": f"{experiment.varied.format(value)}, {experiment.fixed}"}
            for quantity, title in QUANTITIES.items():
                ours = study.run_curve(run, quantity)["mean"]
                cells[title] = compare(ours, publication.curves[chosen], quantity)
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
    parts = (("01_images", "dataset"), ("01_images", "split"), ("02_embeddings", "model"))
    stages = study.manifests
    found = [stages.get(stage, {}).get("parameters", {}).get(key) for stage, key in parts]
    return found == ["stl10", "unlabeled", "resnet50"] and study.n_queries == N_PUBLISHED
