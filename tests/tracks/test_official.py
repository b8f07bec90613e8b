import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from animate4d.core.errors import ConfigError, ModelError
from animate4d.tracks.cotracker3.config import CoTracker3Config, TrackingSettings
from animate4d.tracks.cotracker3.model import CoTracker3
from animate4d.tracks.official import OfficialCoTracker3Tracker, import_builder, make_official

SETTINGS = {"height": 32, "width": 40, "support": 0, "iterations": 3}


class StandIn(torch.nn.Module):
    """Answers as their network does for one clip: points drift to the right by their number, in stretched pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = []

    def load_state_dict(self, state):
        self.loaded = state

    def forward(self, video, queries, iters):
        assert video.shape[0] == queries.shape[0] == 1
        self.calls.append((tuple(video.shape), queries.shape[1], iters))
        shape = (1, video.shape[1], queries.shape[1])
        time = torch.arange(video.shape[1])[None, :, None, None]
        xy = queries[:, None, :, 1:] + time * torch.tensor([1.0, 0.0])
        return xy, torch.full(shape, 0.9), torch.full(shape, 0.8), None


@pytest.fixture
def package(monkeypatch):
    """A package `cotracker` that resets torch's random numbers when imported, as theirs does."""
    names = ("cotracker", "cotracker.models", "cotracker.models.build_cotracker")
    modules = {name: ModuleType(name) for name in names}
    made = []

    def build_cotracker(checkpoint, offline, window_len, v2):
        made.append((checkpoint, offline, window_len, v2))
        return StandIn()

    modules[names[-1]].build_cotracker = build_cotracker
    for name in names:
        monkeypatch.setitem(sys.modules, name, modules[name])
    return made


@pytest.fixture(scope="module")
def model():
    sizes = {"stages": (4, 4, 4, 4), "fusion": 4, "features": 4, "hidden": 8, "heads": 1, "depth": 1}
    return CoTracker3(CoTracker3Config(**sizes, correlation=2, correlation_hidden=4, virtual_tracks=2))


def test_views_are_tracked_one_by_one_without_their_padding(package, model):
    tracker = OfficialCoTracker3Tracker(model, "a" * 64, TrackingSettings(**SETTINGS), device="cpu")
    assert package == [(None, True, 60, False)]
    assert tracker._official.loaded.keys() == model.state_dict().keys()
    video = np.zeros((2, 5, 32, 40, 3), np.uint8)
    queries = np.array([[[10.5, 8.5], [20.5, 9.5]], [[3.5, 4.5], [0.0, 0.0]]], np.float32)
    valid = np.array([[True, True], [True, False]])
    tracks = tracker.track(video, queries, None, valid)
    assert [call[1:] for call in tracker._official.calls] == [(2, 3), (1, 3)]
    assert np.allclose(tracks.xy[0, 4], queries[0] + (4, 0))
    assert np.allclose(tracks.xy[1, 4, 0], (7.5, 4.5))
    assert np.allclose(tracks.visible[0, 4], 0.72)
    assert not tracks.visible[1, :, 1].any()
    assert tracks.tracker.startswith("cotracker3-official-offline/")


def test_a_missing_package_is_explained(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cotracker", None)
    with pytest.raises(ConfigError, match="use cotracker3, which needs none"):
        make_official(tmp_path / "gone.pth")


def test_importing_the_package_leaves_the_random_numbers_alone(monkeypatch, tmp_path):
    folder = tmp_path / "cotracker" / "models"
    folder.mkdir(parents=True)
    (folder / "build_cotracker.py").write_text("import torch\ntorch.manual_seed(0)\nbuild_cotracker = None\n")
    monkeypatch.syspath_prepend(tmp_path)
    torch.manual_seed(9)
    wanted = torch.rand(2)
    torch.manual_seed(9)
    import_builder()
    assert "cotracker.models.build_cotracker" in sys.modules
    assert torch.equal(torch.rand(2), wanted)
    for name in [name for name in sys.modules if name.split(".")[0] == "cotracker"]:
        monkeypatch.delitem(sys.modules, name)


def test_what_it_cannot_do_is_refused(package, model):
    with pytest.raises(ConfigError, match="fp32"):
        OfficialCoTracker3Tracker(model, "a", TrackingSettings(precision="bf16"), device="cpu")
    online = CoTracker3(CoTracker3Config(online=True, window=16))
    tracker = OfficialCoTracker3Tracker(online, "a", TrackingSettings(**SETTINGS), device="cpu")
    with pytest.raises(ModelError, match="8 frames"):
        tracker.track(np.zeros((1, 8, 32, 40, 3), np.uint8), np.ones((1, 1, 2), np.float32), None)
