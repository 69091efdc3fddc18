"""Stage 04 where the setting of a search is chosen by a target, overlap=0.9 or lid=0.05."""

import shutil

import numpy as np
import pandas as pd
import pytest

from drift.indexes.registry import index_class, parse_run
from drift.indexes.search import approximate_neighbors
from drift.indexes.targets import attained, candidate_values, split_queries
from drift.pipeline.stage import Stage
from drift.protocols import Protocol
from drift.stages.search import SearchIndex
from drift.stages.targets import ChooseSetting
from tests.test_stage04 import manifest

SCRIPT = "04_hnsw_search.py"
N = 400
FLAGS = ("--m", "4", "--ef-construction", "40", "--k", "5", "40")
OVERLAP = "faiss_M4_efc40_efoverlap0.9"


@pytest.fixture
def results(small, tmp_path):
    """A copy to search in."""
    return shutil.copytree(small, tmp_path / "results")


@pytest.fixture
def stages(drive, tmp_path):
    """Run scripts, each of which must end well; what the last of them prints, on one line."""

    def run(*commands, results=tmp_path / "results"):
        for command in commands:
            status, out, err = drive(*command, results=results)
            assert status == 0, err
        return " ".join(out.split())

    return run


def lists(results, name, k):
    folder = results / "04_hnsw" / name
    return [np.load(folder / f"k{k:04d}_{kind}.npy") for kind in ("indices", "distances")]


def attained_by(results, text, k, groups=None):
    """The first value that is enough, and what those up to it attain, without bisection or stages.

    The last value is None where none is enough.
    """
    run, x = parse_run(text, 4, 40), np.load(results / "02_embeddings.npy")
    exact = [np.load(results / f"03_exact_{kind}.npy")[:, :k] for kind in ("indices", "distances")]
    index, (setting, target) = index_class(run).build(x, run), run.target
    half, _ = split_queries(len(x), groups)
    tried = {}
    for value in candidate_values(*index.value_range(setting, k + 1)).tolist():
        settings = run.values(k + 1, value)
        ann, _ = approximate_neighbors(
            index, x[half], [k], settings, Protocol.STUDY, half, x, max_searches=1
        )
        sides = [side[half] for side in exact], ann[k][:2]
        tried[value] = attained(target, *sides, None if groups is None else groups[half])
        if tried[value].is_enough(target):
            return value, tried
    return None, tried


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("faiss:overlap=0.9", OVERLAP),
        ("faiss:lid=0.1", "faiss_M4_efc40_eflid0.1"),
        ("hnswlib:overlap=0.1", "hnswlib_M4_efc40_efoverlap0.1"),  # the length of the lists
        ("IVF20,Flat:nprobe=overlap=0.9", "IVF20_Flat_nprobe_overlap_0.9"),
        ("NSG4,Flat:search_L=overlap=0.6", "NSG4_Flat_search_L_overlap_0.6"),
    ],
)
def test_the_smallest_setting_that_is_enough_is_chosen(text, name, results, stages):
    stages((SCRIPT, "--runs", text, *FLAGS))
    recorded, (setting, target) = manifest(results, name), parse_run(text).target
    assert recorded["found_for"] == setting
    assert list(recorded["ef_search_by_k"]) == list(recorded["halves"]) == ["5", "40"]
    _, other = split_queries(N)
    for k in (5, 40):
        first, tried = attained_by(results, text, k)
        value, half = recorded["ef_search_by_k"][str(k)], recorded["halves"][str(k)]
        assert value == first
        assert half["is_enough"] and half["searches"] <= 8
        assert half["reached"] == pytest.approx(tried[value]._asdict())
        kinds = ("indices", "distances")
        exact = [np.load(results / f"03_exact_{kind}.npy")[other, :k] for kind in kinds]
        expected = attained(target, exact, [side[other] for side in lists(results, name, k)])
        assert half["other_half"] == pytest.approx(expected._asdict())
        assert half["agrees"] == expected.agrees(target)
        # The run is what this value gives.
        library = text.partition(":")[0]
        fixed = f"{library}:{setting}={value}" if "," in library else f"{library}:{value}"
        stages((SCRIPT, *FLAGS[:4], "--k", k, "--runs", fixed))
        same = parse_run(fixed, 4, 40).name
        for one, another in zip(lists(results, name, k), lists(results, same, k), strict=True):
            np.testing.assert_array_equal(one, another)
        if setting == "ef_search":
            stops = [manifest(results, run)["effective_ef"][str(k)] for run in (name, same)]
            assert stops[0] == stops[1]
    assert stages((SCRIPT, "--runs", text, *FLAGS)).count("up to date") == 1


