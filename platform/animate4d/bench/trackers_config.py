"""Settings of the tracker bench. Imports nothing heavy, so that `--help` answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from animate4d.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchTrackersConfig:
    """Score point trackers on real animations, where our renderer knows every point's true track.

    OpenCV's trackers always run; each CoTracker3 checkpoint given adds one. A row "still", whose points never move,
    tells how much motion there was to follow.
    """

    assets: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="ASSETS")]
    """An animated GLB or glTF, or a folder of them (sub-folders too)."""
    checkpoints: tuple[Path, ...] = ()
    """CoTracker3 weights: scaled_offline.pth, scaled_online.pth, or both. CC BY-NC 4.0."""
    official: bool = False
    """Run the authors' package on the checkpoints too; it must be installed."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of CoTracker3."""
    out: Path = Path("runs/bench/trackers")
    """Folder for trackers.json, trackers.csv (a line per clip and tracker) and trackers.png."""

    clips: int = 12
    """Animations to track, of as many objects as there are; the choice depends on the seed alone."""
    views: int = 4
    """Cameras around the object."""
    frames: int = 48
    """Frames per clip."""
    max_seconds: float = 2.0
    """Length of a clip at most; 48 frames of 2 seconds are 24 a second."""
    size: int = 256
    """Picture side in pixels."""
    pictures: int = 2
    """Clips to draw, those that move most."""
    seed: int = 0
    """Seed of the choice of clips."""

    def __post_init__(self) -> None:
        least = {"clips": 1, "views": 1, "frames": 2, "size": 32, "pictures": 0, "seed": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a whole number >= {bound}")
        if self.size % 2:
            raise ConfigError(f"size is {self.size}: give an even number")
        if not self.max_seconds > 0:
            raise ConfigError(f"max_seconds is {self.max_seconds}: give a number above 0")
        if self.official and not self.checkpoints:
            raise ConfigError("official compares on a checkpoint: give --checkpoints PATH")
