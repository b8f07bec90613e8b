"""Where MLflow keeps runs, how to reach it quickly, and what happens while it is away.

Default store: one SQLite file, `mlflow.db`, with the artifacts beside it in `mlartifacts/`. Nothing that talks to
MLflow may end a training or a batch: a failure is one warning, after which the run goes on without it.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from animate4d.compute.paths import durable_path

if TYPE_CHECKING:
    from mlflow import MlflowClient

TRAINING, BATCHES = "animate4d-training", "animate4d-batches"
"""Names of the two experiments."""

SQLITE = "sqlite:///"
SETTINGS = {
    # MLflow's own patience lasts minutes before it says that a server is away.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""MLflow's environment where the user has not set it."""

T = TypeVar("T")


def tracking_uri(given: str | None = None) -> str:
    """Return the store's URI, absolute: the given one, else $MLFLOW_TRACKING_URI, else `mlflow.db` in this folder.

    Relative SQLite paths and plain folders are made absolute as in `compute.paths`: inside a Ray job's temporary copy
    they would be lost with it.
    """
    uri = given or os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}mlflow.db"
    if uri.startswith(SQLITE):
        return f"{SQLITE}{durable_path(Path(uri.removeprefix(SQLITE)))}"
    return uri if ":" in uri else str(durable_path(Path(uri)))


def connect(uri: str) -> MlflowClient:
    """Return a client of the store. The first call imports MLflow (seconds) and may create the SQLite file."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if uri.startswith(SQLITE):
        Path(uri.removeprefix(SQLITE)).parent.mkdir(parents=True, exist_ok=True)
    import mlflow

    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    # Artifact downloads look the store up in this global rather than in the client.
    mlflow.set_tracking_uri(uri)
    return mlflow.MlflowClient(tracking_uri=uri)


def experiment(client: MlflowClient, uri: str, name: str) -> str:
    """Return the id of an experiment, made on first use; a local store's artifacts lie beside its database."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    location = None
    if uri.startswith(SQLITE):
        location = (Path(uri.removeprefix(SQLITE)).parent / "mlartifacts" / name).as_uri()
    return client.create_experiment(name, artifact_location=location)


class Guard:
    """Runs what may fail because MLflow is away; says so once per absence and skips the rest until it tries again.

    Attributes:
        away: whether the last attempt failed.
    """

    def __init__(self, uri: str, consequence: str, *, patience: float = math.inf) -> None:
        """Remember the store and what to say.

        Args:
            uri: of the store.
            consequence: ends the warning, for example where the numbers still are.
            patience: seconds after a failure for which attempts are skipped.
        """
        self.uri, self.consequence = uri, consequence
        self.away = False
        self._patience = patience
        self._next = 0.0

    def attempt(self, action: Callable[[], T]) -> T | None:
        """Return what the action returns, or None if MLflow is away."""
        if self.away and time.monotonic() < self._next:
            return None
        try:
            result = action()
        except failures() as error:
            if not self.away:
                first = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
                sys.stderr.write(f"warning: MLflow at {self.uri} does not answer ({first}); {self.consequence}\n")
            self.away, self._next = True, time.monotonic() + self._patience
            return None
        if self.away:
            sys.stderr.write(f"MLflow at {self.uri} answers again\n")
        self.away = False
        return result

    def retry(self) -> None:
        """Let the next attempt try again at once."""
        self._next = 0.0


def failures() -> tuple[type[Exception], ...]:
    """Return the exceptions by which an MLflow store says that it is away, read-only or full."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError, OSError)


def text_params(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Turn nested settings into MLflow parameters: dotted names, texts of at most 500 characters."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= text_params(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)[:500]
    return flat
