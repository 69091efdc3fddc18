"""What the tests that run the scripts share."""

import builtins
import contextlib
import json
import os
import runpy
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from filelock import FileLock

from drift.pipeline import environment
from drift.pipeline.results import Results

# Two processes run the tests: threads that wait must not keep the other's core busy.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

ROOT = Path(__file__).parent.parent
N, K, GRID = 200, 40, [10, 20, 30, 40]
RUNS = ["faiss_M32_efc200_ef50", "faiss_M32_efc200_efkmin50", "hnswlib_M32_efc200_ef50"]
PIPELINE = [
    ("01_download_stl10.py", "--dataset", "photos", "--n-images", str(N)),
    ("02_embed_resnet50.py", "--model", "efficientnet_lite0"),
    ("03_exact_knn.py", "--k-max", str(K)),
    ("04_hnsw_search.py",),
    ("05_metrics.py",),
    ("06_plots.py",),
]


def shell(script, *args, results, cwd=ROOT):
    """Run a script as a process of its own."""
    command = [sys.executable, ROOT / script, "--results", results, *args]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


# The imports of all are those of one.
ONE_AFTER_THE_OTHER = """
import json, runpy, sys
for sys.argv in json.loads(sys.argv[1]):
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        if end.code:
            sys.exit(f"{sys.argv[0]} ended with {end.code}")
"""


