"""Stage 02: from images, or from vectors made elsewhere, to embeddings."""

import sys
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from drift import InputError
from drift.formats import declared_distance, read_codes, read_matrix
from drift.images import CROP, RANDOM
from drift.pipeline.results import content_hash, load_array
from drift.pipeline.stage import Stage
from drift.stages import Task
from drift.vectors import (
    check_embeddings,
    rounding_to_float32,
    row_blocks,
    unit_vectors,
)

Rows = tuple[int, int]
EUCLIDEAN, COSINE = METRICS = "euclidean", "cosine"
INNER_PRODUCTS = {"ip", "dot", "mips", "inner_product", "inner-product", "innerproduct"}
# What ``02_rows.parquet`` says of a row beside its number.
ROW_COLUMNS = {"group": np.int32, "label": np.int16}


def choose_metric(asked: str | None, file: Path | None = None) -> str:
    """By what vectors are compared: as asked for, or as a file declares, or Euclidean.

    InputError when that is neither Euclidean distance nor cosine.
    """
    metric = asked or (file and declared_distance(file)) or EUCLIDEAN
    if metric in INNER_PRODUCTS:
        raise InputError(
            "by inner product a vector need not be its own nearest one, and a neighborhood has no "
            "radius: compare by --metric cosine; or append sqrt(R^2 - |x|^2) to each vector, R "
            "being the largest norm, and 0 to each query, and compare those by --metric euclidean"
        )
    if metric not in METRICS:
        raise InputError(f"vectors are compared by --metric {' or '.join(METRICS)}, not {metric}")
    return metric


@dataclass(frozen=True)
class EmbedImages(Task):
    """Embed a block of images by a network without its classifier; float32 (rows, d).

    Fields are the arguments of stage 02; a `Path` among them is a file that exists. The table of
    the images lies beside them.
    """

    images: Path
    model: str
    weights: Path | str | None
    seed: int
    batch_size: int | None
    device: str
    precision: str
    compile: bool
    resize: int
    metric: str = EUCLIDEAN

    @property
    def parameters(self) -> dict[str, Any]:
        """What decides the embeddings, for the manifest."""
        weights = self.weights
        if weights == RANDOM:
            weights = f"{RANDOM}, seed {self.seed}"
        elif isinstance(weights, Path):
            weights = f"{weights.name} sha256:{content_hash(weights)}"
        chosen = asdict(self) | {"weights": weights, "crop": CROP}
        return {name: chosen[name] for name in chosen if name not in ("images", "seed")}

    @cached_property
    def extractor(self):
        """The network, made fast."""
        from drift.images import backbones, embedding  # they import torch

        backbone = backbones.load(self.model, self.weights, self.seed)
        settings = (self.batch_size, self.device, self.precision, self.compile, self.resize)
        return embedding.Extractor(backbone, *settings)

    def prepare(self) -> dict[str, Any]:
        """Load the network; what the defaults stand for, for the manifest."""
        extractor = self.extractor
        if self.weights == RANDOM:
            print(
                "warning: with random weights the embeddings are good for trying and timing the "
                "pipeline, and say next to nothing about the images",
                file=sys.stderr,
            )
        weights, device = extractor.backbone.weights, extractor.device
        return {"weights": weights, "device": device, "batch_size": extractor.batch_size}

    def labels(self) -> dict[str, np.ndarray]:
        """`ROW_COLUMNS` of the images."""
        table = pd.read_parquet(self.images.with_suffix(".parquet"))
        table = table.reindex(columns=[*ROW_COLUMNS], fill_value=-1)
        return {name: table[name].to_numpy(dtype) for name, dtype in ROW_COLUMNS.items()}

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and dimensions of the embeddings."""
        return len(load_array(self.images)), self.extractor.backbone.dim

    def blocks(self) -> list[Rows]:
        """Several batches each, which are stored at once: each block waits for the disk."""
        return row_blocks(self.shape[0], 1, budget=8 * self.extractor.batch_size)

    def __call__(self, rows: Rows) -> np.ndarray:
        features = self.extractor(load_array(self.images)[slice(*rows)])
        return unit_vectors(features, rows[0]) if self.metric == COSINE else features


@dataclass(frozen=True)
class ImportEmbeddings(Task):
    """Take a block of vectors from a file, of unit length for cosine; float32 (rows, d).

    `part` and `column` are those of `drift.formats.read_matrix`.
    """

    file: Path
    metric: str = EUCLIDEAN
    column: str | None = None
    part: str = "train"

    @property
    def parameters(self) -> dict[str, Any]:
        source = {"model": None, "from_file": content_hash(self.file), "column": self.column}
        return source | {"metric": self.metric, "labels": [*ROW_COLUMNS]}

    @property
    def vectors(self) -> np.ndarray:
        """All of them; read once, unless they are mapped into memory."""
        # Mapped anew each time: the pages of a mapping count as memory as long as it lives.
        return self._read_matrix() if self._unmapped is None else self._unmapped

    @cached_property
    def _unmapped(self) -> np.ndarray | None:
        vectors = self._read_matrix()
        return None if isinstance(vectors, np.memmap) else vectors

    def _read_matrix(self) -> np.ndarray:
        return read_matrix(self.file, self.part, self.column)

    def prepare(self) -> dict[str, Any]:
        """Check the vectors; there is nothing to add to the manifest."""
        vectors = self.vectors
        check_embeddings(vectors, str(self.file))
        if self.metric == EUCLIDEAN and (moved := rounding_to_float32(vectors)) > 1e-4:
            print(
                f"warning: rounding to float32 moves the vectors by {moved:.1g} of their distance "
                f"from their mean: subtract the mean before they are saved in {self.file}",
                file=sys.stderr,
            )
        return {}

    def labels(self) -> dict[str, np.ndarray]:
        """`ROW_COLUMNS` of a Parquet file that has such; -1 where nothing is known."""
        n, columns = len(self.vectors), ROW_COLUMNS.items()
        return {name: read_codes(self.file, name, n, dtype) for name, dtype in columns}

    @property
    def shape(self) -> tuple[int, int]:
        return self.vectors.shape

    def blocks(self) -> list[Rows]:
        n, dim = self.shape
        return row_blocks(n, dim * 8)

    def __call__(self, rows: Rows) -> np.ndarray:
        if self.metric == COSINE:
            return unit_vectors(self.vectors[slice(*rows)], rows[0])
        return self.vectors[slice(*rows)].astype(np.float32)


def read_rows(stage: Stage) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Group and label of each row of the embeddings, (N,); None where no row has one."""
    table = stage.read("02_rows.parquet")
    group, label = (
        None if (table[name] < 0).all() else table[name].to_numpy() for name in ROW_COLUMNS
    )
    return group, label
