"""The unit of shard building that Ray spreads: one asset in, one file of samples on disk, a few words back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2

from animate4d.batch.shard_build import UnitOutcome, cpu_seconds
from animate4d.core.errors import ToolError, UserError
from animate4d.io.shards import write_samples
from animate4d.pipeline.clip_options import ClipOptions
from animate4d.pipeline.clip_samples import clip_samples


def render_asset(path: Path, part: Path, options: ClipOptions, captions: dict[str, str]) -> UnitOutcome:
    """Render all animations of one asset into `part`, one sample in memory at a time.

    A user's mistake is an outcome, not an exception: retrying would not mend it.
    """
    cv2.setNumThreads(1)  # the other cores belong to other tasks
    skipped: list[tuple[str, str]] = []
    begun = cpu_seconds()

    def samples() -> Iterator[tuple[str, dict[str, bytes]]]:
        for outcome in clip_samples(path, options, captions):
            if outcome.members is None:
                skipped.append((outcome.animation, outcome.reason))
            else:
                yield outcome.key, outcome.members

    try:
        keys = write_samples(part, samples())
    except UserError as error:
        kind = "infrastructure" if isinstance(error, ToolError) else "bad input"
        return UnitOutcome(problem=" ".join(str(error).split()), kind=kind, seconds=cpu_seconds() - begun)
    return UnitOutcome(keys=tuple(keys), skipped=tuple(skipped), seconds=cpu_seconds() - begun)
