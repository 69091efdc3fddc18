"""Blocks computed by the workers of a Dask cluster: the second way of running `drift.blocks`.

The process that was started stays the only one that writes: it hands out blocks, a few for each
worker at a time, stores the outcomes that come back, and keeps the journal. What a block's outcome
is depends on neither the number of workers nor that of their threads.

A worker process computes one block at a time, with as many threads as Dask gave it. Dask itself is
imported only when a scheduler is named.
"""

import hashlib
import importlib.util
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import uuid4

from drift import InputError
from drift.blocks import Outcome, Unit, Workers, use_threads
from drift.draft import package_versions

if TYPE_CHECKING:
    from distributed import Client, Future, Worker

LOCAL = "local"
REQUIREMENTS = "requirements-cluster.txt"
# Seconds that a scheduler has to answer, at the start and after a connection was lost.
PATIENCE = 10
# Seconds after which it is looked whether there are workers at all, while no block comes back.
LOOK_AGAIN = 5
# Blocks that a worker has at a time: one that it computes, and one for when that is done.
BLOCKS_PER_WORKER = 2


def _code() -> str:
    """Hash of the package's source as it is on disk now."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


# Taken when the module is loaded: a worker that was started long ago does not run what is on disk.
_CODE = _code()


@dataclass(frozen=True)
class Surroundings:
    """What a worker must have in common with the process that hands out the blocks.

    Attributes
    ----------
    code : str
        Hash of the package's source.
    versions : dict
        Versions of Python and of the packages that results depend on, and of Dask.
    files : dict
        Size in bytes and time of the last change in ns, by absolute path.
    """

    code: str
    versions: dict[str, str]
    files: dict[Path, tuple[int, int]]


@dataclass(frozen=True)
class Job:
    """What is to be computed for every unit: a pickled `Portable`, and where it can be."""

    name: str
    portable: bytes
    surroundings: Surroundings


@contextmanager
def connect(
    scheduler: str | None, reads: Iterable[Path], threads: int | None = None
) -> Iterator[Workers | None]:
    """Workers that compute blocks, for `drift.blocks.run`.

    Parameters
    ----------
    scheduler : str or None
        Address of a Dask scheduler; ``local`` to start one and its workers on this machine; None
        to compute in this process.
    reads : iterable of Path
        Files that the workers will read. They must see them as this machine does.
    threads : int, optional
        Cores that ``local`` may use; all of them without it.

    Yields
    ------
    Workers or None
        None when `scheduler` is None.

    Raises
    ------
    InputError
        When Dask is not installed, the address is none, or a worker runs other code, has other
        packages or sees other files.
    ConnectionError
        When no scheduler answers, or the one there was is lost.
    """
    if scheduler is None:
        yield None
        return
    try:
        import dask

        # What its loggers report of a lost connection or an ended worker is said here in one line.
        quiet = dict.fromkeys(
            ("distributed", "distributed.client", "distributed.nanny", "tornado", "asyncio"),
            "critical",
        )
        dask.config.set({"distributed.logging": quiet})
        import distributed
    except ImportError as error:
        raise InputError(
            f"--scheduler needs Dask ({error}): pip install -r {REQUIREMENTS}"
        ) from error

    files = {path.absolute(): _seen(path) for path in reads}
    surroundings = Surroundings(_CODE, _versions(), files)
    if scheduler == LOCAL:
        with _local_cluster(threads) as address, _client(address) as client:
            yield Cluster(client, "on this machine", surroundings)
    else:
        with _client(scheduler) as client:
            there = client.get_versions()["scheduler"]["packages"]["distributed"]
            if there != distributed.__version__:
                raise InputError(
                    f"the scheduler at {scheduler} runs distributed {there}, this machine "
                    f"{distributed.__version__}: give both the same packages"
                )
            workers = Cluster(client, f"at {scheduler}", surroundings)
            try:
                yield workers
            finally:
                if client.status == "running":  # and not lost
                    workers.release()


class Cluster:
    """The workers of a scheduler, as `drift.blocks.run` uses them.

    Parameters
    ----------
    client : distributed.Client
        Connected.
    where : str
        Where the scheduler is, for messages.
    surroundings : Surroundings
        Checked now on the workers that are there, and on every other before its first block.
    """

    def __init__(self, client: "Client", where: str, surroundings: Surroundings):
        self._client, self._where, self._surroundings = client, where, surroundings
        self._jobs: dict[Callable[[Any], Any], Job] = {}
        if not self._count():
            self._say_that_none_is_there()
            client.wait_for_workers(1)
        for address, found in client.run(importlib.util.find_spec, "drift").items():
            if found is None:
                self._fail(ModuleNotFoundError(name="drift"), at=address)
        for answer in client.run(_check, surroundings, on_error="return").values():
            if isinstance(answer, Exception):
                self._fail(answer)

    def outcomes(
        self, units: Sequence[Unit], compute: Callable[[Unit], Outcome]
    ) -> Iterator[tuple[Unit, Outcome]]:
        """As in `drift.blocks.Workers`.

        No more blocks are under way than twice as many as there are workers, so neither the
        scheduler nor this process holds more of them, however many there are in all.
        """
        job = self._job(compute)
        waiting = iter(units)
        flying: dict[Future, Unit] = {}
        self._send(job, waiting, flying)
        while flying:
            for future in self._done(flying):
                if not future.done():
                    continue  # its worker died with the outcome: another does it again
                unit = flying.pop(future)
                outcome = self._outcome(future, unit)
                self._send(job, waiting, flying)
                yield unit, outcome

    def release(self) -> None:
        """Let the workers forget what they have opened and built."""
        self._client.run(_forget, on_error="return")

    def _job(self, compute: Callable[[Unit], Outcome]) -> Job:
        import cloudpickle

        if compute not in self._jobs:
            # By value where it is defined in a script, which no worker can import.
            portable = cloudpickle.dumps(compute)
            self._jobs[compute] = Job(uuid4().hex, portable, self._surroundings)
        return self._jobs[compute]

    def _send(self, job: Job, waiting: Iterator[Unit], flying: "dict[Future, Unit]") -> None:
        """Put as many blocks under way as the workers of this moment can take."""
        room = BLOCKS_PER_WORKER * max(1, self._count()) - len(flying)
        for _, unit in zip(range(room), waiting, strict=False):
            flying[self._client.submit(_compute, job, unit, pure=False)] = unit

    def _done(self, flying: "dict[Future, Unit]") -> "set[Future]":
        """Blocks that have come to an end, at least one."""
        import distributed

        told = False
        while True:
            try:
                return distributed.wait(
                    list(flying), timeout=LOOK_AGAIN, return_when="FIRST_COMPLETED"
                ).done
            except TimeoutError:
                if not self._count() and not told:
                    self._say_that_none_is_there()
                    told = True
            except distributed.CancelledError as error:
                raise self._lost() from error

    def _outcome(self, future: "Future", unit: Unit) -> Any:
        import distributed

        try:
            if future.status == "error":
                self._fail(future.exception(), unit)
            return future.result()
        except distributed.CancelledError as error:
            raise self._lost() from error

    def _count(self) -> int:
        """How many workers there are."""
        try:
            return len(self._client.nthreads())
        except OSError as error:
            raise self._lost() from error

    def _say_that_none_is_there(self) -> None:
        print(f"the scheduler {self._where} has no worker: waiting for one", file=sys.stderr)

    def _lost(self) -> ConnectionError:
        return ConnectionError(
            f"the scheduler {self._where} is lost: start it again with its workers, then the same "
            "command goes on from here"
        )

    def _fail(self, error: BaseException, unit: Any = None, at: str = "") -> NoReturn:
        """Raise what a worker's failure means here."""
        import distributed

        if isinstance(error, distributed.KilledWorker):
            raise InputError(
                f"block {unit} ended {error.allowed_failures + 1} workers one after the other, the "
                f"last of them {error.last_worker.address}: their logs say why, and a lack of "
                "memory is the usual reason; with other workers the same command goes on from here"
            ) from error
        if isinstance(error, ImportError):
            raise InputError(
                f"the worker {at or 'of a block'} cannot import {error.name}: start it by "
                "`python -m dask worker` in a checkout of this project, with the packages of "
                f"{REQUIREMENTS}"
            ) from error
        raise error


