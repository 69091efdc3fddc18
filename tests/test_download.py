"""Fetching from a host on this machine that breaks off and lies; unpacking safely."""

import contextlib
import hashlib
import io
import re
import resource
import shutil
import socket
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest

from drift import InputError
from drift.images import download

NAME = "stl10_binary.tar.gz"


def entry(name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info, io.BytesIO(content)


def tar_gz(*entries):
    """An archive of plain files, given as (name, content), and of whatever else is a TarInfo."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for member in entries:
            tar.addfile(*((member,) if isinstance(member, tarfile.TarInfo) else entry(*member)))
    return stream.getvalue()


NOISE = np.random.default_rng(0).bytes(300_000)
CONTENT = tar_gz(("box/first.bin", b"first"), ("box/noise.bin", NOISE), ("box/last.bin", b"last"))
HALF = len(CONTENT) // 2


class Handler(BaseHTTPRequestHandler):
    """Serves `server.content`, unless the next of `server.answers` says otherwise."""

    def do_GET(self):
        self.server.requests.append({**self.headers})
        self.server.sent.append(0)
        answer = self.server.answers.pop(0) if self.server.answers else Handler.serve
        answer(self)

    def serve(self, most=None):
        server, content, start = self.server, self.server.content, 0
        requested = self.headers["Range"]
        if requested and server.ranges:
            start = int(requested.removeprefix("bytes=").removesuffix("-"))
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
        body = content[start:] if most is None else content[start : start + most]
        server.sent[-1] = len(body)
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

    def log_message(self, *_):
        pass


def status(code):
    return lambda handler: handler.send_error(code)


def breaking_off(after):
    return lambda handler: handler.serve(after)


def silence(_):
    time.sleep(0.5)


@pytest.fixture
def host(monkeypatch):
    """A host that serves CONTENT, and keeps what it was asked and the bytes of each answer."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "BACKOFF", (0.0, 0.0, 0.0))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.ranges, server.tells_length = CONTENT, True, True
    server.requests, server.sent, server.answers = [], [], []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    server.url = f"http://127.0.0.1:{server.server_port}/{NAME}"
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def archive(host):
    members = {"box/first.bin": 5, "box/noise.bin": len(NOISE), "box/last.bin": 4}
    return download.Archive(host.url, NAME, len(CONTENT), hashlib.md5(CONTENT).hexdigest(), members)


def interrupt(archive, folder, host):
    """Fetch the first half, and then find that the host has gone."""
    host.answers = [breaking_off(HALF), status(404)]
    with pytest.raises(ConnectionError, match=f"404.*{HALF:,} of {len(CONTENT):,} bytes are kept"):
        download.fetch(archive, folder)
    part = folder / f"{NAME}.part"
    assert part.read_bytes() == CONTENT[:HALF]
    host.requests.clear()
    host.sent.clear()
    return part


def test_fetch_keeps_the_archive_and_nothing_else(archive, host, tmp_path):
    path = download.fetch(archive, tmp_path / "new" / "folder")

    assert path == tmp_path / "new" / "folder" / NAME
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == [NAME]
    assert "Range" not in host.requests[0]


def test_fetch_asks_once_only(archive, host, tmp_path):
    for _ in range(2):
        download.fetch(archive, tmp_path)

    assert len(host.requests) == 1


def test_an_interrupted_download_resumes(archive, host, tmp_path):
    part = interrupt(archive, tmp_path, host)
    path = download.fetch(archive, tmp_path)

    assert path.read_bytes() == CONTENT
    assert host.sent == [len(CONTENT) - HALF]
    assert host.requests[0]["Range"] == f"bytes={HALF}-"
    assert not part.exists()


def test_a_dropped_connection_is_resumed_in_the_same_run(archive, host, tmp_path):
    host.answers = [breaking_off(n) for n in (1000, 70_000, 1)]
    path = download.fetch(archive, tmp_path)

    assert path.read_bytes() == CONTENT
    assert host.sent == [1000, 70_000, 1, len(CONTENT) - 71_001]


def test_attempts_count_anew_after_progress(archive, host, tmp_path):
    host.answers = [breaking_off(100)] * 9
    assert download.fetch(archive, tmp_path).read_bytes() == CONTENT
    assert len(host.requests) == 10


def test_a_host_that_never_gets_further_is_given_up(archive, host, tmp_path):
    host.ranges = False
    host.answers = [breaking_off(5000)] * 50
    with pytest.raises(ConnectionError, match=r"ended early.*5,000 of .* bytes are kept"):
        download.fetch(archive, tmp_path)

    # The first gets somewhere, and after it as many attempts as waits.
    assert len(host.requests) == 1 + len(download.BACKOFF)


def test_a_host_without_ranges_is_asked_for_the_whole(archive, host, tmp_path):
    interrupt(archive, tmp_path, host)
    host.ranges = False
    path = download.fetch(archive, tmp_path)

    assert path.read_bytes() == CONTENT
    assert host.sent == [len(CONTENT)]


def test_another_mirror_resumes(archive, host, tmp_path):
    interrupt(archive, tmp_path, host)
    path = download.fetch(archive, tmp_path, url=f"{host.url}?mirror")

    assert host.sent == [len(CONTENT) - HALF]
    assert path.read_bytes() == CONTENT


def test_a_beginning_of_another_file_is_removed_and_the_next_run_fetches_it_whole(
    archive, host, tmp_path
):
    part = interrupt(archive, tmp_path, host)
    part.write_bytes(b"x" * HALF)
    with pytest.raises(ConnectionError, match=rf"{host.url}.* MD5 .*{archive.md5}.*removed"):
        download.fetch(archive, tmp_path)
    assert host.sent == [len(CONTENT) - HALF]
    assert list(tmp_path.iterdir()) == []

    assert download.fetch(archive, tmp_path).read_bytes() == CONTENT


def test_a_range_that_the_host_does_not_have_restarts(archive, host, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:HALF])
    host.answers = [status(416)]

    assert download.fetch(archive, tmp_path).read_bytes() == CONTENT
    assert [request.get("Range") for request in host.requests] == [f"bytes={HALF}-", None]


