"""What runs in each Ray Train worker: place in the group, thread count, the loop, and how it ended."""

from __future__ import annotations

import fcntl
import json
import os
import random
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from animate4d.core.errors import TrainingError, UserError
from animate4d.io.atomic import write_json
from animate4d.training.config import TrainConfig

if TYPE_CHECKING:
    from animate4d.training.group import Group

OUTCOME = "outcome.json"
LOCK = ".writer.lock"
LOCK_SECONDS = 60
"""An earlier process of this run that was killed together with its driver is gone well before."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What the driver hands every worker.

    Attributes:
        config: with absolute paths.
        resolved: everything that decides the result, JSON values.
        make_parts: (config, rank, world) -> Parts.
    """

    config: TrainConfig
    resolved: dict[str, Any]
    make_parts: Callable[[TrainConfig, int, int], Any]


def train_worker(settings: dict[str, Any]) -> None:
    """Run one worker that Ray Train started.

    Args:
        settings: an `Assignment` under "assignment"; Ray Train wants a dictionary.
    """
    import ray.train
    import ray.train.torch

    from animate4d.training.group import Group

    assignment: Assignment = settings["assignment"]
    context = ray.train.get_context()
    device = ray.train.torch.get_device()
    group = Group(rank=context.get_world_rank(), world=context.get_world_size(), device=device)
    work(assignment, group, make_gauges(assignment.config))


def work(assignment: Assignment, group: Group, publish: Callable[[dict[str, Any]], None]) -> None:
    """Run one worker to its end and let rank 0 note the outcome.

    Failures that a repetition would meet again end here and are noted; an exception leaves only for what starting the
    workers again may mend.

    Args:
        assignment: the same for every worker.
        group: the workers, joined already.
        publish: called on rank 0 with every logged row.
    """
    import numpy as np
    import torch

    from animate4d.training.loop import Loop, LoopConfig, Outcome

    config = assignment.config
    torch.set_num_threads(config.threads)
    if group.device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    torch.manual_seed(config.seed)
    np.random.seed(config.seed % 2**32)
    random.seed(config.seed)
    loop_config = LoopConfig(
        out=config.out,
        optimizer=config.recipe().optimizer,
        zero=group.world > 1 and (group.device.type != "cpu" if config.zero is None else config.zero),
        steps=config.total_steps,
        resolved=assignment.resolved,
        seed=config.seed,
        checkpoint_every=config.checkpoint_every,
        keep=config.keep,
        sample_every=config.sample_every,
        validate_every=config.validate_every,
        log_every=config.log_every,
    )
    with only_writer(config.out, group.rank):
        trace = ""
        try:
            parts = assignment.make_parts(config, group.rank, group.world)
            outcome = Loop(loop_config, parts, group, publish).run()
        except Exception as error:
            # Alone, a worker fails the same way again; among others, the rest wait for this one until Ray ends them.
            if group.world > 1:
                raise
            known = isinstance(error, UserError)
            trace = "" if known else traceback.format_exc()
            outcome = Outcome(
                state="failed", step=-1, message=str(error) if known else f"{type(error).__name__}: {error}"
            )
        if group.rank == 0:
            try:
                write_json(config.out / OUTCOME, asdict(outcome) | {"traceback": trace})
            except OSError as error:  # no room even for this: Ray brings the message to the driver
                raise TrainingError(outcome.message or f"{config.out} cannot be written: {error.strerror}") from error


def read_outcome(out: Path) -> dict[str, Any] | None:
    """Return what rank 0 noted, or None."""
    path = out / OUTCOME
    return json.loads(path.read_text()) if path.exists() else None


def make_gauges(config: TrainConfig) -> Callable[[dict[str, Any]], None]:
    """Return a function that publishes a row as Ray metrics (on a Grafana board: `ray_animate4d_train_loss`, ...)."""
    from ray.util.metrics import Gauge

    tags = {"run": config.run_name or config.out.name}
    gauges = {
        key: Gauge(name, description=text, tag_keys=("run",))
        for key, name, text in [
            ("loss", "animate4d_train_loss", "Weighted sum of the training loss."),
            ("samples_per_second", "animate4d_train_samples_per_second", "Clips trained per second over all workers."),
            ("data_wait_share", "animate4d_train_data_wait_share", "Share of the time rank 0 waited for data."),
        ]
    }

    def publish(row: dict[str, Any]) -> None:
        for key, gauge in gauges.items():
            gauge.set(row[key], tags)

    return publish


@contextmanager
def only_writer(out: Path, rank: int) -> Iterator[None]:
    """Hold the run folder's lock on rank 0, so that two processes never write one run.

    Raises:
        TrainingError: another process holds it for a minute.
    """
    if rank != 0:
        yield
        return
    with open(out / LOCK, "w") as stream:
        until = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > until:
                    raise TrainingError(
                        f"another process trains in {out}: wait for it, or give another --out"
                    ) from error
                time.sleep(0.5)
        yield
