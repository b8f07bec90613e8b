"""An animation of a video release becomes samples: cameras, masks, frames, and what is wrong with it."""

from dataclasses import replace

import numpy as np
import pytest

from animate4d.core.errors import ConfigError, SourceError
from animate4d.data.mv_video import Shot, SourceAnimation
from animate4d.data.schema import decode_clip, decode_meta
from animate4d.pipeline.release_clips import release_rig, release_samples
from animate4d.pipeline.release_options import ReleaseOptions
from animate4d.tracks.opencv import LucasKanadeTracker
from animate4d.tracks.queries import grid_queries
from animate4d.views.raycast import Renderer
from animate4d.views.rays import Cameras
from animate4d.views.shading import bake_shading

OPTIONS = ReleaseOptions(views=4, frames=5, stride=3, starts=(0, 1), size=64)
NAME = "bbbb2/00"


def animation_of(release, name=NAME, **changes):
    uid, number = name.split("/")
    source = SourceAnimation(uid=uid, animation=number, views=dict(enumerate(release.videos[name])))
    return replace(source, **changes)


def shot_of(release, name=NAME):
    uid, number = name.split("/")
    facts = release.table[uid]["anim"][number]
    angle = facts["angle"]
    return Shot(
        caption=facts["text_prompt"], elevation_deg=angle["elv"], azimuth_deg=angle["azi_start"], url=f"https://{uid}"
    )


def decoded(outcome, views=4, frames=5):
    return decode_clip(outcome.members, views=range(views), frames=range(frames))


@pytest.fixture(scope="module")
def samples(release):
    return list(release_samples(animation_of(release), shot_of(release), OPTIONS))


def iou(found, truth):
    return (found & truth).sum() / (found | truth).sum()


def test_masks_agree_with_the_true_coverage(release, samples):
    for start, outcome in enumerate(samples):
        truth = release.alpha[NAME][::4, start::3][:, :5] >= 128
        assert iou(decoded(outcome).video.alpha >= 128, truth) > 0.88


def test_the_object_reprojects_onto_the_masks_with_the_stored_cameras(release, samples):
    mesh, vertices = release.poses[NAME]
    for start, outcome in enumerate(samples):
        clip = decoded(outcome)
        cameras = Cameras.of(clip.video.camera_to_world, clip.video.intrinsics, clip.meta.size)
        renderer = Renderer(mesh, cameras, samples=2, shading=bake_shading(mesh, vertices[0]))
        for frame, pose in enumerate(vertices[start::3][:5]):
            again = renderer.render(pose, renderer.caster(pose)).rgba[..., 3] >= 128
            assert iou(clip.video.alpha[:, frame] >= 128, again) > 0.87


def test_a_camera_one_view_further_does_not_fit(release, samples):
    """The check above would notice views in a wrong order."""
    mesh, vertices = release.poses[NAME]
    clip = decoded(samples[0])
    cameras = Cameras.of(np.roll(clip.video.camera_to_world, 1, axis=0), clip.video.intrinsics, clip.meta.size)
    renderer = Renderer(mesh, cameras, samples=2, shading=bake_shading(mesh, vertices[0]))
    again = renderer.render(vertices[0], renderer.caster(vertices[0])).rgba[..., 3] >= 128
    assert iou(clip.video.alpha[:, 0] >= 128, again) < 0.7


def test_points_followed_in_the_sample_stay_on_the_object(release, samples):
    clip = decoded(samples[0])
    queries, valid = grid_queries(clip.video.alpha[:, 0])
    pictures = (clip.video.on_grey() * 255).astype(np.uint8)
    tracks = LucasKanadeTracker().track(pictures, queries, clip.video.alpha)
    truth = release.alpha[NAME][::4, ::3][:, :5]
    seen = (tracks.visible > 0.5) & valid[:, None]
    view, frame, _ = np.nonzero(seen)
    x, y = tracks.xy[seen].astype(int).clip(0, 63).T
    assert seen.sum() > 100
    assert (truth[view, frame, y, x] > 0).mean() > 0.97


def test_meta_says_where_a_clip_comes_from(release, samples):
    first, second = (decode_meta(outcome.members) for outcome in samples)
    assert (first.object, first.animation, first.caption) == ("bbbb2", "00", "bbbb2 moves in way 0")
    assert (first.fps, first.source_url, first.motion) == (8.0, "https://bbbb2", None)
    assert first.times == pytest.approx(np.arange(5) / 8)
    assert second.times == pytest.approx(np.arange(5) / 8 + 1 / 24)
    assert first.magnitude > 0
    assert 0.5 < first.mask_confidence < 1
    assert first.source_sha256 == second.source_sha256
    assert samples[0].key.startswith("bbbb2-")
    assert [outcome.key[-5:] for outcome in samples] == ["00000", "00042"]


