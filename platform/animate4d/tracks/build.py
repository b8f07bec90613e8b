"""Trackers by name. Two are none: "exact" means the tracks a shard carries from its renderer, "none" no tracks."""

from __future__ import annotations

from pathlib import Path

from animate4d.core.errors import ConfigError
from animate4d.tracks.cotracker3.config import Precision, TrackingSettings
from animate4d.tracks.protocol import PointTracker

EXACT = "exact"
NONE = "none"
WEIGHTLESS = ("opencv-lk", "opencv-dis")
LEARNED = ("cotracker3", "cotracker3-official")
COMPUTED = (*WEIGHTLESS, *LEARNED)
TRACKERS = (EXACT, NONE, *COMPUTED)


def make_tracker(
    name: str,
    *,
    checkpoint: Path | None = None,
    settings: TrackingSettings | None = None,
    device: str | None = None,
) -> PointTracker:
    """Build the tracker of that name.

    Args:
        name: one of `COMPUTED`.
        checkpoint: weights of a learned tracker; an offline or an online CoTracker3 file, which tells its own kind.
        settings: how a learned tracker tracks; default the authors' settings.
        device: where a learned tracker runs; default the GPU if there is one.

    Raises:
        ConfigError: the name is unknown or no tracker's ("exact", "none"), or does not go with the checkpoint.
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
    if name not in COMPUTED:
        raise ConfigError(f"tracker {name} cannot label clips: use one of {', '.join(COMPUTED)}")
    assert checkpoint is not None
    if name == "cotracker3":
        from animate4d.tracks.cotracker3.tracker import CoTracker3Tracker

        return CoTracker3Tracker.from_checkpoint(checkpoint, settings, device=device)
    from animate4d.tracks.official import make_official

    return make_official(checkpoint, settings, device=device)


def check_tracker(name: str, checkpoint: Path | None, precision: Precision = "fp32") -> None:
    """Check that a tracker's name is known, that it has weights exactly when it needs some, and its precision.

    Raises:
        ConfigError: it is not, it has not, or the tracker knows no such precision.
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
    if precision not in ("fp32", "bf16"):
        raise ConfigError(f"tracker precision is {precision!r}: expected fp32 or bf16")
    if precision == "bf16" and name != "cotracker3":
        raise ConfigError(f"tracker {name} has no precision bf16: use cotracker3, or leave the precision out")
