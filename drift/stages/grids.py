"""Stage 04: the grid of k of each run, and what there is on it already."""

import argparse
from collections.abc import Mapping
from contextlib import suppress

from drift import InputError
from drift.pipeline import cli
from drift.pipeline.environment import code_hash, package_versions
from drift.pipeline.manifests import GRAPHS, Manifest, producing_script
from drift.pipeline.stage import Stage
from drift.stages.lists import ListsTask


def on_its_grid(
    part: Stage, task: ListsTask, more: Manifest, longest: int, args: argparse.Namespace
) -> tuple[ListsTask, Manifest | None]:
    """The task on the grid that its run will have, with the manifest of the lists that it extends.

    A grid that is asked for is added to that of a run with the same settings, of the same vectors;
    of other runs, and with ``--replace-k``, it replaces the lists there are, which is said. `more`
    are parameters beside the task's own. No exact list is longer than `longest`.
    """
    there = part.manifest()
    former = None if args.replace_k else _same_lists(part, task, more)
    own = former["parameters"]["k_grid"] if former else []
    if task.run.target:  # the exact lists decide on its setting
        own = [k for k in own if k <= longest]
    if own:
        task = task.at(sorted({*own, *(task.grid if cli.is_grid_asked(args) else ())}))
    if there and not {*(gone := there["parameters"]["k_grid"])} <= {*task.grid}:
        print(
            f"{task.run.name}: its lists for k = {cli.format_grid(gone)} will be overwritten by "
            f"those for k = {cli.format_grid(list(task.grid))}",
            flush=True,
        )
    return task, former


def _same_lists(part: Stage, task: ListsTask, more: Manifest) -> Manifest | None:
    """The manifest of the lists there are, if they are the task's own but for their grid."""
    former = part.manifest() or {}
    with suppress(InputError, KeyError):  # of imported lists whose file is gone; or there is none
        own = task.at(former["parameters"]["k_grid"]).parameters | more
        vectors = [name for name in former["inputs"] if not name.startswith("03_exact")]
        are_same = (former["inputs"][name] == part.inputs.get(name) for name in vectors)
        return former if own == former["parameters"] and all(are_same) else None
    return None


def remaining(part: Stage, task: ListsTask, former: Manifest | None) -> ListsTask:
    """The task at those k for which there are no lists yet; all, where they would not go together.

    Those that there are then stay in place.
    """
    own = former["parameters"]["k_grid"] if former else []
    added = [k for k in task.grid if k not in own]
    if not own or not added or part.force:
        return task
    if _fit_together(part, task, former):
        part.kept = former
        return task.at(added)
    print(
        f"{task.run.name}: all of k = {cli.format_grid(list(task.grid))} is searched anew: what "
        "there is was made by other code, packages or exact lists, or of a graph that cannot be "
        "built as it was (--save-index keeps one)",
        flush=True,
    )
    return task


def _fit_together(part: Stage, task: ListsTask, former: Manifest) -> bool:
    """Whether lists that are added will be as if all had been searched for at once."""
    run, results = task.run, part.results
    made = code_hash(producing_script(part.name)), package_versions()
    if (former.get("code"), former["versions"]) != made:
        return False
    if not results.up_to_date(part.name, former["parameters"], part.inputs):
        return False
    if not run.build or (run.build["threads"] == 1 and run.library != "pgvector"):
        return True
    name = f"{GRAPHS}{run.index_name}"
    graph = results.manifest(name)
    return (
        graph is not None
        and graph["build_seconds"] == former.get("build_seconds")
        and results.up_to_date(name, graph["parameters"], graph["inputs"])
    )


def all_notes(former: Manifest | None, notes: Manifest) -> Manifest:
    """Notes on the searches of a run, with those on the ones that were there before."""
    if former is None:
        return notes
    both = dict(notes)
    for name, value in notes.items():
        if isinstance(value, Mapping) and all(str(key).isdigit() for key in value):
            both[name] = {**former.get(name, {}), **{str(k): of_k for k, of_k in value.items()}}
    both["warnings"] = [*former["warnings"], *notes.get("warnings", ())]
    return both
