"""Runs as they are written in a shell: policies, names, what a manifest keeps, what is none."""

import json
import re

import pytest

from drift import InputError
from drift.indexes.registry import (
    LIBRARIES,
    expand_series,
    index_class,
    parse_imported,
    parse_run,
)
from drift.indexes.run import Policy, Run
from drift.indexes.search import group_shared_searches
from drift.protocols import Protocol


@pytest.mark.parametrize(
    ("text", "values", "smallest", "label"),
    [
        ("50", (50, 50, 50), 50, "50"),
        ("2.5", (2.5, 2.5, 2.5), 2.5, "2.5"),
        ("0", (0, 0, 0), 0, "0"),
        ("k", (2, 11, 100), 2, "k"),
        ("2k", (2, 22, 200), 2, "2k"),
        ("0.29k", (2, 3, 29), 2, "0.29k"),  # where 0.29 * 100 is less than 29
        ("0.5k,1", (1, 5, 50), 1, "0.5k, at least 1"),
        ("k,50", (50, 50, 100), 50, "k, at least 50"),
        ("overlap=0.99", None, 2, "for overlap 0.99"),
        ("recall=0.95", None, 2, "for recall 0.95"),
        ("lid=0.00001", None, 2, "for lid 0.00001"),
    ],
)
def test_policies(text, values, smallest, label):
    policy = Policy.parse(text)
    if values:
        assert policy.criterion is None
        got = tuple(map(policy.value, (1, 11, 100)))
        assert got == values and type(got[0]) is type(values[0])
    else:
        criterion, _, level = text.partition("=")
        assert policy == Policy(criterion=criterion, level=float(level))
    assert (policy.smallest, policy.label, str(policy)) == (smallest, label, text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "-1", "1k", "k2", "050", "0k", "k,", "k,0", "50,40", "1e3", "1.", ".5", "K", " 50"),
        *("0.50k", "0.0k", ".5k", "1.k", "0.2.5", "01.5k", "k,050", "k,k", "k,50,60", "k, 50"),
        *("overlap", "overlap=", "overlap=1", "overlap=0", "overlap=0.0", "overlap=0.990"),
        *("overlap=99", "overlap=.9", "lid=1.5", "lid=-0.1", "found=0.9", "overlap=0.9,50"),
        *("overlap=0%", "overlap=0.0%", "overlap=100%", "overlap=%", "overlap=-5%", "0.9%"),
    ],
)
def test_what_is_no_policy(text):
    assert Policy.parse(text) is None
    with pytest.raises(InputError, match=r"is no run: write faiss:50, or in place") as error:
        parse_run(f"faiss:{text}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("percent", "level"), [("95%", "0.95"), ("99.9%", "0.999"), ("0.5%", "0.005"), ("7.0%", "0.07")]
)
def test_a_target_in_percent_is_the_same_run(percent, level):
    for criterion in ("overlap", "recall", "lid"):
        runs = [parse_run(f"faiss:{criterion}={text}") for text in (percent, level)]
        assert runs[0] == runs[1] and runs[0].name.endswith(f"_ef{criterion}{level}")
        assert runs[0].target[1].level == float(level)


