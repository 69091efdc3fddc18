"""Blocks on a Dask cluster: real schedulers and workers, processes of this machine."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace

import distributed
import numpy as np
import pytest
import torch

from drift import InputError, backbones, blocks, cluster, embedding
from tests.conftest import PIPELINE, ROOT, shell
from tests.test_blocks import Notes
from tests.test_pipeline import contents


@contextmanager
def process(*args, cwd=ROOT, **environment):
    command = [sys.executable, *map(str, args)]
    running = subprocess.Popen(
        command,
        cwd=cwd,
        env=os.environ | environment,
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
    """A scheduler's process and address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = ("--host", "127.0.0.1", "--port", port, "--no-dashboard")
    with process("-m", "dask", "scheduler", *flags, **environment) as running:
        yield running, f"tcp://127.0.0.1:{port}"


def worker(address, folder, cwd=ROOT, threads=1):
    """A worker that is one process, so that killing it kills the worker."""
    flags = ("--no-nanny", "--nthreads", threads, "--no-dashboard", "--local-directory", folder)
    # The work of these tests is defined in this module.
    path = {"PYTHONPATH": str(ROOT / "tests")}
    return process("-m", "dask", "worker", address, *flags, cwd=cwd, **path)


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    """Address of a scheduler with two workers."""
    with ExitStack() as stack:
        _, address = stack.enter_context(
            scheduler(DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0")
        )
        for _ in range(2):
            stack.enter_context(worker(address, tmp_path_factory.mktemp("worker")))
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
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None
        time.sleep(0.02)


def units_done(results, stage):
    journal = results / ".draft" / stage / "journal.jsonl"
    return journal.read_text().count("done") if journal.exists() else 0


def embed(results, *flags):
    """Stage 02 in the background, in blocks so small that there is a middle to it."""
    script, *args = PIPELINE[1]
    command = [sys.executable, ROOT / script, "--results", results, *args, "--batch-size", "1"]
    return subprocess.Popen(
        [*map(str, command), *flags],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell lets what it runs in the background ignore interruptions, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.fixture(scope="session")
def few_images(tmp_path_factory):
    """Results of stage 01 on few images: 12 blocks for `embed`."""
    results = tmp_path_factory.mktemp("few images") / "results"
    assert shell(*PIPELINE[0][:-1], "96", results=results).returncode == 0
    return results


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
    assert not (from_images / ".draft").exists()
    # What is there is not asked of a cluster, which need not even be up.
    for script, *args in PIPELINE[1:5]:
        nowhere = ("--scheduler", "tcp://127.0.0.1:1")
        assert "up to date" in drive(script, *args, *nowhere, results=from_images)[1]


def test_the_notebooks_protocol_too(address, results, tmp_path, drive):
    there = shutil.copytree(results, tmp_path / "there")
    protocol = ("--include-self", "--no-refine", "--k-max", "40")
    for folder, flags in ((results, ()), (there, ("--scheduler", address))):
        for script, *args in (
            ("03_exact_knn.py", *protocol),
            ("04_hnsw_search.py", "--runs", "faiss:50", "--replace"),
            ("05_metrics.py",),
        ):
            status, _, err = drive(script, *args, *flags, results=folder)
            assert status == 0, err
    assert contents(there, ".npy", ".parquet") == contents(results, ".npy", ".parquet")


def test_lists_of_another_system_too(address, finished, tmp_path, drive):
    run = finished / "04_hnsw/faiss_M32_efc200_ef50"
    np.save(tmp_path / "x.npy", np.load(finished / "02_embeddings.npy").astype(np.float64))
    flags = ["--exact-lists", finished / "03_exact_indices.npy"]
    flags += [finished / "03_exact_distances.npy", "--ann-lists", run / "k0040_indices.npy"]
    flags += [run / "k0040_distances.npy", "--embeddings", tmp_path / "x.npy"]
    for folder, scheduler in (("here", ()), ("there", ("--scheduler", address))):
        status, _, err = drive("05_metrics.py", *flags, *scheduler, results=tmp_path / folder)
        assert status == 0, err
    assert contents(tmp_path / "here", ".parquet") == contents(tmp_path / "there", ".parquet")


def test_a_worker_killed_costs_its_blocks_and_a_scheduler_killed_ends_in_one_line(
    few_images, tmp_path
):
    alone = shutil.copytree(few_images, tmp_path / "alone")
    from_images = shutil.copytree(few_images, tmp_path / "results")
    assert embed(alone, "--threads", "1").wait(timeout=120) == 0
    with ExitStack() as stack:
        running, address = stack.enter_context(scheduler())
        stage = embed(from_images, "--scheduler", address)
        # Nobody computes yet: it says so, and waits.
        assert "has no worker: waiting" in stage.stderr.readline()
        first = stack.enter_context(worker(address, tmp_path))
        wait_for(lambda: units_done(from_images, "02_embeddings") >= 2, stage)
        first.send_signal(signal.SIGKILL)
        first.wait()
        at_the_kill = units_done(from_images, "02_embeddings")
        stack.enter_context(worker(address, tmp_path))
        wait_for(lambda: units_done(from_images, "02_embeddings") >= at_the_kill + 4, stage)
        running.send_signal(signal.SIGKILL)
        out, err = stage.communicate(timeout=60)
    err = [line for line in err.splitlines() if "waiting for one" not in line]
    assert (stage.returncode, out, len(err)) == (2, "", 1), err
    assert "is lost" in err[0]

    stored = units_done(from_images, "02_embeddings")
    assert at_the_kill + 4 <= stored < 12
    journal = from_images / ".draft/02_embeddings/journal.jsonl"
    before = journal.read_bytes()
    again = embed(from_images, "--scheduler", "local", "--threads", "1")
    wait_for(lambda: units_done(from_images, "02_embeddings") > stored, again)
    assert journal.read_bytes().startswith(before)
    out, err = again.communicate(timeout=60)
    assert (again.returncode, err) == (0, "")
    assert contents(from_images, ".npy") == contents(alone, ".npy")


def test_interrupted_on_local_workers_it_ends_in_one_line(few_images, tmp_path):
    from_images = shutil.copytree(few_images, tmp_path / "results")
    stage = embed(from_images, "--scheduler", "local")
    wait_for(lambda: units_done(from_images, "02_embeddings") >= 1, stage)
    stage.send_signal(signal.SIGINT)
    out, err = stage.communicate(timeout=60)
    assert (stage.returncode, out, err.count("\n")) == (130, "", 1), err


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("tcp://127.0.0.1:1", "no scheduler answers at tcp://127.0.0.1:1"),
        ("nonsense://here", "no address"),
        ("", "no address"),
    ],
)
def test_a_scheduler_that_is_none_is_one_line(flag, said, results, drive, monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", 1)
    before = contents(results, ".npy", ".json")
    status, out, err = drive(*PIPELINE[2], "--force", "--scheduler", flag, results=results)
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert said in err
    assert contents(results, ".npy", ".json").items() >= before.items()


def test_without_dask_the_flag_names_the_requirements_and_all_else_works(
    results, drive, monkeypatch
):
    for package in ("dask", "distributed", "cloudpickle"):
        monkeypatch.setitem(sys.modules, package, None)
    status, _, err = drive(*PIPELINE[2], "--force", results=results)
    assert (status, err) == (0, "")
    status, _, err = drive(*PIPELINE[2], "--force", "--scheduler", "local", results=results)
    assert (status, err.count("\n")) == (2, 1)
    assert "pip install -r requirements-cluster.txt" in err


def test_without_the_flag_dask_is_not_imported(finished):
    code = "import runpy, sys; sys.argv[1:] = ['--help']\ntry: runpy.run_path('{}', run_name="
    code += "'__main__')\nexcept SystemExit: print('distributed' in sys.modules)"
    for script in ("03_exact_knn.py", "05_metrics.py"):
        command = [sys.executable, "-c", code.format(script)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda drift: shutil.rmtree(drift), "cannot import drift"),
        (lambda drift: (drift / "exact.py").open("a").write("# newer\n"), "another state of drift"),
    ],
)
def test_a_worker_of_another_checkout_is_one_line(spoil, said, results, tmp_path, drive):
    shutil.copytree(ROOT / "drift", tmp_path / "checkout/drift")
    spoil(tmp_path / "checkout/drift")
    with (
        scheduler() as (_, address),
        worker(address, tmp_path, cwd=tmp_path / "checkout"),
    ):
        status, out, err = drive(*PIPELINE[2], "--force", "--scheduler", address, results=results)
    err = [line for line in err.splitlines() if "waiting for one" not in line]
    assert (status, out, len(err)) == (2, "", 1), err
    assert said in err[0]


