"""Settings of the HTTP bench. Imports nothing heavy, so that `--help` answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from animate4d.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchHttpConfig:
    """Measure what the service adds to a submission, and what it does with twice the jobs it takes; no model runs."""

    megabytes: float = 1.0
    """Size of the uploaded file."""
    requests: int = 100
    """Timed submissions to either side, taken in turns."""
    warmup: int = 10
    """Submissions before the timed ones."""
    jobs: int = 200
    """Submissions of the overload part."""
    job_ms: float = 20.0
    """How long the stand-in worker takes for a job; submissions come twice as often."""
    queue: int = 8
    """Jobs that may wait in the overload part."""
    out: Path = Path("runs/bench/http.json")
    """File for all numbers, with the versions and the machine they belong to."""

    def __post_init__(self) -> None:
        for name, bound in {"requests": 1, "warmup": 0, "jobs": 1, "queue": 1}.items():
            if getattr(self, name) < bound:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a whole number >= {bound}")
        for name, bound in {"megabytes": 50, "job_ms": 10_000}.items():
            if not 0 < getattr(self, name) <= bound:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a number above 0, up to {bound}")
