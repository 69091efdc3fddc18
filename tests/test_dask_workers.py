"""Blocks on a Dask cluster: real schedulers and workers, processes of this machine."""

import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from uuid import uuid4

import distributed
import numpy as np
import pytest

from drift import InputError
from drift.pipeline import dask_workers, environment
from drift.pipeline.blocks import compute_blocks
from drift.pipeline.dask_workers import DaskWorkers
from drift.pipeline.environment import check_worker, worker_state
from drift.pipeline.results import Results
from drift.pipeline.stage import Stage
from drift.stages import Task
from drift.stages.exact import ExactKnn
from tests.conftest import PIPELINE, ROOT, N, contents

NOWHERE = "tcp://127.0.0.1:1"


@contextmanager
def process(*args, cwd=ROOT, **environment):
    running = subprocess.Popen(
        [sys.executable, *map(str, args)],
        cwd=cwd,
        # The tasks of these tests are defined in this module. A stage that runs in this process
        # keeps what it starts itself out of the current folder, and starts none of these.
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests"), "PYTHONSAFEPATH": ""} | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield running
    finally:
        kill(running)


def kill(running):
    running.kill()
    running.wait()


@contextmanager
def scheduler(**environment):
    """A scheduler's process and address; who connects waits until it answers there."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = ("--host", "127.0.0.1", "--port", port, "--no-dashboard")
    with process("-m", "dask", "scheduler", *flags, **environment) as running:
        yield running, f"tcp://127.0.0.1:{port}"


def worker(address, folder, cwd=ROOT, threads=1):
    """A worker that is one process, so that killing it kills the worker."""
    flags = ("--no-nanny", "--nthreads", threads, "--no-dashboard", "--local-directory", folder)
    return process("-m", "dask", "worker", address, *flags, cwd=cwd)


def wait_for(condition):
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Address of a scheduler with two workers of two threads."""
    with ExitStack() as stack:
        once = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
        _, address = stack.enter_context(scheduler(**once))
        for _ in range(2):
            stack.enter_context(worker(address, tmp_path_factory.mktemp("worker"), threads=2))
        with distributed.Client(address, timeout=300) as client:
            client.wait_for_workers(2, timeout=300)
        yield address


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """Address of a scheduler without a worker, as each test leaves it."""
    with scheduler() as (_, address):
        yield address


@contextmanager
def connected(scheduler):
    """Workers that are connected already, for a test to change something then."""
    with DaskWorkers(scheduler) as workers:
        workers._connect()
        yield workers


def without_workers(address):
    with distributed.Client(address, timeout=300) as client:
        wait_for(lambda: not client.nthreads())


def one_line(err):
    """The only line besides those that say that a worker is waited for."""
    (line,) = (line for line in err.splitlines() if "waiting for one" not in line)
    return line


# The stages.


def test_every_stage_writes_the_same_bytes_with_workers(
    address, finished, tmp_path, drive, monkeypatch
):
    # A path from here: the workers were started elsewhere.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    for path in finished.glob("01_*"):
        shutil.copy2(path, tmp_path / "results")
    for script, *args in PIPELINE[1:5]:
        status, out, err = drive(script, *args, "--scheduler", address, results="results")
        assert (status, err) == (0, ""), err
        assert "up to date" not in out
    ours = contents(tmp_path / "results", ".npy", ".parquet")
    theirs = contents(finished, ".npy", ".parquet")
    assert {name: ours.get(name) == theirs[name] for name in theirs} == dict.fromkeys(theirs, True)
    assert not (tmp_path / "results/.partial").exists()
    # What is there is not asked of a cluster, which need not even be up.
    for script, *args in PIPELINE[1:5]:
        assert "up to date" in drive(script, *args, "--scheduler", NOWHERE, results="results")[1]


@pytest.mark.parametrize(
    "commands",
    [
        [
            ("03_exact_knn.py", "--protocol", "notebook", "--k-max", "40"),
            ("04_hnsw_search.py", "--runs", "faiss:50", "--replace"),
        ],
        [
            ("03_exact_knn.py", "--queries", "queries.npy", "--k-max", "20"),
            ("04_hnsw_search.py", "--runs", "faiss:10"),
            ("04_hnsw_search.py", "--lists", "own", "own.npy"),
        ],
    ],
    ids=["the notebook's protocol", "queries and lists from outside"],
)
def test_other_tasks_give_the_same_bytes_too(
    commands, address, finished, tmp_path, drive, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    np.save("queries.npy", np.load(finished / "02_embeddings.npy")[::7] + 0.01)
    np.save("own.npy", np.load(finished / "03_exact_indices.npy")[::7, :20])
    for folder, flags in (("local", ()), ("remote", ("--scheduler", address))):
        results = shutil.copytree(finished, tmp_path / folder)
        for script, *args in [*commands, ("05_metrics.py",)]:
            status, _, err = drive(script, *args, *flags, results=results)
            assert status == 0, err
    local, remote = (contents(tmp_path / f, ".npy", ".parquet") for f in ("local", "remote"))
    assert local == remote


def test_a_worker_killed_costs_its_blocks_and_a_scheduler_killed_ends_in_one_line(
    finished, tmp_path, drive, monkeypatch
):
    results = tmp_path / "results"
    results.mkdir()
    for path in finished.glob("0[12]_*"):
        shutil.copy2(path, results)
    computed, stored, checkpoint, search = [], [], Stage.checkpoint, ExactKnn.__call__
    rows = [(start, start + 20) for start in range(0, N, 20)]
    monkeypatch.setattr(ExactKnn, "blocks", lambda _: rows)
    with ExitStack() as stack:
        running, address = stack.enter_context(scheduler())
        first = stack.enter_context(worker(address, tmp_path))
        with distributed.Client(address, timeout=300):
            pass  # it is up

        def checkpoint_and_kill(stage, block, **notes):
            checkpoint(stage, block, **notes)
            stored.append(block)
            if len(stored) == 2:
                kill(first)
                stack.enter_context(worker(address, tmp_path))
            if len(stored) == 5:
                kill(running)

        monkeypatch.setattr(Stage, "checkpoint", checkpoint_and_kill)
        command = (*PIPELINE[2], "--scheduler", address)
        monkeypatch.setattr(dask_workers, "CONNECT_TIMEOUT", 2)
        status, out, err = drive(*command, results=results)
    assert (status, out) == (2, "")
    assert "is lost: start it again" in one_line(err)
    assert 5 <= len(stored) < len(rows)

    monkeypatch.setattr(Stage, "checkpoint", checkpoint)
    monkeypatch.setattr(ExactKnn, "__call__", lambda t, b: computed.append(b) or search(t, b))
    assert drive(*PIPELINE[2], results=results)[0] == 0
    assert sorted(computed + stored) == rows
    for name in ("03_exact_indices.npy", "03_exact_distances.npy"):
        assert (results / name).read_bytes() == (finished / name).read_bytes()


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGHUP])
def test_interrupted_on_local_workers_it_ends_in_one_line(by, tmp_path):
    script = """
import drift.pipeline.cli as cli
def main(args):
    workers = cli.open_stage("03_exact", args).workers
    for block, _ in workers.map_unordered(__import__("time").sleep, [0, 0.1, 60], []):
        print("done", flush=True)
cli.run(main, cli.parser("none", scheduler=True))
"""
    stage = subprocess.Popen(
        [sys.executable, "-c", script, "--results", tmp_path, "--scheduler", "local"],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell lets what it runs in the background ignore interruptions, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert stage.stdout.readline() == "done\n"
    os.killpg(stage.pid, by)  # to its workers too, as a terminal does
    _, err = stage.communicate(timeout=300)
    assert (stage.returncode, err.count("\n")) == (128 + by, 1), err
    assert not [*tmp_path.iterdir()], "neither the lock nor what the workers had"


@pytest.mark.parametrize("flags", [(), ("--scheduler", "local")])
def test_no_module_of_the_current_folder_is_run(flags, results, tmp_path):
    for module in ("psutil", "signal", "tempfile"):
        (tmp_path / f"{module}.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')\n")
    command = [sys.executable, ROOT / PIPELINE[2][0], "--force", "--results", results, *flags]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr, (tmp_path / "run").exists()) == (0, "", False)


