"""A stage: what it reads, whether it has to run, and how its outputs survive a crash."""

import contextlib
import errno
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from drift.indexes.config import GraphConfig
from drift.pipeline.results import ArtifactError, Results
from drift.pipeline.stage import PARTIAL, Stage, finish_commits
from drift.pipeline.tasks.graphs import built_graph
from tests.chain import FILES, GRAPH, OTHER_RUN, RUN, begin, commit, image_stage, snapshot
from tests.conftest import arguments

PLANNED = {"other": True}


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path / "results")


def begin_exact(results, parameters=None, inputs=None, **options):
    """Stage 03 with its two arrays."""
    stage = begin(results, "03_exact", parameters or {"k_max": 2}, inputs, **options)
    indices = stage.create("03_exact_indices.npy", (6, 2), np.int32)
    distances = stage.create("03_exact_distances.npy", (6, 2), np.float32)
    return stage, indices, distances


def interrupt(results, **how):
    """A run that ends after three of six rows."""
    stage, *_ = begin_exact(results, **how)
    stage.write("03_exact_indices.npy", (0, 3), 7)
    stage.write("03_exact_distances.npy", (0, 3), 0.5)
    stage.checkpoint((0, 2), recomputed=1)
    stage.checkpoint((2, 3))
    return stage


COMPLETED = {"(0, 2)": {"recomputed": 1}, "(2, 3)": {}}


# What is read, and whether there is something to do


def test_what_is_read_is_checked_mapped_and_recorded(chain):
    stage = Stage("06_figures", arguments(chain.root))
    vectors = stage.read("02_embeddings.npy")
    table = stage.read("05_curves.parquet")
    column = stage.read("05_curves.parquet", columns=["k"])
    (path,) = stage.require("03_queries.npy")

    assert isinstance(vectors, np.memmap)
    np.testing.assert_array_equal(vectors, chain.load("02_embeddings.npy"))
    assert (list(table), list(column)) == (["run", "k"], ["k"])
    assert path.is_absolute()
    assert path.samefile(chain.path("03_queries.npy"))
    entries = chain.require("02_embeddings.npy", "05_curves.parquet", "03_queries.npy")
    assert stage.inputs == entries
    assert stage.begin({})
    stage.save("06_values.npy", np.ones(2))
    assert stage.commit()["inputs"] == entries == stage.manifest()["inputs"]


def test_what_is_read_must_be_whole_and_current(chain):
    image_stage(chain, seed=1)
    with pytest.raises(ArtifactError, match=r"older than 01_images.npy.* run 02_embed_resnet50"):
        Stage("03_exact", arguments(chain.root)).read("02_embeddings.npy")
    chain.path("05_curves.parquet").write_bytes(b"")
    with pytest.raises(ArtifactError, match="run 0"):
        Stage("06_figures", arguments(chain.root)).require("05_curves.parquet")


def test_a_stage_that_is_up_to_date_prints_so_and_has_nothing_to_do(chain, capsys):
    before = snapshot(chain.root)
    inputs = chain.require("02_embeddings.npy")

    assert not Stage("03_exact", arguments(chain.root), inputs).begin({})
    message = f"03_exact: up to date in {chain.root} (--force runs it anyway)\n"
    assert capsys.readouterr() == (message, "")
    assert Stage("03_exact", arguments(chain.root), inputs).begin({"k_max": 2})
    assert Stage("03_exact", arguments(chain.root, force=True), inputs).begin({})
    assert Stage("03_exact", arguments(chain.root)).begin({})
    assert capsys.readouterr() == ("", "")
    assert snapshot(chain.root) == before


def test_nothing_is_on_disk_before_the_first_output(results):
    stage = begin(results, "03_exact")
    stage.discard()
    assert not results.root.exists()
    for write in (
        lambda stage: stage.create("03_queries.npy", (3,), np.int32),
        lambda stage: stage.create("values.npy", (3,), np.int32, scratch=True),
        lambda stage: stage.output("03_queries.npy"),
        lambda stage: stage.save("03_queries.npy", np.arange(3)),
        lambda stage: stage.append("03_queries.parquet", {"row": np.arange(3)}),
    ):
        stage = begin(results, "03_exact")
        write(stage)
        assert results.path(f"{PARTIAL}/03_exact/plan.json").exists()
        stage.discard()
        assert not results.path(PARTIAL).exists()