NAMES = [
    ("faiss:50", "faiss_M32_efc200", "_ef50"),
    ("faiss:0.25k", "faiss_M32_efc200", "_ef0.25k"),
    ("faiss:2k,50", "faiss_M32_efc200", "_ef2kmin50"),
    ("hnswlib:k,ef_construction=400", "hnswlib_M32_efc400", "_efk"),
    ("usearch:lid=0.01", "usearch_M32_efc200", "_eflid0.01"),
    ("pgvector:40,iterative_scan=off", "pgvector_M32_efc200", "_ef40_iterative_scan_off"),
    ("IVF256,Flat:nprobe=8", "IVF256_Flat", "_nprobe_8"),
    ("PQ64x4fs", "PQ64x4fs", ""),
    ("PQ8,RFlat:nprobe=0.5k,8,k_factor_rf=1.5", "PQ8_RFlat", "_nprobe_0.5k_8_k_factor_rf_1.5"),
    ("HNSW8:efSearch=k,50,efConstruction=40", "HNSW8_efConstruction_40", "_efSearch_k_50"),
    (
        "IVF9_HNSW8,Flat:nprobe=overlap=0.9,quantizer_efConstruction=20",
        "IVF9_HNSW8_Flat_quantizer_efConstruction_20",
        "_nprobe_overlap_0.9",
    ),
    ("NSG32,Flat:search_L=50", "NSG32_Flat", "_search_L_50"),
    ("IVF16(HNSW8),Refine(SQ8)", "IVF16_HNSW8__Refine_SQ8_", ""),
    ("Residual-2,x é", "Residual-2_x__", ""),
]


@pytest.mark.parametrize(("text", "index", "settings"), NAMES)
def test_names(text, index, settings):
    for seed, suffix in ((0, ""), (7, "_seed7")):
        run = parse_run(text, seed=seed, build_threads=2)
        assert (run.name, run.family) == (index + settings + suffix, index + settings)
        assert run.index_name == index + suffix
        # A label is what is written in a shell.
        assert run.label == text.replace(":", " ", 1).replace(",ef_construction=400", "")
        kept = json.loads(json.dumps(run.parameters, allow_nan=False))
        assert Run.from_json(kept["run"]) == run
        assert (kept["run"]["name"], kept["run"]["family"]) == (run.name, run.family)
        library = text.partition(":")[0] if "_M32_" in index else "faiss"
        assert index_class(run) is LIBRARIES[library]


def test_a_run_in_words():
    ef = "efSearch k, at least 50"
    for text, in_title, description in (
        ("faiss:k,50", f"FAISS at {ef}", f"FAISS HNSW, M 16, efConstruction 200, seed 7, {ef}"),
        ("PQ4,RFlat:k=9,a=8", "PQ4,RFlat at k 9 and a 8", "FAISS PQ4,RFlat, seed 7, k 9, a 8"),
        ("HNSW8:efConstruction=9", "HNSW8", "FAISS HNSW8, efConstruction 9, seed 7"),
    ):
        run = parse_run(text, M=16, seed=7)
        assert (run.in_title, run.description) == (in_title, description)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("faiss:50", ("faiss_M32_efc200_ef..._seed7", 50)),
        ("IVF9,Flat:nprobe=8", ("IVF9_Flat_nprobe_..._seed7", 8)),
        ("IVF9,RFlat:nprobe=k,k_factor_rf=1.5", ("IVF9_RFlat_nprobe_k_k_factor_rf_..._seed7", 1.5)),
        *((text, None) for text in ("faiss:k", "PQ4", "IVF9,RFlat:nprobe=8,k_factor_rf=2")),
    ],
)
def test_runs_of_a_series_have_all_but_one_number_in_common(text, key):
    assert parse_run(text, seed=7).series_key == key


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("faiss:{}", [10, 16, 26, 43, 70, 114, 186, 302, 492, 800]),
        ("usearch:{},ef_construction=400", [1, 2, 3, 4, 5]),
        ("IVF256,Flat:nprobe={}", [7, 8]),
        ("IVF9,RFlat:nprobe={},k_factor_rf=2", [1, 2, 3, 4, 6, 10, 16, 25, 40, 64]),
    ],
)
def test_a_series_is_at_most_ten_runs_evenly_on_a_logarithmic_scale(text, numbers):
    asked = text.format(f"{numbers[0]}..{numbers[-1]}")
    assert expand_series(asked) == [text.format(number) for number in numbers]
    keys = [parse_run(one).series_key for one in expand_series(asked)]
    if "k_factor" not in text:
        assert [number for _, number in keys] == numbers and len({key for key, _ in keys}) == 1


