"""The smallest effort that reaches a target: policies, the search for it, and stage 04 with it."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from drift import InputError
from drift.indexes import build_index
from drift.indexes.config import SearchConfig
from drift.indexes.effort import (
    RUNGS,
    Reached,
    agrees,
    is_enough,
    ladder,
    random_halves,
    reached,
    smallest_effort,
)
from drift.indexes.policies import Policy, Target
from drift.indexes.search import approximate_neighbors
from drift.metrics import lid, neighborhood_overlap
from drift.pipeline.results import Results
from drift.pipeline.stage import Stage
from drift.pipeline.tasks.effort import FindEffort
from drift.pipeline.tasks.search import SearchIndex
from drift.protocols import Protocol
from tests.chain import commit
from tests.conftest import run

SCRIPT = "04_hnsw_search.py"
N, K = 400, 40
OVERLAP, LID = Target("overlap", 0.9), Target("lid", 0.01)


# Policies.


@pytest.mark.parametrize(
    ("text", "values", "least"),
    [
        ("50", (50, 50, 50), 50),
        ("2.5", (2.5, 2.5, 2.5), 2.5),
        ("0", (0, 0, 0), 0),
        ("k", (2, 11, 251), 2),
        ("2k", (2, 22, 502), 2),
        ("0.25k", (2, 2, 62), 2),
        ("0.29k", (2, 3, 72), 2),
        ("k,50", (50, 50, 251), 50),
        ("0.5k,7", (7, 7, 125), 7),
    ],
)
def test_values_of_policies(text, values, least):
    policy = Policy(text)
    assert tuple(map(policy.value, (1, 11, 251))) == values
    assert (policy.least, policy.target) == (least, None)
    assert type(policy.value(11)) is type(values[1])


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("overlap=0.99", Target("overlap", 0.99)),
        ("overlap=0.5", Target("overlap", 0.5)),
        ("lid=0.01", Target("lid", 0.01)),
        ("lid=0.00001", Target("lid", 0.00001)),
    ],
)
def test_targets_are_policies(text, target):
    policy = Policy(text)
    assert policy.target == target
    assert policy.number is None
    assert policy.least == 2, "with which a search is warmed up"


@pytest.mark.parametrize(
    "text",
    [
        *("", "-1", "1k", "k2", "050", "0k", "k,", "k,0", "50,40", "1e3", "1.", ".5", "K", " 50"),
        *("overlap", "overlap=", "overlap=1", "overlap=0", "overlap=0.0", "overlap=0.990"),
        *("overlap=99", "overlap=.9", "lid=1.5", "lid=-0.1", "recall=0.9", "overlap=0.9,50"),
    ],
)
def test_what_is_no_policy(text):
    assert not Policy.is_one(text)
    with pytest.raises(InputError) as error:
        Policy(text)
    assert "\n" not in str(error.value) and text in str(error.value)


@pytest.mark.parametrize(
    ("text", "name", "setting"),
    [
        ("faiss:overlap=0.99", "faiss_M32_efc200_efoverlap0.99", "ef_search"),
        ("hnswlib:lid=0.01", "hnswlib_M32_efc200_eflid0.01", "ef_search"),
        ("usearch:overlap=0.9,ef_construction=40", "usearch_M32_efc40_efoverlap0.9", "ef_search"),
        ("pgvector:overlap=0.9", "pgvector_M32_efc200_efoverlap0.9", "ef_search"),
        ("IVF9,Flat:nprobe=overlap=0.9", "IVF9_Flat_nprobe_overlap_0.9", "nprobe"),
    ],
)
def test_targets_of_runs(text, name, setting):
    config = SearchConfig.parse(text, 32, 200)
    assert config.name == name
    assert config.target[0] == setting
    assert config.values(11, 77)[setting] == 77
    assert config.effort([11]) is None, "how long it takes is not known in advance"
    assert not config.shares_search(11, 11)
    assert SearchConfig.parse("faiss:50", 32, 200).target is None


# The search for the smallest one.


@pytest.mark.parametrize(
    ("low", "high"), [(1, 1), (1, 2), (1, 254), (1, 255), (1, 300), (11, 10**6), (51, 400)]
)
def test_rungs_are_few_whole_numbers_from_end_to_end(low, high):
    rungs = ladder(low, high)
    assert rungs.dtype == np.int64
    assert len(rungs) <= RUNGS == 255
    assert (rungs[0], rungs[-1]) == (low, high)
    assert (np.diff(rungs) > 0).all()
    # Evenly on a logarithmic scale, as far as whole numbers are.
    steps = rungs[1:] / rungs[:-1]
    least = (high / low) ** (1 / (RUNGS - 1)) if high > low else 1
    assert (np.diff(rungs) <= np.maximum(1, (least - 1) * rungs[:-1] + 1)).all(), steps.max()


@pytest.mark.parametrize("target", [OVERLAP, LID])
@pytest.mark.parametrize("values", [ladder(10, 10**6), ladder(1, 12), np.array([7])])
def test_every_answer_is_found_in_eight_searches(target, values):
    for first in range(len(values) + 1):
        searched = []

        def search(value, first=first, searched=searched):
            searched.append(value)
            place = int(np.flatnonzero(values == value)[0])
            good, near = place >= first, place / 1e6
            if target is OVERLAP:
                return Reached(0.95, 0.9 if good else 0.8 + near, 1.0)
            return Reached(0.0, -0.01 if good else -0.5 + near, 0.005)

        found = smallest_effort(target, values, search)
        assert len(searched) == len(set(searched)) == found.searches <= 8
        assert set(searched) <= set(values.tolist())
        sweep = [value for value in values.tolist() if is_enough(target, search(value))]
        assert found.is_enough == bool(sweep)
        # Where none reaches it: the one that came nearest, here the largest.
        assert found.value == (sweep[0] if sweep else values[-1])
        assert found.reached == search(found.value)


def test_where_none_reaches_it_the_best_is_named():
    ends = {1: 0.5, 2: 0.7, 3: 0.85, 4: 0.8, 5: 0.7}  # 3 and 5 are tried
    found = smallest_effort(
        OVERLAP, np.array(list(ends)), lambda value: Reached(0.9, ends[value], 1.0)
    )
    assert (found.value, found.is_enough, found.reached.ci_low) == (3, False, 0.85)
    intervals = {1: (-0.5, 0.1), 2: (-0.2, 0.1), 3: (-0.05, 0.3), 4: (-0.1, 0.02), 5: (-0.1, 0.02)}
    found = smallest_effort(
        LID, np.array(list(intervals)), lambda value: Reached(0.0, *intervals[value])
    )
    assert (found.value, found.is_enough) == (5, False)
    unknown = Reached(np.nan, np.nan, np.nan)
    found = smallest_effort(LID, np.arange(1, 8), lambda value: unknown)
    assert not found.is_enough and found.value in range(1, 8)
    # One that is known is better than one that is not.
    known = {4: unknown, 6: Reached(0.3, 0.2, 0.4), 7: unknown}
    assert smallest_effort(LID, np.arange(1, 8), known.__getitem__).value == 6


@pytest.mark.parametrize(
    ("target", "found", "enough", "agreed"),
    [
        (OVERLAP, (0.95, 0.9, 1.0), True, True),
        (OVERLAP, (0.95, 0.8999, 1.0), False, True),
        (OVERLAP, (0.89, 0.85, 0.95), False, False),
        (LID, (0.0, -0.01, 0.01), True, True),
        (LID, (0.0, -0.0101, 0.001), False, True),
        (LID, (0.0, -0.001, 0.0101), False, True),
        (LID, (-0.02, -0.03, -0.01), False, False),
        (LID, (0.02, 0.015, 0.03), False, False),
        *((target, (np.nan,) * 3, False, False) for target in (OVERLAP, LID)),
    ],
)
def test_what_is_enough_and_what_agrees(target, found, enough, agreed):
    assert is_enough(target, Reached(*found)) is enough
    assert agrees(target, Reached(*found)) is agreed


# Halves.


@pytest.mark.parametrize("n", [1, 2, 7, 1000])
@pytest.mark.parametrize("groups", [None, "alone"])
def test_halves_of_queries(n, groups):
    first, second = random_halves(n, None if groups is None else np.full(n, -1, np.int32))
    assert sorted([*first, *second]) == list(range(n))
    assert abs(len(first) - len(second)) == n % 2
    assert (np.diff(first) > 0).all() and (np.diff(second) > 0).all()
    if n == 1000:
        assert 200 < (first < 500).sum() < 300, "at random"


def test_halves_by_groups():
    rng = np.random.default_rng(0)
    groups = rng.integers(-1, 30, size=1000).astype(np.int32)
    drawn = [random_halves(1000, groups, seed) for seed in (0, 0, 1)]
    for first, second in drawn:
        assert sorted([*first, *second]) == list(range(1000))
        shared = set(groups[first]) & set(groups[second])
        assert shared <= {-1}, "no group is in both"
        assert shared == {-1}, "images without a group are alone"
        assert abs(len(first) - 500) <= np.bincount(groups + 1)[1:].max() / 2
        assert (np.diff(first) > 0).all() and (np.diff(second) > 0).all()
    assert drawn[0][0].tolist() == drawn[1][0].tolist() != drawn[2][0].tolist()


def test_one_group_has_no_other_half():
    for target in (OVERLAP, LID):
        halves = random_halves(30, np.zeros(30, np.int32))
        assert [len(half) for half in halves] == [30, 0]
        none = (np.empty((0, 9), np.int32), np.empty((0, 9), np.float32))
        assert np.isnan(reached(target, none, none, np.empty(0, np.int32))).all()


# What lists reach.


def two_lists(n, k=20, seed=0):
    """Exact lists, and others that miss some neighbors and have farther ones in place of them."""
    rng = np.random.default_rng(seed)
    exact = np.tile(np.arange(k, dtype=np.int32), (n, 1))
    distances = np.sort(rng.uniform(1, 2, size=(n, k)), axis=1)
    missed = rng.random(n) < 0.6
    ids, farther = exact.copy(), distances.copy()
    ids[missed, -3:] += 1000
    farther[missed, -3:] *= 1.02
    return (exact, distances), (ids, farther)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("target", [OVERLAP, LID])
def test_with_few_groups_the_interval_is_students(target, grouped):
    n = 120 if grouped else 30
    exact, ann = two_lists(n)
    groups = np.arange(n) % 6 if grouped else None
    if target is OVERLAP:
        values = np.array(
            [len(set(a) & set(b)) / 20 for a, b in zip(exact[0], ann[0], strict=True)]
        )
        scale = 1.0
    else:
        values, scale = lid(ann[1]) - lid(exact[1]), lid(exact[1]).mean()
        values, scale = values / scale, scale
    sums = [values[groups == g].sum() for g in range(6)] if grouped else values
    sizes = [20] * 6 if grouped else [1] * n
    mean, g = values.mean(), len(sums)
    off = np.array([total - mean * size for total, size in zip(sums, sizes, strict=True)])
    error = np.sqrt(g / (g - 1) * (off**2).sum()) / n
    half = stats.t.ppf(0.975, g - 1) * error

    found = reached(target, exact, ann, groups)

    assert 0.001 < half < 0.2
    assert found == pytest.approx((mean, mean - half, mean + half), rel=1e-9)
    if not grouped:
        interval = stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values))
        assert found[1:] == pytest.approx(interval)
    assert scale > 0


def test_with_many_queries_the_interval_is_the_bootstraps():
    exact, ann = two_lists(400)
    values = neighborhood_overlap(exact[0], ann[0])
    found = reached(OVERLAP, exact, ann, seed=3)
    half = 1.96 * stats.sem(values)
    assert found.mean == pytest.approx(values.mean())
    assert found[1:] == pytest.approx((values.mean() - half, values.mean() + half), abs=half / 5)
    assert found == reached(OVERLAP, exact, ann, seed=3) != reached(OVERLAP, exact, ann, seed=4)


def test_a_share_is_not_above_1_and_what_is_the_same_is_certain():
    exact, _ = two_lists(30)
    assert reached(OVERLAP, exact, exact) == (1, 1, 1)
    assert reached(LID, exact, exact) == (0, 0, 0)
    ids = exact[0].copy()
    ids[0, -10:] += 1000
    assert reached(OVERLAP, exact, (ids, exact[1])).ci_high == 1
    # A difference can be below 0, whatever the LIDs are.
    low = reached(LID, exact, (exact[0], exact[1] ** 2))
    assert low.ci_low < low.mean < low.ci_high < 0


def test_too_few_lids_reach_nothing():
    exact, ann = two_lists(300)
    known = reached(LID, exact, ann)
    for lacking, is_known in ((3, True), (4, False)):
        for side in (exact, ann):
            distances = side[1].copy()
            distances[:lacking] = 1.0  # all alike: no LID
            pair = [
                (s[0], distances) if s is side else s for s in (exact, ann)
            ]  # of 300 queries 99 % are 297
            found = reached(LID, *pair)
            assert np.isfinite(found).all() if is_known else np.isnan(found).all()
            assert is_enough(Target("lid", 0.9), found) is is_known
            assert np.isfinite(reached(OVERLAP, *pair)).all()
    assert np.isfinite(known).all()


# Stage 04.


class Silent:
    """In place of pytest's `capsys`, which a fixture of a whole module cannot have."""

    out = err = ""

    @classmethod
    def readouterr(cls):
        return cls


