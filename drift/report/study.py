"""What sentences, tables and figures are made from, and how each run looks in them."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd

from drift.indexes.run import FAISS_NAMES, Policy, Run
from drift.report.styles import run_labels, run_styles, voices_of

FORMER = "01_images", "02_embeddings", "03_exact"
SEARCHED = "04_hnsw/"  # and its name is the stage of a run
TABLES = "curves", "safe_k", "graphs", "differences", "by_use"

# Of the table of single queries, what the report needs.
PER_QUERY = ["run", "k", "query", "overlap", "found", "barycenter_shift", "distance_ratio"]
PER_QUERY += ["lid_exact"]
ENDS = ["mean", "ci_low", "ci_high"]  # of curves: a mean and its interval
FEW_GROUPS = 30  # with fewer that differ an interval is rough
INVISIBLE = 0.0005  # what is 0.0 % when it is written down


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
        """From tables of stage 05, and the manifests of all stages, None for one that is lost."""
        self.curves, self.safe_k = curves, safe_k
        self.differences, self.by_use = differences, by_use
        self.per_query: pd.DataFrame | None = None  # `PER_QUERY` of 05_per_query.parquet
        self.images: np.ndarray | None = None  # 01_images.npy, if they are what was embedded
        self.published: Published | None = None
        self.folder = "results"  # where all of that is, as a command names it
        self.manifests = {stage: manifest for stage, manifest in manifests.items() if manifest}
        if "01_images.npy" not in self.manifests.get("02_embeddings", {}).get("inputs", ()):
            self.manifests.pop("01_images", None)  # they are not what was embedded
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
        self.labels_of_graphs = run_labels(self.runs, {})
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
        firsts = {name: self.runs[several[0]] for name, several in self.members.items()}
        self.labels = run_labels(firsts, {name: len(self.members[name]) for name in families})
        # What legends name: each series, runs that differ in one number of their search, ascending,
        # and each run that is in none.
        self.voices = voices_of(firsts, self.labels)
        self.series = {name: runs for name, runs in self.voices.items() if len(runs) > 1}
        self.voice_of = {run: name for name, runs in self.voices.items() for run in runs}
        self.styles = run_styles(self.labels, self.voices, self.worst)

    @classmethod
    def read(
        cls,
        table: Callable[[str], pd.DataFrame],
        manifest: Callable[[str], Mapping[str, Any] | None],
        folder: object,
    ) -> Self:
        """What stage 05 wrote, by what reads a table of its files and the manifest of a stage."""
        measured = manifest("05_metrics")
        names = (f"05_{name}.parquet" for name in TABLES)
        tables = [table(name) if name in measured["outputs"] else None for name in names]
        runs = (f"{SEARCHED}{run}" for run in measured["parameters"]["runs"])
        study = cls(*tables, {name: manifest(name) for name in (*FORMER, *runs, "05_metrics")})
        study.folder = str(folder)
        return study

    @property
    def metrics(self) -> set[str]:
        """Every metric that has a value."""
        return set(self.curves.dropna(subset="mean")["metric"])

    @property
    def k_of_interest(self) -> int:
        """Of what is said, and shown, for one k alone."""
        return self.notes["parameters"].get("k_of_interest") or self.ks[-1]

    def up_to_k(self, run: str) -> pd.DataFrame:
        """What a run keeps, up to the k of interest; its first k where it has none of these."""
        curve = self.run_curve(run, self.kept_by(run))
        return curve.loc[: max(self.k_of_interest, curve.index[0])]

    @property
    def ruled(self) -> list[str]:
        """Runs without a target; all of them if there are no others."""
        ruled = [run for run in self.members if not self.first_graph(run)[0].target]
        return ruled or list(self.members)

    @property
    def worst(self) -> str:
        """The run that loses most, of those that are `ruled`, each at the last of its `up_to_k`."""
        return min(self.ruled, key=lambda run: self.up_to_k(run)["mean"].iloc[-1])

    @property
    def drifted(self) -> tuple[str, int]:
        """Where single queries show most: the run and the k with the least overlap.

        Of those, if there are any, whose lists are not short.
        """
        curves = self.curves.set_index(["run", "k", "metric"])
        means, most = (curves[column].unstack() for column in ("mean", "q95"))
        by_choice = means["overlap"][(most["found"] == 1) & (means["overlap"] < 1 - INVISIBLE)]
        return (by_choice if len(by_choice) else means["overlap"]).idxmin()

    @property
    def shape(self) -> tuple[int, int] | None:
        """Of the embeddings; None where it is not known."""
        outputs = self.manifests.get("02_embeddings", {}).get("outputs")
        return tuple(outputs["02_embeddings.npy"]["shape"]) if outputs else None

    @property
    def chance(self) -> pd.Series | None:
        """The overlap of lists drawn at random, by k; None where the rows are not known."""
        if self.shape is None:
            return None
        n = self.shape[0] - (not self.is_outside)
        return pd.Series(np.minimum(1, np.divide(self.ks, n)), self.ks)

    @property
    def on_one_graph(self) -> list[str]:
        """Runs of which one order of insertion was built."""
        return [run for run, ones in self.members.items() if len(ones) < 2 and self.runs[ones[0]].M]

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
            of = "images" if "01_images" in self.manifests else "rows"
            text = f"{groups:,} groups of {of} that are alike"
        several = any(len(members) > 1 for members in self.members.values())
        if several:
            text += ", and over the graphs where there are several"
        if self.on_one_graph:
            text += f", {'else ' if several else ''}of this graph"
        return text

    def few(self, n: float) -> str:
        """How many groups, or queries, differ, where these are so few that an interval is rough."""
        groups = self.notes.get("groups")
        total, unit = (groups, "groups") if groups else (self.n_queries, "queries")
        return f"{n:.0f} of {total:,} {unit}" if 0 <= n < min(FEW_GROUPS, total) else ""

    def first_graph(self, run: str) -> tuple[Run, Mapping[str, Any]]:
        """The first run of stage 04 that a run stands for, and its manifest."""
        one = self.members[run][0]
        return self.runs[one], self.searched.get(one, {})

    def label_of(self, one: str) -> str:
        """What to call a run of stage 04, one of several graphs by its seed."""
        return self.labels[one] if self.members.get(one) == [one] else self.labels_of_graphs[one]

    def run_curve(self, run: str, metric: str) -> pd.DataFrame:
        """A metric of a run over k, a column for each number."""
        chosen = self.curves[(self.curves["run"] == run) & (self.curves["metric"] == metric)]
        return chosen.set_index("k").sort_index()

    def exact_curve(self, metric: str) -> pd.DataFrame:
        """A metric of the exact side, which all runs share, over k."""
        chosen = self.curves[self.curves["metric"] == metric].drop_duplicates("k")
        return chosen.set_index("k").sort_index()

    def lid_error(self, run: str) -> pd.DataFrame:
        """The LID over the exact one less 1, by those k at which any query has both."""
        return self.run_curve(run, "lid_error").dropna(subset="mean")

    def limits(self, run: str, criterion: str) -> pd.DataFrame:
        """The rows of safe k of a run by a criterion."""
        return self.safe_k[(self.safe_k["run"] == run) & (self.safe_k["criterion"] == criterion)]

    def strict(self, run: str) -> pd.Series:
        """The row of safe k of a run by what it keeps, for the least loss."""
        limits = self.limits(run, self.kept_by(run))
        return limits.loc[limits["tolerance"].idxmax()]

    @property
    def ties(self) -> bool:
        """Whether rows tie, so that recall is more than overlap with some run."""
        return "recall" in set(self.safe_k["criterion"])

    def kept_by(self, run: str) -> str:
        """The metric that says how many neighbors a run keeps: recall, where rows tie."""
        return "recall" if len(self.limits(run, "recall")) else "overlap"

    def cost(self, run: str, name: str) -> pd.Series:
        """A cost of the searches by k, on average over the graphs; empty where it is not known."""
        costs = [self.searched.get(one, {}).get(name, {}) for one in self.members[run]]
        means = pd.DataFrame(costs, dtype=float).mean()
        return means.set_axis(means.index.astype(int)).sort_index()  # of none too

    def target(self, run: str) -> tuple[str, Policy]:
        """The setting that was chosen for a run, as sentences call it, and what it is to reach."""
        setting, policy = self.first_graph(run)[0].target
        return FAISS_NAMES.get(setting, setting), policy

    def chosen(self, run: str) -> pd.DataFrame:
        """What was chosen to reach a target, by k, of the run's first graph; empty without one.

        The ``value`` whose whole interval reaches it on one half of the queries, if it
        ``is_enough``, its ``mean`` there, NaN where too few have an LID, the value whose mean does,
        ``on_mean``, and what the other half has with the first: ``other_mean``, ``other_ci_low``,
        ``other_ci_high``.
        """
        (_, searched), rows = self.first_graph(run), {}
        for k, value in searched.get("ef_search_by_k", {}).items():
            half, on_mean = searched["halves"][k], searched["ef_search_by_k_on_mean"][k]
            rows[int(k)] = {
                **{"value": value, "is_enough": half["is_enough"], "on_mean": on_mean},
                **{"mean": half["reached"]["mean"]},
                **{f"other_{name}": number for name, number in half["other_half"].items()},
            }
        table = pd.DataFrame.from_dict(rows, "index").sort_index()
        numbers = table.columns.difference(["value", "is_enough"])
        return table.astype(dict.fromkeys(numbers, float))  # None, which none has, is NaN

    def queries(self, run: str) -> pd.DataFrame:
        """The rows of `per_query` of a run, of all its graphs."""
        return self.per_query[self.per_query["run"].isin(self.members[run])]

    def fifths(self, run: str, k: int) -> pd.DataFrame:
        """Means of overlap and distance ratio by fifths of the exact LID, 1 the lowest, if any."""
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
    groups = curves.assign(run=curves["run"].map(owner)).groupby(keys, sort=False)
    curves = groups.mean().assign(groups_that_differ=groups["groups_that_differ"].min())
    over_both = graphs.rename(columns={"family": "run"}).set_index(keys)
    curves.update(over_both[ENDS])

    # A crossing beyond the grid is later than all others.
    crossings = {"crossing_k": "median", "crossing_low": "min", "crossing_high": "max"}
    safe_k = safe_k.assign(run=safe_k["run"].map(owner)).fillna(dict.fromkeys(crossings, np.inf))
    groups = safe_k.groupby(["run", "criterion", "tolerance"], sort=False)
    safe_k = groups.agg({"safe_k": "min", **crossings}).reset_index()
    return curves.reset_index(), safe_k.replace(np.inf, np.nan)
