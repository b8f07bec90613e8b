"""The export job: a model folder back into every published form, read by those who published it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from animate4d.core.errors import ConfigError, UserError
from animate4d.models.exporting import export_weights, schedule_buffers
from animate4d.models.import_config import ExportWeightsConfig, ImportWeightsConfig
from animate4d.models.importing import import_weights
from animate4d.models.layouts.checkpoint import read_checkpoint


@pytest.fixture(scope="module")
def model(files, stable_diffusion, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("model") / "m"
    import_weights(
        ImportWeightsConfig(
            out=out,
            model_config=files.config,
            base=files.ldm,
            tokenizer=stable_diffusion / "tokenizer",
            motion=files.motion_original,
            ip_adapter=files.image_pickle,
            image_encoder=stable_diffusion / "image_encoder",
            animate3d=files.animate3d,
            forward=False,
        )
    )
    return out


def export(model: Path, layout: str, out: Path, **changes) -> Path:
    assert export_weights(ExportWeightsConfig(model=str(model), layout=layout, out=out, **changes), model) == 0
    return out


def same(first: Path, second: Path, leave_out: tuple[str, ...] = ()) -> int:
    found, expected = read_checkpoint(first).tensors, read_checkpoint(second).tensors
    kept = {name for name in expected if not name.startswith(leave_out)} if leave_out else set(expected)
    assert {name for name in found if not (leave_out and name.startswith(leave_out))} == kept
    for name in kept:
        assert torch.equal(found[name], expected[name]), name
    return len(kept)


@pytest.mark.parametrize(
    ("layout", "name", "original", "count"),
    [
        ("animate3d", "out.ckpt", "animate3d", 888),
        ("animate3d", "out.safetensors", "animate3d", 888),
        ("animate3d-full", "out.ckpt", "animate3d_run", 1614),
        ("animatediff", "out.safetensors", "motion", 567),
        ("animatediff", "adapter", "motion", 567),
        ("animatediff-original", "out.ckpt", "motion_original", 588),
        ("mvdream-diffusers", "out.bin", "pipeline/unet", 690),
        ("mvdream-diffusers", "unet", "pipeline/unet", 690),
        ("ip-adapter", "out.bin", "image", 36),
        ("ip-adapter", "out.safetensors", "image", 36),
    ],
)
def test_what_came_in_goes_out_again(layout, name, original, count, model, files, tmp_path):
    stem, _, inner = original.partition("/")
    expected = getattr(files, stem) / inner if inner else getattr(files, stem)
    assert same(export(model, layout, tmp_path / name), expected) == count
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_ldm_file_has_everything_mvdream_loads_strictly(model, files, tmp_path):
    out = export(model, "mvdream-ldm", tmp_path / "sd-v1.5-4view.pt")
    count = same(out, files.ldm, ("betas", "alphas", "sqrt", "log_one", "posterior"))
    assert count == len([name for name in read_checkpoint(files.ldm).tensors if "." in name])
    flat = [name for name in read_checkpoint(out).tensors if "." not in name]
    assert len(flat) == 12


def test_the_schedule_written_for_mvdream_is_scaled_linear(tiny):
    from diffusers import DDIMScheduler

    buffers = schedule_buffers(tiny)
    twin = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    torch.testing.assert_close(buffers["alphas_cumprod"], twin.alphas_cumprod, atol=1e-6, rtol=1e-5)
    assert buffers["alphas_cumprod"][-1].item() == pytest.approx(0.00466, abs=2e-5)
    kept = buffers["alphas_cumprod"]
    torch.testing.assert_close(buffers["sqrt_recip_alphas_cumprod"], (1 / kept).sqrt())
    total = buffers["posterior_mean_coef1"] + buffers["posterior_mean_coef2"] * kept.sqrt()
    torch.testing.assert_close(total, buffers["alphas_cumprod_prev"].sqrt(), atol=1e-5, rtol=1e-4)


def test_image_adapters_are_nested_for_pickles_and_dotted_for_safetensors(model, tmp_path):
    pickled = torch.load(export(model, "ip-adapter", tmp_path / "a.bin"), weights_only=True)
    assert sorted(pickled) == ["image_proj", "ip_adapter"]
    assert sorted(pickled["image_proj"]) == ["norm.bias", "norm.weight", "proj.bias", "proj.weight"]
    assert "31.to_v_ip.weight" in pickled["ip_adapter"]


def test_diffusers_loads_the_folders_it_knows(model, tmp_path, weights):
    from diffusers import MotionAdapter

    adapter, told = MotionAdapter.from_pretrained(
        export(model, "animatediff", tmp_path / "adapter"), output_loading_info=True
    )
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    assert all(torch.equal(x, weights[name]) for name, x in adapter.state_dict().items() if "pos_embed" not in name)
    config = json.loads((export(model, "mvdream-diffusers", tmp_path / "unet") / "config.json").read_text())
    assert config["camera_embedding_dim"] == 16


def test_a_pickle_holds_only_its_own_tensors(model, tmp_path):
    """A mapped tensor drags the whole file behind it into torch.save unless it is cloned."""
    out = export(model, "ip-adapter", tmp_path / "a.bin")
    assert out.stat().st_size < 4 * 110_000


def refused(config: ExportWeightsConfig, model: Path, match: str) -> None:
    with pytest.raises(UserError, match=match) as error:
        export_weights(config, model)
    assert "\n" not in str(error.value)


def test_mistakes_are_one_line_and_leave_nothing(model, tmp_path):
    def wanted(layout: str, name: str) -> ExportWeightsConfig:
        return ExportWeightsConfig(model="m", layout=layout, out=tmp_path / name)

    refused(wanted("animate3d", "out.zip"), model, "must end in")
    refused(wanted("ip-adapter", "folder"), model, "must end in")
    refused(wanted("animate3d", "a.ckpt"), tmp_path / "nowhere", "cannot be read")
    (tmp_path / "there.ckpt").write_text("mine")
    refused(wanted("animate3d", "there.ckpt"), model, "--overwrite")
    assert [path.name for path in tmp_path.iterdir()] == ["there.ckpt"]
    export(model, "ip-adapter", tmp_path / "there.ckpt", overwrite=True)


def test_a_model_of_another_kind_is_refused_by_field(model, tmp_path):
    config = json.loads((model / "config.json").read_text())
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "model.safetensors").symlink_to(model / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config | {"blend": "fixed"}))
    with pytest.raises(ConfigError, match=r"model\.blend is fixed: Animate3D, trained tensors needs attention"):
        export_weights(ExportWeightsConfig(model="m", layout="animate3d", out=tmp_path / "a.ckpt"), folder)
    shipped = Path(__file__).parents[3] / "platform/animate4d/models/weights/smoke"
    with pytest.raises(ConfigError, match=r"model\.motion_attentions is 1"):
        export_weights(ExportWeightsConfig(model="m", layout="animatediff", out=tmp_path / "a.ckpt"), shipped)


def test_a_model_without_the_part_says_so(files, stable_diffusion, tmp_path):
    out = tmp_path / "m"
    import_weights(
        ImportWeightsConfig(out=out, model_config=files.config, base=files.pipeline, motion=files.motion, forward=False)
    )
    refused(
        ExportWeightsConfig(model="m", layout="ip-adapter", out=tmp_path / "a.bin"), out, "has nothing for IP-Adapter"
    )
