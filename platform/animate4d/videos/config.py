"""Options of video generation; imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from animate4d.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoConfig:
    """How a multi-view video is sampled."""

    steps: int | None = None
    """DDIM steps; default what the model's config says (smoke 4, paper 25)."""
    guidance: float | None = None
    """Classifier-free guidance; 1 is none; default what the model's config says."""

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"video.steps is {self.steps}: expected 1 or more")
        if self.guidance is not None and self.guidance < 0:
            raise ConfigError(f"video.guidance is {self.guidance}: expected 0 or more")
