"""Fetching from a host on this machine that breaks off and lies; unpacking safely."""

import hashlib
import io
import re
import resource
import shutil
import tarfile
import time
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from drift import InputError
from drift.images import download
from tests.conftest import Handler

NAME = "stl10_binary.tar.gz"


def tar_gz(*members):
    """An archive of plain files, given as (name, content), and of whatever else is a TarInfo."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for member in members:
            info, content = member, b""
            if isinstance(member, tuple):
                info, content = tarfile.TarInfo(member[0]), member[1]
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


NOISE = np.random.default_rng(0).bytes(300_000)
CONTENT = tar_gz(("box/first.bin", b"first"), ("box/noise.bin", NOISE), ("box/last.bin", b"last"))
SIZE, HALF, PAGE = len(CONTENT), len(CONTENT) // 2, b"<html>log in</html>"
OTHER = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
REST = f"bytes={HALF}-"


def cut(after):
    return partial(Handler.serve, most=after)


def reply(status, header, value, body=b""):
    def answer(handler):
        handler.send_response(status)
        handler.send_header(header, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@pytest.fixture
def archive(host):
    host.content = CONTENT
    members = {"box/first.bin": 5, "box/noise.bin": len(NOISE), "box/last.bin": 4}
    return download.Archive(host.url, NAME, SIZE, hashlib.md5(CONTENT).hexdigest(), members)


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


# Downloads.


WHOLE = {
    "all": (None, {}, [None]),
    "resumed": (HALF, {}, [REST]),
    "only checked": (SIZE, {}, []),
    "dropped, and resumed in the same run": (
        *(None, {"answers": [cut(1000), cut(70_000), cut(1)]}),
        [None, "bytes=1000-", "bytes=71000-", "bytes=71001-"],
    ),
    "attempts count anew after progress": (
        *(None, {"answers": [cut(100)] * 7}),
        [None, *(f"bytes={n}00-" for n in range(1, 8))],
    ),
    "no ranges": (HALF, {"ranges": False}, [REST]),
    "no ranges and no length": (HALF, {"ranges": False, "tells_length": False}, [REST]),
    "errors that pass": (None, {"answers": [500, 503, 429]}, [None] * 4),
    "silence": (None, {"answers": [lambda _: time.sleep(2.5)]}, [None] * 2),
    "redirected": (None, {"answers": [reply(302, "Location", "/elsewhere")]}, [None] * 2),
}
FAILURES = {
    "not found": (0, {"answers": [404]}, r"404: Not Found\), 0 of 300,394 bytes are kept", 0, 1),
    "forbidden": (HALF, {"answers": [403]}, "403.* 150,197 of 300,394 bytes are kept", HALF, 1),
    "errors that stay": (0, {"answers": [500] * 9}, "500", 0, 4),
    "no progress": (0, {"ranges": False, "answers": [cut(5000)] * 9}, "5,000 of .* kept", 5000, 4),
    "no HTTP": (0, {"answers": [lambda h: h.wfile.write(b"SSH-2.0\r\n")] * 9}, "SSH-2.0", 0, 4),
    "wrong": (0, {"content": OTHER}, "the MD5 checksum .*, not .*, and is removed", 0, 1),
    "of unknown length": (0, {"content": OTHER, "tells_length": False}, "MD5 .* is removed", 0, 1),
    "too much": (SIZE + 1, {}, "has 300,395 bytes, not 300,394, and is removed", 0, 0),
    "without an end": (
        *(0, {"content": CONTENT + b"x" * 20_000_000, "tells_length": False}),
        *(r"has \d+,\d+,?\d* bytes, not 300,394, and is removed", 0, 1),
    ),
    "too little": (0, {"content": PAGE}, "it has 19 bytes, not 300394", 0, 1),
    "nothing": (0, {"content": b""}, "it has 0 bytes, not 300394", 0, 1),
    "a page in place of what is there in part": (
        *(HALF, {"content": PAGE, "ranges": False}, "it has 19 bytes, not 300394", HALF, 1),
    ),
    "a range of something else": (
        *(HALF, {"answers": [reply(206, "Content-Range", "bytes 0-9/99", b"0123456789")]}),
        *("it has 99 bytes, not 300394", HALF, 1),
    ),
}


@pytest.mark.parametrize(("part", "options", "requests"), WHOLE.values(), ids=WHOLE)
def test_the_archive_comes_whole(part, options, requests, archive, host, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 1)
    folder = tmp_path / "new" / "folder"
    if part is not None:
        folder.mkdir(parents=True)
        (folder / f"{NAME}.part").write_bytes(CONTENT[:part])
    vars(host).update(options)
    for _ in range(2):  # the second time it is there
        assert download.fetch(archive, folder) == folder / NAME
    assert (folder / NAME).read_bytes() == CONTENT
    assert files(folder) == {NAME}
    assert host.requests == requests


@pytest.mark.parametrize(
    ("part", "options", "message", "kept", "n_requests"), FAILURES.values(), ids=FAILURES
)
def test_what_does_not_come_is_one_line(
    part, options, message, kept, n_requests, archive, host, tmp_path
):
    path = tmp_path / f"{NAME}.part"
    if part:
        path.write_bytes((CONTENT + b"x")[:part])
    vars(host).update(options)
    with pytest.raises(ConnectionError, match=f"{host.url} .*{message}") as caught:
        download.fetch(archive, tmp_path)
    assert "\n" not in str(caught.value)
    assert {file.stat().st_size for file in tmp_path.iterdir()} == {kept} - {0}
    assert len(host.requests) == n_requests


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:1/x", "Connection refused"),
        ("http://stl10.invalid/x", "Name or service|name resolution"),
        *((url, r"\(") for url in ("http://", "http://a:b/", "http://[/", "http://a b/")),
    ],
)
def test_an_address_that_leads_nowhere_is_named(url, reason, archive, tmp_path):
    with pytest.raises((ConnectionError, InputError), match=f"{re.escape(url)}.*{reason}"):
        download.fetch(archive, tmp_path, url)


def test_a_file_of_the_name_that_is_something_else_is_left_alone(archive, host, tmp_path):
    for content in (b"mine", OTHER):
        (tmp_path / NAME).write_bytes(content)
        with pytest.raises(InputError, match=f"{NAME} is not {NAME}, it has .*remove it"):
            download.fetch(archive, tmp_path)
        assert (tmp_path / NAME).read_bytes() == content
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(InputError, match=f"{path} is not there"):
            download.check(archive, path)
    assert host.requests == []


def test_the_disk_must_have_room_for_what_is_missing(archive, host, tmp_path, monkeypatch):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:HALF])
    need = 1000 + SIZE - HALF
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=need - 1))
    with pytest.raises(InputError, match=rf"{tmp_path} needs {need:,}.* 1 too few"):
        download.fetch(archive, tmp_path, room_beyond=1000)
    assert host.requests == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=need))
    assert download.fetch(archive, tmp_path, room_beyond=1000).read_bytes() == CONTENT


@pytest.fixture
def full_disk():
    """No file grows beyond 100,000 bytes; undone when it is called."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    undo = partial(resource.setrlimit, resource.RLIMIT_FSIZE, limits)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield undo
    undo()


