"""Faults, tried on every stage: what was tried, how often, and what was lost.

    python -m tests.faults --tries 12 --seed 0

A try takes a copy of a results folder, lets something go wrong, gives the same command again, and
compares every byte with a run that nothing disturbed. Only what a clock or a memory meter wrote
into a manifest may differ. tests/test_faults.py makes a few of these tries.
"""

import argparse
import contextlib
import ctypes
import filecmp
import functools
import hashlib
import json
import multiprocessing
import os
import pickle
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from drift.pipeline.clean import clean
from drift.pipeline.lock import lock_folder
from drift.pipeline.manifests import manifest_name, producer
from drift.pipeline.results import Results
from drift.pipeline.stage import finish_commits
from tests.chain import at, edit
from tests.conftest import NO_FILE

ROOT = Path(__file__).parent.parent
# Imported once, in the process from which those that run the scripts are forked. So they start at
# once, and a moment drawn at random falls into a stage's work, not into its imports.
LIBRARIES = (
    *("faiss", "hnswlib", "jinja2", "matplotlib.pyplot", "pandas", "pyarrow.parquet"),
    *("scipy.sparse", "skimage.data", "torch", "torchvision.models", "tqdm", "PIL.Image"),
)
# What a manifest holds of clocks and meters, and its hash, in which they are.
MEASURED = {"seconds", "date", "build_seconds", "search_seconds", "queries_per_second"}
MEASURED |= {"peak_memory_bytes", "sha256"}


@dataclass(frozen=True)
class Stage:
    """A stage's command, and another one whose results it replaces.

    Before that other one comes a third if need be, beside whose results it puts its own.
    """

    name: str
    script: str
    args: tuple[str, ...]
    other: tuple[str, ...]
    third: tuple[str, ...] | None = None


PHOTOS = ("--dataset", "photos", "--n-images", "48")
NETWORK = ("--model", "mobilenet_v3_small", "--weights", "random", "--batch-size", "1")
SEARCHES = ("--save-index", "--runs", "faiss:8", "hnswlib:k", "--replace", "--replace-k")
OTHER_SEARCHES = ("--save-index", "--runs", "faiss:8", "hnswlib:9", "--k-step", "5")
OTHER_PROTOCOL = ("--k-max", "20", "--protocol", "paper")
OTHER_GRAPH = ("--save-index", "--runs", "faiss:8", "--m", "4")
STAGES = (
    Stage("01_images", "01_download_stl10.py", PHOTOS, (*PHOTOS, "--seed", "1")),
    Stage("02_embeddings", "02_embed_resnet50.py", NETWORK, (*NETWORK, "--resize", "232")),
    Stage("03_exact", "03_exact_knn.py", ("--k-max", "20"), OTHER_PROTOCOL),
    Stage("04_hnsw", "04_hnsw_search.py", SEARCHES, OTHER_SEARCHES, OTHER_GRAPH),
    Stage("05_metrics", "05_metrics.py", (), ("--seed", "1")),
    Stage("06_figures", "06_plots.py", ("--dpi", "40"), ("--dpi", "50")),
)

# A folder's content: for each stage (each run and graph of stage 04) its files, with a digest.
State = dict[str, dict[str, str]]


def state(folder: Path) -> State:
    """What the folder holds beside unfinished work and lock."""
    content_of: State = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith("."):
            content = path.read_bytes()
            if path.suffix == ".json":
                manifest = json.loads(content)
                kept = {key: value for key, value in manifest.items() if key not in MEASURED}
                content = json.dumps(kept).encode()
            content_of.setdefault(producer(name), {})[name] = hashlib.sha256(content).hexdigest()
    return content_of


def perform(argv: list[str], output: Path, prepare: Callable[[], None] | None) -> None:
    """Run a script in this process, which was forked for it."""
    for stream, suffix in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{output}.{suffix}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    sys.argv = argv
    if argv[0].endswith(STAGES[-1].script):
        from drift.report import figures

        # Most of its time goes into drawing, and what can happen to a figure happens to three.
        for name in [*figures.FIGURES][3:]:
            del figures.FIGURES[name]
    if prepare:
        prepare()
    runpy.run_path(argv[0], run_name="__main__")


