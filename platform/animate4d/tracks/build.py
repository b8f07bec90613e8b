"""Trackers by name. "exact" is none of them: it means the tracks a shard already carries from its renderer."""

from __future__ import annotations

from animate4d.core.errors import ConfigError
from animate4d.tracks.protocol import PointTracker

EXACT = "exact"
TRACKERS = (EXACT, "opencv-lk", "opencv-dis", "cotracker3")


def make_tracker(name: str) -> PointTracker:
    """Build the tracker of that name.

    Raises:
        ConfigError: the name is unknown, needs no tracker ("exact"), or is not available in this version.
    """
    # OpenCV is imported here so that reading a configuration stays light.
    from animate4d.tracks.opencv import DenseInverseSearchTracker, LucasKanadeTracker

    if name == "opencv-lk":
        return LucasKanadeTracker()
    if name == "opencv-dis":
        return DenseInverseSearchTracker()
    if name == "cotracker3":
        raise ConfigError("tracker cotracker3 is not available in this version: use exact, opencv-lk or opencv-dis")
    if name == EXACT:
        raise ConfigError("tracker exact reads the tracks stored in the shards and cannot label clips: use opencv-lk")
    raise ConfigError(f"tracker {name!r} is unknown: expected one of {', '.join(TRACKERS)}")
