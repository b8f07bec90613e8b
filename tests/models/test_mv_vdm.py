from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from animate4d.core.errors import ConfigError, ModelError
from animate4d.models.config import MVVDMConfig, model_preset, paper, paper_sd21, small, smoke
from animate4d.models.mv_vdm import MVVDM, make_scheduler

B = 2


def run(model: MVVDM, **options: object):
    config = model.config
    generator = torch.Generator().manual_seed(2)
    shape = (B, config.views, config.frames, config.latent_channels, config.latent_size, config.latent_size)
    latents = torch.randn(shape, generator=generator)
    with torch.no_grad():
        return latents, model(
            latents,
            torch.tensor([999, 500]),
            camera=torch.eye(4).expand(B, config.views, 4, 4),
            text=["a fox walking", ""],
            frame_index=torch.arange(config.frames).expand(B, -1),
            first_frame=latents[:, :, 0],
            **options,
        )


def test_an_untrained_model_repeats_frame_0_behind_its_gate(tiny):
    latents, output = run(MVVDM(tiny))
    expected = latents[:, :, :1].expand_as(latents) * torch.tensor(3.0).sigmoid()
    torch.testing.assert_close(output.prediction, expected, atol=1e-5, rtol=1e-4)
    assert output.flow.shape == (B, 2, 3, 2, 8, 8)
    assert not output.flow.any()
    assert output.gate.shape == (B, 2, 3, 1, 8, 8)
    assert output.features == {}


@pytest.mark.parametrize("head", ["epsilon", "v_prediction"])
def test_other_heads_return_what_the_scheduler_steps_with(tiny, head: str):
    config = replace(tiny, head=head, zero_terminal_snr=False, concat_first_frame=False)
    assert make_scheduler(config).config.prediction_type == head
    latents, output = run(MVVDM(config), taps=["up_blocks.1"])
    assert output.prediction.shape == latents.shape
    assert output.flow is None
    assert output.features["up_blocks.1"].shape == (B, 2, 3, 16, 4, 4)


def test_the_warp_head_takes_maps_of_any_shape(tiny, shake):
    model = MVVDM(tiny).eval()
    shake(model)
    latents = torch.randn(1, 2, 3, 48, 4, 6)
    output = model(
        latents,
        torch.tensor([400]),
        camera=torch.eye(4).expand(1, 2, 4, 4),
        text=["walk"],
        frame_index=torch.arange(3)[None],
        first_frame=latents[:, :, 0],
    )
    assert output.prediction.shape == latents.shape
    assert output.flow is not None
    assert output.flow.shape == (1, 2, 3, 2, 8, 12)


@pytest.mark.parametrize("half", [False, True])
def test_a_saved_model_comes_back(tiny, shake, tmp_path: Path, half: bool):
    model = MVVDM(tiny, words=("fox", "walk"))
    shake(model)
    model.save_pretrained(tmp_path / "m", {"title": "Test", "scores": {"slope": 0.5}}, half=half)
    loaded = MVVDM.from_pretrained(tmp_path / "m")
    assert loaded.config == tiny
    assert not loaded.training
    model.eval()
    expected, found = run(model)[1].flow, run(loaded)[1].flow
    tolerance = 0.05 * expected.abs().max().item() if half else 0.0
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)
    card = (tmp_path / "m" / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n")
    assert "# Test" in card
    assert "| slope | 0.5 |" in card


def test_damaged_folders_are_refused_in_one_line(tiny, tmp_path: Path):
    folder = tmp_path / "m"
    with pytest.raises(ModelError, match=r"file missing: .*config\.json"):
        MVVDM.from_pretrained(folder)
    MVVDM(tiny).save_pretrained(folder, {})
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-100])
    with pytest.raises(ModelError, match="damaged"):
        MVVDM.from_pretrained(folder)
    (folder / "model.safetensors").write_bytes(weights)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"text_dim": 24}))
    with pytest.raises(ModelError, match="do not fit their config"):
        MVVDM.from_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config | {"surprise": 1}))
    with pytest.raises(ModelError, match="unknown fields surprise"):
        MVVDM.from_pretrained(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="not valid JSON"):
        MVVDM.from_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="weights not found"):
        MVVDM.from_pretrained(folder)


def test_configs_travel_as_json():
    for config in (smoke(), small(), paper(), paper_sd21()):
        assert MVVDMConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
        assert model_preset(config.preset) == config
    with pytest.raises(ConfigError, match="'huge' is unknown"):
        model_preset("huge")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("head", "paint"),
        ("image_size", 63),
        ("frames", 1),
        ("heads", 3),
        ("flow_size", 20),
        ("latent_channels", 4),
        ("motion_attentions", 3),
        ("io_kernel", 2),
        ("attention_levels", (True,)),
        ("blend", "thirds"),
        ("heads", (2, 2)),
        ("motion_heads", 3),
    ],
)
def test_impossible_configs_are_refused(field: str, value: object):
    with pytest.raises(ConfigError, match="model"):
        replace(smoke(), **{field: value})


def test_epsilon_cannot_have_zero_terminal_snr():
    with pytest.raises(ConfigError, match="zero_terminal_snr"):
        replace(smoke(), head="epsilon")


def test_schedules():
    exact = make_scheduler(smoke())
    assert exact.alphas_cumprod[-1] == 0
    exact.set_timesteps(4)
    assert exact.timesteps[0] == 999
    published = make_scheduler(paper())
    assert published.alphas_cumprod[-1].item() == pytest.approx(0.00158, abs=2e-5)
    published.set_timesteps(25)
    assert published.timesteps.tolist() == list(range(961, 0, -40))


@pytest.mark.slow
def test_smoke_model_is_small_enough_to_ship(tmp_path: Path):
    MVVDM(smoke()).save_pretrained(tmp_path / "m", {})
    assert sum(file.stat().st_size for file in (tmp_path / "m").iterdir()) < 5_000_000
