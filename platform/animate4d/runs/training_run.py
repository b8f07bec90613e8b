"""A training run in MLflow, fed from the run folder: what MLflow lacks is brought up to date from metrics.jsonl."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from animate4d.io.atomic import write_json
from animate4d.runs.registry import register_model
from animate4d.runs.store import TRAINING, connect, experiment, text_params, tracking_uri
from animate4d.training.metrics_log import NAME, Row, read_rows

if TYPE_CHECKING:
    from mlflow import MlflowClient

NOTE = "mlflow.json"
"""File in the run folder that says which MLflow run it is."""

BATCH_METRICS = 1000
"""MLflow's own limit per request."""


class TrainingRun:
    """One MLflow run that belongs to one run folder, also across restarts.

    Attributes:
        run_id: MLflow's id.
        client: of the store.
    """

    def __init__(self, out: Path, *, name: str, resolved: dict[str, Any], uri: str | None = None) -> None:
        """Open the run noted in the folder, or make one.

        Args:
            out: run folder of a training.
            name: shown in MLflow.
            resolved: resolved config, logged as parameters and as `config.json`.
            uri: of the store; default as in `store.tracking_uri`.
        """
        self.out, self.uri = out, tracking_uri(uri)
        self.client: MlflowClient = connect(self.uri)
        self.run_id = self._noted_run() or self._new_run(name, resolved)
        logged = self.client.get_run(self.run_id).data.metrics.get("step")
        self._step = int(logged) if logged is not None else 0

    def log_rows(self, rows: Sequence[Row]) -> None:
        """Log rows of metrics.jsonl; steps that MLflow has already are left out."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        fresh = [row for row in rows if row["step"] > self._step]
        metrics = [
            Metric(name, float(value), now, row["step"])
            for row in fresh
            for name, value in row.items()
            if math.isfinite(value)
        ]
        for start in range(0, len(metrics), BATCH_METRICS):
            self.client.log_batch(self.run_id, metrics=metrics[start : start + BATCH_METRICS])
        if fresh:
            self._step = fresh[-1]["step"]

    def catch_up(self) -> None:
        """Log what metrics.jsonl has and MLflow has not."""
        self.log_rows(read_rows(self.out / NAME))

    def log_picture(self, image: Path, step: int) -> None:
        """Log a sample grid, shown in the run's image grid."""
        from PIL import Image

        with Image.open(image) as picture:
            self.client.log_image(self.run_id, picture.copy(), key="samples", step=step)

    def log_model(self, folder: Path, *, register: bool) -> None:
        """Log the model folder as artifact `model`, and make it the champion if asked."""
        self.client.log_artifacts(self.run_id, str(folder), "model")
        if register:
            register_model(self.client, self.run_id)

    def end(self, status: str, reason: str = "") -> None:
        """Close the run: FINISHED, FAILED or KILLED (stopped, to be resumed)."""
        if reason:
            self.client.set_tag(self.run_id, "reason", reason[:5000])
        self.client.set_terminated(self.run_id, status)

    def _noted_run(self) -> str | None:
        note = self.out / NOTE
        if not note.exists():
            return None
        noted = json.loads(note.read_text())
        if noted["uri"] != self.uri:
            return None
        self.client.update_run(noted["run_id"], status="RUNNING")
        return noted["run_id"]

    def _new_run(self, name: str, resolved: dict[str, Any]) -> str:
        from mlflow.entities import Param

        parent = experiment(self.client, self.uri, TRAINING)
        run_id = self.client.create_run(parent, run_name=name, tags={"run_folder": str(self.out)}).info.run_id
        params = [Param(key, value) for key, value in text_params(resolved).items()]
        for start in range(0, len(params), 100):
            self.client.log_batch(run_id, params=params[start : start + 100])
        self.client.log_dict(run_id, resolved, "config.json")
        write_json(self.out / NOTE, {"uri": self.uri, "run_id": run_id, "experiment_id": parent})
        return run_id


def sync_training(out: Path, *, uri: str | None = None, register: bool = False) -> str:
    """Bring a run folder into MLflow afterwards, for a training during which the store was away; returns the run id."""
    run = TrainingRun(out, name=out.name, resolved=json.loads((out / "config.json").read_text()), uri=uri)
    run.catch_up()
    for image in sorted((out / "samples").glob("step-*.png")):
        run.log_picture(image, int(image.stem.removeprefix("step-")))
    if (out / "model").is_dir():
        run.log_model(out / "model", register=register)
        run.end("FINISHED")
    else:
        run.end("KILLED")
    return run.run_id
