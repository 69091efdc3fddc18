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
import torch

from drift import InputError
from drift.images import LITE0
from drift.images.embedding import Extractor
from drift.indexes import build_index
from drift.indexes.config import SearchConfig
from drift.pipeline import dask_workers, environment
from drift.pipeline.blocks import compute_blocks
from drift.pipeline.dask_workers import DaskWorkers
from drift.pipeline.environment import check_worker, facts_of_worker
from drift.pipeline.results import Results
from drift.pipeline.tasks import Task
from drift.pipeline.tasks.embed import EmbedImages, ImportEmbeddings
from drift.pipeline.tasks.exact import ExactKnn, ExpandedKnn
from drift.pipeline.tasks.measure import ComputeMetrics, NeighborFiles
from drift.pipeline.tasks.search import SearchIndex
from drift.protocols import Protocol
from tests.conftest import IN_SMALL_BLOCKS, PIPELINE, ROOT, RUNS
from tests.test_pipeline import contents


@contextmanager
def process(*args, cwd=ROOT, **environment):
    command = [sys.executable, *map(str, args)]
    running = subprocess.Popen(
        command,
        cwd=cwd,
        # The tasks of these tests are defined in this module.
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests")} | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield running
    finally:
        running.kill()
        running.wait()


@contextmanager
def scheduler(**environment):
    """A scheduler's process and address, once it answers there."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = ("--host", "127.0.0.1", "--port", port, "--no-dashboard")

    def answers():
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", port)) == 0

    with process("-m", "dask", "scheduler", *flags, **environment) as running:
        wait_for(answers, running)
        yield running, f"tcp://127.0.0.1:{port}"


def worker(address, folder, cwd=ROOT, threads=1):
    """A worker that is one process, so that killing it kills the worker."""
    flags = ("--no-nanny", "--nthreads", threads, "--no-dashboard", "--local-directory", folder)
    return process("-m", "dask", "worker", address, *flags, cwd=cwd)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Address of a scheduler with two workers, which are never quite idle."""
    with ExitStack() as stack:
        _, address = stack.enter_context(
            scheduler(DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0")
        )
        for _ in range(2):
            stack.enter_context(worker(address, tmp_path_factory.mktemp("worker")))
        with distributed.Client(address) as client:
            client.wait_for_workers(2, timeout=300)
        yield address


@pytest.fixture
def from_images(finished, tmp_path):
    """Results of stage 01 alone."""
    results = tmp_path / "results"
    results.mkdir()
    for path in finished.glob("01_*"):
        shutil.copy2(path, results)
    return results


def wait_for(condition, process=None):
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None
        time.sleep(0.02)


def n_completed(results):
    """Blocks of stage 02 that are stored."""
    checkpoints = results / ".partial/02_embeddings/checkpoints.jsonl"
    return checkpoints.read_text().count("completed") if checkpoints.exists() else 0


@contextmanager
def connected(scheduler):
    """Workers that are connected already, for a test to change something then."""
    with DaskWorkers(scheduler) as workers:
        workers._connect()
        yield workers


def embed(results, *flags):
    """Stage 02 in the background, in blocks so small that there is a middle to it."""
    script, *args = IN_SMALL_BLOCKS
    command = [sys.executable, ROOT / script, "--results", results, *args]
    return subprocess.Popen(
        [*map(str, command), *flags],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell lets what it runs in the background ignore interruptions, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_every_stage_writes_the_same_bytes_with_workers(
    address, finished, from_images, drive, monkeypatch
):
    # A path from here: the workers were started elsewhere.
    monkeypatch.chdir(from_images.parent)
    for script, *args in PIPELINE[1:5]:
        flags = ("--scheduler", address)
        status, out, err = drive(script, *args, *flags, results=from_images.name)
        assert (status, err) == (0, ""), err
        assert "up to date" not in out
    ours = contents(from_images, ".npy", ".parquet")
    theirs = contents(finished, ".npy", ".parquet")
    assert ours == theirs
    assert not (from_images / ".partial").exists()
    # What is there is not asked of a cluster, which need not even be up.
    for script, *args in PIPELINE[1:5]:
        nowhere = ("--scheduler", "tcp://127.0.0.1:1")
        assert "up to date" in drive(script, *args, *nowhere, results=from_images)[1]


def test_the_notebooks_protocol_too(address, results, tmp_path, drive):
    remote = shutil.copytree(results, tmp_path / "remote")
    protocol = ("--protocol", "notebook", "--k-max", "40")
    for folder, flags in ((results, ()), (remote, ("--scheduler", address))):
        for script, *args in (
            ("03_exact_knn.py", *protocol),
            ("04_hnsw_search.py", "--runs", "faiss:50", "--replace"),
            ("05_metrics.py",),
        ):
            status, _, err = drive(script, *args, *flags, results=folder)
            assert status == 0, err
    assert contents(remote, ".npy", ".parquet") == contents(results, ".npy", ".parquet")


def test_lists_of_another_system_and_queries_from_outside_too(address, finished, tmp_path, drive):
    queries = tmp_path / "queries.npy"
    np.save(queries, np.load(finished / "02_embeddings.npy")[::7] + 0.01)
    for folder, scheduler in (("local", ()), ("remote", ("--scheduler", address))):
        results = shutil.copytree(finished, tmp_path / folder)
        for script, *flags in (
            ("03_exact_knn.py", "--queries", queries, "--k-max", "20"),
            ("04_hnsw_search.py", "--runs", "faiss:10"),
            ("04_hnsw_search.py", "--lists", "own", results / "03_exact_indices.npy"),
            ("05_metrics.py",),
        ):
            status, _, err = drive(script, *flags, *scheduler, results=results)
            assert status == 0, err
    local, remote = (contents(tmp_path / f, ".npy", ".parquet") for f in ("local", "remote"))
    assert local == remote


def test_a_worker_killed_costs_its_blocks_and_a_scheduler_killed_ends_in_one_line(
    few_images, few_embedded, tmp_path
):
    from_images = shutil.copytree(few_images, tmp_path / "results")
    with ExitStack() as stack:
        running, address = stack.enter_context(scheduler())
        stage = embed(from_images, "--scheduler", address)
        # Nobody computes yet: it says so, and waits.
        assert "has no worker: waiting" in stage.stderr.readline()
        first = stack.enter_context(worker(address, tmp_path))
        wait_for(lambda: n_completed(from_images) >= 2, stage)
        first.send_signal(signal.SIGKILL)
        first.wait()
        at_the_kill = n_completed(from_images)
        stack.enter_context(worker(address, tmp_path))
        wait_for(lambda: n_completed(from_images) >= at_the_kill + 4, stage)
        running.send_signal(signal.SIGKILL)
        out, err = stage.communicate(timeout=300)
    err = [line for line in err.splitlines() if "waiting for one" not in line]
    assert (stage.returncode, out, len(err)) == (2, "", 1), err
    assert "is lost" in err[0]

    stored = n_completed(from_images)
    assert at_the_kill + 4 <= stored < 12
    checkpoints = from_images / ".partial/02_embeddings/checkpoints.jsonl"
    before = checkpoints.read_bytes()
    again = embed(from_images, "--scheduler", "local", "--threads", "1")
    wait_for(lambda: n_completed(from_images) > stored, again)
    assert checkpoints.read_bytes().startswith(before)
    out, err = again.communicate(timeout=300)
    assert (again.returncode, err) == (0, "")
    assert contents(from_images, ".npy") == contents(few_embedded, ".npy")


def test_interrupted_on_local_workers_it_ends_in_one_line(few_images, tmp_path):
    from_images = shutil.copytree(few_images, tmp_path / "results")
    stage = embed(from_images, "--scheduler", "local")
    wait_for(lambda: n_completed(from_images) >= 1, stage)
    stage.send_signal(signal.SIGINT)
    out, err = stage.communicate(timeout=300)
    assert (stage.returncode, out, err.count("\n")) == (130, "", 1), err


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("tcp://127.0.0.1:1", "no scheduler answers at tcp://127.0.0.1:1"),
        ("nonsense://here", "no address"),
        ("", "no address"),
    ],
)
def test_a_scheduler_that_is_none_is_one_line(flag, message, results, drive, monkeypatch):
    monkeypatch.setattr(dask_workers, "CONNECT_TIMEOUT", 1)
    before = contents(results, ".npy", ".json")
    status, out, err = drive(*PIPELINE[2], "--force", "--scheduler", flag, results=results)
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert message in err
    assert contents(results, ".npy", ".json").items() >= before.items()


@pytest.mark.parametrize("flag", ["nonsense://here", "", "tcp://127.0.0.1", "tcp://127.0.0.1:x"])
def test_an_address_that_is_none_leaves_no_client_half_open(flag):
    # The garbage collector would close it, and wait in the thread in which a next one starts for
    # the lock under which that thread is waited for.
    before = threading.enumerate()
    with pytest.raises(InputError, match="no address"), DaskWorkers(flag) as workers:
        workers._connect()
    assert {*threading.enumerate()} <= {*before}


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


def test_without_dask_the_flag_names_the_requirements_and_all_else_works(
    results, drive, monkeypatch
):
    for package in ("dask", "distributed"):
        monkeypatch.setitem(sys.modules, package, None)
    status, _, err = drive(*PIPELINE[2], "--force", results=results)
    assert (status, err) == (0, "")
    status, _, err = drive(*PIPELINE[2], "--force", "--scheduler", "local", results=results)
    assert (status, err.count("\n")) == (2, 1)
    assert "pip install -r requirements-cluster.txt" in err


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda drift: shutil.rmtree(drift), "cannot import drift"),
        (lambda drift: (drift / "pipeline/environment.py").write_text(""), "cannot import drift"),
        (
            lambda drift: (drift / "exact.py").open("a").write("# newer\n"),
            "has another drift/ than",
        ),
    ],
)
def test_a_worker_of_another_checkout_is_one_line(spoil, message, results, tmp_path, drive):
    shutil.copytree(ROOT / "drift", tmp_path / "checkout/drift")
    spoil(tmp_path / "checkout/drift")
    with (
        scheduler() as (_, address),
        worker(address, tmp_path, cwd=tmp_path / "checkout"),
    ):
        status, out, err = drive(*PIPELINE[2], "--force", "--scheduler", address, results=results)
    err = [line for line in err.splitlines() if "waiting for one" not in line]
    assert (status, out, len(err)) == (2, "", 1), err
    assert message in err[0]


