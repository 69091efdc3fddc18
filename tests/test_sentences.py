"""The sentences and tables of the report, of studies made by hand."""

import itertools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from drift.indexes.run import Run
from drift.pipeline import cli
from drift.report import by_use, tables
from drift.report.reasons import setter
from drift.report.sentences import drift_by_lid, findings, paragraphs
from tests.studies import ERRORS, falls, made_of, make_factory, make_run, make_study


def test_numbers_look_like_what_they_are():
    values = (0.99996, 1.0, 0.9999999, 0.94894, -1e-10, np.nan, 26430.4, np.inf)
    texts = ["0.99996", "1", "0.9999999", "0.9489", "0", "-", "26430", "inf"]
    assert list(map(tables.format_number, values)) == texts
    texts = ["100 %", "99.97 %", "> 99.99 %", "50 %", "0.01 %", "< 0.01 %", "0 %", "-"]
    shares = (1.0, 0.9997, 0.999999, 0.5, 0.0001, 0.000001, 0.0, np.nan)
    assert list(map(tables.format_share, shares)) == texts
    for error, text in (
        ((-0.588, -0.649, -0.527), "-58.8 (-64.9 to -52.7)"),
        ((0.0011, 0.0008, 0.0013), "+0.11 (+0.08 to +0.13)"),
        ((0.0002, -0.0002, 0.0004), "+0.02 (-0.02 to +0.04)"),
        ((0.0002, -0.0008, 0.0012), "0.0 (-0.1 to +0.1)"),
        ((0.0002, 0.0001, 0.0009), "+0.02 (+0.01 to +0.09)"),
        ((0.0, 0.0, 0.0), "0.0 (0.0 to 0.0)"),
        ((0.05, np.nan, np.nan), "+5.0 (no interval)"),
        ((np.nan, np.nan, np.nan), "-"),
    ):
        assert tables.with_details(*tables.format_error(*error)) == text
    for share, text in (
        (1, "all 10,000 queries"),
        (0.9999, "9,999 of 10,000 queries"),
        (0.9991, "99.9 % of the queries"),
        (0.0004, "4 of 10,000 queries"),
        (0, "none of 10,000 queries"),
    ):
        assert tables.format_part(share, 10_000, "queries") == text


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        ((10, 66.43, 64.0, 68.26), "66.4 (64 to 68.3)"),
        ((100, 240.0, 230.0, np.nan), "240 (230 to more than 250)"),
        ((100, 160.4, 99.96, 1234.5), "160.4 (100 to 1234.5)"),
        ((0, 10.0, 10.0, 10.0), "not even 10"),
        ((0, 10.0, 10.0, 25.0), "not even 10 (at best to 25)"),
        ((0, 10.0, 10.0, np.nan), "not even 10 (at best to more than 250)"),
        ((250, np.nan, np.nan, np.nan), "more than 250"),
        ((100, np.nan, 220.4, np.nan), "not sure beyond 100"),
        ((0, np.nan, 10.0, np.nan), "not sure at any k"),
    ],
)
def test_how_far_a_run_is_safe_is_one_cell(limit, text):
    names = ("safe_k", "crossing_k", "crossing_low", "crossing_high")
    row = SimpleNamespace(run="", criterion="", **dict(zip(names, limit, strict=True)))
    study = SimpleNamespace(run_curve=lambda *_: pd.DataFrame({"mean": 1}, [10, 100, 250]))
    assert tables.with_details(*tables.format_crossing(study, row)) == text


def test_tables_show_the_ends_of_the_grid():
    assert tables.evenly(range(10, 251, 10), 6) == [10, 50, 100, 150, 200, 250]
    assert tables.evenly(range(1, 10), 6) == [1, 2, 4, 5, 7, 9]
    assert (tables.evenly([10, 20, 30], 6), tables.evenly([7], 6)) == ([10, 20, 30], [7])


# What is said, of runs by their overlap at two k or three.

FALLS, STAYS, GROWS = {10: 0.9995, 250: 0.64}, {10: 0.999, 250: 0.998}, {10: 0.994, 250: 0.998}
FLOOR, LOSES, TIES = {10: 0.9995, 250: 0.998}, {10: 0.999, 250: 0.8}, {10: 0.433, 250: 0.9}
ALL = {10: 1.0, 250: 1.0}
OF_VERDICT = [
    *("overlap", "recall", "found", "distance_ratio", "barycenter_shift_relative"),
    *("lid_exact", "lid_difference", *ERRORS),
]
AS_USUAL = {"half": 0.001, "found": 1.0, "lid_off": 0.0, "n_queries": 10_000, "metrics": OF_VERDICT}
FAISS, FAISS_K = make_run("faiss", 50), make_run("faiss", "k")
FAISS_FLOOR, FAISS_300 = make_run("faiss", "k,50"), make_run("faiss", 300)
HNSWLIB, PGVECTOR = make_run("hnswlib", 50), make_run("pgvector", 50)
THEIRS, MINE = Run("theirs"), Run("mine")
IVF = make_factory("IVF256,Flat", nprobe=8)
LADDER = [make_run("faiss", ef) for ef in (10, 30, 90, 300)]


def study_of(*kept, **options):
    return make_study(kept, **AS_USUAL | options)


def text_of(study):
    return " ".join(sentence for paragraph in paragraphs(study) for sentence in paragraph)


def check(kept, *words, lacks=(), **options):
    """Whether what is said of some runs has some words, and lacks others."""
    text = text_of(study_of(*kept, **options))
    assert all(one in text for one in words), text
    assert not any(one in text for one in lacks), text


THREE = [(FAISS, FALLS), (FAISS_FLOOR, FLOOR), (HNSWLIB, STAYS)]
SHORT = (PGVECTOR, {10: 0.999, 250: 0.0004})
RUNGS = [(run, {10: 0.9, 250: 0.2 + i / 4}) for i, run in enumerate(LADDER)]
NEARLY = "Almost nothing is lost: {} keep at least 99.7 % of the neighbors up to k = {}"


