"""The grid of k that is asked for, and that of lists, queries and vectors that people have."""

import argparse
import shlex
import shutil

import numpy as np
import pytest

from drift import InputError
from drift.pipeline import cli
from drift.pipeline.manifests import read_manifest
from tests.conftest import ROOT, shell


def grid(flags, exact_k=250):
    parser = argparse.ArgumentParser()
    cli.add_grid(parser)
    cli.check_grid(args := parser.parse_args(flags.split()))
    return cli.k_grid(args, exact_k)


@pytest.mark.parametrize(
    ("flags", "exact_k", "expected"),
    [
        # By steps it always ends at its last k, without flags at the last exact neighbor.
        ("", 250, list(range(10, 251, 10))),
        ("", 25, [10, 20, 25]),
        ("--k-step 100", 250, [10, 110, 210, 250]),
        ("--k-max 40", 250, [10, 20, 30, 40]),
        ("--k-min 7 --k-max 30 --k-step 11", 250, [7, 18, 29, 30]),
        ("--k-min 30 --k-max 30", 250, [30]),
        ("--k-min 249", 250, [249, 250]),
        ("--k-step 500", 250, [10, 250]),
        ("", 6, [6]),
        ("--k-max 5", 250, [5]),
        # Named itself it is ascending and has each k once.
        ("--k 100 10 100 50", 250, [10, 50, 100]),
    ],
)
def test_grids(flags, exact_k, expected):
    assert grid(flags, exact_k) == expected


@pytest.mark.parametrize(
    ("flags", "exact_k", "message"),
    [
        ("--k 10 --k-step 5", 250, "^--k is a grid by itself"),
        ("--k 300", 250, "^k = 300 is more than the 250 .* --k-max 300 first$"),
        ("--k-max 300", 250, "^k = 300 is more .*: run 03_exact_knn.py --k-max 300 first$"),
        ("--k-min 50", 40, "^k = 50 is more than the 40 "),
        ("--k-min 50 --k-max 40", 250, "is empty: --k-min 50 is above --k-max 40"),
    ],
)
def test_what_is_no_grid(flags, exact_k, message):
    with pytest.raises(InputError, match=message):
        grid(flags, exact_k)


@pytest.fixture
def stages(stages, small):
    """In a copy of a small study."""
    shutil.copytree(small, stages.folder)
    return stages


def parameters(stages, name):
    return read_manifest(stages.folder / name)["parameters"]


def test_lists_of_another_system_are_on_the_grid_at_their_own_length(stages, tmp_path):
    exact, file = np.load(stages.folder / "03_exact_indices.npy"), tmp_path / "my ids.npy"
    lists = f"--lists x {shlex.quote(str(file))}"

    def grid(flags, ids):
        np.save(file, ids)
        out = stages(f"04 {lists} {flags}")
        return parameters(stages, "04_hnsw/x/run.json")["k_grid"], out

    assert grid("", exact[:, :15])[0] == [10, 15]
    assert grid("--k 3", exact[:, :15])[0] == [3, 10, 15], "added"
    assert grid("--k 3 --replace-k", exact[:, :15])[0] == [3, 15]
    assert grid("", exact[:, :5])[0] == [5], "other lists"
    own = np.hstack([np.arange(400)[:, None], exact])
    ks, out = grid("", own[:, :30])
    assert ks == [10, 20, 29]
    assert "lists of 30 hold the query itself, which leaves 29: ask for 31 to measure k = 30" in out
    assert "ask for" not in grid("", own)[1], "a list that is longer than any exact one"
    hits = "".join(f"{row},{row}\n" for row in range(400))
    (tmp_path / "hits.csv").write_text("query,id\n" + hits)
    assert "the query alone" in stages(f"04 --lists y {tmp_path / 'hits.csv'}", fails=True)
    # Lists of all rows, of which some are queries.
    np.save(file, exact[:, :20])
    stages("03 --queries 50 --k-max 60", f"04 {lists}")
    exact = np.load(stages.folder / "03_exact_indices.npy")
    np.testing.assert_array_equal(stages.lists("x", 20), exact[:, :20])
    # What a new stage 03 leaves out names its command, which is one of a shell.
    out = stages("04 --runs faiss:50 --m 4", "03 --k-max 60", "04 --runs faiss:9", "05")
    for command in (lists, "--runs faiss:50 --m 4"):
        assert f"exact lists: run 04_hnsw_search.py {command} again)" in out
        stages(f"04 {command}")
    assert "left out" not in stages("05")


