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

from drift import InputError, add_filename
from drift.pipeline.lock import NO_LOCKS_ERRNOS, UNWRITABLE_ERRNOS, lock_folder
from tests.conftest import ROOT


def test_lock_is_released_and_leaves_nothing(tmp_path):
    deep = tmp_path / "some" / "where"
    with pytest.raises(ZeroDivisionError), lock_folder(deep):
        assert [path.name for path in deep.iterdir()] == [".lock"]
        raise ZeroDivisionError
    assert not (tmp_path / "some").exists()
    for _ in range(2):
        with lock_folder(deep) as locked:
            assert locked
            (deep / "result").write_text("kept")
    assert [path.name for path in deep.iterdir()] == ["result"]


def test_lock_of_a_killed_process_is_no_obstacle(tmp_path, monkeypatch):
    program = "import sys, time; from pathlib import Path\n"
    program += "from drift.pipeline.lock import lock_folder\n"
    program += "with lock_folder(Path(sys.argv[1])): print('locked', flush=True); time.sleep(60)"
    command = [sys.executable, "-c", program, tmp_path]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(InputError, match=f"process {process.pid} on"), lock_folder(tmp_path):
            pass
        process.kill()
    assert f"process {process.pid} on" in (tmp_path / ".lock").read_text()
    monkeypatch.setattr(sys, "argv", ["/some/where/03_exact_knn.py", "--k-max", "3"])
    with lock_folder(tmp_path) as locked, pytest.raises(InputError) as caught:
        assert locked
        with lock_folder(tmp_path):
            pass
    message = f"{tmp_path} is in use by 03_exact_knn.py, process {os.getpid()} on "
    assert str(caught.value).startswith(message)
    assert re.fullmatch(r"[^\n]*, since 20[-+: 0-9]+: wait until it has ended", str(caught.value))
    assert not list(tmp_path.iterdir())


def test_never_two_at_once_however_the_file_comes_and_goes(tmp_path, monkeypatch):
    flock, close, inside, entered, ended = fcntl.flock, os.close, [], [], []

    def dawdle(descriptor, operation):
        time.sleep(random.random() / 2000)  # in it, another one can remove the file
        flock(descriptor, operation)

    def close_and_dawdle(descriptor):
        close(descriptor)
        time.sleep(random.random() / 2000)  # in it, another one can lock the file

    def enter_again_and_again():
        for _ in range(200):
            try:
                with lock_folder(tmp_path):
                    inside.append(threading.get_ident())
                    entered.append(len(inside))
                    time.sleep(random.random() / 2000)
                    inside.pop()
            except InputError:
                continue
        ended.append("as it should")

    monkeypatch.setattr(fcntl, "flock", dawdle)
    monkeypatch.setattr(os, "close", close_and_dawdle)
    threads = [threading.Thread(target=enter_again_and_again) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ended) == len(threads)
    assert len(entered) > 100
    assert set(entered) == {1}


def failing(code):
    def fail(*_, **__):
        raise OSError(code, os.strerror(code))

    return fail


def test_full_disk_does_not_keep_a_folder_from_being_locked(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "write_text", failing(errno.ENOSPC))
    with lock_folder(tmp_path) as locked:
        assert locked
        with pytest.raises(InputError, match="in use by another process"), lock_folder(tmp_path):
            pass


@pytest.mark.parametrize("code", NO_LOCKS_ERRNOS)
def test_file_system_without_locks_is_used_with_a_warning(code, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fcntl, "flock", failing(code))
    with lock_folder(tmp_path) as locked:
        assert locked
    warning = f"warning: {tmp_path} has no locks, run one script at a time\n"
    assert capsys.readouterr().err == warning
    assert not list(tmp_path.iterdir())


def test_lock_that_fails_in_another_way_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", failing(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)), lock_folder(tmp_path):
        pass


@pytest.mark.parametrize("code", UNWRITABLE_ERRNOS)
def test_only_a_folder_that_cannot_be_written_to_is_used_without_a_lock(
    code, tmp_path, monkeypatch
):
    def refuse(path, *_):
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(os, "open", refuse)
    # The folder can be written to: it is the file that another user has left.
    with pytest.raises(OSError, match=r"\.lock"), lock_folder(tmp_path):
        pass
    monkeypatch.setattr(os, "access", lambda *_: False)
    with lock_folder(tmp_path) as locked:
        assert not locked


def test_lock_is_not_written_through_a_link(tmp_path):
    folder, precious = tmp_path / "results", tmp_path / "precious"
    folder.mkdir()
    precious.write_text("text")
    (folder / ".lock").symlink_to(precious)
    with pytest.raises(OSError, match=r"\.lock"), lock_folder(folder):
        pass
    assert precious.read_text() == "text"


def test_add_filename_adds_the_file_where_none_is_named():
    full = os.strerror(errno.ENOSPC)
    with pytest.raises(OSError, match="here") as caught, add_filename(Path("here")):
        raise OSError(errno.ENOSPC, full)
    assert caught.value.filename == "here"
    with pytest.raises(OSError, match="there"), add_filename(Path("here")):
        raise OSError(errno.ENOSPC, full, "there")
    with pytest.raises(OSError, match=r"^no server answers$"), add_filename(Path("here")):
        raise OSError("no server answers")
