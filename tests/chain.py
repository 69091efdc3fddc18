"""A small results folder in which stages 01 to 05 have run, for the tests of files."""

import json

import numpy as np
import pandas as pd

from drift.indexes.registry import parse_run
from drift.pipeline.manifests import PARTIAL, manifest_hash
from drift.pipeline.results import Results
from drift.pipeline.stage import Stage

RUN = "04_hnsw/faiss_M32_efc200_ef50"
OTHER_RUN = "04_hnsw/hnswlib_M32_efc200_ef50"
GRAPH = "04_hnsw/graphs/faiss_M32_efc200"
SEARCHED = parse_run("faiss:50").parameters | {"k_grid": [2], "protocol": "study"}
EXACT = {"k_max": 2, "protocol": "study"}
# The last file of each stage, with the script that writes it.
FILES = {
    "01_images.npy": "01_download_stl10.py",
    "02_embeddings.npy": "02_embed_resnet50.py",
    "03_exact_indices.npy": "03_exact_knn.py",
    f"{RUN}/k0002_indices.npy": "04_hnsw_search.py",
    "05_curves.parquet": "05_metrics.py",
}


def begin(results, name, parameters=None, inputs=None, force=False):
    """A stage that has to run, with the manifest entries of its inputs."""
    stage = Stage(name, results, force, inputs=inputs)
    assert stage.begin(parameters or EXACT)
    return stage


def commit(results, name, arrays, inputs=(), parameters=None, **notes):
    """A stage that writes these arrays, made from these files of the folder."""
    stage = begin(results, name, parameters, results.require(*inputs), force=True)
    for file, array in arrays.items():
        stage.create(file, array.shape, array.dtype)
        stage.write(file, (0, len(array)), array)
    return stage.commit(**notes)


def image_stage(results, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 2, 2, 3), dtype=np.uint8)
    notes = {"skipped": {}, "ignored": 0}
    return commit(results, "01_images", {"01_images.npy": pixels}, (), {"dataset": "x"}, **notes)


def embedding_stage(results, seed=0):
    vectors = np.random.default_rng(seed).random((4, 3), dtype=np.float32)
    arrays, notes = {"02_embeddings.npy": vectors}, {"mean_norm": 1.0}
    return commit(results, "02_embeddings", arrays, ["01_images.npy"], {"model": None}, **notes)


def exact_stage(results, seed=0, **parameters):
    indices = np.random.default_rng(seed).integers(0, 4, (4, 2), dtype=np.int32)
    arrays = {"03_queries.npy": np.arange(4, dtype=np.int32), "03_exact_indices.npy": indices}
    return commit(results, "03_exact", arrays, ["02_embeddings.npy"], EXACT | parameters)


def run_stage(results, run=RUN, seed=0, **parameters):
    indices = np.random.default_rng(seed).integers(0, 4, (4, 2), dtype=np.int32)
    inputs = ["02_embeddings.npy", "03_queries.npy"]
    lists = {"indices": indices, "distances": indices.astype(np.float32)}
    arrays = {f"{run}/k0002_{kind}.npy": array for kind, array in lists.items()}
    return commit(results, run, arrays, inputs, SEARCHED | parameters)


def graph_stage(results, graph=GRAPH):
    """A graph, as it is saved beside the runs."""
    stage = begin(results, graph, inputs=results.require("02_embeddings.npy"), force=True)
    stage.output(f"{graph}.faiss").write_bytes(b"a graph")
    return stage.commit(build_seconds=1.0, graph={})


def metrics_stage(results):
    inputs = results.require("03_exact_indices.npy", f"{RUN}/k0002_indices.npy")
    runs = {RUN.removeprefix("04_hnsw/"): SEARCHED}
    stage = begin(results, "05_metrics", {"runs": runs, "k_of_interest": 2}, inputs, force=True)
    for table in ("per_query", "curves", "safe_k", "differences", "by_use"):
        file = stage.output(f"05_{table}.parquet")
        pd.DataFrame({"run": ["a"], "k": np.int32([2])}).to_parquet(file)
    return stage.commit(n_queries=4, groups=None, left_out={}, metrics={})


def run_all_stages(root):
    """A results folder in which stages 01 to 05 have run."""
    results = Results(root)
    for stage in (image_stage, embedding_stage, exact_stage, run_stage, metrics_stage):
        stage(results)
    return results


def snapshot(folder):
    """Every file below a folder with its bytes, but those that are not committed."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and PARTIAL not in path.parts
    }


def at(*keys):
    """A change to what stands at some keys of a manifest: the last of them; ... removes it."""

    def change(manifest):
        *above, last, value = keys
        for key in above:
            manifest = manifest[key]
        manifest[last] = value
        if value is ...:
            del manifest[last]

    return change


def edit(path, change):
    """Change a manifest, or a plan, and renew its hash."""
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest | {"sha256": manifest_hash(manifest)}))
