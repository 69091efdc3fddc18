"""What every script shares: command line, errors in one line, the table at the end."""

import argparse
import contextlib
import errno
import importlib.util
import itertools
import os
import re
import shlex
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
from tqdm import tqdm

from drift import InputError
from drift.pipeline import ENDING, INTERRUPTED, end_as_by_ctrl_c, missing_package
from drift.pipeline.dask_workers import DaskWorkers
from drift.pipeline.environment import limit_threads
from drift.pipeline.lock import lock_folder
from drift.pipeline.manifests import producing_script
from drift.pipeline.output import protect_output
from drift.pipeline.results import Results
from drift.pipeline.stage import Stage, finish_commits

DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        _fail(self.prog, f"{message} (--help lists the options)")


class _HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """The docstring as it stands, and the default of every option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


def parser(doc: str, scheduler: bool = False) -> argparse.ArgumentParser:
    """The flags that all stages have; with `scheduler`, its blocks can be computed elsewhere."""
    parser = _Parser(description=doc, formatter_class=_HelpFormatter, allow_abbrev=False)
    parser.set_defaults(scheduler=None)
    add = parser.add_argument
    add("--results", type=Path, default=Path("results"), metavar="DIR", help="results folder")
    add("--force", action="store_true", help="run even if the results are up to date")
    add(
        "--threads",
        type=integer(1, 1024),
        metavar="N",
        help="threads to compute with; without it, one for each core",
    )
    add("--seed", type=integer(0, 2**31 - 1), default=0, help="seed of whatever is drawn at random")
    if scheduler:
        add(
            "--scheduler",
            metavar="ADDRESS",
            help="compute on the workers of a Dask scheduler, tcp://HOST:8786 for instance, which "
            "see the results folder under the same path; or on processes of this machine: local. "
            "Needs requirements-cluster.txt",
        )
    return parser


def integer(low: int, high: int | None = None) -> Callable[[str], int]:
    """Argument type: a whole number from `low` to `high`."""

    def convert(text: str) -> int:
        number = int(text) if text.isascii() and text.isdigit() else -1
        if not low <= number <= (high or number):
            span = f"of at least {low}" if high is None else f"from {low} to {high}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {span}")
        return number

    return convert


def positive(text: str) -> float:
    """Argument type: a number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def integer_or_all(text: str) -> int | str:
    """Argument type: a whole number from 1 on, or ``all``."""
    return text if text == "all" else integer(1)(text)


def refuse_without(other: str, args: argparse.Namespace, *flags: str) -> None:
    """Raise an `InputError` for a flag that is given without the one that it goes with."""
    for flag in flags:
        if getattr(args, flag):
            name = flag.replace("_", "-")
            raise InputError(f"--{name} goes with {other}: leave it out, or give that too")


