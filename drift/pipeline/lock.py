"""One process at a time in a folder."""

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from drift import InputError

UNWRITABLE_ERRNOS = (errno.EACCES, errno.EPERM, errno.EROFS)
NO_LOCKS_ERRNOS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[bool]:
    """Keep other processes that ask for the same lock out of a folder; whether it is locked.

    The lock ends with the process. Its file ``.lock`` says who holds it, which is the message of
    the `InputError` for others. The folder is made if need be, and removed again if it is empty in
    the end. It is not locked where this process cannot write to it.
    """
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    path = folder / ".lock"
    # Whoever meets a lock file that its holder is about to remove tries again within the timeout.
    lock = FileLock(path, timeout=0.1, poll_interval=0.02, fallback_to_soft=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        holder = "another process"
        with contextlib.suppress(OSError):
            holder = path.read_text(errors="replace") or holder
        raise InputError(f"{folder} is in use by {holder}: wait until it has ended") from error
    except OSError as error:
        if error.errno in UNWRITABLE_ERRNOS and not os.access(folder, os.W_OK):
            yield False
            return
        if error.errno not in NO_LOCKS_ERRNOS:
            raise
        print(f"warning: {folder} has no locks, run one script at a time", file=sys.stderr)
    try:
        since = datetime.now().astimezone().isoformat(" ", "seconds")
        process = f"{Path(sys.argv[0]).name}, process {os.getpid()} on {socket.gethostname()}"
        with contextlib.suppress(OSError):  # a full disk is no reason not to say "up to date"
            path.write_text(f"{process}, since {since}")
        yield True
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        lock.release()
        with contextlib.suppress(OSError):
            for empty in created:
                empty.rmdir()