@pytest.mark.parametrize("end", ["os._exit(1)", "os.kill(os.getpid(), 9)", "raise SystemExit"])
def test_local_workers_that_die_while_they_start_are_one_line(
    end, results, tmp_path, drive, monkeypatch
):
    dies = f"import os, sys\nif 'spawn_main' in ' '.join(sys.orig_argv):\n    {end}\n"
    (tmp_path / "sitecustomize.py").write_text(dies)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    command = (*PIPELINE[2], "--force", "--scheduler", "local")
    status, out, err = drive(*command, results=results)
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert "the workers on this machine do not start: " in err


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (NOWHERE, f"no scheduler answers at {NOWHERE}"),
        *((flag, "no address") for flag in ("nonsense://here", "", "tcp://127.0.0.1", "tcp://a:x")),
    ],
)
def test_a_scheduler_that_is_none_is_one_line(flag, message, results, drive, monkeypatch):
    monkeypatch.setattr(dask_workers, "CONNECT_TIMEOUT", 1)
    before, threads = contents(results, ".npy", ".json"), threading.enumerate()
    status, out, err = drive(*PIPELINE[2], "--force", "--scheduler", flag, results=results)
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert message in err
    assert contents(results, ".npy", ".json").items() >= before.items()
    # A client left half open would be closed as garbage, and wait in the thread in which a next
    # one starts for the lock under which that thread is waited for.
    assert message != "no address" or {*threading.enumerate()} <= {*threads}


