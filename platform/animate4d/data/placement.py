"""Which share of a GPU trainers and labellers ask Ray for, computed from what the cluster has. Knows no Ray.

GPUs that no trainer needs go to the labellers. Where there are none, every trainer leaves a part of its own GPU: Ray
then finds the room beside it, since no second trainer fits where more than half is taken. Shares are bookkeeping, the
memory of a GPU is not divided by them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from animate4d.core.errors import ClusterError

SHARED = 0.25
"""Of a trainer's GPU, for all labellers of its rank together (tracking notes, section 8: fractions of 0.25 to 0.5)."""

LEAST = 0.25
"""Of a GPU that only labels, per labeller: CoTracker3 on four views of 48 frames needs some GB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuShares:
    """What one trainer and one labeller ask for; 0 where they run on the CPU."""

    trainer: float
    labeller: float


def share_gpus(*, gpus: float, workers: int, labellers: int, asked: float | None = None) -> GpuShares:
    """Return the shares.

    Args:
        gpus: of the whole cluster.
        workers: trainers, one GPU each where there are enough.
        labellers: actors per trainer that can use a GPU.
        asked: share wanted for each of those; None for the default, 0 for the CPU.

    Raises:
        ClusterError: the labellers would take so much that two trainers could meet on one GPU.
    """
    trainer = 1.0 if gpus >= workers else 0.0
    if not labellers or gpus < 1 or asked == 0:
        return GpuShares(trainer=trainer, labeller=0.0)
    spare = math.floor(gpus) - (workers if trainer else 0)
    together = workers * labellers
    share = asked
    if share is None and spare > 0:
        share = 1 / math.ceil(together / spare)
        share = share if share >= LEAST else None
    share = SHARED / labellers if share is None else share
    if not trainer or spare * math.floor(1 / share + 1e-9) >= together:
        return GpuShares(trainer=trainer, labeller=share)
    left = 1 - labellers * share
    if left <= 0.5:
        raise ClusterError(
            f"{workers} trainers and {together} labellers of {share:g} GPU do not fit into {gpus:g} GPUs: a trainer "
            "must keep more than half of one: ask for less per labeller (labeller_gpus), or add GPUs"
        )
    return GpuShares(trainer=left, labeller=share)
