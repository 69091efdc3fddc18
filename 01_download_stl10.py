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

from drift.pipeline import cli  # first: from here on Ctrl-C ends in one line

# isort: split
import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from drift import InputError
from drift.images import ImageSet
from drift.pipeline.blocks import compute_blocks
from drift.pipeline.lock import lock_folder
from drift.pipeline.stage import Stage
from drift.vectors import row_blocks

N_IMAGES = 10_000
BLOCK_BYTES = 8 << 20
ORIGINS_SHOWN = 20
# The flags that only one dataset understands.
FLAGS = {
    "stl10": ("split", "data_dir", "url", "archive"),
    "photos": (),
    "folder": ("images", "image_size", "strict"),
}
# What decides the images of a dataset, for the manifest, and how to get them.
Source = tuple[dict[str, Any], Callable[[], ImageSet]]


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
    refuse_flags_of_others(args)
    parameters, load = SOURCES[args.dataset](args)
    stage = Stage("01_images", args)
    if stage.begin({"dataset": args.dataset, "seed": args.seed, **parameters}):
        images = load()
        n, size = len(images.sources), images.size
        stage.create("01_images.npy", (n, size, size, 3), np.uint8)
        blocks = row_blocks(n, 3 * size**2, BLOCK_BYTES)
        for rows, pixels in compute_blocks(stage, images, blocks, "images"):
            stage.write("01_images.npy", rows, pixels)
            stage.checkpoint(rows)
        table = pd.DataFrame({"row": np.arange(n, dtype=np.int32), "source": images.sources})
        table["label"] = images.labels
        table["group"] = np.int32(-1) if images.groups is None else images.groups
        table.to_parquet(stage.output("01_images.parquet"), index=False)
        stage.commit(skipped=images.skipped, ignored=images.ignored)
    print_summary(stage)


def refuse_flags_of_others(args: argparse.Namespace) -> None:
    for dataset, flags in FLAGS.items():
        for flag in flags:
            if getattr(args, flag) and dataset != args.dataset:
                name = f"--{flag.replace('_', '-')}"
                raise InputError(
                    f"{name} goes with --dataset {dataset}, not with --dataset {args.dataset}"
                )


def from_stl10(args: argparse.Namespace) -> Source:
    from drift.images import stl10

    split, folder = args.split or "unlabeled", args.data_dir or Path("data")
    available = stl10.stl10_count(stl10.STL10_ARCHIVE, split)
    n = available if args.n_images == "all" else args.n_images or min(N_IMAGES, available)
    if n > available:
        raise InputError(
            f"--n-images {n} is more than the {available} images of STL-10's split {split}"
        )

    def load() -> ImageSet:
        with lock_folder(folder):  # two downloads would write to the same file
            stl10.fetch_stl10(stl10.STL10_ARCHIVE, folder, split, args.url, args.archive)
        return stl10.stl10_sample(folder, split, n, args.seed)

    return {"n_images": n, "split": split}, load


def from_photos(args: argparse.Namespace) -> Source:
    from drift.images import photos

    if args.n_images == "all":
        raise InputError("--n-images all: there is no end of crops of photographs, give a number")
    n = args.n_images or N_IMAGES
    return {"n_images": n}, lambda: photos.photo_crops(n, args.seed)


def from_folder(args: argparse.Namespace) -> Source:
    from drift.images import picture_folder

    if args.images is None:
        raise InputError("--dataset folder needs --images DIR, the folder of your pictures")
    folder = picture_folder.scan_folder(args.images, args.threads)
    n = None if args.n_images == "all" else args.n_images
    size = args.image_size or 224
    parameters = {"images": str(args.images), "content": folder.content, "n_images": n}
    return parameters | {
        "image_size": size,
        "strict": args.strict,
    }, lambda: picture_folder.folder_sample(folder, n, args.seed, size, args.strict, args.threads)


SOURCES = {"stl10": from_stl10, "photos": from_photos, "folder": from_folder}


def print_summary(stage: Stage) -> None:
    manifest = stage.manifest()
    for name, reason in manifest["skipped"].items():
        print(f"skipped, broken: {name} ({reason})")
    if manifest["parameters"]["dataset"] == "folder":
        skipped, ignored = len(manifest["skipped"]), manifest["ignored"]
        print(f"broken pictures skipped: {skipped}, files ignored: {ignored}")
    table = stage.read("01_images.parquet", columns=["source"])
    origins = table["source"].str.rsplit("/", n=1).str[0].rename("origin").value_counts()
    title = f"{len(table)} images in {stage.results.path('01_images.npy')}"
    if len(origins) > ORIGINS_SHOWN:
        title += f" (the {ORIGINS_SHOWN} largest of {len(origins)} origins)"
    cli.print_table(title, origins.head(ORIGINS_SHOWN).reset_index())


if __name__ == "__main__":
    cli.run(main, arguments())
