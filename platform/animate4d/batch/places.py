"""How many objects a cluster works on at once, and what each worker of the pool holds."""

from __future__ import annotations

import os
from dataclasses import dataclass

from animate4d.compute.session import require_resources
from animate4d.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """Where rows are worked on.

    Attributes:
        workers: that do whole rows or, where there are helpers, only imagine.
        cpus, gpus: held by each of them.
        helpers: workers that hold one CPU and do the rest.
        helper_gpus: held by each of these, to fit on.
    """

    workers: int
    cpus: float
    gpus: float
    helpers: int = 0
    helper_gpus: float = 0.0

    @property
    def split(self) -> bool:
        """Whether the steps of a row are done by different workers."""
        return self.helpers > 0

    @property
    def at_once(self) -> int:
        """Rows in work at once."""
        return self.workers + self.helpers


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What a batch asks for.

    Attributes:
        rows: to do.
        model: whether any of them needs the model, and so a GPU where there is one.
        at_once: rows in work at most; None for as many as there is room for.
        gpu_share: of a GPU that holds the model, for the making of one video.
        fit_share: of a GPU that a fit holds; 0 fits on CPUs.
    """

    rows: int
    model: bool
    at_once: int | None = None
    gpu_share: float = 1.0
    fit_share: float = 0.0


def places_of(cpus: float, gpus: float, wanted: Wanted) -> Places:
    """Return how to use so many CPUs and GPUs.

    Where fits share the GPUs, one worker on each makes videos and the rest of it is the fits'.

    Raises:
        ConfigError: the making of a video leaves a fit no room on a GPU.
    """
    cores, cards, rows, share = int(cpus), int(gpus), wanted.rows, wanted.fit_share
    if cards < 1 or not (wanted.model or share):
        return Places(workers=_room(cores, rows, wanted.at_once), cpus=1.0, gpus=0.0)
    if not wanted.model:
        slots = min(cores, cards * _times(share, 1.0))
        return Places(workers=_room(slots, rows, wanted.at_once), cpus=1.0, gpus=share)
    if share and not _times(share, 1.0 - wanted.gpu_share):
        raise ConfigError(
            f"gpu_share {wanted.gpu_share:g} and fit_share {share:g} are more than one GPU: make gpu_share smaller"
        )
    slots = cards * (1 if share else _times(wanted.gpu_share, 1.0))
    workers = _room(slots, rows, wanted.at_once)
    fits = min(cores, cards * _times(share, 1.0 - wanted.gpu_share)) if share else cores
    helpers = max(1, min(fits, rows, (wanted.at_once or slots + fits) - workers))
    return Places(workers=workers, cpus=0.0, gpus=wanted.gpu_share, helpers=helpers, helper_gpus=share)


def _room(slots: int, rows: int, wanted: int | None) -> int:
    return max(1, min(slots, rows, wanted or slots))


def _times(share: float, whole: float) -> int:
    """Return how often a share is in a whole, in spite of rounding."""
    return int(whole / share + 1e-6)


def cluster_places(wanted: Wanted) -> Places:
    """Return how to use the cluster that Ray is connected to.

    Raises:
        ClusterError: no node can hold a single worker, or run a task.
    """
    import ray

    resources = ray.cluster_resources()
    places = places_of(resources.get("CPU", 0), resources.get("GPU", 0), wanted)
    require_resources(cpus=1, gpus=places.helper_gpus)
    require_resources(cpus=places.cpus, gpus=places.gpus)
    return places


def local_places(wanted: Wanted) -> Places:
    """Return how this machine alone would be used; Ray is not started."""
    import torch

    return places_of(os.cpu_count() or 1, torch.cuda.device_count(), wanted)