def prepare(folder, vectors, *flags):
    """Results of stages 02 and 03."""
    np.save(folder / "x.npy", vectors.astype(np.float32))
    with pytest.MonkeyPatch.context() as patch:
        for script, *args in (
            ("02_embed_resnet50.py", "--from-file", folder / "x.npy"),
            ("03_exact_knn.py", "--k-max", K, *flags),
        ):
            ended = run(script, *args, results=folder / "results", capsys=Silent, monkeypatch=patch)
            assert ended[0] == 0
    return folder / "results"


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    """Vectors of one kind. Tests only read the folder."""
    vectors = np.random.default_rng(0).normal(size=(N, 16))
    return prepare(tmp_path_factory.mktemp("exact"), vectors)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """The half on which efforts are found is easy, the other one is not."""
    first, second = random_halves(N)
    rng = np.random.default_rng(0)
    vectors = np.zeros((N, 16))
    vectors[first, :2] = rng.normal(size=(len(first), 2))
    vectors[second] = 30 + rng.normal(size=(len(second), 16))
    return prepare(tmp_path_factory.mktemp("uneven"), vectors)


@pytest.fixture
def results(exact, tmp_path):
    """A copy to search in."""
    return shutil.copytree(exact, tmp_path / "results")


def manifest(results, name):
    return json.loads((results / "04_hnsw" / name / "run.json").read_text())


