"""A network of some thousand weights on the real clip stream, which notes the items it sees: milliseconds a step."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from animate4d.bench.faults.workbench import ITEMS, data_config
from animate4d.core.failpoint import failpoint
from animate4d.data.batch import TrainingBatch
from animate4d.data.loader import ClipStream, open_stream
from animate4d.data.order import Cursor
from animate4d.training.config import TrainConfig
from animate4d.training.loop import Parts

SEEN = "seen-{}-rank-{:02d}.jsonl"
"""What a worker has taken from its stream, by attempt (the config's `run_name`)."""

SIDE = 4
"""Frames are averaged to so many pixels per side."""
HIDDEN = 256


@dataclass(frozen=True, kw_only=True)
class TinyParts:
    """Builds what one worker trains; see `training.parts.make_parts`, in whose place it is used.

    Attributes:
        environment: set in the worker, for fail points: `step-7.rank-1` is before the worker takes its 8th batch.
    """

    environment: dict[str, str] = field(default_factory=dict)

    def __call__(self, config: TrainConfig, rank: int, world: int) -> Parts:
        """Return the parts of a worker."""
        os.environ.update(self.environment)
        np.random.seed(config.seed)
        random.seed(config.seed)
        batch = config.recipe().optimizer.batch_size
        stream = Noted(
            stream=open_stream(data_config(config.data, batch_size=batch // world), rank=rank, world=world),
            file=config.out / SEEN.format(config.run_name, rank),
            rank=rank,
            batch=batch,
        )
        frame = 3 * SIDE * SIDE
        return Parts(
            model=nn.Sequential(nn.Linear(frame, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, frame)),
            objective=stream.objective,
            stream=stream,
            draw=None,
            validate=None,
            export=export,
        )


class Noted:
    """The real stream, with its items noted, and the loss of its batches."""

    def __init__(self, *, stream: ClipStream, file: Path, rank: int, batch: int) -> None:
        self.stream, self.file, self.rank, self.batch = stream, file, rank, batch
        self.skipped = stream.skipped

    def batches(self, start: Cursor) -> Iterator[tuple[TrainingBatch, Cursor]]:
        """Yield batches; see `ClipStream.batches`."""
        at = start
        for batch, cursor in self.stream.batches(start):
            step = (at.epoch * ITEMS + at.position) // self.batch
            failpoint(f"step-{step}.rank-{self.rank}")
            with open(self.file, "a") as stream:
                stream.write(json.dumps({"at": [at.epoch, at.position], "ids": batch.sample_ids}) + "\n")
            yield batch, cursor
            at = cursor

    def objective(self, model: nn.Module, batch: TrainingBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the error of telling each clip's last frame from its first; draws from every generator there is."""
        pictures = functional.adaptive_avg_pool2d(batch.video.flatten(0, 2), SIDE)
        frames = pictures.view(*batch.video.shape[:3], -1)
        noise = 0.1 * torch.randn(frames[:, :, 0].shape, generator=generator)
        error = (model(functional.dropout(frames[:, :, 0] + noise, 0.1)) - frames[:, :, -1]).square().mean()
        loss = error + 0.01 * np.random.random()
        return {"loss": loss}


def export(model: nn.Module, folder: Path, facts: dict[str, Any]) -> None:
    """Write what the driver takes for a model folder."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"step": facts["step"]}))


def steps_taken(out: Path) -> dict[Cursor, frozenset[str]]:
    """Return what a run trained on: the ids of each step over all ranks, by cursor; a step done again counts once."""
    taken: dict[Cursor, tuple[str, dict[str, list[str]]]] = {}
    for file in sorted(out.glob(SEEN.format("*", 0).replace("00", "*"))):
        _, attempt, _, rank = file.stem.split("-")
        for line in file.read_text().splitlines():
            entry = json.loads(line)
            at = Cursor(*entry["at"])
            if at not in taken or taken[at][0] != attempt:
                taken[at] = (attempt, {})
            taken[at][1][rank] = entry["ids"]
    return {at: frozenset(name for ids in taken[at][1].values() for name in ids) for at in sorted(taken)}


def steps_repeated(out: Path) -> int:
    """Return how many steps a run did more than once."""
    done = [
        tuple(json.loads(line)["at"])
        for file in sorted(out.glob(SEEN.format("*", 0)))
        for line in file.read_text().splitlines()
    ]
    return len(done) - len(set(done))
