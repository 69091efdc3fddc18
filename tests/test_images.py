"""Crops of the packaged photographs, STL-10 in its true format, and folders of odd pictures."""

import hashlib
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import EpsImagePlugin, Image, ImageOps
from torchvision.datasets import STL10

from drift import InputError
from drift.images import download, photos, picture_folder, stl10
from drift.pipeline.results import Results, load_array
from tests.conftest import ROOT

# Photographs


# An even photograph and a lopsided one: mixing up width and height leaves the second.
SIZES = {"wide": (900, 200), "square": (512, 512), "tall": (100, 700)}


def test_crops_lie_inside_their_photograph_and_reach_its_edges():
    for crop in photos.draw_crops(SIZES, 3000, seed=1):
        width, height = SIZES[crop.photo]
        assert 64 <= crop.side <= min(width, height)
        assert 0 <= crop.x <= width - crop.side
        assert 0 <= crop.y <= height - crop.side
    crops = photos.draw_crops({"small": (66, 67)}, 2000, seed=0)
    assert {crop.side for crop in crops} == {64, 65, 66}
    assert {crop.x for crop in crops if crop.side == 64} == {0, 1, 2}
    assert {crop.y for crop in crops if crop.side == 64} == {0, 1, 2, 3}
    crops = photos.draw_crops({"tiny": (64, 64)}, 5, seed=0)
    assert {(crop.x, crop.y, crop.side) for crop in crops} == {(0, 0, 64)}


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("x", "y", "side"), [(0, 0, 64), (31, 5, 96), (17, 60, 240)])
def test_cut_is_crop_then_resize_then_mirror(x, y, side, flip):
    pixels = np.random.default_rng(0).integers(0, 256, (300, 260, 3), dtype=np.uint8)
    photograph = Image.fromarray(pixels)
    by_hand = photograph.crop((x, y, x + side, y + side)).resize((96, 96), Image.Resampling.LANCZOS)
    by_hand = ImageOps.mirror(by_hand) if flip else by_hand

    cut = photos.Crop("noise", x, y, side, flip).cut(photograph)
    assert (cut.shape, cut.dtype) == ((96, 96, 3), np.uint8)
    np.testing.assert_array_equal(cut, np.asarray(by_hand))


def test_photo_crops_are_seeded_described_and_the_same_bytes_in_any_blocks(no_network):
    originals, chosen = photos.photographs(), photos.photo_crops(23, seed=7)
    whole = chosen.read((0, 23))
    assert (whole.shape, whole.dtype, chosen.size) == ((23, 96, 96, 3), np.uint8, 96)
    np.testing.assert_array_equal(chosen.read((3, 9)), whole[3:9])
    # More of them begin alike.
    more = photos.photo_crops(40, seed=7)
    blocks = [more.read((start, min(start + 5, 23))) for start in range(0, 23, 5)]
    np.testing.assert_array_equal(np.concatenate(blocks), whole)
    assert photos.photo_crops(23, seed=8).sources != chosen.sources

    assert (chosen.labels.dtype, chosen.labels.tolist()) == (np.int16, [-1] * 23)
    pattern = re.compile(r"photos/(\w+)/x(\d+)_y(\d+)_s(\d+)(_flip)?")
    for row, source in enumerate(chosen.sources):
        photo, x, y, side, flip = pattern.fullmatch(source).groups()
        crop = photos.Crop(photo, int(x), int(y), int(side), flip is not None)
        np.testing.assert_array_equal(whole[row], crop.cut(originals[photo]))
        assert chosen.groups[row] == photos.PHOTOGRAPHS.index(photo)


# STL-10

