"""Exact tracks and flow against motions whose projection is known."""

import numpy as np
import pytest

from animate4d.core.cameras import Rig, project_points
from animate4d.views.clip import render_labelled_clip
from animate4d.views.rays import Cameras, RayCaster
from animate4d.views.tracks import HIDDEN_AT_FIRST, SEEN, backward_flow, exact_tracks, find_anchors

SIZE = 64
RIG = Rig.even(4, elevation_deg=10)


def turned(vertices, degrees):
    angle = np.radians(degrees)
    matrix = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    return (vertices @ matrix.T).astype(np.float32)


@pytest.fixture
def cameras():
    return Cameras.of(RIG.camera_to_world(), RIG.intrinsics(SIZE), SIZE)


def follow(mesh, poses, cameras, queries, valid=None):
    casters = [RayCaster(pose, mesh.faces) for pose in poses]
    valid = np.ones(queries.shape[:2], bool) if valid is None else valid
    anchors = find_anchors(casters[0], cameras, queries, valid)
    return exact_tracks(np.stack(poses), mesh.faces, casters, cameras, anchors)


def test_points_start_where_they_were_asked_and_follow_the_motion(shapes, cameras):
    mesh = shapes.cube(0.4)
    queries = np.random.default_rng(0).uniform(27, 37, (4, 9, 2)).astype(np.float32)
    poses = [mesh.vertices, mesh.vertices + np.float32([0.02, 0.05, -0.03])]
    tracks = follow(mesh, poses, cameras, queries)
    np.testing.assert_allclose(tracks.xy[:, 0], queries, atol=1e-3)
    assert (tracks.visible == 1).all()
    surface = RayCaster(poses[0], mesh.faces)
    view = np.repeat(np.arange(4), 9)
    origins, directions = cameras.rays(view, queries.reshape(-1, 2))
    points = origins + surface.cast(origins, directions).depth[:, None] * directions + [0.02, 0.05, -0.03]
    expected = project_points(points, RIG.camera_to_world(), RIG.intrinsics(SIZE))[0][view, np.arange(36)]
    np.testing.assert_allclose(tracks.xy[:, 1].reshape(-1, 2), expected, atol=1e-3)


def test_points_turned_away_are_hidden_and_come_back(shapes, cameras):
    mesh = shapes.cube(0.4)
    queries = np.full((4, 1, 2), 32.0, np.float32)
    poses = [turned(mesh.vertices, degrees) for degrees in (0, 20, 180, 350)]
    tracks = follow(mesh, poses, cameras, queries)
    assert tracks.visible[..., 0].tolist() == [[1, 1, 0, 1]] * 4


def test_points_behind_another_part_are_hidden(shapes, cameras):
    mesh = shapes.join(shapes.cube(0.2), shapes.cube(0.2, center=(0.0, 0.6, 0.0)))
    moved = mesh.vertices.copy()
    moved[8:] += [0.6, -0.6, 0.0]  # the second cube goes before the first as seen from +x
    tracks = follow(mesh, [mesh.vertices, moved], cameras, np.full((4, 1, 2), 32.0, np.float32))
    assert tracks.visible[0, :, 0].tolist() == [1, 0]
    assert tracks.visible[2, :, 0].tolist() == [1, 1]


def test_points_out_of_the_picture_are_not_visible(shapes, cameras):
    mesh = shapes.cube(0.3)
    tracks = follow(mesh, [mesh.vertices, mesh.vertices + np.float32([0, 5, 0])], cameras, np.full((4, 1, 2), 32.0))
    assert tracks.visible[0, :, 0].tolist() == [1, 0]
    assert np.isfinite(tracks.xy).all()


def test_padding_and_queries_beside_the_object_stay_zero(shapes, cameras):
    mesh = shapes.cube(0.3)
    queries = np.stack([np.full((4, 2), 32.0), np.full((4, 2), 1.0)], axis=1)
    valid = np.array([[True, True]] * 3 + [[False, True]])
    tracks = follow(mesh, [mesh.vertices] * 2, cameras, queries, valid)
    assert (tracks.visible[:, :, 1] == 0).all()
    assert (tracks.xy[:, :, 1] == 0).all()
    assert (tracks.visible[3] == 0).all()
    assert (tracks.visible[:3, :, 0] == 1).all()


