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
from drift.pipeline.manifests import remove_if_empty

UNWRITABLE_ERRNOS = (errno.EACCES, errno.EPERM, errno.EROFS)
NO_LOCKS_ERRNOS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[bool]:
    """Keep other processes out of a folder, by an InputError that names this one; whether it is.

    The lock ends with the process; its file ``.lock`` says who holds it. A folder that is made for
    it is removed if it stays empty. One that this process cannot write to is not locked.
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
        remove_if_empty(*created)
