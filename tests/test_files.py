"""One process at a time in a folder, and errors that name their file."""

import errno
import fcntl
import os
import random
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from drift import InputError, files
from drift.files import hold, naming
from tests.conftest import ROOT


def test_held_folder_is_refused_with_the_holder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/some/where/03_exact_knn.py", "--k-max", "3"])
    (tmp_path / ".lock").write_text("what a killed process with a long name has left, " * 5)
    with hold(tmp_path) as held:
        assert held
        with pytest.raises(InputError) as caught, hold(tmp_path):
            pass
    message = str(caught.value)
    assert message.startswith(f"{tmp_path} is in use by 03_exact_knn.py, process {os.getpid()} on ")
    assert re.fullmatch(r"[^\n]*, since 20[-+: 0-9]+: wait until it has ended", message)


def test_lock_is_let_go_of_and_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), hold(tmp_path):
        raise ZeroDivisionError
    for _ in range(3):
        with hold(tmp_path) as held:
            assert held
            assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert not list(tmp_path.iterdir())


def test_folder_is_made_and_removed_only_when_empty(tmp_path):
    deep = tmp_path / "some" / "where"
    with hold(deep):
        assert deep.is_dir()
    assert not (tmp_path / "some").exists()
    with hold(deep):
        (deep / "result").write_text("kept")
    assert [path.name for path in deep.iterdir()] == ["result"]


def test_lock_of_a_killed_process_is_no_obstacle(tmp_path):
    program = "import sys, time; from pathlib import Path; from drift.files import hold\n"
    program += "with hold(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    command = [sys.executable, "-c", program, tmp_path]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"process {process.pid} on"), hold(tmp_path):
            pass
        process.kill()
    assert f"process {process.pid} on" in (tmp_path / ".lock").read_text()
    with hold(tmp_path) as held:
        assert held
        assert f"process {os.getpid()} on" in (tmp_path / ".lock").read_text()
    assert not list(tmp_path.iterdir())


def test_never_two_at_once_however_the_file_comes_and_goes(tmp_path, monkeypatch):
    flock, close, inside, entered, ended = fcntl.flock, os.close, [], [], []

    def dawdle(descriptor, operation):
        time.sleep(random.random() / 2000)  # in it, another one can remove the file
        flock(descriptor, operation)

    def let_go_and_dawdle(descriptor):
        close(descriptor)
        time.sleep(random.random() / 2000)  # in it, another one can lock the file

    def enter_again_and_again():
        for _ in range(200):
            try:
                with hold(tmp_path):
                    inside.append(threading.get_ident())
                    entered.append(len(inside))
                    time.sleep(random.random() / 2000)
                    inside.pop()
            except InputError:
                continue
        ended.append("as it should")

    monkeypatch.setattr(fcntl, "flock", dawdle)
    monkeypatch.setattr(os, "close", let_go_and_dawdle)
    threads = [threading.Thread(target=enter_again_and_again) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ended) == len(threads)
    assert len(entered) > 100
    assert set(entered) == {1}


def test_full_disk_does_not_keep_a_folder_from_being_held(tmp_path, monkeypatch):
    def no_space(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", no_space)
    with hold(tmp_path) as held:
        assert held
        with pytest.raises(InputError, match="in use by another process"), hold(tmp_path):
            pass


def test_file_system_without_locks_is_used_with_a_warning(tmp_path, monkeypatch, capsys):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with hold(tmp_path) as held:
        assert held
    assert (
        capsys.readouterr().err == f"warning: {tmp_path} has no locks, run one script at a time\n"
    )


def test_lock_that_fails_in_another_way_is_an_error(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)), hold(tmp_path):
        pass


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_only_a_folder_that_cannot_be_written_to_is_used_without_a_lock(
    code, tmp_path, monkeypatch
):
    def refuse(path, *_):
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(os, "open", refuse)
    # The folder can be written to: it is the file that another user has left.
    with pytest.raises(OSError, match=r"\.lock"), hold(tmp_path):
        pass
    monkeypatch.setattr(os, "access", lambda *_: False)
    with hold(tmp_path) as held:
        assert not held


def test_lock_is_not_written_through_a_link(tmp_path):
    folder, precious = tmp_path / "results", tmp_path / "precious"
    folder.mkdir()
    precious.write_text("text")
    (folder / ".lock").symlink_to(precious)
    with pytest.raises(OSError, match=r"\.lock"), hold(folder):
        pass
    assert precious.read_text() == "text"


@pytest.mark.parametrize("code", files.FULL)
def test_naming_adds_the_file_where_none_is_named(code):
    with pytest.raises(OSError, match="here") as caught, naming(Path("here")):
        raise OSError(code, os.strerror(code))
    assert caught.value.filename == "here"
    with pytest.raises(OSError, match="there") as caught, naming(Path("here")):
        raise OSError(code, os.strerror(code), "there")
    assert caught.value.filename == "there"
