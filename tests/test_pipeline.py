"""The whole pipeline from the command line, as its users run it, on a few hundred photographs."""

import json
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import scipy.spatial
import scipy.stats
import threadpoolctl

from drift import metrics
from drift.curves import curve_names
from drift.pipeline import cli, code
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


def test_exact_lists_are_those_of_brute_force_in_double_precision(finished):
    embeddings = np.load(finished / "02_embeddings.npy").astype(np.float64)
    distances = scipy.spatial.distance.cdist(embeddings, embeddings).astype(np.float32)
    np.fill_diagonal(distances, np.inf)
    order = np.argsort(distances, axis=1, kind="stable")[:, :K]
    stored = np.load(finished / "03_exact_distances.npy")
    np.testing.assert_allclose(stored, np.take_along_axis(distances, order, axis=1), rtol=1e-6)
    np.testing.assert_array_equal(np.load(finished / "03_exact_indices.npy"), order)
    assert (np.diff(stored, axis=1) >= 0).all()


def test_ann_distances_are_the_exact_ones_of_the_same_pairs(finished):
    exact = np.full((N, N), np.nan, np.float32)
    indices = np.load(finished / "03_exact_indices.npy")
    np.put_along_axis(exact, indices, np.load(finished / "03_exact_distances.npy"), axis=1)
    for name in RUNS:
        ids = np.load(finished / f"04_hnsw/{name}/k0040_indices.npy")
        distances = np.load(finished / f"04_hnsw/{name}/k0040_distances.npy")
        same_pair = np.take_along_axis(exact, ids, axis=1)
        known = ~np.isnan(same_pair)
        assert known.mean() > 0.9
        np.testing.assert_allclose(distances[known], same_pair[known], rtol=1e-6)


def test_curves_are_the_means_of_the_single_queries(finished):
    per_query = pd.read_parquet(finished / "05_per_query.parquet")
    curves = pd.read_parquet(finished / "05_curves.parquet").set_index(["run", "k", "metric"])
    inverse = [name for name in per_query if name.startswith("lid_inverse_")]
    long = per_query.drop(columns=inverse).melt(["run", "k", "query"], var_name="metric")
    groups = long.groupby(["run", "k", "metric"])["value"]
    for ours, theirs in (
        ("mean", groups.mean()),
        ("std", groups.std(ddof=0)),
        ("median", groups.median()),
        ("q05", groups.quantile(0.05)),
        ("q95", groups.quantile(0.95)),
        ("n", groups.count()),
    ):
        np.testing.assert_allclose(curves.loc[theirs.index, ours], theirs, rtol=1e-9, atol=1e-12)
    single = curves.loc[theirs.index]
    assert (single["ci_low"] <= single["mean"] + 1e-12).all()
    assert (single["mean"] <= single["ci_high"] + 1e-12).all()


def test_the_same_command_gives_the_same_bytes_and_then_its_table_again(finished, results, drive):
    for script, *args in PIPELINE[:5]:
        status, first, _ = drive(script, *args, "--force", results=results)
        assert status == 0
        assert "up to date" not in first
        status, again, _ = drive(script, *args, results=results)
        assert status == 0
        lines = again.splitlines(keepends=True)
        assert "".join(line for line in lines if ": up to date in" not in line) == first
        assert len(lines) > first.count("\n")
    assert contents(results, ".npy", ".parquet") == contents(finished, ".npy", ".parquet")


def test_a_stage_made_by_other_code_says_so_until_it_is_forced(results, drive, monkeypatch):
    said = "made by other code; --force makes it again"
    edited = "drift/set_differences.py"
    monkeypatch.setitem(code.SOURCES, edited, code.SOURCES[edited] + b"# edited")
    assert said not in drive(*PIPELINE[2], results=results)[1]
    for _ in range(2):
        assert said in drive(*PIPELINE[4], results=results)[1]
    assert drive(*PIPELINE[4], "--force", results=results)[0] == 0
    assert said not in drive(*PIPELINE[4], results=results)[1]


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


