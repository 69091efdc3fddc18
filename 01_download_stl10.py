"""Stage 01: the images of the study.

reads   STL-10, downloaded once into --data-dir; or photographs that come with scikit-image; or the
        pictures in a folder of your own
writes  results/01_images.npy      uint8 (N, S, S, 3), RGB
        results/01_images.parquet  row, source, label, group of each image
        results/01_images.json     the manifest

examples
  python 01_download_stl10.py                               10,000 images, unlabeled split
  python 01_download_stl10.py --split train --n-images all --archive ~/stl10_binary.tar.gz
  python 01_download_stl10.py --dataset photos              random crops of photographs, no network
  python 01_download_stl10.py --dataset folder --images ~/Pictures
"""

import drift.pipeline.cli as cli

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from drift.pipeline.blocks import compute_blocks
from drift.pipeline.stage import Stage
from drift.stages.images import FLAGS, check_flags, choose_images
from drift.vectors import row_blocks

BLOCK_BYTES = 8 << 20
ORIGINS_SHOWN = 20


def arguments() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__)
    parser.add_argument("--dataset", choices=FLAGS, default="stl10", help="where images come from")
    parser.add_argument(
        "--n-images",
        type=cli.integer_or_all,
        metavar="N|all",
        help="how many images (default: 10000, or all if there are fewer; of a folder: all)",
    )
    stl10, folder = (
        parser.add_argument_group(f"with --dataset {name}") for name in ("stl10", "folder")
    )
    splits = ("unlabeled", "train", "test")
    stl10.add_argument("--split", choices=splits, help="(default: unlabeled)")
    stl10.add_argument("--data-dir", type=Path, metavar="DIR", help="its place (default: data)")
    origin = stl10.add_mutually_exclusive_group()
    origin.add_argument("--url", help="mirror to fetch the archive from (default: its home)")
    origin.add_argument("--archive", type=Path, metavar="FILE", help="the archive, if on disk")
    folder.add_argument("--images", type=Path, metavar="DIR", help="your pictures; required")
    folder.add_argument(
        "--image-size",
        type=cli.integer(1, 4096),
        metavar="S",
        help="pixels of the short side, then of the center crop (default: 224)",
    )
    folder.add_argument("--strict", action="store_true", help="stop at a broken picture")
    return parser


def main(args: argparse.Namespace) -> None:
    check_flags(args)
    stage = cli.open_stage("01_images", args)
    parameters, load = choose_images(args)
    if stage.begin(parameters):
        images = load()
        n, size = len(images.sources), images.size
        stage.create("01_images.npy", (n, size, size, 3), np.uint8)
        blocks = row_blocks(n, 3 * size**2, BLOCK_BYTES)
        for rows, pixels in compute_blocks(stage, images.read, blocks, "images"):
            stage.write("01_images.npy", rows, pixels)
            stage.checkpoint(rows)
        table = pd.DataFrame({"row": np.arange(n, dtype=np.int32), "source": images.sources})
        table["label"] = images.labels
        table["group"] = np.int32(-1) if images.groups is None else images.groups
        table.to_parquet(stage.output("01_images.parquet"), index=False)
        stage.commit(skipped=images.skipped, ignored=images.ignored)
    print_summary(stage)


def print_summary(stage: Stage) -> None:
    manifest = stage.manifest()
    skipped, ignored = manifest["skipped"], manifest["ignored"]
    for name, reason in skipped.items():
        print(f"skipped, broken: {name} ({reason})")
    if manifest["parameters"]["dataset"] == "folder":
        print(f"broken pictures skipped: {len(skipped)}, files ignored: {ignored}")
    table = stage.read("01_images.parquet", columns=["source"])
    origins = table["source"].str.rsplit("/", n=1).str[0].rename("origin").value_counts()
    title = f"{len(table)} images in {stage.results.path('01_images.npy')}"
    if len(origins) > ORIGINS_SHOWN:
        title += f" (the {ORIGINS_SHOWN} largest of {len(origins)} origins)"
    cli.print_table(title, origins.head(ORIGINS_SHOWN).reset_index())


if __name__ == "__main__":
    cli.run(main, arguments())
