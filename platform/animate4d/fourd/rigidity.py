"""As-rigid-as-possible motion of points (paper 002 eq. 9 and 10): a point and its neighbours should turn as one body.

Neighbours come from the mesh where there is one, never through the air: two fingers that touch stay two fingers. The
energy is a sum over frames, points and edges, as the papers' weight expects; as a mean, 10 would have to be 230 400.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from animate4d.fourd.graph import joined_edges, unique_edges
from animate4d.fourd.surface_splats import SurfaceSplats


@dataclass(frozen=True, kw_only=True, slots=True)
class Neighbourhoods:
    """Who is next to whom among P points that are listed by row.

    Attributes:
        starts: `[P + 1]` int64: the neighbours of point p are `ends[starts[p]:starts[p + 1]]`, at least one.
        ends: `[E]` int64.
    """

    starts: np.ndarray
    ends: np.ndarray

    def draw(self, points: np.ndarray, edges: int, rng: np.random.Generator) -> np.ndarray:
        """Return `[n, edges]` neighbours of points `[n]`: different ones where a point has as many."""
        count = self.starts[points + 1] - self.starts[points]
        # a random start and a step through the list: different entries without a sort per point
        at = (rng.integers(0, count)[:, None] + np.arange(edges)) % count[:, None]
        return self.ends[self.starts[points][:, None] + at]


def nearest_neighbourhoods(points: np.ndarray, neighbours: int) -> Neighbourhoods:
    """Tie every point `[P, 3]` to its nearest ones: for clouds without triangles."""
    reach = min(neighbours + 1, len(points))
    found = cKDTree(points).query(points, k=reach)[1].reshape(len(points), reach)
    ends = np.stack([row[row != point][: reach - 1] for point, row in enumerate(found)])
    return Neighbourhoods(starts=np.arange(len(points) + 1) * ends.shape[1], ends=ends.reshape(-1).astype(np.int64))


def mesh_neighbourhoods(
    splats: SurfaceSplats, points: np.ndarray, faces: np.ndarray, welded: np.ndarray
) -> Neighbourhoods:
    """Tie vertices along the edges of the mesh and every splat to the corners of its triangle.

    Loose pieces are tied to their closest others, as in the deformation graph.

    Args:
        splats: N, bound to the mesh; they are the first N points.
        points: `[W, 3]` distinct vertex positions, the points after them.
        faces: `[F, 3]` of the vertices before welding.
        welded: row of `points` of each of these vertices.
    """
    count = len(splats.face)
    between = joined_edges(points, unique_edges(welded[faces]))
    corners = welded[splats.corners]
    own = np.stack([np.repeat(np.arange(count), 3), count + corners.reshape(-1)], 1)
    edges = np.concatenate([own, count + between, count + between[:, ::-1]])
    # a vertex no triangle uses holds on to the nearest one that is used
    lonely = np.setdiff1d(np.arange(len(points)), between)
    if len(lonely) and len(between):
        used = np.unique(between)
        edges = np.concatenate(
            [edges, count + np.stack([lonely, used[cKDTree(points[used]).query(points[lonely])[1]]], 1)]
        )
    edges = edges[np.argsort(edges[:, 0], kind="stable")]
    starts = np.searchsorted(edges[:, 0], np.arange(count + len(points) + 1))
    return Neighbourhoods(starts=starts, ends=edges[:, 1].astype(np.int64))


def rigidity(rest: Tensor, moved: Tensor, centres: Tensor, neighbours: Tensor, *, weights: str = "unit") -> Tensor:
    """Return the energy: the sum over F frames, n points and k edges of w |(x_j - x_i) - R_i (X_j - X_i)|^2.

    R_i is the rotation that fits best, taken as constant.

    Args:
        rest: `[P, 3]`, or `[F, P, 3]` where each frame has its own pose to be rigid from.
        moved: `[F, P, 3]`.
        centres: `[n]` rows of points.
        neighbours: `[n, k]` rows of points.
        weights: "unit", or "distance": exp(-length / mean length).
    """
    edges = rest[..., neighbours, :] - rest[..., centres, None, :]
    now = moved[:, neighbours] - moved[:, centres][:, :, None]
    length = edges.norm(dim=-1)
    weight = torch.exp(-length / length.mean()) if weights == "distance" else torch.ones_like(length)
    with torch.no_grad():
        turns = best_rotations((now * weight[..., None]).mT @ edges)
    return ((now - edges @ turns.mT).square().sum(-1) * weight).sum()


def best_rotations(covariances: Tensor) -> Tensor:
    """Return the rotations R `[..., 3, 3]` that maximise trace(R^T S): U V^T, mirrored back where it is a mirror."""
    left, _, right = torch.linalg.svd(covariances)
    flip = torch.linalg.det(left @ right).sign()
    # the axis that counts least takes the flip
    return torch.cat([left[..., :2], left[..., 2:] * flip[..., None, None]], -1) @ right
