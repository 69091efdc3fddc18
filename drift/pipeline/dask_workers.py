"""Blocks computed by the workers of a Dask cluster: the second way of `compute_blocks`.

The process that was started stays the only one that writes: it hands out blocks, a few for each
worker at a time, stores the results that come back, and keeps the checkpoints. What a block's
result is depends on neither the number of workers nor that of their threads.

A worker process computes one block at a time, with as many threads as Dask gave it. Dask itself is
imported only when the first block is to be computed.
"""

import copy
import importlib.util
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

from drift import InputError
from drift.pipeline.blocks import Block, Result
from drift.pipeline.environment import Environment, use_threads

if TYPE_CHECKING:
    from distributed import Client, Future, Worker

LOCAL = "local"
REQUIREMENTS = "requirements-cluster.txt"
# Seconds that a scheduler has to answer, at the start and after a connection was lost.
CONNECT_TIMEOUT = 10
# Seconds after which it is checked whether there are workers at all, while no block comes back.
CHECK_INTERVAL = 5
# Blocks that a worker has at a time: one that it computes, and one for when that is done.
BLOCKS_PER_WORKER = 2


@dataclass(frozen=True)
class Job:
    """A task to compute for every block, and the environment in which it can be."""

    task: Callable[[Any], Any]
    environment: Environment


