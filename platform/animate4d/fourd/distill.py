"""4D score distillation: pull pictures of an object towards what a video model makes of them (paper 001 eq. 11).

The model is a callable: this room knows pictures, cameras and a noise level, not networks. The loss is half the squared
distance between the pictures' latents and the model's clean estimate, summed over a latent and averaged over images, as
the papers' weight expects; as a mean, it would be 4096 times too small for 4 x 32 x 32 latents.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from animate4d.core.cameras import Rig, world_to_camera_cv
from animate4d.fourd.field_config import DistillConfig


class ScoreFunction(Protocol):
    """A multi-view video model as a judge of clips.

    Attributes:
        views: V it was made for.
        frames: most frames it takes, frame 0 included.
        size: pixels on a side.
    """

    views: int
    frames: int
    size: int

    def __call__(
        self, images: Tensor, camera_to_world: Tensor, noise: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Say what the clip should be.

        Args:
            images: `[V, F, 3, S, S]` in [0, 1] on grey, evenly spaced in time, with gradient; frame 0 is the asset
                itself.
            camera_to_world: `[V, 4, 4]` OpenGL axes.
            noise: noise level as a share of the schedule, in [0, 1).
            generator: of all noise, on the CPU.

        Returns:
            latents `[V, F - 1, ...]` of the frames after 0, with gradient, and the clean estimate of the same shape,
            without.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Shot:
    """One random look at the clip.

    Attributes:
        camera_to_world: `[V, 4, 4]` float64.
        viewmats: `[V, 4, 4]` float32.
        intrinsics: `[V, 3, 3]` float32.
        frames: `[F]` int64, 0 first.
        noise: share of the schedule.
    """

    camera_to_world: np.ndarray
    viewmats: Tensor
    intrinsics: Tensor
    frames: Tensor
    noise: float


def draw_shot(config: DistillConfig, score: ScoreFunction, count: int, rng: np.random.Generator) -> Shot:
    """Draw cameras evenly round the object, as many frames of `count` as the model takes, and one noise level.

    The cameras share a random elevation, field of view and distance; the first azimuth is random too.
    """
    fov = rng.uniform(*config.fields_of_view)
    rig = Rig(
        azimuths_deg=Rig.even(score.views, start_deg=rng.uniform(0.0, 360.0)).azimuths_deg,
        elevation_deg=rng.uniform(*config.elevations),
        distance=rng.uniform(*config.distances) / math.tan(math.radians(fov) / 2),
        fov_deg=fov,
    )
    poses = rig.camera_to_world()
    chosen = np.linspace(0, count - 1, min(count, score.frames)).round().astype(np.int64)
    return Shot(
        camera_to_world=poses,
        viewmats=torch.from_numpy(world_to_camera_cv(poses).astype(np.float32)),
        intrinsics=torch.from_numpy(rig.intrinsics(score.size).astype(np.float32)),
        frames=torch.from_numpy(chosen),
        noise=float(rng.uniform(config.least_noise, config.most_noise)),
    )


def distillation(latents: Tensor, clean: Tensor) -> Tensor:
    """Return half the squared distance, summed over a latent, averaged over the images `[V, F - 1]`."""
    return 0.5 * (latents - clean).square().flatten(2).sum(-1).mean()
