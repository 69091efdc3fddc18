"""The code that results are made by."""

import functools
import hashlib
import itertools
import re
from collections.abc import Mapping
from pathlib import Path

import drift

_PACKAGE = Path(drift.__file__).parent
_PATHS = [*_PACKAGE.rglob("*.py"), *_PACKAGE.parent.glob("0[1-6]_*.py")]
# Read when this module is loaded: a process that was started long ago does not run what is on disk.
SOURCES = {path.relative_to(_PACKAGE.parent).as_posix(): path.read_bytes() for path in _PATHS}
# By a pattern, since parsing every module takes half a second.
_IMPORT = re.compile(
    rb"^[ \t]*(?:from (\.*)([\w.]*) )?import ([^(\n#]*(?:\((?:#.*|[^#)])*\))?)", re.MULTILINE
)


def code_hash(script: str | None = None, sources: Mapping[str, bytes] = SOURCES) -> str:
    """SHA-256 over path and bytes of a script and of the modules of `drift` that it imports.

    It imports them directly or not, at its top or in a function. Without a script, and where there
    is none, as beside an installed package, it is that of all modules.
    """
    modules = [path for path in sources if path.startswith("drift/")]
    pending = [script] if script in sources else modules
    used: set[str] = set()
    while pending:
        if (path := pending.pop()) in sources and path not in used:
            used.add(path)
            pending += _imported(path, sources[path])
    digest = hashlib.sha256()
    for path in sorted(used):
        digest.update(path.encode() + b"\0" + sources[path])
    return digest.hexdigest()


@functools.cache
def _imported(path: str, source: bytes) -> set[str]:
    """Files of all that a module may import, and of the packages in which that is."""
    files = set()
    for dots, base, names in _IMPORT.findall(source):
        above = path.split("/")[: -len(dots)] if dots else []
        for name in re.findall(r"[\w.]+", names.decode()):
            parts = [*above, *filter(None, base.decode().split(".")), *name.split(".")]
            for module in itertools.accumulate(parts, "{}/{}".format):
                files |= {f"{module}.py", f"{module}/__init__.py"}
    return files