class DaskWorkers:
    """The workers of a scheduler, connected when the first block is to be computed.

    Parameters
    ----------
    scheduler : str
        Address of a Dask scheduler; ``local`` to start one and its workers on this machine.
    threads : int, optional
        Cores that ``local`` may use; all of them without it.
    """

    def __init__(self, scheduler: str, threads: int | None = None):
        self._scheduler, self._threads = scheduler, threads
        self._where = "on this machine" if scheduler == LOCAL else f"at {scheduler}"
        self._client: Client | None = None
        self._connection = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._client is not None and self._client.status == "running":  # and not lost
            self._client.run(_forget, on_error="return")
        self._connection.close()

    def map_unordered(
        self, task: Callable[[Block], Result], blocks: Sequence[Block], reads: Iterable[Path]
    ) -> Iterator[tuple[Block, Result]]:
        """Compute every block once, and give each with its result, in whatever order they come.

        No more blocks are under way than twice as many as there are workers, so neither the
        scheduler nor this process holds more of them, however many there are in all.

        Parameters
        ----------
        task : callable
            Picklable, and equal to another one when it does the same.
        blocks : sequence
            What to call it with.
        reads : iterable of Path
            Files that the workers will read. They must see them as this machine does.

        Raises
        ------
        InputError
            When Dask is not installed, the address is none, or a worker runs other code, has other
            packages or sees other files.
        ConnectionError
            When no scheduler answers, or the one there was is lost.
        """
        if self._client is None:
            self._connect()
        job = Job(task, Environment.here(reads))
        self._check_workers(job.environment)
        waiting = iter(blocks)
        pending: dict[Future, Block] = {}
        self._submit(job, waiting, pending)
        while pending:
            for future in self._completed(pending):
                if not future.done():
                    continue  # its worker died with the result: another computes it again
                block = pending.pop(future)
                result = self._result(future, block)
                self._submit(job, waiting, pending)
                yield block, result

    def _connect(self) -> None:
        try:
            import dask

            # What its loggers report of a lost connection or an ended worker is one line here.
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

        enter = self._connection.enter_context
        if self._scheduler == LOCAL:
            client = enter(_client(enter(_local_cluster(self._threads))))
        else:
            client = enter(_client(self._scheduler))
            theirs = client.get_versions()["scheduler"]["packages"]["distributed"]
            if theirs != distributed.__version__:
                raise InputError(
                    f"the scheduler at {self._scheduler} runs distributed {theirs}, this machine "
                    f"{distributed.__version__}: give both the same packages"
                )
        self._client = client
        if not self._count():
            self._warn_without_workers()
            client.wait_for_workers(1)
        for address, found in client.run(importlib.util.find_spec, "drift").items():
            if found is None:
                self._fail(ModuleNotFoundError(name="drift"), address=address)

    def _check_workers(self, environment: Environment) -> None:
        try:
            answers = self._client.run(_check, environment, on_error="return")
        except OSError as error:
            raise self._lost() from error
        for answer in answers.values():
            # A worker that died this moment gives no answer, and gets no block.
            if isinstance(answer, Exception) and not isinstance(answer, OSError):
                self._fail(answer)

    def _submit(self, job: Job, waiting: Iterator[Block], pending: "dict[Future, Block]") -> None:
        """Put as many blocks under way as the workers of this moment can take."""
        room = BLOCKS_PER_WORKER * max(1, self._count()) - len(pending)
        for _, block in zip(range(room), waiting, strict=False):
            pending[self._client.submit(_compute, job, block, pure=False)] = block

    def _completed(self, pending: "dict[Future, Block]") -> "set[Future]":
        """Blocks that have come to an end, at least one."""
        import distributed

        warned = False
        while True:
            try:
                return distributed.wait(
                    list(pending), timeout=CHECK_INTERVAL, return_when="FIRST_COMPLETED"
                ).done
            except TimeoutError:
                if not self._count() and not warned:
                    self._warn_without_workers()
                    warned = True
            except distributed.CancelledError as error:
                raise self._lost() from error

    def _result(self, future: "Future", block: Block) -> Any:
        import distributed

        try:
            if future.status == "error":
                self._fail(future.exception(), block)
            return future.result()
        except distributed.CancelledError as error:
            raise self._lost() from error

    def _count(self) -> int:
        """How many workers there are."""
        try:
            return len(self._client.nthreads())
        except OSError as error:
            raise self._lost() from error

    def _warn_without_workers(self) -> None:
        print(f"the scheduler {self._where} has no worker: waiting for one", file=sys.stderr)

    def _lost(self) -> ConnectionError:
        return ConnectionError(
            f"the scheduler {self._where} is lost: start it again with its workers, then the same "
            "command resumes"
        )

    def _fail(self, error: BaseException, block: Any = None, address: str = "") -> NoReturn:
        """Raise what a worker's failure means here."""
        import distributed

        if isinstance(error, distributed.KilledWorker):
            raise InputError(
                f"block {block} ended {error.allowed_failures + 1} workers one after the other, "
                f"the last of them {error.last_worker.address}: their logs say why, and a lack of "
                "memory is the usual reason; with other workers the same command resumes"
            ) from error
        if isinstance(error, ImportError):
            raise InputError(
                f"the worker {address or 'of a block'} cannot import {error.name}: start it by "
                "`python -m dask worker` in a checkout of this project, with the packages of "
                f"{REQUIREMENTS}"
            ) from error
        raise error


# What this process computes, with the files it has opened, if it is a worker.
_current: Job | None = None
_one_at_a_time = threading.Lock()


def _compute(job: Job, block: Any) -> Any:
    """Compute a block, in a worker."""
    from distributed import get_worker

    global _current
    worker = get_worker()
    with _one_at_a_time:
        use_threads(worker.state.nthreads)
        if _current != job:
            _forget()  # two of them need not fit in memory
            job.environment.check(worker.address)
            # A copy, to which Dask holds no reference: what it opens goes when it is forgotten.
            _current = Job(copy.copy(job.task), job.environment)
        return _current.task(block)


def _check(environment: Environment, dask_worker: "Worker") -> None:
    environment.check(dask_worker.address)


def _forget() -> None:
    """Let go of what this worker has opened and built."""
    global _current
    _current = None


@contextmanager
def _client(address: str) -> "Iterator[Client]":
    import distributed

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # versions are compared by `_check`, and more of them
        try:
            client = distributed.Client(address, timeout=CONNECT_TIMEOUT, name="neighborhood-drift")
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
