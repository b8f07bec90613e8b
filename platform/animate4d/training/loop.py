"""The steps of one worker, from a checkpoint (or nothing) to the last step. Knows torch and DeepSpeed, not Ray."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from animate4d.core.errors import UserError
from animate4d.data.order import Cursor
from animate4d.io.atomic import write_json
from animate4d.training.checkpoint import STOP_FILE, list_checkpoints, newest_sound
from animate4d.training.ema import Ema
from animate4d.training.engine import LossModule, Objective, optimizer_step, set_learning_rate, start_engine
from animate4d.training.group import Group
from animate4d.training.metrics_log import MetricsLog, Row
from animate4d.training.recipe import OptimizerConfig
from animate4d.training.snapshot import load_snapshot, save_snapshot
from animate4d.training.writer import CheckpointWriter


class Stream(Protocol):
    """Batches in an order that a cursor can go on from.

    Attributes:
        skipped: id -> reason of the items that could not be decoded so far.
    """

    skipped: dict[str, str]

    def batches(self, start: Cursor) -> Iterator[tuple[Any, Cursor]]:
        """Yield (batch with `.to(device)`, cursor after it) without end, from a generator."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """What is trained, on what, and how it is looked at.

    Attributes:
        model: the network, on the CPU.
        objective: see `engine.Objective`.
        stream: this worker's batches.
        draw: (model, path) -> None writes a sample grid; None draws none.
        validate: model -> losses on held-out clips, "val_loss" among them; None has none.
        export: (model, folder, facts) -> None writes the model folder.
    """

    model: nn.Module
    objective: Objective
    stream: Stream
    draw: Callable[[nn.Module, Path], None] | None
    validate: Callable[[nn.Module], dict[str, float]] | None
    export: Callable[[nn.Module, Path, dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopConfig:
    """Rhythm and places of the loop."""

    out: Path
    optimizer: OptimizerConfig
    zero: bool
    steps: int
    resolved: dict[str, Any]
    seed: int
    checkpoint_every: int
    keep: int
    sample_every: int
    validate_every: int
    log_every: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How the loop ended on every worker alike.

    Attributes:
        state: "finished", "stopped" (asked to), or "failed" (would fail again if repeated).
        step: optimiser steps done.
        message: what failed, one line.
    """

    state: str
    step: int
    message: str = ""


