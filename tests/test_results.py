"""What the results folder trusts: manifests, damage, staleness, runs, parts and graphs."""

import hashlib
import importlib.metadata
import json
import os
import pickle
import platform
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from drift import InputError
from drift.indexes.registry import parse_run
from drift.pipeline import environment
from drift.pipeline.manifests import (
    manifest_name,
    producer,
    producing_script,
)
from drift.pipeline.results import MISSING, ArtifactError, Results, content_hash, load_array
from drift.stages.lists import remove_others
from tests.chain import (
    EXACT,
    FILES,
    GRAPH,
    OTHER_RUN,
    RUN,
    at,
    begin,
    commit,
    edit,
    embedding_stage,
    exact_stage,
    graph_stage,
    image_stage,
    run_stage,
    snapshot,
)
from tests.conftest import NO_FILE, ROOT


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path / "results")


each_file = pytest.mark.parametrize(("name", "script"), FILES.items())


def refused(results, *names):
    """The message with which a file is refused, on one line."""
    with pytest.raises(ArtifactError) as caught:
        results.require(*names)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def part_stage(results, run, inputs=None):
    stage = begin(results, f"05_metrics/{run}", inputs=inputs)
    stage.append(f"05_per_query/{run}.parquet", {"k": np.arange(3)})
    stage.commit()


def names_only(message, script):
    return script in message and not any(
        other in message for other in set(FILES.values()) - {script}
    )


# Manifests


def test_manifest_says_what_was_made_from_what(results):
    made = image_stage(results)
    pixels = results.path("01_images.npy").read_bytes()
    manifest = commit(
        results,
        "02_embeddings",
        {"02_embeddings.npy": np.ones((5, 3), np.float32)},
        inputs=["01_images.npy"],
        parameters={"model": "resnet50", "crop": 224, "weights": None},
        device="cpu",
        mean_norm=1.0,
    )
    written = results.path("02_embeddings.npy").read_bytes()

    assert manifest == json.loads(results.path("02_embeddings.json").read_text())
    assert manifest == results.manifest("02_embeddings")
    assert manifest["stage"] == "02_embeddings"
    assert manifest["parameters"] == {"model": "resnet50", "crop": 224, "weights": None}
    assert manifest["inputs"] == made["outputs"]
    for entries, name, content, shape, dtype in (
        ("inputs", "01_images.npy", pixels, [4, 2, 2, 3], "uint8"),
        ("outputs", "02_embeddings.npy", written, [5, 3], "float32"),
    ):
        sha256 = hashlib.sha256(content).hexdigest()
        entry = {"shape": shape, "dtype": dtype, "bytes": len(content), "sha256": sha256}
        assert manifest[entries] == {name: entry}
    assert manifest["device"] == "cpu"
    machine = {"processor": environment.processor(), "threads": environment.n_threads()}
    assert manifest["machine"] == machine
    assert 0 <= manifest["seconds"] < 60
    age = datetime.now(UTC) - datetime.fromisoformat(manifest["date"])
    assert timedelta(0) <= age < timedelta(minutes=1)
    assert manifest["versions"]["python"] == platform.python_version()
    for package in ("pandas", "faiss-cpu", "hnswlib", "numpy", "pyarrow"):
        assert manifest["versions"][package] == importlib.metadata.version(package)


@pytest.mark.parametrize(
    ("name", "stage", "manifest"),
    [
        ("03_queries.npy", "03_exact", "03_exact.json"),
        (f"{RUN}/k0002_indices.npy", RUN, f"{RUN}/run.json"),
        (f"{GRAPH}.faiss", GRAPH, f"{GRAPH}.json"),
        ("05_per_query.parquet", "05_metrics", "05_metrics.json"),
        ("05_per_query/eflid0.01.parquet", "05_metrics/eflid0.01", "05_per_query/eflid0.01.json"),
        ("05_per_query/graphs.parquet", "05_metrics/graphs", "05_per_query/graphs.json"),
    ],
)
def test_a_file_leads_to_its_stage_its_manifest_and_its_script(name, stage, manifest):
    assert producer(name) == producer(manifest) == stage
    assert manifest_name(stage) == manifest
    assert producing_script(stage)[:3] == name[:3]


