"""The whole pipeline from the command line, as its users run it, on a few hundred photographs."""

import json
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import threadpoolctl

from drift import metrics
from drift.curves import curve_names
from drift.pipeline import cli
from drift.pipeline.results import Results
from drift.pipeline.stage import Stage
from tests.conftest import GRID, PIPELINE, ROOT, RUNS, K, N, contents, restored_threads

SEARCH = "04_hnsw_search.py"


def test_arrays_have_the_names_dtypes_and_shapes_of_the_contract(finished):
    expected = {
        "01_images.npy": (np.uint8, (N, 96, 96, 3)),
        "02_embeddings.npy": (np.float32, (N, 1280)),
        "03_queries.npy": (np.int32, (N,)),
        "03_exact_indices.npy": (np.int32, (N, K)),
        "03_exact_distances.npy": (np.float32, (N, K)),
    }
    for name in RUNS:
        for k in GRID:
            expected[f"04_hnsw/{name}/k{k:04d}_indices.npy"] = (np.int32, (N, k))
            expected[f"04_hnsw/{name}/k{k:04d}_distances.npy"] = (np.float32, (N, k))
    assert set(contents(finished, ".npy")) == set(expected)
    for name, (dtype, shape) in expected.items():
        array = np.load(finished / name)
        assert (array.dtype, array.shape) == (dtype, shape), name


def test_tables_have_the_columns_of_the_contract(finished):
    images = pd.read_parquet(finished / "01_images.parquet")
    columns = {"row": "int32", "source": "str", "label": "int16", "group": "int32"}
    assert dict(images.dtypes.astype(str)) == columns
    assert (images["row"] == np.arange(N)).all()
    assert (images["label"] == -1).all()
    assert images["source"].str.fullmatch(r"photos/\w+/x\d+_y\d+_s\d+(_flip)?").all()

    names = [metric.name for metric in metrics.METRICS]
    per_query = pd.read_parquet(finished / "05_per_query.parquet")
    assert list(per_query) == ["run", "k", "query", *names]
    assert per_query["k"].dtype == per_query["query"].dtype == np.int32
    assert len(per_query) == len(RUNS) * len(GRID) * N

    curves = pd.read_parquet(finished / "05_curves.parquet")
    numbers = ["mean", "std", "median", "q05", "q95", "ci_low", "ci_high", "n"]
    assert list(curves) == ["run", "k", "metric", *numbers, "groups_that_differ"]
    of_graph = ["hubness_exact", "hubness_ann", "orphans_exact", "orphans_ann"]
    names = curve_names(dict.fromkeys(names)) + of_graph
    assert set(curves["metric"]) == set(names)
    assert len(curves) == len(RUNS) * len(GRID) * len(names)

    safe_k = pd.read_parquet(finished / "05_safe_k.parquet")
    columns = ["run", "criterion", "tolerance", "safe_k"]
    columns += ["crossing_k", "crossing_low", "crossing_high"]
    assert list(safe_k) == columns
    assert set(zip(safe_k["criterion"], safe_k["tolerance"], strict=True)) == {
        *(("overlap", tolerance) for tolerance in (0.99, 0.95, 0.90)),
        *(("lid", tolerance) for tolerance in (0.01, 0.05, 0.10)),
    }
    assert len(safe_k) == 6 * len(RUNS)


def test_manifests_name_what_went_in_and_came_out(finished):
    manifests = ["01_images", "02_embeddings", "03_exact", "05_metrics", "06_figures"]
    for name in [
        *(f"{stage}.json" for stage in manifests),
        *(f"04_hnsw/{r}/run.json" for r in RUNS),
    ]:
        manifest = json.loads((finished / name).read_text())
        fields = {"stage", "parameters", "inputs", "outputs", "versions", "seconds", "date", "code"}
        assert fields <= set(manifest), name
        assert set(manifest["machine"]) == {"processor", "threads"}
    manifest = json.loads((finished / "04_hnsw" / RUNS[1] / "run.json").read_text())
    expected = {"backend": "faiss", "M": 32, "ef_construction": 200, "ef_search": "k,50", "seed": 0}
    assert expected.items() <= manifest["parameters"].items()
    assert list(manifest["search_seconds"]) == list(map(str, GRID))
    assert manifest["effective_ef"]["40"]["stops_after"] == 50
    assert manifest["graph"]["unreachable_rows"] >= 0
    assert manifest["graph"]["index_bytes"] > N * 1280 * 4
    assert manifest["build_seconds"] > 0
    assert manifest["peak_memory_bytes"] > 1e6
    norms = np.linalg.norm(np.load(finished / "02_embeddings.npy"), axis=1)
    mean_norm = json.loads((finished / "02_embeddings.json").read_text())["mean_norm"]
    assert mean_norm == pytest.approx(norms.mean())


