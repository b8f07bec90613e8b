"""Baked light and smoothed normals against closed forms."""

import numpy as np

from animate4d.core.mesh import Material
from animate4d.views.shading import (
    TO_LINEAR,
    bake_shading,
    corner_normals,
    minified,
    sample_texture,
    to_srgb,
)


def sphere(rings: int = 24):
    polar = np.linspace(0, np.pi, rings + 1)
    around = np.linspace(0, 2 * np.pi, 2 * rings, endpoint=False)
    p, a = np.meshgrid(polar, around, indexing="ij")
    vertices = np.stack([np.sin(p) * np.cos(a), np.sin(p) * np.sin(a), np.cos(p)], -1).reshape(-1, 3)
    faces = []
    for ring in range(rings):
        for step in range(2 * rings):
            here, right = ring * 2 * rings + step, ring * 2 * rings + (step + 1) % (2 * rings)
            faces += [[here, here + 2 * rings, right + 2 * rings], [here, right + 2 * rings, right]]
    return vertices.astype(np.float32), np.array(faces, np.int32)


def test_srgb_round_trip():
    np.testing.assert_allclose(255 * to_srgb(TO_LINEAR), np.arange(256), atol=1e-3)


def test_smooth_surfaces_get_smooth_normals():
    vertices, faces = sphere()
    normals = corner_normals(vertices, faces)
    area = np.linalg.norm(np.cross(*(vertices[faces][:, k] - vertices[faces][:, 0] for k in (1, 2))), axis=1)
    real = area > 1e-6
    np.testing.assert_allclose((normals[real] * vertices[faces][real]).sum(-1), 1, atol=0.01)


def test_unwelded_vertices_smooth_like_welded_ones():
    vertices, faces = sphere(8)
    split = corner_normals(vertices[faces].reshape(-1, 3), np.arange(faces.size).reshape(-1, 3))
    np.testing.assert_allclose(split, corner_normals(vertices, faces), atol=1e-5)


def test_sharp_edges_stay_sharp(shapes):
    mesh = shapes.cube()
    normals = corner_normals(mesh.vertices, mesh.faces)
    assert (np.sort(np.abs(normals), axis=-1) == [0, 0, 1]).all()


def test_crowded_points_and_empty_faces_are_harmless():
    fan = np.concatenate([[[0, 0, 0]], np.random.default_rng(0).normal(size=(200, 3))]).astype(np.float32)
    faces = np.array([[0, k, k + 1] for k in range(1, 200)] + [[5, 5, 5]], np.int32)
    normals = corner_normals(fan, faces)
    assert np.isfinite(normals).all()
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-5)


def test_no_side_is_black_or_burnt_out(shapes):
    vertices, faces = sphere()
    light = bake_shading(shapes.make_mesh(vertices, faces), vertices)
    assert light.min() > 0.3
    assert light.max() < 1.1
    assert light[:, 0].std() > 0.1  # the form can be seen


def test_textures_repeat_and_interpolate():
    texture = np.arange(4, dtype=np.float32).reshape(2, 2, 1)
    centres = np.array([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]], np.float32)
    np.testing.assert_allclose(sample_texture(texture, centres)[:, 0], [0, 1, 2, 3], atol=1e-6)
    np.testing.assert_allclose(sample_texture(texture, centres + np.array([3, -2]))[:, 0], [0, 1, 2, 3], atol=1e-5)
    np.testing.assert_allclose(sample_texture(texture, np.array([[0.5, 0.5]]))[:, 0], [1.5], atol=1e-6)


def test_textures_without_usable_coordinates_stay_as_they_are(shapes):
    texture = np.full((16, 16, 4), 200, np.uint8)
    mesh = shapes.make_mesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]], materials=(Material(texture=texture),))
    assert minified(mesh, 0, mesh.materials[0], 10.0).shape == (16, 16, 4)
