"""Crops of the packaged photographs, STL-10 in its true format, and folders of odd pictures."""

import contextlib
import hashlib
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from PIL import Image, ImageOps
from torchvision.datasets import STL10

from drift import InputError
from drift.images import download, photos, picture_folder, stl10
from drift.pipeline.results import Results

ROOT = Path(__file__).parent.parent
SPLITS = {"train": 12, "test": 7, "unlabeled": 20}

# An even photograph and a lopsided one: mixing up width and height leaves the second.
SIZES = {"wide": (900, 200), "square": (512, 512), "tall": (100, 700)}


def test_all_fifteen_photographs_load_as_rgb():
    photographs = photos.photographs()

    assert len(photographs) == 15
    assert set(photographs) == set(photos.PHOTOGRAPHS)
    assert all(photo.mode == "RGB" for photo in photographs.values())
    assert all(min(photo.size) > photos.SMALLEST_SIDE for photo in photographs.values())


def test_crops_lie_inside_their_photograph():
    for crop in photos.draw_crops(SIZES, 3000, seed=1):
        width, height = SIZES[crop.photo]
        assert 64 <= crop.side <= min(width, height)
        assert 0 <= crop.x <= width - crop.side
        assert 0 <= crop.y <= height - crop.side


def test_crops_reach_every_edge_of_a_photograph():
    crops = photos.draw_crops({"small": (66, 67)}, 2000, seed=0)

    assert {crop.side for crop in crops} == {64, 65, 66}
    assert {crop.x for crop in crops if crop.side == 64} == {0, 1, 2}
    assert {crop.y for crop in crops if crop.side == 64} == {0, 1, 2, 3}


def test_a_photograph_of_the_smallest_side_is_taken_whole():
    crops = photos.draw_crops({"tiny": (64, 64)}, 5, seed=0)

    assert {(crop.x, crop.y, crop.side) for crop in crops} == {(0, 0, 64)}


def test_the_side_of_a_crop_is_log_uniform():
    crops = photos.draw_crops({"large": (4000, 3000)}, 4000, seed=2)
    sides = np.log([crop.side for crop in crops])

    low, span = np.log(64), np.log(3000 / 64)
    assert scipy.stats.kstest(sides, "uniform", args=(low, span)).pvalue > 0.01
    assert sides.min() < low + 0.01 * span
    assert sides.max() > low + 0.99 * span


def test_the_place_of_a_crop_is_uniform_and_each_draw_is_independent():
    crops = photos.draw_crops({"large": (4000, 3000)}, 4000, seed=3)
    left = [crop.x / (4000 - crop.side) for crop in crops if crop.side < 2000]
    top = [crop.y / (3000 - crop.side) for crop in crops if crop.side < 2000]
    scale = [np.log(crop.side) for crop in crops if crop.side < 2000]

    assert scipy.stats.kstest(left, "uniform").pvalue > 0.01
    assert scipy.stats.kstest(top, "uniform").pvalue > 0.01
    for first, second in ((left, top), (left, scale), (top, scale)):
        assert abs(np.corrcoef(first, second)[0, 1]) < 0.06


def test_half_of_the_crops_are_mirrored_and_each_photograph_is_as_frequent():
    crops = photos.draw_crops(SIZES, 3000, seed=4)

    for name in SIZES:
        mirrored = [crop.flip for crop in crops if crop.photo == name]
        assert scipy.stats.binomtest(len(mirrored), len(crops), 1 / 3).pvalue > 0.001
        assert scipy.stats.binomtest(sum(mirrored), len(mirrored), 0.5).pvalue > 0.001


def test_the_seed_decides_the_crops_and_more_of_them_begin_alike():
    crops = photos.draw_crops(SIZES, 300, seed=5)

    assert crops == photos.draw_crops(SIZES, 300, seed=5)
    assert crops[:100] == photos.draw_crops(SIZES, 100, seed=5)
    assert crops != photos.draw_crops(SIZES, 300, seed=6)


