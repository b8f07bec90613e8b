"""Where points of the surface are seen in every frame: point tracks or a dense flow, turned into targets for splats.

Both say which pixel of frame 0 a pixel of frame t came from. A splat visible in frame 0 takes over the displacement
observed next to it, so neither needs to start exactly on a splat.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from animate4d.core.tracks import Tracks
from animate4d.fourd.channels import draw_depth
from animate4d.fourd.deform import SplatRig
from animate4d.fourd.photometric import Pictures

TRACK_REACH = 4.0
"""Pixels of the fitted image between a track's start and the splat that takes it; beyond, it is off the object."""

FLOW_REACH = 1.5
"""Cells of the flow grid between a splat and the nearest source; beyond, the splat is taken as hidden in that frame."""

FLOW_DOUBT = 1.0
"""Cells by which neighbouring flow vectors may differ; beyond, the splat is left out in that frame."""

FLOW_NEIGHBOURS = 4
"""Flow vectors averaged for one splat."""

HUBER = 3.0 / 128.0
"""Image widths at which the penalty turns from square to linear: wrong tracks are off by more than 3 of 128 px."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Correspondences:
    """2D targets of N splats.

    Attributes:
        xy: `[T, V, N, 2]` float32 pixels of the fitted images; frame 0 is that frame's own projection.
        weight: `[T, V, N]` float32 in [0, 1], zero where a splat is not seen.
    """

    xy: Tensor
    weight: Tensor

    def to(self, device: torch.device) -> Correspondences:
        """Return them on a device."""
        return Correspondences(xy=self.xy.to(device), weight=self.weight.to(device))

    def pull(self, xy: Tensor, frames: Tensor, width: int) -> Tensor:
        """Return `[B]`: weighted mean robust squared distance, in image widths, of projections `[B, V, N, 2]`."""
        weight = self.weight[frames]
        distance = ((xy - self.xy[frames]) / width).square().sum(-1)
        robust = 2 * HUBER**2 * ((1 + distance / HUBER**2).sqrt() - 1)
        # a handful of points must not weigh as much as a full set
        total = weight.sum((1, 2)).clamp(min=16.0 * weight.shape[1])
        return (weight * robust).sum((1, 2)) / total


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What is known about which pixel of frame 0 a pixel of a later frame came from.

    Attributes:
        width: pixels across the video that the tracks were made on.
        tracks: starting in frame 0.
        flow: `[V, T, h, w, 2]` at the positions of frame t: position in frame 0 minus position in frame t, half images.
        flow_weight: `[V, T, h, w]` in [0, 1], zero where a source was hidden in frame 0.
    """

    width: int
    tracks: Tracks | None = None
    flow: np.ndarray | None = None
    flow_weight: np.ndarray | None = None


def find_correspondences(
    rig: SplatRig, first: Tensor, pictures: Pictures, evidence: Evidence
) -> Correspondences | None:
    """Turn tracks and flow into targets for splats; None where there is neither.

    Args:
        rig: splats.
        first: `[1, M, 6]` pose of frame 0.
        pictures: the video; frame 0 decides what is visible.
        evidence: tracks and flow.
    """
    tracks, flow, flow_weight = evidence.tracks, evidence.flow, evidence.flow_weight
    if tracks is None and flow is None:
        return None
    with torch.no_grad():
        means, factors, _ = rig.place(first)
        rest = pictures.project(means)[0].numpy()
        seen = visible_splats(rig, means, factors, pictures)
    times, (views, count) = len(pictures.frames), rest.shape[:2]
    total, weight = np.zeros((times, views, count, 2)), np.zeros((times, views, count))
    for view in range(views):
        rows = np.flatnonzero(seen[view])
        if not len(rows):
            continue
        tree = cKDTree(rest[view, rows])
        if tracks is not None:
            scale = pictures.size[1] / evidence.width
            shift, share, taker = _from_tracks(tracks, view, scale, tree)
            taken = np.zeros((len(taker), count))
            taken[np.arange(len(taker)), rows[taker]] = 1.0
            total[:, view] += np.einsum("tpc,pn->tnc", shift * share[..., None], taken, optimize=True)
            weight[:, view] += share @ taken
        if flow is not None:
            for frame in range(1, times):
                certain = None if flow_weight is None else flow_weight[view, frame]
                shift, share = _from_flow(flow[view, frame], certain, pictures, view, frame, rest[view, rows])
                total[frame, view, rows] += shift * share[:, None]
                weight[frame, view, rows] += share
    # splats that a frame does not speak of keep a target of no use: their weight is zero
    total /= np.maximum(weight, 1e-9)[..., None]
    weight[0] = weight.max(0)
    total[0] = 0.0
    return Correspondences(
        xy=torch.from_numpy((rest + total).astype(np.float32)),
        weight=torch.from_numpy(weight.clip(0, 1).astype(np.float32)),
    )


