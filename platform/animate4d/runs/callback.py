"""The training observer that reports to MLflow from the driver."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from animate4d.runs.store import Guard, tracking_uri
from animate4d.runs.training_run import STOPPED, TrainingRun
from animate4d.training.metrics_log import Row
from animate4d.training.observers import TrainResult, TrainStart

FLUSH_ROWS, FLUSH_SECONDS = 100, 10.0
"""A batch to SQLite takes some 50 ms, one row or a hundred."""

RETRY_SECONDS = 60.0
"""Between attempts to reach a store that is away. One that swallows packets holds the progress line up meanwhile."""


class MlflowObserver:
    """Logs parameters, metrics, sample grids and the model folder; registers the model as champion when it is done.

    A store that is away costs one warning. It is tried again every minute and at the end, and given all it has missed:
    the run folder holds everything.
    """

    def __init__(self, uri: str | None = None, *, register: bool = True) -> None:
        """Remember the store; nothing is imported or opened before the training starts."""
        self._uri, self._register = tracking_uri(uri), register
        self._run: TrainingRun | None = None
        self._rows: list[Row] = []
        self._behind = True
        self._flushed = time.monotonic()

    def started(self, start: TrainStart) -> None:
        """Open the run, or the one of this folder if it goes on."""
        self._start = start
        consequence = (
            f"training goes on, its numbers are in {start.out / 'metrics.jsonl'}; if it is still away at the end, "
            f"`animate4d sync-run {start.out}` sends them later"
        )
        self._guard = Guard(self._uri, consequence, patience=RETRY_SECONDS)
        self._attempt(self._flush)

    def progressed(self, rows: list[Row]) -> None:
        """Collect rows and log them a batch at a time."""
        self._rows += rows
        if len(self._rows) >= FLUSH_ROWS or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._attempt(self._flush)

    def drew(self, image: Path, step: int) -> None:
        """Log a sample grid."""
        self._attempt(lambda: self._flush([(image, step)]))

    def ended(self, result: TrainResult | None, error: BaseException | None) -> None:
        """Log the rest and the model, and close the run."""
        self._guard.retry()
        self._attempt(lambda: self._close(result, error))

    def _attempt(self, action: Callable[[], None]) -> None:
        self._guard.attempt(action)
        self._behind = self._guard.away
        self._rows.clear()
        self._flushed = time.monotonic()

    def _flush(self, pictures: Sequence[tuple[Path, int]] = ()) -> None:
        if self._run is None:
            start = self._start
            self._run = TrainingRun(start.out, name=start.name, resolved=start.resolved, uri=self._uri)
        if self._behind:
            self._run.catch_up()
            return
        self._run.log_rows(self._rows)
        for image, step in pictures:
            self._run.log_picture(image, step)

    def _close(self, result: TrainResult | None, error: BaseException | None) -> None:
        self._flush()
        assert self._run is not None
        if result is None:
            self._run.end("FAILED", f"{type(error).__name__}: {error}")
        elif result.model is None:
            self._run.end("KILLED", STOPPED)
        else:
            self._run.log_model(result.model, register=self._register)
            self._run.end("FINISHED")
