"""A captured cloud made ready for the fit: fewer splats that look alike, hung on a graph among the splats themselves.

Captures have 100 000 splats and more, of which the fit, which compares small pictures, needs a few thousand. Each
stands for the splats of one grid cell: its mean and covariance are theirs, weighted by what they cover.
"""

from __future__ import annotations

import numpy as np
import torch

from animate4d.core.mesh import Material, Mesh
from animate4d.core.motion import GraphMotion, SplatMotion
from animate4d.core.splats import SplatCloud
from animate4d.fourd.graph import Graph, build_cloud_graph, grid_cells
from animate4d.fourd.raster_torch import factors_from_quats, multiply_quats
from animate4d.fourd.surface_splats import SurfaceSplats, quats_from_matrices

SOLID = 0.25
"""Opacity from which a splat counts as part of the object's body; fog and halos of captures lie below."""

MAX_COVER = 0.95
"""Opacity above which a standing-in splat is widened instead, at most by half."""

CLOUD_OPACITIES = (0.02, 0.99)
"""Range of opacities the fit may give the standing-in splats of a capture, whose edges are soft."""

THINNEST = 1e-4
"""Smallest standard deviation of a splat of the fit, canonical units: a hundredth of a pixel."""


def bare_points(cloud: SplatCloud) -> Mesh:
    """Return the centres as a mesh without faces: what a graph and a rig need of the body they move."""
    count = len(cloud.means)
    return Mesh(
        vertices=cloud.means,
        faces=np.zeros((0, 3), np.int32),
        face_material=np.zeros(0, np.int32),
        materials=(Material(),),
        uv=np.zeros((count, 2), np.float32),
        colors=np.ones((count, 4), np.float32),
        part_of_vertex=np.zeros(count, np.int32),
    )


def cloud_graph(cloud: SplatCloud, nodes: int) -> Graph:
    """Return the deformation graph of a cloud; its vertices are the splats."""
    return build_cloud_graph(cloud.means, cloud.opacities >= SOLID, nodes)


def gather(cloud: SplatCloud, count: int) -> SurfaceSplats:
    """Stand in for a cloud by at most `count` splats.

    Returns:
        splats without harmonics, the thin axis last. Each sits on the splat of the cloud nearest to it, whose number is
        in all three `corners`; `face` is zero.
    """
    rows = np.flatnonzero(cloud.opacities >= min(SOLID, float(np.median(cloud.opacities))))
    cell = grid_cells(cloud.means[rows], count)
    cells = int(cell.max()) + 1
    factors = factors_from_quats(torch.from_numpy(cloud.quats[rows]), torch.from_numpy(cloud.scales[rows])).numpy()
    own = (factors @ factors.swapaxes(1, 2)).astype(np.float64)
    # what a splat covers: its opacity times the area of its two longer axes
    areas = np.prod(np.sort(cloud.scales[rows].astype(np.float64), axis=1)[:, 1:], axis=1)
    covers = np.maximum(cloud.opacities[rows] * areas, 1e-12)
    total = np.bincount(cell, covers, cells)

    def mean(values: np.ndarray) -> np.ndarray:
        flat = values.reshape(len(values), -1)
        columns = [np.bincount(cell, covers * column, cells) for column in flat.T]
        return (np.stack(columns, 1) / total[:, None]).reshape(cells, *values.shape[1:])

    middle = mean(cloud.means[rows].astype(np.float64))
    offset = cloud.means[rows] - middle[cell]
    variances, axes = np.linalg.eigh(mean(own + offset[:, :, None] * offset[:, None]))
    # eigenvalues rise; the thin axis is to come last
    scales, axes = np.sqrt(variances[:, ::-1].clip(THINNEST**2)), axes[:, :, ::-1].copy()
    axes[:, :, 2] *= np.linalg.det(axes)[:, None]
    opacities = total / (scales[:, 0] * scales[:, 1])
    wider = np.sqrt(opacities / MAX_COVER).clip(1.0, 1.5)
    scales[:, :2] *= wider[:, None]
    nearest = np.lexsort((np.linalg.norm(offset, axis=1), cell))
    nearest = rows[nearest[np.unique(cell[nearest], return_index=True)[1]]]
    gathered = SplatCloud(
        means=middle.astype(np.float32),
        quats=quats_from_matrices(axes).astype(np.float32),
        scales=scales.astype(np.float32),
        opacities=opacities.clip(CLOUD_OPACITIES[0], MAX_COVER).astype(np.float32),
        sh=mean(cloud.sh[rows, :1]).astype(np.float32),
    )
    barycentric = np.zeros((cells, 3), np.float32)
    barycentric[:, 0] = 1.0
    return SurfaceSplats(
        cloud=gathered,
        face=np.zeros(cells, np.int32),
        corners=np.repeat(nearest[:, None], 3, axis=1).astype(np.int32),
        barycentric=barycentric,
    )


def move_cloud(cloud: SplatCloud, motion: GraphMotion) -> SplatMotion:
    """Let a cloud follow the motion of its own graph (see `cloud_graph`); frame 0 is the cloud itself.

    A splat turns by the weighted mean of its nodes' quaternions: the blend of their matrices to second order in how far
    they differ, at a tenth of its time for 500 000 splats.
    """
    nodes, weights = motion.vertex_nodes, motion.vertex_weights
    means = motion.apply(cloud.means)
    quats = np.empty((len(means), len(cloud.means), 4), np.float32)
    quats[0] = cloud.quats
    own = torch.from_numpy(cloud.quats)
    for frame, matrices in enumerate(motion.rotation_matrices()[1:], 1):
        turns = quats_from_matrices(matrices).astype(np.float32)[nodes]
        turns *= np.sign((turns * turns[:, :1]).sum(-1, keepdims=True))
        blended = (weights[..., None] * turns).sum(1)
        blended /= np.linalg.norm(blended, axis=1, keepdims=True)
        quats[frame] = multiply_quats(torch.from_numpy(blended), own).numpy()
        quats[frame] *= np.where((quats[frame] * quats[frame - 1]).sum(-1, keepdims=True) < 0, -1, 1)
    return SplatMotion(means=means, quats=quats)
