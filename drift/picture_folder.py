"""A folder of the user's own pictures, brought to one size."""

import hashlib
import os
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from drift import InputError
from drift.images import ImageSet


@dataclass(frozen=True)
class PictureFolder:
    """What lies in a folder of pictures, before any of them is decoded.

    Attributes
    ----------
    root : Path
        The folder.
    pictures : list of Path
        Pictures in it and in its subfolders, sorted, relative to it. Some may turn out broken.
    ignored : int
        Hidden files and files that are no pictures.
    content : str
        SHA-256 of the names and the bytes of the pictures. The bytes and not the dates: a copied
        folder is as good as the original, and a picture that was exchanged under its old date and
        size is another one. Reading them is cheap beside decoding them.
    """

    root: Path
    pictures: list[Path]
    ignored: int
    content: str


def scan_folder(root: Path, threads: int | None = None) -> PictureFolder:
    """Look for pictures in a folder and its subfolders.

    A picture is whatever Pillow knows the format of, and whatever has the suffix of such a format:
    an empty ``cat.jpg`` is a broken picture, not a file of another kind. Hidden folders are not
    entered, links to folders are, once.

    Parameters
    ----------
    root : Path
        The folder.
    threads : int, optional
        Threads to read files with.

    Raises
    ------
    InputError
        When it is no folder, or nothing in it is a picture.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder: name the one with your pictures by --images")
    files, hidden = _files_below(root)
    suffixes = {end for end, name in Image.registered_extensions().items() if name in Image.OPEN}

    def is_picture(path: Path) -> bool:
        return path.suffix.lower() in suffixes or _is_known_to_pillow(path)

    marks = _in_threads(is_picture, files, threads, "looking for pictures")
    pictures = [path for path, mark in zip(files, marks, strict=True) if mark]
    ignored = hidden + len(files) - len(pictures)
    if not pictures:
        raise InputError(f"{root} holds no picture that Pillow knows, and {ignored} other files")
    digests = _in_threads(_digest, pictures, threads, "hashing pictures")
    pictures = [path.relative_to(root) for path in pictures]
    content = hashlib.sha256()
    for path, digest in zip(pictures, digests, strict=True):
        content.update(os.fsencode(path) + b"\0" + digest)
    return PictureFolder(root, pictures, ignored, content.hexdigest())


def folder_sample(
    folder: PictureFolder,
    n: int | None,
    seed: int,
    size: int,
    strict: bool = False,
    threads: int | None = None,
) -> ImageSet:
    """A random sample of the pictures of a folder, or all of them, in the order of their names.

    Every picture that is chosen is decoded once to see whether it is whole, and once more when it
    is read; one that is broken is replaced by the next of the draw.

    Parameters
    ----------
    folder : PictureFolder
        What there is, from `scan_folder`.
    n : int, optional
        How many pictures, drawn without replacement; all that are whole without it.
    seed : int
        Seed of the draw.
    size : int
        Height and width to bring them to, see `square`.
    strict : bool
        Whether a broken picture is an error.
    threads : int, optional
        Threads to decode with.

    Returns
    -------
    ImageSet
        The source is the path of the file. The label is the place of the first-level subfolder
        among those that hold pictures, sorted by name; -1 for pictures that lie in none.

    Raises
    ------
    InputError
        When fewer than `n` pictures are whole, or none; with `strict`, when one is broken.
    """
    pictures = folder.pictures
    order = np.arange(len(pictures))
    if n is not None and n < len(pictures):
        order = np.random.default_rng(seed).permutation(len(pictures))
    wanted = len(pictures) if n is None else n

    def flaw(row: int) -> str | None:
        try:
            read_square(folder.root / pictures[row], size)
        # Fuzzed and cut-off files make Pillow's readers raise nearly anything.
        except Exception as error:
            return " ".join(f"{error or type(error).__name__}".split())
        return None

    chosen, skipped = [], {}
    while len(chosen) < wanted and len(order):
        lacking = wanted - len(chosen)
        batch, order = order[:lacking], order[lacking:]
        flaws = _in_threads(flaw, batch, threads, "checking pictures")
        chosen += [row for row, why in zip(batch, flaws, strict=True) if why is None]
        skipped |= {
            _source(folder.root / pictures[row]): why
            for row, why in zip(batch, flaws, strict=True)
            if why is not None
        }
    if skipped and strict:
        name, why = next(iter(skipped.items()))
        raise InputError(
            f"{name} is broken ({why}), and {len(skipped) - 1} others are: repair or remove them, "
            "or leave --strict out to skip them"
        )
    if not chosen or (n is not None and len(chosen) < n):
        raise InputError(
            f"{folder.root} holds {len(chosen)} pictures that can be read and {len(skipped)} that "
            f"cannot{'' if n is None else f', --n-images {n} asks for more'}"
        )
    paths = [folder.root / pictures[row] for row in sorted(chosen)]

    def read_again(path: Path) -> np.ndarray:
        try:
            return read_square(path, size)
        except Exception as error:
            raise InputError(f"{path} was whole a moment ago and is not now ({error})") from error

    def read(start: int, stop: int) -> np.ndarray:
        return np.stack(_in_threads(read_again, paths[start:stop], threads))

    return ImageSet(
        [_source(path) for path in paths],
        _folder_labels(pictures)[sorted(chosen)],
        size,
        read,
        skipped,
        folder.ignored,
    )


def read_square(path: Path, size: int) -> np.ndarray:
    """Decode a picture (of an animation the first) and bring it to a square; see `square`.

    Raises
    ------
    Exception
        Whatever Pillow raises at a broken file, at one with more pixels than its guard against
        decompression bombs admits, and `ValueError` at pixels without a known range.
    """
    with Image.open(path) as image:
        return square(image, size)


def square(image: Image.Image, size: int) -> np.ndarray:
    """Bring a picture to a square: its center, the short side resized to `size`, by Lanczos.

    Parameters
    ----------
    image : Image
        In any mode. It is turned as its EXIF orientation says; alpha is composited on white; 16-bit
        gray is scaled to 8 bits.
    size : int
        Height and width of the square in pixels.

    Returns
    -------
    ndarray of uint8, shape (size, size, 3)
        RGB.

    Raises
    ------
    ValueError
        For pixels that are floating-point or beyond 16 bits: nothing says which value is white.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        image = _to_8_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    # Cropped while it is resized: the long side of a very long picture would fill the memory.
    return np.asarray(ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.LANCZOS))