@pytest.mark.parametrize(
    "text",
    [f"faiss:{ladder}" for ladder in ("10..5", "0..5", "1..1", "10..", "..5", "a..b", "1.5..3")]
    + [f"faiss:{ladder}" for ladder in ("1...5", "1..5..9", "01..5", "2k..4k", "1..5k", "-1..5")]
    + ["IVF9,RFlat:nprobe=1..8,k_factor_rf=1..4", "PQ4:..", "faiss:50..100.5"],
)
def test_what_is_no_series_is_one_line(text):
    with pytest.raises(InputError, match=r"is no series: it is of two whole numbers.* as faiss:10"):
        expand_series(text)
    for other in ("../my.index", "faiss:50", "Flat", "10..800"):
        assert expand_series(other) == [other]


def test_lists_of_another_system_are_a_run_too():
    for text, name, in_title, key in (
        ("milvus", "milvus", "milvus", None),
        ("qdrant:ef=64", "qdrant_ef_64", "qdrant at ef 64", ("qdrant_ef_...", 64)),
        ("annoy-2:n=9,eps=0.5", "annoy-2_n_9_eps_0.5", "annoy-2 at n 9 and eps 0.5", None),
        ("x:ef_search=9", "x_ef_search_9", "x at efSearch 9", ("x_ef_search_...", 9)),
    ):
        run = parse_imported(text)
        assert (run.name, run.family, run.index_name, run.M) == (name, name, run.library, None)
        assert (run.in_title, run.series_key) == (in_title, key)
        kept = json.loads(json.dumps(run.parameters, allow_nan=False))
        assert Run.from_json(kept["run"]) == run
    qdrant = parse_imported("qdrant:ef=64")
    assert (qdrant.label, qdrant.description) == ("qdrant ef=64", "lists of qdrant, ef 64")


NO_NAMES = ("", "a/b", "..", "_x", "graphs", "a_seed1", "faiss_M32_efc200", ":ef=4")
NO_SETTINGS = ("", "ef", "ef=", "ef=k", "ef=-1", "ef=64,5", "=5", "1ef=5", "a.b=5", "ef=1..4")


@pytest.mark.parametrize("text", [*NO_NAMES, *map("x:{}".format, (*NO_SETTINGS, "ef=5:6"))])
def test_what_is_no_name_of_lists_is_one_line(text):
    said = "a setting is a number" if text[:1] == "x" else "a name is of letters, digits"
    with pytest.raises(InputError, match=f"^--lists {re.escape(text)}: {said}"):
        parse_imported(text)