def test_results_folder_is_made_when_a_stage_writes_to_it_and_is_no_file(tmp_path):
    deep = Results(tmp_path / "some" / "where")
    assert not deep.root.exists()
    image_stage(deep)
    assert sorted(path.name for path in deep.root.iterdir()) == ["01_images.json", "01_images.npy"]

    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for path in (deep.path("01_images.npy"), tmp_path / "link"):
        with pytest.raises(ArtifactError, match=rf"{path.name} is not a folder: .*--results"):
            Results(path)
    with pytest.raises(OSError, match=r"01_images.npy"):
        image_stage(Results(deep.path("01_images.npy") / "results"))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_manifest_is_strict_json(number, chain):
    before = snapshot(chain.root)
    stage = begin(chain, "03_exact", {"other": True})
    stage.save("03_queries.npy", np.arange(3))
    with pytest.raises(ValueError, match="JSON"):
        stage.commit(mean=number)
    assert snapshot(chain.root) == before

    path = chain.path("03_exact.json")
    manifest = json.loads(path.read_text()) | {"mean": number}
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    manifest["sha256"] = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    path.write_text(json.dumps(manifest))
    assert names_only(refused(chain, "03_queries.npy"), "03_exact_knn.py")


# Damage


@each_file
def test_missing_file_or_manifest_names_the_script_that_makes_it(name, script, chain):
    manifest = manifest_name(producer(name))
    content = chain.path(name).read_bytes()
    chain.path(name).unlink()
    message = refused(chain, name)
    assert names_only(message, script)
    assert f"{chain.path(name)} is missing" in message

    chain.path(name).write_bytes(content)
    chain.path(manifest).unlink()
    message = refused(chain, name)
    assert names_only(message, script)
    assert manifest in message


def test_file_that_its_manifest_does_not_know_is_refused(chain):
    np.save(chain.path("03_exact_distances.npy"), np.ones((4, 2), np.float32))

    assert names_only(refused(chain, "03_exact_distances.npy"), "03_exact_knn.py")


def test_manifest_with_any_change_to_it_is_refused(chain):
    path = chain.path("02_embeddings.json")
    content = path.read_bytes()
    for i in range(0, len(content), 9):
        byte = content[i]
        path.write_bytes(content[:i] + bytes([byte ^ 1 << i % 8]) + content[i + 1 :])
        assert chain.manifest("02_embeddings") is None, i
    path.write_bytes(content)
    assert chain.manifest("02_embeddings") == json.loads(content)


ENTRY = {"shape": None, "dtype": None, "bytes": 0, "sha256": 64 * "0"}
EXACT_OF = "03_exact_indices.npy"
NAMES = ("../victim", "victim", "/victim", "03_mine.npy", "03_exact.json", "x/../03_queries.npy")
INPUTS = ("../victim", "03_queries.npy", "05_curves.parquet", "02_embeddings.json")
OTHER_KEYS = ("seconds", "date", "versions", "warnings")
# By a stage and the keys above them, keys of its manifest and what it cannot say there.
WRONG = {
    ("03_exact",): {
        "stage": ["../sub", "03", "/", "", None, {}, ["03_exact"], ...],
        **{key: [[3], ...] for key in ("parameters", "inputs", "outputs", *OTHER_KEYS)},
    },
    ("03_exact", "outputs"): {key: [ENTRY] for key in (*NAMES, "02_embeddings.npy", ".lock")},
    ("03_exact", "inputs"): {key: [ENTRY] for key in INPUTS},
    ("03_exact", "outputs", EXACT_OF): {key: ["x", ...] for key in ENTRY} | {"dtype": [..., 3]},
    ("03_exact", "parameters"): {"k_max": ["2", -1, 2.0, True, None, 10**30], "protocol": ["x"]},
    ("01_images",): {"skipped": [{"a.png": 3}, ...]},
    ("02_embeddings",): {"mean_norm": ["one", ...]},
    (RUN,): {
        "stage": [f"04_hnsw/{name}" for name in ("..", ".git", "a/b", "", "graphs/", "ä")],
        **{key: [{"2": "fast"}, {"x": 1}] for key in ("search_seconds", "effective_ef")},
        "ef_search_by_k": [{"2": 50}],
    },
    (RUN, "parameters"): {
        "k_grid": [[], [0], ["2"], [2, 2], [3, 2], [2, 3], 2, ...],
        **{key: [3, ...] for key in ("run", "protocol")},
    },
    (RUN, "parameters", "run"): {
        **{key: [{"a": 1}, ...] for key in ("library", "seed")},
        **{key: [3, ...] for key in ("build", "search")},
    },
    ("05_metrics", "outputs"): {"05_by_use.parquet": [...]},
    ("05_metrics", "parameters"): {"runs": [["x"], {"x": {}}, ...]},
    ("05_metrics",): {"groups": ["none", ...], "n_queries": [0, ...]},
}
MALFORMED = [
    (stage, at(*above, key, value))
    for (stage, *above), keys in WRONG.items()
    for key, values in keys.items()
    for value in values
]


