import pytest

from animate4d.core.errors import ConfigError, ModelError
from animate4d.data.config import DataConfig
from animate4d.tracks.build import LEARNED, WEIGHTLESS, make_tracker
from animate4d.training.config import TrainConfig


@pytest.mark.parametrize("name", LEARNED)
def test_learned_trackers_ask_for_their_weights(name, tmp_path):
    with pytest.raises(ConfigError, match="scaled_offline"):
        make_tracker(name)
    with pytest.raises(ConfigError, match="scaled_offline"):
        DataConfig(shards=tmp_path, tracker=name)
    with pytest.raises(ConfigError, match="scaled_offline"):
        TrainConfig(data=tmp_path, tracker=name)


@pytest.mark.parametrize("name", ["exact", "none", *WEIGHTLESS])
def test_other_trackers_take_no_weights(name, tmp_path):
    for build in (
        lambda: make_tracker(name, checkpoint=tmp_path / "a.pth"),
        lambda: DataConfig(shards=tmp_path, tracker=name, tracker_checkpoint=tmp_path / "a.pth"),
    ):
        with pytest.raises(ConfigError, match=f"{name} takes no checkpoint"):
            build()


def test_unknown_names_are_refused_before_anything_runs(tmp_path):
    with pytest.raises(ConfigError, match="optical-illusion"):
        DataConfig(shards=tmp_path, tracker="optical-illusion")


def test_weights_that_are_not_there_are_named(tmp_path):
    with pytest.raises(ModelError, match=r"gone\.pth"):
        make_tracker("cotracker3", checkpoint=tmp_path / "gone.pth")


@pytest.mark.parametrize("name", ["exact", "none"])
def test_names_that_are_no_trackers_build_none(name):
    with pytest.raises(ConfigError, match=f"tracker {name} cannot label"):
        make_tracker(name)


def test_half_precision_is_for_our_network_only(tmp_path):
    weights = tmp_path / "weights.pth"
    assert DataConfig(
        shards=tmp_path, tracker="cotracker3", tracker_checkpoint=weights, tracker_precision="bf16"
    ).computes_labels
    for name, path in [("opencv-lk", None), ("exact", None), ("cotracker3-official", weights)]:
        for build in (
            lambda name=name, path=path: DataConfig(
                shards=tmp_path, tracker=name, tracker_checkpoint=path, tracker_precision="bf16"
            ),
            lambda name=name, path=path: TrainConfig(
                data=tmp_path, tracker=name, tracker_checkpoint=path, tracker_precision="bf16"
            ),
        ):
            with pytest.raises(ConfigError, match="no precision bf16"):
                build()
    with pytest.raises(ConfigError, match="fp32 or bf16"):
        DataConfig(shards=tmp_path, tracker="cotracker3", tracker_checkpoint=weights, tracker_precision="fp16")


def test_training_without_tracks_supervises_none(tmp_path):
    with pytest.raises(ConfigError, match="--correspondence 0 --position 0"):
        TrainConfig(data=tmp_path, tracker="none")
    assert TrainConfig(data=tmp_path, tracker="none", correspondence=0, position=0).tracker == "none"
