"""Exact point tracks and exact backward flow: surface points are remembered as triangle and barycentrics, then posed.

A point is visible in a frame when the ray towards it meets nothing before it. No estimate is involved anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from animate4d.core.tracks import Tracks
from animate4d.views.rays import Cameras, RayCaster
from animate4d.views.shading import corner_weights

TRACKER = "exact/1"

DEPTH_TOLERANCE = 2e-3
"""Depth difference, in canonical units (0.1 % of the diameter), up to which a point counts as the one the ray meets.
Thinner than any limb; float32 error of a hit is some 1e-6."""

SEEN, HIDDEN_AT_FIRST = 255, 128
"""Values of the flow mask: the surface point is seen in frame 0 of the same view, or it is not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Anchors:
    """Surface points to follow, one set per view.

    Attributes:
        face: `[V, P]` int32, -1 for padding.
        weights: `[V, P, 3]` float32 barycentric weights of the three corners.
    """

    face: np.ndarray
    weights: np.ndarray


def find_anchors(caster: RayCaster, cameras: Cameras, queries: np.ndarray, valid: np.ndarray) -> Anchors:
    """Find the surface points behind pixel positions of frame 0.

    Args:
        caster: of the frame-0 pose.
        cameras: V cameras.
        queries: `[V, P, 2]` pixels.
        valid: `[V, P]` bool; others become padding, and so do queries that meet nothing.
    """
    view = np.repeat(np.arange(cameras.views), queries.shape[1])
    hits = caster.cast(*cameras.rays(view, queries.reshape(-1, 2)))
    face = np.where(valid.reshape(-1), hits.face, -1)
    return Anchors(face=face.reshape(valid.shape), weights=corner_weights(hits.barycentric).reshape(*valid.shape, 3))


def points_on(vertices: np.ndarray, faces: np.ndarray, face: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the positions `[..., 3]` of surface points on a pose; face -1 gives some point of no meaning."""
    return np.einsum("...k,...kc->...c", weights, vertices[faces[face]])


def see_points(caster: RayCaster, cameras: Cameras, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Project points and test whether each is seen.

    Args:
        caster: of the pose the points lie on.
        cameras: V cameras.
        points: `[V, P, 3]`, each looked at by its own view.

    Returns:
        xy `[V, P, 2]` float64 pixels and seen `[V, P]` bool (in the picture and nothing in front).
    """
    xy, depth = cameras.project(points)
    inside = ((xy >= 0) & (xy < cameras.size)).all(-1) & (depth > 0)
    seen = np.zeros(inside.shape, bool)
    view, point = np.nonzero(inside)
    hits = caster.cast(*cameras.rays(view, xy[view, point]))
    # Missing altogether happens on silhouettes, where rounding sends the ray past the edge: nothing is in front.
    free = (hits.face < 0) | (hits.depth > depth[view, point] - DEPTH_TOLERANCE)
    seen[view, point] = free
    return xy, seen


def track_frame(
    anchors: Anchors, vertices: np.ndarray, faces: np.ndarray, caster: RayCaster, cameras: Cameras
) -> tuple[np.ndarray, np.ndarray]:
    """Return xy `[V, P, 2]` float32 and visible `[V, P]` float32 of the anchors in one pose; padding is all zero."""
    real = anchors.face >= 0
    xy, seen = see_points(caster, cameras, points_on(vertices, faces, anchors.face, anchors.weights))
    return np.where(real[..., None], xy, 0.0).astype(np.float32), (seen & real).astype(np.float32)


def exact_tracks(
    vertices: np.ndarray, faces: np.ndarray, casters: Iterable[RayCaster], cameras: Cameras, anchors: Anchors
) -> Tracks:
    """Follow anchors through all poses.

    Args:
        vertices: `[T, N, 3]` poses.
        faces: `[F, 3]`.
        casters: one per pose, in order; may be made on the fly.
        cameras: V cameras.
        anchors: from `find_anchors` on pose 0.
    """
    frames = [
        track_frame(anchors, pose, faces, caster, cameras) for pose, caster in zip(vertices, casters, strict=True)
    ]
    return Tracks(
        xy=np.stack([xy for xy, _ in frames], axis=1),
        visible=np.stack([visible for _, visible in frames], axis=1),
        tracker=TRACKER,
    )


def backward_flow(
    vertices: np.ndarray,
    first_vertices: np.ndarray,
    faces: np.ndarray,
    caster: RayCaster,
    first_caster: RayCaster,
    cameras: Cameras,
    out: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Say for every pixel of a pose where its surface point was in frame 0 of the same view.

    Args:
        vertices: `[N, 3]` this pose.
        first_vertices: `[N, 3]` frame 0.
        faces: `[F, 3]`.
        caster: of this pose.
        first_caster: of frame 0.
        cameras: V cameras of `size` pixels.
        out: height and width of the flow; its pixel centres are used, so it need not be `size`.

    Returns:
        flow `[V, out, out, 2]` float16 = (position in frame 0 - position here) in half images, 0 off the object;
        mask `[V, out, out]` uint8: 0 off the object, 255 where the point is seen in frame 0 too, else 128.
    """
    views, cell = cameras.views, cameras.size / out
    centres = ((np.arange(out) + 0.5) * cell).astype(np.float32)
    here = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
    view = np.repeat(np.arange(views), len(here))
    hits = caster.cast(*cameras.rays(view, np.tile(here, (views, 1))))
    flow = np.zeros((views, len(here), 2), np.float16)
    mask = np.zeros((views, len(here)), np.uint8)
    met = (hits.face >= 0).reshape(views, -1)
    # Each view's object pixels in the leading columns, so that one rectangular call serves all views.
    count = int(met.sum(1).max())
    order = np.argsort(~met, axis=1, kind="stable")[:, :count]
    rows = np.arange(views)[:, None]
    kept = met[rows, order]
    flat = rows * len(here) + order
    points = points_on(first_vertices, faces, hits.face[flat], corner_weights(hits.barycentric[flat]))
    there, seen = see_points(first_caster, cameras, points)
    shift = (there - here[order]) / (cameras.size / 2)
    flow[rows, order] = np.where(kept[..., None], shift, 0.0)
    mask[rows, order] = np.where(kept, np.where(seen, SEEN, HIDDEN_AT_FIRST), 0)
    return flow.reshape(views, out, out, 2), mask.reshape(views, out, out)