@dataclass(frozen=True)
class Ended:
    """How a script ended; a negative status is the signal that killed it."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return [line for line in self.err.splitlines() if not line.startswith("warning: ")]


class Bench:
    """Where the tries are made: the folders to begin with, those to end with, and processes."""

    def __init__(self, base: Path):
        # Every try is made below a path with spaces and letters beyond ASCII.
        self.base = base / "Ergebnisse für ähnliche 画像"
        self.base.mkdir()
        # Those who are killed leave a semaphore of tqdm's behind, of which Python would warn.
        os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker"
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(LIBRARIES))
        self.seconds: dict[str, float] = {}
        before = self.base / "before 01_images"
        before.mkdir()
        for stage in STAGES:
            other, after = self.base / f"other {stage.name}", self.base / f"after {stage.name}"
            shutil.copytree(before, other)
            shutil.copytree(before, after)
            for folder, args in ((other, stage.third), (other, stage.other), (after, stage.args)):
                if args is None:
                    continue
                start = time.perf_counter()
                ended = self.run(stage, folder, args)
                self.seconds[stage.name] = time.perf_counter() - start
                assert ended.status == 0, ended.err
            before = after
        self.finished = before

    def start(
        self,
        stage: Stage,
        folder: Path,
        args: tuple[str, ...] | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> multiprocessing.Process:
        """Start a stage's script on a folder."""
        argv = [str(ROOT / stage.script), "--results", str(folder), "--threads", "1"]
        argv += stage.args if args is None else args
        output = self._output(folder)
        for suffix in ("out", "err"):
            Path(f"{output}.{suffix}").touch()  # it may be killed before it can
        process = self._context.Process(target=perform, args=(argv, output, prepare))
        process.start()
        return process

    def end(self, process: multiprocessing.Process, folder: Path) -> Ended:
        """Wait for a script, and read what it printed."""
        process.join(300)
        if process.exitcode is None:
            process.kill()
            raise AssertionError("it hangs")
        output = self._output(folder)
        texts = (Path(f"{output}.{suffix}").read_text() for suffix in ("out", "err"))
        return Ended(process.exitcode, *texts)

    def run(self, stage: Stage, folder: Path, *args: object, **options: object) -> Ended:
        """Run a stage's script on a folder to its end."""
        return self.end(self.start(stage, folder, *args, **options), folder)

    def _output(self, folder: Path) -> Path:
        return self.base / f"{folder.name} output"

    def initial(self, stage: Stage, rng: np.random.Generator) -> Path:
        """Where a stage can find itself: without results, or with those of another command."""
        i = STAGES.index(stage)
        before = self.base / (f"after {STAGES[i - 1].name}" if i else "before 01_images")
        return before if rng.random() < 0.3 else self.base / f"other {stage.name}"

    @contextlib.contextmanager
    def copy(self, folder: Path, where: Path | None = None) -> Iterator[Path]:
        """A copy of a folder to break, removed afterwards."""
        copy = Path(tempfile.mkdtemp(prefix="try ", dir=where or self.base)) / "results"
        try:
            yield Path(shutil.copytree(folder, copy, symlinks=True))
        finally:
            shutil.rmtree(copy.parent)

    def resumes(self, stage: Stage, folder: Path, before: State) -> None:
        """After a fault: each stage's files are the former ones or the new, and all become new."""
        after = state(self.base / f"after {stage.name}")
        with lock_folder(folder) as locked:
            assert locked
            finish_commits(Results(folder))
        now = state(folder)
        for name in before.keys() | after.keys() | now.keys():
            left = now.get(name, {})
            # Nobody trusts a run or a graph any more that is being removed: a run loses its
            # manifest first, a graph keeps it to the end, since it leads to the rest.
            own, is_graph = manifest_name(name), name.startswith("04_hnsw/graphs/")
            is_removed = own not in left or (is_graph and [*left] == [own])
            is_removed &= name not in after
            assert is_removed or left in (before.get(name, {}), after.get(name, {})), (
                f"{name} is neither what it was nor what it becomes"
            )
        ended = self.run(stage, folder)
        assert ended.status == 0, f"the same command does not resume: {ended.err}"
        self.is_as_undisturbed(stage, folder)

    def is_as_undisturbed(self, stage: Stage, folder: Path, *besides: str) -> None:
        after, now = state(self.base / f"after {stage.name}"), state(folder)
        for name in (after.keys() | now.keys()).difference(besides):
            assert now.get(name) == after.get(name), f"{name} differs from an undisturbed run"
        left = sorted(path.name for path in folder.glob(".*"))
        assert not left, f"left behind: {left}"