@pytest.mark.parametrize(("flip", "end"), [(False, ""), (True, "_flip")])
def test_the_source_of_a_crop_names_its_square(flip, end):
    crop = photos.Crop("coffee", x=31, y=5, side=120, flip=flip)

    assert crop.source == f"photos/coffee/x31_y5_s120{end}"


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("x", "y", "side"), [(0, 0, 64), (31, 5, 96), (17, 60, 240)])
def test_cut_is_crop_then_resize_then_mirror(x, y, side, flip):
    pixels = np.random.default_rng(0).integers(0, 256, (300, 260, 3), dtype=np.uint8)
    photograph = Image.fromarray(pixels)
    by_hand = photograph.crop((x, y, x + side, y + side)).resize((96, 96), Image.Resampling.LANCZOS)
    if flip:
        by_hand = ImageOps.mirror(by_hand)

    cut = photos.Crop("noise", x, y, side, flip).cut(photograph)

    assert cut.shape == (96, 96, 3)
    assert cut.dtype == np.uint8
    np.testing.assert_array_equal(cut, np.asarray(by_hand))


@pytest.mark.parametrize("side", [70, 250])
def test_cut_of_a_whole_photograph_is_resized_by_lanczos(side):
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    photograph = Image.fromarray(pixels)

    cut = photos.Crop("noise", 0, 0, side, flip=False).cut(photograph)

    np.testing.assert_array_equal(cut, photograph.resize((96, 96), Image.Resampling.LANCZOS))


def test_photo_crops_are_the_same_bytes_in_any_blocks():
    chosen = photos.photo_crops(23, seed=7)
    whole = chosen.read(0, 23)
    again = photos.photo_crops(40, seed=7)
    in_blocks = [again.read(start, min(start + 5, 23)) for start in range(0, 23, 5)]

    assert whole.shape == (23, 96, 96, 3)
    assert whole.dtype == np.uint8
    np.testing.assert_array_equal(np.concatenate(in_blocks), whole)
    np.testing.assert_array_equal(chosen((3, 9)), whole[3:9])


def test_photo_crops_are_described_as_they_are_read():
    originals = photos.photographs()
    chosen = photos.photo_crops(30, seed=8)

    assert chosen.size == 96
    assert chosen.labels.dtype == np.int16
    assert (chosen.labels == -1).all()
    assert len(chosen.labels) == len(chosen.sources) == 30
    pattern = re.compile(r"photos/(\w+)/x(\d+)_y(\d+)_s(\d+)(_flip)?")
    for row, source in enumerate(chosen.sources):
        photo, x, y, side, flip = pattern.fullmatch(source).groups()
        crop = photos.Crop(photo, int(x), int(y), int(side), flip is not None)
        np.testing.assert_array_equal(chosen.read(row, row + 1)[0], crop.cut(originals[photo]))


def test_the_light_part_imports_nothing_heavy():
    code = (
        "import sys, drift.images; print(*{'numpy', 'PIL', 'skimage', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)

    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_photo_crops_need_no_network(monkeypatch):
    def refuse(*_):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)

    assert photos.photo_crops(4, seed=0).read(0, 4).shape == (4, 96, 96, 3)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """An archive in STL-10's format: its content, and the pixels as (N, row, column, channel)."""
    folder = tmp_path_factory.mktemp("archive") / "stl10_binary"
    folder.mkdir()
    rng = np.random.default_rng(9)
    pixels, labels = {}, {}
    for split, n in SPLITS.items():
        pixels[split] = rng.integers(0, 256, (n, 96, 96, 3), dtype=np.uint8)
        # Corners and channels that nobody can mix up.
        pixels[split][:, 0, 0] = (10, 20, 30)
        pixels[split][:, 0, -1] = (40, 50, 60)
        pixels[split][:, -1, 0] = (70, 80, 90)
        pixels[split][:, -1, -1] = (100, 110, 120)
        # On disk a channel after the other, each column by column.
        (folder / f"{split}_X.bin").write_bytes(pixels[split].transpose(0, 3, 2, 1).tobytes())
    for split in ("train", "test"):
        labels[split] = np.arange(SPLITS[split]) * 7 % 10
        (folder / f"{split}_y.bin").write_bytes((labels[split] + 1).astype(np.uint8).tobytes())
    (folder / "class_names.txt").write_text("\n".join(f"class{label}" for label in range(10)))
    archive = folder.with_name("stl10_binary.tar.gz")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, "stl10_binary")
    members = {f"stl10_binary/{path.name}": path.stat().st_size for path in folder.glob("*.bin")}
    content = archive.read_bytes()
    return SimpleNamespace(
        folder=folder.parent,
        file=archive,
        content=content,
        pixels=pixels,
        labels=labels,
        md5=hashlib.md5(content).hexdigest(),
        members=members,
    )


