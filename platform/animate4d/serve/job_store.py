"""Jobs as folders on disk: `<root>/<id>/{state.json, asset.<ext>, result/}`.

The disk is the truth, so a restarted service finds its jobs again: those that were running start over. A state is
written whole (temporary file, rename) by one process at a time: the API until the job is handed over, then the worker.
Cancelling drops an empty file `cancel` beside the state, which the worker looks for between steps.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from animate4d.io.atomic import write_json

OPEN_STATES = ("queued", "running")
JOB_ID = re.compile(r"[0-9a-f]{32}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What is known of one animation.

    Attributes:
        id: 32 hex digits, unguessable.
        state: queued, running, done, failed or cancelled.
        stage: what the worker is doing; empty while queued.
        progress: share done, 0 to 1.
        request: prompt, seed and options as submitted.
        asset: file name of the upload inside the job's folder.
        error: one line for a failed job.
        key: Idempotency-Key of the request, or empty.
        created, updated: Unix seconds.
    """

    id: str
    state: str = "queued"
    stage: str = ""
    progress: float = 0.0
    request: dict[str, Any]
    asset: str
    error: str = ""
    key: str = ""
    created: float
    updated: float


class JobStore:
    """The jobs below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def create(self, request: dict[str, Any], asset_name: str, asset: bytes, key: str = "") -> Job:
        """Store an upload and its request as a queued job."""
        now = time.time()
        job = Job(id=secrets.token_hex(16), request=request, asset=asset_name, key=key, created=now, updated=now)
        folder = self.folder(job.id)
        folder.mkdir(mode=0o700)
        (folder / asset_name).write_bytes(asset)
        self._write(job)
        return job

    def folder(self, job_id: str) -> Path:
        """Return the folder of a job."""
        return self.root / job_id

    def find(self, job_id: str) -> Job | None:
        """Return a job, or None when there is none of that id."""
        path = self.folder(job_id) / "state.json"
        if not JOB_ID.fullmatch(job_id) or not path.is_file():
            return None
        return Job(**json.loads(path.read_text()))

    def all(self) -> list[Job]:
        """Return every job, oldest first."""
        found = (self.find(folder.name) for folder in self.root.iterdir())
        return sorted((job for job in found if job), key=lambda job: job.created)

    def open_jobs(self) -> list[Job]:
        """Return the jobs that wait or run, oldest first."""
        return [job for job in self.all() if job.state in OPEN_STATES]

    def with_key(self, key: str) -> Job | None:
        """Return the job an Idempotency-Key has already made."""
        return next((job for job in self.all() if key and job.key == key), None)

    def update(self, job_id: str, **changes: Any) -> Job:
        """Change fields of a job and store it; returns the new state."""
        current = self.find(job_id)
        assert current, job_id
        job = replace(current, updated=time.time(), **changes)
        self._write(job)
        return job

    def cancel(self, job_id: str) -> None:
        """Ask the worker to stop; it notices between two steps."""
        (self.folder(job_id) / "cancel").touch()

    def is_cancelled(self, job_id: str) -> bool:
        """Return whether somebody asked to stop this job."""
        return (self.folder(job_id) / "cancel").exists()

    def remove(self, job_id: str) -> None:
        """Delete a job and all its files."""
        shutil.rmtree(self.folder(job_id))

    def files(self, job_id: str) -> dict[str, Path]:
        """Return the result files by name; nested ones are named with '-' for '/', so a name is one path part."""
        result = self.folder(job_id) / "result"
        paths = sorted(path for path in result.rglob("*") if path.is_file())
        return {"-".join(path.relative_to(result).parts): path for path in paths}

    def _write(self, job: Job) -> None:
        write_json(self.folder(job.id) / "state.json", asdict(job))
