"""Samples come back as they were written; whatever does not fit has a name."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from animate4d.core.cameras import Rig
from animate4d.core.clip import MultiViewVideo
from animate4d.core.errors import ShardError
from animate4d.core.tracks import Tracks
from animate4d.data.schema import ClipMeta, decode_clip, decode_meta, encode_sample
from animate4d.io.arrays import pack_arrays
from animate4d.io.images import encode_strip

VIEWS, FRAMES, SIZE, POINTS = 4, 6, 16, 7


@pytest.fixture(scope="module")
def parts():
    rng = np.random.default_rng(0)
    rig = Rig.even(VIEWS)
    video = MultiViewVideo(
        rgb=rng.integers(0, 256, (VIEWS, FRAMES, SIZE, SIZE, 3), dtype=np.uint8),
        alpha=rng.integers(0, 256, (VIEWS, FRAMES, SIZE, SIZE), dtype=np.uint8),
        camera_to_world=rig.camera_to_world(),
        intrinsics=rig.intrinsics(SIZE),
        times=np.arange(FRAMES) / 7,
    )
    meta = ClipMeta(
        id="a-00000000-00-00000",
        object="a",
        animation="Ärmel|Walk",
        caption="a fox walking",
        licence="CC0-1.0",
        fps=7.0,
        times=video.times,
        camera_to_world=video.camera_to_world,
        intrinsics=video.intrinsics,
        size=SIZE,
        source_sha256="0" * 64,
        generator="test",
        motion=0.1,
    )
    tracks = Tracks(
        xy=rng.uniform(0, SIZE, (VIEWS, FRAMES, POINTS, 2)).astype(np.float32),
        visible=rng.integers(0, 2, (VIEWS, FRAMES, POINTS)).astype(np.float32),
        tracker="exact/1",
    )
    flow = rng.normal(size=(VIEWS, FRAMES, SIZE // 2, SIZE // 2, 2)).astype(np.float16)
    mask = rng.integers(0, 256, flow.shape[:-1], dtype=np.uint8)
    return video, meta, tracks, flow, mask


@pytest.fixture
def members(parts):
    return encode_sample(*parts)


def test_everything_comes_back(parts, members):
    video, meta, tracks, flow, mask = parts
    clip = decode_clip(members, views=range(VIEWS), frames=range(FRAMES))
    np.testing.assert_array_equal(clip.video.rgb, video.rgb)
    np.testing.assert_array_equal(clip.video.alpha, video.alpha)
    np.testing.assert_array_equal(clip.video.camera_to_world, video.camera_to_world)
    np.testing.assert_array_equal(clip.tracks.xy, tracks.xy)
    np.testing.assert_array_equal(clip.tracks.visible, tracks.visible)
    assert clip.tracks.tracker == "exact/1"
    np.testing.assert_array_equal(clip.flow, flow)
    np.testing.assert_array_equal(clip.flow_mask, mask)
    assert (clip.meta.animation, clip.meta.caption, clip.meta.motion) == (meta.animation, meta.caption, meta.motion)
    np.testing.assert_array_equal(clip.meta.times, meta.times)


def test_only_the_wanted_views_and_frames_come_back(parts, members):
    video, _, tracks, flow, mask = parts
    views, frames = [3, 1], [0, 2, 5]
    chosen = np.ix_(views, frames)
    clip = decode_clip(members, views=views, frames=frames)
    np.testing.assert_array_equal(clip.video.rgb, video.rgb[chosen])
    np.testing.assert_array_equal(clip.video.intrinsics, video.intrinsics[views])
    np.testing.assert_array_equal(clip.video.times, video.times[frames])
    np.testing.assert_array_equal(clip.tracks.xy, tracks.xy[chosen])
    np.testing.assert_array_equal(clip.flow, flow[chosen])
    np.testing.assert_array_equal(clip.flow_mask, mask[chosen])


def test_unwanted_views_are_not_needed(members):
    del members["view_00.webp"]
    assert decode_clip(members, views=[1], frames=[0]).video.rgb.shape == (1, 1, SIZE, SIZE, 3)


def test_labels_are_optional(parts):
    clip = decode_clip(encode_sample(parts[0], parts[1]), views=[0], frames=[0])
    assert clip.tracks is None
    assert clip.flow is None
    assert clip.flow_mask is None


def damage(members, **changes):
    values = json.loads(members["meta.json"]) | changes
    return members | {"meta.json": json.dumps(values).encode()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: {k: v for k, v in m.items() if k != "view_02.webp"}, "view_02.webp is missing"),
        (lambda m: m | {"view_02.webp": b"RIFF nonsense"}, "not a readable WebP"),
        (lambda m: m | {"view_02.webp": m["view_02.webp"][:200]}, "not a readable WebP"),
        (lambda m: m | {"view_02.webp": encode_strip(np.zeros((FRAMES, 8, 8, 4), np.uint8))}, "meta.json says 16"),
        (lambda m: m | {"view_02.webp": encode_strip(np.zeros((5, 16, 16, 4), np.uint8))}, "cannot hold 6 frames"),
        (lambda m: m | {"tracks.npz": b"PK"}, "not a readable npz"),
        (lambda m: m | {"tracks.npz": m["flow.npz"]}, "'xy' is missing"),
        (lambda m: m | {"flow.npz": pack_arrays({"flow": np.zeros((1, 2)), "mask": np.zeros(3)})}, "array 'flow' is"),
    ],
)
def test_damaged_members_name_the_sample(members, change, words):
    with pytest.raises(ShardError, match=f"sample a-00000000-00-00000: .*{words}"):
        decode_clip(change(members), views=range(VIEWS), frames=range(FRAMES))


def test_flow_of_all_views_in_one_array_is_read_too(parts, members):
    """The form that shards had at first."""
    _, _, _, flow, mask = parts
    old = members | {"flow.npz": pack_arrays({"flow": flow.astype(np.float16), "mask": mask})}
    views, frames = [3, 1], [0, 2, 5]
    first, second = (decode_clip(form, views=views, frames=frames) for form in (old, members))
    np.testing.assert_array_equal(first.flow, second.flow)
    np.testing.assert_array_equal(first.flow_mask, second.flow_mask)


def test_flow_and_mask_of_different_sizes_are_refused(parts, members):
    _, _, _, flow, mask = parts
    halves = {"flow_01": flow[1].astype(np.float16), "mask_01": mask[1, :, ::2]}
    with pytest.raises(ShardError, match="do not fit together"):
        decode_clip(members | {"flow.npz": pack_arrays(halves)}, views=[1], frames=[0])


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "GIF", "JPEG2000"])
def test_a_picture_of_another_kind_under_our_name_is_not_decoded(members, kind):
    stream = io.BytesIO()
    Image.fromarray(np.zeros((FRAMES * SIZE, SIZE, 3), np.uint8)).save(stream, kind)
    with pytest.raises(ShardError, match="not a readable WebP"):
        decode_clip(members | {"view_01.webp": stream.getvalue()}, views=[1], frames=[0])


@pytest.mark.parametrize("member", ["tracks.npz", "flow.npz"])
def test_pickled_objects_in_arrays_are_refused_unopened(members, member, tmp_path):
    class Canary:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "canary",))

    stream = io.BytesIO()
    names = ("xy", "visible", "tracker", "flow_01", "mask_01")
    np.savez(stream, **{name: np.array([Canary()], object) for name in names})
    with pytest.raises(ShardError, match="object"):
        decode_clip(members | {member: stream.getvalue()}, views=[1], frames=[0])
    assert not (tmp_path / "canary").exists()


def test_tracks_that_are_not_numbers_are_refused(members, parts):
    xy = parts[2].xy.copy()
    xy[1, 2, 3] = np.nan
    arrays = {"xy": xy, "visible": np.zeros(xy.shape[:-1], np.uint8), "tracker": np.zeros(1, np.uint8)}
    with pytest.raises(ShardError, match="not finite"):
        decode_clip(members | {"tracks.npz": pack_arrays(arrays)}, views=[0], frames=[0])


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": 99},
        {"times": [0.0, None]},
        {"times": []},
        {"times": "soon"},
        {"camera_to_world": [[1, 2], [3, 4]]},
        {"intrinsics": []},
        {"size": 10**9},
        {"size": "x"},
        {"fps": None},
    ],
)
def test_impossible_descriptions_are_refused(members, changes):
    with pytest.raises(ShardError):
        decode_meta(damage(members, **changes))


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b"{}", b"\xff\xfe", b'{"schema": 1}'])
def test_foreign_descriptions_are_refused(members, raw):
    with pytest.raises(ShardError):
        decode_meta(members | {"meta.json": raw})


def test_a_sample_without_description_is_refused(members):
    del members["meta.json"]
    with pytest.raises(ShardError, match=r"without meta.json"):
        decode_meta(members)


def test_views_and_frames_that_are_not_there_are_refused(members):
    for views, frames in (([4], [0]), ([0], [6]), ([-1], [0])):
        with pytest.raises(ShardError, match="has 4 views and 6 frames"):
            decode_clip(members, views=views, frames=frames)
