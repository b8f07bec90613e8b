"""Settings of the training bench. Imports nothing heavy, so that `--help` answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from animate4d.core.errors import ConfigError

Part = Literal["scaling", "loop", "mlflow", "data"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchTrainingConfig:
    """Measure real trainings under Ray Train at steady state, each against what it is compared with, in one run.

    Trainings go forwards and backwards in turn, so that a slow drift of the machine weighs on all alike. Start-up,
    checkpoints and the export of the model are not counted.
    """

    data: Path | None = None
    """Folder of shards to train on; default a few clips generated for the bench."""
    preset: Literal["smoke", "small"] = "smoke"
    """Network and recipe."""
    parts: tuple[Part, ...] = ("scaling", "loop", "mlflow", "data")
    """scaling: `workers` against one, with the same batch shared and with a full batch each; loop: the platform's step
    against a plain loop; mlflow: with a real SQLite store and without; data: time waited for data, with labels from the
    shards and with labels kept ahead."""
    workers: int = 2
    """Workers of the scaling part, one CPU thread (or GPU) each."""
    steps: int = 30
    """Steps timed per training."""
    warmup: int = 5
    """Steps before them."""
    rounds: int = 2
    """Trainings of each kind."""
    seed: int = 0
    """Seed of weights, noise and clip order."""
    out: Path = Path("runs/bench/training.json")
    """File for all numbers, with the versions and the machine they belong to."""

    def __post_init__(self) -> None:
        for name, bound in {"workers": 2, "steps": 2, "warmup": 1, "rounds": 1, "seed": 0}.items():
            if getattr(self, name) < bound:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a whole number >= {bound}")
        if not self.parts:
            raise ConfigError("parts is empty: give one or more of scaling, loop, mlflow, data")
