"""Stage 01: the images of the study.

reads   STL-10, downloaded once into --data-dir, or photographs that come with scikit-image
writes  results/01_images.npy      uint8 (N, 96, 96, 3), RGB
        results/01_images.parquet  row, source, label of each image
        results/01_images.json     the manifest

examples
  python 01_download_stl10.py                               10,000 images, unlabeled split
  python 01_download_stl10.py --split train --n-images 5000
  python 01_download_stl10.py --dataset photos              random crops of photographs, no network
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from drift import blocks, images, stage
from drift.artifacts import Results

STAGE = "01_images"
BLOCK = 256


def arguments() -> argparse.ArgumentParser:
    parser = stage.parser(__doc__)
    parser.add_argument(
        "--dataset", choices=("stl10", "photos"), default="stl10", help="where the images come from"
    )
    parser.add_argument(
        "--n-images", type=stage.integer(1), default=10_000, metavar="N", help="how many images"
    )
    parser.add_argument(
        "--split", choices=images.STL10_SPLITS, default="unlabeled", help="split of STL-10"
    )
    parser.add_argument(
        "--data-dir", type=Path, default=Path("data"), metavar="DIR", help="where STL-10 is kept"
    )
    return parser


def main(args: argparse.Namespace) -> None:
    results = Results(args.results)
    parameters = {"dataset": args.dataset, "n_images": args.n_images, "seed": args.seed}
    if args.dataset == "stl10":
        parameters["split"] = args.split
    if stage.up_to_date(results, STAGE, parameters, {}, args.force):
        return

    if args.dataset == "stl10":
        chosen = images.stl10_sample(args.data_dir, args.split, args.n_images, args.seed)
    else:
        chosen = images.photo_crops(args.n_images, args.seed)

    draft = results.draft(STAGE, parameters, inputs={}, fresh=args.force)
    pixels = draft.array("01_images.npy", (args.n_images, chosen.size, chosen.size, 3), np.uint8)

    def store(rows: tuple[int, int], block: np.ndarray) -> None:
        pixels[slice(*rows)] = block
        pixels.flush()

    block_bounds = blocks.row_blocks(args.n_images, bytes_per_row=1, budget=BLOCK)
    blocks.run(block_bounds, lambda rows: chosen.read(*rows), store, draft, "reading images")
    table = pd.DataFrame(
        {"row": np.arange(args.n_images, dtype=np.int32), "source": chosen.sources}
    )
    table["label"] = chosen.labels
    table.to_parquet(draft.path("01_images.parquet"), index=False)
    draft.publish()

    origin = table["source"].str.rsplit("/", n=1).str[0].rename("origin")
    stage.report(
        f"{args.n_images} images in {results.path('01_images.npy')}",
        origin.value_counts().reset_index(),
    )


if __name__ == "__main__":
    stage.run(main, arguments())
