"""Stage 02: embed the images, by the features of a network before its classifier.

reads   results/01_images.npy and .parquet, or embeddings made elsewhere (--from-file)
writes  results/02_embeddings.npy   float32 (N, d), d = 2048 for ResNet-50
        results/02_rows.parquet     row, group, label, id: what is known of each row
        results/02_embeddings.json  the manifest

examples
  python 02_embed_resnet50.py                                ResNet-50, IMAGENET1K_V2
  python 02_embed_resnet50.py --weights resnet50.pth         weights downloaded elsewhere
  python 02_embed_resnet50.py --model efficientnet_lite0 --precision bf16 --compile
  python 02_embed_resnet50.py --from-file clip.parquet       no images: vectors of your own
  python 02_embed_resnet50.py --scheduler tcp://host:8786    on the workers of a Dask cluster
"""

import drift.pipeline.cli as cli

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from drift import images
from drift.pipeline.blocks import compute_blocks
from drift.pipeline.stage import Stage
from drift.stages.embed import EmbedImages, ImportEmbeddings, check_flags, choose_metric


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__, scheduler=True)
    source, add = parser.add_mutually_exclusive_group(), parser.add_argument
    source.add_argument(
        "--model",
        default="resnet50",
        help=f"network: {images.LITE0}, or any classification model of torchvision by its name",
    )
    source.add_argument(
        "--from-file",
        type=Path,
        metavar="FILE",
        help="take these vectors and compute none, without stage 01; of a folder or a pattern all",
    )
    add(
        "--metric",
        metavar="euclidean|cosine",
        help="by what vectors are compared, also as l2 or angular; for cosine they are scaled to "
        "unit length (default: what an .hdf5 file says, else euclidean)",
    )
    add("--column", help="which matrix of a file that has several, by its name there")
    add("--row-ids", type=Path, metavar="FILE|none", help="their names, a line each (default: id)")
    add("--drop-bad", action="store_true", help="leave out rows that are null, not finite, or 0")
    add(
        "--weights",
        metavar="W",
        help="a name of torchvision's, a state-dict file, or random (drawn by --seed); without "
        "it IMAGENET1K_V2 for ResNet-50, else the network's default",
    )
    add(
        "--resize",
        type=cli.integer(images.CROP, 4096),
        default=images.RESIZE,
        metavar="PIXELS",
        help=f"short side to which an image is resized, before its center of {images.CROP} is "
        "cut; the recipe of IMAGENET1K_V2 has 232",
    )
    add("--device", choices=images.DEVICES, default="auto", help="where to")
    add("--precision", choices=images.PRECISIONS, default="fp32", help="of the network")
    add("--compile", action="store_true", help="compile the network first; needs a C++ compiler")
    add(
        "--batch-size",
        type=cli.integer(1),
        metavar="B",
        help=f"images at a time; without it {images.BATCH_SIZE['cpu']}, on a GPU "
        f"{images.BATCH_SIZE['cuda']}; on a CPU small batches are faster",
    )
    return parser


def main(args: argparse.Namespace) -> None:
    check_flags(args)
    stage = cli.open_stage("02_embeddings", args)
    task = choose_task(args, stage)
    if stage.begin(task.parameters):
        notes = task.prepare()
        n, dim = task.shape
        numbers = {"row": np.arange(n, dtype=np.int32)}
        stage.append("02_rows.parquet", numbers | task.labels())
        stage.create("02_embeddings.npy", (n, dim), np.float32)
        for rows, features in compute_blocks(stage, task, task.blocks(), "embeddings"):
            stage.write("02_embeddings.npy", rows, features)
            norms = np.linalg.norm(features, axis=1)
            stage.checkpoint(rows, norms=float(norms.sum(dtype=np.float64)))
        stage.commit(mean_norm=stage.total("norms") / n, **notes)
    print_summary(stage, args.from_file.name if args.from_file else args.model)


def choose_task(args: argparse.Namespace, stage: Stage) -> EmbedImages | ImportEmbeddings:
    metric = choose_metric(args.metric, args.from_file)
    if args.from_file:
        about = (metric, args.column, args.row_ids, args.drop_bad)
        return ImportEmbeddings(args.from_file.absolute(), *about)
    pixels, _ = stage.require("01_images.npy", "01_images.parquet")
    is_file = args.weights and Path(args.weights).is_file()
    weights = Path(args.weights).absolute() if is_file else args.weights
    network = (args.model, weights, args.seed, args.batch_size, args.device, args.precision)
    return EmbedImages(pixels, *network, args.compile, args.resize, metric)


def print_summary(stage: Stage, name: str) -> None:
    manifest = stage.manifest()
    n, dim = manifest["outputs"]["02_embeddings.npy"]["shape"]
    row = {"embeddings": name, "rows": n, "dimensions": dim, "mean norm": manifest["mean_norm"]}
    title = f"embeddings in {stage.results.path('02_embeddings.npy')}"
    cli.print_table(title, pd.DataFrame([row | {"seconds": manifest["seconds"]}]))


if __name__ == "__main__":
    cli.run(main, arguments())
