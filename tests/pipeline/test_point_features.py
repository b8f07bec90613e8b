"""Features by point: seen where nothing hides them, read at the right place, reduced and standardised."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from animate4d.core.cameras import Rig
from animate4d.core.clip import MultiViewVideo
from animate4d.core.errors import ConfigError
from animate4d.core.mesh import Material, Mesh
from animate4d.models.config import smoke
from animate4d.models.mv_vdm import MVVDM
from animate4d.pipeline.point_features import CHANNELS, PointFeatures, gathered, principal, read_maps, visible
from animate4d.views.rays import Cameras, RayCaster

SIZE = 48


def box(low, high) -> Mesh:
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], np.float32)
    quads = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
    faces = np.array([[q[0], q[1], q[2]] for q in quads] + [[q[0], q[2], q[3]] for q in quads], np.int32)
    return Mesh(
        vertices=np.float32(low) + corners * (np.float32(high) - np.float32(low)),
        faces=faces,
        face_material=np.zeros(12, np.int32),
        materials=(Material(),),
        uv=np.zeros((8, 2), np.float32),
        colors=np.ones((8, 4), np.float32),
        part_of_vertex=np.zeros(8, np.int32),
    )


CUBE = box([-0.4] * 3, [0.4] * 3)


def cameras(size=SIZE) -> Cameras:
    rig = Rig()
    return Cameras.of(rig.camera_to_world(), rig.intrinsics(size), size)


def video_of(mesh: Mesh, frames=5) -> MultiViewVideo:
    rng, rig = np.random.default_rng(0), Rig()
    from animate4d.views.raycast import render_views

    rgba = render_views(mesh, mesh.vertices, rig, SIZE).rgba
    rgb = np.repeat(rgba[:, None, ..., :3], frames, 1)
    rgb = np.clip(rgb.astype(int) + rng.integers(-20, 20, rgb.shape), 0, 255).astype(np.uint8)
    return MultiViewVideo(
        rgb=rgb,
        alpha=np.repeat(rgba[:, None, ..., 3], frames, 1),
        camera_to_world=rig.camera_to_world(),
        intrinsics=rig.intrinsics(SIZE),
        times=np.arange(frames) / 8,
    )


@pytest.fixture(scope="module")
def model() -> MVVDM:
    torch.manual_seed(0)
    config = replace(
        smoke(), image_size=32, frames=3, codec_factor=4, latent_channels=48, block_channels=(16, 32), heads=2,
        norm_groups=4, text_dim=16, flow_size=16,
    )  # fmt: skip
    made = MVVDM(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return made


def test_points_are_seen_from_the_sides_they_face():
    faces = np.array([[0.4, 0, 0], [0, 0.4, 0], [-0.4, 0, 0], [0, -0.4, 0], [0, 0, 0.4], [0, 0, -0.4]], np.float32)
    seen = visible(faces, cameras(), RayCaster(CUBE.vertices, CUBE.faces))
    # views look from +x, +y, -x, -y, all from above
    np.testing.assert_array_equal(seen[:, :4], np.eye(4, dtype=bool))
    assert seen[:, 4].all()
    assert not seen[:, 5].any()
    # a splat a little below the surface is still seen, one at the heart of the object is not
    sunken = visible(np.float32([[0.39, 0, 0], [0, 0, 0]]), cameras(), RayCaster(CUBE.vertices, CUBE.faces))
    assert sunken[0].tolist() == [True, False]


def test_points_outside_the_picture_are_not_seen():
    points = np.float32([[0, 5, 0], [9, 0, 0], [0.4, 0, 0]])
    assert visible(points, cameras(), RayCaster(CUBE.vertices, CUBE.faces))[0].tolist() == [False, False, True]


def test_maps_are_read_at_half_pixel_centres_and_averaged_over_the_views_that_see():
    maps = torch.arange(2 * 3 * 1 * 4 * 4, dtype=torch.float32).view(2, 3, 1, 4, 4)
    # the centre of cell (row 1, column 2) in both views, and a place half way to its right neighbour
    xy = np.array([[[2.5, 1.5], [3.0, 1.5], [0.5, 0.5]]] * 2) / 4
    seen = np.array([[True, True, False], [False, True, False]])
    found = gathered(maps, xy, seen)
    assert found.shape == (3, 3, 1)
    np.testing.assert_allclose(found[:, 0, 0], maps[0, :, 0, 1, 2])
    half = maps[:, :, 0, 1, 2:4].mean(-1)
    np.testing.assert_allclose(found[:, 1, 0], half.mean(0))
    np.testing.assert_array_equal(found[:, 2, 0], 0)


def test_components_are_those_of_the_object_and_lose_nothing_they_can_hold():
    rng = np.random.default_rng(0)
    basis, weights = rng.normal(size=(3, 20)), rng.normal(size=(2, 2, 6, 6, 3))
    maps = torch.from_numpy((weights @ basis + 5).transpose(0, 1, 4, 2, 3).astype(np.float32))
    alpha = np.zeros((2, 2, 12, 12), np.uint8)
    alpha[..., :8] = 255
    maps[..., 5:] += 100 * torch.randn(maps[..., 5:].shape, generator=torch.Generator().manual_seed(0))
    reduced = principal(maps, alpha, 8)
    assert reduced.shape == (2, 2, 8, 6, 6)
    own = reduced[..., :4].permute(0, 1, 3, 4, 2).reshape(-1, 8).double()
    assert float(own[:, 3:].abs().max()) < 1e-3
    whole = maps[..., :4].permute(0, 1, 3, 4, 2).reshape(-1, 20).double()
    torch.testing.assert_close(torch.pdist(own), torch.pdist(whole), atol=1e-3, rtol=1e-3)
    assert own.mean(0).abs().max() < 1e-4
    few = principal(maps[:, :, :2], alpha, 8)
    assert float(few[:, :, 2:].abs().max()) == 0.0


def test_a_table_is_standard_and_complete(model):
    video = video_of(CUBE)
    features = PointFeatures(model, video, CUBE, "a box")
    points = np.random.default_rng(0).uniform(-0.4, 0.4, (200, 3)).astype(np.float32)
    points[np.arange(200), np.arange(200) % 3] = np.where(np.arange(200) % 2, 0.4, -0.4)
    table = features(points)
    assert table.shape == (5, 200, CHANNELS)
    assert table.dtype == np.float32
    assert np.isfinite(table).all()
    # frames 0, 2 and 4 were read; those between are half of each
    np.testing.assert_allclose(table[1], (table[0] + table[2]) / 2, atol=1e-6)
    read = table[[0, 2, 4]]
    np.testing.assert_allclose(read.mean((0, 1)), 0, atol=1e-4)
    np.testing.assert_allclose(read.std((0, 1)), 1, atol=1e-3)
    # the middle of the bottom is seen by nobody and borrows from what is near; its rim lies within the tolerance
    seen = visible(points, features.cameras, features.caster).any(0)
    assert 10 < (~seen).sum() < 100
    nearest = np.linalg.norm(points[~seen][:, None] - points[seen][None], axis=-1).argmin(1)
    np.testing.assert_array_equal(table[:, ~seen], table[:, seen][:, nearest])
    np.testing.assert_array_equal(PointFeatures(model, video, CUBE, "a box")(points), table)


def test_the_network_is_asked_once_about_the_chosen_frames(model, monkeypatch):
    asked = []
    plain = MVVDM.read_features
    monkeypatch.setattr(MVVDM, "read_features", lambda self, *a, **k: asked.append((a, k)) or plain(self, *a, **k))
    features = PointFeatures(model, video_of(CUBE), CUBE, "a box", tap="up_blocks.1.motion_modules.0.temporal")
    for _ in range(2):
        features(CUBE.vertices)
    ((noisy, step), given), *more = asked
    assert not more
    assert noisy.shape[:3] == (1, 4, 3)
    assert step.tolist() == [50]
    assert torch.equal(noisy[:, :, 0], given["first_frame"])
    assert features.read.tolist() == [0, 2, 4]


def test_a_video_of_other_views_and_an_unknown_tap_are_named(model):
    video = video_of(CUBE)
    two = replace(
        video,
        rgb=video.rgb[:2],
        alpha=video.alpha[:2],
        camera_to_world=video.camera_to_world[:2],
        intrinsics=video.intrinsics[:2],
    )
    with pytest.raises(ConfigError, match="the video has 2 views, the model takes 4"):
        read_maps(model, two, "", "up_blocks.1", 0)
    with pytest.raises(ConfigError, match="tap 'attic' is unknown"):
        read_maps(model, video, "", "attic", 0)