SPLITS = {"train": 12, "test": 7, "unlabeled": 20}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """An archive in STL-10's format: its content, and the pixels as (N, row, column, channel)."""
    folder = tmp_path_factory.mktemp("archive") / "stl10_binary"
    folder.mkdir()
    rng = np.random.default_rng(9)
    pixels, labels = {}, {"unlabeled": np.full(SPLITS["unlabeled"], -1)}
    for split, n in SPLITS.items():
        pixels[split] = rng.integers(0, 256, (n, 96, 96, 3), dtype=np.uint8)
        # On disk a channel after the other, each column by column.
        (folder / f"{split}_X.bin").write_bytes(pixels[split].transpose(0, 3, 2, 1).tobytes())
    for split in ("train", "test"):
        labels[split] = np.arange(SPLITS[split]) * 7 % 10
        (folder / f"{split}_y.bin").write_bytes((labels[split] + 1).astype(np.uint8).tobytes())
    (folder / "class_names.txt").write_text("\n".join(f"class{label}" for label in range(10)))
    file = folder.with_name("stl10_binary.tar.gz")
    with tarfile.open(file, "w:gz") as tar:
        tar.add(folder, "stl10_binary")
    members = {f"stl10_binary/{path.name}": path.stat().st_size for path in folder.glob("*.bin")}
    return SimpleNamespace(
        folder=folder.parent, file=file, pixels=pixels, labels=labels, members=members
    )


@pytest.fixture
def archive(dataset, host):
    """The archive of the test, as `STL10_ARCHIVE` describes the true one."""
    host.content = content = dataset.file.read_bytes()
    md5, members = hashlib.md5(content).hexdigest(), dataset.members
    return download.Archive(host.url, dataset.file.name, len(content), md5, members)


def test_the_true_archive_is_the_one_that_torchvision_knows():
    archive = stl10.STL10_ARCHIVE

    assert (archive.url, archive.filename) == (STL10.url, STL10.filename)
    assert (archive.md5, archive.size) == (STL10.tgz_md5, 2_640_397_119)
    names = {name for name, _ in STL10.train_list + STL10.test_list}
    assert {Path(name).name for name in archive.members} == names
    assert stl10.STL10_IMAGES == {"unlabeled": 100_000, "train": 5_000, "test": 8_000}


def test_what_is_unpacked_already_is_used_as_it_is(tmp_path, archive, host, dataset):
    folder = tmp_path / "stl10_binary"  # of torchvision, say
    shutil.copytree(dataset.folder / "stl10_binary", folder)
    for split in SPLITS:
        stl10.fetch_stl10(archive, tmp_path, split)
    assert host.requests == []

    before = (folder / "train_X.bin").stat().st_mtime_ns
    (folder / "train_y.bin").unlink()
    stl10.fetch_stl10(archive, tmp_path, "train")
    assert (folder / "train_y.bin").exists()
    assert (folder / "train_X.bin").stat().st_mtime_ns == before

    os.truncate(folder / "train_X.bin", 27648)
    stl10.fetch_stl10(archive, tmp_path, "train")
    assert (folder / "train_X.bin").stat().st_size == 12 * 27648


def test_an_archive_on_disk_is_only_read(tmp_path, archive, host, dataset):
    mine, content = tmp_path / "copy.tgz", dataset.file.read_bytes()
    mine.write_bytes(content[:-1] + b"x")
    with pytest.raises(InputError, match=rf"{mine} is not stl10_binary.tar.gz"):
        stl10.fetch_stl10(archive, tmp_path / "data", "test", archive_file=mine)
    assert mine.read_bytes() == content[:-1] + b"x"
    assert not (tmp_path / "data").exists()

    mine.write_bytes(content)
    before = mine.stat().st_mtime_ns
    stl10.fetch_stl10(archive, tmp_path / "data", "test", archive_file=mine)
    assert (mine.read_bytes(), mine.stat().st_mtime_ns) == (content, before)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["stl10_binary"]
    assert host.requests == []


