"""Validation loss: the training objective on clips of held-out objects, with the same noise every time.

Noise, timesteps, frames and points are drawn from fixed seeds, so the numbers of two steps, or of two runs, differ by
the model alone. Captions are never dropped.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import Any, cast

import torch
from torch import nn

from animate4d.data.config import DataConfig
from animate4d.data.loader import InProcessStream
from animate4d.data.order import Cursor
from animate4d.training.engine import LossModule
from animate4d.training.objective import Objective
from animate4d.training.recipe import ObjectiveConfig

SEED = 0
"""Of clips, frames, points and noise, whatever the seed of the run."""

VAL = "val_"
"""How the names of these losses begin."""

BATCH = 2
"""Clips at a time, however many workers train: their number must not change which noise a clip meets."""


class Validation:
    """Callable mean of every loss term over the first clips of the held-out order. Nothing is kept in memory."""

    def __init__(self, data: DataConfig, objective: ObjectiveConfig, clips: int) -> None:
        """Open the held-out shards.

        Args:
            data: what to read; its split is the held-out side.
            objective: the training's.
            clips: at most so many items, in whole batches and at least one.

        Raises:
            ShardError: nothing is held out.
        """
        self.stream = InProcessStream(
            replace(data, loader="inprocess", batch_size=BATCH, cache_mb=0, prefetch=0, seed=SEED)
        )
        self.objective = Objective(replace(objective, drop_text=0.0))
        self.batches = max(1, min(clips, self.stream.epoch_items) // BATCH)

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Return the means as "val_loss", "val_diffusion" and so on.

        Raises:
            ShardError: the clips cannot be read.
        """
        device = next(model.parameters()).device
        judge = LossModule(model, self.objective, device)
        generator = torch.Generator().manual_seed(SEED)
        values: dict[str, list[float]] = defaultdict(list)
        with closing(cast(Generator[tuple[Any, Cursor], None, None], self.stream.batches(Cursor()))) as stream:
            for batch, _ in islice(stream, self.batches):
                for name, term in judge(batch.to(device), generator).items():
                    values[f"{VAL}{name}"].append(float(term))
        return {name: sum(terms) / len(terms) for name, terms in values.items()}