def refused(ended: Ended, *words: str) -> None:
    """One line, status 2."""
    assert ended.status == 2, f"status {ended.status}: {ended.err or ended.out}"
    assert len(ended.lines) == 1, ended.err
    for word in words:
        assert word in ended.lines[0], ended.err


# Killed


def count_writes(countdown: int, folder: str, counted: str) -> None:
    """Kill this process before its n-th change to the folder; write down how many there were."""
    left = [countdown]

    def hook(event: str, args: tuple) -> None:
        if event == "open":
            changes = isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        else:
            changes = event in CHANGES
        # Names without a folder are those of a tree that is being removed.
        if changes and (str(args[0]).startswith(folder) or "/" not in str(args[0])):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            elif left[0] < 0:
                os.pwrite(descriptor, str(countdown - left[0]).encode(), 0)

    descriptor = os.open(counted, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    sys.addaudithook(hook)


# What Python tells of itself (PEP 578) when a file or a folder is about to change.
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "mmap.__new__"}


@functools.cache
def writes(bench: Bench, stage: Stage, start: Path) -> int:
    """How often a stage changes something in its folder."""
    with bench.copy(start) as folder:
        counted = folder.parent / "counted"
        prepare = functools.partial(count_writes, 0, str(folder), str(counted))
        assert bench.run(stage, folder, prepare=prepare).status == 0
        return int(counted.read_text())


def kill_before_a_write(bench: Bench, stage: Stage, rng: np.random.Generator) -> None:
    """Killed before a random change to a file: same bytes in the end."""
    start = bench.initial(stage, rng)
    last = writes(bench, stage, start)
    # Half of the tries at the end, where results are committed.
    countdown = int(rng.integers(max(0, last - 15) if rng.random() < 0.5 else 0, last)) + 1
    with bench.copy(start) as folder:
        before = state(folder)
        arguments = (countdown, str(folder), str(folder.parent / "counted"))
        prepare = functools.partial(count_writes, *arguments)
        assert bench.run(stage, folder, prepare=prepare).status == -signal.SIGKILL
        bench.resumes(stage, folder, before)


def at_a_moment(
    bench: Bench, stage: Stage, rng: np.random.Generator, number: int, *more: str, later: float = 0
) -> Ended:
    """Send a signal to a stage at a random moment: same bytes in the end."""
    with bench.copy(bench.initial(stage, rng)) as folder:
        before = state(folder)
        process = bench.start(stage, folder, (*stage.args, *more))
        time.sleep(rng.uniform(0, bench.seconds[stage.name] + later))
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.kill(process.pid, number)
        ended = bench.end(process, folder)
        assert number == signal.SIGKILL or not (folder / ".lock").exists(), "it is not released"
        bench.resumes(stage, folder, before)
        return ended


def kill_at_a_moment(bench: Bench, stage: Stage, rng: np.random.Generator) -> None:
    """Killed (SIGKILL) at a random moment: same bytes in the end."""
    while at_a_moment(bench, stage, rng, signal.SIGKILL).status != -signal.SIGKILL:
        pass


def end_at_a_moment(bench: Bench, stage: Stage, rng: np.random.Generator) -> None:
    """Ended (SIGTERM, SIGHUP) at a random moment: one line, 143 or 129, same bytes in the end."""
    number = (signal.SIGTERM, signal.SIGHUP)[int(rng.integers(2))]
    ended = at_a_moment(bench, stage, rng, number)
    # Before the script has begun, and after its end, it is not its own signal to handle.
    assert ended.status in (0, -number, 128 + number), ended
    assert len(ended.lines) == (ended.status > 0), ended.err


def workers_are_killed(bench: Bench, _: Stage, rng: np.random.Generator) -> None:
    """Killed, stage 04 with workers of its own (`--scheduler local`): same bytes in the end."""
    flags = ("--scheduler", "local")  # which start within four seconds
    at_a_moment(bench, STAGES[3], rng, signal.SIGKILL, *flags, later=4)


