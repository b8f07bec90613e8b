"""Whole clips of real and generated objects."""

import time

import numpy as np
import pytest

from animate4d.assets.load import load_asset
from animate4d.assets.procedural import generate_objects
from animate4d.core.cameras import Rig
from animate4d.core.errors import AssetError
from animate4d.views.clip import frame_times, mesh_of, pose_vertices, render_clip, render_labelled_clip


@pytest.fixture(scope="module")
def walker(tmp_path_factory):
    return generate_objects(tmp_path_factory.mktemp("objects"), count=1, families=("walker",), clips_per_object=1)[0]


def test_times_cover_the_clip_without_its_end():
    np.testing.assert_allclose(frame_times(2.0, 4, 10.0), [0, 0.5, 1.0, 1.5])
    np.testing.assert_allclose(frame_times(20.0, 4, 4.0), [0, 1, 2, 3])


def test_both_renderers_give_the_same_video(walker):
    asset, rig = load_asset(walker, clip=0), Rig.even(3)
    times = frame_times(asset.clips[0].duration, 4, 4.0)
    video, surfaces, vertices = render_clip(asset, 0, times, rig, 32)
    labelled = render_labelled_clip(mesh_of(asset), vertices, times, rig, 32)
    np.testing.assert_array_equal(video.rgb, labelled.video.rgb)
    np.testing.assert_array_equal(video.alpha, labelled.video.alpha)
    assert video.rgb.shape == (3, 4, 32, 32, 3)
    assert len(surfaces) == 4
    assert labelled.flow.shape == (3, 4, 16, 16, 2)
    np.testing.assert_allclose(vertices[0], asset.mesh.vertices, atol=1e-6)
    assert np.abs(labelled.flow[:, 0]).max() < 1e-3
    assert (np.abs(video.alpha[:, 0].astype(int) - video.alpha[:, 1]) > 100).any()


def test_tracks_start_inside_the_object_and_are_visible_there(walker):
    asset, rig = load_asset(walker, clip=0), Rig.even(4)
    times = frame_times(asset.clips[0].duration, 3, 4.0)
    clip = render_labelled_clip(mesh_of(asset), pose_vertices(asset, 0, times), times, rig, 64)
    for view in range(4):
        started = clip.tracks.visible[view, 0] > 0
        assert started.sum() >= 8
        x, y = clip.tracks.xy[view, 0][started].astype(int).T
        assert (clip.video.alpha[view, 0][y, x] >= 128).all()


def test_splats_cannot_be_rendered_as_clips(walker):
    from dataclasses import replace

    asset = replace(load_asset(walker), mesh=None)
    with pytest.raises(AssetError, match="splats"):
        mesh_of(asset)


def test_a_real_gallop_is_fast_and_labelled(real_assets):
    path = real_assets / "animated" / "animals__Fox.glb"
    if not path.exists():
        pytest.skip("the fox is not there")
    asset = load_asset(path)
    number = next(index for index, clip in enumerate(asset.clips) if clip.name.endswith("Gallop"))
    asset = load_asset(path, clip=number)
    times = frame_times(asset.clips[number].duration, 16, 4.0)
    start = time.process_time()
    clip = render_labelled_clip(mesh_of(asset), pose_vertices(asset, number, times), times, Rig.even(16), 64)
    assert time.process_time() - start < 5.0  # some 0.4 s alone on a core; the rest is for crowded machines
    assert (clip.tracks.visible[:, 0].sum(1) >= 8).all()
    covered = (clip.video.alpha > 127).mean((2, 3))
    assert covered.min() > 0.01
    assert np.abs(clip.flow).max() < 1.0
    color = clip.video.rgb[clip.video.alpha == 255].mean(0)
    assert color[0] > color[1] > color[2]  # a red fox
