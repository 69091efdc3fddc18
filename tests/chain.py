"""A small results folder in which stages 01 to 05 have run, for the tests of files."""

import numpy as np
import pandas as pd

from drift.pipeline.results import Results
from drift.pipeline.stage import PARTIAL, Stage

RUN = "04_hnsw/faiss_M32_efc200_ef50"
OTHER_RUN = "04_hnsw/hnswlib_M32_efc200_ef50"
GRAPH = "04_hnsw/graphs/faiss_M32_efc200"
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
    assert stage.begin(parameters or {})
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
    return commit(results, "01_images", {"01_images.npy": pixels})


def embedding_stage(results, seed=0):
    vectors = np.random.default_rng(seed).random((4, 3), dtype=np.float32)
    return commit(results, "02_embeddings", {"02_embeddings.npy": vectors}, ["01_images.npy"])


def exact_stage(results, seed=0, **parameters):
    indices = np.random.default_rng(seed).integers(0, 4, (4, 2), dtype=np.int32)
    arrays = {"03_queries.npy": np.arange(4, dtype=np.int32), "03_exact_indices.npy": indices}
    parameters = {"k_max": 2, "protocol": "study"} | parameters
    return commit(results, "03_exact", arrays, ["02_embeddings.npy"], parameters)


def run_stage(results, run=RUN, seed=0, **parameters):
    indices = np.random.default_rng(seed).integers(0, 4, (4, 2), dtype=np.int32)
    inputs = ["02_embeddings.npy", "03_queries.npy"]
    parameters = {"run": {}, "k_grid": [2], "protocol": "study"} | parameters
    return commit(results, run, {f"{run}/k0002_indices.npy": indices}, inputs, parameters)


def graph_stage(results, graph=GRAPH):
    """A graph, as it is saved beside the runs."""
    stage = begin(results, graph, inputs=results.require("02_embeddings.npy"), force=True)
    stage.output(f"{graph}.faiss").write_bytes(b"a graph")
    return stage.commit()


def metrics_stage(results):
    inputs = results.require("03_exact_indices.npy", f"{RUN}/k0002_indices.npy")
    stage = begin(results, "05_metrics", inputs=inputs, force=True)
    pd.DataFrame({"run": ["a"], "k": np.int32([2])}).to_parquet(stage.output("05_curves.parquet"))
    return stage.commit()


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
