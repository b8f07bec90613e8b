"""A batch in MLflow: one run with parameters, sums, a table with a row per object, and a few files. No child runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from animate4d.runs.store import BATCHES, Guard, connect, experiment, text_params, tracking_uri

TABLE = "rows.json"


class BatchRun:
    """Context of one batch. Where MLflow is away, every call does nothing after one warning.

    Attributes:
        run_id: MLflow's id, None while the store is away.
    """

    def __init__(self, name: str, *, uri: str | None = None, where: str = "the batch folder") -> None:
        """Remember name and store; `where` is said to hold the results when MLflow is away."""
        self.name, self.uri = name, tracking_uri(uri)
        self.run_id: str | None = None
        self._guard = Guard(self.uri, f"the batch goes on, its results are in {where}")

    def __enter__(self) -> BatchRun:
        def open_run() -> None:
            self._client = connect(self.uri)
            parent = experiment(self._client, self.uri, BATCHES)
            self.run_id = self._client.create_run(parent, run_name=self.name).info.run_id

        self._guard.attempt(open_run)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(lambda run: self._client.set_terminated(run, "FINISHED" if kind is None else "FAILED"))

    def log_params(self, values: dict[str, Any]) -> None:
        """Log settings; nested ones get dotted names. A setting can be logged once."""
        for key, value in text_params(values).items():
            self._do(lambda run, key=key, value=value: self._client.log_param(run, key, value))

    def log_metrics(self, values: dict[str, float], step: int = 0) -> None:
        """Log numbers, for example how many rows are done and failed."""
        for key, value in values.items():
            self._do(lambda run, key=key, value=value: self._client.log_metric(run, key, float(value), step=step))

    def log_rows(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows to the run's table; columns are the union of all rows' keys, a missing value is empty."""
        if rows:
            columns = list(dict.fromkeys(key for row in rows for key in row))
            table = {column: [row.get(column, "") for row in rows] for column in columns}
            self._do(lambda run: self._client.log_table(run, table, TABLE))

    def log_file(self, path: Path, folder: str | None = None) -> None:
        """Log a file as artifact, below `folder` if given."""
        self._do(lambda run: self._client.log_artifact(run, str(path), folder))

    def _do(self, action: Any) -> None:
        if self.run_id is not None:
            self._guard.attempt(lambda: action(self.run_id))
