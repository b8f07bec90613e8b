"""Frames to features: a residual network of stride 4, every frame by itself.

Measured at 384 x 512: 51.8 GFLOP per frame, half of what a 16-frame clip of 225 points costs; so features are computed
once and shared by all queries. Channels come last in memory: that makes the convolutions a third faster on CPUs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from animate4d.tracks.cotracker3.config import CoTracker3Config

NORM_EPS = 1e-5
LENGTH_FLOOR = 1e-12
STRIDE = 4


class FeatureEncoder(nn.Module):
    """Images `[M, 3, H, W]` in [-1, 1] to features `[M, features, H // 4, W // 4]`, not yet of unit length.

    Attribute names are those of the checkpoints.
    """

    def __init__(self, config: CoTracker3Config) -> None:
        super().__init__()
        first, second, third, fourth = config.stages
        self.conv1 = nn.Conv2d(3, first, 7, stride=2, padding=3)
        self.layer1 = stage(first, first, 1)
        self.layer2 = stage(first, second, 2)
        self.layer3 = stage(second, third, 2)
        self.layer4 = stage(third, fourth, 2)
        self.conv2 = nn.Conv2d(sum(config.stages), config.fusion, 3, padding=1)
        self.conv3 = nn.Conv2d(config.fusion, config.features, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the features of all images."""
        size = (images.shape[2] // STRIDE, images.shape[3] // STRIDE)
        x = normalised_(self.conv1(images)).relu_()
        maps = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            maps.append(F.interpolate(x, size, mode="bilinear", align_corners=True))
        return self.conv3(normalised_(self.conv2(torch.cat(maps, dim=1))).relu_())


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, each followed by a normalisation without parameters."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride)) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        y = normalised_(self.conv1(x)).relu_()
        y = normalised_(self.conv2(y)).relu_()
        shortcut = x if self.downsample is None else normalised_(self.downsample(x))
        return y.add_(shortcut).relu_()


def stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Return two residual blocks, the first of which changes size and channels."""
    return nn.Sequential(ResidualBlock(inputs, outputs, stride), ResidualBlock(outputs, outputs, 1))


def normalised_(x: Tensor) -> Tensor:
    """Give every channel of every image mean 0 and variance 1, in place for float32.

    Two passes, centred first: with channels last, torch's own fused norms sum squares of uncentred values and lose
    three digits (4e-4 at mean 3), and its instance norm is twice as slow.

    Args:
        x: `[M, C, H, W]` of any layout.
    """
    values = x.float()
    values.sub_(values.mean((2, 3), keepdim=True))
    variance = values.square().mean((2, 3), keepdim=True)
    return values.mul_(torch.rsqrt(variance + NORM_EPS)).to(x.dtype)


def unit_length(features: Tensor) -> Tensor:
    """Divide `[M, h, w, C]` features by their length over C (floored at 1e-6)."""
    return features * features.square().sum(-1, keepdim=True).clamp_min(LENGTH_FLOOR).rsqrt()