@pytest.mark.parametrize(
    ("text", "M", "ef_construction", "ef_search"),
    [
        ("hnswlib:50", 16, 100, "50"),
        ("faiss:k,ef_construction=400", 16, 400, "k"),
        ("HNSW:efSearch=9", 32, 40, "9"),
        ("HNSW8,Flat:efConstruction=30", 8, 30, "16"),
        ("PCA8,HNSW24_SQ8,RFlat:efSearch=2k", 24, 40, "2k"),
        *((text, None, None, None) for text in ("IVF9_HNSW8,Flat", "NSG32", "PQ4,Refine(HNSW8)")),
    ],
)
def test_settings_of_hnsw_graphs(text, M, ef_construction, ef_search):
    run = parse_run(text, 16, 100)
    assert (run.M, run.ef_construction) == (M, ef_construction)
    assert run.ef_search == (ef_search and Policy.parse(ef_search))
    flat = run.parameters
    assert flat.get("M") == M and flat.get("ef_construction") == ef_construction
    assert flat["ef_search"] == (int(ef_search) if str(ef_search).isdigit() else ef_search)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *(
            (
                text,
                "write one of faiss, hnswlib, usearch, pgvector and its efSearch, as faiss:50, or",
            )
            for text in (
                "annoy:50",
                "ScaNN:50",
                "my.index",
                "./faiss",
                "FAISS:50",
                "HNSW32:50",
                "50",
            )
        ),
        *((text, "returned is --lists NAME IDS.npy") for text in (":50", "/a/b.bin:50", "10..800")),
        ("faiss:50,M=8", "faiss has no setting M=8"),
        ("faiss:recall=95", "or in place of 50 another whole number, k, 2k, 0.25k, k,50 for k but"),
        ("faiss", "faiss: is no run: write faiss:50"),
        ("faiss:2.5", "faiss:2.5 is no run"),
        ("faiss:0", "faiss:0 is no run"),
        ("faiss:k,50,threads=4", "faiss has no setting threads=4: after efSearch it takes ef_con"),
        ("faiss:50,iterative_scan=off", "faiss has no setting iterative_scan=off"),
        ("pgvector:50,iterative_scan=on", "ef_construction=400 or iterative_scan=off|relaxed_ord"),
        ("hnswlib:k,a=1,50", "hnswlib has no setting a=1,50"),
        ("faiss:k,=3", "faiss has no setting =3"),
        ("faiss:50,ef_construction=0", "ef_construction must be a whole number, not 0"),
        ("faiss:50,ef_construction=", "ef_construction must be a whole number, not "),
        ("faiss:50,ef_construction=9,ef_construction=8", "ef_construction is there twice"),
        ("IVF16,Flat:nprobe", "is no run"),
        ("IVF16,Flat:nprobe=8,k", "is no run"),
        ("IVF16,Flat:nprobe=-3", "is no run"),
        ("IVF16,Flat:=3", "is no run"),
        ("IVF16,Flat:nprobe=8,nprobe=9", "nprobe is there twice"),
        ("HNSW8,Flat:efConstruction=k", "efConstruction must be a whole number, not k"),
        ("HNSW8,Flat:efConstruction=2.5", "efConstruction must be a whole number, not 2.5"),
        ("IVF9,PQ4,RFlat:nprobe=overlap=0.9,k_factor_rf=lid=0.1", "only one setting can be looked"),
    ],
)
def test_what_is_no_run_is_one_line(text, message):
    with pytest.raises(InputError) as error:
        parse_run(text)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert len(str(error.value)) < 260, "three lines"


@pytest.mark.parametrize(
    ("text", "study", "notebook"),
    [
        ("faiss:50", [(10, 20, 49), (50,), (60,)], [(10, 20, 49, 50), (60,)]),
        ("hnswlib:k,50", [(10, 20, 49), (50,), (60,)], [(10, 20, 49, 50), (60,)]),
        ("faiss:2k,50", [(10, 20), (49,), (50,), (60,)], [(10, 20), (49,), (50,), (60,)]),
        *(
            (text, *[[(10,), (20,), (49,), (50,), (60,)]] * 2)
            for text in ("faiss:k", "faiss:overlap=0.9", "HNSW32:efSearch=50", "PQ4")
        ),
    ],
)
def test_searches_share_what_one_list_answers(text, study, notebook):
    run, ks = parse_run(text), [10, 20, 49, 50, 60]
    assert group_shared_searches(ks, run, Protocol.STUDY) == study
    assert group_shared_searches(ks, run, Protocol.NOTEBOOK) == notebook


def test_words_and_chosen_values_are_among_the_settings():
    scan = parse_run("pgvector:overlap=0.9,iterative_scan=off")
    assert scan.values(11, 77) == {"ef_search": 77, "iterative_scan": "off"}
    assert scan.target == ("ef_search", Policy.parse("overlap=0.9"))
    assert parse_run("IVF9,RFlat:nprobe=k,k_factor=4").values(9) == {"nprobe": 9, "k_factor": 4}


def test_the_seed_is_an_order_of_insertion():
    seeds = (0, 1, 1, 2)
    orders = [parse_run("faiss:50", seed=seed).insertion_order(300).tolist() for seed in seeds]
    assert sorted(orders[1]) == orders[0] == list(range(300))
    assert orders[0] != orders[1] == orders[2] != orders[3]
