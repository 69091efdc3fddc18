"""What the results folder trusts: manifests, damage, staleness, runs and graphs."""

import errno
import hashlib
import importlib.metadata
import json
import os
import pickle
import platform
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from drift.pipeline import environment
from drift.pipeline.results import (
    ArtifactError,
    Results,
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
    assert manifest["inputs"] == {
        "01_images.npy": {
            "shape": [4, 2, 2, 3],
            "dtype": "uint8",
            "bytes": len(pixels),
            "sha256": hashlib.sha256(pixels).hexdigest(),
        }
    }
    assert manifest["inputs"] == made["outputs"]
    assert manifest["outputs"] == {
        "02_embeddings.npy": {
            "shape": [5, 3],
            "dtype": "float32",
            "bytes": len(written),
            "sha256": hashlib.sha256(written).hexdigest(),
        }
    }
    assert manifest["device"] == "cpu"
    machine = {"processor": environment.processor(), "threads": environment.n_threads()}
    assert manifest["machine"] == machine
    assert 0 <= manifest["seconds"] < 60
    age = datetime.now(UTC) - datetime.fromisoformat(manifest["date"])
    assert timedelta(0) <= age < timedelta(minutes=1)
    assert manifest["versions"]["python"] == platform.python_version()
    for package in ("torch", "faiss-cpu", "hnswlib", "numpy", "pyarrow"):
        assert manifest["versions"][package] == importlib.metadata.version(package)


def test_manifest_describes_tables_and_pages(results):
    stage = begin(results, "06_figures")
    stage.output("06_report.html").write_text("<html>")
    stage.commit()
    stage = begin(results, "05_metrics")
    table = pd.DataFrame({"run": ["a", "b", "c"], "k": np.int32([1, 2, 3]), "mean": [0.5] * 3})
    table.to_parquet(stage.output("05_curves.parquet"), index=False)
    stage.commit()

    entry = results.require("05_curves.parquet")["05_curves.parquet"]
    assert entry["shape"] == [3, 3]
    assert list(entry["dtype"]) == ["run", "k", "mean"]
    assert entry["dtype"]["k"] == "int32"
    assert entry["dtype"]["mean"] == "double"
    page = results.require("06_report.html")["06_report.html"]
    assert (page["shape"], page["dtype"], page["bytes"]) == (None, None, 6)


def test_manifest_leaves_out_a_package_that_is_not_there(monkeypatch):
    monkeypatch.setattr(environment, "PACKAGES", ("numpy", "no-such-package-here"))

    assert set(environment.package_versions()) == {"python", "numpy"}


def test_manifest_of_a_run_lies_in_its_folder(chain):
    assert chain.path(f"{RUN}/run.json").exists()
    assert chain.manifest(RUN)["stage"] == RUN


def test_require_returns_the_entries_of_what_it_was_asked_for(chain):
    entries = chain.require("01_images.npy", "03_queries.npy")

    assert list(entries) == ["01_images.npy", "03_queries.npy"]
    assert entries["03_queries.npy"] == chain.manifest("03_exact")["outputs"]["03_queries.npy"]


def test_load_maps_an_array_that_cannot_be_written_through(chain):
    before = chain.path("02_embeddings.npy").read_bytes()
    array = chain.load("02_embeddings.npy")
    array[:] = 7

    assert isinstance(array, np.memmap)
    del array
    assert chain.path("02_embeddings.npy").read_bytes() == before


def test_results_folder_that_is_a_file(tmp_path):
    path = tmp_path / "results"
    path.write_text("not a folder")

    with pytest.raises(ArtifactError, match=r"results is not a folder: .*--results"):
        Results(path)


def test_results_folder_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("not a folder")

    with pytest.raises(OSError, match=r"file"):
        image_stage(Results(tmp_path / "file" / "results"))


def test_results_folder_is_made_when_a_stage_writes_to_it(tmp_path):
    deep = Results(tmp_path / "some" / "where")
    assert not deep.root.exists()
    image_stage(deep)

    assert sorted(path.name for path in deep.root.iterdir()) == ["01_images.json", "01_images.npy"]


# Damage


@each_file
def test_missing_file_names_the_script_that_makes_it(name, script, chain):
    chain.path(name).unlink()
    message = refused(chain, name)

    assert names_only(message, script)
    assert str(chain.path(name)) in message
    assert "missing" in message


def test_a_results_folder_that_is_not_there_misses_the_first_file(tmp_path):
    assert names_only(refused(Results(tmp_path / "none"), "01_images.npy"), "01_download_stl10.py")


@each_file
def test_missing_manifest_names_the_script_that_makes_it(name, script, chain):
    stage = producer(name)
    chain.path(manifest_name(stage)).unlink()
    message = refused(chain, name)

    assert names_only(message, script)
    assert manifest_name(stage) in message


def test_file_that_its_manifest_does_not_know_is_refused(chain):
    np.save(chain.path("03_exact_distances.npy"), np.ones((4, 2), np.float32))

    assert names_only(refused(chain, "03_exact_distances.npy"), "03_exact_knn.py")


@pytest.mark.parametrize(
    "text",
    ["", "{", "\x00" * 100, "\udcff\udcfe", "[]", "null", "3", '"02_embeddings"', "{}"],
    ids=["empty", "torn", "zeros", "no-utf8", "list", "null", "number", "string", "object"],
)
@pytest.mark.parametrize(("stage", "name"), [("02_embeddings", "02_embeddings.npy"), (RUN, None)])
def test_manifest_that_is_none_is_refused(stage, name, text, chain):
    path = chain.path(manifest_name(stage))
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    name = name or f"{RUN}/k0002_indices.npy"

    assert chain.manifest(stage) is None
    assert names_only(refused(chain, name), FILES[name])
    assert not chain.up_to_date(stage, {}, {})


@pytest.mark.parametrize("field", ["stage", "parameters", "inputs", "outputs"])
@pytest.mark.parametrize("value", ["left out", None, [], "text", 3, [["sha256"]]])
def test_manifest_with_a_bad_field_is_refused(field, value, chain):
    path = chain.path("02_embeddings.json")
    manifest = json.loads(path.read_text())
    manifest[field] = value
    if value == "left out":
        del manifest[field]
    path.write_text(json.dumps(manifest))

    assert names_only(refused(chain, "02_embeddings.npy"), "02_embed_resnet50.py")
    assert not chain.up_to_date("02_embeddings", {}, chain.require("01_images.npy"))


@pytest.mark.parametrize(
    ("side", "field"), [("inputs", "sha256"), ("outputs", "sha256"), ("outputs", "bytes")]
)
def test_manifest_entry_that_lacks_its_hash_or_size_is_refused(side, field, chain):
    path = chain.path("02_embeddings.json")
    manifest = json.loads(path.read_text())
    for entry in manifest[side].values():
        del entry[field]
    path.write_text(json.dumps(manifest))

    assert names_only(refused(chain, "02_embeddings.npy"), "02_embed_resnet50.py")


def test_manifest_with_any_flipped_bit_is_refused(chain):
    path = chain.path("02_embeddings.json")
    content = path.read_bytes()
    for i, byte in enumerate(content):
        path.write_bytes(content[:i] + bytes([byte ^ 1 << i % 8]) + content[i + 1 :])
        assert chain.manifest("02_embeddings") is None, i


def test_manifest_that_may_not_be_read_is_not_called_damaged(chain, monkeypatch):
    def forbidden(self):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "read_text", forbidden)
    with pytest.raises(PermissionError, match=r"02_embeddings\.json"):
        chain.require("02_embeddings.npy")


