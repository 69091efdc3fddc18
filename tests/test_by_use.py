"""The verdict by use: components, labels and errors, stage 05 as a whole, its sentences."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from drift import InputError, by_use, vectors
from drift.pipeline.results import Results
from drift.report import figures, verdict
from drift.report.by_use import by_use as verdict_by_use
from drift.report.run_styles import run_styles
from drift.report.study import Study
from tests.chain import begin, commit
from tests.conftest import run

# Components and labels, against plain loops.


def count_components(lists):
    """How many sets of rows are connected, by union and find."""
    parent = list(range(len(lists)))

    def root(row):
        while parent[row] != row:
            row = parent[row]
        return row

    for row, neighbors in enumerate(lists):
        for neighbor in neighbors:
            if neighbor >= 0:
                parent[root(row)] = root(neighbor)
    return len({root(row) for row in range(len(lists))})


def random_lists(seed, n, k, missing):
    """Lists without the row itself, some of which end early."""
    rng = np.random.default_rng(seed)
    lists = np.array([rng.permutation(np.delete(np.arange(n), row))[:k] for row in range(n)])
    returned = k - rng.binomial(k, missing, size=n)
    lists[np.arange(k) >= returned[:, None]] = -1
    return lists


def components(lists, n=None, block=None):
    joined = np.arange(n or len(lists))
    for start in range(0, len(lists), block or len(lists)):
        rows = np.arange(len(lists))[start : start + (block or len(lists))]
        joined = by_use.join_components(joined, rows, lists[rows])
    return joined


@pytest.mark.parametrize("block", [None, 1, 7])
@pytest.mark.parametrize(
    ("k", "missing"), [(1, 0.0), (1, 0.5), (2, 0.6), (3, 0.7), (4, 0.0), (5, 1.0)]
)
def test_components_are_those_of_union_and_find(k, missing, block):
    lists = random_lists(10 * k, 80, k, missing)
    expected = count_components(lists.tolist())
    joined = components(lists, block=block)
    assert sorted(set(joined)) == list(range(expected))
    for row, neighbors in enumerate(lists):
        assert set(joined[neighbors[neighbors >= 0]]) <= {joined[row]}


def test_some_of_these_graphs_have_several_components_and_others_one():
    counts = [len(set(components(random_lists(10 * k, 80, k, m)))) for k, m in ((1, 0.5), (4, 0))]
    assert counts[0] > 5
    assert counts[1] == 1


def test_an_edge_is_there_where_either_lists_the_other():
    lists = np.array([[1], [-1], [-1], [2]])
    assert list(components(lists)) == [0, 0, 1, 1]


def test_however_many_edges_are_between_two_components_they_are_one():
    halves = np.repeat([0, 1], 300)
    lists = np.arange(300, 556)[None].repeat(300, axis=0)
    assert set(by_use.join_components(halves, np.arange(300), lists)) == {0}
    within = np.arange(256)[None].repeat(44, axis=0)
    assert set(by_use.join_components(halves, np.arange(256, 300), within)) == {0, 1}


def majority(neighbors, labels, query=None):
    counts = {}
    for neighbor in neighbors:
        if neighbor >= 0 and neighbor != query and labels[neighbor] >= 0:
            counts[labels[neighbor]] = counts.get(labels[neighbor], 0) + 1
    return min(counts, key=lambda label: (-counts[label], label), default=-1)


@pytest.mark.parametrize("names", [[0, 1], [-1, 3, 7, 500], [-1, -1, -1, 0]])
@pytest.mark.parametrize("is_row", [True, False])
def test_the_majority_label_is_that_of_plain_loops(names, is_row, monkeypatch):
    rng = np.random.default_rng(1)
    labels = rng.choice(names, size=60).astype(np.int16)
    lists = np.array([rng.permutation(60)[:6] for _ in range(200)])
    lists[np.arange(6) >= rng.integers(0, 7, 200)[:, None]] = -1
    queries = rng.integers(0, 60, 200) if is_row else None
    own = queries if is_row else [None] * 200
    expected = [majority(*row) for row in zip(lists, [labels] * 200, own, strict=True)]
    assert {-1, *names} == set(expected), "no neighbor with a label, and each label, are there"
    assert list(by_use.majority_labels(lists, labels, queries)) == expected
    monkeypatch.setattr(by_use, "row_blocks", lambda n, _: vectors.row_blocks(n, 1, 7))
    assert list(by_use.majority_labels(lists, labels, queries)) == expected


def test_of_several_labels_that_are_as_frequent_it_is_the_smallest():
    labels = np.array([5, 5, 2, 2, 9, -1])
    lists = np.array([[0, 1, 2, 3], [4, 0, -1, -1], [5, -1, -1, -1], [5, 5 - 1, -1, -1]])
    assert list(by_use.majority_labels(lists, labels)) == [2, 5, -1, 9]
    assert list(by_use.majority_labels(lists[:1], labels, np.array([3]))) == [5]
    assert list(by_use.majority_labels(lists, np.full(6, -1))) == [-1] * 4


def test_lists_that_cannot_be_are_refused():
    bad = np.array([[1, 2], [0, 4]])
    with pytest.raises(InputError, match="row 1 has an id that is no row of the 4 embeddings: 4"):
        by_use.join_components(np.arange(4), np.arange(2), bad)
    with pytest.raises(InputError, match="row 1 has an id that is no row"):
        by_use.majority_labels(bad, np.zeros(4, int))


# Errors and shares, with answers that are known.


def relative_error(values, exact, seed=0, groups=None):
    return by_use.estimates({"error": (values, exact)}, {}, seed, groups)["error"]


def share(is_so, seed=0, groups=None):
    return by_use.estimates({}, {"share": is_so}, seed, groups)["share"]


@pytest.fixture
def sides():
    rng = np.random.default_rng(2)
    exact = rng.gamma(4, 1, 400)
    return exact * rng.normal(1.1, 0.2, 400), exact


def test_an_error_of_10_percent_is_one_and_has_no_spread():
    exact = np.random.default_rng(0).random(100)
    error = relative_error(1.1 * exact, exact, seed=0)
    assert error == pytest.approx((0.1, 0.1, 0.1, 100))
    assert relative_error(exact, exact, seed=0) == (0, 0, 0, 100)


def test_the_error_is_that_of_the_mean_and_has_one_where_an_exact_value_is_0():
    error = relative_error(np.array([1.0, 3.0, 6.0]), np.array([0.0, 2.0, 6.0]), seed=0)
    assert error.value == pytest.approx(2 / 8)
    assert error.n == 3


def test_queries_without_a_value_on_one_side_are_left_out_on_both(sides):
    values, exact = (side.copy() for side in sides)
    values[:50], exact[50:60] = np.nan, np.nan
    error = relative_error(values, exact, seed=0)
    assert error.n == 340
    assert error.value == pytest.approx(values[60:].mean() / exact[60:].mean() - 1)


@pytest.mark.parametrize("exact", [np.zeros(60), np.full(60, np.nan)])
def test_without_an_exact_value_there_is_no_error(exact):
    error = relative_error(np.ones(60), exact, seed=0)
    assert np.isnan(error[:3]).all()
    assert error.n == np.count_nonzero(exact == 0)


def test_without_groups_the_interval_is_that_of_resampled_ratios(sides):
    values, exact = sides
    draws = np.random.default_rng(5).integers(400, size=(1000, 400))
    ratios = values[draws].mean(axis=1) / exact[draws].mean(axis=1) - 1
    error = relative_error(values, exact, seed=5)
    assert error[1:3] == pytest.approx(np.quantile(ratios, [0.025, 0.975]))
    assert error != relative_error(values, exact, seed=6)
    is_so = values < exact
    found = share(is_so, seed=5)
    assert found.value == is_so.mean()
    assert found[1:3] == pytest.approx(np.quantile(is_so[draws].mean(axis=1), [0.025, 0.975]))


def plain_t_interval(residuals, groups, quantile):
    """Plus and minus t times the standard error of a mean, by group, with the residuals' sums."""
    sums = [sum(residuals[groups == group]) for group in set(groups)]
    n_groups = len(sums)
    variance = n_groups / (n_groups - 1) * sum(one**2 for one in sums) / len(residuals) ** 2
    return quantile * variance**0.5


