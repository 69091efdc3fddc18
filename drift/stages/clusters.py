"""Stage 05: clusters of the k-NN graphs, of each graph in a process of its own."""

from collections.abc import Mapping

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from drift import by_use
from drift.pipeline.children import call_in_children
from drift.pipeline.environment import code_hash, package_versions
from drift.pipeline.manifests import producing_script
from drift.pipeline.results import ArtifactError, load_array
from drift.pipeline.stage import Stage

CLUSTERS = "05_clusters.parquet"
Partitions = dict[str, list[np.ndarray]]


def find_clusters(stage: Stage, lists: Mapping[str, str], k: int, seed: int) -> Partitions:
    """`by_use.leiden_partitions` of the first k of some lists, inputs of the stage; stored too.

    Those that are stored already, made by the same code from the same lists, are not made again.
    """
    made = {"k_of_interest": k, "seed": seed, "igraph": package_versions().get("igraph")}
    made["code"] = code_hash(producing_script(stage.name))
    partitions = {} if stage.force else _stored(stage, lists, made)
    new = [run for run in lists if run not in partitions]
    ids = (np.asarray(load_array(stage.results.path(lists[run]))[:, :k]) for run in new)
    found = call_in_children(by_use.leiden_partitions, ((one, seed) for one in ids))
    partitions |= zip(new, found, strict=True)
    for run in lists:
        columns = {f"cluster_{i}": one for i, one in enumerate(partitions[run])}
        rows = np.arange(len(columns["cluster_0"]), dtype=np.int32)
        stage.append(CLUSTERS, {"run": np.full(len(rows), run), "row": rows, **columns})
    return partitions


def _stored(stage: Stage, lists: Mapping[str, str], made: dict) -> Partitions:
    try:
        stage.results.require(CLUSTERS)
    except ArtifactError:
        return {}
    last = stage.manifest()
    if not made.items() <= (last["parameters"] | {"code": last.get("code")}).items():
        return {}
    table = pq.read_table(stage.results.path(CLUSTERS))
    return {
        run: [one.to_numpy() for one in table.filter(pc.field("run") == run).columns[2:]]
        for run, name in lists.items()
        if last["inputs"].get(name) == stage.inputs[name]
    }
