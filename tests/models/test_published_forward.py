"""The network and the sampling loop against numbers of the published ones, which are not needed here.

The numbers were computed with the classes of Animate3D (github.com/yanqinJiang/Animate3D at commit 033a1be: its U-Net,
the processors as its inference script installs them, its pipeline) under diffusers 0.28.0, in float64 (sampling in
float32), holding the weights and inputs of `numbers`. Sizes that the script fixes for 256 px were set to the ones here.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from animate4d.core.cameras import Rig
from animate4d.models import mv_vdm
from animate4d.models.config import MVVDMConfig, paper
from animate4d.models.layouts.animate3d import theirs
from animate4d.models.mv_vdm import MVVDM
from animate4d.models.sampler import Sampler, Subjects
from animate4d.models.sampler_config import FreeInitConfig, SamplerConfig
from animate4d.models.text import TextStates
from animate4d.models.unet import MultiViewUNetMotionModel

TOLERANCE = 1e-5
"""Of the largest value a tensor has; float32 was found to be off by less than 7e-7."""

OUTPUT = (1.117626, 0.205624, -1.243768, -0.785761, 0.552298, 1.065505, -0.679163, -0.60524)
OUTPUT_SPREAD, OUTPUT_PEAK = 1.078945, 3.989322
FEATURES = {
    "down_blocks.1": (-6.029953, 13.490109, 5.153439),
    "mid_block": (23.59825, 9.005945, 16.097026),
    "up_blocks.0.resnets.1": (-18.406177, -11.468085, -7.456734),
    "up_blocks.1.motion_modules.1.temporal": (-0.564994, -0.396535, -1.375184),
    "up_blocks.1.motion_modules.1.spatial": (-0.215727, 0.289473, 0.479328),
    "up_blocks.1.motion_modules.1": (32.989502, 6.743793, -13.432858),
    "up_blocks.1": (26.962391, 21.430626, 14.709035),
    "up_blocks.2.attentions.1": (13.135156, 11.21099, 17.27252),
}
GRADIENTS = {
    "camera_embedding.linear_1.weight": 5.8158451e-3,
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_q_i2v.weight": 1.0543638e-2,
    "mid_block.motion_modules.0.transformer_blocks.0.attn2.processor.to_k_sp.weight": 1.3115110e-3,
    "up_blocks.1.attentions.1.transformer_blocks.0.attn2.processor.to_k_ip.0.weight": 2.9955613e-3,
    "up_blocks.2.motion_modules.0.transformer_blocks.0.attn1.processor.alpha_blender.mix_factor": 5.2776918e-4,
}
"""Norms, under the published names."""

SAMPLED = (
    (9.019386, -23.087179, -14.136352, 4.195298, -2.690948, -0.88231, 0.649434, -5.951689),
    (2.438824, -4.402718, -15.26182, 13.044724, -1.172345, 4.022452, -9.402178, 11.636769),
)
SAMPLED_PEAK = 76.0
"""Latents of frames 1 to 3 after one round and after two rounds of FreeInit, and about their largest."""


def numbers(name: str, *shape: int) -> torch.Tensor:
    """Return float64 numbers of unit variance that depend on their name and index alone."""
    word = np.arange(math.prod(shape), dtype=np.uint32) * np.uint32(2654435761) + np.uint32(zlib.crc32(name.encode()))
    for shift, factor in ((16, 2246822507), (13, 3266489909), (16, 1)):
        word = (word ^ (word >> np.uint32(shift))) * np.uint32(factor)
    return torch.from_numpy((word / 2**31 - 1) * 3**0.5).reshape(shape)


def published_weight(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Return a weight on its fan-in's scale; nothing is silent, blends are uneven."""
    drawn = numbers(name, *shape)
    if len(shape) > 1:
        return drawn * (1.3 / math.prod(shape[1:]) ** 0.5)
    if "norm" in name and name.endswith("weight"):
        return 1 + 0.2 * drawn
    return drawn * (1.5 if name.endswith("mix_factor") else 0.3)


