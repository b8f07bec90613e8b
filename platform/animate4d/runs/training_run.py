"""A training run in MLflow, fed from the run folder: what MLflow lacks is brought up to date from metrics.jsonl."""

from __future__ import annotations

import json
import math
import re
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

BATCH_METRICS, BATCH_PARAMS = 1000, 100
"""MLflow's own limits per request."""

PICTURES = "samples"
PICTURE_NAME = re.compile(rf"{PICTURES}[+%]step[+%](\d+)[+%].*\.webp$")
"""How MLflow names the last file it writes of a logged picture."""

STOPPED = "stopped; resume goes on with this run"


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
        self.run_id = self._noted_run() or self._new_run(name)
        self._step = 0
        self._pictures: set[int] = set()
        if not self.client.get_run(self.run_id).data.params:
            self._describe(resolved)
        self._look()

    def log_rows(self, rows: Sequence[Row]) -> None:
        """Log rows of metrics.jsonl; steps that MLflow has already are left out."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        fresh = [row for row in rows if row["step"] > self._step]
        # Whole rows per request: what a request that failed half-way has left is told by its last step.
        together = BATCH_METRICS // max((len(row) for row in fresh), default=1)
        for start in range(0, len(fresh), together):
            batch = fresh[start : start + together]
            metrics = [
                Metric(name, float(value), now, row["step"])
                for row in batch
                for name, value in row.items()
                if math.isfinite(value)
            ]
            self.client.log_batch(self.run_id, metrics=metrics)
            self._step = batch[-1]["step"]

    def catch_up(self) -> None:
        """Log the rows and pictures that the run folder has and MLflow has not."""
        self._look()
        self.log_rows(read_rows(self.out / NAME))
        for image in sorted((self.out / "samples").glob("step-*.png")):
            self.log_picture(image, int(image.stem.removeprefix("step-")))

    def log_picture(self, image: Path, step: int) -> None:
        """Log a sample grid, shown in the run's image grid; one that MLflow has already is left out."""
        from PIL import Image

        if step in self._pictures:
            return
        with Image.open(image) as picture:
            self.client.log_image(self.run_id, picture.copy(), key=PICTURES, step=step)
        self._pictures.add(step)

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

    def _look(self) -> None:
        """See what MLflow has: a request whose answer was lost may have been done."""
        logged = self.client.get_run(self.run_id).data.metrics.get("step")
        self._step = int(logged) if logged is not None else 0
        names = (entry.path for entry in self.client.list_artifacts(self.run_id, "images"))
        self._pictures = {int(found[1]) for found in map(PICTURE_NAME.search, names) if found}

    def _noted_run(self) -> str | None:
        note = self.out / NOTE
        if not note.exists():
            return None
        noted = json.loads(note.read_text())
        if noted["uri"] != self.uri:
            return None
        self.client.update_run(noted["run_id"], status="RUNNING")
        return noted["run_id"]

    def _new_run(self, name: str) -> str:
        parent = experiment(self.client, self.uri, TRAINING)
        run_id = self.client.create_run(parent, run_name=name, tags={"run_folder": str(self.out)}).info.run_id
        # Noted at once: a store that goes away during the next requests must not get a second run when it is back.
        write_json(self.out / NOTE, {"uri": self.uri, "run_id": run_id, "experiment_id": parent})
        return run_id

    def _describe(self, resolved: dict[str, Any]) -> None:
        """Log the settings; parameters last, so that a run with parameters has both."""
        from mlflow.entities import Param

        self.client.log_dict(self.run_id, resolved, "config.json")
        params = [Param(key, value) for key, value in text_params(resolved).items()]
        for start in range(0, len(params), BATCH_PARAMS):
            self.client.log_batch(self.run_id, params=params[start : start + BATCH_PARAMS])


def noted_store(out: Path) -> str | None:
    """Return the URI of the store that a run folder's run was opened in, or None."""
    note = out / NOTE
    return json.loads(note.read_text())["uri"] if note.exists() else None
