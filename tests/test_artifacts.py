"""What the results folder believes: manifests, damage, staleness, and drafts that crash."""

import contextlib
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

from drift import artifacts
from drift.artifacts import ArtifactError, Results
from drift.draft import Draft, finish_publications, package_versions

RUN = "04_hnsw/faiss_M32_efc200_ef50"
OTHER_RUN = "04_hnsw/hnswlib_M32_efc200_ef50"


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path / "results")


def publish(results, stage, arrays, inputs=(), parameters=None, **facts):
    """A stage that writes these arrays, made from these files of the folder."""
    recorded = results.require(*inputs)
    draft = Draft(results, stage, parameters or {}, recorded)
    for name, values in arrays.items():
        array = draft.array(name, values.shape, values.dtype)
        array[:] = values
        array.flush()
    return draft.publish(**facts)


def image_stage(results, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 2, 2, 3), dtype=np.uint8)
    return publish(results, "01_images", {"01_images.npy": pixels})


def embedding_stage(results, seed=0):
    vectors = np.random.default_rng(seed).random((4, 3), dtype=np.float32)
    return publish(
        results, "02_embeddings", {"02_embeddings.npy": vectors}, inputs=["01_images.npy"]
    )


def exact_stage(results, seed=0):
    indices = np.random.default_rng(seed).integers(0, 4, (4, 2), dtype=np.int32)
    return publish(
        results,
        "03_exact",
        {"03_queries.npy": np.arange(4, dtype=np.int32), "03_exact_indices.npy": indices},
        inputs=["02_embeddings.npy"],
    )


def run_stage(results, run=RUN, seed=0):
    indices = np.random.default_rng(seed).integers(0, 4, (4, 2), dtype=np.int32)
    return publish(
        results,
        run,
        {f"{run}/k0002_indices.npy": indices},
        inputs=["02_embeddings.npy", "03_exact_indices.npy"],
    )


def metrics_stage(results):
    inputs = ["03_exact_indices.npy", f"{RUN}/k0002_indices.npy"]
    draft = Draft(results, "05_metrics", {}, results.require(*inputs))
    pd.DataFrame({"run": ["a"], "k": np.int32([2])}).to_parquet(draft.path("05_curves.parquet"))
    return draft.publish()


@pytest.fixture
def chain(results):
    """A results folder in which stages 01 to 05 have run."""
    image_stage(results)
    embedding_stage(results)
    exact_stage(results)
    run_stage(results)
    metrics_stage(results)
    return results


# The last file of each stage, with the script that writes it.
FILES = {
    "01_images.npy": "01_download_stl10.py",
    "02_embeddings.npy": "02_embed_resnet50.py",
    "03_exact_indices.npy": "03_exact_knn.py",
    f"{RUN}/k0002_indices.npy": "04_hnsw_search.py",
    "05_curves.parquet": "05_metrics.py",
}
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


