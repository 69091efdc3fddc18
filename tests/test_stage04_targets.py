"""Stage 04 where the setting of a search is chosen by a target, overlap=0.9 or lid=0.05."""

import shutil

import numpy as np
import pandas as pd
import pytest

from drift.indexes.registry import index_class, parse_run
from drift.indexes.run import Policy
from drift.indexes.search import approximate_neighbors
from drift.indexes.targets import attained, candidate_values, shortfall, split_queries
from drift.metrics import compute_metrics
from drift.pipeline.stage import Stage
from drift.protocols import Protocol
from drift.stages.search import SearchIndex
from drift.stages.targets import ChooseSetting
from drift.vectors import vector_norms
from tests.test_stage04 import manifest

SCRIPT = "04_hnsw_search.py"
N = 400
FLAGS = ("--m", "4", "--ef-construction", "40", "--k", "5", "40")
OVERLAP = "faiss_M4_efc40_efoverlap0.9"


@pytest.fixture
def results(small, tmp_path):
    """A copy to search in."""
    return shutil.copytree(small, tmp_path / "results")


def flat(text):
    return " ".join(text.split())


def lists(results, name, k):
    folder = results / "04_hnsw" / name
    return [np.load(folder / f"k{k:04d}_{kind}.npy") for kind in ("indices", "distances")]


def measure(results, k, rows, ann):
    """All metrics of lists of some queries."""
    exact = [
        np.load(results / f"03_exact_{kind}.npy")[rows, :k] for kind in ("indices", "distances")
    ]
    x = np.load(results / "02_embeddings.npy")
    return {name: of_k[0] for name, of_k in compute_metrics(*exact, {k: ann}, x, rows).items()}


def attained_by(results, text, k, groups=None):
    """The first value that is enough, the first on the mean, and what each value attains.

    Without bisection or stages; None where none is enough.
    """
    run, x = parse_run(text, 4, 40), np.load(results / "02_embeddings.npy")
    index, (setting, target) = index_class(run).build(x, run), run.target
    half, _ = split_queries(len(x), groups)
    tried, groups = {}, None if groups is None else groups[half]
    for value in candidate_values(*index.value_range(setting, k + 1)).tolist():
        settings = run.values(k + 1, value)
        ann, _ = approximate_neighbors(
            index, x[half], [k], settings, Protocol.STUDY, half, x, max_searches=1
        )
        tried[value] = attained(target, measure(results, k, half, ann[k][:2]), groups)
        first, on_mean = (
            next((v for v in tried if shortfall(target, tried[v], by_mean) <= 0), None)
            for by_mean in (False, True)
        )
        if first is not None:
            break
    return first, on_mean, tried


def ends(estimate):
    """What the manifest has of an estimate."""
    return pytest.approx(dict(zip(("mean", "ci_low", "ci_high"), estimate, strict=False)))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("faiss:overlap=0.9", OVERLAP),
        ("faiss:lid=10%", "faiss_M4_efc40_eflid0.1"),
        ("faiss:recall=0.95", "faiss_M4_efc40_efrecall0.95"),
        ("hnswlib:overlap=0.1", "hnswlib_M4_efc40_efoverlap0.1"),  # the length of the lists
        ("IVF20,Flat:nprobe=overlap=0.9", "IVF20_Flat_nprobe_overlap_0.9"),
        ("NSG4,Flat:search_L=overlap=0.6", "NSG4_Flat_search_L_overlap_0.6"),
    ],
)
def test_the_smallest_setting_that_is_enough_is_chosen(text, name, results, stages):
    said = flat(stages(("04", "--runs", text, *FLAGS)))
    recorded, (setting, target) = manifest(results, name), parse_run(text).target
    assert recorded["found_for"] == setting
    assert list(recorded["ef_search_by_k"]) == list(recorded["halves"]) == ["5", "40"]
    _, other = split_queries(N)
    for k in (5, 40):
        first, on_mean, tried = attained_by(results, text, k)
        value, half = recorded["ef_search_by_k"][str(k)], recorded["halves"][str(k)]
        assert (value, recorded["ef_search_by_k_on_mean"][str(k)]) == (first, on_mean)
        words = {"ef_search": "efSearch"}.get(setting, setting)
        assert f"{words} {value} (mean: {on_mean})" in said
        assert half["is_enough"] and half["searches"] <= 16 and "agrees" not in half
        assert half["reached"] == ends(tried[value])
        assert half["reached_on_mean"] == ends(tried[on_mean])
        there = measure(results, k, other, [side[other] for side in lists(results, name, k)])
        assert half["other_half"] == ends(attained(target, there))
        # The run is what this value gives.
        library = text.partition(":")[0]
        fixed = f"{library}:{setting}={value}" if "," in library else f"{library}:{value}"
        stages(("04", *FLAGS[:4], "--k", k, "--runs", fixed))
        same = parse_run(fixed, 4, 40).name
        for one, another in zip(lists(results, name, k), lists(results, same, k), strict=True):
            np.testing.assert_array_equal(one, another)
        if setting == "ef_search":
            stops = [manifest(results, run)["effective_ef"][str(k)] for run in (name, same)]
            assert stops[0] == stops[1]
    assert stages(("04", "--runs", text, *FLAGS)).count("up to date") == 1