def lists(results, name, k):
    folder = results / "04_hnsw" / name
    return [np.load(folder / f"k{k:04d}_{part}.npy") for part in ("indices", "distances")]


def first_enough(results, text, k, groups=None, seed=0):
    """The first rung that is enough, and what those up to it reach, without bisection or stages."""
    config = SearchConfig.parse(text, 4, 40)
    x = np.load(results / "02_embeddings.npy")
    exact = [np.load(results / f"03_exact_{part}.npy")[:, :k] for part in ("indices", "distances")]
    index, (setting, target) = build_index(config.index, x), config.target
    half, _ = random_halves(len(x), groups, seed)
    sweep = {}
    for value in ladder(*index.value_range(setting, k + 1)).tolist():
        settings = config.values(k + 1, value)
        found, _ = approximate_neighbors(
            index, x[half], [k], settings, Protocol.STUDY, half, x, max_searches=1
        )
        sides = [side[half] for side in exact], found[k][:2]
        sweep[value] = reached(target, *sides, None if groups is None else groups[half], seed)
        if is_enough(target, sweep[value]):
            return value, sweep
    return None, sweep


FLAGS = ("--m", "4", "--ef-construction", "40", "--k", "5", "40")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("faiss:overlap=0.9", "faiss_M4_efc40_efoverlap0.9"),
        ("faiss:lid=0.1", "faiss_M4_efc40_eflid0.1"),
        ("hnswlib:overlap=0.9", "hnswlib_M4_efc40_efoverlap0.9"),
        ("hnswlib:overlap=0.1", "hnswlib_M4_efc40_efoverlap0.1"),  # the length of the lists
        ("IVF20,Flat:nprobe=overlap=0.9", "IVF20_Flat_nprobe_overlap_0.9"),
        ("NSG4,Flat:search_L=overlap=0.6", "NSG4_Flat_search_L_overlap_0.6"),
    ],
)
def test_the_smallest_setting_that_is_enough_is_found(text, name, results, drive):
    status, _, err = drive(SCRIPT, "--runs", text, *FLAGS, results=results)
    assert status == 0, err
    recorded = manifest(results, name)
    setting = SearchConfig.parse(text, 4, 40).target[0]
    assert recorded["found_for"] == setting
    assert list(recorded["ef_search_by_k"]) == list(recorded["halves"]) == ["5", "40"]
    for k in (5, 40):
        first, sweep = first_enough(results, text, k)
        value, facts = recorded["ef_search_by_k"][str(k)], recorded["halves"][str(k)]
        assert value == first
        assert facts["is_enough"] and facts["searches"] <= 8
        assert facts["reached"] == pytest.approx(sweep[value]._asdict())
        _check_other_half(results, text, name, k, facts)
    # The run is what these values give.
    backend = text.partition(":")[0]
    for k in (5, 40):
        value = recorded["ef_search_by_k"][str(k)]
        fixed = f"{backend}:{setting}={value}" if "," in backend else f"{backend}:{value}"
        flags = (*FLAGS[:4], "--k", k, "--runs", fixed)
        assert drive(SCRIPT, *flags, results=results)[0] == 0
        same = SearchConfig.parse(fixed, 4, 40).name
        for one, other in zip(lists(results, name, k), lists(results, same, k), strict=True):
            np.testing.assert_array_equal(one, other)
        if setting == "ef_search":
            assert (
                recorded["effective_ef"][str(k)] == manifest(results, same)["effective_ef"][str(k)]
            )
    again = drive(SCRIPT, "--runs", text, *FLAGS, results=results)
    assert (again[0], again[1].count("up to date")) == (0, 1)


