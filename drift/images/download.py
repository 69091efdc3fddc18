"""Fetch an archive over HTTP, resume after interruptions, check it, unpack single files of it."""

import gzip
import hashlib
import os
import shutil
import tarfile
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse, IncompleteRead
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from tqdm import tqdm

from drift import InputError, add_filename

CHUNK = 1 << 20
# Seconds without a byte after which a connection counts as dropped.
TIMEOUT = 30.0
# Seconds to wait before each new attempt; one that gets further than any before starts over here.
BACKOFF = (1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Archive:
    """A gzipped tar archive that is known beforehand, and what it is called on disk.

    `size` is in bytes, `md5` in hexadecimal. `members` are the files in it that can be asked for:
    size in bytes by name in the archive.
    """

    url: str
    filename: str
    size: int
    md5: str
    members: Mapping[str, int]


class _Unavailable(Exception):  # noqa: N818
    """Why the file did not come, and whether another attempt may do better."""


def fetch(archive: Archive, folder: Path, url: str | None = None, room_beyond: int = 0) -> Path:
    """Download an archive into a folder, maybe from a mirror, unless it is on disk already.

    What has arrived is kept in ``FILENAME.part`` until its size and checksum are verified, and an
    interrupted download resumes after it if the host can do that. The disk must have `room_beyond`
    bytes free besides the archive.

    Raises
    ------
    ConnectionError
        When it cannot be fetched, or what came is something else.
    InputError
        When the disk has too little room, or a file of that name is something else.
    """
    url = url or archive.url
    if not url.lower().startswith(("http://", "https://")):
        raise InputError(f"{url!r} is no http or https address")
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / archive.filename
    if target.exists():
        check(archive, target)
        return target
    part = target.with_name(f"{target.name}.part")
    need, free = archive.size - _size(part) + room_beyond, shutil.disk_usage(folder).free
    if free < need:
        raise InputError(
            f"{folder} needs {need:,} bytes of free disk and has {free:,}, {need - free:,} too "
            "few: make room there, or take a folder on another disk"
        )
    _download(archive, url, part)
    if flaw := _flaw(archive, part):
        part.unlink()
        raise ConnectionError(
            f"what came from {url} is not {archive.filename}, it {flaw}, and is removed"
        )
    part.replace(target)
    return target


def check(archive: Archive, path: Path) -> None:
    """Raise an InputError unless a file is this archive, by its size and checksum."""
    if not path.is_file():
        raise InputError(f"{path} is not there, or is no file")
    if flaw := _flaw(archive, path):
        raise InputError(f"{path} is not {archive.filename}, it {flaw}: remove it, or take another")


def unpack(path: Path, members: Mapping[str, int], folder: Path) -> None:
    """Unpack some members of a gzipped tar archive into a folder, and nothing else it may hold.

    Each is moved into place, under its name in the archive, when it has its size in bytes. The
    archive is read no further than the last of them.

    Raises
    ------
    InputError
        When the archive is damaged, lacks one of them, or holds something else under its name.
    """
    temporary, label = folder / ".unpacking", f"unpacking {path.name}"
    missing = dict(members)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with (
            path.open("rb") as file,
            tqdm.wrapattr(file, "read", path.stat().st_size, desc=label, disable=None) as stream,
            tarfile.open(fileobj=stream, mode="r:gz") as tar,
        ):
            while missing and (member := tar.next()):
                size = missing.pop(member.name, None)
                if size is None:
                    continue
                if not member.isreg() or member.size != size:
                    raise tarfile.ReadError(f"{member.name} is no plain file of {size:,} bytes")
                target = folder / member.name
                with add_filename(target), temporary.open("wb") as unpacked:
                    shutil.copyfileobj(tar.extractfile(member), unpacked, CHUNK)
                    os.fsync(unpacked.fileno())
                target.parent.mkdir(parents=True, exist_ok=True)
                temporary.replace(target)
        if missing:
            raise tarfile.ReadError(f"it holds no {', '.join(missing)}")
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InputError(f"{path} is damaged ({error}): fetch it again") from error
    finally:
        temporary.unlink(missing_ok=True)


def _download(archive: Archive, url: str, part: Path) -> None:
    """Bring `part` to the archive's size, in as many attempts as make progress and a few more."""
    furthest, waits = _size(part), iter(BACKOFF)
    options = {"initial": furthest, "unit": "B", "unit_scale": True, "disable": None}
    with tqdm(desc=archive.filename, total=archive.size, **options) as bar:
        while _size(part) < archive.size:
            try:
                for start, chunk in _chunks(archive, url, _size(part)):
                    with add_filename(part), part.open("ab" if start else "wb") as file:
                        file.write(chunk)
                    bar.update(start + len(chunk) - bar.n)
            except _Unavailable as error:
                (reason, passing), size = error.args, _size(part)
                if size > furthest:
                    furthest, waits = size, iter(BACKOFF)
                wait = next(waits, None) if passing else None
                if wait is None:
                    kept = f"{size:,} of {archive.size:,} bytes are kept"
                    raise ConnectionError(f"{url} cannot be fetched ({reason}), {kept}") from error
                bar.set_postfix_str(f"{reason}, trying again")
                time.sleep(wait)


def _chunks(archive: Archive, url: str, start: int) -> Iterator[tuple[int, bytes]]:
    """Pieces of the archive with their places, from `start` on, or from 0 if the host must."""
    try:
        start, response = _request(archive, url, start)
        with response:
            # More than the archive has is another file, maybe without an end.
            while start <= archive.size and (chunk := response.read(CHUNK)):
                yield start, chunk
                start += len(chunk)
    except (OSError, HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise _Unavailable(reason, isinstance(reason, OSError | IncompleteRead)) from error
    if start < archive.size:
        raise _Unavailable("the connection ended early", True)


def _request(archive: Archive, url: str, start: int) -> tuple[int, HTTPResponse]:
    """From which byte of the archive on the host sends, `start` or 0, and its answer."""
    request = Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urlopen(request, timeout=TIMEOUT)
    except HTTPError as error:
        response = error  # it is an answer as well
    code, length = response.status, response.headers["Content-Length"]
    if code == 200 and length in (None, str(archive.size)):
        return 0, response
    rest = f"bytes {start}-{archive.size - 1}/{archive.size}"
    if code == 206 and response.headers["Content-Range"] == rest:
        return start, response
    response.close()
    if start and code in (206, 416):
        return _request(archive, url, 0)
    if code == 200:
        raise _Unavailable(f"it has {length} bytes, not {archive.size}", False)
    raise _Unavailable(f"HTTP {code} {response.reason}", code >= 500 or code in (408, 429))


def _flaw(archive: Archive, path: Path) -> str | None:
    """What is wrong with a file that should be the archive, if anything."""
    if _size(path) != archive.size:
        return f"has {_size(path):,} bytes, not {archive.size:,}"
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    md5 = digest.hexdigest()
    return None if md5 == archive.md5 else f"has the MD5 checksum {md5}, not {archive.md5}"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
