"""What the results folder trusts: manifests, damage, staleness, runs, parts and graphs."""

import errno
import hashlib
import importlib.metadata
import json
import os
import pickle
import platform
import shutil
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from drift.pipeline import environment
from drift.pipeline.results import (
    ArtifactError,
    Results,
    content_hash,
    manifest_hash,
    manifest_name,
    producer,
    producing_script,
    write_json,
)
from tests.chain import (
    FILES,
    GRAPH,
    OTHER_RUN,
    RUN,
    begin,
    commit,
    embedding_stage,
    exact_stage,
    graph_stage,
    image_stage,
    run_stage,
    snapshot,
)


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
    for package in ("torch", "faiss-cpu", "hnswlib", "numpy", "pyarrow"):
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


@pytest.mark.parametrize(
    "text",
    ["", "{", "\x00" * 100, "\udcff\udcfe", "[]", "null", "3", '"02_embeddings"', "{}"],
    ids=["empty", "torn", "zeros", "no-utf8", "list", "null", "number", "string", "object"],
)
def test_manifest_that_is_none_is_refused(text, chain):
    for name in ("02_embeddings.npy", f"{RUN}/k0002_indices.npy"):
        stage = producer(name)
        path = chain.path(manifest_name(stage))
        path.write_bytes(text.encode("utf-8", "surrogateescape"))

        assert chain.manifest(stage) is None
        assert names_only(refused(chain, name), FILES[name])
        assert not chain.up_to_date(stage, {}, {})


def test_manifest_with_any_change_to_it_is_refused(chain):
    path = chain.path("02_embeddings.json")
    content = path.read_bytes()
    for i in range(0, len(content), 9):
        byte = content[i]
        path.write_bytes(content[:i] + bytes([byte ^ 1 << i % 8]) + content[i + 1 :])
        assert chain.manifest("02_embeddings") is None, i
    manifest = json.loads(content)
    for field in ("stage", "parameters", "inputs", "outputs"):
        for value in (None, [], "text", 3, {}):
            path.write_text(json.dumps(manifest | {field: value}))
            assert chain.manifest("02_embeddings") is None or manifest[field] == value
    path.write_bytes(content)
    assert chain.manifest("02_embeddings") == manifest


def test_manifest_of_another_stage_is_refused(chain):
    shutil.copy(chain.path("01_images.json"), chain.path("02_embeddings.json"))

    assert names_only(refused(chain, "02_embeddings.npy"), "02_embed_resnet50.py")


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


def test_a_copied_folder_is_as_good_as_the_original(chain, tmp_path):
    copy = Results(tmp_path / "copy")
    shutil.copytree(chain.root, copy.root, copy_function=shutil.copyfile)
    for path in copy.root.rglob("*"):
        os.utime(path, (0, 0))

    assert copy.require(*FILES) == chain.require(*FILES)


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


@pytest.mark.parametrize("name", list(FILES)[2:])
def test_other_images_make_everything_after_the_embeddings_stale(name, chain):
    assert set(chain.require(*FILES)) == set(FILES)
    image_stage(chain, seed=1)
    message = refused(chain, name)

    # The first stage that must run again, not the one that wrote the file.
    assert names_only(message, "02_embed_resnet50.py")
    assert "older than 01_images.npy" in message


def test_each_stage_remade_leads_to_the_next(chain):
    stages, names = (image_stage, embedding_stage, exact_stage, run_stage), list(FILES)
    for i, stage in enumerate(stages, start=1):
        stage(chain, seed=1)
        assert chain.require(*names[:i])
        if stage is exact_stage:  # a run does not depend on the exact lists
            assert names_only(refused(chain, RUN + "/k0002_indices.npy"), "04_hnsw_search.py")
        for name in names[i:]:
            assert names_only(refused(chain, name), list(FILES.values())[i])


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

    commit(chain, "01_images", {"01_other.npy": np.zeros(3, np.uint8)})
    assert names_only(refused(chain, "02_embeddings.npy"), "02_embed_resnet50.py")


def test_a_part_of_stage_05_is_stale_when_its_run_is(chain):
    run = "faiss_M32_efc200_eflid0.01"
    run_stage(chain, f"04_hnsw/{run}")
    inputs = chain.require(f"04_hnsw/{run}/k0002_indices.npy", "03_exact_indices.npy")
    stage = begin(chain, f"05_metrics/{run}", inputs=inputs)
    stage.append(f"05_per_query/{run}.parquet", {"k": np.arange(3)})
    stage.commit()
    name = f"05_per_query/{run}.parquet"
    assert chain.require(name)
    assert chain.up_to_date(f"05_metrics/{run}", {}, inputs)

    run_stage(chain, f"04_hnsw/{run}", seed=1)
    assert names_only(refused(chain, name), "05_metrics.py")
    chain.remove_part("faiss_M32_efc200_eflid0")  # a beginning of its name
    assert chain.path(name).exists()
    chain.remove_part(run)
    assert not chain.path("05_per_query").exists()


