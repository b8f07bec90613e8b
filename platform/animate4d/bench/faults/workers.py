"""Training workers forked from one warm process, with gloo between them: what Ray Train starts, without its seconds."""

from __future__ import annotations

import io
import multiprocessing
import os
import sys
import uuid
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from animate4d.bench.faults.tiny import TinyParts
from animate4d.training.config import TrainConfig
from animate4d.training.launch import open_run, resolve
from animate4d.training.worker import Assignment, read_outcome

PRELOAD = ["torch._dynamo", "deepspeed", "animate4d.training.loop", "animate4d.bench.faults.tiny"]
"""Imported once; importing is nearly all of a tiny training's time."""

PATIENCE_S = 300.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a training ended.

    Attributes:
        codes: exit code of each worker; negative for the signal that killed it.
        outcome: what rank 0 noted, or None.
        said: what the driver's part wrote to stderr.
    """

    codes: tuple[int | None, ...]
    outcome: dict[str, Any] | None
    said: str


def train_forked(config: TrainConfig, parts: TinyParts) -> Ended:
    """Open the run as the driver does, train with forked workers, and end them all when one has died, as Ray does.

    Raises:
        ConfigError, TrainingError: the driver refuses the run folder.
    """
    said = io.StringIO()
    with redirect_stderr(said):
        resolved = resolve(config)
        open_run(config, resolved)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    assignment = Assignment(config=config, resolved=resolved, make_parts=parts)
    meeting = config.out.parent / f"gloo-{uuid.uuid4().hex[:12]}"
    workers = [
        context.Process(target=run_worker, args=(assignment, rank, config.workers, meeting), daemon=True)
        for rank in range(config.workers)
    ]
    for worker in workers:
        worker.start()
    running = list(workers)
    while running and wait([worker.sentinel for worker in running], timeout=PATIENCE_S):
        running = [worker for worker in running if worker.is_alive()]
        if any(worker.exitcode for worker in workers):
            break
    for worker in running:
        worker.kill()
    for worker in workers:
        worker.join()
    codes = tuple(worker.exitcode for worker in workers)
    return Ended(codes=codes, outcome=read_outcome(config.out), said=said.getvalue())


def run_worker(assignment: Assignment, rank: int, world: int, meeting: Path) -> None:
    """Be one worker; the process does nothing else."""
    import torch
    import torch.distributed as dist

    from animate4d.training.group import Group
    from animate4d.training.worker import work

    os.environ |= {"LOCAL_RANK": "0", "DS_ACCELERATOR": "cpu"}
    quiet(assignment.config.out / f"worker-{rank}.log")
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    work(assignment, Group(rank=rank, world=world, device=torch.device("cpu")), ignore)


def quiet(log: Path) -> None:
    """Send everything this process says to a file."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sys.stdout.flush()
    for stream in (1, 2):
        os.dup2(descriptor, stream)


def ignore(row: Mapping[str, Any]) -> None:
    """Publish nothing."""