@pytest.fixture
def host(dataset, monkeypatch):
    """A host on this machine that has the archive, and counts how often it was asked."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "BACKOFF", ())
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(dataset.content)))
            self.end_headers()
            self.wfile.write(dataset.content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/stl10_binary.tar.gz"
    yield SimpleNamespace(requests=requests, url=url)
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def archive(dataset, host):
    """The archive of the test, as `STL10_ARCHIVE` describes the true one."""
    name = "stl10_binary.tar.gz"
    return download.Archive(host.url, name, len(dataset.content), dataset.md5, dataset.members)


def test_the_true_archive_is_the_one_that_torchvision_knows():
    archive = stl10.STL10_ARCHIVE

    assert (archive.url, archive.filename) == (STL10.url, STL10.filename)
    assert (archive.md5, archive.size) == (STL10.tgz_md5, 2_640_397_119)
    assert {Path(name).name for name in archive.members} == {
        name for name, _ in STL10.train_list + STL10.test_list
    }
    assert archive.members["stl10_binary/unlabeled_X.bin"] == 2_764_800_000
    assert archive.members["stl10_binary/train_y.bin"] == 5000
    counts = [stl10.stl10_count(archive, split) for split in ("unlabeled", "train", "test")]
    assert counts == [100_000, 5_000, 8_000]


@pytest.mark.parametrize("split", SPLITS)
def test_fetching_unpacks_the_split_that_is_asked_for(split, tmp_path, archive, dataset):
    stl10.fetch_stl10(archive, tmp_path / "data", split)

    labels = {f"{split}_y.bin"} - {"unlabeled_y.bin"}
    unpacked = tmp_path / "data" / "stl10_binary"
    assert {path.name for path in unpacked.iterdir()} == {f"{split}_X.bin"} | labels
    for path in unpacked.iterdir():
        assert path.read_bytes() == (dataset.folder / "stl10_binary" / path.name).read_bytes()
    assert (tmp_path / "data" / "stl10_binary.tar.gz").read_bytes() == dataset.content


def test_the_archive_is_fetched_once_for_all_splits(tmp_path, archive, host):
    for split in (*SPLITS, *SPLITS):
        stl10.fetch_stl10(archive, tmp_path, split)

    assert len(host.requests) == 1


def test_a_whole_split_needs_no_archive(tmp_path, archive, host, monkeypatch):
    stl10.fetch_stl10(archive, tmp_path, "train")
    (tmp_path / "stl10_binary.tar.gz").write_bytes(b"not looked at")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    stl10.fetch_stl10(archive, tmp_path, "train")

    assert len(host.requests) == 1


def test_a_folder_of_torchvision_is_used_as_it_is(tmp_path, archive, host, dataset):
    shutil.copytree(dataset.folder / "stl10_binary", tmp_path / "stl10_binary")
    for split in SPLITS:
        stl10.fetch_stl10(archive, tmp_path, split)

    assert host.requests == []


def test_only_the_file_that_is_missing_is_unpacked(tmp_path, archive):
    stl10.fetch_stl10(archive, tmp_path, "train")
    folder = tmp_path / "stl10_binary"
    before = (folder / "train_X.bin").stat().st_mtime_ns
    (folder / "train_y.bin").unlink()
    stl10.fetch_stl10(archive, tmp_path, "train")

    assert (folder / "train_y.bin").exists()
    assert (folder / "train_X.bin").stat().st_mtime_ns == before


def test_a_file_cut_off_is_named_and_left_alone(tmp_path, archive, host):
    path = tmp_path / "stl10_binary" / "train_X.bin"
    path.parent.mkdir()
    path.write_bytes(b"x" * 27648)
    with pytest.raises(InputError, match=rf"{path} has 27,648 .* {12 * 27648:,}.*remove it"):
        stl10.fetch_stl10(archive, tmp_path, "train")

    assert path.stat().st_size == 27648
    assert host.requests == []


def test_an_archive_on_disk_is_only_read(tmp_path, archive, host, dataset):
    mine = tmp_path / "mine" / "copy.tgz"
    mine.parent.mkdir()
    mine.write_bytes(dataset.content)
    before = mine.stat().st_mtime_ns
    stl10.fetch_stl10(archive, tmp_path / "data", "test", archive_file=mine)

    assert host.requests == []
    assert (mine.read_bytes(), mine.stat().st_mtime_ns) == (dataset.content, before)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["stl10_binary"]


def test_another_archive_on_disk_is_refused(tmp_path, archive, dataset):
    mine = tmp_path / "copy.tgz"
    mine.write_bytes(dataset.content[:-1] + b"x")
    with pytest.raises(InputError, match=rf"{mine} is not stl10_binary.tar.gz"):
        stl10.fetch_stl10(archive, tmp_path / "data", "test", archive_file=mine)

    assert mine.read_bytes() == dataset.content[:-1] + b"x"
    assert not (tmp_path / "data").exists()


def test_the_disk_must_hold_the_archive_and_the_split(tmp_path, archive, host, monkeypatch):
    need = archive.size + 12 * 27648 + 12
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=need - 1))
    with pytest.raises(InputError, match=f"needs {need:,} bytes .* 1 too few"):
        stl10.fetch_stl10(archive, tmp_path, "train")

    assert host.requests == []


def test_what_cannot_be_fetched_says_what_to_do(tmp_path, archive):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/stl10.tar.gz"
        with pytest.raises(ConnectionError) as caught:
            stl10.fetch_stl10(archive, tmp_path, "train", url)
    for part in (url, "refused", "--url", "--archive FILE", "--dataset photos"):
        assert part in str(caught.value)


@pytest.mark.parametrize("split", SPLITS)
def test_stl10_images_stand_upright_in_rgb(split, dataset):
    pixels = dataset.pixels[split]
    chosen = stl10.stl10_sample(dataset.folder, split, len(pixels), seed=0)
    read = chosen.read(0, len(pixels))

    assert chosen.size == 96
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, pixels)
    np.testing.assert_array_equal(read[3, 0, -1], (40, 50, 60))
    np.testing.assert_array_equal(read[3, -1, 0], (70, 80, 90))
    np.testing.assert_array_equal(chosen.read(2, 5), pixels[2:5])


def test_stl10_images_are_those_of_torchvision(dataset, monkeypatch):
    monkeypatch.setattr(STL10, "_check_integrity", lambda _: True)
    theirs = STL10(dataset.folder, split="train")
    ours = stl10.stl10_sample(dataset.folder, "train", 12, seed=0)

    np.testing.assert_array_equal(ours.read(0, 12), [np.asarray(image) for image, _ in theirs])
    assert ours.labels.tolist() == [label for _, label in theirs]


def test_stl10_sample_is_ascending_without_repetition_and_seeded(dataset):
    def sample(n, seed):
        return stl10.stl10_sample(dataset.folder, "unlabeled", n, seed)

    chosen = sample(11, seed=3)
    rows = [int(source.removeprefix("stl10/unlabeled/")) for source in chosen.sources]

    assert len(rows) == 11
    assert rows == sorted(set(rows))
    assert set(rows) <= set(range(20))
    np.testing.assert_array_equal(chosen.read(0, 11), dataset.pixels["unlabeled"][rows])
    assert sample(11, seed=3).sources == chosen.sources
    assert len({tuple(sample(11, seed).sources) for seed in range(5)}) > 1
    drawn = {source for seed in range(20) for source in sample(5, seed).sources}
    assert len(drawn) == 20


@pytest.mark.parametrize("split", ["train", "test"])
def test_stl10_labels_of_a_labeled_split_count_from_zero(split, dataset):
    chosen = stl10.stl10_sample(dataset.folder, split, 6, seed=1)
    rows = [int(source.removeprefix(f"stl10/{split}/")) for source in chosen.sources]

    assert chosen.labels.dtype == np.int16
    np.testing.assert_array_equal(chosen.labels, dataset.labels[split][rows])


def test_stl10_labels_of_the_unlabeled_split_are_minus_one(dataset):
    chosen = stl10.stl10_sample(dataset.folder, "unlabeled", 6, seed=1)

    assert chosen.labels.dtype == np.int16
    assert chosen.labels.tolist() == [-1] * 6


def test_stl10_is_mapped_and_let_go(tmp_path):
    # 276 MB, of which the disk holds nothing.
    (tmp_path / "stl10_binary").mkdir()
    path = tmp_path / "stl10_binary" / "unlabeled_X.bin"
    path.touch()
    os.truncate(path, 10_000 * 27_648)
    code = f"""
