"""Random crops of the photographs that ship with scikit-image: a demo without downloads."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from drift.images import ImageSet

PHOTOGRAPHS = (
    *("astronaut", "brick", "camera", "cell", "chelsea", "coffee", "coins", "grass", "gravel"),
    *("hubble_deep_field", "immunohistochemistry", "moon", "retina", "rocket"),
    "stereo_motorcycle",
)
# Sides in pixels: of the images, as in STL-10, and of the smallest square that is cut out for one.
IMAGE_SIDE = 96
SMALLEST_SIDE = 64


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
        image = photograph.crop(box).resize((IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.LANCZOS)
        return np.asarray(ImageOps.mirror(image) if self.flip else image)


def photographs() -> dict[str, Image.Image]:
    """The photographs that come inside scikit-image's package, in RGB, by name."""
    import skimage.data

    loaded = {}
    for name in PHOTOGRAPHS:
        pixels = getattr(skimage.data, name)()
        # The motorcycle comes as a pair of views and their disparity; one view is enough.
        pixels = pixels[0] if isinstance(pixels, tuple) else pixels
        loaded[name] = Image.fromarray(pixels).convert("RGB")
    return loaded


def draw_crops(sizes: dict[str, tuple[int, int]], n: int, seed: int) -> list[Crop]:
    """Draw random squares: any photograph, any place, any scale, mirrored half of the time.

    The side is log-uniform from 64 pixels to the photograph's short side, the place uniform. The
    first `n` are the same for every larger `n`. `sizes` are widths and heights, by name.
    """
    names, crops = list(sizes), []
    for photo, scale, left, top, mirror in np.random.default_rng(seed).random((n, 5)):
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

    def read(rows: tuple[int, int]) -> np.ndarray:
        return np.stack([crop.cut(originals[crop.photo]) for crop in crops[slice(*rows)]])

    sources, no_labels = [crop.source for crop in crops], np.full(n, -1, np.int16)
    groups = np.array([PHOTOGRAPHS.index(crop.photo) for crop in crops], np.int32)
    return ImageSet(sources, no_labels, IMAGE_SIDE, read, groups)
