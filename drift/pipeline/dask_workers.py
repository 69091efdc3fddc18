"""Blocks computed by the workers of a Dask cluster: the second way of `compute_blocks`.

The process that was started stays the only one that writes. What a block's result is depends on
neither the number of workers nor that of their threads. Dask itself is imported only when the
first block is to be computed.
"""

import copy
import itertools
import logging
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import resource_tracker
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn, TypeVar

from drift import InputError
from drift.pipeline import ENDING
from drift.pipeline.environment import check_worker, limit_threads, n_threads, worker_state

Block = TypeVar("Block", bound=Hashable)
Result = TypeVar("Result")
LOCAL = "local"
CONNECT_TIMEOUT = 10  # seconds, at the start and after a connection was lost
START_TIMEOUT = 60  # seconds until a worker of this machine is there, or is there again
CHECK_INTERVAL = 5  # seconds without a block, after which it is checked whether there are workers
BLOCKS_PER_WORKER = 2  # one that it computes, and one for when that is done


class DaskWorkers(ExitStack):
    """The workers of the scheduler at an address, connected when a block is to be computed.

    At ``local`` a scheduler and workers are started on this machine.
    """

    def __init__(self, scheduler: str):
        super().__init__()
        self._scheduler, self._client, self._security = scheduler, None, None
        self._where = "on this machine" if scheduler == LOCAL else f"at {scheduler}"

    def map_unordered(
        self, task: Callable[[Block], Result], blocks: Sequence[Block], reads: Iterable[Path]
    ) -> Iterator[tuple[Block, Result]]:
        """Compute every block once, and give each with its result, in whatever order they come.

        The task is picklable, equal to one that does the same, and reads these files. InputError
        when the address is none, or a worker differs in what it has, and
        ConnectionError when no scheduler answers, or it is lost.
        """
        if self._client is None:
            self._connect()
        state = worker_state(reads)
        with self._reporting_loss():
            answers = self._client.run(check_worker, state, on_error="return")
        for address, answer in answers.items():
            # A worker that died this moment gives no answer, and gets no block.
            if isinstance(answer, Exception) and not isinstance(answer, OSError):
                _fail(answer, f"the worker {address}")
        waiting, pending = iter(blocks), {}  # the block of each future
        while True:
            with self._reporting_loss():
                room = BLOCKS_PER_WORKER * max(1, len(self._client.nthreads())) - len(pending)
                for block in itertools.islice(waiting, max(0, room)):
                    future = self._client.submit(_compute, task, state, block, pure=False)
                    pending[future] = block
                if not pending:
                    return
                future = self._completed([*pending])
                failed = future.status == "error"
                outcome = future.exception() if failed else future.result()
                if failed and isinstance(outcome, OSError) and outcome.errno is None:
                    raise outcome  # of a connection; that of a file has a number
            block = pending.pop(future)
            if failed:
                _fail(outcome, "a worker", block)
            yield block, outcome

    def _connect(self) -> None:
        import dask

        # What its loggers report at length is one line here.
        quiet = ("distributed", "distributed.client", "distributed.nanny", "tornado", "asyncio")
        dask.config.set({"distributed.logging": dict.fromkeys(quiet, "critical")})
        import distributed

        address = self._start_here() if self._scheduler == LOCAL else self._scheduler
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # versions are compared by `check_worker`
                # First, since a client that fails of its address stays half open, and is closed
                # as garbage in any thread, which can keep the next one from starting.
                distributed.comm.get_address_host(address)
                self._client = distributed.Client(
                    address, timeout=CONNECT_TIMEOUT, security=self._security
                )
        except (ValueError, TypeError) as error:
            raise InputError(
                f"--scheduler {address} is no address, or one of tls:// and Dask is configured "
                f"without certificates: write tcp://HOST:8786, or {LOCAL}"
            ) from error
        except OSError as error:
            raise ConnectionError(
                f"no scheduler answers at {address}: start one by `python -m dask scheduler`, "
                "which prints its address"
            ) from error
        self.callback(self._disconnect)
        self._wait_for_workers()

    def _start_here(self) -> str:
        """Start a scheduler and workers of which nobody else makes use; the scheduler's address."""
        import dask
        import distributed

        folder = self.enter_context(TemporaryDirectory(prefix="drift-workers-"))
        no_pages = {f"distributed.{one}.http.routes": [] for one in ("scheduler", "worker")}
        dask.config.set({"temporary-directory": folder} | no_pages)
        # On more than four cores processes of several threads: each holds an index or vectors.
        processes, threads = distributed.deploy.utils.nprocesses_nthreads(n_threads())
        self._security = distributed.Security.temporary()
        # A cluster that has half started cannot be closed. Its processes inherit this, and end with
        # this one.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *ENDING})
        try:
            resource_tracker.ensure_running()  # their helper, whose start lets some through again
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *ENDING})
            cluster = distributed.LocalCluster(
                n_workers=processes,
                threads_per_worker=threads,
                host="127.0.0.1",
                security=self._security,
                death_timeout=START_TIMEOUT,
                memory_limit=0,  # memory-mapped files would count
                dashboard_address="127.0.0.1:0",  # any free port, with nothing to see
                scheduler_kwargs={"dashboard": False},
                silence_logs=logging.CRITICAL,
            )
            return self.enter_context(cluster).scheduler_address
        except Exception as error:  # of whatever kind a worker's start fails
            why = str(error) or type(error).__name__
            raise InputError(f"the workers on this machine do not start: {why}") from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _disconnect(self) -> None:
        # What was to be computed is computed, or has failed, which is what has to be reported.
        with suppress(OSError):
            if self._client.status == "running":  # as far as it knows
                self._client.run(_forget, on_error="return")
        with suppress(OSError):
            self._client.close(timeout=2)

    def _wait_for_workers(self) -> None:
        if not self._client.nthreads():
            print(f"the scheduler {self._where} has no worker: waiting for one", file=sys.stderr)
            # Those of another machine may take days to come, those of this one are started again.
            self._client.wait_for_workers(1, START_TIMEOUT if self._scheduler == LOCAL else None)

    def _completed(self, futures: list[Any]) -> Any:
        """The first of Dask's futures that has come to an end."""
        import distributed

        while True:
            try:
                ended, _ = distributed.wait(futures, CHECK_INTERVAL, "FIRST_COMPLETED")
            except TimeoutError:
                self._wait_for_workers()
                continue
            for future in ended:
                if future.done():  # or its worker died with the result: another computes it again
                    return future

    @contextmanager
    def _reporting_loss(self) -> Iterator[None]:
        import distributed

        try:
            yield
        except (OSError, distributed.CancelledError) as error:
            again = "" if self._scheduler == LOCAL else "start it again with its workers, then "
            raise ConnectionError(
                f"the scheduler {self._where} is lost: {again}the same command resumes"
            ) from error


