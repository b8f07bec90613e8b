"""What a client sees: the answers of the contract as models, from which the OpenAPI file is made."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from animate4d.serve.job_store import Job, State

BASE = "/v1/animations"


class File(BaseModel):
    """One file of a result."""

    name: str
    bytes: int
    sha256: str
    href: str


class Links(BaseModel):
    """Where the rest of an animation is."""

    self: str
    events: str
    preview: str | None = Field(description="An animated WebP of what has been made so far; null while there is none.")
    viewer: str | None = Field(description="The result as a page that turns and plays it; null until done.")


class Animation(BaseModel):
    """An animation: what was asked, how far it is, and what came out."""

    id: str
    state: State
    stage: str = Field(description="What the worker is doing; empty while it waits and once it has ended.")
    progress: float = Field(ge=0, le=1)
    estimate_seconds: float | None = Field(description="Predicted time until it is done; null while unknown.")
    error: str | None = Field(description="Why it failed, in one line.")
    request: dict[str, Any]
    created: float = Field(description="Unix seconds.")
    updated: float = Field(description="Unix seconds.")
    links: Links
    files: list[File] = Field(description="Empty until done.")


class AnimationPage(BaseModel):
    """Animations, newest first."""

    animations: list[Animation]
    next: str | None = Field(description="The cursor of the next page; null on the last.")


class Estimate(BaseModel):
    """What an animation would take if it were submitted now; null while no such job has ended yet."""

    wait_seconds: float | None
    work_seconds: float | None


class Models(BaseModel):
    """The models that animate."""

    models: list[dict[str, Any]]


class Health(BaseModel):
    """Whether the service lives, or can take jobs."""

    status: str
    reason: str | None = None


def describe(job: Job, left: float | None) -> Animation:
    """Return what a client sees of a job of which `left` seconds are left."""
    here = f"{BASE}/{job.id}"
    links = Links(
        self=here,
        events=f"{here}/events",
        preview=f"{here}/preview?{job.preview}" if job.preview else None,
        viewer=f"{here}/view/viewer.html" if any(file.name == "viewer.html" for file in job.files) else None,
    )
    return Animation(
        id=job.id,
        state=job.state,
        stage=job.stage,
        progress=round(job.progress, 3),
        estimate_seconds=None if left is None else round(left, 1),
        error=job.error or None,
        request={**job.request, "asset": job.asset},
        created=job.created,
        updated=job.updated,
        links=links,
        files=[
            File(name=file.name, bytes=file.bytes, sha256=file.sha256, href=f"{here}/files/{file.name}")
            for file in job.files
        ],
    )
