"""The sentences and tables of the report, of studies made by hand."""

import itertools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from drift.indexes.run import Run
from drift.report import by_use, tables
from drift.report.sentences import drift_by_lid, extent, verdict
from tests.studies import ERRORS, falls, made_of, make_factory, make_run, make_study


def test_numbers_look_like_what_they_are():
    values = (0.99996, 1.0, 0.9999999, 0.94894, -1e-10, np.nan, 26430.4, np.inf)
    texts = ["0.99996", "1", "0.9999999", "0.9489", "0", "-", "26430", "inf"]
    assert list(map(tables.format_number, values)) == texts
    texts = ["1.000", "> 0.999", "0.500", "< 0.001", "0.000"]
    assert list(map(tables.format_fraction, (1.0, 0.9997, 0.5, 0.0001, 0.0))) == texts
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
        assert tables.format_error(*error) == text
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
        ((100, 160.4, 99.96, 1234.5), "160 (100 to 1234)"),
        ((0, 10.0, 10.0, 10.0), "10 or less"),
        ((0, 10.0, 10.0, 25.0), "10 or less (to 25)"),
        ((0, 10.0, 10.0, np.nan), "10 or less (to more than 250)"),
        ((250, np.nan, np.nan, np.nan), "more than 250"),
        ((100, np.nan, 220.4, np.nan), "not sure beyond 100"),
        ((0, np.nan, 10.0, np.nan), "not sure at any k"),
    ],
)
def test_how_far_a_run_is_safe_is_one_cell(limit, text):
    names = ("safe_k", "crossing_k", "crossing_low", "crossing_high")
    row = SimpleNamespace(**dict(zip(names, limit, strict=True)))
    assert tables.format_crossing(row, [10, 100, 250]) == text


def test_tables_show_the_ends_of_the_grid():
    assert tables.evenly(range(10, 251, 10), 6) == [10, 50, 100, 150, 200, 250]
    assert tables.evenly(range(1, 10), 6) == [1, 2, 4, 5, 7, 9]
    assert (tables.evenly([10, 20, 30], 6), tables.evenly([7], 6)) == ([10, 20, 30], [7])


# The verdict, of runs by their overlap at two k or three.

FALLS, STAYS, GROWS = {10: 0.9995, 250: 0.64}, {10: 0.999, 250: 0.998}, {10: 0.994, 250: 0.998}
FLOOR, LOSES, TIES = {10: 0.9995, 250: 0.998}, {10: 0.999, 250: 0.8}, {10: 0.433, 250: 0.9}
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


def study_of(*kept, **options):
    return make_study(kept, **AS_USUAL | options)


def text_of(study):
    return " ".join(verdict(study).sentences)


def check(kept, *words, lacks=(), **options):
    """Whether the verdict on some runs says some words, and lacks others."""
    text = text_of(study_of(*kept, **options))
    assert all(one in text for one in words), text
    assert not any(one in text for one in lacks), text


