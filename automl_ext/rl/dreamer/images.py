"""Convolutional encoder and decoder for images (Ha and Schmidhuber 2018)."""

from __future__ import annotations

from torch import nn

SIDE = 64  # height and width of images


def image_encoder(channels: int, depth: int) -> nn.Sequential:
    """Build the encoder: images [N, channels, 64, 64] → [N, 32 · depth]."""
    modules: list[nn.Module] = []
    for i in range(4):
        modules += [nn.Conv2d(channels, depth << i, 4, stride=2), nn.ReLU(inplace=True)]
        channels = depth << i
    return nn.Sequential(*modules, nn.Flatten())


def image_decoder(features: int, channels: int, depth: int) -> nn.Sequential:
    """Build the decoder: features [N, features] → images [N, channels, 64, 64]."""
    return nn.Sequential(
        nn.Linear(features, 32 * depth),
        nn.Unflatten(1, (32 * depth, 1, 1)),
        nn.ConvTranspose2d(32 * depth, 4 * depth, 5, stride=2),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(4 * depth, 2 * depth, 5, stride=2),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(2 * depth, depth, 6, stride=2),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(depth, channels, 6, stride=2),
    )
