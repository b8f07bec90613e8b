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


@pytest.mark.parametrize("name", ["exact", *WEIGHTLESS])
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
