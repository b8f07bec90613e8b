"""A training step measured by itself, and our training loop against a plain one over the same batches.

Our loop is `training.loop.Loop` as `animate4d train` runs it in a worker: DeepSpeed's engine, stop requests, one row of
metrics.jsonl a step. The plain loop is what one writes without it: loss, backward, clipping, AdamW, moving average.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from animate4d.bench.clock import Timing, summary
from animate4d.bench.subject import RandomMVVDM, Subject, random_model
from animate4d.data.batch import TrainingBatch
from animate4d.data.order import Cursor
from animate4d.models.config import MVVDMConfig
from animate4d.models.execution import ExecutionConfig
from animate4d.training.ema import Ema
from animate4d.training.engine import LossModule, leave_group
from animate4d.training.group import Group
from animate4d.training.loop import Loop, LoopConfig, Parts
from animate4d.training.objective import Objective
from animate4d.training.recipe import Recipe

BATCHES = 2
"""Different batches trained on in turn; reading data is not what is measured."""

SAME_STEPS = 3
"""Losses compared: later ones drift apart, as Adam makes full steps of gradients that are rounding noise."""

NEVER = 10**9


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingPlan:
    """What is trained, how, on what.

    Attributes:
        config: the network's.
        recipe: objective and optimiser.
        clips: per step.
        device: where.
        seed: of weights, noise and batches.
        execution: how the network runs.
    """

    config: MVVDMConfig
    recipe: Recipe
    clips: int
    device: torch.device
    seed: int
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)

    @property
    def frames(self) -> int:
        """Frames per step."""
        return min(self.recipe.optimizer.frames_per_step, self.config.frames)

    def model(self) -> RandomMVVDM:
        """Return a new model in fp32 on the device, the same every time."""
        model = random_model(self.config, self.device, self.seed)
        model.execute(self.execution)
        return model.train()

    @property
    def objective(self) -> Objective:
        """The loss; on meta without the tracking terms, which cost next to nothing and refuse meta's autocast."""
        given = self.recipe.objective
        return Objective(replace(given, correspondence=0.0, position=0.0) if self.device.type == "meta" else given)

    def batches(self, model: RandomMVVDM) -> list[TrainingBatch]:
        """Return the batches, on the CPU or on meta."""
        device = self.device if self.device.type == "meta" else torch.device("cpu")
        return [
            Subject(model=model, device=device, dtype=torch.float32, seed=self.seed + number).training_batch(
                self.clips, self.frames
            )
            for number in range(BATCHES)
        ]


class PlainTraining:
    """A plain PyTorch training loop, one call per step."""

    def __init__(self, plan: TrainingPlan, steps: int) -> None:
        self.recipe, self.steps, self.device = plan.recipe.optimizer, steps, plan.device
        self.model = plan.model()
        self.loss = LossModule(self.model, plan.objective, plan.device)
        self.weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.weights,
            lr=self.recipe.learning_rate,
            betas=self.recipe.betas,
            weight_decay=self.recipe.weight_decay,
        )
        self.ema = Ema(self.model, self.recipe.ema) if self.recipe.ema else None
        self.generator = torch.Generator().manual_seed(plan.seed * 1000)
        self.losses: list[float] = []
        self.batches = plan.batches(self.model)

    def step(self) -> None:
        """Train one step on the next batch."""
        done = len(self.losses)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(done, self.steps)
        terms = self.loss(self.batches[done % BATCHES].to(self.device), self.generator)
        terms["loss"].backward()
        nn.utils.clip_grad_norm_(self.weights, self.recipe.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update(self.model)
        self.losses.append(0.0 if self.device.type == "meta" else float(terms["loss"].detach()))


class EnoughSteps(Exception):
    """All steps to be measured are done."""


@dataclass
class Turns:
    """A stream of batches that, between blocks of steps of our loop, stops its clock and runs something else.

    Attributes:
        items: batches, given in turn.
        blocks: after so many the stream ends the loop, before that would write a checkpoint.
        block: steps of ours per block.
        device: whose work a block must wait for.
        between: run after every block.
        spans: `(wall, cpu)` milliseconds per step of ours, block by block.
    """

    items: list[TrainingBatch]
    blocks: int
    block: int
    device: torch.device
    between: Callable[[], None]
    spans: list[tuple[float, float]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def batches(self, start: Cursor) -> Iterator[tuple[Any, Cursor]]:
        """Yield batches; called by our loop."""
        given = 0
        for _ in range(self.blocks):
            watch = Watch(self.device)
            for _ in range(self.block):
                yield self.items[given % BATCHES], Cursor()
                given += 1
            self.spans.append(watch.per(self.block))
            self.between()
        raise EnoughSteps


class Watch:
    """Wall and CPU milliseconds since it was made, the device's work included."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._wait()
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def per(self, count: int) -> tuple[float, float]:
        """Return the milliseconds so far, divided by a count."""
        self._wait()
        return (
            1e3 * (time.perf_counter() - self.wall) / count,
            1e3 * (time.process_time() - self.cpu) / count,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopResult:
    """Both loops' time per step, and the largest relative difference of their first losses."""

    ours: Timing
    plain: Timing
    difference: float


def compare_loops(plan: TrainingPlan, *, blocks: int, steps: int) -> LoopResult:
    """Train the same model twice, `blocks` blocks of `steps` steps each, one after the other in turns.

    The first block of each warms up and is not counted.
    """
    plain = PlainTraining(plan, blocks * steps + 1)
    spans: list[tuple[float, float]] = []

    def run_plain() -> None:
        watch = Watch(plan.device)
        for _ in range(steps):
            plain.step()
        spans.append(watch.per(steps))

    losses: list[float] = []
    turns = run_our_loop(plan, blocks, steps, run_plain, losses)
    pairs = list(zip(losses, plain.losses, strict=False))[:SAME_STEPS]
    difference = max(abs(a - b) / abs(b) for a, b in pairs)
    on_cpu = plan.device.type == "cpu"
    return LoopResult(
        ours=summary(turns.spans[1:], on_cpu=on_cpu), plain=summary(spans[1:], on_cpu=on_cpu), difference=difference
    )


def run_our_loop(
    plan: TrainingPlan, blocks: int, steps: int, between: Callable[[], None], losses: list[float]
) -> Turns:
    """Train with our loop, in a folder of its own; return its stream with the times and fill in the losses."""
    model = plan.model()
    turns = Turns(items=plan.batches(model), blocks=blocks, block=steps, device=plan.device, between=between)
    with one_process(plan.device) as group, tempfile.TemporaryDirectory() as folder:
        config = LoopConfig(
            out=Path(folder),
            optimizer=plan.recipe.optimizer,
            zero=False,
            steps=blocks * steps + 1,
            resolved={},
            seed=plan.seed,
            checkpoint_every=NEVER,
            keep=1,
            sample_every=0,
            validate_every=0,
            log_every=1,
        )
        parts = Parts(
            model=model,
            objective=plan.objective,
            stream=turns,
            draw=None,
            validate=None,
            export=lambda model, folder, facts: None,
        )
        with suppress(EnoughSteps):
            Loop(config, parts, group, lambda row: losses.append(row["loss"])).run()
    return turns


@contextmanager
def one_process(device: torch.device) -> Iterator[Group]:
    """Hold a process group of this process alone."""
    import torch.distributed as dist

    if device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    os.environ.setdefault("LOCAL_RANK", "0")
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group(
            "gloo" if device.type == "cpu" else "nccl", init_method=f"file://{folder}/store", rank=0, world_size=1
        )
        try:
            yield Group(rank=0, world=1, device=device)
        finally:
            leave_group()
