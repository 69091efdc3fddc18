"""A stage: what it reads, whether it has to run, and how its outputs survive a crash."""

import contextlib
import errno
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from drift.pipeline import code
from drift.pipeline import stage as stages
from drift.pipeline.results import ArtifactError, Results
from drift.pipeline.stage import PARTIAL, Stage, finish_commits
from tests.chain import FILES, GRAPH, RUN, begin, commit, image_stage, snapshot

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
    stage = Stage("06_figures", chain.root)
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
        Stage("03_exact", chain.root).read("02_embeddings.npy")


EXACT = {"k_max": 2, "protocol": "study"}


def test_a_stage_that_is_up_to_date_prints_so_and_has_nothing_to_do(chain, capsys):
    before = snapshot(chain.root)
    inputs = chain.require("02_embeddings.npy")

    assert not Stage("03_exact", chain.root, inputs=inputs).begin(EXACT)
    message = f"03_exact: up to date in {chain.root} (--force runs it anyway)\n"
    assert capsys.readouterr() == (message, "")
    assert Stage("03_exact", chain.root, inputs=inputs).begin({"k_max": 3})
    assert Stage("03_exact", chain.root, force=True, inputs=inputs).begin(EXACT)
    assert Stage("03_exact", chain.root).begin(EXACT)
    assert capsys.readouterr() == ("", "")
    assert snapshot(chain.root) == before


def test_results_of_other_code_are_up_to_date_and_said_to_be(chain, capsys, monkeypatch):
    def begins(**how):
        stage = Stage("03_exact", chain, inputs=chain.require("02_embeddings.npy"))
        return stage.begin(EXACT, **how), capsys.readouterr().out

    up_to_date = f"03_exact: up to date in {chain.root}"
    assert begins(same_code=True) == (False, f"{up_to_date} (--force runs it anyway)\n")
    monkeypatch.setattr(stages, "code_hash", lambda script: f"another {script}")
    assert begins() == (False, f"{up_to_date}, made by other code; --force makes it again\n")
    assert begins(same_code=True) == (True, "03_exact: made by other code, is made again\n")


# Which code that is


def test_code_is_a_script_and_what_it_imports():
    texts = {
        "03_exact_knn.py": "import drift.pipeline.cli as cli\nfrom drift.stages.exact import task",
        "drift/pipeline/cli.py": "import argparse",
        "drift/pipeline/__init__.py": "import sys",
        "drift/stages/exact.py": "def task():\n    from drift import exact\n",
        "drift/exact.py": "import numpy",
        "drift/metrics.py": "from drift import exact",
        "05_metrics.py": "from drift import metrics",
    }
    sources = {path: text.encode() for path, text in texts.items()}
    concerned = {
        path
        for path in sources
        if code.code_hash("03_exact_knn.py", sources)
        != code.code_hash("03_exact_knn.py", sources | {path: sources[path] + b"# edited"})
    }
    assert concerned == set(texts) - {"drift/metrics.py", "05_metrics.py"}
    # Where the package is installed there are no scripts, and all of it counts.
    installed = {path: sources[path] for path in sources if path.startswith("drift/")}
    other = installed | {"drift/metrics.py": b""}
    assert code.code_hash("03_exact_knn.py", installed) == code.code_hash(None, sources)
    assert code.code_hash("03_exact_knn.py", installed) != code.code_hash(None, other)


@pytest.mark.parametrize(
    ("line", "is_import"),
    [
        ("from drift import exact", True),
        ("from drift import InputError, exact as e", True),
        ("from drift.exact import ExactKnn", True),
        ("import drift.exact", True),
        ("def f():\n    if x:\n        from drift import exact", True),
        ("from drift import (\n    vectors,  # (all)\n    exact,\n)", True),
        ("from . import exact", True),
        ("from .exact import ExactKnn", True),
        ("from ..exact import ExactKnn", False),
        ("from drift import InputError  # not exact", False),
        ("x = 'from drift import exact'", False),
    ],
)
def test_imports_are_noticed_in_every_form(line, is_import):
    sources = {"drift/__init__.py": b"", "drift/a.py": line.encode(), "drift/exact.py": b"1"}
    other = sources | {"drift/exact.py": b"2"}
    assert (
        code.code_hash("drift/a.py", sources) != code.code_hash("drift/a.py", other)
    ) == is_import


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