@pytest.mark.parametrize(
    "answered", [f"bytes 0-9/{len(CONTENT)}", f"bytes {HALF}-{len(CONTENT)}/{len(CONTENT) + 1}", ""]
)
def test_another_range_than_was_asked_for_restarts(answered, archive, host, tmp_path):
    def other_range(handler):
        handler.send_response(206)
        if answered:
            handler.send_header("Content-Range", answered)
        handler.end_headers()
        handler.wfile.write(b"0123456789")

    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:HALF])
    host.answers = [other_range]

    assert download.fetch(archive, tmp_path).read_bytes() == CONTENT
    assert len(host.requests) == 2


def test_more_than_the_archive_has_is_removed(archive, host, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT + b"x")
    with pytest.raises(ConnectionError, match="is removed"):
        download.fetch(archive, tmp_path)

    assert download.fetch(archive, tmp_path).read_bytes() == CONTENT


def test_a_whole_part_is_only_checked(archive, host, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT)

    assert download.fetch(archive, tmp_path).read_bytes() == CONTENT
    assert host.requests == []


@pytest.mark.parametrize("tells_length", [True, False])
def test_a_wrong_checksum_is_not_believed_then_or_later(tells_length, archive, host, tmp_path):
    host.tells_length = tells_length
    host.content = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    with pytest.raises(ConnectionError, match=f"MD5.*{archive.md5}"):
        download.fetch(archive, tmp_path)
    assert list(tmp_path.iterdir()) == []

    host.content = CONTENT
    assert download.fetch(archive, tmp_path).read_bytes() == CONTENT


def test_a_truncated_file_is_refused_before_it_is_fetched(archive, host, tmp_path):
    host.content = CONTENT[:HALF]
    with pytest.raises(ConnectionError, match=f"{HALF} bytes, not {len(CONTENT)}"):
        download.fetch(archive, tmp_path)

    assert len(host.requests) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_web_page_in_place_of_the_archive_costs_nothing_fetched_before(archive, host, tmp_path):
    part = interrupt(archive, tmp_path, host)
    host.content = b"<html>log in</html>"
    with pytest.raises(ConnectionError, match="19 bytes"):
        download.fetch(archive, tmp_path)

    assert part.read_bytes() == CONTENT[:HALF]


def test_a_truncated_file_of_unknown_length_is_given_up(archive, host, tmp_path):
    host.tells_length, host.ranges, host.content = False, False, CONTENT[:HALF]
    with pytest.raises(ConnectionError, match="ended early"):
        download.fetch(archive, tmp_path)
    assert not (tmp_path / NAME).exists()


def test_a_file_without_an_end_is_not_followed(archive, host, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "CHUNK", 1000)
    host.tells_length, host.content = False, CONTENT + b"x" * 20_000_000
    with pytest.raises(ConnectionError, match=f"not {len(CONTENT):,}") as caught:
        download.fetch(archive, tmp_path)
    taken = int(re.search(r"has ([\d,]+) bytes", str(caught.value))[1].replace(",", ""))
    assert len(CONTENT) < taken <= len(CONTENT) + 1000
    assert not (tmp_path / f"{NAME}.part").exists()


