import json

import pytest

from animate4d.core.errors import ConfigError
from animate4d.training.checkpoint import (
    MARKER,
    check_same_run,
    checkpoint_folder,
    fault,
    list_checkpoints,
    newest_sound,
    partial_folder,
    prune,
    seal,
)


def write_checkpoint(out, step, config=None):
    partial = partial_folder(out, step)
    (partial / "part").mkdir(parents=True)
    (partial / "part" / "weights.bin").write_bytes(bytes(range(100)))
    (partial / "config.json").write_text(json.dumps(config or {}))
    seal(partial, checkpoint_folder(out, step))
    return checkpoint_folder(out, step)


def test_a_sealed_checkpoint_is_sound_and_leaves_no_partial_folder(tmp_path):
    folder = write_checkpoint(tmp_path, 7)
    assert fault(folder) is None
    assert newest_sound(tmp_path).folder == folder
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000007"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / MARKER).unlink(), "cut short"),
        (lambda folder: (folder / MARKER).write_text("{"), "cannot be read"),
        (lambda folder: (folder / "part" / "weights.bin").unlink(), "weights.bin is missing"),
        (lambda folder: (folder / "part" / "weights.bin").write_bytes(b""), "0 bytes instead of 100"),
        (lambda folder: (folder / "part" / "weights.bin").write_bytes(bytes(100)), "sha256"),
    ],
)
def test_damage_is_named_and_the_checkpoint_before_is_taken(tmp_path, damage, said):
    older, newer = write_checkpoint(tmp_path, 5), write_checkpoint(tmp_path, 10)
    damage(newer)
    found = newest_sound(tmp_path)
    assert found.folder == older
    assert "step-000010" in found.damaged[0]
    assert said in found.damaged[0]


def test_a_run_with_no_sound_checkpoint_has_none(tmp_path):
    (write_checkpoint(tmp_path, 5) / MARKER).unlink()
    found = newest_sound(tmp_path)
    assert found.folder is None
    assert len(found.damaged) == 1


def test_steps_beyond_six_digits_stay_in_order(tmp_path):
    for step in (999_999, 1_000_000, 5):
        write_checkpoint(tmp_path, step)
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["step-000005", "step-999999", "step-1000000"]


def test_pruning_keeps_the_newest_and_clears_what_was_cut_short(tmp_path):
    for step in (1, 2, 3, 4):
        write_checkpoint(tmp_path, step)
    partial_folder(tmp_path, 5).mkdir()
    prune(tmp_path, 2)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-000003", "step-000004"]


def test_a_checkpoint_written_again_replaces_the_damaged_one(tmp_path):
    (write_checkpoint(tmp_path, 5) / MARKER).unlink()
    assert fault(write_checkpoint(tmp_path, 5)) is None


SETTINGS = {"seed": 0, "workers": 1, "steps": 100, "recipe": {"optimizer": {"betas": [0.9, 0.98]}}, "job": {"out": "a"}}


def test_what_does_not_decide_the_result_may_change(tmp_path):
    folder = write_checkpoint(tmp_path, 5, SETTINGS)
    changed = SETTINGS | {
        "steps": 200,
        "workers": 2,
        "job": {"out": "b"},
        "recipe": {"optimizer": {"betas": (0.9, 0.98)}},
    }
    check_same_run(folder, changed)


def test_every_differing_setting_is_named(tmp_path):
    folder = write_checkpoint(tmp_path, 5, SETTINGS)
    changed = SETTINGS | {"seed": 3, "recipe": {"optimizer": {"betas": [0.9, 0.999]}}}
    with pytest.raises(ConfigError) as caught:
        check_same_run(folder, changed)
    assert "seed (checkpoint 0, now 3)" in str(caught.value)
    assert "recipe.optimizer.betas" in str(caught.value)
    assert "steps" not in str(caught.value)
