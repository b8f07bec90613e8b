"""Which points to follow, and which of them one training step looks at.

Paper 001 section 3.2: a 15 x 15 grid over the first frame, filtered by the object's mask; 8 of them at random per view
and step. The paper leaves the placement open: ours is cell centres (a corner-to-corner grid puts a quarter of the
points on the image border) inside a mask eroded first, because points on the silhouette slip to the background.
"""

from __future__ import annotations

import cv2
import numpy as np

from animate4d.core.tracks import Tracks

SOLID = 128
"""Coverage (0..255) from which a pixel counts as object."""


def grid_queries(mask: np.ndarray, size: int = 15, *, minimum: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Lay a grid over frame 0 and keep the points on the object.

    A view with fewer than `minimum` points gets a grid twice as fine, and so on down to one point per pixel; an object
    too thin to survive erosion keeps its whole mask.

    Args:
        mask: `[V, H, W]` uint8 coverage in frame 0.
        size: points per side of the first grid.
        minimum: points wanted in every view where the object is seen.

    Returns:
        Queries `[V, P, 2]` float32 pixels (centres at half-integers) and valid `[V, P]` bool; P is the largest count
        over the views (at least 1), the rest is padding at the image centre.
    """
    found = [_points_inside(eroded(view), size, minimum) for view in mask]
    count = max(1, *(len(points) for points in found))
    queries = np.full((len(mask), count, 2), (mask.shape[2] / 2, mask.shape[1] / 2), np.float32)
    valid = np.zeros((len(mask), count), bool)
    for view, points in enumerate(found):
        queries[view, : len(points)] = points
        valid[view, : len(points)] = True
    return queries, valid


def eroded(mask: np.ndarray) -> np.ndarray:
    """Return the inside `[H, W]` bool of a `[H, W]` uint8 mask: 2 pixels off the rim at 256 (1 at 128 and below)."""
    solid = (mask >= SOLID).astype(np.uint8)
    radius = max(1, round(mask.shape[0] / 128))
    kernel, border = np.ones((3, 3), np.uint8), cv2.BORDER_CONSTANT
    inside = cv2.erode(solid, kernel, iterations=radius, borderType=border, borderValue=0)
    return (inside if inside.any() else solid).astype(bool)


def sample_points(tracks: Tracks, count: int, rng: np.random.Generator) -> Tracks:
    """Draw `count` points per view among those visible in the first frame, without repetition.

    A view with fewer gets padding: position 0 and visibility 0 in every frame.

    Args:
        tracks: `[V, T, P, ...]`.
        count: points per view in the result.
        rng: source of the draw.

    Returns:
        Tracks with P = `count`.
    """
    views, frames = tracks.xy.shape[:2]
    xy = np.zeros((views, frames, count, 2), np.float32)
    visible = np.zeros((views, frames, count), np.float32)
    for view in range(views):
        candidates = np.flatnonzero(tracks.visible[view, 0] > 0)
        chosen = rng.permutation(candidates)[:count]
        xy[view, :, : len(chosen)] = tracks.xy[view][:, chosen]
        visible[view, :, : len(chosen)] = tracks.visible[view][:, chosen]
    return Tracks(xy=xy, visible=visible, tracker=tracks.tracker)


def _points_inside(inside: np.ndarray, size: int, minimum: int) -> np.ndarray:
    height, width = inside.shape
    while True:
        rows = (np.arange(size) + 0.5) * height / size
        columns = (np.arange(size) + 0.5) * width / size
        x, y = (axis.ravel() for axis in np.meshgrid(columns, rows))
        keep = inside[y.astype(int), x.astype(int)]
        points = np.stack([x[keep], y[keep]], axis=-1).astype(np.float32)
        if len(points) >= minimum or size >= max(height, width):
            return points
        size = min(2 * size, max(height, width))