def _check_other_half(results, text, name, k, facts):
    _, other = random_halves(N)
    exact = [np.load(results / f"03_exact_{part}.npy")[other, :k] for part in PARTS]
    ann = [side[other] for side in lists(results, name, k)]
    target = SearchConfig.parse(text, 4, 40).target[1]
    expected = reached(target, exact, ann)
    assert facts["other_half"] == pytest.approx(expected._asdict())
    assert facts["agrees"] == agrees(target, expected)


PARTS = ("indices", "distances")


def sentences(out):
    return " ".join(out.split())


def test_a_half_that_disagrees_is_said(uneven, tmp_path, drive):
    results, name = shutil.copytree(uneven, tmp_path / "results"), "faiss_M4_efc40_efoverlap0.9"
    flags = (*FLAGS[:4], "--k", "5", "10")
    assert drive(SCRIPT, "--runs", "faiss:overlap=0.9", *flags, results=results)[0] == 0
    halves = manifest(results, name)["halves"]
    assert [halves[k]["is_enough"] for k in ("5", "10")] == [True, True]
    assert [halves[k]["agrees"] for k in ("5", "10")] == [False, False]
    status, out, _ = drive("05_metrics.py", results=results)
    assert status == 0
    mean = halves["10"]["other_half"]["mean"]
    assert mean < 0.9
    said = f"On the other half it misses the target at k = 5 and 10 ({mean:.3f} at k = 10)."
    assert said in sentences(out)
    assert "The other half agrees" not in sentences(out)


