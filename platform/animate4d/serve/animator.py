"""The worker: a Ray Serve deployment that holds the model and turns one job at a time into files."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
from ray import serve

from animate4d.core.errors import UserError
from animate4d.export.video import view_grid, write_webp_animation
from animate4d.pipeline.animate import Cancelled, animate
from animate4d.pipeline.receipt import model_version
from animate4d.runs.registry import resolve_model
from animate4d.serve.job_store import Job, JobStore
from animate4d.serve.submission import pipeline_request
from animate4d.videos.maker import LocalModel

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 0.3
"""Least time between two writes of a job's state, so that progress costs nothing."""

MODEL_SECONDS = 60.0
"""How often a registered model's alias is looked up again, between two jobs: none is dropped for a new model."""

MAX_ATTEMPTS = 2
"""Times a job may be begun: once more after its worker died, because that may have been bad luck."""

PREVIEW_FPS = 8.0


class Worker:
    """Holds the model once per replica; the queue in front of it is Ray Serve's.

    Args:
        model: as in `runs.registry.resolve_model`; loaded at the first call, so that a missing one is told by `status`
            instead of letting Ray start replicas without end.
        tracking_uri: where registered models are looked up.
        jobs: folder of the job store.
        threads: of torch.
        job_seconds: a job that takes longer fails.
    """

    def __init__(self, model: str, tracking_uri: str | None, jobs: str, threads: int, job_seconds: float) -> None:
        import torch

        torch.set_num_threads(threads)
        self.store = JobStore(Path(jobs))
        self.spec, self.tracking_uri, self.job_seconds = model, tracking_uri, job_seconds
        self.model: Any = None
        self.folder = Path()
        self.version = ""
        self._looked = -float("inf")

    async def animate(self, job_id: str) -> None:
        """Work on one job and store how it ended."""
        await asyncio.to_thread(self._animate, job_id)

    async def status(self) -> dict[str, str]:
        """Load the model if need be; returns what it is, or the `reason` why there is none."""
        return await asyncio.to_thread(self._status)

    def _status(self) -> dict[str, str]:
        try:
            self._load()
        except Exception as error:
            if not isinstance(error, UserError):
                logger.exception("the model %s cannot be loaded", self.spec)
            return {
                "reason": f"the model cannot be loaded: {next(iter(str(error).splitlines()), type(error).__name__)}"
            }
        return {"name": self.spec, "version": self.version}

    def _load(self) -> None:
        """Load the model, or a new one that has taken its name in the registry."""
        if self.model is not None and time.monotonic() - self._looked < MODEL_SECONDS:
            return
        if self.model is None or self.spec.startswith("models:"):
            try:
                folder = resolve_model(self.spec, uri=self.tracking_uri)
            except UserError:
                if self.model is None:
                    raise
                logger.warning("model %s cannot be looked up; the one that is loaded goes on", self.spec)
            else:
                if folder != self.folder:
                    self._read(folder)
        self._looked = time.monotonic()

    def _read(self, folder: Path) -> None:
        import torch

        from animate4d.models.mv_vdm import MVVDM

        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = MVVDM.from_pretrained(folder).to(device).eval()
        self.folder, self.version = folder, model_version(folder)

    def _animate(self, job_id: str) -> None:
        store = self.store
        with store.claim(job_id) as job:
            if job is None or not job.is_open or store.drain_end() is not None:
                return
            if store.is_cancelled(job_id):
                store.finish(job_id, "cancelled")
            elif job.attempts >= MAX_ATTEMPTS:
                store.finish(job_id, "failed", f"the worker died {job.attempts} times on this model; try a smaller one")
            else:
                self._load()
                self._work(job)

    def _work(self, job: Job) -> None:
        store, folder, begun = self.store, self.store.folder(job.id), time.monotonic()
        store.update(
            job.id, state="running", stage="starting", progress=0.0, attempts=job.attempts + 1, started=time.time()
        )
        written, shown = 0.0, 0

        def progress(stage: str, share: float) -> None:
            nonlocal written
            if time.monotonic() - written > PROGRESS_SECONDS:
                written = time.monotonic()
                store.update(job.id, stage=stage, progress=share)

        def show(pictures: np.ndarray) -> None:
            nonlocal shown
            shown += 1
            write_webp_animation(folder / "preview.webp", view_grid(pictures, columns=2), PREVIEW_FPS)
            store.update(job.id, preview=shown)

        def late() -> bool:
            return time.monotonic() - begun > self.job_seconds

        def gives_way() -> bool:
            until = store.drain_end()
            return until is not None and time.time() > until

        try:
            animate(
                pipeline_request(job.request, folder / job.asset),
                LocalModel(self.model, self.version),
                folder / "result",
                progress=progress,
                cancelled=lambda: store.is_cancelled(job.id) or late() or gives_way(),
                show=show,
            )
        except Cancelled:
            if store.is_cancelled(job.id):
                store.finish(job.id, "cancelled")
            elif late():
                store.finish(job.id, "failed", f"took longer than the {self.job_seconds:.0f} s that a job may take")
            else:
                store.update(job.id, state="queued", stage="", progress=0.0, attempts=job.attempts)
        except UserError as error:
            store.finish(job.id, "failed", str(error).replace(f"{folder}/", ""))
        except Exception:
            logger.exception("job %s failed", job.id)
            store.finish(job.id, "failed", "the service failed on this model; its log says why")
        else:
            store.finish(job.id, "done")


Animator = serve.deployment(name="Animator", max_ongoing_requests=1, health_check_timeout_s=60)(Worker)
