"""A stage: what it reads, whether it has to run, and how its outputs survive a crash."""

import contextlib
import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from drift.pipeline import stage as stages
from drift.pipeline.environment import code_hash
from drift.pipeline.manifests import PARTIAL
from drift.pipeline.results import ArtifactError, Results, load_array
from drift.pipeline.stage import Stage, finish_commits
from tests.chain import (
    EXACT,
    GRAPH,
    RUN,
    at,
    begin,
    edit,
    snapshot,
)
from tests.conftest import NO_FILE

PLANNED = EXACT | {"other": True}


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path / "results")


def begin_exact(results, parameters=None, inputs=None, **options):
    """Stage 03 with its two arrays."""
    stage = begin(results, "03_exact", parameters, inputs, **options)
    indices = stage.create("03_exact_indices.npy", (6, 2), np.int32)
    distances = stage.create("03_exact_distances.npy", (6, 2), np.float32)
    return stage, indices, distances


def interrupt(results, **how):
    """A run that ends after three of six rows."""
    stage, *_ = begin_exact(results, **how)
    stage.write("03_exact_indices.npy", (0, 3), 7)
    stage.write("03_exact_distances.npy", (0, 3), 0.5)
    stage.checkpoint((0, 2), recomputed=1)
    stage.checkpoint((2, 3), recomputed=0)
    return stage


COMPLETED = {"(0, 2)": {"recomputed": 1}, "(2, 3)": {"recomputed": 0}}


# What is read, and whether there is something to do


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
        if code_hash("03_exact_knn.py", sources)
        != code_hash("03_exact_knn.py", sources | {path: sources[path] + b"# edited"})
    }
    assert concerned == set(texts) - {"drift/metrics.py", "05_metrics.py"}
    # Where the package is installed there are no scripts, and all of it counts.
    installed = {path: sources[path] for path in sources if path.startswith("drift/")}
    other = installed | {"drift/metrics.py": b""}
    assert code_hash("03_exact_knn.py", installed) == code_hash(None, sources)
    assert code_hash("03_exact_knn.py", installed) != code_hash(None, other)


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
    assert (code_hash("drift/a.py", sources) != code_hash("drift/a.py", other)) == is_import


# Resuming


def test_a_stage_resumes_an_interrupted_run_and_commits_what_both_stored(results):
    interrupt(results)
    assert begin(results, "03_exact", PLANNED).completed == {}
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
    assert load_array(results.path("03_exact_indices.npy"))[:, 0].tolist() == [7, 7, 7, 8, 8, 8]


def array_of(shape, dtype):
    return lambda folder: np.save(folder / "03_exact_indices.npy", np.zeros(shape, dtype))