@pytest.mark.parametrize("split", SPLITS)
def test_stl10_sample_is_seeded_ascending_and_upright_in_rgb(split, dataset):
    def sample(n, seed):
        chosen = stl10.stl10_sample(dataset.folder, split, n, seed)
        rows = [int(source.removeprefix(f"stl10/{split}/")) for source in chosen.sources]
        assert rows == sorted(set(rows))
        np.testing.assert_array_equal(chosen.read((0, n)), dataset.pixels[split][rows])
        np.testing.assert_array_equal(chosen.read((2, 5)), dataset.pixels[split][rows[2:5]])
        assert (chosen.size, chosen.labels.dtype) == (96, np.int16)
        np.testing.assert_array_equal(chosen.labels, dataset.labels[split][rows])
        return tuple(rows)

    n = SPLITS[split]
    assert sample(n, seed=0) == tuple(range(n))
    draws = [sample(6, seed) for seed in range(20)]
    assert draws[3] == sample(6, seed=3)
    assert {row for draw in draws for row in draw} == set(range(n))


def test_stl10_images_are_those_of_torchvision(dataset, monkeypatch):
    monkeypatch.setattr(STL10, "_check_integrity", lambda _: True)
    theirs = STL10(dataset.folder, split="train")
    ours = stl10.stl10_sample(dataset.folder, "train", 12, seed=0)

    np.testing.assert_array_equal(ours.read((0, 12)), [np.asarray(image) for image, _ in theirs])
    assert ours.labels.tolist() == [label for _, label in theirs]