def test_with_few_groups_the_interval_is_the_t_interval_by_group(sides):
    values, exact = sides
    groups = np.arange(400) % 15 // 2  # 8 groups of other sizes
    values = values + groups
    ratio = values.mean() / exact.mean() - 1
    residuals = (values - exact - ratio * exact) / exact.mean()
    half = plain_t_interval(residuals, groups, quantile=2.364624)  # of 7 degrees
    error = relative_error(values, exact, 0, groups)
    assert error[1:3] == pytest.approx((ratio - half, ratio + half))
    assert half > 3 * (relative_error(values, exact, 0).ci_high - error.value)

    is_so = groups < 1
    half = plain_t_interval(is_so - is_so.mean(), groups, quantile=2.364624)
    assert share(is_so, 0, groups)[1:3] == pytest.approx((0, is_so.mean() + half))


def test_what_is_estimated_together_is_as_alone(sides):
    values, exact = sides
    holes = np.where(np.arange(400) < 9, np.nan, values)
    together = by_use.estimates(
        {"a": sides, "b": (holes, exact)}, {"c": values < exact, "d": exact < 3}, 4
    )
    alone = [relative_error(*sides, 4), relative_error(holes, exact, 4)]
    alone += [share(values < exact, 4), share(exact < 3, 4)]
    assert list(together) == list("abcd")
    for one, other in zip(together.values(), alone, strict=True):
        assert one == pytest.approx(other)


