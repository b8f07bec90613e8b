from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from animate4d.bench.works import Plan
from animate4d.models.config import MVVDMConfig, paper, paper_sd21, smoke


def _shrunk(config: MVVDMConfig) -> MVVDMConfig:
    """A preset's structure at sizes that take milliseconds."""
    if config.preset == "smoke":
        sizes = {"image_size": 16, "codec_factor": 4, "latent_channels": 48, "flow_size": 8, "block_channels": (16, 32)}
    else:
        heads = {"heads": (1, 2, 2, 2), "motion_heads": 2} if isinstance(config.heads, tuple) else {"heads": 2}
        sizes = {"image_size": 64, "block_channels": (16, 32, 32, 32), "image_embed_dim": 24, "text_slots": 5, **heads}
    return replace(config, frames=3, views=2, norm_groups=4, text_dim=16, **sizes)


@pytest.fixture(
    params=[smoke, *(pytest.param(preset, marks=pytest.mark.slow) for preset in (paper, paper_sd21))],
    ids=lambda preset: preset.__name__,
)
def tiny(request) -> MVVDMConfig:
    """Every structure a preset has."""
    return _shrunk(request.param())


@pytest.fixture
def shrunk():
    """(configuration of a preset) -> the same at a size that takes milliseconds."""
    return _shrunk


@pytest.fixture
def make_plan():
    """(config, changed fields) -> what pieces of work are built from, on the CPU."""

    def make(config: MVVDMConfig, **changes) -> Plan:
        plan = Plan(
            config=config.to_json(),
            recipe="smoke" if config.preset == "smoke" else "paper",
            clips=1,
            steps=3,
            guidance=2.0,
            device="cpu",
            precision="fp32",
            execution={},
            seed=0,
        )
        return replace(plan, **changes)

    return make


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)
