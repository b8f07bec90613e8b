"""A checkpoint for another number of workers: AdamW's state joined to whole tensors and dealt out again.

Without ZeRO every worker keeps torch's own optimiser state, and the first one writes it. Under ZeRO-1 they share it:
all trained weights stand one behind the other in one flat vector, each worker keeps a stretch of it, and its file says
which part of which weight lies where. Joining needs the whole state in host memory on every worker: 8 bytes per trained
parameter.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from animate4d.training.engine import TAG, load_trusted

MOMENTS = ("exp_avg", "exp_avg_sq")

Moments = dict[str, dict[str, Tensor]]
"""Name of a trained weight -> its first and second moment, of the weight's shape."""


SHARD = "zero_pp_rank_{}_mp_rank_00_optim_states.pt"
"""File of one worker's stretch."""


def is_shared(folder: Path) -> bool:
    """Return whether the workers that wrote a checkpoint shared the optimiser's state."""
    return (folder / TAG / SHARD.format(0)).exists()


def load_resharded(engine: Any, folder: Path, world: int) -> None:
    """Load weights and optimiser state that `world` workers wrote into an engine of any number of workers.

    Args:
        engine: a new DeepSpeed engine over a `LossModule` of the same network.
        folder: a checkpoint of this project's own run, its hashes checked.
        world: workers that wrote it.
    """
    held = load_trusted(folder / TAG / "mp_rank_00_model_states.pt")
    engine.module.load_state_dict(held["module"])
    trained = {name: weight for name, weight in engine.module.named_parameters() if weight.requires_grad}
    moments, step = read_shards(folder, trained, world) if is_shared(folder) else read_whole(trained, held)
    if engine.zero_optimization_stage():
        deal_out(engine, trained, moments, step)
    else:
        put_whole(engine, trained, moments, step)
    for counter in ("global_steps", "global_samples", "skipped_steps"):
        setattr(engine, counter, held[counter])


def read_whole(trained: dict[str, nn.Parameter], held: dict[str, Any]) -> tuple[Moments, Tensor]:
    """Return the moments and the step count of a checkpoint in which nothing is shared."""
    states = held["optimizer"]["state"]
    moments = {name: {key: states[index][key] for key in MOMENTS} for index, name in enumerate(trained)}
    return moments, states[0]["step"]


def read_shards(folder: Path, trained: dict[str, nn.Parameter], world: int) -> tuple[Moments, Tensor]:
    """Return the moments and the step count of a checkpoint whose state `world` workers shared."""
    pieces: dict[str, dict[str, list[Tensor]]] = {name: defaultdict(list) for name in trained}
    step = torch.zeros(())
    for rank in range(world):
        shard = load_trusted(folder / TAG / SHARD.format(rank))["optimizer_state_dict"]
        flat = shard["base_optimizer_state"]["state"][0]
        step = flat["step"]
        for name, place in shard["param_slice_mappings"][0].items():
            for key in MOMENTS:
                pieces[name][key].append(flat[key].narrow(0, place.start, place.numel))
    joined = {
        name: {key: torch.cat(found[key]).view(trained[name].shape) for key in MOMENTS}
        for name, found in pieces.items()
    }
    return joined, step


def put_whole(engine: Any, trained: dict[str, nn.Parameter], moments: Moments, step: Tensor) -> None:
    """Give torch's optimiser the whole state."""
    for name, weight in trained.items():
        state = {key: value.to(weight.device, copy=True) for key, value in moments[name].items()}
        engine.optimizer.state[weight] = {"step": step.clone()} | state


def deal_out(engine: Any, trained: dict[str, Any], moments: Moments, step: Tensor) -> None:
    """Give ZeRO-1's optimiser this worker's stretch of weights and state."""
    zero = engine.optimizer
    flat = zero.single_partition_of_fp32_groups[0]
    state = {key: torch.zeros_like(flat) for key in MOMENTS}
    with torch.no_grad():
        for name, weight in trained.items():
            if weight._hp_mapping is None:  # lies wholly in another worker's stretch
                continue
            ours, whole = weight._hp_mapping.get_hp_fragment_address(), weight._hp_mapping.lp_fragment_address
            sources = {"": weight} | moments[name]
            for key, target in {"": flat, **state}.items():
                part = sources[key].detach().reshape(-1).narrow(0, whole.start, whole.numel)
                target.narrow(0, ours.start, ours.numel).copy_(part)
    zero.optimizer.state[flat] = {"step": step.clone()} | state
