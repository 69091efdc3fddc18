"""What the scripts import before they work, and what Ctrl-C does meanwhile."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import PIPELINE, ROOT

SCRIPTS = [script for script, *_ in PIPELINE]
# Each takes half a second or more.
SLOW = {"torch", "scipy.stats", "distributed", "dask"}
# Nor are these needed to say what is up to date.
UNUSED = {"matplotlib", "scipy", "psycopg", "usearch", "igraph"}


def imported(script, *args):
    """Modules that a script imports, and what it prints."""
    command = [sys.executable, "-X", "importtime", ROOT / script, *args]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr[-1000:]
    return set(re.findall(r"^import time:.*\| +(\S+)$", ended.stderr, re.M)), ended.stdout


@pytest.mark.parametrize(("script", "args"), [(script, args) for script, *args in PIPELINE])
def test_up_to_date_imports_nothing_slow(script, args, finished):
    modules, out = imported(script, *args, "--results", finished)
    assert "up to date" in out
    assert not modules & (SLOW | UNUSED)
    assert "faiss" not in modules or script.startswith("04")


def test_help_is_the_docstring_and_every_default(drive, tmp_path):
    for script in SCRIPTS:
        status, out, _ = drive(script, "--help", results=tmp_path / "none")
        assert (status, out.startswith(f"usage: {script}")) == (0, True)
        assert f"Stage {script[:2]}: " in out
        assert "results folder (default: results)" in out


def test_what_comes_after_embedding_never_imports_anything_slow(small, tmp_path):
    results = shutil.copytree(small, tmp_path / "results")
    for script, *args in PIPELINE[2:5]:
        modules, out = imported(script, *args, "--results", results, "--force")
        assert "up to date" not in out
        assert not modules & SLOW, script


def start(script, **environment):
    return subprocess.Popen(
        [sys.executable, ROOT / script, "--help"],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell lets what it runs in the background ignore interruptions, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def ends_in_one_line(process, script, by):
    lines = [line for line in process.stderr if not line.startswith("import time:")]
    assert process.wait(timeout=60) == 128 + by
    assert process.stdout.read() == ""
    assert lines == [f"{script}: interrupted; the same command resumes\n"]


@pytest.mark.parametrize(
    ("script", "module", "by"),
    [
        (SCRIPTS[0], "numpy", signal.SIGINT),
        (SCRIPTS[4], "pandas", signal.SIGTERM),
        (SCRIPTS[5], "filelock", signal.SIGHUP),
    ],
)
def test_interrupted_in_an_import_it_ends_in_one_line(script, module, by, tmp_path):
    begun = tmp_path / "begun"
    stall = f"import pathlib, time\npathlib.Path({str(begun)!r}).touch()\ntime.sleep(60)\n"
    (tmp_path / f"{module}.py").write_text(stall)
    process = start(script, PYTHONPATH=str(tmp_path))
    while not begun.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(by)
    ends_in_one_line(process, script, by)


@pytest.mark.parametrize("module", ["drift.pipeline.environment", "numpy", "pandas._libs"])
def test_interrupted_after_an_import_it_ends_in_one_line(module):
    script = SCRIPTS[4]
    process = start(script, PYTHONPROFILEIMPORTTIME="1")
    for line in process.stderr:
        if line.rpartition(" ")[2] == f"{module}\n":
            process.send_signal(signal.SIGINT)
            break
    ends_in_one_line(process, script, signal.SIGINT)


def test_what_nohup_lets_a_script_ignore_stays_ignored():
    ignored = "import os, signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
    script = "import drift.pipeline; os.kill(os.getpid(), signal.SIGHUP); print('goes on')"
    command = [sys.executable, "-c", ignored + script]
    assert subprocess.check_output(command, cwd=ROOT, text=True) == "goes on\n"