def test_a_table_over_different_grids_has_the_ends_of_each(results, drive):
    args = ("--runs", "faiss:30", "--k-min", "15", "--k-step", "20", "--k-max", "35")
    assert drive(SEARCH, *args, results=results)[0] == 0
    _, out, _ = drive("05_metrics.py", results=results)
    lines = (" ".join(line.split()) for line in out[out.index("curves in") :].splitlines()[1:])
    header, *rows = lines
    assert header.startswith("run k = 10 k = 15 k = 35 k = 40 returned, %")
    for row in rows:
        cells = row.replace("> ", "").split()[2:6]
        assert [cell != "-" for cell in cells] == [
            ("faiss 30" in row) == (k in (15, 35)) for k in (10, 15, 35, 40)
        ]


def test_runs_accumulate_are_left_out_and_cleared(results, drive):
    status, _, _ = drive(SEARCH, "--runs", "faiss:7", "--seed", "3", results=results)
    assert status == 0
    assert (results / "04_hnsw/faiss_M32_efc200_ef7_seed3/run.json").exists()
    status, _, err = drive("06_plots.py", results=results)
    assert status == 2
    assert "run 05_metrics.py again" in err
    assert drive("05_metrics.py", results=results)[0] == 0
    runs = {*RUNS, "faiss_M32_efc200_ef7_seed3"}
    assert set(pd.read_parquet(results / "05_curves.parquet")["run"]) == runs

    # Longer exact lists are as good. Where they are shorter, a run is measured as far as they go.
    assert drive("03_exact_knn.py", "--k-max", "50", results=results)[0] == 0
    status, out, _ = drive("05_metrics.py", results=results)
    assert (status, "left out" in out) == (0, False)
    assert drive("03_exact_knn.py", "--k-max", "9", results=results)[0] == 0
    status, _, err = drive("05_metrics.py", results=results)
    assert (status, err.count("\n")) == (2, 1)
    assert "run 03_exact_knn.py" in err
    assert drive("03_exact_knn.py", "--k-max", "30", results=results)[0] == 0
    assert "up to date" in drive(SEARCH, "--runs", "faiss:k,50", results=results)[1]
    assert drive(SEARCH, "--runs", "faiss:k,50", "--replace-k", results=results)[0] == 0
    assert len([*(results / "04_hnsw" / RUNS[1]).glob("*.npy")]) == 6, "no lists of the former grid"
    status, out, _ = drive("05_metrics.py", results=results)
    assert status == 0
    assert out.count(" beyond k = 30 (the exact lists end there)\n") == 3
    curves = pd.read_parquet(results / "05_curves.parquet")
    assert set(curves["run"]) == runs and curves["k"].max() == 30

    assert drive(SEARCH, "--runs", "faiss:k,50", "--replace", results=results)[0] == 0
    assert [path.name for path in (results / "04_hnsw").iterdir()] == [RUNS[1]]


def test_replace_names_what_it_removes_before_it_does(results, drive, monkeypatch):
    assert drive(SEARCH, "--runs", "faiss:9", "--m", "4", "--save-index", results=results)[0] == 0
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
    status, out, _ = drive(SEARCH, "--runs", "faiss:50", "--replace", results=results)
    assert status == 0
    assert line in out
    assert [path.name for path in folder.iterdir()] == RUNS[:1]
    assert "removing" not in drive(SEARCH, "--runs", "faiss:50", "--replace", results=results)[1]


