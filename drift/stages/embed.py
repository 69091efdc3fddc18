"""Stage 02: from images, or from vectors made elsewhere, to embeddings."""

import argparse
import os
import sys
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from drift import InputError
from drift.formats import (
    Contents,
    Held,
    MatrixRows,
    codes_in,
    column_of,
    contents_of,
    declared_distance,
    file_size,
    files_of,
    matrix_of,
    names_in,
    names_in_file,
)
from drift.formats.opening import quoted
from drift.images import CROP, LITE0, RANDOM
from drift.pipeline import cli
from drift.pipeline.results import content_hash, load_array
from drift.pipeline.stage import Stage
from drift.stages import Task
from drift.vectors import check_embeddings, rounding_to_float32, row_blocks, unit_vectors

Rows = tuple[int, int]
EUCLIDEAN, COSINE = METRICS = "euclidean", "cosine"
# What others call them.
SYNONYMS = {"l2": EUCLIDEAN, "sqeuclidean": EUCLIDEAN, "angular": COSINE, "cos": COSINE}
NO_IDS = Path("none")
# What ``02_rows.parquet`` says of a row beside its number.
ROW_COLUMNS = {"group": np.int32, "label": np.int16}


def check_flags(args: argparse.Namespace) -> None:
    """Raise an `InputError` for flags that do not go together, or name what there is not."""
    choose_metric(args.metric)
    if args.from_file:
        cli.refuse_without("--model", args, "weights")
        return
    cli.refuse_without("--from-file", args, "column", "row_ids", "drop_bad")
    # What is always there is not looked for: torch takes seconds to import.
    if args.model not in ("resnet50", LITE0) or args.device not in ("auto", "cpu"):
        from drift.images import backbones, embedding

        backbones.check_model(args.model)
        embedding.choose_device(args.device)


