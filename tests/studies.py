"""Studies made by hand, in which everything follows from the overlap of each run by k."""

import itertools

import numpy as np
import pandas as pd

from drift.indexes.run import Policy, Run
from drift.metrics import METRICS
from drift.published import notebook, paper
from drift.report.study import Published, Study

KS = list(range(10, 251, 10))
N_QUERIES = 40
PUBLISHED = Published(paper.curves(), paper.jumps(), notebook.curve())
LID_ERRORS = ["lid_error", "lid_pooled_error", "lid_median_error"]
ERRORS = [*LID_ERRORS, "lid_cut_error", "kth_distance_error", "mean_distance_error"]
OF_GRAPHS = ["hubness_exact", "hubness_ann", "orphans_exact", "orphans_ann"]


def make_run(library, ef, M=32, ef_construction=200, seed=0, threads=1, **search):
    """A run on an HNSW graph."""
    build = {"M": M, "ef_construction": ef_construction, "threads": threads}
    return Run(library, build, {"ef_search": Policy.parse(str(ef)), **search}, seed)


def make_factory(factory, seed=0, build=(), **search):
    """A run by FAISS's factory string."""
    policies = {name: Policy.parse(str(text)) for name, text in search.items()}
    return Run("faiss", {"factory": factory, **dict(build)}, policies, seed)


THREE = [make_run("faiss", 50), make_run("faiss", "k"), make_run("hnswlib", 50)]
FAISS_50, FAISS_K, HNSWLIB_50 = (run.name for run in THREE)
SEEDS = [make_run("faiss", ef, seed=seed) for seed in (0, 1, 2) for ef in (50, "k,50")]


def falling(i, k):
    """The overlap of the first run falls, that of the others by little."""
    return 1 - 0.4 * (k / 250) ** 2 / (1 + i)


def falls(runs=THREE, ks=KS, kept=falling):
    """Runs with their overlap by k, a function of a run's place and k."""
    return [(run, {k: kept(i, k) for k in ks}) for i, run in enumerate(runs)]


def make_study(
    kept=None,
    *,
    half=None,
    found=None,
    lid_off=None,
    recall=(),
    share=1.0,
    different=None,
    timed=True,
    metrics=(*(metric.name for metric in METRICS), *ERRORS, *OF_GRAPHS),
    graphs=None,
    n_queries=N_QUERIES,
    k_of_interest=None,
    factors=(),
    manifests=(),
    searched=(),
    **notes,
):
    """A study of pairs, a run and its overlap by k.

    Intervals are as wide as what is lost, or of a `half`. `found` and `lid_off` hold where less
    than 0.99 is kept; `share` of the queries have an LID; `recall`, and `factors` of the density,
    are by run. Without `different`, a pair of runs, all runs differ wherever their overlaps do.
    """
    kept = falls() if kept is None else kept
    recall = dict(recall)
    rows, safe, queries, differences, costs = [], [], [], [], {}
    for run, by_k in kept:
        name = run.name
        for k, overlap in by_k.items():
            values = make_values(k, overlap, recall.get(name, overlap))
            few, loss = overlap < 0.99, 1 - overlap
            if found is not None:
                values["found"] = found if few else 1.0
            if lid_off is not None:
                values |= dict.fromkeys(LID_ERRORS, lid_off if few else 0.0)
            for metric in metrics:
                mean, n = values[metric], n_queries * (share if metric.startswith("lid") else 1)
                ends = (mean - 0.02 * loss, mean + 0.04 * loss)
                low, high = ends if half is None else (mean - half, mean + half)
                row = {"run": name, "k": k, "metric": metric, "mean": mean, "n": n}
                row |= {"groups_that_differ": n_queries if loss else 0, "q95": 1.0}
                rows.append(row | {"ci_low": low, "ci_high": high, "q05": mean - 0.1})
            place = np.linspace(0, 2, N_QUERIES)
            columns = {"query": np.arange(N_QUERIES), "run": name, "k": k, "barycenter_shift": 0}
            columns |= {"overlap": 1 - loss * place, "distance_ratio": 1 - loss * place / 3}
            columns |= {"lid_exact": values["lid_exact"] + place, "found": values["found"]}
            queries.append(pd.DataFrame(columns))
        criteria = {"overlap": by_k}
        if name in recall:
            criteria["recall"] = dict.fromkeys(by_k, recall[name])
        for (criterion, shares), tolerance in itertools.product(
            criteria.items(), (0.99, 0.95, 0.9)
        ):
            good = [k for k, value in shares.items() if value - (half or 0) >= tolerance]
            crossing = (np.nan,) * 3 if len(good) == len(shares) else (66.4, 61.2, 72.5)
            safe.append((name, criterion, tolerance, max(good, default=0), *crossing))
        safe.append((name, "lid", 0.05, 20, 33, 30, 35))
        costs[name] = make_costs(run, by_k, len(costs) + 1 if timed else 0)
    for (first, ours), (second, theirs) in itertools.combinations(kept, 2):
        for metric, k in itertools.product(("overlap", "recall"), ours):
            more = ours[k] - theirs.get(k, np.nan)
            is_different = abs(more) > 0 and different in (None, (first, second))
            p = 0.001 if is_different else 0.9
            differences.append((first.family, second.family, metric, k, more, p, p, is_different))
    columns = ["run", "criterion", "tolerance", "safe_k"]
    columns += ["crossing_k", "crossing_low", "crossing_high"]
    compared = ["first", "second", "metric", "k", "difference", "p", "p_adjusted", "different"]
    runs = {run.name: {"run": run.to_json()} for run, _ in kept}
    parameters = {"runs": runs, "k_of_interest": k_of_interest}
    notes = {"parameters": parameters, "n_queries": n_queries, "inputs": {}, **notes}
    of_runs = {f"04_hnsw/{name}": one | dict(searched).get(name, {}) for name, one in costs.items()}
    study = Study(
        pd.DataFrame(rows),
        pd.DataFrame(safe, columns=columns),
        graphs,
        pd.DataFrame(differences, columns=compared),
        pd.DataFrame(
            [(run, KS[-1], "factor", "ids", factor) for run, factor in dict(factors).items()],
            columns=["run", "k", "measure", "of", "value"],
        ),
        of_runs | {"05_metrics": notes} | dict(manifests),
    )
    study.per_query, study.published = pd.concat(queries), PUBLISHED
    return study


