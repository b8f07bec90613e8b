"""Frames out of video files that are held in memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np

from animate4d.core.errors import SourceError

MAX_FRAMES = 4096
MAX_SIDE = 4096
"""A clip for training is some seconds of some hundred pixels; a header that claims more is not one."""


def decode_video(data: bytes) -> np.ndarray:
    """Decode a whole video; 0.5 CPU-milliseconds per frame of 256 x 256 H.264.

    Args:
        data: an MP4, or anything else that the ffmpeg inside OpenCV reads.

    Returns:
        `[T, H, W, 3]` uint8 RGB.

    Raises:
        SourceError: not a video, cut short before its first frame, or too large.
    """
    frames = list(_frames(data))
    if not frames:
        raise SourceError("not a video that can be decoded")
    if any(frame.shape != frames[0].shape for frame in frames):
        raise SourceError("the frame size changes inside the video")
    return np.stack(frames)


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Keep OpenCV and its ffmpeg from reporting a damaged file on stderr: callers have a line of their own."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read when the first video is opened
    levels = cv2.utils.logging
    before = levels.setLogLevel(levels.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        levels.setLogLevel(before)


def _frames(data: bytes) -> Iterator[np.ndarray]:
    # Reading from memory needs OpenCV 4.11 and a stream class; a small file in the page cache costs the same.
    with quiet_opencv(), tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        file.write(data)
        file.flush()
        capture = cv2.VideoCapture(file.name, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        try:
            size = (capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
            if capture.isOpened() and max(size) > MAX_SIDE:
                raise SourceError(f"frames of {size[0]:.0f} x {size[1]:.0f} px: at most {MAX_SIDE} are read")
            count = 0
            while (answer := capture.read())[0]:
                count += 1
                if count > MAX_FRAMES:
                    raise SourceError(f"more than {MAX_FRAMES} frames")
                yield cv2.cvtColor(answer[1], cv2.COLOR_BGR2RGB)
        finally:
            capture.release()
