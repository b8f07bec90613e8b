from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.pipelines.free_init_utils import FreeInitMixin

from animate4d.core.errors import ConfigError
from animate4d.models.free_init import low_pass, renewed_noise
from animate4d.models.sampler_config import FreeInitConfig


class Published(FreeInitMixin):
    """diffusers' own FreeInit on latents `[B, c, F, h, w]`."""

    def __init__(self, config: FreeInitConfig) -> None:
        self.scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, steps_offset=1)
        self.enable_free_init(
            config.rounds,
            config.fast,
            config.filter,
            config.order,
            config.spatial_stop,
            config.temporal_stop,
        )


CONFIGS = [
    FreeInitConfig(rounds=3),
    FreeInitConfig(rounds=3, order=2, spatial_stop=0.4, temporal_stop=0.2),
    FreeInitConfig(rounds=3, filter="gaussian", spatial_stop=0.5),
    FreeInitConfig(rounds=3, filter="ideal", temporal_stop=0.7),
    FreeInitConfig(rounds=3, spatial_stop=0.0),
]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("shape", [(7, 6, 4), (4, 5, 8)])
def test_filters_equal_those_of_diffusers(config, shape):
    shown = Published(config)._get_free_init_freq_filter(
        shape, "cpu", config.filter, config.order, config.spatial_stop, config.temporal_stop
    )
    torch.testing.assert_close(torch.fft.fftshift(low_pass(*shape, config)), shown, atol=1e-6, rtol=1e-5)


def test_the_released_filter_has_the_stated_values():
    share = torch.fft.fftshift(low_pass(15, 32, 32, FreeInitConfig()))
    for place in [(7, 16, 16), (8, 19, 15), (0, 0, 0)]:
        t, h, w = place
        distance = (2 * t / 15 - 1) ** 2 + (2 * h / 32 - 1) ** 2 + (2 * w / 32 - 1) ** 2
        assert share[place].item() == pytest.approx(1 / (1 + (distance / 0.25**2) ** 4), rel=1e-4)


def test_renewed_noise_equals_that_of_diffusers():
    config = CONFIGS[1]
    generator = torch.Generator().manual_seed(0)
    clip, first, fresh = torch.randn(3, 2, 3, 5, 4, 6, 6, generator=generator)
    published = Published(config)
    ours = published.scheduler.add_noise(clip.flatten(1, 2), first.flatten(1, 2), torch.tensor([999, 999]))
    ours = renewed_noise(ours.view_as(clip), fresh, config)
    share = published._get_free_init_freq_filter((5, 6, 6), "cpu", "butterworth", 2, 0.4, 0.2)
    for b in range(2):
        for v in range(3):
            noised = published.scheduler.add_noise(clip[b, v], first[b, v], torch.tensor([999]))
            theirs = published._apply_freq_filter(noised.transpose(0, 1), fresh[b, v].transpose(0, 1), share)
            torch.testing.assert_close(ours[b, v], theirs.transpose(0, 1), atol=1e-5, rtol=1e-4)


def test_a_filter_that_keeps_all_keeps_the_clip_and_one_that_keeps_nothing_takes_the_noise():
    clip, fresh = torch.randn(2, 1, 1, 3, 2, 4, 4)
    wide = FreeInitConfig(filter="ideal", spatial_stop=1.0, temporal_stop=1.0)
    shut = FreeInitConfig(temporal_stop=0.0)
    torch.testing.assert_close(renewed_noise(clip, fresh, shut), fresh, atol=1e-6, rtol=1e-5)
    kept = renewed_noise(clip, fresh, wide)
    assert (kept - clip).norm() < 0.5 * (kept - fresh).norm()


def test_the_box_keeps_the_mean_and_drops_the_fastest():
    share = low_pass(6, 8, 8, FreeInitConfig(filter="box", spatial_stop=0.5, temporal_stop=0.5))
    assert share[0, 0, 0] == share[1, 1, 1] == 1
    assert share[0, 2, 0] == share[2, 0, 0] == 0
    torch.testing.assert_close(share, share.flip(0, 1, 2).roll((1, 1, 1), (0, 1, 2)))


def test_fast_sampling_ends_with_all_steps():
    config = FreeInitConfig(rounds=3, fast=True)
    assert [config.steps_of(number, 25) for number in range(3)] == [8, 16, 25]
    assert [config.steps_of(number, 2) for number in range(3)] == [1, 1, 2]
    assert replace(config, fast=False).steps_of(0, 25) == 25


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rounds": 0}, "free_init.rounds is 0"),
        ({"filter": "median"}, "butterworth, gaussian"),
        ({"order": 0}, "free_init.order"),
        ({"spatial_stop": 1.5}, "free_init.spatial_stop"),
    ],
)
def test_impossible_settings_are_refused_by_name(changes, said):
    with pytest.raises(ConfigError, match=said):
        FreeInitConfig(**changes)
