"""The worker: a Ray Serve deployment that holds the model and turns one job at a time into files."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from ray import serve

from animate4d.core.errors import UserError
from animate4d.pipeline.animate import Cancelled, animate
from animate4d.pipeline.config import AnimateOptions, Request
from animate4d.pipeline.receipt import model_version
from animate4d.serve.job_store import JobStore

PROGRESS_SECONDS = 0.3
"""Least time between two writes of a job's state, so that progress costs nothing."""


@serve.deployment(name="Animator", max_ongoing_requests=1, health_check_timeout_s=60)
class Animator:
    """Holds the model once per replica; the queue in front of it is Ray Serve's."""

    def __init__(self, model: str, jobs: str, threads: int) -> None:
        import torch

        from animate4d.models.mv_vdm import MVVDM

        torch.set_num_threads(threads)
        self.store = JobStore(Path(jobs))
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = MVVDM.from_pretrained(Path(model)).to(device).eval()
        self.version = model_version(Path(model))

    async def animate(self, job_id: str) -> None:
        """Work on one job and store how it ended."""
        await asyncio.to_thread(self._animate, job_id)

    async def ready(self) -> bool:
        """Answer once the model is loaded, which is when the replica exists."""
        return True

    def _animate(self, job_id: str) -> None:
        store, job = self.store, self.store.find(job_id)
        if job is None or store.is_cancelled(job_id):
            if job is not None:
                store.update(job_id, state="cancelled")
            return
        store.update(job_id, state="running", stage="starting", progress=0.0)
        written = 0.0

        def progress(stage: str, share: float) -> None:
            nonlocal written
            if time.monotonic() - written > PROGRESS_SECONDS:
                written = time.monotonic()
                store.update(job_id, stage=stage, progress=share)

        folder = store.folder(job_id)
        request = Request(
            asset=folder / job.asset,
            prompt=job.request["prompt"],
            seed=job.request["seed"],
            options=AnimateOptions(strength=job.request["strength"], fit="draft"),
        )
        try:
            animate(
                request,
                self.model,
                folder / "result",
                model_version=self.version,
                progress=progress,
                cancelled=lambda: store.is_cancelled(job_id),
            )
        except Cancelled:
            store.update(job_id, state="cancelled", stage="")
        except UserError as error:
            store.update(job_id, state="failed", stage="", error=str(error))
        except Exception:
            store.update(job_id, state="failed", stage="", error="the service failed on this model; its log says why")
            raise
        else:
            store.update(job_id, state="done", stage="", progress=1.0)
