from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL

from animate4d.core.errors import ConfigError
from animate4d.models.mv_vdm import MVVDM, MVVDMOutput, make_scheduler
from animate4d.models.sampler import Sampler
from animate4d.models.sampler_config import FreeInitConfig, SamplerConfig, StepCacheConfig

V, T = 2, 3
PROMPTS = ["a fox walking", "a bird flapping"]


@pytest.fixture
def painter(tiny):
    """The published kind of network: predicts noise, sees frame 0 only through the sequence and MV2V."""
    return replace(tiny, head="epsilon", zero_terminal_snr=False, concat_first_frame=False, sample_steps=4)


@pytest.fixture(params=["warp", "epsilon"])
def model(request, tiny, painter, shake) -> MVVDM:
    made = MVVDM(tiny if request.param == "warp" else painter).eval()
    shake(made)
    with torch.no_grad():
        made.unet.conv_out.weight.mul_(0.1)  # flows of a few cells: wilder ones magnify rounding from step to step
    return made


def inputs(objects: int = 2) -> tuple[torch.Tensor, torch.Tensor, list[str], list[int]]:
    generator = torch.Generator().manual_seed(3)
    pictures = torch.rand(objects, V, 3, 16, 16, generator=generator) * 2 - 1
    camera = torch.eye(4).repeat(objects, V, 1, 1)
    camera[..., :3, 3] = torch.randn(objects, V, 3, generator=generator)
    return pictures, camera, PROMPTS[:objects], [5, 8][:objects]


def run(model: MVVDM, config: SamplerConfig | None = None, objects: int = 2, **options):
    sampler = Sampler(model, config)
    return sampler.sample(sampler.prepare(*inputs(objects)), **options)


GUIDED = SamplerConfig(steps=3, guidance=2.0, negative_prompt="a tree waving")


def test_the_loop_equals_a_plain_one(model):
    """One object, guidance, written out; the scheduler steps every frame and frame 0 is put back after it."""
    pictures, camera, prompts, seeds = inputs(1)
    first = model.encode(pictures)
    noise = torch.randn(V, T - 1, *first.shape[2:], generator=torch.Generator().manual_seed(seeds[0]))[None]
    latents = torch.cat((first[:, :, None], noise), dim=2)
    scheduler = make_scheduler(model.config)
    scheduler.set_timesteps(3)
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            said, unsaid = (
                model(
                    latents,
                    timestep[None],
                    camera=camera,
                    text=[prompt],
                    frame_index=torch.arange(T)[None],
                    first_frame=first,
                )
                for prompt in (prompts[0], GUIDED.negative_prompt)
            )
            if said.flow is None:
                guided = unsaid.prediction + 2.0 * (said.prediction - unsaid.prediction)
            else:
                flow, gate = unsaid.flow + 2 * (said.flow - unsaid.flow), unsaid.gate + 2 * (said.gate - unsaid.gate)
                guided = model.moved_latents(first, flow, gate)
            latents = scheduler.step(guided, timestep, latents).prev_sample
            latents[:, :, 0] = first
    sample = run(model, GUIDED, objects=1)
    torch.testing.assert_close(sample.latents, latents, atol=1e-4, rtol=1e-4)
    assert torch.equal(sample.latents[:, :, 0], first)


@pytest.mark.parametrize("solver", ["ddim", "dpm++", "unipc"])
def test_a_batch_equals_single_runs(model, solver):
    config = replace(GUIDED, scheduler=solver, free_init=FreeInitConfig(rounds=2))
    together = run(model, config)
    pictures, camera, prompts, seeds = inputs()
    sampler = Sampler(model, config)
    for i in range(2):
        row = slice(i, i + 1)
        alone = sampler.sample(sampler.prepare(pictures[row], camera[row], prompts[row], seeds[row]))
        torch.testing.assert_close(together.latents[row], alone.latents, atol=1e-5, rtol=1e-5)
    assert together.latents.isfinite().all()


