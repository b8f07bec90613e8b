"""A network of some thousand weights on the real clip stream, which notes the items it sees: milliseconds a step."""

from __future__ import annotations

import json
import os
import random
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
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
"""Makes weights of 100 kB: more than all other files of a run together."""
ROOM = 50_000
"""Bytes to which a file may grow on the disk that is full."""
FAULT = "fault"
"""File in the run folder made when the fault happens."""
PATIENCE_S = 240.0


@dataclass(frozen=True, kw_only=True)
class TinyParts:
    """Builds what one worker trains; see `training.parts.make_parts`, in whose place it is used.

    Attributes:
        at: step, from 0, before which the following happens.
        wait_for: pattern of a file in the run folder that every worker waits for; "" waits for none.
        full: whether writing fails from then on as on a full disk: half-way, with an error.
        poison: whether the loss of the step is no number.
        noise: whether the loss draws random numbers, which are others on every worker.
        environment: set in the worker, for fail points: `step-7.rank-1` is before the worker takes its 8th batch.
    """

    at: int = -1
    wait_for: str = ""
    full: bool = False
    poison: bool = False
    noise: bool = True
    environment: dict[str, str] = field(default_factory=dict)

    def __call__(self, config: TrainConfig, rank: int, world: int) -> Parts:
        """Return the parts of a worker."""
        os.environ.update(self.environment)
        np.random.seed(config.seed)
        random.seed(config.seed)
        batch = config.recipe().optimizer.batch_size
        stream = Noted(
            parts=self,
            stream=open_stream(data_config(config.data, batch_size=batch // world), rank=rank, world=world),
            out=config.out,
            attempt=config.run_name,
            rank=rank,
            batch=batch,
        )
        frame = 3 * SIDE * SIDE
        return Parts(
            model=nn.Sequential(nn.Linear(frame, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, frame)),
            objective=stream.objective,
            stream=stream,
            draw=draw,
            validate=None,
            export=export,
        )


class Noted:
    """The real stream, with its items noted, and the loss of its batches."""

    def __init__(
        self, *, parts: TinyParts, stream: ClipStream, out: Path, attempt: str | None, rank: int, batch: int
    ) -> None:
        self.parts, self.stream, self.out, self.rank, self.batch = parts, stream, out, rank, batch
        self.file = out / SEEN.format(attempt, rank)
        self.skipped, self.step = stream.skipped, 0

    def batches(self, start: Cursor) -> Iterator[tuple[TrainingBatch, Cursor]]:
        """Yield batches; see `ClipStream.batches`."""
        at = start
        for batch, cursor in self.stream.batches(start):
            self.step = (at.epoch * ITEMS + at.position) // self.batch
            if self.step == self.parts.at:
                self.meet_fault()
            failpoint(f"step-{self.step}.rank-{self.rank}")
            with open(self.file, "a") as stream:
                stream.write(json.dumps({"at": [at.epoch, at.position], "ids": batch.sample_ids}) + "\n")
            yield batch, cursor
            at = cursor

    def meet_fault(self) -> None:
        """Wait, and fill the disk, if that is asked for."""
        until = time.monotonic() + PATIENCE_S
        while self.parts.wait_for and not any(self.out.glob(self.parts.wait_for)):
            assert time.monotonic() < until, f"{self.parts.wait_for} never came"
            time.sleep(0.01)
        if self.parts.full:  # a limit of file size is met by writing as a full disk is
            resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, resource.RLIM_INFINITY))
        (self.out / FAULT).touch()

    def objective(self, model: nn.Module, batch: TrainingBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the error of telling each clip's last frame from its first; draws from every generator there is."""
        pictures = functional.adaptive_avg_pool2d(batch.video.flatten(0, 2), SIDE)
        frames = pictures.view(*batch.video.shape[:3], -1)
        first, last, share = frames[:, :, 0], frames[:, :, -1], 0.1 * self.parts.noise
        noisy = first + share * torch.randn(first.shape, generator=generator)
        error = (model(functional.dropout(noisy, share)) - last).square().mean()
        loss = error + 0.01 * np.random.random()
        poisoned = self.parts.poison and self.step == self.parts.at
        return {"loss": loss * float("nan") if poisoned else loss}


def draw(model: nn.Module, path: Path) -> None:
    """Write what the driver takes for a sample grid."""
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


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
