"""What the files of a results folder say of themselves, read as if a stranger had written it.

A manifest, and the plan of an interrupted stage, is JSON with a hash of its own content. Whoever
edits one can renew the hash, so what it says is held against what the stages write: a name leads to
no file but those of its stage, and a value has the type that its readers count on.
"""

import contextlib
import hashlib
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

from drift import add_filename, regular_file

SCRIPTS = {
    "01_images": "01_download_stl10.py",
    "02_embeddings": "02_embed_resnet50.py",
    "03_exact": "03_exact_knn.py",
    "04_hnsw": "04_hnsw_search.py",
    "05_metrics": "05_metrics.py",
    "06_figures": "06_plots.py",
}
RUNS, GRAPHS, PER_QUERY = "04_hnsw/", "04_hnsw/graphs/", "05_per_query/"
PARTIAL, SCRATCH = ".partial", re.compile(r"[a-z_]+\.npy")  # arrays that are no outputs
Entries = dict[str, dict[str, Any]]  # by the name of a file or a block
Manifest = dict[str, Any]

# The files of each stage, its manifest last. PART is the name of a run or a graph.
PART = re.compile("[A-Za-z0-9_][A-Za-z0-9._-]{0,249}")
_FILES = {
    "01_images": r"01_images\.(npy|parquet|json)",
    "02_embeddings": r"02_embeddings\.(npy|json)|02_rows\.parquet",
    "03_exact": r"03_(queries|query_vectors|exact_indices|exact_distances)\.npy"
    r"|03_query_ids\.parquet|03_exact\.json",
    "04_hnsw/graphs/PART": rf"{GRAPHS}PART\.[a-z][a-z0-9_]*",
    "04_hnsw/PART": rf"{RUNS}PART/(k[0-9]{{4,9}}_(indices|distances|reported)\.npy|run\.json)",
    "05_metrics/PART": rf"{PER_QUERY}PART\.(parquet|json)",
    "05_metrics": r"05_(per_query|curves|graphs|safe_k|differences|by_use|clusters)\.parquet"
    r"|05_metrics\.json",
    "06_figures": r"06_[a-z0-9_]+\.(png|svg|pdf)|06_report\.html|06_figures\.json",
}
_NAMED = f"(?P<part>(?!graphs/){PART.pattern})"
_PATTERNS = {kind: re.compile(files.replace("PART", _NAMED)) for kind, files in _FILES.items()}


def producer(name: str) -> str:
    """Stage that writes a file, by its name: ``03_exact``, ``04_hnsw/RUN``, ``05_metrics/RUN`` ...

    A `ValueError` where none does.
    """
    for kind, pattern in _PATTERNS.items():
        if match := pattern.fullmatch(name):
            return kind.replace("PART", match.groupdict().get("part", ""))
    raise ValueError(f"no stage writes {name}: its name has to be in drift/pipeline/manifests.py")


def producing_script(stage: str) -> str:
    """Script that runs a stage."""
    return SCRIPTS[stage.partition("/")[0]]


def manifest_name(stage: str) -> str:
    """File that holds a stage's manifest, relative to the results folder."""
    whole, _, part = stage.partition("/")
    if whole == "05_metrics" and part:
        return f"{PER_QUERY}{part}.json"
    return f"{stage}/run.json" if part and not stage.startswith(GRAPHS) else f"{stage}.json"


def partial_name(stage: str) -> str:
    """Folder below ``.partial/`` with the unfinished work of a stage."""
    return stage.replace("/", "--")


def manifest_hash(manifest: Manifest) -> str:
    """SHA-256 of a manifest's own content, by which a damaged one is noticed.

    Raises a `ValueError` for one with NaN, which is no JSON.
    """
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, allow_nan=False).encode()).hexdigest()


