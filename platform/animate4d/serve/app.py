"""The Serve application of HTTP front, workers and generator: `jobs/serve.py` and `serve deploy cluster/serve.yaml`."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from animate4d.compute.paths import input_path
from animate4d.serve.animator import Animator
from animate4d.serve.checks import check_files, check_size
from animate4d.serve.config import ServeConfig
from animate4d.serve.generator import MODEL_SECONDS, SharedGenerator
from animate4d.serve.job_store import Job, JobStore
from animate4d.serve.webhooks import Webhooks

logger = logging.getLogger(__name__)

WORKER_CPUS = 1
LOOK_SECONDS = 10.0
"""How often a model that could not be loaded is tried again."""

AGAIN_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Pauses before a job whose worker died is handed over again."""


@serve.deployment(name="Api", ray_actor_options={"num_cpus": 0}, max_ongoing_requests=1000)
@serve.ingress()
class Api:
    """Speaks HTTP, keeps the jobs, and hands them to the workers."""

    def __init__(self, config: ServeConfig, animator: DeploymentHandle, generator: DeploymentHandle) -> None:
        self.config, self.animator, self.generator = config, animator, generator
        self.store = JobStore(config.out)
        self.store.open_again()
        self.store.remove_halves()
        secret = config.webhook_secret_file
        self.webhooks = Webhooks.read(secret, config.webhook_hosts) if secret else None
        self.tasks: set[asyncio.Task[None]] = set()
        self.loop = asyncio.get_event_loop()
        self.model: dict[str, str] = {}
        self.unready = "the model is being loaded"
        self._start(self._watch_model())
        for job in self.store.open_jobs():
            if not self.store.is_claimed(job.id):
                self.store.update(job.id, state="queued", stage="", progress=0.0)
            self._start(self._hand_over(job.id))
        for job in self.store.known():
            if not job.is_open:
                self._tell(job)

    def __serve_build_asgi_app__(self) -> Any:
        """Return the FastAPI app (called by Ray Serve once the replica exists)."""
        from animate4d.serve.api import create_app

        return create_app(
            self.config,
            self.store,
            self._submit,
            models=lambda: [self.model] if self.model else [],
            unready=lambda: self.unready,
            webhooks=self.webhooks,
        )

    async def drain(self) -> None:
        """Take no more jobs, begin none, and return once the running ones have ended or are back in the queue."""
        self.unready = "the service is shutting down; come back when it has started again"
        until = time.time() + self.config.drain_seconds
        self.store.drain(until)
        while any(self.store.is_claimed(job.id) for job in self.store.open_jobs()):
            await asyncio.sleep(0.2)

    def _submit(self, job_id: str) -> None:
        self.loop.call_soon_threadsafe(lambda: self._start(self._hand_over(job_id)))

    def _start(self, work: Any) -> None:
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _watch_model(self) -> None:
        """Keep telling which model there is, or why none; a generator that starts again is neither."""
        while True:
            try:
                found = await self.generator.status.remote()
            except Exception:
                logger.warning("no generator answers", exc_info=True)
                found = self.model or {"reason": "no generator answers; its log says why"}
            if self.store.drain_end() is not None:
                return
            self.unready = found.get("reason", "")
            self.model = {} if self.unready else found
            await asyncio.sleep(LOOK_SECONDS if self.unready else MODEL_SECONDS)

    async def _hand_over(self, job_id: str) -> None:
        """Give a job to a worker until it has ended; the second worker that dies on it is the last (see `Worker`)."""
        pauses = iter(AGAIN_SECONDS)
        while (job := self.store.find(job_id)) and job.is_open and self.store.drain_end() is None:
            try:
                await self.animator.animate.remote(job_id)
            except Exception:
                logger.warning("job %s lost its worker", job_id, exc_info=True)
                if not self.store.is_claimed(job_id):
                    self.store.update(job_id, state="queued", stage="", progress=0.0)
                await asyncio.sleep(next(pauses, AGAIN_SECONDS[-1]))
        if job is not None and not job.is_open:
            self._tell(job)
            await asyncio.to_thread(self.store.remove_oldest, self.config.keep)

    def _tell(self, job: Job) -> None:
        """Send the webhook of an ended job, if it has one that is still to be sent; nothing waits for it."""
        if self.webhooks is not None and job.request.get("webhook") and not job.told:
            self._start(self.webhooks.deliver(self.store, job))


def build(args: dict[str, Any]) -> Application:
    """Build the application from the fields of `ServeConfig` (the `args` of a Serve config file).

    Raises:
        ConfigError: a file or folder cannot be used.
        ClusterError: the cluster is too small.
    """
    names = ("out", "token_file", "webhook_secret_file")
    paths = {name: Path(args[name]) for name in names if args.get(name) is not None}
    config = ServeConfig(**{**args, **paths, "webhook_hosts": tuple(args.get("webhook_hosts", ()))})
    check_files(config)
    has = ray.cluster_resources()
    gpus = has.get("GPU", 0)
    check_size(config, cpus=has.get("CPU", 0), gpus=gpus)
    generator = SharedGenerator.options(
        num_replicas=config.generators,
        # Without a GPU it computes on the CPUs of the workers that wait for it.
        ray_actor_options={"num_cpus": 0, "num_gpus": 1 if gpus else 0},
    ).bind(
        model_spec(config.model),
        config.tracking_uri,
        threads=config.workers * WORKER_CPUS,
        batch=min(config.batch, config.workers),
    )
    worker = Animator.options(num_replicas=config.workers, ray_actor_options={"num_cpus": WORKER_CPUS}).bind(
        generator, str(config.out.absolute()), WORKER_CPUS, 60 * config.job_minutes
    )
    return Api.bind(config, worker, generator)


def model_spec(model: str) -> str:
    """Return a model's name as it means the same in every process."""
    return model if model == "shipped" or model.startswith("models:") else str(input_path(Path(model)))
