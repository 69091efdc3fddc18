"""Stage 02: from images, or from vectors made elsewhere, to embeddings."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from drift.pipeline.results import load_array
from drift.pipeline.tasks import Task
from drift.vectors import row_blocks, to_float32

if TYPE_CHECKING:
    from drift.images.embedding import Extractor

Rows = tuple[int, int]


@dataclass(frozen=True)
class EmbedImages(Task):
    """Embed a block of images by a network without its classifier; float32 (rows, d).

    Fields are the arguments of stage 02.
    """

    images: Path
    model: str
    weights: Path | str | None
    seed: int
    batch_size: int | None
    device: str
    precision: str
    compiled: bool
    resize: int

    @cached_property
    def extractor(self) -> "Extractor":
        """The network, made fast."""
        from drift.images import backbones, embedding  # they import torch

        weights = backbones.find_weights(self.model, self.weights, self.seed)
        return embedding.Extractor(
            backbones.load(self.model, weights),
            self.batch_size,
            embedding.choose_device(self.device),
            self.precision,
            self.compiled,
            self.resize,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and dimensions of the embeddings."""
        return len(load_array(self.images)), self.extractor.backbone.dim

    def blocks(self) -> list[Rows]:
        """Several batches each, which are stored at once: each block waits for the disk."""
        return row_blocks(self.shape[0], 1, budget=8 * self.extractor.batch_size)

    def __call__(self, rows: Rows) -> np.ndarray:
        return self.extractor(load_array(self.images)[slice(*rows)])


@dataclass(frozen=True)
class ImportEmbeddings(Task):
    """Take a block of embeddings from a file; float32 (rows, d)."""

    file: Path

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and dimensions of the embeddings."""
        return load_array(self.file).shape

    def blocks(self) -> list[Rows]:
        n, dim = self.shape
        return row_blocks(n, dim * load_array(self.file).itemsize)

    def __call__(self, rows: Rows) -> np.ndarray:
        return to_float32(load_array(self.file), *rows)