def test_without_dask_the_flag_names_the_requirements_and_all_else_works(
    results, drive, monkeypatch
):
    for package in ("dask", "distributed"):
        monkeypatch.setitem(sys.modules, package, None)
    assert drive(*PIPELINE[2], "--force", results=results)[::2] == (0, "")
    status, _, err = drive(*PIPELINE[2], "--force", "--scheduler", "local", results=results)
    assert (status, err.count("\n")) == (2, 1)
    assert "pip install -r requirements-cluster.txt" in err


# Blocks.


@dataclass(frozen=True)
class Square(Task):
    """Work on one block that fails in a way of its own."""

    fails: int | None = None
    how: str | None = None

    @cached_property
    def opened(self):
        """Known by this name, whatever it is."""
        return uuid4().hex

    def __call__(self, block):
        if block == self.fails and self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if block == self.fails:
            raise InputError(f"block {block} is of no use")
        return block**2, os.getpid(), self.opened


def identity(block):
    return block


def test_tasks_are_pickled_without_what_they_have_opened():
    task = Square(5, "raised")
    unopened = pickle.dumps(task)
    assert task.opened
    assert pickle.dumps(task) == unopened
    assert pickle.loads(unopened) == task
    assert pickle.loads(unopened).opened != task.opened


def test_blocks_under_way_are_bounded_and_a_worker_opens_its_files_once(address):
    taken, blocks = [], range(60)

    class Counted(list):
        def __iter__(self):
            for block in super().__iter__():
                taken.append(block)
                yield block

    given, opened = [], set()
    with DaskWorkers(address) as workers:
        for block, (result, *where) in workers.map_unordered(Square(), Counted(blocks), []):
            assert result == block**2
            given.append(block)
            opened.add(tuple(where))
            # One that a worker computes and one for when that is done: its end costs so many.
            assert len(taken) - len(given) <= 2 * 2
        opened |= {tuple(where) for _, (_, *where) in workers.map_unordered(Square(), blocks, [])}
    assert sorted(given) == list(blocks)
    assert len(opened) == len({pid for pid, _ in opened}) == 2


class Content:
    """What a task opens; knows how many of its kind its process holds."""

    alive = most = inside = 0

    def __init__(self):
        import faiss
        import torch

        # Whatever else sets them, the next block has the right numbers again.
        torch.set_num_threads(5)
        faiss.omp_set_num_threads(5)
        Content.alive += 1
        Content.most = max(Content.most, Content.alive)

    def __del__(self):
        Content.alive -= 1