@pytest.mark.parametrize(("stage", "change"), MALFORMED)
def test_manifest_that_no_stage_can_have_written_is_a_damaged_one(stage, change, chain, tmp_path):
    victims = [tmp_path / "victim", chain.path("victim"), chain.path("03_mine.npy")]
    for victim in victims:
        victim.write_text("precious")
    path = chain.path(manifest_name(stage))
    edit(path, change)

    assert chain.manifest(stage) is None
    name = next(name for name in FILES if producer(name) == stage)
    assert names_only(refused(chain, name), FILES[name])
    assert not chain.up_to_date(stage, {}, {})
    assert RUN.removeprefix("04_hnsw/") in {**chain.runs()[0], **chain.runs()[1]}
    if stage == "03_exact":  # once it has run again
        exact_stage(chain, seed=1)
        assert chain.require(name)
        assert [victim.read_text() for victim in victims] == ["precious"] * 3
        assert chain.require("02_embeddings.npy")


@pytest.mark.parametrize("make", NO_FILE.values(), ids=list(NO_FILE))
def test_what_is_no_regular_file_is_not_read(make, chain):
    for name in ("02_embeddings.json", f"{RUN}/k0002_indices.npy"):
        chain.path(name).unlink()
        make(chain.path(name))
    assert chain.manifest("02_embeddings") is None
    assert names_only(refused(chain, "02_embeddings.npy"), "02_embed_resnet50.py")
    for read in (content_hash, load_array):
        with pytest.raises(InputError, match=r"k0002_indices.npy is a .*: a file is needed"):
            read(chain.path(f"{RUN}/k0002_indices.npy"))


def test_what_a_manifest_says_of_a_file_has_to_be_so(chain):
    for key, value in (("shape", [2, 4]), ("dtype", "float32"), ("bytes", 7)):
        edit(chain.path("03_exact.json"), at("outputs", EXACT_OF, key, value))
        assert "is damaged" in refused(chain, EXACT_OF)
        exact_stage(chain)


def replace_by_a_folder(path):
    path.unlink()
    path.mkdir()


DAMAGES = {
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-5]),
    "a bit": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x01"),
    "as many bytes": lambda path: path.write_bytes(b"x" * path.stat().st_size),
    "nothing": lambda path: path.write_bytes(b""),
    "a pickle": lambda path: path.write_bytes(pickle.dumps({"not": "an array"})),
    "a folder": replace_by_a_folder,
}


@each_file
def test_damaged_file_names_the_script_that_makes_it(name, script, chain):
    content = chain.path(name).read_bytes()
    manifest = chain.manifest(producer(name))
    state = (producer(name), manifest["parameters"], manifest["inputs"])
    for damage in DAMAGES.values():
        damage(chain.path(name))
        message = refused(chain, name)
        assert names_only(message, script)
        assert f"{chain.path(name)} is damaged" in message
        assert not chain.up_to_date(*state)
        if chain.path(name).is_file():
            chain.path(name).write_bytes(content)
            assert chain.require(name)
            assert chain.up_to_date(*state)


def test_a_file_is_read_again_only_when_it_has_changed(tmp_path, monkeypatch):
    path, read, digest = tmp_path / "a.npy", [], hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *a: read.append(a) or digest(*a))
    path.write_bytes(b"one")
    # Written this moment: another change may bear the same time.
    assert content_hash(path) == content_hash(path)
    assert len(read) == 2
    os.utime(path, (0, 0))
    assert content_hash(path) == content_hash(path) == hashlib.sha256(b"one").hexdigest()
    assert len(read) == 3
    path.write_bytes(b"two")
    assert content_hash(path) == hashlib.sha256(b"two").hexdigest()


# Staleness


def test_each_stage_remade_leads_to_the_next(chain):
    stages, names = (image_stage, embedding_stage, exact_stage, run_stage), list(FILES)
    for i, stage in enumerate(stages, start=1):
        stage(chain, seed=1)
        assert chain.require(*names[:i])
        if stage is exact_stage:  # a run does not depend on the exact lists
            assert names_only(refused(chain, RUN + "/k0002_indices.npy"), "04_hnsw_search.py")
        for name in names[i:]:  # the first stage that must run again, not the one that wrote it
            message = refused(chain, name)
            assert names_only(message, list(FILES.values())[i])
            assert i > 1 or "older than 01_images.npy" in message


