"""What every layer of one forward pass is told: sizes, embeddings, text, image tokens, position encodings."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

CAMERA_NUMBERS = 16
"""A camera is its 4x4 camera-to-world matrix, row-major."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the layers of one forward pass share.

    Attributes:
        frame_index: `[b, f]` int64.
        views: view count n.
        embedding: `[(b f n), d]` time, camera and, if configured, frame and text.
        text: `[b, L, d]` text states.
        image: `[b, n, t, d]` image tokens, or None.
        positions: `[h w, c]` of each level, None where a level has no spatial branch.
        taps: places whose features are wanted.
    """

    frame_index: torch.Tensor
    views: int
    embedding: torch.Tensor
    text: torch.Tensor
    image: torch.Tensor | None
    positions: tuple[torch.Tensor | None, ...]
    taps: frozenset[str]


def camera_numbers(camera_to_world: torch.Tensor) -> torch.Tensor:
    """Flatten `[..., 4, 4]` camera-to-world matrices to 16 numbers with the translation scaled to length one (MVDream).

    Distance and field of view are thereby unknown to the network.
    """
    matrix = camera_to_world.clone()
    position = camera_to_world[..., :3, 3]
    matrix[..., :3, 3] = position / (position.norm(dim=-1, keepdim=True) + 1e-8)
    return matrix.flatten(-2)


def sine_encoding_2d(height: int, width: int, channels: int, device: torch.device | None = None) -> torch.Tensor:
    """Return the `[height * width, channels]` DETR-style encoding: half the channels for y, then half for x.

    Rows and columns count from 1 and are scaled so that the last one is 2 pi; feature i has frequency
    10000^(-2 floor(i / 2) / (channels / 2)), sine where i is even and cosine where it is odd.
    """
    half = channels // 2
    index = torch.arange(half, device=device, dtype=torch.float32)
    frequency = 10000 ** (-2 * torch.div(index, 2, rounding_mode="floor") / half)

    def encode(count: int) -> torch.Tensor:
        position = torch.arange(1, count + 1, device=device, dtype=torch.float32) / (count + 1e-6) * (2 * math.pi)
        angle = position[:, None] * frequency
        return torch.where(index.long() % 2 == 0, angle.sin(), angle.cos())

    rows = encode(height)[:, None].expand(height, width, half)
    columns = encode(width)[None, :].expand(height, width, half)
    return torch.cat((rows, columns), dim=-1).reshape(height * width, channels)


def level_positions(
    height: int, width: int, channels: tuple[int, ...], spatial: tuple[bool, ...], like: torch.Tensor
) -> tuple[torch.Tensor | None, ...]:
    """Return the encoding of each level's map, in `like`'s type, for the levels that have a spatial branch."""
    encodings: list[torch.Tensor | None] = []
    for width_of_level, wanted in zip(channels, spatial, strict=True):
        encoding = sine_encoding_2d(height, width, width_of_level, like.device).to(like.dtype) if wanted else None
        encodings.append(encoding)
        height, width = (height + 1) // 2, (width + 1) // 2
    return tuple(encodings)