# Full


def mounting_allowed() -> bool:
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(OSError):
        mounted = subprocess.run(["mount", "-t", "tmpfs", "none", folder], capture_output=True)
        if mounted.returncode == 0:
            subprocess.run(["umount", folder], check=True)
            return True
    return False


@contextlib.contextmanager
def small_disk(bench: Bench, size: int) -> Iterator[Path]:
    disk = Path(tempfile.mkdtemp(prefix="disk ", dir=bench.base))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", disk], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
        disk.rmdir()


def outputs(bench: Bench, stage: Stage) -> list[Path]:
    after = bench.base / f"after {stage.name}"
    files = (path for path in after.rglob("*") if path.is_file())
    return [path for path in files if path.relative_to(after).as_posix()[:3] == stage.name[:3]]


def draw(things: Sequence, rng: np.random.Generator) -> Any:
    return things[int(rng.integers(len(things)))]


def draw_output(bench: Bench, stage: Stage, rng: np.random.Generator) -> str:
    path = draw(outputs(bench, stage), rng)
    return path.relative_to(bench.base / f"after {stage.name}").as_posix()


def fill_the_disk(bench: Bench, stage: Stage, rng: np.random.Generator) -> None:
    """Disk full (a small tmpfs): refused; with room, same bytes in the end."""
    start = bench.initial(stage, rng)
    need = sum(path.stat().st_size for path in outputs(bench, stage))
    have = sum(path.stat().st_size + 4096 for path in start.rglob("*"))
    room, was_full = int(rng.uniform(0, need)), False
    while not was_full:
        size = have + 4 * need + (4 << 20)
        with small_disk(bench, size) as disk, bench.copy(start, disk) as folder:
            before = state(folder)
            filler = disk / "filler"
            with filler.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - room)
            ended = bench.run(stage, folder)
            was_full = ended.status != 0
            if was_full:
                refused(ended, "No space left on device", "once there is room")
                filler.unlink()
            bench.resumes(stage, folder, before)
        room //= 2  # the former results made room


def limit_file_size(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def limit_the_file_size(bench: Bench, stage: Stage, rng: np.random.Generator) -> None:
    """Limit on file sizes: refused; without it, same bytes in the end."""
    start, after = bench.initial(stage, rng), bench.base / f"after {stage.name}"
    with bench.copy(start) as folder:
        before = state(folder)
        earlier = {path: start / path.relative_to(after) for path in outputs(bench, stage)}
        # A graph that is there is not written again.
        written = [
            path
            for path, former in earlier.items()
            if not former.exists() or not filecmp.cmp(path, former, shallow=False)
        ]
        most = max(path.stat().st_size for path in written)
        # The logarithm is uniform: small files have their moment, too.
        limit = int(np.exp(rng.uniform(np.log(1000), np.log(most))))
        ended = bench.run(stage, folder, prepare=functools.partial(limit_file_size, limit))
        refused(ended, "File too large", "once there is room")
        bench.resumes(stage, folder, before)


# Damaged


def truncate(path: Path, rng: np.random.Generator) -> None:
    os.truncate(path, int(rng.integers(1, path.stat().st_size)))


def flip_a_bit(path: Path, rng: np.random.Generator) -> None:
    content = bytearray(path.read_bytes())
    content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)


def empty(path: Path, rng: np.random.Generator) -> None:
    path.write_bytes(b"")


def replace_by_a_pickle(path: Path, rng: np.random.Generator) -> None:
    path.write_bytes(pickle.dumps(np.array([{"an": "object"}], dtype=object)))


def replace_by_another(path: Path, rng: np.random.Generator) -> None:
    """Another shape, or another dtype."""
    n, dtype = ((-1, None), (None, np.float64))[int(rng.integers(2))]
    if path.suffix == ".npy":
        np.save(path, np.load(path)[:n].astype(dtype or np.load(path).dtype))
    elif path.suffix == ".parquet":
        table = pd.read_parquet(path)
        floats = dict.fromkeys(table.select_dtypes("number"), "float32") if dtype else {}
        table[:n].astype(floats).to_parquet(path, index=False)
    else:
        path.write_bytes(path.read_bytes() + b"more")


DAMAGES = (truncate, flip_a_bit, empty, replace_by_a_pickle, replace_by_another)