import resource
from pathlib import Path
from drift.images import stl10
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
chosen = stl10.stl10_sample(Path({str(tmp_path)!r}), "unlabeled", 10_000, seed=0)
for start in range(0, 10_000, 300):
    chosen.read(start, min(start + 300, 10_000))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout) * unit < 100e6


# A picture that no turn and no mirror leaves as it is: red, green | blue, white.
QUARTERS = np.zeros((40, 40, 3), np.uint8)
QUARTERS[:20, :20] = (255, 0, 0)
QUARTERS[:20, 20:] = (0, 255, 0)
QUARTERS[20:, :20] = (0, 0, 255)
QUARTERS[20:, 20:] = (255, 255, 255)


def quarters(pixels):
    """The colors in the middle of the four quarters."""
    quarter = len(pixels) // 4
    near, far = quarter, len(pixels) - 1 - quarter
    return [tuple(map(int, pixels[y, x])) for y in (near, far) for x in (near, far)]


STANDING = quarters(QUARTERS)


def gradient_picture(seed=0, shape=(50, 40)):
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
    )


GOOD = ["ant/c.jpg", "ant/e.TIF", "d.bmp", "zebra/a.png", "zebra/deep/b.png"]


@pytest.fixture
def pictures(tmp_path):
    """Pictures of two classes and of none, others to ignore, and two that are broken."""
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
    return root