def test_the_same_command_gives_the_same_bytes_and_then_its_table_again(finished, results, drive):
    for script, *args in (PIPELINE[0], *PIPELINE[2:5]):
        status, first, _ = drive(script, *args, "--force", results=results)
        assert status == 0
        assert "up to date" not in first
        status, again, _ = drive(script, *args, results=results)
        assert status == 0
        lines = again.splitlines(keepends=True)
        assert "".join(line for line in lines if ": up to date in" not in line) == first
        assert len(lines) > first.count("\n")
    assert contents(results, ".npy", ".parquet") == contents(finished, ".npy", ".parquet")


def test_threads_bind_numpy_too(tmp_path, capsys, monkeypatch):
    def main(args):
        libraries = [i for i in threadpoolctl.threadpool_info() if i["user_api"] == "blas"]
        print(*{library["num_threads"] for library in libraries})

    monkeypatch.setattr("sys.argv", ["x", "--results", str(tmp_path), "--threads", "1"])
    with restored_threads(), pytest.raises(SystemExit):
        cli.run(main, cli.parser("x"))
    assert capsys.readouterr() == ("1\n", "")


@pytest.mark.parametrize(
    ("script", "first"),
    [
        ("02_embed_resnet50.py", "01_download_stl10.py"),
        ("03_exact_knn.py", "02_embed_resnet50.py"),
        ("04_hnsw_search.py", "02_embed_resnet50.py"),
        ("05_metrics.py", "02_embed_resnet50.py"),
        ("06_plots.py", "05_metrics.py"),
    ],
)
def test_a_script_alone_names_the_one_to_run_first(script, first, tmp_path, drive):
    status, out, err = drive(script, results=tmp_path / "none")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert f"run {first} first" in err
    assert not (tmp_path / "none").exists()


def test_runs_accumulate_are_left_out_and_cleared(results, stages):
    stages("04 --runs faiss:7 --seed 3")
    assert (results / "04_hnsw/faiss_M32_efc200_ef7_seed3/run.json").exists()
    assert "run 05_metrics.py again" in stages("06", fails=True)
    stages("05")
    runs = {*RUNS, "faiss_M32_efc200_ef7_seed3"}
    assert set(pd.read_parquet(results / "05_curves.parquet")["run"]) == runs

    # Longer exact lists are as good. Where they are shorter, a run is measured as far as they go.
    assert "left out" not in stages("03 --k-max 50", "05")
    stages("03 --k-max 9")
    assert "run 03_exact_knn.py" in stages("05", fails=True)
    assert "up to date" in stages("03 --k-max 30", "04 --runs faiss:k,50")
    stages("04 --runs faiss:k,50 --replace-k")
    assert len([*(results / "04_hnsw" / RUNS[1]).glob("*.npy")]) == 6, "no lists of the former grid"
    out = stages("05")
    assert out.count(" beyond k = 30 (the exact lists end there)\n") == 3
    curves = pd.read_parquet(results / "05_curves.parquet")
    assert set(curves["run"]) == runs and curves["k"].max() == 30

    stages("04 --runs faiss:k,50 --replace")
    assert [path.name for path in (results / "04_hnsw").iterdir()] == [RUNS[1]]


