"""Hand rows to Ray actors and take their outcomes as they come.

Without GPUs, a worker per CPU does a whole row at a time. With GPUs, a worker on each keeps the model warm and only
imagines videos, while workers on the CPUs read objects, fit motions and write results, so that a GPU serves as many
fits as there are cores; they may hold a share of a GPU each, to fit on. Rows start in the order given, so many at once.

What is tried again depends on whose fault it was. Bad input: never. A worker that died is replaced on whatever node has
room, and its row does the same step again, a few times; it starts over where its work went down with a node, and one
that was done says so at once. A worker whose answer was lost is asked again. A row that ran out of memory starts over
with one smaller request. A step over its time limit ends with its worker, because a blocked native call can only be
stopped by ending the process. The workers write results to disk; between the steps of a row its work stays in Ray's
object store, and the driver sees none of it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, ObjectLostError, RayError

from animate4d.batch.manifest import ManifestRow
from animate4d.batch.places import Places
from animate4d.batch.worker import ANIMATE, BEGIN, CONCURRENT_CALLS, FIT, IMAGINE, RowWorker
from animate4d.core.errors import ClusterError, ModelError

DEAD, LOST = "dead", "lost"
POLL_SECONDS = 1.0
FIRST_STARTS, LATER_STARTS = 3, 50
"""Workers that may die in a row while starting before the pool gives up: few where none has ever started, for the cause
is then not the objects; many later, when a node may be dying under them without Ray's knowing yet."""
ASKED = 16
"""Workers that are asked for their stage; more rows fit on no terminal."""
PAUSE_SECONDS = 0.2
"""Rest after each of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolPlan:
    """How the pool works.

    Attributes:
        places: how many workers, and what each holds.
        model: folder of the model, None when no row needs one.
        version: of that model, for the receipts.
        retries: how often a row is tried again after its process died.
        row_seconds: time limit of one row, and of each of its steps where they are split.
    """

    places: Places
    model: Path | None
    version: str
    retries: int
    row_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """A row begins, or does a step again after its worker died: `step` for the `attempt`-th time (from 1)."""

    row: ManifestRow
    attempt: int
    step: str = ANIMATE


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """A row ended; `outcome` is what its last step returned, `row.request` what was asked of it last."""

    row: ManifestRow
    attempt: int
    outcome: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shrunk:
    """A row ran out of memory; `row` asks for less and starts over."""

    row: ManifestRow


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """Nothing happened for a moment; `running` maps the ids of rows at work to the seconds their step has taken."""

    running: dict[str, float]


Event = Started | Ended | Shrunk | Waiting


@dataclass(kw_only=True, slots=True, eq=False)
class _Job:
    """A row on its way: `given` is what its step begins with, `work` where it leaves it, `since` when it began.

    `told` says that its `Started` has been given for this attempt.
    """

    row: ManifestRow
    step: str
    attempt: int = 1
    given: Any = None
    told: bool = False
    work: Any = None
    since: float = field(default_factory=time.monotonic)


@dataclass(kw_only=True, slots=True, eq=False)
class _Slot:
    """A worker and its call; without a job it is starting, without a call idle.

    Attributes:
        steps: it can do.
        lost: whether its last answer was.
        stage: that it told last, and
        asked: the call that will tell again.
    """

    steps: tuple[str, ...]
    actor: Any = None
    call: Any = None
    job: _Job | None = None
    lost: bool = False
    stage: str = ""
    asked: Any = None


class Pool:
    """Workers of one batch; iterate `run`, and `close` in any case."""

    def __init__(self, plan: PoolPlan, out: Path, worker: type = RowWorker) -> None:
        """Remember what to do; `worker` is the class of the actors, with the methods of `RowWorker`."""
        self._plan = plan
        self._worker = worker
        self._out = out
        self._slots: list[_Slot] = []
        self._queue: deque[_Job] = deque()
        self._wanting: deque[_Job] = deque()
        self._start_failures = 0
        self._ever_started = False

    def warm_up(self) -> None:
        """Start all workers and wait until each one is ready; without it, rows start as soon as the first is."""
        self._start_all()
        ray.wait([slot.call for slot in self._slots], num_returns=len(self._slots))

    def run(self, rows: Sequence[ManifestRow]) -> Iterator[Event]:
        """Work through rows; every row gives exactly one `Ended`.

        Raises:
            ModelError: a worker cannot load the model.
            ClusterError: workers keep dying before they have done anything.
        """
        first = BEGIN if self._plan.places.split else ANIMATE
        self._queue = deque(_Job(row=row, step=first) for row in rows)
        self._start_all()
        while self._queue or self._at_work():
            yield from self._hand_out()
            calls = {slot.call: slot for slot in self._slots if slot.call is not None}
            ready, _ = ray.wait(list(calls), num_returns=1, timeout=POLL_SECONDS)
            for call in ready:
                yield from self._returned(calls[call])
            yield from self._overdue()
            if not ready:
                now = time.monotonic()
                yield Waiting(running={slot.job.row.id: now - slot.job.since for slot in self._slots if slot.job})

    def stages(self) -> dict[str, str]:
        """Return the stages of rows at work, as their workers told when they were asked last; nobody is waited for."""
        busy = [slot for slot in self._slots if slot.job is not None][:ASKED]
        for slot in busy:
            if slot.asked is not None and ray.wait([slot.asked], timeout=0)[0]:
                with suppress(RayError):
                    slot.stage = ray.get(slot.asked)
                slot.asked = None
            slot.asked = slot.asked or slot.actor.stage.remote()
        return {slot.job.row.id: slot.stage for slot in busy if slot.job is not None}

    def close(self) -> None:
        """End every worker at once, whatever it is doing."""
        for slot in self._slots:
            ray.kill(slot.actor)
        self._slots = []

    def _at_work(self) -> list[_Job]:
        return [slot.job for slot in self._slots if slot.job is not None] + list(self._wanting)

    def _hand_out(self) -> Iterator[Started]:
        """Let rows in while there is room, and give idle workers what they can do, in the order it came."""
        idle = [slot for slot in self._slots if slot.call is None]
        room = self._plan.places.at_once - len(self._at_work())
        while self._queue and room > 0:
            self._wanting.append(self._queue.popleft())
            room -= 1
        for job in list(self._wanting):
            slot = next((slot for slot in idle if job.step in slot.steps), None)
            if slot is not None:
                idle.remove(slot)
                self._wanting.remove(job)
                self._give(job, slot)
                if not job.told:
                    yield Started(row=job.row, attempt=job.attempt, step=job.step)

    def _give(self, job: _Job, slot: _Slot) -> None:
        call = getattr(slot.actor, job.step).options(num_returns=2)
        given = () if job.step in (BEGIN, ANIMATE) else (job.given,)
        slot.call, job.work = call.remote(job.row.request, str(self._out / job.row.id), *given)
        slot.job, job.since = job, time.monotonic()
        slot.stage, slot.asked = "", None

    def _returned(self, slot: _Slot) -> Iterator[Ended | Shrunk]:
        """Take an outcome, and send its row on, back or home."""
        job, outcome = slot.job, self._outcome(slot)
        if outcome["state"] == DEAD or outcome.get("kind") == "resource":
            self._start(slot)
        else:
            slot.lost, slot.call, slot.job = outcome["state"] == LOST, None, None
        if job is None:
            if outcome["state"] != DEAD:
                self._check_start(outcome)
            return
        if outcome["state"] in (DEAD, LOST) and job.attempt <= self._plan.retries:
            self._wanting.append(self._again(job, afresh=outcome["work_lost"]))
            return
        self._start_failures = 0
        if outcome["state"] in (DEAD, LOST):
            yield Ended(row=job.row, attempt=job.attempt, outcome=_died(job.attempt))
        elif outcome["state"] in (IMAGINE, FIT):
            step = outcome["state"]
            self._wanting.append(_Job(row=job.row, step=step, attempt=job.attempt, given=job.work, told=True))
        elif outcome.get("kind") == "resource" and job.row.request and (smaller := job.row.request.smaller()):
            job.row = replace(job.row, request=smaller)
            self._wanting.append(self._again(job, afresh=True))
            yield Shrunk(row=job.row)
        else:
            yield Ended(row=job.row, attempt=job.attempt, outcome=outcome)

    def _again(self, job: _Job, *, afresh: bool) -> _Job:
        """Return a row to try again: its step, or from the start."""
        first = BEGIN if self._plan.places.split else ANIMATE
        step, given = (first, None) if afresh else (job.step, job.given)
        return _Job(row=job.row, step=step, attempt=job.attempt + 1, given=given)

    def _start_all(self) -> None:
        if self._slots:
            return
        places = self._plan.places
        for number in range(places.workers + places.helpers):
            steps = (IMAGINE,) if places.split and number < places.workers else (BEGIN, FIT)
            self._slots.append(_Slot(steps=steps if places.split else (ANIMATE,)))
            self._start(self._slots[-1])

    def _start(self, slot: _Slot) -> None:
        """Start a worker in a place; one that is there is ended."""
        plan, places = self._plan, self._plan.places
        if slot.actor is not None:
            ray.kill(slot.actor)
        helper = slot.steps == (BEGIN, FIT)
        cpus, gpus = (1.0, places.helper_gpus) if helper else (places.cpus, places.gpus)
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_concurrency": CONCURRENT_CALLS}
        actor_class: Any = ray.remote(self._worker)
        slot.actor, slot.job, slot.lost = actor_class.options(**options).remote(), None, False
        model = None if plan.model is None or helper else str(plan.model)
        slot.call = slot.actor.prepare.remote(model, plan.version, max(1, int(cpus)), gpus > 0)

    def _outcome(self, slot: _Slot) -> dict[str, Any]:
        """Return what a finished call says, or that its worker is dead, or its answer lost."""
        try:
            return ray.get(slot.call)
        except RayError as error:
            if isinstance(error, ActorUnavailableError) and slot.job is not None and not slot.lost:
                return {"state": LOST, "work_lost": False}  # the worker lives, unless that happens again at once
            if slot.job is None:
                self._start_failures += 1
                if self._start_failures >= (LATER_STARTS if self._ever_started else FIRST_STARTS):
                    raise ClusterError(
                        f"{self._start_failures} workers in a row died while starting: see the worker logs of Ray; "
                        "often the machine has too little memory for --workers"
                    ) from None
                time.sleep(PAUSE_SECONDS)
            return {"state": DEAD, "work_lost": isinstance(error, ObjectLostError)}

    def _check_start(self, outcome: dict[str, Any]) -> None:
        if outcome["state"] != "done":
            raise ModelError(outcome["message"])
        self._start_failures, self._ever_started = 0, True

    def _overdue(self) -> Iterator[Ended]:
        limit = self._plan.row_seconds
        for slot in self._slots:
            job = slot.job
            if job is not None and time.monotonic() - job.since > limit:
                self._start(slot)
                message = (
                    f"took longer than {limit / 60:g} minutes and was stopped: raise --row-minutes or use fit=draft"
                )
                outcome = {"state": "failed", "kind": "infrastructure", "message": message, "trace": ""}
                yield Ended(row=job.row, attempt=job.attempt, outcome=outcome)


def _died(attempts: int) -> dict[str, Any]:
    times = "once" if attempts == 1 else f"{attempts} times"
    message = f"its worker process died {times} (killed, or out of memory): try fewer --workers, or fit=draft"
    return {"state": "failed", "kind": "infrastructure", "message": message, "trace": ""}
