"""How fast batches come: the first one, all of them, and those after the first."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any, cast

from animate4d.data.batch import TrainingBatch


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One pass over some batches.

    Attributes:
        first_s: from opening the loader to its first batch.
        rest_s: from the first batch to the last.
        whole: items per second from opening on.
        steady: items per second after the first batch.
    """

    first_s: float
    rest_s: float
    whole: float
    steady: float


def time_batches(open_side: Callable[[], Iterator[TrainingBatch]], steps: int) -> Turn:
    """Open a loader, take `steps` batches (two or more) and close it."""
    began = time.perf_counter()
    with closing(cast(Generator[TrainingBatch, None, None], open_side())) as batches:
        size = len(next(batches).sample_ids)
        first = time.perf_counter()
        for _ in range(steps - 1):
            next(batches)
        ended = time.perf_counter()
    return Turn(
        first_s=first - began,
        rest_s=ended - first,
        whole=steps * size / (ended - began),
        steady=(steps - 1) * size / (ended - first),
    )


def in_turns(
    sides: Mapping[str, Callable[[], Iterator[TrainingBatch]]], *, steps: int, rounds: int
) -> dict[str, list[Turn]]:
    """Time every side once per round, forwards and backwards in turn, so that what else runs weighs on all alike."""
    turns: dict[str, list[Turn]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
            turns[name].append(time_batches(sides[name], steps))
    return turns


def summary(turns: list[Turn]) -> dict[str, Any]:
    """Return medians, and quartiles of the steady rate, as JSON values."""
    rates = sorted(turn.steady for turn in turns)
    low, _, high = quantiles(rates, n=4, method="inclusive") if len(rates) > 1 else rates * 3
    return {
        "steady": round(median(rates), 2),
        "steady_low": round(low, 2),
        "steady_high": round(high, 2),
        "whole": round(median(turn.whole for turn in turns), 2),
        "first_s": round(median(turn.first_s for turn in turns), 3),
        "rounds": len(turns),
    }


def ratio(ours: list[Turn], theirs: list[Turn], what: str) -> float:
    """Return the median over rounds of our rate as a share of theirs in the same round."""
    return median(getattr(one, what) / getattr(other, what) for one, other in zip(ours, theirs, strict=True))