# Resuming


def test_a_stage_resumes_an_interrupted_run(results):
    interrupt(results)
    stage = begin(results, "03_exact", {"k_max": 2})
    assert stage.completed == {}
    stage, indices, distances = begin_exact(results)

    assert stage.completed == COMPLETED
    np.testing.assert_array_equal(indices[:, 0], [7, 7, 7, 0, 0, 0])
    np.testing.assert_array_equal(distances[:, 1], [0.5, 0.5, 0.5, 0, 0, 0])
    stage.checkpoint((3, 6))
    assert list(begin_exact(results)[0].completed) == ["(0, 2)", "(2, 3)", "(3, 6)"]


def test_a_stage_commits_what_both_runs_stored(results):
    interrupt(results)
    stage, *_ = begin_exact(results)
    stage.write("03_exact_indices.npy", (3, 6), 8)
    stage.commit()

    results.require("03_exact_indices.npy", "03_exact_distances.npy")
    assert results.load("03_exact_indices.npy")[:, 0].tolist() == [7, 7, 7, 8, 8, 8]


@pytest.mark.parametrize(
    "how",
    [
        {"parameters": {"k_max": 3}},
        {"inputs": {"02_embeddings.npy": {"sha256": "0"}}},
        {"force": True},
    ],
    ids=["parameters", "inputs", "force"],
)
def test_the_partial_work_of_another_plan_is_thrown_away(how, results):
    interrupt(results)
    stage, indices, distances = begin_exact(results, **how)

    assert stage.completed == {}
    assert not indices.any()
    assert not distances.any()


@pytest.mark.parametrize("gone", ["03_exact_indices.npy", "03_exact_distances.npy"])
def test_a_stage_whose_partial_array_is_gone_has_completed_nothing(gone, results):
    interrupt(results)
    results.path(f"{PARTIAL}/03_exact/{gone}").unlink()

    assert begin_exact(results)[0].completed == {}
    assert begin_exact(results)[0].completed == {}


@pytest.mark.parametrize("plan", ["", "{", "[]", None])
def test_partial_work_without_a_readable_plan_is_thrown_away(plan, results):
    interrupt(results)
    path = results.path(f"{PARTIAL}/03_exact/plan.json")
    path.unlink() if plan is None else path.write_text(plan)

    assert begin_exact(results)[0].completed == {}


@pytest.mark.parametrize("torn", ['["(3, 4)", {"recomp', "\x00\x00\x00", '["(3, 4)", {}'])
def test_checkpoints_survive_a_torn_last_line(torn, results):
    interrupt(results)
    with results.path(f"{PARTIAL}/03_exact/checkpoints.jsonl").open("a") as file:
        file.write(torn)

    stage, *_ = begin_exact(results)
    assert stage.completed == COMPLETED
    # The next line is not glued to the torn one.
    stage.checkpoint((3, 6))
    assert begin_exact(results)[0].completed == COMPLETED | {"(3, 6)": {}}


def test_checkpoints_that_lack_their_last_byte_lose_nothing_more(results):
    interrupt(results)
    path = results.path(f"{PARTIAL}/03_exact/checkpoints.jsonl")
    os.truncate(path, path.stat().st_size - 1)

    begin_exact(results)[0].checkpoint((3, 6))
    assert "(3, 6)" in begin_exact(results)[0].completed


BY_HAND = ["5", "null", "[1]", '["completed", "x"]', "{}", '"completed"']
BY_HAND += ['["completed", "second", {}]', '["array", "../a.npy", 5]']
BY_HAND += ['00000000 ["completed", "second", {"recomputed": "many"}]']


@pytest.mark.parametrize("line", BY_HAND)
def test_checkpoints_are_read_up_to_a_line_that_is_none(line, results):
    stage, *_ = begin_exact(results)
    stage.checkpoint("first")
    with results.path(f"{PARTIAL}/03_exact/checkpoints.jsonl").open("a") as file:
        file.write(f"{line}\n")

    assert begin_exact(results)[0].completed == {"first": {}}


