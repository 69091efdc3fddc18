"""What the tests that run the scripts share."""

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
N, K, GRID = 300, 40, [10, 20, 30, 40]
RUNS = ["faiss_M32_efc200_ef50", "faiss_M32_efc200_efk", "hnswlib_M32_efc200_ef50"]
PIPELINE = [
    ("01_download_stl10.py", "--dataset", "photos", "--n-images", str(N)),
    ("02_embed_resnet50.py", "--model", "efficientnet_lite0"),
    ("03_exact_knn.py", "--k-max", str(K)),
    ("04_hnsw_search.py",),
    ("05_metrics.py",),
    ("06_plots.py",),
]


def shell(script, *args, results):
    """Run a script as a process of its own."""
    command = [sys.executable, ROOT / script, "--results", results, *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def run(script, *args, results, capsys, monkeypatch):
    """Run a script in this process, which spares the imports: status, output, error output."""
    monkeypatch.setattr(sys, "argv", [script, "--results", str(results), *map(str, args)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    captured = capsys.readouterr()
    return end.value.code, captured.out, captured.err


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Results of all six stages. Tests only read them."""
    results = tmp_path_factory.mktemp("finished with spaces and ä") / "results"
    for script, *args in PIPELINE:
        done = shell(script, *args, results=results)
        assert done.returncode == 0, done.stderr
        assert "\n" in done.stdout.strip(), "every stage ends with a table"
        assert done.stderr == "", "no progress bar, no warning where the output is no terminal"
    return results


@pytest.fixture
def results(finished, tmp_path):
    """A copy to break."""
    return Path(shutil.copytree(finished, tmp_path / "results"))


@pytest.fixture
def drive(capsys, monkeypatch):
    def call(script, *args, results):
        return run(script, *args, results=results, capsys=capsys, monkeypatch=monkeypatch)

    return call
