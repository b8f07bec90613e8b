"""A smooth random motion to export."""

import numpy as np
import pytest

from animate4d.core.motion import GraphMotion


def smooth_motion(vertices: np.ndarray, faces: np.ndarray, *, nodes: int = 40, frames: int = 7, seed: int = 0):
    """Nodes at random vertices, four nearest per vertex, turns and shifts that vary smoothly over space and time."""
    rng = np.random.default_rng(seed)
    used = np.unique(faces)
    places = vertices[rng.choice(used, min(nodes, len(used)), replace=False)].astype(np.float64)
    distance = np.linalg.norm(vertices[:, None] - places, axis=-1)
    nearest = np.argsort(distance, axis=1)[:, :4]
    weights = 1 / (np.take_along_axis(distance, nearest, 1) + 0.05)
    weights /= weights.sum(1, keepdims=True)
    wave = np.sin(np.linspace(0, 1.5 * np.pi, frames))[:, None, None]
    return GraphMotion(
        nodes=places.astype(np.float32),
        rotations=(wave * (0.7 * np.sin(3 * places + 1))).astype(np.float32),
        translations=(wave * (0.15 * np.cos(2 * places))).astype(np.float32),
        vertex_nodes=nearest.astype(np.int32),
        vertex_weights=weights.astype(np.float32),
        times=np.linspace(0.5, 1.7, frames),
    )


@pytest.fixture
def make_motion():
    return smooth_motion