def test_manifest_of_another_stage_is_refused(chain):
    shutil.copy(chain.path("01_images.json"), chain.path("02_embeddings.json"))

    assert names_only(refused(chain, "02_embeddings.npy"), "02_embed_resnet50.py")


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-5])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def replace_by_as_many_bytes(path):
    path.write_bytes(b"x" * path.stat().st_size)


def replace_by_nothing(path):
    path.write_bytes(b"")


def replace_by_a_pickle(path):
    path.write_bytes(pickle.dumps({"not": "an array"}))


def replace_by_a_folder(path):
    path.unlink()
    path.mkdir()


DAMAGES = (
    cut_off,
    flip_a_bit,
    replace_by_as_many_bytes,
    replace_by_nothing,
    replace_by_a_pickle,
    replace_by_a_folder,
)


@pytest.mark.parametrize("damage", DAMAGES)
@each_file
def test_damaged_file_names_the_script_that_makes_it(name, script, damage, chain):
    damage(chain.path(name))
    message = refused(chain, name)

    assert names_only(message, script)
    assert str(chain.path(name)) in message
    assert "damaged" in message


def test_one_bad_file_among_several_is_found(chain):
    flip_a_bit(chain.path("03_queries.npy"))

    refused(chain, "03_exact_indices.npy", "03_queries.npy", "02_embeddings.npy")
    assert chain.require("03_exact_indices.npy", "02_embeddings.npy")


def test_a_copied_folder_is_as_good_as_the_original(chain, tmp_path):
    copy = Results(tmp_path / "copy")
    shutil.copytree(chain.root, copy.root, copy_function=shutil.copyfile)
    for path in copy.root.rglob("*"):
        os.utime(path, (0, 0))

    assert copy.require(*FILES) == chain.require(*FILES)


