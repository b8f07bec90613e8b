"""Flat Gaussians on the surface of a mesh: sampled by area, bound to triangles, polished on the pictures of frame 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from animate4d.core.harmonics import SH0
from animate4d.core.mesh import Mesh
from animate4d.core.motion import GraphMotion, Motion
from animate4d.core.splats import SplatCloud
from animate4d.fourd.photometric import Pictures, photometric_loss
from animate4d.fourd.raster_torch import factors_from_quats, multiply_quats

COVER = 0.55
"""Tangential sigma as a share of the square root of the area per splat: neighbours overlap without blurring."""

FLATNESS = 0.2
"""Sigma along the normal over sigma along the surface."""

START_OPACITY, OPACITY_LIMITS = 0.95, (0.5, 0.99)
"""Opacities stay below the renderer's clamp, so that every backend draws the same."""

MEAN_LIGHT = 0.7
"""Linear light on surfaces no view of frame 0 sees, about the mean of the views' light rig."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SurfaceSplats:
    """N splats and the places of the mesh they sit on.

    Attributes:
        cloud: the splats in the rest pose.
        face: `[N]` int32 triangle of the mesh.
        corners: `[N, 3]` int32 vertices of that triangle.
        barycentric: `[N, 3]` float32, rows sum to 1.
    """

    cloud: SplatCloud
    face: np.ndarray
    corners: np.ndarray
    barycentric: np.ndarray

    def surface(self, vertices: np.ndarray) -> np.ndarray:
        """Return `[..., N, 3]` points of a moved mesh `[..., vertices, 3]` under the splats."""
        return np.einsum("nk,...nkc->...nc", self.barycentric, vertices[..., self.corners, :])


def sample_splats(mesh: Mesh, count: int, seed: int = 0) -> SurfaceSplats:
    """Spread splats over the surface, evenly by area, in the colours of the materials.

    Args:
        mesh: with some area.
        count: how many.
        seed: of the sampling.

    Returns:
        splats whose first two axes lie in the triangle and whose third is its normal.
    """
    rng = np.random.default_rng(seed)
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = 0.5 * np.linalg.norm(cross, axis=1)
    face, weights, color = _draw_points(mesh, area, count, rng)
    drawn = count
    if len(face) < count:
        # see-through texels carry no splat: draw as many more as fall away, and a tenth, as shares differ by chance
        drawn = int(1.1 * count * count / len(face))
        face, weights, color = _draw_points(mesh, area, drawn, rng)
        drawn = drawn * count // len(face)
        face, weights, color = face[:count], weights[:count], color[:count]

    axes = triangle_axes(corners[face])
    sigma = COVER * np.sqrt(area.sum() / drawn)
    ids = mesh.faces[face]
    means = np.einsum("nk,nkc->nc", weights, corners[face])
    cloud = SplatCloud(
        means=means.astype(np.float32),
        quats=quats_from_matrices(axes).astype(np.float32),
        scales=np.tile(np.array([sigma, sigma, FLATNESS * sigma], np.float32), (len(face), 1)),
        opacities=np.full(len(face), START_OPACITY, np.float32),
        sh=((color - 0.5) / SH0)[:, None].astype(np.float32),
    )
    return SurfaceSplats(
        cloud=cloud, face=face.astype(np.int32), corners=ids.astype(np.int32), barycentric=weights.astype(np.float32)
    )


def polish(
    splats: SurfaceSplats, views: Sequence[Pictures], steps: int, limits: tuple[float, float] = OPACITY_LIMITS
) -> SurfaceSplats:
    """Fit colours, sizes, opacities and depth below the surface to pictures of frame 0.

    Splats are wider than the surface they sit on; letting them sink a little keeps the silhouette where it is, so that
    the motion fit does not shrink the mesh instead (a constant error of about one pixel).

    Args:
        splats: as sampled.
        views: sets of pictures, of which frame 0 is used; each step looks at the next set.
        steps: of Adam.
        limits: of opacities, 0 < low < high < 1.
    """
    if steps == 0:
        return splats
    cloud = splats.cloud
    sigma = torch.from_numpy(cloud.scales[:, :1])
    rest = torch.from_numpy(cloud.means)
    rotation = factors_from_quats(torch.from_numpy(cloud.quats), torch.ones(len(rest), 3))
    base = torch.from_numpy(cloud.scales)
    colors = (0.5 + SH0 * torch.from_numpy(cloud.sh[:, 0])).requires_grad_()
    stretch = torch.zeros(len(rest), 2, requires_grad=True)
    depth = torch.zeros(len(rest), 1, requires_grad=True)
    low, high = limits
    share = ((torch.from_numpy(cloud.opacities) - low) / (high - low)).clamp(0.02, 0.98)
    hardness = torch.logit(share).requires_grad_()
    rates = [(colors, 0.02), (stretch, 0.03), (depth, 0.03), (hardness, 0.05)]
    optimiser = torch.optim.Adam([{"params": [leaf], "lr": rate} for leaf, rate in rates], eps=1e-15)

    def current() -> tuple[Tensor, Tensor, Tensor]:
        scales = base * torch.cat([stretch.clamp(-1.2, 0.7).exp(), torch.ones_like(stretch[:, :1])], 1)
        means = rest - sigma * depth.clamp(-0.5, 1.5) * rotation[:, :, 2]
        return means, scales, low + (high - low) * torch.sigmoid(hardness)

    for step in range(steps):
        means, scales, opacities = current()
        loss = photometric_loss(
            means[None],
            (rotation * scales[:, None])[None],
            opacities,
            colors,
            views[step % len(views)],
            torch.zeros(1, dtype=torch.long),
        ).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        means, scales, opacities = current()
        sh = ((colors.clamp(0, 1) - 0.5) / SH0)[:, None]
    polished = replace(
        cloud, means=means.numpy(), scales=scales.numpy(), opacities=opacities.numpy(), sh=sh.numpy().astype(np.float32)
    )
    return replace(splats, cloud=polished)


def move_splats(splats: SurfaceSplats, motion: Motion, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Let the splats follow a motion of the mesh.

    Args:
        splats: bound to the mesh.
        motion: of its vertices.
        vertices: `[vertices, 3]` rest positions.

    Returns:
        means `[T, N, 3]` and unit quaternions `[T, N, 4]` (wxyz, no sign flips from frame to frame), float32. Frame 0
        is the cloud itself. Scales, opacities and colours do not change.
    """
    poses = motion.apply(vertices).astype(np.float64)
    moved = splats.surface(poses)
    offset = splats.cloud.means - moved[0]
    if isinstance(motion, GraphMotion):
        weights = splat_weights(splats, motion.vertex_nodes, motion.vertex_weights, len(motion.nodes))
        blended = np.einsum("nm,tmij->tnij", weights, motion.rotation_matrices(), optimize=True)
        left, _, right = np.linalg.svd(blended)
        left[..., -1] *= np.linalg.det(left @ right)[..., None]
        turns = left @ right
    else:
        axes = triangle_axes(poses[:, splats.corners])
        turns = axes @ np.swapaxes(axes[0], -1, -2)
    means = moved + np.einsum("tnij,nj->tni", turns, offset)
    own = torch.from_numpy(splats.cloud.quats).double()
    quats = multiply_quats(torch.from_numpy(quats_from_matrices(turns)), own).numpy()
    for frame in range(1, len(quats)):
        quats[frame] *= np.where((quats[frame] * quats[frame - 1]).sum(-1) < 0, -1.0, 1.0)[:, None]
    means[0], quats[0] = splats.cloud.means, splats.cloud.quats
    return means.astype(np.float32), quats.astype(np.float32)


