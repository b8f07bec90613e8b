"""Hex-planes: a feature of place and time as the product of six plane samples (papers 001 eq. 6, 002 eq. 4).

Three planes hold xy, xz and yz, three hold xt, yt and zt; each has one value per node of a grid whose first and last
nodes lie at -1 and 1. Points do not move, so gradients go to the planes alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animate4d.fourd.field_config import PlaneConfig
from animate4d.fourd.field_native import hex_features

PAIRS = ((0, 1), (0, 2), (1, 2))
"""Axes of the spatial planes."""


class HexPlanes(nn.Module):
    """Planes of one or more resolutions, whose features are concatenated.

    At the start the spatial planes are U(0.1, 0.5) and those with time are one, so no feature depends on time.
    """

    def __init__(self, scales: tuple[PlaneConfig, ...], generator: torch.Generator) -> None:
        super().__init__()
        self.spatial, self.temporal = nn.ParameterList(), nn.ParameterList()
        for scale in scales:
            start = torch.rand(3, scale.side, scale.side, scale.channels, generator=generator)
            self.spatial.append(nn.Parameter(0.1 + 0.4 * start))
            self.temporal.append(nn.Parameter(torch.ones(3, scale.steps, scale.side, scale.channels)))

    @property
    def channels(self) -> int:
        """Features per place and time."""
        return sum(plane.shape[-1] for plane in self.spatial)

    def forward(self, points: Tensor, times: Tensor, extra: Tensor | None = None, *, backend: str) -> Tensor:
        """Return features `[T, N, channels]`.

        Args:
            points: `[N, 3]` in [-1, 1]; beyond, the border value holds.
            times: `[T]` in [-1, 1].
            extra: `[T, N, d]` constant features to append, d a multiple of 8.
            backend: "native" (CPU) or "torch".
        """
        planes = [plane for pair in zip(self.spatial, self.temporal, strict=True) for plane in pair]
        if backend == "native":
            return hex_features(points, times, extra, tuple(planes))
        parts = [sample_planes(points, times, *pair) for pair in zip(self.spatial, self.temporal, strict=True)]
        return torch.cat(parts if extra is None else [*parts, extra], -1)

    def roughness(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the regularisers of 4DGaussians, each a mean over the cells of a plane, summed over planes.

        Returns:
            total variation over space, second differences over time, and distance of the time planes from one.
        """
        variation, jerk, change = (torch.zeros((), device=self.spatial[0].device) for _ in range(3))
        for spatial, temporal in zip(self.spatial, self.temporal, strict=True):
            variation = variation + spatial.diff(dim=1).square().mean() + spatial.diff(dim=2).square().mean()
            variation = variation + temporal.diff(dim=2).square().mean()
            if temporal.shape[1] > 2:
                jerk = jerk + temporal.diff(n=2, dim=1).square().mean()
            change = change + (temporal - 1).abs().mean()
        return variation, jerk, change


def sample_planes(points: Tensor, times: Tensor, spatial: Tensor, temporal: Tensor) -> Tensor:
    """Return features `[T, N, C]` of one scale in plain torch: says what the kernel must compute.

    Args:
        points: `[N, 3]`.
        times: `[T]`.
        spatial: `[3, R, R, C]`, planes of `PAIRS`, second axis of the pair first.
        temporal: `[3, S, R, C]`, planes of x, y and z, time first.
    """
    product: Tensor | None = None
    for plane, pair in zip(spatial, PAIRS, strict=True):
        sample = _bilinear(plane, points[None, :, list(pair)])
        product = sample if product is None else product * sample
    assert product is not None
    moments = times[:, None].expand(-1, len(points))
    for axis, plane in enumerate(temporal):
        product = product * _bilinear(plane, torch.stack([points[:, axis].expand_as(moments), moments], -1))
    return product


def _bilinear(plane: Tensor, at: Tensor) -> Tensor:
    """Sample a plane `[B, A, C]` at `[..., n, 2]` (a, b); returns `[..., n, C]`."""
    sampled = F.grid_sample(plane.permute(2, 0, 1)[None], at[None].to(plane), padding_mode="border", align_corners=True)
    return sampled[0].permute(1, 2, 0)
