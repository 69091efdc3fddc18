"""`pip install .`: the package alone, with its data, usable without the pipeline."""

import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from tests.conftest import ROOT


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


def test_installed_it_measures_lists_anywhere(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = "import drift; from drift.metrics import lid, neighborhood_overlap; "
    code += (
        "print(drift.__file__, neighborhood_overlap([[1, 2]], [[2, 3]])[0], lid([[1, 2, 4]])[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    path, overlap, lid = done.stdout.split()
    assert path.startswith(str(tmp_path))
    assert float(overlap) == 0.5
    # 1 / (ln 4 + ln 2)
    assert float(lid) == pytest.approx(1 / 2.0794415416798357)


def test_the_lines_in_the_readme_plot_an_overlap_curve(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    rng = np.random.default_rng(0)
    ids = np.stack([rng.permutation(100)[:40] for _ in range(5)])
    np.save(tmp_path / "exact_ids.npy", ids)
    np.save(tmp_path / "my_ids.npy", np.where(rng.random(ids.shape) < 0.9, ids, -1))
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "overlap.png").stat().st_size > 1000
    assert len(code.strip().splitlines()) <= 8