def snapshot(folder):
    """Every file below a folder but the drafts, with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".draft" not in path.parts
    }


# Manifests


def test_manifest_says_what_was_made_from_what(results):
    made = image_stage(results)
    pixels = results.path("01_images.npy").read_bytes()
    manifest = publish(
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
    assert 0 <= manifest["seconds"] < 60
    age = datetime.now(UTC) - datetime.fromisoformat(manifest["date"])
    assert timedelta(0) <= age < timedelta(minutes=1)
    assert manifest["versions"]["python"] == platform.python_version()
    for package in ("torch", "faiss-cpu", "hnswlib", "numpy", "pyarrow"):
        assert manifest["versions"][package] == importlib.metadata.version(package)


def test_manifest_describes_tables_and_pages(results):
    draft = Draft(results, "06_figures", {}, {})
    draft.path("06_report.html").write_text("<html>")
    draft.publish()
    draft = Draft(results, "05_metrics", {}, {})
    table = pd.DataFrame({"run": ["a", "b", "c"], "k": np.int32([1, 2, 3]), "mean": [0.5] * 3})
    table.to_parquet(draft.path("05_curves.parquet"), index=False)
    draft.publish()

    entry = results.require("05_curves.parquet")["05_curves.parquet"]
    assert entry["shape"] == [3, 3]
    assert list(entry["dtype"]) == ["run", "k", "mean"]
    assert entry["dtype"]["k"] == "int32"
    assert entry["dtype"]["mean"] == "double"
    page = results.require("06_report.html")["06_report.html"]
    assert (page["shape"], page["dtype"], page["bytes"]) == (None, None, 6)


def test_manifest_leaves_out_a_package_that_is_not_there(monkeypatch):
    monkeypatch.setattr("drift.draft.PACKAGES", ("numpy", "no-such-package-here"))

    assert set(package_versions()) == {"python", "numpy"}


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
        Draft(Results(tmp_path / "file" / "results"), "01_images", {}, {})


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
    stage = artifacts.owner(name)
    chain.path(artifacts.manifest_name(stage)).unlink()
    message = refused(chain, name)

    assert names_only(message, script)
    assert artifacts.manifest_name(stage) in message


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
    path = chain.path(artifacts.manifest_name(stage))
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
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :])
        assert chain.manifest("02_embeddings") is None, at


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
    publish(chain, "01_images", {"01_other.npy": np.zeros(3, np.uint8)})

    assert names_only(refused(chain, "02_embeddings.npy"), "02_embed_resnet50.py")


# Up to date


def test_a_stage_is_up_to_date_with_the_same_parameters_and_inputs(chain):
    parameters = {"k_max": 2, "grid": [1, 2], "queries": "all", "refine": True}
    inputs = chain.require("02_embeddings.npy")
    draft = Draft(chain, "03_exact", parameters, inputs)
    draft.save("03_queries.npy", np.arange(4, dtype=np.int32))
    draft.publish()

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


def test_a_run_in_the_making_is_none(chain):
    draft = Draft(chain, OTHER_RUN, {}, {})
    draft.array(f"{OTHER_RUN}/k0002_indices.npy", (4, 2), np.int32)

    assert list(chain.runs()[0]) == ["faiss_M32_efc200_ef50"]
    assert chain.runs()[1] == {}


# Drafts


def begin(results, parameters=None, inputs=None, fresh=False):
    """Stage 03 in the making: the draft and its two arrays."""
    draft = Draft(results, "03_exact", parameters or {"k_max": 2}, inputs or {}, fresh)
    indices = draft.array("03_exact_indices.npy", (6, 2), np.int32)
    distances = draft.array("03_exact_distances.npy", (6, 2), np.float32)
    return draft, indices, distances


def interrupt(results, **how):
    """A run that ends after three of six rows."""
    draft, indices, distances = begin(results, **how)
    indices[:3], distances[:3] = 7, 0.5
    indices.flush()
    distances.flush()
    draft.mark("(0, 2)", {"recomputed": 1})
    draft.mark("(2, 3)", {})
    return draft


DONE = {"(0, 2)": {"recomputed": 1}, "(2, 3)": {}}


def test_draft_goes_on_where_an_interrupted_run_stopped(results):
    interrupt(results)
    draft, indices, distances = begin(results)

    assert draft.done == DONE
    np.testing.assert_array_equal(indices[:, 0], [7, 7, 7, 0, 0, 0])
    np.testing.assert_array_equal(distances[:, 1], [0.5, 0.5, 0.5, 0, 0, 0])
    draft.mark("(3, 6)", {})
    assert list(begin(results)[0].done) == ["(0, 2)", "(2, 3)", "(3, 6)"]


def test_draft_publishes_what_both_runs_stored(results):
    interrupt(results)
    draft, indices, _ = begin(results)
    indices[3:] = 8
    draft.publish()

    results.require("03_exact_indices.npy", "03_exact_distances.npy")
    assert results.load("03_exact_indices.npy")[:, 0].tolist() == [7, 7, 7, 8, 8, 8]


@pytest.mark.parametrize(
    "how",
    [
        {"parameters": {"k_max": 3}},
        {"inputs": {"02_embeddings.npy": {"sha256": "0"}}},
        {"fresh": True},
    ],
    ids=["parameters", "inputs", "fresh"],
)
def test_draft_of_other_work_is_thrown_away(how, results):
    interrupt(results)
    draft, indices, distances = begin(results, **how)

    assert draft.done == {}
    assert not indices.any()
    assert not distances.any()


@pytest.mark.parametrize("gone", ["03_exact_indices.npy", "03_exact_distances.npy"])
def test_draft_whose_array_is_gone_has_nothing_done(gone, results):
    interrupt(results)
    results.path(f".draft/03_exact/{gone}").unlink()
    draft, _, _ = begin(results)

    assert draft.done == {}
    assert begin(results)[0].done == {}


@pytest.mark.parametrize("plan", ["", "{", "[]", None])
def test_draft_without_readable_plan_is_thrown_away(plan, results):
    interrupt(results)
    path = results.path(".draft/03_exact/plan.json")
    path.unlink() if plan is None else path.write_text(plan)

    assert begin(results)[0].done == {}


@pytest.mark.parametrize("torn", ['["(3, 4)", {"recomp', "\x00\x00\x00", '["(3, 4)", {}'])
def test_draft_survives_a_torn_last_line_of_its_journal(torn, results):
    interrupt(results)
    with results.path(".draft/03_exact/journal.jsonl").open("a") as file:
        file.write(torn)

    draft, _, _ = begin(results)
    assert draft.done == DONE
    # The next line is not glued to the torn one.
    draft.mark("(3, 6)", {})
    assert begin(results)[0].done == DONE | {"(3, 6)": {}}


def test_draft_loses_nothing_to_a_journal_that_lacks_its_last_byte(results):
    interrupt(results)
    path = results.path(".draft/03_exact/journal.jsonl")
    os.truncate(path, path.stat().st_size - 1)

    begin(results)[0].mark("(3, 6)", {})
    assert "(3, 6)" in begin(results)[0].done


def test_draft_keeps_what_is_done_when_another_array_is_begun(results):
    # Stage 05 begins the array of a run when it has finished the run before.
    draft = Draft(results, "05_metrics", {}, {})
    draft.scratch("first.npy", (2,), np.float64)
    draft.mark("('first', 10)", {})
    draft.scratch("second.npy", (2,), np.float64)
    draft.mark("('second', 10)", {})

    resumed = Draft(results, "05_metrics", {}, {})
    resumed.scratch("first.npy", (2,), np.float64)
    resumed.scratch("second.npy", (2,), np.float64)
    assert list(resumed.done) == ["('first', 10)", "('second', 10)"]


def test_drafts_of_two_stages_do_not_meet(results):
    interrupt(results)
    other = Draft(results, RUN, {"k_max": 2}, {})
    assert other.done == {}
    other.array(f"{RUN}/k0002_indices.npy", (4, 2), np.int32)
    other.publish()

    assert begin(results)[0].done == DONE
    assert results.require(f"{RUN}/k0002_indices.npy")


def test_publish_leaves_no_draft_behind(results):
    draft = Draft(results, "05_metrics", {}, {})
    draft.scratch("values.npy", (2,), np.float64)
    draft.save("05_values.npy", np.ones(2))
    manifest = draft.publish()

    assert list(manifest["outputs"]) == ["05_values.npy"]
    assert set(snapshot(results.root)) == {"05_metrics.json", "05_values.npy"}
    assert not results.path(".draft").exists()


def test_publish_starts_the_next_run_from_nothing(results):
    interrupt(results).publish()

    assert begin(results)[0].done == {}


def test_publish_removes_what_is_no_longer_made(results):
    lists = {f"{RUN}/k{k:04d}_indices.npy": np.zeros((4, k), np.int32) for k in (1, 2, 3)}
    publish(results, RUN, lists)
    results.path(f"{RUN}/my_notes.txt").write_text("keep")
    del lists[f"{RUN}/k0003_indices.npy"]
    publish(results, RUN, lists)

    assert set(snapshot(results.path(RUN))) == {
        "k0001_indices.npy",
        "k0002_indices.npy",
        "my_notes.txt",
        "run.json",
    }
    assert results.require(*lists)


def test_nothing_is_seen_before_it_is_published(chain):
    before = snapshot(chain.root)
    inputs = chain.require("02_embeddings.npy")
    draft = Draft(chain, "03_exact", {"other": True}, inputs)
    draft.array("03_exact_indices.npy", (4, 2), np.int32)[:] = 9
    draft.save("03_queries.npy", np.zeros(1, np.int32))
    draft.mark("(0, 4)", {})
    # The process ends here.

    assert snapshot(chain.root) == before
    assert chain.require(*FILES)
    assert chain.up_to_date("03_exact", {}, inputs)


def test_publish_of_an_output_that_was_never_written_changes_nothing(chain):
    before = snapshot(chain.root)
    draft = Draft(chain, "03_exact", {"other": True}, chain.require("02_embeddings.npy"))
    draft.array("03_exact_indices.npy", (4, 2), np.int32)[:] = 9
    draft.path("03_queries.npy")
    with pytest.raises(OSError, match=r"03_queries\.npy"):
        draft.publish()

    assert snapshot(chain.root) == before
    assert chain.require(*FILES)


@pytest.mark.parametrize("moves", range(5))
def test_crash_while_publishing_leaves_the_former_results_or_the_new(moves, chain, monkeypatch):
    class PowerCutError(Exception):
        pass

    inputs = chain.require("02_embeddings.npy")
    before = snapshot(chain.root)
    draft = Draft(chain, "03_exact", {"other": True}, inputs)
    draft.array("03_exact_indices.npy", (4, 2), np.int32)[:] = 9
    draft.save("03_queries.npy", np.full(4, 3, np.int32))
    draft.mark("(0, 4)", {})
    replace, moved = Path.replace, []

    def crash_after_some(self, target):
        if len(moved) == moves:
            raise PowerCutError
        moved.append(self)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", crash_after_some)
    # The decision, two files, the manifest.
    with pytest.raises(PowerCutError) if moves < 4 else contextlib.nullcontext():
        draft.publish()
    monkeypatch.undo()

    finish_publications(chain)
    if moves == 0:
        assert snapshot(chain.root) == before
        assert Draft(chain, "03_exact", {"other": True}, inputs).done == {"(0, 4)": {}}
    else:
        assert chain.up_to_date("03_exact", {"other": True}, inputs)
        assert (chain.load("03_exact_indices.npy") == 9).all()
        assert not chain.path(".draft").exists()
    finish_publications(chain)


def test_runs_that_a_crash_left_half_published_are_published_by_the_next_script(chain, monkeypatch):
    inputs = chain.require("03_exact_indices.npy")
    moved, replace = [], Path.replace

    def crash_after_one(self, target):
        if self.suffix == ".npy" and self.parent.name in (RUN[8:], OTHER_RUN[8:]):
            moved.append(target)
            if len(moved) % 2 == 0:
                raise InterruptedError
        return replace(self, target)

    # Each ends between the first and the second of its files.
    names = {run: [f"{run}/k{k:04d}_indices.npy" for k in (1, 2)] for run in (RUN, OTHER_RUN)}
    for run, outputs in names.items():
        draft = Draft(chain, run, {"other": True}, inputs)
        for name in outputs:
            draft.save(name, np.zeros((4, 2), np.int32))
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", crash_after_one)
            with pytest.raises(InterruptedError):
                draft.publish()

    finish_publications(chain)
    for run, outputs in names.items():
        assert chain.up_to_date(run, {"other": True}, inputs)
        assert chain.require(*outputs)
    assert not chain.path(".draft").exists()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"stage": "03_exact", "outputs": {}}'])
def test_a_decision_of_another_hand_publishes_nothing(text, chain):
    before = snapshot(chain.root)
    interrupt(chain)
    chain.path(".draft/03_exact/manifest.json").write_text(text)
    finish_publications(chain)

    assert snapshot(chain.root) == before
    draft, indices, _ = begin(chain)
    assert draft.done == DONE
    indices[3:] = 8
    draft.publish()
    assert chain.require("03_exact_indices.npy")


# A full disk


def no_space(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk_fails_in_words_and_leaves_the_good_files(chain, monkeypatch):
    before = snapshot(chain.root)
    draft = Draft(chain, "02_embeddings", {"other": True}, chain.require("01_images.npy"))
    monkeypatch.setattr(os, "posix_fallocate", no_space)
    with pytest.raises(OSError, match="No space left") as caught:
        draft.array("02_embeddings.npy", (4, 3), np.float32)

    assert caught.value.errno == errno.ENOSPC
    assert snapshot(chain.root) == before
    assert chain.require(*FILES)


def test_full_disk_names_the_file_that_did_not_fit(results, monkeypatch):
    draft = Draft(results, "03_exact", {}, {})
    fails = {
        (np, "save"): ("03_queries.npy", lambda name: draft.save(name, np.arange(3))),
        (np.lib.format, "open_memmap"): ("a.npy", lambda name: draft.scratch(name, (1,), int)),
        (os, "fsync"): ("journal.jsonl", lambda _: draft.mark("(0, 3)", {})),
    }
    for where, (name, write) in fails.items():
        with monkeypatch.context() as patch:
            patch.setattr(*where, lambda *_, **__: no_space())
            with pytest.raises(OSError, match="No space left") as caught:
                write(name)
        assert Path(caught.value.filename).name == name


def test_full_disk_that_was_cleared_is_no_obstacle(chain, monkeypatch):
    inputs = chain.require("01_images.npy")
    draft = Draft(chain, "02_embeddings", {"other": True}, inputs)
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", no_space)
        with pytest.raises(OSError, match="No space left"):
            draft.array("02_embeddings.npy", (4, 3), np.float32)
    draft = Draft(chain, "02_embeddings", {"other": True}, inputs)
    draft.array("02_embeddings.npy", (4, 3), np.float32)[:] = 1
    draft.publish()

    assert chain.require("02_embeddings.npy")
    assert (chain.load("02_embeddings.npy") == 1).all()
    assert not chain.path(".draft").exists()


def test_array_asks_for_all_of_its_room_at_once(results, monkeypatch):
    asked = []
    monkeypatch.setattr(os, "posix_fallocate", lambda _, start, size: asked.append((start, size)))
    draft = Draft(results, "02_embeddings", {}, {})
    draft.array("02_embeddings.npy", (1000, 8), np.float32)
    draft.scratch("values.npy", (500,), np.float64)

    (start, size), (start_of_scratch, size_of_scratch) = asked
    assert start == start_of_scratch == 0
    assert size == draft.path("02_embeddings.npy").stat().st_size >= 32_000
    assert size_of_scratch >= 4000


def test_full_disk_while_the_manifest_is_written_leaves_the_former_one(chain, monkeypatch):
    path = chain.path("01_images.json")
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        artifacts.write_json(path, {"stage": "01_images"})

    assert path.read_bytes() == before


def test_written_json_is_whole_and_leaves_no_temporary_file(tmp_path):
    artifacts.write_json(tmp_path / "a.json", {"b": [1, None, "ü"]})

    assert json.loads((tmp_path / "a.json").read_text()) == {"b": [1, None, "ü"]}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def spoil_array(folder, content):
    path = folder / "03_exact_indices.npy"
    path.write_bytes(content(path.read_bytes()))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: spoil_array(folder, lambda data: data[:-4]),
        lambda folder: spoil_array(folder, lambda _: b""),
        lambda folder: np.save(folder / "03_exact_indices.npy", np.zeros((3, 2), np.int64)),
        lambda folder: np.save(folder / "03_exact_indices.npy", np.zeros((2, 3), np.int32)),
        lambda folder: np.save(folder / "03_exact_indices.npy", np.zeros((3, 2), np.float32)),
    ],
)
def test_draft_with_a_spoilt_array_is_begun_anew(spoil, results):
    def begin():
        draft = Draft(results, "03_exact", {}, {})
        return draft, draft.array("03_exact_indices.npy", (3, 2), np.int32)

    draft, array = begin()
    array[:] = 7
    array.flush()
    draft.mark("(0, 3)", {"recomputed": 0})
    again, array = begin()
    assert again.done == {"(0, 3)": {"recomputed": 0}}
    assert (array == 7).all()

    spoil(results.path(".draft/03_exact"))
    anew, array = begin()
    assert anew.done == {}
    assert (array.shape, array.dtype) == ((3, 2), np.int32)
    assert (array == 0).all()


BY_HAND = ["5", "null", "[1]", '["done", "x"]', "{}", '"done"', '["done", "second", {}]']
BY_HAND += ['00000000 ["done", "second", {"recomputed": "many"}]', '["array", "../a.npy", 5]']


@pytest.mark.parametrize("line", BY_HAND)
def test_draft_stops_reading_its_journal_at_a_line_that_is_none(line, results):
    draft = Draft(results, "03_exact", {}, {})
    draft.mark("first", {})
    with results.path(".draft/03_exact/journal.jsonl").open("a") as journal:
        journal.write(f"{line}\n")
    assert Draft(results, "03_exact", {}, {}).done == {"first": {}}


@pytest.mark.parametrize("linked", [".draft", "04_hnsw", RUN])
def test_nothing_is_written_through_a_link_to_a_folder(linked, results, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    results.path(linked).parent.mkdir(parents=True)
    results.path(linked).symlink_to(elsewhere)
    (elsewhere / "empty").mkdir()
    finish_publications(results)
    with pytest.raises(ArtifactError, match=f"{linked} is a link or a file"):
        Draft(results, RUN, {}, {})
    assert list(elsewhere.iterdir()) == [elsewhere / "empty"]


def test_an_empty_folder_of_drafts_is_removed(results):
    for left in (".draft/03_exact", ".draft"):
        results.path(left).mkdir(parents=True)
        finish_publications(results)
        assert not results.path(".draft").exists()


def test_a_link_in_place_of_an_output_is_replaced_and_its_file_left_alone(results, tmp_path):
    precious = tmp_path / "precious.npy"
    precious.write_text("text")
    results.root.mkdir()
    results.path("03_queries.npy").symlink_to(precious)
    publish(results, "03_exact", {"03_queries.npy": np.arange(3, dtype=np.int32)})

    assert precious.read_text() == "text"
    assert not results.path("03_queries.npy").is_symlink()
    assert results.require("03_queries.npy")


def test_results_folder_that_is_a_link_to_nothing(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    with pytest.raises(ArtifactError, match=r"link is not a folder"):
        Results(tmp_path / "link")


def test_folder_in_place_of_an_output_is_named_before_any_work(results):
    results.path("03_queries.npy").mkdir(parents=True)
    draft = Draft(results, "03_exact", {}, {})
    with pytest.raises(ArtifactError, match=r"03_queries.npy is a folder"):
        draft.save("03_queries.npy", np.arange(3))
    results.path("06_figures.json").mkdir()
    with pytest.raises(ArtifactError, match=r"06_figures.json is a folder"):
        Draft(results, "06_figures", {}, {})
