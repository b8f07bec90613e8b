"""Who makes a video: a model in this process, or one in another that several jobs share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from animate4d.core.cameras import Rig
from animate4d.models.mv_vdm import MVVDM
from animate4d.models.sampler_config import SamplerConfig
from animate4d.videos.generate import GeneratedVideo, generate_video


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
        """Return what `generate_video` makes, and the version of the model that made it.

        An error that `progress` raises ends the work and is passed on.
        """


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model in this process.

    Attributes:
        model: in evaluation mode, on any device.
        version: identifies it in receipts.
    """

    model: MVVDM
    version: str

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
        """See `VideoModel`."""
        made = generate_video(self.model, first_frames, rig, prompt, seed=seed, config=config, progress=progress)
        return made, self.version