def test_the_verdict_gives_result_reason_and_advice():
    runs, options = [(FAISS, FALLS), (FAISS_FLOOR, FLOOR), (HNSWLIB, STAYS)], {"found": 0.856}
    options["lid_off"] = -0.588
    check(
        runs,
        "3 approximate searches beside the exact k nearest neighbors, k = 10 to",
        "FAISS efSearch k, at least 50, and hnswlib efSearch 50 keep at least 99 % of the",
        "FAISS efSearch 50 has lost 1 % of the neighbors at k = 66.4 (61.2 to 72.5), ",
        "keeps 0.640 at k = 250",
        "14.4 % of the places stay empty",
        "an LID 58.8 % too low (exact lists cut as short: none; it is that other neighbors",
        "The reason that FAISS efSearch 50 loses 1 % of the neighbors at k = 66 is where its",
        "search stops: FAISS lists max(efSearch, k) candidates",
        "at k = 250 after 50 of 251 (the query itself is one)",
        "hnswlib raises efSearch",
        "over 10,000 queries, of this graph: 04_hnsw_search.py --seeds 0 1 2 3 4 builds others",
        **options,
    )
    assert verdict(study_of(*runs, **options)).advice == [
        "So with FAISS let efSearch grow with k, but not fall below 50: on the same graph FAISS "
        "efSearch k, at least 50, keeps 0.998 at k = 250 and > 0.999 at k = 10."
    ]


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
        ((-0.588, -0.721, -0.651), 0.1, False),
        ((-0.745, -0.076, 0.029), 0.1, True),
        ((0.009, 0.002, 0.003), 0.001, False),
        ((0.03, 0.014, 0.02), 0.001, True),
        ((0.03, 0.014, 0.02), 0.04, False),
        ((0.03, 0.016, 0.02), 0.001, False),
        ((0.02, 0.019, -0.0001), 0.001, True),
    ],
)
def test_estimates_of_the_lid_that_disagree_are_named(errors, ends, is_said):
    study = study_of((THEIRS, LOSES))
    names = ("lid_error", "lid_median_error", "lid_pooled_error")
    for name, error in zip(names, errors, strict=True):
        rows = (study.curves["metric"] == name) & (study.curves["k"] == 250)
        numbers = [error, error - ends, error + ends]
        if name == "lid_median_error":
            numbers[1:] = np.nan, np.nan
        study.curves.loc[rows, ["mean", "ci_low", "ci_high"]] = numbers
    texts = [tables.format_percent(error) for error in errors]
    expected = (
        "How far the LID of theirs is off at k = 250 depends on the estimate: {} % by the mean, {} "
        "% by the median, {} % pooled."
    )
    assert (expected.format(*texts) in text_of(study)) == is_said
    study.curves.loc[study.curves["metric"] == "lid_error", "n"] = 3500
    assert ("the LID (35.0 % of the queries have one) of theirs is" in text_of(study)) == is_said


def test_the_advice_is_right_at_small_k_where_that_was_measured():
    both, stop = [(FAISS, FALLS), (FAISS_K, GROWS)], " is where its search stops"
    less = "keeps 0.998 at k = 250, but 0.994 at k = 10, less than FAISS efSearch 50."
    check(both, stop, "let efSearch grow with k, but not fall below 50: on the same graph", less)
    better = [(FAISS, FALLS), (FAISS_K, FLOOR)]
    check(better, stop, "let efSearch grow with k: ", lacks=["fall below"])
    # The run that is worse nowhere is the one to follow.
    best = "on the same graph FAISS efSearch k, at least 50, keeps 0.998 at k = 250 and >"
    check([*both, (FAISS_FLOOR, FLOOR)], best)
    fixed = "let efSearch be no less than the list is long: on the same graph FAISS efSearch 300"
    check([(FAISS, FALLS), (FAISS_300, STAYS)], fixed)


def test_a_factory_string_of_an_hnsw_graph_gets_the_same_reason_and_the_same_advice():
    fixed, grows = (make_factory("HNSW32,Flat", ef_search=ef) for ef in (50, "k"))
    rule = "FAISS lists max(efSearch, k) candidates, but stops once efSearch of them are nearer"
    reason = "The reason that HNSW32,Flat efSearch 50, loses 1 % of the neighbors at k = 66"
    advice = "So with FAISS measure a run whose efSearch grows with k (--runs faiss:k,50)."
    check([(fixed, FALLS)], f"{reason} may be", rule, advice, lacks=["denser"])
    advice = "let efSearch grow with k: on the same graph HNSW32,Flat efSearch k, keeps"
    check([(fixed, FALLS), (grows, FLOOR)], f"{reason} is", rule, advice)


def test_the_reason_is_one_only_for_what_is_lost_beyond_the_stop_and_is_named():
    reason = "The reason that FAISS efSearch 50 loses {} % of the neighbors at k = {} may be"
    worse = [(IVF, {10: 0.9, 250: 0.2 + i / 100}) for i in range(1)]
    worse += [(make_factory("IVF256,PQ8", nprobe=n), {10: 0.8, 250: 0.1}) for n in (1, 2, 3)]
    runs = [*worse, (FAISS, FALLS)]
    check(runs, reason.format(1, 66), "FAISS efSearch 50 has lost 1 %", "these 4 least: ")
    check(worse, "search wider, or build a denser index", lacks=["stops", "efSearch"])
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


