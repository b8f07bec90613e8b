"""Settings of the fault bench. Imports nothing heavy, so that `--help` answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchFaultsConfig:
    """Make faults of data, training, batches and the service happen for real, and say what each one cost.

    The exit code is 1 if one is not noticed, not recovered from, loses more than is documented, or loses it silently.
    """

    only: tuple[str, ...] = ()
    """Faults to make, such as D21 D34; default all."""
    out: Path = Path("runs/bench/faults")
    """Folder for faults.json (everything, with the machine it belongs to) and faults.csv (the table)."""
    keep: bool = False
    """Leave the folders in which the faults happened, and say where they are."""
