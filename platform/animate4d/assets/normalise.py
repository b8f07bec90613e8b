"""The similarity that takes a user's model into the canonical box: z-up, front on +x, bounding sphere of radius 0.8."""

from __future__ import annotations

import numpy as np

from animate4d.core.mesh import Similarity
from animate4d.io.splat_file import Up

CANONICAL_RADIUS = 0.8

UP_ROTATIONS: dict[Up, np.ndarray] = {
    "y": np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
    "z": np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]),
    "-y": np.array([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]),
}
"""Rotations that take a file's axes to the canonical ones."""


def canonical_similarity(points: np.ndarray, up: Up) -> Similarity:
    """Fit the canonical sphere to `[N, 3]` points of a frame with this up axis; see `sphere_similarity`."""
    return sphere_similarity(points, UP_ROTATIONS[up])


def sphere_similarity(points: np.ndarray, rotation: np.ndarray) -> Similarity:
    """Fit the canonical sphere: its centre is the centre of the bounding box, its radius reaches the farthest point.

    Args:
        points: `[N, 3]` finite positions in the user's frame, at least one.
        rotation: `[3, 3]`, from that frame's axes to the canonical ones (`UP_ROTATIONS`).

    Raises:
        ValueError: all points coincide, so there is no size to normalise.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # a radius that is not finite is refused below
        turned = points.astype(np.float64) @ rotation.T
        centre = (turned.min(0) + turned.max(0)) / 2
        radius = float(np.sqrt(((turned - centre) ** 2).sum(1).max()))
    if not radius > 0.0 or not np.isfinite(radius):
        raise ValueError(f"bounding sphere of radius {radius}")
    scale = CANONICAL_RADIUS / radius
    return Similarity(scale=scale, rotation=rotation, translation=-scale * centre)
