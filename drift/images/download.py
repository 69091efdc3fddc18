"""Fetch an archive by curl, resume after interruptions, check it, unpack single files of it."""

import contextlib
import gzip
import hashlib
import io
import os
import re
import shutil
import sys
import tarfile
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from subprocess import PIPE, Popen

from tqdm import tqdm

from drift import InputError, add_filename

CHUNK = 1 << 20
# Not --retry: it throws away what came before. 30 s without a byte are a dropped connection.
CURL = ("curl", "--silent", "--show-error", "--fail", "--location", "--globoff", "--no-buffer")
CURL += ("--proto", "=http,https", "--dump-header", "/dev/stderr", "--connect-timeout", "30")
CURL += ("--speed-limit", "1", "--speed-time", "30")
# Seconds to wait before each new attempt; one that gets further than any before starts over here.
BACKOFF = (1.0, 2.0, 4.0)
# Another attempt is in vain after HTTP 4xx but for two, no HTTP, no address, no certificate, ...
LASTING = r"error: 4(?!08|29)|curl: \((1|3|47|60)\)|it has"


@dataclass(frozen=True)
class Archive:
    """A gzipped tar archive: size in bytes, MD5 in hexadecimal, sizes of its files by name."""

    url: str
    filename: str
    size: int
    md5: str
    members: Mapping[str, int]


def fetch(archive: Archive, folder: Path, url: str | None = None, room_beyond: int = 0) -> Path:
    """Download an archive into a folder, maybe from a mirror, unless it is on disk already.

    What has arrived is kept in ``FILENAME.part`` until its size and checksum are verified, and an
    interrupted download resumes after it if the host can do that. The disk must have `room_beyond`
    bytes free besides the archive. Raises a ConnectionError when it cannot be fetched, or what
    came is something else, and an InputError when a file of that name is, or there is no room.
    """
    url = url or archive.url
    if not url.lower().startswith(("http://", "https://")):
        raise InputError(f"{url!r} is no http or https address")
    folder.mkdir(parents=True, exist_ok=True)
    target, part = folder / archive.filename, folder / f"{archive.filename}.part"
    if target.exists():
        check(archive, target)
        return target
    need, free = archive.size - _size(part) + room_beyond, shutil.disk_usage(folder).free
    if free < need:
        raise InputError(
            f"{folder} needs {need:,} bytes of free disk and has {free:,}, {need - free:,} too "
            "few: make room there, or take a folder on another disk"
        )
    (_download if shutil.which("curl") else _download_without_curl)(archive, url, part)
    if flaw := _flaw(archive, part):
        part.unlink(missing_ok=True)
        raise ConnectionError(
            f"what came from {url} is not {archive.filename}, it {flaw}, and is removed"
        )
    return part.replace(target)


def check(archive: Archive, path: Path) -> None:
    """Raise an InputError unless a file is this archive, by its size and checksum."""
    if not path.is_file():
        raise InputError(f"{path} is not there, or is no file")
    if flaw := _flaw(archive, path):
        raise InputError(f"{path} is not {archive.filename}, it {flaw}: remove it, or take another")


def unpack(path: Path, members: Mapping[str, int], folder: Path) -> None:
    """Unpack some members of a gzipped tar archive into a folder, and nothing else it may hold.

    Each is moved into place, under its name in the archive, when it has its size in bytes. The
    archive is read no further than the last. Raises an InputError when that is not in it.
    """
    temporary, missing = folder / ".unpacking", dict(members)
    size, options = path.stat().st_size, {"desc": f"unpacking {path.name}", "disable": None}
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with (
            path.open("rb") as file,
            tqdm.wrapattr(file, "read", size, **options) as stream,
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
    start = furthest = _size(part)
    waits, options = iter(BACKOFF), {"unit": "B", "unit_scale": True, "disable": None}
    with tqdm(desc=archive.filename, total=archive.size, initial=start, **options) as bar:
        while start < archive.size:
            first, command = start, (*CURL, "--continue-at", str(start), url)
            with Popen(command, stdout=PIPE, stderr=PIPE) as curl:
                # Written by this process: when it is killed nobody goes on.
                while start <= archive.size and (chunk := curl.stdout.read1(CHUNK)):
                    with add_filename(part), part.open("ab" if start else "wb") as file:
                        file.write(chunk)
                    start += len(chunk)
                    bar.update(start - bar.n)
                curl.stdout.close()  # more than the archive has is another file, maybe endless
                says = curl.stderr.read().decode(errors="replace")
            if start > archive.size or (curl.returncode == 0 and (start > first or not first)):
                return
            reasons = re.findall("curl: .*", says) or [f"curl ends with status {curl.returncode}"]
            if curl.returncode in (0, 33):  # no such range, HTTP 416, or no ranges at all
                start, lengths = 0, re.findall(r"(?i)content-length: *(\d+)", says)
                if curl.returncode == 0 or not lengths or int(lengths[-1]) == archive.size:
                    continue
                reasons = [f"it has {lengths[-1]} bytes, not {archive.size}"]
            if start > furthest:
                furthest, waits = start, iter(BACKOFF)
            wait = None if re.search(LASTING, reasons[-1]) else next(waits, None)
            if wait is None:
                kept = f"{_size(part):,} of {archive.size:,} bytes are kept"
                raise ConnectionError(f"{url} cannot be fetched ({reasons[-1]}), {kept}")
            bar.set_postfix_str(f"{reasons[-1]}, trying again")
            time.sleep(wait)


def _download_without_curl(archive: Archive, url: str, part: Path) -> None:
    print("there is no curl: without it an interrupted download starts from the beginning")
    part.unlink(missing_ok=True)
    bar = sys.stderr if sys.stderr.isatty() else io.StringIO()
    try:
        from torchvision.datasets.utils import download_url

        with contextlib.redirect_stderr(bar):
            download_url(url, part.parent, part.name)
    except (ImportError, OSError, HTTPException, ValueError, RuntimeError) as error:
        raise ConnectionError(f"{url} cannot be fetched without curl ({error})") from error


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
