"""The HTTP contract, as a FastAPI app over a job store; it knows neither Ray nor the model.

POST /v1/animations answers at once with 202 and a Location to poll, because an animation takes minutes and proxies cut
long requests. Everything under /v1 needs a token where there are some, and a client sees its own jobs only.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from pathlib import PurePath
from typing import Annotated, Any

from fastapi import Depends, FastAPI, File, Header, HTTPException, Query, Request, Response, UploadFile
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, StreamingResponse
from pydantic.json_schema import SkipJsonSchema
from starlette.concurrency import run_in_threadpool

from animate4d import __version__
from animate4d.assets.guarded import check_untrusted
from animate4d.core.errors import AssetError, ConfigError
from animate4d.core.hashing import hash_json, slug
from animate4d.serve.answers import BASE, Animation, AnimationPage, Estimate, Health, Models, describe
from animate4d.serve.clients import COOKIE, Tokens
from animate4d.serve.config import ServeConfig
from animate4d.serve.estimate import seconds_left, wait_seconds, work_seconds
from animate4d.serve.gate import Gate
from animate4d.serve.job_store import NAME, STATES, Job, JobStore, State
from animate4d.serve.page import docs_page, index_page, page_policy
from animate4d.serve.problems import documented, install_problems
from animate4d.serve.submission import FIT, MAX_CLIPS, Fit, submitted_request
from animate4d.serve.webhooks import Webhooks

RETRY_SECONDS = 10
LOOK_SECONDS, BEAT_SECONDS = 0.3, 15.0
"""How often an event stream looks at its job, and says that it lives to proxies that cut silent connections."""

EVENT = {
    "type": "object",
    "properties": {
        "event": {"enum": list(STATES)},
        "data": {"type": "string", "contentMediaType": "application/json", "description": "An Animation."},
    },
    "required": ["event", "data"],
}

READING_AT_ONCE = threading.BoundedSemaphore(2)
"""Uploads being read; each may take gigabytes (see `assets.guarded.Limits`), and many may arrive together."""

VIEW_POLICY = "sandbox allow-scripts; frame-ancestors 'self'"
"""A result shown in the browser runs the viewer's script, but as a page of nobody: without this site's cookies."""


def create_app(
    config: ServeConfig,
    store: JobStore,
    submit: Callable[[str], None],
    *,
    models: Callable[[], list[dict[str, Any]]] = list,
    unready: Callable[[], str] = str,
    check: Callable[[JobStore, Job], None] | None = None,
    webhooks: Webhooks | None = None,
) -> FastAPI:
    """Build the app.

    Args:
        config: limits and tokens.
        store: where jobs live.
        submit: hands a queued job to the workers; returns at once.
        models: what GET /v1/models tells.
        unready: why no jobs can be taken now; empty when they can.
        check: looks at an upload before its job counts, and raises AssetError; `check_asset` by default.
        webhooks: checks their addresses; None where none can be sent.
    """
    tokens = Tokens(config.token_file) if config.token_file else None
    check = check or check_asset
    app = FastAPI(
        title="animate4d",
        version=__version__,
        description="Animate 3D models from a sentence.",
        docs_url=None,
        redoc_url=None,
    )
    install_problems(app)
    app.add_middleware(Gate, config=config, tokens=tokens)
    guarded = (401, 403, 429) if tokens else (403, 429)

    def existing(job_id: str, request: Request) -> Job:
        job = store.find(job_id)
        if job is None or (tokens is not None and job.client != request.state.client):
            raise HTTPException(404, f"there is no animation {job_id[:40]!r}")
        return job

    def told(job: Job) -> Animation:
        return describe(job, seconds_left(store, job, config.workers))

    def require_room(client: str) -> None:
        later = {"Retry-After": str(RETRY_SECONDS)}
        if reason := unready():
            raise HTTPException(503, reason, later)
        if shutil.disk_usage(store.root).free < config.min_free_mb * 10**6:
            raise HTTPException(503, "the service's disk is nearly full; tell whoever runs it", later)
        if store.open_count() >= config.max_queued:
            raise HTTPException(429, f"{config.max_queued} animations wait already; try again soon", later)
        if store.open_count(client) >= config.max_open_per_client:
            detail = f"{config.max_open_per_client} animations of yours wait already; try again when one has ended"
            raise HTTPException(429, detail, later)
        if (kept := store.kept_bytes(client)) >= config.max_kept_mb_per_client * 10**6:
            limit = f"{kept // 10**6} MB of the {config.max_kept_mb_per_client} MB that may be kept"
            raise HTTPException(429, f"your results take {limit}: delete some (DELETE {BASE}/ID)", later)

    def require_webhook(url: str) -> None:
        if url and webhooks is None:
            raise HTTPException(422, "webhook: this service has no secret to sign with; poll, or follow the events")
        try:
            if url and webhooks is not None:
                webhooks.check(url)
        except ConfigError as error:
            raise HTTPException(422, str(error)) from error

    @app.post(
        BASE,
        status_code=202,
        tags=["animations"],
        response_model=Animation,
        responses=documented(*guarded, 400, 408, 409, 413, 422, 503),
    )
    async def submit_animation(
        request: Request,
        asset: Annotated[UploadFile, File(description="GLB, OBJ or PLY file")],
        wanted: Annotated[dict[str, Any], Depends(submitted_request)],
        idempotency_key: Annotated[str, Header(max_length=200, description="A repeat makes no second job.")] = "",
    ) -> JSONResponse:
        """Submit a model and a sentence; poll the Location of the answer."""
        client, content, name = request.state.client, await asset.read(), safe_name(asset.filename or "")
        require_webhook(wanted["webhook"])
        digest = await run_in_threadpool(digest_of, wanted, content) if idempotency_key else ""
        # No await from here to `create`: a job is counted and its key taken before another request is looked at.
        job = store.with_key(client, idempotency_key)
        if job is None:
            require_room(client)
            job = store.create(wanted, name, client=client, key=idempotency_key, digest=digest)
            # A client that leaves cancels this task, but not the job, which its key finds again.
            await asyncio.shield(asyncio.ensure_future(run_in_threadpool(accept, job, content)))
        elif job.digest != digest:
            raise HTTPException(409, "idempotency-key: has been used for another request; send a new one")
        elif store.find(job.id) is None:
            raise HTTPException(409, "the first request of this key is still being read", {"Retry-After": "1"})
        return JSONResponse(told(job).model_dump(), 202, {"Location": f"{BASE}/{job.id}"})

    def accept(job: Job, content: bytes) -> None:
        """Check an upload, save its job and hand it over, or leave nothing of it: all in one thread."""
        try:
            store.receive(job, content)
            check(store, job)
            store.save(job)
        except AssetError as error:
            store.remove(job.id)
            detail = str(error).replace(f"{store.folder(job.id)}/", "")  # the client's name, not our path
            raise HTTPException(422, f"asset: {detail}") from error
        except BaseException:
            store.remove(job.id)
            raise
        submit(job.id)

    @app.get(BASE, tags=["animations"], responses=documented(*guarded, 404, 422))
    def list_animations(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        cursor: Annotated[str, Query(max_length=32, description="`next` of the page before.")] = "",
        state: Annotated[State | SkipJsonSchema[None], Query()] = None,
    ) -> AnimationPage:
        """List your animations, newest first."""
        open_now = {job.id: job for job in store.open_jobs()}
        saved = (open_now.get(job.id) if job.is_open else job for job in store.known())
        mine = (job for job in saved if job and (tokens is None or job.client == request.state.client))
        jobs = [job for job in mine if state is None or job.state == state]
        if cursor:
            after = [number for number, job in enumerate(jobs) if job.id == cursor]
            if not after:
                raise HTTPException(404, "cursor: is not known any more; begin again without it")
            jobs = jobs[after[0] + 1 :]
        page = jobs[:limit]
        return AnimationPage(animations=[told(job) for job in page], next=page[-1].id if len(jobs) > limit else None)

    @app.get(f"{BASE}/{{job_id}}", tags=["animations"], responses=documented(*guarded, 404))
    def show_animation(job_id: str, request: Request) -> Animation:
        """Tell the state, stage, progress and files of an animation."""
        return told(existing(job_id, request))

    @app.get(
        f"{BASE}/{{job_id}}/events",
        tags=["animations"],
        response_class=StreamingResponse,
        responses={
            200: {"content": {"text/event-stream": {"schema": EVENT}}},
            **documented(*guarded, 404),
        },
    )
    def follow_animation(job_id: str, request: Request) -> StreamingResponse:
        """Stream the animation as server-sent events, each named by its state, until it ends."""
        existing(job_id, request)

        async def events() -> AsyncIterator[str]:
            last, beat = 0.0, time.monotonic()
            while job := store.find(job_id):
                if job.updated > last:
                    last, beat = job.updated, time.monotonic()
                    yield f"event: {job.state}\ndata: {told(job).model_dump_json()}\n\n"
                elif time.monotonic() - beat > BEAT_SECONDS:
                    beat = time.monotonic()
                    yield ": still here\n\n"
                if not job.is_open:
                    return
                await asyncio.sleep(LOOK_SECONDS)

        return StreamingResponse(events(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    @app.get(
        f"{BASE}/{{job_id}}/preview",
        tags=["animations"],
        response_class=FileResponse,
        responses={200: {"content": {"image/webp": {}}}, **documented(*guarded, 404)},
    )
    def preview(job_id: str, request: Request) -> Response:
        """Give the pictures made so far: the views of the model, then the video its motion is fitted to."""
        path = store.folder(existing(job_id, request).id) / "preview.webp"
        if not path.is_file():
            raise HTTPException(404, "there is no picture yet")
        return Response(path.read_bytes(), media_type="image/webp", headers={"Cache-Control": "no-store"})

    file_answers: dict[int | str, dict[str, Any]] = {
        200: {"description": "The whole file.", "content": {"*/*": {}}},
        206: {"description": "The ranges asked for."},
        304: {"description": "Still what If-None-Match names."},
        400: {"description": "The Range header cannot be understood."},
        416: {"description": "The range lies outside of the file."},
        **documented(*guarded, 404),
    }

    def sent_file(job_id: str, name: str, request: Request, **settings: Any) -> Response:
        job = existing(job_id, request)
        file = next((file for file in job.files if file.name == name), None)
        if file is None:
            raise HTTPException(404, f"the animation has no file {name[:80]!r}")
        headers = {"ETag": f'"{file.sha256}"', "Cache-Control": "private, no-cache", **settings.pop("headers", {})}
        if headers["ETag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return FileResponse(store.folder(job.id) / file.path, filename=name, headers=headers, **settings)

    @app.get(
        f"{BASE}/{{job_id}}/files/{{name}}", tags=["animations"], response_class=FileResponse, responses=file_answers
    )
    def download_file(job_id: str, name: str, request: Request) -> Response:
        """Download one result file, or ranges of it; the ETag is its sha256."""
        return sent_file(job_id, name, request)

    @app.get(
        f"{BASE}/{{job_id}}/view/{{name}}", tags=["animations"], response_class=FileResponse, responses=file_answers
    )
    def view_file(job_id: str, name: str, request: Request) -> Response:
        """Show one result file in the browser instead of saving it."""
        policy = {"Content-Security-Policy": VIEW_POLICY}
        return sent_file(job_id, name, request, headers=policy, content_disposition_type="inline")

    @app.delete(f"{BASE}/{{job_id}}", status_code=202, tags=["animations"], responses=documented(*guarded, 404))
    def cancel_animation(job_id: str, request: Request) -> dict[str, str]:
        """Cancel an animation that waits or runs; deleting an ended one removes its files."""
        job = existing(job_id, request)
        if job.is_open:
            store.cancel(job_id)
            return {"id": job_id, "state": "cancelling"}
        store.remove(job_id)
        return {"id": job_id, "state": "removed"}

    @app.get("/v1/estimate", tags=["animations"], responses=documented(*guarded, 422))
    def estimate(fit: Annotated[Fit, Query()] = FIT, clips: Annotated[int, Query(ge=1, le=MAX_CLIPS)] = 1) -> Estimate:
        """Tell what an animation would take if it were submitted now."""
        work = work_seconds(store, {"fit": fit, "clips": clips})
        wait = wait_seconds(store, store.open_jobs(), config.workers)
        return Estimate(
            wait_seconds=None if wait is None else round(wait, 1), work_seconds=None if work is None else round(work, 1)
        )

    @app.get("/v1/models", tags=["service"], responses=documented(*guarded))
    def show_models() -> Models:
        """Tell which model animates."""
        return Models(models=models())

    @app.post("/v1/session", status_code=204, tags=["service"], responses=documented(*guarded))
    def open_session(request: Request) -> Response:
        """Keep the token of this request in a cookie, for what a browser loads by itself; scripts cannot read it."""
        answer = Response(status_code=204)
        if tokens is not None:
            given = request.headers["authorization"].removeprefix("Bearer ")
            secure = request.url.scheme == "https"
            answer.set_cookie(COOKIE, given, path="/v1/", httponly=True, samesite="strict", secure=secure)
        return answer

    @app.get("/healthz", tags=["service"])
    def healthz() -> Health:
        """Answer while the process lives."""
        return Health(status="ok")

    @app.get("/readyz", tags=["service"], responses={503: {"model": Health}})
    def readyz(response: Response) -> Health:
        """Answer 200 while jobs can be taken; else say why not."""
        reason = unready()
        if reason:
            response.status_code, response.headers["Retry-After"] = 503, str(RETRY_SECONDS)
        return Health(status="not ready" if reason else "ready", reason=reason or None)

    @app.get("/metrics", tags=["service"], response_class=PlainTextResponse)
    def metrics() -> PlainTextResponse:
        """Count jobs by state, for Prometheus."""
        store.open_jobs()  # looks at what has changed
        counts = dict.fromkeys(STATES, 0)
        for job in store.known():
            counts[job.state] += 1
        head = "# HELP animate4d_jobs Animations by state.\n# TYPE animate4d_jobs gauge\n"
        return PlainTextResponse(head + "".join(f'animate4d_jobs{{state="{s}"}} {n}\n' for s, n in counts.items()))

    @app.get("/", include_in_schema=False)
    def page() -> HTMLResponse:
        return HTMLResponse(index_page(tokens is not None), headers={"Content-Security-Policy": page_policy()})

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(app.openapi()), headers={"Content-Security-Policy": page_policy()})

    return app


def check_asset(store: JobStore, job: Job) -> None:
    """Read the upload once, so that a file nobody can animate is refused at the door.

    Raises:
        AssetError: the upload is no readable model.
    """
    with READING_AT_ONCE:
        check_untrusted(store.folder(job.id) / job.asset)


def digest_of(wanted: dict[str, Any], content: bytes) -> str:
    """Return what two requests with one Idempotency-Key must have in common."""
    return hash_json({"request": wanted, "asset": sha256(content).hexdigest()})


def safe_name(uploaded: str) -> str:
    """Turn an uploaded file name into a harmless one that keeps its stem and extension recognisable."""
    path = PurePath(uploaded.replace("\\", "/"))
    name = f"{slug(path.stem)}{path.suffix.lower()[:8]}"
    return name if NAME.fullmatch(name) else "asset"
