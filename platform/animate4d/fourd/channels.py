"""Depth and features of splats, drawn as if they were colours, three channels a pass, by the same kernel and its twin.

A pass costs what a picture costs. Gradients reach everything: depths depend on the means of the splats as well.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from animate4d.fourd.render import draw_factors

MIN_COVER = 1e-3
"""Coverage below which a pixel has no depth to speak of."""


def draw_features(
    means: Tensor,
    factors: Tensor,
    opacities: Tensor,
    features: Tensor,
    viewmats: Tensor,
    intrinsics: Tensor,
    size: tuple[int, int],
    *,
    backend: str,
) -> Tensor:
    """Draw C values per splat; arguments as in `render.draw_factors`.

    Args:
        means: `[F, N, 3]`.
        factors: `[F, N, 3, 3]`.
        opacities: `[N]`.
        features: `[N, C]`, or `[F, N, C]` where they change; any numbers.
        viewmats: `[V, 4, 4]`.
        intrinsics: `[V, 3, 3]`.
        size: (height, width).
        backend: "native" or "torch".

    Returns:
        `[F, V, C, H, W]` sums over the splats of a pixel of weight times value; divide by alpha for their mean.
    """
    passes = []
    for values in features.split(3, dim=-1):
        padded = F.pad(values, (0, 3 - values.shape[-1])).contiguous()
        image = draw_factors(means, factors, opacities, padded, viewmats, intrinsics, size, backend=backend)
        passes.append(image[:, :, : values.shape[-1]])
    return torch.cat(passes, 2)


def draw_depth(
    means: Tensor,
    factors: Tensor,
    opacities: Tensor,
    viewmats: Tensor,
    intrinsics: Tensor,
    size: tuple[int, int],
    *,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Draw the mean depth along the viewing axis of what covers each pixel; arguments as in `draw_features`.

    Returns:
        depth `[F, V, H, W]`, near zero where nothing is covered, and alpha `[F, V, H, W]`.
    """
    images = []
    for view, matrix in zip(viewmats, intrinsics, strict=True):
        depth = means @ view[2, :3] + view[2, 3]
        colors = depth[..., None].expand(-1, -1, 3).contiguous()
        images.append(
            draw_factors(means, factors, opacities, colors, view[None], matrix[None], size, backend=backend)[:, 0]
        )
    image = torch.stack(images, 1)
    alpha = image[:, :, 3]
    return image[:, :, 0] / alpha.clamp(min=MIN_COVER), alpha
