"""The Serve application: the HTTP front and the workers, for `serve deploy cluster/serve.yaml` and `jobs/serve.py`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from animate4d.serve.animator import Animator
from animate4d.serve.config import ServeConfig
from animate4d.serve.job_store import JobStore

WORKER_CPUS = 1


@serve.deployment(name="Api", ray_actor_options={"num_cpus": 0}, max_ongoing_requests=100)
@serve.ingress()
class Api:
    """Speaks HTTP, keeps the jobs, and hands them to the workers."""

    def __init__(self, config: ServeConfig, model: dict[str, Any], animator: DeploymentHandle) -> None:
        self.config, self.model, self.animator = config, model, animator
        self.store = JobStore(config.out)
        self.tasks: set[asyncio.Task[None]] = set()
        self.loop = asyncio.get_event_loop()
        self.loaded = False
        self._start(self._wait_for_model())
        for job in self.store.open_jobs():
            self.store.update(job.id, state="queued", stage="", progress=0.0)
            self._start(self._hand_over(job.id))

    def __serve_build_asgi_app__(self) -> Any:
        """Return the FastAPI app (called by Ray Serve once the replica exists)."""
        from animate4d.serve.api import create_app

        return create_app(self.config, self.store, self._submit, model=self.model, is_ready=lambda: self.loaded)

    def _submit(self, job_id: str) -> None:
        self.loop.call_soon_threadsafe(lambda: self._start(self._hand_over(job_id)))

    def _start(self, work: Any) -> None:
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _wait_for_model(self) -> None:
        self.loaded = await self.animator.ready.remote()

    async def _hand_over(self, job_id: str) -> None:
        """Wait for a worker to end a job; a worker that died leaves the job open, which then is a failure."""
        try:
            await self.animator.animate.remote(job_id)
        finally:
            job = self.store.find(job_id)
            if job and job.state == "running":
                self.store.update(job_id, state="failed", stage="", error="the worker died; submit the job again")


def build(args: dict[str, Any]) -> Application:
    """Build the application from the fields of `ServeConfig` (the `args` of a Serve config file)."""
    from animate4d.runs.registry import resolve_model

    paths = {name: Path(args[name]) for name in ("out", "token_file") if args.get(name) is not None}
    config = ServeConfig(**{**args, **paths})
    folder = resolve_model(config.model, uri=config.tracking_uri)
    options = {"num_cpus": WORKER_CPUS, "num_gpus": 1 if has_gpu() else 0}
    worker = Animator.options(num_replicas=config.workers, ray_actor_options=options)
    jobs = config.out.absolute()
    return Api.bind(
        config, {"name": config.model, "folder": folder.name}, worker.bind(str(folder), str(jobs), WORKER_CPUS)
    )


def has_gpu() -> bool:
    """Return whether the cluster has a GPU to give."""
    import ray

    return ray.cluster_resources().get("GPU", 0) > 0
