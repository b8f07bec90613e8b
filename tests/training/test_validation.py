"""Validation losses: repeatable, and of held-out clips only."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from animate4d.core.errors import ShardError
from animate4d.data.split import object_of
from animate4d.training.config import HELD_OUT, TrainConfig
from animate4d.training.launch import open_run, resolve
from animate4d.training.parts import make_model, make_parts
from animate4d.training.validation import Validation


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    path = Path(__file__).parents[1] / "data" / "conftest.py"
    spec = importlib.util.spec_from_file_location("small_shards", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.write_shards(tmp_path_factory.mktemp("shards"), 8, views=4, frames=16, size=64, clips_per_object=2)


@pytest.fixture
def config(shards, tmp_path):
    return TrainConfig(data=shards, out=tmp_path / "run", held_out=0.25, validate_clips=3, sample_every=0)


def test_the_run_folder_lists_what_is_held_out_and_training_never_sees_it(config):
    open_run(config, resolve(config))
    away = (config.out / HELD_OUT).read_text().split()
    assert len(away) == 2
    assert len({object_of(key) for key in away}) == 1
    parts = make_parts(config, 0, 1)
    trained = set(parts.stream._reader.store.keys)
    assert len(trained) == 6
    assert not trained & set(away)
    assert set(parts.validate.stream._reader.store.keys) == set(away)
    assert make_parts(config, 1, 2).validate is None


def test_the_losses_are_those_of_the_model_alone(config):
    open_run(config, resolve(config))
    validate = make_parts(config, 0, 1).validate
    torch.manual_seed(0)
    model = make_model(config).eval()
    first = validate(model)
    torch.randn(5)
    assert validate(model) == first
    assert {"val_loss", "val_diffusion", "val_flow", "val_correspondence", "val_position"} <= first.keys()
    assert make_parts(replace(config, seed=7, batch_size=8), 0, 1).validate(model) == first
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn(weight.shape))
    assert validate(model)["val_diffusion"] != first["val_diffusion"]


def test_at_most_the_wanted_clips_and_at_least_one_batch_are_read(config):
    data = make_parts(config, 0, 1).stream._config
    objective = config.recipe().objective
    assert [Validation(data, objective, clips).batches for clips in (1, 5, 100)] == [1, 2, 3]


def test_too_few_objects_are_said_and_nothing_is_held_out(config, capsys):
    few = replace(config, held_out=0.1)
    open_run(few, resolve(few))
    assert "too few objects to hold out 10%" in capsys.readouterr().err
    assert not (few.out / HELD_OUT).exists()
    parts = make_parts(few, 0, 1)
    assert parts.validate is None
    assert len(parts.stream._reader.store.keys) == 8


def test_damaged_held_out_clips_are_a_named_error(config):
    open_run(config, resolve(config))
    validate = make_parts(config, 0, 1).validate

    def gone(item):
        raise ShardError("shard-000000.tar is gone")

    validate.stream._reader.fetch = gone
    with pytest.raises(ShardError, match="is gone"):
        validate(make_model(config).eval())
