"""Point tracks without weights: pyramidal Lucas-Kanade, and chained DIS optical flow where texture is missing.

Measured on 16 x 256 x 256 clips of 225 points, one thread: LK 24 ms and 0.3-0.4 px error on texture, but nearly no
survivor on smooth shading; DIS 230 ms, 0.6-1.9 px, survives on smooth shading too. The forward-backward check does not
notice the aperture problem, so LK also asks for a minimum eigenvalue and hands views with few survivors to DIS.
Neither finds a point again after it was hidden: visibility falls to 0 and stays there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from animate4d.core.tracks import Tracks
from animate4d.tracks.queries import SOLID

LK_WINDOW = (9, 9)
LK_LEVELS = 3
LK_MIN_EIGENVALUE = 1e-3
LK_FORWARD_BACKWARD_PX = 0.5
DIS_FORWARD_BACKWARD_PX = 1.0
Step = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Carries `[P, 2]` points from one `[H, W]` uint8 image to the next: positions and which of them to believe."""

ENOUGH_POINTS = 8
"""Survivors a view needs (the number drawn per step, paper 001) before LK is trusted with it."""


class LucasKanadeTracker:
    """LK, 9 px window, forward-backward check, minimum eigenvalue; DIS for views where too few points survive."""

    id = "opencv-lk/1"

    def track(
        self, video: np.ndarray, queries: np.ndarray, masks: np.ndarray | None, valid: np.ndarray | None = None
    ) -> Tracks:
        """Follow points; see `PointTracker.track`."""
        grey = _grey(video)
        followed = []
        for view in range(len(grey)):
            mask = None if masks is None else masks[view]
            xy, alive = _chain(grey[view], queries[view], mask, _lk_step)
            if alive[-1].sum() < min(ENOUGH_POINTS, len(queries[view])):
                xy, alive = _chain(grey[view], queries[view], mask, _dis_step())
            followed.append((xy, alive))
        return _tracks(followed, self.id)


class DenseInverseSearchTracker:
    """Chained DIS flow (medium preset; the fast presets err by 2.3-2.5 px even on easy clips)."""

    id = "opencv-dis/1"

    def track(
        self, video: np.ndarray, queries: np.ndarray, masks: np.ndarray | None, valid: np.ndarray | None = None
    ) -> Tracks:
        """Follow points; see `PointTracker.track`."""
        step = _dis_step()
        grey = _grey(video)
        followed = [
            _chain(grey[view], queries[view], None if masks is None else masks[view], step) for view in range(len(grey))
        ]
        return _tracks(followed, self.id)


def _grey(video: np.ndarray) -> np.ndarray:
    views, frames, height, width, _ = video.shape
    flat = np.ascontiguousarray(video).reshape(views * frames * height, width, 3)
    return cv2.cvtColor(flat, cv2.COLOR_RGB2GRAY).reshape(views, frames, height, width)


def _chain(grey: np.ndarray, queries: np.ndarray, mask: np.ndarray | None, step: Step) -> tuple[np.ndarray, np.ndarray]:
    """Carry `[P, 2]` points through `[T, H, W]` images: positions `[T, P, 2]`, alive `[T, P]`; lost is lost."""
    height, width = grey.shape[1:]
    # OpenCV counts from the pixel centre, we from the image corner.
    points = queries.astype(np.float32) - 0.5
    alive = np.ones(len(points), bool)
    xy, visible = [points], [alive]
    for frame in range(1, len(grey)):
        moved, kept = step(grey[frame - 1], grey[frame], points)
        column, row = np.rint(np.nan_to_num(moved, nan=-1e6)).astype(int).T
        alive = alive & kept & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        if mask is not None:
            alive = alive & (mask[frame][row.clip(0, height - 1), column.clip(0, width - 1)] >= SOLID)
        points = np.where(alive[:, None], moved, points)
        xy.append(points)
        visible.append(alive)
    return np.stack(xy) + 0.5, np.stack(visible)


def _lk_step(before: np.ndarray, after: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    start = points.reshape(-1, 1, 2)
    moved, found = _lucas_kanade(before, after, start)
    back, returned = _lucas_kanade(after, before, moved)
    error = np.linalg.norm((back - start).reshape(-1, 2), axis=1)
    return moved.reshape(-1, 2), (found[:, 0] == 1) & (returned[:, 0] == 1) & (error < LK_FORWARD_BACKWARD_PX)


def _lucas_kanade(before: np.ndarray, after: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    moved, found, _ = cv2.calcOpticalFlowPyrLK(
        before,
        after,
        points,
        np.zeros_like(points),
        winSize=LK_WINDOW,
        maxLevel=LK_LEVELS,
        minEigThreshold=LK_MIN_EIGENVALUE,
    )
    return moved, found


def _dis_step() -> Step:
    engine: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def step(before: np.ndarray, after: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        moved = points + _at(engine.calc(before, after, None), points)
        back = moved + _at(engine.calc(after, before, None), moved)
        return moved, np.linalg.norm(back - points, axis=1) < DIS_FORWARD_BACKWARD_PX

    return step


def _at(flow: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Read a `[H, W, 2]` flow bilinearly at `[P, 2]` points (OpenCV pixel-centre coordinates)."""
    x, y = points[:, 0], points[:, 1]
    return cv2.remap(flow, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).reshape(-1, 2)


def _tracks(followed: list[tuple[np.ndarray, np.ndarray]], tracker: str) -> Tracks:
    xy = np.stack([positions for positions, _ in followed]).astype(np.float32)
    visible = np.stack([alive for _, alive in followed]).astype(np.float32)
    return Tracks(xy=xy, visible=visible, tracker=tracker)
