from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from animate4d.core.errors import ConfigError
from animate4d.models.mv_vdm import MVVDM
from animate4d.models.sampler import Sampler
from animate4d.models.sampler_config import SamplerConfig, StepCacheConfig
from animate4d.models.step_cache import StepCache

V, T = 2, 3


@pytest.fixture
def model(tiny, shake) -> MVVDM:
    """Three levels of two layers: nine decoder layers, and a halving between each three of them."""
    config = replace(
        tiny,
        head="v_prediction",
        block_channels=(16, 16, 16),
        attention_levels=(True, True, False),
        spatial_levels=(True, True, True),
        layers_per_block=2,
        sample_steps=6,
    )
    made = MVVDM(config).eval()
    shake(made)
    return made


def given(seed: int = 0) -> dict[str, object]:
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(1, V, 48, 4, 4, generator=generator)
    return {
        "latents_noisy": torch.randn(1, V, T, 48, 4, 4, generator=generator),
        "timesteps": torch.tensor([500]),
        "camera": torch.eye(4).expand(1, V, 4, 4),
        "text": ["a fox walking"],
        "frame_index": torch.arange(T)[None],
        "first_frame": first,
    }


@pytest.mark.parametrize("layers", range(1, 10))
def test_a_cached_step_on_the_same_input_is_the_full_step(model, layers):
    cache = StepCache(layers)
    with torch.no_grad():
        plain = model(**given()).prediction
        assert torch.equal(model(**given(), cache=cache).prediction, plain)
        cache.reuse = True
        assert torch.equal(model(**given(), cache=cache).prediction, plain)
        moved = model(**given(seed=1), cache=cache).prediction
    assert not torch.equal(moved, plain)
    assert not torch.equal(moved, model(**given(seed=1)).prediction)


def test_fewer_layers_cost_less(model):
    costs = []
    for layers in (1, 2, 3, 6, 9):
        cache = StepCache(layers)
        with torch.no_grad():
            model(**given(), cache=cache)
            cache.reuse = True
            with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
                model(**given(), cache=cache)
        costs.append(counter.get_total_flops())
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(**given())
    assert costs == sorted(set(costs))
    assert costs[0] < 0.4 * counter.get_total_flops()
    assert costs[-1] < counter.get_total_flops()


def sampled(model: MVVDM, cache: StepCacheConfig, **options):
    config = SamplerConfig(guidance=2.0, step_cache=cache, split_guidance=options.pop("split", False))
    sampler = Sampler(model, config)
    pictures = torch.rand(2, V, 3, 16, 16, generator=torch.Generator().manual_seed(3)) * 2 - 1
    camera = torch.eye(4).repeat(2, V, 1, 1)
    return sampler.sample(sampler.prepare(pictures, camera, ["walk", "jump"], [1, 2]), **options)


def test_the_whole_network_runs_every_so_many_steps(model):
    passes = []
    model.unet.mid_block.resnets[0].register_forward_hook(lambda *_: passes.append(len(steps)))
    for interval, expected in ((1, [0, 1, 2, 3, 4, 5]), (2, [0, 2, 4]), (4, [0, 4]), (9, [0])):
        passes.clear()
        steps: list[object] = []
        sampled(model, StepCacheConfig(interval=interval), on_step=lambda step, seen=steps: seen.append(step))
        assert passes == expected


def test_an_interval_of_one_changes_nothing_and_longer_ones_little(model):
    plain = sampled(model, StepCacheConfig()).latents
    assert torch.equal(plain, sampled(model, StepCacheConfig(interval=1, layers=2)).latents)
    errors = [(sampled(model, StepCacheConfig(interval=interval)).latents - plain).norm().item() for interval in (2, 6)]
    assert 0 < errors[0] < errors[1] < plain.norm()


def test_halves_keep_features_of_their_own(model):
    together, apart = (sampled(model, StepCacheConfig(interval=3), split=split).latents for split in (False, True))
    torch.testing.assert_close(together, apart, atol=1e-4, rtol=1e-4)


def test_a_tapped_step_is_a_full_one(model):
    passes = []
    model.unet.mid_block.resnets[0].register_forward_hook(lambda *_: passes.append(1))
    features = sampled(model, StepCacheConfig(interval=6), taps=("up_blocks.0",), tap_step=3).features
    assert features["up_blocks.0"].shape[:3] == (2, V, T)
    assert len(passes) == 2


def test_more_layers_than_the_decoder_has_are_refused(model):
    with pytest.raises(ConfigError, match="decoder has 9"):
        Sampler(model, SamplerConfig(step_cache=StepCacheConfig(interval=2, layers=10)))
