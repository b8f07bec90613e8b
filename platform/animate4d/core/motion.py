"""The fitted motion of an object, in one of two forms, and the trajectories of its splats.

`GraphMotion` is a deformation graph whose nodes translate and rotate over time: vertex(t) = sum over its K nodes of
weight * (R_k(t) (v - g_k) + g_k + t_k(t)). That is linear blend skinning, so it *is* a glTF skin. `VertexMotion` says
where every vertex goes, as a field does: it *is* a set of glTF morph targets. Both `apply` to rest vertices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from animate4d.core.harmonics import turn_harmonics
from animate4d.core.splats import SplatCloud


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

    def scaled(self, strength: float) -> GraphMotion:
        """Return the motion with its translations and angles multiplied by `strength`."""
        factor = np.float32(strength)
        return replace(self, rotations=self.rotations * factor, translations=self.translations * factor)

    def closed(self) -> GraphMotion:
        """Return the motion with frame 0 appended, one frame's time after the last."""
        rest = np.zeros_like(self.rotations[:1])
        return replace(
            self,
            rotations=np.concatenate([self.rotations, rest]),
            translations=np.concatenate([self.translations, rest]),
            times=_one_more(self.times),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class VertexMotion:
    """Motion of N vertices over T frames as displacements from the rest pose, in the canonical frame.

    Attributes:
        offsets: `[T, N, 3]` float32; frame 0 is zero.
        times: `[T]` float64 seconds.
    """

    offsets: np.ndarray
    times: np.ndarray

    def apply(self, vertices: np.ndarray) -> np.ndarray:
        """Move `[N, 3]` canonical rest vertices; returns `[T, N, 3]` float32. Frame 0 equals the input exactly.

        Raises:
            ValueError: the motion is of another number of vertices.
        """
        if vertices.shape != self.offsets.shape[1:]:
            raise ValueError(f"the motion moves {self.offsets.shape[1]} vertices, {len(vertices)} were given")
        return vertices.astype(np.float32) + self.offsets

    def scaled(self, strength: float) -> VertexMotion:
        """Return the motion with its displacements multiplied by `strength`."""
        return replace(self, offsets=self.offsets * np.float32(strength))

    def closed(self) -> VertexMotion:
        """Return the motion with frame 0 appended, one frame's time after the last."""
        offsets = np.concatenate([self.offsets, np.zeros_like(self.offsets[:1])])
        return replace(self, offsets=offsets, times=_one_more(self.times))


Motion = GraphMotion | VertexMotion


@dataclass(frozen=True, kw_only=True, slots=True)
class SplatMotion:
    """Trajectories of N splats over T frames; frame 0 is the cloud they belong to.

    Attributes:
        means: `[T, N, 3]` float32.
        quats: `[T, N, 4]` float32 unit quaternions, wxyz, without sign flips from frame to frame.
        scales: `[T, N, 3]` float32 linear, or None where sizes do not change.
        sh: `[T, N, 3]` float32 constant spherical-harmonic coefficient, or None where colours do not change.
    """

    means: np.ndarray
    quats: np.ndarray
    scales: np.ndarray | None = None
    sh: np.ndarray | None = None

    def at(self, frame: int, cloud: SplatCloud) -> SplatCloud:
        """Return the splats of one frame, `cloud` being those of frame 0; harmonics turn with their splats."""
        moved = replace(cloud, means=self.means[frame], quats=self.quats[frame])
        if cloud.sh.shape[1] > 1 and not np.array_equal(moved.quats, cloud.quats):
            moved = replace(moved, sh=turn_harmonics(cloud.sh, turns_between(cloud.quats, self.quats[frame])))
        if self.scales is not None:
            moved = replace(moved, scales=self.scales[frame])
        if self.sh is not None:
            moved = replace(moved, sh=np.concatenate([self.sh[frame, :, None], moved.sh[:, 1:]], axis=1))
        return moved


def turns_between(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return the rotations `[N, 3, 3]` float64 that lead from quaternions wxyz `[N, 4]` to others."""
    from scipy.spatial.transform import Rotation

    start, end = (Rotation.from_quat(quats[:, [1, 2, 3, 0]].astype(np.float64)) for quats in (before, after))
    return (end * start.inv()).as_matrix()


def _one_more(times: np.ndarray) -> np.ndarray:
    return np.append(times, 2 * times[-1] - times[-2])
