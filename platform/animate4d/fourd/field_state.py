"""Checkpoints inside a fit: one safetensors file with all that a killed fit needs to end as if nothing had happened."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from animate4d.core.errors import ConfigError
from animate4d.io.atomic import write_bytes


class CheckpointError(ConfigError):
    """A checkpoint is damaged, or of another fit."""


@dataclass(kw_only=True, slots=True)
class Place:
    """Where a fit is.

    Attributes:
        stage: 0 reconstruction, 1 refinement, 2 done.
        steps: taken in each stage.
        losses: of the steps with all frames in this stage, for the plateau.
    """

    stage: int = 0
    steps: list[int] = field(default_factory=lambda: [0, 0])
    losses: list[float] = field(default_factory=list)


def fingerprint(settings: object, tensors: Iterable[Tensor | None]) -> str:
    """Return a hash of everything a fit depends on."""
    digest = hashlib.sha256(repr(settings).encode())
    for tensor in tensors:
        if tensor is not None:
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_state(path: Path, identity: str, place: Place, tensors: dict[str, Tensor]) -> None:
    """Write a checkpoint, whole or not at all."""
    notes = {"fit": identity, "place": json.dumps([place.stage, place.steps, place.losses])}
    write_bytes(path, save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, notes))


def load_state(path: Path, identity: str) -> tuple[Place, dict[str, Tensor]] | None:
    """Read a checkpoint; None where there is none.

    Raises:
        CheckpointError: it is damaged, or of another fit.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            notes = file.metadata() or {}
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"checkpoint {path} is damaged ({error}): delete it to start the fit anew") from error
    if notes.get("fit") != identity:
        raise CheckpointError(
            f"checkpoint {path} is of a fit with another object, video or settings: delete it or move it"
        )
    stage, steps, losses = json.loads(notes["place"])
    return Place(stage=stage, steps=steps, losses=losses), tensors


def adam_tensors(optimiser: torch.optim.Adam) -> dict[str, Tensor]:
    """Return an optimiser's state as named tensors."""
    states: dict[int, dict[str, Any]] = optimiser.state_dict()["state"]
    return {f"adam.{number}.{name}": value for number, state in states.items() for name, value in state.items()}


def restore_adam(optimiser: torch.optim.Adam, tensors: dict[str, Tensor]) -> None:
    """Give an optimiser the state that `adam_tensors` returned; other names are passed over."""
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("adam."):
            _, number, name = key.split(".")
            states.setdefault(int(number), {})[name] = value
    optimiser.load_state_dict(optimiser.state_dict() | {"state": states})