def take(root, n=None, seed=0, size=16, **options):
    return picture_folder.folder_sample(picture_folder.scan_folder(root), n, seed, size, **options)


def test_the_suffix_decides_what_is_a_picture(pictures, monkeypatch):
    monkeypatch.setattr(Image, "open", None)  # nothing is decoded
    folder = picture_folder.scan_folder(pictures)

    names = {path.as_posix() for path in folder.pictures}
    assert names == {*GOOD, "zebra/broken.png", "nothing.jpg"}
    assert folder.pictures == sorted(folder.pictures)
    assert folder.ignored == 4  # the notes, the table, the hidden picture, the one without a suffix


def test_every_format_that_pillow_writes_and_reads_is_found_by_its_suffixes(tmp_path):
    written = set()
    for suffix, name in Image.registered_extensions().items():
        if name not in Image.SAVE or name in ("IM", "PALM", "PDF"):
            continue  # the first is to go out of Pillow, the others it cannot read
        for mode in ("RGB", "L", "P", "1"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                gradient_picture().convert(mode).save(tmp_path / f"x{suffix}")
                with Image.open(tmp_path / f"x{suffix}") as image:
                    image.load()
                written.add(f"x{suffix}")
                break
    (tmp_path / "notes.mpo.txt").write_text("no picture")
    assert written >= {f"x.{suffix}" for suffix in ("jpg", "png", "gif", "tif", "webp", "mpo")}

    chosen = take(tmp_path)
    assert {Path(source).name for source in chosen.sources} >= written


def test_another_file_with_the_suffix_of_a_picture_is_broken(pictures):
    (pictures / "letter.png").write_text("Dear Sir or Madam")
    skipped = take(pictures).skipped

    assert "identify" in skipped[str(pictures / "letter.png")]
    assert len(skipped) == 3


def test_the_pictures_of_a_folder_with_sources_and_labels(pictures):
    chosen = take(pictures, size=24)

    assert chosen.sources == [str(pictures / name) for name in GOOD]
    assert chosen.labels.tolist() == [0, 0, -1, 1, 1]
    assert chosen.labels.dtype == np.int16
    assert chosen.size == 24
    assert chosen.ignored == 4
    read = chosen.read(0, 5)
    assert (read.shape, read.dtype) == ((5, 24, 24, 3), np.uint8)
    for row, name in enumerate(GOOD):
        with Image.open(pictures / name) as image:
            np.testing.assert_array_equal(read[row], picture_folder.square(image, 24))
    np.testing.assert_array_equal(chosen.read(1, 3), read[1:3])


def test_broken_pictures_are_named_with_the_reason(pictures):
    skipped = take(pictures).skipped

    assert list(skipped) == [str(pictures / "nothing.jpg"), str(pictures / "zebra/broken.png")]
    assert "truncated" in skipped[str(pictures / "zebra/broken.png")]
    assert "identify" in skipped[str(pictures / "nothing.jpg")]
    with pytest.raises(InputError, match=r"nothing.jpg is broken .*--strict"):
        take(pictures, strict=True)


def test_a_sample_of_a_folder_is_seeded_and_skips_what_is_broken(pictures):
    drawn = set()
    for seed in range(30):
        chosen = take(pictures, 3, seed)
        assert len(chosen.sources) == 3
        assert chosen.sources == sorted(set(chosen.sources))
        assert chosen.sources == take(pictures, 3, seed, threads=1).sources
        drawn.add(tuple(chosen.sources))
        labels = dict(zip((str(pictures / n) for n in GOOD), [0, 0, -1, 1, 1], strict=True))
        assert chosen.labels.tolist() == [labels[source] for source in chosen.sources]
    assert {source for draw in drawn for source in draw} == {str(pictures / n) for n in GOOD}
    assert len(drawn) > 3


def test_a_folder_with_too_few_or_none_is_an_error(pictures, tmp_path):
    with pytest.raises(InputError, match=r"5 pictures .* 2 that cannot, .* --n-images 6"):
        take(pictures, 6)
    with pytest.raises(InputError, match=r"5 pictures .* 2 that cannot, .* --n-images 8"):
        take(pictures, 8)
    for name in GOOD:
        (pictures / name).unlink()
    with pytest.raises(InputError, match="0 pictures that can be read and 2 that cannot"):
        take(pictures)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "x.txt").write_text("x")
    with pytest.raises(InputError, match="holds no picture that Pillow knows, and 1 other"):
        picture_folder.scan_folder(tmp_path / "empty")
    for none in (tmp_path / "nowhere", tmp_path / "empty" / "x.txt"):
        with pytest.raises(InputError, match=f"{none} is not a folder"):
            picture_folder.scan_folder(none)


