from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from animate4d.core.cameras import Rig
from animate4d.models.config import paper, paper_sd21
from animate4d.models.unet import MultiViewUNetMotionModel, camera_numbers

B, V, F = 2, 2, 3
LAYOUTS = ["tiny", "published"]


@pytest.fixture
def layout(request):
    """One of the configurations above, by name."""
    return request.getfixturevalue(request.param)


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance


def test_camera_numbers_match_the_published_convention():
    """Elevation 15, azimuth 0: position on the unit sphere, rows of the camera-to-world matrix one after the other."""
    cameras = torch.tensor(Rig(elevation_deg=15.0, distance=3.0).camera_to_world()[:1])
    kept = cameras.clone()
    numbers = camera_numbers(cameras)
    expected = [0, -0.2588, 0.9659, 0.9659, 1, 0, 0, 0, 0, 0.9659, 0.2588, 0.2588, 0, 0, 0, 1]
    np.testing.assert_allclose(numbers[0].numpy(), expected, atol=1e-4)
    assert torch.equal(cameras, kept)


@pytest.mark.parametrize("layout", LAYOUTS, indirect=True)
def test_two_samples_at_once_equal_one_at_a_time(layout, network, arguments):
    unet, given = network(layout), arguments(layout)
    with torch.no_grad():
        together, _ = unet(**given)
        for sample in range(B):
            alone, _ = unet(**{name: value[sample : sample + 1] for name, value in given.items()})
            close(together[sample : sample + 1], alone, 1e-9)


@pytest.mark.parametrize("layout", LAYOUTS, indirect=True)
def test_two_samples_at_once_equal_one_at_a_time_in_single_precision(layout, network, arguments):
    unet = network(layout).float()
    given = {name: value.float() if value.is_floating_point() else value for name, value in arguments(layout).items()}
    with torch.no_grad():
        together, _ = unet(**given)
        for sample in range(B):
            alone, _ = unet(**{name: value[sample : sample + 1] for name, value in given.items()})
            close(together[sample : sample + 1], alone, 1e-5)


@pytest.mark.parametrize("layout", LAYOUTS, indirect=True)
def test_permuting_views_permutes_outputs(layout, network, arguments):
    unet, given, order = network(layout), arguments(layout, views=3), [2, 0, 1]
    per_view = {name: given[name][:, order] for name in ("sample", "camera", "image_embeds")}
    with torch.no_grad():
        base, _ = unet(**given)
        permuted, _ = unet(**(given | per_view))
    close(permuted, base[:, order], 1e-6)
    assert (permuted - base).abs().max() > 0.01


def test_every_condition_reaches_the_output(tiny, published, network, arguments):
    for config in (replace(tiny, image_tokens=2, image_embed_dim=8), published):
        unet, given = network(config), arguments(config)
        base, _ = unet(**given)
        names = set(given) if config.frame_conditions else set(given) - {"pooled_text"}
        for name in names:
            other = given[name] + 1 if name in ("timestep", "frame_index") else given[name].roll(1, 0)
            changed, _ = unet(**(given | {name: other}))
            assert (changed - base).abs().max() > 1e-3, name


def test_a_view_hears_the_image_of_no_other_view_but_through_attention(published, network, arguments):
    """With attention over views and motion silenced, a view's image prompt and camera change that view alone."""
    unet, given = network(published), arguments(published)
    for block in unet.blocks():
        for motion in block.motion_modules:
            torch.nn.init.zeros_(motion.proj_out.weight)
        for attention in getattr(block, "attentions", ()):
            for layer in attention.transformer_blocks:
                torch.nn.init.zeros_(layer.attn1.to_out[0].weight)
    with torch.no_grad():
        base, _ = unet(**given)
        for name in ("image_embeds", "camera"):
            other = given[name].clone()
            other[0, 1] = given[name][1, 0] if name == "camera" else -other[0, 1]
            changed, _ = unet(**(given | {name: other}))
            moved = (changed - base).flatten(3).abs().amax((2, 3)) > 1e-6
            assert moved.tolist() == [[False, True], [False, False]]


@pytest.mark.parametrize("layout", LAYOUTS, indirect=True)
@pytest.mark.parametrize(("views", "frames"), [(1, 3), (2, 1), (1, 1), (5, 2)])
def test_any_number_of_views_and_frames_works(layout, views: int, frames: int, network, arguments):
    with torch.no_grad():
        output, _ = network(layout)(**arguments(layout, views=views, frames=frames))
    assert output.shape == (B, views, frames, layout.output_channels, layout.latent_size, layout.latent_size)
    assert output.isfinite().all()