# What this process has opened and built, if it is a worker: the name of a job, and what computes.
_made: tuple[str, Callable[[Any], Any] | None] = ("", None)
_one_at_a_time = threading.Lock()


def _compute(job: Job, unit: Unit) -> Any:
    """Compute a unit, in a worker."""
    import cloudpickle
    from distributed import get_worker

    global _made
    worker = get_worker()
    with _one_at_a_time:
        use_threads(worker.state.nthreads)
        if _made[0] != job.name:
            _forget()  # two of them need not fit in memory
            _check(job.surroundings, worker)
            _made = job.name, cloudpickle.loads(job.portable)
        use_threads(worker.state.nthreads)  # of the libraries that this has loaded
        return _made[1](unit)


def _forget() -> None:
    global _made
    _made = ("", None)


def _check(expected: Surroundings, dask_worker: "Worker") -> None:
    """Raise InputError when this worker would compute something else, or not at all."""
    here = f"the worker {dask_worker.address}"
    versions = _versions()
    others = [
        f"{package} {versions.get(package, 'missing')}, not {version}"
        for package, version in expected.versions.items()
        if versions.get(package) != version
    ]
    if others:
        raise InputError(f"{here} has other packages ({'; '.join(others)}): give it the same ones")
    if expected.code != _CODE:
        raise InputError(
            f"{here} runs another state of drift/: start it again, in a checkout like this one"
        )
    for path, seen in expected.files.items():
        try:
            same = _seen(path) == seen
        except OSError:
            same = False
        if not same:
            raise InputError(
                f"{here} does not see {path} as this machine does: the results folder must be one "
                "that all machines share, under the same path"
            )


