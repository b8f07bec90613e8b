from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from animate4d.core.cameras import Rig
from animate4d.core.errors import ConfigError
from animate4d.models.config import MVVDMConfig, paper
from animate4d.models.unet import MultiViewUNetMotionModel, camera_numbers

B, V, F = 2, 2, 3


def inputs(config: MVVDMConfig, channels: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    size = config.latent_size
    camera = torch.tensor(np.stack([Rig.even(V, start_deg=20.0 * b).camera_to_world() for b in range(B)])).float()
    return {
        "sample": torch.randn(B, V, F, channels, size, size, generator=generator),
        "timestep": torch.tensor([900, 100]),
        "encoder_hidden_states": torch.randn(B, 5, config.text_dim, generator=generator),
        "camera": camera,
        "frame_index": torch.tensor([[0, 1, 2], [0, 2, 5]]),
        "pooled_text": torch.randn(B, config.text_dim, generator=generator),
        "image_embeds": torch.randn(B, V, config.image_embed_dim, generator=generator),
    }


def network(config: MVVDMConfig, shake) -> MultiViewUNetMotionModel:
    unet = MultiViewUNetMotionModel(config, in_channels=8, out_channels=6).eval()
    shake(unet)
    return unet


def test_camera_numbers_match_the_published_convention():
    """Elevation 15, azimuth 0: position on the unit sphere, rows of the camera-to-world matrix one after the other."""
    numbers = camera_numbers(torch.tensor(Rig(elevation_deg=15.0, distance=3.0).camera_to_world()[:1]))
    expected = [0, -0.2588, 0.9659, 0.9659, 1, 0, 0, 0, 0, 0.9659, 0.2588, 0.2588, 0, 0, 0, 1]
    np.testing.assert_allclose(numbers[0].numpy(), expected, atol=1e-4)


def test_paper_size_has_the_released_number_of_weights():
    """1526.20 M parameters, 642.70 M of them trained, 1614 tensors: the released Animate3D network."""
    config = paper()
    with torch.device("meta"):
        unet = MultiViewUNetMotionModel(config, in_channels=4, out_channels=4).to("meta")
    unet.freeze_base()
    total = sum(parameter.numel() for parameter in unet.parameters())
    trained = sum(parameter.numel() for parameter in unet.parameters() if parameter.requires_grad)
    assert (round(total / 1e6, 2), round(trained / 1e6, 2), len(unet.state_dict())) == (1526.20, 642.70, 1614)


def test_shapes_and_tap(tiny, shake):
    output, features = network(tiny, shake)(**inputs(tiny, 8), taps=["up_blocks.1", "up_blocks.0.motion_modules.1"])
    assert output.shape == (B, V, F, 6, 4, 4)
    assert features["up_blocks.1"].shape == (B, V, F, 16, 4, 4)
    assert features["up_blocks.0.motion_modules.1"].shape == (B, V, F, 16, 2, 2)


@pytest.mark.parametrize("tap", ["mid_block.downsamplers", "up_blocks.7", "up_blocks.1.motion_modules.9"])
def test_unknown_taps_are_refused(tiny, tap: str):
    with pytest.raises(ConfigError, match=r"model\.tap"):
        MultiViewUNetMotionModel(replace(tiny, tap=tap), in_channels=8, out_channels=6)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {
            "frame_conditions": False,
            "position_map": False,
            "resnet_scale_shift": False,
            "image_tokens": 2,
            "motion_attentions": 2,
            "attention_levels": (True, False),
        },
    ],
)
def test_two_samples_at_once_equal_one_at_a_time(tiny, shake, change):
    config = replace(tiny, **change)
    unet, given = network(config, shake), inputs(config, 8)
    together, _ = unet(**given)
    for sample in range(B):
        alone, _ = unet(**{name: value[sample : sample + 1] for name, value in given.items()})
        torch.testing.assert_close(together[sample : sample + 1], alone, atol=2e-4, rtol=1e-3)


def test_every_condition_reaches_the_output(tiny, shake):
    config = replace(tiny, image_tokens=2)
    unet, given = network(config, shake), inputs(config, 8)
    base, _ = unet(**given)
    for name in given:
        other = given[name] + 1 if name in ("timestep", "frame_index") else given[name].roll(1, 0)
        changed, _ = unet(**(given | {name: other}))
        assert (changed - base).abs().max() > 1e-3, name


def test_exchanging_views_exchanges_outputs(tiny, shake):
    unet, given = network(tiny, shake), inputs(tiny, 8)
    base, _ = unet(**given)
    swapped, _ = unet(**(given | {"sample": given["sample"].flip(1), "camera": given["camera"].flip(1)}))
    torch.testing.assert_close(swapped, base.flip(1), atol=2e-4, rtol=1e-3)


def test_checkpointing_changes_memory_not_gradients(tiny, shake):
    unet, given = network(tiny, shake), inputs(tiny, 8)
    gradients = []
    for unet.checkpoint_layers in (False, True):
        output, features = unet(**given, taps=[tiny.tap])
        (output.square().mean() + features[tiny.tap].square().mean()).backward()
        gradients.append({name: p.grad.clone() for name, p in unet.named_parameters() if p.grad is not None})
        unet.zero_grad()
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


def test_freezing_leaves_adapters_and_motion_modules(tiny):
    unet = MultiViewUNetMotionModel(tiny, in_channels=8, out_channels=6)
    unet.freeze_base()
    for name, parameter in unet.named_parameters():
        assert parameter.requires_grad == ("motion_modules" in name or "i2v" in name)