@pytest.mark.parametrize("code", [500, 503, 429, 408])
def test_errors_that_pass_are_tried_again(code, archive, host, tmp_path):
    host.answers = [status(code), status(code)]

    assert download.fetch(archive, tmp_path).read_bytes() == CONTENT
    assert len(host.requests) == 3


def test_errors_that_do_not_pass_end(archive, host, tmp_path):
    host.answers = [status(500)] * 50
    with pytest.raises(ConnectionError, match="HTTP 500"):
        download.fetch(archive, tmp_path)
    assert len(host.requests) == 1 + len(download.BACKOFF)


@pytest.mark.parametrize("code", [404, 403, 410])
def test_what_the_host_lacks_ends_at_once(code, archive, host, tmp_path):
    host.answers = [status(code)] * 50
    with pytest.raises(ConnectionError, match=rf"{host.url} .*HTTP {code}"):
        download.fetch(archive, tmp_path)
    assert len(host.requests) == 1


def test_a_host_that_falls_silent_is_asked_again(archive, host, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    host.answers = [silence]

    assert download.fetch(archive, tmp_path).read_bytes() == CONTENT


def test_the_waits_grow(archive, host, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(download, "BACKOFF", (1.0, 2.0, 4.0))
    monkeypatch.setattr(download.time, "sleep", waits.append)
    host.answers = [status(500)] * 3

    assert download.fetch(archive, tmp_path).read_bytes() == CONTENT
    assert waits == [1.0, 2.0, 4.0]


def no_wait(_):
    raise AssertionError("it waits for nothing")


def test_a_refused_connection_is_named(archive, host, tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/x"
        with pytest.raises(ConnectionError, match=f"{url} cannot be fetched .*refused"):
            download.fetch(archive, tmp_path, url)


def test_a_host_that_cannot_be_found_is_named(archive, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(ConnectionError, match="Name or service not known"):
        download.fetch(archive, tmp_path, "http://stl10.invalid/x")


def test_a_host_that_speaks_no_http_ends_at_once(archive, host, tmp_path, monkeypatch):
    monkeypatch.setattr(download.time, "sleep", no_wait)
    host.answers = [lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")]
    with pytest.raises(ConnectionError, match="SSH-2"):
        download.fetch(archive, tmp_path)


@pytest.mark.parametrize("url", ["http://", "http://a:b/", "http://[/", "http://a b/"])
def test_an_address_that_is_none(url, archive, tmp_path, monkeypatch):
    monkeypatch.setattr(download.time, "sleep", no_wait)
    with pytest.raises(ConnectionError):
        download.fetch(archive, tmp_path, url)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://a/b", "stl10.tar.gz", "data:,x"])
def test_only_http_is_fetched(url, archive, tmp_path):
    with pytest.raises(InputError, match="http or https"):
        download.fetch(archive, tmp_path, url)


def test_a_file_of_the_name_that_is_something_else_is_left_alone(archive, host, tmp_path):
    for content in (b"mine", CONTENT[:-1] + b"x"):
        (tmp_path / NAME).write_bytes(content)
        with pytest.raises(InputError, match=f"{NAME} is not {NAME}, it has .*remove it"):
            download.fetch(archive, tmp_path)
        assert (tmp_path / NAME).read_bytes() == content
    assert host.requests == []


def free(monkeypatch, n):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=n))


def test_a_disk_that_is_too_full_is_named_before_anything_is_asked(
    archive, host, tmp_path, monkeypatch
):
    free(monkeypatch, 1000 + len(CONTENT) - 1)
    with pytest.raises(InputError, match=rf"{tmp_path} needs {1000 + len(CONTENT):,}.* 1 too few"):
        download.fetch(archive, tmp_path, room_beyond=1000)
    assert host.requests == []

    free(monkeypatch, 1000 + len(CONTENT))
    assert download.fetch(archive, tmp_path, room_beyond=1000).exists()


def test_what_was_fetched_already_needs_no_room(archive, tmp_path, monkeypatch):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:HALF])
    free(monkeypatch, len(CONTENT) - HALF)

    assert download.fetch(archive, tmp_path).read_bytes() == CONTENT


@pytest.fixture
def full_disk():
    """No file grows beyond 100,000 bytes; undone when it is called."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def undo():
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield undo
    undo()


def test_a_disk_that_runs_full_is_named_and_what_came_is_kept(archive, host, tmp_path, full_disk):
    with pytest.raises(OSError, match="File too large") as caught:
        download.fetch(archive, tmp_path)
    assert not isinstance(caught.value, ConnectionError)
    assert caught.value.filename == str(tmp_path / f"{NAME}.part")
    assert len(host.requests) == 1

    full_disk()
    assert download.fetch(archive, tmp_path).read_bytes() == CONTENT
    assert host.sent[-1] == len(CONTENT) - 100_000


def test_nothing_is_left_of_a_file_that_filled_the_disk(tmp_path, full_disk):
    content = tar_gz(("box/zeros.bin", bytes(200_000)))
    (tmp_path / "in.tar.gz").write_bytes(content)
    with pytest.raises(OSError, match="File too large") as caught:
        download.unpack(tmp_path / "in.tar.gz", {"box/zeros.bin": 200_000}, tmp_path)
    assert caught.value.filename == str(tmp_path / "box" / "zeros.bin")
    assert [path.name for path in tmp_path.rglob("*")] == ["in.tar.gz"]


def test_what_a_killed_run_left_while_unpacking_is_removed(tmp_path, monkeypatch):
    (tmp_path / "in.tar.gz").write_bytes(CONTENT)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".unpacking").write_bytes(b"half")
    download.unpack(tmp_path / "in.tar.gz", {"box/noise.bin": len(NOISE)}, tmp_path / "out")

    assert names(tmp_path / "out") == {"box/noise.bin"}
    assert (tmp_path / "out/box/noise.bin").read_bytes() == NOISE
    assert not (tmp_path / "out" / ".unpacking").exists()


def test_check_of_a_whole_archive_and_of_none(archive, tmp_path):
    path = tmp_path / "anything"
    path.write_bytes(CONTENT)
    download.check(archive, path)
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(InputError, match=f"{path} is not there"):
            download.check(archive, path)


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def test_unpack_takes_what_was_asked_for_and_no_more(tmp_path):
    (tmp_path / "in.tar.gz").write_bytes(CONTENT)
    download.unpack(tmp_path / "in.tar.gz", {"box/noise.bin": len(NOISE)}, tmp_path / "out")

    assert names(tmp_path / "out") == {"box/noise.bin"}
    assert (tmp_path / "out/box/noise.bin").read_bytes() == NOISE
    assert (tmp_path / "in.tar.gz").read_bytes() == CONTENT


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
    (tmp_path / "in.tar.gz").write_bytes(hostile)
    folder = tmp_path / "out" / "below"
    download.unpack(tmp_path / "in.tar.gz", {"box/last.bin": 4}, folder)

    assert names(tmp_path) == {"secret", "in.tar.gz", "out/below/box/last.bin"}
    assert not (folder / "box").is_symlink()


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE]
)
def test_a_member_that_is_no_plain_file_is_refused(kind, tmp_path):
    # A link to a file of the size that is expected, in the archive and on the disk.
    (tmp_path / "secret").write_bytes(b"secret")
    content = tar_gz(("secret", b"secret"), link("box/x.bin", "secret", kind))
    (tmp_path / "in.tar.gz").write_bytes(content)
    for size in (6, 0):
        with pytest.raises(InputError, match=r"in.tar.gz is damaged .box/x.bin is no plain file"):
            download.unpack(tmp_path / "in.tar.gz", {"box/x.bin": size}, tmp_path / "out")
    assert names(tmp_path / "out") == set()


def test_a_member_of_another_size_is_refused(tmp_path):
    (tmp_path / "in.tar.gz").write_bytes(CONTENT)
    with pytest.raises(InputError, match=r"first.bin is no plain file of 6 bytes"):
        download.unpack(tmp_path / "in.tar.gz", {"box/first.bin": 6}, tmp_path / "out")


def test_a_member_that_is_missing_is_named(tmp_path):
    (tmp_path / "in.tar.gz").write_bytes(CONTENT)
    with pytest.raises(InputError, match=r"holds no box/second.bin.*fetch it again"):
        download.unpack(
            tmp_path / "in.tar.gz", {"box/first.bin": 5, "box/second.bin": 5}, tmp_path / "out"
        )


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive at all", CONTENT[:HALF], CONTENT[:20] + CONTENT[30:], b"x" + CONTENT[1:]],
    ids=["empty", "text", "cut off", "bytes lost", "no gzip"],
)
def test_a_damaged_archive_is_named_and_leaves_nothing(content, tmp_path):
    (tmp_path / "in.tar.gz").write_bytes(content)
    with pytest.raises(InputError, match=r"in.tar.gz is damaged"):
        download.unpack(tmp_path / "in.tar.gz", {"box/last.bin": 4}, tmp_path / "out")
    with pytest.raises(InputError, match=r"in.tar.gz is damaged"):
        download.unpack(tmp_path / "in.tar.gz", {"box/noise.bin": len(NOISE)}, tmp_path / "out")
    assert names(tmp_path / "out") == set()