@pytest.mark.parametrize(
    ("title", "kept", "options"),
    [
        ("FAISS at efSearch 50 keeps 64 % of 250 neighbors", THREE, {}),
        ("FAISS at efSearch k keeps 98 % of 250 neighbors", [(FAISS_K, {10: 0.9, 250: 0.98})], {}),
        # It is of the k of interest, or of the one that a run has before that.
        (
            "milvus keeps 60 % of 10 neighbors, and was not measured at 250",
            [(Run("milvus"), {10: 0.6}), *THREE],
            {},
        ),
        (
            "FAISS at efSearch 50 keeps 94 % of 100 neighbors",
            [(FAISS, {10: 0.999, 100: 0.94, 250: 0.6}), (PGVECTOR, {10: 0.9, 100: 0.96, 250: 0.1})],
            {"k_of_interest": 100},
        ),
        (
            "FAISS at efSearch 50 with M 16 keeps 64 % of 250 neighbors",
            [(make_run("faiss", 50, 16), FALLS), (FAISS, STAYS)],
            {},
        ),
        ("FAISS at efSearch 10 keeps 20 % of 250 neighbors, and 95 % at 300", RUNGS, {}),
        ("pgvector at efSearch 50 keeps 0.04 % of 250 neighbors", [*THREE, SHORT], {}),
        # What looks like all is not.
        ("theirs keeps 99.96 % of 250 neighbors", [(THEIRS, {10: 1, 250: 0.9996})], {"half": 0.05}),
        ("theirs keeps 100 % of 250 neighbors", [(THEIRS, ALL)], {"half": np.nan}),
        (
            "mine keeps 90 % of 250 neighbors (a tie is no loss)",
            [(MINE, TIES)],
            {"recall": {"mine": 0.9}},
        ),
        # Nothing, as far as the intervals show.
        (
            "Nothing is lost: theirs keeps every neighbor up to k = 250",
            [(THEIRS, ALL)],
            {"half": 0},
        ),
        (
            NEARLY.format("all 3 searches", 100),
            [(FAISS_300, STAYS), (HNSWLIB, STAYS), (MINE, {10: 0.998, 100: 0.999})],
            {},
        ),
        (
            NEARLY.format("both searches without a target", 250),
            [(FAISS_300, STAYS), (make_run("faiss", "overlap=0.9"), LOSES), (HNSWLIB, STAYS)],
            {},
        ),
    ],
)
def test_the_title_is_the_finding(title, kept, options):
    assert findings(study_of(*kept, **options)).title == title


def test_three_numbers_are_of_the_run_that_loses_most():
    assert findings(study_of((HNSWLIB, ALL), (FAISS, FALLS), lid_off=-0.588)).numbers == [
        ("overlap", "64.0 %", "at k = 250, 63.9 to 64.1"),
        ("LID off", "-58.8 %", "at k = 250, -58.9 to -58.7"),
        ("safe to k", "66.4", "1 % lost, 61.2 to 72.5"),
    ]
    more = findings(study_of((FAISS, {10: 0.5, 250: 0.64}))).numbers[0][2]
    assert more == "at k = 250, 63.9 to 64.1; 50.0 % at k = 10"
    recall, gone = {"recall": {"mine": 0.9999}, "share": 0.01}, {"half": np.nan, "lid_off": np.nan}
    few, beyond = "at k = 250, -0.1 to +0.1, of 1.0 % of the queries", {10: 0.999, 250: 0.9905}
    for run, crossing, options, numbers, more in (
        ((MINE, TIES), np.nan, recall, ["99.99 %", "0.0 %", "more than 250"], few),
        (
            (THEIRS, beyond),
            np.nan,
            {},
            ["99.1 %", "0.0 %", "not sure beyond 10"],
            "at k = 250, -0.1",
        ),
        ((THEIRS, {250: 0.8}), 250, gone, ["80.0 %", "-", "not even 250"], "no query has one"),
    ):
        study = study_of((HNSWLIB, ALL), run, **options)
        study.safe_k["crossing_k"] = crossing
        made = findings(study)
        assert [number for _, number, _ in made.numbers] == numbers
        assert made.numbers[1][2].startswith(more)
        assert made.numbers[0][0] == ("recall" if options is recall else "overlap")
        assert made.numbers[0][2].endswith("no interval") == (options is gone)
        assert ("lost at the smallest k" in made.numbers[2][2]) == (options is gone)


def test_the_data_are_named():
    outputs = {"02_embeddings.npy": {"shape": [2000, 2048]}, "02_rows.parquet": {"rows": 2000}}
    stages = {
        "01_images": {"parameters": {"dataset": "photos"}},
        "02_embeddings": {"parameters": {"model": "resnet50"}, "outputs": outputs},
    }
    for inputs, name in (({"01_images.npy": {}}, "photos, resnet50"), ({}, "resnet50")):
        stages["02_embeddings"]["inputs"] = inputs
        made = findings(study_of((THEIRS, STAYS), manifests=stages, date="2026-11-28T19:21:40"))
        expected = f"10,000 queries among 2,000 embeddings of 2,048 dimensions ({name}), 2026-11-28"
        assert made.data == expected
    stages["02_embeddings"] |= {"parameters": {"model": None}, "file": "glove.npy"}
    assert findings(study_of((THEIRS, STAYS), manifests=stages)).data.endswith(" (glove.npy)")
    stages["02_embeddings"] |= {
        "parameters": {"model": "resnet50", "metric": "cosine"},
        "file": None,
    }
    study = study_of((THEIRS, STAYS), manifests=stages)
    assert findings(study).data.endswith("(resnet50), compared by cosine")
    assert "A distance d is the chord sqrt(2 (1 - cos)), cos = 1 - d^2/2." in text_of(study)


def test_everything_is_said_once_and_runs_are_in_backquotes():
    study = study_of(*THREE, lid_off=-0.588, found=0.856)
    title, data, text, copy, why, details = paragraphs(study)
    assert title == [f"{findings(study).title}."] and data[0].startswith(
        "10,000 queries: overlap 64"
    )
    assert text[0].startswith("Let efSearch of FAISS grow with k, but not fall below 50: on the")
    assert copy == ["    index.hnsw.efSearch = max(50, k + 1)"]
    assert why == [
        "`faiss k,50` and `hnswlib 50` keep at least 99 % of the neighbors on average at every k "
        "up to 250, and an LID within 0.1 % of the exact one.",
        "At k = 250 `faiss 50` leaves 14.4 % of the places empty and has an LID 58.8 % too low "
        "(exact lists cut as short: none; it is that other neighbors stand in them).",
        "The reason that `faiss 50` loses 1 % of the neighbors at k = 66.4 is where its search "
        "stops: FAISS lists max(efSearch, k) candidates, but stops once efSearch of them are "
        "nearer than the next one to visit, at k = 250 after 50 of 251 (the query itself is one).",
        "hnswlib raises efSearch to the length of the list.",
    ]
    graph = "of this graph; `--seeds 0 1 2 3 4` of stage 04 builds others"
    assert f"Intervals are of 95 %, over 10,000 queries, {graph}" in " ".join(details)


