"""Peak memory of the stages that go through all embeddings: these, what is promised, no more."""

import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import ROOT, shell

# Few rows of many dimensions: what grows is the vectors, and hardly anything else.
ROWS, DIM = (3_000, 10_000), 4096
GROWTH = (ROWS[1] - ROWS[0]) * DIM * 4
COMMANDS = [
    ("03_exact_knn.py", "--queries", "200", "--k-max", "10"),
    ("04_hnsw_search.py", "--runs", "Flat", "IVF1,Flat"),
    ("05_metrics.py",),
]
# A process takes over the peak of the one that starts it, and pytest's own may be large. This one
# between them is small.
START = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"
# The peak as the script ends: the end of the process touches much of the libraries once more.
RUN = """
import runpy, sys
from drift.pipeline.environment import peak_memory
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print(peak_memory())
"""


def peak(script, *args, results):
    """Largest resident size of a script's process, in bytes; files mapped into memory count."""
    python = (sys.executable, "-c")
    command = [*python, START, *python, RUN, ROOT / script, "--results", results, *args]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def growth(tmp_path_factory):
    """By script, what its peak grows by, in units of what the embeddings grow by."""
    peaks = {}
    for rows in ROWS:
        folder = tmp_path_factory.mktemp(f"{rows} rows")
        given, results = folder / "x.npy", folder / "results"
        np.save(given, np.random.default_rng(0).random((rows, DIM), dtype=np.float32))
        done = shell("02_embed_resnet50.py", "--from-file", given, results=results)
        assert done.returncode == 0, done.stderr
        given.unlink()
        for script, *args in COMMANDS:
            peaks.setdefault(script, []).append(peak(script, *args, results=results))
        (results / "02_embeddings.npy").unlink()  # pytest keeps the folders of some runs
    return {script: (large - small) / GROWTH for script, (small, large) in peaks.items()}


def test_stage_03_holds_the_embeddings_and_a_centered_copy(growth):
    assert growth["03_exact_knn.py"] < 2.4


def test_stage_05_holds_the_embeddings_once_for_all_runs(growth):
    assert growth["05_metrics.py"] < 1.4
