"""A worker of the pool that does what a row's prompt says: work, die, run out of memory, or hang."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from animate4d.bench.pool.sleeper import Sleeper
from animate4d.pipeline.config import Request

WORK_S = "0.2"
DIE, LARGE, HANG = "die", "large", "hang"


class Saboteur(Sleeper):
    """Does to itself, in the row it is told to, what happens to workers."""

    def animate(self, request: Request, folder: str) -> tuple[dict[str, Any], None]:
        """Sleep a moment, or suffer a fault: once where the prompt ends in 'once', else every time."""
        word, _, often = request.prompt.partition(" ")
        first = Path(f"{folder}.fault")
        if word in (DIE, LARGE, HANG) and not (often == "once" and first.exists()):
            first.touch()
            if word == DIE:
                os._exit(1)
            if word == HANG:
                time.sleep(3600)
            return {"state": "failed", "kind": "resource", "message": "ran out of memory", "trace": ""}, None
        return super().animate(Request(asset=request.asset, prompt=WORK_S), folder)
