"""Drivers of trainings in processes of their own, to be sent signals and to lose their nodes."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from animate4d.bench.faults.tiny import PATIENCE_S, TinyParts
from animate4d.bench.faults.workers import PRELOAD, quiet
from animate4d.jobs import train as train_job
from animate4d.training.checkpoint import list_checkpoints
from animate4d.training.config import TrainConfig
from animate4d.training.metrics_log import NAME, read_rows


class Driver:
    """One `animate4d train` on a Ray that runs already; ended with the block that holds it.

    Attributes:
        process: where it runs.
    """

    def __init__(self, config: TrainConfig, parts: TinyParts, address: str) -> None:
        """Start.

        Args:
            config: of the training.
            parts: what is trained.
            address: of the Ray cluster.
        """
        self._out, self._log = config.out, config.out.parent / "driver.log"
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOAD)
        # Ray's token is in the environment since Ray was started, maybe after the server that forks.
        environment = dict(os.environ) | {"RAY_ADDRESS": address}
        self.process: Any = context.Process(target=drive, args=(config, parts, environment, self._log), daemon=True)
        self.process.start()

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_error: object) -> None:
        self.process.kill()
        self.process.join()

    def wait_for_step(self, step: int) -> None:
        """Wait until so many steps are done and a checkpoint, which is written beside them, is whole."""
        self._wait(lambda: any(row["step"] >= step for row in read_rows(self._out / NAME)), f"step {step}")
        self._wait(lambda: list_checkpoints(self._out), "a checkpoint")

    def wait_for_line(self, start: str) -> str:
        """Wait until the driver has written a line that begins so, and return it."""
        self._wait(lambda: self._line(start), repr(start))
        return self._line(start)

    def wait_for_end(self) -> int | None:
        """Return the exit code."""
        self.process.join(PATIENCE_S)
        return self.process.exitcode

    def _line(self, start: str) -> str:
        lines = self._log.read_text().split("\n")[:-1] if self._log.exists() else []
        return next((line for line in lines if line.startswith(start)), "")

    def _wait(self, came: Callable[[], object], what: str) -> None:
        until = time.monotonic() + PATIENCE_S
        while True:
            alive = self.process.is_alive()  # asked first: the last it did before its end counts
            if came():
                return
            if not alive or time.monotonic() > until:
                raise AssertionError(f"{what} never came: {self._log.read_text() if self._log.exists() else ''}")
            time.sleep(0.02)


def drive(config: TrainConfig, parts: TinyParts, environment: dict[str, str], log: Path) -> None:
    """Be the driver; the process does nothing else."""
    os.environ |= environment
    quiet(log)
    raise SystemExit(train_job(config, make_parts=parts))
