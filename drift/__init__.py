"""What an approximate nearest-neighbor index does to the shape of neighborhoods."""

import contextlib
import os
import pkgutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__version__ = "0.3.0"


class InputError(ValueError):
    """The input cannot be used; the message says why, in one line, and what to do."""


@contextlib.contextmanager
def add_filename(path: Path) -> Iterator[None]:
    """Add the file's name to an error of the system: that of a write to a full disk has none."""
    try:
        yield
    except OSError as error:
        if error.errno and not error.filename:
            error.filename = str(path)
        raise


def regular_file(path: Path) -> os.stat_result:
    """What the system knows of a file that is about to be opened; a link is followed.

    Raises an `InputError` for a folder, and for what could be read forever: a pipe, a device.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, a socket or a device"
        raise InputError(f"{path} is {what}: a file is needed there")
    return status


def __getattr__(name: str) -> Any:
    """`compare`, loaded when it is asked for: all modules import this one for its errors."""
    if name == "compare":
        return pkgutil.resolve_name("drift.summaries:compare")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