def test_replace_names_what_it_removes_before_it_does(results, drive, stages, monkeypatch):
    stages("04 --runs faiss:9 --m 4 --save-index")
    folder = results / "04_hnsw"
    before = contents(folder, ".npy", ".json", ".faiss")
    removed = [*RUNS[1:], "faiss_M4_efc200_ef9", "faiss_M4_efc200"]
    with monkeypatch.context() as patched:

        def interrupt(*_):
            raise KeyboardInterrupt

        patched.setattr(Results, "remove", interrupt)
        status, out, _ = drive(SEARCH, "--runs", "faiss:50", "--replace", results=results)
    assert status == 130
    line = next(line for line in out.splitlines() if line.startswith("removing from"))
    prefix, _, names = line.partition(": ")
    assert prefix == f"removing from {folder}"
    assert sorted(names.split(", ")) == sorted(removed)
    assert contents(folder, ".npy", ".json", ".faiss") == before
    assert line in stages("04 --runs faiss:50 --replace")
    assert [path.name for path in folder.iterdir()] == RUNS[:1]
    assert "removing" not in stages("04 --runs faiss:50 --replace")


def test_a_saved_graph_of_other_embeddings_or_a_damaged_one_is_not_searched(results, stages):
    graph = results / "04_hnsw/graphs/faiss_M32_efc200.faiss"
    # One of another seed is another graph, and what was not to be saved is not.
    stages("04 --runs faiss:50 --save-index", "04 --runs faiss:2k --seed 1")
    assert {path.stem for path in graph.parent.iterdir()} == {graph.stem}
    whole = graph.read_bytes()
    graph.write_bytes(whole[:-1])
    anew = f"{graph} is damaged or of other embeddings: the graph is built anew"
    assert anew in stages("04 --runs faiss:9")
    assert graph.read_bytes() == whole
    assert "built anew" not in stages("04 --runs faiss:9 --force")
    assert not (results / ".partial").exists()

    embeddings = np.load(results / "02_embeddings.npy")
    np.save(results.parent / "x.npy", embeddings[::-1])
    stages(["02", "--from-file", results.parent / "x.npy"], f"03 --k-max {K}")
    assert anew in stages("04 --runs faiss:9")
    assert graph.read_bytes() != whole
    assert "built anew" not in stages("04 --runs faiss:7")


def test_a_sample_of_queries_leaves_out_what_describes_whole_graphs(results, stages):
    stages("03 --queries 50 --k-max 20", "04", "05")
    queries = np.load(results / "03_queries.npy")
    assert len(queries) == 50
    assert (np.diff(queries) > 0).all()
    curves = pd.read_parquet(results / "05_curves.parquet")
    assert not curves["metric"].str.contains("hubness|orphans").any()
    per_query = pd.read_parquet(results / "05_per_query.parquet")
    assert set(per_query["query"]) == set(queries)


