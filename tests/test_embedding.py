"""Preprocessing and extraction against Pillow's pipeline per image; stage 02 by its flags."""

import json
import threading

import numpy as np
import pandas as pd
import pytest
import skimage.data
import torch
from PIL import Image
from torch import nn
from torchvision import transforms
from torchvision.models import ResNet50_Weights

from drift import InputError
from drift.images import backbones, embedding
from drift.pipeline.stage import Stage
from drift.stages.embed import read_rows
from tests.networks import embed, load, prepare


def by_pil(pixels, backbone, resize=256):
    """The notebook's preprocessing: one image at a time, by way of Pillow."""
    transform = transforms.Compose(
        [
            transforms.Resize(resize),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(backbone.mean, backbone.std),
        ]
    )
    return torch.stack([transform(Image.fromarray(image)) for image in pixels])


def cosines(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def as_backbone(network, dim=3):
    return backbones.Backbone(network, dim, (0.5,) * 3, (0.5,) * 3, "weights.pth")


class Means(nn.Module):
    """The mean of each channel, after whatever `look` does with the batch."""

    def __init__(self, look):
        super().__init__()
        self.look = look

    def forward(self, x):
        self.look(x)
        return x.mean((2, 3))


def extractor_of_means(look, batch_size):
    """An extractor whose network is not traced."""
    extract = embedding.Extractor(as_backbone(nn.Identity()), batch_size=batch_size)
    extract._network = Means(look)
    return extract


# Preprocessing


@pytest.mark.parametrize("resize", [224, 232, 256, 300])
@pytest.mark.parametrize("name", ["random_resnet", "efficientnet"])
def test_preprocessing_is_the_pipeline_of_pillow(name, resize, crops, request):
    backbone = request.getfixturevalue(name)
    whole = skimage.data.coffee()
    squares = np.stack([whole[:300, left : left + 300] for left in (0, 150, 300)])
    # Of 255 levels of gray one, where the two round to another side.
    one_level = 1 / 255 / min(backbone.std)
    for pixels in (crops, squares, whole[None]):
        prepared = prepare(pixels, backbone, resize)
        assert (prepared.shape, prepared.dtype) == ((len(pixels), 3, 224, 224), torch.float32)
        difference = (prepared - by_pil(pixels, backbone, resize)).abs()
        assert difference.max() <= 1.01 * one_level
        assert difference.mean() <= 0.05 * one_level


# Embedding


@pytest.mark.parametrize("name", ["random_resnet", "efficientnet"])
def test_embeddings_are_those_of_the_pipeline_of_pillow_in_any_batches(name, crops, request):
    backbone, before = request.getfixturevalue(name), crops.copy()
    embedded = embed(crops, backbone)
    with torch.inference_mode():
        expected = backbone.network(by_pil(crops, backbone)).numpy()
    assert cosines(embedded, expected).min() >= 0.9999
    np.testing.assert_array_equal(crops, before, "the images are left as they were")

    assert embedded.tobytes() == embed(crops, backbone).tobytes()
    in_batches = embed(crops, backbone, batch_size=3)
    scale = np.abs(embedded).max()
    np.testing.assert_allclose(in_batches, embedded, rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_weights_that_give_no_finite_features_are_refused(poison, crops):
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3)).eval()
    network[2].bias.data[1] = poison

    with pytest.raises(InputError, match=r"not finite.*weights\.pth"):
        embed(crops[:2], as_backbone(network))


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


def test_batches_are_no_longer_than_asked_for(crops):
    seen = []

    def look(batch):
        seen.append((len(batch), batch.is_contiguous(memory_format=torch.channels_last)))

    extractor_of_means(look, batch_size=3)(crops)
    assert seen == [(3, True), (3, True), (1, True)]


def test_next_batch_is_read_while_the_network_computes(crops):
    reading, computed = [threading.Event() for _ in range(3)], []

    class Images:
        def __len__(self):
            return 3

        def __getitem__(self, batch):
            reading[batch.start].set()
            return crops[batch]

    def look(batch):
        computed.append(batch)
        if len(computed) < 3:
            assert reading[len(computed)].wait(timeout=60), "the next one is not being read"
            assert not any(event.is_set() for event in reading[len(computed) + 1 :]), "only one"

    assert len(extractor_of_means(look, batch_size=1)(Images())) == 3


@pytest.mark.parametrize("n", [6, 5])
def test_threads_that_resize_ahead_work_at_the_same_time_and_give_the_same_bytes(
    n, crops, monkeypatch
):
    extract = extractor_of_means(lambda _: None, batch_size=2)
    expected, resize_and_crop = extract(crops[:n]), embedding.resize_and_crop
    together = threading.Barrier(3, timeout=60)

    def resize(pixels, size):
        together.wait()
        return resize_and_crop(pixels, size)

    monkeypatch.setattr(embedding, "resize_and_crop", resize)
    extract.resizers = 3
    assert extract(crops[:n]).tobytes() == expected.tobytes()


def test_bf16_is_close_and_is_not_fp32(crops, efficientnet):
    exact, reduced = (embed(crops, efficientnet, precision=name) for name in ("fp32", "bf16"))

    assert reduced.dtype == np.float32
    assert cosines(exact, reduced).min() > 0.97
    assert np.abs(exact - reduced).max() > 1e-3


