"""A clip: V views x T frames of one moving object, with the cameras that saw it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

GREY = 0.5
"""Background value behind every object, in prediction and target alike (released Animate3D configs use 0.5)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MultiViewVideo:
    """Synchronised videos of one object.

    Attributes:
        rgb: `[V, T, H, W, 3]` uint8, straight (not premultiplied by alpha).
        alpha: `[V, T, H, W]` uint8 coverage.
        camera_to_world: `[V, 4, 4]` float64, OpenGL axes.
        intrinsics: `[V, 3, 3]` float64 for images of this size.
        times: `[T]` float64 seconds.
    """

    rgb: np.ndarray
    alpha: np.ndarray
    camera_to_world: np.ndarray
    intrinsics: np.ndarray
    times: np.ndarray

    def on_grey(self) -> np.ndarray:
        """Return `[V, T, H, W, 3]` float32 in [0, 1], composited on the grey background."""
        coverage = self.alpha[..., None].astype(np.float32) / 255.0
        return self.rgb.astype(np.float32) / 255.0 * coverage + GREY * (1.0 - coverage)
