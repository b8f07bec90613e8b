"""The real model, objective, stream, sample grid and model folder in the loop."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from animate4d.core.errors import ConfigError
from animate4d.models.execution import ExecutionConfig
from animate4d.models.mv_vdm import MVVDM
from animate4d.training.checkpoint import FREE_KEYS, flatten, list_checkpoints
from animate4d.training.config import ModelChanges, TrainConfig
from animate4d.training.launch import resolve
from animate4d.training.loop import Loop, LoopConfig
from animate4d.training.metrics_log import read_rows
from animate4d.training.parts import make_model, make_parts


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    path = Path(__file__).parents[1] / "data" / "conftest.py"
    spec = importlib.util.spec_from_file_location("small_shards", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.write_shards(tmp_path_factory.mktemp("shards"), 3, views=4, frames=16, size=64)


def run(config, group, steps):
    config.out.mkdir(exist_ok=True)
    torch.manual_seed(config.seed)
    loop_config = LoopConfig(
        out=config.out,
        optimizer=config.recipe().optimizer,
        zero=False,
        steps=steps,
        resolved=resolve(config),
        seed=config.seed,
        checkpoint_every=2,
        keep=2,
        sample_every=2,
        validate_every=2,
        log_every=1,
    )
    return Loop(loop_config, make_parts(config, 0, 1), group, lambda row: None).run()


def test_a_changed_network_is_made_and_a_trained_one_must_have_the_change(tmp_path):
    fixed = TrainConfig(data=tmp_path, model=ModelChanges(blend="fixed"))
    model = make_model(fixed)
    assert model.config.blend == "fixed"
    model.save_pretrained(tmp_path / "fixed", {"title": "fixed"})
    assert make_model(replace(fixed, init=tmp_path / "fixed")).config == model.config
    with pytest.raises(ConfigError, match=r"model\.blend is 'module', but init .* 'fixed'"):
        make_model(TrainConfig(data=tmp_path, init=tmp_path / "fixed", model=ModelChanges(blend="module")))


def test_execution_reaches_the_model_and_no_comparison_of_runs(shards):
    plain = TrainConfig(data=shards, sample_every=0)
    lean = replace(plain, execution=ExecutionConfig(checkpoint_layers=True, channels_last=True))
    model = make_parts(lean, 0, 1).model
    assert model.unet.checkpoint_layers
    assert model.unet.memory_format == torch.channels_last
    differing = {key for key, value in flatten(resolve(lean)).items() if flatten(resolve(plain)).get(key) != value}
    assert differing
    assert all(key.startswith(FREE_KEYS) for key in differing)


@pytest.mark.slow
def test_mv_vdm_trains_resumes_exactly_and_leaves_a_model(process_group, shards, tmp_path, monkeypatch):
    # A fixed length of the rate's decay: the run that is cut is planned as long as the one that is not.
    monkeypatch.setattr("animate4d.training.recipe.OptimizerConfig.rate", lambda self, step, steps: 1e-3)
    whole = TrainConfig(data=shards, out=tmp_path / "whole", batch_size=2)
    cut = TrainConfig(data=shards, out=tmp_path / "cut", batch_size=2)
    assert run(whole, process_group, 4).state == "finished"
    run(cut, process_group, 2)
    run(cut, process_group, 4)
    for name in ("model", "ema"):
        first = load_file(list_checkpoints(whole.out)[-1] / f"{name}.safetensors")
        second = load_file(list_checkpoints(cut.out)[-1] / f"{name}.safetensors")
        assert all(torch.equal(tensor, second[key]) for key, tensor in first.items())

    row = read_rows(whole.out / "metrics.jsonl")[-1]
    assert {"diffusion", "correspondence", "position", "flow"} <= row.keys()
    with Image.open(whole.out / "samples" / "step-000004.png") as sheet:
        assert sheet.width > 4 * 4 * 64
    model = MVVDM.from_pretrained(whole.out / "model")
    average = load_file(list_checkpoints(whole.out)[-1] / "ema.safetensors")
    for name, weight in model.named_parameters():
        assert torch.equal(weight, average[name].half().float()), name
    card = (whole.out / "model" / "README.md").read_text()
    assert "3" in card.split("## Data")[1]
