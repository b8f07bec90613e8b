from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from animate4d.core.cameras import Rig
from animate4d.core.errors import ConfigError
from animate4d.models.config import smoke
from animate4d.models.mv_vdm import MVVDM
from animate4d.models.sampler_config import SamplerConfig
from animate4d.videos.generate import generate_video, generate_videos

TINY = replace(
    smoke(),
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
RIG = Rig.even(2)


@pytest.fixture
def model() -> MVVDM:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    made = MVVDM(TINY).eval()
    torch.nn.init.normal_(made.unet.conv_out.weight, std=0.3)
    torch.nn.init.normal_(made.text.table.weight)
    return made


@pytest.fixture
def frames() -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 4), dtype=np.uint8)
    pixels[:, :8, :, 3] = 0
    pixels[:, 8:16, :, 3] = 255
    return pixels


def test_larger_first_frames_stay_sharp_and_first(model, frames):
    video = generate_video(model, frames, RIG, "a fox walking", seed=1)
    assert video.rgb.shape == (2, 3, 32, 32, 3)
    assert video.alpha.shape == (2, 3, 32, 32)
    assert video.flow.shape == (2, 3, 8, 8, 2)
    assert not video.flow[:, 0].any()
    assert video.flow_weight.shape == (2, 3, 8, 8)
    assert not video.flow_weight[:, 0, :2].any()
    assert (video.flow_weight[:, 0, 2:4] == 1).all()
    assert 0 <= video.flow_weight.min() <= video.flow_weight.max() <= 1
    assert len(video.times) == 3
    np.testing.assert_array_equal(video.alpha[:, 0], frames[..., 3])
    np.testing.assert_array_equal(video.rgb[:, 0, 8:16], frames[:, 8:16, :, :3])
    assert (np.abs(video.rgb[:, 0, :8].astype(int) - 127.5) < 1).all()
    assert (video.rgb[:, 1] != video.rgb[:, 0]).any()


def test_seed_and_prompt_decide_the_clip(model, frames):
    one, same, other_seed, other_prompt = (
        generate_video(model, frames, RIG, prompt, seed=seed).flow
        for seed, prompt in ((1, "walk"), (1, "walk"), (2, "walk"), (1, "jump"))
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other_seed).max() > 1e-6
    assert np.abs(one - other_prompt).max() > 1e-4


def test_guidance_moves_away_from_the_empty_prompt(model, frames):
    plain, silent, guided = (
        generate_video(model, frames, RIG, prompt, seed=1, config=SamplerConfig(steps=1, guidance=guidance)).flow
        for prompt, guidance in (("walk", 1.0), ("", 1.0), ("walk", 2.0))
    )
    np.testing.assert_allclose(guided[:, 1:], (2 * plain - silent)[:, 1:], atol=1e-4)


def test_progress_counts_steps(model, frames):
    seen = []
    steps = SamplerConfig(steps=3)
    generate_video(model, frames, RIG, "walk", seed=1, config=steps, progress=lambda *done: seen.append(done))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_epsilon_head_samples_with_the_published_loop(frames):
    torch.manual_seed(0)
    config = replace(TINY, head="epsilon", zero_terminal_snr=False, concat_first_frame=False)
    how = SamplerConfig(steps=3, guidance=7.5)
    video = generate_video(MVVDM(config).eval(), frames, RIG, "walk", seed=1, config=how)
    assert video.flow is None
    assert video.rgb.shape == (2, 3, 32, 32, 3)
    np.testing.assert_array_equal(video.alpha[:, 0], frames[..., 3])
    np.testing.assert_array_equal(video.rgb[:, 0, 8:16], frames[:, 8:16, :, :3])


def test_objects_of_several_sizes_and_rigs_share_a_batch(model, frames):
    other, raised = np.ascontiguousarray(frames[:, ::2, ::2]), Rig.even(2, elevation_deg=40.0)
    given = [(frames, RIG, "walk", 1), (other, raised, "jump", 7)]
    pixels, rigs, prompts, seeds = zip(*given, strict=True)
    together = generate_videos(model, pixels, rigs, prompts, seeds=seeds)
    for video, (first, rig, prompt, seed) in zip(together, given, strict=True):
        alone = generate_video(model, first, rig, prompt, seed=seed)
        assert video.rgb.shape[2] == first.shape[1]
        np.testing.assert_allclose(video.flow, alone.flow, atol=1e-5)
        assert np.abs(video.rgb.astype(int) - alone.rgb).max() <= 1


def test_misfits_are_named(model, frames):
    for given, rig, message in (
        (frames[:1], RIG, "1 views"),
        (frames, Rig.even(4), "rig has 4"),
        (frames[:, ::4, ::4], RIG, "at least 16"),
        (frames.astype(np.float32), RIG, "expected uint8"),
        (frames[..., :3], RIG, "expected uint8"),
    ):
        with pytest.raises(ConfigError, match=message):
            generate_video(model, given, rig, "walk", seed=1)
