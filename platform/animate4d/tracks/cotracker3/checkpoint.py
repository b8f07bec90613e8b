"""The released checkpoints: tensors only, from a local path, every key and shape checked before anything is built.

`scaled_offline.pth`, `scaled_online.pth`, `baseline_offline.pth` and `baseline_online.pth` hold the same 188 tensors;
the rows of the time table tell the layouts apart. Weights and code of the authors are CC BY-NC 4.0; none are shipped.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from animate4d.core.errors import ModelError
from animate4d.core.hashing import hash_file
from animate4d.tracks.cotracker3.config import ONLINE_WINDOW, CoTracker3Config
from animate4d.tracks.cotracker3.model import CoTracker3

SOURCE = "huggingface.co/facebook/cotracker3 (CC BY-NC 4.0)"


def load_cotracker3(path: Path) -> tuple[CoTracker3, str]:
    """Load a checkpoint.

    Args:
        path: a `.pth` file of a CoTracker3 release, or one saved from a state dict of this network.

    Returns:
        The network on the CPU, ready for inference, and the sha256 of the file.

    Raises:
        ModelError: there is no such file, it holds anything but tensors, or it is not a CoTracker3 checkpoint.
    """
    state = read_state(path)
    table = state.get("time_emb")
    rows = table.shape[1] if isinstance(table, torch.Tensor) and table.ndim == 3 else 0
    with torch.device("meta"):
        model = CoTracker3(CoTracker3Config(online=rows == ONLINE_WINDOW, window=rows or ONLINE_WINDOW))
    check_fit(path, state, model.state_dict())
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    return model.eval().requires_grad_(False), hash_file(path)


def read_state(path: Path) -> Mapping[str, Any]:
    """Read the state dict of a checkpoint file, which may be wrapped as {"model": state dict}.

    Raises:
        ModelError: there is no such file, or it holds anything but tensors.
    """
    if not path.is_file():
        raise ModelError(
            f"CoTracker3 checkpoint {path}: there is no such file: get scaled_offline.pth (clips of 30-60 frames) or "
            f"scaled_online.pth (16 frames) from {SOURCE}"
        )
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise ModelError(
            f"CoTracker3 checkpoint {path} is damaged or holds more than tensors ({type(error).__name__}): "
            f"get it again from {SOURCE}"
        ) from error
    if isinstance(found, Mapping) and isinstance(found.get("model"), Mapping):
        found = found["model"]
    if not isinstance(found, Mapping):
        raise ModelError(f"CoTracker3 checkpoint {path} holds a {type(found).__name__}: expected named tensors")
    return found


def check_fit(path: Path, state: Mapping[str, Any], expected: Mapping[str, torch.Tensor]) -> None:
    """Compare names and shapes.

    Raises:
        ModelError: they differ; the one line counts the differences and gives the first of each kind.
    """
    missing = [name for name in expected if name not in state]
    unknown = [name for name in state if name not in expected]
    other = [
        f"{name} is {tuple(getattr(state[name], 'shape', ()))}, expected {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and getattr(state[name], "shape", None) != tensor.shape
    ]
    found = [("missing", missing), ("unknown", unknown), ("of another shape", other)]
    faults = [f"{len(names)} {kind} ({names[0]})" for kind, names in found if names]
    if faults:
        raise ModelError(
            f"{path} is not a CoTracker3 checkpoint: of {len(expected)} tensors {'; '.join(faults)}: "
            f"give scaled_offline.pth or scaled_online.pth, not a file of CoTracker 1 or 2"
        )