def add_grid(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the grid of k."""
    # Without defaults of argparse: those that are given cannot stand beside --k.
    add, whole = parser.add_argument, integer(1)
    add("--k", type=whole, nargs="+", metavar="K", help="the grid of k itself; or, by steps,")
    add("--k-min", type=whole, metavar="K", help="its first k (default: 10)")
    add("--k-max", type=whole, metavar="K", help="its last k (default: that of stage 03)")
    add("--k-step", type=whole, metavar="K", help="from one k to the next (default: 10)")
    text = "the grid replaces that of runs that are there, to which it is added otherwise"
    add("--replace-k", action="store_true", help=text)


def is_grid_asked(args: argparse.Namespace) -> bool:
    """Whether a grid is asked for, which is added to that of a run that is there."""
    return any((args.k, args.k_min, args.k_max, args.k_step))


def check_grid(args: argparse.Namespace) -> None:
    """Raise an `InputError` for flags of the grid that do not go together."""
    if args.k and (args.k_min or args.k_max or args.k_step):
        raise InputError("--k is a grid by itself: leave it out, or --k-min, --k-max and --k-step")
    if args.k_min and args.k_max and args.k_min > args.k_max:
        raise InputError(
            f"the grid is empty: --k-min {args.k_min} is above --k-max {args.k_max}; name each k, "
            f"as --k {args.k_max} {args.k_min}"
        )


def k_grid(args: argparse.Namespace, exact_k: int) -> list[int]:
    """The grid of k, ascending, within the `exact_k` neighbors that stage 03 holds.

    By steps it ends at its last k, whether a step leads there or not. Raises an `InputError` when
    a k is too large.
    """
    k_max = args.k_max or exact_k
    k_min, k_step = args.k_min or min(10, k_max), args.k_step or 10
    grid = sorted({*args.k} if args.k else {*range(k_min, k_max, k_step), max(k_min, k_max)})
    if grid[-1] > exact_k:
        raise InputError(
            f"k = {grid[-1]} is more than the {exact_k} exact neighbors of stage 03: "
            f"run 03_exact_knn.py --k-max {grid[-1]} first"
        )
    return grid


def format_grid(ks: list[int]) -> str:
    """A grid in a sentence: what is left out of a long one follows from the steps around it."""
    is_regular = len({after - k for k, after in itertools.pairwise(ks)}) == 1
    if is_regular and len(ks) > 4:
        return f"{ks[0]}, {ks[1]}, ... {ks[-1]}"
    return ", ".join(map(str, ks))


def command_that_adds(k: int, manifests: Iterable[dict[str, Any]], folder: Path) -> str:
    """What to write in a shell, so that runs with these manifests have lists of k too.

    They are in a results `folder`.
    """
    runs: dict[str, list[str]] = {}
    for words in (manifest.get("asked_by", "") for manifest in manifests):
        if words.startswith("--runs "):
            _, text, *flags = words.split(maxsplit=2)
            runs.setdefault(" ".join(flags), []).append(text)
    commands = [" ".join(["--runs", *texts, flags]) for flags, texts in runs.items()] or [""]
    script = producing_script("04_hnsw")
    script += "" if str(folder) == "results" else f" --results {shlex.quote(str(folder))}"
    return " && ".join(f"python {script} {words} --k {k}".replace("  ", " ") for words in commands)


def run(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> NoReturn:
    """Run a stage; end in one line and status 2 when it fails."""
    end_as_by_ctrl_c()
    protect_output()
    tqdm.set_lock(threading.RLock())  # its own, for several processes, starts one to help it
    # Whatever starts Python from here does not look for modules in the current folder.
    os.environ["PYTHONSAFEPATH"] = "1"
    args = parser.parse_args()
    try:
        if importlib.util.find_spec("scipy") is None:  # which is imported late
            raise ModuleNotFoundError("No module named 'scipy'", name="scipy")
        if args.threads is not None:
            limit_threads(args.threads)
        if not Path(parser.prog).exists():  # called from another folder
            args.results = args.results.absolute()
        str(args.results.absolute()).encode()  # as the libraries do that write there
        with contextlib.ExitStack() as args.opened:
            main(args)
        print(end="", flush=True)
    except KeyboardInterrupt as error:
        _fail(parser.prog, INTERRUPTED, *error.args or (130,))
    except UnicodeEncodeError as error:
        _fail(parser.prog, f"{error.object} has characters that are no {error.encoding}: rename it")
    except InputError as error:
        _fail(parser.prog, str(error))
    except ImportError as error:
        if (line := missing_package(error)) is None:
            raise
        _fail(parser.prog, line)
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            full = f"{error.filename or args.results}: {os.strerror(error.errno)}"
            _fail(parser.prog, f"{full}; once there is room, the same command resumes")
        where = f"{error.filename}: " if error.filename else ""
        _fail(parser.prog, f"{where}{error.strerror or error}")
    except MemoryError as error:
        _fail(parser.prog, f"out of memory: {error}")
    finally:
        for number in ENDING:  # there is nothing left that Python would have to do
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
    sys.exit(0)


def open_stage(name: str, args: argparse.Namespace) -> Stage:
    """A stage, alone in its results folder until `run` ends: when its arguments are checked."""
    results = Results(args.results)
    if args.opened.enter_context(lock_folder(results.root)):
        finish_commits(results)
    workers = None
    if args.scheduler is not None:
        workers = args.opened.enter_context(DaskWorkers(args.scheduler))
    return Stage(name, results, args.force, workers)


def print_text(sentences: list[str]) -> None:
    """Print sentences as a paragraph; what is indented, to be copied, as it is.

    No line ends between backquotes.
    """
    text = " ".join(sentences)
    if not text.startswith(" "):
        text = re.sub("`[^`]+`", lambda match: match[0].replace(" ", "\0"), text)
        text = textwrap.fill(text, 100).replace("\0", " ")
    print(f"\n{text}")


def print_table(title: str, table: pd.DataFrame) -> None:
    """Print the short table with which a stage ends."""
    print(f"\n{title}")
    table = table.where(table.notna(), float("nan"))  # pandas would print None as it is
    print(table.to_string(index=False, na_rep="-", float_format=lambda value: f"{value:.4g}"))


def _fail(prog: str, message: str, status: int = 2) -> NoReturn:
    line = " ".join(part.strip() for part in message.strip().split("\n"))
    print(f"{prog}: {line}", file=sys.stderr)
    sys.exit(status)
