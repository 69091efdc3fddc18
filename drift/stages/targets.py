"""Stage 04: the efSearch, or other setting, that a policy like overlap=0.99 stands for."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from drift import metrics
from drift.indexes.run import FAISS_NAMES
from drift.indexes.targets import (
    METRICS,
    Setting,
    attained,
    candidate_values,
    shortfall,
    smallest_setting,
    split_queries,
)
from drift.intervals import Estimate
from drift.pipeline.blocks import compute_blocks
from drift.pipeline.environment import n_threads
from drift.pipeline.results import load_array
from drift.pipeline.stage import Stage
from drift.protocols import Protocol
from drift.stages import Task
from drift.stages.lists import LISTS, create_lists
from drift.stages.search import SearchIndex
from drift.vectors import row_blocks, vector_norms


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

        def attain(value: int) -> Estimate:
            lists = [search.search(rows, (k,), value)[0][k][:2] for rows in parts]
            return self._measure(half, k, *map(np.concatenate, zip(*lists, strict=True)))

        return smallest_setting(target, candidate_values(low, high), attain)

    def _measure(self, half: np.ndarray, k: int, *ann: np.ndarray) -> Estimate:
        """What ids and distances of one half of the queries attain."""
        target, vectors = self.search.run.target[1], load_array(self.search.embeddings)
        exact = (load_array(file)[half, :k] for file in (self.exact_ids, self.exact_distances))
        protocol, queries = self.search.protocol, load_array(self.search.queries)[half]
        norms = vector_norms(vectors) if protocol.is_published else None
        chosen = [metric for metric in metrics.METRICS if metric.name in METRICS[target.criterion]]
        lists = *exact, {k: ann}, vectors, None if protocol is Protocol.OUTSIDE else queries
        values = metrics.compute_metrics(*lists, norms, n_threads(), metrics=chosen)
        at_k = {name: of_k[0] for name, of_k in values.items()}
        return attained(target, at_k, self.groups[half])

    def choose(self, part: Stage) -> SearchIndex:
        """The search with the value that was chosen for each k."""
        create_lists(part, self.search)  # or resume
        ks = self.search.grid
        for k, chosen in compute_blocks(part, self, ks, f"{part.name}: settings"):
            both = {"reached": chosen.reached, "reached_on_mean": chosen.reached_on_mean}
            ends = {name: _as_json(reached) for name, reached in both.items()}
            part.checkpoint(k, **chosen._asdict() | ends)
        return replace(self.search, chosen={k: part.completed[str(k)]["value"] for k in ks})

    def notes(self, part: Stage) -> dict[str, Any]:
        """What was chosen, and what the stored lists of the other half of the queries attain."""
        setting, target = self.search.run.target
        name = FAISS_NAMES.get(setting, setting)
        values, on_mean, halves, other = {}, {}, {}, self.halves[1]
        for k in self.search.grid:
            chosen = dict(part.completed[str(k)])
            values[k], on_mean[k] = chosen.pop("value"), chosen.pop("value_on_mean")
            files = (part.output(f"{part.name}/k{k:04d}_{kind}.npy") for kind in LISTS)
            there = self._measure(other, k, *(load_array(file)[other] for file in files))
            halves[k] = {**chosen, "other_half": _as_json(there)}
            wanted = f"{target.criterion} {target.level:g} at k = {k}"
            if chosen["reached"]["mean"] is None:
                few = "fewer than 99 % of one half of the queries have an LID"
                print(f"{part.name}: no {name} reaches {wanted}: {few}")
            elif not chosen["is_enough"]:
                none = f"no {name} reaches {wanted} with 95 % confidence"
                print(f"{part.name}: {none}, {values[k]} comes nearest")
            elif not shortfall(target, there) <= 0:
                found = "{:.3f} ({:.3f} to {:.3f})".format(*there[:3])
                found = "unknown" if np.isnan(there.value) else found
                print(f"{part.name}: {wanted} with {name} {values[k]}: {found} on the other half")
        found_for = {"found_for": setting, "target": target.to_json(), "halves": halves}
        return {"ef_search_by_k": values, "ef_search_by_k_on_mean": on_mean, **found_for}


def _as_json(reached: Estimate | None) -> dict[str, float | None] | None:
    if reached is None:
        return None
    ends = zip(("mean", "ci_low", "ci_high"), reached, strict=False)
    return {name: None if np.isnan(end) else float(end) for name, end in ends}