def test_the_verdict_claims_nothing_that_was_not_measured():
    advice, may_be = "measure a run whose efSearch grows with k (--runs faiss:k,50)", "66 may be"
    check([(FAISS, FALLS)], may_be, advice)
    check([(FAISS, FALLS), (FAISS_K, FALLS)], may_be)
    denser = "search wider, or build a denser index, and measure again"
    check([(FAISS_300, FALLS)], denser, lacks=["stop"])
    check([(THEIRS, FALLS)], denser, lacks=["efSearch", "FAISS", "graph"])
    # A difference smaller than its interval is none, and so is an error.
    both = [(FAISS, FALLS), (FAISS_K, GROWS)]
    check(both, may_be, lacks=["fall below"], different=(THEIRS, MINE))
    close = [(MINE, STAYS), (THEIRS, {10: 0.999, 250: 0.9979}), (HNSWLIB, {10: 0.999, 250: 0.9})]
    same = "At k = 250 there is no difference beyond the intervals between mine and theirs."
    check(close, same, different=(MINE, HNSWLIB))
    check(close, lacks=["no difference"])
    graphs = "no difference beyond the intervals, of these graphs, between FAISS efSearch k and"
    check([(FAISS_K, STAYS), (HNSWLIB, STAYS)], graphs, different=(MINE, THEIRS))
    check([(THEIRS, LOSES)], "an LID 2.0 % too high", lid_off=0.02)
    check([(THEIRS, LOSES)], lacks=["too high"], lid_off=0.02, half=0.3)


def test_a_difference_is_one_by_its_adjusted_p():
    for p, adjusted, is_shown in ((0.01, 0.2, False), (0.01, np.nan, True), (0.01, 0.04, True)):
        study = study_of((FAISS, FALLS), (FAISS_K, FLOOR))
        study.differences[["p", "p_adjusted"]] = p, adjusted
        assert ("is where its search stops" in text_of(study)) == is_shown
    study.differences[["p", "p_adjusted"]] = np.nan  # of one group
    assert "66 may be where" in text_of(study) and "no difference" not in text_of(study)


def test_what_holds_for_few_is_said_for_few():
    few = "(1.0 % of the queries have one)"
    check([(THEIRS, STAYS)], f"an LID {few} within 0.1 % of", share=0.01)
    check([(THEIRS, LOSES)], f"an LID {few} 20.0 % too high", lid_off=0.2, share=0.01)
    almost = "an LID (9,999 of 10,000 queries have one) within 0.1 % of"
    check([(THEIRS, STAYS)], almost, share=0.9999)
    many = "Intervals are of 95 %, over 10,000 queries."
    check([(THEIRS, STAYS)], many, lacks=["too narrow", "have one", "rough", "random"])
    skewed = "With fewer than 1,000 queries those of skewed metrics"
    alike = "over 15 groups of rows that are alike"
    check([(THEIRS, STAYS)], alike, skewed, n_queries=999, groups=15)
    embedded = made_of(5000) | {"01_images": {"parameters": {}}}
    embedded["02_embeddings"]["inputs"] = {"01_images.npy": {}}
    check([(THEIRS, STAYS)], alike.replace("rows", "images"), groups=15, manifests=embedded)
    shorter = (THEIRS, {10: 0.999, 100: 0.998})
    check([(MINE, STAYS), shorter], "at every k of its grid, up to 100 at least")
    check([(MINE, STAYS), (THEIRS, STAYS)], "on average at every k,")

    study = study_of((THEIRS, STAYS), (MINE, STAYS), (HNSWLIB, STAYS))
    for run, n in ((THEIRS, 7), (MINE, 7), (HNSWLIB, 30)):
        study.curves.loc[study.curves["run"] == run.name, "groups_that_differ"] = n
    rough = "rough: neighbors are lost at k = 250 in 7 of 10,000 queries with theirs and mine."
    assert rough in text_of(study)
    study.notes["groups"] = 7
    assert "rough" not in text_of(study), "all of them: over how many the intervals are is said"


