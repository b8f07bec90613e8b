"""How long an animation will take, told from how long those before it took on this machine."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from statistics import median
from typing import Any

from animate4d.serve.job_store import Job, JobStore
from animate4d.serve.submission import FIT

RECENT = 20
"""Ended jobs that are looked at: a median of so many is steady, and soon follows a change of machine or model."""


def work_seconds(store: JobStore, request: dict[str, Any]) -> float | None:
    """Return what the work on a request will take: the median per clip of recent jobs of the same fit; None if none."""
    fit = request.get("fit", FIT)
    alike = (job for job in store.known() if job.state == "done" and job.request.get("fit", FIT) == fit)
    times = [(job.ended - job.started) / job.request.get("clips", 1) for job in islice(alike, RECENT)]
    return median(times) * request.get("clips", 1) if times else None


def wait_seconds(store: JobStore, ahead: Iterable[Job], workers: int) -> float | None:
    """Return how long the jobs ahead will keep all workers busy; None while that is unknown."""
    total = 0.0
    for job in ahead:
        work = work_seconds(store, job.request)
        if work is None:
            return None
        total += work * (1 - job.progress)
    return total / workers


def seconds_left(store: JobStore, job: Job, workers: int) -> float | None:
    """Return how long until a job is done; None for an ended one and while that is unknown."""
    work = work_seconds(store, job.request)
    if work is None or not job.is_open:
        return None
    if job.state == "running":
        return work * (1 - job.progress)
    ahead = (other for other in store.known() if other.is_open and other.created < job.created)
    wait = wait_seconds(store, ahead, workers)
    return None if wait is None else wait + work
