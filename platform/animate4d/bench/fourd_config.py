"""Settings of the motion-fit bench. Imports nothing heavy, so that `--help` answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from animate4d.core.errors import ConfigError
from animate4d.fourd.config import FitPreset
from animate4d.pipeline.config import Tracker


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchFourDConfig:
    """Fit the motion of rigged models to perfect videos of their own animations and compare with the truth.

    Each clip is rendered from four sides and fitted; the truth is used for scoring only (and for --tracker exact). Left
    out are clips that hardly move, where a ratio would measure a pixel's rounding, and clips in which parts turn too
    far, wheels above all: a wheel looks the same at every angle. Stop it with Ctrl-C and run the same command again to
    go on; measured fits are kept.
    """

    assets: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="ASSETS")]
    """An animated GLB or glTF, or a folder of them (sub-folders too)."""
    out: Path = Path("runs/bench/fourd")
    """Folder for fourd.csv (a line per clip and variant), fourd.json (the table) and fourd.png (the worst clips)."""

    limit: int = 12
    """Clips to fit, of as many objects as there are; the choice depends on the seed alone."""
    preset: FitPreset = "standard"
    """Effort of the fit."""
    tracker: Tracker = "none"
    """Whose point tracks lead the fit: none, exact, opencv-lk, opencv-dis or cotracker3."""
    tracker_checkpoint: Path | None = None
    """Weights of cotracker3 (CC BY-NC 4.0); with --ablate it gets a row of its own."""
    ablate: bool = False
    """Also fit every clip without one ingredient at a time, and with every tracker."""
    only: tuple[str, ...] = ()
    """With --ablate: these variants alone."""

    frames: int = 16
    """Frames per clip."""
    max_seconds: float = 4.0
    """Length of a clip at most."""
    least_motion: float = 0.02
    """Clips whose vertices move less than this share of the object's diameter, on average, are left out."""
    largest_turn: float = 150.0
    """Clips in which over 1 % of the surface turns further than this from its first pose, degrees, are left out."""
    pictures: int = 4
    """Clips on the contact sheet, the worst."""
    threads: int = 1
    """CPU threads of a fit; more shorten the time a little and cost more CPU time."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where fields are trained; graphs are fitted on the CPU."""
    seed: int = 0
    """Seed of the choice of clips."""

    def __post_init__(self) -> None:
        least = {"limit": 1, "frames": 2, "pictures": 0, "threads": 1, "seed": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a whole number >= {bound}")
        if not self.max_seconds > 0:
            raise ConfigError(f"max_seconds is {self.max_seconds}: give a number above 0")
        if not 0 <= self.least_motion < 1:
            raise ConfigError(f"least_motion is {self.least_motion}: give a share of the diameter, 0 to 1")
        if not 0 < self.largest_turn <= 180:
            raise ConfigError(f"largest_turn is {self.largest_turn}: give degrees, above 0 and up to 180")
        if self.only and not self.ablate:
            raise ConfigError("only names variants of --ablate: add --ablate")