def test_compiled_network_embeds_the_same_and_is_compiled_once(crops, monkeypatch):
    seen, compiler = [], torch.compile

    def compile_eagerly(network, **options):  # half a minute faster
        seen.append(options)
        return compiler(network, backend="eager", dynamic=options["dynamic"])

    monkeypatch.setattr(torch, "compile", compile_eagerly)
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3, stride=4, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    nn.init.uniform_(network[1].running_mean)
    backbone = as_backbone(network, 8)
    torch._dynamo.utils.counters.clear()
    compiled = embed(crops, backbone, batch_size=3, compiled=True)

    np.testing.assert_allclose(compiled, embed(crops, backbone), rtol=1e-4, atol=1e-5)
    assert seen == [{"dynamic": False, "options": {"freezing": True}}]
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs == 1, "the last batch, which is shorter, is not compiled for"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_device_that_this_machine_lacks():
    with pytest.raises(InputError, match="--device cuda"):
        embedding.choose_device("cuda")
    assert embedding.choose_device("auto") in ("cpu", "mps")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
@pytest.mark.parametrize("name", ["efficientnet", "random_resnet"])
def test_a_gpu_gives_the_features_of_the_cpu_and_the_same_bytes_twice(name, crops, request):
    backbone = request.getfixturevalue(name)
    expected = embed(crops, backbone)
    features, again = (embed(crops, backbone, device="cuda", batch_size=4) for _ in range(2))
    np.testing.assert_array_equal(again, features)
    distance = np.linalg.norm(features - expected, axis=1)
    assert (distance < 1e-3 * np.linalg.norm(expected, axis=1)).all()


# From the command line


@pytest.fixture
def drive(drive, tmp_path):
    """Run a script in this process: status, output, error output."""
    return lambda script, *args: drive(script, *args, results=tmp_path / "results")


@pytest.fixture
def stage02(drive):
    return lambda *args: drive("02_embed_resnet50.py", *args)


@pytest.fixture
def few_crops(drive):
    assert drive("01_download_stl10.py", "--dataset", "photos", "--n-images", 9)[0] == 0


def manifest(tmp_path):
    return json.loads((tmp_path / "results/02_embeddings.json").read_text())


def test_from_file_takes_the_place_of_stages_01_and_02_and_is_read_again_when_changed(
    stage02, tmp_path
):
    path = tmp_path / "mine.npy"
    for dtype in (np.float64, np.float16):
        array = np.random.default_rng(0).standard_normal((80, 12)).astype(dtype)
        np.save(path, array)
        status, out, err = stage02("--from-file", path)
        assert (status, err) == (0, "")
        assert "mine.npy" in out
        assert "up to date" not in out
        stored = np.load(tmp_path / "results/02_embeddings.npy")
        assert stored.dtype == np.float32
        np.testing.assert_array_equal(stored, array.astype(np.float32))
        assert manifest(tmp_path)["inputs"] == {}
    assert "up to date" in stage02("--from-file", path.rename(tmp_path / "moved.npy"))[1]


def test_weights_that_are_out_of_reach_are_one_line(stage02, few_crops, no_network):
    status, _, err = stage02()
    assert (status, err.count("\n")) == (2, 1) and ResNet50_Weights.IMAGENET1K_V2.url in err


def test_flags_reach_the_embeddings_and_the_manifest(stage02, few_crops, tmp_path):
    random = ("--model", "resnet18", "--weights", "random")
    seen = set()
    for args in (("--seed", 1), ("--resize", 232), ("--precision", "bf16")):
        status, _, err = stage02(*random, *args)
        assert (status, err.count("\n")) == (0, 1)
        assert "random weights" in err
        seen.add((tmp_path / "results/02_embeddings.npy").read_bytes())
    assert len(seen) == 3
    parameters = manifest(tmp_path)["parameters"]
    assert parameters.items() >= {"weights": "random, seed 0", "precision": "bf16"}.items()
    assert parameters["resize"] == 256

    # Up to date: nothing is loaded, and no warning of the weights.
    status, out, err = stage02(*random, "--precision", "bf16")
    assert (status, err) == (0, "")
    assert "up to date" in out
    crops = np.load(tmp_path / "results/01_images.npy")
    expected = embed(crops, load("resnet18", "random"), precision="bf16")
    np.testing.assert_array_equal(np.load(tmp_path / "results/02_embeddings.npy"), expected)


# What is known of the rows


def test_groups_and_labels_of_images_outlive_their_table(stage02, few_crops, tmp_path):
    results, random = tmp_path / "results", ("--model", "resnet18", "--weights", "random")
    assert stage02(*random)[0] == 0
    images = pd.read_parquet(results / "01_images.parquet")
    rows = pd.read_parquet(results / "02_rows.parquet")
    expected = images[["row", "group", "label"]].assign(id=[str(i) for i in range(len(rows))])
    pd.testing.assert_frame_equal(rows, expected)
    for path in results.glob("01_*"):
        path.unlink()

    stage = Stage("05_metrics", results)
    groups, labels = read_rows(stage)
    np.testing.assert_array_equal(groups, images["group"])
    assert labels is None, "no image of photographs has a label"
    assert set(stage.inputs) == {"02_rows.parquet"}
