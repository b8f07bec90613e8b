"""Point tracks of a clip. Coordinates are pixels with centres at half-integers (x right, y down)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Tracks:
    """P points followed through T frames in each of V views; every track starts at its query frame.

    Attributes:
        xy: `[V, T, P, 2]` float32 pixels.
        visible: `[V, T, P]` float32 in [0, 1]: visibility times confidence; 0 for padding and for points out of frame.
        tracker: id and version of what made them, for example "exact/1".
    """

    xy: np.ndarray
    visible: np.ndarray
    tracker: str
