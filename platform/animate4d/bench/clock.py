"""Timing on a busy machine: warm-up, several candidates in turns, medians with quartiles, CPU time beside wall time.

On a GPU every run is bracketed by events on the current stream; on a CPU by the wall clock and the process clock. The
process clock counts what this process really computed and so hardly depends on what else the machine does.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Repeated measurements of one thing, milliseconds.

    Attributes:
        ms: median.
        low: first quartile.
        high: third quartile.
        cpu_ms: median of CPU time over all threads; None on a GPU.
        runs: how many.
    """

    ms: float
    low: float
    high: float
    cpu_ms: float | None
    runs: int

    def to_json(self) -> dict[str, Any]:
        """Return the numbers, rounded to a microsecond."""
        return {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(self).items()}


def measure(
    candidates: Mapping[str, Callable[[], object]], *, device: torch.device, repeats: int, warmup: int
) -> dict[str, Timing]:
    """Run every candidate `warmup + repeats` times, one of each per round, and time the later rounds.

    Rounds go forwards and backwards in turn, so that a slow drift of the machine (heat, other work) and the caches the
    one before left behind weigh on all alike.
    """
    spans: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    for number in range(warmup + repeats):
        order = list(candidates)[:: 1 if number % 2 == 0 else -1]
        for name in order:
            span = time_once(candidates[name], device)
            if number >= warmup:
                spans[name].append(span)
    return {name: summary(values, on_cpu=device.type == "cpu") for name, values in spans.items()}


def time_once(work: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Return the milliseconds one run takes: on the device, and of this process' CPU time."""
    if device.type == "cuda":
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize(device)
        used = time.process_time()
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize(device)
        return begin.elapsed_time(end), 1e3 * (time.process_time() - used)
    used, began = time.process_time(), time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - began), 1e3 * (time.process_time() - used)


def summary(spans: list[tuple[float, float]], *, on_cpu: bool) -> Timing:
    """Return median and quartiles of `(wall, cpu)` milliseconds."""
    walls, cpus = (sorted(column) for column in zip(*spans, strict=True))
    low, _, high = statistics.quantiles(walls, n=4, method="inclusive") if len(walls) > 1 else walls * 3
    return Timing(
        ms=statistics.median(walls),
        low=low,
        high=high,
        cpu_ms=statistics.median(cpus) if on_cpu else None,
        runs=len(walls),
    )
