"""A folder of the user's own pictures, brought to one size."""

import contextlib
import hashlib
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from tqdm.contrib.concurrent import thread_map

from drift import InputError, regular_file
from drift.images import ImageSet

# What Pillow decodes by itself: for EPS, say, it starts another program on what the file holds.
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
LARGE = 25_000_000  # pixels: of larger pictures one at a time is decoded, which takes 20 bytes each
_one_large = threading.Lock()


@dataclass(frozen=True)
class PictureFolder:
    """What a folder of pictures holds, before any of them is decoded.

    `pictures` are sorted, relative to `root`, and may be broken. `ignored` counts hidden files and
    those of other suffixes. `content` is the SHA-256 of the names and bytes of the pictures.
    """

    root: Path
    pictures: list[Path]
    ignored: int
    content: str


def scan_folder(root: Path, threads: int | None) -> PictureFolder:
    """Look for pictures in a folder and its subfolders: InputError when there is none.

    A picture is what has the suffix of one of `FORMATS`. Hidden folders are not entered; links to
    folders are, once.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder: name the one with your pictures by --images")
    # Pillow opens a multi-picture file, .mpo, as a JPEG.
    known, formats = Image.registered_extensions().items(), {*FORMATS, "MPO"}
    suffixes = {suffix for suffix, name in known if name in formats}
    files = sorted(_files(root, set()))
    paths = [path for path in files if path.suffix.lower() in suffixes and path.name[0] != "."]
    # Of what is no file, opening a pipe would wait forever.
    paths = [path for path in paths if path.is_file()]
    ignored = len(files) - len(paths)
    if not paths:
        others = f"{', '.join(FORMATS)}; and {ignored} other files"
        raise InputError(f"{root} holds no picture of a format that is read, {others}")
    pictures = [path.relative_to(root) for path in paths]
    content = hashlib.sha256()
    digests = _in_threads(_digest, paths, threads, "hashing pictures")
    for picture, digest in zip(pictures, digests, strict=True):
        content.update(os.fsencode(picture) + b"\0" + digest)
    return PictureFolder(root, pictures, ignored, content.hexdigest())


def folder_sample(
    folder: PictureFolder, n: int | None, seed: int, size: int, strict: bool, threads: int | None
) -> ImageSet:
    """A random sample of the pictures of a folder, or all of them, in the order of their names.

    Each is decoded once to see whether it is whole, and once more, by `square`, when it is read;
    one that is broken is replaced by the next of the draw. The label is the place of the folder
    below the root among those that hold pictures, by name; -1 for none. InputError when fewer than
    `n` pictures are whole, or none; with `strict`, when one is broken.
    """
    paths = [folder.root / picture for picture in folder.pictures]
    # Names on a disk may be no text, and then cannot be stored as they are.
    sources = [os.fsencode(path).decode("utf-8", "backslashreplace") for path in paths]
    wanted, order = n or len(paths), np.arange(len(paths))
    if wanted < len(paths):
        order = np.random.default_rng(seed).permutation(order)

    def flaw(row: int) -> str:
        try:
            read_square(paths[row], size)
        # Fuzzed and cut-off files make Pillow's readers raise nearly anything.
        except Exception as error:
            return " ".join(str(error).split()) or type(error).__name__
        return ""

    chosen, skipped = [], {}
    while len(chosen) < wanted and len(order):
        batch, order = np.split(order, [wanted - len(chosen)])
        flaws = _in_threads(flaw, batch, threads, "checking pictures")
        for row, reason in zip(batch, flaws, strict=True):
            if not reason:
                chosen.append(row)
            elif strict:
                raise InputError(
                    f"{sources[row]} is broken ({reason}): repair or remove it, or go without "
                    "--strict"
                )
            else:
                skipped[sources[row]] = reason
    if len(chosen) < (n or 1):
        raise InputError(
            f"{folder.root} holds {len(chosen)} pictures that can be read and {len(skipped)} that "
            f"cannot, too few for --n-images {n or 'all'}"
        )
    chosen.sort()

    def read(block: tuple[int, int]) -> np.ndarray:
        rows = chosen[slice(*block)]
        return np.stack(_in_threads(lambda row: read_square(paths[row], size), rows, threads))

    labels = _folder_labels(folder.pictures)[chosen]
    sources = [sources[row] for row in chosen]
    return ImageSet(sources, labels, size, read, skipped=skipped, ignored=folder.ignored)


def read_square(path: Path, size: int) -> np.ndarray:
    """Decode a picture, of an animation the first; raises whatever Pillow does at a broken file.

    A ValueError for more pixels than those from which on Pillow warns of a decompression bomb.
    """
    regular_file(path)
    Image.init()
    with Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN]) as image:
        if (pixels := image.width * image.height) > Image.MAX_IMAGE_PIXELS:
            raise ValueError(f"{pixels:,} pixels, which could be a decompression bomb")
        with _one_large if pixels > LARGE else contextlib.nullcontext():
            return square(image, size)


def square(image: Image.Image, size: int) -> np.ndarray:
    """The center of a picture, its short side resized by Lanczos; RGB, uint8 (size, size, 3).

    It may have any mode. It is turned as its EXIF orientation says; alpha is composited on white;
    16-bit gray is scaled to 8 bits. ValueError for pixels that are floating-point or beyond 16
    bits: nothing says which value is white.
    """
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith(("F", "I")):
        # Pillow's own conversion would make everything beyond 255 white.
        pixels = np.asarray(image)
        if image.mode == "F" or pixels.min() < 0 or pixels.max() > 65535:
            raise ValueError(f"pixels of mode {image.mode} beyond 16 bits have no known range")
        image = Image.fromarray((pixels.astype(np.uint32) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image if image.mode == "RGB" else image.convert("RGB")
    # Cropped while it is resized: the long side of a very long picture would fill the memory.
    return np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS))


def _files(folder: Path, entered: set[Path]) -> Iterator[Path]:
    if (place := folder.resolve()) in entered:
        return  # a link back up, or a second one to the same place
    entered.add(place)
    for path in sorted(folder.iterdir()):  # of two links to one place the first is entered
        if not path.is_dir():
            yield path
        elif not path.name.startswith("."):
            yield from _files(path, entered)


def _digest(path: Path) -> bytes:
    try:
        regular_file(path)
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except (OSError, InputError):
        return b"unreadable"  # `folder_sample` says why


def _folder_labels(pictures: list[Path]) -> np.ndarray:
    classes = [path.parts[0] if len(path.parts) > 1 else "" for path in pictures]
    names, labels = np.unique(classes, return_inverse=True)
    if len(names) > np.iinfo(np.int16).max:
        raise InputError(f"{len(names)} subfolders are more than the 32,767 classes there can be")
    return (labels - (names[0] == "")).astype(np.int16)


def _in_threads(
    function: Callable[[Any], Any], items: Iterable[Any], threads: int | None, label: str = ""
) -> list[Any]:
    bar = {"desc": label, "disable": None if label else True}
    # What Pillow finds odd and reads nonetheless is read without a word.
    with warnings.catch_warnings(action="ignore"):
        return thread_map(function, items, max_workers=threads or os.cpu_count(), **bar)