PRECIOUS = hashlib.sha256(b"precious").hexdigest()
ENTRY = {"shape": None, "dtype": None, "bytes": len("precious"), "sha256": PRECIOUS}
EDITS = (
    *(at("outputs", name, ENTRY) for name in ("../victim", "/victim", "06_../../victim.png")),
    *(at("inputs", name, ENTRY) for name in ("../victim", "06_report.html")),
    *(at("stage", stage) for stage in ("../victim", "04_hnsw/..", None)),
    *(at(key, ...) for key in ("parameters", "inputs", "outputs", "date")),
)


def reader(name: str) -> Stage | None:
    """The next stage that reads a file and says so where it is damaged, if any."""
    if name.startswith(("04_hnsw/graphs/", "05_per_query", "06_")):
        return None
    return STAGES[4 if name == "02_rows.parquet" else int(name[:2])]


def damage(bench: Bench, stage: Stage, rng: np.random.Generator) -> None:
    """A file cut off, a bit flipped, emptied, replaced: the next stage names what mends it."""
    spoil = functools.partial(draw(DAMAGES, rng), rng=rng)
    spoil_and_mend(bench, stage, draw_output(bench, stage, rng), spoil)


def put_no_file(bench: Bench, stage: Stage, rng: np.random.Generator) -> None:
    """A pipe, a device, a socket for a file: not read; the next stage names what mends it."""
    make = NO_FILE[draw([kind for kind in NO_FILE if kind != "a folder"], rng)]
    name = draw_output(bench, stage, rng)
    spoil_and_mend(bench, stage, name, lambda path: (path.unlink(), make(path)))


def edit_a_manifest(bench: Bench, stage: Stage, rng: np.random.Generator) -> None:
    """A manifest edited, its hash renewed: leads nowhere; the next stage names what mends it."""
    stages = [name for name in state(bench.finished) if name[:3] == stage.name[:3]]
    change = functools.partial(edit, change=draw(EDITS, rng))
    spoil_and_mend(bench, stage, manifest_name(draw(stages, rng)), change)


def spoil_and_mend(bench: Bench, stage: Stage, name: str, spoil: Callable[[Path], object]) -> None:
    with bench.copy(bench.finished) as folder:
        victim = folder.parent / "victim"
        victim.write_text("precious")
        spoil(folder / name)
        next_stage = reader(name)
        if next_stage:
            ended = bench.run(next_stage, folder)
            if name.endswith("run.json"):
                # The other run is measured without it.
                left = [line for line in ended.out.splitlines() if line.startswith("left out: ")]
                assert ended.status == 0
                assert len(left) == 1
                assert Path(name).parent.name in left[0]
                assert f"run {stage.script} again" in left[0]
            else:
                refused(ended, stage.script, Path(name).name)
        # The script that was named mends it, and so does every one after it.
        for again in STAGES[STAGES.index(stage) :]:
            ended = bench.run(again, folder)
            assert ended.status == 0, ended.err
        # The page and the figure of speed show the times of the stages that were run again.
        last = STAGES[-1]
        bench.is_as_undisturbed(last, folder, *() if stage is last else (last.name,))
        assert victim.read_text() == "precious"


# Two processes


def start_two(bench: Bench, stage: Stage, rng: np.random.Generator) -> None:
    """A second process: refused, the first is named and undisturbed."""
    with bench.copy(bench.initial(stage, rng)) as folder:
        process = bench.start(stage, folder)
        deadline = time.monotonic() + 60
        lock = folder / ".lock"
        while not (lock.exists() and lock.read_text()):
            assert time.monotonic() < deadline
            assert process.is_alive()
        os.kill(process.pid, signal.SIGSTOP)
        try:
            second = STAGES[int(rng.integers(len(STAGES)))]
            link = folder.parent / "by another name"
            link.symlink_to(folder)
            ended = bench.run(second, link)
            refused(ended, "is in use by", stage.script, f"process {process.pid} on ", "since ")
        finally:
            os.kill(process.pid, signal.SIGCONT)
        ended = bench.end(process, folder)
        assert ended.status == 0, ended.err
        bench.is_as_undisturbed(stage, folder)


