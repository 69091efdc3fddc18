"""Stage 02: embed the images, by the features of a convolutional network before its classifier.

reads   results/01_images.npy
writes  results/02_embeddings.npy   float32 (N, d), d = 2048 for ResNet-50
        results/02_embeddings.json  the manifest

examples
  python 02_embed_resnet50.py                              ResNet-50, IMAGENET1K_V2
  python 02_embed_resnet50.py --weights resnet50.pth       weights that were downloaded elsewhere
  python 02_embed_resnet50.py --model efficientnet_lite0   a small network, weights in a package
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from drift import blocks, embedding, stage
from drift.artifacts import Results, content_hash

STAGE = "02_embeddings"


def arguments() -> argparse.ArgumentParser:
    parser = stage.parser(__doc__)
    parser.add_argument(
        "--model", choices=tuple(embedding.BACKBONES), default="resnet50", help="network"
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="state dict to load; without it, the network's ImageNet weights",
    )
    parser.add_argument(
        "--batch-size",
        type=stage.integer(1),
        default=16,
        metavar="B",
        help="images at a time; on a CPU small batches are faster, since they stay in its caches",
    )
    return parser


def main(args: argparse.Namespace) -> None:
    results = Results(args.results)
    inputs = results.require("01_images.npy")
    parameters = {
        "model": args.model,
        "weights": "default" if args.weights is None else f"sha256:{content_hash(args.weights)}",
        "resize": embedding.RESIZE,
        "crop": embedding.CROP,
        "batch_size": args.batch_size,
    }
    if stage.up_to_date(results, STAGE, parameters, inputs, args.force):
        return

    images = results.load("01_images.npy")
    backbone = embedding.BACKBONES[args.model](args.weights)
    draft = results.draft(STAGE, parameters, inputs, fresh=args.force)
    embeddings = draft.array("02_embeddings.npy", (len(images), backbone.dim), np.float32)

    def embed(rows: tuple[int, int]) -> np.ndarray:
        return embedding.embed(images[slice(*rows)], backbone)

    def store(rows: tuple[int, int], features: np.ndarray) -> None:
        embeddings[slice(*rows)] = features
        embeddings.flush()

    batches = blocks.row_blocks(len(images), bytes_per_row=1, budget=args.batch_size)
    blocks.run(batches, embed, store, draft, f"embedding with {args.model}")
    manifest = draft.publish(weights=backbone.weights)

    norms = np.linalg.norm(embeddings, axis=1)
    table = pd.DataFrame(
        {
            "model": [args.model],
            "images": len(images),
            "dimensions": backbone.dim,
            "mean norm": norms.mean(),
            "seconds": manifest["seconds"],
        }
    )
    stage.report(f"embeddings in {results.path('02_embeddings.npy')}", table)


if __name__ == "__main__":
    stage.run(main, arguments())
