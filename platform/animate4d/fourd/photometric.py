"""The squared difference between drawn splats and the video, on several image levels, with its gradient written out.

Compared are rgb on the grey background and coverage, four channels together. Levels are averages over 2x2, 4x4 ...
pixels; averaging is linear, so one difference image serves all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from animate4d.core.cameras import world_to_camera_cv
from animate4d.core.clip import GREY, MultiViewVideo
from animate4d.fourd.render import draw_factors


@dataclass(frozen=True, kw_only=True, slots=True)
class Pictures:
    """The video as the fit compares it.

    Attributes:
        frames: `[T, V, 4, H, W]` float32 premultiplied rgb and alpha.
        viewmats: `[V, 4, 4]` float32 world-to-camera, OpenCV axes.
        intrinsics: `[V, 3, 3]` float32 for this size.
        levels: image levels compared.
        backend: "native" or "torch".
        coverage: weight of a difference in coverage beside one in colour.
    """

    frames: Tensor
    viewmats: Tensor
    intrinsics: Tensor
    levels: int
    backend: str
    coverage: float = 1.0

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.frames.shape[-2]), int(self.frames.shape[-1])

    def split(self, views: int) -> list[Pictures]:
        """Return the pictures in sets of at most `views` views."""
        parts = torch.arange(len(self.viewmats)).split(views)
        return [
            replace(self, frames=self.frames[:, rows], viewmats=self.viewmats[rows], intrinsics=self.intrinsics[rows])
            for rows in parts
        ]

    def project(self, points: Tensor) -> Tensor:
        """Project `[B, N, 3]` points into all views; returns `[B, V, N, 2]` pixels."""
        full = self.intrinsics @ self.viewmats[:, :3]
        image = torch.einsum("vij,bnj->bvni", full[..., :3], points) + full[:, None, :, 3]
        return image[..., :2] / image[..., 2:]


def prepare_pictures(video: MultiViewVideo, size: int, levels: int, backend: str, coverage: float = 1.0) -> Pictures:
    """Shrink a video to at most `size` pixels on its longer side and premultiply it by its coverage."""
    height, width = video.rgb.shape[2:4]
    scale = min(1.0, size / max(height, width))
    shape = max(1, round(height * scale)), max(1, round(width * scale))
    alpha = video.alpha[..., None].astype(np.float32) / 255.0
    layers = np.concatenate([video.rgb.astype(np.float32) / 255.0 * alpha, alpha], -1)
    flat = layers.reshape(-1, height, width, 4)
    if shape != (height, width):
        flat = np.stack([cv2.resize(image, shape[::-1], interpolation=cv2.INTER_AREA) for image in flat])
    views, times = video.rgb.shape[:2]
    frames = flat.reshape(views, times, *shape, 4).transpose(1, 0, 4, 2, 3)
    intrinsics = video.intrinsics.copy()
    intrinsics[:, 0] *= shape[1] / width
    intrinsics[:, 1] *= shape[0] / height
    return Pictures(
        frames=torch.from_numpy(np.ascontiguousarray(frames)),
        viewmats=torch.from_numpy(world_to_camera_cv(video.camera_to_world).astype(np.float32)),
        intrinsics=torch.from_numpy(intrinsics.astype(np.float32)),
        levels=levels,
        backend=backend,
        coverage=coverage,
    )


def photometric_loss(
    means: Tensor, factors: Tensor, opacities: Tensor, colors: Tensor, pictures: Pictures, frames: Tensor
) -> Tensor:
    """Return the loss `[B]` of B poses of the splats, each against its own frame.

    Args:
        means: `[B, N, 3]`.
        factors: `[B, N, 3, 3]`, covariance M M^T.
        opacities: `[N]`.
        colors: `[N, 3]`.
        pictures: the video.
        frames: `[B]` int64 frame numbers.

    Returns:
        sum over levels of the mean squared difference over views, channels and pixels.
    """
    image = draw_factors(
        means,
        factors,
        opacities,
        colors,
        pictures.viewmats,
        pictures.intrinsics,
        pictures.size,
        backend=pictures.backend,
    )
    return _Difference.apply(image, pictures.frames[frames], pictures.levels, pictures.coverage)


class _Difference(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, target: Tensor, levels: int, coverage: float) -> Tensor:
        batch = len(image)
        difference = (image.detach() - target).flatten(0, 1)
        difference[:, :3] -= GREY * difference[:, 3:]
        difference[:, 3] *= coverage
        pyramid = [difference]
        for _ in range(levels - 1):
            if min(pyramid[-1].shape[-2:]) < 2:
                break
            pyramid.append(F.avg_pool2d(pyramid[-1], 2))
        loss = torch.zeros(batch)
        for level in pyramid:
            rows = level.view(batch, -1)
            loss += torch.einsum("bi,bi->b", rows, rows) / rows.shape[1]
        ctx.pyramid, ctx.coverage = pyramid, coverage
        ctx.shape = image.shape
        return loss

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        pyramid, shape = ctx.pyramid, ctx.shape
        slopes = [level * (2.0 / (level[0].numel() * shape[1])) for level in pyramid]
        for fine, coarse in zip(slopes[-2::-1], slopes[:0:-1], strict=True):
            spread = F.interpolate(coarse, scale_factor=2.0, mode="nearest").mul_(0.25)
            fine[..., : spread.shape[-2], : spread.shape[-1]] += spread
        gradient = slopes[0]
        gradient[:, 3] *= ctx.coverage
        gradient[:, 3] -= GREY * gradient[:, :3].sum(1)
        gradient = gradient.view(shape)
        return gradient * cotangents[0].view(-1, 1, 1, 1, 1), None, None, None