def test_what_lists_drawn_at_random_have_is_said_above_5_percent():
    at_20 = (MINE, {10: 0.999, 20: 1.0})
    share = "Lists of k = 20 drawn at random have an overlap of"
    few, some, many = (made_of(n) for n in (21, 201, 1001))
    all_rows = "But lists of k = 20 hold nearly every row, whatever the index does."
    check([at_20], f"{share} 1.000.", all_rows, lacks=["can be had"], manifests=few)
    check([at_20], f"{share} 0.100.", "lists up to k = 20 can be had", manifests=some)
    check([at_20], lacks=["random"], manifests=many)


def test_the_warnings_of_all_stages_are_said_once():
    manifests = made_of(5000)
    manifests["02_embeddings"]["warnings"] = ["rounding moves the vectors"]
    dense = {name: {"warnings": ["this graph is denser"]} for name in (FAISS.name, FAISS_K.name)}
    runs, options = [(FAISS, FALLS), (FAISS_K, GROWS)], {"manifests": manifests, "searched": dense}
    assert verdict(study_of(*runs, warnings=["this graph is denser"], **options)).warnings == [
        "Warning: this graph is denser.",
        "Warning: rounding moves the vectors.",
    ]
    assert verdict(study_of(*runs)).warnings == []


def test_the_verdict_is_short_and_careful():
    check([(FAISS_300, STAYS)], "So lists up to k = 250 can be had from FAISS efSearch 300.")
    first = "less than 99 % of the neighbors from the first k on"
    for overlap, verb in ((0.9905, "may keep"), (0.9, "keeps")):
        study = study_of((THEIRS, {10: overlap, 250: 0.8}))
        study.safe_k[["crossing_k", "crossing_low"]] = 10
        assert f"theirs {verb} {first}" in text_of(study)
    study = study_of((THEIRS, {10: 0.999, 250: 0.9905}))
    study.safe_k["crossing_k"] = np.nan
    assert "theirs may have lost 1 % of the neighbors beyond k = 10" in text_of(study)
    tie = "Rows tie, and ties are no losses: what follows speaks of recall."
    keeps = "mine keeps at least 99 % of the neighbors on average at every k"
    check([(MINE, TIES)], tie, keeps, lacks=["less than 99 %"], recall={"mine": 1.0})
    many = [(Run(f"system {i}"), {10: 0.999, 250: 0.9 - i / 100}) for i in range(9)]
    text = " ".join(verdict(study_of(*many)).result)
    assert "9 searches keep less, these 3 least: system 8 has lost" in text
    assert "system 5" not in text
    assert len(text) < 600


def test_each_library_that_stops_early_gets_its_reason_and_its_advice():
    check(
        [(FAISS, FALLS), (FAISS_FLOOR, FLOOR), (PGVECTOR, {10: 0.999, 250: 0.196})],
        "pgvector returns at most hnsw.ef_search rows, 50 of 251 at k = 250",
        "The reason that FAISS efSearch 50 loses 1 %",
        "So with pgvector let hnsw.ef_search be more than k",
        "So with FAISS let efSearch grow with k, but not fall below 50",
    )


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
    notes = chosen({"10": 9, "100": 43}, {"10": 8, "100": 41})
    made = verdict(of_target("overlap=0.95", kept, notes))
    assert made.result[1] == (
        "FAISS efSearch for overlap 0.95, by one half of the queries: at k = 10 it needs efSearch "
        "8 on the mean, 9 with 95 % confidence (measured: 0.953); at k = 100 it needs efSearch 41 "
        "on the mean, 43 with 95 % confidence (measured: 0.957). On the other half the whole "
        "interval reaches it too."
    )
    assert made.advice == ["So at each k search as FAISS efSearch for overlap 0.95 does."]
    assert not any(words in " ".join(made.sentences) for words in ("99 %", "keeps", "stops"))
    notes = chosen({"10": 9, "100": 43}, {"10": 8, "100": 41}, other=(0.9507, 0.947))
    text = text_of(of_target("overlap=0.95", kept, notes))
    assert "it misses at 2 of 2 k: the lower end of the interval is 0.947 there at k = 10" in text
    assert "the mean 0.951." in text
    unknown = chosen({"10": 9, "100": 43}, {"10": 8, "100": 41}, other=(np.nan, np.nan))
    assert "other half" not in text_of(of_target("overlap=0.95", kept, unknown))