def test_what_is_completed_is_kept_when_another_array_is_created(results):
    # Stage 05 creates the array of a run when it has finished the run before.
    stage = begin(results, "05_metrics")
    stage.create("first.npy", (2,), np.float64, scratch=True)
    stage.checkpoint(("first", 10))
    stage.create("second.npy", (2,), np.float64, scratch=True)
    stage.checkpoint(("second", 10))

    resumed = begin(results, "05_metrics")
    resumed.create("first.npy", (2,), np.float64, scratch=True)
    resumed.create("second.npy", (2,), np.float64, scratch=True)
    assert list(resumed.completed) == ["('first', 10)", "('second', 10)"]


def spoil_array(folder, content):
    path = folder / "03_exact_indices.npy"
    path.write_bytes(content(path.read_bytes()))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: spoil_array(folder, lambda data: data[:-4]),
        lambda folder: spoil_array(folder, lambda _: b""),
        lambda folder: np.save(folder / "03_exact_indices.npy", np.zeros((6, 2), np.int64)),
        lambda folder: np.save(folder / "03_exact_indices.npy", np.zeros((4, 3), np.int32)),
        lambda folder: np.save(folder / "03_exact_indices.npy", np.zeros((6, 2), np.float32)),
    ],
)
def test_partial_work_with_a_spoilt_array_is_thrown_away(spoil, results):
    interrupt(results)
    stage, indices, _ = begin_exact(results)
    assert stage.completed == COMPLETED
    assert (indices[:3] == 7).all()

    spoil(results.path(f"{PARTIAL}/03_exact"))
    stage, indices, _ = begin_exact(results)
    assert stage.completed == {}
    assert (indices.shape, indices.dtype) == ((6, 2), np.int32)
    assert (indices == 0).all()


def test_a_graph_whose_partial_file_is_gone_is_built_again(chain):
    stage = Stage("04_hnsw", arguments(chain.root, save_index=False))
    stage.require("02_embeddings.npy")
    graph = GraphConfig("hnswlib", 4, 10, 0, 1)
    with pytest.raises(InterruptedError), built_graph(stage, graph) as (path, _):
        content = path.read_bytes()
        raise InterruptedError
    path.unlink()

    with built_graph(stage, graph) as (path, _):
        assert path.read_bytes() == content
    assert not chain.path(PARTIAL).exists()


def test_facts_of_all_blocks_are_summed_up(results):
    stage, *_ = begin_exact(results)
    assert stage.total("recomputed") == 0
    stage.checkpoint((0, 2), recomputed=1, seconds=0.5)
    stage, *_ = begin_exact(results)
    stage.checkpoint((2, 6), recomputed=3, seconds=0.25)

    assert (stage.total("recomputed"), stage.total("seconds")) == (4, 0.75)


# Outputs


def test_an_array_is_written_in_parts_and_can_be_read_meanwhile(results):
    stage = begin(results, "05_metrics")
    values = stage.create("05_values.npy", (2, 3, 4), np.float64)
    stage.write("05_values.npy", (1, 2), np.full((1, 3, 4), 5))
    stage.write("05_values.npy", np.s_[:, :, 1:3], np.full((2, 3, 2), 6))

    expected = np.zeros((2, 3, 4))
    expected[1:2] = 5
    expected[:, :, 1:3] = 6
    np.testing.assert_array_equal(values, expected)
    assert not values.flags.writeable
    stage.commit()
    np.testing.assert_array_equal(results.load("05_values.npy"), expected)


def test_where_an_output_lies_until_commit_is_known(results):
    stage = begin(results, "03_exact")
    path = stage.save("03_queries.npy", np.arange(3))

    assert path.is_absolute()
    assert path == stage.output("03_queries.npy")
    np.testing.assert_array_equal(np.load(path), np.arange(3))
    assert not results.path("03_queries.npy").exists()


def append_rows(stage, *ks):
    for k in ks:
        columns = {"run": np.full(3, "a"), "k": np.full(3, k, np.int32), "lid": np.arange(3.0) * k}
        stage.append("05_per_query.parquet", columns)


def test_a_table_grows_by_row_groups(results):
    stage = begin(results, "05_metrics")
    append_rows(stage, 10, 20)
    manifest = stage.commit()

    table = pd.read_parquet(results.path("05_per_query.parquet"))
    assert table["run"].tolist() == ["a"] * 6
    assert table["k"].tolist() == [10] * 3 + [20] * 3
    assert table["lid"].tolist() == [0, 10, 20, 0, 20, 40]
    assert manifest["outputs"]["05_per_query.parquet"]["shape"] == [6, 3]
    types = {"run": "string", "k": "int32", "lid": "double"}
    assert manifest["outputs"]["05_per_query.parquet"]["dtype"] == types
    assert results.require("05_per_query.parquet")


