"""Files, arguments and processes: what turns the science into six commands that resume."""

import sys
from pathlib import Path
from types import TracebackType

INTERRUPTED = "interrupted; the same command resumes"


def _report_interrupt(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Report Ctrl-C in one line, also while a script still imports."""
    if issubclass(kind, KeyboardInterrupt):
        print(f"{Path(sys.argv[0]).name}: {INTERRUPTED}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


sys.excepthook = _report_interrupt