def triangle_axes(corners: np.ndarray) -> np.ndarray:
    """Return orthonormal axes `[..., 3, 3]` of corners `[..., 3, 3]`: first edge, across it, normal (columns).

    A triangle without area has the axes of the world.
    """
    edge = corners[..., 1, :] - corners[..., 0, :]
    normal = np.cross(edge, corners[..., 2, :] - corners[..., 0, :])
    length, area = np.linalg.norm(edge, axis=-1), np.linalg.norm(normal, axis=-1)
    flat = ~(area > 1e-12 * np.maximum(length, 1e-12))
    first = edge / np.where(flat, 1.0, length)[..., None]
    third = normal / np.where(flat, 1.0, area)[..., None]
    axes = np.stack([first, np.cross(third, first), third], -1)
    return np.where(flat[..., None, None], np.eye(3), axes)


def splat_weights(splats: SurfaceSplats, nodes: np.ndarray, weights: np.ndarray, count: int) -> np.ndarray:
    """Return `[N, M]` how much each splat hangs on each node: the barycentric mean over its corners."""
    dense = np.zeros((len(splats.face), count))
    rows = np.arange(len(dense))[:, None]
    for corner in range(3):
        ids = splats.corners[:, corner]
        np.add.at(dense, (rows, nodes[ids]), splats.barycentric[:, corner, None] * weights[ids])
    return dense


