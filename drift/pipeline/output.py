"""What a script prints, wherever that goes."""

import errno
import io
import os
import sys
from pathlib import Path

NOBODY_READS_ERRNOS = (errno.EPIPE, errno.EIO)  # `| head` has what it wants, the terminal is closed


def protect_output() -> None:
    """Let nothing that is printed end this process or act on a terminal.

    A reader that has gone is no failure; a full disk is an OSError that names the standard output,
    at the latest when that is flushed. What is not printable is quoted.
    """
    if sys.stdout is sys.__stdout__:  # and not replaced by a test
        sys.stdout, sys.stderr = _protected(sys.stdout), _protected(sys.stderr)


class _Output(io.FileIO):
    """Standard output or error output, without which a stage works as well."""

    is_lost = False

    def write(self, content: bytes) -> int | None:
        try:
            return len(content) if self.is_lost else super().write(content)
        except OSError as error:
            self.is_lost = True
            if error.errno in NOBODY_READS_ERRNOS or self.fileno() == 2:
                return len(content)
            error.filename = "standard output"
            raise


class _Text(io.TextIOWrapper):
    """Text of which nothing acts on a terminal: what names out of files hold is quoted."""

    def write(self, text: str) -> int:
        safe = "\n\t\r" if text.startswith("\r") else "\n\t"  # which a progress bar does
        quoted = (c if c.isprintable() or c in safe else repr(c)[1:-1] for c in text)
        super().write("".join(quoted))
        return len(text)


def _protected(stream: io.TextIOWrapper | None) -> io.TextIOWrapper:
    if stream is None:  # closed by who started this process
        return Path(os.devnull).open("w")
    output = io.BufferedWriter(_Output(stream.fileno(), "w", closefd=False))
    options = {"line_buffering": stream.line_buffering, "write_through": stream.write_through}
    return _Text(output, stream.encoding, "backslashreplace", **options)
