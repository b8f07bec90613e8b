"""A training's run folder into MLflow afterwards, for a training during which the store was away."""

from __future__ import annotations

import json
from pathlib import Path

from animate4d.compute.paths import durable_path
from animate4d.core.errors import ConfigError, ToolError
from animate4d.runs.config import SyncRunConfig
from animate4d.runs.store import failures, tracking_uri
from animate4d.runs.training_run import STOPPED, TrainingRun, noted_store
from animate4d.training.worker import read_outcome


def sync_run(config: SyncRunConfig) -> int:
    """Bring MLflow up to date with a run folder; returns 0.

    Raises:
        ConfigError: the folder holds no training.
        ToolError: MLflow does not answer.
    """
    out = durable_path(config.run)
    if not (out / "config.json").is_file():
        raise ConfigError(f"{out}: holds no config.json, so it is not the run folder of a training")
    uri = tracking_uri(config.tracking_uri or noted_store(out))
    try:
        run_id = sync_training(out, uri=uri, register=config.register)
    except failures() as error:
        first = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ToolError(f"MLflow at {uri} does not answer ({first}): run the same command again later") from error
    print(f"{out} is in MLflow at {uri} as run {run_id}")
    return 0


def sync_training(out: Path, *, uri: str, register: bool = True) -> str:
    """Bring MLflow up to date with a run folder whose training has ended; returns the run id.

    Args:
        out: run folder.
        uri: of the store.
        register: register a finished model and make it the champion.
    """
    resolved = json.loads((out / "config.json").read_text())
    run = TrainingRun(out, name=resolved["job"]["run_name"] or out.name, resolved=resolved, uri=uri)
    run.catch_up()
    outcome = read_outcome(out)
    if (out / "model").is_dir():
        run.log_model(out / "model", register=register)
        run.end("FINISHED")
    elif outcome is not None and outcome["state"] == "failed":
        run.end("FAILED", outcome["message"])
    else:
        run.end("KILLED", STOPPED)
    return run.run_id
