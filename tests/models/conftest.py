from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from animate4d.core.cameras import Rig
from animate4d.models.config import MVVDMConfig, paper, smoke
from animate4d.models.unet import MultiViewUNetMotionModel


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


@pytest.fixture
def published() -> MVVDMConfig:
    """The published network, shrunk: four levels, the deepest without attention, two attentions per motion module.

    More channels than groups, or the time and camera terms would cancel.
    """
    return replace(
        paper(),
        preset="published",
        image_size=64,
        frames=3,
        views=2,
        block_channels=(16, 16, 24, 24),
        layers_per_block=1,
        heads=4,
        norm_groups=4,
        text_dim=12,
        image_embed_dim=20,
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


@pytest.fixture
def network(shake) -> Callable[..., MultiViewUNetMotionModel]:
    """Build a network that speaks, in double precision: two ways of computing the same agree to many digits."""

    def built(config: MVVDMConfig, *, shaken: bool = True) -> MultiViewUNetMotionModel:
        torch.manual_seed(7)
        unet = MultiViewUNetMotionModel(config, in_channels=config.input_channels, out_channels=config.output_channels)
        if shaken:
            shake(unet)
        return unet.double().eval()

    return built


@pytest.fixture
def arguments() -> Callable[..., dict[str, torch.Tensor]]:
    """Draw a network's arguments, in double precision; every sample and view has its own."""

    def drawn(
        config: MVVDMConfig,
        *,
        samples: int = 2,
        views: int = 2,
        frames: int = 3,
        size: tuple[int, int] | None = None,
    ) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(4)

        def draw(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        height, width = size or (config.latent_size, config.latent_size)
        rigs = np.stack([Rig.even(views, start_deg=20.0 * sample).camera_to_world() for sample in range(samples)])
        return {
            "sample": draw(samples, views, frames, config.input_channels, height, width),
            "timestep": torch.tensor([900, 100, 500][:samples]),
            "encoder_hidden_states": draw(samples, 5, config.text_dim),
            "camera": torch.tensor(rigs),
            "frame_index": torch.stack([torch.arange(frames) * (1 + sample) for sample in range(samples)]),
            "pooled_text": draw(samples, config.text_dim),
            "image_embeds": draw(samples, views, config.image_embed_dim),
        }

    return drawn
