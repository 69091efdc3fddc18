"""Stage 01: which images the command line asks for, and which of them are alike."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from drift import InputError
from drift.images import ImageSet
from drift.pipeline.lock import lock_folder

if TYPE_CHECKING:
    from drift.pipeline.stage import Stage

N_IMAGES = 10_000
# The flags that only one dataset understands.
FLAGS = {
    "stl10": ("split", "data_dir", "url", "archive"),
    "photos": (),
    "folder": ("images", "image_size", "strict"),
}
# What decides the images, for the manifest, and how to get them.
Source = tuple[dict[str, Any], Callable[[], ImageSet]]


def choose_images(args: argparse.Namespace) -> Source:
    """The images of ``--dataset``; InputError when the flags do not go together."""
    for dataset, flags in FLAGS.items():
        for flag in flags:
            if getattr(args, flag) and dataset != args.dataset:
                name = flag.replace("_", "-")
                raise InputError(f"--{name} goes with --dataset {dataset}, not {args.dataset}")
    chosen = {"stl10": _from_stl10, "photos": _from_photos, "folder": _from_folder}
    parameters, load = chosen[args.dataset](args)
    return {"dataset": args.dataset, "seed": args.seed, **parameters}, load


def _from_stl10(args: argparse.Namespace) -> Source:
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


def _from_photos(args: argparse.Namespace) -> Source:
    if args.n_images == "all":
        raise InputError("--n-images all: there is no end of crops of photographs, give a number")
    n = args.n_images or N_IMAGES

    def load() -> ImageSet:
        from drift.images import photos

        return photos.photo_crops(n, args.seed)

    return {"n_images": n}, load


def _from_folder(args: argparse.Namespace) -> Source:
    from drift.images import picture_folder

    if args.images is None:
        raise InputError("--dataset folder needs --images DIR, the folder of your pictures")
    folder = picture_folder.scan_folder(args.images, args.threads)
    n = None if args.n_images == "all" else args.n_images
    size, strict = args.image_size or 224, args.strict
    parameters = {"images": str(args.images), "content": folder.content, "n_images": n}
    parameters |= {"image_size": size, "strict": strict}
    options = (n, args.seed, size, strict, args.threads)
    return parameters, lambda: picture_folder.folder_sample(folder, *options)


def image_table(stage: "Stage") -> Path | None:
    """The table of the images of which the embeddings were made; None where it has no groups."""
    made_from = stage.results.manifest("02_embeddings")["inputs"]
    images = stage.results.manifest("01_images") or {"outputs": {}}
    table = images["outputs"].get("01_images.parquet", {"dtype": {}})
    if "01_images.npy" not in made_from or "group" not in table["dtype"]:
        return None
    return stage.require("01_images.parquet")[0]


def read_numbers(table: Path, name: str) -> np.ndarray | None:
    """The groups or the labels of the images, (N,); None where no image has one."""
    import pandas as pd

    numbers = pd.read_parquet(table, columns=[name])[name].to_numpy()
    return None if (numbers < 0).all() else numbers
