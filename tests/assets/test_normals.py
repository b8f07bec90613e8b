"""Normals of posed surfaces against analytic spheres and exact similarities."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from animate4d.assets.normals import carried_normals, fit_similarity, smooth_normals
from animate4d.assets.shapes import box, ellipsoid


def test_sphere_and_box_without_keys():
    ball = ellipsoid(np.zeros(3), np.ones(3), sides=24, rings=17)
    used = np.unique(ball.faces)
    places = np.round(ball.vertices, 6)
    assert np.abs(smooth_normals(places, ball.faces) - ball.vertices)[used].max() < 0.05
    cube = box(np.zeros(3), np.ones(3), step=0.5)
    flat = np.abs(smooth_normals(cube.vertices, cube.faces))
    np.testing.assert_allclose(np.sort(flat, axis=1), np.tile([0, 0, 1], (len(flat), 1)), atol=1e-6)


def test_vertex_without_faces_points_up():
    normals = smooth_normals(np.eye(4, 3), np.array([[0, 1, 2]]))
    np.testing.assert_array_equal(normals[3], [0, 1, 0])


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("flat", [False, True])
def test_similarity_is_found(mirrored, flat):
    rng = np.random.default_rng(0)
    start = rng.normal(size=(50, 3)) * [1, 1, 0 if flat else 1]
    turn = Rotation.random(random_state=1).as_matrix() * (-1 if mirrored else 1)
    found = fit_similarity(start, 3 * start @ turn.T + [1, 2, 3], mirrored=mirrored)
    assert np.linalg.det(found) == pytest.approx(-1 if mirrored else 1)
    np.testing.assert_allclose(start @ found.T, start @ turn.T, atol=1e-9)


def test_other_motions_are_no_similarity():
    start = np.random.default_rng(0).normal(size=(50, 3))
    assert fit_similarity(start, start * [1, 1.2, 1], mirrored=False) is None
    assert fit_similarity(start, start + 0.1 * np.sin(start), mirrored=False) is None
    assert fit_similarity(np.zeros((5, 3)), np.zeros((5, 3)), mirrored=False) is None


def test_posed_normals_keep_edges_and_custom_shading():
    cube = box(np.zeros(3), np.ones(3), step=0.5)
    turn = Rotation.from_euler("xyz", [0.3, 0.5, 0.7]).as_matrix()
    normals = cube.normals()
    exact = carried_normals(cube.vertices, normals, cube.vertices @ turn.T, cube.faces, turn)
    np.testing.assert_allclose(exact, normals @ turn.T, atol=1e-6)
    again = carried_normals(cube.vertices, normals, cube.vertices @ turn.T, cube.faces, None)
    np.testing.assert_allclose(again, normals @ turn.T, atol=1e-6)
