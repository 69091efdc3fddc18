"""Preprocessing and extraction against Pillow's pipeline per image; stage 02 by its flags."""

import json
import threading

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from torch import nn
from torchvision import transforms
from torchvision.models import ResNet50_Weights

from drift import InputError
from drift.images import backbones, embedding
from tests.networks import embed, load, prepare
from tests.test_vectors import save_objects


def pil_pipeline(backbone, resize=256):
    """The notebook's preprocessing: one image at a time, by way of Pillow."""
    return transforms.Compose(
        [
            transforms.Resize(resize),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(backbone.mean, backbone.std),
        ]
    )


def by_pil(pixels, backbone, resize=256):
    transform = pil_pipeline(backbone, resize)
    return torch.stack([transform(Image.fromarray(image)) for image in pixels])


def cosines(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


# Preprocessing


@pytest.mark.parametrize("size", [96, 300])
@pytest.mark.parametrize("name", ["random_resnet", "efficientnet"])
def test_preprocess_is_the_pipeline_of_pillow(name, size, crops, request):
    backbone = request.getfixturevalue(name)
    if size != 96:
        whole = skimage.data.coffee()
        crops = np.stack([whole[:300, left : left + 300] for left in (0, 150, 300)])
    prepared = prepare(crops, backbone)
    expected = by_pil(crops, backbone)

    assert prepared.shape == (len(crops), 3, 224, 224)
    assert prepared.dtype == torch.float32
    # Of 255 levels of gray one, where the two round to another side.
    one_level = 1 / 255 / min(backbone.std)
    assert (prepared - expected).abs().max() <= 1.01 * one_level
    assert (prepared - expected).abs().mean() <= 0.05 * one_level


def test_preprocess_resizes_an_image_that_is_not_square_by_its_short_side(random_resnet):
    photograph = skimage.data.coffee()[None]
    difference = prepare(photograph, random_resnet) - by_pil(photograph, random_resnet)

    assert difference.abs().max() <= 1.01 / 255 / min(random_resnet.std)


def test_preprocess_normalizes_each_channel_with_its_own_mean():
    gray = np.full((1, 96, 96, 3), 255, np.uint8) * np.array([1, 0, 0], np.uint8)
    backbone = backbones.Backbone(nn.Identity(), 0, (0.1, 0.2, 0.3), (0.5, 0.25, 2.0), "none")
    values = prepare(gray, backbone).amax((0, 2, 3))

    torch.testing.assert_close(values, torch.tensor([1.8, -0.8, -0.15]))


def test_preprocess_leaves_the_images_as_they_were(crops, efficientnet):
    before = crops.copy()
    embed(crops[:2], efficientnet)

    np.testing.assert_array_equal(crops, before)


@pytest.mark.parametrize("name", ["random_resnet", "efficientnet"])
def test_embeddings_are_those_of_the_pipeline_of_pillow(name, crops, request):
    backbone = request.getfixturevalue(name)
    embedded = embed(crops[:4], backbone)
    with torch.inference_mode():
        expected = backbone.network(by_pil(crops[:4], backbone)).numpy()

    assert cosines(embedded, expected).min() >= 0.9999


# Embedding


@pytest.mark.parametrize("name", ["random_resnet", "efficientnet"])
def test_embedding_does_not_depend_on_the_batch(name, crops, request):
    backbone = request.getfixturevalue(name)
    together = embed(crops, backbone)
    apart = np.concatenate(
        [embed(crops[rows], backbone) for rows in (slice(1), slice(1, 5), slice(5, 7))]
    )

    scale = np.abs(together).max()
    np.testing.assert_allclose(apart, together, rtol=1e-4, atol=1e-5 * scale)


def test_embedding_tells_images_apart(crops, efficientnet):
    embedded = embed(crops[:4], efficientnet)

    assert np.abs(embedded).sum(1).min() > 0
    assert np.ptp(embedded, axis=0).max() > 0.1


def test_embedding_takes_an_array_that_is_mapped_or_not_contiguous(crops, efficientnet, tmp_path):
    np.save(tmp_path / "crops.npy", crops)
    mapped = np.load(tmp_path / "crops.npy", mmap_mode="c")
    channels_first = np.ascontiguousarray(crops.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    expected = embed(crops[:2], efficientnet)

    np.testing.assert_array_equal(embed(mapped[:2], efficientnet), expected)
    np.testing.assert_array_equal(embed(channels_first[:2], efficientnet), expected)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_weights_that_give_no_finite_features_are_refused(poison, crops, tmp_path, random_weights):
    state = torch.load(random_weights, weights_only=True)
    state["layer4.2.bn3.bias"][5] = poison
    path = tmp_path / "poisoned.pth"
    torch.save(state, path)
    backbone = load("resnet50", path)

    with pytest.raises(ValueError, match=r"not finite.*poisoned\.pth"):
        embed(crops[:2], backbone)


# Speed that changes nothing


def batch_norms(network):
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())


@pytest.mark.parametrize("name", ["random_resnet", "efficientnet"])
def test_batch_norm_is_folded_into_the_convolutions(name, request):
    backbone = request.getfixturevalue(name)
    before = batch_norms(backbone.network)

    assert before > 40
    assert batch_norms(embedding.fold_batch_norm(backbone.network)) == 0
    assert batch_norms(backbone.network) == before, "the backbone is left as it is"


class Untraceable(nn.Module):
    """A network whose code looks at the values."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 7, stride=32, bias=False)
        self.norm = nn.BatchNorm2d(5)

    def forward(self, x):
        x = self.norm(self.conv(x)).mean((2, 3))
        return x if x.sum() > 1e9 else x + 1


def test_network_that_cannot_be_traced_is_taken_as_it_is(crops):
    torch.manual_seed(0)
    network = Untraceable().eval()
    nn.init.uniform_(network.norm.running_mean)
    backbone = backbones.Backbone(network, 5, (0.5,) * 3, (0.5,) * 3, "none")
    with torch.inference_mode():
        expected = network(prepare(crops, backbone)).numpy()

    assert embedding.fold_batch_norm(network) is network
    np.testing.assert_allclose(embed(crops, backbone), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_size", [3, 100])
def test_every_image_is_embedded_once_and_in_order(batch_size, crops, efficientnet):
    expected = np.concatenate([embed(image[None], efficientnet) for image in crops])
    embedded = embed(crops, efficientnet, batch_size=batch_size)

    np.testing.assert_allclose(embedded, expected, rtol=1e-3, atol=1e-4)


def test_batches_are_no_longer_than_asked_for(crops):
    seen = []

    class Spy(nn.Module):
        def forward(self, x):
            seen.append((len(x), x.is_contiguous(memory_format=torch.channels_last)))
            return x.mean((2, 3))

    backbone = backbones.Backbone(Spy(), 3, (0.5,) * 3, (0.5,) * 3, "none")
    extract = embedding.Extractor(backbone, batch_size=3)
    seen.clear()  # what was traced
    extract._network = backbone.network
    extract(crops)

    assert seen == [(3, True), (3, True), (1, True)]


def test_next_batch_is_read_while_the_network_computes(crops):
    reading = [threading.Event() for _ in range(3)]

    class Images:
        def __len__(self):
            return 3

        def __getitem__(self, batch):
            reading[batch.start].set()
            return crops[batch]

    class Network(nn.Module):
        batch = 0

        def forward(self, x):
            self.batch += 1
            if self.batch < 3:
                assert reading[self.batch].wait(timeout=60), "the next one is not being read"
                assert not any(event.is_set() for event in reading[self.batch + 1 :]), "only one"
            return x.mean((2, 3))

    backbone = backbones.Backbone(nn.Identity(), 3, (0.5,) * 3, (0.5,) * 3, "none")
    extract = embedding.Extractor(backbone, batch_size=1)
    extract._network = Network()

    assert len(extract(Images())) == 3


def test_embedding_again_gives_the_same_bytes(crops, efficientnet):
    first = embed(crops, efficientnet)

    assert first.tobytes() == embed(crops, efficientnet).tobytes()


@pytest.mark.parametrize("resize", [224, 232, 300])
def test_resize_is_the_short_side_before_the_crop(resize, crops, random_resnet):
    prepared = prepare(crops, random_resnet, resize=resize)
    difference = prepared - by_pil(crops, random_resnet, resize)

    assert difference.abs().max() <= 1.01 / 255 / min(random_resnet.std)
    assert not torch.allclose(prepared, prepare(crops, random_resnet), atol=0.1)


def test_resize_reaches_the_extractor(crops, efficientnet):
    expected = embed(crops[:2], efficientnet)

    assert cosines(embed(crops[:2], efficientnet, resize=300), expected).max() < 0.999


def test_bf16_is_close_and_is_not_fp32(crops, efficientnet):
    exact, reduced = (embed(crops, efficientnet, precision=name) for name in ("fp32", "bf16"))

    assert reduced.dtype == np.float32
    assert cosines(exact, reduced).min() > 0.97
    assert np.abs(exact - reduced).max() > 1e-3


def test_compiled_network_embeds_the_same(crops):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=4, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ).eval()
    nn.init.uniform_(network[1].running_mean)
    backbone = backbones.Backbone(network, 8, (0.5,) * 3, (0.5,) * 3, "none")
    torch._dynamo.utils.counters.clear()
    compiled = embed(crops, backbone, batch_size=3, compiled=True)

    np.testing.assert_allclose(compiled, embed(crops, backbone), rtol=1e-4, atol=1e-5)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs == 1, "the last batch, which is shorter, is not compiled for"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_device_that_this_machine_lacks():
    with pytest.raises(InputError, match="--device cuda"):
        embedding.choose_device("cuda")
    assert embedding.choose_device("cpu") == "cpu"
    assert embedding.choose_device("auto") in ("cpu", "mps")


# From the command line


@pytest.fixture
def drive(drive, tmp_path):
    """Run a script in this process: status, output, error output."""
    return lambda script, *args: drive(script, *args, results=tmp_path / "results")


STAGE_02 = "02_embed_resnet50.py"


def manifest(tmp_path):
    return json.loads((tmp_path / "results/02_embeddings.json").read_text())


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_from_file_takes_the_place_of_stages_01_and_02(dtype, drive, tmp_path):
    path = tmp_path / "mine.npy"
    array = np.random.default_rng(0).standard_normal((80, 12)).astype(dtype)
    np.save(path, array)

    status, out, err = drive(STAGE_02, "--from-file", path)
    assert (status, err) == (0, "")
    assert "mine.npy" in out
    stored = np.load(tmp_path / "results/02_embeddings.npy")
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored, array.astype(np.float32))
    assert manifest(tmp_path)["inputs"] == {}
    if dtype == np.float16:
        return
    later = (("03_exact_knn.py", "--k-max", 20), ("04_hnsw_search.py",), ("05_metrics.py",))
    for script, *args in (*later, ("06_plots.py",)):
        status, _, err = drive(script, *args)
        assert (status, err) == (0, "")
    assert (tmp_path / "results/06_report.html").exists()


def test_from_file_runs_again_when_the_file_has_changed(drive, tmp_path):
    path = tmp_path / "mine.npy"
    np.save(path, np.ones((5, 3)))
    assert drive(STAGE_02, "--from-file", path)[0] == 0
    assert "up to date" in drive(STAGE_02, "--from-file", path)[1]
    path.rename(tmp_path / "moved.npy")
    assert "up to date" in drive(STAGE_02, "--from-file", tmp_path / "moved.npy")[1]

    np.save(path, np.full((5, 3), 2.0))
    status, out, _ = drive(STAGE_02, "--from-file", path)
    assert (status, "up to date" in out) == (0, False)
    assert (np.load(tmp_path / "results/02_embeddings.npy") == 2).all()


def write_nan(path):
    array = np.ones((30, 4), np.float16)
    array[17, 2] = np.nan
    np.save(path, array)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_nan, "row 17"),
        (lambda path: np.save(path, np.full((3, 3), 1e39)), "rescale"),
        (lambda path: np.save(path, np.ones(6)), "(6,)"),
        (save_objects, "bad.npy"),
        (lambda path: path.write_bytes(b""), "bad.npy"),
        (lambda path: None, "bad.npy"),
        (lambda path: path.mkdir(), "bad.npy"),
    ],
)
def test_bad_file_ends_in_one_line_and_loses_nothing(write, message, drive, tmp_path):
    np.save(tmp_path / "good.npy", np.eye(4))
    assert drive(STAGE_02, "--from-file", tmp_path / "good.npy")[0] == 0
    before = (tmp_path / "results/02_embeddings.npy").read_bytes(), manifest(tmp_path)
    write(tmp_path / "bad.npy")

    status, out, err = drive(STAGE_02, "--from-file", tmp_path / "bad.npy")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err
    after = (tmp_path / "results/02_embeddings.npy").read_bytes(), manifest(tmp_path)
    assert after == before


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--model", "resnet81"), "resnet18"),
        (("--model", "resnet18", "--from-file", "x.npy"), "--from-file"),
        (("--weights", "random", "--from-file", "x.npy"), "--weights"),
        (("--resize", "223"), "224"),
        (("--precision", "fp16"), "fp16"),
        (("--batch-size", "0"), "--batch-size"),
        (("--model", "vit_h_14"), "IMAGENET1K_SWAG_LINEAR_V1"),
    ],
)
def test_bad_flags_end_in_one_line(args, message, drive, no_network, tmp_path):
    assert drive("01_download_stl10.py", "--dataset", "photos", "--n-images", 2)[0] == 0
    status, out, err = drive(STAGE_02, *args)

    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not (tmp_path / "results/02_embeddings.npy").exists()


def test_flags_reach_the_embeddings_and_the_manifest(drive, tmp_path, monkeypatch):
    assert drive("01_download_stl10.py", "--dataset", "photos", "--n-images", 9)[0] == 0
    random = ("--model", "resnet18", "--weights", "random")
    seen = []
    for args in ((), ("--seed", 1), ("--resize", 232), ("--precision", "bf16")):
        status, _, err = drive(STAGE_02, *random, *args)
        assert (status, err.count("\n")) == (0, 1)
        assert "random weights" in err
        seen.append((tmp_path / "results/02_embeddings.npy").read_bytes())
    assert len(set(seen)) == len(seen)
    parameters = manifest(tmp_path)["parameters"]
    assert parameters.items() >= {"weights": "random, seed 0", "precision": "bf16"}.items()
    assert parameters["resize"] == 256

    # Up to date: nothing is loaded, and no warning of the weights.
    status, out, err = drive(STAGE_02, *random, "--precision", "bf16")
    assert (status, err) == (0, "")
    assert "up to date" in out
    crops = np.load(tmp_path / "results/01_images.npy")
    expected = embed(crops, load("resnet18", "random"), precision="bf16")
    np.testing.assert_array_equal(np.load(tmp_path / "results/02_embeddings.npy"), expected)


def test_weights_out_of_reach_end_in_one_line(drive, no_network):
    assert drive("01_download_stl10.py", "--dataset", "photos", "--n-images", 2)[0] == 0
    status, _, err = drive(STAGE_02)

    assert (status, err.count("\n")) == (2, 1)
    assert ResNet50_Weights.IMAGENET1K_V2.url in err
    assert "--weights FILE" in err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
@pytest.mark.parametrize("name", ["efficientnet", "random_resnet"])
def test_a_gpu_gives_the_features_of_the_cpu_and_the_same_bytes_twice(name, crops, request):
    backbone = request.getfixturevalue(name)
    expected = embed(crops, backbone)
    features, again = (embed(crops, backbone, device="cuda", batch_size=4) for _ in range(2))
    np.testing.assert_array_equal(again, features)
    distance = np.linalg.norm(features - expected, axis=1)
    assert (distance < 1e-3 * np.linalg.norm(expected, axis=1)).all()