def test_a_half_that_disagrees_is_said(tmp_path, stages):
    # The half by which settings are chosen is easy, the other one is not.
    first, second = split_queries(N)
    rng, vectors = np.random.default_rng(0), np.zeros((N, 16), np.float32)
    vectors[first, :2] = rng.normal(size=(len(first), 2))
    vectors[second] = 30 + rng.normal(size=(len(second), 16))
    np.save(tmp_path / "x.npy", vectors)
    search = ("04", "--runs", "faiss:overlap=0.9", *FLAGS[:4], "--k", "5", "10")
    said = flat(stages(("02", "--from-file", tmp_path / "x.npy"), "03 --k-max 10", search))
    recorded = manifest(tmp_path / "results", OVERLAP)
    halves, values = recorded["halves"], recorded["ef_search_by_k"]
    assert [halves[k]["is_enough"] for k in ("5", "10")] == [True, True]
    for k in ("5", "10"):
        mean, low, high = halves[k]["other_half"].values()
        assert low < mean < 0.9
        text = f"with efSearch {values[k]}: {mean:.3f} ({low:.3f} to {high:.3f}) on the other half"
        assert f"{OVERLAP}: overlap 0.9 at k = {k} {text}" in said


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_halves_that_agree_and_targets_that_nothing_reaches(results, stages):
    easy, hopeless = "HNSW16,Flat:efSearch=overlap=0.8", "IVF4,PQ2x4fs:nprobe=overlap=0.9"
    runs = ("--runs", easy, hopeless, "faiss:lid=0.05")
    said = flat(stages(("04", *runs, *FLAGS[:4], "--k", "2", "40")))
    halves = manifest(results, "HNSW16_Flat_efSearch_overlap_0.8")["halves"]
    assert all(half["is_enough"] and half["other_half"]["ci_low"] > 0.8 for half in halves.values())
    missed = manifest(results, "IVF4_PQ2x4fs_nprobe_overlap_0.9")
    for k in (2, 40):
        first, on_mean, tried = attained_by(results, hopeless, k)
        assert first is on_mean is None
        half, best = missed["halves"][str(k)], missed["ef_search_by_k"][str(k)]
        assert half["is_enough"] is False
        assert half["reached"] == ends(tried[best])
        assert half["reached_on_mean"] is missed["ef_search_by_k_on_mean"][str(k)] is None
        # By bisection of 1, 2, 3, 4.
        assert tried[best].ci_low == max(tried[value].ci_low for value in (3, 4))
        wanted = f"no nprobe reaches overlap 0.9 at k = {k} with 95 % confidence, {best} comes"
        assert wanted in said
    assert "nprobe none (mean: none)" in said
    halves = manifest(results, "faiss_M4_efc40_eflid0.05")["halves"]
    assert [halves[k]["is_enough"] for k in ("2", "40")] == [False, True]
    assert halves["2"]["reached"]["mean"] is None, "two distances make no LID"
    few = (
        "no efSearch reaches lid 0.05 at k = 2: fewer than 99 % of one half of the queries have an"
    )
    assert few in said
    assert "nan" not in said


