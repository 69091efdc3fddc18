"""Stage 04: the efSearch, or other setting, that a policy like overlap=0.99 stands for."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from drift.indexes.config import PGVECTOR, SearchConfig
from drift.pipeline.blocks import compute_blocks
from drift.pipeline.results import load_array
from drift.pipeline.tasks import Task
from drift.pipeline.tasks.exact import QUERY_VECTORS
from drift.pipeline.tasks.images import image_table, read_numbers
from drift.pipeline.tasks.search import LISTS, SearchIndex
from drift.vectors import row_blocks

if TYPE_CHECKING:
    from drift.indexes.effort import Effort, Reached
    from drift.pipeline.stage import Stage


@dataclass(frozen=True)
class FindEffort(Task):
    """Find, for one k, the smallest value of a setting that is enough on half of the queries."""

    search: SearchIndex
    exact: tuple[Path, ...]
    images: Path | None  # the table with their groups, if they have any
    seed: int = 0

    @cached_property
    def groups(self) -> np.ndarray | None:
        """Groups of the queries, (Q,); None where each is a group of its own."""
        groups = self.images and read_numbers(self.images, "group")
        return None if groups is None else groups[load_array(self.search.queries)]

    @cached_property
    def halves(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the queries on which it is found, and of the others."""
        from drift.indexes.effort import random_halves

        return random_halves(self.search.n_queries, self.groups, self.seed)

    def blocks(self) -> list[tuple[str, int]]:
        return [("effort", k) for k in self.search.grid]

    def __call__(self, block: tuple[str, int]) -> "Effort":
        from drift.indexes.effort import ladder, smallest_effort

        _, k = block
        setting, target = self.search.config.target
        length = self.search.protocol.list_length(k)
        values = ladder(*self.search.index.value_range(setting, length))
        return smallest_effort(target, values, lambda value: self._reached(k, value))

    def _reached(self, k: int, value: int) -> "Reached":
        settings = self.search.config.values(self.search.protocol.policy_length(k), value)
        half, found = self.halves[0], []
        bytes_per_row = load_array(self.search.embeddings).shape[1] * 4 + 32 * k
        for rows in row_blocks(len(half), bytes_per_row):
            lists, _ = self.search.search(half[slice(*rows)], (k,), settings, max_searches=1)
            found.append(lists[k][:2])
        return self.measure(0, k, *(np.concatenate(side) for side in zip(*found, strict=True)))

    def measure(self, half: int, k: int, ids: np.ndarray, distances: np.ndarray) -> "Reached":
        """What the lists of one half of the queries reach."""
        from drift.indexes.effort import reached

        rows = self.halves[half]
        exact = tuple(load_array(path)[rows, :k] for path in self.exact)
        groups = None if self.groups is None else self.groups[rows]
        target = self.search.config.target[1]
        return reached(target, exact, (ids, distances), groups, self.seed)

    def find(self, run: "Stage") -> SearchIndex:
        """Find the value for each k; the search with these values."""
        for block, found in compute_blocks(run, self, self.blocks(), f"{run.name}: efforts"):
            run.checkpoint(block, **found._asdict() | {"reached": found.reached._asdict()})
        found = ((block[1], run.completed[str(block)]["value"]) for block in self.blocks())
        return replace(self.search, found=tuple(found))

    def facts(self, run: "Stage") -> dict[str, Any]:
        """What was found, and what the stored lists of the other half of the queries reach."""
        from drift.indexes.effort import agrees

        setting, target = self.search.config.target
        values, halves = {}, {}
        for block in self.blocks():
            k, found = block[1], dict(run.completed[str(block)])
            values[k] = found.pop("value")
            files = (run.output(f"{run.name}/k{k:04d}_{part}.npy") for part in LISTS)
            other = self.measure(1, k, *(load_array(file)[self.halves[1]] for file in files))
            halves[k] = {**found, "other_half": other._asdict(), "agrees": agrees(target, other)}
            wanted = f"{target.criterion} {target.level} at k = {k}"
            if not found["is_enough"]:
                print(f"{run.name}: no {setting} reaches {wanted}, the best is {values[k]}")
            elif not halves[k]["agrees"]:
                print(f"{run.name}: {setting} {values[k]} misses {wanted} on the other half")
        found = {"found_for": setting, "target": target._asdict()}
        return {"ef_search_by_k": values, **found, "halves": halves}


def run_part(stage: "Stage", config: SearchConfig) -> "Stage":
    """A part of stage 04 for a run, with everything that it is made from as its inputs."""
    run = stage.part(config.name)
    if config.index.backend == PGVECTOR:
        run.discard()  # the next graph is another one, so an interrupted run starts over
    if config.target:
        _effort_inputs(run)
    return run


def choose_effort(run: "Stage", search: SearchIndex) -> FindEffort | None:
    """What finds the values of a search's policy, where that is a target."""
    return FindEffort(search, *_effort_inputs(run)) if search.config.target else None


def _effort_inputs(run: "Stage") -> tuple[tuple[Path, ...], Path | None]:
    exact = run.require("03_exact_indices.npy", "03_exact_distances.npy")
    return tuple(exact), None if QUERY_VECTORS in run.inputs else image_table(run)
