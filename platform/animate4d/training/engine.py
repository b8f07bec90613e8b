"""DeepSpeed around a model and its loss: AdamW, gradient clipping; bf16 autocast on GPUs, fp32 on CPUs.

Several workers may share the optimiser's state (ZeRO-1), for its memory. It copies weights and gradients into flat
buffers: beside two CPU workers of `smoke` 122 ms of a step's 607 ms of CPU time. Without it DeepSpeed averages nothing,
`average_gradients` does. Weights and optimiser state are fp32 everywhere. Nothing is compiled at run time.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from animate4d.training.recipe import OptimizerConfig

Objective = Callable[..., dict[str, Tensor]]
"""(model, batch, generator) -> terms of the loss; "loss" is their weighted sum."""


class LossModule(nn.Module):
    """Model and objective as the one module DeepSpeed drives; forward returns the terms of the loss."""

    def __init__(self, model: nn.Module, objective: Objective, device: torch.device) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.device = device

    def forward(self, batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the loss terms of one batch, in fp32."""
        on_gpu = self.device.type == "cuda"
        with torch.autocast("cuda", torch.bfloat16) if on_gpu else nullcontext():
            return self.objective(self.model, batch, generator)


def start_engine(module: LossModule, recipe: OptimizerConfig, micro_batch: int, *, zero: bool) -> Any:
    """Return a DeepSpeed engine over an existing torch process group.

    Args:
        module: already on its device.
        recipe: the optimiser's numbers.
        micro_batch: clips of this worker that pass the network at a time.
        zero: whether the workers share the optimiser's state.
    """
    import deepspeed

    if module.device.type == "cpu":
        skip_cpu_kernel_build()
    deepspeed.utils.logger.setLevel(logging.WARNING)
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(
        weights, lr=recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True
    )
    engine, *_ = deepspeed.initialize(
        model=module, optimizer=optimizer, config=deepspeed_config(recipe, micro_batch, zero), dist_init_required=False
    )
    if not zero:
        engine.enable_backward_allreduce = False
    return engine


def deepspeed_config(recipe: OptimizerConfig, micro_batch: int, zero: bool) -> dict[str, Any]:
    """Return DeepSpeed's own configuration."""
    return {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": recipe.accumulate,
        "gradient_clipping": recipe.clip if zero else 0.0,
        "zero_optimization": {"stage": int(zero)},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }


def skip_cpu_kernel_build() -> None:
    """Tell DeepSpeed that its shared-memory collective cannot be built here.

    It would otherwise be compiled at the first start: a minute and a half, and an error where ninja is missing. gloo
    does the same work.
    """
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def leave_group() -> None:
    """Destroy the process group with DeepSpeed's references to it, so that this process may make another one."""
    import deepspeed

    deepspeed.comm.destroy_process_group()


def set_learning_rate(engine: Any, rate: float) -> None:
    """Set the rate of the next optimiser step."""
    for group in engine.optimizer.param_groups:
        group["lr"] = rate


def optimizer_step(engine: Any, clip: float) -> float:
    """Average and clip the gradients, change the weights, forget the gradients; return the norm before clipping.

    Before it, every part of an accumulated step but the last ends with `engine.step()` alone, which counts it.
    """
    if engine.zero_optimization_stage():
        engine.step()
        return float(engine.get_global_grad_norm())
    weights = [weight for group in engine.optimizer.param_groups for weight in group["params"]]
    average_gradients(weights)
    norm = nn.utils.clip_grad_norm_(weights, clip)
    engine.step()
    return float(norm)


def average_gradients(weights: list[nn.Parameter]) -> None:
    """Give every worker the mean of all workers' gradients, in one exchange.

    A weight that one worker's loss does not depend on counts there as one of gradient zero.
    """
    world = dist.get_world_size()
    if world == 1:
        return
    gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
    flat = torch.cat([gradient.flatten() for gradient in gradients]).div_(world)
    dist.all_reduce(flat)
    parts = flat.split([gradient.numel() for gradient in gradients])
    for weight, gradient, part in zip(weights, gradients, parts, strict=True):
        weight.grad = gradient.copy_(part.view_as(gradient))


TAG = "deepspeed"
"""Folder of DeepSpeed's files in a checkpoint."""


def capture_engine(engine: Any, folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield (path in the checkpoint, content) of what DeepSpeed would save on this worker, copied to host memory.

    Args:
        engine: the engine; every worker must call.
        folder: the checkpoint's; it must exist and gets DeepSpeed's empty folders.
    """
    own = engine.checkpoint_engine
    engine.checkpoint_engine = holder = Holder()
    try:
        engine.save_checkpoint(str(folder), tag=TAG, save_latest=False)
    finally:
        engine.checkpoint_engine = own
    for script in folder.glob("*.py"):  # DeepSpeed's converter; the consolidated weights make it needless
        script.unlink(missing_ok=True)
    for path, content in holder.held.items():
        yield Path(path).relative_to(folder).as_posix(), content


class Holder:
    """Stands in for DeepSpeed's checkpoint engine and keeps copies instead of writing files."""

    def __init__(self) -> None:
        self.held: dict[str, Any] = {}

    def save(self, state_dict: Any, path: str) -> None:
        """Keep a copy."""
        self.held[path] = copy_to_host(state_dict)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Make a folder."""
        Path(path).mkdir(parents=True, exist_ok=exist_ok)

    def create(self, info: Any) -> None:
        """Do nothing: there is no file yet."""

    def commit(self, info: Any) -> bool:
        """Say that all is well."""
        return True

    def is_decoupled(self) -> bool:
        """Return False: for DeepSpeed, saving is over when `save` returns."""
        return False


def copy_to_host(value: Any) -> Any:
    """Return a deep copy with every tensor on the CPU; views become tensors of their own."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        copied = copy.copy(value)
        copied.update((key, copy_to_host(inner)) for key, inner in value.items())
        return copied
    if type(value) in (list, tuple):
        return type(value)(copy_to_host(inner) for inner in value)
    return copy.deepcopy(value)


def load_engine(engine: Any, folder: Path) -> None:
    """Bring back what DeepSpeed saved with as many workers; check the folder's hashes first."""
    engine.load_checkpoint(str(folder), tag=TAG)


def load_trusted(path: Path) -> Any:
    """Read one of DeepSpeed's files, a pickle: only from a checkpoint of our own whose hashes were checked."""
    return torch.load(path, map_location="cpu", weights_only=False)
