"""Hand rows to a pool of workers and take their outcomes as they come.

One row per worker at a time, in the order given. What is tried again depends on whose fault it was: bad input never; a
worker that died, or whose answer was lost, is replaced on whatever node has room, and its row starts over a few times
(one that was done says so at once); a row that ran out of memory gets a fresh worker and one smaller request. A row
over its time limit ends with its worker, because a blocked native call can only be stopped by ending the process.
Nothing but requests and outcomes travels through Ray: the workers write results to disk.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from animate4d.batch.manifest import ManifestRow
from animate4d.batch.worker import CONCURRENT_CALLS, RowWorker
from animate4d.compute.session import require_resources
from animate4d.core.errors import ClusterError, ModelError

POLL_SECONDS = 1.0
FIRST_STARTS, LATER_STARTS = 3, 50
"""Workers that may die in a row while starting before the pool gives up: few where none has ever started, for the cause
is then not the objects; many later, when a node may be dying under them without Ray's knowing yet."""
PAUSE_SECONDS = 0.2
"""Rest after each of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolPlan:
    """How the pool works.

    Attributes:
        workers: objects at once.
        cpus, gpus: held by each worker.
        model: folder of the model, None when no row needs one.
        version: of that model, for the receipts.
        retries: how often a row starts over after its worker died.
        row_seconds: time limit of one row.
    """

    workers: int
    cpus: float
    gpus: float
    model: Path | None
    version: str
    retries: int
    row_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """A row was given to a worker, for the `attempt`-th time (from 1)."""

    row: ManifestRow
    attempt: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """A row ended; `outcome` is what `RowWorker.animate` returns, `row.request` what was asked of it last."""

    row: ManifestRow
    attempt: int
    outcome: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shrunk:
    """A row ran out of memory; `row` asks for less and starts over."""

    row: ManifestRow


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """Nothing happened for a moment; `running` maps row ids to seconds at work."""

    running: dict[str, float]


@dataclass(kw_only=True, slots=True)
class _Slot:
    actor: Any
    call: Any
    row: ManifestRow | None = None
    attempt: int = 0
    since: float = field(default_factory=time.monotonic)


def pool_size(wanted: int | None, rows: int, gpu_share: float = 1.0) -> tuple[int, float, float]:
    """Return (workers, CPUs each, GPUs each) for the cluster in use: `gpu_share` of a GPU each where there are GPUs.

    Raises:
        ClusterError: no node can hold a single worker.
    """
    resources = ray.cluster_resources()
    gpus = gpu_share if resources.get("GPU", 0) >= 1 else 0.0
    require_resources(cpus=1, gpus=gpus)
    slots = int(resources["GPU"]) * int(1 / gpus) if gpus else int(resources["CPU"])
    return max(1, min(wanted or slots, slots, rows)), 1.0, gpus


def local_places(gpu_share: float = 1.0) -> tuple[int, bool]:
    """Return how many objects this machine alone would work on at once, and whether on GPUs; Ray is not started."""
    import torch

    gpus = torch.cuda.device_count()
    return (gpus * int(1 / gpu_share), True) if gpus else (os.cpu_count() or 1, False)


class Pool:
    """Workers of one batch; iterate `run`, and `close` in any case."""

    def __init__(self, plan: PoolPlan, out: Path, worker: type = RowWorker) -> None:
        """Remember what to do; `worker` is the class of the actors, with the methods of `RowWorker`."""
        self._plan = plan
        self._worker = worker
        self._out = out
        self._slots: list[_Slot] = []
        self._start_failures = 0
        self._ever_started = False

    def warm_up(self) -> None:
        """Start all workers and wait until each one is ready; without it, rows start as soon as the first is."""
        self._slots = [self._start() for _ in range(self._plan.workers)]
        ray.wait([slot.call for slot in self._slots], num_returns=len(self._slots))

    def run(self, rows: Sequence[ManifestRow]) -> Iterator[Started | Ended | Shrunk | Waiting]:
        """Work through rows; every row gives exactly one `Ended`.

        Raises:
            ModelError: a worker cannot load the model.
            ClusterError: workers keep dying before they have done anything.
        """
        queue = deque((row, 1) for row in rows)
        self._slots = self._slots or [self._start() for _ in range(self._plan.workers)]
        idle: list[_Slot] = []
        while queue or any(slot.row for slot in self._slots):
            while queue and idle:
                slot = idle.pop()
                slot.row, slot.attempt = queue.popleft()
                slot.since = time.monotonic()
                slot.call = slot.actor.animate.remote(slot.row.request, str(self._out / slot.row.id))
                yield Started(row=slot.row, attempt=slot.attempt)
            busy = {slot.call: slot for slot in self._slots if slot.call is not None}
            ready, _ = ray.wait(list(busy), num_returns=1, timeout=POLL_SECONDS)
            for call in ready:
                slot = busy[call]
                row, attempt = slot.row, slot.attempt
                outcome = self._outcome(slot)
                if outcome is None:
                    self._replace(slot)
                    if row is not None and attempt <= self._plan.retries:
                        queue.appendleft((row, attempt + 1))
                        continue
                    outcome = _died(attempt)
                elif row is None:
                    self._check_start(outcome)
                    idle.append(slot)
                elif outcome.get("kind") == "resource" and row.request and (smaller := row.request.smaller()):
                    self._replace(slot)
                    row = replace(row, request=smaller)
                    queue.appendleft((row, attempt + 1))
                    yield Shrunk(row=row)
                    continue
                else:
                    slot.row = slot.call = None
                    idle.append(slot)
                if row is not None:
                    self._start_failures = 0
                    yield Ended(row=row, attempt=attempt, outcome=outcome)
            yield from self._overdue()
            if not ready:
                now = time.monotonic()
                yield Waiting(running={slot.row.id: now - slot.since for slot in self._slots if slot.row})

    def stage(self, row_id: str) -> str:
        """Return the stage of a row at work; empty when its worker is too busy to say."""
        for slot in self._slots:
            if slot.row is not None and slot.row.id == row_id:
                try:
                    return ray.get(slot.actor.stage.remote(), timeout=0.5)
                except (GetTimeoutError, RayError):
                    return ""
        return ""

    def close(self) -> None:
        """End every worker at once, whatever it is doing."""
        for slot in self._slots:
            ray.kill(slot.actor)
        self._slots = []

    def _start(self) -> _Slot:
        plan = self._plan
        actor_class: Any = ray.remote(self._worker)
        options = {"num_cpus": plan.cpus, "num_gpus": plan.gpus, "max_concurrency": CONCURRENT_CALLS}
        actor = actor_class.options(**options).remote()
        model = None if plan.model is None else str(plan.model)
        return _Slot(actor=actor, call=actor.prepare.remote(model, plan.version, max(1, int(plan.cpus))))

    def _outcome(self, slot: _Slot) -> dict[str, Any] | None:
        """Return what a finished call says, or None when its process died."""
        try:
            return ray.get(slot.call)
        except RayError:
            if slot.row is None:
                self._start_failures += 1
                if self._start_failures >= (LATER_STARTS if self._ever_started else FIRST_STARTS):
                    raise ClusterError(
                        f"{self._start_failures} workers in a row died while starting: see the worker logs of Ray; "
                        "often the machine has too little memory for --workers"
                    ) from None
                time.sleep(PAUSE_SECONDS)
            return None

    def _replace(self, slot: _Slot) -> None:
        ray.kill(slot.actor)
        fresh = self._start()
        slot.actor, slot.call, slot.row, slot.attempt = fresh.actor, fresh.call, None, 0

    def _check_start(self, outcome: dict[str, Any]) -> None:
        if outcome["state"] != "done":
            raise ModelError(outcome["message"])
        self._start_failures, self._ever_started = 0, True

    def _overdue(self) -> Iterator[Ended]:
        limit = self._plan.row_seconds
        for slot in self._slots:
            if slot.row is not None and time.monotonic() - slot.since > limit:
                row, attempt = slot.row, slot.attempt
                self._replace(slot)
                message = (
                    f"took longer than {limit / 60:g} minutes and was stopped: raise --row-minutes or use fit=draft"
                )
                outcome = {"state": "failed", "kind": "infrastructure", "message": message, "trace": ""}
                yield Ended(row=row, attempt=attempt, outcome=outcome)


def _died(attempts: int) -> dict[str, Any]:
    times = "once" if attempts == 1 else f"{attempts} times"
    message = f"its worker process died {times} (killed, or out of memory): try fewer --workers, or fit=draft"
    return {"state": "failed", "kind": "infrastructure", "message": message, "trace": ""}
