"""Videos people look at first: MP4, animated WebP, synchronised views side by side."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from animate4d.io.atomic import temporary_name, write_bytes


def write_mp4(path: Path, frames: np.ndarray, fps: float, *, loops: int = 1) -> None:
    """Write an H.264 MP4 that plays everywhere (4:2:0, index first).

    Args:
        path: the file to write; it appears when it is complete.
        frames: `[T, H, W, 3]` uint8. Odd sizes get a last row or column repeated, as 4:2:0 needs even ones.
        fps: frames per second.
        loops: play the clip so many times in the file; short clips are over before one has looked.
    """
    import imageio.v2 as imageio

    _check(frames, fps)
    even = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path).with_suffix(".mp4")
    try:
        writer: Any = imageio.get_writer(
            temporary,
            format="FFMPEG",
            fps=fps,
            codec="libx264",
            pixelformat="yuv420p",
            quality=None,
            macro_block_size=1,
            output_params=["-crf", "16", "-movflags", "+faststart", "-threads", "1"],
        )
        with writer:
            for _ in range(loops):
                for frame in even:
                    writer.append_data(frame)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_webp_animation(path: Path, frames: np.ndarray, fps: float) -> None:
    """Write `[T, H, W, 3 or 4]` uint8 frames as a WebP that repeats for ever."""
    _check(frames, fps)
    pictures = [Image.fromarray(frame) for frame in frames]
    stream = io.BytesIO()
    pictures[0].save(
        stream,
        "WEBP",
        save_all=True,
        append_images=pictures[1:],
        duration=max(1, round(1000 / fps)),
        loop=0,
        quality=85,
        method=2,
    )
    write_bytes(path, stream.getvalue())


def view_grid(video: np.ndarray, *, columns: int | None = None, gap: int = 2) -> np.ndarray:
    """Put synchronised views side by side.

    Args:
        video: `[V, T, H, W, 3]` uint8.
        columns: views a row; all in one row when None.
        gap: dark pixels between views.

    Returns:
        `[T, height, width, 3]` uint8.
    """
    views, count, height, width, channels = video.shape
    columns = views if columns is None else min(columns, views)
    rows = -(-views // columns)
    grid = np.full((count, rows * (height + gap) - gap, columns * (width + gap) - gap, channels), 40, video.dtype)
    for view in range(views):
        top, left = view // columns * (height + gap), view % columns * (width + gap)
        grid[:, top : top + height, left : left + width] = video[view]
    return grid


def _check(frames: np.ndarray, fps: float) -> None:
    if frames.ndim != 4 or frames.shape[-1] not in (3, 4) or frames.dtype != np.uint8 or not len(frames):
        raise ValueError(f"frames are {frames.dtype} {frames.shape}; expected uint8 [T, H, W, 3] with T >= 1")
    if not fps > 0:
        raise ValueError(f"fps is {fps}; expected a positive number")