def _to_8_bits(image: Image.Image) -> Image.Image:
    # Pillow's own conversion would make everything beyond 255 white.
    pixels = np.asarray(image)
    if image.mode == "F" or pixels.min() < 0 or pixels.max() > 65535:
        raise ValueError(f"pixels of mode {image.mode} that are not 16-bit have no known range")
    return Image.fromarray((pixels.astype(np.uint32) // 257).astype(np.uint8))


def _files_below(root: Path) -> tuple[list[Path], int]:
    """Files in a folder and its subfolders, sorted, and how many are hidden or no plain files."""

    def fail(error: OSError) -> NoReturn:
        raise error

    files, hidden, seen = [], 0, set()
    for name, subfolders, names in os.walk(root, followlinks=True, onerror=fail):
        folder = Path(name)
        if folder.resolve() in seen:
            subfolders.clear()  # a link back up, or a second one to the same place
            continue
        seen.add(folder.resolve())
        subfolders[:] = sorted(below for below in subfolders if not below.startswith("."))
        # Opening a pipe would wait forever.
        visible = [n for n in names if not n.startswith(".") and (folder / n).is_file()]
        files += [folder / name for name in visible]
        hidden += len(names) - len(visible)
    return sorted(files), hidden


def _is_known_to_pillow(path: Path) -> bool:
    try:
        with Image.open(path):
            return True
    except UnidentifiedImageError:
        return False
    except Exception:
        return True  # known, but broken; that is for `folder_sample` to say


def _digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return b"unreadable"  # again for `folder_sample` to say


def _folder_labels(pictures: list[Path]) -> np.ndarray:
    """Label of each picture by its first-level subfolder, int16."""
    classes = [path.parts[0] if len(path.parts) > 1 else None for path in pictures]
    names = sorted({name for name in classes if name is not None})
    if len(names) > np.iinfo(np.int16).max:
        raise InputError(f"{len(names)} subfolders are more than the 32,767 classes there can be")
    label = {name: row for row, name in enumerate(names)} | {None: -1}
    return np.array([label[name] for name in classes], np.int16)


def _source(path: Path) -> str:
    """A path as text that can be stored, also where its bytes are no text."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _in_threads(
    function: Callable[[Any], Any], items: Iterable[Any], threads: int | None, label: str = ""
) -> list[Any]:
    """Apply a function to each item; with a progress bar if that is given a label."""
    items = list(items)
    with warnings.catch_warnings(), ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        # What Pillow finds odd and reads nonetheless is read without a word.
        warnings.simplefilter("ignore")
        outcomes = pool.map(function, items)
        return list(tqdm(outcomes, label, len(items), disable=None if label else True))
