"""Where images come from: STL-10, photographs that ship with scikit-image, a folder of pictures."""

import hashlib
import os
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import skimage.data
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from drift import InputError, download

STL10_IMAGES = {"unlabeled": 100_000, "train": 5_000, "test": 8_000}
STL10_BYTES = 3 * 96 * 96
PHOTOGRAPHS = (
    "astronaut",
    "brick",
    "camera",
    "cell",
    "chelsea",
    "coffee",
    "coins",
    "grass",
    "gravel",
    "hubble_deep_field",
    "immunohistochemistry",
    "moon",
    "retina",
    "rocket",
    "stereo_motorcycle",
)
CROP_SIZE = 96
SMALLEST_SIDE = 64


@dataclass(frozen=True)
class ImageSet:
    """Images that are described but not read yet.

    Attributes
    ----------
    sources : list of str
        Where each image is from.
    labels : ndarray of int16, shape (N,)
        Class of each image, -1 where it has none.
    size : int
        Height and width of every image, in pixels.
    read : callable
        From a first row and the row after the last to the images, uint8 (rows, size, size, 3), RGB.
    skipped : dict of str to str
        Why each picture that was looked at and cannot be read is not among them, by its source.
    ignored : int
        Files that were passed over because they are no pictures.
    """

    sources: list[str]
    labels: np.ndarray
    size: int
    read: Callable[[int, int], np.ndarray]
    skipped: dict[str, str] = field(default_factory=dict)
    ignored: int = 0


@dataclass(frozen=True)
class Crop:
    """A square of a photograph: upper left corner and side in pixels, and whether mirrored."""

    photo: str
    x: int
    y: int
    side: int
    flip: bool

    @property
    def source(self) -> str:
        """For instance ``photos/coffee/x31_y5_s120_flip``."""
        return f"photos/{self.photo}/x{self.x}_y{self.y}_s{self.side}{'_flip' if self.flip else ''}"

    def cut(self, photograph: Image.Image) -> np.ndarray:
        """Cut the square out of its photograph; uint8 (96, 96, 3)."""
        box = (self.x, self.y, self.x + self.side, self.y + self.side)
        image = photograph.crop(box).resize((CROP_SIZE, CROP_SIZE), Image.Resampling.LANCZOS)
        return np.asarray(ImageOps.mirror(image) if self.flip else image)


def photographs() -> dict[str, Image.Image]:
    """The photographs that come inside scikit-image's package, in RGB, by name."""
    loaded = {}
    for name in PHOTOGRAPHS:
        pixels = getattr(skimage.data, name)()
        # The motorcycle comes as a pair of views and their disparity; one view is enough.
        pixels = pixels[0] if isinstance(pixels, tuple) else pixels
        loaded[name] = Image.fromarray(pixels).convert("RGB")
    return loaded


def draw_crops(sizes: dict[str, tuple[int, int]], n: int, seed: int) -> list[Crop]:
    """Draw random squares: any photograph, any place, any scale, mirrored half of the time.

    Parameters
    ----------
    sizes : dict
        Width and height of each photograph in pixels, by name.
    n : int
        How many to draw. The first n are the same for every larger n.
    seed : int
        Seed of the draw.

    Returns
    -------
    list of Crop
        The side is log-uniform from 64 pixels to the photograph's short side, the place uniform.
    """
    names = list(sizes)
    # A row of five uniform numbers for each crop: one decides about the photograph, one about the
    # side, ...
    draws = np.random.default_rng(seed).random((n, 5))
    crops = []
    for photo, scale, left, top, mirror in draws:
        name = names[int(photo * len(names))]
        width, height = sizes[name]
        side = round(SMALLEST_SIDE * (min(width, height) / SMALLEST_SIDE) ** scale)
        x, y = int(left * (width - side + 1)), int(top * (height - side + 1))
        crops.append(Crop(name, x, y, side, bool(mirror < 0.5)))
    return crops


def photo_crops(n: int, seed: int) -> ImageSet:
    """`n` random crops of 96 x 96 pixels out of the photographs; see `draw_crops`."""
    originals = photographs()
    crops = draw_crops({name: photo.size for name, photo in originals.items()}, n, seed)

    def read(start: int, stop: int) -> np.ndarray:
        return np.stack([crop.cut(originals[crop.photo]) for crop in crops[start:stop]])

    return ImageSet([crop.source for crop in crops], np.full(n, -1, np.int16), CROP_SIZE, read)


def _stl10_file(split: str, kind: str) -> str:
    """Name of a file of STL-10: ``X`` for the images of a split, ``y`` for their classes."""
    return f"stl10_binary/{split}_{kind}.bin"


