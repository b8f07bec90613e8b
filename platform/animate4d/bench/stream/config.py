"""Settings of the stream bench. Imports nothing heavy, so that `--help` answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from animate4d.core.errors import ConfigError

Part = Literal["speed", "labels", "memory"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchStreamConfig:
    """Measure the training stream: against webdataset's own loader, with kept labels, and with samples of 20 MB.

    Returns 1 where a limit does not hold. Sides of a comparison take turns in one run; trust their ratios more than
    their times.
    """

    data: Path | None = None
    """Folder of shards to read; default: procedural objects are rendered for the run."""
    clips: int = 12
    """Clips to render where no shards are given."""
    size: int = 64
    """Picture side of rendered clips, pixels."""
    parts: tuple[Part, ...] = ("speed", "labels", "memory")
    """speed: both loaders against webdataset's; labels: an epoch that finds its labels against one without; memory:
    bytes spilled and a reader's memory with large samples."""
    batch_size: int = 4
    """Items per batch."""
    steps: int = 80
    """Batches per turn."""
    rounds: int = 3
    """Turns of every side; the table shows medians and quartiles."""
    sample_mb: float = 20.0
    """Size of a large sample, MB."""
    large_steps: int = 12
    """Batches of two large samples."""
    store_mb: int = 400
    """Size of Ray's object store with large samples, MB."""
    out: Path = Path("runs/bench/stream.json")
    """File for all numbers, with the versions and the machine they belong to."""

    def __post_init__(self) -> None:
        least = {"clips": 1, "size": 16, "batch_size": 1, "steps": 2, "rounds": 1, "large_steps": 1, "store_mb": 80}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a whole number >= {bound}")
        if self.size % 2:
            raise ConfigError(f"size is {self.size}: give an even number")
        if not 0.1 <= self.sample_mb <= 100:
            raise ConfigError(f"sample_mb is {self.sample_mb}: give a number from 0.1 to 100")
