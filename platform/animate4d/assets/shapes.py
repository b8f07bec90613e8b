"""Closed surfaces to build procedural objects from: tubes, lathes, ellipsoids and boxes.

Units are the object's own, y is up and z is forward (glTF axes). Texture coordinates are proportional to lengths on the
surface (one unit of uv = one unit of length), so a pattern has the same grain on every part of an object.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """A triangle surface.

    Attributes:
        vertices: `[N, 3]` float64.
        faces: `[F, 3]` int64, counter-clockwise seen from outside.
        uv: `[N, 2]` float64 in units of length.
        crease: `[N]` int64; vertices at one place share a normal only within one crease group.
    """

    vertices: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    crease: np.ndarray

    def moved(self, *, offset: np.ndarray | None = None, turn: np.ndarray | None = None) -> Shape:
        """Return the shape turned by a `[3, 3]` rotation, then shifted by a `[3]` offset."""
        vertices = self.vertices if turn is None else self.vertices @ turn.T
        return replace(self, vertices=vertices if offset is None else vertices + offset)

    def normals(self) -> np.ndarray:
        """Return `[N, 3]` unit normals: face normals averaged by area over one place and crease group."""
        corners = self.vertices[self.faces]
        area = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        keys = np.concatenate([np.round(self.vertices, 6), self.crease[:, None]], 1)
        _, group = np.unique(keys, axis=0, return_inverse=True)
        total = np.zeros((group.max() + 1, 3))
        for corner in range(3):
            np.add.at(total, group[self.faces[:, corner]], area)
        length = np.linalg.norm(total, axis=1, keepdims=True)
        return np.where(length > 1e-12, total / np.maximum(length, 1e-12), [0.0, 1.0, 0.0])[group]


def rotation(axis: str, angle: float) -> np.ndarray:
    """Return the `[3, 3]` rotation by `angle` radians about "x", "y" or "z"."""
    i = "xyz".index(axis)
    j, k = (i + 1) % 3, (i + 2) % 3
    matrix = np.eye(3)
    matrix[j, j] = matrix[k, k] = np.cos(angle)
    matrix[k, j], matrix[j, k] = np.sin(angle), -np.sin(angle)
    return matrix


def tube(
    path: np.ndarray, radii: np.ndarray, *, sides: int = 8, round_ends: bool = True, side_hint: np.ndarray | None = None
) -> Shape:
    """Sweep an ellipse along a polyline.

    Args:
        path: `[R, 3]` centres of the rings.
        radii: `[R]` or `[R, 2]` (across, thick) half-widths; the first lies along `side_hint`.
        sides: vertices around.
        round_ends: close with half-spheres' rings rather than flat lids.
        side_hint: direction the first half-width lies along; +x, or +z for a path along x, when None.

    Returns:
        A closed surface with `sides + 1` vertices a ring (the seam is doubled for the texture).
    """
    path = np.asarray(path, np.float64)
    radii = np.asarray(radii, np.float64)
    if radii.ndim == 1:
        radii = np.stack([radii, radii], 1)
    tangents = np.gradient(path, axis=0)
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    if side_hint is None:
        side_hint = np.array([0.0, 0.0, 1.0]) if abs(tangents[:, 0]).mean() > 0.8 else np.array([1.0, 0.0, 0.0])
    if round_ends:
        lift = np.sin(np.array([0.85, 0.45]) * np.pi / 2)
        shrink = np.cos(np.array([0.85, 0.45]) * np.pi / 2)
        head = path[0] - tangents[0] * (lift * radii[0].min())[:, None]
        tail = path[-1] + tangents[-1] * (lift[::-1] * radii[-1].min())[:, None]
        path = np.concatenate([head, path, tail])
        radii = np.concatenate([shrink[:, None] * radii[0], radii, shrink[::-1, None] * radii[-1]])
        tangents = np.concatenate([tangents[[0, 0]], tangents, tangents[[-1, -1]]])
    across = side_hint - (tangents @ side_hint)[:, None] * tangents
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    thick = np.cross(tangents, across)
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    ring = (
        np.cos(angle)[None, :, None] * (across * radii[:, :1])[:, None]
        + np.sin(angle)[None, :, None] * (thick * radii[:, 1:])[:, None]
    )
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    around = np.linspace(0, 1, sides + 1) * 2 * np.pi * radii.mean()
    return _rings(path[:, None] + ring, along, around, np.zeros(len(path), np.int64))


def limb(
    start: ArrayLike, end: ArrayLike, radius: float, end_radius: float | None = None, *, rings: int = 6, sides: int = 8
) -> Shape:
    """Return a capsule from `start` to `end` whose radius goes linearly to `end_radius`."""
    share = np.linspace(0, 1, rings)[:, None]
    path = np.asarray(start, np.float64) * (1 - share) + np.asarray(end, np.float64) * share
    last = radius if end_radius is None else end_radius
    return tube(path, radius * (1 - share[:, 0]) + last * share[:, 0], sides=sides)


def lathe(profile: list[tuple[float, float]], *, sides: int = 12, step: float = 0.12) -> Shape:
    """Turn a profile about the y axis.

    Args:
        profile: (radius, height) from bottom to top. A point given twice makes a sharp edge there.
        sides: vertices around.
        step: longest distance between rings, so that the surface can bend.

    Returns:
        The surface; closed when the profile starts and ends on the axis.
    """
    points, creases, crease = [profile[0]], [0], 0
    for here, there in itertools.pairwise(profile):
        if here == there:
            crease += 1
            points.append(there)
            creases.append(crease)
            continue
        pieces = max(1, int(np.ceil(abs(there[1] - here[1]) / step)))
        for piece in range(1, pieces + 1):
            share = piece / pieces
            points.append((here[0] + (there[0] - here[0]) * share, here[1] + (there[1] - here[1]) * share))
            creases.append(crease)
    outline = np.array(points)
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    # Going up with the angle from +z towards +x keeps the faces counter-clockwise from outside.
    rings = np.stack(
        [
            outline[:, :1] * np.sin(angle),
            np.repeat(outline[:, 1:], sides + 1, axis=1),
            outline[:, :1] * np.cos(angle),
        ],
        axis=-1,
    )
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(outline, axis=0), axis=1))])
    around = np.linspace(0, 1, sides + 1) * 2 * np.pi * outline[:, 0].max()
    return _rings(rings, along, around, np.array(creases), lids=False)


def ellipsoid(centre: np.ndarray, radii: np.ndarray, *, sides: int = 10, rings: int = 7) -> Shape:
    """Return an ellipsoid with half-axes `radii`, poles along y."""
    polar = np.linspace(0, np.pi, rings)
    sphere = lathe([(float(np.sin(p)), float(-np.cos(p))) for p in polar], sides=sides, step=9.0)
    radii = np.asarray(radii, np.float64)
    return replace(sphere, vertices=sphere.vertices * radii + centre, uv=sphere.uv * radii.mean())


def box(centre: np.ndarray, size: np.ndarray, *, step: float = 0.25) -> Shape:
    """Return a box with flat faces, cut into cells no longer than `step` so that it can bend."""
    size = np.asarray(size, np.float64)
    vertices, faces, uv, crease = [], [], [], []
    count = 0
    for side in range(6):
        axis, sign = side // 2, 1.0 - 2.0 * (side % 2)
        u, v = ((axis + 1) % 3, (axis + 2) % 3) if sign > 0 else ((axis + 2) % 3, (axis + 1) % 3)
        cells_u, cells_v = (max(1, min(8, int(np.ceil(size[k] / step)))) for k in (u, v))
        grid_v, grid_u = np.meshgrid(np.linspace(0, 1, cells_v + 1), np.linspace(0, 1, cells_u + 1), indexing="ij")
        points = np.empty((grid_u.size, 3))
        points[:, axis] = 0.5 * sign * size[axis]
        points[:, u] = (grid_u.ravel() - 0.5) * size[u]
        points[:, v] = (grid_v.ravel() - 0.5) * size[v]
        vertices.append(points + centre)
        uv.append(np.stack([grid_u.ravel() * size[u], grid_v.ravel() * size[v]], 1))
        crease.append(np.full(len(points), side))
        faces.append(_grid_faces(cells_v + 1, cells_u + 1) + count)
        count += len(points)
    return Shape(
        vertices=np.concatenate(vertices),
        faces=np.concatenate(faces),
        uv=np.concatenate(uv),
        crease=np.concatenate(crease),
    )


def _grid_faces(rows: int, columns: int) -> np.ndarray:
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1].ravel(), index[:-1, 1:].ravel(), index[1:, 1:].ravel(), index[1:, :-1].ravel()
    return np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])


def _rings(rings: np.ndarray, along: np.ndarray, around: np.ndarray, crease: np.ndarray, *, lids: bool = True) -> Shape:
    """Join `[R, S + 1, 3]` rings into a surface; `lids` closes both ends with a fan."""
    count, columns = rings.shape[:2]
    vertices = rings.reshape(-1, 3)
    faces = _grid_faces(count, columns)
    uv = np.stack(np.broadcast_arrays(around[None, :], along[:, None]), -1).reshape(-1, 2)
    groups = np.repeat(crease, columns)
    if lids:
        first, last = len(vertices), len(vertices) + 1
        vertices = np.concatenate([vertices, rings[0, :-1].mean(0)[None], rings[-1, :-1].mean(0)[None]])
        uv = np.concatenate([uv, [[0.0, along[0]], [0.0, along[-1]]]])
        groups = np.concatenate([groups, crease[[0, -1]]])
        low, high = np.arange(columns - 1), np.arange(columns - 1) + (count - 1) * columns
        faces = np.concatenate(
            [
                faces,
                np.stack([low + 1, low, np.full_like(low, first)], 1),
                np.stack([high, high + 1, np.full_like(high, last)], 1),
            ]
        )
    corners = vertices[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    return Shape(vertices=vertices, faces=faces[area > 1e-12], uv=uv, crease=groups)
