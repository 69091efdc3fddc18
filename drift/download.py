"""Fetch an archive over HTTP, going on where it stopped; check it; unpack single files of it."""

import gzip
import hashlib
import json
import os
import shutil
import socket
import ssl
import tarfile
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm import tqdm

from drift import InputError
from drift.files import naming

CHUNK = 1 << 20
# Seconds without a byte after which a connection counts as dropped.
TIMEOUT = 30.0
# Seconds to wait before each new attempt; one that gets further than any before starts over here.
BACKOFF = (1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Archive:
    """A gzipped tar archive that is known beforehand.

    Attributes
    ----------
    url : str
        Where it is fetched from.
    filename : str
        What it is called on disk.
    size : int
        Its size in bytes.
    md5 : str
        Its MD5 checksum, in hexadecimal.
    members : mapping of str to int
        Size in bytes of each file in it that can be asked for, by its name in the archive.
    """

    url: str
    filename: str
    size: int
    md5: str
    members: Mapping[str, int]


class _Unavailable(Exception):  # noqa: N818
    """What came instead of the file; `passing` where another attempt may do better."""

    def __init__(self, reason: str, passing: bool, status: int | None = None):
        super().__init__(reason)
        self.passing = passing
        self.status = status


def fetch(archive: Archive, folder: Path, url: str | None = None, room_beyond: int = 0) -> Path:
    """Download an archive into a folder, unless it is there.

    What has come lies in ``FILENAME.part`` until it is whole and checked. An interrupted download
    goes on from there, when the host can do that and still has the same file; else it starts anew.

    Parameters
    ----------
    archive : Archive
        What to fetch.
    folder : Path
        Where to keep it; created if need be.
    url : str, optional
        A mirror to fetch it from.
    room_beyond : int
        Bytes that the folder's disk must have free when the archive is there.

    Returns
    -------
    Path
        The archive, its size and checksum verified.

    Raises
    ------
    ConnectionError
        When it cannot be fetched, or what came is something else.
    InputError
        When the disk has too little room, or a file of that name is there and is something else.
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
    if _size(part) > archive.size:
        part.unlink()
    require_room(folder, archive.size - _size(part) + room_beyond)
    _download(archive, url, part)
    flaw = _flaw(archive, part)
    _note_of(part).unlink(missing_ok=True)
    if flaw:
        part.unlink()
        raise ConnectionError(f"what {url} sent is not {archive.filename}, it {flaw}")
    part.replace(target)
    return target


def check(archive: Archive, path: Path) -> None:
    """Check size and checksum of an archive on disk.

    Raises
    ------
    InputError
        When it is not there, not whole, or another file.
    """
    if not path.is_file():
        raise InputError(f"{path} is not there, or is no file")
    flaw = _flaw(archive, path)
    if flaw:
        raise InputError(
            f"{path} is not {archive.filename}, it {flaw}: remove it, or put a whole one there"
        )


def require_room(folder: Path, need: int) -> None:
    """Check that a folder's disk has `need` bytes free.

    Raises
    ------
    InputError
        When it has not; the message names the need and the lack.
    """
    free = shutil.disk_usage(folder).free
    if free < need:
        raise InputError(
            f"{folder} needs {need:,} bytes of free disk and has {free:,}, {need - free:,} too "
            "few: make room there, or take a folder on another disk"
        )


def unpack(path: Path, members: Mapping[str, int], folder: Path) -> None:
    """Unpack the named files of a gzipped tar archive, and nothing else that it may hold.

    Each is written under a temporary name and renamed when whole. The archive is read no further
    than the last of them.

    Parameters
    ----------
    path : Path
        The archive.
    members : mapping of str to int
        Size in bytes of each file to unpack, by its name in the archive.
    folder : Path
        Where they go, under the same names; created if need be.

    Raises
    ------
    InputError
        When the archive is damaged, lacks one of them, or holds a link, a device or another size
        under its name; or when the disk has too little room.
    """
    folder.mkdir(parents=True, exist_ok=True)
    need = sum(members.values())
    require_room(folder, need)
    missing = dict(members)
    try:
        with tarfile.open(path, "r:gz") as tar, _bar(need, f"unpacking {path.name}") as bar:
            for member in tar:
                if member.name in missing:
                    _unpack_member(tar, member, missing.pop(member.name), folder, bar)
                if not missing:
                    return
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise InputError(f"{path} is damaged ({error}): fetch it again") from error
    raise InputError(f"{path} is damaged, it holds no {', '.join(missing)}: fetch it again")


def _unpack_member(
    tar: tarfile.TarFile, member: tarfile.TarInfo, size: int, folder: Path, bar: tqdm
) -> None:
    if not member.isreg() or member.size != size:
        raise InputError(
            f"{member.name} in {tar.name} is not a plain file of {size:,} bytes: "
            "take the archive from somewhere else"
        )
    target = folder / member.name
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        with naming(temporary), temporary.open("wb") as file, tar.extractfile(member) as source:
            while chunk := source.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
            _to_disk(file)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _download(archive: Archive, url: str, part: Path) -> None:
    """Bring `part` to the archive's size, in as many attempts as make progress and a few more."""
    furthest, failures = _size(part), 0
    with _bar(archive.size, archive.filename, initial=furthest) as bar:
        while _size(part) < archive.size:
            try:
                _receive(archive, url, part, bar)
            except _Unavailable as error:
                if _size(part) > furthest:
                    furthest, failures = _size(part), 0
                if not error.passing or failures == len(BACKOFF):
                    kept = f"; {_size(part):,} bytes of it are kept" if _size(part) else ""
                    raise ConnectionError(f"{url} cannot be fetched ({error}){kept}") from error
                bar.set_postfix_str(f"{error}, trying again")
                time.sleep(BACKOFF[failures])
                failures += 1


def _receive(archive: Archive, url: str, part: Path, bar: tqdm) -> None:
    """Ask for what `part` lacks, and append what comes."""
    response, start = _ask(archive, url, part)
    with response, naming(part), part.open("ab" if start else "wb") as file:
        if not start:
            _note_version(part, url, response)
        bar.update(start - bar.n)
        size = start
        for chunk in _chunks(response):
            file.write(chunk)
            bar.update(len(chunk))
            size += len(chunk)
            if size > archive.size:
                break  # another file, maybe without an end
        _to_disk(file)
    if size < archive.size:
        raise _Unavailable("the connection ended early", passing=True)


def _ask(archive: Archive, url: str, part: Path) -> tuple[HTTPResponse, int]:
    """The host's answer, and from which byte of the archive on it sends."""
    start, response = _size(part), None
    if start:
        headers = {"Range": f"bytes={start}-"}
        if version := _noted_version(part, url):
            # Whoever has another version by now sends it whole.
            headers["If-Range"] = version
        try:
            response = _open(url, headers)
        except _Unavailable as error:
            if error.status != 416:
                raise
    if response and response.status == 206:
        rest = f"bytes {start}-{archive.size - 1}/{archive.size}"
        if response.headers["Content-Range"] == rest:
            return response, start
        response.close()
        response = None
    # No such range, or another, or none at all: take the whole.
    response = response or _open(url, {})
    length = response.headers["Content-Length"]
    if response.status != 200 or length not in (None, str(archive.size)):
        response.close()
        raise _Unavailable(
            f"it answers {response.status} with {length} bytes, not with the {archive.size} of "
            f"{archive.filename}",
            passing=False,
        )
    return response, 0


def _open(url: str, headers: dict[str, str]) -> HTTPResponse:
    try:
        return urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        passing = error.code >= 500 or error.code in (408, 429)
        raise _Unavailable(f"HTTP {error.code} {error.reason}", passing, error.code) from error
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        # Nobody listens, there is no such host, or it is not the one it claims to be: that stays.
        lasting = (ConnectionRefusedError, socket.gaierror, ssl.SSLCertVerificationError)
        passing = isinstance(reason, OSError) and not isinstance(reason, lasting)
        raise _Unavailable(str(reason), passing) from error


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    """The body, piece by piece. Errors of the network do not look like those of the disk here."""
    try:
        while chunk := response.read(CHUNK):
            yield chunk
    except (OSError, HTTPException) as error:
        raise _Unavailable(str(error) or type(error).__name__, passing=True) from error


def _note_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _note_version(part: Path, url: str, response: HTTPResponse) -> None:
    """Note of which version of the file `part` is the beginning, as far as the host tells."""
    etag = response.headers["ETag"]
    # A weak tag says that two files mean the same, not that their bytes are.
    strong = etag if etag and not etag.startswith("W/") else None
    version = strong or response.headers["Last-Modified"]
    _note_of(part).write_text(json.dumps({"url": url, "version": version}))


def _noted_version(part: Path, url: str) -> str | None:
    """The version that was noted; None where there is none, or another host's."""
    try:
        note = json.loads(_note_of(part).read_text())
        return note["version"] if note["url"] == url else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _flaw(archive: Archive, path: Path) -> str | None:
    """What is wrong with a file that should be the archive, if anything."""
    if _size(path) != archive.size:
        return f"has {_size(path):,} bytes, not {archive.size:,}"
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file, _bar(archive.size, f"checking {archive.filename}") as bar:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    if digest.hexdigest() != archive.md5:
        return f"has the MD5 checksum {digest.hexdigest()}, not {archive.md5}"
    return None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _bar(total: int, label: str, initial: int = 0) -> tqdm:
    return tqdm(total=total, initial=initial, desc=label, unit="B", unit_scale=True, disable=None)
