import os
import subprocess
import sys
from pathlib import Path

import pytest

import animate4d
from animate4d.core.errors import ConfigError
from animate4d.models.config import model_preset
from animate4d.training.config import ModelChanges, TrainConfig

DATA = Path("shards")


def test_an_override_changes_its_number_and_nothing_else():
    base, changed = TrainConfig(data=DATA).recipe(), TrainConfig(data=DATA, learning_rate=1e-4, position=0.0).recipe()
    assert changed.optimizer.learning_rate == 1e-4
    assert changed.objective.position == 0.0
    assert changed.optimizer.betas == base.optimizer.betas
    assert changed.objective.flow == base.objective.flow


def test_ablations_change_the_network_and_the_objective():
    config = TrainConfig(
        data=DATA,
        correspondence=0.0,
        first_frame_noise="time",
        first_frame_noise_max=0.5,
        model=ModelChanges(blend="fixed", mv2v=False, head="v_prediction", tap="up_blocks.0"),
    )
    network, preset = config.network(), model_preset("smoke")
    assert (network.blend, network.mv2v, network.head, network.tap) == ("fixed", False, "v_prediction", "up_blocks.0")
    assert network.image_tokens == preset.image_tokens
    assert network.block_channels == preset.block_channels
    objective = config.recipe().objective
    assert (objective.correspondence, objective.first_frame_noise, objective.first_frame_noise_max) == (0, "time", 0.5)
    assert TrainConfig(data=DATA).network() == preset


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"preset": "huge"}, "smoke, small, paper"),
        ({"workers": 0}, "workers is 0"),
        ({"workers": 3}, "multiple of --workers"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"ema": 1.0}, "ema is 1.0"),
        ({"keep": 0}, "keep is 0"),
        ({"model": ModelChanges(head="epsilon")}, "zero_terminal_snr"),
        ({"first_frame_noise_max": -1.0}, "first_frame_noise_max is -1.0"),
    ],
)
def test_impossible_settings_are_refused_by_name(changes, said):
    with pytest.raises(ConfigError, match=said):
        TrainConfig(data=DATA, **changes)


def test_the_paper_preset_trains_sixteen_clips_a_step_on_sixteen_workers():
    config = TrainConfig(data=DATA, preset="paper", workers=16)
    assert config.recipe().optimizer.batch_size // config.workers == 1


def test_the_config_module_imports_nothing_heavy():
    code = (
        "import sys, animate4d.training.config;"
        "print([name for name in ('torch', 'ray', 'deepspeed', 'mlflow', 'diffusers') if name in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(animate4d.__file__).parents[1])}
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert shown.stdout.strip() == "[]"