def test_a_target_that_nothing_reaches_is_said():
    notes = chosen({"10": 250}, {"10": None}, is_enough=False, mean=0.93)
    text = text_of(of_target("overlap=0.99", {10: 0.93}, notes))
    best = "reaches it with 95 % confidence at 1 of 1 k; the best at k = 10, 250, has 0.930"
    assert f"{best}." in text and "it needs" not in text and "other half" not in text
    notes = chosen({"10": 250}, {"10": 240}, is_enough=False, mean=0.93)
    assert f"{best}; on the mean 240 does." in text_of(of_target("overlap=0.99", {10: 0.93}, notes))
    notes = chosen({"10": 60}, {"10": 50}, other=(-0.004, -0.012), mean=-0.006)
    study = of_target("lid=0.01", {10: 0.98}, notes, lid_off=-0.006)
    text = text_of(study)
    assert "60 with 95 % confidence (measured: -0.6 % of the LID)" in text
    assert "the far end of the interval is -1.2 % of the LID there at k = 10, the mean -0.4" in text


def test_a_target_where_too_few_have_an_lid_is_said():
    lacking = chosen({"2": 88}, {"2": None}, (np.nan, np.nan), False, mean=None, ci_low=None)
    few = "at k = 2 fewer than 99 % of the queries have an LID, so that no efSearch can reach it"
    text = text_of(of_target("lid=0.01", {2: 0.999}, lacking))
    assert f"the queries: {few} there. At least 99 % of the neighbors are kept at every k" in text
    assert not any(words in text for words in ("the best", "wider", "other half"))
    # It is reached at larger k, and not at one.
    notes = chosen({"10": 60, "20": 70}, {"10": 50, "20": 60}, other=(-0.004, -0.008), mean=-0.006)
    missed = chosen({"30": 99}, {"30": None}, is_enough=False, mean=-0.02)
    for other in (lacking, missed):
        for name, values in other.items():
            notes[name] = notes[name] | values
    text = text_of(of_target("lid=0.01", {2: 0.999, 10: 0.98, 20: 0.98, 30: 0.98}, notes))
    assert f"at 1 of 4 k; the best at k = 30, 99, has -2.0 % of the LID; {few} there." in text
    assert "On the other half the whole interval reaches it too at 2 of 4 k." in text
    advice = "So where a target is reached search as FAISS efSearch for lid 0.01 does."
    assert advice in text and "wider" not in text


def test_estimates_that_disagree_are_first_those_of_runs_that_are_named():
    kept = [*((Run(name), STAYS) for name in "abc"), (THEIRS, LOSES)]
    study = study_of(*kept, lid_off=-0.2)
    for name, error in (("lid_error", -0.3), ("lid_median_error", -0.1)):
        rows = study.curves["metric"] == name
        study.curves.loc[rows, ["mean", "ci_low", "ci_high"]] = error, error - 0.01, error + 0.01
    text = text_of(study)
    places = [text.find(f"How far the LID of {name} is off") for name in ("theirs", "a", "b", "c")]
    assert 0 < places[0] < places[1] < places[2] and places[3] < 0


