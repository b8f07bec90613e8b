"""Exponential moving average of the trained weights, kept in fp32 on the device that trains (rank 0 only)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """Averages a model's trained weights: average = decay * average + (1 - decay) * weight, from the first step."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.average = {name: weight.detach().float().clone() for name, weight in trained(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after an optimiser step."""
        weights = [weight.detach().float() for weight in trained(model).values()]
        torch._foreach_lerp_(list(self.average.values()), weights, 1.0 - self.decay)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Give the model the averaged weights for the duration of a block."""
        weights = trained(model)
        own = {name: weight.detach().clone() for name, weight in weights.items()}
        try:
            self.copy_to(model)
            yield
        finally:
            with torch.no_grad():
                for name, weight in weights.items():
                    weight.copy_(own[name])

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Overwrite the model's trained weights with the average."""
        for name, weight in trained(model).items():
            weight.copy_(self.average[name])

    def load(self, average: dict[str, Tensor]) -> None:
        """Take over an average that was saved; it must have exactly this model's names."""
        assert average.keys() == self.average.keys(), "the saved average belongs to another model"
        for name, tensor in average.items():
            self.average[name].copy_(tensor)


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that the optimiser changes, by name."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
