"""Images to embeddings: how they are prepared, and a network made fast on them."""

import functools
import logging
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
import torch._dynamo
from torch import nn
from torch.fx.experimental.optimization import fuse
from torchvision.transforms.v2 import functional

from drift import InputError
from drift.images import BATCH_SIZE, CROP, RESIZE
from drift.images.backbones import Backbone


def resize_and_crop(pixels: torch.Tensor, resize: int) -> torch.Tensor:
    """Resize the short side (bilinear, antialiased) and crop the center; uint8 (B, 3, 224, 224).

    `pixels` are uint8 (B, S, S, 3) in the processor's memory: there torch rounds between the two
    directions, as Pillow does. On a GPU one value in six is another.
    """
    resized = functional.resize(pixels.permute(0, 3, 1, 2), [resize], antialias=True)
    return functional.center_crop(resized, [CROP])


def normalize(cropped: torch.Tensor, backbone: Backbone) -> torch.Tensor:
    """Scale images to the moments of a backbone's training; float32, channels last in memory."""
    values = cropped.to(torch.float32, memory_format=torch.channels_last)
    moments = torch.tensor([backbone.mean, backbone.std], device=cropped.device)
    shift, scale = 255 * moments[:, :, None, None]
    return values.sub_(shift).div_(scale)


@dataclass
class Extractor:
    """A backbone made fast: batch norm folded into the convolutions, channels last, compiled.

    The backbone itself is left as it is. `batch_size` is `BATCH_SIZE` of the device if not given.
    In ``bf16`` matrix products and convolutions are in bfloat16. It is compiled, with its weights
    frozen in, at the first batch. Meanwhile `resizers` threads resize the next batches: as many as
    torch has beside a GPU, none beside a network on the processor, which needs the same cores.
    """

    backbone: Backbone
    batch_size: int | None = None
    device: str = "cpu"
    precision: str = "fp32"
    compiled: bool = False
    resize: int = RESIZE
    resizers: int | None = None

    def __post_init__(self) -> None:
        self.device = choose_device(self.device)
        if self.resizers is None:
            self.resizers = 0 if self.device == "cpu" else torch.get_num_threads()
        self.batch_size = self.batch_size or BATCH_SIZE[self.device]
        network = fold_batch_norm(self.backbone.network)
        network = network.to(self.device, memory_format=torch.channels_last)
        if self.compiled:
            # It warns on the error output that it finds no CUDA.
            logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
            network = torch.compile(network, dynamic=False, options={"freezing": True})
        elif self.device == "cpu" and self.precision == "fp32":
            _use_one_kernel(network)
        self._network = network

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Embed RGB images, uint8 (n, S, S, 3), batch by batch; float32 (n, d), finite."""
        features = np.empty((len(images), self.backbone.dim), np.float32)
        starts = range(0, len(images), self.batch_size)
        batches = [slice(start, start + self.batch_size) for start in starts]
        try:
            with ThreadPoolExecutor(self.resizers or 1) as pool:
                reads = (pool.submit(self._read, images[batch]) for batch in batches)
                ahead = deque(islice(reads, self.resizers or 1))
                for batch in batches:
                    pixels = ahead.popleft().result()
                    ahead.extend(islice(reads, 1))
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

    def _read(self, images: np.ndarray) -> torch.Tensor:
        pixels = torch.from_numpy(np.array(images))  # to copy a memory map is to read it
        if not self.resizers:
            return pixels
        resized = resize_and_crop(pixels, self.resize)
        # A GPU copies from pinned memory several times as fast. To put them there NumPy needs this
        # thread alone, where torch would start others.
        form = {"dtype": torch.uint8, "memory_format": torch.channels_last}
        pixels = torch.empty(resized.shape, **form, pin_memory=self.device == "cuda")
        np.copyto(pixels.numpy(), resized.numpy())
        return pixels

    @torch.inference_mode()
    def _embed(self, pixels: torch.Tensor) -> np.ndarray:
        if not self.resizers:
            pixels = resize_and_crop(pixels, self.resize)
        batch = normalize(pixels.to(self.device), self.backbone)
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
    """The device that is meant: ``auto`` is a GPU if there is one; InputError if it is absent."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next((name for name, works in available.items() if works), "cpu")
    if not available.get(device, True):
        raise InputError(f"--device {device}: torch finds none on this machine; take --device cpu")
    return device


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """A copy of a network in which each batch norm is part of the convolution before it.

    A network that cannot be traced, because its code looks at the values, is returned as it is.
    """
    try:
        return fuse(network)
    except (torch.fx.proxy.TraceError, TypeError, RuntimeError, AttributeError, NameError):
        return network


def _use_one_kernel(network: nn.Module) -> None:
    """Let oneDNN do the 1 x 1 convolutions too when there is one thread."""
    # With fewer than 16 images torch takes another kernel then, which rounds differently.
    for layer in network.modules():
        is_1x1 = isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)
        if is_1x1 and torch.backends.mkldnn.is_available():
            layer.forward = functools.partial(
                torch.mkldnn_convolution,
                weight=layer.weight,
                bias=layer.bias,
                padding=layer.padding,
                stride=layer.stride,
                dilation=layer.dilation,
                groups=layer.groups,
            )
