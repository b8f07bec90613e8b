"""Everything a run needs to go on bit for bit: DeepSpeed state, random states, data cursor, average, weights, config.

Files of one checkpoint: `deepspeed/` (sharded, pickles), `rank-00.safetensors` and `rank-00.json` per worker (random
states; cursor), `model.safetensors` (consolidated fp32 weights), `ema.safetensors`, `config.json`.
"""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from animate4d.data.order import Cursor
from animate4d.io.atomic import write_json
from animate4d.training.checkpoint import checkpoint_folder, partial_folder, prune, seal
from animate4d.training.ema import Ema
from animate4d.training.group import Group

TAG = "deepspeed"


def save_snapshot(
    out: Path,
    step: int,
    *,
    engine: Any,
    ema: Ema | None,
    generator: torch.Generator,
    cursor: Cursor,
    resolved: dict[str, Any],
    keep: int,
    group: Group,
) -> Path:
    """Write the checkpoint after `step` steps; every worker must call.

    Args:
        out: run folder.
        step: optimiser steps done.
        engine: DeepSpeed engine over a `LossModule`.
        ema: rank 0's average, None elsewhere or without one.
        generator: this worker's noise generator.
        cursor: where the data goes on.
        resolved: resolved config of the run.
        keep: newest checkpoints kept.
        group: the workers.

    Raises:
        OSError, RuntimeError: a file could not be written; the checkpoints before stay as they were.
    """
    partial, final = partial_folder(out, step), checkpoint_folder(out, step)
    if group.rank == 0:
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
    group.barrier()
    engine.save_checkpoint(str(partial), tag=TAG, save_latest=False)
    save_file(random_states(generator), partial / f"rank-{group.rank:02d}.safetensors")
    write_json(partial / f"rank-{group.rank:02d}.json", {"step": step, "cursor": asdict(cursor)})
    if group.rank == 0:
        weights = engine.module.model.state_dict()
        save_file({name: plain(tensor) for name, tensor in weights.items()}, partial / "model.safetensors")
        if ema is not None:
            save_file({name: plain(tensor) for name, tensor in ema.average.items()}, partial / "ema.safetensors")
        write_json(partial / "config.json", resolved)
    group.barrier()
    if group.rank == 0:
        for script in partial.glob("*.py"):  # DeepSpeed's converter; the consolidated weights make it needless
            script.unlink()
        seal(partial, final)
        prune(out, keep)
    group.barrier()
    return final


def load_snapshot(
    folder: Path, *, engine: Any, ema: Ema | None, generator: torch.Generator, group: Group
) -> tuple[int, Cursor]:
    """Bring a sound checkpoint back; returns its step and data cursor. Check the folder's hashes first."""
    state = json.loads((folder / f"rank-{group.rank:02d}.json").read_text())
    engine.load_checkpoint(str(folder), tag=TAG)
    if ema is not None:
        ema.load(load_file(folder / "ema.safetensors"))
    set_random_states(load_file(folder / f"rank-{group.rank:02d}.safetensors"), generator)
    return state["step"], Cursor(**state["cursor"])


def plain(tensor: Tensor) -> Tensor:
    """Return a contiguous copy on the CPU; safetensors refuses tensors that share memory."""
    return tensor.detach().cpu().contiguous().clone()


def random_states(generator: torch.Generator) -> dict[str, Tensor]:
    """Return the state of every random number generator of this process."""
    version, words, gauss = random.getstate()
    assert version == 3
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    states = {
        "torch": torch.get_rng_state(),
        "noise": generator.get_state(),
        "python": torch.tensor(words, dtype=torch.int64),
        "python_gauss": torch.tensor([gauss is not None, gauss or 0.0], dtype=torch.float64),
        "numpy": torch.from_numpy(np.asarray(keys, np.int64)),
        "numpy_rest": torch.tensor([position, has_gauss, cached], dtype=torch.float64),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: dict[str, Tensor], generator: torch.Generator) -> None:
    """Put every random number generator of this process back."""
    torch.set_rng_state(states["torch"])
    generator.set_state(states["noise"])
    has_gauss, gauss = states["python_gauss"].tolist()
    random.setstate((3, tuple(states["python"].tolist()), gauss if has_gauss else None))
    position, numpy_gauss, cached = states["numpy_rest"].tolist()
    np.random.set_state(("MT19937", states["numpy"].numpy().astype(np.uint32), int(position), int(numpy_gauss), cached))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
