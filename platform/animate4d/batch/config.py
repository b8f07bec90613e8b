"""Settings of a batch of animations."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from animate4d.core.errors import ConfigError
from animate4d.pipeline.config import AnimateOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class AnimateBatchConfig:
    """Animate every row of a manifest; running the same command again does only what is missing."""

    manifest: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MANIFEST")]
    """CSV, or JSON lines (.jsonl), with columns asset,prompt and optionally id, seed or seeds (0-3, or 1 5 9), video,
    clip, frames, fit, strength, loop, fps, formats, guidance, steps, negative_prompt, free_init, step_cache. An asset
    may be a pattern: models/*.glb."""

    out: Path = Path("out/batch")
    """Folder of the results: one folder per row, index.html, results.csv, ledger.jsonl. All workers must see it."""

    model: str = "shipped"
    """Model to animate with: shipped, a model folder, or models:/mv-vdm@champion."""

    plan: bool = False
    """Print what would be done, how long it will take and how much disk it needs, and do nothing."""

    workers: int | None = None
    """Objects worked on at once; unset: as many as there are CPUs and GPUs."""

    gpu_share: float = 1.0
    """Share of a GPU that the making of one video holds: 0.5 puts two on each (memory is not divided by force). The
    rest of the work, the fit above all, is done by the CPUs of the cluster."""

    fit_share: float = 0.0
    """Share of a GPU that one fit holds, for rows with fit=paper, whose field trains on it: with --gpu-share 0.5
    --fit-share 0.1, a GPU makes one video at a time and trains five fields beside. 0: fits run on CPUs."""

    retries: int = 2
    """How often a row is tried again after its worker died; wrong input is never retried."""

    row_minutes: float = 60.0
    """A row that takes longer is stopped and counts as failed; on GPUs, a row with a step that does."""

    record: bool = True
    """Record the batch in MLflow."""

    tracking_uri: str | None = None
    """MLflow store; default $MLFLOW_TRACKING_URI, else mlflow.db in this folder."""

    options: Annotated[AnimateOptions, tyro.conf.arg(name="")] = field(default_factory=AnimateOptions)
    """Options of rows that do not set their own."""

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"workers is {self.workers}: give at least 1")
        if not 0.05 <= self.gpu_share <= 1.0:
            raise ConfigError(f"gpu_share is {self.gpu_share}: give a number from 0.05 to 1")
        if self.fit_share and not 0.02 <= self.fit_share <= 1.0:
            raise ConfigError(f"fit_share is {self.fit_share}: give 0, or a number from 0.02 to 1")
        if not 0 <= self.retries <= 10:
            raise ConfigError(f"retries is {self.retries}: give a whole number from 0 to 10")
        if not self.row_minutes > 0:
            raise ConfigError(f"row_minutes is {self.row_minutes}: give a positive number")