def test_what_rounding_leaves_of_a_distance_ratio_is_none():
    study = study_of((THEIRS, LOSES))
    study.curves.loc[study.curves["metric"] == "distance_ratio", "mean"] = 1 - 1e-8
    assert tables.overview(study).set_index("")["theirs"]["distance ratio, k = 250"] == "1.000"
    assert (
        tables.curve_table(study, "theirs").set_index("metric").loc["distance_ratio"] == 1
    ).all()


def test_the_tables_say_where_every_tolerance_is_crossed_and_what_holds_for_few():
    study = study_of((THEIRS, {10: 0.999, 250: 0.93}), share=0.01, lid_off=0.2)
    shown = tables.overview(study).set_index("")["theirs"]
    expected = ["66.4 (61.2 to 72.5)"] * 2 + ["more than 250"]
    assert [shown[f"{lost} % lost at k"] for lost in (1, 5, 10)] == expected
    assert list(tables.safe_table(study).iloc[:3, -1]) == expected
    assert shown["LID off by %, k = 250"] == "+20.0 (of 1.0 %)"
    assert "recall, k = 10" not in shown
    study = study_of((MINE, TIES), recall={"mine": 1.0})
    shown = tables.overview(study).set_index("")["mine"]
    names = ["recall, k = 10", "overlap, k = 10", "1 % lost at k"]
    assert list(shown[names]) == ["1.000", "0.433", "more than 250"]


