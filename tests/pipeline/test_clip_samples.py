"""One asset to samples."""

import numpy as np
import pytest

from animate4d.assets.load import load_asset
from animate4d.assets.procedural import generate_objects
from animate4d.core.cameras import Rig
from animate4d.core.errors import AssetError, ConfigError
from animate4d.data.schema import decode_clip
from animate4d.data.split import object_of
from animate4d.pipeline.clip_options import ClipOptions
from animate4d.pipeline.clip_samples import clip_samples, motion_share, outside_share, render_sample, sample_key

OPTIONS = ClipOptions(views=4, frames=4, size=32, licence="CC0-1.0")


@pytest.fixture(scope="module")
def walker(tmp_path_factory):
    return generate_objects(tmp_path_factory.mktemp("objects"), count=1, families=("walker",), clips_per_object=2)[0]


def test_every_animation_becomes_a_sample(walker):
    outcomes = list(clip_samples(walker, OPTIONS, {"walk": "x"}))
    asset = load_asset(walker)
    assert [outcome.animation for outcome in outcomes] == [clip.name for clip in asset.clips]
    assert [outcome.key for outcome in outcomes] == [sample_key(walker, asset.source_sha256, n) for n in range(2)]
    for number, outcome in enumerate(outcomes):
        clip = decode_clip(outcome.members, views=range(4), frames=range(4))
        meta = clip.meta
        assert meta.id == outcome.key
        assert meta.licence == "CC0-1.0"
        assert meta.fps == pytest.approx(4 / asset.clips[number].duration)
        assert meta.source_sha256 == asset.source_sha256
        assert 0.005 < meta.motion < 1
        assert clip.video.alpha.max() == 255
        assert clip.tracks.xy.shape[:2] == (4, 4)
        assert clip.flow.shape == (4, 4, 16, 16, 2)


def test_the_table_of_captions_wins_by_name_and_by_number(walker):
    first = load_asset(walker).clips[0].name
    outcomes = list(clip_samples(walker, OPTIONS, {first: "one", "1": "two"}))
    captions = [decode_clip(outcome.members, views=[0], frames=[0]).meta.caption for outcome in outcomes]
    assert captions == ["one", "two"]


def test_the_same_input_gives_the_same_bytes(walker):
    first, second = (next(iter(clip_samples(walker, OPTIONS))).members for _ in range(2))
    assert first == second


def test_still_clips_are_left_out_with_a_reason(walker):
    outcomes = clip_samples(walker, ClipOptions(views=2, frames=2, size=16, min_motion=0.9))
    assert all(outcome.members is None and "less than 90" in outcome.reason for outcome in outcomes)


def test_objects_that_leave_the_picture_are_left_out_with_a_reason(walker):
    class Runaway:
        def __init__(self, poser):
            self.poser = poser

        def vertices(self, clip, time):
            return self.poser.vertices(clip, time) + np.array([10.0 * time, 0, 0])

    asset = load_asset(walker, clip=0)
    object.__setattr__(asset, "poser", Runaway(asset.poser))
    outcome = render_sample(asset, 0, "key", "caption", OPTIONS)
    assert outcome.members is None
    assert "leaves the picture" in outcome.reason


def test_shares():
    still = np.random.default_rng(0).uniform(-0.4, 0.4, (1, 30, 3)).astype(np.float32)
    moved = np.concatenate([still, still + np.float32([0.16, 0, 0])])
    assert motion_share(moved) == pytest.approx(0.1, rel=1e-4)
    faces = np.arange(30).reshape(10, 3)
    rig = Rig.even(4)
    assert outside_share(still, faces, rig) == 0
    assert outside_share(still + np.float32([0, 0, 50]), faces, rig) == pytest.approx(1)
    half = np.concatenate([still, still + np.float32([0, 0, 50])], axis=1)
    assert outside_share(half, np.arange(60).reshape(20, 3), rig) == pytest.approx(0.5)


def test_files_without_animations_or_sense_are_errors(tmp_path, walker):
    text = tmp_path / "text.glb"
    text.write_text("hello")
    with pytest.raises(AssetError, match=r"text.glb"):
        list(clip_samples(text, OPTIONS))


def test_a_static_model_is_an_error(real_assets):
    path = next(iter(sorted((real_assets / "static").glob("*.glb"))))
    with pytest.raises(AssetError, match="has no animations"):
        list(clip_samples(path, OPTIONS))


@pytest.mark.parametrize(
    "options", [{"views": 0}, {"frames": 1}, {"size": 33}, {"size": 8}, {"samples": 0}, {"max_seconds": 0}]
)
def test_options_out_of_range_are_named(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        ClipOptions(**options)


def test_strips_too_tall_are_refused_up_front():
    with pytest.raises(ConfigError, match="frames x size"):
        ClipOptions(frames=48, size=512)


def test_a_file_whose_name_says_nothing_is_called_like_its_folder(tmp_path):
    keys = [sample_key(tmp_path / folder / "Scene.gltf", "0a1b2c3d" * 8, 1) for folder in ("Red Fox", "owl")]
    assert keys == ["red-fox-0a1b2c3d-01-00000", "owl-0a1b2c3d-01-00000"]
    assert [object_of(key) for key in keys] == ["red-fox", "owl"]
    assert sample_key(tmp_path / "owls" / "barn.glb", "0a1b2c3d" * 8, 1).startswith("barn-")