def test_remade_with_the_same_content_makes_nothing_stale(chain):
    before = chain.require(*FILES)
    image_stage(chain, seed=1)
    refused(chain, "05_curves.parquet")
    for stage in (image_stage, embedding_stage, exact_stage):
        stage(chain)

    assert chain.require(*FILES) == before


def test_input_that_is_gone_does_not_make_a_stage_stale_and_another_one_does(chain):
    # The images may be moved away once they are embedded.
    chain.path("01_images.npy").unlink()
    chain.path("01_images.json").unlink()
    assert chain.require("02_embeddings.npy", "05_curves.parquet")

    image_stage(chain, seed=1)
    assert names_only(refused(chain, "02_embeddings.npy"), "02_embed_resnet50.py")


def test_a_part_of_stage_05_is_stale_when_its_run_is(chain):
    run = "faiss_M32_efc200_eflid0.01"
    run_stage(chain, f"04_hnsw/{run}")
    inputs = chain.require(f"04_hnsw/{run}/k0002_indices.npy", "03_exact_indices.npy")
    part_stage(chain, run, inputs)
    name = f"05_per_query/{run}.parquet"
    assert chain.require(name)
    assert chain.up_to_date(f"05_metrics/{run}", EXACT, inputs)

    run_stage(chain, f"04_hnsw/{run}", seed=1)
    assert names_only(refused(chain, name), "05_metrics.py")
    chain.remove("05_metrics/faiss_M32_efc200_eflid0")  # a beginning of its name
    assert chain.path(name).exists()
    chain.remove(f"05_metrics/{run}")
    assert not chain.path("05_per_query").exists()


# Runs


def test_runs_stay_current_until_what_they_are_made_from_changes(chain):
    graph_stage(chain)  # lies beside the runs, and is none
    run_stage(chain, OTHER_RUN, seed=1)
    name, other = RUN.removeprefix("04_hnsw/"), OTHER_RUN.removeprefix("04_hnsw/")
    both = {name: chain.manifest(RUN), other: chain.manifest(OTHER_RUN)}
    assert chain.runs() == (both, {})
    exact_stage(chain, seed=1, k_max=3)  # longer lists of the same queries
    assert chain.runs() == (both, {})

    reason = "searched from k = 2 on, and the exact lists end at 1: "
    reason += "run 03_exact_knn.py --k-max 2 or more"
    exact_stage(chain, k_max=1)
    assert chain.runs() == ({}, {name: reason, other: reason})
    reason = "searched by another protocol than that of the exact lists"
    exact_stage(chain, protocol="paper")
    assert chain.runs() == ({}, {name: reason, other: reason})

    embedding_stage(chain, seed=1)
    exact_stage(chain)
    run_stage(chain, OTHER_RUN)
    reason = "made from other embeddings or exact lists: run 04_hnsw_search.py again"
    assert chain.runs() == ({other: chain.manifest(OTHER_RUN)}, {name: reason})


def test_runs_without_whole_manifest_are_left_out_with_the_reason(chain):
    chain.path("04_hnsw/copied_by_hand").mkdir()
    chain.path("04_hnsw/torn").mkdir()
    chain.path("04_hnsw/torn/run.json").write_text('{"stage": "04_h')
    shutil.copytree(chain.path(RUN), chain.path("04_hnsw/renamed"))
    chain.path("04_hnsw/notes.txt").write_text("a file is no run")
    begin(chain, OTHER_RUN).create(f"{OTHER_RUN}/k0002_indices.npy", (4, 2), np.int32)

    current, left_out = chain.runs()
    assert list(current) == ["faiss_M32_efc200_ef50"]
    why = f"its run.json is {MISSING}: run 04_hnsw_search.py again"
    assert left_out == dict.fromkeys(["copied_by_hand", "renamed", "torn"], why)


def test_run_folders_are_in_the_order_of_the_numbers_in_them(results):
    assert results.run_folders() == results.graphs() == []
    names = ["faiss_M32_efc200_ef50", "faiss_M32_efc200_ef200", "faiss_M32_efc1000_ef50", "x"]
    for name in reversed(names):
        results.path(f"04_hnsw/{name}").mkdir(parents=True)
    results.path("04_hnsw/notes.txt").write_text("a file is no run")

    assert [folder.name for folder in results.run_folders()] == names


