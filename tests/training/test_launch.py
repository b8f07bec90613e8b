"""Training under Ray Train: observers and refusals. What is left when processes die: `bench/faults`."""

import json

import pytest

from animate4d.core.errors import ClusterError, ConfigError, ShardError, TrainingError
from animate4d.training.checkpoint import (
    MARKER,
    checkpoint_folder,
    partial_folder,
    seal,
)
from animate4d.training.config import TrainConfig
from animate4d.training.launch import open_run, resolve, train


class Ear:
    """Remembers what it was told."""

    def __init__(self):
        self.steps, self.pictures, self.starts, self.ends = [], [], [], []

    def started(self, start):
        self.starts.append(start)

    def progressed(self, rows):
        self.steps += [row["step"] for row in rows]

    def drew(self, image, step):
        self.pictures.append(step)

    def ended(self, result, error):
        self.ends.append((result, error))


def with_checkpoint(config, step):
    """Give a config's run folder a sound, empty checkpoint of the same settings."""
    partial = partial_folder(config.out, step)
    partial.mkdir(parents=True)
    (partial / "config.json").write_text(json.dumps(resolve(config)))
    seal(partial, checkpoint_folder(config.out, step))


@pytest.mark.ray
@pytest.mark.slow
def test_a_training_tells_its_observers_everything_once(ray_cluster, tmp_path, empty_shards, make_maker):
    ear = Ear()
    config = TrainConfig(data=empty_shards, out=tmp_path / "run", steps=9, checkpoint_every=4, sample_every=3)
    result = train(config, [ear], make_parts=make_maker())
    assert result.state == "finished"
    assert (result.model / "config.json").read_text() == "9"
    assert ear.steps == list(range(1, 10))
    assert ear.pictures == [3, 6, 9]
    assert [len(ear.starts), len(ear.ends)] == [1, 1]
    assert ear.ends[0] == (result, None)
    assert not (config.out / ".ray").exists()

    with pytest.raises(ConfigError, match="add --resume"):
        train(config, make_parts=make_maker())
    again = train(TrainConfig(data=empty_shards, out=config.out, steps=9, resume=True), make_parts=make_maker())
    assert (again.state, again.step) == ("finished", 9)


@pytest.mark.ray
def test_more_workers_than_the_cluster_holds_are_refused(ray_cluster, tmp_path, empty_shards):
    with pytest.raises(ClusterError, match="4 CPUs, but the cluster has 2"):
        train(TrainConfig(data=empty_shards, out=tmp_path / "run", workers=4))


def test_a_folder_without_shards_is_refused(tmp_path):
    with pytest.raises(ShardError, match="build_shards"):
        train(TrainConfig(data=tmp_path, out=tmp_path / "run"))


def test_resume_refuses_other_settings_and_says_which(tmp_path, empty_shards):
    with_checkpoint(TrainConfig(data=empty_shards, out=tmp_path / "run"), 5)
    changed = TrainConfig(data=empty_shards, out=tmp_path / "run", resume=True, seed=4, flow=0.75)
    with pytest.raises(ConfigError) as caught:
        train(changed)
    assert "seed (checkpoint 0, now 4)" in str(caught.value)
    assert "recipe.objective.flow (checkpoint" in str(caught.value)
    assert "now 0.75)" in str(caught.value)


def test_resume_says_which_checkpoint_it_passes_over(tmp_path, empty_shards, capsys):
    config = TrainConfig(data=empty_shards, out=tmp_path / "run", resume=True)
    with_checkpoint(config, 5)
    with_checkpoint(config, 10)
    (checkpoint_folder(config.out, 10) / MARKER).unlink()
    assert open_run(config, resolve(config)) == 5
    assert "step-000010 is damaged" in capsys.readouterr().err
    (checkpoint_folder(config.out, 5) / MARKER).unlink()
    with pytest.raises(TrainingError, match="is whole"):
        open_run(config, resolve(config))


def test_resume_of_nothing_starts_and_says_so(tmp_path, empty_shards, capsys):
    config = TrainConfig(data=empty_shards, out=tmp_path / "run", resume=True)
    assert open_run(config, resolve(config)) == 0
    assert "nothing to resume" in capsys.readouterr().err


def test_resume_refuses_a_tracker_with_other_weights(tmp_path, empty_shards):
    checkpoint = tmp_path / "scaled_offline.pth"
    checkpoint.write_bytes(b"one")
    settings = {
        "data": empty_shards,
        "out": tmp_path / "run",
        "tracker": "cotracker3",
        "tracker_checkpoint": checkpoint,
    }
    with_checkpoint(TrainConfig(**settings), 5)
    moved = tmp_path / "elsewhere.pth"
    moved.write_bytes(b"one")
    config = TrainConfig(**settings | {"tracker_checkpoint": moved}, resume=True)
    assert open_run(config, resolve(config)) == 5
    checkpoint.write_bytes(b"other")
    with pytest.raises(ConfigError, match=r"tracker \(checkpoint cotracker3 "):
        train(TrainConfig(**settings, resume=True))
    with pytest.raises(ConfigError, match=r"tracker_checkpoint: .*gone\.pth"):
        resolve(TrainConfig(**settings | {"tracker_checkpoint": tmp_path / "gone.pth"}))