def start_two_at_once(bench: Bench, stage: Stage, rng: np.random.Generator) -> None:
    """Two at the same moment: one works, the other is refused or finds it done."""
    with bench.copy(bench.initial(stage, rng)) as folder:
        link = folder.parent / "by another name"
        link.symlink_to(folder)
        processes = [(bench.start(stage, path), path) for path in (folder, link)]
        ends = [bench.end(*process) for process in processes]
        assert 0 in (ends[0].status, ends[1].status), ends
        for ended in ends:
            if ended.status:
                refused(ended, "is in use by")
        bench.is_as_undisturbed(stage, folder)


# Not to be written, or read


def obey_permissions() -> None:
    """Let permissions bind root as well, by giving up its capabilities (Linux)."""
    if os.geteuid() == 0:
        header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        assert ctypes.CDLL(None).capset(header, none) == 0


def forbid_writing(bench: Bench, stage: Stage, rng: np.random.Generator) -> None:
    """Read-only folder: refused; what is up to date is reported so."""
    with bench.copy(bench.base / f"after {stage.name}") as folder:
        folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
        for path in folders:
            path.chmod(0o555)
        try:
            ended = bench.run(stage, folder, stage.other, prepare=obey_permissions)
            refused(ended, "Permission denied", str(folder))
            ended = bench.run(stage, folder, prepare=obey_permissions)
            assert ended.status == 0, ended.err
        finally:
            for path in folders:
                path.chmod(0o755)
        bench.is_as_undisturbed(stage, folder)


def forbid_reading(bench: Bench, stage: Stage, rng: np.random.Generator) -> None:
    """A file that must not be read: refused, the file is named."""
    name = draw_output(bench, stage, rng)
    with bench.copy(bench.finished) as folder:
        (folder / name).chmod(0)
        ended = bench.run(reader(name) or stage, folder, prepare=obey_permissions)
        refused(ended, "Permission denied", Path(name).name)
        (folder / name).chmod(0o644)
        bench.is_as_undisturbed(STAGES[-1], folder)


# Links


def link_out(bench: Bench, stage: Stage, rng: np.random.Generator) -> None:
    """Files that are links to elsewhere: read; replaced, not written through."""
    start = bench.base / f"other {stage.name}"
    with bench.copy(start) as folder:
        before = state(folder)
        elsewhere = folder.parent / "elsewhere"
        elsewhere.mkdir()
        for path in [path for path in folder.rglob("*") if path.is_file()]:
            kept = elsewhere / path.relative_to(folder).as_posix().replace("/", " ")
            path.rename(kept)
            path.symlink_to(kept)
        kept = {path: path.read_bytes() for path in elsewhere.iterdir()}
        ended = bench.run(stage, folder, stage.other)
        assert ended.status == 0, ended.err
        assert state(folder) == before, "up to date it is with links, too"
        ended = bench.run(stage, folder)
        assert ended.status == 0, ended.err
        bench.is_as_undisturbed(stage, folder)
        assert kept == {path: path.read_bytes() for path in elsewhere.iterdir()}


def link_a_folder(bench: Bench, stage: Stage, rng: np.random.Generator) -> None:
    """A folder inside is a link: refused, nothing is written there."""
    with bench.copy(bench.base / f"other {stage.name}") as folder:
        before = state(folder)
        elsewhere = folder.parent / "elsewhere"
        kept = before.keys() & state(bench.base / f"after {stage.name}").keys()
        runs = sorted(name for name in kept if name.startswith("04_hnsw/faiss"))
        if stage.name == "04_hnsw" and rng.random() < 0.7:
            written = [folder / "04_hnsw", *(folder / run for run in runs)]
            linked = written[int(rng.integers(len(written)))]
            shutil.move(linked, elsewhere)
        else:
            linked = folder / ".partial"
            elsewhere.mkdir()
        linked.symlink_to(elsewhere)
        content = sorted(elsewhere.rglob("*"))
        refused(bench.run(stage, folder), str(linked), "is a link")
        assert sorted(elsewhere.rglob("*")) == content
        linked.unlink()
        if content:
            shutil.move(elsewhere, linked)
        bench.resumes(stage, folder, before)