# What readers count on: a type (numbers are below 2^63, whole ones not below 0), one of several
# forms, a pattern of a text, a list of one form; of a mapping keys that it has, or what all its
# keys are and, of each, the values.
_K, _DIGEST = re.compile("[1-9][0-9]{0,8}"), re.compile("[0-9a-f]{64}")
_ENTRY = {"shape": ([int], None), "dtype": (str, {str: str}, None), "bytes": int}
_ENTRIES = {str: _ENTRY | {"sha256": _DIGEST}}
_TEXTS, _COST = {str: str}, {_K: float}
_COSTS = ("search_seconds", "queries_per_second", "distance_computations_per_query")
_SEARCH = {str: (str, {str: (float, str)})}
_COUNTED = re.compile("index_bytes|mean_degree_level_0|unreachable_rows")
_SEARCHED = {
    "run": {"library": str, "build": {str: (int, str)}, "search": _SEARCH, "seed": int},
    "k_grid": [int],
    "protocol": re.compile("study|notebook|paper|outside"),
}
_RULE = dict.fromkeys(("list_length", "ef_search", "candidates", "stops_after"), float)
_ENDS = dict.fromkeys(("mean", "ci_low", "ci_high"), (float, None))
_CHOSEN = {"is_enough": bool, "reached": _ENDS}
# A word means the same in a manifest and its parameters.
_WORDS: dict[str, Any] = {
    **_SEARCHED,
    **dict.fromkeys(("build_seconds", "mean_norm"), float),
    **dict.fromkeys(("ignored", "k_max", "k_of_interest", "n_queries", "peak_memory_bytes"), int),
    **dict.fromkeys(("asked_by", "dataset", "file", "found_for", "metric"), str),
    **dict.fromkeys(("skipped", "left_out", "metrics"), _TEXTS),
    **dict.fromkeys(_COSTS, _COST),
    "ef_search_by_k": {_K: int},
    "ef_search_by_k_on_mean": {_K: (int, None)},
    "effective_ef": {_K: _RULE},
    "halves": {_K: _CHOSEN | {"other_half": _ENDS}},
    "graph": {_COUNTED: float, re.compile("compressed"): bool, str: (float, str, [int])},
    "groups": (int, None),
    "model": (str, None),
    "no_clusters": [str],
}
_FOUND = {"found_for", "ef_search_by_k", "ef_search_by_k_on_mean", "halves"}  # all or none
_NEEDED = {
    "01_images": ("dataset", "skipped", "ignored"),
    "02_embeddings": ("model", "mean_norm", "02_embeddings.npy"),
    "03_exact": ("k_max", "protocol"),
    "04_hnsw/graphs/PART": ("build_seconds", "graph"),
    "04_hnsw/PART": tuple(_SEARCHED),
    "05_metrics/PART": (),
    "05_metrics": (
        *("runs", "k_of_interest", "n_queries", "groups", "left_out", "metrics"),
        *("05_per_query.parquet", "05_curves.parquet", "05_safe_k.parquet"),
        *("05_differences.parquet", "05_by_use.parquet"),
    ),
    "06_figures": ("left_out",),
}
# What a plan notes of a block; where a setting is chosen for a k, that is the block's name.
_NOTES: dict[str, Any] = {
    "02_embeddings": {"norms": float},
    "03_exact": {"recomputed": int},
    "04_hnsw/graphs/PART": {"build_seconds": float, "graph": _WORDS["graph"]},
    "04_hnsw/PART": {"seconds": float, "distance_computations": (int, None)},
}


_BOTH = {"stage": str, "parameters": dict, "inputs": _ENTRIES}
_MADE = {"versions": dict, "warnings": [str], "seconds": float, "date": str}


def read_manifest(path: Path) -> Manifest | None:
    """A manifest, or None where there is none, or none that a stage can have written."""
    return _read(path, _BOTH | _MADE | {"outputs": _ENTRIES})


def read_plan(path: Path) -> Manifest | None:
    """The plan of an interrupted stage, with its blocks; None as for a manifest."""
    return _read(path, _BOTH | {"code": str, "arrays": {str: list}, "completed": dict})