# Staleness


def test_a_finished_chain_is_current(chain):
    assert set(chain.require(*FILES)) == set(FILES)


@pytest.mark.parametrize("name", list(FILES)[2:])
def test_other_images_make_everything_after_the_embeddings_stale(name, chain):
    image_stage(chain, seed=1)
    message = refused(chain, name)

    # The first stage that must run again, not the one that wrote the file.
    assert names_only(message, "02_embed_resnet50.py")
    assert "older than 01_images.npy" in message


@pytest.mark.parametrize(
    ("remade", "then"),
    [
        ([image_stage], "02_embed_resnet50.py"),
        ([image_stage, embedding_stage], "03_exact_knn.py"),
        ([image_stage, embedding_stage, exact_stage], "04_hnsw_search.py"),
        ([image_stage, embedding_stage, exact_stage, run_stage], "05_metrics.py"),
    ],
)
def test_each_stage_remade_leads_to_the_next(remade, then, chain):
    for stage in remade:
        stage(chain, seed=1)
    names = list(FILES)

    for name in names[: len(remade)]:
        assert chain.require(name)
    for name in names[len(remade) :]:
        assert names_only(refused(chain, name), then)


def test_remade_with_the_same_content_makes_nothing_stale(chain):
    before = chain.require(*FILES)
    image_stage(chain)
    embedding_stage(chain)
    exact_stage(chain)

    assert chain.require(*FILES) == before


def test_content_that_comes_back_makes_everything_current_again(chain):
    image_stage(chain, seed=1)
    refused(chain, "05_curves.parquet")
    image_stage(chain)

    assert chain.require(*FILES)


def test_input_that_is_gone_does_not_make_a_stage_stale(chain):
    # The images may be moved away once they are embedded.
    chain.path("01_images.npy").unlink()
    chain.path("01_images.json").unlink()

    assert chain.require("02_embeddings.npy", "05_curves.parquet")


def test_input_that_its_stage_no_longer_makes_makes_a_stage_stale(chain):
    commit(chain, "01_images", {"01_other.npy": np.zeros(3, np.uint8)})

    assert names_only(refused(chain, "02_embeddings.npy"), "02_embed_resnet50.py")


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


def test_a_stage_is_not_up_to_date_with_other_inputs(chain):
    inputs = chain.require("01_images.npy")
    assert chain.up_to_date("02_embeddings", {}, inputs)

    image_stage(chain, seed=1)
    assert not chain.up_to_date("02_embeddings", {}, chain.require("01_images.npy"))
    assert not chain.up_to_date("02_embeddings", {}, {})


@pytest.mark.parametrize("damage", [*DAMAGES, Path.unlink])
@pytest.mark.parametrize("name", ["03_queries.npy", "03_exact_indices.npy"])
def test_a_stage_with_a_bad_output_is_not_up_to_date(name, damage, chain):
    inputs = chain.require("02_embeddings.npy")
    assert chain.up_to_date("03_exact", {}, inputs)
    damage(chain.path(name))

    assert not chain.up_to_date("03_exact", {}, inputs)


def test_a_stage_without_manifest_is_not_up_to_date(chain):
    chain.path("01_images.json").unlink()

    assert not chain.up_to_date("01_images", {}, {})


# Runs


def test_runs_of_a_folder_that_has_none(results):
    assert results.runs() == ({}, {})
    assert results.run_folders() == results.graphs() == []


def test_runs_are_those_made_from_the_present_exact_lists(chain):
    run_stage(chain, OTHER_RUN, seed=1)
    current, left_out = chain.runs()
    assert current == {
        "faiss_M32_efc200_ef50": chain.manifest(RUN),
        "hnswlib_M32_efc200_ef50": chain.manifest(OTHER_RUN),
    }
    assert left_out == {}

    exact_stage(chain, seed=1)
    run_stage(chain, OTHER_RUN, seed=1)
    current, left_out = chain.runs()
    assert list(current) == ["hnswlib_M32_efc200_ef50"]
    assert left_out == {"faiss_M32_efc200_ef50": "made from other embeddings or exact lists"}


def test_runs_are_left_out_when_the_images_have_changed(chain):
    image_stage(chain, seed=1)

    assert chain.runs()[0] == {}
    assert list(chain.runs()[1]) == ["faiss_M32_efc200_ef50"]