def test_no_name_is_broken_and_what_is_copied_is_as_it_is(capsys):
    cli.print_text(["x" * 90, "`faiss k,50` keeps"])
    cli.print_text(["    " + "x " * 90])
    assert capsys.readouterr().out == f"\n{'x' * 90}\n`faiss k,50` keeps\n\n    {'x ' * 90}\n"


def test_an_error_of_the_lid_is_split_into_short_lists_and_other_neighbors():
    study = study_of((PGVECTOR, {10: 0.999, 250: 0.196}), found=0.196, lid_off=0.278)
    is_cut = study.curves["metric"] == "lid_cut_error"
    study.curves.loc[is_cut, "mean"] = 0.278
    all_cut = "27.8 % too high (exact lists cut as short: +27.8 %; all of it is that they are short"
    assert all_cut in text_of(study)
    ends = ["mean", "ci_low", "ci_high"]
    for numbers, cut in (((0.1, 0.05, 0.15), "+10.0 %; the rest"), ((0.1, -0.1, 0.3), "none; it")):
        study.curves.loc[is_cut, ends] = numbers
        missing = f"(exact lists cut as short: {cut} is that nearer neighbors are missing)"
        assert missing in text_of(study), "all that came back is right"
    study.curves.loc[study.curves["metric"] == "found", "mean"] = 1.0
    assert "27.8 % too high." in text_of(study), "whole lists are not cut"


@pytest.mark.parametrize(
    ("errors", "ends", "is_said"),
    [
        ((-0.745, -0.076, 0.029), 0.1, True),
        ((0.009, 0.002, 0.003), 0.001, False),
        ((0.03, 0.014, 0.02), 0.001, True),
        ((0.03, 0.014, 0.02), 0.04, False),
        ((0.03, 0.016, 0.02), 0.001, False),
        ((0.02, 0.019, -0.0001), 0.001, True),
    ],
)
def test_estimates_of_the_lid_that_disagree_are_named(errors, ends, is_said):
    study = study_of((THEIRS, LOSES), share=0.35)
    names = ("lid_error", "lid_median_error", "lid_pooled_error")
    for name, error in zip(names, errors, strict=True):
        rows = (study.curves["metric"] == name) & (study.curves["k"] == 250)
        half = np.nan if "median" in name else ends
        study.curves.loc[rows, ["mean", "ci_low", "ci_high"]] = error, error - half, error + half
    expected = (
        "How far the LID (35.0 % of the queries have one) of `theirs` is off at k = 250 depends on "
        "the estimate: {} % by the mean, {} % by the median, {} % pooled."
    )
    texts = map(tables.format_percent, errors)
    assert (expected.format(*texts) in text_of(study)) == is_said


MEASURE = "Measure FAISS with an efSearch that grows with k:"
WIDER = "search wider and measure again"
DENSER = "search wider, or build a denser graph, and measure again"
HNSW_9, HNSW_K = (make_factory("HNSW32,Flat", ef_search=ef) for ef in (9, "k"))
TWICE, DENSE = make_run("faiss", "2k,9"), make_run("faiss", 50, 16, 400, 7)
OF_9 = make_factory("HNSW32,Flat", build={"ef_construction": 9}.items())
SAFE = [(run, STAYS) for run in (*LADDER[1:], HNSWLIB)]


@pytest.mark.parametrize(
    ("kept", "text", "copy"),
    [
        # The run that keeps most of short lists is to be followed.
        ([(FAISS, FALLS), (FAISS_K, GROWS)], "not fall below 50: on", "max(50, k + 1)"),
        (
            [(FAISS_K, GROWS), *THREE[:2]],
            "50: on the same graph `faiss k,50` keeps",
            "max(50, k + 1)",
        ),
        ([(FAISS, FALLS), (TWICE, FLOOR)], "not fall below 50: on", "max(50, int(2 * (k + 1)))"),
        ([(FAISS, FALLS), (FAISS_300, STAYS)], "not fall below 50: on", "max(50, k + 1)"),
        (
            [(HNSW_9, FALLS), (HNSW_K, FLOOR)],
            "not fall below 9: on",
            '(index, "efSearch", max(9, k + 1))',
        ),
        # What was measured at other k is not asked for again.
        (
            [(FAISS, FALLS), (FAISS_FLOOR, {10: 0.9999, 20: 0.9999})],
            "`faiss k,50` was measured at k = 20, and not at 250; this adds it:",
            "python 04_hnsw_search.py --runs faiss:k,50 --k 250",
        ),
        # What was not measured yet.
        ([(FAISS, FALLS)], MEASURE, "python 04_hnsw_search.py --runs faiss:k,50 --k 10 250"),
        ([(DENSE, FALLS)], MEASURE, "faiss:k,50,ef_construction=400 --m 16 --seed 7 --k 10 250"),
        ([(OF_9, FALLS)], MEASURE, "HNSW32,Flat:efSearch=k,50,efConstruction=9 --k 10 250"),
        ([SHORT, (HNSWLIB, STAYS)], "let it scan on:", "SET hnsw.iterative_scan = strict_order;"),
        # Where it is not the stop.
        ([(FAISS_300, STAYS)], "Lists up to k = 250 can be had from `faiss 300`.", ""),
        (SAFE, "can be had from `faiss 30` to `faiss 300` or `hnswlib 50`.", ""),
        ([(HNSWLIB, LOSES)], f"With `hnswlib 50` {DENSER}:", "hnswlib:overlap=0.99 --k 10 250"),
        ([(IVF, LOSES)], f"Flat nprobe=8` {WIDER}:", "IVF256,Flat:nprobe=overlap=0.99 --k 10 250"),
        ([(THEIRS, FALLS)], f"With `theirs` {WIDER}.", ""),
        ([(make_factory("PQ4"), LOSES)], f"{WIDER}.", ""),
    ],
)
def test_what_to_do_is_said_with_what_to_copy(kept, text, copy):
    (advice,) = findings(study_of(*kept)).advice
    assert text in advice.text and advice.copy.endswith(copy) and bool(advice.copy) == bool(copy)