def test_a_worker_is_judged_by_what_it_has_loaded_not_by_its_files_of_now(tmp_path):
    module = shutil.copytree(ROOT / "drift", tmp_path / "checkout/drift") / "exact.py"
    ours = module.read_bytes()
    with scheduler() as (_, address), worker(address, tmp_path, cwd=tmp_path / "checkout"):
        for content in (ours + b"# older\n", ours):
            module.write_bytes(content)
            with (
                pytest.raises(InputError, match="has another drift/ than"),
                DaskWorkers(address) as workers,
            ):
                next(workers.map_unordered(Square(), [1], []))


def test_a_worker_that_sees_other_files_or_has_other_packages_is_refused(tmp_path):
    worker = SimpleNamespace(address="tcp://somewhere:1")
    path = tmp_path / "x.npy"
    path.write_bytes(b"1")
    facts = facts_of_worker([path])
    check_worker(facts, worker)
    changed = path.stat().st_mtime_ns
    # Another size, then another time of the last change; the other of the two is the same.
    for content, time_ns in ((b"12", changed), (b"2", changed + 1_000_000_000)):
        path.write_bytes(content)
        os.utime(path, ns=(time_ns, time_ns))
        with pytest.raises(InputError, match=r"tcp://somewhere:1 has another .*x\.npy than"):
            check_worker(facts, worker)
    path.unlink()
    with pytest.raises(InputError, match=r"x\.npy .*folder is shared under the same path"):
        check_worker(facts, worker)
    for package in ("numpy", "distributed", "python", "no-such-package"):
        with pytest.raises(InputError, match=rf"has another {package} than .*, not 1\.0\)"):
            check_worker({package: "1.0"}, worker)


