"""How many objects a cluster works on at once, and what each worker of the pool holds."""

from __future__ import annotations

import os
from dataclasses import dataclass

from animate4d.compute.session import require_resources


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """Where rows are worked on.

    Attributes:
        workers: that do whole rows or, where there are helpers, only imagine.
        cpus, gpus: held by each of them.
        helpers: workers that hold one CPU and do the rest.
    """

    workers: int
    cpus: float
    gpus: float
    helpers: int = 0

    @property
    def split(self) -> bool:
        """Whether the steps of a row are done by different workers."""
        return self.helpers > 0

    @property
    def at_once(self) -> int:
        """Rows in work at once."""
        return self.workers + self.helpers


def places_of(cpus: float, gpus: float, *, rows: int, wanted: int | None = None, gpu_share: float = 1.0) -> Places:
    """Return how to use so many CPUs and GPUs.

    Args:
        cpus: of the cluster.
        gpus: of the cluster; 0 where no row needs the model.
        rows: to do.
        wanted: rows at once at most; None for as many as there is room for.
        gpu_share: of a GPU that a worker holds.
    """
    if gpus < 1:
        workers = max(1, min(wanted or int(cpus), int(cpus), rows))
        return Places(workers=workers, cpus=1.0, gpus=0.0)
    slots = int(gpus) * int(1 / gpu_share)
    workers = max(1, min(slots, rows, wanted or slots))
    helpers = max(1, min(int(cpus), rows, (wanted or slots + int(cpus)) - workers))
    return Places(workers=workers, cpus=0.0, gpus=gpu_share, helpers=helpers)


def cluster_places(rows: int, *, model: bool, wanted: int | None = None, gpu_share: float = 1.0) -> Places:
    """Return how to use the cluster that Ray is connected to.

    Args:
        rows: to do.
        model: whether any of them needs the model, and so a GPU where there is one.
        wanted: rows at once at most.
        gpu_share: of a GPU that a worker holds.

    Raises:
        ClusterError: no node can hold a single worker, or run a task.
    """
    import ray

    resources = ray.cluster_resources()
    gpus = resources.get("GPU", 0) if model else 0
    places = places_of(resources.get("CPU", 0), gpus, rows=rows, wanted=wanted, gpu_share=gpu_share)
    require_resources(cpus=1)
    require_resources(gpus=places.gpus)
    return places


def local_places(rows: int, *, model: bool, wanted: int | None = None, gpu_share: float = 1.0) -> Places:
    """Return how this machine alone would be used; Ray is not started."""
    import torch

    gpus = torch.cuda.device_count() if model else 0
    return places_of(os.cpu_count() or 1, gpus, rows=rows, wanted=wanted, gpu_share=gpu_share)