def one_after_the_other(commands, results, cwd=ROOT, **environment):
    """What scripts print that one process runs, all of which must end well and without warning."""
    argv = [[str(cwd / script), "--results", str(results), *args] for script, *args in commands]
    done = subprocess.run(
        [sys.executable, "-c", ONE_AFTER_THE_OTHER, json.dumps(argv)],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def run(script, *args, results, capsys, monkeypatch):
    """Run a script in this process, which spares the imports: status, output, error output."""
    monkeypatch.setattr(sys, "argv", [script, "--results", str(results), *map(str, args)])
    capsys.readouterr()
    with restored_threads(), pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    captured = capsys.readouterr()
    return end.value.code, captured.out, captured.err


@contextlib.contextmanager
def process(script, *args, **environment):
    """A process that runs a script, at the head of a group of its own, and what it prints first."""
    child = subprocess.Popen(
        [sys.executable, "-c", script, *args],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield child, child.stdout.readline().strip()
    finally:
        child.kill()
        child.communicate()


def contents(folder, *suffixes):
    paths = (path for path in folder.rglob("*") if path.suffix in suffixes)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def within_ten_seconds(condition):
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


@contextlib.contextmanager
def restored_threads():
    """What ``--threads`` sets ends with the call, also in libraries that were loaded meanwhile."""
    before = environment.n_threads()
    with mock.patch.dict(os.environ), mock.patch.object(environment, "_threads", None):
        try:
            yield
        finally:
            if environment.n_threads() != before:
                environment.limit_threads(before)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Results of all six stages, run once for all processes of the tests. Tests only read them."""
    pytest.importorskip("torch")  # `make test-floors` is without
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    made = shared / "finished with spaces and ä"
    with FileLock(f"{made}.lock"):
        if not made.exists():
            one_after_the_other(PIPELINE, shared / "unfinished")
            (shared / "unfinished").rename(made)
    # A copy: a script keeps those of another process out of the folder, whatever it does there.
    return shutil.copytree(made, own / "finished of this process ä" / "results")


@pytest.fixture
def results(finished, tmp_path):
    """A copy to break."""
    return Path(shutil.copytree(finished, tmp_path / "results"))


@pytest.fixture(scope="session")
def few_images(tmp_path_factory):
    """Results of stage 01 on few images. Tests only read them."""
    results = tmp_path_factory.mktemp("few images") / "results"
    assert shell(*PIPELINE[0][:-1], "96", results=results).returncode == 0
    return results


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """Results of stages 02 and 03 on 400 vectors made by NumPy. Tests only read them."""
    folder = tmp_path_factory.mktemp("small")
    np.save(folder / "x.npy", np.random.default_rng(0).normal(size=(400, 16)).astype(np.float32))
    commands = [("02_embed_resnet50.py", "--from-file", str(folder / "x.npy"))]
    one_after_the_other([*commands, ("03_exact_knn.py", "--k-max", "60")], folder / "results")
    return folder / "results"


@pytest.fixture
def drive(capsys, monkeypatch):
    def call(script, *args, results):
        return run(script, *args, results=results, capsys=capsys, monkeypatch=monkeypatch)

    return call


@pytest.fixture
def stages(drive, tmp_path):
    """Run stages by number; each must end well. What was printed by the last one."""
    scripts = {path.name[:2]: path.name for path in ROOT.glob("0*.py")}
    folder = tmp_path / "results"  # as of the fixtures that copy one

    def run(*commands, fails=False):
        for command in commands:
            number, *flags = shlex.split(command) if isinstance(command, str) else command
            status, out, err = drive(scripts[number], *flags, results=folder)
            assert (status == 2 and err.count("\n") == 1) if fails else status == 0, err
        return err if fails else out

    run.folder = folder
    run.lists = lambda run, k: np.load(folder / "04_hnsw" / run / f"k{k:04d}_indices.npy")
    return run


@pytest.fixture
def draw_only(monkeypatch):
    """From when it is called, of the figures those with some names or beginnings alone are drawn.

    They take most of the time of stage 06.
    """

    def leave(*names):
        from drift.report import figures

        chosen = {name: one for name, one in figures.FIGURES.items() if name.startswith(names)}
        monkeypatch.setattr(figures, "FIGURES", chosen)

    return leave


@pytest.fixture(scope="session")
def whole_chain(tmp_path_factory):
    from tests.chain import run_all_stages

    return run_all_stages(tmp_path_factory.mktemp("chain") / "results").root


@pytest.fixture
def chain(whole_chain, tmp_path):
    """A small results folder in which stages 01 to 05 have run."""
    return Results(shutil.copytree(whole_chain, tmp_path / "results"))


# Of the networks. What takes seconds to import is imported in the fixtures: most tests need none.


@pytest.fixture(scope="session")
def crops():
    """Seven crops of photographs, uint8 (7, 96, 96, 3)."""
    from drift.images.photos import photo_crops

    return photo_crops(7, seed=11).read((0, 7))


@pytest.fixture(scope="session")
def efficientnet():
    from tests.networks import load

    return load("efficientnet_lite0")


@pytest.fixture(scope="session")
def random_weights(tmp_path_factory):
    """A state-dict file of ResNet-50 that was never trained."""
    from tests.networks import save_random_resnet

    path = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    save_random_resnet(path)
    return path


@pytest.fixture(scope="session")
def random_resnet(random_weights):
    from tests.networks import load

    return load("resnet50", random_weights)


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Nothing can be fetched, and nothing lies in torch's cache."""

    def refuse(*_, **__):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


class Handler(BaseHTTPRequestHandler):
    """Serves `server.content`, unless the next of `server.answers` says otherwise."""

    def do_GET(self):
        self.server.requests.append(self.headers["Range"])
        answer = self.server.answers.pop(0) if self.server.answers else Handler.serve
        with contextlib.suppress(ConnectionError):
            self.send_error(answer) if isinstance(answer, int) else answer(self)

    def serve(self, most=None):
        server, content, start = self.server, self.server.content, 0
        if self.headers["Range"] and server.ranges:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if server.tells_length:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][:most])

    def log_message(self, *_):
        pass


@pytest.fixture
def host(monkeypatch):
    """A host that serves its `content`, and keeps the ranges that it was asked for."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("drift.images.download.BACKOFF", (0.0, 0.0, 0.0))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.ranges, server.tells_length = b"", True, True
    server.requests, server.answers = [], []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    server.url = f"http://127.0.0.1:{server.server_port}/stl10_binary.tar.gz"
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def bind_a_socket(path):
    with socket.socket(socket.AF_UNIX) as bound, contextlib.chdir(path.parent):
        bound.bind(path.name)  # its path may be too long


# What can stand in place of a file, and could be read forever.
NO_FILE = {
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a socket": bind_a_socket,
    "a folder": Path.mkdir,
}


class Malicious:
    """A pickle that runs a program of its author when it is loaded."""

    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return (builtins.exec, (f"open({str(self.victim)!r}, 'w').close()",))