def test_a_stage_resumes_an_interrupted_run_and_commits_what_both_stored(results):
    interrupt(results)
    assert begin(results, "03_exact", {"k_max": 2}).completed == {}
    stage, indices, distances = begin_exact(results)

    assert stage.completed == COMPLETED
    np.testing.assert_array_equal(indices[:, 0], [7, 7, 7, 0, 0, 0])
    np.testing.assert_array_equal(distances[:, 1], [0.5, 0.5, 0.5, 0, 0, 0])
    stage.checkpoint((3, 5), recomputed=3)
    stage, *_ = begin_exact(results)
    assert list(stage.completed) == ["(0, 2)", "(2, 3)", "(3, 5)"]
    stage.write("03_exact_indices.npy", (3, 6), 8)
    stage.commit()

    results.require("03_exact_indices.npy", "03_exact_distances.npy")
    assert results.load("03_exact_indices.npy")[:, 0].tolist() == [7, 7, 7, 8, 8, 8]


def array_of(shape, dtype):
    return lambda folder: np.save(folder / "03_exact_indices.npy", np.zeros(shape, dtype))


def text_of(change, name="plan.json"):
    def edit(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(change(content))

    return edit


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "03_exact_indices.npy").unlink(),
        lambda folder: (folder / "03_exact_distances.npy").unlink(),
        lambda folder: (folder / "plan.json").unlink(),
        text_of(lambda content: content[:-4], "03_exact_indices.npy"),
        text_of(lambda content: b"", "03_exact_indices.npy"),
        array_of((6, 2), np.int64),
        array_of((4, 3), np.int32),
        array_of((6, 2), np.float32),
        text_of(lambda content: b""),
        text_of(lambda content: b"[]"),
        text_of(lambda content: b"{}"),
        text_of(lambda content: content[:-9]),
        text_of(lambda content: content.replace(b'"recomputed": 1', b'"recomputed": "many"')),
    ],
)
def test_partial_work_that_is_not_whole_is_thrown_away(spoil, results):
    interrupt(results)
    spoil(results.path(f"{PARTIAL}/03_exact"))
    for _ in range(2):
        stage, indices, distances = begin_exact(results)
        assert stage.completed == {}
        assert (indices.shape, indices.dtype) == ((6, 2), np.int32)
        assert not indices.any() and not distances.any()


@pytest.mark.parametrize(
    "how",
    [
        {"parameters": {"k_max": 3}},
        {"inputs": {"02_embeddings.npy": {"sha256": "0"}}},
        {"force": True},
        {"code": "other"},
    ],
    ids=lambda how: next(iter(how)),
)
def test_the_partial_work_of_another_plan_is_thrown_away(how, results, monkeypatch):
    interrupt(results)
    if how.pop("code", None):
        monkeypatch.setattr(stages, "code_hash", lambda script: "other")
    stage, indices, distances = begin_exact(results, **how)

    assert stage.completed == {}
    assert not indices.any() and not distances.any()


def test_what_is_completed_is_kept_when_another_array_is_created(results):
    for runs in (["first", "second"], ["first", "second", "third"]):
        stage = begin(results, "05_metrics")
        for run in runs:
            stage.create(f"{run}.npy", (2,), np.float64, scratch=True)
            if run not in stage.completed:
                stage.checkpoint(run, seconds=2)
    assert list(stage.completed) == ["first", "second", "third"]
    assert stage.total("seconds") == 6


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
    path = stage.save("05_small.npy", np.arange(3))
    assert path.is_absolute()
    assert path == stage.output("05_small.npy")
    np.testing.assert_array_equal(np.load(path), np.arange(3))
    stage.commit()
    np.testing.assert_array_equal(results.load("05_values.npy"), expected)