def test_what_is_advised_is_not_better_than_it_is():
    worst = (FAISS_FLOOR, {10: 0.999, 50: 0.992, 250: 0.995})
    (advice,) = findings(study_of((FAISS, {10: 0.999, 50: 0.992, 250: 0.64}), worst)).advice
    assert advice.text.endswith("99.5 % at k = 250, 99.9 % at k = 10 and 99.2 % at k = 50.")
    # A target by its least, and not the first.
    targets = [make_run("faiss", f"overlap={level}") for level in (0.9, 0.99)]
    kept = [*zip(targets, ({10: 0.999, 250: 0.91}, STAYS), strict=True)]
    (advice,) = findings(study_of((FAISS, FALLS), *kept)).advice
    assert "as `faiss overlap=0.99` does" in advice.text
    # Bits are no remedy for places that are empty.
    pq = (make_factory("IVF16,PQ4", nprobe=4), LOSES)
    for found, text in ((1.0, "give them more bits"), (0.8, WIDER)):
        study = study_of(pq, found=found)
        reported = study.curves.query("metric == 'lid_exact'").assign(metric="lid_reported")
        study.curves = pd.concat([study.curves, reported])
        (advice,) = findings(study).advice
        assert text in advice.text


def test_a_run_that_lacks_the_k_and_one_that_a_target_answers():
    made = findings(study_of((Run("milvus"), {10: 0.6}), (HNSWLIB, STAYS)))
    text = "`milvus` was measured at k = 10, and not at 250: give stage 04 its lists of 250 by"
    assert made.advice[0].text.startswith(text)
    for others, n in (([], 0), ([(FAISS, FALLS), (FAISS_FLOOR, FLOOR)], 1)):
        others = [*others, (FAISS_300, LOSES)]
        assert len(findings(of_target("overlap=0.9", STAYS, {}, others=others)).advice) == n


GRAPHS = [make_run("faiss", ef, seed=seed) for seed in (0, 1) for ef in (50, "k,50")]


def of_graphs(*kept):
    """A study of runs of which those on several graphs are one."""
    families = [run.family for run, _ in kept]
    several = [run.name for run, _ in kept if not run.seed and families.count(run.family) > 1]
    curves = study_of(*kept).curves.query("run in @several").rename(columns={"run": "family"})
    return study_of(*kept, graphs=curves if several else None)


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ([(FAISS, FALLS), (FAISS_FLOOR, FLOOR)], "50: on the same graph `faiss k,50` keeps"),
        ([*zip(GRAPHS, [FALLS, FLOOR] * 2, strict=True)], "50: on the same graphs `faiss k,50 (2"),
        ([*zip(GRAPHS[:3], [FALLS, FLOOR, FALLS], strict=True)], "50: `faiss k,50` keeps"),
        (
            [
                (make_run("faiss", 50, threads=2), FALLS),
                (make_run("faiss", "k,50", threads=2), FLOOR),
            ],
            "50: `faiss k,50` keeps",
        ),
    ],
)
def test_a_graph_is_said_to_be_the_same_only_where_it_is(runs, words):
    assert words in findings(of_graphs(*runs)).advice[0].text


def test_what_is_copied_names_folder_grid_seeds_and_threads():
    exact = {"03_exact": {"parameters": {"k_max": 250}, "outputs": {}}}
    grid = {k: 0.999 - k / 1000 for k in range(10, 251, 10)}
    stem = "python 04_hnsw_search.py"
    for kept, options, copy in (
        ([(FAISS, grid)], {}, "{} --runs faiss:k,50"),
        ([(FAISS, {5: 0.99, 250: 0.5})], {}, "{} --runs faiss:k,50 --k 5 250"),
        ([(one, grid) for one in GRAPHS[::2]], {}, "{} --runs faiss:k,50 --seeds 0 1"),
        ([(make_run("faiss", 50, threads=2), grid)], {}, "{} --runs faiss:k,50 --build-threads 2"),
        ([(FAISS, grid)], {"folder": "of mine"}, "{} --results 'of mine' --runs faiss:k,50"),
    ):
        made = of_graphs(*kept)
        made.manifests |= exact
        made.folder = options.get("folder", made.folder)
        assert findings(made).advice[0].copy == copy.format(stem)


def test_a_search_that_sees_half_of_the_rows_is_warned_of():
    seen, counted = "`faiss 50` and `hnswlib 50` compare each query with half of the {} rows", 101
    both = [(FAISS, ALL), (HNSWLIB, ALL)]
    counts = {FAISS.name: {"distance_computations_per_query": {"10": 9, "250": counted}}}
    for n, words in ((2 * counted, seen.format(202)), (2 * counted + 1, "`hnswlib 50` compares")):
        check(both, words, searched=counts, manifests=made_of(n))
    # The last list is of 251: hnswlib does not count, and has compared each of its candidates.
    check(both, lacks=["half of"], searched=counts, manifests=made_of(503))
    check(both, lacks=["half of"], searched=counts)


def test_what_to_do_is_of_each_loss_and_names_the_setting_of_each_library():
    # Where it is not the stop that loses most the advice is of that too.
    both = [(FAISS, FALLS), (IVF, {10: 0.8, 250: 0.5})]
    texts = [one.text for one in findings(study_of(*both)).advice]
    assert texts == [MEASURE, f"With `IVF256,Flat nprobe=8` {WIDER}:"]
    texts = [one.text for one in findings(study_of(*both, (HNSWLIB, STAYS))).advice]
    assert texts == [MEASURE, "Lists up to k = 250 can be had from `hnswlib 50`."]
    study = study_of(*both)
    reported = study.curves[study.curves["metric"] == "lid_error"].assign(metric="lid_reported")
    study.curves = pd.concat([study.curves, reported])
    assert "nprobe=8` compares compressed vectors" in findings(study).advice[1].text
    usearch = make_run("usearch", 1)
    copies = [setter(run, 9) for run in (HNSWLIB, usearch, PGVECTOR)]
    assert copies == ["index.set_ef(9)", "index.expansion_search = 9", "SET hnsw.ef_search = 9;"]


