"""The training observer that reports to MLflow from the driver."""

from __future__ import annotations

import time
from pathlib import Path

from animate4d.runs.store import Guard, tracking_uri
from animate4d.runs.training_run import TrainingRun
from animate4d.training.metrics_log import Row
from animate4d.training.observers import TrainResult, TrainStart

FLUSH_ROWS, FLUSH_SECONDS = 100, 5.0
"""A batch to SQLite takes some 50 ms, one row or a hundred."""


class MlflowObserver:
    """Logs parameters, metrics, sample grids and the model folder; registers the model as champion when it is done.

    A store that is away costs one warning; at the end it is tried once more and brought up to date.
    """

    def __init__(self, uri: str | None = None, *, register: bool = True) -> None:
        """Remember the store; nothing is imported or opened before the training starts."""
        self._uri, self._register = tracking_uri(uri), register
        self._run: TrainingRun | None = None
        self._rows: list[Row] = []
        self._pictures: list[tuple[Path, int]] = []
        self._flushed = time.monotonic()

    def started(self, start: TrainStart) -> None:
        """Open the run, or the one of this folder if it goes on."""
        self._start = start
        self._guard = Guard(self._uri, f"training goes on, its numbers are in {start.out / 'metrics.jsonl'}")
        self._guard.attempt(self._open)

    def progressed(self, rows: list[Row]) -> None:
        """Collect rows and log them a batch at a time."""
        self._rows += rows
        if len(self._rows) >= FLUSH_ROWS or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._guard.attempt(self._flush)

    def drew(self, image: Path, step: int) -> None:
        """Log a sample grid."""
        self._pictures.append((image, step))
        self._guard.attempt(self._flush)

    def ended(self, result: TrainResult | None, error: BaseException | None) -> None:
        """Log the rest and the model, and close the run."""
        self._guard.retry()
        self._guard.attempt(lambda: self._close(result, error))

    def _open(self) -> None:
        self._run = TrainingRun(self._start.out, name=self._start.name, resolved=self._start.resolved, uri=self._uri)
        self._run.catch_up()

    def _flush(self) -> None:
        assert self._run is not None
        self._run.log_rows(self._rows)
        self._rows.clear()
        while self._pictures:
            self._run.log_picture(*self._pictures[0])
            self._pictures.pop(0)
        self._flushed = time.monotonic()

    def _close(self, result: TrainResult | None, error: BaseException | None) -> None:
        if self._run is None:
            self._open()
        assert self._run is not None
        self._run.catch_up()
        self._flush()
        if result is None:
            self._run.end("FAILED", f"{type(error).__name__}: {error}")
        elif result.model is None:
            self._run.end("KILLED", "stopped; resume goes on with this run")
        else:
            self._run.log_model(result.model, register=self._register)
            self._run.end("FINISHED")
