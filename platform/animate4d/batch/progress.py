"""What a batch prints: one line per row as it ends; between them a table on a terminal, elsewhere a sign of life."""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Mapping

from rich.console import Console

from animate4d.batch.live_table import LiveTable
from animate4d.batch.report import RowResult

HEARTBEAT_SECONDS = 15.0
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def line_of(text: str) -> str:
    """Return text as one line of a terminal, whatever a prompt or a path holds."""
    return UNPRINTABLE.sub(" ", text)


class Progress:
    """Counts rows and writes lines; the time left is rows to come times their mean seconds over the workers."""

    def __init__(self, rows: int, console: Console | None = None) -> None:
        """Start; `console` is standard output unless given."""
        console = console or Console(highlight=False)
        self._table = LiveTable(console) if console.is_terminal and not console.is_dumb_terminal else None
        self._rows = rows
        self._ended = 0
        self._seconds: list[float] = []
        self._spoke = time.monotonic()
        self.workers = 1

    def say(self, text: str) -> None:
        """Write one line; control characters of a prompt or path cannot move the cursor or fake a line."""
        if self._table is not None:
            self._table.say(line_of(text))
        else:
            sys.stdout.write(line_of(text) + "\n")
            sys.stdout.flush()
        self._spoke = time.monotonic()

    def row(self, result: RowResult) -> None:
        """Write how a row ended."""
        self._ended += 1
        head = f"[{self._ended}/{self._rows}] {result.state:<7} {result.row.id}"
        if result.state != "done":
            self.say(f"{head}: {result.message}")
            return
        if not result.attempts:
            return
        seconds = sum(result.receipt["seconds"].values())
        self._seconds.append(seconds)
        truth = result.receipt["truth"]
        quality = f"outline overlap {result.receipt['fit']['mask_iou']:.0%}"
        if truth is not None and truth["ratio"] is not None:
            quality = f"vertex error {truth['e_fit']:.1%} of the size, {truth['ratio']:.2f} of standing still"
        self.say(f"{head}: {seconds:.0f} s, {quality}{self._left()}")

    def skip_done(self, count: int) -> None:
        """Write how many rows an earlier run has done already."""
        self._ended += count
        if count:
            self.say(f"{count} of {self._rows} rows are done already")

    def at_work(self, running: Mapping[str, float], stages: Mapping[str, str]) -> None:
        """Tell what is at work, and how long: on a terminal at once, elsewhere if nothing was written for a while."""
        waiting = "waiting for workers: they are starting, or the cluster is busy"
        if self._table is not None:
            self._table.show(f"[{self._ended}/{self._rows}]{self._left()}" if running else waiting, running, stages)
            return
        if time.monotonic() - self._spoke <= HEARTBEAT_SECONDS:
            return
        if not running:
            self.say(waiting)
            return
        parts = [f"{row} {stages.get(row) or 'working'} ({seconds:.0f} s)" for row, seconds in running.items()]
        shown = ", ".join(parts[:4]) + (f" and {len(parts) - 4} more" if len(parts) > 4 else "")
        self.say(f"[{self._ended}/{self._rows}] {shown}{self._left()}")

    def close(self) -> None:
        """Take the table away; lines may follow."""
        if self._table is not None:
            self._table.close()

    def _left(self) -> str:
        remaining = self._rows - self._ended
        if not remaining or not self._seconds:
            return ""
        seconds = sum(self._seconds) / len(self._seconds) * math.ceil(remaining / self.workers)
        return f", about {seconds:.0f} s left" if seconds < 100 else f", about {seconds / 60:.0f} min left"
