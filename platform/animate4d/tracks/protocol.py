"""What every point tracker looks like. Views are tracked one by one: nothing ties a point across views."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from animate4d.core.tracks import Tracks


class PointTracker(Protocol):
    """Follows points through the videos of one clip.

    Attributes:
        id: name and version, part of the key under which labels are kept, for example "opencv-lk/1". It changes
            whenever the same input would give other labels.
    """

    id: str

    def track(
        self, video: np.ndarray, queries: np.ndarray, masks: np.ndarray | None, valid: np.ndarray | None = None
    ) -> Tracks:
        """Follow points that start in frame 0.

        Args:
            video: `[V, T, H, W, 3]` uint8 RGB on a plain background.
            queries: `[V, P, 2]` float32 pixels in frame 0, centres at half-integers.
            masks: `[V, T, H, W]` uint8 coverage of the object; a point that leaves it is lost. None: no such check.
            valid: `[V, P]` bool; the others are padding and may come back as anything. None: all are points.

        Returns:
            Tracks of the same V, T and P in the order of the queries; positions where `visible` is 0 mean nothing.
        """
        ...