# What is wrong by itself, by the stage, whatever there is in the folder.
BAD_ARGUMENTS = {
    "01 --dataset cifar": "cifar",
    "01 --n-images 0": "--n-images",
    "01 --image-size 9": "--image-size goes with --dataset folder",
    "01 --dataset photos --data-dir x": "--data-dir goes with --dataset stl10",
    "01 --dataset folder --images x --archive y": "--archive goes with",
    "01 --dataset folder": "--images DIR",
    "01 --dataset photos --n-images all": "--n-images all",
    "01 --split train --n-images 5001": "more than the 5000 images",
    "01 --url http://x --archive y": "not allowed with",
    "01 --url ftp://x": "no http or https address",
    "01 --url file:///etc/passwd": "no http or https address",
    "01 --url data:,x": "no http or https address",
    "02 --from-file x.npy --weights y.pth": "--weights goes with --model",
    "02 --model resnet18 --from-file x.npy": "--from-file",
    "02 --resize 223": "224",
    "02 --precision fp16": "fp16",
    "02 --batch-size 0": "--batch-size",
    "02 --drop-bad": "--drop-bad goes with --from-file",
    "02 --metric hamming": "not hamming",
    "02 --from-file q.npy --metric inner_product": "sqrt(R^2 - |x|^2) is appended",
    "02 --model resnet5": "did you mean resnet50",
    "02 --device cuda": "take --device cpu",
    "03 --k-max -3": "--k-max",
    "03 --queries 0": "--queries 0",
    "03 --queries 3 --column emb": "are of queries in a file",
    "03 --queries q.npy --protocol notebook": "is for queries that are rows",
    "03 --device cuda": "--device cpu",
    "04 --runs annoy:50": "annoy:50",
    "04 --runs faiss": "write faiss:50",
    "04 --runs faiss:0": "faiss:0",
    "04 --runs faiss:99999999999": "faiss:99999999999",
    "04 --runs HNSW32,Flat HNSW32_Flat": "would have the name HNSW32_Flat",
    "04 --m 99999999999": "--m",
    "04 --ef-construction 99999999999": "--ef-construction",
    "04 --threads 99999999999": "--threads",
    "04 --seed 0 --seeds 1": "--seeds is in place of --seed",
    "04 --postgres postgresql://localhost/x": "--postgres goes with --runs pgvector",
    "04 --k-step 0": "--k-step",
    "04 --k 10 --k-max 250": "--k is a grid by itself",
    "04 --k-min 20 --k-max 10": "the grid is empty",
    "04 --seconds 0": "--seconds",
    "04 --seconds 2": "--seconds goes with --lists",
    "04 --lists x": "it takes NAME IDS",
    "04 --lists x ids.npy --columns id": "--columns are id=NAME",
    "04 --lists x ids.npy --lists y ids.npy --seconds 2": "one of --lists at a time",
    "04 --lists x ids.npy --lists x ids.npy": "is given twice",
    "04 --lists faiss_M32_efc200_ef50 ids.npy": "a name is of letters, digits",
    "04 --lists qdrant:ef=many ids.npy": "a setting is a number by its name, as qdrant:ef=64",
    "05 --seed x": "--seed",
    "06 --dpi lots": "lots",
    "06 --tolerance 0.2 0.1": "the smaller one first",
}


@pytest.mark.parametrize("command", BAD_ARGUMENTS)
def test_arguments_are_refused_before_anything_else(command, tmp_path, drive, monkeypatch):
    if "02 --model" in command or "cuda" in command:
        pytest.importorskip("torch")
    monkeypatch.setattr(cli, "lock_folder", None)  # nor is the folder looked into
    monkeypatch.setattr("torch.cuda.is_available", lambda: False) if "cuda" in command else None
    number, *flags = shlex.split(command)
    (script,) = (path.name for path in ROOT.glob(f"{number}_*.py"))
    status, out, err = drive(script, *flags, results=tmp_path)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert BAD_ARGUMENTS[command] in err
    assert not [*tmp_path.iterdir()]


BAD_INPUT = [
    ("02_embed_resnet50.py", ["--weights", "nowhere.pth"], "nowhere.pth"),
    ("02_embed_resnet50.py", ["--model", "resnet50", "--weights", __file__], "state dict"),
    ("03_exact_knn.py", ["--queries", "some"], "some"),
    ("04_hnsw_search.py", ["--lists", "mine", "none.npy"], "none.npy"),
]


@pytest.mark.parametrize(("script", "args", "message"), BAD_INPUT)
def test_bad_input_ends_in_one_line_and_loses_nothing(script, args, message, finished, drive):
    before = contents(finished, ".npy", ".parquet", ".json", ".png", ".html")
    status, _, err = drive(script, *args, results=finished)
    assert (status, err.count("\n")) == (2, 1)
    assert message in err
    assert contents(finished, ".npy", ".parquet", ".json", ".png", ".html") == before


def test_nothing_depends_on_the_origin(finished, tmp_path, stages):
    # Steps of 1/1024, so that nothing is rounded where they are added to a thousand.
    x = np.round(1024 * np.load(finished / "02_embeddings.npy")) / np.float32(1024)
    tables = []
    for offset in (0, 1000):
        np.save(tmp_path / "x.npy", x + np.float32(offset))
        stages(["02", "--from-file", tmp_path / "x.npy"], "03 --k-max 40")
        stages("04 --runs faiss:5 --m 4", "05")
        tables.append(pd.read_parquet(stages.folder / "05_per_query.parquet"))
    assert (tables[0]["overlap"] < 1).mean() > 0.1
    pd.testing.assert_frame_equal(*tables, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [1e-200, 1e100])
