"""The HTTP contract, as a FastAPI app over a job store; it knows neither Ray nor the model.

POST /v1/animations answers at once with 202 and a Location to poll, because an animation takes minutes and proxies cut
long requests. Everything under /v1 needs the token where one is set.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from importlib import resources
from pathlib import PurePath
from typing import Annotated, Any

from fastapi import FastAPI, File, Form, Header, HTTPException, Request, UploadFile
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from animate4d import __version__
from animate4d.assets.load import load_asset
from animate4d.core.errors import AssetError
from animate4d.core.hashing import slug
from animate4d.serve.config import ServeConfig
from animate4d.serve.job_store import NAME, OPEN_STATES, Job, JobStore
from animate4d.serve.problems import Gate, install_problems

MAX_PROMPT = 500
RETRY_SECONDS = 10


def create_app(
    config: ServeConfig,
    store: JobStore,
    submit: Callable[[str], None],
    *,
    model: dict[str, Any],
    is_ready: Callable[[], bool] = lambda: True,
) -> FastAPI:
    """Build the app.

    Args:
        config: limits and token.
        store: where jobs live.
        submit: hands a queued job to the workers; returns at once.
        model: what GET /v1/models tells of the loaded model.
        is_ready: whether the workers can take jobs.
    """
    token = config.token_file.read_text().strip() if config.token_file else None
    app = FastAPI(title="animate4d", version=__version__, description="Animate 3D models from a sentence.")
    install_problems(app)
    app.add_middleware(Gate, max_bytes=config.max_upload_mb * 10**6, token=token)

    def existing(job_id: str) -> Job:
        job = store.find(job_id)
        if job is None:
            raise HTTPException(404, f"there is no animation {job_id[:40]!r}")
        return job

    @app.post("/v1/animations", status_code=202, tags=["animations"])
    async def submit_animation(
        request: Request,
        asset: Annotated[UploadFile, File(description="GLB, OBJ or PLY file")],
        prompt: Annotated[str, Form(min_length=1, max_length=MAX_PROMPT)],
        seed: Annotated[int, Form(ge=0, lt=2**63)] = 0,
        strength: Annotated[float, Form(ge=0, le=3)] = 1.0,
        idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
    ) -> JSONResponse:
        """Submit a model and a sentence; poll the Location of the answer."""
        job = store.with_key(idempotency_key or "")
        if job is None:
            if not prompt.strip():
                raise HTTPException(422, "prompt: is empty; say what the object should do")
            if len(store.open_jobs()) >= config.max_queued:
                wait = {"Retry-After": str(RETRY_SECONDS)}
                raise HTTPException(429, f"{config.max_queued} animations wait already; try again soon", wait)
            options = {"prompt": prompt.strip(), "seed": seed, "strength": strength}
            job = store.create(options, safe_name(asset.filename or ""), await asset.read(), idempotency_key or "")
            try:
                await run_in_threadpool(check_asset, store, job)
            except AssetError as error:
                detail = str(error).replace(f"{store.folder(job.id)}/", "")  # the client's name, not our path
                store.remove(job.id)
                raise HTTPException(422, f"asset: {detail}") from error
            submit(job.id)
        location = str(request.url_for("show_animation", job_id=job.id).path)
        return JSONResponse(describe(job, request, store), 202, {"Location": location})

    @app.get("/v1/animations/{job_id}", tags=["animations"])
    def show_animation(job_id: str, request: Request) -> dict[str, Any]:
        """Tell the state, stage, progress and files of an animation."""
        return describe(existing(job_id), request, store)

    @app.get("/v1/animations/{job_id}/events", tags=["animations"])
    def follow_animation(job_id: str, request: Request) -> StreamingResponse:
        """Stream the state as server-sent events until the animation ends."""
        existing(job_id)

        async def events() -> AsyncIterator[str]:
            last = 0.0
            while job := store.find(job_id):
                if job.updated > last:
                    last = job.updated
                    yield f"event: {job.state}\ndata: {json.dumps(describe(job, request, store))}\n\n"
                if job.state not in OPEN_STATES:
                    return
                await asyncio.sleep(0.3)

        return StreamingResponse(events(), media_type="text/event-stream")

    @app.get("/v1/animations/{job_id}/files/{name}", tags=["animations"])
    def download_file(job_id: str, name: str) -> FileResponse:
        """Download one result file."""
        path = store.files(existing(job_id).id).get(name)
        if path is None:
            raise HTTPException(404, f"the animation has no file {name[:80]!r}")
        return FileResponse(path, filename=name)

    @app.delete("/v1/animations/{job_id}", status_code=202, tags=["animations"])
    def cancel_animation(job_id: str, request: Request) -> dict[str, Any]:
        """Cancel an animation that waits or runs; deleting an ended one removes its files."""
        job = existing(job_id)
        if job.state in OPEN_STATES:
            store.cancel(job_id)
            return describe(job, request, store) | {"state": "cancelling"}
        store.remove(job_id)
        return {"id": job_id, "state": "removed"}

    @app.get("/v1/models", tags=["service"])
    def models() -> dict[str, Any]:
        """Tell which model animates."""
        return {"models": [model]}

    @app.get("/healthz", tags=["service"])
    def healthz() -> dict[str, str]:
        """Answer while the process lives."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["service"])
    def readyz() -> JSONResponse:
        """Answer 200 once the model is loaded."""
        ready = is_ready()
        return JSONResponse({"status": "ready" if ready else "starting"}, 200 if ready else 503)

    @app.get("/metrics", tags=["service"])
    def metrics() -> PlainTextResponse:
        """Count jobs by state, for Prometheus."""
        counts = dict.fromkeys(("queued", "running", "done", "failed", "cancelled"), 0)
        for job in store.all():
            counts[job.state] += 1
        head = "# HELP animate4d_jobs Animations by state.\n# TYPE animate4d_jobs gauge\n"
        return PlainTextResponse(head + "".join(f'animate4d_jobs{{state="{s}"}} {n}\n' for s, n in counts.items()))

    @app.get("/", include_in_schema=False)
    def page() -> HTMLResponse:
        return HTMLResponse(resources.files("animate4d.serve").joinpath("page.html").read_text())

    return app


def check_asset(store: JobStore, job: Job) -> None:
    """Read the upload once, so that a file nobody can animate is refused at the door.

    Raises:
        AssetError: the upload is no readable model.
    """
    load_asset(store.folder(job.id) / job.asset)


def describe(job: Job, request: Request, store: JobStore) -> dict[str, Any]:
    """Return what a client sees of a job."""
    here = request.url_for("show_animation", job_id=job.id).path
    names = store.files(job.id) if job.state == "done" else {}
    return {
        "id": job.id,
        "state": job.state,
        "stage": job.stage,
        "progress": round(job.progress, 3),
        "error": job.error or None,
        "request": {**job.request, "asset": job.asset},
        "created": job.created,
        "updated": job.updated,
        "links": {
            "self": here,
            "events": f"{here}/events",
            "files": {name: f"{here}/files/{name}" for name in names},
        },
    }


def safe_name(uploaded: str) -> str:
    """Turn an uploaded file name into a harmless one that keeps its stem and extension recognisable."""
    path = PurePath(uploaded.replace("\\", "/"))
    name = f"{slug(path.stem)}{path.suffix.lower()[:8]}"
    return name if NAME.fullmatch(name) else "asset"
