"""A Python client of the service, with nothing but the standard library.

    from animate4d import Client
    animation = Client("http://127.0.0.1:8000").animate("barrel.glb", "a barrel bouncing").wait()
    animation.download("out")

A request that the service could not take yet (429, 503) or that broke on the way is sent again; an Idempotency-Key
makes a repeated submission the same job.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from animate4d.core.errors import UserError
from animate4d.io.atomic import temporary_name

OPEN_STATES = ("queued", "running")
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
LEAST_TIMEOUT = 2.0
"""Seconds that an answer may always take, however little of a `wait` is left."""

BLOCK = 1 << 20
PROBLEM = "application/problem+json"


class ServiceError(UserError):
    """The service refused a request, cannot be reached, or could not animate.

    Attributes:
        status: of the HTTP answer; 0 when there was none.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Client:
    """Speaks to one service.

    Args:
        url: of the service, e.g. http://127.0.0.1:8000.
        token: bearer token, where the service asks for one.
        patience: seconds for which a request that fails for now is tried again.
        timeout: seconds without a byte after which a connection counts as broken.
    """

    def __init__(self, url: str, token: str | None = None, *, patience: float = 300.0, timeout: float = 60.0) -> None:
        if not url.startswith(("http://", "https://")):
            raise ServiceError(f"url is {url!r}: give http://host:port or https://host")
        self.url, self.token = url.rstrip("/"), token
        self.patience, self.timeout = patience, timeout

    def animate(self, path: str | Path, prompt: str, **options: Any) -> RemoteAnimation:
        """Submit a model and a sentence; returns at once.

        Args:
            path: GLB, OBJ, PLY or splat file.
            prompt: what it should do.
            options: form fields of POST /v1/animations: seed, fit, clips, strength, loop, fps, formats, ...

        Raises:
            ServiceError: the file cannot be read, or the service refuses it.
        """
        path = Path(path)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ServiceError(f"{path}: cannot be read ({error.strerror})") from error
        fields = {"prompt": prompt, **options}
        body, kind = form(fields, path.name, content)
        headers = {"Content-Type": kind, "Idempotency-Key": uuid.uuid4().hex}
        with self.request("POST", "/v1/animations", body, headers) as answer:
            return RemoteAnimation(self, json.load(answer))

    def animation(self, job_id: str) -> RemoteAnimation:
        """Return an animation submitted before, by its id."""
        return RemoteAnimation(self, self.get(f"/v1/animations/{job_id}"))

    def animations(self, state: str | None = None) -> Iterator[RemoteAnimation]:
        """Give all of this client's animations, newest first."""
        wanted, cursor = f"&state={state}" if state else "", ""
        while True:
            page = self.get(f"/v1/animations?limit=100{wanted}{cursor}")
            yield from (RemoteAnimation(self, facts) for facts in page["animations"])
            if page["next"] is None:
                return
            cursor = f"&cursor={page['next']}"

    def get(self, path: str) -> Any:
        """Return the JSON that the service answers to GET."""
        with self.request("GET", path) as answer:
            return json.load(answer)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
    ) -> http.client.HTTPResponse:
        """Send a request until it is answered; returns the open answer, of which each part may take `timeout` seconds.

        Raises:
            ServiceError: the answer is a refusal, or there was none within `patience`.
        """
        sent = urllib.request.Request(self.url + path, body, headers or {}, method=method)  # noqa: S310
        if self.token:
            sent.add_unredirected_header("Authorization", f"Bearer {self.token}")
        until, pause = time.monotonic() + self.patience, FIRST_PAUSE
        while True:
            try:
                return urllib.request.urlopen(sent, timeout=timeout or self.timeout)  # type: ignore[no-any-return]  # noqa: S310
            except urllib.error.HTTPError as error:
                wait = error.headers.get("Retry-After")
                said = error.headers.get_content_type() == PROBLEM  # else it is the proxy's: a replica is away
                failed = ServiceError(explanation(error), error.code)
                if wait is None and (said or error.code < 500):
                    raise failed from None
                pause = float(wait) if wait and wait.isdigit() else pause
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "reason", None) or error
                failed = ServiceError(f"{self.url} cannot be reached ({reason}): is the service running?")
            if time.monotonic() + pause > until:
                raise failed from None
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


