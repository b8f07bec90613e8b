"""Moving splats as pictures: what the fitted object looks like from any camera."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from animate4d.core.cameras import world_to_camera_cv
from animate4d.core.clip import GREY
from animate4d.core.motion import SplatMotion
from animate4d.core.splats import SplatCloud
from animate4d.fourd.render import render
from animate4d.fourd.surface_splats import SH0


def film_splats(
    cloud: SplatCloud, motion: SplatMotion, camera_to_world: np.ndarray, intrinsics: np.ndarray, size: int
) -> np.ndarray:
    """Draw splats in all their frames.

    Args:
        cloud: N splats in frame 0.
        motion: their T frames.
        camera_to_world: `[V, 4, 4]` OpenGL axes.
        intrinsics: `[V, 3, 3]` for pictures of `size` pixels.
        size: pixels on a side.

    Returns:
        `[V, T, size, size, 3]` float32 in [0, 1] on grey.
    """
    viewmats = _tensor(world_to_camera_cv(camera_to_world))
    lenses = _tensor(intrinsics)
    frames = []
    for frame in range(len(motion.means)):
        splats = motion.at(frame, cloud)
        rgb, alpha = render(
            _tensor(splats.means)[None],
            _tensor(splats.quats),
            _tensor(splats.scales),
            _tensor(splats.opacities),
            _tensor(0.5 + SH0 * splats.sh[:, 0]),
            viewmats,
            lenses,
            size,
        )
        frames.append((rgb + GREY * (1.0 - alpha[..., None]))[0].clamp(0.0, 1.0).numpy())
    return np.stack(frames, axis=1)


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))
