"""Fill a folder beside the shards, sample by sample, over a pool of Ray actors; only what is missing is made.

An actor builds its tracker or codec once and reads the shards itself, so nothing but sample numbers and counts travels.
Every file is whole or absent and says what it was made from: a run that was killed goes on where it stopped, a changed
sample is made again, and two runs at a time do no harm.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from animate4d.compute.session import require_resources
from animate4d.core.errors import ClusterError, ConfigError, ShardError, StorageError, UserError
from animate4d.data.decode import view_group
from animate4d.data.schema import decode_meta
from animate4d.data.store import ShardStore

POLL_SECONDS = 1.0
ATTEMPTS = 3
"""How often a sample is tried whose worker process dies under it."""

DEATHS = 6
"""Workers that may die in a row before the pool gives up: more than one bad sample can kill."""


class Maker(Protocol):
    """Makes one kind of file."""

    @property
    def folder(self) -> Path:
        """Where it keeps them."""
        ...

    def keep(self, members: Mapping[str, bytes], views: Sequence[int]) -> bool:
        """See that the file of these views is kept; returns whether it had to be made, raises ShardError."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class FillPlan:
    """What the workers do.

    Attributes:
        shards: folder of the shards.
        keep: list of the samples to use, or None.
        views: views per file.
        stored_views, stored_frames: of every sample.
        make: builds the maker; picklable.
        gpu_share: share of a GPU each worker asks for; 0 for none.
    """

    shards: Path
    keep: Path | None
    views: int
    stored_views: int
    stored_frames: int
    make: Callable[[], Maker]
    gpu_share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Filled:
    """What became of one sample.

    Attributes:
        key: of the sample.
        folder: where its files are.
        made: files made.
        found: files that were there.
        problem: why not all are there, one line; empty otherwise.
        fatal: what stops every other sample, too.
    """

    key: str
    folder: Path | None = None
    made: int = 0
    found: int = 0
    problem: str = ""
    fatal: UserError | None = None


@dataclass(kw_only=True, slots=True)
class FillResult:
    """What became of all: counts, and key -> problem of the samples that failed."""

    folder: Path | None = None
    made: int = 0
    found: int = 0
    problems: dict[str, str] = field(default_factory=dict)


class FillWorker:
    """One actor: its own shards, its own maker."""

    def __init__(self, plan: FillPlan) -> None:
        self._plan = plan
        self._maker: Maker | None = None
        self._store: ShardStore | None = None

    def fill(self, number: int) -> Filled:
        """See that all files of a sample are there."""
        try:
            if self._maker is None or self._store is None:
                import cv2

                cv2.setNumThreads(1)  # the other cores belong to other workers
                self._store = ShardStore(self._plan.shards, keep=self._plan.keep)
                self._maker = self._plan.make()
        except UserError as error:
            return Filled(key="", fatal=error)
        key = self._store.keys[number]
        try:
            return fill_sample(self._plan, self._maker, self._store, number)
        except StorageError as error:
            return Filled(key=key, fatal=error)
        except ShardError as error:
            return Filled(key=key, folder=self._maker.folder, problem=" ".join(str(error).split()))


def fill_sample(plan: FillPlan, maker: Maker, store: ShardStore, number: int) -> Filled:
    """See that all files of a sample are there; raises ShardError."""
    key = store.keys[number]
    members = store.read(number, ["meta.json", *(f"view_{view:02d}.webp" for view in range(plan.stored_views))])
    meta = decode_meta(members)
    if meta.id != key:
        raise ShardError(f"its meta.json is of sample {meta.id}")
    if (len(meta.camera_to_world), len(meta.times)) != (plan.stored_views, plan.stored_frames):
        raise ShardError("other numbers of views or frames than the first sample")
    groups = [view_group(plan.stored_views, plan.views, group) for group in range(plan.stored_views // plan.views)]
    made, problems = 0, []
    for group in groups:
        try:
            made += maker.keep(members, group)
        except StorageError:
            raise
        except ShardError as error:  # the other groups may be sound
            problems.append(" ".join(str(error).split()))
    found = len(groups) - made - len(problems)
    return Filled(key=key, folder=maker.folder, made=made, found=found, problem=problems[0] if problems else "")


def look_at(store: ShardStore, views: int) -> tuple[int, int]:
    """Return the views and frames of the first sample, which all must have.

    Raises:
        ConfigError: the views cannot be dealt into groups.
    """
    meta = decode_meta(store.read(0, ["meta.json"]))
    stored = len(meta.camera_to_world)
    if stored % views:
        raise ConfigError(f"views is {views}, but {store.folder} holds {stored} views: give a divisor")
    return stored, len(meta.times)


def fill(plan: FillPlan, keys: Sequence[str], workers: int | None) -> Iterator[Filled]:
    """Work through all samples in order; yields what became of each, as they come.

    Raises:
        UserError: whatever a worker cannot start with (a model, a folder), or no room on the disk.
        ClusterError: workers keep dying, or the cluster has no room for one.
    """
    import ray

    resources = ray.cluster_resources()
    gpus = plan.gpu_share if resources.get("GPU", 0) >= plan.gpu_share else 0.0
    require_resources(cpus=1, gpus=gpus)
    room = resources.get("CPU", 1) if not gpus else min(resources["CPU"], resources["GPU"] // gpus)
    count = max(1, min(workers or int(room), int(room), len(keys)))
    actor: Any = ray.remote(FillWorker).options(num_cpus=1, num_gpus=gpus)
    waiting = deque((number, 1) for number in range(len(keys)))
    idle = [actor.remote(plan) for _ in range(count)]
    running: dict[Any, tuple[Any, int, int]] = {}
    deaths = 0
    try:
        while waiting or running:
            while waiting and idle:
                worker, (number, attempt) = idle.pop(), waiting.popleft()
                running[worker.fill.remote(number)] = (worker, number, attempt)
            ready, _ = ray.wait(list(running), timeout=POLL_SECONDS)
            for reference in ready:
                worker, number, attempt = running.pop(reference)
                try:
                    outcome = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    text = " ".join(f"{type(error.cause).__name__}: {error.cause}".split())[:500]
                    outcome = Filled(key=keys[number], problem=text)
                except ray.exceptions.RayError:
                    deaths += 1
                    if deaths >= DEATHS:
                        raise ClusterError(
                            f"{DEATHS} workers in a row died: often the machine has too little memory for --workers"
                        ) from None
                    ray.kill(worker)
                    idle.append(actor.remote(plan))
                    if attempt < ATTEMPTS:
                        waiting.appendleft((number, attempt + 1))
                        continue
                    yield Filled(key=keys[number], problem="its worker process died")
                    continue
                if outcome.fatal is not None:
                    raise outcome.fatal
                deaths = 0
                idle.append(worker)
                yield outcome
    finally:
        for worker in [*idle, *(worker for worker, _, _ in running.values())]:
            ray.kill(worker)