def visible_splats(rig: SplatRig, means: Tensor, factors: Tensor, pictures: Pictures) -> np.ndarray:
    """Return `[V, N]` bool: splats of the rest pose that nothing hides, by comparing depths with the drawn depth."""
    height, width = pictures.size
    depth = torch.einsum("vj,nj->vn", pictures.viewmats[:, 2, :3], means[0]) + pictures.viewmats[:, 2, 3:]
    xy = pictures.project(means)[0]
    x, y = xy[..., 0].long().clamp(0, width - 1), xy[..., 1].long().clamp(0, height - 1)
    radius = factors[0].square().sum((1, 2)).sqrt()
    drawn, alpha = draw_depth(
        means, factors, rig.opacities, pictures.viewmats, pictures.intrinsics, pictures.size, backend=pictures.backend
    )
    result = []
    for view in range(len(depth)):
        surface, cover = (image[0, view][y[view], x[view]] for image in (drawn, alpha))
        inside = ((xy[view] >= 0) & (xy[view] < xy.new_tensor([width, height]))).all(1)
        result.append(inside & (cover > 0.5) & (depth[view] < surface + 2 * radius))
    return torch.stack(result).numpy()


def _from_tracks(tracks: Tracks, view: int, scale: float, tree: cKDTree) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return displacements `[T, P, 2]`, weights `[T, P]` and the splat `[P]` that takes each usable track."""
    xy, visible = tracks.xy[view].astype(np.float64) * scale, tracks.visible[view].astype(np.float64)
    usable = (visible[0] > 0.5) & np.isfinite(xy[0]).all(-1)
    distance, taker = tree.query(np.where(usable[:, None], xy[0], 0.0))
    usable &= distance < TRACK_REACH
    shift, share = xy[:, usable] - xy[0, usable], visible[:, usable]
    share = np.where(np.isfinite(shift).all(-1), share, 0.0)
    return np.nan_to_num(shift), share, taker[usable]


def _from_flow(
    flow: np.ndarray, certain: np.ndarray | None, pictures: Pictures, view: int, frame: int, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Invert a backward flow `[h, w, 2]` at points of frame 0: displacements `[n, 2]` and weights `[n]`."""
    height, width = pictures.size
    rows, columns = flow.shape[:2]
    cell = np.array([width / columns, height / rows])
    y, x = np.mgrid[:rows, :columns]
    place = (np.stack([x, y], -1) + 0.5) * cell
    alpha = pictures.frames[frame, view, 3].numpy()
    keep = (
        alpha[np.minimum(place[..., 1].astype(int), height - 1), np.minimum(place[..., 0].astype(int), width - 1)] > 0.5
    )
    if certain is not None:
        keep &= certain > 0.5
    shift = flow.astype(np.float64) * (width / 2, height / 2)
    keep &= np.isfinite(shift).all(-1)
    if not keep.any():
        return np.zeros((len(points), 2)), np.zeros(len(points))
    place, shift = place[keep], shift[keep]
    neighbours = min(FLOW_NEIGHBOURS, len(place))
    distance, found = cKDTree(place + shift).query(points, k=neighbours)
    distance, found = distance.reshape(len(points), neighbours), found.reshape(len(points), neighbours)
    closeness = np.exp(-0.5 * np.square(distance / cell.max())) * (distance < FLOW_REACH * cell.max())
    share = closeness.sum(1)
    moved = -(shift[found] * closeness[..., None]).sum(1) / np.maximum(share, 1e-9)[:, None]
    # a surface that frame 0 hides has its sources on the one in front: two places for one source, and no telling which
    apart = np.linalg.norm(shift[found] + moved[:, None], axis=-1)
    doubt = (closeness * apart).sum(1) / np.maximum(share, 1e-9)
    return moved, np.minimum(share, 1.0) * (doubt < FLOW_DOUBT * cell.max())
