"""The splat rasteriser in plain torch: says what the C kernel must compute, and runs where there is no compiler.

It walks over tiles and treats each as a dense `[splats, pixels]` problem, in any float type, with autograd throughout.
About 150 times slower than the C kernel.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from animate4d.fourd.native import EPS2D, MAX_ALPHA, MIN_ALPHA, MIN_TRANSMITTANCE, NEAR

TILE = 16
"""Pixels on a side: 16 took 1.9 s for 2000 splats in four 128 px images, 32 took 3.1 s, 64 took 10 s."""


def draw(
    means: Tensor,
    factors: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    intrinsics: Tensor,
    size: tuple[int, int],
) -> Tensor:
    """Draw F frames in V views; shapes as in `native.Drawing`, result `[F, V, 4, H, W]`, differentiable."""
    palettes = colors if colors.ndim == 3 else colors.expand(len(means), *colors.shape)
    frames = [
        torch.stack(
            [
                _draw_image(mean, factor, opacities, palette, view, matrix, size)
                for view, matrix in zip(viewmats, intrinsics, strict=True)
            ]
        )
        for mean, factor, palette in zip(means, factors, palettes, strict=True)
    ]
    return torch.stack(frames)


def project(
    means: Tensor, factors: Tensor, viewmat: Tensor, intrinsics: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Project N splats into one image.

    Returns:
        centres `[N, 2]` in pixels, 2D covariances `[N, 2, 2]` with EPS2D on the diagonal, depths `[N]`. Rows with a
        depth of NEAR or less are meaningless.
    """
    height, width = size
    point = means @ viewmat[:3, :3].T + viewmat[:3, 3]
    depth = point[:, 2]
    safe = torch.where(depth > NEAR, depth, torch.ones_like(depth))
    focal = torch.stack([intrinsics[0, 0], intrinsics[1, 1]])
    middle = torch.stack([intrinsics[0, 2], intrinsics[1, 2]])
    extent = torch.tensor([width, height], dtype=means.dtype)
    slope = point[:, :2] / safe[:, None]
    margin = 0.15 * extent / focal
    held = torch.minimum(torch.maximum(slope, -middle / focal - margin), (extent - middle) / focal + margin)
    rotation = viewmat[:3, :3]
    jacobian = (focal / safe[:, None])[..., None] * (rotation[:2] - held[..., None] * rotation[2])
    image = jacobian @ factors
    covariance = image @ image.mT + EPS2D * torch.eye(2, dtype=means.dtype)
    return slope * focal + middle, covariance, depth


def _draw_image(
    means: Tensor,
    factors: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmat: Tensor,
    intrinsics: Tensor,
    size: tuple[int, int],
) -> Tensor:
    height, width = size
    centres, covariances, depths = project(means, factors, viewmat, intrinsics, size)
    conics = torch.linalg.inv(covariances)
    with torch.no_grad():
        reach = torch.sqrt(2 * torch.log((opacities / MIN_ALPHA).clamp(min=1.0)))
        halves = reach[:, None] * torch.diagonal(covariances, dim1=1, dim2=2).sqrt() * 1.0001 + 1e-3
        low, high = centres - halves, centres + halves
        order = torch.argsort(depths, stable=True)
        order = order[(depths[order] > NEAR) & (opacities[order] >= MIN_ALPHA)]
    paint = torch.cat([colors, torch.ones_like(colors[:, :1])], 1)
    rows = []
    for top in range(0, height, TILE):
        row = []
        for left in range(0, width, TILE):
            bottom, right = min(top + TILE, height), min(left + TILE, width)
            corner, end = torch.tensor([left, top]), torch.tensor([right, bottom])
            near = order[((high[order] > corner) & (low[order] < end)).all(1)]
            y, x = torch.meshgrid(
                torch.arange(top, bottom, dtype=means.dtype) + 0.5,
                torch.arange(left, right, dtype=means.dtype) + 0.5,
                indexing="ij",
            )
            pixels = torch.stack([x, y], -1).reshape(-1, 2)
            tile = _blend(pixels, centres[near], conics[near], opacities[near], paint[near])
            row.append(tile.T.reshape(4, bottom - top, right - left))
        rows.append(torch.cat(row, 2))
    return torch.cat(rows, 1)


def _blend(pixels: Tensor, centres: Tensor, conics: Tensor, opacities: Tensor, paint: Tensor) -> Tensor:
    """Blend K splats, near to far, over P pixels; returns `[P, 4]`."""
    x, y = (pixels[None] - centres[:, None]).unbind(-1)
    a, b, c = conics[:, 0, 0, None], conics[:, 0, 1, None], conics[:, 1, 1, None]
    sigma = 0.5 * (a * x * x + c * y * y) + b * x * y
    alpha = (opacities[:, None] * torch.exp(-sigma)).clamp(max=MAX_ALPHA)
    alpha = torch.where(alpha >= MIN_ALPHA, alpha, torch.zeros_like(alpha))
    after = torch.cumprod(1 - alpha, 0)
    before = torch.cat([torch.ones_like(after[:1]), after[:-1]])
    live = torch.cummin((after > MIN_TRANSMITTANCE).to(torch.uint8), 0).values if len(alpha) else alpha
    return (alpha * before * live).T @ paint


def factors_from_quats(quats: Tensor, scales: Tensor) -> Tensor:
    """Return M = R(q) diag(s), `[..., 3, 3]`, for quaternions wxyz of any length and linear scales."""
    w, x, y, z = (quats / quats.norm(dim=-1, keepdim=True).clamp(min=math.ulp(1.0))).unbind(-1)
    rotation = torch.stack(
        [
            1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
        ],
        -1,
    ).reshape(*quats.shape[:-1], 3, 3)  # fmt: skip
    return rotation * scales[..., None, :]


def multiply_quats(left: Tensor, right: Tensor) -> Tensor:
    """Return the product of quaternions wxyz `[..., 4]`: the rotation `right`, then `left`."""
    w, x, y, z = left.unbind(-1)
    s, i, j, k = right.unbind(-1)
    return torch.stack(
        [
            w * s - x * i - y * j - z * k,
            w * i + x * s + y * k - z * j,
            w * j - x * k + y * s + z * i,
            w * k + x * j - y * i + z * s,
        ],
        -1,
    )
