"""What each stage computes for a block: the science, bound to the files that it reads.

A task is paths and parameters, and opens its files only when it is called.
"""

from dataclasses import fields
from typing import Any


class Task:
    """A dataclass that is pickled by its fields alone: what it has opened stays behind."""

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}
