"""The whole network against diffusers' own blocks with attention processors (the bench's yardstick), same weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from animate4d.bench import twin


@pytest.mark.parametrize(
    "change",
    [{}, {"heads": (2, 4, 4, 4), "motion_heads": 4, "linear_projection": True}, {"layers_per_block": 2, "views": 3}],
    ids=["sd15", "sd21", "deeper"],
)
def test_values_and_all_gradients_equal_those_of_a_network_out_of_stock_blocks(
    published, network, arguments, change: dict
):
    config = replace(published, **change)
    unet = network(config)
    given = arguments(config, views=config.views)
    given["frame_index"] = torch.arange(3).expand(2, -1)
    plain = twin.PlainUNet(config, in_channels=4, out_channels=4).load_ours(unet.float()).double().eval()
    unet.double()
    expected, (found, _) = plain(**given), unet(**given)
    # Positional encodings are computed in single precision, each network in its own way.
    assert (found - expected).abs().max() < 1e-6 * expected.abs().max()
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(5), dtype=found.dtype)
    for result, net in ((found, unet), (expected, plain)):
        net.requires_grad_(True)
        (result * weights).sum().backward()
    others = dict(plain.named_parameters())
    for name, parameter in unet.named_parameters():
        gradient = others[twin.plain_name(name, others)].grad
        assert (parameter.grad - gradient).abs().max() < 1e-4 * gradient.abs().max() + 1e-9, name