def test_every_object_is_seen_by_its_own_cameras(model):
    pictures, camera, prompts, seeds = inputs()
    sampler = Sampler(model, SamplerConfig(steps=2))
    base = sampler.sample(sampler.prepare(pictures, camera, prompts, seeds)).latents
    camera = camera.clone()
    camera[1, :, :3, 3] += 1
    moved = sampler.sample(sampler.prepare(pictures, camera, prompts, seeds)).latents
    torch.testing.assert_close(moved[0], base[0], atol=1e-5, rtol=1e-5)
    assert (moved[1] - base[1]).abs().max() > 1e-4


def test_seeds_repeat_and_differ(model):
    one, again = run(model).latents, run(model).latents
    assert torch.equal(one, again)
    pictures, camera, prompts, _ = inputs()
    sampler = Sampler(model)
    other = sampler.sample(sampler.prepare(pictures, camera, prompts, [5, 9])).latents
    torch.testing.assert_close(other[0], one[0], atol=1e-5, rtol=1e-5)
    assert (other[1] - one[1]).abs().max() > 1e-6


def test_guidance_in_halves_is_the_same(model):
    torch.testing.assert_close(
        run(model, GUIDED).latents, run(model, replace(GUIDED, split_guidance=True)).latents, atol=1e-5, rtol=1e-5
    )


def test_the_negative_prompt_matters_only_under_guidance(model):
    plain, guided = replace(GUIDED, guidance=1.0), GUIDED
    assert torch.equal(run(model, plain).latents, run(model, replace(plain, negative_prompt="")).latents)
    assert (run(model, guided).latents - run(model, replace(guided, negative_prompt="")).latents).abs().max() > 1e-4


def test_one_round_of_free_init_is_the_plain_loop_and_more_are_not(painter, shake):
    model = MVVDM(painter).eval()
    shake(model)
    plain = run(model).latents
    assert torch.equal(plain, run(model, SamplerConfig(free_init=FreeInitConfig(rounds=1, order=2))).latents)
    twice = run(model, SamplerConfig(free_init=FreeInitConfig(rounds=2)))
    assert (twice.latents - plain).abs().max() > 1e-3
    torch.testing.assert_close(twice.latents[:, :, 0], plain[:, :, 0], atol=0, rtol=0)


def test_given_noise_replaces_the_seeds(model):
    config = SamplerConfig(steps=2, free_init=FreeInitConfig(rounds=2))
    views, *cell = model.encode(inputs()[0]).shape[1:]
    drawn = []
    for seed in inputs()[3]:
        generator = torch.Generator().manual_seed(seed)
        drawn.append([torch.randn(views, T - 1, *cell, generator=generator) for _ in range(2)])
    noise = [torch.stack([drawn[i][number] for i in range(2)]) for number in range(2)]
    assert torch.equal(run(model, config).latents, run(model, config, noise=noise).latents)
    swapped = [part.flip(0) for part in noise]
    assert not torch.equal(run(model, config).latents, run(model, config, noise=swapped).latents)