def test_a_saved_graph_of_other_embeddings_or_a_damaged_one_is_not_searched(results, drive):
    graph = results / "04_hnsw/graphs/faiss_M32_efc200.faiss"
    assert drive(SEARCH, "--runs", "faiss:50", "--save-index", results=results)[0] == 0
    # One of another seed is another graph, and what was not to be saved is not.
    assert drive(SEARCH, "--runs", "faiss:2k", "--seed", "1", results=results)[0] == 0
    assert {path.stem for path in graph.parent.iterdir()} == {graph.stem}
    whole = graph.read_bytes()
    graph.write_bytes(whole[:-1])
    status, out, _ = drive(SEARCH, "--runs", "faiss:9", results=results)
    assert status == 0
    assert f"{graph} is damaged or of other embeddings: the graph is built anew" in out
    assert graph.read_bytes() == whole
    assert "built anew" not in drive(SEARCH, "--runs", "faiss:9", "--force", results=results)[1]
    assert not (results / ".partial").exists()

    embeddings = np.load(results / "02_embeddings.npy")
    np.save(results.parent / "x.npy", embeddings[::-1])
    args = ("--from-file", results.parent / "x.npy")
    assert drive("02_embed_resnet50.py", *args, results=results)[0] == 0
    assert drive(*PIPELINE[2], results=results)[0] == 0
    status, out, _ = drive(SEARCH, "--runs", "faiss:9", results=results)
    assert (status, "built anew" in out) == (0, True)
    assert graph.read_bytes() != whole
    status, out, _ = drive(SEARCH, "--runs", "faiss:7", results=results)
    assert (status, "built anew" in out) == (0, False)


def test_a_sample_of_queries_leaves_out_what_describes_whole_graphs(results, drive):
    assert drive("03_exact_knn.py", "--queries", "50", "--k-max", "20", results=results)[0] == 0
    queries = np.load(results / "03_queries.npy")
    assert len(queries) == 50
    assert (np.diff(queries) > 0).all()
    for script, *args in PIPELINE[3:5]:
        assert drive(script, *args, results=results)[0] == 0
    curves = pd.read_parquet(results / "05_curves.parquet")
    assert not curves["metric"].str.contains("hubness|orphans").any()
    per_query = pd.read_parquet(results / "05_per_query.parquet")
    assert set(per_query["query"]) == set(queries)


BAD_INPUT = [
    ("01_download_stl10.py", ["--dataset", "cifar"], "cifar"),
    ("01_download_stl10.py", ["--n-images", "0"], "--n-images"),
    ("02_embed_resnet50.py", ["--weights", "nowhere.pth"], "nowhere.pth"),
    ("02_embed_resnet50.py", ["--model", "resnet50", "--weights", __file__], "state dict"),
    ("03_exact_knn.py", ["--k-max", "-3"], "--k-max"),
    ("03_exact_knn.py", ["--queries", "some"], "some"),
    ("04_hnsw_search.py", ["--runs", "annoy:50"], "annoy:50"),
    ("04_hnsw_search.py", ["--runs", "faiss"], "write faiss:50"),
    ("04_hnsw_search.py", ["--runs", "faiss:0"], "faiss:0"),
    ("04_hnsw_search.py", ["--runs", "faiss:99999999999"], "faiss:99999999999"),
    ("04_hnsw_search.py", ["--m", "99999999999"], "--m"),
    ("04_hnsw_search.py", ["--ef-construction", "99999999999"], "--ef-construction"),
    ("04_hnsw_search.py", ["--threads", "99999999999"], "--threads"),
    ("04_hnsw_search.py", ["--k-step", "0"], "--k-step"),
    ("04_hnsw_search.py", ["--ef-search", "100"], "write --runs faiss:100"),
    ("04_hnsw_search.py", ["--ef=100"], "write --runs faiss:100"),
    ("05_metrics.py", ["--seed", "x"], "--seed"),
    ("04_hnsw_search.py", ["--lists", "mine", "none.npy"], "none.npy"),
    ("04_hnsw_search.py", ["--seconds", "0"], "--seconds"),
    ("06_plots.py", ["--dpi", "lots"], "lots"),
]


