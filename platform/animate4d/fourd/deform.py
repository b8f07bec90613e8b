"""Splats and vertices moved by a deformation graph, as one dense product per step.

vertex' = sum_k w_k (R_k (v - g_k) + g_k + t_k) = sum_k A_k [w_k v; w_k], with A_k = [R_k | g_k + t_k - R_k g_k]. A
splat is a fixed mixture of its triangle's vertices, so its mean is linear in the A_k too: all means are one matrix
product. Its axes turn with the blend of its nodes' rotations.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from animate4d.core.mesh import Mesh
from animate4d.fourd.graph import Graph
from animate4d.fourd.raster_torch import factors_from_quats
from animate4d.fourd.surface_splats import SH0, SurfaceSplats, quats_from_matrices, splat_weights


class SplatRig:
    """Splats hanging on a graph.

    Poses are `[B, M, 6]`: translation, then axis-angle, of every node; zero is the rest pose.

    Attributes:
        opacities: `[N]`.
        colors: `[N, 3]`.
    """

    def __init__(self, mesh: Mesh, graph: Graph, splats: SurfaceSplats) -> None:
        cloud = splats.cloud
        self.nodes = torch.from_numpy(graph.nodes)
        self.opacities = torch.from_numpy(cloud.opacities)
        self.colors = torch.from_numpy((0.5 + SH0 * cloud.sh[:, 0]).astype(np.float32))
        weights = splat_weights(splats, graph.vertex_nodes, graph.vertex_weights, len(graph.nodes))
        moments = np.zeros((len(splats.face), len(graph.nodes), 4))
        rows = np.arange(len(moments))[:, None]
        for corner in range(3):
            ids = splats.corners[:, corner]
            share = splats.barycentric[:, corner, None] * graph.vertex_weights[ids]
            np.add.at(moments[..., :3], (rows, graph.vertex_nodes[ids]), share[..., None] * mesh.vertices[ids][:, None])
        # splats that sank below the surface keep their distance to it
        moments[..., :3] += weights[..., None] * (cloud.means - splats.surface(mesh.vertices))[:, None]
        moments[..., 3] = weights
        self._moments = torch.from_numpy(moments.reshape(len(moments), -1).astype(np.float32))
        self._weights = torch.from_numpy(weights.astype(np.float32))
        self._factors = factors_from_quats(torch.from_numpy(cloud.quats), torch.from_numpy(cloud.scales))
        start, end = torch.from_numpy(graph.edges).T
        edge = self.nodes[end] - self.nodes[start]
        length = edge.norm(dim=1)
        self._start, self._end, self._edge = start, end, edge
        self._edge_weight = 1.0 / (length * length.mean()).clamp(min=1e-9) / max(len(edge), 1)

    def place(self, poses: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return means `[B, N, 3]`, factors `[B, N, 3, 3]` of the splats and rotations `[B, M, 3, 3]` of the nodes."""
        batch, count = poses.shape[:2]
        rotations = rotation_matrices(poses[..., 3:])
        shift = self.nodes + poses[..., :3] - (rotations @ self.nodes[..., None])[..., 0]
        # [M * 4, B * 3]: for each node the three columns of R, then the shift
        maps = torch.cat([rotations.mT, shift[:, :, None]], 2).permute(1, 2, 0, 3).reshape(count * 4, batch * 3)
        means = (self._moments @ maps).view(-1, batch, 3).transpose(0, 1)
        turns = self._weights @ rotations.permute(1, 0, 2, 3).reshape(count, batch * 9)
        factors = turns.view(-1, batch, 3, 3).transpose(0, 1) @ self._factors
        return means, factors, rotations

    def stretch(self, poses: Tensor, rotations: Tensor) -> Tensor:
        """Return `[B]` as-rigid-as-possible energies: the mean over node edges of |R_i e + t_i - t_j - e|^2 / length^2.

        Lengths are the edge's times the mean edge's, so the energy does not depend on the size of mesh or graph.
        """
        turned = torch.einsum("beij,ej->bei", rotations[:, self._start], self._edge)
        gap = turned - self._edge + poses[:, self._start, :3] - poses[:, self._end, :3]
        return (gap.square().sum(-1) * self._edge_weight).sum(-1)


def rotation_matrices(vectors: Tensor) -> Tensor:
    """Return `[..., 3, 3]` rotations of axis-angle vectors `[..., 3]` (Rodrigues), differentiable at zero."""
    # the square of 1e-6 keeps the root differentiable and changes no rotation in float32
    angle = (vectors.square().sum(-1) + 1e-12).sqrt()[..., None, None]
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).view(*vectors.shape, 3)
    half = torch.sin(0.5 * angle) / angle
    return torch.eye(3, dtype=vectors.dtype) + torch.sin(angle) / angle * cross + 2.0 * half * half * (cross @ cross)


def compose(after: Tensor, before: Tensor) -> Tensor:
    """Return the motions `[T, M, 6]` that do first `before`, then `after`, node by node (either may have T = 1)."""
    turns = rotation_matrices(after[..., 3:].double()) @ rotation_matrices(before[..., 3:].double())
    carried = rotation_matrices(after[..., 3:].double()) @ before[..., :3, None].double()
    return torch.cat([after[..., :3].double() + carried[..., 0], axis_angles(turns)], -1).float()


def take_off(poses: Tensor, bias: Tensor) -> Tensor:
    """Return the motions that lead from the pose `bias` to each of `poses`: A' = A B^-1, node by node.

    The fit pulls even a motionless object a little, mostly inwards because splats overhang the surface. What it does to
    frame 0 is taken off every frame, turning with the nodes.

    Args:
        poses: `[T, M, 6]`.
        bias: `[1, M, 6]`.
    """
    back = -(rotation_matrices(bias[..., 3:].double()).mT @ bias[..., :3, None].double())[..., 0]
    return compose(poses, torch.cat([back, -bias[..., 3:].double()], -1))


def axis_angles(rotations: Tensor) -> Tensor:
    """Return the axis-angle vectors `[..., 3]`, at most pi long, of float64 rotations `[..., 3, 3]`."""
    quats = quats_from_matrices(rotations.numpy())
    quats *= np.where(quats[..., :1] < 0, -1.0, 1.0)
    sine = np.linalg.norm(quats[..., 1:], axis=-1, keepdims=True)
    # near zero the angle is twice the sine of its half
    scale = np.where(sine < 1e-9, 2.0, 2 * np.arctan2(sine, quats[..., :1]) / np.maximum(sine, 1e-9))
    return torch.from_numpy(quats[..., 1:] * scale)
