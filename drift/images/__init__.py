"""Where images come from, and how they become embeddings."""

from collections.abc import Callable
from dataclasses import dataclass, field

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


@dataclass(frozen=True)
class ImageSet:
    """Images that are described but not read yet."""

    # Where each is from; its class, int16 (N,), -1 for none; height and width of all, in pixels.
    sources: list[str]
    labels: np.ndarray
    size: int
    # From a block, a first row and the one after the last, to uint8 (rows, size, size, 3), RGB.
    read: Callable[[tuple[int, int]], np.ndarray]
    # Images of one group are alike by construction, int32 (N,); -1 for a group of its own, as all
    # are without it.
    groups: np.ndarray | None = None
    # Why pictures that cannot be read are not among them, by their source; files of other kinds.
    skipped: dict[str, str] = field(default_factory=dict)
    ignored: int = 0
