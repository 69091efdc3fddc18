"""What was run, with which parameters and packages, and how long it took: from the manifests."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd


def extent(manifests: Mapping[str, Mapping[str, Any]]) -> str:
    """How much was compared, and how long it took, in one sentence, from the stages' manifests."""
    seconds = round(sum(manifest["seconds"] for manifest in manifests.values()))
    shapes = {
        name: entry["shape"]
        for manifest in manifests.values()
        for name, entry in manifest["outputs"].items()
    }
    runs = len(manifests["05_metrics"]["parameters"]["runs"])
    if given := _given(manifests):
        # Ids of the exact lists first, vectors last.
        queries, *_, embeddings = (entry["shape"] for entry in given.values())
    else:
        # A stage whose files are no longer there has nothing to tell.
        embeddings, queries = map(shapes.get, ("02_embeddings.npy", "03_queries.npy"))
    words = ["{:,} embeddings of {:,} dimensions".format(*embeddings)] if embeddings else []
    words += [_count(queries[0], "query", "queries")] if queries else []
    words += [_count(runs, "run", "runs")]
    return f"{', '.join(words)}; {_count(seconds, 'second', 'seconds')} in all."


def given_files(manifests: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """The user's own files that were measured, in the order of the command line."""
    rows = [
        (Path(name).name, _times(entry["shape"]), entry["dtype"], _said(entry["sha256"]))
        for name, entry in _given(manifests).items()
    ]
    return pd.DataFrame(rows, columns=["file", "shape", "dtype", "sha256"])


def facts(manifests: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """What was run: for each stage its parameters, the arrays it made, seconds and date.

    Parameters
    ----------
    manifests : mapping of str to dict
        The manifest of each stage, in order.
    """
    rows = []
    for stage, manifest in manifests.items():
        said = {key: value for key, value in manifest["parameters"].items() if key != "runs"}
        text = ", ".join(f"{key} {_said(value)}" for key, value in said.items())
        made = [
            f"{name} {_times(entry['shape'])}"
            for name, entry in manifest["outputs"].items()
            if entry["shape"] and "/" not in name
        ]
        lists = sum(name.endswith("_indices.npy") for name in manifest["outputs"] if "/" in name)
        made += [f"{lists} pairs of lists, ids and distances"] * (lists > 0)
        rows.append((stage, text, ", ".join(made), manifest["seconds"], manifest["date"]))
    columns = ["stage", "parameters", "arrays and tables", "seconds", "date"]
    return pd.DataFrame(rows, columns=columns)


def versions(manifests: Mapping[str, Mapping[str, Any]]) -> str:
    """Versions of Python and the packages; of one that changed between stages, all of them."""
    seen: dict[str, list[str]] = {}
    for manifest in manifests.values():
        for package, version in manifest["versions"].items():
            seen.setdefault(package, []).append(version)
    return ", ".join(
        f"{package} {' and '.join(dict.fromkeys(versions))}" for package, versions in seen.items()
    )


def searches(manifests: Mapping[str, Mapping[str, Any]], labels: Mapping[str, str]) -> pd.DataFrame:
    """What each run of stage 04 took, from its manifest.

    Parameters
    ----------
    manifests : mapping of str to dict
        By run.
    labels : mapping of str to str
        What to call each run.
    """
    ks = sorted({k for manifest in manifests.values() for k in _ends(speeds(manifest))})
    rows = []
    for run, manifest in manifests.items():
        per_second = speeds(manifest).round().reindex(ks)
        rows.append(
            {
                "run": labels[run],
                "graph built in s": manifest["build_seconds"],
                "searched in s": manifest.get("search_seconds_in_all", np.nan),
                **{f"queries/s at k = {k}": per_second[k] for k in ks},
                "rows out of reach": manifest.get("graph", {}).get("unreachable_rows", np.nan),
                "peak memory, MB": round(manifest["peak_memory_bytes"] / 1e6),
            }
        )
    return pd.DataFrame(rows)


def speeds(manifest: Mapping[str, Any]) -> pd.Series:
    """Queries per second by k, from the manifest of a run."""
    return pd.Series(
        {int(k): number for k, number in manifest["queries_per_second"].items()}
    ).sort_index()


def _given(manifests: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Inputs of the measurements that no stage wrote: they have an absolute path."""
    inputs = manifests["05_metrics"]["inputs"]
    return {name: entry for name, entry in inputs.items() if Path(name).is_absolute()}


def _count(n: int, one: str, more: str) -> str:
    return f"{n:,} {one if n == 1 else more}"


def _times(shape: Sequence[int]) -> str:
    return " x ".join(f"{n:,}" for n in shape)


def _said(value: Any) -> str:
    """A parameter in few letters: of a grid its ends, of a hash its beginning."""
    if isinstance(value, list):
        return " to ".join(str(value[at]) for at in dict.fromkeys((0, len(value) - 1)))
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1...", str(value))


def _ends(series: pd.Series) -> list[int]:
    return list(dict.fromkeys(series.index[[0, -1]]))