def test_the_reason_is_one_only_for_what_is_lost_beyond_the_stop_and_is_named():
    reason = "The reason that `faiss 50` loses {} % of the neighbors at k = {} may be"
    worse = [(IVF, {10: 0.9, 250: 0.2})]
    # At the first k more is lost than can be said of that k.
    study = study_of((make_run("faiss", 2), {10: 0.9, 250: 0.2}))
    study.safe_k["crossing_k"] = 10.0
    assert "`faiss 2` loses more than 1 % of the neighbors at k = 10 already" in text_of(study)
    worse += [(make_factory("IVF256,PQ8", nprobe=n), {10: 0.8, 250: 0.1}) for n in (1, 2, 3)]
    runs = [*worse, (FAISS, FALLS)]
    check(runs, reason.format(1, 66.4))
    check(worse, WIDER, lacks=["stops", "efSearch", "graph"])
    # What is lost up to k = 50 is not lost by the stop.
    for crossings, expected in (
        ((20, 80, 120), reason.format(5, 80)),
        ((20, 30, 120), reason.format(10, 120)),
        ((20, 30, 40), None),
        ((20, 30, np.nan), None),
    ):
        study = study_of((FAISS, {10: 0.9995, 40: 0.95, 250: 0.64}), *worse[:1])
        rows = study.safe_k["run"] == FAISS.name
        rows &= study.safe_k["criterion"] == "overlap"
        study.safe_k.loc[rows, "crossing_k"] = crossings
        text = text_of(study)
        assert expected is None or expected in text
        assert ("where its search stops" in text) == (expected is not None)
    # What one in the same graph loses too that goes on is not lost by the stop.
    for at_100, words in ((0.993, "1 %"), (0.985, "5 %"), (0.94, "10 %"), (0.89, None)):
        kept = (FAISS, {10: 0.9999, 50: 0.9995, 100: 0.85, 250: 0.64})
        text = text_of(
            study_of(kept, (FAISS_FLOOR, {10: 0.9999, 50: 0.9995, 100: at_100, 250: 0.89}))
        )
        assert ("where its search stops" in text) == (words is not None)
        assert words is None or f"loses {words} of the neighbors at k" in text
    both = [(FAISS, FALLS), (FAISS_FLOOR, FLOOR), (PGVECTOR, {10: 0.999, 250: 0.196})]
    rows = "pgvector returns at most hnsw.ef_search rows, 50 of 251 at k = 250"
    check(both, rows, "The reason that `faiss 50` loses 1 %", "scan on:", "grow with k, but not")


def test_the_verdict_claims_nothing_that_was_not_measured():
    advice, may_be = "Measure FAISS with an efSearch that grows with k", "66.4 may be"
    check([(FAISS, FALLS)], may_be, advice)
    check([(FAISS, FALLS), (FAISS_K, FALLS)], may_be)
    check([(FAISS_300, FALLS)], DENSER, lacks=["stop"])
    check([(THEIRS, FALLS)], WIDER, lacks=["efSearch", "FAISS", "graph"])
    # A difference smaller than its interval is none, and so is an error.
    both = [(FAISS, FALLS), (FAISS_K, GROWS)]
    check(both, may_be, lacks=["fall below"], different=(THEIRS, MINE))
    close = [(MINE, STAYS), (THEIRS, {10: 0.999, 250: 0.9979}), (HNSWLIB, {10: 0.999, 250: 0.9})]
    same = "At k = 250 there is no difference beyond the intervals between `mine` and `theirs`."
    check(close, same, different=(MINE, HNSWLIB))
    check(close, lacks=["no difference"])
    graphs = "no difference beyond the intervals, of these graphs, between `faiss k` and"
    check([(FAISS_K, STAYS), (HNSWLIB, STAYS)], graphs, different=(MINE, THEIRS))
    check([(THEIRS, LOSES)], "an LID 2.0 % too high", lid_off=0.02)
    check([(THEIRS, LOSES)], lacks=["too high"], lid_off=0.02, half=0.3)


@pytest.mark.parametrize(
    ("p", "words"),
    [
        ((0.01, 0.2), "may be"),
        ((0.01, np.nan), "is"),
        ((0.01, 0.04), "is"),
        ((np.nan, np.nan), "may be"),
    ],
)
def test_a_difference_is_one_by_its_adjusted_p(p, words):
    study = study_of((FAISS, FALLS), (FAISS_K, FLOOR))
    study.differences[["p", "p_adjusted"]] = p
    assert f"66.4 {words} where its search stops" in text_of(study)
    assert ("no difference" in text_of(study)) == (p == (0.01, 0.2))


def test_what_holds_for_few_is_said_for_few():
    few = "(1.0 % of the queries have one)"
    check([(THEIRS, STAYS)], f"an LID {few} within 0.1 % of", share=0.01)
    study = study_of((THEIRS, STAYS))
    lid = (study.curves["metric"] == "lid_error") & (study.curves["k"] == 10)
    study.curves.loc[lid, "n"] = 100
    assert "an LID (at k = 10 1.0 % of the queries have one) within 0.1 %" in text_of(study)
    check([(THEIRS, LOSES)], f"an LID {few} 20.0 % too high", lid_off=0.2, share=0.01)
    almost = "an LID (9,999 of 10,000 queries have one) within 0.1 % of"
    check([(THEIRS, STAYS)], almost, share=0.9999)
    many = "Intervals are of 95 %, over 10,000 queries."
    check([(THEIRS, STAYS)], many, lacks=["have one", "rough", "random"])
    alike = "over 15 groups of rows that are alike"
    check([(THEIRS, STAYS)], alike, n_queries=999, groups=15)
    embedded = made_of(5000) | {"01_images": {"parameters": {}}}
    embedded["02_embeddings"]["inputs"] = {"01_images.npy": {}}
    check([(THEIRS, STAYS)], alike.replace("rows", "images"), groups=15, manifests=embedded)
    shorter = (THEIRS, {10: 0.999, 100: 0.998})
    check([(MINE, STAYS), shorter], "at every k up to 100,")
    check([(MINE, STAYS), (THEIRS, STAYS)], "on average at every k up to 250,")

    study = study_of((THEIRS, STAYS), (MINE, STAYS), (HNSWLIB, STAYS))
    for run, n in ((THEIRS, 7), (MINE, 7), (HNSWLIB, 30)):
        study.curves.loc[study.curves["run"] == run.name, "groups_that_differ"] = n
    rough = "rough: neighbors are lost at k = 250 in 7 of 10,000 queries with `theirs` and `mine`."
    assert rough in text_of(study)
    study.notes["groups"] = 7
    assert "rough" not in text_of(study), "all of them: over how many the intervals are is said"


def test_what_lists_drawn_at_random_have_is_said_above_5_percent():
    share, kept = "Lists of k = 20 drawn at random have an overlap of", (MINE, {10: 0.999, 20: 1.0})
    nearly_all = "Lists of k = 20 hold nearly every row, whatever the index does."
    check([kept], f"{share} 100.0 %.", nearly_all, lacks=["can be had"], manifests=made_of(21))
    check([kept], f"{share} 10.0 %.", "Lists up to k = 20 can be had", manifests=made_of(201))
    check([kept], lacks=["random"], manifests=made_of(1001))