def test_a_half_that_disagrees_is_said(tmp_path, stages):
    # The half by which settings are chosen is easy, the other one is not.
    first, second = split_queries(N)
    rng, vectors = np.random.default_rng(0), np.zeros((N, 16), np.float32)
    vectors[first, :2] = rng.normal(size=(len(first), 2))
    vectors[second] = 30 + rng.normal(size=(len(second), 16))
    np.save(tmp_path / "x.npy", vectors)
    said = stages(
        ("02_embed_resnet50.py", "--from-file", tmp_path / "x.npy"),
        ("03_exact_knn.py", "--k-max", "10"),
        (SCRIPT, "--runs", "faiss:overlap=0.9", *FLAGS[:4], "--k", "5", "10"),
        ("05_metrics.py",),
    )
    halves = manifest(tmp_path / "results", OVERLAP)["halves"]
    assert [halves[k]["is_enough"] for k in ("5", "10")] == [True, True]
    assert [halves[k]["agrees"] for k in ("5", "10")] == [False, False]
    mean = halves["10"]["other_half"]["mean"]
    assert mean < 0.9
    assert f"On the other half it misses the target at k = 5 and 10 ({mean:.3f} at k = 10)." in said
    assert "The other half agrees" not in said


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_halves_that_agree_and_targets_that_nothing_reaches(results, stages):
    easy, hopeless = "HNSW16,Flat:efSearch=overlap=0.8", "IVF4,PQ2x4fs:nprobe=overlap=0.9"
    runs = ("--runs", easy, hopeless, "faiss:lid=0.05")
    said = stages((SCRIPT, *runs, *FLAGS[:4], "--k", "2", "40"), ("05_metrics.py",))
    halves = manifest(results, "HNSW16_Flat_efSearch_overlap_0.8")["halves"]
    assert all(half["agrees"] and half["is_enough"] for half in halves.values())
    missed = manifest(results, "IVF4_PQ2x4fs_nprobe_overlap_0.9")
    for k in (2, 40):
        first, tried = attained_by(results, hopeless, k)
        assert first is None
        half, best = missed["halves"][str(k)], missed["ef_search_by_k"][str(k)]
        assert half["is_enough"] is False
        assert half["reached"] == pytest.approx(tried[best]._asdict())
        # By bisection of 1, 2, 3, 4.
        assert tried[best].ci_low == max(tried[value].ci_low for value in (3, 4))
    assert "The other half agrees at every k." in said and "misses the target" not in said
    mean = missed["halves"]["40"]["reached"]["mean"]
    text = f"No nprobe reaches it at k = 2 and 40; the best at k = 40, {best}, has {mean:.3f}"
    assert text in said
    halves = manifest(results, "faiss_M4_efc40_eflid0.05")["halves"]
    assert [halves[k]["is_enough"] for k in ("2", "40")] == [False, True]
    assert halves["2"]["reached"]["mean"] is None, "two distances make no LID"
    assert "No efSearch reaches it at k = 2;" in said and "nan" not in said


def test_lids_of_the_notebook_are_no_target(results, stages, drive):
    stages(("03_exact_knn.py", "--k-max", "40", "--protocol", "notebook"))
    status, _, err = drive(SCRIPT, "--runs", "faiss:lid=0.01", *FLAGS, results=results)
    assert (status, err.count("\n")) == (2, 1)
    assert "--protocol study" in err and "notebook" in err
    assert not (results / "04_hnsw").exists()
    stages((SCRIPT, "--runs", "faiss:overlap=0.9", *FLAGS))
    half = manifest(results, OVERLAP)["halves"]["40"]
    assert half["is_enough"] and half["reached"]["ci_low"] >= 0.9


def test_rows_that_are_alike_are_in_one_half(tmp_path, stages):
    # The rows of a group are alike in how hard they are to search for.
    groups = np.sort(np.random.default_rng(1).integers(0, 10, 120))
    vectors = np.random.default_rng(0).normal(size=(120, 8)) * (1 + groups[:, None] / 4)
    table = pd.DataFrame({"emb": list(vectors.astype(np.float32)), "group": groups})
    table.to_parquet(tmp_path / "x.parquet")
    text, name = "IVF20,Flat:nprobe=overlap=0.7", "IVF20_Flat_nprobe_overlap_0.7"
    stages(
        ("02_embed_resnet50.py", "--from-file", tmp_path / "x.parquet"),
        ("03_exact_knn.py", "--k-max", "20"),
        (SCRIPT, "--runs", text, *FLAGS[:4], "--k", "10", "--seeds", "0", "5"),
    )
    results = tmp_path / "results"
    assert "02_rows.parquet" in manifest(results, f"{name}_seed5")["inputs"]
    recorded, (value, tried) = manifest(results, name), attained_by(results, text, 10, groups)
    assert recorded["ef_search_by_k"]["10"] == value
    assert recorded["halves"]["10"]["reached"] == pytest.approx(tried[value]._asdict())
    assert attained_by(results, text, 10)[1].get(value) != tried[value]


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
    stages((SCRIPT, *flags))
    whole = {k: lists(results, OVERLAP, k) for k in (5, 40)}
    before = manifest(results, OVERLAP)
    for k in (5, 40):
        # Half of the queries, at most eight times.
        of_k = [rest for one, *rest in searched if one == k]
        assert len(of_k) == len({*map(tuple, of_k)}) == before["halves"][str(k)]["searches"] <= 8
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
    same = ("ef_search_by_k", "halves", "found_for", "parameters", "inputs", "effective_ef")
    for note in (*same, "distance_computations_per_query"):
        assert again[note] == before[note]
