"""Each benchmark whole, on so little that its times mean nothing, and what its table holds."""

import contextlib
import io
import re
import runpy
import sys

import pytest
import torch

from drift.pipeline.environment import processor
from tests.conftest import ROOT, restored_threads

TOY = "--rows 300 --dim 8"
# What each is given, and the lines of its table: how each begins, and the least numbers in it.
TABLES = {
    "backends": (f"{TOY} --queries 50 --k 5 20 --runs faiss:50", {"faiss:50": 7}),
    "cluster": (f"{TOY} --k 20 --images 0 --until 03", {"03": 5}),
    "embedding": (
        "--models efficientnet_lite0 --n-images 8 --k 5 --timed 2 --rounds 1",
        dict.fromkeys(("plain loop", "default", "--compile", "--precision bf16"), 4),
    ),
    "exact": (
        f"{TOY} --k 20 --rounds 1",
        dict.fromkeys(("exact, with certificate", "faiss.IndexFlatL2", "scikit-learn"), 2),
    ),
    "intervals": ("--series 20", dict.fromkeys(("crossing", "mean", "ratio", "share"), 4)),
    "lid": ("--balls 100 --rows 300 --k 20", {"10": 4, "torus": 4, "sphere": 4}),
    "metrics": (
        TOY,
        dict.fromkeys(("metrics of each query", "curves", "ours, all", "notebook's loops"), 1),
    ),
    "scale": (
        "--rows 300 600 --dim 8 --queries 50 --until 03",
        dict.fromkeys(("300", "600", "exponent"), 2),
    ),
    "stop_rules": (
        "--libraries FAISS hnswlib --k 5 60 --results {small} --folder {own}",
        {"| FAISS": 10, "| hnswlib": 10},
    ),
    "study": ("--rounds 1 --results {small}", {"": 9}),
}


def timed_here(script, *args):
    """In place of what a script takes in a process of its own, that it ends well in this one."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setattr(sys, "argv", [str(script), *map(str, args)])
        try:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        except SystemExit as end:
            assert not end.code, said.getvalue()
    return 1.0, 1.0, said.getvalue()


@pytest.mark.parametrize("name", TABLES)
def test_benchmark(name, small, tmp_path, capfd, draw_only, monkeypatch):
    draw_only("overlap")
    if name in ("cluster", "study"):
        monkeypatch.setattr("benchmarks.machine.timed", timed_here)
    args, lines = TABLES[name]
    args = [arg.format(small=small, own=tmp_path / "own") for arg in args.split()]
    monkeypatch.setattr(sys, "argv", [name, *args])
    monkeypatch.setattr(torch, "compile", lambda network, **_: network)  # half a minute faster
    with restored_threads():
        runpy.run_path(str(ROOT / f"benchmarks/{name}.py"), run_name="__main__")
    printed = capfd.readouterr().out
    assert processor() in printed or name in ("intervals", "lid"), "which have no times"
    for label, n in lines.items():
        found = re.findall(rf"^ *{re.escape(label)}\b(.*)$", printed, re.MULTILINE)
        assert any(len(re.findall(r"\d[\d.,]*", line)) >= n for line in found), (label, printed)


def test_every_benchmark_is_run():
    names = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    # The notebook's way is a part of the study's; recipes are tested with the lists that they make.
    assert names - {"machine", "notebook", "recipes", "vectors"} == set(TABLES)