def test_the_warnings_of_all_stages_are_said_once():
    manifests = made_of(5000)
    manifests["02_embeddings"]["warnings"] = ["rounding moves the vectors"]
    dense = {name: {"warnings": ["this graph is denser"]} for name in (FAISS.name, FAISS_K.name)}
    runs, options = [(FAISS, FALLS), (FAISS_K, GROWS)], {"manifests": manifests, "searched": dense}
    assert findings(study_of(*runs, warnings=["this graph is denser"], **options)).warnings == [
        "Warning: this graph is denser.",
        "Warning: rounding moves the vectors.",
    ]
    assert findings(study_of(*runs)).warnings == []


def test_what_is_said_is_short_and_careful():
    tie = "Rows tie, and ties are no losses: what is kept is counted by recall."
    keeps = "`mine` keeps at least 99 % of the neighbors on average at every k"
    check([(MINE, TIES)], tie, keeps, recall={"mine": 1.0})
    check([(MINE, {10: 0.999})], "of the neighbors on average at k = 10, and an LID")
    many = [(Run(f"system {i}"), {10: 0.999, 250: 0.9 - i / 100}) for i in range(9)]
    text = " ".join(findings(study_of(*many, lid_off=0.1)).why)
    assert "At k = 250 `system 8` has an LID 10.0 % too high. At k = 250 `system 7` has" in text
    assert "system 5" not in text and len(text) < 200
    # Of a series it is the one that loses most.
    text = " ".join(findings(study_of(*RUNGS, *many, lid_off=0.1)).why)
    assert "`faiss 10` has an LID" in text and "`system 8` has" in text and "`faiss 30`" not in text
    series = [(run, {10: 0.999, 250: 0.9992 + i / 1e4}) for i, run in enumerate(LADDER)]
    check(series, "`faiss 10` to `faiss 300` keep at least", different=(THEIRS, MINE))
    check(series, "between `faiss 300` and `faiss 10` to `faiss 90`.", different=(THEIRS, MINE))


# Targets are judged by themselves.

HALF = {"is_enough": True, "reached": {"mean": 0.951, "ci_low": 0.95, "ci_high": 0.952}}


def chosen(values, on_mean, other=(0.952, 0.9505), is_enough=True, **reached):
    """What stage 04 notes of a target: by k the values, and of the other half mean and end."""
    there = {"mean": other[0], "ci_low": other[1], "ci_high": 2 * other[0] - other[1]}
    half = {**HALF, "is_enough": is_enough, "other_half": there}
    half["reached"] = half["reached"] | reached
    return {
        "ef_search_by_k": values,
        "ef_search_by_k_on_mean": on_mean,
        "halves": dict.fromkeys(values, half),
    }


def of_target(text, kept, notes, **options):
    run = make_run("faiss", text)
    return study_of((run, kept), *options.pop("others", ()), searched={run.name: notes}, **options)


def test_a_target_gets_both_answers_and_is_judged_by_itself():
    kept = {10: 0.953, 100: 0.957}
    found = {"10": 9, "100": 43}, {"10": 8, "100": 41}
    study = of_target("overlap=0.95", kept, chosen(*found))
    made = findings(study)
    assert made.title == "FAISS at efSearch for overlap 0.95 keeps 96 % of 100 neighbors"
    text = "efSearch 41 on the mean, 43 with 95 % confidence, for 95 % at k = 100 (k = 10: 8 and 9)"
    assert made.advice == [(f"`faiss overlap=0.95`: {text}.", "index.hnsw.efSearch = 43")]
    study.notes["parameters"]["k_of_interest"] = 10
    assert "confidence, for 95 % at k = 10 (k = 100: 41" in text_of(study), "that comes first"
    half = "`faiss overlap=0.95` was chosen by one half of the queries"
    misses = "the other half misses it at 2 of 2 k, at k = 10 the lower end of the interval is"
    for other, said in (
        ((0.96, 0.955), [f"{half}: on the other half the whole interval reaches it too."]),
        ((0.9507, 0.947), [f"{half}: {misses} 94.7 %, the mean 95.1 %."]),
        ((np.nan, np.nan), []),
    ):
        study = of_target("overlap=0.95", kept, chosen(*found, other=other))
        assert findings(study).why == said
    # What it says is not asked for again.
    others = [(HNSWLIB, {10: 0.98, 100: 0.97}), (FAISS, {10: 0.999, 100: 0.64})]
    study = of_target("overlap=0.95", kept, chosen(*found), others=others)
    texts = [one.text for one in findings(study).advice]
    assert texts[-1] == f"With `hnswlib 50` {DENSER}:" and len(texts) == 3
    study = of_target(
        "overlap=0.95", kept, chosen(*found), others=[(FAISS_300, {10: 0.98, 100: 0.97})]
    )
    assert len(findings(study).advice) == 1
    # Beside others it comes first, and the headline is of those.
    notes, others = chosen(*found), [(FAISS, {10: 0.9995, 100: 0.64})]
    made = findings(of_target("overlap=0.95", kept, notes, others=others))
    assert made.title == "FAISS at efSearch 50 keeps 64 % of 100 neighbors"
    assert made.advice[0].copy == "index.hnsw.efSearch = 43"
    assert len(made.advice) == 2


def test_what_a_target_needs_is_of_one_graph():
    graphs = [make_run("faiss", "overlap=0.9", seed=seed) for seed in (0, 1)]
    made = of_graphs(*((one, {10: 0.95}) for one in graphs))
    made.searched = {one.name: chosen({"10": 60}, {"10": 50}) for one in graphs}
    (advice,) = findings(made).advice
    assert advice.text.startswith("`faiss overlap=0.9 seed=0`: efSearch 50 on the mean, 60 with")
    assert "`faiss overlap=0.9 seed=0` was chosen by one half" in findings(made).why[0]


