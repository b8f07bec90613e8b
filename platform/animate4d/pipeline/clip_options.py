"""How clips are rendered for training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from animate4d.core.errors import ConfigError

MAX_STRIP_PIXELS = 16383
"""A view's frames are stored as one tall WebP picture, which cannot be taller."""


Light = Literal["own", "baked", "cycles"]
"""Who lights the pictures: our own lights, four lights that Blender bakes into vertex colours, or Blender's Cycles."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipOptions:
    """Cameras, times and sizes of rendered clips, and which clips are worth keeping.

    Attributes:
        views: cameras spread evenly over the circle.
        frames: per clip, evenly spaced.
        size: pixels per side, even.
        elevation_deg: of all cameras.
        samples: rays per pixel side.
        max_seconds: longer animations are cut.
        min_motion: clips whose vertices move less on average, as a share of the object's diameter, are left out.
        max_outside: clips with a frame where a larger share of the object is out of the picture are left out.
        licence: of the assets, stored with every sample.
        light: who lights the pictures; tracks, flow and cameras are the same for all.
        blender: program for light "baked" and "cycles".
        blender_samples: of Cycles, per pixel or vertex.
        blender_minutes: longest that Blender may take for one clip.
    """

    views: int = 16
    frames: int = 16
    size: int = 64
    elevation_deg: float = 15.0
    samples: int = 2
    max_seconds: float = 4.0
    min_motion: float = 0.005
    max_outside: float = 1 / 3
    licence: str = ""
    light: Light = "own"
    blender: Path | None = None
    blender_samples: int = 16
    blender_minutes: float = 60.0

    def __post_init__(self) -> None:
        ranges = {"views": (1, 256), "frames": (2, 1024), "size": (16, 2048), "samples": (1, 8)}
        ranges["blender_samples"] = (1, 4096)
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a whole number from {low} to {high}")
        if self.size % 2:
            raise ConfigError(f"size is {self.size}: give an even number of pixels")
        if self.frames * self.size > MAX_STRIP_PIXELS:
            raise ConfigError(
                f"frames is {self.frames} and size is {self.size}: frames x size must stay below {MAX_STRIP_PIXELS}"
            )
        if not -89.0 <= self.elevation_deg <= 89.0:
            raise ConfigError(f"elevation_deg is {self.elevation_deg}: give a number from -89 to 89")
        for name in ("max_seconds", "blender_minutes"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a positive number")
        if self.light not in ("own", "baked", "cycles"):
            raise ConfigError(f"light is {self.light}: give own, baked or cycles")
        if self.light != "own" and self.blender is None:
            raise ConfigError(f"light is {self.light}: give --blender a blender program, or a Python that has bpy")