def made_of(n, is_outside=False):
    """Manifests of n rows, among which the queries are if they are not from outside."""
    rows = {"02_embeddings.npy": {"shape": [n, 8]}}
    vectors = {"03_query_vectors.npy": {}} if is_outside else {}
    return {"02_embeddings": {"parameters": {}, "outputs": rows}, "03_exact": {"outputs": vectors}}


def make_values(k, overlap, recall):
    """Means of metrics that follow from the overlap."""
    loss = 1 - overlap
    values = {
        "overlap": overlap,
        "recall": recall,
        "found": 1 - loss / 2,
        "distance_ratio": 1 - loss / 3,
        "barycenter_shift": 3 * loss,
        "barycenter_shift_relative": loss / 3,
    }
    for name, exact in (
        ("mean_distance", 8 + k / 100),
        ("kth_distance", 9 + k / 50),
        ("lid", 12 - k / 50),
        ("hubness", 1 + k / 100),
        ("orphans", 0.05 / k),
        ("kth_squared_distance", 90 + k),
        ("lid_notebook", k / 60),
    ):
        values |= {f"{name}_exact": exact, f"{name}_ann": exact * (1 + loss)}
        values[f"{name}_error"] = loss
    exact = values["lid_exact"]
    lid = {"lid_ann": exact - 8 * loss, "lid_difference": -8 * loss, "lid_exact_cut": exact}
    lid |= {f"lid_inverse_{side}": 1 / values[f"lid_{side}"] for side in ("exact", "ann")}
    return values | lid | dict.fromkeys(LID_ERRORS, -8 * loss / exact) | {"lid_cut_error": 0.0}


def make_costs(run, ks, place):
    """The manifest of a run's search, with its costs if it has a place among those that have."""
    costs, ef = {"parameters": {"k_grid": list(ks)}}, run.ef_search
    if ef and not ef.criterion:
        values = {k: ef.value(k + 1) for k in ks}
        costs["effective_ef"] = {
            str(k): {
                "list_length": k + 1,
                "ef_search": value,
                "candidates": max(value, k + 1),
                "stops_after": value if run.library in ("faiss", "pgvector") else max(value, k + 1),
            }
            for k, value in values.items()
        }
    if place:
        costs["queries_per_second"] = {str(k): 1e6 / k / place for k in ks}
        if run.library == "faiss":
            counts = {str(k): 100 + k * place for k in ks}
            costs["distance_computations_per_query"] = counts
    return costs