def test_a_target_that_nothing_reaches_is_said():
    best = "reaches it with 95 % confidence, the best at k = 10, 250, has 93.0 %"
    for on_mean, more in ((None, "."), (240, "; on the mean 240 does")):
        notes = chosen({"10": 250}, {"10": on_mean}, is_enough=False, mean=0.93)
        study = of_target("overlap=0.99", {10: 0.93}, notes)
        assert findings(study).title.startswith("FAISS at efSearch for overlap 0.99 keeps 93 %")
        none = "`faiss overlap=0.99`: no efSearch is enough for 99 %."
        assert findings(study).advice[0] == (none, "")
        assert f"{best}{more}" in text_of(study)
    notes = chosen({"10": 250}, {"10": None}, is_enough=False, mean=0.433)
    study = of_target(
        "overlap=0.9", TIES, notes, recall={make_run("faiss", "overlap=0.9").name: 1.0}
    )
    assert findings(study).advice[0].text.endswith("count as losses there: ask for recall=0.9.")
    notes = chosen({"10": 60}, {"10": 50}, other=(-0.004, -0.012), mean=-0.006)
    text = text_of(of_target("lid=0.01", {10: 0.98}, notes, lid_off=-0.006))
    assert "60 with 95 % confidence, for an LID within 1 % at k = 10." in text
    assert "the far end of the interval is -1.2 % of the LID, the mean -0.4 % of the LID." in text


def test_a_target_where_too_few_have_an_lid_is_said():
    lacking = chosen({"2": 88}, {"2": None}, (np.nan, np.nan), False, mean=None, ci_low=None)
    few = "at k = 2 fewer than 99 % of the queries have an LID, which no efSearch can change"
    text = text_of(of_target("lid=0.01", {2: 0.999}, lacking))
    assert f"the queries: {few}." in text
    assert not any(words in text for words in ("the best", "wider", "other half"))
    # It is reached at larger k, and not at one.
    notes = chosen({"10": 60, "20": 70}, {"10": 50, "20": 60}, other=(-0.004, -0.008), mean=-0.006)
    missed = chosen({"30": 99}, {"30": None}, is_enough=False, mean=-0.02)
    for other in (lacking, missed):
        for name, values in other.items():
            notes[name] = notes[name] | values
    text = text_of(of_target("lid=0.01", {2: 0.999, 10: 0.98, 20: 0.98, 30: 0.98}, notes))
    assert f"at 1 of 4 k, the best at k = 30, 99, has -2.0 % of the LID; {few};" in text
    assert "efSearch 60 on the mean, 70 with 95 % confidence" in text and "wider" not in text


def test_tables_have_a_row_for_each_run_and_say_what_holds_for_few():
    runs = [(THEIRS, {10: 0.999, 250: 0.93}), (MINE, {10: 0.9}), (FAISS, {10: 1, 250: 1})]
    study = study_of(*runs, share=0.01, lid_off=0.2)
    shown = tables.at_k(study, 250).set_index("run")
    assert shown.loc["theirs"].to_dict() == {
        "kept, %": "93.0",
        "returned, %": "100.0",
        "shift, %": "2.3",
        "worst 5 % keep, %": "83.0",
        "LID off, %": "+20.0 (of 1.0 %)",
        "k-th distance off, %": "+7.0",
        "distances computed": "-",
        "queries/s": "4,000",
        "safe to k": "66.4 (61.2 to 72.5)",
    }
    assert list(shown["kept, %"]) == ["93.0", "-", "100.0"], "one has no lists of 250"
    kept = tables.overview(study)
    ks = ["k = 10", "k = 250"]
    assert list(kept) == ["run", *ks, "returned, %", "LID off, %", "shift, %", "safe to k"]
    assert list(kept["k = 10"]) == ["99.9", "90.0", "100.0"]
    kept = tables.overview(study_of((FAISS, {10: 1, 90: 0.9, 250: 0.6}), k_of_interest=90))
    assert list(kept.iloc[0, :4]) == ["faiss 50", "100.0", "90.0", "60.0"]
    study = study_of((MINE, TIES), recall={"mine": 1.0})
    assert list(tables.overview(study).iloc[0, :3]) == ["mine", "100.0", "100.0"]
    assert list(tables.at_k(study, 10).iloc[0, 1:3]) == ["100.0", "43.3"], "the same rows"


def test_who_drifts_is_said_in_a_sentence():
    queries = pd.DataFrame({"query": range(100), "lid_exact": range(100)})
    queries = queries.assign(run="theirs", k=250, overlap=0.5002 + queries["lid_exact"] / 200)
    study = study_of((THEIRS, LOSES))
    study.per_query = queries.assign(distance_ratio=1.0)
    assert drift_by_lid(study) == (
        "Of the queries, the fifth with the lowest LID gets 54.8 % of the neighbors on average at "
        "k = 250 with `theirs`, the fifth with the highest 94.8 %."
    )
    study.per_query.loc[queries["query"] >= 10, "lid_exact"] = np.nan
    assert "Of the queries that have an LID (10.0 %), the fifth" in drift_by_lid(study)
    study.per_query["lid_exact"] = np.nan
    assert drift_by_lid(study) == ""


# By use.

TWO = [make_run("faiss", 5), make_run("hnswlib", 5)]
MEASURES = {
    "density": {"kth_distance_error": 0.05, "factor": 0.6},
    "dimension": {"lid_error": -0.2, "lid_cut_error": 0.02, "lid_pooled_error": -0.3},
    "clusters": {"clusters_exact": 15, "clusters_ann": 12, "ari": 0.75, "ari_yardstick": 1.0},
    "retrieval": {"below_overlap": 0.4, "below_recall": 0.3},
    "classes": {"accuracy_exact": 0.9, "accuracy_ann": 0.92, "accuracy_difference": 0.02},
}


def by_use_of(
    *changed, runs=TWO, of=("ids",), gone=(), half=0.01, tolerances=(0.01, 0.05), **options
):
    """By use of runs with `MEASURES` at k = 100, but what is changed of each, a row's columns."""
    study = make_study(falls(runs, [100]), n_queries=1000, **options)
    study.notes["parameters"]["k_of_interest"] = 100
    rows = []
    for run, changes in zip(runs, changed, strict=False):
        for use, side in itertools.product([one for one in MEASURES if one not in gone], of):
            for measure, value in MEASURES[use].items():
                ends = {"ci_low": value - half, "ci_high": value + half}
                if use == "clusters":
                    ends = dict.fromkeys(ends, np.nan)
                row = {"run": run.name, "k": 100, "use": use, "measure": measure, "of": side}
                row |= {"value": value, **ends, "n": 1000, "groups_that_differ": 500}
                rows.append(row | changes.get(measure, {}))
    study.by_use = pd.DataFrame(rows, columns=[*(rows or [{"k": 0}])[0]])
    return by_use.by_use(study, tolerances)


