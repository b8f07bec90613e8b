"""Training runs of the bench: how they are set up, and how two of them are compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from animate4d.bench.faults.tiny import TinyParts, steps_taken
from animate4d.bench.faults.workbench import Workbench
from animate4d.bench.faults.workers import Ended, train_forked
from animate4d.training.checkpoint import list_checkpoints
from animate4d.training.config import TrainConfig
from animate4d.training.metrics_log import NAME, read_rows

STEPS, EVERY = 12, 4
"""Optimiser steps of a run, and between two checkpoints."""

CHANGING = ("samples_per_second", "data_wait_share")
"""Numbers of a row that say how fast it went."""


def run_config(bench: Workbench, out: Path, **changes: Any) -> TrainConfig:
    """Return a short training on the sound shards; going on is always allowed."""
    base = TrainConfig(
        data=bench.shards,
        out=out,
        steps=STEPS,
        checkpoint_every=EVERY,
        warmup=3,
        held_out=0.0,
        sample_every=0,
        validate_every=0,
        resume=True,
        run_name="0",
    )
    return replace(base, **changes)


def go_on(config: TrainConfig, parts: TinyParts | None = None) -> Ended:
    """Start a run again with sound parts, as the next attempt."""
    return train_forked(replace(config, run_name=str(int(config.run_name or 0) + 1)), parts or TinyParts())


def undisturbed(bench: Workbench, workers: int) -> Path:
    """Return the folder of a run to which nothing happened; trained once."""
    out = bench.folder / f"undisturbed-{workers}"
    if not out.exists():
        ended = train_forked(run_config(bench, out, workers=workers), TinyParts())
        assert ended.outcome is not None, (out / "worker-0.log").read_text()
        assert ended.outcome["state"] == "finished", ended
    return out


def run_differences(first: Path, second: Path) -> int:
    """Count the steps with other items, the tensors of the last checkpoint, and the rows that differ between two runs.

    A second one that did not come to its end differs in every step.
    """
    if not (second / "model").is_dir():
        return STEPS
    one, other = steps_taken(first), steps_taken(second)
    steps = sum(one.get(at) != other.get(at) for at in one.keys() | other.keys())
    state, other_state = final_state(first), final_state(second)
    tensors = sum(
        name not in state or name not in other_state or not torch.equal(state[name], other_state[name])
        for name in state.keys() | other_state.keys()
    )
    return steps + tensors + (rows_of(first) != rows_of(second))


def same_weights(first: Path, second: Path) -> bool:
    """Return whether two runs ended with the same weights, up to the rounding of sums in another order."""
    state, other = (load_file(list_checkpoints(out)[-1] / "model.safetensors") for out in (first, second))
    return state.keys() == other.keys() and all(
        torch.allclose(state[name], other[name], rtol=1e-4, atol=1e-6) for name in state
    )


def final_state(out: Path) -> dict[str, torch.Tensor]:
    """Return weights, averaged weights and random states of the last checkpoint."""
    last = list_checkpoints(out)[-1]
    return {
        f"{file.stem}/{name}": tensor
        for file in sorted(last.glob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


def rows_of(out: Path) -> list[dict[str, Any]]:
    """Return the rows of metrics.jsonl without what says how fast it went."""
    return [{name: value for name, value in row.items() if name not in CHANGING} for row in read_rows(out / NAME)]