def _fail(error: Exception, worker: str, block: Any = None) -> NoReturn:
    import distributed

    if isinstance(error, distributed.KilledWorker):
        raise InputError(
            f"block {block} ended {error.allowed_failures + 1} workers one after the other, "
            f"the last of them {error.last_worker.address}: their logs say why, and a lack of "
            "memory is the usual reason; with other workers the same command resumes"
        ) from error
    # What a worker cannot unpickle, Dask may report as a bare `Exception`.
    if isinstance(error, ImportError) or type(error) is Exception:
        raise InputError(
            f"{worker} cannot import drift ({error}): start it by `python -m dask worker` in a "
            "checkout like this one, with the packages of requirements-cluster.txt"
        ) from error
    raise error


# In a worker, what it computes, with the files it has opened.
_current: tuple[Callable[[Any], Any], Any] | None = None
_one_at_a_time = threading.Lock()


def _compute(task: Callable[[Block], Result], state: Any, block: Block) -> Result:
    from distributed import get_worker

    global _current
    worker = get_worker()
    with _one_at_a_time:
        limit_threads(worker.state.nthreads)
        if _current != (task, state):
            _forget()  # two of them need not fit in memory
            check_worker(state, worker)
            # A copy, to which Dask holds no reference: what it opens goes when it is forgotten.
            _current = copy.copy(task), state
        return _current[0](block)


def _forget() -> None:
    global _current
    _current = None
