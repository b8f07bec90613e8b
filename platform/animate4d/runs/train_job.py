"""The training job: Ray Train followed by a progress line and MLflow."""

from __future__ import annotations

from animate4d.runs.callback import MlflowObserver
from animate4d.training.config import TrainConfig
from animate4d.training.launch import train
from animate4d.training.progress import ProgressLine

STOPPED = 130
"""Exit code after SIGINT or SIGTERM: a checkpoint was written, --resume goes on."""


def run_training(config: TrainConfig) -> int:
    """Train with progress on stderr and the run in MLflow; returns the exit code: 0 finished, 130 stopped and saved."""
    result = train(config, [ProgressLine(), MlflowObserver(config.tracking_uri, register=config.register)])
    return 0 if result.state == "finished" else STOPPED
