"""Settings of the HTTP service."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from animate4d.core.errors import ConfigError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeConfig:
    """Serve animations over HTTP; submit with POST /v1/animations, try it in the browser at /."""

    host: str = "127.0.0.1"
    """Address to listen on; anything but loopback needs --token-file."""

    port: int = 8000
    """Port to listen on."""

    out: Path = Path("out/serve")
    """Folder of the jobs: uploads, states and results survive a restart here."""

    model: str = "shipped"
    """Model to animate with: shipped, a model folder, or models:/mv-vdm@champion."""

    tracking_uri: str | None = None
    """MLflow store to look `models:/` names up in; default $MLFLOW_TRACKING_URI, else mlflow.db in this folder."""

    workers: int = 1
    """Jobs that are worked on at once. A worker looks, fits and exports on one CPU; it needs no GPU."""

    generators: int = 1
    """Processes that hold the model and make videos for all workers, each with a GPU of its own where there are any."""

    batch: int = 4
    """Most videos, of different jobs, that a generator makes at once; fewer after they did not fit into its memory."""

    max_queued: int = 32
    """Jobs that may wait or run; a further one is answered 429 with Retry-After."""

    max_open_per_client: int = 16
    """Jobs of one client (a token, else an address) that may wait or run; a further one is answered 429."""

    max_kept_mb_per_client: int = 20_000
    """Results of one client that are kept, in MB; while there are more, its further jobs are answered 429."""

    requests_per_minute: int = 600
    """Requests of one client under /v1, in bursts of up to a tenth of that; a further one is answered 429."""

    max_upload_mb: int = 64
    """Largest request body in MB; a larger one is answered 413."""

    upload_seconds: int = 300
    """A body that takes longer to arrive is answered 408."""

    min_free_mb: int = 1000
    """Free disk in MB below which jobs are refused with 503."""

    keep: int = 1000
    """Ended jobs that are kept; the oldest are deleted with their files."""

    job_minutes: float = 60.0
    """A job that takes longer fails."""

    drain_seconds: int = 30
    """How long a running job may go on after SIGTERM or Ctrl-C before it is put back into the queue."""

    token_file: Path | None = None
    """File with the bearer tokens that every /v1 request must carry, one `NAME:TOKEN` a line (or one bare token). A
    name sees its own jobs only."""

    webhook_secret_file: Path | None = None
    """File with the key that webhooks are signed with; without one, no request may name a webhook."""

    webhook_hosts: tuple[str, ...] = ()
    """Hosts whose webhooks may be plain http or lead to private addresses."""

    def __post_init__(self) -> None:
        if self.host not in LOOPBACK and self.token_file is None:
            raise ConfigError(f"host is {self.host}: listening beyond this machine needs --token-file")
        for name in (
            "workers",
            "generators",
            "batch",
            "max_queued",
            "max_open_per_client",
            "max_kept_mb_per_client",
            "requests_per_minute",
            "max_upload_mb",
            "upload_seconds",
            "keep",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: expected at least 1")
        for name in ("min_free_mb", "drain_seconds"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: expected 0 or more")
        if not self.job_minutes > 0:
            raise ConfigError(f"job_minutes is {self.job_minutes}: expected more than 0")
