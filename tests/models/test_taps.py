from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from animate4d.core.errors import ConfigError
from animate4d.models.mv_vdm import MVVDM

B, V, F = 2, 2, 3


def by_view(rows: torch.Tensor) -> torch.Tensor:
    """Turn the network's rows (sample, frame, view) into `[b, n, f, ...]`."""
    return rows.unflatten(0, (B, F, V)).transpose(1, 2)


def test_every_tap_is_where_its_name_says(published, network, arguments):
    """Against hooks on the modules of that name; all taps at once change nothing of the output."""
    unet, given = network(published), arguments(published)
    seen: dict[str, torch.Tensor] = {}

    def watch(name: str):
        def hook(module: torch.nn.Module, inputs: tuple, output) -> None:
            if isinstance(output, tuple):
                seen[name], seen[f"{name}.temporal"], seen[f"{name}.spatial"] = output
            else:
                seen[name] = output

        return hook

    for name, module in unet.named_modules():
        kind = name.split(".")[-2] if "." in name else ""
        if kind in ("resnets", "motion_modules", "downsamplers", "upsamplers"):
            module.register_forward_hook(watch(name))
    with torch.no_grad():
        plain, nothing = unet(**given)
        output, features = unet(**given, taps=unet.tap_names)
    assert nothing == {}
    assert torch.equal(output, plain)
    assert list(features) == list(unet.tap_names)
    for name, hooked in seen.items():
        resampler = name.split(".")[-2] in ("downsamplers", "upsamplers")
        found = features[name.rsplit(".", 2)[0] if resampler else name]
        branch = hooked.dim() > 4
        expected = (
            hooked.transpose(1, 2).transpose(-1, -2).unflatten(-1, found.shape[-2:]) if branch else by_view(hooked)
        )
        assert torch.equal(found, expected), name
    assert torch.equal(features["mid_block"], features["mid_block.resnets.1"])
    assert torch.equal(features["up_blocks.3"], features["up_blocks.3.motion_modules.1"])
    assert torch.equal(features["down_blocks.3"], features["down_blocks.3.motion_modules.0"])
    assert "down_blocks.3.attentions.0" not in features
    assert "up_blocks.1.attentions.1" in features


def test_branches_blend_into_the_attention_they_come_from(tiny, network, arguments):
    """With one attention per module, blended branches + input, feed-forward and residual give the module's output."""
    unet, given = network(tiny), arguments(tiny)
    place = "mid_block.motion_modules.0"
    _, features = unet(**given, taps=[f"{place}.temporal", f"{place}.spatial", place, "mid_block.attentions.0"])
    module = unet.mid_block.motion_modules[0]
    block = module.transformer_blocks[0]
    entered = features["mid_block.attentions.0"]
    normed = module.norm(entered.flatten(0, 1).transpose(1, 2)).transpose(1, 2).unflatten(0, (B, V))
    tokens = module.proj_in(normed.permute(0, 1, 2, 4, 5, 3))
    share = block.attn1.mix_factor.sigmoid()
    blend = share * features[f"{place}.spatial"] + (1 - share) * features[f"{place}.temporal"]
    tokens = tokens + blend.permute(0, 1, 2, 4, 5, 3)
    tokens = tokens + block.ff(block.norm3(tokens))
    expected = entered + module.proj_out(tokens).permute(0, 1, 2, 5, 3, 4)
    torch.testing.assert_close(features[place], expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    "taps",
    [
        ["down_blocks.0.resnets.0"],
        ["up_blocks.0", "mid_block.attentions.0"],
        ["down_blocks.1"],
        ["up_blocks.3.motion_modules.1.temporal"],
        [],
    ],
)
def test_reading_features_runs_no_layer_behind_them(published, network, arguments, taps: list[str]):
    unet, given = network(published), arguments(published)
    ran = []
    for name, module in unet.named_modules():
        if name.endswith(".conv1"):
            module.register_forward_hook(lambda *_, name=name: ran.append(name))
    with torch.no_grad():
        _, expected = unet(**given, taps=taps)
        everything = list(ran)
        ran.clear()
        features = unet.read(**given, taps=taps)
    assert features.keys() == expected.keys() == set(taps)
    assert all(torch.equal(features[tap], expected[tap]) for tap in taps)
    assert ran == everything[: len(ran)]
    layers = {
        "down_blocks.0.resnets.0": 1,
        "up_blocks.0": 8,
        "down_blocks.1": 2,
        "up_blocks.3.motion_modules.1.temporal": 14,
    }
    assert len(ran) == max((layers.get(tap, 0) for tap in taps), default=0)


def test_features_carry_gradients(published, network, arguments):
    unet, given = network(published), arguments(published)
    features = unet.read(**given, taps=["up_blocks.1.motion_modules.1"])
    features["up_blocks.1.motion_modules.1"].square().mean().backward()
    assert unet.conv_in.weight.grad.abs().max() > 0
    assert unet.conv_out.weight.grad is None


def test_unknown_taps_are_refused_with_a_hint(tiny, network, arguments):
    unet, given = network(tiny), arguments(tiny)
    with pytest.raises(ConfigError, match=r"tap 'up_block\.1' is unknown: this network has \d+, such as up_blocks\.1"):
        unet(**given, taps=["up_block.1"])
    with pytest.raises(ConfigError, match="thermal' is unknown"):
        unet.read(**given, taps=["mid_block.motion_modules.0.thermal"])
    for tap in ("mid_block.downsamplers", "up_blocks.7", "up_blocks.0.motion_modules.0.spatial.x"):
        with pytest.raises(ConfigError, match=r"model\.tap"):
            network(replace(tiny, tap=tap))


def test_a_level_without_spatial_branch_has_no_such_tap(tiny, network):
    names = network(tiny).tap_names
    assert "down_blocks.1.motion_modules.0.spatial" in names
    assert "down_blocks.0.motion_modules.0.spatial" not in names
    assert len(set(names)) == len(names)


def test_the_model_names_and_reads_its_taps(tiny, shake):
    model = MVVDM(tiny).eval()
    shake(model)
    generator = torch.Generator().manual_seed(2)
    given = {
        "latents_noisy": torch.randn(B, V, F, 48, 4, 4, generator=generator),
        "timesteps": torch.tensor([999, 500]),
        "camera": torch.eye(4).expand(B, V, 4, 4),
        "text": ["a fox walking", ""],
        "frame_index": torch.arange(F).expand(B, -1),
        "first_frame": torch.randn(B, V, 48, 4, 4, generator=generator),
    }
    taps = model.tap_names()
    assert tiny.tap in taps
    with torch.no_grad():
        features, whole = model.read_features(**given, taps=taps), model(**given, taps=taps).features
    assert list(features) == list(whole) == taps
    assert all(torch.equal(features[tap], whole[tap]) for tap in taps)
    assert {feature.shape[:3] for feature in features.values()} == {(B, V, F)}
