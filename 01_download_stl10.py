"""Stage 01: the images of the study.

reads   STL-10, downloaded once into --data-dir; or photographs that come with scikit-image; or the
        pictures in a folder of your own
writes  results/01_images.npy      uint8 (N, S, S, 3), RGB
        results/01_images.parquet  row, source, label of each image
        results/01_images.json     the manifest

examples
  python 01_download_stl10.py                               10,000 images, unlabeled split
  python 01_download_stl10.py --split train --n-images all --archive ~/stl10_binary.tar.gz
  python 01_download_stl10.py --dataset photos              random crops of photographs, no network
  python 01_download_stl10.py --dataset folder --images ~/Pictures
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from drift import InputError, blocks, images, picture_folder, stage
from drift.artifacts import Results
from drift.draft import Draft

STAGE = "01_images"
N_IMAGES = 10_000
BLOCK_BYTES = 8 << 20
ORIGINS_SHOWN = 20
# What decides the images of a dataset, for the manifest, and how to get them.
Source = tuple[dict[str, Any], Callable[[], images.ImageSet]]
# The flags that only one dataset understands, with their defaults.
FLAGS: dict[str, dict[str, Any]] = {
    "stl10": {"split": "unlabeled", "data_dir": Path("data"), "url": None, "archive": None},
    "photos": {},
    "folder": {"images": None, "image_size": 224, "strict": False},
}


def arguments() -> argparse.ArgumentParser:
    parser = stage.parser(__doc__)
    parser.add_argument("--dataset", choices=FLAGS, default="stl10", help="where images come from")
    parser.add_argument(
        "--n-images",
        type=lambda text: text if text == "all" else stage.integer(1)(text),
        default=argparse.SUPPRESS,
        metavar="N|all",
        help="how many images (default: 10000, or all if there are fewer; of a folder: all)",
    )
    stl10, folder = (
        parser.add_argument_group(f"with --dataset {name}", argument_default=argparse.SUPPRESS)
        for name in ("stl10", "folder")
    )
    stl10.add_argument("--split", choices=images.STL10_IMAGES, help="(default: unlabeled)")
    stl10.add_argument("--data-dir", type=Path, metavar="DIR", help="its place (default: data)")
    origin = stl10.add_mutually_exclusive_group()
    origin.add_argument("--url", help="mirror to fetch the archive from (default: its home)")
    origin.add_argument("--archive", type=Path, metavar="FILE", help="the archive, if on disk")
    folder.add_argument("--images", type=Path, metavar="DIR", help="your pictures; required")
    folder.add_argument(
        "--image-size",
        type=stage.integer(1, 4096),
        metavar="S",
        help="pixels of the short side, then of the center crop (default: 224)",
    )
    folder.add_argument(
        "--strict", action="store_true", default=argparse.SUPPRESS, help="stop at a broken picture"
    )
    return parser


def main(args: argparse.Namespace) -> None:
    results = Results(args.results)
    decisive, load = SOURCES[args.dataset](complete(args))
    parameters = {"dataset": args.dataset, "seed": args.seed, **decisive}
    if stage.up_to_date(results, STAGE, parameters, {}, args.force):
        return

    chosen = load()
    n, size = len(chosen.sources), chosen.size
    draft = Draft(results, STAGE, parameters, inputs={}, fresh=args.force)
    draft.array("01_images.npy", (n, size, size, 3), np.uint8)

    def store(rows: tuple[int, int], block: np.ndarray) -> None:
        # Mapped anew for each block: the pages of a mapping count as memory as long as it lives.
        pixels = draft.array("01_images.npy", (n, size, size, 3), np.uint8)
        pixels[slice(*rows)] = block
        pixels.flush()

    block_bounds = blocks.row_blocks(n, bytes_per_row=3 * size**2, budget=BLOCK_BYTES)
    blocks.run(block_bounds, lambda rows: chosen.read(*rows), store, draft, "reading images")
    table = pd.DataFrame({"row": np.arange(n, dtype=np.int32), "source": chosen.sources})
    table["label"] = chosen.labels
    table.to_parquet(draft.path("01_images.parquet"), index=False)
    draft.publish(skipped=chosen.skipped, ignored=chosen.ignored)

    for name, why in chosen.skipped.items():
        print(f"skipped, broken: {name} ({why})")
    if args.dataset == "folder":
        print(f"broken pictures skipped: {len(chosen.skipped)}, files ignored: {chosen.ignored}")
    origins = table["source"].str.rsplit("/", n=1).str[0].rename("origin").value_counts()
    title = f"{n} images in {results.path('01_images.npy')}"
    if len(origins) > ORIGINS_SHOWN:
        title += f" (the {ORIGINS_SHOWN} largest of {len(origins)} origins)"
    stage.report(title, origins.head(ORIGINS_SHOWN).reset_index())


def complete(args: argparse.Namespace) -> argparse.Namespace:
    """Add the defaults of the dataset's own flags, and refuse those of another dataset."""
    for dataset, flags in FLAGS.items():
        for flag in flags if dataset != args.dataset else ():
            if flag in args:
                said = f"--{flag.replace('_', '-')} goes with --dataset {dataset}"
                raise InputError(f"{said}, not with --dataset {args.dataset}")
    return argparse.Namespace(**{"n_images": None, **FLAGS[args.dataset], **vars(args)})


def from_stl10(args: argparse.Namespace) -> Source:
    archive = images.STL10_ARCHIVE
    available = images.stl10_count(archive, args.split)
    n = available if args.n_images == "all" else args.n_images or min(N_IMAGES, available)
    if n > available:
        raise InputError(
            f"--n-images {n} is more than the {available} images of STL-10's split {args.split}"
        )

    def load() -> images.ImageSet:
        images.fetch_stl10(archive, args.data_dir, args.split, args.url, args.archive)
        return images.stl10_sample(args.data_dir, args.split, n, args.seed)

    return {"n_images": n, "split": args.split}, load


def from_photos(args: argparse.Namespace) -> Source:
    if args.n_images == "all":
        raise InputError("--n-images all: there is no end of crops of photographs, give a number")
    n = args.n_images or N_IMAGES
    return {"n_images": n}, lambda: images.photo_crops(n, args.seed)


def from_folder(args: argparse.Namespace) -> Source:
    if args.images is None:
        raise InputError("--dataset folder needs --images DIR, the folder of your pictures")
    folder = picture_folder.scan_folder(args.images, args.threads)
    n = None if args.n_images == "all" else args.n_images

    def load() -> images.ImageSet:
        return picture_folder.folder_sample(
            folder, n, args.seed, args.image_size, args.strict, args.threads
        )

    decisive = {"images": str(args.images), "content": folder.content, "n_images": n}
    return decisive | {"image_size": args.image_size, "strict": args.strict}, load


SOURCES = {"stl10": from_stl10, "photos": from_photos, "folder": from_folder}

if __name__ == "__main__":
    stage.run(main, arguments())
