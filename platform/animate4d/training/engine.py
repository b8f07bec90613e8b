"""DeepSpeed around a model and its loss: AdamW, gradient clipping; bf16 autocast on GPUs, fp32 on CPUs.

Several workers share the optimiser's state (ZeRO-1). One alone has nothing to share: ZeRO would only copy weights and
gradients into flat buffers, a tenth of the time of a `smoke` step. Weights and optimiser state are fp32 everywhere.
Nothing is compiled at run time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
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


def start_engine(module: LossModule, recipe: OptimizerConfig, micro_batch: int, *, world: int) -> Any:
    """Return a DeepSpeed engine over an existing torch process group.

    Args:
        module: already on its device.
        recipe: the optimiser's numbers.
        micro_batch: clips of this worker per step.
        world: workers.
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
        model=module, optimizer=optimizer, config=deepspeed_config(recipe, micro_batch, world), dist_init_required=False
    )
    if world == 1:
        engine.enable_backward_allreduce = False  # would copy every gradient twice to sum it with nothing
    return engine


def deepspeed_config(recipe: OptimizerConfig, micro_batch: int, world: int) -> dict[str, Any]:
    """Return DeepSpeed's own configuration."""
    return {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": recipe.clip if world > 1 else 0.0,
        "zero_optimization": {"stage": 1 if world > 1 else 0},
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
    """Clip the gradients, change the weights, forget the gradients; return the norm before clipping."""
    if engine.zero_optimization_stage():
        engine.step()
        return float(engine.get_global_grad_norm())
    weights = [weight for group in engine.optimizer.param_groups for weight in group["params"]]
    norm = nn.utils.clip_grad_norm_(weights, clip)
    engine.step()
    return float(norm)