def test_a_disk_that_runs_full_is_named_and_what_came_is_kept(archive, host, tmp_path, full_disk):
    with pytest.raises(OSError, match="File too large") as caught:
        download.fetch(archive, tmp_path)
    assert not isinstance(caught.value, ConnectionError)
    assert caught.value.filename == str(tmp_path / f"{NAME}.part")
    full_disk()
    assert download.fetch(archive, tmp_path).read_bytes() == CONTENT
    assert host.requests == [None, "bytes=100000-"]


# Unpacking.


def put(tmp_path, content):
    (tmp_path / "in.tar.gz").write_bytes(content)
    return tmp_path / "in.tar.gz"


def test_unpack_takes_what_was_asked_for_and_no_more(tmp_path):
    path, out = put(tmp_path, CONTENT), tmp_path / "out"
    out.mkdir()
    (out / ".unpacking").write_bytes(b"what a killed run has left")
    download.unpack(path, {"box/noise.bin": len(NOISE)}, out)
    assert files(out) == {"box/noise.bin"}
    assert (out / "box/noise.bin").read_bytes() == NOISE
    assert path.read_bytes() == CONTENT


def link(name, to, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


def test_hostile_members_leave_no_trace(tmp_path):
    (tmp_path / "secret").write_text("secret")
    hostile = tar_gz(
        ("../evil", b"evil"),
        (str(tmp_path / "evil"), b"evil"),
        ("box/../../evil", b"evil"),
        link("box", str(tmp_path)),
        link("box/evil", "../../secret"),
        ("box/last.bin", b"last"),
    )
    folder = tmp_path / "out" / "below"
    download.unpack(put(tmp_path, hostile), {"box/last.bin": 4}, folder)
    assert files(tmp_path) == {"secret", "in.tar.gz", "out/below/box/last.bin"}
    assert not (folder / "box").is_symlink()


@pytest.mark.parametrize(
    ("content", "members", "message"),
    [
        # A link to a file of the size that is expected, in the archive and on the disk.
        *(
            (
                tar_gz(("secret", b"secret"), link("box/x.bin", "secret", kind)),
                {"box/x.bin": size},
                m,
            )
            for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE)
            for size, m in ((6, "box/x.bin is no plain file"), (0, "of 0 bytes"))
        ),
        (CONTENT, {"box/first.bin": 6}, "first.bin is no plain file of 6 bytes"),
        (CONTENT, {"box/second.bin": 5}, "holds no box/second.bin.*fetch it again"),
        *(
            (content, {"box/noise.bin": len(NOISE)}, "")
            for content in (
                *(b"", b"no archive at all", CONTENT[:HALF], b"x" + CONTENT[1:]),
                CONTENT[:20] + CONTENT[30:],
            )
        ),
    ],
)
def test_an_archive_that_is_damaged_is_named_and_leaves_nothing(
    content, members, message, tmp_path
):
    (tmp_path / "secret").write_bytes(b"secret")
    with pytest.raises(InputError, match=rf"in.tar.gz is damaged .*{message}"):
        download.unpack(put(tmp_path, content), members, tmp_path / "out")
    assert files(tmp_path / "out") == set()


def test_nothing_is_left_of_a_file_that_filled_the_disk(tmp_path, full_disk):
    path = put(tmp_path, tar_gz(("box/zeros.bin", bytes(200_000))))
    with pytest.raises(OSError, match="File too large") as caught:
        download.unpack(path, {"box/zeros.bin": 200_000}, tmp_path)
    assert caught.value.filename == str(tmp_path / "box" / "zeros.bin")
    assert files(tmp_path) == {"in.tar.gz"}