def test_a_table_that_was_interrupted_is_written_from_its_first_row(results):
    append_rows(begin(results, "05_metrics"), 10, 20, 30)
    stage = begin(results, "05_metrics")
    append_rows(stage, 40, 50)
    stage.commit()

    assert pd.read_parquet(results.path("05_per_query.parquet"))["k"].unique().tolist() == [40, 50]


def test_stages_do_not_share_partial_work(results):
    interrupt(results)
    other = begin(results, RUN, {"k_max": 2})
    other.create(f"{RUN}/k0002_indices.npy", (4, 2), np.int32)
    assert other.completed == {}
    other.commit()

    assert begin_exact(results)[0].completed == COMPLETED
    assert results.require(f"{RUN}/k0002_indices.npy")


def test_parts_are_stages_of_their_own_made_from_inputs_of_the_whole(chain):
    whole = Stage("04_hnsw", arguments(chain.root))
    whole.require("02_embeddings.npy", "03_exact_indices.npy")
    run, graph = whole.part("x"), whole.part("graphs/x", "02_embeddings.npy")
    assert (run.name, graph.name) == ("04_hnsw/x", "04_hnsw/graphs/x")

    for part in (run, graph):
        assert part.begin({"M": 32})
        part.checkpoint(part.save(f"{part.name}/a.npy", np.arange(3)).name)
    assert run.commit()["inputs"] == whole.inputs
    assert list(graph.commit()["inputs"]) == ["02_embeddings.npy"]
    assert list(chain.runs()[0]) == ["faiss_M32_efc200_ef50", "x"]
    assert chain.graphs() == ["x"]
    assert whole.completed == {}


def test_what_is_discarded_leaves_what_is_in_place_alone(chain):
    before = snapshot(chain.root)
    interrupt(chain)
    stage = begin(chain, RUN, PLANNED)
    stage.save(f"{RUN}/k0002_indices.npy", np.zeros((4, 2), np.int32))
    stage.discard()

    assert snapshot(chain.root) == before
    assert [path.name for path in chain.path(PARTIAL).iterdir()] == ["03_exact"]
    assert begin_exact(chain)[0].completed == COMPLETED
    Stage("03_exact", arguments(chain.root)).discard()  # of a run that was interrupted
    assert not chain.path(PARTIAL).exists()
    assert snapshot(chain.root) == before


# Committing


def test_a_commit_leaves_nothing_partial_behind(results):
    stage = begin(results, "05_metrics")
    stage.create("values.npy", (2,), np.float64, scratch=True)
    stage.save("05_values.npy", np.ones(2))
    manifest = stage.commit()
    stage.discard()

    assert list(manifest["outputs"]) == ["05_values.npy"]
    assert set(snapshot(results.root)) == {"05_metrics.json", "05_values.npy"}
    assert not results.path(PARTIAL).exists()


def test_after_a_commit_the_next_run_starts_from_nothing(results):
    interrupt(results).commit()
    results.path("03_exact_indices.npy").unlink()

    assert begin_exact(results)[0].completed == {}


def test_a_commit_removes_what_is_no_longer_made(results):
    lists = {f"{RUN}/k{k:04d}_indices.npy": np.zeros((4, k), np.int32) for k in (1, 2, 3)}
    commit(results, RUN, lists)
    results.path(f"{RUN}/my_notes.txt").write_text("keep")
    del lists[f"{RUN}/k0003_indices.npy"]
    commit(results, RUN, lists)

    assert set(snapshot(results.path(RUN))) == {
        "k0001_indices.npy",
        "k0002_indices.npy",
        "my_notes.txt",
        "run.json",
    }
    assert results.require(*lists)


def begin_other_lists(chain, **options):
    """Stage 03 by another plan, with one array written."""
    stage = begin(chain, "03_exact", PLANNED, chain.require("02_embeddings.npy"), **options)
    stage.create("03_exact_indices.npy", (4, 2), np.int32)
    stage.write("03_exact_indices.npy", (0, 4), 9)
    return stage