@pytest.mark.parametrize(("script", "args", "message"), BAD_INPUT)
def test_bad_input_ends_in_one_line_and_loses_nothing(script, args, message, finished, drive):
    before = contents(finished, ".npy", ".parquet", ".json", ".png", ".html")
    status, _, err = drive(script, *args, results=finished)
    assert (status, err.count("\n")) == (2, 1)
    assert message in err
    assert contents(finished, ".npy", ".parquet", ".json", ".png", ".html") == before


def test_nothing_depends_on_the_origin(finished, tmp_path, drive):
    # Steps of 1/1024, so that nothing is rounded where they are added to a thousand.
    x = np.round(1024 * np.load(finished / "02_embeddings.npy")) / np.float32(1024)
    tables = []
    for offset in (0, 1000):
        np.save(tmp_path / "x.npy", x + np.float32(offset))
        results = tmp_path / f"results-{offset}"
        for script, *args in [
            ("02_embed_resnet50.py", "--from-file", tmp_path / "x.npy"),
            ("03_exact_knn.py", "--k-max", "40"),
            ("04_hnsw_search.py", "--runs", "faiss:5", "--m", "4"),
            ("05_metrics.py",),
        ]:
            assert drive(script, *args, results=results)[0] == 0
        tables.append(pd.read_parquet(results / "05_per_query.parquet"))
    assert (tables[0]["overlap"] < 1).mean() > 0.1
    pd.testing.assert_frame_equal(*tables, rtol=1e-5, atol=1e-6)


def test_digits_that_float32_cannot_hold_are_warned_of(tmp_path, drive):
    x = np.random.default_rng(0).standard_normal((50, 8))
    for offset, warned in ((0, False), (1e6, True)):
        np.save(tmp_path / "x.npy", x + offset)
        args = ("--from-file", tmp_path / "x.npy")
        status, _, err = drive("02_embed_resnet50.py", *args, results=tmp_path / "results")
        assert (status, "warning: rounding to float32" in err) == (0, warned)
        assert err.count("\n") == warned
        made = json.loads((tmp_path / "results/02_embeddings.json").read_text())["warnings"]
        assert [f"warning: {warning}\n" for warning in made] == [err] * warned


@pytest.mark.parametrize("size", [1e-19, 1e-200, 1e100])
def test_by_cosine_doubles_of_any_size_are_those_of_length_1(size, tmp_path, drive):
    x = np.random.default_rng(0).standard_normal((50, 8))
    np.save(tmp_path / "x.npy", x * size)
    small = np.where(np.arange(50) % 2, 1, size)[:, None]
    np.save(tmp_path / "y.npy", x * small)
    for name in ("x.npy", "y.npy"):
        args = ("--from-file", tmp_path / name, "--metric", "cosine")
        assert drive("02_embed_resnet50.py", *args, results=tmp_path / "results")[0] == 0
        unit = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
        got = np.load(tmp_path / "results/02_embeddings.npy")
        np.testing.assert_allclose(got, unit, rtol=1e-6)
        queries = ("--k-max", 5, "--queries", tmp_path / "x.npy")
        assert drive("03_exact_knn.py", *queries, results=tmp_path / "results")[0] == 0
    args = ("--from-file", tmp_path / "x.npy")
    status, _, err = drive("02_embed_resnet50.py", *args, results=tmp_path / "results")
    assert status == 2 and "rescale them" in err


def test_embeddings_that_are_not_finite_are_refused(results, drive):
    stage = Stage("02_embeddings", results)
    assert stage.begin({"model": None})
    embeddings = np.load(results / "02_embeddings.npy")
    embeddings[17, 3] = np.nan
    stage.save("02_embeddings.npy", embeddings)
    stage.commit(mean_norm=1.0)
    status, _, err = drive("03_exact_knn.py", "--k-max", "40", results=results)
    assert (status, err.count("\n")) == (2, 1)
    assert "row 17" in err


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
    ("03_exact_knn.py", ["--queries", "301"]),
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
