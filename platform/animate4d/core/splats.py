"""A cloud of 3D Gaussians in linear, ready-to-render units (files store logs and logits; see `io.ply`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class SplatCloud:
    """N Gaussians.

    Attributes:
        means: `[N, 3]` float32.
        quats: `[N, 4]` float32 unit quaternions, wxyz.
        scales: `[N, 3]` float32 standard deviations, linear.
        opacities: `[N]` float32 in (0, 1).
        sh: `[N, K, 3]` float32 spherical-harmonic coefficients, K = (degree + 1)^2; RGB = 0.5 + 0.28209479 * sh[:, 0].
    """

    means: np.ndarray
    quats: np.ndarray
    scales: np.ndarray
    opacities: np.ndarray
    sh: np.ndarray
