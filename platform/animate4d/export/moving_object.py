"""What all exports of one object are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from animate4d.assets.asset import Asset
from animate4d.core.cameras import Rig
from animate4d.core.motion import Motion, SplatMotion
from animate4d.core.splats import SplatCloud


@dataclass(frozen=True, kw_only=True, slots=True)
class MovingObject:
    """An asset and its motion, in the canonical frame. T frames, evenly spaced.

    Attributes:
        asset: in the pose of frame 0, with the way back to its own frame.
        title: what it does; names the animation.
        motion: fitted to the asset's vertices, or to the splats of an asset without a mesh.
        vertices: `[T, M, 3]` of the mesh; None without one.
        cloud: splats at frame 0.
        splats: their trajectories.
        rig: cameras of the video.
        video: `[V, F, H, W, 3]` uint8 on grey: what the motion was fitted to.
        video_frames: `[T]` which of its frames goes with each frame of the motion.
        video_name: what the video is.
    """

    asset: Asset
    title: str
    motion: Motion
    vertices: np.ndarray | None
    cloud: SplatCloud
    splats: SplatMotion
    rig: Rig
    video: np.ndarray
    video_frames: np.ndarray
    video_name: str
