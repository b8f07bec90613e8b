"""Vertex normals: of a surface that has none, and of a surface that was posed anew."""

from __future__ import annotations

import numpy as np

CREASE = np.cos(np.deg2rad(50))
"""Faces that meet at more than 50 degrees keep a sharp edge between them where the file lets them."""


def smooth_normals(vertices: np.ndarray, faces: np.ndarray, keys: np.ndarray | None = None) -> np.ndarray:
    """Average face normals by area.

    Args:
        vertices: `[N, 3]`.
        faces: `[F, 3]`.
        keys: `[N, K]`; vertices with equal rows share one normal. None: vertices at one place share their normals
            where these differ by less than 50 degrees.

    Returns:
        `[N, 3]` float32 unit normals; +y where a vertex has no face of any area.
    """
    corners = vertices[faces].astype(np.float64)
    area = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    if keys is not None:
        _, group = np.unique(keys, axis=0, return_inverse=True)
        return _unit(_sum_by(group[faces], area, int(group.max(initial=0)) + 1))[group]
    own = _unit(_sum_by(faces, area, len(vertices)))
    _, place = np.unique(vertices, axis=0, return_inverse=True)
    sums = _sum_by(faces, area, len(vertices))
    total = sums.copy()
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(place[order]) > 0])
    ends = np.r_[starts[1:], len(order)]
    shared = ends - starts > 1
    for first, last in zip(starts[shared], ends[shared], strict=True):
        here = order[first:last]
        total[here] = (own[here] @ own[here].T > CREASE) @ sums[here]
    return _unit(total)


def fit_similarity(start: np.ndarray, end: np.ndarray, *, mirrored: bool) -> np.ndarray | None:
    """Find the `[3, 3]` rotation (a reflection if `mirrored`) of the similarity that takes `start` to `end`.

    Kabsch's fit. None where the points move otherwise than by one similarity (skinned, morphed or unevenly scaled).
    """
    if len(start) < 3:
        return None
    first, second = start.astype(np.float64), end.astype(np.float64)
    first, second = first - first.mean(0), second - second.mean(0)
    left, values, right = np.linalg.svd(second.T @ first)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right)) * (-1.0 if mirrored else 1.0)])
    turn = (left * sign) @ right
    spread = (first**2).sum()
    if not spread > 0:
        return None
    error = np.abs(second - (values * sign).sum() / spread * first @ turn.T).max()
    return turn if error < 1e-4 * np.abs(second).max() else None


def carried_normals(
    rest: np.ndarray, normals: np.ndarray, vertices: np.ndarray, faces: np.ndarray, turn: np.ndarray | None
) -> np.ndarray:
    """Return a surface's normals after posing.

    Args:
        rest: `[N, 3]` positions in the file.
        normals: `[N, 3]` normals in the file.
        vertices: `[N, 3]` posed positions.
        faces: `[F, 3]`.
        turn: the rotation of the pose where it is one similarity: the file's normals are turned. Else normals are
            averaged anew over vertices that share position and normal in the file, which keeps its sharp edges.

    Returns:
        `[N, 3]` float32 unit normals.
    """
    if turn is None:
        keys = np.concatenate([rest, np.round(normals.astype(np.float64), 3)], axis=1)
        return smooth_normals(vertices, faces, keys)
    return _unit(np.nan_to_num(normals.astype(np.float64)) @ turn.T)


def _sum_by(faces: np.ndarray, area: np.ndarray, count: int) -> np.ndarray:
    total = np.zeros((count, 3))
    for corner in range(3):
        np.add.at(total, faces[:, corner], area)
    return total


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    # Relative to the largest, so that tiny models keep their normals.
    floor = 1e-12 * max(float(length.max(initial=0.0)), 1e-300)
    return np.where(length > floor, vectors / np.maximum(length, 1e-300), [0.0, 1.0, 0.0]).astype(np.float32)