def test_tasks_are_pickled_by_their_fields_and_open_files_only_when_called(finished, tmp_path):
    folder, graph_file = tmp_path / "results", tmp_path / "graph"
    embeddings, queries, *exact = (
        folder / name
        for name in (
            "02_embeddings.npy",
            "03_queries.npy",
            "03_exact_indices.npy",
            "03_exact_distances.npy",
        )
    )
    config = SearchConfig.parse("faiss:50", 8, 40)
    ann = (folder / f"04_hnsw/{RUNS[0]}/k0010_{part}.npy" for part in ("indices", "distances"))
    network = (LITE0, None, 0, 1, "cpu", "fp32", False, 224)
    tasks = [
        EmbedImages(folder / "01_images.npy", *network),
        ImportEmbeddings(embeddings),
        ExactKnn(embeddings, queries, 10),
        ExpandedKnn(embeddings, queries, 10, Protocol.NOTEBOOK, 1),
        SearchIndex(embeddings, queries, graph_file, config, (10,), Protocol.STUDY),
        ComputeMetrics(
            embeddings, queries, NeighborFiles(*exact), {"run": {10: NeighborFiles(*ann)}}, False
        ),
    ]
    pickled = [pickle.dumps(task) for task in tasks]
    copies = list(map(pickle.loads, pickled))
    assert copies == tasks
    assert max(map(len, pickled)) < 1000

    folder.symlink_to(finished)
    build_index(config.index, np.load(embeddings)).save(graph_file)
    for task, copy, before in zip(tasks, copies, pickled, strict=True):
        block = (task.blocks("run") if isinstance(task, ComputeMetrics) else task.blocks())[0]
        ours, theirs = task(block), copy(block)
        if isinstance(task, SearchIndex):
            ours, theirs = ours[0], theirs[0]  # the rest is what the search took
        assert pickle.dumps(theirs) == pickle.dumps(ours)
        assert len(pickle.dumps(task)) == len(before), "what it has opened is not pickled"


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
        import faiss  # in the first block: it takes its number from the environment

        threads = torch.get_num_threads(), faiss.omp_get_max_threads()
        content = self.content
        Content.inside += 1
        time.sleep(0.02)  # in it, another block could start
        facts = content.most, Content.inside, *threads
        Content.inside -= 1
        return facts


