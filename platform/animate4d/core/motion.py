"""The fitted motion of an object: a deformation graph whose nodes translate and rotate over time.

vertex(t) = sum over its K nodes of weight * (R_k(t) (v - g_k) + g_k + t_k(t)). That is linear blend skinning, so a
motion *is* a glTF skin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphMotion:
    """Motion of M nodes over T frames and how N vertices hang on them. Everything is in the canonical frame.

    Attributes:
        nodes: `[M, 3]` float32 rest positions g.
        rotations: `[T, M, 3]` float32 axis-angle (radians); frame 0 is zero.
        translations: `[T, M, 3]` float32; frame 0 is zero.
        vertex_nodes: `[N, K]` int32 node indices, K = 4.
        vertex_weights: `[N, K]` float32, rows sum to 1.
        times: `[T]` float64 seconds.
    """

    nodes: np.ndarray
    rotations: np.ndarray
    translations: np.ndarray
    vertex_nodes: np.ndarray
    vertex_weights: np.ndarray
    times: np.ndarray

    def rotation_matrices(self) -> np.ndarray:
        """Return `[T, M, 3, 3]` float64 rotation matrices by Rodrigues' formula."""
        vector = self.rotations.astype(np.float64)
        angle = np.linalg.norm(vector, axis=-1)[..., None, None]
        axis = vector / np.maximum(angle[..., 0], 1e-12)
        cross = np.zeros((*vector.shape[:-1], 3, 3))
        cross[..., 0, 1], cross[..., 0, 2], cross[..., 1, 2] = -axis[..., 2], axis[..., 1], -axis[..., 0]
        cross -= np.swapaxes(cross, -1, -2)
        return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)

    def apply(self, vertices: np.ndarray) -> np.ndarray:
        """Move `[N, 3]` canonical rest vertices; returns `[T, N, 3]` float32. Frame 0 equals the input exactly."""
        rotations = self.rotation_matrices()
        moved = np.empty((len(self.times), *vertices.shape), np.float32)
        moved[0] = vertices
        offsets = vertices[:, None] - self.nodes[self.vertex_nodes]
        for frame in range(1, len(self.times)):
            turned = np.einsum("nkij,nkj->nki", rotations[frame][self.vertex_nodes], offsets)
            carried = turned + (self.nodes + self.translations[frame])[self.vertex_nodes]
            moved[frame] = (self.vertex_weights[..., None] * carried).sum(1)
        return moved
