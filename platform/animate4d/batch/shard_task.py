"""The unit of shard building that Ray spreads: one asset in, one file of samples on disk, a few words back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2

from animate4d.core.errors import UserError
from animate4d.io.shards import write_samples
from animate4d.pipeline.clip_options import ClipOptions
from animate4d.pipeline.clip_samples import clip_samples


@dataclass(frozen=True, kw_only=True, slots=True)
class AssetOutcome:
    """What became of one asset.

    Attributes:
        keys: of the samples in its file.
        skipped: (animation, reason) of those left out.
        problem: why the asset failed, one line; empty otherwise.
    """

    keys: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    problem: str = ""


def render_asset(path: Path, part: Path, options: ClipOptions, captions: dict[str, str]) -> AssetOutcome:
    """Render all animations of one asset into `part`, one sample in memory at a time.

    A user's mistake is an outcome, not an exception: retrying would not mend it.
    """
    cv2.setNumThreads(1)  # the other cores belong to other tasks
    skipped: list[tuple[str, str]] = []

    def samples() -> Iterator[tuple[str, dict[str, bytes]]]:
        for outcome in clip_samples(path, options, captions):
            if outcome.members is None:
                skipped.append((outcome.animation, outcome.reason))
            else:
                yield outcome.key, outcome.members

    try:
        keys = write_samples(part, samples())
    except UserError as error:
        return AssetOutcome(problem=" ".join(str(error).split()))
    return AssetOutcome(keys=tuple(keys), skipped=tuple(skipped))