def alive():
    return Content.alive


def test_a_worker_has_one_block_and_one_task_at_a_time_and_forgets_it_in_the_end(tmp_path):
    with scheduler() as (_, address), worker(address, tmp_path, threads=3):
        with DaskWorkers(address) as workers:
            for name in "ab":
                results = workers.map_unordered(ReadContent(name), range(6), [])
                assert {facts for _, facts in results} == {(1, 1, 3, 3)}
            assert list(workers._client.run(alive).values()) == [1]
        for _ in range(2):
            # And where the stage fails.
            with pytest.raises(InputError), connected(address) as workers:
                assert list(workers._client.run(alive).values()) == [0]
                next(workers.map_unordered(ReadContent("c"), [1], []))
                raise InputError("of the stage")


def test_a_worker_is_checked_again_before_its_first_block(address, tmp_path, monkeypatch):
    # As one that joins later: it was not there to be checked with the others.
    path = tmp_path / "x.npy"
    path.write_bytes(b"1")
    with connected(address) as workers, monkeypatch.context() as patched:
        patched.setattr(workers._client, "run", lambda *_, **__: path.write_bytes(b"12") and {})
        with pytest.raises(InputError, match=r"has another .*x\.npy than this machine"):
            list(workers.map_unordered(Square(), [1], [path]))


def test_a_worker_that_dies_while_it_is_checked_costs_nothing(address, monkeypatch):
    with connected(address) as workers, monkeypatch.context() as patched:
        answers = {"tcp://127.0.0.1:1": OSError("it is gone")}
        patched.setattr(workers._client, "run", lambda *_, **__: answers)
        results = workers.map_unordered(identity, range(3), [])
        assert sorted(block for block, _ in results) == [0, 1, 2]


def test_a_scheduler_of_another_version_is_refused(address, monkeypatch):
    monkeypatch.setattr(distributed, "__version__", "1.0")
    with (
        pytest.raises(
            InputError, match=r"the scheduler at tcp:.* runs distributed 2.*machine 1\.0"
        ),
        DaskWorkers(address) as workers,
    ):
        next(workers.map_unordered(Square(), [1], []))


def test_no_block_is_left_out_when_all_workers_are_gone_for_a_moment(address, monkeypatch):
    with connected(address) as workers:
        monkeypatch.setattr(workers._client, "nthreads", dict)
        results = workers.map_unordered(identity, range(5), [])
        assert sorted(block for block, _ in results) == [0, 1, 2, 3, 4]


def test_without_a_worker_in_the_middle_it_says_so_once_and_waits(tmp_path, monkeypatch, capsys):
    wait, joining = distributed.wait, []
    with ExitStack() as stack:
        _, address = stack.enter_context(scheduler())
        first = stack.enter_context(worker(address, tmp_path))
        workers = stack.enter_context(connected(address))
        capsys.readouterr()  # it may have started without one, too
        pid = first.pid

        def work(block):
            while os.getpid() == pid:
                time.sleep(0.01)  # until it is killed
            return block

        def wait_and_let_another_join(*args, **how):
            first.kill()
            if not joining:
                # So late that it has been looked for some times.
                enter = stack.enter_context
                joining.append(threading.Timer(2, lambda: enter(worker(address, tmp_path))))
                joining[0].start()
            return wait(*args, **how)

        monkeypatch.setattr(dask_workers, "CHECK_INTERVAL", 0.05)
        monkeypatch.setattr(distributed, "wait", wait_and_let_another_join)
        results = workers.map_unordered(work, range(3), [])
        assert sorted(block for block, _ in results) == [0, 1, 2]
    assert capsys.readouterr().err.count("has no worker: waiting for one") == 1


