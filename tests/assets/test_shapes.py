"""Procedural surfaces are closed, face outwards and have outward normals."""

import numpy as np
import pytest

from animate4d.assets.shapes import Shape, box, ellipsoid, lathe, limb, rotation, tube


def signed_volume(shape: Shape) -> float:
    a, b, c = np.moveaxis(shape.vertices[shape.faces], 1, 0)
    return float((a * np.cross(b, c)).sum() / 6)


def open_edges(shape: Shape) -> int:
    _, place = np.unique(np.round(shape.vertices, 6), axis=0, return_inverse=True)
    faces = place[shape.faces]
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    directed = directed[directed[:, 0] != directed[:, 1]]
    forward = {tuple(edge) for edge in directed.tolist()}
    return sum((b, a) not in forward for a, b in forward)


SHAPES = {
    "box": (box(np.ones(3), np.array([1.0, 2.0, 0.5])), 1.0, 1e-9),
    "ellipsoid": (ellipsoid(np.zeros(3), np.array([1.0, 0.5, 0.7]), sides=40, rings=30), 4 / 3 * np.pi * 0.35, 0.03),
    "cylinder": (lathe([(0, 0), (1, 0), (1, 0), (1, 2), (1, 2), (0, 2)], sides=60), 2 * np.pi, 0.02),
    "cone": (lathe([(0, 0), (1, 0), (1, 0), (0, 3)], sides=60), np.pi, 0.02),
    "capsule": (limb((0, 0, 0), (0.3, 2, 0.4), 0.2, sides=40), np.pi * 0.04 * 2.06 + 4 / 3 * np.pi * 0.008, 0.08),
    "tube along x": (tube(np.array([[0, 0, 0], [2, 0, 0]]), np.array([[0.3, 0.1]] * 2), sides=40, round_ends=False),
                     np.pi * 0.03 * 2, 0.02),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_surface_is_closed_and_encloses_its_volume(name):
    shape, volume, tolerance = SHAPES[name]
    assert open_edges(shape) == 0
    assert signed_volume(shape) == pytest.approx(volume, rel=tolerance)


@pytest.mark.parametrize("name", SHAPES)
def test_normals_are_unit_and_agree_with_the_faces(name):
    shape, _, _ = SHAPES[name]
    normals = shape.normals()
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-9)
    a, b, c = np.moveaxis(shape.vertices[shape.faces], 1, 0)
    faces = np.cross(b - a, c - a)
    assert ((normals[shape.faces].sum(1) * faces).sum(1) > 0).all()


def test_box_keeps_flat_sides_and_sphere_is_smooth():
    sides = box(np.zeros(3), np.ones(3)).normals()
    np.testing.assert_allclose(np.sort(np.abs(sides), axis=1), np.tile([0, 0, 1], (len(sides), 1)), atol=1e-12)
    ball = ellipsoid(np.zeros(3), np.ones(3), sides=24, rings=17)
    assert np.abs(ball.normals() - ball.vertices).max() < 0.05


def test_texture_coordinates_measure_length():
    shape = box(np.zeros(3), np.array([0.5, 1.5, 1.0]))
    edges = shape.faces[:, [0, 1]]
    on_surface = np.linalg.norm(np.diff(shape.vertices[edges], axis=1), axis=-1)
    on_texture = np.linalg.norm(np.diff(shape.uv[edges], axis=1), axis=-1)
    np.testing.assert_allclose(on_texture, on_surface, atol=1e-9)


def test_rotation_turns_counter_clockwise():
    np.testing.assert_allclose(rotation("z", np.pi / 2) @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(rotation("x", np.pi / 2) @ [0, 1, 0], [0, 0, 1], atol=1e-12)
