"""Stage 01: which images the command line asks for."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from drift import InputError
from drift.images import ImageSet, photos, picture_folder, stl10
from drift.pipeline import cli
from drift.pipeline.lock import lock_folder

N_IMAGES = 10_000
# The flags that only one dataset understands.
FLAGS = {
    "stl10": ("split", "data_dir", "url", "archive"),
    "photos": (),
    "folder": ("images", "image_size", "strict"),
}


def check_flags(args: argparse.Namespace) -> None:
    """Raise an `InputError` for flags that do not go together."""
    n, split = args.n_images, args.split or "unlabeled"
    for dataset, flags in FLAGS.items():
        if dataset != args.dataset:
            cli.refuse_without(f"--dataset {dataset}", args, *flags)
    if args.url and not args.url.lower().startswith(("http://", "https://")):
        raise InputError(f"--url {args.url} is no http or https address")
    if args.dataset == "folder" and args.images is None:
        raise InputError("--dataset folder needs --images DIR, the folder of your pictures")
    if args.dataset == "photos" and n == "all":
        raise InputError("--n-images all: there is no end of crops of photographs, give a number")
    available = stl10.STL10_IMAGES[split]
    if args.dataset == "stl10" and n not in (None, "all") and n > available:
        raise InputError(
            f"--n-images {n} is more than the {available} images of STL-10's split {split}"
        )


def choose_images(args: argparse.Namespace) -> tuple[dict[str, Any], Callable[[], ImageSet]]:
    """What decides the images of ``--dataset``, for the manifest, and how to get them."""
    choose = {"stl10": _from_stl10, "photos": _from_photos, "folder": _from_folder}[args.dataset]
    parameters, load = choose(args)
    return {"dataset": args.dataset, "seed": args.seed, **parameters}, load


def _from_stl10(args: argparse.Namespace) -> tuple[dict[str, Any], Callable[[], ImageSet]]:
    split, folder = args.split or "unlabeled", args.data_dir or Path("data")
    available = stl10.STL10_IMAGES[split]
    n = available if args.n_images == "all" else args.n_images or min(N_IMAGES, available)

    def load() -> ImageSet:
        with lock_folder(folder):  # two downloads would write to the same file
            stl10.fetch_stl10(stl10.STL10_ARCHIVE, folder, split, args.url, args.archive)
        return stl10.stl10_sample(folder, split, n, args.seed)

    return {"n_images": n, "split": split}, load


def _from_photos(args: argparse.Namespace) -> tuple[dict[str, Any], Callable[[], ImageSet]]:
    n = args.n_images or N_IMAGES
    return {"n_images": n}, partial(photos.photo_crops, n, args.seed)


def _from_folder(args: argparse.Namespace) -> tuple[dict[str, Any], Callable[[], ImageSet]]:
    folder = picture_folder.scan_folder(args.images, args.threads)
    n = None if args.n_images == "all" else args.n_images
    size = args.image_size or 224
    parameters = {"images": str(args.images), "content": folder.content, "n_images": n}
    options = (n, args.seed, size, args.strict, args.threads)
    load = partial(picture_folder.folder_sample, folder, *options)
    return parameters | {"image_size": size, "strict": args.strict}, load
