"""Jobs as folders on disk: `<root>/<id>/{state.json, asset.<ext>, preview.webp, result/}`.

The disk is the truth, so a restarted service finds its jobs again. A state is written whole (temporary file, rename) by
one process at a time: the API until the job is handed over, then the worker that has claimed it. Cancelling drops an
empty file `cancel` beside the state, which the worker looks for between steps.

The API is the only one that makes jobs, so it keeps them all in memory (about a kilobyte each) and reads from disk only
those that are open, because a worker may have changed them.
"""

from __future__ import annotations

import fcntl
import json
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from animate4d.core.hashing import hash_file
from animate4d.io.atomic import sync_file, sync_folder, temporary_name, write_json

State = Literal["queued", "running", "done", "failed", "cancelled"]
STATES: tuple[State, ...] = get_args(State)
OPEN_STATES = ("queued", "running")
JOB_ID = re.compile(r"[0-9a-f]{32}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultFile:
    """One file of a result.

    Attributes:
        name: one path part, so that it can stand in a URL.
        path: relative to the job's folder.
        bytes: size.
        sha256: hex digest of the content.
    """

    name: str
    path: str
    bytes: int
    sha256: str


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
        client: who submitted it: the name of a token, or an address.
        error: one line for a failed job.
        key: Idempotency-Key of the request, or empty.
        digest: sha256 of what was submitted under the key, or empty.
        attempts: times a worker has begun; one that died leaves its attempt counted.
        told: whether the webhook has been sent, or given up.
        preview: pictures shown so far; the last one is `preview.webp`.
        files: the result, once done.
        created, updated, started, ended: Unix seconds; 0 for what has not happened.
    """

    id: str
    state: State = "queued"
    stage: str = ""
    progress: float = 0.0
    request: dict[str, Any]
    asset: str
    client: str = ""
    error: str = ""
    key: str = ""
    digest: str = ""
    attempts: int = 0
    told: bool = False
    preview: int = 0
    files: tuple[ResultFile, ...] = ()
    created: float
    updated: float
    started: float = 0.0
    ended: float = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the job waits or runs."""
        return self.state in OPEN_STATES


class JobStore:
    """The jobs below one folder. Looks at every job once, when it is made; after that no call reads all of them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self._jobs: dict[str, Job] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._open: dict[str, str] = {}
        found = (_read(folder) for folder in root.iterdir() if JOB_ID.fullmatch(folder.name))
        for job in sorted((job for job in found if job), key=lambda job: job.created):
            self._note(job)

    def create(
        self, request: dict[str, Any], asset_name: str, *, client: str = "", key: str = "", digest: str = ""
    ) -> Job:
        """Enter a queued job in memory: it counts as open and owns its key, but nobody finds it before `save`."""
        now = time.time()
        job = Job(
            id=secrets.token_hex(16),
            request=request,
            asset=asset_name,
            client=client,
            key=key,
            digest=digest,
            created=now,
            updated=now,
        )
        self._note(job)
        return job

    def receive(self, job: Job, asset: bytes) -> None:
        """Write the upload of a job that was just created, for somebody to check before `save`."""
        folder = self.folder(job.id)
        folder.mkdir(mode=0o700)
        (folder / job.asset).write_bytes(asset)

    def save(self, job: Job) -> None:
        """Put a job whose upload is there on disk; from now on it survives a restart, and a power cut.

        Everything is written before anything is synced: the first sync then takes most of the rest along, which halves
        the time. A power cut in between leaves a half that `remove_halves` deletes; nobody was told of it.
        """
        folder = self.folder(job.id)
        state = folder / "state.json"
        written = temporary_name(state)
        written.write_text(json.dumps(asdict(job)))
        written.replace(state)
        for file in (folder / job.asset, state):
            sync_file(file)
        for place in (folder, self.root):
            sync_folder(place)
        self._note(job)

    def folder(self, job_id: str) -> Path:
        """Return the folder of a job."""
        return self.root / job_id

    def find(self, job_id: str) -> Job | None:
        """Return a job as it is now, or None when there is none of that id."""
        known = self._jobs.get(job_id)
        if known is not None and not known.is_open:
            return known
        job = _read(self.folder(job_id)) if JOB_ID.fullmatch(job_id) else None
        if job is not None:
            self._note(job)
        return job

    def known(self) -> Iterator[Job]:
        """Give all jobs as last seen, newest first, without reading the disk."""
        return iter(list(reversed(self._jobs.values())))

    def open_jobs(self) -> list[Job]:
        """Return the jobs that wait or run as they are now, oldest first."""
        found = [self.find(job_id) for job_id in list(self._open)]
        return [job for job in found if job is not None and job.is_open]

    def open_count(self, client: str | None = None) -> int:
        """Return how many jobs wait or run, of one client or of all, from memory."""
        if client is None:
            return len(self._open)
        return list(self._open.values()).count(client)

    def kept_bytes(self, client: str) -> int:
        """Return the bytes of a client's results, from memory."""
        return sum(file.bytes for job in self.known() if job.client == client for file in job.files)

    def with_key(self, client: str, key: str) -> Job | None:
        """Return the job that a client's Idempotency-Key has already made; it may not be saved yet."""
        return self._jobs.get(self._keys.get((client, key), ""))

    def update(self, job_id: str, **changes: Any) -> Job:
        """Change fields of a job and store it; returns the new state."""
        current = self.find(job_id)
        assert current, job_id
        job = replace(current, updated=time.time(), **changes)
        self._write(job)
        return job

    def finish(self, job_id: str, state: State, error: str = "") -> Job:
        """Store how a job ended; a done one lists its files, hashed."""
        files = self._result_files(job_id) if state == "done" else ()
        share = {"progress": 1.0} if state == "done" else {}
        return self.update(job_id, state=state, stage="", error=error, files=files, ended=time.time(), **share)

    def cancel(self, job_id: str) -> None:
        """Ask the worker to stop; it notices between two steps."""
        (self.folder(job_id) / "cancel").touch()

    def is_cancelled(self, job_id: str) -> bool:
        """Return whether somebody asked to stop this job."""
        return (self.folder(job_id) / "cancel").exists()

    def remove(self, job_id: str) -> None:
        """Delete a job and all its files."""
        shutil.rmtree(self.folder(job_id), ignore_errors=True)
        self._open.pop(job_id, None)
        job = self._jobs.pop(job_id, None)
        if job is not None:
            self._keys.pop((job.client, job.key), None)

    def remove_oldest(self, keep: int) -> None:
        """Delete ended jobs with their files until no more than `keep` are left."""
        ended = [job.id for job in self.known() if not job.is_open]
        for job_id in ended[keep:]:
            self.remove(job_id)

    def remove_halves(self) -> None:
        """Delete the uploads that a killed API left without a state."""
        for folder in self.root.iterdir():
            if JOB_ID.fullmatch(folder.name) and folder.name not in self._jobs:
                shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def claim(self, job_id: str) -> Iterator[Job | None]:
        """Hold a job against other processes; waits for the one that holds it, which may die to let go.

        Gives the job as it is then, None when it is gone.
        """
        try:
            lock = open(self.folder(job_id) / "claim", "w")  # noqa: SIM115
        except FileNotFoundError:
            yield None
            return
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self.find(job_id)

    def is_claimed(self, job_id: str) -> bool:
        """Return whether a living process works on a job."""
        try:
            with open(self.folder(job_id) / "claim") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        return False

    def drain(self, until: float) -> None:
        """Tell all workers to begin no job, and to put back what they have at a Unix time."""
        write_json(self.root / "drain.json", {"until": until})

    def drain_end(self) -> float | None:
        """Return when running jobs are put back; None unless the service drains."""
        try:
            return float(json.loads((self.root / "drain.json").read_text())["until"])
        except FileNotFoundError:
            return None

    def open_again(self) -> None:
        """End draining."""
        (self.root / "drain.json").unlink(missing_ok=True)

    def _result_files(self, job_id: str) -> tuple[ResultFile, ...]:
        folder = self.folder(job_id)
        paths = sorted(path for path in (folder / "result").rglob("*") if path.is_file())
        return tuple(
            ResultFile(
                name="-".join(path.relative_to(folder / "result").parts),
                path=path.relative_to(folder).as_posix(),
                bytes=path.stat().st_size,
                sha256=hash_file(path),
            )
            for path in paths
        )

    def _write(self, job: Job) -> None:
        write_json(self.folder(job.id) / "state.json", asdict(job))
        self._note(job)

    def _note(self, job: Job) -> None:
        known = self._jobs.get(job.id)
        if known is not None and not known.is_open and job.is_open:
            return  # an ended job stays ended: another thread read the disk before it ended
        self._jobs[job.id] = job
        if job.key:
            self._keys[job.client, job.key] = job.id
        if job.is_open:
            self._open[job.id] = job.client
        else:
            self._open.pop(job.id, None)


def _read(folder: Path) -> Job | None:
    try:
        facts = json.loads((folder / "state.json").read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None  # nothing there, or what a power cut left of it
    facts["files"] = tuple(ResultFile(**file) for file in facts.get("files", ()))
    return Job(**facts)