def test_under_a_publications_protocol_a_target_is_of_the_metrics_of_stage_05(tmp_path, stages):
    # Expanded distances of vectors far from the origin, with near duplicates among them.
    rng = np.random.default_rng(0)
    x = 3 + rng.normal(size=(N, 256))
    x[N // 2 :] = x[: N // 2] + 1e-3 * rng.normal(size=(N // 2, 256))
    np.save(tmp_path / "x.npy", x := x.astype(np.float32))
    targets, results = ("overlap=0.9", "recall=0.9", "lid=0.5"), tmp_path / "results"
    runs = (f"hnswlib:{one}" for one in targets)
    stages(("02", "--from-file", tmp_path / "x.npy"), "03 --k-max 5 --protocol notebook")
    stages(("04", "--runs", *runs, *FLAGS[:4], "--k", "5"))
    rows = split_queries(N)[1]
    exact = [np.load(results / f"03_exact_{kind}.npy")[rows] for kind in ("indices", "distances")]
    for target in targets:
        name = f"hnswlib_M4_efc40_ef{target.replace('=', '')}"
        ann = {5: [side[rows] for side in lists(results, name, 5)]}
        plain, there = (
            {metric: of_k[0] for metric, of_k in compute_metrics(*exact, ann, x, rows, n).items()}
            for n in (None, vector_norms(x))
        )
        half, policy = manifest(results, name)["halves"]["5"], Policy.parse(target)
        assert half["other_half"] == ends(attained(policy, there))
        if policy.criterion != "overlap":
            assert half["other_half"] != ends(attained(policy, plain)), "rounding is forgiven"


def test_rows_that_are_alike_are_in_one_half(tmp_path, stages):
    # The rows of a group are alike in how hard they are to search for.
    groups = np.sort(np.random.default_rng(1).integers(0, 10, 120))
    vectors = np.random.default_rng(0).normal(size=(120, 8)) * (1 + groups[:, None] / 4)
    table = pd.DataFrame({"emb": list(vectors.astype(np.float32)), "group": groups})
    table.to_parquet(tmp_path / "x.parquet")
    text, name = "IVF20,Flat:nprobe=overlap=0.7", "IVF20_Flat_nprobe_overlap_0.7"
    stages(("02", "--from-file", tmp_path / "x.parquet"), "03 --k-max 20")
    stages(("04", "--runs", text, *FLAGS[:4], "--k", "10", "--seeds", "0", "5"))
    results = tmp_path / "results"
    assert "02_rows.parquet" in manifest(results, f"{name}_seed5")["inputs"]
    recorded, (value, _, tried) = manifest(results, name), attained_by(results, text, 10, groups)
    assert recorded["ef_search_by_k"]["10"] == value
    assert recorded["halves"]["10"]["reached"] == ends(tried[value])
    assert attained_by(results, text, 10)[2].get(value) != tried[value]


def test_interrupted_and_resumed_it_searches_nothing_twice(results, stages, drive, monkeypatch):
    flags = ("--runs", "faiss:overlap=0.9", *FLAGS)
    checkpoint, chosen, searched = Stage.checkpoint, [], []
    choose, search = ChooseSetting.__call__, SearchIndex.search

    def interrupt(stage, block, **notes):
        checkpoint(stage, block, **notes)
        raise KeyboardInterrupt

    def record_choice(task, k):
        chosen.append(k)
        return choose(task, k)

    def record_search(task, rows, ks, tried=None):
        if tried:
            searched.append((*ks, len(rows), tried))
        return search(task, rows, ks, tried)

    monkeypatch.setattr(ChooseSetting, "__call__", record_choice)
    monkeypatch.setattr(SearchIndex, "search", record_search)
    stages(("04", *flags))
    whole = {k: lists(results, OVERLAP, k) for k in (5, 40)}
    before = manifest(results, OVERLAP)
    for k in (5, 40):
        # Half of the queries, at most eight times for each answer.
        of_k = [rest for one, *rest in searched if one == k]
        assert len(of_k) == len({*map(tuple, of_k)}) == before["halves"][str(k)]["searches"] <= 16
        assert {n for n, _ in of_k} == {N // 2}
    shutil.rmtree(results / "04_hnsw")
    chosen.clear()
    interruptions = 0
    with monkeypatch.context() as patched:
        patched.setattr(Stage, "checkpoint", interrupt)
        while (status := drive(SCRIPT, *flags, results=results)[0]) == 130:
            interruptions += 1
    assert (status, interruptions) == (0, 5), "after the index, two choices and two searches"
    assert chosen == [5, 40], "each once"
    for k, arrays in whole.items():
        for one, other in zip(arrays, lists(results, OVERLAP, k), strict=True):
            np.testing.assert_array_equal(one, other)
    again = manifest(results, OVERLAP)
    for note in ("ef_search_by_k", "ef_search_by_k_on_mean", "halves", "parameters", "inputs"):
        assert again[note] == before[note]