# As torchvision has them, whose class would load a whole split into memory.
STL10_ARCHIVE = download.Archive(
    url="http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
    filename="stl10_binary.tar.gz",
    size=2_640_397_119,
    md5="91f7769df0f17e558f3565bffb0c7dfb",
    members={_stl10_file(split, "X"): n * STL10_BYTES for split, n in STL10_IMAGES.items()}
    | {_stl10_file(split, "y"): STL10_IMAGES[split] for split in ("train", "test")},
)


def stl10_count(archive: download.Archive, split: str) -> int:
    """How many images a split has, by the size of its file in the archive."""
    return archive.members[_stl10_file(split, "X")] // STL10_BYTES


def fetch_stl10(
    archive: download.Archive,
    data_dir: Path,
    split: str,
    url: str | None = None,
    archive_file: Path | None = None,
) -> None:
    """See to it that the files of a split lie in ``data_dir/stl10_binary``, as for torchvision.

    Files that are there in their full size are taken as they are, and the archive is not looked at
    then: they were renamed when whole, out of an archive that was checked.

    Parameters
    ----------
    archive : Archive
        What to fetch; `STL10_ARCHIVE`.
    data_dir : Path
        Where the archive and the files are kept, and looked for first.
    split : str
        ``unlabeled``, ``train`` or ``test``.
    url : str, optional
        A mirror of the archive.
    archive_file : Path, optional
        The archive, where it is on disk already. It is only read.

    Raises
    ------
    ConnectionError
        When the archive is needed and cannot be fetched.
    InputError
        When a file that is there is not what it should be, or the disk has too little room.
    """
    missing = {}
    for name in (_stl10_file(split, kind) for kind in "Xy"):
        path, size = data_dir / name, archive.members.get(name)
        if size is None:
            continue  # the unlabeled split has no classes
        if not path.exists():
            missing[name] = size
        elif path.stat().st_size != size:
            raise InputError(
                f"{path} has {path.stat().st_size:,} bytes and not the {size:,} that it should: "
                "remove it, and it is unpacked again"
            )
    if not missing:
        return
    if archive_file is None:
        try:
            room = sum(missing.values())
            archive_file = download.fetch(archive, data_dir, url, room_beyond=room)
        except ConnectionError as error:
            raise ConnectionError(
                f"{error}: try again later, name a mirror with --url, or a copy on disk with "
                "--archive FILE, or take --dataset photos, which needs no network"
            ) from error
    else:
        download.check(archive, archive_file)
    download.unpack(archive_file, missing, data_dir)


def stl10_sample(data_dir: Path, split: str, n: int, seed: int) -> ImageSet:
    """A random sample of a split of STL-10, in the order of the split.

    Parameters
    ----------
    data_dir : Path
        The folder in which ``stl10_binary`` lies.
    split : str
        ``unlabeled``, ``train`` or ``test``.
    n : int
        How many images, drawn without replacement.
    seed : int
        Seed of the draw.

    Returns
    -------
    ImageSet
        Images of 96 x 96 pixels, labels 0 to 9, or -1 for the unlabeled split. The file is
        memory-mapped, never loaded.

    Raises
    ------
    InputError
        When the split has fewer than `n` images, or its files are not in STL-10's format.

    References
    ----------
    Coates, Lee and Ng (2011), An analysis of single-layer networks in
    unsupervised feature learning.
    """
    path = data_dir / _stl10_file(split, "X")
    count, rest = divmod(path.stat().st_size, STL10_BYTES)
    if rest or not count:
        raise InputError(
            f"{path} has {path.stat().st_size:,} bytes, which is no multiple of the "
            f"{STL10_BYTES:,} of an image: remove it, and it is unpacked again"
        )
    if n > count:
        raise InputError(
            f"--n-images {n} is more than the {count} images of STL-10's split {split}"
        )
    rows = np.sort(np.random.default_rng(seed).choice(count, size=n, replace=False))
    labels = np.full(count, -1, np.int16)
    if split != "unlabeled":
        labels = _stl10_labels(data_dir / _stl10_file(split, "y"), count)

    def read(start: int, stop: int) -> np.ndarray:
        # Mapped anew for each block: the pages of a mapping count as memory as long as it lives.
        pixels = np.memmap(path, np.uint8, "r", shape=(count, 3, 96, 96))
        # On disk a channel after the other, each column by column.
        return pixels[rows[start:stop]].transpose(0, 3, 2, 1)

    return ImageSet([f"stl10/{split}/{row}" for row in rows], labels[rows], CROP_SIZE, read)


def _stl10_labels(path: Path, count: int) -> np.ndarray:
    """Classes 0 to 9 of a split, int16 (count,)."""
    labels = np.fromfile(path, np.uint8).astype(np.int16) - 1  # on disk they begin with 1
    if len(labels) != count or labels.min() < 0 or labels.max() > 9:
        raise InputError(
            f"{path} does not hold {count:,} classes from 1 to 10: remove it, and it is unpacked "
            "again"
        )
    return labels


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
