"""How clips are sampled: steps, guidance, scheduler, FreeInit, step caching. Plain numbers, imports nothing heavy."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from animate4d.core.errors import ConfigError

Scheduler = Literal["ddim", "dpm++", "unipc"]
Filter = Literal["butterworth", "gaussian", "ideal", "box"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FreeInitConfig:
    """FreeInit: sample several times, each from noise that keeps the slow part of the clip before (arXiv 2312.07537).

    More rounds make motion smoother and smaller. A model with zero terminal SNR (smoke) starts from pure noise, which
    keeps nothing of the clip before: there, rounds only cost time.
    """

    rounds: int = 1
    """Times a clip is sampled; 1 is plain sampling, the released Animate3D uses 3."""
    filter: Filter = "butterworth"
    """Low-pass filter between rounds."""
    order: int = 4
    """Order of the butterworth filter."""
    spatial_stop: float = 0.25
    """Stop frequency along height and width, as a share of the highest (0 to 1)."""
    temporal_stop: float = 0.25
    """Stop frequency along frames, as a share of the highest (0 to 1)."""
    fast: bool = False
    """Take fewer steps in early rounds: round i of n takes i/n of them."""

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ConfigError(f"free_init.rounds is {self.rounds}: give a whole number >= 1 (1 is off)")
        if self.filter not in get_args(Filter):
            raise ConfigError(f"free_init.filter is {self.filter!r}: give one of {', '.join(get_args(Filter))}")
        if self.order < 1:
            raise ConfigError(f"free_init.order is {self.order}: give a whole number >= 1")
        for name in ("spatial_stop", "temporal_stop"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"free_init.{name} is {getattr(self, name)}: give a number from 0 to 1")

    def steps_of(self, number: int, steps: int) -> int:
        """Return the steps of round `number`, counted from 0, when the last one takes `steps`."""
        return max(1, steps * (number + 1) // self.rounds) if self.fast else steps


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCacheConfig:
    """Step caching: between full steps only the finest layers run, on deep features of the last full step.

    Deep features change slowly from step to step (DeepCache, arXiv 2312.00858).
    """

    interval: int = 1
    """Every how many steps the whole network runs; 1 is no caching."""
    layers: int | None = None
    """Decoder layers that run at every step, counted from the output, with the encoder layers that feed them; unset:
    those of the finest level."""

    def __post_init__(self) -> None:
        if self.interval < 1:
            raise ConfigError(f"step_cache.interval is {self.interval}: give a whole number >= 1 (1 is off)")
        if self.layers is not None and self.layers < 1:
            raise ConfigError(f"step_cache.layers is {self.layers}: give a whole number >= 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplerConfig:
    """How clips are sampled. What is left out is what the model was made for."""

    steps: int | None = None
    """Denoising steps (smoke 4, paper 25)."""
    guidance: float | None = None
    """Classifier-free guidance; 1 is none (smoke 1, paper 7.5)."""
    negative_prompt: str = ""
    """What guidance steers away from; the empty prompt is what models are trained with."""
    scheduler: Scheduler = "ddim"
    """How a step is taken: ddim (the published choice), dpm++ or unipc (second order, for few steps)."""
    free_init: FreeInitConfig = field(default_factory=FreeInitConfig)
    """Rounds of FreeInit."""
    step_cache: StepCacheConfig = field(default_factory=StepCacheConfig)
    """Reuse of deep features between steps."""
    split_guidance: bool = False
    """Run the guided and the unguided half of a step one after the other: half the memory, a little slower."""

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"steps is {self.steps}: give a whole number >= 1")
        if self.guidance is not None and not (math.isfinite(self.guidance) and self.guidance >= 0):
            raise ConfigError(f"guidance is {self.guidance}: give a number >= 0")
        if self.scheduler not in get_args(Scheduler):
            raise ConfigError(f"scheduler is {self.scheduler!r}: give one of {', '.join(get_args(Scheduler))}")
