"""Settings of the kernel bench. Imports nothing heavy, so that `--help` answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from animate4d.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchKernelsConfig:
    """Measure the C kernels of the 4D fit, forward and backward, against their twins in plain torch, in one run."""

    splats: int = 2000
    """Gaussians drawn."""
    size: int = 128
    """Picture side in pixels."""
    views: int = 4
    """Pictures drawn, of one frame."""
    points: int = 10_000
    """Points asked of the motion field."""
    frames: int = 15
    """Frames asked of the motion field: all but the first of a 16-frame clip."""
    threads: int = 1
    """CPU threads of both sides."""
    repeats: int = 5
    """Timed runs per row, taken in turns; the table shows their median and quartiles."""
    warmup: int = 1
    """Runs before the timed ones."""
    seed: int = 0
    """Seed of the inputs."""
    out: Path = Path("runs/bench/kernels.json")
    """File for all numbers, with the versions and the machine they belong to."""

    def __post_init__(self) -> None:
        least = {"splats": 1, "size": 8, "views": 1, "points": 1, "frames": 1, "threads": 1, "repeats": 1}
        for name, bound in (least | {"warmup": 0, "seed": 0}).items():
            if getattr(self, name) < bound:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a whole number >= {bound}")
