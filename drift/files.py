"""What can happen to a program on a file system: another process beside it, a disk that is full."""

import contextlib
import errno
import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from drift import InputError

NOT_TO_BE_WRITTEN = (errno.EACCES, errno.EPERM, errno.EROFS)
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[bool]:
    """Keep every other process that asks for it out of a folder.

    The lock is the system's own (``flock``, also across the machines that share a folder by NFS),
    on a file ``.lock`` that says who holds it. It ends with the process, however that ends.

    Parameters
    ----------
    folder : Path
        Made if need be, and removed again if it is empty in the end.

    Yields
    ------
    bool
        Whether the folder is held. It is not where this process cannot write to it.

    Raises
    ------
    InputError
        When another process holds it; the message says which one.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    path = folder / ".lock"
    descriptor = _lock(path)
    if descriptor is None:
        yield False
        return
    try:
        yield True
    finally:
        # While it is held: whoever has opened the removed file looks again.
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)
        with contextlib.suppress(OSError):
            for empty in made:
                empty.rmdir()


def _lock(path: Path) -> int | None:
    """Descriptor of the locked file, None in a folder that cannot be written to."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            if error.errno in NOT_TO_BE_WRITTEN and not os.access(path.parent, os.W_OK):
                return None
            raise
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 500, 0).decode(errors="replace") or "another process"
            os.close(descriptor)
            message = f"{path.parent} is in use by {holder}: wait until it has ended"
            raise InputError(message) from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            print(f"warning: {path.parent} has no locks, run one script at a time", file=sys.stderr)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                break
        # Its last holder removed it between the opening and the locking.
        os.close(descriptor)
    since = datetime.now().astimezone().isoformat(" ", "seconds")
    script = Path(sys.argv[0]).name
    facts = f"{script}, process {os.getpid()} on {socket.gethostname()}, since {since}"
    with contextlib.suppress(OSError):  # a full disk is no reason not to say "up to date"
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, facts.encode(), 0)
    return descriptor


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in the system's errors: that of a write to a full disk does not."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
