from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from animate4d.core.errors import ConfigError
from animate4d.data.batch import TrainingBatch
from animate4d.models.config import MVVDMConfig, smoke
from animate4d.models.mv_vdm import MVVDM
from animate4d.training.objective import Objective
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