def test_a_worker_is_judged_by_what_it_has_loaded_not_by_its_files_of_now(tmp_path):
    module = shutil.copytree(ROOT / "drift", tmp_path / "checkout/drift") / "exact.py"
    ours = module.read_bytes()
    with scheduler() as (_, address), worker(address, tmp_path, cwd=tmp_path / "checkout"):
        for content in (ours + b"# older\n", ours):
            module.write_bytes(content)
            with (
                pytest.raises(InputError, match="another state of drift"),
                cluster.connect(address, []),
            ):
                pass


def test_a_worker_that_sees_other_files_or_has_other_packages_is_refused(tmp_path):
    worker = SimpleNamespace(address="tcp://somewhere:1")
    path = tmp_path / "x.npy"
    path.write_bytes(b"1")
    seen = cluster.Surroundings(cluster._CODE, cluster._versions(), {path: cluster._seen(path)})
    cluster._check(seen, worker)
    _, changed = cluster._seen(path)
    # Another size, then another time of the last change; the other of the two is the same.
    for content, time_ns in ((b"12", changed), (b"2", changed + 1_000_000_000)):
        path.write_bytes(content)
        os.utime(path, ns=(time_ns, time_ns))
        with pytest.raises(InputError, match=r"tcp://somewhere:1 does not see .*x\.npy"):
            cluster._check(seen, worker)
    path.unlink()
    with pytest.raises(InputError, match="folder must be one that all machines share"):
        cluster._check(seen, worker)
    other = cluster.Surroundings(cluster._CODE, {"numpy": "1.0"}, {})
    with pytest.raises(InputError, match=r"other packages \(numpy .*, not 1\.0\)"):
        cluster._check(other, worker)


