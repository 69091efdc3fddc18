"""Crops of the packaged photographs, and STL-10 served by a local host in its true format."""

import hashlib
import re
import socket
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
from PIL import Image, ImageOps
from torchvision.datasets import STL10

from drift import images

# An even photograph and a lopsided one: mixing up width and height leaves the second.
SIZES = {"wide": (900, 200), "square": (512, 512), "tall": (100, 700)}


def test_all_fifteen_photographs_load_as_rgb():
    photographs = images.photographs()

    assert len(photographs) == 15
    assert set(photographs) == set(images.PHOTOGRAPHS)
    assert all(photo.mode == "RGB" for photo in photographs.values())
    assert all(min(photo.size) > images.SMALLEST_SIDE for photo in photographs.values())


def test_crops_lie_inside_their_photograph():
    for crop in images.draw_crops(SIZES, 3000, seed=1):
        width, height = SIZES[crop.photo]
        assert 64 <= crop.side <= min(width, height)
        assert 0 <= crop.x <= width - crop.side
        assert 0 <= crop.y <= height - crop.side


def test_crops_reach_every_edge_of_a_photograph():
    crops = images.draw_crops({"small": (66, 67)}, 2000, seed=0)

    assert {crop.side for crop in crops} == {64, 65, 66}
    assert {crop.x for crop in crops if crop.side == 64} == {0, 1, 2}
    assert {crop.y for crop in crops if crop.side == 64} == {0, 1, 2, 3}


def test_a_photograph_of_the_smallest_side_is_taken_whole():
    crops = images.draw_crops({"tiny": (64, 64)}, 5, seed=0)

    assert {(crop.x, crop.y, crop.side) for crop in crops} == {(0, 0, 64)}


def test_the_side_of_a_crop_is_log_uniform():
    crops = images.draw_crops({"large": (4000, 3000)}, 4000, seed=2)
    sides = np.log([crop.side for crop in crops])

    low, span = np.log(64), np.log(3000 / 64)
    assert scipy.stats.kstest(sides, "uniform", args=(low, span)).pvalue > 0.01
    assert sides.min() < low + 0.01 * span
    assert sides.max() > low + 0.99 * span


def test_the_place_of_a_crop_is_uniform_and_each_draw_is_independent():
    crops = images.draw_crops({"large": (4000, 3000)}, 4000, seed=3)
    left = [crop.x / (4000 - crop.side) for crop in crops if crop.side < 2000]
    top = [crop.y / (3000 - crop.side) for crop in crops if crop.side < 2000]
    scale = [np.log(crop.side) for crop in crops if crop.side < 2000]

    assert scipy.stats.kstest(left, "uniform").pvalue > 0.01
    assert scipy.stats.kstest(top, "uniform").pvalue > 0.01
    for first, second in ((left, top), (left, scale), (top, scale)):
        assert abs(np.corrcoef(first, second)[0, 1]) < 0.06


def test_half_of_the_crops_are_mirrored_and_each_photograph_is_as_frequent():
    crops = images.draw_crops(SIZES, 3000, seed=4)

    for name in SIZES:
        mirrored = [crop.flip for crop in crops if crop.photo == name]
        assert scipy.stats.binomtest(len(mirrored), len(crops), 1 / 3).pvalue > 0.001
        assert scipy.stats.binomtest(sum(mirrored), len(mirrored), 0.5).pvalue > 0.001


def test_the_seed_decides_the_crops_and_more_of_them_begin_alike():
    crops = images.draw_crops(SIZES, 300, seed=5)

    assert crops == images.draw_crops(SIZES, 300, seed=5)
    assert crops[:100] == images.draw_crops(SIZES, 100, seed=5)
    assert crops != images.draw_crops(SIZES, 300, seed=6)


@pytest.mark.parametrize(("flip", "end"), [(False, ""), (True, "_flip")])
def test_the_source_of_a_crop_names_its_square(flip, end):
    crop = images.Crop("coffee", x=31, y=5, side=120, flip=flip)

    assert crop.source == f"photos/coffee/x31_y5_s120{end}"


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("x", "y", "side"), [(0, 0, 64), (31, 5, 96), (17, 60, 240)])
def test_cut_is_crop_then_resize_then_mirror(x, y, side, flip):
    pixels = np.random.default_rng(0).integers(0, 256, (300, 260, 3), dtype=np.uint8)
    photograph = Image.fromarray(pixels)
    by_hand = photograph.crop((x, y, x + side, y + side)).resize((96, 96), Image.Resampling.LANCZOS)
    if flip:
        by_hand = ImageOps.mirror(by_hand)

    cut = images.Crop("noise", x, y, side, flip).cut(photograph)

    assert cut.shape == (96, 96, 3)
    assert cut.dtype == np.uint8
    np.testing.assert_array_equal(cut, np.asarray(by_hand))


@pytest.mark.parametrize("side", [70, 250])
def test_cut_of_a_whole_photograph_is_resized_by_lanczos(side):
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    photograph = Image.fromarray(pixels)

    cut = images.Crop("noise", 0, 0, side, flip=False).cut(photograph)

    np.testing.assert_array_equal(cut, photograph.resize((96, 96), Image.Resampling.LANCZOS))


