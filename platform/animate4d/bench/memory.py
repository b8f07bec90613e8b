"""How much memory a piece of work takes at its peak, weights included.

On a GPU: the allocator's peak. On a CPU: the work runs in a process of its own, whose peak resident memory is read from
the kernel after it was reset; what the process held before the model was built is taken off, libraries warmed up by a
toy network. `python -m animate4d.bench.memory` is that process.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from animate4d.bench.loops import run_our_loop
from animate4d.bench.resident import reset_peak, resident_bytes, resident_peak
from animate4d.bench.works import WORKS, Plan, Work, training_plan
from animate4d.training.engine import skip_cpu_kernel_build

LOOP_STEPS = 6
"""Steps whose peak is taken: the optimiser's state exists from the first one on."""


def peak_bytes(name: str, plan: Plan) -> int:
    """Return the peak bytes of one of `works.WORKS`, or of "training loop", on the plan's device."""
    if plan.device == "cpu":
        order = json.dumps({"work": name, "plan": asdict(plan), "threads": torch.get_num_threads()})
        done = subprocess.run(
            [sys.executable, "-m", "animate4d.bench.memory"], input=order, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"measuring the memory of {name} failed:\n{done.stderr}")
        return int(done.stdout.splitlines()[-1])
    device = torch.device(plan.device)
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    build_and_run(name, plan)
    return torch.cuda.max_memory_allocated(device) - before


def build_and_run(name: str, plan: Plan) -> None:
    """Build the work and do it: once, or a few steps of training."""
    if name == "training loop":
        run_our_loop(training_plan(plan), 1, LOOP_STEPS, lambda: None, [])
        return
    work: Work = WORKS[name](plan)
    for _ in range(LOOP_STEPS if name.startswith("training") else 1):
        work()


def main() -> None:
    """Measure what standard input asks for and print the bytes."""
    order: dict[str, Any] = json.loads(sys.stdin.read())
    torch.set_num_threads(order["threads"])
    plan = Plan(**order["plan"])
    warm_up(order["work"], plan)
    before = resident_bytes()
    reset_peak()
    build_and_run(order["work"], plan)
    print(resident_peak() - before)


def warm_up(name: str, plan: Plan) -> None:
    """Load what libraries load at their first use, with a toy network; DeepSpeed counts as a library too."""
    tokens = nn.Linear(64, 64)(torch.randn(1, 4, 256, 64, requires_grad=True))
    seen = nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
    maps = nn.GroupNorm(8, 64)(
        nn.Conv2d(64, 64, 3, padding=1)(seen.flatten(0, 1).transpose(1, 2).unflatten(2, (16, 16)))
    )
    maps.sum().backward()
    if name == "training loop":
        skip_cpu_kernel_build()  # imports DeepSpeed
    del tokens, seen, maps
    gc.collect()


if __name__ == "__main__":
    main()