@dataclass(frozen=True)
class ReadContent(Task):
    """Tells how much is open and computed at once, and how many threads may be used."""

    name: str

    @cached_property
    def content(self):
        return Content()

    def __call__(self, block):
        # In the first block: they take their number from the environment.
        import faiss
        import torch

        threads = torch.get_num_threads(), faiss.omp_get_max_threads()
        content = self.content
        Content.inside += 1
        time.sleep(0.02)  # in it, another block could start
        seen = content.most, Content.inside, *threads
        Content.inside -= 1
        return seen


def alive():
    return Content.alive


def test_a_worker_has_one_block_and_one_task_at_a_time_and_forgets_it_in_the_end(address):
    with DaskWorkers(address) as workers:
        for name in "ab":
            results = workers.map_unordered(ReadContent(name), range(12), [])
            assert {seen for _, seen in results} == {(1, 1, 2, 2)}
        assert set(workers._client.run(alive).values()) == {1}
    for _ in range(2):
        # And where the stage fails.
        with pytest.raises(InputError), connected(address) as workers:
            assert set(workers._client.run(alive).values()) == {0}
            next(workers.map_unordered(ReadContent("c"), [1], []))
            raise InputError("of the stage")


def test_what_a_worker_finds_wrong_is_raised_here_and_the_rest_is_kept(address):
    completed = {}

    def compute(task):
        stage = SimpleNamespace(
            workers=workers, completed=completed, inputs=(), results=Results(ROOT / "none")
        )
        for block, _ in compute_blocks(stage, task, range(20), "work"):
            completed[str(block)] = {}

    with DaskWorkers(address) as workers:
        with pytest.raises(InputError, match="block 5 is of no use"):
            compute(Square(5, "raised"))
        assert "5" not in completed
        compute(Square())
    assert len(completed) == 20


def test_workers_of_this_machine_share_out_the_threads_that_were_asked_for(monkeypatch):
    monkeypatch.setattr(environment, "_threads", 1)
    with connected("local") as workers:
        scheduler = workers._client.scheduler_info()
        ((address, worker),) = scheduler["workers"].items()
        # Who does not have their key cannot reach them.
        for one in (address, scheduler["address"]):
            with pytest.raises(OSError):
                distributed.Client(one.replace("tls://", "tcp://"), timeout=1)
    # Mapped files that fill the memory are no reason to stop.
    assert (worker["nthreads"], worker["memory_limit"]) == (1, 0)
    assert address.startswith("tls://127.0.0.1:")


# Workers that differ.


def test_a_worker_of_another_checkout_is_refused(empty, tmp_path):
    spoil = [
        (shutil.rmtree, "cannot import drift"),
        (lambda drift: (drift / "pipeline/environment.py").write_text(""), "cannot import drift"),
        (lambda drift: (drift / "exact.py").open("a").write("# newer\n"), "another drift/ than"),
    ]
    for i, (change, message) in enumerate(spoil):
        checkout = tmp_path / str(i)
        drift = shutil.copytree(ROOT / "drift", checkout / "drift")
        module = (drift / "exact.py").read_bytes()
        change(drift)
        without_workers(empty)
        with worker(empty, tmp_path, cwd=checkout):
            for _ in range(1 + (i == 2)):
                with pytest.raises(InputError, match=message), DaskWorkers(empty) as workers:
                    next(workers.map_unordered(Square(), [1], []))
                # It is judged by what it has loaded, not by its files of now.
                if drift.exists():
                    (drift / "exact.py").write_bytes(module)


