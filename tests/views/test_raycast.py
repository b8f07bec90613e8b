"""Pictures against projection formulas and a slow plain intersection."""

import numpy as np
import pytest

from animate4d.core.cameras import Rig, project_points
from animate4d.core.mesh import Material
from animate4d.views.raycast import UNSEEN, render_views
from animate4d.views.rays import Cameras, RayCaster
from animate4d.views.shading import to_srgb

FRONT = Rig(azimuths_deg=(0.0,), elevation_deg=0.0)


def plain_intersections(vertices, faces, origin, direction):
    """First hit of one ray by solving the 3x3 system of every triangle; returns face, u, v, t."""
    best = (-1, 0.0, 0.0, np.inf)
    for number, (a, b, c) in enumerate(vertices[faces].astype(np.float64)):
        matrix = np.stack([b - a, c - a, -direction], axis=1)
        if abs(np.linalg.det(matrix)) < 1e-12:
            continue
        u, v, t = np.linalg.solve(matrix, origin - a)
        if u >= 0 and v >= 0 and u + v <= 1 and 0 < t < best[3]:
            best = (number, u, v, t)
    return best


def test_surface_agrees_with_plain_intersections(shapes):
    rng = np.random.default_rng(0)
    mesh = shapes.make_mesh(rng.normal(size=(30, 3)) * 0.3, rng.integers(0, 30, (25, 3)))
    rig, size = Rig.even(3, start_deg=20, elevation_deg=30), 10
    surface = render_views(mesh, mesh.vertices, rig, size).surface
    to_world, focal = rig.camera_to_world(), rig.intrinsics(size)[0, 0, 0]
    for view in range(3):
        for row in range(size):
            for column in range(size):
                local = np.array([(column + 0.5 - size / 2) / focal, -(row + 0.5 - size / 2) / focal, -1.0])
                expected = plain_intersections(
                    mesh.vertices, mesh.faces, to_world[view, :3, 3], to_world[view, :3, :3] @ local
                )
                assert surface.face[view, row, column] == expected[0]
                if expected[0] >= 0:
                    np.testing.assert_allclose(surface.barycentric[view, row, column], expected[1:3], atol=1e-3)
                    np.testing.assert_allclose(surface.depth[view, row, column], expected[3], rtol=1e-4)


def test_surface_points_project_to_their_pixel_centres(shapes):
    mesh, rig, size = shapes.cube(), Rig.even(5), 32
    surface = render_views(mesh, mesh.vertices, rig, size).surface
    view, row, column = np.nonzero(surface.face >= 0)
    assert len(view) > 500
    triangles = mesh.vertices[mesh.faces[surface.face[view, row, column]]]
    second, third = surface.barycentric[view, row, column].T[..., None]
    points = triangles[:, 0] * (1 - second - third) + triangles[:, 1] * second + triangles[:, 2] * third
    xy, depth = project_points(points, rig.camera_to_world(), rig.intrinsics(size))
    index = np.arange(len(view))
    np.testing.assert_allclose(xy[view, index], np.stack([column, row], -1) + 0.5, atol=1e-3)
    np.testing.assert_allclose(depth[view, index], surface.depth[view, row, column], rtol=1e-5)


def test_normals_look_at_the_camera(shapes):
    mesh, rig = shapes.cube(), Rig.even(4)
    surface = render_views(mesh, mesh.vertices, rig, 24).surface
    hit = surface.face >= 0
    outward = rig.camera_to_world()[:, None, None, :3, 3] * np.ones((1, 24, 24, 1))
    assert (np.einsum("vhwc,vhwc->vhw", surface.normal, outward)[hit] > 0).all()
    np.testing.assert_allclose(np.linalg.norm(surface.normal[hit], axis=-1), 1, atol=1e-5)
    assert (surface.normal[~hit] == 0).all()


def test_orientation_up_is_up_and_left_is_left(shapes):
    """From azimuth 0 the camera is on +x: +y is to the right, +z is up; from 90 degrees +x is to the left."""
    dot = shapes.cube(scale=0.05, center=(0.0, 0.4, 0.5))
    alpha = render_views(dot, dot.vertices, Rig(azimuths_deg=(0.0, 90.0), elevation_deg=0), 64).rgba[..., 3]
    rows, columns = np.nonzero(alpha[0])
    assert rows.mean() < 32 < columns.mean()
    side = shapes.cube(scale=0.05, center=(0.4, 0.0, -0.5))
    alpha = render_views(side, side.vertices, Rig(azimuths_deg=(0.0, 90.0), elevation_deg=0), 64).rgba[..., 3]
    rows, columns = np.nonzero(alpha[1])
    assert columns.mean() < 32 < rows.mean()


@pytest.mark.parametrize("samples", [1, 2, 4])
def test_coverage_is_the_share_of_rays_that_hit(shapes, samples):
    mesh, size = shapes.card(half=0.5), 48
    views = render_views(mesh, mesh.vertices, FRONT, size, samples=samples)
    alpha = views.rgba[0, ..., 3].astype(np.float64) / 255
    np.testing.assert_allclose(alpha * samples**2, np.round(alpha * samples**2), atol=0.02)
    side = 1.0 * FRONT.intrinsics(size)[0, 0, 0] / 3.0
    assert alpha.sum() == pytest.approx(side**2, rel=0.1)
    assert (views.rgba[0][alpha == 0, :3] == UNSEEN).all()


def test_base_colours_are_encoded_as_srgb(shapes):
    linear = (0.5, 0.1, 0.02, 1.0)
    mesh = shapes.card(materials=(Material(base_color=linear),))
    light = np.ones((2, 2, 3), np.float32)
    pixel = render_views(mesh, mesh.vertices, FRONT, 16, shading=light).rgba[0, 8, 8]
    expected = 255 * to_srgb(np.array(linear[:3]) * 0.96 + 0.04)
    np.testing.assert_allclose(pixel[:3], expected, atol=1)
    assert pixel[3] == 255