def test_colours_survive_and_the_background_becomes_plain_grey(release, samples):
    clip = decoded(samples[0])
    outside = clip.video.alpha == 0
    assert np.abs(clip.video.on_grey()[outside] - 0.5).max() < 1e-6
    lossless = next(
        iter(release_samples(animation_of(release), shot_of(release), replace(OPTIONS, quality=100, starts=(0,))))
    )
    exact = decoded(lossless)
    assert np.array_equal(exact.video.alpha, clip.video.alpha)
    inside = clip.video.alpha == 255
    assert np.abs(exact.video.rgb[inside].astype(int) - clip.video.rgb[inside]).mean() < 4
    assert len(lossless.members["view_00.webp"]) > len(samples[0].members["view_00.webp"])


def test_smaller_pictures_have_soft_masks(release):
    (outcome,) = release_samples(animation_of(release), shot_of(release), replace(OPTIONS, size=32, starts=(0,)))
    clip = decoded(outcome)
    truth = release.alpha[NAME][::4, ::3][:, :5].reshape(4, 5, 32, 2, 32, 2).mean((3, 5))
    assert np.abs(clip.video.alpha - truth).mean() < 6
    assert len(np.unique(clip.video.alpha)) > 2


@pytest.mark.parametrize(("clockwise", "turn"), [(False, 1), (True, -1)])
def test_cameras_follow_the_documented_assumptions(clockwise, turn):
    shot = Shot(caption="", elevation_deg=20, azimuth_deg=-5, url="")
    rig = release_rig(shot, ReleaseOptions(clockwise=clockwise, front_deg=90, fov_deg=50, distance=2))
    assert rig.azimuths_deg == pytest.approx([(90 + turn * (-5 + 22.5 * view)) % 360 for view in range(16)])
    assert (rig.elevation_deg, rig.fov_deg, rig.distance) == (20, 50, 2)


def test_a_start_too_late_is_left_out_with_its_reason(release):
    outcomes = list(release_samples(animation_of(release), shot_of(release), replace(OPTIONS, starts=(1, 2))))
    assert outcomes[0].members
    assert outcomes[1].members is None
    assert outcomes[1].reason == "has 14 frames; from frame 2 it takes 15"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda views: views.pop(8), "1 of 4 views are missing: view_8.mp4"),
        (lambda views: views.update({4: b"nonsense"}), "view_4.mp4: not a video"),
        (lambda views: views.clear(), r"4 of 4 views are missing: .*view_12.mp4"),
    ],
)
def test_broken_and_missing_views_are_named(release, spoil, words):
    views = dict(enumerate(release.videos[NAME]))
    spoil(views)
    with pytest.raises(SourceError, match=words):
        list(release_samples(animation_of(release, views=views), shot_of(release), OPTIONS))


def test_views_that_do_not_fit_together_are_refused(release, release_writer):
    writer = release_writer()
    for frames, words in [
        (np.full((9, 64, 64, 3), 127, np.uint8), "has 9 frames of 64 px, view_0.mp4 14 of 64 px"),
        (np.full((14, 64, 48, 3), 127, np.uint8), "48 x 64 px: views must be square"),
    ]:
        views = dict(enumerate(release.videos[NAME])) | {12: writer.mp4(frames)}
        with pytest.raises(SourceError, match=words):
            list(release_samples(animation_of(release, views=views), shot_of(release), OPTIONS))
    empty = dict(enumerate(release.videos[NAME])) | {4: writer.mp4(np.full((14, 64, 64, 3), 127, np.uint8))}
    with pytest.raises(SourceError, match=r"view_4.mp4 shows nothing"):
        list(release_samples(animation_of(release, views=empty), shot_of(release), OPTIONS))


@pytest.mark.parametrize(
    "change",
    [
        {"views": 3},
        {"frames": 1},
        {"stride": 0},
        {"starts": ()},
        {"starts": (0, 0)},
        {"starts": (-1,)},
        {"quality": 0},
        {"size": 4096},
        {"frames": 128, "size": 256},
        {"fov_deg": 180.0},
        {"distance": 0.0},
        {"doubtful_below": 2.0},
    ],
)
def test_options_out_of_range_are_refused(change):
    with pytest.raises(ConfigError):
        ReleaseOptions(**change)