def test_the_callback_sees_every_step_and_may_end_the_run(model):
    seen = []
    config = SamplerConfig(steps=2, free_init=FreeInitConfig(rounds=2))
    sample = run(model, config, on_step=lambda step: seen.append(step))
    assert [(step.done, step.total) for step in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert seen[0].timestep == seen[2].timestep > seen[1].timestep
    assert torch.equal(seen[-1].latents, sample.latents)
    assert sample.finished

    stopped = run(model, config, on_step=lambda step: step.done == 2)
    assert not stopped.finished
    assert torch.equal(stopped.latents, seen[1].latents)


def test_taps_come_from_the_asked_step_and_the_prompted_half(model):
    name = model.config.tap
    features = run(model, GUIDED, taps=(name,)).features
    assert features[name].shape[:3] == (2, V, T)
    early = run(model, GUIDED, taps=(name,), tap_step=0).features[name]
    assert (early - features[name]).abs().max() > 1e-4
    unguided = run(model, replace(GUIDED, guidance=1.0), taps=(name,), tap_step=0).features[name]
    torch.testing.assert_close(early, unguided, atol=1e-4, rtol=1e-4)
    with pytest.raises(ConfigError, match="tap_step is 3"):
        run(model, GUIDED, taps=(name,), tap_step=3)


@pytest.mark.parametrize("head", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("solver", ["ddim", "dpm++", "unipc"])
def test_with_a_perfect_network_every_solver_finds_the_clip(painter, tiny, monkeypatch, head, solver):
    model = MVVDM(tiny if head == "sample" else replace(painter, head=head))
    truth = torch.randn(2, V, T, 48, 4, 4)
    share = model.scheduler.alphas_cumprod

    def perfect(latents, timesteps, **_):
        kept = share[timesteps].view(-1, 1, 1, 1, 1, 1)
        noise = (latents - kept.sqrt() * truth) / (1 - kept).sqrt()
        answers = {"sample": truth, "epsilon": noise, "v_prediction": kept.sqrt() * noise - (1 - kept).sqrt() * truth}
        return MVVDMOutput(answers[head], None, None, {})

    monkeypatch.setattr(model, "forward", perfect)
    sample = run(model, SamplerConfig(steps=6, guidance=1.0, scheduler=solver))
    torch.testing.assert_close(sample.latents[:, :, 1:], truth[:, :, 1:], atol=1e-3, rtol=1e-3)


def test_condition_latents_are_drawn_from_each_objects_seed(painter, tmp_path, shake):
    AutoencoderKL(block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4, **_two_levels()).save_pretrained(
        tmp_path
    )
    config = replace(painter, codec="kl", codec_factor=2, latent_channels=4, codec_path=str(tmp_path))
    model = MVVDM(config).eval()
    pictures, camera, prompts, seeds = inputs()
    sampler = Sampler(model, SamplerConfig(steps=1))
    both = sampler.prepare(pictures, camera, prompts, seeds).first_frame
    torch.manual_seed(77)
    alone = sampler.prepare(pictures[1:], camera[1:], prompts[1:], seeds[1:]).first_frame
    other = sampler.prepare(pictures[1:], camera[1:], prompts[1:], [9]).first_frame
    assert torch.equal(both[1:], alone)
    assert not torch.equal(other, alone)


def _two_levels() -> dict[str, tuple[str, str]]:
    return {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}


def test_the_unguided_half_sees_no_image(painter, monkeypatch):
    """An embedding of zeros, before the projection; image tokens otherwise come from the clean pictures."""
    monkeypatch.setattr("animate4d.models.mv_vdm.make_image_encoder", lambda config: MeanColour())
    model, seen = MVVDM(replace(painter, image_tokens=2, image_embed_dim=3)).eval(), []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda *args, **given: seen.append(given) or forward(*args, **given))
    run(model, replace(GUIDED, steps=1))
    run(model, replace(GUIDED, steps=1, split_guidance=True))
    colours = inputs()[0].mean((-1, -2))
    torch.testing.assert_close(seen[0]["image_embeds"], torch.cat((torch.zeros_like(colours), colours)))
    assert not seen[1]["image_embeds"].any()
    torch.testing.assert_close(seen[2]["image_embeds"], colours)


class MeanColour(torch.nn.Module):
    """Stands in for CLIP."""

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return frames.mean((-1, -2))


def test_a_half_precision_network_is_stepped_in_full(model):
    exact = run(model, GUIDED).latents
    model.unet.to(torch.bfloat16)
    sample = run(model, GUIDED)
    assert sample.latents.dtype == torch.float32
    assert torch.equal(sample.latents[:, :, 0], exact[:, :, 0])
    assert 0 < (sample.latents - exact).norm() < 0.3 * exact.norm()


def test_counts_must_agree(model):
    pictures, camera, prompts, seeds = inputs()
    with pytest.raises(ConfigError, match="2 objects, 2 rigs, 1 prompts, 2 seeds"):
        Sampler(model).prepare(pictures, camera, prompts[:1], seeds)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SamplerConfig(steps=0), "steps is 0"),
        (lambda: SamplerConfig(guidance=-1.0), "guidance is -1"),
        (lambda: SamplerConfig(scheduler="euler"), "ddim, dpm"),
        (lambda: StepCacheConfig(interval=0), "step_cache.interval is 0"),
        (lambda: StepCacheConfig(layers=0), "step_cache.layers is 0"),
    ],
)
def test_impossible_settings_are_refused_by_name(make, said):
    with pytest.raises(ConfigError, match=said):
        make()