# Up to date


def test_a_stage_is_up_to_date_with_the_same_parameters_and_inputs(chain):
    parameters = {"k_max": 2, "grid": [1, 2], "queries": "all", "refine": True}
    inputs = chain.require("02_embeddings.npy")
    stage = begin(chain, "03_exact", parameters, inputs)
    stage.save("03_queries.npy", np.arange(4, dtype=np.int32))
    stage.commit()

    assert chain.up_to_date("03_exact", parameters, inputs)
    for key, value in (("k_max", 3), ("grid", [1]), ("queries", 2), ("refine", None), ("new", 1)):
        assert not chain.up_to_date("03_exact", parameters | {key: value}, inputs)
    assert not chain.up_to_date("03_exact", {}, inputs)
    assert not chain.up_to_date("03_exact", parameters, chain.require("01_images.npy"))
    chain.path("03_exact.json").unlink()
    assert not chain.up_to_date("03_exact", parameters, inputs)


# Runs


def test_runs_of_a_folder_that_has_none(results):
    assert results.runs() == ({}, {})
    assert results.run_folders() == results.graphs() == []


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
    manifest = run_stage(chain, "04_hnsw/earlier")
    del manifest["parameters"]["run"]
    write_json(
        chain.path("04_hnsw/earlier/run.json"), manifest | {"sha256": manifest_hash(manifest)}
    )
    begin(chain, OTHER_RUN).create(f"{OTHER_RUN}/k0002_indices.npy", (4, 2), np.int32)

    current, left_out = chain.runs()
    assert list(current) == ["faiss_M32_efc200_ef50"]
    why = "its run.json is missing or damaged: run 04_hnsw_search.py again"
    earlier = {"earlier": "made by an earlier version: run 04_hnsw_search.py again"}
    assert left_out == dict.fromkeys(["copied_by_hand", "renamed", "torn"], why) | earlier


def test_a_run_is_removed_and_of_a_link_to_one_the_link_alone(chain, tmp_path):
    run_stage(chain, OTHER_RUN)
    elsewhere = tmp_path / "elsewhere"
    shutil.move(chain.path(RUN), elsewhere)
    chain.path(RUN).symlink_to(elsewhere)
    before = snapshot(elsewhere)
    for run in (RUN, OTHER_RUN):
        chain.remove_run(run.removeprefix("04_hnsw/"))

    assert not list(chain.path("04_hnsw").iterdir())
    assert snapshot(elsewhere) == before != {}


def test_run_folders_are_in_the_order_of_the_numbers_in_them(results):
    names = ["faiss_M32_efc200_ef50", "faiss_M32_efc200_ef200", "faiss_M32_efc1000_ef50", "x"]
    for name in reversed(names):
        results.path(f"04_hnsw/{name}").mkdir(parents=True)
    results.path("04_hnsw/notes.txt").write_text("a file is no run")

    assert [folder.name for folder in results.run_folders()] == names


# Graphs


def test_a_graph_is_removed_and_its_like_are_not(chain):
    before = snapshot(chain.root)
    for graph in (GRAPH, f"{GRAPH}0", f"{GRAPH}_seed1"):
        graph_stage(chain, graph)
    chain.remove_graph("faiss_M32_efc200")
    assert chain.graphs() == ["faiss_M32_efc2000", "faiss_M32_efc200_seed1"]
    assert not list(chain.root.rglob("faiss_M32_efc200.*"))

    for graph in chain.graphs():
        assert chain.require(f"04_hnsw/graphs/{graph}.faiss")
        chain.remove_graph(graph)
    assert snapshot(chain.root) == before
    assert not chain.path("04_hnsw/graphs").exists()


def test_graphs_and_parts_in_a_folder_that_is_a_link_are_not_ours_to_remove(chain, tmp_path):
    graph_stage(chain)
    shutil.move(chain.path("04_hnsw/graphs"), tmp_path / "elsewhere")
    for link in ("04_hnsw/graphs", "05_per_query"):
        chain.path(link).symlink_to(tmp_path / "elsewhere")
    before = snapshot(tmp_path / "elsewhere")

    assert chain.graphs() == []
    assert chain.manifest(GRAPH)["stage"] == GRAPH
    chain.remove_part("faiss_M32_efc200")
    assert snapshot(tmp_path / "elsewhere") == before


# JSON


def test_json_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def no_space(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_json(tmp_path / "a.json", {"b": [1, None, "ü"]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"b": [1, None, "ü"]}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        write_json(tmp_path / "a.json", {"b": 1})
    assert json.loads((tmp_path / "a.json").read_text()) == {"b": [1, None, "ü"]}
