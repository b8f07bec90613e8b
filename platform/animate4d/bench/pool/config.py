"""Settings of the pool bench. Imports nothing heavy, so that `--help` answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from animate4d.core.errors import ConfigError

Part = Literal["makespan", "faults"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchPoolConfig:
    """Run rows that only sleep through the batch pool, on a cluster of several Ray nodes on this machine.

    The GPUs are declared, not real: what is measured is how well the pool keeps its places filled.
    """

    rows: int = 1000
    """Rows of the part "makespan"."""
    fault_rows: int = 200
    """Rows of the part "faults", where a lost answer may cost a new worker, some seconds."""
    nodes: int = 3
    """Ray nodes beside the head, which has no GPU."""
    gpus: int = 8
    """Declared GPUs, spread over the nodes; each works on one row at a time."""
    mean_seconds: float = 0.2
    """Mean time of a row; times are drawn from a log-normal distribution whose spread (sigma) is 0.8."""
    lost_replies: int = 25
    """Of the answers to the driver's calls, how many per cent are lost in the part "faults"."""
    parts: tuple[Part, ...] = ("makespan", "faults")
    """makespan: time for all rows beside the least possible; faults: a node is killed in the middle and answers are
    lost, and every row must end exactly once."""
    seed: int = 0
    """Seed of the times."""
    out: Path = Path("runs/bench/pool.json")
    """File for all numbers, with the versions and the machine they belong to."""

    def __post_init__(self) -> None:
        if self.nodes < 2:
            raise ConfigError(f"nodes is {self.nodes}: give at least 2, one of them is killed")
        if self.gpus < self.nodes:
            raise ConfigError(f"gpus is {self.gpus}: give at least one per node ({self.nodes})")
        if min(self.rows, self.fault_rows) < 1 or not self.mean_seconds > 0:
            raise ConfigError(
                f"rows is {self.rows}, fault_rows {self.fault_rows} and mean_seconds {self.mean_seconds}: "
                "all must be positive"
            )
        if not 0 <= self.lost_replies < 100:
            raise ConfigError(f"lost_replies is {self.lost_replies}: give a whole number from 0 to 99")
