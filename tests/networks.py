"""Load a network, prepare images for it, embed them: in a line each, for the tests."""

import torch
from torch import nn
from torchvision.models import resnet50

from drift.images import RESIZE, backbones, embedding


def load(model, weights=None, seed=0):
    return backbones.load(model, weights, seed)


def prepare(pixels, backbone, resize=RESIZE):
    return embedding.normalize(
        embedding.resize_and_crop(torch.from_numpy(pixels), resize), backbone
    )


def embed(pixels, backbone, **settings):
    return embedding.Extractor(backbone, **settings)(pixels)


def save_random_resnet(path):
    torch.manual_seed(0)
    network = resnet50()
    # Running means and variances of their own, so that batch and running statistics differ.
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.1, 0.1)
            nn.init.uniform_(layer.running_var, 0.8, 1.2)
    torch.save(network.state_dict(), path)
