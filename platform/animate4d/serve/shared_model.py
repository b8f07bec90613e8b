"""A model in another process, as the pipeline of one job sees it: orders go there, videos come back."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
from ray.exceptions import ObjectLostError, RayActorError, RayError
from ray.serve.exceptions import RayServeException

from animate4d.core.cameras import Rig
from animate4d.models.sampler_config import SamplerConfig
from animate4d.videos.maker import GeneratedVideo

LOST = (RayActorError, ObjectLostError, RayServeException)
"""What tells that the generator has died, or that its machine has."""

LOOK_SECONDS = 0.3
"""How often a job that waits for its video tells how far it is, and looks whether it shall stop."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Order:
    """A video to be made; see `videos.generate.generate_videos` for what is not said here.

    Attributes:
        id: of this order.
        first_frames: `[V, S, S, 4]` uint8 RGBA.
        rig: the cameras that rendered them.
        prompt: what the object should do.
        seed: of the clip.
        config: how to sample.
        alone: whether it must not share a batch.
    """

    id: str
    first_frames: np.ndarray
    rig: Rig
    prompt: str
    seed: int
    config: SamplerConfig
    alone: bool


class SharedModel:
    """Makes videos through the handle of a `generator.Generator`; a `videos.maker.VideoModel`.

    Args:
        generator: the handle.
        alone: let no other job share a batch, because the generator has died on this one before.
    """

    def __init__(self, generator: Any, *, alone: bool = False) -> None:
        self._generator, self._alone = generator, alone

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
        """Order a video and wait for it, however long the generator is away or busy; `progress` may end that."""
        order = Order(
            id=secrets.token_hex(8),
            first_frames=first_frames,
            rig=rig,
            prompt=prompt,
            seed=seed,
            config=config,
            alone=self._alone,
        )
        response = self._generator.generate.remote(order)
        done = (0, 1)
        while True:
            try:
                answer = response.result(timeout_s=LOOK_SECONDS)
                break
            except TimeoutError:
                done = self._steps(order.id) or done
                try:
                    progress(*done)
                except BaseException:
                    response.cancel()
                    raise
        if isinstance(answer, Exception):
            raise answer
        return deepcopy(answer)  # arrays from the object store cannot be written to, and hold their place there

    def _steps(self, order_id: str) -> tuple[int, int] | None:
        """Return (steps done, steps) of an order; None where its generator does not answer, or another one did."""
        asked = self._generator.steps.remote(order_id)
        try:
            return asked.result(timeout_s=LOOK_SECONDS)
        except TimeoutError:
            asked.cancel()  # or they pile up while the generator is away
        except (RayError, RayServeException):
            pass
        return None
