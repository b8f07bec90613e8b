"""The driver's progress line: one line that rewrites itself on a terminal, a line every ten seconds in a log."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TextIO

from animate4d.training.metrics_log import Row
from animate4d.training.observers import TrainResult, TrainStart

LOG_SECONDS = 10.0


class ProgressLine:
    """Observer that prints where a training stands."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._said = 0.0

    def started(self, start: TrainStart) -> None:
        """Say what begins."""
        self._steps, self._first, self._began = start.steps, start.step, 0.0
        where = "GPU" if start.on_gpu else "CPU"
        verb = f"going on after step {start.step} of" if start.step else "training"
        noun = "worker" if start.workers == 1 else "workers"
        self._say(f"{verb} {start.steps} steps with {start.workers} {noun} on {where}; run folder {start.out}")

    def progressed(self, rows: list[Row]) -> None:
        """Show the last row."""
        now = time.monotonic()
        if not self._began:
            self._began, self._first = now, rows[-1]["step"]
        step = rows[-1]["step"]
        if not self._live and now - self._said < LOG_SECONDS and step < self._steps:
            return
        self._said = now
        terms = "  ".join(f"{name} {value:.4g}" for name, value in shown_terms(rows[-1]).items())
        pace = f"{rows[-1]['samples_per_second']:.1f} clips/s"
        text = f"step {step}/{self._steps}  {terms}  {pace}{self._remaining(step, now)}"
        self._stream.write(f"\r\x1b[2K{text}" if self._live else f"{text}\n")
        self._stream.flush()

    def drew(self, image: Path, step: int) -> None:
        """Say nothing; the pictures lie in the run folder."""

    def ended(self, result: TrainResult | None, error: BaseException | None) -> None:
        """Say where the results are."""
        if self._live:
            self._stream.write("\n")
        if result is None:
            return
        if skipped := result.metrics.get("skipped_clips"):
            self._say(f"warning: {skipped} clips could not be decoded; named in {result.out}/skipped-rank-*.json")
        if result.state == "finished":
            self._say(f"trained {result.step} steps; model in {result.model}")
        else:
            self._say(f"stopped after step {result.step}; the same command with --resume goes on from there")

    def _remaining(self, step: int, now: float) -> str:
        if step <= self._first:
            return ""
        seconds = (now - self._began) / (step - self._first) * (self._steps - step)
        return f"  {int(seconds) // 60}:{int(seconds) % 60:02d} left"

    def _say(self, text: str) -> None:
        self._stream.write(f"{text}\n")
        self._stream.flush()


def shown_terms(row: Row) -> dict[str, float]:
    """Return the loss and its terms out of a row of metrics.jsonl."""
    others = ("step", "lr", "grad_norm", "samples_per_second", "data_wait_share", "skipped_clips")
    return {name: value for name, value in row.items() if name not in others}