def test_the_content_of_a_folder_is_names_and_bytes(pictures, tmp_path):
    def content(root=pictures):
        return picture_folder.scan_folder(root).content

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
    assert changed != before
    path.rename(pictures / "dd.bmp")  # at the same place in the order
    renamed = content()
    assert renamed not in (before, changed)
    (pictures / "nothing.jpg").unlink()
    assert content() != renamed


def test_links_to_folders_are_followed_once_and_pipes_not_opened(pictures, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    gradient_picture().save(tmp_path / "elsewhere" / "x.png")
    (pictures / "linked").symlink_to(tmp_path / "elsewhere")
    (pictures / "ant" / "up").symlink_to(pictures)
    (pictures / "dangling.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(pictures / "pipe.png")
    names = [path.as_posix() for path in picture_folder.scan_folder(pictures).pictures]

    assert len(names) == len(GOOD) + 2 + 1
    assert "linked/x.png" in names


def test_names_that_are_no_text_are_kept_apart(tmp_path):
    for name in (b"\xff.png", b"\xfe.png"):
        gradient_picture().save(tmp_path / "x.png")
        os.rename(tmp_path / "x.png", os.fsencode(tmp_path) + b"/" + name)  # noqa: PTH104
    sources = take(tmp_path).sources

    assert len(set(sources)) == 2
    assert [source.encode() for source in sources]


def test_a_decompression_bomb_is_a_broken_picture(pictures, monkeypatch):
    gradient_picture(shape=(100, 100)).save(pictures / "bomb.png")
    gradient_picture(shape=(70, 70)).save(pictures / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow warns of the large one, and we say nothing
        chosen = take(pictures)

    assert "decompression bomb" in chosen.skipped[str(pictures / "bomb.png")]
    assert len(chosen.skipped) == 3
    assert str(pictures / "large.png") in chosen.sources


def test_a_picture_of_a_thousand_times_its_height_needs_no_more_memory(tmp_path):
    Image.new("RGB", (60_000, 2), (10, 20, 30)).save(tmp_path / "strip.png")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read = take(tmp_path, size=224).read(0, 1)

    assert (read == (10, 20, 30)).all()
    unit = 1 if sys.platform == "darwin" else 1024
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit < 500e6


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

    assert quarters(picture_folder.read_square(tmp_path / "x.png", 20)) == STANDING


def test_the_center_is_cropped_of_wide_and_of_tall_pictures():
    for turn in (False, True):
        pixels = np.zeros((40, 120, 3), np.uint8)
        pixels[:, :40], pixels[:, 80:] = (255, 255, 0), (0, 255, 255)
        pixels[:, 40:80] = QUARTERS
        standing = pixels.transpose(1, 0, 2) if turn else pixels
        cropped = picture_folder.square(Image.fromarray(standing), 40)
        np.testing.assert_array_equal(cropped, QUARTERS.transpose(1, 0, 2) if turn else QUARTERS)


@pytest.mark.parametrize("side", [7, 16, 90])
def test_the_short_side_is_resized_by_lanczos_and_the_center_cropped(side):
    image = gradient_picture(3, (side, 3 * side))
    by_hand = image.resize((48, 16), Image.Resampling.LANCZOS).crop((16, 0, 32, 16))

    np.testing.assert_array_equal(picture_folder.square(image, 16), by_hand)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV", "RGBX"])
def test_any_mode_becomes_rgb(mode):
    image = Image.fromarray(QUARTERS).convert(mode)

    expected = quarters(np.asarray(image.convert("RGB")))
    np.testing.assert_allclose(quarters(picture_folder.square(image, 40)), expected, atol=2)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "PA", "RGBa"])
def test_alpha_is_composited_on_white(mode, tmp_path):
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


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_a_transparent_color_of_a_palette_is_white(suffix, tmp_path):
    image = Image.new("P", (8, 8), 1)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.paste(0, (0, 0, 4, 8))
    image.save(tmp_path / f"x.{suffix}", transparency=0)
    pixels = picture_folder.read_square(tmp_path / f"x.{suffix}", 8)

    assert (pixels[:, 1] == 255).all()
    assert (pixels[:, 6] == (0, 255, 0)).all()


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_transparent_color_without_a_palette_is_white(mode, tmp_path):
    image = Image.new(mode, (8, 8), 0)
    image.paste("white" if mode == "L" else (0, 0, 255), (0, 0, 4, 8))
    image.save(tmp_path / "x.png", transparency=0 if mode == "L" else (0, 0, 0))

    assert (picture_folder.read_square(tmp_path / "x.png", 8)[:, 6] == 255).all()


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


def test_the_first_frame_of_an_animation_is_taken(tmp_path):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])

    assert (picture_folder.read_square(tmp_path / "x.gif", 8) == (255, 0, 0)).all()