class Square(blocks.Portable):
    """Work with one unit that fails in a way of its own."""

    def __init__(self, fails=None, how=None):
        self.fails, self.how, self.made_in = fails, how, os.getpid()

    def __call__(self, unit):
        if unit == self.fails and self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if unit == self.fails:
            raise InputError(f"unit {unit} is of no use")
        return unit**2, self.made_in, id(self)


def test_blocks_under_way_are_bounded_and_a_worker_opens_its_files_once(address):
    taken, units = [], range(60)

    class Counted(list):
        def __iter__(self):
            for unit in super().__iter__():
                taken.append(unit)
                yield unit

    given, makers = [], set()
    with cluster.connect(address, []) as workers:
        work = Square()
        for unit, (outcome, *maker) in workers.outcomes(Counted(units), work):
            assert outcome == unit**2
            given.append(unit)
            makers.add(tuple(maker))
            # One that a worker computes and one for when that is done: so many does its end cost.
            assert len(taken) - len(given) <= 2 * 2
        makers |= {tuple(maker) for _, (_, *maker) in workers.outcomes(units, work)}
    assert sorted(given) == list(units)
    assert len(makers) == len({pid for pid, _ in makers}) == 2


class Opened(blocks.Portable):
    """Work that knows what of its kind its process holds, and how many threads it may use."""

    alive = most = inside = 0

    def __init__(self):
        import faiss

        # A library brings a number of threads of its own when it is loaded.
        torch.set_num_threads(5)
        faiss.omp_set_num_threads(5)
        Opened.alive += 1
        Opened.most = max(Opened.most, Opened.alive)

    def __del__(self):
        Opened.alive -= 1

    def __call__(self, unit):
        import faiss

        Opened.inside += 1
        time.sleep(0.02)  # in it, another block could begin
        facts = Opened.most, Opened.inside, torch.get_num_threads(), faiss.omp_get_max_threads()
        Opened.inside -= 1
        return facts