def test_nothing_is_seen_before_it_is_committed(chain):
    before = snapshot(chain.root)
    stage = begin_other_lists(chain)
    stage.save("03_queries.npy", np.zeros(1, np.int32))
    stage.checkpoint((0, 4))
    # The process ends here.

    assert snapshot(chain.root) == before
    assert chain.require(*FILES)
    assert chain.up_to_date("03_exact", {}, stage.inputs)


def test_a_commit_of_an_output_that_was_never_written_changes_nothing(chain):
    before = snapshot(chain.root)
    stage = begin_other_lists(chain)
    stage.output("03_queries.npy")
    with pytest.raises(OSError, match=r"03_queries\.npy"):
        stage.commit()

    assert snapshot(chain.root) == before
    assert chain.require(*FILES)


@pytest.mark.parametrize("moves", range(5))
def test_crash_in_a_commit_leaves_the_former_results_or_the_new(moves, chain, monkeypatch):
    class PowerCutError(Exception):
        pass

    before = snapshot(chain.root)
    stage = begin_other_lists(chain)
    stage.save("03_queries.npy", np.full(4, 3, np.int32))
    stage.checkpoint((0, 4))
    replace, moved = Path.replace, []

    def crash_after_some(self, target):
        if len(moved) == moves:
            raise PowerCutError
        moved.append(self)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", crash_after_some)
    # The decision, two files, the manifest.
    with pytest.raises(PowerCutError) if moves < 4 else contextlib.nullcontext():
        stage.commit()
    monkeypatch.undo()

    finish_commits(chain)
    if moves == 0:
        assert snapshot(chain.root) == before
        assert begin_other_lists(chain).completed == {"(0, 4)": {}}
    else:
        assert chain.up_to_date("03_exact", PLANNED, stage.inputs)
        assert (chain.load("03_exact_indices.npy") == 9).all()
        assert not chain.path(PARTIAL).exists()
    finish_commits(chain)


def test_what_crashes_left_half_committed_is_finished_by_the_next_script(chain, monkeypatch):
    inputs = chain.require("03_exact_indices.npy")
    moved, replace = [], Path.replace

    def crash_after_one(self, target):
        if PARTIAL in self.parts and self.suffix == ".npy":
            moved.append(target)
            if len(moved) % 2 == 0:
                raise InterruptedError
        return replace(self, target)

    # Each ends between the first and the second of its files.
    names = {run: [f"{run}/k{k:04d}_indices.npy" for k in (1, 2)] for run in (RUN, OTHER_RUN)}
    names[GRAPH] = [f"{GRAPH}.npy", f"{GRAPH}_links.npy"]
    for name, outputs in names.items():
        stage = begin(chain, name, PLANNED, inputs)
        for output in outputs:
            stage.save(output, np.zeros((4, 2), np.int32))
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", crash_after_one)
            with pytest.raises(InterruptedError):
                stage.commit()

    finish_commits(chain)
    for name, outputs in names.items():
        assert chain.up_to_date(name, PLANNED, inputs)
        assert chain.require(outputs[0])
        assert chain.path(outputs[1]).exists()
    assert not chain.path(PARTIAL).exists()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"stage": "03_exact", "outputs": {}}'])
def test_a_decision_that_is_none_commits_nothing(text, chain):
    before = snapshot(chain.root)
    interrupt(chain)
    chain.path(f"{PARTIAL}/03_exact/manifest.json").write_text(text)
    finish_commits(chain)

    assert snapshot(chain.root) == before
    stage, *_ = begin_exact(chain)
    assert stage.completed == COMPLETED
    stage.write("03_exact_indices.npy", (3, 6), 8)
    stage.commit()
    assert chain.require("03_exact_indices.npy")


def test_an_empty_folder_of_partial_work_is_removed(results):
    for left in (f"{PARTIAL}/03_exact", PARTIAL):
        results.path(left).mkdir(parents=True)
        finish_commits(results)
        assert not results.path(PARTIAL).exists()


