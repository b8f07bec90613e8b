"""Settings of the job that brings a run folder into MLflow afterwards. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncRunConfig:
    """Send MLflow what it lacks of a training that has ended: rows, pictures, the model.

    What is there already is left alone, so the same command can be run again.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_FOLDER")]
    """Run folder of the training (its --out)."""
    tracking_uri: str | None = None
    """MLflow store; default the one the training began in, else $MLFLOW_TRACKING_URI, else mlflow.db in this folder."""
    register: bool = True
    """Register a finished model in MLflow as `mv-vdm` and make it the champion."""