def test_vertex_colours_multiply_and_interpolate(shapes):
    colors = np.ones((4, 4))
    colors[[0, 3], :3], colors[[1, 2], :3] = 0.0, 1.0
    mesh = shapes.card(colors=colors)
    light = np.ones((2, 2, 3), np.float32)
    row = render_views(mesh, mesh.vertices, FRONT, 64, shading=light).rgba[0, 32]
    inside = row[row[:, 3] == 255][:, 0].astype(int)
    assert (np.diff(inside) >= 0).all()
    middle = 255 * to_srgb(np.array(0.5 * 0.96 + 0.04))
    assert abs(inside[len(inside) // 2] - middle) < 6


def test_texture_lies_the_right_way_up(shapes):
    texture = np.zeros((2, 2, 4), np.uint8)
    texture[..., 3] = 255
    texture[0, 0, 0] = texture[0, 1, 1] = texture[1, 0, 2] = 255  # red, green / blue, black
    mesh = shapes.card(materials=(Material(texture=texture),))
    picture = render_views(mesh, mesh.vertices, FRONT, 64, shading=np.ones((2, 2, 3), np.float32)).rgba[0]
    # The card spans 29 pixels around the centre; a quarter in, one texel's colour is alone.
    assert picture[24, 24, :3].argmax() == 0
    assert picture[24, 39, :3].argmax() == 1
    assert picture[39, 24, :3].argmax() == 2
    assert picture[39, 39, :3].max() < 90


def test_fine_textures_are_averaged_not_sampled(shapes):
    checker = np.indices((512, 512)).sum(0) % 2 * 255
    texture = np.stack([checker] * 3 + [np.full_like(checker, 255)], -1).astype(np.uint8)
    mesh = shapes.card(materials=(Material(texture=texture),))
    picture = render_views(mesh, mesh.vertices, FRONT, 32, shading=np.ones((2, 2, 3), np.float32)).rgba[0]
    solid = picture[picture[..., 3] == 255][:, :3].astype(float)
    assert solid.std() < 3
    assert solid.mean() == pytest.approx(255 * to_srgb(np.array(0.5 * 0.96 + 0.04)), abs=3)


def test_masked_holes_show_what_is_behind(shapes):
    texture = np.full((8, 8, 4), 255, np.uint8)
    texture[:, 4:, 3] = 0
    leaf = shapes.card(x=0.3, materials=(Material(texture=texture, alpha_mode="MASK"),))
    wall = shapes.card(x=-0.3, materials=(Material(base_color=(0, 0, 1, 1)),))
    mesh = shapes.join(leaf, wall)
    views = render_views(mesh, mesh.vertices, FRONT, 64)
    assert views.surface.face[0, 32, 28] in (0, 1)
    assert views.surface.face[0, 32, 37] in (2, 3)
    assert views.surface.depth[0, 32, 37] == pytest.approx(3.3, abs=1e-3)
    assert views.rgba[0, 32, 37, 3] == 255
    alone = render_views(leaf, leaf.vertices, FRONT, 64)
    assert alone.rgba[0, 32, 37, 3] == 0
    assert alone.surface.face[0, 32, 37] == -1


def test_faint_blend_materials_do_not_vanish(shapes):
    mesh = shapes.card(materials=(Material(base_color=(1, 1, 1, 0.3), alpha_mode="BLEND"),))
    assert render_views(mesh, mesh.vertices, FRONT, 32).rgba[0, 16, 16, 3] == 255


def test_back_sides_are_drawn_and_lit(shapes):
    mesh = shapes.card()
    rig = Rig(azimuths_deg=(0.0, 180.0), elevation_deg=0.0)
    rgba = render_views(mesh, mesh.vertices, rig, 32).rgba
    assert (rgba[:, 16, 16, 3] == 255).all()
    assert (rgba[:, 16, 16, :3] > 100).all()


def test_parts_thinner_than_a_pixel_leave_a_trace(shapes):
    needle = shapes.make_mesh([[0, 0.013, 0.5], [0, 0.017, -0.5], [0, 0.019, 0.5]], [[0, 1, 2]])
    rgba = render_views(needle, needle.vertices, FRONT, 24, samples=8).rgba
    assert 0 < rgba[0, ..., 3].max() < 255


def test_camera_inside_the_object_still_gives_a_picture(shapes):
    mesh = shapes.cube(scale=4.0)
    rgba = render_views(mesh, mesh.vertices, Rig.even(2), 16).rgba
    assert (rgba[..., 3] == 255).all()


def test_project_all_agrees_with_the_plain_formula():
    rig = Rig.even(7, start_deg=11, elevation_deg=25)
    points = np.random.default_rng(1).normal(size=(40, 3)) * 0.5
    cameras = Cameras.of(rig.camera_to_world(), rig.intrinsics(64), 64)
    expected = project_points(points, rig.camera_to_world(), rig.intrinsics(64))
    for got in (cameras.project_all(points), cameras.project(np.broadcast_to(points, (7, 40, 3)))):
        np.testing.assert_allclose(got[0], expected[0], atol=1e-3)
        np.testing.assert_allclose(got[1], expected[1], atol=1e-5)


def test_no_rays_is_no_hits(shapes):
    mesh = shapes.cube()
    hits = RayCaster(mesh.vertices, mesh.faces).cast(np.empty((0, 3)), np.empty((0, 3)))
    assert hits.face.shape == (0,)