def test_runs_without_whole_manifest_are_left_out_with_the_reason(chain):
    chain.path("04_hnsw/copied_by_hand").mkdir()
    chain.path("04_hnsw/torn").mkdir()
    chain.path("04_hnsw/torn/run.json").write_text('{"stage": "04_h')
    shutil.copytree(chain.path(RUN), chain.path("04_hnsw/renamed"))
    chain.path("04_hnsw/notes.txt").write_text("a file is no run")

    current, left_out = chain.runs()
    assert list(current) == ["faiss_M32_efc200_ef50"]
    why = "its run.json is missing or damaged: run 04_hnsw_search.py again"
    assert left_out == dict.fromkeys(["copied_by_hand", "renamed", "torn"], why)


def test_a_run_is_removed_and_of_a_link_to_one_the_link_alone(chain, tmp_path):
    run_stage(chain, OTHER_RUN)
    elsewhere = tmp_path / "elsewhere"
    shutil.move(chain.path(RUN), elsewhere)
    chain.path(RUN).symlink_to(elsewhere)
    before = snapshot(elsewhere)
    for run in (RUN, OTHER_RUN):
        chain.remove_run(run.removeprefix("04_hnsw/"))

    assert not list(chain.path("04_hnsw").iterdir())
    assert snapshot(elsewhere) == before
    assert before


def test_a_run_that_is_not_committed_is_none(chain):
    begin(chain, OTHER_RUN).create(f"{OTHER_RUN}/k0002_indices.npy", (4, 2), np.int32)

    assert list(chain.runs()[0]) == ["faiss_M32_efc200_ef50"]
    assert chain.runs()[1] == {}


def test_run_folders_are_in_the_order_of_the_numbers_in_them(results):
    names = ["faiss_M32_efc200_ef50", "faiss_M32_efc200_ef200", "faiss_M32_efc1000_ef50", "x"]
    for name in reversed(names):
        results.path(f"04_hnsw/{name}").mkdir(parents=True)
    results.path("04_hnsw/notes.txt").write_text("a file is no run")

    assert [folder.name for folder in results.run_folders()] == names


# Graphs


def test_graphs_lie_beside_the_runs_and_are_none(chain):
    manifest = graph_stage(chain)

    assert producer(f"{GRAPH}.faiss") == GRAPH == manifest["stage"]
    assert manifest_name(GRAPH) == f"{GRAPH}.json"
    assert producing_script(GRAPH) == "04_hnsw_search.py"
    assert chain.manifest(GRAPH) == manifest
    assert chain.graphs() == ["faiss_M32_efc200"]
    assert [folder.name for folder in chain.run_folders()] == ["faiss_M32_efc200_ef50"]
    assert list(chain.runs()[0]) == ["faiss_M32_efc200_ef50"]
    assert chain.runs()[1] == {}


def test_graph_of_other_embeddings_or_a_damaged_one_is_not_up_to_date(chain):
    graph_stage(chain)
    inputs = chain.require("02_embeddings.npy")
    assert chain.up_to_date(GRAPH, {}, inputs)

    embedding_stage(chain, seed=1)
    assert not chain.up_to_date(GRAPH, {}, chain.require("02_embeddings.npy"))
    flip_a_bit(chain.path(f"{GRAPH}.faiss"))
    assert not chain.up_to_date(GRAPH, {}, inputs)


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


def test_graphs_in_a_folder_that_is_a_link_are_not_ours_to_remove(chain, tmp_path):
    graph_stage(chain)
    shutil.move(chain.path("04_hnsw/graphs"), tmp_path / "elsewhere")
    chain.path("04_hnsw/graphs").symlink_to(tmp_path / "elsewhere")

    assert chain.graphs() == []
    assert chain.manifest(GRAPH)["stage"] == GRAPH


def test_a_crash_while_a_graph_is_removed_leaves_none_that_is_trusted(chain, monkeypatch):
    graph_stage(chain)
    unlink = Path.unlink

    def crash_after_one(self, **how):
        unlink(self, **how)
        raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", crash_after_one)
        with pytest.raises(InterruptedError):
            chain.remove_graph("faiss_M32_efc200")

    assert chain.manifest(GRAPH) is None
    assert not chain.up_to_date(GRAPH, {}, chain.require("02_embeddings.npy"))
    chain.remove_graph(*chain.graphs())
    assert not chain.path("04_hnsw/graphs").exists()


# JSON


def test_full_disk_while_a_manifest_is_written_leaves_the_former_one(chain, monkeypatch):
    def no_space(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = chain.path("01_images.json")
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        write_json(path, {"stage": "01_images"})

    assert path.read_bytes() == before


def test_written_json_is_whole_and_leaves_no_temporary_file(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1, None, "ü"]})

    assert json.loads((tmp_path / "a.json").read_text()) == {"b": [1, None, "ü"]}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_results_folder_that_is_a_link_to_nothing(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    with pytest.raises(ArtifactError, match=r"link is not a folder"):
        Results(tmp_path / "link")
