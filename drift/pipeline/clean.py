"""Remove from results folders what the stages wrote there, and nothing else (``make clean``).

python -m drift.pipeline.clean results results-notebook
"""

import shutil
import sys
from pathlib import Path

from drift.pipeline.manifests import (
    PARTIAL,
    SCRIPTS,
    manifest_name,
    read_manifest,
    remove_if_empty,
)
from drift.pipeline.results import Results

MANIFESTS = ("0?_*.json", "04_hnsw/*/run.json", "04_hnsw/graphs/*.json", "05_per_query/*.json")


def clean(root: Path) -> list[str]:
    """Remove the files that valid manifests list, these, and unfinished work; their stages."""
    results, stages = Results(root), []
    for path in sorted(path for pattern in MANIFESTS for path in root.glob(pattern)):
        manifest = read_manifest(path)
        if manifest and results.path(manifest_name(manifest["stage"])) == path:
            stages.append(manifest["stage"])
            results.remove(manifest["stage"])
    partial = root / PARTIAL
    for folder in [] if partial.is_symlink() else partial.glob("*"):
        if folder.name.partition("--")[0] in SCRIPTS and not folder.is_symlink():
            shutil.rmtree(folder)
            stages.append(f"{PARTIAL}/{folder.name}")
    remove_if_empty(partial)
    return stages


if __name__ == "__main__":
    for folder in map(Path, sys.argv[1:]):
        print(f"{folder}: removed {', '.join(clean(folder)) or 'nothing'}")
