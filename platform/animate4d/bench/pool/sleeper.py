"""A worker of the pool that sleeps instead of animating, and leaves a mark for every time it did."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from animate4d.pipeline.config import Request


class Sleeper:
    """Stands in for `batch.worker.RowWorker`: same methods, and the same promise about rows already done."""

    def prepare(self, _model: str | None, _version: str, _threads: int) -> dict[str, Any]:
        """Be ready."""
        return {"state": "done"}

    def animate(self, request: Request, folder: str) -> dict[str, Any]:
        """Sleep as many seconds as the prompt says, once, and say so in `<folder>.done`."""
        mark = Path(f"{folder}.done")
        if not mark.exists():
            with open(f"{folder}.starts", "a") as starts:
                starts.write("x")
            time.sleep(float(request.prompt))
            part = Path(f"{folder}.{os.getpid()}.part")
            part.write_text(request.prompt)
            part.rename(mark)
        return {"state": "done", "receipt": {"seconds": float(request.prompt)}}

    def stage(self) -> str:
        """Return what it does."""
        return "sleeping"