def test_a_result_that_dies_with_its_worker_is_computed_again(tmp_path, monkeypatch, capsys):
    wait = distributed.wait
    with ExitStack() as stack:
        _, address = stack.enter_context(scheduler())
        first = stack.enter_context(worker(address, tmp_path))
        workers = stack.enter_context(connected(address))
        capsys.readouterr()  # it may have started without one, too

        def join():
            stack.enter_context(worker(address, tmp_path))

        # Where the result is waited for, nobody checks whether there is a worker.
        too_late = threading.Timer(60, join)
        stack.callback(too_late.cancel)

        def wait_and_lose_the_result(*args, **how):
            try:
                done = wait(*args, **how)
            except TimeoutError:
                if first.poll() is not None:
                    join()
                raise
            if first.poll() is None:
                first.kill()
                first.wait()
                too_late.start()
                wait_for(lambda: all(future.status != "finished" for future in done.done))
            return done

        monkeypatch.setattr(dask_workers, "CHECK_INTERVAL", 3)
        monkeypatch.setattr(distributed, "wait", wait_and_lose_the_result)
        results = workers.map_unordered(Square(), range(3), [])
        assert sorted(block for block, _ in results) == [0, 1, 2]
    assert capsys.readouterr().err.count("has no worker: waiting for one") == 1


@pytest.mark.parametrize(
    "when",
    ["before workers are checked", "before a block is sent", "before its result has come"],
)
def test_a_scheduler_that_is_gone_is_reported_as_lost(when, tmp_path, monkeypatch):
    wait = distributed.wait
    with ExitStack() as stack:
        running, address = stack.enter_context(scheduler())
        stack.enter_context(worker(address, tmp_path))
        with connected(address):
            pass  # both have started

        def end():
            running.kill()
            running.wait()

        def wait_and_end(futures, *how):
            done = wait(futures, *how)
            end()
            while not all(future.cancelled() for future in futures):
                time.sleep(0.01)
            return done

        with (
            pytest.raises(ConnectionError, match=f"the scheduler at {address} is lost"),
            connected(address) as workers,
        ):
            workers._client._timeout = 2  # for so long it is looked for
            if when == "before workers are checked":
                end()
            elif when == "before a block is sent":
                ask = workers._client.nthreads
                monkeypatch.setattr(workers._client, "nthreads", lambda: end() or ask())
            else:
                monkeypatch.setattr(distributed, "wait", wait_and_end)
            list(workers.map_unordered(identity, range(3), []))


def test_workers_of_this_machine_share_out_the_threads_that_were_asked_for(monkeypatch):
    monkeypatch.setattr(environment, "_threads", 1)
    with connected("local") as workers:
        found = list(workers._client.scheduler_info()["workers"].items())
    assert [facts["nthreads"] for _, facts in found] == [1]
    # Nobody else can reach them, and mapped files that fill the memory are no reason to stop.
    assert [facts["memory_limit"] for _, facts in found] == [0]
    assert found[0][0].startswith("tcp://127.0.0.1:")


class Checkpoints:
    """As much of a stage as computing blocks needs, in memory."""

    inputs = ()

    def __init__(self, workers):
        self.args = SimpleNamespace(workers=workers)
        self.completed, self.results = {}, Results(ROOT / "none")

    def compute(self, task):
        for block, _ in compute_blocks(self, task, range(20), "work"):
            self.completed[str(block)] = {}


def test_what_a_worker_finds_wrong_is_raised_here_and_the_rest_is_kept(address):
    with DaskWorkers(address) as workers:
        stage = Checkpoints(workers)
        with pytest.raises(InputError, match="block 5 is of no use"):
            stage.compute(Square(5, "raised"))
        assert "5" not in stage.completed
        stage.compute(Square())
    assert len(stage.completed) == 20


def test_a_block_that_kills_its_worker_is_one_line(address, tmp_path):
    with (
        worker(address, tmp_path),
        pytest.raises(InputError, match=r"block 3 ended 1 workers .* lack of memory"),
        DaskWorkers(address) as workers,
    ):
        list(workers.map_unordered(Square(3, "killed"), [3], []))


@pytest.mark.parametrize("n", [8, 3])
def test_features_do_not_depend_on_the_threads(n, efficientnet):
    extract = Extractor(efficientnet, 8)
    images = np.random.default_rng(0).integers(0, 256, (n, 96, 96, 3), np.uint8)
    threads = torch.get_num_threads()
    features = []
    for count in (1, 2, 4):
        torch.set_num_threads(count)
        features.append(extract(images))
    torch.set_num_threads(threads)
    np.testing.assert_array_equal(features[1], features[0])
    np.testing.assert_array_equal(features[2], features[0])


def test_all_stages_that_take_the_flag_say_so(drive):
    for script, *_ in PIPELINE:
        takes = "--scheduler" in drive(script, "--help", results="none")[1]
        assert takes == (script[:2] in ("02", "03", "04", "05"))
