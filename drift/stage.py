"""What every script shares: command line, errors in one line, threads, the table at the end."""

import argparse
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd

from drift import InputError
from drift.artifacts import Results
from drift.blocks import use_threads
from drift.draft import finish_publications
from drift.files import FULL, hold


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (--help shows what can be said)\n")


class _HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """The docstring as it stands, and the default of every option."""


def parser(doc: str) -> argparse.ArgumentParser:
    """Command line of a stage: the flags that all stages have, to which the script adds its own.

    Parameters
    ----------
    doc : str
        The script's docstring, which ``--help`` shows.
    """
    parser = _Parser(description=doc, formatter_class=_HelpFormatter, allow_abbrev=False)
    parser.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="results folder"
    )
    parser.add_argument(
        "--force", action="store_true", help="run even if the results are up to date"
    )
    parser.add_argument(
        "--threads",
        type=integer(1, 1024),
        metavar="N",
        help="threads to compute with; without it, one for each core",
    )
    parser.add_argument(
        "--seed", type=integer(0, 2**31 - 1), default=0, help="seed of whatever is drawn at random"
    )
    return parser


def add_scheduler(parser: argparse.ArgumentParser) -> None:
    """Add the flag of the stages that work in blocks, which can be computed elsewhere."""
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="compute on the workers of a Dask scheduler, tcp://HOST:8786 for instance, which see "
        "the results folder under the same path; or on processes of this machine: local. Needs "
        "requirements-cluster.txt",
    )


def integer(low: int, high: int | None = None) -> Callable[[str], int]:
    """Argument type: a whole number from `low` to `high`."""

    def convert(text: str) -> int:
        if (
            not (text.isascii() and text.isdigit())
            or int(text) < low
            or (high is not None and int(text) > high)
        ):
            span = f"of at least {low}" if high is None else f"from {low} to {high}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {span}")
        return int(text)

    return convert


def run(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> NoReturn:
    """Parse the command line, run the stage, and end the process.

    No other process works in the results folder meanwhile. What is wrong with the input, the files
    or the machine ends in one line and status 2.
    """
    args = parser.parse_args()
    try:
        if args.threads is not None:
            use_threads(args.threads)
        results = Results(args.results)
        with hold(results.root) as held:
            if held:
                finish_publications(results)
            main(args)
    except KeyboardInterrupt:
        _fail(parser.prog, "interrupted; the same command goes on from here", status=130)
    except InputError as error:
        _fail(parser.prog, str(error))
    except OSError as error:
        if error.errno in FULL:
            full = f"{error.filename or args.results}: {os.strerror(error.errno)}"
            _fail(parser.prog, f"{full}; the same command goes on from here once there is room")
        where = f"{error.filename}: " if error.filename else ""
        _fail(parser.prog, f"{where}{error.strerror or error}")
    except MemoryError as error:
        _fail(parser.prog, f"out of memory: {error}")
    sys.exit(0)


def up_to_date(
    results: Results,
    stage: str,
    parameters: dict[str, Any],
    inputs: dict[str, dict[str, Any]],
    force: bool,
) -> bool:
    """Whether there is nothing to do, which is said then."""
    done = not force and results.up_to_date(stage, parameters, inputs)
    if done:
        print(f"{stage}: up to date in {results.root} (--force runs it anyway)")
    return done


def report(title: str, table: pd.DataFrame) -> None:
    """Print the short table with which a stage ends."""
    print(f"\n{title}")
    print(table.to_string(index=False, na_rep="-", float_format=lambda value: f"{value:.4g}"))


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _fail(prog: str, message: str, status: int = 2) -> NoReturn:
    print(f"{prog}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)