# A full disk


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk_is_an_error_and_leaves_the_good_files(chain, monkeypatch):
    before = snapshot(chain.root)
    stage = begin(chain, "02_embeddings", PLANNED, chain.require("01_images.npy"))
    monkeypatch.setattr(os, "posix_fallocate", no_space)
    with pytest.raises(OSError, match="No space left") as caught:
        stage.create("02_embeddings.npy", (4, 3), np.float32)

    assert caught.value.errno == errno.ENOSPC
    assert snapshot(chain.root) == before
    assert chain.require(*FILES)


def test_full_disk_names_the_file_that_did_not_fit(results, monkeypatch):
    stage, *_ = begin_exact(results)
    fails = {
        (np, "save"): ("03_queries.npy", lambda name: stage.save(name, np.arange(3))),
        (np.lib.format, "open_memmap"): ("a.npy", lambda name: stage.create(name, (1,), int)),
        (os, "posix_fallocate"): ("b.npy", lambda name: stage.create(name, (1,), int, True)),
        (os, "fsync"): ("checkpoints.jsonl", lambda _: stage.checkpoint((0, 3))),
    }
    for where, (name, write) in fails.items():
        with monkeypatch.context() as patch:
            patch.setattr(*where, no_space)
            with pytest.raises(OSError, match="No space left") as caught:
                write(name)
        assert Path(caught.value.filename).name == name


def test_full_disk_that_was_cleared_is_no_obstacle(chain, monkeypatch):
    inputs = chain.require("01_images.npy")
    stage = begin(chain, "02_embeddings", PLANNED, inputs)
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", no_space)
        with pytest.raises(OSError, match="No space left"):
            stage.create("02_embeddings.npy", (4, 3), np.float32)
    stage = begin(chain, "02_embeddings", PLANNED, inputs)
    stage.create("02_embeddings.npy", (4, 3), np.float32)
    stage.write("02_embeddings.npy", (0, 4), 1)
    stage.commit()

    assert chain.require("02_embeddings.npy")
    assert (chain.load("02_embeddings.npy") == 1).all()
    assert not chain.path(PARTIAL).exists()


def test_an_array_asks_for_all_of_its_room_at_once(results, monkeypatch):
    asked = []
    monkeypatch.setattr(os, "posix_fallocate", lambda _, start, size: asked.append((start, size)))
    stage = begin(results, "02_embeddings")
    stage.create("02_embeddings.npy", (1000, 8), np.float32)
    stage.create("values.npy", (500,), np.float64, scratch=True)

    (start, size), (start_of_scratch, size_of_scratch) = asked
    assert start == start_of_scratch == 0
    assert size == stage.output("02_embeddings.npy").stat().st_size >= 32_000
    assert size_of_scratch >= 4000


# Links and folders in the way


@pytest.mark.parametrize(
    ("linked", "name"),
    [(PARTIAL, RUN), ("04_hnsw", RUN), (RUN, RUN), ("04_hnsw/graphs", GRAPH)],
)
def test_nothing_is_written_through_a_link_to_a_folder(linked, name, results, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    results.path(linked).parent.mkdir(parents=True)
    results.path(linked).symlink_to(elsewhere)
    (elsewhere / "empty").mkdir()
    finish_commits(results)
    with pytest.raises(ArtifactError, match=f"{linked} is a link or a file"):
        begin(results, name).output(f"{name}.npy")
    Stage("empty", arguments(results.root)).discard()
    assert list(elsewhere.iterdir()) == [elsewhere / "empty"]


def test_a_link_in_place_of_an_output_is_replaced_and_its_file_left_alone(results, tmp_path):
    precious = tmp_path / "precious.npy"
    precious.write_text("text")
    results.root.mkdir()
    results.path("03_queries.npy").symlink_to(precious)
    commit(results, "03_exact", {"03_queries.npy": np.arange(3, dtype=np.int32)})

    assert precious.read_text() == "text"
    assert not results.path("03_queries.npy").is_symlink()
    assert results.require("03_queries.npy")


def test_folder_in_place_of_an_output_is_named_before_any_work(results):
    results.path("03_queries.npy").mkdir(parents=True)
    with pytest.raises(ArtifactError, match=r"03_queries.npy is a folder"):
        begin(results, "03_exact").save("03_queries.npy", np.arange(3))
    results.path("06_figures.json").mkdir()
    with pytest.raises(ArtifactError, match=r"06_figures.json is a folder"):
        begin(results, "06_figures").output("06_report.html")
