"""Where images come from, and how they become embeddings.

What stands in this file is light: it imports none of the libraries that read images or embed them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# Side in pixels of what a network is given: the center of an image whose short side is RESIZE.
CROP = 224
RESIZE = 256
PRECISIONS = ("fp32", "bf16")
DEVICES = ("auto", "cpu", "cuda", "mps")
# Images at a time. On a CPU the activations of more are allocated, and page-faulted, anew for
# each batch, and leave its caches; a GPU wants to be filled.
BATCH_SIZE = {"cpu": 8, "cuda": 256, "mps": 8}
LITE0 = "efficientnet_lite0"
RANDOM = "random"
RANDOM_IS_GOOD_FOR = (
    "with random weights the embeddings are good for trying and timing the pipeline, and say "
    "next to nothing about the images"
)


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
    groups : ndarray of int32, shape (N,), optional
        Images of one group are alike by construction, as crops of one photograph are; -1 for a
        group of its own. None: every image is one.
    skipped : dict of str to str
        Why each picture that was looked at and cannot be read is not among them, by its source.
    ignored : int
        Files that were passed over because they are no pictures.
    """

    sources: list[str]
    labels: np.ndarray
    size: int
    read: Callable[[int, int], np.ndarray]
    groups: np.ndarray | None = None
    skipped: dict[str, str] = field(default_factory=dict)
    ignored: int = 0

    def __call__(self, rows: tuple[int, int]) -> np.ndarray:
        """The images of a block of rows, given as the first and the one after the last."""
        return self.read(*rows)
