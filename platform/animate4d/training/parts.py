"""The real parts of a training: MV-VDM, its objective, the clip stream, sample grids and the model folder."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from animate4d import __version__
from animate4d.core.errors import ConfigError
from animate4d.data.config import DataConfig
from animate4d.data.loader import open_stream
from animate4d.data.split import Split
from animate4d.io.atomic import atomic_folder
from animate4d.models.codec import codec_id
from animate4d.models.config import MVVDMConfig
from animate4d.models.mv_vdm import MVVDM
from animate4d.training.config import FRAME_STRIDE, HELD_OUT, TrainConfig
from animate4d.training.loop import Parts
from animate4d.training.metrics_log import NAME as METRICS
from animate4d.training.metrics_log import read_rows
from animate4d.training.objective import Objective
from animate4d.training.samples import SampleGrid
from animate4d.training.validation import VAL, Validation

TRACKER_NOTE = (
    "Point tracks were made with CoTracker3, whose weights are CC BY-NC 4.0. Labels made with them, and models trained "
    "on such labels, may inherit that licence."
)


def data_config(config: TrainConfig, model: MVVDMConfig) -> DataConfig:
    """Return what one worker reads."""
    optimizer = config.recipe().optimizer
    return DataConfig(
        shards=config.data,
        keep=config.keep_list,
        split=Split(share=config.held_out, part="train"),
        size=model.image_size,
        views=model.views,
        frames=model.frames,
        stride=FRAME_STRIDE[config.preset],
        frames_per_step=min(optimizer.frames_per_step, model.frames),
        tracker=config.tracker,
        tracker_checkpoint=config.tracker_checkpoint,
        tracker_precision=config.tracker_precision,
        labeller_gpus=config.labeller_gpus,
        labels=config.labels,
        batch_size=optimizer.batch_size // (config.workers * optimizer.accumulate),
        seed=config.seed,
        loader=config.loader,
    )


def make_parts(config: TrainConfig, rank: int, world: int) -> Parts:
    """Build what one worker trains. Rank 0 draws and validates held-out clips; without any, it draws trained ones."""
    model = make_model(config)
    model.execute(config.execution)
    objective = config.recipe().objective
    data = data_config(config, model.config)
    if config.latents is not None:
        data = replace(data, latents=config.latents, codec=codec_id(model.codec))
    unseen = replace(data, split=Split(share=config.held_out, part="held_out"))
    has_unseen = (config.out / HELD_OUT).exists()
    draws, validates = rank == 0 and config.sample_every, rank == 0 and config.validate_every and has_unseen
    return Parts(
        model=model,
        objective=Objective(objective),
        stream=open_stream(data, rank=rank, world=world),
        draw=SampleGrid(unseen if has_unseen else data).draw if draws else None,
        validate=Validation(unseen, objective, config.validate_clips) if validates else None,
        export=export_model,
    )


def make_model(config: TrainConfig) -> MVVDM:
    """Return a new model of the preset and its changes, or the one in `config.init`."""
    if config.init is None:
        return MVVDM(config.network())
    model = MVVDM.from_pretrained(config.init)
    if model.config.preset != config.preset:
        raise ConfigError(
            f"init: {config.init} holds a '{model.config.preset}' model: give --preset {model.config.preset}"
        )
    for name, wanted in config.model.given().items():
        if (held := getattr(model.config, name)) != wanted:
            raise ConfigError(f"model.{name} is {wanted!r}, but init {config.init} holds a model with {held!r}")
    return model


def export_model(model: nn.Module, folder: Path, facts: dict[str, Any]) -> None:
    """Write the model folder with a card that says how it came to be."""
    assert isinstance(model, MVVDM)
    resolved, step = facts["resolved"], facts["step"]
    rows = read_rows(folder.parent / METRICS)
    card = {
        "title": f"MV-VDM {resolved['preset']}",
        "training": {
            "steps": step,
            "workers": resolved["workers"],
            "precision": "bf16 autocast" if torch.cuda.is_available() else "fp32",
            "tracker": resolved["tracker"],
            **resolved["recipe"]["optimizer"],
            "finished": time.strftime("%Y-%m-%d", time.gmtime()),
            "animate4d": __version__,
        },
        "loss_weights": resolved["recipe"]["objective"],
        "data": resolved["data"],
        "training_loss": last_mean(rows),
        "held_out_loss": last_validation(rows),
    }
    if resolved["tracker"].startswith("cotracker3"):
        card["labels"] = TRACKER_NOTE
    with atomic_folder(folder) as fresh:
        model.save_pretrained(fresh, card)


def last_mean(rows: list[dict[str, Any]], count: int = 50) -> dict[str, str]:
    """Return the mean of every training term over the last rows, for people to read."""
    tail = rows[-count:]
    others = ("step", "lr", "grad_norm", "skipped_clips")
    names = [name for name in tail[-1] if name not in others and not name.startswith(VAL)] if tail else []
    return {
        name: f"{sum(row[name] for row in tail if name in row) / sum(name in row for row in tail):.4g}"
        for name in names
    }


def last_validation(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Return the last losses on held-out clips, for people to read; empty where there are none."""
    row: dict[str, Any] = next((row for row in reversed(rows) if f"{VAL}loss" in row), {})
    return {name.removeprefix(VAL): f"{value:.4g}" for name, value in row.items() if name.startswith(VAL)}