def quats_from_matrices(rotation: np.ndarray) -> np.ndarray:
    """Return unit quaternions wxyz `[..., 4]` of rotation matrices `[..., 3, 3]`."""
    r = rotation
    x, y, z = r[..., 0, 0], r[..., 1, 1], r[..., 2, 2]
    # q q^T up to the factor 4; its row with the largest diagonal is the best conditioned multiple of q
    square = np.stack(
        [
            1 + x + y + z, r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1],
            r[..., 2, 1] - r[..., 1, 2], 1 + x - y - z, r[..., 0, 1] + r[..., 1, 0], r[..., 0, 2] + r[..., 2, 0],
            r[..., 0, 2] - r[..., 2, 0], r[..., 0, 1] + r[..., 1, 0], 1 - x + y - z, r[..., 1, 2] + r[..., 2, 1],
            r[..., 1, 0] - r[..., 0, 1], r[..., 0, 2] + r[..., 2, 0], r[..., 1, 2] + r[..., 2, 1], 1 - x - y + z,
        ],
        -1,
    ).reshape(*r.shape[:-2], 4, 4)  # fmt: skip
    best = np.diagonal(square, axis1=-2, axis2=-1).argmax(-1)
    quats = np.take_along_axis(square, best[..., None, None], -2)[..., 0, :]
    return quats / np.linalg.norm(quats, axis=-1, keepdims=True)


def _draw_points(
    mesh: Mesh, area: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw points evenly by area; returns face `[n]`, barycentric `[n, 3]`, colour `[n, 3]` of the opaque ones."""
    cumulative = np.cumsum(area)
    # one point in each of `count` equal shares of the area: no clumps, no holes
    face = np.searchsorted(cumulative, (np.arange(count) + rng.random(count)) / count * cumulative[-1])
    face = np.minimum(face, len(area) - 1)
    # the R2 sequence spreads the points of one triangle
    u, v = ((np.arange(count)[:, None] * (0.7548776662466927, 0.5698402909980532) + rng.random(2)) % 1.0).T
    root = np.sqrt(u)
    weights = np.stack([1 - root, root * (1 - v), root * v], 1)
    rgba = _material_colors(mesh, face, weights)
    cutoff = np.array([m.alpha_cutoff if m.alpha_mode == "MASK" else 0.1 for m in mesh.materials])
    opaque = np.array([m.alpha_mode == "OPAQUE" for m in mesh.materials])[mesh.face_material[face]]
    keep = opaque | (rgba[:, 3] >= cutoff[mesh.face_material[face]])
    if not keep.any():
        keep[:] = True
    keep = np.flatnonzero(keep)
    keep = keep[rng.permutation(len(keep))]
    return face[keep], weights[keep], rgba[keep, :3]


def _material_colors(mesh: Mesh, face: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return `[n, 4]` sRGB colour and alpha of surface points under even light."""
    corners = mesh.faces[face]
    rgba = np.einsum("nk,nkc->nc", weights, mesh.colors[corners])
    uv = np.einsum("nk,nkc->nc", weights, mesh.uv[corners])
    for number, material in enumerate(mesh.materials):
        rows = np.flatnonzero(mesh.face_material[face] == number)
        rgba[rows] *= material.base_color
        if material.texture is not None and len(rows):
            height, width = material.texture.shape[:2]
            x = np.floor(uv[rows, 0] % 1.0 * width).astype(int) % width
            y = np.floor(uv[rows, 1] % 1.0 * height).astype(int) % height
            texel = material.texture[y, x] / 255.0
            texel[:, :3] = np.where(
                texel[:, :3] <= 0.04045, texel[:, :3] / 12.92, ((texel[:, :3] + 0.055) / 1.055) ** 2.4
            )
            rgba[rows] *= texel
    lit = np.clip(MEAN_LIGHT * rgba[:, :3], 0, 1)
    rgba[:, :3] = np.where(lit <= 0.0031308, 12.92 * lit, 1.055 * lit ** (1 / 2.4) - 0.055)
    return rgba
