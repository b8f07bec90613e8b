"""The worker: a Ray Serve deployment that turns one job at a time into files; its videos come from the generator."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
from ray import serve

from animate4d.core.errors import ModelError, UserError
from animate4d.export.video import view_grid, write_webp_animation
from animate4d.pipeline.animate import animate
from animate4d.pipeline.stage_report import Cancelled
from animate4d.serve.job_store import Job, JobStore
from animate4d.serve.shared_model import LOST, SharedModel
from animate4d.serve.submission import pipeline_request

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 0.3
"""Least time between two writes of a job's state, so that progress costs nothing."""

MAX_ATTEMPTS = 2
"""Times a job may be begun: once more after its worker or the generator died, because that may have been bad luck."""

PREVIEW_FPS = 8.0


class Worker:
    """Works on one job at a time; the queue in front of it is Ray Serve's.

    Args:
        generator: handle of the `Generator` that makes the videos.
        jobs: folder of the job store.
        threads: of torch.
        job_seconds: a job that takes longer fails.
    """

    def __init__(self, generator: Any, jobs: str, threads: int, job_seconds: float) -> None:
        import torch

        torch.set_num_threads(threads)
        self.generator, self.store, self.job_seconds = generator, JobStore(Path(jobs)), job_seconds

    async def animate(self, job_id: str) -> None:
        """Work on one job and store how it ended."""
        await asyncio.to_thread(self._animate, job_id)

    def _animate(self, job_id: str) -> None:
        store = self.store
        with store.claim(job_id) as job:
            if job is None or not job.is_open or store.drain_end() is not None:
                return
            if store.is_cancelled(job_id):
                store.finish(job_id, "cancelled")
            elif job.attempts >= MAX_ATTEMPTS:
                store.finish(job_id, "failed", f"what worked on it died {job.attempts} times; try a smaller model")
            else:
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

        def put_back() -> None:
            store.update(job.id, state="queued", stage="", progress=0.0, attempts=job.attempts)

        try:
            animate(
                pipeline_request(job.request, folder / job.asset),
                SharedModel(self.generator, alone=job.attempts > 0),
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
                put_back()
        except ModelError:
            put_back()  # there is none just now, which is not the job's fault
            raise
        except LOST:
            raise  # the API hands the job over again
        except UserError as error:
            store.finish(job.id, "failed", str(error).replace(f"{folder}/", ""))
        except Exception:
            logger.exception("job %s failed", job.id)
            store.finish(job.id, "failed", "the service failed on this model; its log says why")
        else:
            store.finish(job.id, "done")


Animator = serve.deployment(name="Animator", max_ongoing_requests=1, health_check_timeout_s=60)(Worker)