def test_by_cosine_doubles_of_any_size_are_those_of_length_1(size, tmp_path, stages):
    x = np.random.default_rng(0).standard_normal((50, 8))
    np.save(tmp_path / "x.npy", x * size)
    small = np.where(np.arange(50) % 2, 1, size)[:, None]
    np.save(tmp_path / "y.npy", x * small)
    for name in ("x.npy", "y.npy"):
        stages(["02", "--from-file", tmp_path / name, "--metric", "cosine"])
        unit = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
        got = np.load(tmp_path / "results/02_embeddings.npy")
        np.testing.assert_allclose(got, unit, rtol=1e-6)
        stages(["03", "--k-max", 5, "--queries", tmp_path / "x.npy"])
    assert "rescale them" in stages(["02", "--from-file", tmp_path / "x.npy"], fails=True)


ENDS = {
    "closed pipe": ("{03} | true", 0, ""),
    "closed pipe, both": ("{03} 2>&1 | true", 0, ""),
    "closed output": ("{03} >&- 2>&-", 0, ""),
    "full disk": ("{03} > /dev/full", 2, "standard output: No space left on device; once"),
    "nobody reads the error": ("{05} --k-of-interest 999 2> /dev/full", 2, ""),
    "ASCII terminal": ("PYTHONIOENCODING=ascii {03}", 0, ""),
    "ASCII system": ("LC_ALL=C PYTHONCOERCECLOCALE=0 PYTHONUTF8=0 {03}", 2, r"\udcc3\udca4"),
    "a folder that is no UTF-8": (r"{03} --results $'\xff'", 2, r"/\udcff has characters that"),
    "escapes": (r"{03} --results $'\e[31m\u202e\r'", 2, r"\x1b[31m\u202e\r/02_embeddings.npy is"),
}


@pytest.mark.parametrize(("command", "status", "message"), ENDS.values(), ids=ENDS)
def test_what_the_output_cannot_take(command, status, message, finished, tmp_path):
    results = shutil.copytree(finished, tmp_path / "ä")
    for script, *flags in (PIPELINE[2], PIPELINE[4]):
        words = [sys.executable, str(ROOT / script), "--results", str(results), *flags]
        command = command.replace(f"{{{script[:2]}}}", shlex.join(words))
    ended = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=tmp_path, capture_output=True
    )
    assert ended.returncode == status, ended
    lines = ended.stderr.decode().splitlines()
    assert len(lines) == bool(message) and message in "".join(lines)


# Interrupted work, and a command with a typo in it.
TYPOS = [
    ("01_download_stl10.py", ["--dataset", "folder", "--images", "nowhere"]),
    ("02_embed_resnet50.py", ["--weights", "nowhere.pth"]),
    ("03_exact_knn.py", ["--queries", str(N + 1)]),
    ("04_hnsw_search.py", ["--runs", "faiss:50", "annoy:50"]),
    ("05_metrics.py", ["--embeddings", "x.npy"]),
]
OTHER = {
    "01_download_stl10.py": [*PIPELINE[0][1:], "--seed", "1"],
    "02_embed_resnet50.py": [*PIPELINE[1][1:], "--resize", "232"],
    "03_exact_knn.py": ["--k-max", "30"],
    "04_hnsw_search.py": ["--k-max", "30", "--replace-k"],
    "05_metrics.py": ["--force"],
}


@pytest.mark.parametrize(("script", "args"), TYPOS)
def test_a_typo_costs_nothing_of_interrupted_work(script, args, results, drive, monkeypatch):
    monkeypatch.chdir(results.parent)  # the data folder of stage 01 would lie there
    checkpoint = Stage.checkpoint

    def interrupt(stage, block, **facts):
        checkpoint(stage, block, **facts)
        if "/graphs/" not in stage.name:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Stage, "checkpoint", interrupt)
        status, _, err = drive(script, *OTHER[script], results=results)
    assert (status, err) == (130, f"{script}: interrupted; the same command resumes\n")
    partial = contents(results / ".partial", ".npy", ".json", ".faiss")
    assert any(b"completed" in content for content in partial.values())
    status, _, err = drive(script, *args, results=results)
    assert (status, err.count("\n")) == (2, 1)
    assert contents(results / ".partial", ".npy", ".json", ".faiss") == partial