def _seen(path: Path) -> tuple[int, int]:
    # Opened first: only then does a network file system ask its server.
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _versions() -> dict[str, str]:
    import distributed

    return {**package_versions(), "distributed": distributed.__version__}


@contextmanager
def _client(address: str) -> "Iterator[Client]":
    import distributed

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # versions are compared by `_check`, and more of them
        try:
            client = distributed.Client(address, timeout=PATIENCE, name="neighborhood-drift")
        except ValueError as error:
            raise InputError(
                f"--scheduler {address} is no address of a Dask scheduler: write "
                f"tcp://HOST:8786, or {LOCAL}"
            ) from error
        except OSError as error:
            raise ConnectionError(
                f"no scheduler answers at {address}: start one by `python -m dask scheduler`, "
                "which prints its address"
            ) from error
    try:
        yield client
    finally:
        client.close(timeout=2)


@contextmanager
def _local_cluster(threads: int | None) -> Iterator[str]:
    """A scheduler that only this machine can reach, with workers that share out its cores."""
    import logging

    import distributed
    from dask.system import CPU_COUNT
    from distributed.deploy.utils import nprocesses_nthreads

    # Up to four cores, a process for each. On more, processes of several threads: each process has
    # an index of its own, or centered vectors.
    processes, threads_of_each = nprocesses_nthreads(threads or CPU_COUNT)
    with distributed.LocalCluster(
        n_workers=processes,
        threads_per_worker=threads_of_each,
        processes=True,
        host="127.0.0.1",
        memory_limit=0,  # memory-mapped files would count
        dashboard_address="127.0.0.1:0",  # any free port: another cluster may have the usual one
        silence_logs=logging.CRITICAL,
    ) as cluster:
        yield cluster.scheduler_address
