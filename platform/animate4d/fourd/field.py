"""The papers' motion field: features of place and time to offsets of position, rotation and size.

Hex-plane features and diffusion features (paper 001 eq. 6) go through small heads (eq. 7) and are added (eq. 9).
Evaluated once per frame, never per image. A new field moves nothing: time planes are one and last layers zero. Frame 0
is the asset itself and never asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animate4d.fourd.field_config import FieldConfig
from animate4d.fourd.field_native import LANES, head_outputs
from animate4d.fourd.hexplane import HexPlanes
from animate4d.fourd.raster_torch import factors_from_quats, multiply_quats

POSITION, ROTATION, SIZE = range(3)
OUTPUTS = (3, 4, 3)
"""Of the heads: position, quaternion, log size."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Offsets:
    """What the field says about n points in F frames.

    Attributes:
        position: `[F, n, 3]`.
        rotation: `[F, n, 4]`, added to quaternions.
        size: `[F, n, 3]`, added to log sizes; None where sizes are left alone.
        turn: `[F, 4]` quaternion of the global rotation; None without global motion.
        shift: `[F, 3]` global translation; None without global motion.
    """

    position: Tensor
    rotation: Tensor
    size: Tensor | None
    turn: Tensor | None
    shift: Tensor | None

    def move(self, points: Tensor) -> Tensor:
        """Return `[F, n, 3]` moved points: the global motion, then the offset. `points` is `[n, 3]` or `[F, n, 3]`."""
        if self.turn is not None and self.shift is not None:
            rotation = factors_from_quats(self.turn, torch.ones_like(self.shift))
            points = points @ rotation.mT + self.shift[:, None]
        return points + self.position

    def turned(self, quats: Tensor, count: int) -> Tensor:
        """Return `[F, count, 4]` quaternions, not normalised, of the first points' `[count, 4]` or `[F, count, 4]`."""
        if self.turn is not None:
            quats = multiply_quats(self.turn[:, None], quats)
        return quats + self.rotation[:, :count]


class MotionField(nn.Module):
    """Hex-planes, heads and optional global motion."""

    def __init__(self, config: FieldConfig, extra: int, generator: torch.Generator) -> None:
        """Build a field that moves nothing.

        Args:
            config: what it is made of.
            extra: channels of the diffusion features that are appended, a multiple of 8; 0 without.
            generator: of the start values.
        """
        super().__init__()
        self.config = config
        self.planes = HexPlanes(config.planes, generator)
        width = self.planes.channels + extra
        self.first = nn.ParameterList(_uniform(width, config.hidden, generator) for _ in OUTPUTS)
        self.second = nn.ParameterList(nn.Parameter(torch.zeros(config.hidden, count)) for count in OUTPUTS)
        if config.global_motion:
            self.global_first = nn.ParameterList(_uniform(width, config.hidden, generator) for _ in range(2))
            self.global_second = nn.ParameterList(nn.Parameter(torch.zeros(config.hidden, 3)) for _ in range(2))

    def forward(
        self, points: Tensor, times: Tensor, extra: Tensor | None = None, *, body: int, sizes: bool, backend: str
    ) -> Offsets:
        """Return the offsets of points at times.

        Args:
            points: `[n, 3]` rest positions in [-1, 1].
            times: `[F]` in (-1, 1].
            extra: `[F, n, d]` diffusion features.
            body: the first so many points are the Gaussians, whose mean feature decides the global motion.
            sizes: whether to ask for sizes.
            backend: "native" (CPU) or "torch".
        """
        features = self.planes(points, times, extra, backend=backend)
        heads = 3 if sizes else 2
        apply = head_outputs if backend == "native" else apply_heads
        first = torch.stack(list(self.first)[:heads])
        second = torch.stack([F.pad(layer, (0, LANES - layer.shape[1])) for layer in list(self.second)[:heads]])
        found = apply(features.flatten(0, 1), first, second).view(*features.shape[:2], heads, LANES)
        turn, shift = None, None
        if self.config.global_motion:
            mean = features[:, :body].mean(1)
            angles, shift = (
                2 * torch.sigmoid(torch.relu(mean @ a) @ b) - 1
                for a, b in zip(self.global_first, self.global_second, strict=True)
            )
            turn = euler_quats(math.pi * angles)
        return Offsets(
            position=found[..., POSITION, : OUTPUTS[POSITION]],
            rotation=found[..., ROTATION, : OUTPUTS[ROTATION]],
            size=found[..., SIZE, : OUTPUTS[SIZE]] if sizes else None,
            turn=turn,
            shift=shift,
        )


def apply_heads(inputs: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return `[R, K, 8]` of inputs `[R, I]` in plain torch: says what `field_native.head_outputs` must compute."""
    return torch.stack([torch.relu(inputs @ a) @ b for a, b in zip(first, second, strict=True)], 1)


def frame_times(frames: Tensor, count: int) -> Tensor:
    """Return where frames `[F]` out of `count` lie in [-1, 1]."""
    return 2 * frames.float() / (count - 1) - 1


def cosine_basis(frames: Tensor, count: int, terms: int) -> Tensor:
    """Return `[F, terms - 1]`: cos(i pi t / N_t) - 1 for i = 1 .. terms - 1 (paper 001 eq. 8, zero in frame 0).

    The paper's cosines are all one in frame 0, where colours must be the asset's; taking one off spans the same
    functions and leaves the constant term what it was.
    """
    order = torch.arange(1, terms, device=frames.device)
    return torch.cos(order * (math.pi / count) * frames[:, None]) - 1


def euler_quats(angles: Tensor) -> Tensor:
    """Return quaternions wxyz `[..., 4]` of turns about x, then y, then z by angles `[..., 3]`, radians."""
    cosine, sine, zero = (0.5 * angles).cos(), (0.5 * angles).sin(), torch.zeros_like(angles[..., 0])
    about = []
    for axis in range(3):
        parts = [cosine[..., axis], zero, zero, zero]
        parts[1 + axis] = sine[..., axis]
        about.append(torch.stack(parts, -1))
    return multiply_quats(about[2], multiply_quats(about[1], about[0]))


def _uniform(inputs: int, outputs: int, generator: torch.Generator) -> nn.Parameter:
    """Return a layer's start values: uniform within one over the root of its inputs, torch's own choice."""
    bound = inputs**-0.5
    return nn.Parameter((2 * torch.rand(inputs, outputs, generator=generator) - 1) * bound)