class Loop:
    """One worker's training. Every worker runs the same calls in the same order."""

    def __init__(self, config: LoopConfig, parts: Parts, group: Group, publish: Callable[[Row], None]) -> None:
        """Build the engine and go to the newest sound checkpoint of the run folder, if there is one.

        Args:
            config: where and how often.
            parts: this worker's model, loss and data.
            group: the workers.
            publish: called on rank 0 with every logged row.
        """
        self.config, self.parts, self.group, self.publish = config, parts, group, publish
        self.model = parts.model.to(group.device).train()
        self.engine = start_engine(
            LossModule(self.model, parts.objective, group.device),
            config.optimizer,
            config.optimizer.batch_size // (group.world * config.optimizer.accumulate),
            zero=config.zero,
        )
        self.generator = torch.Generator().manual_seed(config.seed * 1000 + group.rank)
        self.ema = Ema(self.model, config.optimizer.ema) if config.optimizer.ema and group.rank == 0 else None
        self.step, self.cursor = 0, Cursor()
        found = group.first(newest_sound(config.out).folder if group.rank == 0 else None)
        if found is not None:
            self.step, self.cursor = load_snapshot(
                found,
                engine=self.engine,
                ema=self.ema,
                generator=self.generator,
                seed=config.seed,
                group=group,
            )
        self.writer = CheckpointWriter(config.out, config.keep, group)
        self.log = MetricsLog(config.out, self.step) if group.rank == 0 else None
        self.pace = Pace()

    def run(self) -> Outcome:
        """Train until the last step, a stop request, or a failure that repeating cannot mend.

        Returns:
            The same outcome on every worker; the last checkpoint is whole, or the reason why not is the message.
        """
        config, failure = self.config, ""
        batches = cast(Generator[tuple[Any, Cursor], None, None], self.parts.stream.batches(self.cursor))
        with closing(batches):
            while self.step < config.steps:
                terms, stop, failure = self.train_step(batches)
                scores: dict[str, float] = {}
                if not failure and config.validate_every and self.due(config.validate_every):
                    scores, failure = self.validate()
                if failure:
                    break
                if self.due(config.log_every) or stop or scores:
                    self.write_row(terms, scores)
                if self.due(config.checkpoint_every) or stop:
                    failure = self.save()
                    if failure:
                        break
                if config.sample_every and self.due(config.sample_every):
                    self.draw()
                if stop:
                    break
            failure = self.writer.settle() or failure or self.group.first(self.log_failure())
        if failure:
            return Outcome(state="failed", step=self.step, message=failure)
        if self.step < config.steps:
            return Outcome(state="stopped", step=self.step)
        if self.group.rank == 0:
            with self.averaged():
                self.parts.export(self.model, config.out / "model", {"step": self.step, "resolved": config.resolved})
        self.group.barrier()
        return Outcome(state="finished", step=self.step)

    def train_step(self, batches: Iterator[tuple[Any, Cursor]]) -> tuple[dict[str, Tensor], bool, str]:
        """Do one optimiser step on one batch, or on the sum of several.

        Returns:
            The mean terms, whether a stop was asked for, and what failed on any worker, or "".
        """
        parts, stop = self.config.optimizer.accumulate, False
        means: dict[str, Tensor] = {}
        for part in range(parts):
            terms, asked, failure = self.backward(batches)
            stop = stop or asked
            failure = failure or self.step_engine(last=part == parts - 1)
            if failure:
                break
            # Kept, the graph's thousands of nodes lie scattered in the heap when the next activations come: a third
            # more memory at the peak of `smoke` on a CPU.
            for name, term in terms.items():
                means[name] = means.get(name, 0.0) + term.detach() / parts
            del terms
        return means, stop, failure

    def backward(self, batches: Iterator[tuple[Any, Cursor]]) -> tuple[dict[str, Tensor], bool, str]:
        """Take the next batch, compute its loss and add to the gradient.

        The workers hear of each other only then, just before they exchange gradients: one wait per part of a step, not
        two. One that got no batch goes through the same calls with a loss of zero.

        Returns:
            The terms, whether a stop was asked for, and what failed on any worker, or "".
        """
        began = time.perf_counter()
        problem = self.writer.failure or self.log_failure()
        try:
            batch, self.cursor = next(batches)
        except UserError as error:
            problem = str(error)
        self.pace.waited += time.perf_counter() - began
        if problem:
            terms = {"loss": nothing_of(self.model)}
        else:
            terms = self.engine(batch.to(self.group.device), self.generator)
        self.engine.backward(terms["loss"])
        finite = math.isfinite(float(terms["loss"].detach()))
        asked = self.group.rank == 0 and (self.config.out / STOP_FILE).exists()
        stops, problems, infinite = self.group.total([asked, bool(problem), not finite])
        if problems:
            problem = next(text for text in self.group.gather(problem) if text)
        elif infinite:
            problem = self.not_finite("loss")
        return terms, bool(stops), problem

    def step_engine(self, *, last: bool) -> str:
        """Do the optimiser step if the gradient has its last part; returns what failed, or ""."""
        if not last:
            self.engine.step()
            return ""
        self.rate = self.config.optimizer.rate(self.step, self.config.steps)
        set_learning_rate(self.engine, self.rate)
        self.norm = optimizer_step(self.engine, self.config.optimizer.clip)
        if not math.isfinite(self.norm):
            return self.not_finite("gradient")
        self.step += 1
        self.pace.steps += 1
        if self.ema is not None:
            self.ema.update(self.model)
        return ""

    def write_row(self, terms: dict[str, Tensor], scores: dict[str, float]) -> None:
        """Average the terms over the workers and log them, with rank 0's scores on held-out clips."""
        totals = self.group.total([float(term.detach()) for term in terms.values()])
        means = {name: total / self.group.world for name, total in zip(terms, totals, strict=True)}
        pace = self.pace.take(self.config.optimizer.batch_size)
        if self.log is not None:
            row = {"step": self.step, **means, **scores, "lr": self.rate, "grad_norm": self.norm, **pace}
            row["skipped_clips"] = len(self.parts.stream.skipped)
            self.log.append(row)
            self.publish(row)

    def log_failure(self) -> str:
        """Return why rank 0 cannot write its rows, or ""."""
        return "" if self.log is None else self.log.failure

    def save(self) -> str:
        """Start a checkpoint, and write which clips had to be skipped.

        Returns:
            Why there is no room for one, or why the one before failed, or "".
        """
        if self.parts.stream.skipped:
            write_json(self.config.out / f"skipped-rank-{self.group.rank:02d}.json", dict(self.parts.stream.skipped))
        shortage = self.group.first(disk_shortage(self.config.out, self.model) if self.group.rank == 0 else "")
        return shortage or save_snapshot(
            self.writer,
            self.step,
            engine=self.engine,
            ema=self.ema,
            generator=self.generator,
            cursor=self.cursor,
            resolved=self.config.resolved,
            group=self.group,
        )

    def validate(self) -> tuple[dict[str, float], str]:
        """Let rank 0 compute the losses on held-out clips with the averaged weights; returns them and what failed."""
        scores: dict[str, float] = {}
        problem = ""
        if self.group.rank == 0 and self.parts.validate is not None:
            try:
                with self.averaged():
                    scores = self.parts.validate(self.model)
            except UserError as error:
                problem = str(error)
        return self.group.first((scores, problem))

    def draw(self) -> None:
        """Let rank 0 write a sample grid with the averaged weights, leaving every random state as it was."""
        if self.group.rank == 0 and self.parts.draw is not None:
            with self.averaged():
                self.parts.draw(self.model, self.config.out / "samples" / f"step-{self.step:06d}.png")

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Hold the model in evaluation mode with the averaged weights."""
        devices = [self.group.device] if self.group.device.type == "cuda" else []
        with (
            torch.random.fork_rng(devices),
            torch.no_grad(),
            self.ema.applied(self.model) if self.ema else nullcontext(),
        ):
            self.model.eval()
            yield
        self.model.train()

    def due(self, every: int) -> bool:
        """Return whether something that happens every so many steps, and at the last one, happens now."""
        return self.step % every == 0 or self.step == self.config.steps

    def not_finite(self, what: str) -> str:
        """Return the sentence about a number that is not one; every worker must call."""
        self.writer.settle()
        kept = list_checkpoints(self.config.out)
        rest = f"{kept[-1].name} is kept" if kept else "no checkpoint was written yet"
        return (
            f"the {what} became NaN or infinite at step {self.step + 1}; {rest}: "
            "start again with a lower --learning-rate, and look at the clips of that step"
        )


def nothing_of(model: nn.Module) -> Tensor:
    """Return zero, with a gradient of zero for every trained weight."""
    return 0.0 * torch.stack([weight.sum() for weight in model.parameters() if weight.requires_grad]).sum()


class Pace:
    """How fast steps go, and which share of the time was spent waiting for data, since the last row."""

    def __init__(self) -> None:
        self.since, self.waited, self.steps = time.perf_counter(), 0.0, 0

    def take(self, samples_per_step: int) -> dict[str, float]:
        """Return the numbers since the last call and begin anew."""
        now = time.perf_counter()
        seconds, steps, waited = now - self.since, self.steps, self.waited
        self.since, self.waited, self.steps = now, 0.0, 0
        return {"samples_per_second": samples_per_step * steps / seconds, "data_wait_share": waited / seconds}


def disk_shortage(out: Path, model: nn.Module) -> str:
    """Return a sentence if a checkpoint would not fit on the disk, or ""."""
    older = list_checkpoints(out)
    # Without a checkpoint to go by: weights thrice, two moments and a master copy, 4 bytes each.
    needed = (
        sum(file.stat().st_size for file in older[-1].rglob("*"))
        if older
        else 24 * sum(weight.numel() for weight in model.parameters())
    )
    free = shutil.disk_usage(out).free
    if needed <= free:
        return ""
    return (
        f"no room for a checkpoint in {out}: it takes about {needed / 1e6:.0f} MB and {free / 1e6:.0f} MB are free; "
        "make room, then run again with --resume"
    )