def alive():
    return Opened.alive


def test_a_worker_has_one_block_and_one_work_at_a_time_and_forgets_it_in_the_end(tmp_path):
    with scheduler() as (_, address), worker(address, tmp_path, threads=3):
        with cluster.connect(address, []) as workers:
            for work in (Opened(), Opened()):
                found = {facts for _, facts in workers.outcomes(range(6), work)}
                assert found == {(1, 1, 3, 3)}
            assert list(workers._client.run(alive).values()) == [1]
        for _ in range(2):
            # And where the stage fails.
            with pytest.raises(InputError), cluster.connect(address, []) as workers:
                assert list(workers._client.run(alive).values()) == [0]
                next(workers.outcomes([1], Opened()))
                raise InputError("of the stage")


def test_a_worker_is_checked_again_before_its_first_block(address, tmp_path):
    # As one that joins later sees it.
    path = tmp_path / "x.npy"
    path.write_bytes(b"1")
    with cluster.connect(address, [path]) as workers:
        path.write_bytes(b"12")
        with pytest.raises(InputError, match=r"does not see .*x\.npy"):
            list(workers.outcomes([1], Square()))


def test_a_scheduler_of_another_version_is_refused(address, monkeypatch):
    monkeypatch.setattr(distributed, "__version__", "1.0")
    with (
        pytest.raises(
            InputError, match=r"the scheduler at tcp:.* runs distributed 2.*machine 1\.0"
        ),
        cluster.connect(address, []),
    ):
        pass


def test_no_block_is_left_out_when_all_workers_are_gone_for_a_moment(address, monkeypatch):
    with cluster.connect(address, []) as workers:
        monkeypatch.setattr(workers, "_count", lambda: 0)
        assert sorted(unit for unit, _ in workers.outcomes(range(5), Square())) == [0, 1, 2, 3, 4]


def test_without_a_worker_in_the_middle_it_says_so_once_and_waits(tmp_path, monkeypatch, capsys):
    wait, there = distributed.wait, []
    with ExitStack() as stack:
        _, address = stack.enter_context(scheduler())
        first = stack.enter_context(worker(address, tmp_path))
        workers = stack.enter_context(cluster.connect(address, []))
        capsys.readouterr()  # it may have begun without one, too
        pid = first.pid

        def work(unit):
            while os.getpid() == pid:
                time.sleep(0.01)  # until it is killed
            return unit

        def wait_and_let_another_join(*args, **how):
            first.kill()
            there.append(len(workers._client.nthreads()))
            if there[-1] == 0 and there.count(0) == 4:
                stack.enter_context(worker(address, tmp_path))
            return wait(*args, **how)

        monkeypatch.setattr(cluster, "LOOK_AGAIN", 0.05)
        monkeypatch.setattr(distributed, "wait", wait_and_let_another_join)
        assert sorted(unit for unit, _ in workers.outcomes(range(3), work)) == [0, 1, 2]
    assert capsys.readouterr().err.count("has no worker: waiting for one") == 1


