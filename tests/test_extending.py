"""The recipes of docs/extending.md, followed to the letter in a copy of this checkout."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from tests.conftest import ROOT, one_after_the_other

RECIPES = (ROOT / "docs/extending.md").read_text()
METRIC, INDEX, FIGURE = re.findall(r"```python\n(.*?)```", RECIPES, re.DOTALL)
LINES = re.findall(r"the line `( {4}.*?)`", RECIPES)


def insert(path, before, text):
    source = path.read_text()
    assert source.count(before) == 1
    path.write_text(source.replace(before, text + before))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What the extended stages 02 to 06 write."""
    root = tmp_path_factory.mktemp("extended")
    shutil.copytree(ROOT / "drift", root / "drift", ignore=shutil.ignore_patterns("__pycache__"))
    for script in ROOT.glob("0[2-6]_*.py"):
        shutil.copy(script, root)
    insert(root / "drift/metrics.py", "# A column has its function's name", f"{METRIC}\n\n")
    insert(root / "drift/metrics.py", "}\nMETRICS = ", f"{LINES[0]}\n")
    (root / "drift/indexes/sample.py").write_text(INDEX)
    registry = root / "drift/indexes/registry.py"
    insert(registry, "\nLIBRARIES: dict", "from drift.indexes.sample import Sample\n")
    insert(registry, '    "faiss": Faiss,\n', f"{LINES[1]}\n")
    figures = root / "drift/report/figures.py"
    insert(figures, "# By name: the file is", f"{FIGURE}\n\n")
    insert(figures, '    "overlap": Entry(', f"{LINES[2]}\n")
    np.save(root / "x.npy", np.random.default_rng(0).normal(size=(300, 8)))
    commands = (
        "02_embed_resnet50.py --from-file x.npy",
        "03_exact_knn.py --k-max 20",
        "04_hnsw_search.py --runs faiss:50 sample:100 --k 5 20",
        "05_metrics.py",
        "06_plots.py --dpi 30",
    )
    one_after_the_other(map(str.split, commands), root / "results", root)
    return root / "results"


def test_a_target_needs_a_range_of_values(results):
    search = [sys.executable, "04_hnsw_search.py", "--runs", "sample:overlap=0.9"]
    ended = subprocess.run(search, cwd=results.parent, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "sample does not say from where to where to look" in ended.stderr


def test_there_are_three_recipes_and_they_are_short():
    assert len(LINES) == 3
    assert len(RECIPES.splitlines()) <= 60


def test_a_metric_is_measured_summarized_and_shown(results):
    per_query = pd.read_parquet(results / "05_per_query.parquet")
    mean = per_query[per_query["k"] == 20].groupby("run")["first_kept"].mean()
    curves = pd.read_parquet(results / "05_curves.parquet").query("metric == 'first_kept'")
    assert sorted(curves["k"].unique()) == [5, 20]
    assert mean["faiss_M32_efc200_ef50"] == 1 > mean["sample_M32_efc200_ef100"] > 0.1
    assert ">first_kept<" in (results / "06_report.html").read_text()


def test_an_index_is_searched_like_the_others(results):
    curves = pd.read_parquet(results / "05_curves.parquet")
    overlap = curves.query("metric == 'overlap' and k == 20").set_index("run")["mean"]
    # A third of the rows are looked at, and a third of the neighbors among them.
    assert overlap["sample_M32_efc200_ef100"] == pytest.approx(1 / 3, abs=0.05)


def test_a_figure_is_drawn_and_shown(results):
    assert (results / "06_first.png").stat().st_size > 1000
    assert "How often the nearest neighbor came first." in (results / "06_report.html").read_text()