def test_one_group_leaves_no_interval(sides):
    error = relative_error(*sides, 0, np.zeros(400, int))
    assert np.isnan(error[1:3]).all()
    assert error.value == relative_error(*sides, 0).value


def test_nothing_can_be_more_than_gone():
    exact, groups = np.ones(60), np.arange(60) % 2
    error = relative_error(np.where(groups == 0, 0.0, 0.1), exact, 0, groups)
    assert error.ci_low == -1


# Stage 05 as a whole.

N, D, K = 240, 4, 20
LISTS = ["whole", "halves", "short"]


def label_stages(root):
    """Stages 01 and 02 of images of three classes, whose vectors overlap, in six groups."""
    rng, results = np.random.default_rng(3), Results(root)
    stage = begin(results, "01_images")
    stage.create("01_images.npy", (N, 2, 2, 3), np.uint8)
    table = pd.DataFrame({"row": np.arange(N, dtype=np.int32), "source": "x"})
    table["label"] = (np.arange(N) % 3).astype(np.int16)
    table["group"] = (np.arange(N) % 6).astype(np.int32)
    table.loc[:5, "label"] = -1
    table.to_parquet(stage.output("01_images.parquet"), index=False)
    stage.commit()
    embeddings = rng.normal(size=(N, D)) + table["label"].to_numpy()[:, None]
    arrays = {"02_embeddings.npy": embeddings.astype(np.float32)}
    commit(results, "02_embeddings", arrays, ["01_images.npy"])
    return table


def nearest(embeddings, may):
    """Ids of the neighbors of each row, by distance, among those that it may have; -1 behind."""
    distances = np.linalg.norm(embeddings[:, None] - embeddings[None], axis=2)
    distances[~may | np.eye(N, dtype=bool)] = np.inf
    ids = np.argsort(distances, axis=1, kind="stable")[:, :K]
    return np.where(np.isinf(np.take_along_axis(distances, ids, axis=1)), -1, ids)


