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
    """Folder of shards with the clips to score."""

    keep_list: Path | None = None
    """List of the clips to score, one key per line, such as held-out.txt of a run folder; unset: all."""

    train_data: Path | None = None
    """Folder of the training shards, for the mean-motion baseline; clips of a keep list do not count. Unset: that
    baseline is left out."""

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