def _read(path: Path, form: dict[str, Any]) -> Manifest | None:
    try:
        regular_file(path)
        content = json.loads(path.read_text("utf-8"))
        is_whole = content["sha256"] == manifest_hash(content)
        is_sound = is_whole and _fits(content, form) and _words_fit(content)
        return content if is_sound and _leads_to_its_own(content) else None
    except PermissionError:
        raise  # it may well be whole
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _words_fit(content: Manifest) -> bool:
    whole, _, part = content["stage"].rpartition("/")
    kind, parameters = f"{whole}/PART" if whole else part, content["parameters"]
    completed = {_K: _CHOSEN | {"value": int}, str: _NOTES.get(kind, dict)}
    # Of a plan there are no notes and outputs yet.
    there = {*content, *parameters, *content.get("outputs", _NEEDED[kind])}
    return (
        there.issuperset(_NEEDED[kind])
        and content.get("n_queries") != 0
        and (not _FOUND & content.keys() or content.keys() >= _FOUND)
        and _fits(content.get("completed", {}), completed)
        and (kind != "05_metrics" or _fits(parameters["runs"], {str: _SEARCHED}))
        and all(
            _fits(words[word], _WORDS[word])
            for words in (content, parameters)
            for word in _WORDS.keys() & words.keys()
        )
    )


def _fits(value: Any, form: Any) -> bool:
    """Whether what JSON holds is of a form, as said above."""
    if isinstance(form, tuple):
        return any(_fits(value, one) for one in form)
    if isinstance(form, list):
        return isinstance(value, list) and all(_fits(item, form[0]) for item in value)
    if isinstance(form, re.Pattern):
        return isinstance(value, str) and form.fullmatch(value) is not None
    if form in (int, float):
        is_whole = type(value) is int and 0 <= value < 2**63
        return is_whole or (form is float and type(value) is float)
    if not isinstance(form, dict):
        return value is form or type(value) is form
    if not isinstance(value, dict):
        return False
    if all(isinstance(key, str) for key in form):
        return all(key in value and _fits(value[key], form[key]) for key in form)
    fitting = {name: [form[key] for key in form if _fits(name, key)] for name in value}
    return all(forms and _fits(value[name], forms[0]) for name, forms in fitting.items())


def _leads_to_its_own(content: Manifest) -> bool:
    """Whether its stage writes these outputs and arrays, and from files of stages before it."""
    stage, outputs = content["stage"], content.get("outputs", {})
    arrays = [name for name in content.get("arrays", ()) if not SCRATCH.fullmatch(name)]
    own, makers = {*outputs, *arrays}, {name: producer(name) for name in content["inputs"]}
    if any(producer(name) != stage for name in {manifest_name(stage), *own}):
        return False
    if any(name == manifest_name(producer(name)) for name in own | makers.keys()):
        return False
    if stage.startswith(RUNS) and not stage.startswith(GRAPHS):
        grid = content["parameters"]["k_grid"]
        kinds = ("indices", "distances") if outputs else ()
        lists = {f"{stage}/k{k:04d}_{kind}.npy" for k in grid for kind in kinds}
        ks, found = {str(k) for k in grid}, _FOUND - {"found_for"}
        if any(word in content and not ks <= content[word].keys() for word in found):
            return False
        if not grid or grid != sorted({*grid} - {0}) or not lists <= outputs.keys():
            return False
    return all(
        name[:2] < stage[:2] or (stage == "05_metrics" and maker.startswith("05_metrics/"))
        for name, maker in makers.items()
    )


def write_json(path: Path, content: Manifest, on_disk: bool = True) -> None:
    """Write a JSON file under a temporary name, and rename it when it is whole and `on_disk`."""
    temporary = path.with_name(f".{path.name}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    with add_filename(path), os.fdopen(os.open(temporary, flags, 0o666), "w") as file:
        json.dump(content, file, indent=2, allow_nan=False)
        file.write("\n")
        file.flush()
        if on_disk:
            os.fsync(file.fileno())
    temporary.replace(path)


def foreign_path(folder: Path) -> Path | None:
    """Something below a folder through which others' files would be written, if there is any."""
    for path in folder.rglob("*"):
        status = path.lstat()
        is_own = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
        if not is_own and not stat.S_ISDIR(status.st_mode):
            return path
    return None


def remove_if_empty(*folders: Path) -> None:
    """Remove folders, from the inmost on, up to one that holds something."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()