def in_process(script, *args, results, patch):
    """Run a stage that must end well; what it printed is not looked at."""

    class Output:
        def readouterr(self):
            return type("Captured", (), {"out": "", "err": ""})

    status, *_ = run(script, *args, results=results, capsys=Output(), monkeypatch=patch)
    assert status == 0


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Results of stages 01 to 05, of lists that are exact, that keep to halves, that are short."""
    root = tmp_path_factory.mktemp("by_use") / "results"
    label_stages(root)
    embeddings = np.load(root / "02_embeddings.npy")
    even, every = np.arange(N) % 2 == 0, np.ones((N, N), bool)
    lists = [nearest(embeddings, may) for may in (every, even == even[:, None], every)]
    lists[2][:30, 15:] = -1
    with pytest.MonkeyPatch.context() as patch:
        in_process("03_exact_knn.py", "--k-max", K, results=root, patch=patch)
        # In the order of their names, so that the seconds of their manifests change no order.
        for name, ids in sorted(zip(LISTS, lists, strict=True), key=lambda one: one[0]):
            path = root.parent / f"{name}.npy"
            np.save(path, ids)
            search = ("--lists", name, path, "--k", *((10,) if name == "short" else ()), K)
            in_process("04_hnsw_search.py", *search, results=root, patch=patch)
        in_process("05_metrics.py", results=root, patch=patch)
    return root


@pytest.fixture
def copy(measured, tmp_path):
    return Path(shutil.copytree(measured, tmp_path / "results"))


def records(root):
    manifest = json.loads((root / "05_metrics.json").read_text())
    return {record["run"]: record for record in manifest["by_use"]}


def flat(text):
    return " ".join(text.replace("\u00a0", " ").split())


def test_the_manifest_holds_what_plain_loops_find(measured):
    found, exact = records(measured), np.load(measured / "03_exact_indices.npy")
    assert list(found) == sorted(LISTS)
    manifest = json.loads((measured / "05_metrics.json").read_text())
    assert manifest["parameters"]["k_of_interest"] == K
    assert "01_images.parquet" in manifest["inputs"]
    labels = pd.read_parquet(measured / "01_images.parquet")["label"].to_numpy()
    per_query = pd.read_parquet(measured / "05_per_query.parquet").query("k == @K")
    same = {}
    for name in LISTS:
        ids, record = np.load(measured.parent / f"{name}.npy"), found[name]
        mine = per_query[per_query["run"] == name]
        assert record["short_rows"] == np.count_nonzero(ids[:, -1] < 0)
        counts = {"exact": count_components(exact), "ann": count_components(ids)}
        assert record["components"] == counts
        agree = [
            majority(a, labels) == majority(e, labels) for a, e in zip(ids, exact, strict=True)
        ]
        same[name] = record["same_label"]["value"]
        assert same[name] == pytest.approx(np.mean(agree))
        for key in ("overlap", "recall"):
            below = np.mean(mine[key] < 0.9)
            assert record[f"below_{key}"]["value"] == pytest.approx(below)
        for key in ("kth_distance", "lid"):
            ratio = mine[f"{key}_ann"].mean() / mine[f"{key}_exact"].mean() - 1
            assert record[key]["value"] == pytest.approx(ratio, abs=1e-12)
            assert record[key]["n"] == N
    assert same["halves"] < same["whole"] == 1
    assert found["short"]["short_rows"] == 30
    assert [found[name]["components"] for name in LISTS] == [
        *({"exact": 1, "ann": 1}, {"exact": 1, "ann": 2}, {"exact": 1, "ann": 1}),
    ]
    assert found["halves"]["kth_distance"]["ci_low"] > 0 > found["short"]["kth_distance"]["value"]


def test_intervals_are_by_group(measured):
    per_query = pd.read_parquet(measured / "05_per_query.parquet")
    mine = per_query[(per_query["run"] == "short") & (per_query["k"] == K)]
    groups = pd.read_parquet(measured / "01_images.parquet")["group"].to_numpy()
    record = records(measured)["short"]
    below, lids = (mine["overlap"] < 0.9).to_numpy(), (mine["lid_ann"], mine["lid_exact"])
    for key, function, given in (
        ("below_overlap", share, [below]),
        ("lid", relative_error, lids),
    ):
        found = tuple(record[key].values())
        assert found == pytest.approx(tuple(function(*given, 0, groups)))
        assert found != pytest.approx(tuple(function(*given, 0)))


def test_the_k_can_be_chosen_and_decides_what_is_up_to_date(copy, drive):
    _, out, _ = drive("05_metrics.py", results=copy)
    assert "up to date" in out
    assert f"by use, k = {K}\n" in out
    _, out, _ = drive("05_metrics.py", "--k-of-interest", 10, results=copy)
    assert "up to date" not in out
    assert "by use, k = 10\n" in out
    assert "Not searched at k = 10: halves and whole." in flat(out)
    assert list(records(copy)) == ["short"]
    assert records(copy)["short"]["short_rows"] == 0
    _, out, _ = drive("05_metrics.py", "--k-of-interest", 10, results=copy)
    assert "up to date" in out
    _, out, _ = drive("05_metrics.py", results=copy)
    assert list(records(copy)) == sorted(LISTS), "without the flag it is the largest again"


def test_a_k_that_no_run_has_is_refused_with_the_grid(copy, drive):
    before = (copy / "05_metrics.json").read_bytes()
    status, _, err = drive("05_metrics.py", "--k-of-interest", 15, results=copy)
    assert (status, err.count("\n")) == (2, 1)
    assert "--k-of-interest 15 was searched by no run, but 10, 20" in err
    assert drive("05_metrics.py", "--k-of-interest", 0, results=copy)[0] == 2
    assert (copy / "05_metrics.json").read_bytes() == before


def test_what_is_printed_is_narrow(copy, drive):
    _, out, _ = drive("05_metrics.py", results=copy)
    part = out[out.index("What lists of") : out.index("curves in")]
    assert max(map(len, part.splitlines())) <= 100
    assert len(part.splitlines()) < 18
    assert "2 (exact: 1)" in part
    assert "none (0.0 to 0.0)" in part
    assert "fewer than 20 neighbors came back from short for 30 of 240 queries" in flat(out).lower()


@pytest.mark.parametrize("labels", ["all -1", "of other images"])
def test_without_labels_of_what_was_embedded_there_are_no_classes(labels, copy, drive):
    embeddings = np.load(copy / "02_embeddings.npy")
    if labels == "of other images":
        path = copy.parent / "x.npy"
        np.save(path, embeddings)
        assert drive("02_embed_resnet50.py", "--from-file", path, results=copy)[0] == 0
    else:
        stage = begin(Results(copy), "01_images", force=True)
        stage.create("01_images.npy", (N, 2, 2, 3), np.uint8)
        table = pd.read_parquet(copy / "01_images.parquet").assign(label=np.int16(-1))
        table.to_parquet(stage.output("01_images.parquet"), index=False)
        stage.commit()
    for script, *args in (
        ("03_exact_knn.py", "--k-max", K),
        ("04_hnsw_search.py", "--runs", "faiss:5", "--k", K, "--replace"),
        ("05_metrics.py",),
    ):
        status, out, err = drive(script, *args, results=copy)
        assert status == 0, err
    (record,) = records(copy).values()
    assert record["same_label"] is None
    assert "No k-NN classification: nothing that was embedded has a label." in flat(out)
    assert "same label" not in out


@pytest.mark.parametrize("is_outside", [False, True])
def test_a_graph_needs_every_row_as_a_query_and_labels_do_not(is_outside, copy, drive):
    queries = copy.parent / "queries.npy"
    embeddings = np.load(copy / "02_embeddings.npy")
    np.save(queries, embeddings + np.float32(0.01))
    for script, *args in (
        ("03_exact_knn.py", "--k-max", K, "--queries", queries if is_outside else 100),
        ("04_hnsw_search.py", "--runs", "faiss:5", "--k", K, "--replace"),
        ("05_metrics.py",),
    ):
        status, out, err = drive(script, *args, results=copy)
        assert status == 0, err
    (run, record), *others = records(copy).items()
    assert not others
    assert record["components"] is None
    labels = pd.read_parquet(copy / "01_images.parquet")["label"].to_numpy()
    ids = np.load(copy / f"04_hnsw/{run}/k{K:04d}_indices.npy")
    exact = np.load(copy / "03_exact_indices.npy")
    agree = [majority(a, labels) == majority(e, labels) for a, e in zip(ids, exact, strict=True)]
    assert record["same_label"]["value"] == pytest.approx(np.mean(agree))
    assert 0 < np.mean(agree) < 1
    where = "the queries are not among the rows" if is_outside else "not every row was a query"
    assert f"No k-NN graph: {where}." in flat(out)
    assert "graphs: components" not in out


def test_the_page_has_it_below_the_verdict(copy, drive, monkeypatch):
    drawn = [figures.Plot("overlap", "a figure", b""), figures.Plot("lid", "another", b"")]
    monkeypatch.setattr(figures, "draw_figures", lambda *_: (drawn, {}))
    status, _, err = drive("06_plots.py", "--gallery", 0, results=copy)
    assert status == 0, err
    page = flat((copy / "06_report.html").read_text())
    assert f"<h3>At k = {K}, with 95 % intervals</h3>" in page
    assert ">2 (exact: 1)</td>" in page
    places = [page.index(part) for part in ('"verdict"', "by use</h2>", "retrieval: below", "<img")]
    assert places == sorted(places)


# The sentences.


def estimate(value, half=0.01, n=1000):
    return {"value": value, "ci_low": value - half, "ci_high": value + half, "n": n}


def make_record(run="mine", **changes):
    values = {"kth_distance": estimate(0.05), "lid": estimate(-0.2), "same_label": estimate(0.9)}
    values |= {"below_overlap": estimate(0.4), "below_recall": estimate(0.3), "short_rows": 0}
    return {"run": run, "components": {"exact": 1, "ann": 3}} | values | changes


def make(*made, criterion="overlap", members=None, outputs=()):
    runs = members or {record["run"]: [record["run"]] for record in made}
    facts = {"by_use": list(made), "n_queries": 1000, "parameters": {"k_of_interest": 100}}
    styles = run_styles({run: {"backend": run, "ef_search": None} for run in runs})
    manifests = {"03_exact": {"outputs": dict.fromkeys(outputs)}}
    safe_k = pd.DataFrame({"criterion": [criterion]})
    return Study(pd.DataFrame(), safe_k, styles, runs, facts, manifests=manifests)


def said(*made, **options):
    return " ".join(verdict_by_use(make(*made, **options)).notes)


def shown(*made, **options):
    (row, *_) = verdict_by_use(make(*made, **options)).table.to_dict("records")
    return row


def test_the_table_has_a_row_for_each_run_and_a_column_for_each_use():
    made = verdict_by_use(
        make(make_record(), make_record("theirs", components={"exact": 1, "ann": 1}))
    )
    assert made.table.to_dict("list") == {
        "run": ["mine", "theirs"],
        "density: k-th distance %": ["+5.0 (+4.0 to +6.0)"] * 2,
        "dimension: LID %": ["-20.0 (-21.0 to -19.0)"] * 2,
        "retrieval: below 0.9": ["0.400 (0.390 to 0.410)"] * 2,
        "graphs: components": ["3 (exact: 1)", "1 (exact: 1)"],
        "classes: same label": ["0.900 (0.890 to 0.910)"] * 2,
    }
    for use in ("density", "HDBSCAN", "dimension", "retrieval", "UMAP", "k-NN classification"):
        assert use in made.lead
    assert "k = 100" in made.lead
    assert made.notes == ["Errors are of the mean, in % of the exact one."]


@pytest.mark.parametrize(
    ("error", "cell", "note"),
    [
        (estimate(0.004), "none (-0.6 to +1.4)", "no error that can be distinguished from 0"),
        (estimate(0.0, 0.0), "none (0.0 to 0.0)", "no error that can be distinguished from 0"),
        (estimate(4e-7, 1e-8), "none (0.0 to 0.0)", "no error that can be distinguished from 0"),
        (
            estimate(2e-4, 1e-5),
            "0.0 (0.0 to 0.0)",
            '"0.0": one that can be distinguished from 0, but is below 0.05 %.',
        ),
        (estimate(0.05, np.nan), "+5.0 (no interval)", "in %"),
        (estimate(np.nan), "-", "in %"),
        (estimate(-0.3, n=970), "-30.0 (-31.0 to -29.0, of 97 % of the queries)", "in %"),
    ],
)
def test_an_error_within_its_interval_is_none(error, cell, note):
    record = make_record(lid=error)
    assert shown(record)["dimension: LID %"] == cell
    assert note in said(record)
    assert ("no error that can be distinguished from 0" in said(record)) == cell.startswith("none")
    assert ('"0.0":' in said(record)) == cell.startswith("0.0")


def test_short_rows_are_counted():
    text = said(make_record(short_rows=12), make_record("theirs"))
    assert "Fewer than 100 neighbors came back from mine for 12 of 1,000 queries; their" in text
    text = said(make_record(short_rows=12), make_record("theirs", short_rows=3))
    assert "from mine for 12 and theirs for 3 of 1,000 queries" in text
    assert "Fewer" not in said(make_record())


def test_what_cannot_be_is_said():
    record = make_record(components=None, same_label=None)
    assert set(shown(record)) == {
        *("run", "density: k-th distance %", "dimension: LID %", "retrieval: below 0.9"),
    }
    text = said(record)
    assert "No k-NN graph: not every row was a query." in text
    assert "No k-NN classification: nothing that was embedded has a label." in text
    assert "not among the rows" in said(record, outputs=["03_query_vectors.npy"])
    lead = verdict_by_use(make(record)).lead
    assert "UMAP" not in lead and "classification" not in lead


def test_where_rows_tie_it_is_recall():
    made = verdict_by_use(make(make_record(), criterion="recall"))
    assert made.table["retrieval: below 0.9"].item() == "0.300 (0.290 to 0.310)"
    assert "recall below 0.9" in made.lead


def test_each_graph_of_a_family_stands_by_itself():
    members = {"hnsw": ["hnsw", "hnsw_seed1"], "other": ["other"]}
    made = verdict_by_use(make(make_record("hnsw"), make_record("hnsw_seed1"), members=members))
    assert list(made.table["run"]) == ["hnsw", "hnsw_seed1"]
    assert "Each graph stands by itself" in " ".join(made.notes)
    assert "Not searched at k = 100: other." in made.notes


def test_a_study_measured_without_it_has_none():
    study = make(make_record())
    assert verdict_by_use(Study(**vars(study) | {"facts": {"parameters": {}}})) is None


def test_badly_served_means_the_same_everywhere():
    assert by_use.BADLY_SERVED == verdict.BADLY_SERVED