def test_a_worker_that_sees_other_files_or_has_other_packages_is_refused(tmp_path):
    worker = SimpleNamespace(address="tcp://somewhere:1")
    path = tmp_path / "x.npy"
    path.write_bytes(b"1")
    state = worker_state([path])
    check_worker(state, worker)
    changed = path.stat().st_mtime_ns
    # Another size, then another time of the last change; the other of the two is the same.
    for content, time_ns in ((b"12", changed), (b"2", changed + 1_000_000_000)):
        path.write_bytes(content)
        os.utime(path, ns=(time_ns, time_ns))
        with pytest.raises(InputError, match=r"tcp://somewhere:1 has another .*x\.npy than"):
            check_worker(state, worker)
    path.unlink()
    with pytest.raises(InputError, match=r"x\.npy .*folder is shared under the same path"):
        check_worker(state, worker)
    for package in ("numpy", "distributed", "python", "no-such-package"):
        with pytest.raises(InputError, match=rf"has another {package} than .*, not 1\.0\)"):
            check_worker({package: "1.0"}, worker)


def test_a_worker_is_checked_again_before_its_first_block(address, tmp_path, monkeypatch):
    # As one that joins later: it was not there to be checked with the others.
    path = tmp_path / "x.npy"
    path.write_bytes(b"1")
    with connected(address) as workers, monkeypatch.context() as patched:
        patched.setattr(workers._client, "run", lambda *_, **__: path.write_bytes(b"12") and {})
        with pytest.raises(InputError, match=r"has another .*x\.npy than this machine"):
            list(workers.map_unordered(Square(), [1], [path]))


# Workers and schedulers that die.


@pytest.mark.parametrize(
    ("asked", "answer"),
    [("run", {NOWHERE: OSError("it died while it was checked")}), ("nthreads", {})],
)
def test_no_block_is_left_out_when_workers_are_gone_for_a_moment(
    asked, answer, address, monkeypatch
):
    with connected(address) as workers, monkeypatch.context() as patched:
        patched.setattr(workers._client, asked, lambda *_, **__: answer)
        results = workers.map_unordered(identity, range(5), [])
        assert sorted(block for block, _ in results) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("dies", ["while it computes", "with its result"])
def test_without_a_worker_it_says_so_once_waits_and_computes_again(
    dies, empty, tmp_path, monkeypatch, capsys
):
    wait, joining = distributed.wait, []
    without_workers(empty)
    with ExitStack() as stack:
        first = stack.enter_context(worker(empty, tmp_path))
        workers = stack.enter_context(connected(empty))
        capsys.readouterr()  # it may have started without one, too
        pid = first.pid

        def work(block):
            while dies == "while it computes" and os.getpid() == pid:
                time.sleep(0.01)  # until it is killed
            return block

        def wait_and_kill(*args, **how):
            try:
                done = None if dies == "while it computes" else wait(*args, **how)
                if first.poll() is None:
                    kill(first)
                    if done:
                        wait_for(lambda: all(one.status != "finished" for one in done.done))
                return done or wait(*args, **how)
            except TimeoutError:
                if not joining:
                    # So late that it has been looked for some times.
                    enter = stack.enter_context
                    joining.append(threading.Timer(1, lambda: enter(worker(empty, tmp_path))))
                    joining[0].start()
                raise

        monkeypatch.setattr(dask_workers, "CHECK_INTERVAL", 0.5)
        monkeypatch.setattr(distributed, "wait", wait_and_kill)
        results = workers.map_unordered(work, range(3), [])
        assert sorted(block for block, _ in results) == [0, 1, 2]
    assert capsys.readouterr().err.count("has no worker: waiting for one") == 1


def test_a_scheduler_that_is_gone_in_the_end_does_not_hide_why_it_ended():
    class Gone:
        status = "running"  # it has not noticed yet

        def run(self, *_, **__):
            raise OSError("Timed out trying to connect")

        def close(self, timeout):
            raise TimeoutError

    with pytest.raises(ConnectionError, match="is lost"), DaskWorkers("tcp://gone:1") as workers:
        workers._client = Gone()
        workers.callback(workers._disconnect)
        raise ConnectionError("the scheduler is lost")


def test_a_block_that_kills_its_worker_is_one_line(address, tmp_path):
    # The last test: of the two workers one may be gone.
    killed = pytest.raises(InputError, match=r"block 3 ended 1 workers .* lack of memory")
    with killed, DaskWorkers(address) as workers:
        list(workers.map_unordered(Square(3, "killed"), [3], []))