class RemoteAnimation:
    """An animation on the service.

    Attributes:
        facts: what the service last said of it; see `GET /v1/animations/{id}`.
    """

    def __init__(self, client: Client, facts: dict[str, Any]) -> None:
        self.client, self.facts = client, facts

    @property
    def id(self) -> str:
        """Its id, for `Client.animation`."""
        return str(self.facts["id"])

    @property
    def state(self) -> str:
        """What it was when last looked at: queued, running, done, failed or cancelled."""
        return str(self.facts["state"])

    def wait(
        self, timeout: float | None = None, progress: Callable[[dict[str, Any]], None] | None = None
    ) -> RemoteAnimation:
        """Wait until it is done; returns itself.

        Args:
            timeout: seconds to wait at most.
            progress: given the facts whenever they change.

        Raises:
            ServiceError: it failed, was cancelled or was removed, or the time is over.
        """
        until = float("inf") if timeout is None else time.monotonic() + timeout
        while self.state in OPEN_STATES:
            with suppress(OSError, http.client.HTTPException):  # a broken stream: the next one tells how it went on
                self._follow(until, progress)
            if self.state in OPEN_STATES:
                time.sleep(FIRST_PAUSE)
            if time.monotonic() > until:
                raise ServiceError(f"animation {self.id} is still {self.state} after {timeout:g} s")
        if self.state != "done":
            raise ServiceError(f"animation {self.id} {self.state}: {self.facts['error'] or 'somebody stopped it'}")
        return self

    def _follow(self, until: float, progress: Callable[[dict[str, Any]], None] | None) -> None:
        """Read server-sent events until the animation ends or the time is over."""
        timeout = max(LEAST_TIMEOUT, min(self.client.timeout, until - time.monotonic()))
        with self.client.request("GET", self.facts["links"]["events"], timeout=timeout) as answer:
            for line in answer:
                if line.startswith(b"data: "):
                    self.facts = json.loads(line.removeprefix(b"data: "))
                    if progress is not None:
                        progress(self.facts)
                if time.monotonic() > until:
                    return

    def download(self, folder: str | Path) -> list[Path]:
        """Save all files of a done animation into a folder; returns their paths. Each appears whole or not at all.

        Raises:
            ServiceError: it is not done, or a file arrived damaged.
        """
        if self.state != "done":
            raise ServiceError(f"animation {self.id} is {self.state}: wait() for it first")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        return [self._download(file, folder) for file in self.facts["files"]]

    def _download(self, file: dict[str, Any], folder: Path) -> Path:
        path = folder / Path(file["name"]).name
        temporary, digest = temporary_name(path), hashlib.sha256()
        try:
            with self.client.request("GET", file["href"]) as answer, open(temporary, "wb") as stream:
                while block := answer.read(BLOCK):
                    digest.update(block)
                    stream.write(block)
            if digest.hexdigest() != file["sha256"]:
                raise ServiceError(f"{file['name']} of animation {self.id} arrived damaged: download again")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return path

    def cancel(self) -> None:
        """Stop it; one that has ended is removed from the service with its files."""
        with self.client.request("DELETE", self.facts["links"]["self"]):
            pass


def form(fields: dict[str, Any], name: str, content: bytes) -> tuple[bytes, str]:
    """Return a multipart body and its content type; a list is a repeated field, None is left out."""
    border = uuid.uuid4().hex
    parts = []
    for field, value in fields.items():
        for one in value if isinstance(value, list | tuple) else [value]:
            if one is not None:
                head = f'--{border}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n'
                parts.append(f"{head}{one}\r\n".encode())
    safe = name.replace("\\", "").replace('"', "").replace("\r", "").replace("\n", "")
    head = f'--{border}\r\nContent-Disposition: form-data; name="asset"; filename="{safe}"\r\n\r\n'
    return b"".join([*parts, head.encode(), content, f"\r\n--{border}--\r\n".encode()]), (
        f"multipart/form-data; boundary={border}"
    )


def explanation(error: urllib.error.HTTPError) -> str:
    """Return the one line a refusal says."""
    try:
        return str(json.load(error)["detail"])
    except (ValueError, KeyError, TypeError, OSError):
        return f"the service answers {error.code} {error.reason}"
