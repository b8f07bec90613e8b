"""What makes a video, and the video: `generate.LocalModel` in this process, or a model in another that jobs share.

Imports no network, so that a process that only orders videos stays small.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from animate4d.core.cameras import Rig
from animate4d.models.sampler_config import SamplerConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratedVideo:
    """A generated clip.

    Attributes:
        rgb: `[V, T, H, W, 3]` uint8 composited on grey; frame 0 is the input.
        alpha: `[V, T, H, W]` uint8 coverage.
        flow: `[V, T, h, w, 2]` float32 backward flow to frame 0 in half-image units (x, y), or None (no warp head).
        flow_weight: `[V, T, h, w]` float32 in [0, 1], together with `flow`: the gate times the coverage of the flow's
            source in frame 0, so near 0 where there is no object or the flow points beside it.
        times: `[T]` float64 seconds.
    """

    rgb: np.ndarray
    alpha: np.ndarray
    flow: np.ndarray | None
    flow_weight: np.ndarray | None
    times: np.ndarray


class VideoModel(Protocol):
    """Makes multi-view videos."""

    def video(
        self,
        first_frames: np.ndarray,
        rig: Rig,
        prompt: str,
        *,
        seed: int,
        config: SamplerConfig,
        progress: Callable[[int, int], None],
    ) -> tuple[GeneratedVideo, str]:
        """Return what `generate.generate_video` makes, and the version of the model that made it.

        An error that `progress` raises ends the work and is passed on.
        """
