"""Trackers by name. "exact" is none of them: it means the tracks a shard already carries from its renderer."""

from __future__ import annotations

from pathlib import Path

from animate4d.core.errors import ConfigError
from animate4d.tracks.cotracker3.config import TrackingSettings
from animate4d.tracks.protocol import PointTracker

EXACT = "exact"
WEIGHTLESS = ("opencv-lk", "opencv-dis")
LEARNED = ("cotracker3", "cotracker3-official")
TRACKERS = (EXACT, *WEIGHTLESS, *LEARNED)


def make_tracker(
    name: str, *, checkpoint: Path | None = None, settings: TrackingSettings | None = None
) -> PointTracker:
    """Build the tracker of that name.

    Args:
        name: one of `TRACKERS` but "exact".
        checkpoint: weights of a learned tracker; an offline or an online CoTracker3 file, which tells its own kind.
        settings: how a learned tracker tracks; default the authors' settings.

    Raises:
        ConfigError: the name is unknown, needs no tracker ("exact"), or does not go with the checkpoint.
        ModelError: the checkpoint is missing or does not fit.
    """
    check_tracker(name, checkpoint)
    # OpenCV and torch are imported here so that reading a configuration stays light.
    if name == "opencv-lk":
        from animate4d.tracks.opencv import LucasKanadeTracker

        return LucasKanadeTracker()
    if name == "opencv-dis":
        from animate4d.tracks.opencv import DenseInverseSearchTracker

        return DenseInverseSearchTracker()
    if name == EXACT:
        raise ConfigError("tracker exact reads the tracks stored in the shards and cannot label clips: use opencv-lk")
    assert checkpoint is not None
    if name == "cotracker3":
        from animate4d.tracks.cotracker3.tracker import CoTracker3Tracker

        return CoTracker3Tracker.from_checkpoint(checkpoint, settings)
    from animate4d.tracks.official import make_official

    return make_official(checkpoint, settings)


def check_tracker(name: str, checkpoint: Path | None) -> None:
    """Check that a tracker's name is known and that it has weights exactly when it needs some.

    Raises:
        ConfigError: it is not, or it has not.
    """
    if name not in TRACKERS:
        raise ConfigError(f"tracker {name!r} is unknown: expected one of {', '.join(TRACKERS)}")
    if name in LEARNED and checkpoint is None:
        raise ConfigError(
            f"tracker {name} needs the path of its weights (scaled_offline.pth or scaled_online.pth from "
            "huggingface.co/facebook/cotracker3, CC BY-NC 4.0): give a tracker checkpoint, or use opencv-lk"
        )
    if name not in LEARNED and checkpoint is not None:
        raise ConfigError(f"tracker {name} takes no checkpoint ({checkpoint} was given): use cotracker3")