def test_photo_crops_are_the_same_bytes_in_any_blocks():
    chosen = images.photo_crops(23, seed=7)
    whole = chosen.read(0, 23)
    again = images.photo_crops(40, seed=7)
    in_blocks = [again.read(start, min(start + 5, 23)) for start in range(0, 23, 5)]

    assert whole.shape == (23, 96, 96, 3)
    assert whole.dtype == np.uint8
    np.testing.assert_array_equal(np.concatenate(in_blocks), whole)


def test_photo_crops_are_described_as_they_are_read():
    originals = images.photographs()
    chosen = images.photo_crops(30, seed=8)

    assert chosen.size == 96
    assert chosen.labels.dtype == np.int16
    assert (chosen.labels == -1).all()
    assert len(chosen.labels) == len(chosen.sources) == 30
    pattern = re.compile(r"photos/(\w+)/x(\d+)_y(\d+)_s(\d+)(_flip)?")
    for row, source in enumerate(chosen.sources):
        photo, x, y, side, flip = pattern.fullmatch(source).groups()
        crop = images.Crop(photo, int(x), int(y), int(side), flip is not None)
        np.testing.assert_array_equal(chosen.read(row, row + 1)[0], crop.cut(originals[photo]))


def test_photo_crops_need_no_network(monkeypatch):
    def refuse(*_):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)

    assert images.photo_crops(4, seed=0).read(0, 4).shape == (4, 96, 96, 3)


@pytest.fixture(scope="module")
def stl10_archive(tmp_path_factory):
    """An archive in STL-10's format, with the pixels in it as (N, row, column, channel)."""
    folder = tmp_path_factory.mktemp("archive") / "stl10_binary"
    folder.mkdir()
    rng = np.random.default_rng(9)
    pixels, labels, md5s = {}, {}, {}
    for split, n in (("train", 12), ("test", 7), ("unlabeled", 20)):
        pixels[split] = rng.integers(0, 256, (n, 96, 96, 3), dtype=np.uint8)
        # Corners and channels that nobody can mix up.
        pixels[split][:, 0, 0] = (10, 20, 30)
        pixels[split][:, 0, -1] = (40, 50, 60)
        pixels[split][:, -1, 0] = (70, 80, 90)
        pixels[split][:, -1, -1] = (100, 110, 120)
        # On disk a channel after the other, each column by column.
        (folder / f"{split}_X.bin").write_bytes(pixels[split].transpose(0, 3, 2, 1).tobytes())
    for split, n in (("train", 12), ("test", 7)):
        labels[split] = np.arange(n) % 10
        (folder / f"{split}_y.bin").write_bytes((labels[split] + 1).astype(np.uint8).tobytes())
    (folder / "class_names.txt").write_text("\n".join(f"class{label}" for label in range(10)))
    (folder / "fold_indices.txt").write_text("\n".join("0 1 2 " for _ in range(10)))
    for path in folder.glob("*.bin"):
        md5s[path.name] = hashlib.md5(path.read_bytes()).hexdigest()
    archive = folder.with_name("stl10_binary.tar.gz")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, "stl10_binary")
    return SimpleNamespace(content=archive.read_bytes(), pixels=pixels, labels=labels, md5s=md5s)


@pytest.fixture
def host():
    """A host on this machine: `files` by path, `requests` it was asked for, its `url`."""
    requests, files = [], {}

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            requests.append((self.command, self.path))
            content = files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_GET = do_HEAD = answer  # noqa: N815

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    yield SimpleNamespace(files=files, requests=requests, url=url)
    server.shutdown()
    thread.join()
    server.server_close()


def dataset_at(archive_url, archive):
    """torchvision's own class, for the archive of the test."""

    def with_md5s(listed):
        return [[name, archive.md5s[name]] for name, _ in listed]

    class LocalSTL10(STL10):
        url = archive_url
        tgz_md5 = hashlib.md5(archive.content).hexdigest()
        train_list = with_md5s(STL10.train_list)
        test_list = with_md5s(STL10.test_list)

    return LocalSTL10


@pytest.fixture
def local_stl10(host, stl10_archive):
    host.files["/stl10_binary.tar.gz"] = stl10_archive.content
    return dataset_at(f"{host.url}/stl10_binary.tar.gz", stl10_archive)


@pytest.mark.parametrize("split", ["train", "test", "unlabeled"])
def test_stl10_images_stand_upright_in_rgb(split, tmp_path, local_stl10, stl10_archive):
    pixels = stl10_archive.pixels[split]
    chosen = images.stl10_sample(tmp_path, split, len(pixels), seed=0, dataset=local_stl10)
    read = chosen.read(0, len(pixels))

    assert chosen.size == 96
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, pixels)
    np.testing.assert_array_equal(read[3, 0, -1], (40, 50, 60))
    np.testing.assert_array_equal(chosen.read(2, 5), pixels[2:5])


