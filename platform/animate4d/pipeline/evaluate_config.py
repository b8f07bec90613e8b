"""Settings of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from animate4d.core.errors import ConfigError
from animate4d.models.sampler_config import SamplerConfig


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

    sampler: Annotated[SamplerConfig, tyro.conf.arg(name="")] = field(default_factory=SamplerConfig)
    """How clips are sampled."""

    tracking_uri: str | None = None
    """MLflow store to look `models:/` names up in."""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit is {self.limit}: give a whole number >= 1")
