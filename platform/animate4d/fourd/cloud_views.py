"""Pictures of a captured cloud: every view with the colours the harmonics give for it.

A splat that has turned since frame 0 is looked at from where the camera was relative to it then, which is what turning
its harmonics along with it would show, at a fraction of the time.
"""

from __future__ import annotations

import numpy as np
import torch

from animate4d.core.cameras import Rig, world_to_camera_cv
from animate4d.core.harmonics import SH0, harmonics
from animate4d.core.motion import turns_between
from animate4d.core.splats import SplatCloud
from animate4d.fourd.render import draw_splats

UNSEEN = 128
"""Colour stored where nothing is covered: the grey of the background, so that filters do not bleed black."""

_ROWS = 1 << 17
"""Splats whose harmonics are evaluated at a time, which bounds the scratch memory to some 50 MB."""


def view_colors(cloud: SplatCloud, means: np.ndarray, quats: np.ndarray | None, eye: np.ndarray) -> np.ndarray:
    """Return the colours `[N, 3]` float32, 0 or more, of moved splats seen from one place.

    Args:
        cloud: at frame 0.
        means: `[N, 3]` where its splats are now.
        quats: `[N, 4]` wxyz, how they lie now; None where they have not turned.
        eye: `[3]` position of the camera.
    """
    count = cloud.sh.shape[1]
    if count == 1:
        return np.maximum(0.5 + np.float32(SH0) * cloud.sh[:, 0], 0)
    colors = np.empty_like(cloud.sh[:, 0])
    for start in range(0, len(means), _ROWS):
        rows = slice(start, start + _ROWS)
        directions = means[rows] - eye
        directions /= np.linalg.norm(directions, axis=1, keepdims=True).clip(1e-12)
        if quats is not None:
            directions = np.einsum("nji,nj->ni", turns_between(cloud.quats[rows], quats[rows]), directions)
        colors[rows] = 0.5 + np.einsum("nk,nkc->nc", harmonics(directions, count), cloud.sh[rows])
    return np.maximum(colors, 0)


def draw_cloud(
    cloud: SplatCloud, rig: Rig, size: int, *, means: np.ndarray | None = None, quats: np.ndarray | None = None
) -> np.ndarray:
    """Draw a cloud, moved or not, from every camera of a rig.

    Args:
        cloud: canonical, at frame 0.
        rig: V cameras.
        size: pixels per side.
        means: `[N, 3]` where its splats are now, if they have moved.
        quats: `[N, 4]` wxyz, how they lie now.

    Returns:
        `[V, H, W, 4]` uint8 with straight alpha; grey where alpha is 0.
    """
    places = cloud.means if means is None else means
    cameras, intrinsics = rig.camera_to_world(), rig.intrinsics(size)
    viewmats = torch.from_numpy(world_to_camera_cv(cameras).astype(np.float32))
    turned = torch.from_numpy(cloud.quats if quats is None else quats)
    scales, opacities = torch.from_numpy(cloud.scales), torch.from_numpy(cloud.opacities)
    matrices = torch.from_numpy(intrinsics.astype(np.float32))
    pictures = []
    for view, camera in enumerate(cameras):
        colors = torch.from_numpy(view_colors(cloud, places, quats, camera[:3, 3]))
        image = draw_splats(
            torch.from_numpy(places)[None], turned, scales, opacities, colors,
            viewmats[view : view + 1], matrices[view : view + 1], size,
        )  # fmt: skip
        pictures.append(image[0, 0].permute(1, 2, 0).numpy())
    drawn = np.stack(pictures)
    alpha = drawn[..., 3:]
    rgba = np.empty(drawn.shape, np.uint8)
    rgba[..., 3:] = np.round(255 * alpha.clip(0, 1))
    straight = np.round(255 * (drawn[..., :3] / np.maximum(alpha, 1e-6)).clip(0, 1))
    rgba[..., :3] = np.where(rgba[..., 3:] > 0, straight, UNSEEN)
    return rgba