def test_an_outcome_that_dies_with_its_worker_is_computed_again(tmp_path, monkeypatch, capsys):
    wait = distributed.wait
    with ExitStack() as stack:
        _, address = stack.enter_context(scheduler())
        first = stack.enter_context(worker(address, tmp_path))
        workers = stack.enter_context(cluster.connect(address, []))
        capsys.readouterr()  # it may have begun without one, too

        def join():
            stack.enter_context(worker(address, tmp_path))

        # Where the outcome is waited for, nobody looks whether there is a worker.
        too_late = threading.Timer(20, join)
        stack.callback(too_late.cancel)

        def wait_and_lose_the_outcome(*args, **how):
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

        monkeypatch.setattr(cluster, "LOOK_AGAIN", 3)
        monkeypatch.setattr(distributed, "wait", wait_and_lose_the_outcome)
        assert sorted(unit for unit, _ in workers.outcomes(range(3), Square())) == [0, 1, 2]
    assert capsys.readouterr().err.count("has no worker: waiting for one") == 1


@pytest.mark.parametrize("when", ["before a block is sent", "before its outcome has come"])
def test_a_scheduler_that_is_gone_is_said_to_be_lost(when, tmp_path, monkeypatch):
    wait = distributed.wait
    with ExitStack() as stack:
        running, address = stack.enter_context(scheduler())
        stack.enter_context(worker(address, tmp_path))
        with cluster.connect(address, []):
            pass  # both have started

        def end():
            running.kill()
            running.wait()

        def wait_and_end(futures, **how):
            done = wait(futures, **how)
            end()
            while not all(future.cancelled() for future in futures):
                time.sleep(0.01)
            return done

        # So long it is looked for.
        monkeypatch.setattr(cluster, "PATIENCE", 2)
        with (
            pytest.raises(ConnectionError, match=f"the scheduler at {address} is lost"),
            cluster.connect(address, []) as workers,
        ):
            if when == "before a block is sent":
                end()
            else:
                monkeypatch.setattr(distributed, "wait", wait_and_end)
            list(workers.outcomes(range(3), lambda unit: unit))


def test_workers_of_this_machine_share_out_the_threads_that_were_asked_for():
    with cluster.connect("local", [], 1) as workers:
        found = list(workers._client.scheduler_info()["workers"].items())
    assert [facts["nthreads"] for _, facts in found] == [1]
    # Nobody else can reach them, and mapped files that fill the memory are no reason to stop.
    assert [facts["memory_limit"] for _, facts in found] == [0]
    assert found[0][0].startswith("tcp://127.0.0.1:")


def test_what_a_worker_finds_wrong_is_raised_here_and_the_rest_is_kept(address):
    journal = Notes()
    with (
        pytest.raises(InputError, match="unit 5 is of no use"),
        cluster.connect(address, []) as workers,
    ):
        blocks.run(range(20), Square(5, "raised"), lambda *_: None, journal, "work", workers)
    assert "5" not in journal.done
    with cluster.connect(address, []) as workers:
        blocks.run(range(20), Square(), lambda *_: None, journal, "work", workers)
    assert len(journal.done) == 20


def test_a_block_that_kills_its_worker_is_one_line(address, tmp_path):
    with (
        worker(address, tmp_path),
        pytest.raises(InputError, match=r"block 3 ended 1 workers .* lack of memory"),
        cluster.connect(address, []) as workers,
    ):
        list(workers.outcomes([3], Square(3, "killed")))


@pytest.mark.parametrize("n", [8, 3])
def test_features_do_not_depend_on_the_threads(n):
    weights = backbones.find_weights(backbones.LITE0)
    extract = embedding.Extractor(backbones.load(backbones.LITE0, weights), 8)
    images = np.random.default_rng(0).integers(0, 256, (n, 96, 96, 3), np.uint8)
    threads = torch.get_num_threads()
    features = []
    for count in (1, 2, 4):
        torch.set_num_threads(count)
        features.append(extract(images))
    torch.set_num_threads(threads)
    np.testing.assert_array_equal(features[1], features[0])
    np.testing.assert_array_equal(features[2], features[0])


def test_all_stages_that_take_the_flag_say_so():
    for script, *_ in PIPELINE:
        takes = "--scheduler" in shell(script, "--help", results="none").stdout
        assert takes == (script[:2] in ("02", "03", "04", "05"))
