"""DeepSpeed around a model and its loss: ZeRO-1, AdamW, gradient clipping; bf16 autocast on GPUs, fp32 on CPUs.

Weights and optimiser state are fp32 everywhere. Nothing is compiled at run time.
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


def start_engine(module: LossModule, recipe: OptimizerConfig, micro_batch: int) -> Any:
    """Return a DeepSpeed engine over an existing torch process group.

    Args:
        module: already on its device.
        recipe: the optimiser's numbers.
        micro_batch: clips of this worker per step.
    """
    import deepspeed

    if module.device.type == "cpu":
        skip_cpu_kernel_build()
    deepspeed.utils.logger.setLevel(logging.WARNING)
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(
        weights, lr=recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay
    )
    engine, *_ = deepspeed.initialize(
        model=module, optimizer=optimizer, config=deepspeed_config(recipe, micro_batch), dist_init_required=False
    )
    return engine


def deepspeed_config(recipe: OptimizerConfig, micro_batch: int) -> dict[str, Any]:
    """Return DeepSpeed's own configuration."""
    return {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": recipe.clip,
        "zero_optimization": {"stage": 1},
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


def set_learning_rate(engine: Any, rate: float) -> None:
    """Set the rate of the next optimiser step."""
    for group in engine.optimizer.param_groups:
        group["lr"] = rate
