"""Settings of importing a video release."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from animate4d.core.errors import ConfigError
from animate4d.pipeline.release_options import ReleaseOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportMVVideoConfig:
    """Turn the MV-Video release into WebDataset shards; running the same command again does what is missing."""

    release: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RELEASE")]
    """Folder with multi_view_video_NN.tar.gz, some or all of them, or with them extracted; and uid_info_dict.json."""

    out: Path = Path("out/mv-video")
    """Folder of the shards, index.json, report.csv, contact.png. All workers must see it."""

    info: Path | None = None
    """The table of cameras and captions; default uid_info_dict.json in the release."""

    high_quality: bool = False
    """Only the objects in the release's high_quality_uid.txt."""

    only: Path | None = None
    """Only the objects in this list, one UID a line."""

    limit: int | None = None
    """Only the first so many animations."""

    views: int = 16
    """Views kept of the 16, evenly spread; a divisor of 16."""

    frames: int = 16
    """Frames per clip."""

    stride: int = 3
    """Every how many of the 48 source frames one is taken (released Animate3D configs: 3, so 8 frames a second)."""

    starts: tuple[int, ...] = (0, 1, 2)
    """Source frames that clips begin with. Each gives a clip of its own; 0 1 2 with stride 3 keeps every frame."""

    size: int = 256
    """Pixels per side of a stored frame."""

    quality: int = 90
    """Of the stored colours; 100 is lossless and three times as large. Masks are always exact."""

    source_fps: float = 24.0
    """Frames per second of the videos."""

    distance: float = 3.0
    """Assumed distance of the cameras; the release does not say."""

    fov_deg: float = 40.0
    """Assumed vertical field of view in degrees; the release does not say."""

    clockwise: bool = False
    """View k + 1 lies clockwise of view k, seen from above (the official loader takes them counter-clockwise)."""

    front_deg: float = 0.0
    """Azimuth in our axes (0 on +x) of what the release calls 0."""

    doubtful_below: float = 0.85
    """Clips whose masks have less confidence are listed in report.csv; curate-shards can drop them."""

    licence: str = ""
    """Licence stored with every clip, beside the object's page that the release names."""

    samples_per_shard: int = 64
    """Clips per shard file."""

    workers: int | None = None
    """Animations converted at once; unset: one per CPU."""

    animation_minutes: float = 10.0
    """An animation that takes longer is stopped and counts as failed."""

    def __post_init__(self) -> None:
        self.release_options()
        for name in ("limit", "workers", "samples_per_shard"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}: give at least 1")
        if not self.animation_minutes > 0:
            raise ConfigError(f"animation_minutes is {self.animation_minutes}: give a positive number")
        if self.high_quality and self.only is not None:
            raise ConfigError("high_quality and only exclude each other: give one list of objects")

    def release_options(self) -> ReleaseOptions:
        """Return what concerns a single animation."""
        return ReleaseOptions(
            views=self.views,
            frames=self.frames,
            stride=self.stride,
            starts=self.starts,
            size=self.size,
            quality=self.quality,
            source_fps=self.source_fps,
            distance=self.distance,
            fov_deg=self.fov_deg,
            clockwise=self.clockwise,
            front_deg=self.front_deg,
            doubtful_below=self.doubtful_below,
            licence=self.licence,
        )
