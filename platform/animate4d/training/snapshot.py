"""Everything a run needs to go on bit for bit: DeepSpeed state, random states, data cursor, average, weights, config.

Files of one checkpoint: `deepspeed/` (sharded, pickles), `rank-00.safetensors` and `rank-00.json` per worker (random
states; cursor), `model.safetensors` (consolidated fp32 weights), `ema.safetensors`, `config.json`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from animate4d.data.order import Cursor
from animate4d.io.atomic import write_json
from animate4d.training.checkpoint import partial_folder
from animate4d.training.ema import Ema
from animate4d.training.engine import capture_engine, load_engine
from animate4d.training.group import Group
from animate4d.training.resharding import is_shared, load_resharded
from animate4d.training.writer import NOTE, CheckpointWriter


def save_snapshot(
    writer: CheckpointWriter,
    step: int,
    *,
    engine: Any,
    ema: Ema | None,
    generator: torch.Generator,
    cursor: Cursor,
    resolved: dict[str, Any],
    group: Group,
) -> str:
    """Copy the state after `step` steps and let the writer make it a checkpoint; every worker must call.

    Args:
        writer: writes the copies; waits for the checkpoint before this one.
        step: optimiser steps done.
        engine: DeepSpeed engine over a `LossModule`.
        ema: rank 0's average, None elsewhere or without one.
        generator: this worker's noise generator.
        cursor: where the data goes on.
        resolved: resolved config of the run.
        group: the workers.

    Returns:
        Why the checkpoint before could not be written, or "". Whether this one could is told later.
    """
    failure = writer.begin(step)
    if failure:
        return failure
    files: dict[str, Callable[[Path], None]] = {
        name: partial(torch.save, content) for name, content in capture_engine(engine, partial_folder(writer.out, step))
    }
    files[f"rank-{group.rank:02d}.safetensors"] = partial(save_file, random_states(generator))
    if group.rank == 0:
        files["model.safetensors"] = partial(save_file, copied(engine.module.model.state_dict()))
        if ema is not None:
            files["ema.safetensors"] = partial(save_file, copied(ema.average))
        files["config.json"] = partial(write_json, value=resolved)
    writer.write(step, files, {"step": step, "cursor": asdict(cursor)})
    return ""


def load_snapshot(
    folder: Path, *, engine: Any, ema: Ema | None, generator: torch.Generator, seed: int, group: Group
) -> tuple[int, Cursor]:
    """Bring a sound checkpoint back; check the folder's hashes first.

    One that another number of workers wrote is dealt out anew. A worker that was not there draws its noise from a seed
    of its own, which repeats nobody's.

    Args:
        folder: the checkpoint.
        engine: a new engine of this run.
        ema: rank 0's average, or None.
        generator: this worker's noise generator.
        seed: of the run.
        group: the workers.

    Returns:
        Its step, and where the data goes on; the same on all workers.
    """
    state = json.loads((folder / NOTE.format(0)).read_text())
    world = json.loads((folder / "config.json").read_text())["workers"]
    if world == group.world and is_shared(folder) == bool(engine.zero_optimization_stage()):
        load_engine(engine, folder)
    else:
        load_resharded(engine, folder, world)
    if ema is not None:
        ema.load(load_file(folder / "ema.safetensors"))
    if group.rank < world:
        set_random_states(load_file(folder / f"rank-{group.rank:02d}.safetensors"), generator)
    else:
        generator.manual_seed(int(np.random.SeedSequence((seed, group.rank, state["step"])).generate_state(1)[0]))
    return state["step"], Cursor(**state["cursor"])


def copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return copies on the CPU that share no memory with anything, as safetensors wants them."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


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
