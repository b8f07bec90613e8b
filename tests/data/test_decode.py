from dataclasses import replace

import numpy as np
import pytest

from animate4d.core.errors import ConfigError, ShardError
from animate4d.data.config import DataConfig
from animate4d.data.order import Cursor, Item
from animate4d.data.reader import ItemReader


def config(folder, **changes) -> DataConfig:
    base = DataConfig(shards=folder, size=32, views=4, frames=4, stride=2, frames_per_step=None, points=6, prefetch=0)
    return replace(base, **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_shards):
    return write_shards(tmp_path_factory.mktemp("decode") / "s", 3, views=8, frames=8, size=32)


def example(folder, group=0, place=0, sample=1, **changes):
    return ItemReader(config(folder, **changes)).example(Item(Cursor(0, place), sample, group))


def test_an_item_is_the_stored_pixels_on_grey(folder, make_sample):
    from animate4d.data.schema import decode_clip

    item = example(folder, group=1)
    clip = decode_clip(make_sample(1)[1], views=[1, 3, 5, 7], frames=[0, 2, 4, 6])
    assert item.sample_id == "disc-00000001-00-00000/1"
    assert item.caption == "disc 1 walking"
    on_grey = np.moveaxis(clip.video.on_grey(), -1, 2) * 2 - 1
    assert item.video.shape == (4, 4, 3, 32, 32)
    assert np.abs(item.video - on_grey).max() < 1e-6
    assert (item.video[item.mask.repeat(3, 2) == 0] == 0).all()
    assert np.array_equal(item.mask[:, :, 0] > 0.5, clip.video.alpha > 127)
    assert np.allclose(item.camera, clip.meta.camera_to_world[[1, 3, 5, 7]], atol=1e-6)
    assert item.frame_index.tolist() == [0, 1, 2, 3]


def test_views_of_a_group_are_a_quarter_turn_apart(folder):
    camera = example(folder, group=1).camera[:, :2, 3]
    angles = np.degrees(np.arctan2(camera[:, 1], camera[:, 0]))
    assert np.allclose(np.diff(angles) % 360, 90, atol=1e-3)


def test_frame_draws_keep_frame_0_repeat_and_carry_true_indices(folder):
    drawn = [example(folder, place=place, frames_per_step=2) for place in range(20)]
    assert all(item.frame_index[0] == 0 and item.frame_index.shape == (2,) for item in drawn)
    assert {int(item.frame_index[1]) for item in drawn} == {1, 2, 3}
    whole = example(folder)
    for item in drawn:
        assert np.array_equal(item.video, whole.video[:, item.frame_index])
        assert np.array_equal(item.flow, whole.flow[:, item.frame_index])
    again = example(folder, place=7, frames_per_step=2)
    assert np.array_equal(again.frame_index, drawn[7].frame_index)
    assert np.array_equal(again.tracks, drawn[7].tracks)


def test_tracks_and_flow_tell_the_same_motion(folder):
    item = example(folder)
    moved = item.tracks - item.tracks[:, :1]
    assert np.allclose(moved[..., 0], (2 * item.frame_index)[None, :, None])
    assert np.allclose(moved[..., 1], 0)
    inside = item.flow_mask[:, 3, 0] == 1
    assert inside.any()
    assert np.allclose(item.flow[:, 3, 0][inside] * 16, -6, atol=0.01)


def test_smaller_models_get_area_means_scaled_tracks_and_unchanged_flow_values(folder):
    large, small = example(folder), example(folder, size=16)
    for name in ("video", "mask"):
        whole = getattr(large, name)
        mean = whole.reshape(*whole.shape[:3], 16, 2, 16, 2).mean((4, 6))
        assert np.abs(getattr(small, name) - mean).max() < 1e-5
    assert np.allclose(small.tracks, large.tracks / 2)
    assert small.flow.shape[-2:] == (8, 8)
    seen = small.flow_mask[:, 3, 0] == 1
    assert np.allclose(small.flow[:, 3, 0][seen] * 16, -6, atol=0.01)


def test_sizes_that_do_not_divide_keep_the_background_clean(folder):
    item = example(folder, size=24)
    assert item.video.shape[-2:] == item.mask.shape[-2:] == (24, 24)
    assert np.abs(item.video).max() <= 1
    assert (np.abs(item.video[:, :, 0]) <= item.mask[:, :, 0] + 1e-6).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"views": 3}, ["views", "8 views"]),
        ({"frames": 5}, ["stride", "9", "8"]),
        ({"size": 64}, ["64", "32 px"]),
    ],
)
def test_what_shards_cannot_give_is_said_at_opening(folder, changes, words):
    with pytest.raises(ConfigError) as error:
        ItemReader(config(folder, **changes))
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)


def test_exact_tracker_needs_stored_tracks(tmp_path, write_shards):
    bare = write_shards(tmp_path / "s", 2, tracks=False)
    with pytest.raises(ShardError) as error:
        example(bare)
    assert "disc-00000001-00-00000" in str(error.value)
    assert "--tracker opencv-lk" in str(error.value)


def test_a_sample_of_another_name_is_not_taken(tmp_path, write_shards, make_sample):
    swapped = write_shards(tmp_path / "s", 3, damage={1: lambda _: make_sample(9)[1]})
    reader = ItemReader(config(swapped, max_bad_share=0.5))
    item = reader.example(Item(Cursor(), 1, 0))
    assert not item.sample_id.startswith("disc-00000001")
    assert "disc-00000009" in reader.skipped["disc-00000001-00-00000/0"]


def test_shards_without_flow_give_none(tmp_path, write_shards):
    item = example(write_shards(tmp_path / "s", 2, flow=False))
    assert item.flow is None
    assert item.flow_mask is None


def test_without_a_tracker_no_tracks_are_read_and_no_point_counts(tmp_path, folder, write_shards):
    bare = write_shards(tmp_path / "s", 2, tracks=False)
    item = example(bare, tracker="none")
    assert "tracks.npz" not in ItemReader(config(bare, tracker="none")).decoder.members(0)
    assert item.tracks.shape == (4, 4, 6, 2)
    assert not item.visible.any()
    assert not (bare / "labels").exists()
    other = example(folder)
    assert np.array_equal(item.frame_index, other.frame_index)
    assert np.array_equal(item.video, other.video)