def test_stl10_is_mapped_and_let_go(tmp_path):
    # 276 MB, of which the disk holds nothing.
    (tmp_path / "stl10_binary").mkdir()
    path = tmp_path / "stl10_binary" / "unlabeled_X.bin"
    path.touch()
    os.truncate(path, 10_000 * 27_648)
    code = f"""
import pathlib, resource
from drift.images import stl10
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
chosen = stl10.stl10_sample(pathlib.Path({str(tmp_path)!r}), "unlabeled", 10_000, seed=0)
for start in range(0, 10_000, 300):
    chosen.read((start, min(start + 300, 10_000)))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True).stdout
    assert int(out) * (1 if sys.platform == "darwin" else 1024) < 100e6


# Folders of pictures


def gradient_picture(seed=0, shape=(50, 40)):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8))


GOOD = ["ant/c.jpg", "ant/e.TIF", "d.bmp", "zebra/a.png", "zebra/deep/b.png"]
BROKEN = ["letter.png", "nothing.jpg", "zebra/broken.png"]


@pytest.fixture
def pictures(tmp_path):
    """Pictures of two classes and of none, others to ignore, and three that are broken."""
    root = tmp_path / "my pictures"
    for seed, name in enumerate(GOOD):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        gradient_picture(seed).save(root / name)
    (root / "ant" / "without_suffix").write_bytes((root / "ant" / "c.jpg").read_bytes())
    (root / "notes.txt").write_text("no picture")
    (root / "ant" / "table.csv").write_text("1,2,3")
    (root / ".hidden.png").write_bytes((root / "d.bmp").read_bytes())
    (root / ".git").mkdir()
    gradient_picture().save(root / ".git" / "f.png")
    (root / "empty").mkdir()
    whole = (root / "zebra/a.png").read_bytes()
    (root / "zebra" / "broken.png").write_bytes(whole[: len(whole) // 2])
    (root / "nothing.jpg").write_bytes(b"")
    (root / "letter.png").write_text("Dear Sir or Madam")
    return root


def take(root, n=None, seed=0, size=16, strict=False, threads=None):
    folder = picture_folder.scan_folder(root, threads)
    return picture_folder.folder_sample(folder, n, seed, size, strict, threads)


def test_the_suffix_decides_what_is_a_picture(pictures, monkeypatch):
    monkeypatch.setattr(Image, "open", None)  # nothing is decoded
    folder = picture_folder.scan_folder(pictures, None)

    assert {path.as_posix() for path in folder.pictures} == {*GOOD, *BROKEN}
    assert folder.pictures == sorted(folder.pictures)
    assert folder.ignored == 4  # the notes, the table, the hidden picture, the one without a suffix


def test_formats_are_known_by_their_suffixes(tmp_path):
    names = {f"x.{suffix}" for suffix in ("jpg", "png", "gif", "tif", "webp", "mpo", "jp2", "ppm")}
    for name in names:
        gradient_picture().save(tmp_path / name)
    (tmp_path / "notes.mpo.txt").write_text("no picture")
    assert {Path(source).name for source in take(tmp_path).sources} == names


def test_the_pictures_of_a_folder_with_sources_and_labels(pictures):
    chosen = take(pictures, size=24)

    assert chosen.sources == [str(pictures / name) for name in GOOD]
    assert (chosen.labels.dtype, chosen.labels.tolist()) == (np.int16, [0, 0, -1, 1, 1])
    assert (chosen.size, chosen.ignored) == (24, 4)
    read = chosen.read((0, 5))
    assert (read.shape, read.dtype) == ((5, 24, 24, 3), np.uint8)
    for row, name in enumerate(GOOD):
        with Image.open(pictures / name) as image:
            np.testing.assert_array_equal(read[row], picture_folder.square(image, 24))
    np.testing.assert_array_equal(chosen.read((1, 3)), read[1:3])

    reasons = zip(BROKEN, ("identify", "identify", "truncated"), strict=True)
    for name, reason in reasons:
        assert reason in chosen.skipped.pop(str(pictures / name))
    assert chosen.skipped == {}
    with pytest.raises(InputError, match=r"letter.png is broken .*--strict"):
        take(pictures, strict=True)


def test_a_sample_of_a_folder_is_seeded_and_skips_what_is_broken(pictures):
    labels = dict(zip((str(pictures / n) for n in GOOD), [0, 0, -1, 1, 1], strict=True))
    drawn = set()
    for seed in range(20):
        chosen = take(pictures, 3, seed)
        assert len(chosen.sources) == 3
        assert chosen.sources == sorted(set(chosen.sources))
        assert chosen.sources == take(pictures, 3, seed, threads=1).sources
        drawn.add(tuple(chosen.sources))
        assert chosen.labels.tolist() == [labels[source] for source in chosen.sources]
    assert {source for draw in drawn for source in draw} == set(labels)
    assert len(drawn) > 3


def test_a_folder_with_too_few_or_none_is_an_error(pictures, tmp_path):
    for n in (6, 9):  # of all files and of more than there are
        with pytest.raises(InputError, match=rf"5 pictures .* 3 that cannot, .* --n-images {n}"):
            take(pictures, n)
    for name in GOOD:
        (pictures / name).unlink()
    with pytest.raises(InputError, match="0 pictures that can be read and 3 that cannot"):
        take(pictures)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "x.txt").write_text("x")
    with pytest.raises(InputError, match=r"of a format that is read, .*; and 1 other"):
        take(tmp_path / "empty")


def test_the_content_of_a_folder_is_names_and_bytes(pictures, tmp_path):
    def content(root=pictures):
        return picture_folder.scan_folder(root, None).content

    before, path = content(), pictures / "d.bmp"
    assert len(before) == 64
    assert content(shutil.copytree(pictures, tmp_path / "copy")) == before
    (pictures / "notes.txt").write_text("other notes")
    os.utime(path, (1, 1))
    assert content() == before

    # Another picture of the same size and date.
    pixels, stat = bytearray(path.read_bytes()), path.stat()
    pixels[-1] ^= 1
    path.write_bytes(pixels)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    changed = content()
    path.rename(pictures / "dd.bmp")  # at the same place in the order
    renamed = content()
    (pictures / "nothing.jpg").unlink()
    assert len({before, changed, renamed, content()}) == 4


def test_links_to_folders_are_followed_once_and_pipes_not_opened(pictures, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    gradient_picture().save(tmp_path / "elsewhere" / "x.png")
    (pictures / "linked").symlink_to(tmp_path / "elsewhere")
    (pictures / "ant" / "up").symlink_to(pictures)
    (pictures / "dangling.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(pictures / "pipe.png")
    names = {path.as_posix() for path in picture_folder.scan_folder(pictures, None).pictures}

    assert names == {*GOOD, *BROKEN, "linked/x.png"}


def test_names_that_are_no_text_are_kept_apart(tmp_path):
    for name in (b"\xff.png", b"\xfe.png"):
        gradient_picture().save(tmp_path / "x.png")
        os.rename(tmp_path / "x.png", os.fsencode(tmp_path) + b"/" + name)  # noqa: PTH104
    sources = take(tmp_path).sources

    assert len({source.encode() for source in sources}) == 2


def test_a_decompression_bomb_is_a_broken_picture(pictures, monkeypatch):
    for name, shape in (("bomb", (100, 100)), ("large", (70, 70)), ("whole", (80, 50))):
        gradient_picture(shape=shape).save(pictures / f"{name}.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow warns of the large one, and we say why
        chosen = take(pictures)

    for name in ("bomb", "large"):
        assert "decompression bomb" in chosen.skipped[str(pictures / f"{name}.png")]
    assert len(chosen.skipped) == len(BROKEN) + 2
    assert str(pictures / "whole.png") in chosen.sources


def test_of_large_pictures_one_at_a_time_is_decoded(pictures, monkeypatch):
    inside, most, square = [], [], picture_folder.square

    def watch(image, size):
        large = image.width * image.height > 2000
        inside.extend([1] * large)
        most.append(len(inside))
        time.sleep(0.02)
        pixels = square(image, size)
        del inside[: 1 * large]
        return pixels

    for i in range(4):
        gradient_picture(i, (60, 50)).save(pictures / f"large {i}.png")
    monkeypatch.setattr(picture_folder, "square", watch)
    monkeypatch.setattr(picture_folder, "LARGE", 2000)
    assert len(take(pictures, threads=8).sources) == len(GOOD) + 4
    assert max(most) == 1


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"


def test_what_another_program_would_decode_is_no_picture(pictures, monkeypatch):
    """Whatever the name says: Ghostscript is given no file of others."""
    (pictures / "drawing.eps").write_bytes(EPS)
    (pictures / "drawing.png").write_bytes(EPS)
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", None)  # it would be called
    chosen = take(pictures)
    assert chosen.ignored == 5
    assert "cannot identify" in chosen.skipped.pop(str(pictures / "drawing.png"))
    assert len(chosen.skipped) == len(BROKEN)


def test_a_picture_of_a_thousand_times_its_height_needs_no_more_memory(tmp_path):
    Image.new("RGB", (60_000, 2), (10, 20, 30)).save(tmp_path / "strip.png")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read = take(tmp_path, size=224).read((0, 1))

    assert (read == (10, 20, 30)).all()
    unit = 1 if sys.platform == "darwin" else 1024
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit < 500e6


# A picture that no turn and no mirror leaves as it is: red, green | blue, white.
QUARTERS = np.zeros((40, 40, 3), np.uint8)
QUARTERS[:20, :20] = (255, 0, 0)
QUARTERS[:20, 20:] = (0, 255, 0)
QUARTERS[20:, :20] = (0, 0, 255)
QUARTERS[20:, 20:] = (255, 255, 255)


def quarters(pixels):
    """The colors in the middle of the four quarters."""
    near = len(pixels) // 4
    far = len(pixels) - 1 - near
    return [tuple(map(int, pixels[y, x])) for y in (near, far) for x in (near, far)]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation, tmp_path):
    undo = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE"}
    undo |= {6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"}  # counterclockwise, as Pillow turns
    stored = Image.fromarray(QUARTERS)
    if orientation > 1:
        stored = stored.transpose(Image.Transpose[undo[orientation]])
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "x.png", exif=exif)

    assert quarters(picture_folder.read_square(tmp_path / "x.png", 20)) == quarters(QUARTERS)


@pytest.mark.parametrize("side", [7, 16, 90])
def test_the_short_side_is_resized_by_lanczos_and_the_center_cropped(side):
    image = gradient_picture(3, (side, 3 * side))
    by_hand = image.resize((48, 16), Image.Resampling.LANCZOS).crop((16, 0, 32, 16))
    np.testing.assert_array_equal(picture_folder.square(image, 16), by_hand)

    tall = np.zeros((120, 40, 3), np.uint8)
    tall[40:80] = QUARTERS
    np.testing.assert_array_equal(picture_folder.square(Image.fromarray(tall), 40), QUARTERS)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV", "RGBX"])
def test_any_mode_becomes_rgb(mode):
    image = Image.fromarray(QUARTERS).convert(mode)

    expected = quarters(np.asarray(image.convert("RGB")))
    np.testing.assert_allclose(quarters(picture_folder.square(image, 40)), expected, atol=2)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "PA", "RGBa"])
def test_alpha_is_composited_on_white(mode):
    black = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    black.paste((0, 0, 0, 255), (0, 0, 4, 8))
    black.paste((0, 0, 0, 128), (0, 0, 4, 4))
    image = black.convert("P").convert(mode) if mode == "PA" else black.convert(mode)
    if mode == "PA":
        image.putalpha(black.getchannel("A"))
    pixels = picture_folder.square(image, 8)

    np.testing.assert_allclose(pixels[2, 1], 127, atol=1)
    assert (pixels[6, 1] == 0).all()
    assert (pixels[:, 6] == 255).all()


@pytest.mark.parametrize(
    ("mode", "suffix"), [("L", "png"), ("RGB", "png"), ("P", "png"), ("P", "gif")]
)
def test_a_transparent_color_is_white(mode, suffix, tmp_path):
    black, gray = (0, 100) if mode != "RGB" else ((0, 0, 0), (100, 100, 100))
    image = Image.new(mode, (8, 8), black)
    image.paste(gray, (0, 0, 4, 8))
    if mode == "P":
        image.putpalette(bytes(range(256)) * 3, "RGB;L")
    image.save(tmp_path / f"x.{suffix}", transparency=black)
    pixels = picture_folder.read_square(tmp_path / f"x.{suffix}", 8)

    assert (pixels[:, 6] == 255).all()
    assert (pixels[:, 1] == 100).all()


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.pgm"])
def test_gray_of_16_bits_keeps_its_range(name, tmp_path):
    ramp = np.arange(0, 65536, 257, dtype=np.uint16)
    ramp[1:] -= 1  # of two that differ by one the darker
    Image.fromarray(np.tile(ramp, (256, 1))).save(tmp_path / name)
    pixels = picture_folder.read_square(tmp_path / name, 256)

    np.testing.assert_array_equal(pixels[100, :, 0], np.maximum(np.arange(256) - 1, 0))
    assert (pixels == pixels[..., :1]).all()


def test_pixels_without_a_known_range_are_broken_by_name(tmp_path):
    Image.fromarray(np.ones((9, 9), np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(np.full((9, 9), 70_000, np.int32)).save(tmp_path / "int.tif")
    Image.fromarray(np.full((9, 9), -1, np.int32)).save(tmp_path / "negative.tif")
    gradient_picture().save(tmp_path / "x.png")
    chosen = take(tmp_path)

    assert chosen.sources == [str(tmp_path / "x.png")]
    assert len(chosen.skipped) == 3
    assert all("known range" in reason for reason in chosen.skipped.values())


# From the command line


@pytest.fixture
def stage01(drive, tmp_path):
    """Stage 01 from the command line: status, output, error output."""
    return lambda *args: drive("01_download_stl10.py", *args, results=tmp_path / "results")


@pytest.fixture
def local(archive, tmp_path, monkeypatch):
    """The flags with which stage 01 takes the archive of the test for STL-10's."""
    monkeypatch.setattr(stl10, "STL10_ARCHIVE", archive)
    monkeypatch.setattr(stl10, "STL10_IMAGES", SPLITS)
    return "--data-dir", tmp_path / "data"