def test_stl10_sample_is_ascending_without_repetition_and_seeded(
    tmp_path, local_stl10, stl10_archive
):
    def sample(n, seed):
        return images.stl10_sample(tmp_path, "unlabeled", n, seed, local_stl10)

    chosen = sample(11, seed=3)
    rows = [int(source.removeprefix("stl10/unlabeled/")) for source in chosen.sources]

    assert len(rows) == 11
    assert rows == sorted(set(rows))
    assert set(rows) <= set(range(20))
    np.testing.assert_array_equal(chosen.read(0, 11), stl10_archive.pixels["unlabeled"][rows])
    assert sample(11, seed=3).sources == chosen.sources
    assert len({tuple(sample(11, seed).sources) for seed in range(5)}) > 1
    drawn = {source for seed in range(20) for source in sample(5, seed).sources}
    assert len(drawn) == 20


@pytest.mark.parametrize("split", ["train", "test"])
def test_stl10_labels_of_a_labeled_split_count_from_zero(
    split, tmp_path, local_stl10, stl10_archive
):
    chosen = images.stl10_sample(tmp_path, split, 6, seed=1, dataset=local_stl10)
    rows = [int(source.removeprefix(f"stl10/{split}/")) for source in chosen.sources]

    assert chosen.labels.dtype == np.int16
    np.testing.assert_array_equal(chosen.labels, stl10_archive.labels[split][rows])


def test_stl10_labels_of_the_unlabeled_split_are_minus_one(tmp_path, local_stl10):
    chosen = images.stl10_sample(tmp_path, "unlabeled", 6, seed=1, dataset=local_stl10)

    assert chosen.labels.dtype == np.int16
    assert chosen.labels.tolist() == [-1] * 6


def test_stl10_is_downloaded_once(tmp_path, host, local_stl10):
    images.stl10_sample(tmp_path / "data", "unlabeled", 3, seed=0, dataset=local_stl10)
    asked_at_first = len(host.requests)
    images.stl10_sample(tmp_path / "data", "train", 3, seed=0, dataset=local_stl10)

    # torchvision asks twice, once to follow redirects and once for the content.
    assert 1 <= asked_at_first <= 2
    assert len(host.requests) == asked_at_first


def test_stl10_archive_put_there_by_hand_is_not_downloaded(
    tmp_path, host, local_stl10, stl10_archive
):
    (tmp_path / "stl10_binary.tar.gz").write_bytes(stl10_archive.content)
    images.stl10_sample(tmp_path, "test", 3, seed=0, dataset=local_stl10)

    assert host.requests == []


def test_stl10_split_that_is_too_small_is_named(tmp_path, local_stl10):
    with pytest.raises(ValueError, match=r"--n-images 8 .* 7 images .* test"):
        images.stl10_sample(tmp_path, "test", 8, seed=0, dataset=local_stl10)


def check_unreachable(tmp_path, dataset):
    data_dir = tmp_path / "data"
    with pytest.raises(ConnectionError) as caught:
        images.stl10_sample(data_dir, "train", 2, seed=0, dataset=dataset)
    message = str(caught.value)
    assert dataset.url in message
    assert "stl10_binary.tar.gz into" in message
    assert str(data_dir) in message
    assert "--dataset photos" in message


def test_stl10_host_that_refuses_the_connection(tmp_path, stl10_archive):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    url = f"http://127.0.0.1:{port}/stl10_binary.tar.gz"

    check_unreachable(tmp_path, dataset_at(url, stl10_archive))


def test_stl10_host_that_cannot_be_found(tmp_path, stl10_archive, monkeypatch):
    def fail(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    check_unreachable(tmp_path, dataset_at("http://stl10.invalid/x.tar.gz", stl10_archive))


def test_stl10_archive_that_the_host_does_not_have(tmp_path, host, stl10_archive):
    check_unreachable(tmp_path, dataset_at(f"{host.url}/gone.tar.gz", stl10_archive))


@pytest.mark.parametrize("damage", ["other", "cut off"])
def test_stl10_archive_with_the_wrong_checksum(damage, tmp_path, host, local_stl10, stl10_archive):
    content = stl10_archive.content
    host.files["/stl10_binary.tar.gz"] = (
        b"<html>maintenance</html>" if damage == "other" else content[: len(content) // 2]
    )
    check_unreachable(tmp_path, local_stl10)

    # What came is not believed afterwards either.
    host.files["/stl10_binary.tar.gz"] = content
    assert images.stl10_sample(tmp_path / "data", "train", 2, 0, local_stl10).read(0, 2).shape


def test_stl10_host_that_breaks_off_in_the_middle(tmp_path, host, local_stl10, monkeypatch):
    class Answer:
        length = 10**9

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def read(self, _):
            raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", lambda url, **_: url)
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: Answer())
    check_unreachable(tmp_path, local_stl10)


def test_stl10_host_that_speaks_no_http(tmp_path, stl10_archive):
    listener = socket.create_server(("127.0.0.1", 0))

    def answer():
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")

    thread = threading.Thread(target=answer)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/stl10_binary.tar.gz"
    try:
        check_unreachable(tmp_path, dataset_at(url, stl10_archive))
    finally:
        thread.join()
        listener.close()
