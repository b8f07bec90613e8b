"""One line that says how far a long job is and when it ends: rewritten on a terminal, repeated sparsely elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

LINE_SECONDS = 5.0
"""Seconds between lines where output is not a terminal; a job's log stays short."""

TERMINAL_SECONDS = 0.1
"""Seconds between rewrites on a terminal."""


class Progress:
    """Report progress on stdout; use as a context manager so that a rewritten line is closed off at the end."""

    def __init__(self, total: int, label: str, *, stream: TextIO | None = None) -> None:
        """Start the clock.

        Args:
            total: what `done` counts up to.
            label: first words of the line.
            stream: default stdout.
        """
        self._total, self._label, self._stream = total, label, stream or sys.stdout
        self._terminal = self._stream.isatty()
        self._started = time.monotonic()
        self._done = -1
        self._done_at = 0.0
        self._first: tuple[int, float] | None = None
        self._last_shown = 0.0
        self._width = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_error: object) -> None:
        self._end_line()

    def update(self, done: int, note: str = "") -> None:
        """Say that `done` of the total are done; lines that come too fast are left out, the last one never."""
        now = time.monotonic()
        if done != self._done:
            if self._done >= 0 and self._first is None:
                self._first = (done, now)  # start-up and what an earlier run did say nothing about the pace
            self._done, self._done_at = done, now
        wait = TERMINAL_SECONDS if self._terminal else LINE_SECONDS
        if done < self._total and self._last_shown and now - self._last_shown < wait:
            return
        self._last_shown = now
        text = f"{self._label} {done}/{self._total}{self._remaining(done, now)}" + (f"  {note}" if note else "")
        if self._terminal:
            self._stream.write("\r" + text[:160].ljust(self._width))
            self._width = len(text[:160])
        else:
            self._stream.write(text + "\n")
        self._stream.flush()

    def say(self, text: str) -> None:
        """Write a line of its own, such as the reason why something was left out."""
        self._end_line()
        self._stream.write(text + "\n")
        self._stream.flush()

    def _end_line(self) -> None:
        if self._terminal and self._width:
            self._stream.write("\n")
            self._width = 0

    def _remaining(self, done: int, now: float) -> str:
        elapsed = clock(now - self._started)
        if done >= self._total or self._first is None or done <= self._first[0]:
            return f"  {elapsed}"
        pace = (self._done_at - self._first[1]) / (done - self._first[0])
        left = pace * (self._total - done) - (now - self._done_at)
        return f"  {elapsed} + about {clock(max(left, pace))}"


def clock(seconds: float) -> str:
    """Write seconds as 7 s, 3 min 05 s or 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
