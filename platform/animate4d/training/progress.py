"""The driver's progress line: step, loss terms, pace and the time left."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TextIO

from animate4d.io.progress import Progress
from animate4d.training.metrics_log import Row
from animate4d.training.observers import TrainResult, TrainStart


class ProgressLine:
    """Observer that prints where a training stands."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr

    def started(self, start: TrainStart) -> None:
        """Say what begins."""
        self._line = Progress(start.steps, "step", stream=self._stream)
        verb = f"going on after step {start.step} of" if start.step else "training"
        workers = "1 worker" if start.workers == 1 else f"{start.workers} workers"
        where = "GPU" if start.on_gpu else "CPU"
        self._line.say(f"{verb} {start.steps} steps with {workers} on {where}; run folder {start.out}")

    def progressed(self, rows: list[Row]) -> None:
        """Show the last row."""
        terms = "  ".join(f"{name} {value:.4g}" for name, value in shown_terms(rows[-1]).items())
        self._line.update(rows[-1]["step"], f"{rows[-1]['samples_per_second']:.1f} clips/s  {terms}")

    def drew(self, image: Path, step: int) -> None:
        """Say nothing; the pictures lie in the run folder."""

    def ended(self, result: TrainResult | None, error: BaseException | None) -> None:
        """Say where the results are."""
        if result is None:
            self._line.say("")
            return
        if skipped := result.metrics.get("skipped_clips"):
            self._line.say(f"warning: {skipped} clips could not be decoded; named in {result.out}/skipped-rank-*.json")
        if result.state == "finished":
            self._line.say(f"trained {result.step} steps; model in {result.model}")
        else:
            self._line.say(f"stopped after step {result.step}; the same command with --resume goes on from there")


def shown_terms(row: Row) -> dict[str, float]:
    """Return the loss and its terms out of a row of metrics.jsonl."""
    others = ("step", "lr", "grad_norm", "samples_per_second", "data_wait_share", "skipped_clips")
    parts = ("val_loss",)  # its terms are in metrics.jsonl and MLflow
    return {
        name: value
        for name, value in row.items()
        if name in parts or (name not in others and not name.startswith("val_"))
    }