def test_halves_that_agree_and_targets_that_nothing_reaches(results, drive):
    easy, hopeless = "HNSW16,Flat:efSearch=overlap=0.8", "IVF4,PQ2x4fs:nprobe=overlap=0.9"
    assert drive(SCRIPT, "--runs", easy, hopeless, *FLAGS[4:], results=results)[0] == 0
    halves = manifest(results, "HNSW16_Flat_efSearch_overlap_0.8")["halves"]
    assert all(half["agrees"] and half["is_enough"] for half in halves.values())
    missed = manifest(results, "IVF4_PQ2x4fs_nprobe_overlap_0.9")
    best = {}
    for k in (5, 40):
        first, sweep = first_enough(results, hopeless, k)
        assert first is None
        half, value = missed["halves"][str(k)], missed["ef_search_by_k"][str(k)]
        assert half["is_enough"] is False
        assert half["reached"] == pytest.approx(sweep[value]._asdict())
        tried = (3, 4)  # by bisection of 1, 2, 3, 4
        assert sweep[value].ci_low == max(sweep[one].ci_low for one in tried)
        best[k] = value
    status, out, _ = drive("05_metrics.py", results=results)
    assert status == 0
    said = sentences(out)
    assert "The other half agrees at every k." in said
    mean = missed["halves"]["40"]["reached"]["mean"]
    assert (
        f"No nprobe reaches it at k = 5 and 40; the best at k = 40, {best[40]}, has {mean:.3f}"
        in said
    )
    assert "misses the target" not in said