def fill(network: nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(published_weight(theirs(name), tuple(parameter.shape)))


def cameras(objects: int, views: int) -> torch.Tensor:
    """Return cameras turned every way, 3 units away."""
    about_z, about_x, _ = numbers("camera/angles", objects, views, 3).unbind(-1)
    matrix = torch.eye(4, dtype=torch.float64).repeat(objects, views, 1, 1)
    for column, turn in ((0, about_z), (1, about_z + math.pi / 2)):
        matrix[..., 0, column], matrix[..., 1, column] = turn.cos(), turn.sin()
    tilt = torch.eye(4, dtype=torch.float64).repeat(objects, views, 1, 1)
    for column, turn in ((1, about_x), (2, about_x + math.pi / 2)):
        tilt[..., 1, column], tilt[..., 2, column] = turn.cos(), turn.sin()
    matrix = matrix @ tilt
    place = numbers("camera/positions", objects, views, 3)
    matrix[..., :3, 3] = 3 * place / place.norm(dim=-1, keepdim=True)
    return matrix.float()


def spread(values: torch.Tensor, count: int) -> torch.Tensor:
    """Return `count` of the values, evenly spread."""
    flat = values.detach().flatten()
    return flat[[len(flat) * (2 * index + 1) // (2 * count) for index in range(count)]]


def assert_near(values: torch.Tensor, expected: tuple[float, ...], peak: float) -> None:
    torch.testing.assert_close(
        spread(values, len(expected)), torch.tensor(expected), rtol=0.0, atol=TOLERANCE * peak, check_dtype=False
    )


@pytest.fixture
def published() -> MVVDMConfig:
    """The released network, narrow: more channels than groups, another width at every depth."""
    return replace(
        paper(),
        preset="narrow",
        image_size=64,
        block_channels=(64, 96, 128),
        attention_levels=(True, True, False),
        spatial_levels=(True, True, True),
        layers_per_block=1,
        tap="up_blocks.1",
        text="words",
        text_dim=32,
        image_embed_dim=16,
    )


def test_forward_pass_features_and_gradients(published):
    network = MultiViewUNetMotionModel(published, in_channels=4, out_channels=4).eval()
    fill(network)
    objects, views, frames = 2, 3, 3
    output, features = network(
        numbers("sample", objects, views, frames, 4, 8, 8).float(),
        torch.tensor([961, 41]),
        numbers("text", objects, 7, 32).float(),
        camera=cameras(objects, views),
        frame_index=torch.arange(frames).expand(objects, -1),
        image_embeds=numbers("image", objects, views, 16).float(),
        taps=tuple(FEATURES),
    )
    assert output.std().item() == pytest.approx(OUTPUT_SPREAD, rel=TOLERANCE)
    assert output.abs().max().item() == pytest.approx(OUTPUT_PEAK, rel=TOLERANCE)
    assert_near(output, OUTPUT, OUTPUT_PEAK)
    for tap, expected in FEATURES.items():
        assert_near(features[tap], expected, features[tap].abs().max().item())

    (output * numbers("loss", *output.shape).float()).mean().backward()
    found = {theirs(name): parameter.grad for name, parameter in network.named_parameters()}
    for name, expected in GRADIENTS.items():
        assert found[name].norm().item() == pytest.approx(expected, rel=5 * TOLERANCE), name


def test_sampling_with_guidance_and_free_init(published, monkeypatch):
    monkeypatch.setattr(mv_vdm, "make_codec", lambda config: nn.Identity())
    monkeypatch.setattr(mv_vdm, "make_image_encoder", lambda config: None)
    config = replace(
        published, frames=4, block_channels=(64, 64), attention_levels=(True, False), spatial_levels=(True, True)
    )
    model = MVVDM(config).eval()
    fill(model.unet)
    first = numbers("first", 1, 4, 4, 8, 8).float()
    text, negative = (
        TextStates(numbers(name, 1, 7, 32).float(), torch.zeros(1, 32)) for name in ("prompt", "negative")
    )
    subjects = Subjects(
        first_frame=first,
        camera=torch.tensor(Rig.even(4).camera_to_world(), dtype=torch.float32)[None],
        frame_index=torch.arange(4)[None],
        text=text,
        negative=negative,
        image_embeds=numbers("embeds", 1, 4, 16).float(),
        seeds=[0],
    )
    seen: list[torch.Tensor] = []
    Sampler(model, SamplerConfig(steps=3, guidance=7.5, free_init=FreeInitConfig(rounds=2))).sample(
        subjects,
        noise=list(numbers("noise", 2, 1, 4, 3, 4, 8, 8).float()),
        on_step=lambda step: seen.append(step.latents),
    )
    assert len(seen) == 6
    for latents, expected in zip((seen[2], seen[5]), SAMPLED, strict=True):
        assert torch.equal(latents[:, :, 0], first)
        assert_near(latents[:, :, 1:], expected, SAMPLED_PEAK)