def test_stage_01_fetches_once_and_unpacks_the_split_asked_for(
    stage01, local, host, dataset, tmp_path
):
    results, names = Results(tmp_path / "results"), set()
    for split, flags, n in (
        ("train", ("--n-images", "all"), 12),
        ("test", (), 7),
        ("unlabeled", ("--n-images", "5"), 5),
    ):
        flags = ("--split", split, *local, *flags)
        status, out, err = stage01(*flags)
        assert (status, err) == (0, "")
        assert f"{n} images in" in out
        results.require("01_images.npy", "01_images.parquet")
        table = pd.read_parquet(results.path("01_images.parquet"))
        rows = table["source"].str.removeprefix(f"stl10/{split}/").astype(int)
        np.testing.assert_array_equal(
            load_array(results.path("01_images.npy")), dataset.pixels[split][rows]
        )
        assert table["label"].tolist() == dataset.labels[split][rows].tolist()
        names |= {f"{split}_X.bin", f"{split}_y.bin"} - {"unlabeled_y.bin"}
        assert {path.name for path in (tmp_path / "data/stl10_binary").iterdir()} == names
    assert len(host.requests) == 1

    shutil.rmtree(tmp_path / "data")
    status, out, err = stage01(*flags)
    assert (status, err) == (0, "")
    assert "up to date" in out
    assert len(host.requests) == 1


