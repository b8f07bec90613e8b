"""The model as a judge of clips: the estimate it gives, and gradients that reach the pictures."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL

from animate4d.core.errors import ConfigError
from animate4d.models.mv_vdm import MVVDM, MVVDMOutput
from animate4d.models.score import RESCALE, ClipScore

V, F = 2, 3


@pytest.fixture
def painter(tiny):
    """The published kind of network: predicts noise."""
    return replace(tiny, head="epsilon", zero_terminal_snr=False, concat_first_frame=False)


def clip(seed: int = 0) -> torch.Tensor:
    return torch.rand(V, F, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def cameras() -> torch.Tensor:
    return torch.eye(4).repeat(V, 1, 1)


def ask(score, images=None, noise=0.1, seed=7):
    return score(clip() if images is None else images, cameras(), noise, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("head", ["epsilon", "v_prediction", "warp"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_perfect_network_finds_the_clean_clip(tiny, painter, head, guidance, monkeypatch):
    """Whatever a network predicts, the estimate is what its prediction stands for; here, another clip."""
    model = MVVDM(tiny if head == "warp" else replace(painter, head=head)).eval()
    truth = model.encode(2 * clip(5)[None] - 1)
    seen = []

    def perfect(latents, timesteps, **given):
        seen.append((latents, timesteps, given))
        share = model.scheduler.alphas_cumprod[timesteps].view(-1, 1, 1, 1, 1, 1)
        noise = (latents - share.sqrt() * truth) / (1 - share).sqrt()
        answers = {"epsilon": noise, "v_prediction": share.sqrt() * noise - (1 - share).sqrt() * truth, "warp": truth}
        flow = torch.zeros(len(latents), V, F, 2, 8, 8)
        return MVVDMOutput(
            answers[head].expand(len(latents), -1, -1, -1, -1, -1),
            flow if head == "warp" else None,
            flow[:, :, :, :1] if head == "warp" else None,
            {},
        )

    monkeypatch.setattr(model, "forward", perfect)
    monkeypatch.setattr(model, "moved_latents", lambda first, flow, gate: truth)
    latents, estimate = ask(ClipScore(model, "a fox", guidance=guidance))
    torch.testing.assert_close(estimate, truth[0, :, 1:], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(latents, model.encode(2 * clip() - 1)[:, 1:])
    (noisy, timesteps, given), clean = seen[0], model.encode(2 * clip()[None] - 1)
    assert timesteps.tolist() == [100] * (1 if guidance == 1 else 2)
    assert torch.equal(noisy[-1, :, 0], clean[0, :, 0])
    assert not torch.equal(noisy[-1, :, 1], clean[0, :, 1])
    assert torch.equal(given["first_frame"][-1], clean[0, :, 0])
    assert given["frame_index"].tolist() == [[0, 1, 2]] * len(timesteps)


def test_guidance_is_written_out_and_rescaled(painter, shake):
    model = MVVDM(painter).eval()
    shake(model)
    score = ClipScore(model, "a fox walking", guidance=4.0, negative="a tree")
    _, estimate = ask(score)
    generator = torch.Generator().manual_seed(7)
    clean = model.encode(2 * clip()[None] - 1)
    noise = torch.randn(clean[:, :, 1:].shape, generator=generator)
    share = model.scheduler.alphas_cumprod[100]
    noisy = torch.cat((clean[:, :, :1], share.sqrt() * clean[:, :, 1:] + (1 - share).sqrt() * noise), 2)
    said, unsaid = (
        model(
            noisy,
            torch.tensor([100]),
            camera=cameras()[None],
            text=[text],
            frame_index=torch.arange(F)[None],
            first_frame=clean[:, :, 0],
        ).prediction.detach()
        for text in ("a fox walking", "a tree")
    )
    plain = ((noisy - (1 - share).sqrt() * said) / share.sqrt())[:, :, 1:]
    guided = ((noisy - (1 - share).sqrt() * (unsaid + 4.0 * (said - unsaid))) / share.sqrt())[:, :, 1:]
    expected = RESCALE * guided * plain.std() / guided.std() + (1 - RESCALE) * guided
    torch.testing.assert_close(estimate, expected[0], atol=1e-4, rtol=1e-4)
    assert float((guided - plain).norm()) > 0.1 * float(plain.norm())


@pytest.mark.parametrize("kind", ["warp", "epsilon"])
def test_gradients_go_to_the_pictures_and_to_nothing_else(tiny, painter, shake, kind):
    model = MVVDM(tiny if kind == "warp" else painter).eval()
    shake(model)
    images = clip().requires_grad_()
    latents, estimate = ask(ClipScore(model, "a fox", guidance=2.0), images)
    assert not estimate.requires_grad
    assert latents.shape == estimate.shape == (V, F - 1, 48, 4, 4)
    (latents - estimate).square().sum().backward()
    assert float(images.grad[:, 0].abs().max()) == 0.0
    assert float(images.grad[:, 1:].abs().min(2).values.mean()) > 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_autoencoder_passes_the_gradient_on(painter, tmp_path):
    AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
    ).save_pretrained(tmp_path)
    config = replace(painter, codec="kl", codec_factor=2, latent_channels=4, codec_path=str(tmp_path))
    model = MVVDM(config).eval()
    gradients = []
    for chunk in (1, 100):
        model.codec.chunk = chunk
        images = clip().requires_grad_()
        latents, _ = ask(ClipScore(model, "a fox", guidance=1.0), images)
        latents.square().sum().backward()
        gradients.append(images.grad)
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)
    # one number against its finite difference
    step = torch.zeros_like(images)
    step[1, 2, 0, 5, 6] = 1e-2
    ends = [ask(ClipScore(model, "a fox", guidance=1.0), clip() + side * step)[0].square().sum() for side in (1, -1)]
    assert float(gradients[0][1, 2, 0, 5, 6]) == pytest.approx(float((ends[0] - ends[1]) / 2e-2), rel=0.02)


def test_noise_depends_on_the_generator_alone(tiny):
    score = ClipScore(MVVDM(tiny).eval(), "a fox")
    assert (score.views, score.frames, score.size) == (2, 3, 16)
    first, again, other = (ask(score, seed=seed)[1] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert first.shape == other.shape


def test_an_impossible_guidance_is_named(tiny):
    with pytest.raises(ConfigError, match="guidance is -1"):
        ClipScore(MVVDM(tiny), "a fox", guidance=-1.0)
