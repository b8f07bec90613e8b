"""Settings of the feature probe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from animate4d.core.errors import ConfigError

Match = Literal["nearest", "refined", "window"]
MATCHES: tuple[Match, ...] = ("nearest", "refined", "window")


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeConfig:
    """Find out which layer's features follow points best, as in Fig. 3 of Track4Animate3D.

    True clips get a little noise, the denoiser runs once, and points of frame 0 are looked up in later frames by the
    cosine of their features; exact tracks say how far off they are.
    """

    data: Path
    """Folder of shards with exact tracks, best of objects the model never saw."""

    keep_list: Path | None = None
    """List of the clips to probe, one key per line, such as held-out.txt of a run folder; unset: all."""

    model: str = "shipped"
    """Model to probe: shipped, a model folder, or models:/mv-vdm@champion."""

    out: Path = Path("out/probe")
    """Folder for probe.csv, probe.json, chart.png and a points-*.png per shown clip."""

    taps: tuple[str, ...] = ()
    """Layers to probe, such as up_blocks.1 or up_blocks.1.motion_modules.0; unset: every decoder block and module."""

    timesteps: tuple[int, ...] = (50, 261)
    """Noise levels to probe at, of the model's noise schedule (1000 is all noise). 261 is customary for image diffusion
    features."""

    draws: int = 1
    """Noise draws whose features are averaged; each costs a pass per noise level."""

    match: Match = "window"
    """How a position is read from the similarity map, for the table, the ranking and the pictures; probe.csv has all:
    nearest (centre of the best cell), refined (a parabola through it and its neighbours), window (softmax-weighted mean
    of the cells around it)."""

    thresholds: tuple[float, ...] = (4.0, 8.0, 16.0)
    """Distances within which a point counts as found (PCK), in pixels of a picture of 256 px."""

    moving: float = 16.0
    """Points further from their start than this count as moving, in pixels of a picture of 256 px."""

    limit: int | None = None
    """At most so many clips; unset: all."""

    pictures: int = 3
    """Clips to draw, those that move most, of different objects."""

    seed: int = 0
    """Seed of the noise."""

    tracking_uri: str | None = None
    """MLflow store to look `models:/` names up in."""

    def __post_init__(self) -> None:
        for name, least in (("draws", 1), ("pictures", 0), ("seed", 0), ("limit", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} is {value}: give a whole number >= {least}")
        if not self.timesteps or min(self.timesteps) < 0:
            raise ConfigError(f"timesteps are {self.timesteps}: give at least one, from 0")
        if not self.thresholds or min(self.thresholds) <= 0 or self.moving < 0:
            raise ConfigError(f"thresholds are {self.thresholds} and moving is {self.moving}: give positive numbers")
        if self.match not in MATCHES:
            raise ConfigError(f"match is '{self.match}': give one of {', '.join(MATCHES)}")
