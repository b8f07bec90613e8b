"""Settings of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from animate4d.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """Score generated videos on held-out clips against repeating frame 0 and the mean motion of the training clips."""

    data: Path
    """Folder of held-out shards."""

    train_data: Path | None = None
    """Folder of the training shards, for the mean-motion baseline; unset: that baseline is left out."""

    model: str = "shipped"
    """Model to score: shipped, a model folder, or models:/mv-vdm@champion."""

    out: Path = Path("out/evaluation")
    """Folder for scores.json and comparison.png."""

    limit: int | None = None
    """At most so many clips; unset: all."""

    steps: int | None = None
    """DDIM steps; unset: what the model was made for."""

    guidance: float | None = None
    """Classifier-free guidance; unset: what the model was made for."""

    tracking_uri: str | None = None
    """MLflow store to look `models:/` names up in."""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit is {self.limit}: give a whole number >= 1")
