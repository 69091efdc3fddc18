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
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from drift import InputError, blocks, embedding, stage
from drift.artifacts import Results, content_hash, load_array
from drift.draft import Draft
from drift.vectors import check_embeddings

STAGE = "02_embeddings"


def arguments() -> argparse.ArgumentParser:
    parser = stage.parser(__doc__)
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--model",
        default="resnet50",
        help=f"network: {embedding.LITE0}, or any classification model of torchvision by its name",
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
        type=stage.integer(embedding.CROP, 4096),
        default=embedding.RESIZE,
        metavar="PIXELS",
        help=f"short side to which an image is resized, before its center of {embedding.CROP} is "
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

    n, dim, rows_at_once, compute = load()
    draft = Draft(results, STAGE, parameters, inputs, fresh=args.force)
    embeddings = draft.array("02_embeddings.npy", (n, dim), np.float32)

    def store(rows: tuple[int, int], features: np.ndarray) -> None:
        embeddings[slice(*rows)] = features
        embeddings.flush()

    rows = blocks.row_blocks(n, bytes_per_row=1, budget=rows_at_once)
    blocks.run(rows, lambda rows: compute(*rows), store, draft, "embeddings")
    manifest = draft.publish()

    norms = np.linalg.norm(embeddings, axis=1)
    name = parameters["model"] or args.from_file.name
    columns = (name, n, dim, norms.mean(), manifest["seconds"])
    titles = ("embeddings", "rows", "dimensions", "mean norm", "seconds")
    table = pd.DataFrame([columns], columns=titles)
    stage.report(f"embeddings in {results.path('02_embeddings.npy')}", table)


# From the arguments: parameters, inputs, and a function that opens the source of the embeddings.
# It gives the number of rows, of dimensions, of rows to compute at once, and computes them.
Rows = Callable[[int, int], np.ndarray]
Plan = tuple[dict[str, Any], dict[str, Any], Callable[[], tuple[int, int, int, Rows]]]


def plan_network(args: argparse.Namespace, results: Results) -> Plan:
    weights = embedding.find_weights(args.model, args.weights, args.seed)
    device = embedding.choose_device(args.device)
    batch_size = args.batch_size or embedding.BATCH_SIZE[device]
    parameters = {
        "model": args.model,
        "weights": weights.identity,
        "resize": args.resize,
        "crop": embedding.CROP,
        "device": device,
        "precision": args.precision,
        "compile": args.compile,
        "batch_size": batch_size,
    }

    def load() -> tuple[int, int, int, Rows]:
        if not weights.trained:
            print(f"warning: {embedding.RANDOM_IS_GOOD_FOR}", file=sys.stderr)
        images = results.load("01_images.npy")
        extract = embedding.Extractor(
            embedding.load(args.model, weights),
            batch_size,
            device,
            args.precision,
            args.compile,
            args.resize,
        )
        # Several batches at once, which are stored at once: each block waits for the disk.
        rows_at_once = 8 * batch_size
        dim = extract.backbone.dim
        return len(images), dim, rows_at_once, lambda start, stop: extract(images[start:stop])

    return parameters, results.require("01_images.npy"), load


def plan_import(args: argparse.Namespace, results: Results) -> Plan:
    if args.weights is not None:
        raise InputError("--weights are of a network, and --from-file computes with none")
    given = load_array(args.from_file)
    check_embeddings(given, str(args.from_file))
    parameters = {"model": None, "from_file": content_hash(args.from_file)}
    n, dim = given.shape
    rows_at_once = max(1, (64 << 20) // (dim * given.itemsize))

    def load() -> tuple[int, int, int, Rows]:
        return n, dim, rows_at_once, lambda *rows: embedding.to_float32(given, *rows)

    return parameters, {}, load


if __name__ == "__main__":
    stage.run(main, arguments())
