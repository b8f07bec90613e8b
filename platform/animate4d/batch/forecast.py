"""What rows will cost, told before anything runs: from the receipts of rows already done here, else from a table.

The forecast orders the batch (longest first, so that no long row is left alone at the end) and makes `--plan`.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from animate4d.pipeline.config import Request

FRAMES = 16
"""Frames of an asset's own clip that the table's numbers are for; a generated one has as many as its model makes."""

SECONDS = {
    ("generated", "draft"): 30.0,
    ("generated", "standard"): 50.0,
    ("ground-truth", "draft"): 50.0,
    ("ground-truth", "standard"): 75.0,
    ("generated", "paper"): 600.0,
    ("ground-truth", "paper"): 1200.0,
}
"""One clip by source of its video and preset of the fit, CPU seconds on one core of an AMD EPYC, for a rigged model of
Quaternius: 8 frames of the shipped model, or 16 of its own animation. Those of `paper` are guessed, not measured."""

MODEL_SHARE = 0.06
"""Of the seconds of a generated row, what the shipped model takes on a CPU."""

BYTES = {"default": 4e6, "all": 12e6}
"""A result folder of one clip with the files of `default` (2 to 5 MB were measured), and with all (guessed)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """What one row will cost.

    Attributes:
        seconds: of work, all steps together.
        model_seconds: of these, what the model takes, on a GPU where there is one.
        bytes: on disk.
        measured: whether rows like it were done in this folder, or the numbers are of the table.
    """

    seconds: float
    model_seconds: float
    bytes: float
    measured: bool


class Forecaster:
    """Learns from receipts what rows of each preset cost."""

    def __init__(self, receipts: Iterable[dict[str, Any]] = ()) -> None:
        """Take the rates of results that are there already."""
        self._seconds: dict[tuple[str, str], list[float]] = {}
        self._model: dict[tuple[str, str], list[float]] = {}
        self._bytes: dict[str, list[float]] = {}
        for receipt in receipts:
            self.learn(receipt)

    def learn(self, receipt: dict[str, Any]) -> None:
        """Take the rates of one more result."""
        request = receipt["request"]
        options, video = request["options"], request["video"]
        units = _units(video, options["clips"], options["frames"])
        kind = video, options["fit"]
        self._seconds.setdefault(kind, []).append(sum(receipt["seconds"].values()) / units)
        self._model.setdefault(kind, []).append(receipt["seconds"].get("video", 0.0) / units)
        size = sum(file["bytes"] for file in receipt["files"].values())
        self._bytes.setdefault(_formats(options["formats"]), []).append(size / units)

    def row(self, request: Request) -> Forecast:
        """Return what a row will cost."""
        options = request.options
        units = _units(request.video, options.clips, options.frames)
        kind = request.video, options.fit
        known = self._seconds.get(kind)
        seconds = units * (median(known) if known else SECONDS[kind])
        model_share = MODEL_SHARE if request.video == "generated" else 0.0
        wanted = _formats(options.formats)
        sizes = self._bytes.get(wanted)
        return Forecast(
            seconds=seconds,
            model_seconds=units * median(self._model[kind]) if known else model_share * seconds,
            bytes=units * (median(sizes) if sizes else BYTES["all" if wanted == "all" else "default"]),
            measured=known is not None,
        )


def makespan_bound(seconds: Sequence[float], workers: int) -> float:
    """Return the least time in which so many workers can do rows of these times: max(sum / workers, longest)."""
    return max(sum(seconds) / workers, max(seconds, default=0.0))


def longest_first(seconds: Sequence[float]) -> list[int]:
    """Return the order in which to start rows; rows of equal time keep theirs."""
    return sorted(range(len(seconds)), key=lambda place: -seconds[place])


def makespan(seconds: Sequence[float], workers: int) -> float:
    """Return the time that so many workers need for rows started longest first, each as a worker becomes free."""
    free = [0.0] * workers
    for place in longest_first(seconds):
        heapq.heappush(free, heapq.heappop(free) + seconds[place])
    return max(free)


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _units(video: str, clips: int, frames: int) -> float:
    """Return how much work a request is: clips of the model's own length, or clips of `FRAMES` frames."""
    return clips if video == "generated" else clips * (frames - 1) / (FRAMES - 1)


def _formats(words: Sequence[str]) -> str:
    return " ".join(sorted(words))
