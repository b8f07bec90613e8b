"""Settings of the model bench. Imports nothing heavy, so that `--help` answers at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from animate4d.core.errors import ConfigError
from animate4d.models.execution import ExecutionConfig

Preset = Literal["smoke", "small", "paper", "paper_sd21"]
Part = Literal["forward", "training", "loop", "sampling"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchModelConfig:
    """Measure one preset of the network with random weights on one device. Nothing is downloaded or read."""

    preset: Preset = "smoke"
    """Network and recipe to measure."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where: auto takes the GPU if there is one."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of matrix products: auto is bf16 on a GPU (training keeps fp32 weights under autocast), else fp32."""
    parts: tuple[Part, ...] = ("forward", "training", "loop", "sampling")
    """What to measure besides the FLOPs: one forward pass, one training step, the training loop against a plain one,
    sampling a clip."""

    views: int | None = None
    """Views instead of the preset's."""
    frames: int | None = None
    """Frames instead of the preset's."""
    image_size: int | None = None
    """Picture side in pixels instead of the preset's."""
    batch: int | None = None
    """Clips per training step (default: the recipe's where the model trains on one worker, 1 for paper)."""
    steps: int | None = None
    """Sampling steps instead of the preset's."""
    guidance: float | None = None
    """Guidance of the sampling rows (default: the preset's, or 2 for a preset that samples without)."""

    repeats: int = 9
    """Timed runs per row, taken in turns; the table shows their median and quartiles."""
    warmup: int = 2
    """Runs before the timed ones."""
    minutes: float = 20.0
    """Rows predicted to take longer than this are left out with a warning."""
    threads: int | None = None
    """CPU threads of torch (default: torch's own choice)."""
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    """How the network runs in all rows but those that name another way."""
    seed: int = 0
    """Seed of weights and inputs."""
    out: Path = Path("runs/bench/model.json")
    """File for all numbers, with the versions and the machine they belong to."""

    def __post_init__(self) -> None:
        least = {"views": 1, "frames": 2, "image_size": 8, "batch": 1, "steps": 1, "threads": 1}
        for name, bound in (least | {"repeats": 1, "warmup": 0, "seed": 0}).items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise ConfigError(f"{name} is {value}: give a whole number >= {bound}")
        for name in ("minutes", "guidance"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"{name} is {value}: give a number above 0")
