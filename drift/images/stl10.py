"""STL-10: its archive fetched and unpacked, and random samples of its images."""

from pathlib import Path

import numpy as np

from drift.images import ImageSet, download

STL10_IMAGES = {"unlabeled": 100_000, "train": 5_000, "test": 8_000}
STL10_SIDE = 96
STL10_BYTES = 3 * STL10_SIDE**2


def _member(split: str, kind: str) -> str:
    """The file of a split's images, ``X``, or classes, ``y``."""
    return f"stl10_binary/{split}_{kind}.bin"


# As torchvision has them, whose class would load a whole split into memory.
STL10_ARCHIVE = download.Archive(
    url="http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
    filename="stl10_binary.tar.gz",
    size=2_640_397_119,
    md5="91f7769df0f17e558f3565bffb0c7dfb",
    members={_member(split, "X"): n * STL10_BYTES for split, n in STL10_IMAGES.items()}
    | {_member(split, "y"): STL10_IMAGES[split] for split in ("train", "test")},
)


def fetch_stl10(
    archive: download.Archive,
    data_dir: Path,
    split: str,
    url: str | None = None,
    archive_file: Path | None = None,
) -> None:
    """Put the files of a split into ``data_dir/stl10_binary``, where torchvision looks for them.

    Those that are there in full size are taken as they are: they were moved there when whole.
    `archive_file`, a copy on disk, is only read; without it the archive is fetched, maybe from a
    mirror, and kept in the folder too. One process at a time. Raises what `download.fetch` does.
    """
    missing = {}
    # The unlabeled split has no classes.
    for name in archive.members.keys() & {_member(split, "X"), _member(split, "y")}:
        path, size = data_dir / name, archive.members[name]
        if not path.exists() or path.stat().st_size != size:
            missing[name] = size
    if not missing:
        return
    if archive_file is not None:
        download.check(archive, archive_file)
    else:
        try:
            archive_file = download.fetch(archive, data_dir, url, sum(missing.values()))
        except ConnectionError as error:
            raise ConnectionError(
                f"{error}: try again later, name a mirror with --url, or a copy on disk with "
                "--archive FILE, or take --dataset photos, which needs no network"
            ) from error
    download.unpack(archive_file, missing, data_dir)


def stl10_sample(data_dir: Path, split: str, n: int, seed: int) -> ImageSet:
    """A random sample, without replacement, of a split that `fetch_stl10` has put into a folder.

    Images are of 96 x 96 pixels, in the order of the split, and mapped into memory, never loaded;
    labels are 0 to 9, or -1 for the unlabeled split. They are those of Coates, Lee and Ng (2011),
    An analysis of single-layer networks in unsupervised feature learning.
    """
    path = data_dir / _member(split, "X")
    count = path.stat().st_size // STL10_BYTES
    rows = np.sort(np.random.default_rng(seed).choice(count, size=n, replace=False))
    labels = np.full(count, -1, np.int16)
    if split != "unlabeled":  # on disk they begin with 1
        labels = np.fromfile(data_dir / _member(split, "y"), np.uint8).astype(np.int16) - 1

    def read(block: tuple[int, int]) -> np.ndarray:
        pixels = np.memmap(path, np.uint8, "r", shape=(count, 3, STL10_SIDE, STL10_SIDE))
        # On disk a channel after the other, each column by column.
        return pixels[rows[slice(*block)]].transpose(0, 3, 2, 1)

    return ImageSet([f"stl10/{split}/{row}" for row in rows], labels[rows], STL10_SIDE, read)