def test_lids_that_are_none_reach_nothing(results, drive):
    flags = ("--m", "4", "--ef-construction", "40", "--k", "2", "30")
    assert drive(SCRIPT, "--runs", "faiss:lid=0.05", *flags, results=results)[0] == 0
    halves = manifest(results, "faiss_M4_efc40_eflid0.05")["halves"]
    assert [halves[k]["is_enough"] for k in ("2", "30")] == [False, True]
    assert np.isnan(halves["2"]["reached"]["mean"]), "two distances make no LID"
    status, out, _ = drive("05_metrics.py", results=results)
    assert status == 0
    assert "nan" not in sentences(out)
    assert "No efSearch reaches it at k = 2;" in sentences(out)


def test_lids_of_the_notebook_are_no_target(tmp_path, drive):
    results = prepare(tmp_path, np.random.default_rng(0).normal(size=(N, 4)), "--protocol=notebook")
    status, _, err = drive(SCRIPT, "--runs", "faiss:lid=0.01", *FLAGS, results=results)
    assert (status, err.count("\n")) == (2, 1)
    assert "--protocol study" in err and "notebook" in err
    assert not (results / "04_hnsw").exists()
    assert drive(SCRIPT, "--runs", "faiss:overlap=0.9", *FLAGS, results=results)[0] == 0
    facts = manifest(results, "faiss_M4_efc40_efoverlap0.9")["halves"]["40"]
    assert facts["is_enough"] and facts["reached"]["ci_low"] >= 0.9


@pytest.mark.parametrize("seed", [0, 5])
def test_images_that_are_alike_are_in_one_half(seed, tmp_path, drive):
    folder = tmp_path / "results"
    images = ("01_download_stl10.py", "--dataset", "photos", "--n-images", "120")
    assert drive(*images, results=folder)[0] == 0
    groups = pd.read_parquet(folder / "01_images.parquet")["group"].to_numpy()
    rng = np.random.default_rng(0)
    # Of each photograph the crops are alike in how hard they are to search for.
    vectors = rng.normal(size=(120, 8)) * (1 + groups[:, None] / 4)
    arrays = {"02_embeddings.npy": vectors.astype(np.float32)}
    commit(Results(folder), "02_embeddings", arrays, ["01_images.npy"])
    assert drive("03_exact_knn.py", "--k-max", "20", results=folder)[0] == 0
    flags = ("--m", "4", "--ef-construction", "40", "--k", "10", "--seed", seed)
    assert drive(SCRIPT, "--runs", "IVF20,Flat:nprobe=overlap=0.7", *flags, results=folder)[0] == 0
    name = "IVF20_Flat_nprobe_overlap_0.7" + (f"_seed{seed}" if seed else "")
    recorded = manifest(folder, name)
    assert "01_images.parquet" in recorded["inputs"]
    half = recorded["halves"]["10"]
    first, second = random_halves(120, groups)
    assert not set(groups[first]) & set(groups[second])
    if seed == 0:
        value, sweep = first_enough(folder, "IVF20,Flat:nprobe=overlap=0.7", 10, groups)
        assert recorded["ef_search_by_k"]["10"] == value
        assert half["reached"] == pytest.approx(sweep[value]._asdict())
        alone = first_enough(folder, "IVF20,Flat:nprobe=overlap=0.7", 10)[1]
        assert alone.get(value) != sweep[value]