@pytest.fixture
def stage01(drive, tmp_path):
    """Stage 01 from the command line: status, output, error output."""
    return lambda *args: drive("01_download_stl10.py", *args, results=tmp_path / "results")


@pytest.fixture
def local(archive, tmp_path, monkeypatch):
    """The flags with which stage 01 takes the archive of the test for STL-10's."""
    monkeypatch.setattr(stl10, "STL10_ARCHIVE", archive)
    return "--data-dir", tmp_path / "data"


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("n", ["all", None, "5"])
def test_stage_01_on_stl10(split, n, stage01, local, host, dataset, tmp_path):
    flags = ("--split", split, *local, *(() if n is None else ("--n-images", n)))
    status, out, err = stage01(*flags)
    assert (status, err) == (0, "")
    count = 5 if n == "5" else SPLITS[split]
    assert f"{count} images in" in out
    results = Results(tmp_path / "results")
    results.require("01_images.npy", "01_images.parquet")
    table = pd.read_parquet(results.path("01_images.parquet"))
    assert len(table) == count
    rows = table["source"].str.removeprefix(f"stl10/{split}/").astype(int)
    np.testing.assert_array_equal(results.load("01_images.npy"), dataset.pixels[split][rows])
    labels = dataset.labels[split][rows] if split in dataset.labels else [-1] * count
    assert table["label"].tolist() == list(labels)

    shutil.rmtree(tmp_path / "data")
    status, out, err = stage01(*flags)
    assert (status, err) == (0, "")
    assert "up to date" in out
    assert len(host.requests) == 1


