"""A worker of the pool that sleeps instead of animating, and leaves a mark for every time it did."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from animate4d.batch.worker import FIT, IMAGINE
from animate4d.pipeline.config import Request


class Sleeper:
    """Stands in for `batch.worker.RowWorker`: same methods, and the same promise about rows already done."""

    def prepare(self, _model: str | None, _version: str, _threads: int, _on_gpu: bool) -> dict[str, Any]:
        """Be ready."""
        return {"state": "done"}

    def animate(self, request: Request, folder: str) -> tuple[dict[str, Any], None]:
        """Sleep as many seconds as the prompt says, once, and say so in `<folder>.done`."""
        outcome, _ = self.begin(request, folder)
        if outcome["state"] == IMAGINE:
            self.imagine(request, folder)
            outcome, _ = self.fit(request, folder)
        return outcome, None

    def begin(self, request: Request, folder: str) -> tuple[dict[str, Any], None]:
        """Look whether the row is done."""
        done = {"state": "done", "receipt": {"seconds": float(request.prompt)}}
        return done if Path(f"{folder}.done").exists() else {"state": IMAGINE}, None

    def imagine(self, request: Request, folder: str, _work: None = None) -> tuple[dict[str, Any], None]:
        """Sleep, on a place that holds a GPU."""
        with open(f"{folder}.starts", "a") as starts:
            starts.write("x")
        time.sleep(float(request.prompt))
        return {"state": FIT}, None

    def fit(self, request: Request, folder: str, _work: None = None) -> tuple[dict[str, Any], None]:
        """Leave the mark."""
        part = Path(f"{folder}.{os.getpid()}.part")
        part.write_text(request.prompt)
        part.rename(f"{folder}.done")
        return {"state": "done", "receipt": {"seconds": float(request.prompt)}}, None

    def stage(self) -> str:
        """Return what it does."""
        return "sleeping"
