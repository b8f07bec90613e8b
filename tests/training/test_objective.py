from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from animate4d.core.errors import ConfigError
from animate4d.data.batch import TrainingBatch
from animate4d.models.config import MVVDMConfig, smoke
from animate4d.models.mv_vdm import MVVDM
from animate4d.training.objective import Objective, first_frame_level
from animate4d.training.recipe import RECIPES, ObjectiveConfig, OptimizerConfig

TINY = replace(
    smoke(),
    image_size=16,
    frames=4,
    views=2,
    codec_factor=4,
    latent_channels=48,
    block_channels=(16, 16),
    heads=2,
    norm_groups=4,
    text_dim=16,
    flow_size=8,
)


def sliding_square(config: MVVDMConfig, items: int = 3) -> TrainingBatch:
    """A white square that slides to the right by two pixels per frame, the same in every view."""
    size, frames = config.image_size, 3
    mask = torch.zeros(items, config.views, frames, 1, size, size)
    for frame in range(frames):
        mask[:, :, frame, :, 4:10, 2 + 2 * frame : 8 + 2 * frame] = 1
    flow = torch.zeros(items, config.views, frames, 2, size // 2, size // 2)
    for frame in range(frames):
        flow[:, :, frame, 0] = -2 * frame / (size / 2)
    tracks = torch.tensor([[4.5, 6.5], [6.5, 8.5]]).expand(items, config.views, frames, 2, 2).clone()
    tracks[..., 0] += 2 * torch.arange(frames)[:, None]
    return TrainingBatch(
        video=mask.expand(-1, -1, -1, 3, -1, -1).clone(),
        mask=mask,
        camera=torch.eye(4).expand(items, config.views, 4, 4),
        frame_index=torch.arange(frames).expand(items, -1),
        captions=["a square sliding"] * items,
        tracks=tracks,
        visible=torch.ones(items, config.views, frames, 2),
        flow=flow,
        flow_mask=torch.nn.functional.max_pool2d(mask.flatten(0, 2), 2).unflatten(0, mask.shape[:3]),
        sample_ids=["square/0"] * items,
    )


def evaluate(model: torch.nn.Module, batch: TrainingBatch, config: ObjectiveConfig | None = None, seed: int = 0):
    return Objective(config or ObjectiveConfig())(model, batch, torch.Generator().manual_seed(seed))


def test_the_loss_is_the_weighted_sum_of_its_terms():
    torch.manual_seed(0)
    config = ObjectiveConfig(correspondence=0.3, position=2.0, coarse=0.5, flow=0.7, gate=0.2)
    terms = evaluate(MVVDM(TINY), sliding_square(TINY), config)
    assert set(terms) == {"loss", "diffusion", "correspondence", "position", "coarse", "flow", "gate"}
    weights = {"correspondence": 0.3, "position": 2.0, "coarse": 0.5, "flow": 0.7, "gate": 0.2, "diffusion": 1.0}
    assert terms["loss"].item() == pytest.approx(sum(weights[name] * terms[name].item() for name in weights), rel=1e-5)


def test_the_same_seed_gives_the_same_loss():
    torch.manual_seed(0)
    model, batch = MVVDM(TINY), sliding_square(TINY)
    first, again, other = (evaluate(model, batch, seed=seed)["position"] for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_every_trained_weight_gets_a_gradient():
    torch.manual_seed(0)
    model = MVVDM(TINY)
    terms = evaluate(model, sliding_square(TINY))
    terms["loss"].backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_epsilon_head_learns_noise_and_tracks():
    torch.manual_seed(0)
    config = replace(TINY, head="epsilon", zero_terminal_snr=False)
    terms = evaluate(MVVDM(config), sliding_square(config), ObjectiveConfig(first_frame_noise="beta"))
    assert set(terms) == {"loss", "diffusion", "correspondence", "position"}
    assert terms["diffusion"].item() == pytest.approx(1.0, abs=0.1)


def test_clips_without_flow_lose_only_that_term():
    torch.manual_seed(0)
    batch = replace(sliding_square(TINY), flow=None, flow_mask=None)
    assert "flow" not in evaluate(MVVDM(TINY), batch)


def test_switched_off_track_losses_ask_for_no_features():
    class Spy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = MVVDM(TINY)

        def forward(self, *args, **kwargs):
            self.asked = kwargs["taps"]
            return self.module(*args, **kwargs)

    spy = Spy()
    terms = evaluate(spy, sliding_square(TINY), ObjectiveConfig(correspondence=0, position=0))
    assert not spy.asked
    assert "position" not in terms


class Witness(torch.nn.Module):
    """Notes what the network is given."""

    def __init__(self, config: MVVDMConfig) -> None:
        super().__init__()
        self.module, self.seen = MVVDM(config), []

    def forward(self, *args, **kwargs):
        self.seen.append((*args, kwargs))
        return self.module(*args, **kwargs)


PAINTER = replace(TINY, head="epsilon", zero_terminal_snr=False)


@pytest.mark.parametrize("kind", ["clean", "beta", "time"])
def test_noise_on_frame_0_reaches_the_sequence_alone(kind):
    torch.manual_seed(0)
    witness, batch = Witness(PAINTER), sliding_square(PAINTER)
    evaluate(witness, batch, ObjectiveConfig(first_frame_noise=kind))
    noisy, timesteps, given = witness.seen[0]
    clean = witness.module.encode(batch.video)[:, :, 0]
    assert torch.equal(given["first_frame"], clean)
    added = (noisy[:, :, 0] - clean).flatten(1).std(1)
    if kind == "clean":
        assert not added.any()
    elif kind == "beta":
        torch.testing.assert_close(added, witness.module.scheduler.betas[timesteps], rtol=0.1, atol=0)
    else:
        assert ((added > 0.01) & (added < 1.1)).all()


def test_noise_differs_between_views_and_frames_and_time_does_not():
    torch.manual_seed(0)
    witness, batch = Witness(PAINTER), sliding_square(PAINTER, items=1)
    evaluate(witness, replace(batch, video=torch.zeros_like(batch.video)))
    noisy, timesteps, _ = witness.seen[0]
    assert timesteps.shape == (1,)
    rows = noisy[0, :, 1:].flatten(0, 1).flatten(1)
    assert torch.corrcoef(rows).fill_diagonal_(0).abs().max() < 0.2


def test_time_noise_grows_late_and_stays_below_its_maximum():
    config = ObjectiveConfig(first_frame_noise="time", first_frame_noise_max=2.0)
    generator, betas = torch.Generator().manual_seed(0), torch.zeros(1000)
    levels = [
        first_frame_level(config, torch.full((4000,), step), betas, generator).median().item() for step in (0, 500, 999)
    ]
    expected = [2 / (1 + math.exp(-centre)) for centre in (-1, 2 * 0.5**5 - 1, 1)]
    assert levels == pytest.approx(expected, rel=0.05)
    early = replace(config, first_frame_noise_power=1.0)
    assert first_frame_level(early, torch.full((4000,), 500), betas, generator).median() > levels[1] * 1.3
    assert first_frame_level(config, torch.full((4000,), 999), betas, generator).max() < 2.0


def test_latents_that_are_there_are_not_computed_again(monkeypatch):
    torch.manual_seed(0)
    model, batch = MVVDM(TINY), sliding_square(TINY)
    encoded = evaluate(model, batch)
    ready = replace(batch, latents=model.encode(batch.video)).to("cpu")
    monkeypatch.setattr(model.codec, "encode", _encode_moved_only(model.codec.encode, batch.video.shape))
    stored = evaluate(model, ready)
    assert all(torch.equal(encoded[name], stored[name]) for name in encoded)


def _encode_moved_only(encode, video_shape):
    calls = []

    def guarded(frames, generator=None):
        calls.append(frames.shape)
        assert len(calls) == 1, "only the warp head's own picture is to be encoded"
        return encode(frames)

    return guarded


def test_captions_are_dropped_at_the_asked_rate():
    witness, batch = Witness(TINY), sliding_square(TINY, items=4)
    objective, generator = Objective(ObjectiveConfig(drop_text=0.3)), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(40):
            objective(witness, batch, generator)
    said = [caption for *_, given in witness.seen for caption in given["text"]]
    assert set(said) == {"", "a square sliding"}
    assert said.count("") / len(said) == pytest.approx(0.3, abs=0.1)


def test_velocity_head_learns_the_velocity():
    """With nothing learned the prediction is zero, and the loss the mean square of sqrt(a) noise - sqrt(1 - a) x0."""
    torch.manual_seed(0)
    config = replace(TINY, head="v_prediction")
    witness, batch = Witness(config), sliding_square(config)
    terms = evaluate(witness, batch)
    noisy, timesteps, _ = witness.seen[0]
    kept = witness.module.scheduler.alphas_cumprod[timesteps].view(-1, 1, 1, 1, 1, 1)
    clean = witness.module.encode(batch.video)
    noise = (noisy - kept.sqrt() * clean) / (1 - kept).sqrt()
    velocity = (kept.sqrt() * noise - (1 - kept).sqrt() * clean)[:, :, 1:]
    assert terms["diffusion"].item() == pytest.approx(velocity.square().mean().item(), rel=1e-4)


def test_points_outside_the_frame_are_left_out():
    torch.manual_seed(0)
    model, batch = MVVDM(TINY), sliding_square(TINY)
    outside = replace(batch, tracks=batch.tracks + 100.0)
    assert evaluate(model, outside)["position"] == 0


def test_a_few_steps_learn_a_sliding_square():
    torch.manual_seed(0)
    model, batch = MVVDM(TINY), sliding_square(TINY)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    generator, losses = torch.Generator().manual_seed(0), []
    for _ in range(60):
        terms = Objective(ObjectiveConfig())(model, batch, generator)
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        losses.append(terms["flow"].item())
    assert sum(losses[-10:]) < 0.4 * sum(losses[:10])


def test_rates_warm_up_hold_and_decay():
    plan = OptimizerConfig(learning_rate=1.0, warmup=10, decay_share=0.25, final_share=0.1)
    rates = [plan.rate(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10:75] == [1.0] * 65
    assert rates[99] == pytest.approx(0.1, abs=0.05)
    assert rates[75:] == sorted(rates[75:], reverse=True)
    constant = replace(plan, decay_share=0.0)
    assert constant.rate(99, 100) == 1.0


def test_recipes_exist_for_every_preset_and_refuse_nonsense():
    assert all(RECIPES[name]().optimizer.batch_size > 0 for name in ("smoke", "small", "paper"))
    with pytest.raises(ConfigError, match=r"objective\.flow"):
        ObjectiveConfig(flow=-1.0)
    with pytest.raises(ConfigError, match="drop_text"):
        ObjectiveConfig(drop_text=1.0)
    with pytest.raises(ConfigError, match="clean, beta, time"):
        ObjectiveConfig(first_frame_noise="loud")
    with pytest.raises(ConfigError, match="first_frame_noise_max is 0"):
        ObjectiveConfig(first_frame_noise_max=0)