def test_stage_01_takes_a_mirror_or_a_copy(stage01, local, host, dataset, tmp_path):
    status, _, err = stage01(*local, "--url", f"{host.url}?mirror")
    assert (status, err) == (0, "")
    assert host.requests == ["/stl10_binary.tar.gz?mirror"]
    other = ("--data-dir", tmp_path / "other")
    status, _, err = stage01(*other, "--archive", dataset.file, "--split", "test")
    assert (status, err) == (0, "")
    assert len(host.requests) == 1


def test_stage_01_on_a_folder(stage01, pictures, tmp_path):
    status, out, err = stage01("--dataset", "folder", "--images", pictures)
    assert (status, err) == (0, "")
    assert "5 images in" in out
    assert "broken pictures skipped: 2, files ignored: 4" in out
    assert f"{pictures / 'nothing.jpg'} (" in out
    results = Results(tmp_path / "results")
    assert results.load("01_images.npy").shape == (5, 224, 224, 3)
    manifest = results.manifest("01_images")
    assert set(manifest["skipped"]) == {
        str(pictures / name) for name in ("nothing.jpg", "zebra/broken.png")
    }
    assert "up to date" in stage01("--dataset", "folder", "--images", pictures)[1]

    (pictures / "d.bmp").unlink()
    flags = ("--dataset", "folder", "--images", pictures, "--image-size", "32")
    assert stage01(*flags)[0] == 0
    assert results.load("01_images.npy").shape == (4, 32, 32, 3)
    status, out, err = stage01(*flags, "--strict")
    assert (status, err.count("\n")) == (2, 1)
    assert "nothing.jpg is broken" in err
    assert results.load("01_images.npy").shape == (4, 32, 32, 3)


@pytest.mark.parametrize("change", ["add", "remove", "edit", "rename"])
def test_stage_01_sees_that_a_folder_changed(change, stage01, pictures):
    flags = ("--dataset", "folder", "--images", pictures, "--image-size", "16")
    assert stage01(*flags)[0] == 0
    path = pictures / "zebra" / "a.png"
    if change == "add":
        gradient_picture().save(pictures / "new.png")
    elif change == "remove":
        path.unlink()
    elif change == "edit":
        gradient_picture(9).save(path)
    else:
        path.rename(pictures / "a.png")
    status, out, _ = stage01(*flags)
    assert status == 0
    assert "up to date" not in out
    assert "up to date" in stage01(*flags)[1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--images", "x"], "--images goes with --dataset folder"),
        (["--strict"], "--strict goes with --dataset folder"),
        (["--image-size", "9"], "--image-size goes with --dataset folder"),
        (["--dataset", "photos", "--split", "train"], "--split goes with --dataset stl10"),
        (["--dataset", "photos", "--data-dir", "x"], "--data-dir goes with"),
        (["--dataset", "folder", "--images", "x", "--url", "http://x"], "--url goes with"),
        (["--dataset", "folder", "--images", "x", "--archive", "y"], "--archive goes with"),
        (["--dataset", "folder"], "--images DIR"),
        (["--dataset", "folder", "--images", "nowhere"], "nowhere is not a folder"),
        (["--dataset", "photos", "--n-images", "all"], "--n-images all"),
        (["--n-images", "most"], "--n-images"),
        (["--split", "train", "--n-images", "5001"], "more than the 5000 images"),
        (["--split", "both"], "both"),
        (["--url", "http://x", "--archive", "y"], "not allowed with"),
        (["--archive", "nowhere.tgz"], "nowhere.tgz is not there"),
        (["--url", "ftp://x"], "no http or https address"),
    ],
)
def test_stage_01_refuses_in_one_line(flags, message, stage01, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = stage01(*flags)

    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not (tmp_path / "results").exists()


def test_stage_01_names_a_full_disk_and_a_host_that_is_gone(stage01, local, tmp_path, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/x"
        status, _, err = stage01(*local, "--url", url)
    assert (status, err.count("\n")) == (2, 1)
    assert url in err
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    status, _, err = stage01(*local)
    assert (status, err.count("\n")) == (2, 1)
    assert "needs" in err
    assert "too few" in err