def link_unfinished_work(bench: Bench, stage: Stage, rng: np.random.Generator) -> None:
    """Unfinished work that is a link: refused, nothing is written there."""
    start, left = bench.initial(stage, rng), []
    while not left:
        with bench.copy(start) as folder:
            before, victim = state(folder), folder.parent / "victim"
            countdown = int(rng.integers(writes(bench, stage, start))) + 1
            arguments = (countdown, str(folder), str(folder.parent / "counted"))
            bench.run(stage, folder, prepare=functools.partial(count_writes, *arguments))
            left = [path for path in (folder / ".partial").rglob("*") if path.is_file()]
            if left:
                linked = draw(left, rng)
                content = linked.read_bytes()
                shutil.move(linked, victim)
                linked.symlink_to(victim)
                refused(bench.run(stage, folder), str(linked), "is a link")
                assert victim.read_bytes() == content
                linked.unlink()
            bench.resumes(stage, folder, before)


def link_the_results(bench: Bench, stage: Stage, rng: np.random.Generator) -> None:
    """The results folder is a link: works."""
    with bench.copy(bench.initial(stage, rng)) as folder:
        link = folder.parent / "link"
        link.symlink_to(folder)
        ended = bench.run(stage, link)
        assert ended.status == 0, ended.err
        bench.is_as_undisturbed(stage, folder)


# What others may have put into a results folder.
OTHERS = ("notes.txt", "03_mine.npy", "04_hnsw/users_own/k0010_indices.npy", "04_hnsw/.git/config")
OTHERS += ("04_hnsw/users_own/mine.txt", "04_hnsw/graphs/mine.faiss", "05_per_query/mine.parquet")


def put_files_of_others(bench: Bench, stage: Stage, rng: np.random.Generator) -> None:
    """Files of others: left alone by every stage, --replace and make clean."""
    with bench.copy(bench.base / f"other {stage.name}") as folder:
        for name in OTHERS:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("precious")
        ended = bench.run(stage, folder)
        assert ended.status == 0, ended.err
        with bench.copy(folder) as cleaned:
            clean(cleaned)
            files = (path for path in cleaned.rglob("*") if path.is_file())
            left = {path.relative_to(cleaned).as_posix(): path.read_text() for path in files}
            assert left == dict.fromkeys(OTHERS, "precious")
        for name in OTHERS:
            assert (folder / name).read_text() == "precious"
            (folder / name).unlink()
        # Stage 05 says that it has left out what is no run.
        bench.is_as_undisturbed(stage, folder, "05_metrics")


def name_a_file(bench: Bench, stage: Stage, rng: np.random.Generator) -> None:
    """`--results` is a file, below one, or a dead link: refused."""
    with bench.copy(bench.base / "before 01_images") as folder:
        file = folder / "file"
        file.write_text("precious")
        (folder / "link").symlink_to(folder / "nothing")
        for path in (file, file / "below", folder / "link"):
            refused(bench.run(stage, path), str(path))
        assert file.read_text() == "precious"
        assert len(list(folder.iterdir())) == 2


FAULTS = (
    kill_at_a_moment,
    kill_before_a_write,
    end_at_a_moment,
    workers_are_killed,
    fill_the_disk,
    limit_the_file_size,
    damage,
    put_no_file,
    edit_a_manifest,
    start_two,
    start_two_at_once,
    forbid_writing,
    forbid_reading,
    link_out,
    link_a_folder,
    link_unfinished_work,
    link_the_results,
    name_a_file,
    put_files_of_others,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=12, help="of each fault on each stage")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    faults = [fault for fault in FAULTS if fault is not fill_the_disk or mounting_allowed()]
    rows = []
    with tempfile.TemporaryDirectory() as base:
        bench = Bench(Path(base))
        for i, fault in enumerate(faults):
            lost = []
            for stage in STAGES:
                rng = np.random.default_rng([args.seed, i, STAGES.index(stage)])
                for number in range(args.tries):
                    try:
                        fault(bench, stage, rng)
                    except AssertionError as error:
                        lost.append(f"{stage.name}, try {number}: {error}")
            name, _, promise = fault.__doc__.rstrip(".").rpartition(": ")
            rows.append(f"| {name} | {promise} | {args.tries * len(STAGES)} | {len(lost)} |")
            print("\n".join([rows[-1], *lost]), file=sys.stderr, flush=True)
    print("| fault | what must hold | tries | lost |\n| --- | --- | --- | --- |")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
