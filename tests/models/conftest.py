from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from animate4d.models.config import MVVDMConfig, smoke


@pytest.fixture
def tiny() -> MVVDMConfig:
    """The smoke network, shrunk: 2 views of 3 frames at 16 px."""
    return replace(
        smoke(),
        preset="tiny",
        image_size=16,
        frames=3,
        views=2,
        codec_factor=4,
        latent_channels=48,
        block_channels=(16, 16),
        heads=2,
        norm_groups=4,
        text_dim=16,
        flow_size=8,
    )


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def shake() -> Callable[[torch.nn.Module], None]:
    """Give every parameter a value of its fan-in's scale, so that zero-initialised outputs speak."""

    def shaken(module: torch.nn.Module) -> None:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in module.parameters():
                fan = parameter[0].numel() if parameter.dim() > 1 else 16
                parameter.add_(torch.randn(parameter.shape, generator=generator) / fan**0.5)

    return shaken