def choose_metric(asked: str | None, file: Path | None = None) -> str:
    """By what vectors are compared: as asked for, or as a file declares, or Euclidean.

    InputError when that is neither Euclidean distance nor cosine.
    """
    metric = (asked or (file and declared_distance(file)) or EUCLIDEAN).lower()
    metric = SYNONYMS.get(metric, metric)
    if metric not in METRICS:
        raise InputError(
            f"vectors are compared by --metric {' or '.join(METRICS)}, not {metric}; neighbors by "
            "inner product are the Euclidean ones once sqrt(R^2 - |x|^2) is appended to each "
            "vector, R being the largest norm, and 0 to each query"
        )
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
        extractor, warnings = self.extractor, []
        if self.weights == RANDOM:
            warnings = warn(
                "with random weights the embeddings are good for trying and timing the pipeline, "
                "and say next to nothing about the images"
            )
        weights, device = extractor.backbone.weights, extractor.device
        notes = {"weights": weights, "device": device, "batch_size": extractor.batch_size}
        return notes | {"warnings": warnings}

    def labels(self) -> dict[str, np.ndarray]:
        """`ROW_COLUMNS` of the images, and as `id` their numbers."""
        table = pd.read_parquet(self.images.with_suffix(".parquet"), columns=[*ROW_COLUMNS])
        labels = {name: table[name].to_numpy(dtype) for name, dtype in ROW_COLUMNS.items()}
        return labels | {"id": np.arange(len(table)).astype(str)}

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
    """Take a block of vectors from files, of unit length for cosine; float32 (rows, d).

    `part` and `column` are those of `drift.formats.matrix_of`. Rows that their names number from 0
    on are in that order.
    """

    file: Path  # or a folder, or a pattern
    metric: str = EUCLIDEAN
    column: str | None = None
    row_ids: Path | None = None  # a file of names; "none": rows are called by their numbers
    drop_bad: bool = False
    part: str = "train"

    @property
    def parameters(self) -> dict[str, Any]:
        """What decides the embeddings, for the manifest."""
        hashes = [hash_of(file) for file in self._files]
        names = self.row_ids and (str(NO_IDS) if self.row_ids == NO_IDS else hash_of(self.row_ids))
        chosen = {"metric": self.metric, "row_ids": names, "drop_bad": self.drop_bad}
        source = {"model": None, "from_file": hashes, "column": self.column}
        return source | chosen | {"labels": [*ROW_COLUMNS, "id"]}

    @cached_property
    def _files(self) -> list[Path]:
        return files_of(self.file)

    @cached_property
    def _contents(self) -> list[Contents]:
        return [contents_of(file) for file in self._files]

    @cached_property
    def _matrices(self) -> list[Held]:
        files = zip(self._files, self._contents, strict=True)
        return [matrix_of(file, held, self.part, self.column) for file, held in files]

    def _column(self, name: str) -> pa.Array | None:
        """A column of all files, where all have it."""
        files = zip(self._contents, self._matrices, strict=True)
        columns = [column_of(held, name, matrix.shape[0]) for held, matrix in files]
        if any(column is None for column in columns):
            return None
        return pa.chunked_array(columns).unify_dictionaries().combine_chunks()

    @cached_property
    def _names(self) -> np.ndarray | None:
        """Names of all rows of the files."""
        if self.row_ids not in (None, NO_IDS):
            return names_in_file(self.row_ids, len(self._all))
        column = None if self.row_ids else self._column("id")
        return None if column is None else names_in(column, f"{self.file}, column 'id',")

    @cached_property
    def _rows(self) -> np.ndarray:
        """Which rows of the files are taken, in which order."""
        rows = np.arange(len(self._all))
        if self._names is not None and set(self._names) == set(rows.astype(str)):
            rows = np.argsort(self._names.astype(np.int64))
        return rows[~np.isin(rows, self._bad)] if self.drop_bad else rows

    @cached_property
    def _bad(self) -> np.ndarray:
        """Rows of the files of which nothing can be said."""
        bad = []
        for start, stop in row_blocks(len(self._all), self._all.shape[1] * 8):
            block = self._all[start:stop]
            can_be = np.isfinite(block).all(axis=1)
            if self.metric == COSINE:
                can_be &= block.any(axis=1)
            bad.append(start + np.flatnonzero(~can_be))
        return np.concatenate(bad)

    @cached_property
    def _all(self) -> MatrixRows:
        return MatrixRows(self._matrices)

    @cached_property
    def vectors(self) -> MatrixRows:
        """All that are taken."""
        return MatrixRows(self._matrices, self._rows)

    def prepare(self) -> dict[str, Any]:
        """Check the vectors; for the manifest, what is left out and what rounding does to them."""
        warnings, names = [], [file.name for file in self._files]
        if len(names) > 1:
            print(f"{len(names)} files, in this order: {quoted(names, 4)}")
        if len(self._bad):
            bad, zero = self._bad, ", or zero, of which no cosine can be taken"
            names = bad if self._names is None else self._names[bad]
            what = f"{len(bad)} of {len(self._all)} rows of {self.file} are null or not finite"
            what += f"{zero if self.metric == COSINE else ''}: {quoted(names, 20)}"
            if not self.drop_bad or len(bad) == len(self._all):
                raise InputError(f"{what}; --drop-bad leaves them out")
            warnings += warn(f"{what}: left out")
        vectors = self.vectors
        check_embeddings(vectors, str(self.file), is_scaled=self.metric == COSINE)
        if self.metric == EUCLIDEAN and (moved := rounding_to_float32(vectors)) > 0:
            what = f"rounding to float32 moves the vectors by {moved:.1g} of their distance from "
            if moved > 1e-4:
                advice = f"their mean: subtract the mean before they are saved in {self.file.name}"
                warnings += warn(what + advice)
            else:
                print(f"{what}their mean, in the root of the mean square")
        # A name on a disk may be no text.
        name = os.fsencode(self.file.name).decode(errors="replace")
        return {"file": name, "warnings": warnings}

    def labels(self) -> dict[str, np.ndarray]:
        """`ROW_COLUMNS`, from columns of these names, -1 where nothing is known; and `id`."""
        labels = {}
        for name, dtype in ROW_COLUMNS.items():
            labels[name] = np.full(len(self._rows), -1, dtype)
            if (column := self._column(name)) is not None:
                # By first appearance in the order of the rows, those left out not counting.
                column = column.take(pa.array(self._rows))
                labels[name] = codes_in(column, f"{self.file}, column {name!r},", dtype)
        return labels | {"id": self.ids}

    @property
    def ids(self) -> np.ndarray:
        """Names of the rows, array of str: those that the files have, else their numbers there."""
        return self._rows.astype(str) if self._names is None else self._names[self._rows]

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


def hash_of(file: Path) -> str:
    """Content hash of a file of the user's; InputError for what is no file."""
    file_size(file)
    return content_hash(file)


def warn(sentence: str) -> list[str]:
    """Print a warning; it, for the manifest."""
    print(f"warning: {sentence}", file=sys.stderr)
    return [sentence]


def read_rows(stage: Stage) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Group and label of each row of the embeddings, (N,); None where no row has one."""
    table = stage.read("02_rows.parquet")
    columns = (table[name].to_numpy() for name in ROW_COLUMNS)
    group, label = (None if (column < 0).all() else column for column in columns)
    return group, label
