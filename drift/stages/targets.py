"""Stage 04: the efSearch, or other setting, that a policy like overlap=0.99 stands for."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from drift.indexes.targets import (
    Attained,
    Setting,
    attained,
    candidate_values,
    smallest_setting,
    split_queries,
)
from drift.pipeline.blocks import compute_blocks
from drift.pipeline.results import load_array
from drift.pipeline.stage import Stage
from drift.stages import Task
from drift.stages.lists import LISTS, create_lists
from drift.stages.search import SearchIndex
from drift.vectors import row_blocks


@dataclass(frozen=True)
class ChooseSetting(Task):
    """Choose, for one k, the smallest value of a setting that is enough on half of the queries."""

    search: SearchIndex
    exact_ids: Path
    exact_distances: Path
    rows: Path | None = None  # the table with the groups of the queries, if these are rows

    @cached_property
    def groups(self) -> np.ndarray:
        """Groups of the queries, (Q,); -1 where one is a group of its own."""
        if self.rows is None:
            return np.full(self.search.n_queries, -1)
        groups = pd.read_parquet(self.rows, columns=["group"])["group"].to_numpy()
        return groups[load_array(self.search.queries)]

    @cached_property
    def halves(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the queries by which it is chosen, and of the others."""
        return split_queries(self.search.n_queries, self.groups)

    def __call__(self, k: int) -> Setting:
        search = self.search
        setting, target = search.run.target
        low, high = search.index.value_range(setting, search.protocol.list_length(k))
        half = self.halves[0]
        parts = [half[slice(*rows)] for rows in row_blocks(len(half), search.bytes_per_row(k))]

        def attain(value: int) -> Attained:
            lists = [search.search(rows, (k,), value)[0][k][:2] for rows in parts]
            return self._measure(half, k, *map(np.concatenate, zip(*lists, strict=True)))

        return smallest_setting(target, candidate_values(low, high), attain)

    def _measure(self, half: np.ndarray, k: int, *ann: np.ndarray) -> Attained:
        """What ids and distances of one half of the queries attain."""
        files = self.exact_ids, self.exact_distances
        exact = tuple(load_array(file)[half, :k] for file in files)
        return attained(self.search.run.target[1], exact, ann, self.groups[half])

    def choose(self, part: Stage) -> SearchIndex:
        """The search with the value that was chosen for each k."""
        create_lists(part, self.search)  # or resume
        ks = self.search.grid
        for k, chosen in compute_blocks(part, self, ks, f"{part.name}: settings"):
            notes = chosen._asdict() | {"reached": _as_json(chosen.reached)}
            part.checkpoint(k, **notes)
        return replace(self.search, chosen={k: part.completed[str(k)]["value"] for k in ks})

    def notes(self, part: Stage) -> dict[str, Any]:
        """What was chosen, and what the stored lists of the other half of the queries attain."""
        setting, target = self.search.run.target
        values, halves, other = {}, {}, self.halves[1]
        for k in self.search.grid:
            chosen = dict(part.completed[str(k)])
            values[k] = chosen.pop("value")
            files = (part.output(f"{part.name}/k{k:04d}_{kind}.npy") for kind in LISTS)
            there = self._measure(other, k, *(load_array(file)[other] for file in files))
            agrees = there.agrees(target)
            halves[k] = {**chosen, "other_half": _as_json(there), "agrees": agrees}
            wanted = f"{target.criterion} {target.level} at k = {k}"
            if not chosen["is_enough"]:
                print(f"{part.name}: no {setting} reaches {wanted}, the best is {values[k]}")
            elif not agrees:
                print(f"{part.name}: {setting} {values[k]} misses {wanted} on the other half")
        found_for = {"found_for": setting, "target": target.to_json()}
        return {"ef_search_by_k": values, **found_for, "halves": halves}


def _as_json(attained: Attained) -> dict[str, float | None]:
    return {name: None if np.isnan(end) else end for name, end in attained._asdict().items()}