def text_of(change, name="plan.json"):
    def edit(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(change(content))

    return edit


def plan_of(change):
    return lambda folder: edit(folder / "plan.json", change)


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
        text_of(lambda content: b"[" * 200_000),
        plan_of(at("completed", "(0, 2)", "recomputed", "many")),
        plan_of(at("completed", "(0, 2)", {})),
        plan_of(at("completed", [])),
        plan_of(at("arrays", "03_exact_indices.npy", 3)),
        plan_of(at("arrays", "../../03_exact_indices.npy", [])),
        plan_of(at("arrays", ...)),
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
        {"parameters": EXACT | {"k_max": 3}},
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


@pytest.mark.parametrize(("plan", "is_left"), [(EXACT, False), (PLANNED, True)])
def test_what_a_killed_force_has_left_goes_when_the_stage_is_up_to_date(plan, is_left, chain):
    inputs = chain.require("02_embeddings.npy")
    begin(chain, "03_exact", plan, inputs, force=True).create("03_queries.npy", (3,), np.int32)
    assert not Stage("03_exact", chain.root, inputs=inputs).begin(EXACT)
    assert chain.path(PARTIAL).exists() == is_left  # what another command resumes


def test_what_is_completed_is_kept_when_another_array_is_created(results):
    for runs in (["first", "second"], ["first", "second", "third"]):
        stage = begin(results, "06_figures")
        for run in runs:
            stage.create(f"{run}.npy", (2,), np.float64, scratch=True)
            if run not in stage.completed:
                stage.checkpoint(run, seconds=2)
    assert list(stage.completed) == ["first", "second", "third"]
    assert stage.total("seconds") == 6


# Outputs


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


def begin_other_lists(chain, **options):
    """Stage 03 by another plan, with one array written."""
    stage = begin(chain, "03_exact", PLANNED, chain.require("02_embeddings.npy"), **options)
    stage.create("03_exact_indices.npy", (4, 2), np.int32)
    stage.write("03_exact_indices.npy", (0, 4), 9)
    return stage


@pytest.mark.parametrize("moves", range(5))
def test_crash_in_a_commit_leaves_the_former_results_or_the_new(moves, chain, monkeypatch):
    class PowerCutError(Exception):
        pass

    before = snapshot(chain.root)
    stage = begin_other_lists(chain)
    stage.save("03_queries.npy", np.full(4, 3, np.int32))
    stage.checkpoint((0, 4), recomputed=0)
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
        assert begin_other_lists(chain).completed == {"(0, 4)": {"recomputed": 0}}
    else:
        assert chain.up_to_date("03_exact", PLANNED, stage.inputs)
        assert (load_array(chain.path("03_exact_indices.npy")) == 9).all()
        assert not chain.path(PARTIAL).exists()
    finish_commits(chain)


@pytest.mark.parametrize(
    ("folder", "change"),
    [
        ("03_exact", at("outputs", "../victim", {})),
        ("03_exact", at("outputs", "03_mine.npy", {})),
        ("03_exact", at("stage", "../sub")),
        ("01_images", at("date", "1970")),
        *(("03_exact", text) for text in ("", "{}", "[]")),
        ("03_exact", None),  # whole, but for a link beside it
    ],
)
def test_a_decision_of_others_moves_and_removes_nothing(folder, change, chain, tmp_path):
    manifest = chain.path(f"{PARTIAL}/{folder}/manifest.json")
    manifest.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(chain.path("03_exact.json"), manifest)
    (tmp_path / "sub").mkdir()
    for victim in ("victim", "sub/run.json", "results/03_mine.npy", "elsewhere"):
        (tmp_path / victim).write_text("precious")
    before = snapshot(tmp_path)
    if isinstance(change, str):
        manifest.write_text(change)
    elif change:
        edit(manifest, change)
    else:
        (manifest.parent / "03_queries.npy").symlink_to(tmp_path / "elsewhere")
    finish_commits(chain)
    assert snapshot(tmp_path) == before


def test_what_a_stage_does_not_write_is_not_committed(chain):
    before = snapshot(chain.root)
    stage = begin_other_lists(chain)
    for name in ("../victim", "02_embeddings.npy", "03_mine.npy"):
        with pytest.raises(ValueError, match=f"{name}"):
            stage.output(name)
    stage = begin(chain, "02_embeddings", {"model": None}, force=True)
    stage.save("02_embeddings.npy", np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"02_embeddings: .*manifests.py"):
        stage.commit(mean_norm="one")
    assert snapshot(chain.root) == before


# A full disk


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk_names_the_file_that_did_not_fit(results, monkeypatch):
    stage, *_ = begin_exact(results)
    fails = {
        (np, "save"): ("03_queries.npy", lambda name: stage.save(name, np.arange(3))),
        (np.lib.format, "open_memmap"): ("a.npy", lambda name: stage.create(name, (1,), int, True)),
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


FOREIGN = {
    "a link": lambda path, victim: path.symlink_to(victim),
    "another name": lambda path, victim: path.hardlink_to(victim),
    **{kind: lambda path, _, make=make: make(path) for kind, make in NO_FILE.items()},
}
FOREIGN.pop("a folder")


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize(
    "name", ["03_exact_indices.npy", "plan.json", ".plan.json.tmp", "03_queries.npy"]
)
def test_nothing_is_written_where_unfinished_work_leads_elsewhere(kind, name, results, tmp_path):
    interrupt(results)
    path, victim = results.path(f"{PARTIAL}/03_exact/{name}"), tmp_path / "victim"
    if path.exists():
        path.rename(victim)
    else:
        victim.write_text("precious")
    FOREIGN[kind](path, victim)
    before = victim.read_bytes()
    finish_commits(results)
    for force in (False, True):
        with pytest.raises(ArtifactError, match=f"{name} is a link, or no file of this stage"):
            begin_exact(results, force=force)
    assert victim.read_bytes() == before
    path.unlink()
    begin_exact(results)


def test_folder_in_place_of_an_output_is_named_before_any_work(results):
    results.path("03_queries.npy").mkdir(parents=True)
    with pytest.raises(ArtifactError, match=r"03_queries.npy is a folder"):
        begin(results, "03_exact").save("03_queries.npy", np.arange(3))
    results.path("06_figures.json").mkdir()
    with pytest.raises(ArtifactError, match=r"06_figures.json is a folder"):
        begin(results, "06_figures").output("06_report.html")
