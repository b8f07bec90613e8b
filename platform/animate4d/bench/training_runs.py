"""Real trainings by `training.launch.train`, timed from inside their workers.

A clock sits in each worker's stream of batches: from one request for a batch to the next is one step, with everything
the platform does in it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from animate4d.core.errors import ConfigError
from animate4d.data.order import Cursor
from animate4d.io.atomic import write_json
from animate4d.training.config import TrainConfig
from animate4d.training.launch import train
from animate4d.training.loop import Parts, Stream
from animate4d.training.metrics_log import NAME, Row, read_rows
from animate4d.training.observers import TrainObserver, TrainResult, TrainStart
from animate4d.training.parts import make_parts


class ClockedStream:
    """Notes when each batch was asked for, and how much CPU time this process had used by then."""

    def __init__(self, stream: Stream, note: Path) -> None:
        """Wrap a stream; the clock's readings are written to `note` when the stream is closed."""
        self._stream, self._note = stream, note
        self.skipped = stream.skipped

    def batches(self, start: Cursor) -> Iterator[tuple[Any, Cursor]]:
        """Yield the stream's batches."""
        ticks = []
        with closing(self._stream.batches(start)) as batches:  # type: ignore[type-var]
            try:
                while True:
                    # The monotonic clock is one for all processes of a machine.
                    ticks.append((time.monotonic(), time.process_time()))
                    yield next(batches)
            finally:
                write_json(self._note, ticks)


def clock_note(out: Path, rank: int) -> Path:
    """Return where a worker's clock is written."""
    return out / f"clock-rank-{rank:02d}.json"


def clocked_parts(config: TrainConfig, rank: int, world: int) -> Parts:
    """Build what one worker trains, with a clock in its stream."""
    parts = make_parts(config, rank, world)
    return replace(parts, stream=ClockedStream(parts.stream, clock_note(config.out, rank)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One training.

    Attributes:
        clocks: per worker, (monotonic, CPU) seconds at every request for a batch, warm-up left out.
        rows: of metrics.jsonl, warm-up left out.
    """

    clocks: list[list[tuple[float, float]]]
    rows: list[Row]

    def steps(self, since: float = 0.0, until: float = float("inf")) -> list[tuple[float, float]]:
        """Return (wall, CPU) milliseconds of the steps between two times; CPU time is that of all workers."""
        spans = [
            [(1e3 * (b[0] - a[0]), 1e3 * (b[1] - a[1])) for a, b in pairwise(clock) if a[0] >= since and b[0] <= until]
            for clock in self.clocks
        ]
        return [(ranks[0][0], sum(cpu for _, cpu in ranks)) for ranks in zip(*spans, strict=False)]

    @property
    def data_wait(self) -> float:
        """Share of the time that rank 0 waited for data, as logged."""
        seconds = [1 / row["samples_per_second"] for row in self.rows]
        waited = [row["data_wait_share"] * length for row, length in zip(self.rows, seconds, strict=True)]
        return sum(waited) / sum(seconds)


def run_training(config: TrainConfig, warmup: int, observers: Sequence[TrainObserver] = ()) -> Run:
    """Train to the end and read the clocks."""
    train(config, observers, make_parts=clocked_parts)
    clocks = [json.loads(clock_note(config.out, rank).read_text()) for rank in range(config.workers)]
    return Run(clocks=[clock[warmup:] for clock in clocks], rows=read_rows(config.out / NAME)[warmup:])


def run_side_by_side(configs: Sequence[TrainConfig], warmup: int) -> list[tuple[float, float]]:
    """Run trainings that know nothing of each other at the same time.

    Returns:
        (wall, CPU) milliseconds of a step of all of them together, while all ran.

    Raises:
        ConfigError: some ended before others began, so nothing can be said.
    """
    with ThreadPoolExecutor(len(configs)) as pool:
        runs = list(pool.map(lambda config: run_training(config, warmup), configs))
    clocks = [run.clocks[0] for run in runs]
    since, until = max(clock[0][0] for clock in clocks), min(clock[-1][0] for clock in clocks)
    spans = [run.steps(since, until) for run in runs]
    if not all(spans):
        raise ConfigError("steps: trainings side by side did not overlap: give more --steps")
    return [(sum(w for w, _ in group) / len(group), sum(c for _, c in group)) for group in zip(*spans, strict=False)]


class TimedObserver:
    """Passes on what an observer is told, and adds up what that takes.

    Attributes:
        seconds: method -> (wall, CPU of this thread).
    """

    def __init__(self, observer: TrainObserver) -> None:
        self._observer = observer
        self.seconds: dict[str, tuple[float, float]] = {}
        self._first = self._last = 0.0

    @property
    def share(self) -> float:
        """CPU time of passing rows on, as a share of the time from the first rows to the last."""
        return self.seconds["progressed"][1] / (self._last - self._first)

    def started(self, start: TrainStart) -> None:
        """Pass on the start."""
        self._time("started", start)

    def progressed(self, rows: list[Row]) -> None:
        """Pass on rows."""
        self._first = self._first or time.monotonic()
        self._time("progressed", rows)
        self._last = time.monotonic()

    def drew(self, image: Path, step: int) -> None:
        """Pass on a picture."""
        self._time("drew", image, step)

    def ended(self, result: TrainResult | None, error: BaseException | None) -> None:
        """Pass on the end."""
        self._time("ended", result, error)

    def _time(self, method: str, *arguments: Any) -> None:
        wall, cpu = time.monotonic(), time.thread_time()
        getattr(self._observer, method)(*arguments)
        before = self.seconds.get(method, (0.0, 0.0))
        self.seconds[method] = (before[0] + time.monotonic() - wall, before[1] + time.thread_time() - cpu)