def test_flow_of_a_still_object_is_zero_and_all_seen(shapes, cameras):
    mesh = shapes.cube(0.4)
    caster = RayCaster(mesh.vertices, mesh.faces)
    flow, mask = backward_flow(mesh.vertices, mesh.vertices, mesh.faces, caster, caster, cameras, 32)
    assert np.abs(flow).max() < 1e-3
    assert set(np.unique(mask)) == {0, SEEN}
    assert mask.shape == (4, 32, 32)
    assert flow.dtype == np.float16


def test_flow_points_at_where_the_surface_was(shapes, cameras):
    """A card that slides along +y: seen from +x it moves right, so its source lies to the left by a known amount."""
    mesh = shapes.card(half=0.4)
    moved = mesh.vertices + np.float32([0.0, 0.15, 0.0])
    flow, mask = backward_flow(
        moved,
        mesh.vertices,
        mesh.faces,
        RayCaster(moved, mesh.faces),
        RayCaster(mesh.vertices, mesh.faces),
        cameras,
        32,
    )
    front = flow[0][mask[0] > 0].astype(np.float64)
    shift = 0.15 * RIG.intrinsics(SIZE)[0, 0, 0] / 3.0 / (SIZE / 2)
    np.testing.assert_allclose(front[:, 0], -shift, atol=0.01)
    np.testing.assert_allclose(front[:, 1], 0, atol=0.01)
    back = flow[2][mask[2] > 0].astype(np.float64)
    np.testing.assert_allclose(back[:, 0], shift, atol=0.01)


def test_surfaces_that_frame_zero_hides_are_marked(shapes):
    rig = Rig.even(4, elevation_deg=40)
    cameras = Cameras.of(rig.camera_to_world(), rig.intrinsics(SIZE), SIZE)
    mesh = shapes.cube(0.4)
    pose = turned(mesh.vertices, 90)
    casters = [RayCaster(vertices, mesh.faces) for vertices in (pose, mesh.vertices)]
    mask = backward_flow(pose, mesh.vertices, mesh.faces, *casters, cameras, 32)[1]
    # A quarter turn: the top stays in sight, the side that now looks here did not then.
    assert set(np.unique(mask)) == {0, HIDDEN_AT_FIRST, SEEN}
    rows = np.indices(mask.shape)[1]
    assert rows[mask == SEEN].mean() < rows[mask == HIDDEN_AT_FIRST].mean()
    assert 0.5 < (mask == SEEN).sum() / (mask == HIDDEN_AT_FIRST).sum() < 2


def test_views_that_see_nothing_have_no_flow(shapes, cameras):
    mesh = shapes.cube(0.1, center=(0.0, 9.0, 0.0))
    caster = RayCaster(mesh.vertices, mesh.faces)
    flow, mask = backward_flow(mesh.vertices, mesh.vertices, mesh.faces, caster, caster, cameras, 16)
    assert mask[0].max() == 0
    assert flow[0].max() == 0


def test_warping_frame_zero_by_the_flow_gives_the_later_frame(shapes):
    """The light is baked into the surface, so the colour at the source is the colour here."""
    rng = np.random.default_rng(3)
    base = shapes.cube(0.45)
    mesh = shapes.cube(0.45, colors=np.concatenate([rng.uniform(0.2, 1, (8, 3)), np.ones((8, 1))], 1))
    poses = np.stack([turned(base.vertices, degrees) for degrees in (0, 8, 16)])
    clip = render_labelled_clip(mesh, poses, np.arange(3) / 3, RIG, SIZE)
    for view in range(4):
        rows, columns = np.nonzero(clip.flow_mask[view, 2] == SEEN)
        here = np.stack([columns, rows], -1) * 2 + 1
        there = here + clip.flow[view, 2, rows, columns].astype(np.float64) * SIZE / 2
        solid = clip.video.alpha[view, 2] == 255
        x, y = np.clip(np.round(there - 0.5).astype(int), 0, SIZE - 1).T
        keep = solid[2 * rows, 2 * columns] & (clip.video.alpha[view, 0][y, x] == 255)
        now = clip.video.rgb[view, 2][2 * rows, 2 * columns][keep].astype(float)
        then = clip.video.rgb[view, 0][y, x][keep].astype(float)
        assert keep.sum() > 50
        assert np.median(np.abs(now - then)) < 4
