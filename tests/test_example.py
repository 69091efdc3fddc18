"""The example of the documents: its commands run, and say what it quotes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

DOC = (ROOT / "docs" / "example.md").read_text()


def without_numbers(text):
    """A text in one line; what depends on the processor is left out of it."""
    return re.sub(r"[-+<> ]*\d[\d.,]*", " #", " ".join(text.split()))


def test_its_commands_say_what_it_quotes(tmp_path):
    for module in ("sklearn", "igraph"):
        pytest.importorskip(module)
    for script in ROOT.glob("0*.py"):
        (tmp_path / script.name).symlink_to(script)
    (block,) = re.findall(r"```\n(.*?)```", DOC, re.DOTALL)
    install, commands = block.split("\n", 1)
    assert install == "pip install scikit-learn"
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-ec", commands], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    quoted = " ".join(re.findall(r"^> (.*)$", DOC, re.MULTILINE))
    assert without_numbers(quoted) in without_numbers(done.stdout)
    said = " ".join(done.stdout.split())
    for cell in ("LID 25.2 % too low", "changed +1.9 points", "0.97 (exact: 0.98)"):
        assert cell in said and cell in " ".join(DOC.split())
    assert (tmp_path / "results-digits" / "06_report.html").exists()
