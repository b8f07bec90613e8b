"""The import job: files of every layout into a folder that loads, moves, holds the very numbers, and is never half."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from animate4d.core.errors import ConfigError, ModelError, UserError
from animate4d.models import importing, verifying
from animate4d.models.fresh import fresh_tensor
from animate4d.models.import_config import ImportWeightsConfig
from animate4d.models.importing import import_weights
from animate4d.models.joining import empty_network
from animate4d.models.mv_vdm import MVVDM


def options(files, stable_diffusion, out: Path, **changes) -> ImportWeightsConfig:
    given = {
        "out": out,
        "model_config": files.config,
        "base": files.ldm,
        "tokenizer": stable_diffusion / "tokenizer",
        "motion": files.motion,
        "ip_adapter": files.image,
        "image_encoder": stable_diffusion / "image_encoder",
        "forward": False,
    }
    return ImportWeightsConfig(**(given | changes))


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return {name.removeprefix("unet."): value for name, value in load_file(folder / "model.safetensors").items()}


def test_all_published_parts_make_a_folder_that_runs(files, stable_diffusion, weights, tmp_path, capsys):
    out = tmp_path / "model"
    assert import_weights(options(files, stable_diffusion, out, animate3d=files.animate3d, forward=True)) == 0
    told = capsys.readouterr().out
    assert "888 of 888 tensors" in told
    assert "726 tensors of the network are not part of this layout" in told
    assert "0 of 588 tensors of motion stay" in told
    assert "verified: 1614 tensors" in told
    assert "forward pass: 2 views of 2 frames" in told
    found = stored(out)
    assert found.keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in found.items())
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "config.json", "image_encoder", "model.safetensors", "text_encoder", "tokenizer", "vae",
    ]  # fmt: skip
    card = (out / "README.md").read_text()
    assert "animate3d_motion_modules.ckpt, sha256" in card
    assert "OpenRAIL" in card
    assert "Needs, not included" not in card


def test_a_moved_folder_still_loads_with_its_own_parts(files, stable_diffusion, tmp_path):
    import_weights(options(files, stable_diffusion, tmp_path / "first"))
    config = json.loads((tmp_path / "first" / "config.json").read_text())
    assert (config["codec_path"], config["text_path"], config["image_path"]) == ("vae", ".", "image_encoder")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "first").rename(tmp_path / "elsewhere" / "second")
    model = MVVDM.from_pretrained(tmp_path / "elsewhere" / "second")
    assert model.embed_text(["a b"]).states.shape == (1, 77, 64)
    assert not any(parameter.is_meta for parameter in model.parameters())
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained
    assert all("motion_modules" in name or "i2v" in name for name in trained)
    model.save_pretrained(tmp_path / "third", {})
    again = MVVDM.from_pretrained(tmp_path / "third")
    assert Path(again.config.codec_path) == tmp_path / "elsewhere" / "second" / "vae"


@pytest.mark.parametrize(
    "base", ["ldm", *(pytest.param(form, marks=pytest.mark.slow) for form in ("pipeline", "apart", "bare", "wrapped"))]
)
def test_every_form_of_mvdream_gives_the_same_base(base, files, stable_diffusion, weights, tmp_path):
    parts = {} if base in ("ldm", "pipeline") else {"vae": stable_diffusion / "vae", "text_encoder": stable_diffusion}
    tokenizer = stable_diffusion / "tokenizer" if base == "ldm" else None
    import_weights(
        options(files, stable_diffusion, tmp_path / "m", base=getattr(files, base), tokenizer=tokenizer, **parts)
    )
    found = stored(tmp_path / "m")
    for name in ("conv_in.weight", "camera_embedding.linear_2.bias", "up_blocks.2.upsamplers.0.conv.weight"):
        assert torch.equal(found[name], weights[name])
    vae = load_file(tmp_path / "m" / "vae" / "diffusion_pytorch_model.safetensors")
    published = load_file(stable_diffusion / "vae" / "diffusion_pytorch_model.safetensors")
    assert vae.keys() == published.keys()
    assert all(torch.equal(vae[name], published[name]) for name in vae)


@pytest.mark.slow
def test_what_no_file_provides_starts_as_in_the_papers(files, stable_diffusion, weights, tmp_path, capsys):
    import_weights(options(files, stable_diffusion, tmp_path / "m"))
    told = capsys.readouterr().out
    assert "start: 48 tensors: MV2V" in told
    # 294 spatiotemporal extras, of which the adapter's encodings give 42
    assert "start: 252 tensors: spatial branches" in told
    found = stored(tmp_path / "m")
    for name, value in found.items():
        if "to_q_i2v" in name:
            assert torch.equal(value, weights[name.replace("processor.to_q_i2v", "to_q")])
        elif "to_out_i2v" in name or name.endswith("mix_factor"):
            assert not value.any()
        elif name.endswith("_sp.weight"):
            assert 0.5 < value.abs().max() * value.shape[1] ** 0.5 <= 1  # uniform within 1 / sqrt(fan-in)
    assert torch.equal(found["mid_block.motion_modules.0.proj_out.weight"],
                       weights["mid_block.motion_modules.0.proj_out.weight"])  # fmt: skip
    import_weights(options(files, stable_diffusion, tmp_path / "again"))
    assert all(torch.equal(value, found[name]) for name, value in stored(tmp_path / "again").items())
    import_weights(options(files, stable_diffusion, tmp_path / "other", seed=1))
    name = "mid_block.motion_modules.0.transformer_blocks.0.attn1.to_q_sp.weight"
    assert not torch.equal(stored(tmp_path / "other")[name], found[name])


@pytest.mark.slow
def test_without_motion_and_image_adapter_the_base_is_left_alone(files, stable_diffusion, tmp_path, capsys):
    import_weights(options(files, stable_diffusion, tmp_path / "m", motion=None, ip_adapter=None, forward=True))
    assert "start: 546 tensors: motion modules" in capsys.readouterr().out
    assert json.loads((tmp_path / "m" / "config.json").read_text())["image_tokens"] == 0
    found = stored(tmp_path / "m")
    assert not any("_ip." in name or "image_projection" in name for name in found)
    assert not any(value.any() for name, value in found.items() if "motion_modules" in name and ".proj_out." in name)
    assert found["mid_block.motion_modules.0.norm.weight"].eq(1).all()
    encoding = found["mid_block.motion_modules.0.transformer_blocks.0.attn1.time_pos_embed.pe"]
    assert encoding[0, 0, :4].tolist() == [0, 1, 0, 1]


def test_fresh_values_are_those_of_a_new_network(tiny, weights):
    """Same kind of draw as building the network, seeded by name and so independent of order."""
    empty = empty_network(tiny)
    name = "mid_block.motion_modules.0.transformer_blocks.0.ff.net.0.proj.weight"
    drawn = fresh_tensor(empty, name, weights, 0)
    assert torch.equal(drawn, fresh_tensor(empty, name, weights, 0))
    assert drawn.std().item() == pytest.approx((3 * drawn.shape[1]) ** -0.5, rel=0.05)
    state = torch.get_rng_state()
    fresh_tensor(empty, name, weights, 3)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_checkpoint_of_the_trainer_alone_is_a_whole_network(files, stable_diffusion, weights, tmp_path):
    given = {"base": None, "motion": None, "ip_adapter": None, "animate3d": files.animate3d_run, "tokenizer": None}
    given |= {"vae": stable_diffusion / "vae", "text_encoder": stable_diffusion}
    import_weights(options(files, stable_diffusion, tmp_path / "m", **given))
    assert all(torch.equal(value, weights[name]) for name, value in stored(tmp_path / "m").items())


def test_a_whole_checkpoint_covers_the_base(files, stable_diffusion, weights, tmp_path, capsys):
    given = {"motion": None, "ip_adapter": None, "animate3d": files.animate3d_run}
    import_weights(options(files, stable_diffusion, tmp_path / "m", **given))
    assert "covered: 0 of 690 tensors of base stay" in capsys.readouterr().out
    assert all(torch.equal(value, weights[name]) for name, value in stored(tmp_path / "m").items())


@pytest.mark.slow
def test_half_precision_halves_the_file_and_rounds_once(files, stable_diffusion, weights, tmp_path):
    import_weights(options(files, stable_diffusion, tmp_path / "full", animate3d=files.animate3d))
    import_weights(
        options(files, stable_diffusion, tmp_path / "half", animate3d=files.animate3d, precision="half", forward=True)
    )
    found = stored(tmp_path / "half")
    for name, value in found.items():
        expected = weights[name] if name.endswith(".pe") else weights[name].half()
        assert torch.equal(value, expected)
    sizes = [
        (tmp_path / name / "vae" / "diffusion_pytorch_model.safetensors").stat().st_size for name in ("half", "full")
    ]
    assert 0.5 <= sizes[0] / sizes[1] < 0.52
    model = MVVDM.from_pretrained(tmp_path / "half")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_parts_can_be_referred_to(files, stable_diffusion, tmp_path):
    import_weights(options(files, stable_diffusion, tmp_path / "m", base=files.pipeline, tokenizer=None, parts="refer"))
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["README.md", "config.json", "model.safetensors"]
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["text_path"] == str(files.pipeline)
    assert config["codec_path"] == str(files.pipeline / "vae")
    assert MVVDM.from_pretrained(tmp_path / "m").image is not None
    assert "Needs, not included" in (tmp_path / "m" / "README.md").read_text()


def test_schedulers_are_ignored_with_the_reason(files, stable_diffusion, tmp_path, capsys):
    import_weights(
        options(files, stable_diffusion, tmp_path / "m", base=files.pipeline, tokenizer=None,
                scheduler=stable_diffusion / "scheduler")
    )  # fmt: skip
    told = capsys.readouterr().out
    assert told.count("ignored: ") == 2
    assert "linear betas" in told
    model = MVVDM.from_pretrained(tmp_path / "m")
    assert model.scheduler.config.beta_schedule == "linear"


def bad(tmp_path: Path, config: ImportWeightsConfig, match: str) -> None:
    """The job stops with one line and leaves nothing behind."""
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(UserError, match=match) as error:
        import_weights(config)
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_misfits_leave_nothing_behind(files, stable_diffusion, tmp_path):
    out = tmp_path / "m"

    def given(**changes) -> ImportWeightsConfig:
        return options(files, stable_diffusion, out, **changes)

    bad(tmp_path, given(base=files.folder / "nowhere.pt"), "nowhere.pt: there is no such file")
    bad(tmp_path, given(base=files.motion_original), "give it as --motion, not as --base")
    bad(tmp_path, given(motion=files.animate3d), "give it as --animate3d, not as --motion")
    bad(tmp_path, given(image_encoder=None), "--image-encoder")
    bad(tmp_path, given(tokenizer=None), "has no tokenizer; give --tokenizer")
    bad(tmp_path, given(base=files.apart), "no autoencoder: --base holds none; give --vae")
    bad(tmp_path, given(vae=stable_diffusion / "text_encoder"), "not an AutoencoderKL")
    bad(tmp_path, given(image_encoder=stable_diffusion / "vae"), "not a CLIP vision model")
    bad(tmp_path, given(text_encoder=stable_diffusion / "vae"), "no config.json")
    bad(tmp_path, given(model_config=None), r"first .*expected \[320")
    bad(tmp_path, given(model_config=stable_diffusion / "nothing.json"), "cannot be read")


def test_an_existing_folder_is_kept_unless_asked(files, stable_diffusion, tmp_path):
    out = tmp_path / "m"
    out.mkdir()
    (out / "mine.txt").write_text("x")
    with pytest.raises(ConfigError, match="--overwrite"):
        import_weights(options(files, stable_diffusion, out))
    assert (out / "mine.txt").is_file()
    with pytest.raises(ModelError, match="no such file"):
        import_weights(options(files, stable_diffusion, out, motion=tmp_path / "no.ckpt", overwrite=True))
    assert (out / "mine.txt").is_file()
    import_weights(options(files, stable_diffusion, out, overwrite=True))
    assert not (out / "mine.txt").exists()


def test_a_tensor_that_is_not_finite_names_its_file(files, stable_diffusion, tmp_path):
    broken = dict(load_file(files.image))
    broken["ip_adapter.7.to_v_ip.weight"][0, 0] = torch.nan
    save_file(broken, tmp_path / "broken.safetensors")
    config = options(files, stable_diffusion, tmp_path / "m", ip_adapter=tmp_path / "broken.safetensors")
    bad(tmp_path, config, r"broken\.safetensors: .*attentions.1.*to_v_ip.weight holds NaN")
    broken["ip_adapter.7.to_v_ip.weight"][0, 0] = 1e6
    save_file(broken, tmp_path / "broken.safetensors")
    bad(tmp_path, replace(config, precision="half"), "infinite numbers as float16")
    import_weights(config)


def test_a_faulty_disk_is_noticed(files, stable_diffusion, tmp_path, monkeypatch):
    written = importing.write_tensors

    def faulty(path, *arguments, **named):
        size = written(path, *arguments, **named)
        if path.name == "model.safetensors" and path.parent.name.startswith(".m."):
            data = bytearray(path.read_bytes())
            data[-3] ^= 1
            path.write_bytes(data)
        return size

    monkeypatch.setattr(importing, "write_tensors", faulty)
    bad(tmp_path, options(files, stable_diffusion, tmp_path / "m"), "reads back differently")


def test_a_full_disk_is_told_before_writing(files, stable_diffusion, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(importing.shutil, "disk_usage", lambda path: usage)
    bad(tmp_path, options(files, stable_diffusion, tmp_path / "m"), "GB needed")


def test_the_forward_pass_is_left_out_where_memory_is_short(tmp_path, monkeypatch):
    monkeypatch.setattr(verifying, "available_memory", lambda: 10**9)
    assert verifying.forward_once(tmp_path, 7 * 10**9).startswith("no forward pass: it needs about 8 GB")


def test_options_are_checked(tmp_path):
    with pytest.raises(ConfigError, match="--base is not set"):
        ImportWeightsConfig(out=tmp_path)
    with pytest.raises(ConfigError, match="published weights fit paper or paper_sd21"):
        ImportWeightsConfig(out=tmp_path, base=tmp_path, preset="smoke")


def test_the_openclip_text_tower_is_said_to_be_left_out(files, stable_diffusion, tmp_path):
    ldm = torch.load(files.ldm, weights_only=True)
    other = {name: value for name, value in ldm.items() if not name.startswith("cond_stage_model.")}
    other["cond_stage_model.model.token_embedding.weight"] = torch.zeros(2, 2)
    torch.save(other, tmp_path / "sd-v2.1.pt")
    config = options(files, stable_diffusion, tmp_path / "m", base=tmp_path / "sd-v2.1.pt")
    bad(tmp_path, config, "OpenCLIP text tower in --base is not converted; give --text-encoder")
    import_weights(replace(config, text_encoder=stable_diffusion, tokenizer=None))