def test_stage_01_takes_a_mirror(stage01, local, host, dataset):
    asked = []
    host.answers.append(lambda handler: asked.append(handler.path) or handler.serve())
    status, _, err = stage01(*local, "--url", f"{host.url}?mirror")
    assert (status, err, asked) == (0, "", ["/stl10_binary.tar.gz?mirror"])


def test_stage_01_on_a_folder(stage01, pictures, tmp_path):
    flags = ("--dataset", "folder", "--images", pictures)
    status, out, err = stage01(*flags)
    assert (status, err) == (0, "")
    assert "5 images in" in out
    assert "broken pictures skipped: 3, files ignored: 4" in out
    assert f"{pictures / 'nothing.jpg'} (" in out
    results = Results(tmp_path / "results")
    assert load_array(results.path("01_images.npy")).shape == (5, 224, 224, 3)
    manifest = results.manifest("01_images")
    assert set(manifest["skipped"]) == {str(pictures / name) for name in BROKEN}
    assert "up to date" in stage01(*flags)[1]

    status, _, err = stage01(*flags, "--image-size", "32", "--strict")
    assert (status, err.count("\n")) == (2, 1)
    assert "letter.png is broken" in err
    (pictures / "d.bmp").unlink()
    assert "up to date" not in stage01(*flags, "--image-size", "32")[1]
    assert load_array(results.path("01_images.npy")).shape == (4, 32, 32, 3)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dataset", "folder", "--images", "nowhere"], "nowhere is not a folder"),
        (["--archive", "nowhere.tgz"], "nowhere.tgz is not there"),
    ],
)
def test_stage_01_refuses_in_one_line(flags, message, stage01, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = stage01(*flags)

    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not (tmp_path / "results").exists()


def test_stage_01_names_a_full_disk_and_a_host_that_is_gone(
    stage01, local, host, archive, tmp_path, monkeypatch
):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/x"
        status, _, err = stage01(*local, "--url", url)
    assert (status, err.count("\n")) == (2, 1)
    for part in (url, "--url", "--archive FILE", "--dataset photos"):
        assert part in err

    need = archive.size + 12 * 27648 + 12  # room for the archive and for the split
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=need - 1))
    status, _, err = stage01(*local, "--split", "train")
    assert (status, err.count("\n")) == (2, 1)
    assert f"needs {need:,} bytes" in err
    assert "1 too few" in err
    assert host.requests == []
