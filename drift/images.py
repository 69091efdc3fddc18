"""Where images come from: STL-10, and crops of the photographs that ship with scikit-image."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image, ImageOps

from drift import InputError, download
from drift.files import hold

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
    # Two downloads would write to the same file.
    with hold(data_dir / "stl10_binary"):
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
