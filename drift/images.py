"""Where images come from: STL-10, and crops of the photographs that ship with scikit-image."""

import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image, ImageOps
from torchvision.datasets import STL10

from drift import InputError

STL10_SPLITS = ("unlabeled", "train", "test")
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
    """

    sources: list[str]
    labels: np.ndarray
    size: int
    read: Callable[[int, int], np.ndarray]


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
        image = photograph.resize((CROP_SIZE, CROP_SIZE), Image.Resampling.LANCZOS, box=box)
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


def stl10_sample(
    data_dir: Path, split: str, n: int, seed: int, dataset: type[STL10] = STL10
) -> ImageSet:
    """A random sample of a split of STL-10, in the order of the split. The data is downloaded once.

    Parameters
    ----------
    data_dir : Path
        Where the archive is kept, and looked for first.
    split : str
        ``unlabeled``, ``train`` or ``test``.
    n : int
        How many images, drawn without replacement.
    seed : int
        Seed of the draw.
    dataset : type
        The dataset's class; it knows the address and the checksums.

    Raises
    ------
    ConnectionError
        When the data is not there and cannot be fetched.
    InputError
        When the split has fewer than `n` images.

    References
    ----------
    Coates, Lee and Ng (2011), An analysis of single-layer networks in
    unsupervised feature learning.
    """
    try:
        data = dataset(data_dir, split=split, download=True)
    except (OSError, RuntimeError, EOFError, tarfile.TarError) as error:
        raise ConnectionError(
            f"STL-10 could not be fetched from {dataset.url} ({error}): download it elsewhere and "
            f"put {dataset.filename} into {data_dir}, or take --dataset photos, which needs none"
        ) from error
    if n > len(data):
        raise InputError(
            f"--n-images {n} is more than the {len(data)} images of STL-10's split {split}"
        )
    rows = np.sort(np.random.default_rng(seed).choice(len(data), size=n, replace=False))

    def read(start: int, stop: int) -> np.ndarray:
        return data.data[rows[start:stop]].transpose(
            0, 2, 3, 1
        )  # the dataset keeps the channels first

    labels = np.asarray(data.labels)[rows].astype(np.int16)
    return ImageSet([f"stl10/{split}/{row}" for row in rows], labels, CROP_SIZE, read)
