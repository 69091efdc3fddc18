"""Two neighbor lists from files, compared without the pipeline.

example
  python -m drift compare exact.npy mine.npy --distances exact_d.npy my_d.npy
"""

import argparse
import sys
from pathlib import Path

import numpy as np

import drift.pipeline  # which refuses a Python that is too old
from drift.pipeline.output import protect_output


def main() -> None:
    parser = argparse.ArgumentParser("python -m drift", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("command", choices=["compare"], help="means over the queries")
    text = "ids of %s lists, whole numbers (Q, k), without the query; -1: missing; a .npy file"
    parser.add_argument("exact", metavar="EXACT", help=text % "exact")
    parser.add_argument("ann", metavar="MINE", help=text % "other")
    text = "their Euclidean distances, +inf: missing; with them also recall, distances and LID"
    files = {"nargs": 2, "metavar": ("EXACT", "MINE"), "default": (None, None)}
    parser.add_argument("--distances", **files, help=text)
    args = parser.parse_args()
    protect_output()
    try:
        rows = drift.compare(*map(_read, (args.exact, args.ann, *args.distances)))
        print(f"{'metric':<22}{'mean':>10}{'95 % interval':>24}{'queries':>9}")
        for metric, mean, low, high, n, *_ in rows:
            interval = f"{low:.4g} to {high:.4g}".replace("nan to nan", "-")
            print(f"{metric:<22}{mean:>10.4g}{interval:>24}{n:>9}")
        print(end="", flush=True)
    except (drift.InputError, OSError) as error:
        where = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error
        print(f"python -m drift compare: {where}", file=sys.stderr)
        sys.exit(2)


def _read(file: str | None) -> np.ndarray | None:
    if file is None:
        return None
    drift.regular_file(Path(file))
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("an archive of several arrays")
    except OSError as error:
        raise drift.InputError(f"{file}: {error.strerror or error}") from error
    except (ValueError, EOFError) as error:
        raise drift.InputError(f"{file} is no .npy file of numbers: use numpy.save") from error
    return array


if __name__ == "__main__":
    main()
