"""Stage 02: embed the images, by the features of a network before its classifier.

reads   results/01_images.npy, or embeddings made elsewhere (--from-file)
writes  results/02_embeddings.npy   float32 (N, d), d = 2048 for ResNet-50
        results/02_embeddings.json  the manifest

examples
  python 02_embed_resnet50.py                                ResNet-50, IMAGENET1K_V2
  python 02_embed_resnet50.py --weights resnet50.pth         weights downloaded elsewhere
  python 02_embed_resnet50.py --model efficientnet_lite0     small, its weights are in a package
  python 02_embed_resnet50.py --compile --precision bf16     fastest, a little less precise
  python 02_embed_resnet50.py --from-file mine.npy           no images: embeddings of your own
  python 02_embed_resnet50.py --scheduler tcp://host:8786    on the workers of a Dask cluster
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from drift import InputError, backbones, blocks, cluster, embedding, stage
from drift.artifacts import Results, content_hash, load_array
from drift.draft import Draft
from drift.vectors import check_embeddings, rounding_to_float32, to_float32

STAGE = "02_embeddings"


def arguments() -> argparse.ArgumentParser:
    parser = stage.parser(__doc__)
    stage.add_scheduler(parser)
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--model",
        default="resnet50",
        help=f"network: {backbones.LITE0}, or any classification model of torchvision by its name",
    )
    source.add_argument(
        "--from-file",
        type=Path,
        metavar="FILE.npy",
        help="take these embeddings, a matrix of floats, and compute none; stage 01 is not needed",
    )
    parser.add_argument(
        "--weights",
        metavar="W",
        help="a name of torchvision's, a state-dict file, or random (drawn by --seed); without "
        "it IMAGENET1K_V2 for ResNet-50, else the network's default",
    )
    parser.add_argument(
        "--resize",
        type=stage.integer(backbones.CROP, 4096),
        default=embedding.RESIZE,
        metavar="PIXELS",
        help=f"short side to which an image is resized, before its center of {backbones.CROP} is "
        "cut; the recipe of IMAGENET1K_V2 has 232",
    )
    parser.add_argument("--device", choices=embedding.DEVICES, default="auto", help="where to")
    parser.add_argument(
        "--precision", choices=embedding.PRECISIONS, default="fp32", help="of the network"
    )
    parser.add_argument(
        "--compile", action="store_true", help="compile the network first; needs a C++ compiler"
    )
    parser.add_argument(
        "--batch-size",
        type=stage.integer(1),
        metavar="B",
        help=f"images at a time; without it {embedding.BATCH_SIZE['cpu']}, on a GPU "
        f"{embedding.BATCH_SIZE['cuda']}; on a CPU small batches are faster",
    )
    return parser


def main(args: argparse.Namespace) -> None:
    results = Results(args.results)
    parameters, inputs, load = (plan_import if args.from_file else plan_network)(args, results)
    if stage.up_to_date(results, STAGE, parameters, inputs, args.force):
        return

    n, dim, rows_at_once, reads, compute = load()
    draft = Draft(results, STAGE, parameters, inputs, fresh=args.force)
    draft.array("02_embeddings.npy", (n, dim), np.float32)

    def store(rows: tuple[int, int], features: np.ndarray) -> None:
        # Mapped anew for each block: the pages of a mapping count as memory as long as it lives.
        embeddings = draft.array("02_embeddings.npy", (n, dim), np.float32)
        embeddings[slice(*rows)] = features
        embeddings.flush()

    rows = blocks.row_blocks(n, bytes_per_row=1, budget=rows_at_once)
    with cluster.connect(args.scheduler, reads, args.threads) as workers:
        blocks.run(rows, compute, store, draft, "embeddings", workers)
    manifest = draft.publish()

    stored = (results.load("02_embeddings.npy")[slice(*block)] for block in rows)
    mean_norm = sum(np.linalg.norm(block, axis=1).sum(dtype=np.float64) for block in stored) / n
    name = parameters["model"] or args.from_file.name
    columns = (name, n, dim, mean_norm, manifest["seconds"])
    titles = ("embeddings", "rows", "dimensions", "mean norm", "seconds")
    table = pd.DataFrame([columns], columns=titles)
    stage.report(f"embeddings in {results.path('02_embeddings.npy')}", table)


class Embed(blocks.Portable):
    """Embed a block of images; the network is loaded when this is made."""

    def __init__(
        self,
        images: Path,
        model: str,
        weights: str | None,
        seed: int,
        batch_size: int,
        device: str,
        precision: str,
        compiled: bool,
        resize: int,
    ):
        self.images = load_array(images)
        found = backbones.find_weights(model, weights, seed)
        backbone = backbones.load(model, found)
        device = embedding.choose_device(device)
        self.extract = embedding.Extractor(
            backbone, batch_size, device, precision, compiled, resize
        )

    def __call__(self, rows: tuple[int, int]) -> np.ndarray:
        return self.extract(self.images[slice(*rows)])


class Convert(blocks.Portable):
    """Take a block of embeddings from a file."""

    def __init__(self, path: Path):
        self.path = path

    def __call__(self, rows: tuple[int, int]) -> np.ndarray:
        return to_float32(load_array(self.path), *rows)


# From the arguments: parameters, inputs, and a function that opens the source of the embeddings.
# It gives the number of rows, of dimensions, of rows to compute at once, the files that are read,
# and what computes a block.
Source = tuple[int, int, int, list[Path], blocks.Portable]
Plan = tuple[dict[str, Any], dict[str, Any], Callable[[], Source]]


def plan_network(args: argparse.Namespace, results: Results) -> Plan:
    weights = backbones.find_weights(args.model, args.weights, args.seed)
    device = embedding.choose_device(args.device)
    batch_size = args.batch_size or embedding.BATCH_SIZE[device]
    parameters = {
        "model": args.model,
        "weights": weights.identity,
        "resize": args.resize,
        "crop": backbones.CROP,
        "device": device,
        "precision": args.precision,
        "compile": args.compile,
        "batch_size": batch_size,
    }

    def load() -> Source:
        if not weights.trained:
            print(f"warning: {backbones.RANDOM_IS_GOOD_FOR}", file=sys.stderr)
        images = results.path("01_images.npy").absolute()
        of_a_file = args.weights is not None and weights.file is not None
        embed = Embed(
            images,
            args.model,
            str(weights.file.absolute()) if of_a_file else args.weights,
            args.seed,
            batch_size,
            device,
            args.precision,
            args.compile,
            args.resize,
        )
        # Several batches at once, which are stored at once: each block waits for the disk.
        rows_at_once = 8 * batch_size
        reads = [images, *([weights.file] if of_a_file else [])]
        return len(embed.images), embed.extract.backbone.dim, rows_at_once, reads, embed

    return parameters, results.require("01_images.npy"), load


def plan_import(args: argparse.Namespace, results: Results) -> Plan:
    if args.weights is not None:
        raise InputError("--weights are of a network, and --from-file computes with none")
    given = load_array(args.from_file)
    check_embeddings(given, str(args.from_file))
    parameters = {"model": None, "from_file": content_hash(args.from_file)}
    n, dim = given.shape
    rows_at_once = max(1, (64 << 20) // (dim * given.itemsize))

    def load() -> Source:
        moved = rounding_to_float32(load_array(args.from_file))
        if moved > 1e-4:
            print(
                f"warning: rounding to float32 moves the vectors by {moved:.1g} of their distance "
                f"from their mean: subtract the mean before they are saved in {args.from_file}",
                file=sys.stderr,
            )
        path = args.from_file.absolute()
        return n, dim, rows_at_once, [path], Convert(path)

    return parameters, {}, load


if __name__ == "__main__":
    stage.run(main, arguments())
