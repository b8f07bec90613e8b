"""How the videos of a release become training samples."""

from __future__ import annotations

from dataclasses import dataclass

from animate4d.core.errors import ConfigError
from animate4d.pipeline.clip_options import MAX_STRIP_PIXELS

SOURCE_VIEWS = 16
"""Videos per animation in the MV-Video release, 22.5 degrees apart."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleaseOptions:
    """Which views and frames are kept, and what is assumed about cameras that the release does not describe.

    Attributes:
        views: kept of the 16, evenly spread.
        frames: per sample.
        stride: every how many source frames one is taken.
        starts: source frames that samples begin with; each gives a sample of its own.
        size: pixels per side.
        quality: of the stored colours, 100 for lossless; masks are always exact.
        source_fps: frames per second of the videos.
        distance: of the cameras from the origin.
        fov_deg: vertical field of view.
        clockwise: view k + 1 lies clockwise of view k, seen from above.
        front_deg: azimuth that the release calls 0.
        doubtful_below: clips whose masks are less certain are listed.
        licence: stored with every sample.
    """

    views: int = 16
    frames: int = 16
    stride: int = 3
    starts: tuple[int, ...] = (0, 1, 2)
    size: int = 256
    quality: int = 90
    source_fps: float = 24.0
    distance: float = 3.0
    fov_deg: float = 40.0
    clockwise: bool = False
    front_deg: float = 0.0
    doubtful_below: float = 0.85
    licence: str = ""

    def __post_init__(self) -> None:
        ranges = {"frames": (2, 1024), "stride": (1, 64), "size": (16, 2048), "quality": (1, 100)}
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a whole number from {low} to {high}")
        if self.views < 1 or SOURCE_VIEWS % self.views:
            raise ConfigError(f"views is {self.views}: give a divisor of {SOURCE_VIEWS}")
        if not self.starts or min(self.starts) < 0 or len(set(self.starts)) < len(self.starts):
            raise ConfigError(f"starts is {self.starts}: give different frame numbers from 0")
        if self.frames * self.size > MAX_STRIP_PIXELS:
            raise ConfigError(
                f"frames is {self.frames} and size is {self.size}: frames x size must stay below {MAX_STRIP_PIXELS}"
            )
        for name, good, wanted in [
            ("source_fps", self.source_fps > 0, "a positive number"),
            ("distance", self.distance > 0, "a positive number"),
            ("fov_deg", 0 < self.fov_deg < 180, "between 0 and 180"),
            ("doubtful_below", 0 <= self.doubtful_below <= 1, "between 0 and 1"),
        ]:
            if not good:
                raise ConfigError(f"{name} is {getattr(self, name)}: give {wanted}")

    @property
    def kept_views(self) -> tuple[int, ...]:
        """Numbers of the source views that are kept."""
        return tuple(range(0, SOURCE_VIEWS, SOURCE_VIEWS // self.views))

    @property
    def span(self) -> int:
        """Source frames from the first to the last of a sample, both included."""
        return (self.frames - 1) * self.stride + 1
