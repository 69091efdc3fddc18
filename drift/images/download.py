"""Fetch an archive, resume after interruptions, check it, unpack single files of it."""

import gzip
import hashlib
import os
import shutil
import tarfile
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm import tqdm

from drift import InputError, add_filename

CHUNK = 1 << 20
TIMEOUT = 30  # seconds without a byte, which are a dropped connection
# Seconds to wait before each new attempt; one that gets further than any before starts over here.
BACKOFF = (1.0, 2.0, 4.0)
# After one of these another attempt is in vain, as after no address or no certificate.
LASTING = {*range(400, 500)} - {408, 429}


@dataclass(frozen=True)
class Archive:
    """A gzipped tar archive: size in bytes, MD5 in hexadecimal, sizes of its files by name."""

    url: str
    filename: str
    size: int
    md5: str
    members: Mapping[str, int]


def fetch(archive: Archive, folder: Path, url: str | None = None, room_beyond: int = 0) -> Path:
    """Download an archive into a folder, maybe from a mirror, unless it is there already.

    What has arrived is kept in ``FILENAME.part``, after which a download resumes, until its size
    and checksum are verified. A ConnectionError when it cannot be fetched, or what came is
    something else; an InputError when a file of that name is, or the disk has not `room_beyond`
    bytes free besides it.
    """
    url = url or archive.url
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
    _download(archive, url, part)
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
    furthest, waits = _size(part), iter(BACKOFF)
    options = {"unit": "B", "unit_scale": True, "disable": None}
    with tqdm(desc=archive.filename, total=archive.size, initial=furthest, **options) as bar:
        while (start := _size(part)) < archive.size:
            reason, headers = "the connection was dropped", {"User-Agent": "neighborhood-drift"}
            if start:
                headers["Range"] = f"bytes={start}-"
            try:
                with urlopen(Request(url, headers=headers), timeout=TIMEOUT) as response:
                    mode, size = "ab", response.headers.get("Content-Range", "").rpartition("/")[2]
                    if response.status != 206:  # all of it, from the beginning
                        mode, size = "wb", response.headers.get("Content-Length")
                    if size and int(size) != archive.size:
                        raise ValueError(f"it has {size} bytes, not {archive.size}")
                    # More than the archive has is another file, maybe endless.
                    while bar.n <= archive.size and (chunk := response.read1(CHUNK)):
                        with add_filename(part), part.open(mode) as file:
                            file.write(chunk)
                        mode = "ab"
                        bar.update(_size(part) - bar.n)
            except (OSError, HTTPException, ValueError) as error:
                if getattr(error, "filename", None) == str(part):
                    raise  # of the disk
                reason = error if isinstance(error, HTTPError) else getattr(error, "reason", error)
            if (size := _size(part)) > furthest:
                furthest, waits = size, iter(BACKOFF)
            is_lasting = isinstance(reason, ValueError) or getattr(reason, "code", 0) in LASTING
            if size < archive.size:
                if is_lasting or (wait := next(waits, None)) is None:
                    why = f"({str(reason).strip()}), {size:,} of {archive.size:,} bytes are kept"
                    raise ConnectionError(f"{url} cannot be fetched {why}")
                bar.set_postfix_str(f"{reason}, trying again")
                time.sleep(wait)


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