def test_a_k_of_interest_that_nobody_searched_names_the_command_that_adds_it(stages):
    stages("04 --runs faiss:50 hnswlib:50 --m 4", "04 --runs IVF4,Flat:nprobe=2 --seed 3")
    error = stages("05 --k-of-interest 15", fails=True)
    assert "--k-of-interest 15 was searched by no run, but 10, 20, ... 60; this adds it: " in error
    commands = error.strip().rpartition(": ")[2].split(" && ")
    assert len(commands) == 2
    for command in commands:
        program, script, *flags = shlex.split(command)
        assert (program, script) == ("python", "04_hnsw_search.py")
        assert flags[:2] == ["--results", str(stages.folder)]
        stages(shlex.join(["04", *flags]))
    stages("05 --k-of-interest 15")
    for run in stages.folder.glob("04_hnsw/*/run.json"):
        grid = parameters(stages, run.relative_to(stages.folder))["k_grid"]
        assert grid == [10, 15, 20, 30, 40, 50, 60]


def test_fewer_rows_than_k_cut_it(stages, tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(9, 4)))
    out = stages(f"02 --from-file {tmp_path / 'x.npy'}", "03")
    assert "--k-max 250 is cut to 8: 9 rows give a query no more neighbors\n" in out
    assert parameters(stages, "03_exact.json")["k_max"] == 8
    assert np.load(stages.folder / "03_exact_indices.npy").shape == (9, 8)
    assert "up to date" in stages("03") and "is cut" not in stages("03 --k-max 8")
    stages("04 --runs faiss:50")
    assert parameters(stages, "04_hnsw/faiss_M32_efc200_ef50/run.json")["k_grid"] == [8]
    np.save(tmp_path / "x.npy", np.zeros((1, 4)))
    stages(f"02 --from-file {tmp_path / 'x.npy'}")
    assert "1 row gives a query at most 0 neighbors" in stages("03", fails=True)


@pytest.mark.parametrize(
    ("asked", "metric"),
    [("l2", "euclidean"), ("L2", "euclidean"), ("angular", "cosine"), ("Cosine", "cosine")],
)
def test_a_metric_has_one_name_in_manifests(asked, metric, stages, tmp_path):
    x = np.random.default_rng(0).normal(size=(9, 4)) + 100
    np.save(tmp_path / "x.npy", x)
    out = stages(f"02 --from-file {tmp_path / 'x.npy'} --metric {asked}")
    assert parameters(stages, "02_embeddings.json")["metric"] == metric
    assert "up to date" in stages(f"02 --from-file {tmp_path / 'x.npy'} --metric {metric}")
    # By how much doubles are rounded is said, and of floats there is nothing to say.
    assert ("rounding to float32 moves the vectors by" in out) is (metric == "euclidean")
    np.save(tmp_path / "x.npy", x.astype(np.float32))
    assert "rounding" not in stages(f"02 --from-file {tmp_path / 'x.npy'} --metric {asked}")


def test_from_another_folder_paths_in_messages_are_absolute(tmp_path):
    for folder, missing in ((tmp_path, tmp_path / "none"), (ROOT, "none")):
        done = shell("03_exact_knn.py", results="none", cwd=folder)
        assert f" {missing}/02_embeddings.npy is missing" in done.stderr
