"""How far an animation is: times its stages, tells their progress, and stops it where somebody wishes so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from animate4d.pipeline.receipt import StageClock

SHARES = {"load": 0.03, "views": 0.07, "video": 0.25, "fit": 0.80, "export": 0.90, "pictures": 1.0}
"""Overall progress at the end of each stage, from stage times on two CPU cores."""


class Cancelled(Exception):
    """Somebody asked to stop; nothing was written."""


class StageReport:
    """Keeps the clock, the progress and the wish to stop out of the steps of an animation.

    Args:
        clips: that are chained.
        progress: told (stage, overall share from 0 to 1) now and then.
        cancelled: asked now and then whether to stop; then `Cancelled` is raised.
        clock: of the steps before, perhaps in another process.
    """

    def __init__(
        self,
        clips: int = 1,
        *,
        progress: Callable[[str, float], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        clock: StageClock | None = None,
    ) -> None:
        self.clock = clock or StageClock()
        self.clip = 0
        self._clips, self._progress, self._cancelled = clips, progress, cancelled

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage and tell its begin and end."""
        self._tell(name, _start_of(name))
        with self.clock.stage(name):
            yield
        self._tell(name, SHARES[name])

    def ticks(self, name: str) -> Callable[[float], None]:
        """Return what maps a stage's own share to the overall one and tells it."""
        start, end = _start_of(name), SHARES[name]
        return lambda share: self._tell(name, start + (end - start) * share)

    def _tell(self, stage: str, share: float) -> None:
        if self._cancelled is not None and self._cancelled():
            raise Cancelled
        begin, end = SHARES["load"], SHARES["fit"]
        if begin <= share <= end:
            # each clip takes its part of what a single one would
            share = begin + (self.clip * (end - begin) + share - begin) / self._clips
        if self._progress is not None:
            self._progress(stage, share)


def _start_of(stage: str) -> float:
    ends = list(SHARES.values())
    index = list(SHARES).index(stage)
    return ends[index - 1] if index else 0.0
