"""The moving pictures of a bundle: the result and the video it was fitted to, four views side by side, in step.

Between two frames of a slow video, poses are blended linearly so that eight frames a second do not stutter; so does the
exported animation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from animate4d.export.video import view_grid, write_mp4, write_webp_animation

SMOOTH_FPS = 24.0
"""Frame rate from which motion looks fluent; slower videos get blended poses in between, at most four to one."""

MIN_FPS = 1.0
THUMB_PX = 288
COLUMNS = 2
"""Four views make a square, which fills a card or a phone."""

FILE_SECONDS = 4.0
"""Clips are repeated in the MP4 for at least so long: players stop at the end of a file."""


def write_pictures(
    folder: Path, draw: Callable[[int, float], np.ndarray], times: np.ndarray, tick: Callable[[float], None]
) -> None:
    """Write `views.mp4`, `thumb.webp` and `still.webp` of a moved subject.

    Args:
        folder: of the bundle.
        draw: returns `[V, H, W, 3]` uint8 of a frame, or of a share of the way from it to the next.
        times: `[T]` seconds, evenly spaced.
        tick: told the share done.
    """
    fps = frame_rate(times)
    blends = int(np.clip(round(SMOOTH_FPS / fps), 1, 4))
    shown = []
    steps = (len(times) - 1) * blends + 1
    for step in range(steps):
        frame, share = divmod(step, blends)
        shown.append(draw(frame, share / blends))
        tick((step + 1) / steps)
    # The last frame lasts as long as the others, so that this video and the fitted one loop in step.
    shown += [shown[-1]] * (blends - 1)
    grid = view_grid(np.stack(shown, axis=1), columns=COLUMNS)
    write_mp4(folder / "views.mp4", grid, fps * blends, loops=_loops(len(times) / fps))
    height, width = grid.shape[1] * THUMB_PX // grid.shape[2], THUMB_PX
    thumbs = np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in grid])
    # Every other blended frame is enough for a thumbnail, at half the bytes.
    keep = 2 if blends % 2 == 0 else 1
    write_webp_animation(folder / "thumb.webp", thumbs[::keep], fps * blends / keep)
    Image.fromarray(grid[0]).save(folder / "still.webp", "WEBP", quality=90, method=4)


def write_target(path: Path, rgb: np.ndarray, times: np.ndarray) -> None:
    """Write the video that was fitted: `[V, T, H, W, 3]` uint8 on grey."""
    fps = frame_rate(times)
    write_mp4(path, view_grid(rgb, columns=COLUMNS), fps, loops=_loops(len(times) / fps))


def frame_rate(times: np.ndarray) -> float:
    """Return frames per second of evenly spaced times; a clip without duration plays at one."""
    span = float(times[-1] - times[0])
    return max((len(times) - 1) / span, MIN_FPS) if span > 0 else MIN_FPS


def _loops(seconds: float) -> int:
    return max(1, math.ceil(FILE_SECONDS / seconds))
