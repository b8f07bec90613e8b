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
    """Model replicas; each animates one object at a time."""

    max_queued: int = 32
    """Jobs that may wait; a further one is answered 429 with Retry-After."""

    max_upload_mb: int = 64
    """Largest request body in MB; a larger one is answered 413."""

    token_file: Path | None = None
    """File whose one line is the bearer token every /v1 request must carry."""

    def __post_init__(self) -> None:
        if self.host not in LOOPBACK and self.token_file is None:
            raise ConfigError(f"host is {self.host}: listening beyond this machine needs --token-file")
        for name in ("workers", "max_queued", "max_upload_mb"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: expected at least 1")