@pytest.mark.parametrize("layout", LAYOUTS, indirect=True)
@pytest.mark.parametrize("size", [(8, 12), (5, 3), (16, 8)])
def test_any_latent_size_works(layout, size: tuple[int, int], network, arguments):
    unet = network(layout)
    with torch.no_grad():
        output, features = unet(**arguments(layout, size=size), taps=["up_blocks.0", "mid_block"])
    assert output.shape == (B, V, F, layout.output_channels, *size)
    assert output.isfinite().all()
    levels = len(layout.block_channels)
    coarse = tuple(-(-side // 2 ** (levels - 1)) for side in size)
    assert features["mid_block"].shape[-2:] == coarse
    assert features["up_blocks.0"].shape[-2:] == tuple(-(-side // 2 ** (levels - 2)) for side in size)


def test_a_larger_map_sees_the_position_map_enlarged(tiny, network, arguments):
    unet, given = network(tiny), arguments(tiny, size=(8, 8))
    with torch.no_grad():
        before, _ = unet(**given)
        unet.position_map.data = torch.nn.functional.interpolate(
            unet.position_map, size=(8, 8), mode="bilinear", align_corners=False
        )
        close(unet(**given)[0], before, 1e-12)


def test_frame_0_alone_is_asked_by_mv2v(published, network, arguments):
    """Silenced motion leaves MV2V as the only road between frames: it starts at frame 0 and reaches every frame."""
    unet, given = network(published), arguments(published)
    for block in unet.blocks():
        for motion in block.motion_modules:
            torch.nn.init.zeros_(motion.proj_out.weight)
    with torch.no_grad():
        base, _ = unet(**given)
        for frame, reached in ((0, [True, True, True]), (1, [False, True, False])):
            other = given["sample"].clone()
            other[:, :, frame] *= -1
            changed, _ = unet(**(given | {"sample": other}))
            assert [(changed - base)[:, :, f].abs().max().item() > 1e-6 for f in range(F)] == reached


def test_mv2v_is_exactly_nothing_at_the_start_and_something_when_perturbed(published, network, arguments):
    given = arguments(published)
    unet = network(published, shaken=False)
    without = network(replace(published, mv2v=False), shaken=False)
    without.load_state_dict(unet.state_dict(), strict=False)
    with torch.no_grad():
        base, _ = unet(**given)
        assert torch.equal(without(**given)[0], base)
        for name, parameter in unet.named_parameters():
            if "to_out_i2v.weight" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        assert (unet(**given)[0] - base).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        ({"mv2v": False}, "i2v"),
        ({"image_tokens": 0}, "_ip."),
        ({"blend": "fixed"}, "mix_factor"),
        ({"spatial_levels": (False,) * 4}, "_sp."),
    ],
)
def test_a_part_switched_off_leaves_no_weights(published, change, lost: str, network, arguments):
    config = replace(published, **change)
    unet = network(config)
    assert any(lost in name for name in network(published).state_dict())
    assert not any(lost in name for name in unet.state_dict())
    assert unet(**arguments(config))[0].isfinite().all()


@pytest.mark.parametrize(
    ("base", "heads", "spatial_heads"), [(paper(), 4, [4] * 7), (paper_sd21(), (1, 2, 3, 4), [1, 2, 3, 4, 3, 2, 1])]
)
def test_heads_and_projections_follow_the_base(base, heads, spatial_heads, published, network, arguments):
    """SD 1.5: the same number of heads everywhere, 1x1 convolutions; SD 2.1: heads by level, linear layers."""
    config = replace(published, heads=heads, motion_heads=2, linear_projection=base.linear_projection)
    unet = network(config)
    attentions = [block.attentions[0] for block in unet.blocks() if hasattr(block, "attentions")]
    assert [attention.transformer_blocks[0].attn1.heads for attention in attentions] == spatial_heads
    assert {attention.proj_in.weight.dim() for attention in attentions} == {2 if base.linear_projection else 4}
    assert {motion.transformer_blocks[0].attn1.heads for block in unet.blocks() for motion in block.motion_modules} == {
        2
    }
    assert unet(**arguments(config))[0].isfinite().all()


def test_freezing_leaves_adapters_and_motion_modules(published):
    unet = MultiViewUNetMotionModel(published, in_channels=4, out_channels=4)
    unet.freeze_base()
    for name, parameter in unet.named_parameters():
        assert parameter.requires_grad == ("motion_modules" in name or "i2v" in name)