# What is removed

FOREIGN = {
    "users_own/k0002_indices.npy": "a list of their own beside",
    "users_own/mine.txt": "precious",
    "torn/run.json": "{",
    ".git/k0002_indices.npy": "hidden",
    "noted/mine.txt": "precious",
    "graphs/mine.txt": "precious",
    "graphs/faiss_M32_efc2000.txt": "notes on a graph",
    "graphs/own.faiss": "precious",
}


def test_others_are_removed_by_the_names_that_stage_04_gave_them(chain, tmp_path, capsys):
    graph_stage(chain)
    kept = snapshot(chain.root)
    for graph in (f"{GRAPH}0", f"{GRAPH}_seed1"):  # those that begin alike
        graph_stage(chain, graph)
    for run in ("whole", "noted", "left", "linked"):
        run_stage(chain, f"04_hnsw/{run}")
    chain.path("04_hnsw/left/run.json").unlink()  # its removal was interrupted
    shutil.move(chain.path("04_hnsw/linked"), tmp_path / "elsewhere")
    chain.path("04_hnsw/linked").symlink_to(tmp_path / "elsewhere")
    elsewhere = snapshot(tmp_path / "elsewhere")
    for name, content in FOREIGN.items():
        path = chain.path(f"04_hnsw/{name}")
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    remove_others(chain, [parse_run("faiss:50")])

    graphs = "faiss_M32_efc2000, faiss_M32_efc200_seed1"
    said = f"removing from {chain.path('04_hnsw')}: left, linked, noted, whole, {graphs}\n"
    assert capsys.readouterr().out == said
    kept |= {f"04_hnsw/{name}": content.encode() for name, content in FOREIGN.items()}
    assert snapshot(chain.root) == kept
    assert snapshot(tmp_path / "elsewhere") == elsewhere != {}
    remove_others(chain, [parse_run("faiss:50")])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("linked", "stage"),
    [
        ("04_hnsw", RUN),
        ("04_hnsw", GRAPH),
        ("04_hnsw/graphs", GRAPH),
        ("05_per_query", "05_metrics/x"),
    ],
)
def test_nothing_is_removed_through_a_link(linked, stage, chain, tmp_path):
    graph_stage(chain)
    part_stage(chain, "x")
    shutil.move(chain.path(linked), tmp_path / "elsewhere")
    chain.path(linked).symlink_to(tmp_path / "elsewhere")
    before = snapshot(tmp_path / "elsewhere")
    assert chain.own_files(stage)
    chain.remove(stage)
    assert snapshot(tmp_path / "elsewhere") == before


def test_clean_removes_what_manifests_list_and_nothing_else(chain, tmp_path):
    graph_stage(chain)
    part_stage(chain, "x")
    interrupted = begin(chain, "03_exact", {"other": True}, force=True)
    interrupted.create("03_queries.npy", (3,), np.int32)
    (tmp_path / "victim").write_text("precious")
    kept = {
        **{".git/config": "", "README.md": "", "drift/exact.py": "", "02_embed_resnet50.py": ""},
        **{f"04_hnsw/{name}": content for name, content in FOREIGN.items()},
        **{"03_mine.npy": "", ".partial/mine/x": "", "05_per_query/mine.parquet": ""},
    }
    for name, content in kept.items():
        chain.path(name).parent.mkdir(parents=True, exist_ok=True)
        chain.path(name).write_text(content)
    run_stage(chain, OTHER_RUN)
    edit(chain.path(f"{OTHER_RUN}/run.json"), at("outputs", "../victim", ENTRY))
    believed = {f"{OTHER_RUN}/{path.name}" for path in chain.path(OTHER_RUN).iterdir()}
    # From a folder that has no results of its own, which the checkout may have.
    (tmp_path / "drift").symlink_to(ROOT / "drift")
    command = ["make", "-f", ROOT / "Makefile", "clean", "VENV=none", f"PYTHON={sys.executable}"]
    command.append(f"RESULTS={chain.root}")
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    left = {str(path.relative_to(chain.root)) for path in chain.root.rglob("*") if path.is_file()}
    assert left == kept.keys() | believed
    assert (tmp_path / "victim").read_text() == "precious"
    assert not chain.path("04_hnsw/faiss_M32_efc200_ef50").exists()
