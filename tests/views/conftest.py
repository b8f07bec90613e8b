"""Small meshes built by code."""

import numpy as np
import pytest

from animate4d.core.mesh import Material, Mesh

CUBE_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32)
CUBE_FACES = np.array(
    [
        *([0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1]),
        *([2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]),
    ],
    np.int32,
)
PLAIN = (Material(),)


def make_mesh(vertices, faces, *, materials=PLAIN, face_material=None, uv=None, colors=None) -> Mesh:
    count = len(vertices)
    return Mesh(
        vertices=np.asarray(vertices, np.float32),
        faces=np.asarray(faces, np.int32),
        face_material=np.zeros(len(faces), np.int32) if face_material is None else np.asarray(face_material, np.int32),
        materials=materials,
        uv=np.zeros((count, 2), np.float32) if uv is None else np.asarray(uv, np.float32),
        colors=np.ones((count, 4), np.float32) if colors is None else np.asarray(colors, np.float32),
        part_of_vertex=np.zeros(count, np.int32),
    )


def cube(scale: float = 0.4, center=(0.0, 0.0, 0.0), **options) -> Mesh:
    return make_mesh(CUBE_CORNERS * scale + np.array(center, np.float32), CUBE_FACES, **options)


def card(x: float = 0.0, half: float = 0.5, **options) -> Mesh:
    """A square facing +x; seen from there, uv (0, 0) is its top-left corner."""
    vertices = [[x, -half, half], [x, half, half], [x, half, -half], [x, -half, -half]]
    uv = [[0, 0], [1, 0], [1, 1], [0, 1]]
    return make_mesh(vertices, [[0, 3, 2], [0, 2, 1]], uv=uv, **options)


def join(first: Mesh, second: Mesh) -> Mesh:
    return make_mesh(
        np.concatenate([first.vertices, second.vertices]),
        np.concatenate([first.faces, second.faces + len(first.vertices)]),
        materials=first.materials + second.materials,
        face_material=np.concatenate([first.face_material, second.face_material + len(first.materials)]),
        uv=np.concatenate([first.uv, second.uv]),
        colors=np.concatenate([first.colors, second.colors]),
    )


@pytest.fixture
def shapes():
    """The functions above, for tests (test folders are not packages)."""
    from types import SimpleNamespace

    return SimpleNamespace(make_mesh=make_mesh, cube=cube, card=card, join=join)
