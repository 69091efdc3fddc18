"""What sentences, tables and figures are made from, and how each run looks in them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from drift.indexes.run import Run

SEARCHED = "04_hnsw/"  # and its name is the stage of a run

# Of the table of single queries, what the report needs.
PER_QUERY = ["run", "k", "query", "overlap", "found", "barycenter_shift", "distance_ratio"]
PER_QUERY += ["lid_exact"]
ENOUGH = 0.99  # of the queries must have a value for what is said of it to hold for all
# Told apart with each common color blindness, and of a contrast of 3:1 to white and more. The first
# six are those of Okabe and Ito without the yellow, two of them darkened.
COLORS = (
    *("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#3A9BD6", "#C48600"),
    *("#332288", "#8C510A", "#01665E", "#AA4499", "#661100", "#5E35B1"),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p", "d")
DASHES = ("-", "--", "-.")  # dotted is left to what is no run


class RunStyle(NamedTuple):
    """How a run looks, and its name in sentences, tables and figures; the width is in points."""

    label: str
    color: str
    dash: str
    marker: str
    width: float
    index: int = 0  # its place among the runs


def run_styles(runs: Mapping[str, Run], graphs: Mapping[str, int]) -> dict[str, RunStyle]:
    """A style for each run, by the order of the runs: one that is added changes no other.

    Of how the index is built, the label says only that in which the runs differ. `graphs` says of
    how many graphs a run is that stands for several, which differ by their seed alone.
    """
    built = {name: {"seed": run.seed} if run.build else {} for name, run in runs.items()}
    for name, run in runs.items():
        if run.M and not run.factory:  # what a factory string says is in the label already
            built[name] = {"M": run.M, "efConstruction": run.ef_construction, **built[name]}
    several = {name: f" ({n} graphs)" for name, n in graphs.items()}
    styles = {}
    for i, (name, run) in enumerate(runs.items()):
        differing = [
            f", {key} {value}"
            for key, value in built[name].items()
            if any(other.get(key, value) != value for other in built.values())
            and not (key == "seed" and name in several)
        ]
        styles[name] = RunStyle(
            "".join([run.label, *differing, several.get(name, "")]),
            COLORS[i % len(COLORS)],
            DASHES[i % len(DASHES)],
            # After twelve runs the colors come again with other marks.
            MARKERS[(i + i // len(COLORS)) % len(MARKERS)],
            # Each later run is drawn thinner, so that one it coincides with shows behind it.
            max(1.0, 2.0 - 0.4 * i),
            i,
        )
    return styles


class Published(NamedTuple):
    """What was published: the paper's curves, the jumps in each of them, the notebook's curve."""

    curves: pd.DataFrame
    jumps: pd.DataFrame
    notebook: pd.DataFrame


class Study:
    """Everything that was measured.

    Runs that differ by their seed alone count as one, under its name without the seed, with means
    and intervals over queries and graphs together.
    """

    def __init__(
        self,
        curves: pd.DataFrame,
        safe_k: pd.DataFrame,
        graphs: pd.DataFrame | None,
        differences: pd.DataFrame,
        by_use: pd.DataFrame,
        manifests: Mapping[str, Mapping[str, Any] | None],
    ):
        """From the tables of stage 05 and the manifests of all stages, None for one that is lost.

        `graphs` is there where runs differ by their seed alone.
        """
        self.curves, self.safe_k = curves, safe_k
        self.differences, self.by_use = differences, by_use
        self.per_query: pd.DataFrame | None = None  # `PER_QUERY` of 05_per_query.parquet
        self.images: np.ndarray | None = None  # 01_images.npy, if they are what was embedded
        self.published: Published | None = None
        self.manifests = {stage: manifest for stage, manifest in manifests.items() if manifest}
        self.notes = self.manifests["05_metrics"]
        self.n_queries: int = self.notes["n_queries"]
        # Manifests of stage 04, by its runs.
        of_runs = (stage for stage in self.manifests if stage.startswith(SEARCHED))
        self.searched = {stage.removeprefix(SEARCHED): self.manifests[stage] for stage in of_runs}
        self.ks: list[int] = sorted(curves["k"].unique())

        parameters = self.notes["parameters"]["runs"]
        # A run that is added takes the next color, and the others keep theirs.
        order = sorted(parameters, key=lambda name: self.searched.get(name, {}).get("date", ""))
        # Those of stage 04, by name, in the order in which they were searched.
        self.runs = {name: Run.from_json(parameters[name]["run"]) for name in order}
        grids = curves.groupby("run")["k"].agg(set)
        families = {} if graphs is None else graphs.groupby("family")["k"].agg(set).to_dict()
        # One of another grid is none of the family.
        owner = {
            name: run.family if grids[name] == families.get(run.family) else name
            for name, run in self.runs.items()
        }
        # The runs of stage 04 that each run stands for, and for each of them that run.
        self.members = {run: [one for one in owner if owner[one] == run] for run in owner.values()}
        self.owner = {one: run for run, several in self.members.items() for one in several}
        if families:
            self.curves, self.safe_k = _put_together(curves, safe_k, graphs, owner)
        self.styles = run_styles(
            {name: self.runs[several[0]] for name, several in self.members.items()},
            {name: len(self.members[name]) for name in families},
        )
        self.labels = {run: style.label for run, style in self.styles.items()}

    @property
    def metrics(self) -> set[str]:
        """Every metric that has a value."""
        return set(self.curves.dropna(subset="mean")["metric"])

    @property
    def few_ks(self) -> list[int]:
        """The first k, the last, and the one nearest to 100."""
        return sorted({self.ks[0], min(self.ks, key=lambda k: abs(k - 100)), self.ks[-1]})

    @property
    def worst(self) -> tuple[str, int]:
        """The run and the k with the least overlap."""
        overlap = self.curves[self.curves["metric"] == "overlap"]
        return tuple(overlap.loc[overlap["mean"].idxmin(), ["run", "k"]])

    def parameters(self, stage: str) -> Mapping[str, Any]:
        """Those of a stage; empty where its manifest is gone."""
        return self.manifests.get(stage, {}).get("parameters", {})

    @property
    def is_cosine(self) -> bool:
        """Whether vectors are of unit length, so that Euclidean distances are chords."""
        return self.parameters("02_embeddings").get("metric") == "cosine"

    @property
    def is_outside(self) -> bool:
        """Whether the queries are from a file, and not among the embeddings."""
        outputs = self.manifests.get("03_exact", {}).get("outputs", {})
        return "03_query_vectors.npy" in outputs

    @property
    def interval_of(self) -> str:
        """Over what the intervals are."""
        text, groups = f"{self.n_queries:,} queries", self.notes.get("groups")
        if groups:
            text = f"{groups:,} groups of images that are alike"
        several = any(len(members) > 1 for members in self.members.values())
        return f"{text}, and over the graphs where there are several" if several else text

    def first_graph(self, run: str) -> tuple[Run, Mapping[str, Any]]:
        """The first run of stage 04 that a run stands for, and its manifest."""
        one = self.members[run][0]
        return self.runs[one], self.searched.get(one, {})

    def label_of(self, one: str) -> str:
        """What to call a run of stage 04."""
        return self.labels[one] if self.members.get(one) == [one] else one

    def run_curve(self, run: str, metric: str, over: str = "") -> pd.DataFrame:
        """A metric of a run over k, a column for each number, over the mean of another if given."""
        chosen = self.curves[(self.curves["run"] == run) & (self.curves["metric"] == metric)]
        curve = chosen.set_index("k").sort_index()
        if over:
            ends = ["mean", "ci_low", "ci_high"]
            curve[ends] = curve[ends].div(self.run_curve(run, over)["mean"], axis=0)
        return curve

    def exact_curve(self, metric: str) -> pd.DataFrame:
        """A metric of the exact side, which all runs share, over k."""
        chosen = self.curves[self.curves["metric"] == metric].drop_duplicates("k")
        return chosen.set_index("k").sort_index()

    def lid_error(self, run: str) -> pd.DataFrame:
        """The LID over the exact one less 1, by k, and the `share` of queries that have one."""
        curve = self.run_curve(run, "lid_difference", "lid_exact")
        return curve.assign(share=curve["n"] / self.n_queries)

    def limits(self, run: str, criterion: str) -> pd.DataFrame:
        """The rows of safe k of a run by a criterion."""
        return self.safe_k[(self.safe_k["run"] == run) & (self.safe_k["criterion"] == criterion)]

    @property
    def ties(self) -> bool:
        """Whether rows tie, so that recall is more than overlap with some run."""
        return "recall" in set(self.safe_k["criterion"])

    def kept_by(self, run: str) -> str:
        """The metric that says how many neighbors a run keeps: recall, where rows tie."""
        return "recall" if len(self.limits(run, "recall")) else "overlap"

    def strictest(self, run: str) -> pd.Series:
        """The row of safe k for the largest share of the neighbors that was asked to be kept."""
        rows = self.limits(run, self.kept_by(run))
        return rows.loc[rows["tolerance"].idxmax()]

    def cost(self, run: str, name: str) -> pd.Series:
        """A cost of the searches by k, on average over the graphs; empty where it is not known."""
        costs = [self.searched.get(one, {}).get(name, {}) for one in self.members[run]]
        return pd.DataFrame(costs, dtype=float).rename(columns=int).mean().sort_index()

    def chosen(self, run: str) -> pd.DataFrame:
        """The values of a setting that were chosen to reach a target, of the run's first graph.

        By k: the ``value``, what it reaches on one half of the queries, ``mean``, whether that
        ``is_enough``; on the other half ``other_mean``, and whether that ``agrees``.
        """
        (_, searched), rows = self.first_graph(run), []
        for k, value in searched.get("ef_search_by_k", {}).items():
            half = searched["halves"][k]
            means = half["reached"]["mean"], half["other_half"]["mean"]
            rows.append((int(k), value, half["is_enough"], half["agrees"], *means))
        columns = ["k", "value", "is_enough", "agrees", "mean", "other_mean"]
        table = pd.DataFrame(rows, columns=columns).set_index("k").sort_index()
        return table.astype({"mean": float, "other_mean": float})

    def queries(self, run: str) -> pd.DataFrame:
        """The rows of `per_query` of a run, of all its graphs."""
        return self.per_query[self.per_query["run"].isin(self.members[run])]

    def fifths(self, run: str, k: int) -> pd.DataFrame:
        """Means of overlap and distance ratio by fifths of the queries, 1 of the lowest exact LID.

        Empty where no query has an LID.
        """
        queries = self.queries(run).query("k == @k").dropna(subset="lid_exact")
        fifth = np.ceil(5 * queries["lid_exact"].rank(pct=True)).astype(int)
        return queries.groupby(fifth)[["overlap", "distance_ratio"]].mean()


def _put_together(
    curves: pd.DataFrame, safe_k: pd.DataFrame, graphs: pd.DataFrame, owner: Mapping[str, str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Curves and safe k with one row for all runs of a family.

    It is safe as far as all of its graphs are; where it crosses is the median over them, with an
    interval that covers theirs.
    """
    keys = ["run", "k", "metric"]
    curves = curves.assign(run=curves["run"].map(owner)).groupby(keys, sort=False).mean()
    over_both = graphs.rename(columns={"family": "run"}).set_index(keys)
    curves.update(over_both[["mean", "ci_low", "ci_high"]])

    # A crossing beyond the grid is later than all others.
    crossings = {"crossing_k": "median", "crossing_low": "min", "crossing_high": "max"}
    safe_k = safe_k.assign(run=safe_k["run"].map(owner)).fillna(dict.fromkeys(crossings, np.inf))
    groups = safe_k.groupby(["run", "criterion", "tolerance"], sort=False)
    safe_k = groups.agg({"safe_k": "min", **crossings}).reset_index()
    return curves.reset_index(), safe_k.replace(np.inf, np.nan)