def test_by_use_has_a_column_for_each_run_and_once_more_as_it_reports():
    made = by_use_of({}, {}, of=("ids", "reported"))
    labels = ["faiss 5", "faiss 5, as it reports", "hnswlib 5", "hnswlib 5, as it reports"]
    assert list(made.table["run"]) == labels
    assert made.table.iloc[0].to_dict() == {
        "run": "faiss 5",
        "density": "lost 0.6 (0.59 to 0.61)",
        "dimension": "lost -20.0 % (-21.0 to -19.0)",
        "clusters": "lost 0.75 (exact: 1.00)",
        "retrieval": "lost 40.0 % (39.0 to 41.0 %)",
        "classes": "may be changed +2.0 points (+1.0 to +3.0)",
    }
    assert any(note.startswith("As it reports: by the distances") for note in made.notes)
    # Where rows tie, what they lose is said by the recall.
    ties = by_use_of({}, runs=TWO[:1], recall={TWO[0].name: 0.99}).table
    assert ties["retrieval"][0] == "lost 30.0 % (29.0 to 31.0 %)"


def test_a_table_for_a_terminal_fits_in_its_width():
    runs = [make_run("faiss", ef, ef_construction=1000 + ef) for ef in range(5, 10)]
    table = by_use_of(*[{}] * 5, runs=runs).table
    parts = [*tables.fitting(table)]
    assert [name for part in parts for name in part.columns[1:]] == list(MEASURES)
    assert len(parts) == 3 and all(part.columns[0] == "run" for part in parts)
    for part in parts:
        assert max(map(len, part.to_string(index=False).split("\n"))) <= 100
    (wide,) = tables.fitting(pd.DataFrame({"run": ["x"], "y": [f"z ({'z' * 200})"]}))
    assert wide.to_dict("records") == [{"run": "x", "y": "z"}]


@pytest.mark.parametrize(
    ("measure", "error", "cell"),
    [
        ("lid_error", (0.004, -0.006, 0.014), "not distinguishable from 0 (-0.6 to +1.4)"),
        ("lid_error", (2e-4, 1e-4, 3e-4), "+0.02 % (+0.01 to +0.03)"),
        ("lid_error", (-0.2, np.nan, np.nan), "-20.0 % (no interval)"),
        ("lid_error", (np.nan, np.nan, np.nan), "-"),
        ("lid_error", {"n": 970}, "-20.0 % (-21.0 to -19.0; of 97.0 % of the queries)"),
        (
            "lid_error",
            {"groups_that_differ": 29},
            "-20.0 % (-21.0 to -19.0; in 29 of 1,000 queries)",
        ),
        ("lid_error", {"groups_that_differ": 30}, "-20.0 % (-21.0 to -19.0)"),
        ("lid_error", (1e-8, -1e-8, 3e-8), "not distinguishable from 0 (in 0 of 1,000 queries)"),
        ("factor", (0.99, 0.97, 1.01), "not distinguishable from 1 (0.97 to 1.01)"),
        ("below_overlap", (0, 0, 0.004), "none (0.0 to 0.4 %)"),
    ],
)
def test_a_cell_by_use_says_how_sure_it_is_and_of_how_few(measure, error, cell):
    names = ("value", "ci_low", "ci_high")
    error = error if isinstance(error, dict) else dict(zip(names, error, strict=True))
    place = [one for one, _, _ in by_use.USES.values()].index(measure)
    ((_, cells),) = by_use_of({measure: error}, runs=TWO[:1]).runs
    assert tables.with_details(*cells[place][1:]) == cell
    few = by_use_of({measure: error | {"groups_that_differ": 7}}, runs=TWO[:1], groups=15)
    cell = few.table.iloc[0, 1 + place]
    assert cell == "-" or cell.endswith(("in 7 of 15 groups)", "in 0 of 15 groups)"))


@pytest.mark.parametrize(
    ("measure", "ends", "mark"),
    [
        ("factor", (0.99, 1.01), "kept"),
        ("factor", (0.995, 1.011), "may be changed"),
        ("factor", (0.96, 0.98), "changed"),
        ("factor", (0.94, 0.98), "may be lost"),
        ("factor", (1.06, 1.2), "lost"),
        ("lid_error", (-0.01, -0.002), "kept"),
        ("lid_error", (-0.051, 0.001), "not sure"),
        ("lid_error", (np.nan, np.nan), "no interval"),
        ("below_overlap", (0, 0.218), "not sure"),
        ("accuracy_difference", (-0.06, -0.055), "lost"),
        # Clusters by how much those of the exact lists are each other's.
        ("ari", (0.95, 0.9), "kept"),
        ("ari", (0.86, 0.9), "changed"),
        ("ari", (0.75, 1.0), "lost"),
        ("ari", (0.02, 0.02), "not sure"),  # not even those
    ],
)
def test_a_mark_is_by_the_end_that_is_farther_from_no_change(measure, ends, mark):
    error = {"value": np.nan_to_num(np.mean(ends)), "ci_low": ends[0], "ci_high": ends[1]}
    error = {measure: error}
    if measure == "ari":
        error = {"ari": {"value": ends[0]}, "ari_yardstick": {"value": ends[1]}}
    made = by_use_of(error, runs=TWO[:1])
    place = [one for one, _, _ in by_use.USES.values()].index(measure)
    assert made.runs[0][1][place][0] == mark
    if mark == "lost":
        wider = by_use_of(error, runs=TWO[:1], tolerances=(0.04, 0.3))
        assert wider.runs[0][1][place][0] == "changed"


def test_what_cannot_be_by_use_is_said():
    made = by_use_of({}, gone=("clusters", "classes"), no_clusters=["No clusters: no graph."])
    assert list(made.uses) == ["density", "dimension", "retrieval"]
    assert made.notes[-3:] == [
        "No clusters: no graph.",
        "No k-NN classification: no query has a label.",
        "Not measured at k = 100: `hnswlib 5` (keeps 96.8 % of 100).",
    ]
    assert "missing the k-th distance is that of the last one." in " ".join(by_use_of({}, {}).notes)
    assert by_use_of() is None
    # Each graph of a family stands by itself, by its seed.
    runs = [make_run("faiss", 5, seed=seed) for seed in (0, 1)]
    curves = make_study(falls(runs, [100])).curves
    graphs = curves[(curves["run"] == runs[0].family) & (curves["metric"] == "overlap")]
    made = by_use_of({}, {}, runs=runs, graphs=graphs.rename(columns={"run": "family"}))
    assert list(made.table["run"]) == ["faiss 5 seed=0", "faiss 5 seed=1"]