def test_who_drifts_is_said_in_a_sentence():
    queries = pd.DataFrame({"query": range(100), "lid_exact": range(100)})
    queries = queries.assign(run="theirs", k=250, overlap=0.5002 + queries["lid_exact"] / 200)
    study = study_of((THEIRS, LOSES))
    study.per_query = queries.assign(distance_ratio=1.0)
    assert drift_by_lid(study) == (
        "Of the queries, the fifth with the lowest LID gets 0.548 of the neighbors on average at "
        "k = 250 with theirs, the fifth with the highest 0.948."
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


def by_use_of(*changed, runs=TWO, of=("ids",), gone=(), half=0.01, **options):
    """By use of runs with `MEASURES` at k = 100, but what is changed of each, a row's columns."""
    study = make_study(falls(runs, [100]), n_queries=1000, **options)
    study.notes["parameters"]["k_of_interest"] = 100
    rows = []
    for run, changes in zip(runs, changed, strict=False):
        for use, side in itertools.product(MEASURES.keys() - set(gone), of):
            for measure, value in MEASURES[use].items():
                ends = {"ci_low": value - half, "ci_high": value + half}
                if use == "clusters":
                    ends = dict.fromkeys(ends, np.nan)
                row = {"run": run.name, "k": 100, "use": use, "measure": measure, "of": side}
                row |= {"value": value, **ends, "n": 1000, "groups_that_differ": 500}
                rows.append(row | changes.get(measure, {}))
    study.by_use = pd.DataFrame(rows, columns=[*(rows or [{"k": 0}])[0]])
    return by_use.by_use(study)


def test_by_use_has_a_column_for_each_run_and_once_more_as_it_reports():
    made = by_use_of({}, {}, of=("ids", "reported"))
    assert list(made.table.columns) == [
        *("", "FAISS efSearch 5", "FAISS efSearch 5, as it reports"),
        *("hnswlib efSearch 5", "hnswlib efSearch 5, as it reports"),
    ]
    assert made.table.set_index("")["FAISS efSearch 5"].to_dict() == {
        "density: k-th distance, %": "+5.0 (+4.0 to +6.0)",
        "density: estimate times": "0.6 (0.59 to 0.61)",
        "dimension: LID, %": "-20.0 (-21.0 to -19.0)",
        "dimension: of lists as short, %": "+2.0 (+1.0 to +3.0)",
        "dimension: LID pooled, %": "-30.0 (-31.0 to -29.0)",
        "clusters: number": "12 (exact: 15)",
        "clusters: ARI": "0.75 (exact: 1.00)",
        "retrieval: overlap below 0.9": "0.400 (0.390 to 0.410)",
        "retrieval: recall below 0.9": "0.300 (0.290 to 0.310)",
        "classes: accuracy": "0.920 (0.910 to 0.930; exact: 0.900)",
        "classes: accuracy, points": "+2.0 (+1.0 to +3.0)",
    }
    assert any(note.startswith("As it reports: by the distances") for note in made.notes)
    # Where rows tie, what they lose is said by the recall.
    ties = by_use_of({}, runs=TWO[:1], recall={TWO[0].name: 0.99}).table[""]
    assert "retrieval: recall below 0.9" in set(ties) and not ties.str.contains("overlap").any()


@pytest.mark.parametrize(
    ("error", "cell"),
    [
        ({"value": 0.004, "ci_low": -0.006, "ci_high": 0.014}, "none (-0.6 to +1.4)"),
        ({"value": 2e-4, "ci_low": 1e-4, "ci_high": 3e-4}, "+0.02 (+0.01 to +0.03)"),
        ({"ci_low": np.nan, "ci_high": np.nan}, "-20.0 (no interval)"),
        ({"value": np.nan}, "-"),
        ({"n": 970}, "-20.0 (-21.0 to -19.0; of 97.0 % of the queries)"),
        ({"groups_that_differ": 29}, "-20.0 (-21.0 to -19.0; in 29 of 1,000 queries)"),
        ({"groups_that_differ": 30}, "-20.0 (-21.0 to -19.0)"),
    ],
)
def test_a_cell_by_use_says_how_sure_it_is_and_of_how_few(error, cell):
    made = by_use_of({"lid_error": error}, runs=TWO[:1])
    assert made.table.set_index("")["FAISS efSearch 5"]["dimension: LID, %"] == cell
    few = by_use_of({"lid_error": {"groups_that_differ": 7}}, runs=TWO[:1], groups=15)
    assert few.table.iloc[2, 1].endswith("; in 7 of 15 groups)")
    rounding = {"value": 1e-8, "ci_low": -1e-8, "ci_high": 3e-8, "groups_that_differ": 7}
    few = by_use_of({"lid_error": rounding}, runs=TWO[:1])
    assert few.table.iloc[2, 1] == "none (0.0 to 0.0; in 0 of 1,000 queries)"


def test_what_cannot_be_by_use_is_said():
    made = by_use_of({}, gone=("clusters", "classes"), no_clusters=["No clusters: no graph."])
    assert not made.table[""].str.contains("cl").any()
    assert made.notes[-3:] == [
        "No clusters: no graph.",
        "No k-NN classification: no query has a label.",
        "Not searched at k = 100: hnswlib efSearch 5.",
    ]
    places = "Nothing came back for 3.2 % of the places with FAISS efSearch 5 and 1.6 % of the"
    assert places in " ".join(by_use_of({}, {}).notes)
    assert by_use_of() is None


def test_graphs_of_a_family_that_come_back_short_are_said_once():
    runs = [make_run("faiss", 5, seed=seed) for seed in (0, 1)]
    curves = make_study(falls(runs, [100])).curves
    graphs = curves[(curves["run"] == runs[0].family) & (curves["metric"] == "overlap")]
    made = by_use_of({}, {}, runs=runs, graphs=graphs.rename(columns={"run": "family"}))
    places = "Nothing came back for 2.4 % of the places with FAISS efSearch 5 (2 graphs); the k-th"
    assert places in " ".join(made.notes)


def test_what_was_compared_is_named():
    outputs = {"02_embeddings.npy": {"shape": [2000, 2048]}, "02_rows.parquet": {"rows": 2000}}
    stages = {
        "01_images": {"parameters": {"dataset": "photos"}},
        "02_embeddings": {"parameters": {"model": "resnet50"}, "outputs": outputs},
    }
    for inputs, name in (({"01_images.npy": {}}, "photos, resnet50"), ({}, "resnet50")):
        stages["02_embeddings"]["inputs"] = inputs
        expected = f"10,000 queries among 2,000 embeddings of 2,048 dimensions ({name})"
        assert extent(study_of((THEIRS, STAYS), manifests=stages)) == expected