def test_interrupted_and_resumed_it_is_the_same(results, drive, monkeypatch):
    flags, name = ("--runs", "faiss:overlap=0.9", *FLAGS), "faiss_M4_efc40_efoverlap0.9"
    assert drive(SCRIPT, *flags, results=results)[0] == 0
    whole = {k: lists(results, name, k) for k in (5, 40)}
    facts = manifest(results, name)
    shutil.rmtree(results / "04_hnsw")
    checkpoint, searched = Stage.checkpoint, []
    call = FindEffort.__call__

    def interrupt(stage, block, **more):
        checkpoint(stage, block, **more)
        raise KeyboardInterrupt

    def search(task, block):
        searched.append(block[1])
        return call(task, block)

    monkeypatch.setattr(FindEffort, "__call__", search)
    interruptions = 0
    with monkeypatch.context() as patched:
        patched.setattr(Stage, "checkpoint", interrupt)
        while (status := drive(SCRIPT, *flags, results=results)[0]) == 130:
            interruptions += 1
    assert (status, interruptions) == (0, 5), "after the graph, two efforts and two searches"
    assert searched == [5, 40], "each once"
    for k, arrays in whole.items():
        for one, other in zip(arrays, lists(results, name, k), strict=True):
            np.testing.assert_array_equal(one, other)
    again = manifest(results, name)
    for fact in ("ef_search_by_k", "halves", "found_for", "parameters", "inputs", "effective_ef"):
        assert again[fact] == facts[fact]
    assert again["distance_computations_per_query"] == facts["distance_computations_per_query"]


def test_half_of_the_queries_are_searched_for_at_most_eight_times(results, drive, monkeypatch):
    searched, search = [], SearchIndex.search

    def record(task, rows, ks, settings, max_searches=None):
        if max_searches == 1:
            searched.append((tuple(ks), len(rows), settings["ef_search"]))
        return search(task, rows, ks, settings, max_searches)

    monkeypatch.setattr(SearchIndex, "search", record)
    assert drive(SCRIPT, "--runs", "faiss:overlap=0.9", *FLAGS, results=results)[0] == 0
    halves = manifest(results, "faiss_M4_efc40_efoverlap0.9")["halves"]
    for k in (5, 40):
        of_k = [(n, ef) for ks, n, ef in searched if ks == (k,)]
        assert len(of_k) == len(set(of_k)) == halves[str(k)]["searches"] <= 8
        assert {n for n, _ in of_k} == {N // 2}


def test_other_exact_lists_mean_another_effort(results, drive):
    flags = ("--runs", "faiss:overlap=0.9", *FLAGS)
    assert drive(SCRIPT, *flags, results=results)[0] == 0
    exact = ("03_exact_knn.py", "--k-max", str(K), "--queries", "100")
    assert drive(*exact, results=results)[0] == 0
    status, out, _ = drive(SCRIPT, *flags, results=results)
    assert (status, "up to date" in out) == (0, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("IVF9,PQ4,RFlat:nprobe=overlap=0.9,k_factor_rf=overlap=0.8", "only one setting"),
        ("faiss:overlap=1.0", "is no run"),
        ("faiss:recall=0.9", "is no run"),
        ("faiss:overlap=0.9,50", "is no run"),
        ("PQ4x4fs:overlap=0.9", "has no setting overlap"),
        ("usearch:50,overlap=0.9", "has no setting overlap=0.9"),
    ],
)
def test_targets_that_cannot_be_are_one_line(text, message, results, drive):
    status, _, err = drive(SCRIPT, "--runs", text, *FLAGS, results=results)
    assert (status, err.count("\n")) == (2, 1), err
    assert message in err
    assert not (results / "04_hnsw").exists()
