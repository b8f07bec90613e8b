"""Structural similarity of two pictures (Wang et al. 2004), with the two windows that are in use.

Equal to scikit-image's (`uniform7`: its default, sample covariance) and to torchmetrics' and VBench's (`gaussian11`:
sigma 1.5) to rounding; only places where the whole window lies inside the picture count, as in both.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np

Window = Literal["uniform7", "gaussian11"]

K1, K2 = 0.01, 0.03
"""Wang et al. 2004, section III.B."""

SIGMA = 1.5


def ssim(first: np.ndarray, second: np.ndarray, *, window: Window = "uniform7") -> float:
    """Return the mean structural similarity, averaged over channels; 1 for equal pictures.

    Args:
        first: `[H, W]` or `[H, W, C]` in [0, 1], at least as large as the window.
        second: the same shape.
        window: uniform7 (7 x 7 mean, sample covariance) or gaussian11 (11 x 11, sigma 1.5, population covariance).

    Raises:
        ValueError: the shapes differ, or are smaller than the window.
    """
    side = 7 if window == "uniform7" else 11
    if first.shape != second.shape or first.ndim not in (2, 3) or min(first.shape[:2]) < side:
        raise ValueError(
            f"expected two pictures of one shape, at least {side} px, got {first.shape} and {second.shape}"
        )
    x, y = first.astype(np.float64), second.astype(np.float64)
    unbiased = side**2 / (side**2 - 1) if window == "uniform7" else 1.0

    def mean(picture: np.ndarray) -> np.ndarray:
        if window == "uniform7":
            blurred = cv2.blur(picture, (side, side))
        else:
            blurred = cv2.GaussianBlur(picture, (side, side), SIGMA)
        rim = side // 2
        return blurred[rim:-rim, rim:-rim]

    mean_x, mean_y = mean(x), mean(y)
    variances = unbiased * (mean(x * x) - mean_x**2 + mean(y * y) - mean_y**2)
    covariance = unbiased * (mean(x * y) - mean_x * mean_y)
    likeness = (2 * mean_x * mean_y + K1**2) * (2 * covariance + K2**2)
    return float((likeness / ((mean_x**2 + mean_y**2 + K1**2) * (variances + K2**2))).mean())
