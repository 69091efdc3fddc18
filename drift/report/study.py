"""What sentences, tables and figures are made from."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd

from drift.report.run_styles import RunStyle, run_styles

Manifests = Mapping[str, Mapping[str, Any]]

# Of the table of single queries, what the report needs.
PER_QUERY = ["run", "k", "query", "overlap", "found", "barycenter_shift", "distance_ratio"]
PER_QUERY += ["lid_exact"]
ENOUGH = 0.99  # of the queries must have a value for what is said of it to hold for all


class Publication(NamedTuple):
    """What was published: the paper's curves, the jumps in each of them, the notebook's curves."""

    curves: pd.DataFrame
    jumps: pd.DataFrame
    notebook: pd.DataFrame


@dataclass
class Study:
    """Everything that was measured, with runs that differ by their seed alone put together.

    Such a family counts as one run, under its name without the seed. Its means and intervals are
    those over queries and graphs together.
    """

    curves: pd.DataFrame  # 05_curves.parquet
    safe_k: pd.DataFrame  # 05_safe_k.parquet
    styles: Mapping[str, RunStyle]  # in the order in which the runs were searched
    members: Mapping[str, list[str]]  # the runs of stage 04 that each run stands for
    facts: Mapping[str, Any]  # the manifest of stage 05
    searched: Manifests = field(default_factory=dict)  # those of stage 04, by its runs
    manifests: Manifests = field(default_factory=dict)  # of all stages
    per_query: pd.DataFrame | None = None  # `PER_QUERY` of 05_per_query.parquet
    published: pd.DataFrame | None = None  # the notebook's curves, beside those by its protocol
    publication: Publication | None = None  # the paper's, beside those by its protocol

    @classmethod
    def from_tables(
        cls,
        curves: pd.DataFrame,
        safe_k: pd.DataFrame,
        graphs: pd.DataFrame | None,
        facts: Mapping[str, Any],
        searched: Manifests,
        **more: Any,
    ) -> Self:
        """A study from the attributes of every single run.

        `graphs` is the table ``05_graphs.parquet``, where runs differ by their seed alone.
        """
        runs = facts["parameters"]["runs"]
        # A run that is added takes the next color, and the others keep theirs.
        order = sorted(runs, key=lambda run: searched.get(run, {}).get("date", ""))
        grids = curves.groupby("run")["k"].agg(set)
        families = {} if graphs is None else graphs.groupby("family")["k"].agg(set).to_dict()
        # One of another grid is none of the family.
        owner = {
            run: family_name(run) if grids[run] == families.get(family_name(run)) else run
            for run in order
        }
        members = {run: [one for one in order if owner[one] == run] for run in owner.values()}
        if families:
            curves, safe_k = _put_together(curves, safe_k, graphs, owner)
        styles = run_styles(
            {run: runs[several[0]] for run, several in members.items()},
            {run: len(members[run]) for run in families},
        )
        return cls(curves, safe_k, styles, members, facts, searched, **more)

    @property
    def labels(self) -> dict[str, str]:
        """What to call each run."""
        return {run: style.label for run, style in self.styles.items()}

    @property
    def owner(self) -> dict[str, str]:
        """For each run of stage 04 the run that stands for it."""
        return {one: run for run, members in self.members.items() for one in members}

    @property
    def ks(self) -> list[int]:
        """Every k of the grid, ascending."""
        return sorted(self.curves["k"].unique())

    @property
    def few_ks(self) -> list[int]:
        """The first k, the last, and the one nearest to 100."""
        return sorted({self.ks[0], min(self.ks, key=lambda k: abs(k - 100)), self.ks[-1]})

    @property
    def worst(self) -> tuple[str, int]:
        """The run and the k with the least overlap."""
        overlap = self.curves[self.curves["metric"] == "overlap"]
        return tuple(overlap.loc[overlap["mean"].idxmin(), ["run", "k"]])

    @property
    def is_cosine(self) -> bool:
        """Whether vectors are of unit length, so that Euclidean distances are chords."""
        parameters = self.manifests.get("02_embeddings", {}).get("parameters", {})
        return parameters.get("metric") == "cosine"

    @property
    def is_outside(self) -> bool:
        """Whether the queries are from a file, and not among the embeddings."""
        outputs = self.manifests.get("03_exact", {}).get("outputs", {})
        return "03_query_vectors.npy" in outputs

    @property
    def n_queries(self) -> int:
        return self.facts["n_queries"]

    @property
    def interval_of(self) -> str:
        """Over what the intervals are."""
        text, groups = f"{self.n_queries:,} queries", self.facts.get("groups")
        if groups:
            text = f"{groups:,} groups of images that are alike"
        several = any(len(members) > 1 for members in self.members.values())
        return f"{text}, and over the graphs where there are several" if several else text

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

    def cost(self, run: str, fact: str) -> pd.Series:
        """A cost of the searches by k, on average over the graphs; empty where it is not known."""
        costs = [self.searched.get(one, {}).get(fact, {}) for one in self.members[run]]
        return pd.DataFrame(costs, dtype=float).rename(columns=int).mean().sort_index()

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


def family_name(run: str) -> str:
    """The name of a run without the seed of its graph."""
    return re.sub(r"_seed\d+$", "", run)


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
