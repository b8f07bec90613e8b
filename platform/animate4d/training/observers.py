"""What the driver tells others about a training while it runs: the progress line, MLflow, tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from animate4d.training.metrics_log import Row


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainStart:
    """A training that begins or goes on.

    Attributes:
        out: run folder.
        name: of the run.
        resolved: resolved config, JSON values.
        step: optimiser steps done before.
        steps: optimiser steps in all.
        workers: Ray Train workers.
        on_gpu: whether the workers train on GPUs.
    """

    out: Path
    name: str
    resolved: dict[str, Any]
    step: int
    steps: int
    workers: int
    on_gpu: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """How a training ended.

    Attributes:
        out: run folder.
        model: folder written by `save_pretrained`; None unless all steps are done.
        step: optimiser steps done.
        state: "finished", or "stopped" after an interrupt, with a checkpoint to resume from.
        metrics: last row of metrics.jsonl.
    """

    out: Path
    model: Path | None
    step: int
    state: Literal["finished", "stopped"]
    metrics: Row


class TrainObserver(Protocol):
    """Follows a training from the driver. What it raises ends the training, so a report that may fail must catch it."""

    def started(self, start: TrainStart) -> None:
        """Hear that workers are about to start."""

    def progressed(self, rows: list[Row]) -> None:
        """Hear of new rows of metrics.jsonl."""

    def drew(self, image: Path, step: int) -> None:
        """Hear of a new sample grid."""

    def ended(self, result: TrainResult | None, error: BaseException | None) -> None:
        """Hear how it ended: exactly one of the two is given."""