def append_rows(stage, *ks):
    for k in ks:
        columns = {"run": np.full(3, "a"), "k": np.full(3, k, np.int32), "lid": np.arange(3.0) * k}
        stage.append("05_per_query.parquet", columns)


def test_a_table_grows_by_row_groups_and_is_not_resumed(results):
    append_rows(begin(results, "05_metrics"), 30)  # the process ends here
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


def test_stages_do_not_share_partial_work(results):
    interrupt(results)
    other = begin(results, RUN, {"k_max": 2})
    other.create(f"{RUN}/k0002_indices.npy", (4, 2), np.int32)
    assert other.completed == {}
    other.commit()

    assert begin_exact(results)[0].completed == COMPLETED
    assert results.require(f"{RUN}/k0002_indices.npy")


def test_parts_are_stages_of_their_own_made_from_inputs_of_the_whole(chain):
    whole = Stage("04_hnsw", chain.root)
    whole.require("02_embeddings.npy", "03_exact_indices.npy")
    run, graph = whole.part("x"), whole.part("graphs/x", "02_embeddings.npy")
    assert (run.name, graph.name) == ("04_hnsw/x", "04_hnsw/graphs/x")

    for part in (run, graph):
        assert part.begin({"run": {}, "k_grid": [2], "protocol": "study"})
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
    Stage("03_exact", chain.root).discard()  # of a run that was interrupted
    assert not chain.path(PARTIAL).exists()
    assert snapshot(chain.root) == before


# Committing


def test_a_commit_leaves_nothing_partial_behind(results):
    stage = begin(results, "05_metrics")
    stage.create("values.npy", (2,), np.float64, scratch=True)
    stage.save("05_values.npy", np.ones(2))
    stage.checkpoint("first")
    manifest = stage.commit()
    stage.discard()

    assert list(manifest["outputs"]) == ["05_values.npy"]
    assert set(snapshot(results.root)) == {"05_metrics.json", "05_values.npy"}
    assert not results.path(PARTIAL).exists()
    again = begin(results, "05_metrics", force=True)
    again.output("05_values.npy")
    assert again.completed == {}


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
    stage.checkpoint((0, 4))
    # The process may end here.
    assert snapshot(chain.root) == before
    assert chain.up_to_date("03_exact", EXACT, stage.inputs)

    stage.output("03_queries.npy")  # and that is never written
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


# A full disk


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk_names_the_file_that_did_not_fit(results, monkeypatch):
    stage, *_ = begin_exact(results)
    fails = {
        (np, "save"): ("03_queries.npy", lambda name: stage.save(name, np.arange(3))),
        (np.lib.format, "open_memmap"): ("a.npy", lambda name: stage.create(name, (1,), int)),
        (os, "posix_fallocate"): ("b.npy", lambda name: stage.create(name, (1,), int, True)),
        (os, "fsync"): ("plan.json", lambda _: stage.checkpoint((0, 3))),
    }
    for where, (name, write) in fails.items():
        with monkeypatch.context() as patch:
            patch.setattr(*where, no_space)
            with pytest.raises(OSError, match="No space left") as caught:
                write(name)
        assert Path(caught.value.filename).name == name


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
    Stage("empty", results.root).discard()
    assert list(elsewhere.iterdir()) == [elsewhere / "empty"]


def test_folder_in_place_of_an_output_is_named_before_any_work(results):
    results.path("03_queries.npy").mkdir(parents=True)
    with pytest.raises(ArtifactError, match=r"03_queries.npy is a folder"):
        begin(results, "03_exact").save("03_queries.npy", np.arange(3))
    results.path("06_figures.json").mkdir()
    with pytest.raises(ArtifactError, match=r"06_figures.json is a folder"):
        begin(results, "06_figures").output("06_report.html")
